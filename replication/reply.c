/* What a reply says: its rows, and the errors of clusters in our words. */
#include "replication/connection_internal.h"

#include "conf/base/strbuf.h"

#include <stdlib.h>
#include <string.h>

const PGresult *reply_rows(const struct reply *reply)
{
    for (size_t i = reply->count; i > 0; i--) {
        if (PQresultStatus(reply->results[i - 1]) == PGRES_TUPLES_OK) {
            return reply->results[i - 1];
        }
    }
    return NULL;
}

int reply_row_count(const struct reply *reply)
{
    const PGresult *rows = reply_rows(reply);
    return rows == NULL ? 0 : PQntuples(rows);
}

const char *reply_value(const struct reply *reply, int row, int column)
{
    const PGresult *rows = reply_rows(reply);
    if (rows == NULL || row >= PQntuples(rows) || column >= PQnfields(rows) ||
        PQgetisnull(rows, row, column)) {
        return NULL;
    }
    return PQgetvalue(rows, row, column);
}

int64_t reply_int(const struct reply *reply, int row, int column)
{
    const char *value = reply_value(reply, row, column);
    return value == NULL ? 0 : strtoll(value, NULL, 10);
}

uint64_t reply_uint(const struct reply *reply, int row, int column)
{
    const char *value = reply_value(reply, row, column);
    return value == NULL ? 0 : strtoull(value, NULL, 10);
}

bool reply_bool(const struct reply *reply, int row, int column)
{
    const char *value = reply_value(reply, row, column);
    return value != NULL && value[0] == 't';
}

/* It stands where a violated constraint's name would. */
bool reply_owner(const struct reply *reply, uint64_t *owner)
{
    if (reply->ok || strcmp(reply->sqlstate, "SB001") != 0) {
        return false;
    }
    for (size_t i = 0; i < reply->count; i++) {
        const char *name = PQresultErrorField(reply->results[i], PG_DIAG_CONSTRAINT_NAME);
        if (name != NULL) {
            *owner = strtoull(name, NULL, 10);
            return true;
        }
    }
    return false;
}

/* SB...: raised by our own functions (schema.sql). */
static const struct {
    const char *sqlstate;
    enum error_code code;
} codes[] = {
    {"SB001", ERROR_STALE},        /* owner, epoch or flip is not ours */
    {"SB002", ERROR_NOT_IN_SYNC},  /* the marker isn't there */
    {"SB003", ERROR_NOT_PREPARED}, /* tables, slots or subscriptions are not as prepare left them */
    {"SB004", ERROR_UNDECIDED},
    {"SB005", ERROR_CHECK_FAILED}, /* something in the cluster forbids it just now */
    {"57014", ERROR_TIMEOUT},      /* query_canceled: statement_timeout, or our own interruption */
    {"55P03", ERROR_TIMEOUT},      /* lock_not_available: lock_timeout */
};

static enum error_code code_of(const char *sqlstate)
{
    for (size_t i = 0; i < ARRAY_LENGTH(codes); i++) {
        if (strcmp(codes[i].sqlstate, sqlstate) == 0) {
            return codes[i].code;
        }
    }
    return ERROR_SQL;
}

static const char *field(const PGresult *result, int code)
{
    const char *text = PQresultErrorField(result, code);
    return text == NULL ? "" : text;
}

static void describe(struct reply *reply, const PGresult *result, const char *label)
{
    const char *sqlstate = field(result, PG_DIAG_SQLSTATE);
    const char *detail = field(result, PG_DIAG_MESSAGE_DETAIL);
    const char *primary = field(result, PG_DIAG_MESSAGE_PRIMARY);
    strncpy(reply->sqlstate, sqlstate, sizeof reply->sqlstate - 1);
    reply->sqlstate[sizeof reply->sqlstate - 1] = '\0';
    if (*primary == '\0') {
        primary = PQresultErrorMessage(result); /* libpq's own words: their first line says it */
    }
    (void)error_set(&reply->error, code_of(sqlstate), "%s: %.*s%s%s", label, (int)strcspn(primary, "\n"),
                    primary, *detail != '\0' ? ": " : "", detail);
    const char *hint = field(result, PG_DIAG_MESSAGE_HINT);
    bool ours = strncmp(sqlstate, "SB", 2) == 0;
    bool schema_missing = strcmp(sqlstate, "3F000") == 0 && strstr(primary, "switchback") != NULL;
    bool function_missing = strcmp(sqlstate, "42883") == 0 && strstr(primary, "switchback.") != NULL;
    if (schema_missing || function_missing) {
        reply->error.code = ERROR_NOT_PREPARED;
        (void)error_remedy(&reply->error, "run: switchback prepare");
    } else if (ours && *hint != '\0') {
        (void)error_remedy(&reply->error, "%s", hint);
    }
}

void reply_judge(struct reply *reply, const char *label, bool interrupted)
{
    reply->ok = true;
    for (size_t i = 0; i < reply->count; i++) {
        ExecStatusType status = PQresultStatus(reply->results[i]);
        if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK || status == PGRES_EMPTY_QUERY) {
            continue;
        }
        reply->ok = false;
        describe(reply, reply->results[i], label);
        const char *severity = field(reply->results[i], PG_DIAG_SEVERITY_NONLOCALIZED);
        if (reply->sqlstate[0] == '\0' || strcmp(severity, "FATAL") == 0 || strcmp(severity, "PANIC") == 0) {
            reply->uncertain = true;
            reply->error.code = interrupted ? ERROR_TIMEOUT : ERROR_UNREACHABLE;
        }
        return;
    }
}
