#include "control/daemon/audit.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "control/daemon/store_file.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HASH_SIZE = 65, ACTOR_SIZE = 64, ACTION_SIZE = 64 };

struct audit {
    struct store *store;
};

struct row {
    int64_t seq, time_us, uid;
    const char *actor, *action, *detail, *previous;
};

/* "LENGTH:TEXT;": no two different rows have the same bytes. */
static bool feed(EVP_MD_CTX *digest, const char *text)
{
    char length[32];
    int size = snprintf(length, sizeof(length), "%zu:", strlen(text));
    return EVP_DigestUpdate(digest, length, (size_t)size) == 1 &&
           EVP_DigestUpdate(digest, text, strlen(text)) == 1 && EVP_DigestUpdate(digest, ";", 1) == 1;
}

static bool feed_number(EVP_MD_CTX *digest, int64_t number)
{
    char text[32];
    (void)snprintf(text, sizeof(text), "%" PRId64, number);
    return feed(digest, text);
}

/* SHA-256 over previous, seq, time, uid, actor, action and detail, each as LENGTH:TEXT; in lower-case hex. */
static void hash_row(const struct row *row, char hash[HASH_SIZE])
{
    unsigned char bytes[EVP_MAX_MD_SIZE];
    unsigned length = 0;
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    ENSURE(digest != NULL && EVP_DigestInit_ex(digest, EVP_sha256(), NULL) == 1 &&
           feed(digest, row->previous) && feed_number(digest, row->seq) &&
           feed_number(digest, row->time_us) && feed_number(digest, row->uid) && feed(digest, row->actor) &&
           feed(digest, row->action) && feed(digest, row->detail) &&
           EVP_DigestFinal_ex(digest, bytes, &length) == 1);
    EVP_MD_CTX_free(digest);
    ENSURE(length * 2 + 1 == HASH_SIZE);
    for (unsigned i = 0; i < length; i++) {
        (void)snprintf(hash + (size_t)i * 2, 3, "%02x", bytes[i]);
    }
}

/* --- append --- */

struct append {
    struct store_job job;
    int64_t time_us, uid;
    char actor[ACTOR_SIZE], action[ACTION_SIZE];
    char *detail;
};

/* The newest row's number and hash: what the next one continues. */
static bool read_head(sqlite3 *database, int64_t *seq, char hash[HASH_SIZE])
{
    sqlite3_stmt *statement = NULL;
    *seq = 0;
    hash[0] = '\0';
    int step = SQLITE_ERROR;
    if (sqlite3_prepare_v2(database, "select seq, hash from audit order by seq desc limit 1", -1, &statement,
                           NULL) == SQLITE_OK) {
        step = sqlite3_step(statement);
        if (step == SQLITE_ROW) {
            *seq = sqlite3_column_int64(statement, 0);
            const char *text = (const char *)sqlite3_column_text(statement, 1);
            (void)snprintf(hash, HASH_SIZE, "%s", text == NULL ? "" : text);
        }
    }
    sqlite3_finalize(statement);
    return step == SQLITE_ROW || step == SQLITE_DONE;
}

static bool append_run(struct store_job *job, struct sqlite3 *database, struct error *error)
{
    const struct append *append = CONTAINER_OF(job, struct append, job);
    struct row row = {.time_us = append->time_us,
                      .uid = append->uid,
                      .actor = append->actor,
                      .action = append->action,
                      .detail = append->detail};
    char previous[HASH_SIZE], hash[HASH_SIZE];
    sqlite3_stmt *statement = NULL;
    if (!read_head(database, &row.seq, previous) ||
        sqlite3_prepare_v2(database, "insert into audit values (?, ?, ?, ?, ?, ?, ?, ?)", -1, &statement,
                           NULL) != SQLITE_OK) {
        return store_failed(database, "the audit log can't be written", error);
    }
    row.seq++;
    row.previous = previous;
    hash_row(&row, hash);
    sqlite3_bind_int64(statement, 1, row.seq);
    sqlite3_bind_int64(statement, 2, row.time_us);
    sqlite3_bind_int64(statement, 3, row.uid);
    sqlite3_bind_text(statement, 4, row.actor, -1, SQLITE_STATIC);
    sqlite3_bind_text(statement, 5, row.action, -1, SQLITE_STATIC);
    sqlite3_bind_text(statement, 6, row.detail, -1, SQLITE_STATIC);
    sqlite3_bind_text(statement, 7, row.previous, -1, SQLITE_STATIC);
    sqlite3_bind_text(statement, 8, hash, -1, SQLITE_STATIC);
    bool ok = sqlite3_step(statement) == SQLITE_DONE;
    if (!ok) {
        store_failed(database, "the audit log can't be written", error);
    }
    sqlite3_finalize(statement);
    return ok;
}

static void append_done(struct store_job *job, const struct error *error)
{
    struct append *append = CONTAINER_OF(job, struct append, job);
    if (error != NULL) {
        LOG_ERROR("audit_lost", LOG_STR("actor", append->actor), LOG_STR("action", append->action),
                  LOG_STR("detail", append->detail), LOG_STR("error", error->message));
    }
    free(append->detail);
    free(append);
}

void audit_append(struct audit *audit, int64_t uid, const char *actor, const char *action, json_t *detail)
{
    struct append *append = store_job_new(sizeof(*append));
    append->job.run = append_run;
    append->job.done = append_done;
    append->time_us = clock_wall_us();
    append->uid = uid;
    (void)snprintf(append->actor, sizeof(append->actor), "%s", actor);
    (void)snprintf(append->action, sizeof(append->action), "%s", action);
    append->detail = detail == NULL ? strdup("{}") : json_dumps(detail, JSON_COMPACT | JSON_SORT_KEYS);
    ENSURE(append->detail != NULL);
    json_decref(detail);
    store_write(audit->store, &append->job);
}

void audit_decision(struct audit *audit, const char *action, json_t *detail)
{
    audit_append(audit, AUDIT_NOBODY, "switchback", action, detail);
}

/* --- list --- */

struct list {
    struct store_job job;
    uint64_t after;
    size_t limit;
    json_t *rows;
    audit_list_done done;
    void *context;
};

static const char *column_text(sqlite3_stmt *statement, int column)
{
    const char *text = (const char *)sqlite3_column_text(statement, column);
    return text == NULL ? "" : text;
}

static json_t *row_json(sqlite3_stmt *statement)
{
    char time[CLOCK_TEXT_SIZE];
    json_t *detail = json_loads(column_text(statement, 5), 0, NULL);
    return json_pack("{s:I, s:s, s:I, s:s, s:s, s:o, s:s}", "seq",
                     (json_int_t)sqlite3_column_int64(statement, 0), "time",
                     clock_format(sqlite3_column_int64(statement, 1), time), "uid",
                     (json_int_t)sqlite3_column_int64(statement, 2), "actor", column_text(statement, 3),
                     "action", column_text(statement, 4), "detail", detail == NULL ? json_null() : detail,
                     "hash", column_text(statement, 6));
}

static bool list_run(struct store_job *job, struct sqlite3 *database, struct error *error)
{
    struct list *list = CONTAINER_OF(job, struct list, job);
    list->rows = json_array();
    sqlite3_stmt *statement = NULL;
    int step = SQLITE_ERROR;
    if (sqlite3_prepare_v2(database,
                           "select * from (select seq, time, uid, actor, action, detail, hash from audit "
                           "where seq > ? order by seq desc limit ?) order by seq",
                           -1, &statement, NULL) == SQLITE_OK) {
        sqlite3_bind_int64(statement, 1, (sqlite3_int64)list->after);
        sqlite3_bind_int64(statement, 2, (sqlite3_int64)list->limit);
        while ((step = sqlite3_step(statement)) == SQLITE_ROW) {
            json_array_append_new(list->rows, row_json(statement));
        }
    }
    if (step != SQLITE_DONE) {
        store_failed(database, "the audit log can't be read", error);
    }
    sqlite3_finalize(statement);
    return step == SQLITE_DONE;
}

static void list_done(struct store_job *job, const struct error *error)
{
    struct list *list = CONTAINER_OF(job, struct list, job);
    list->done(list->context, list->rows, error);
    json_decref(list->rows);
    free(list);
}

void audit_list(struct audit *audit, uint64_t after, size_t limit, audit_list_done done, void *context)
{
    struct list *list = store_job_new(sizeof(*list));
    list->job.run = list_run;
    list->job.done = list_done;
    list->after = after;
    list->limit = limit;
    list->done = done;
    list->context = context;
    store_read(audit->store, &list->job);
}

/* --- verify --- */

struct verify {
    struct store_job job;
    struct audit_verdict verdict;
    audit_verify_done done;
    void *context;
};

/* Judges one row against what the rows before it led to; false: it doesn't fit, and the verdict says why. */
static bool verify_row(struct audit_verdict *verdict, const struct row *row, const char *stored)
{
    int64_t expected = (int64_t)verdict->rows + 1;
    char hash[HASH_SIZE];
    hash_row(row, hash);
    if (row->seq != expected) {
        (void)snprintf(verdict->reason, sizeof(verdict->reason), "row %" PRId64 " is missing", expected);
        verdict->broken_seq = (uint64_t)expected;
    } else if (strcmp(row->previous, verdict->last_hash) != 0) {
        (void)snprintf(verdict->reason, sizeof(verdict->reason),
                       "row %" PRId64 " doesn't continue the row before it", row->seq);
        verdict->broken_seq = (uint64_t)row->seq;
    } else if (strcmp(stored, hash) != 0) {
        (void)snprintf(verdict->reason, sizeof(verdict->reason), "row %" PRId64 " was changed", row->seq);
        verdict->broken_seq = (uint64_t)row->seq;
    } else {
        memcpy(verdict->last_hash, hash, HASH_SIZE);
        verdict->rows++;
        return true;
    }
    return false;
}

static bool verify_run(struct store_job *job, struct sqlite3 *database, struct error *error)
{
    struct audit_verdict *verdict = &CONTAINER_OF(job, struct verify, job)->verdict;
    sqlite3_stmt *statement = NULL;
    int step = SQLITE_ERROR;
    *verdict = (struct audit_verdict){.intact = true};
    if (sqlite3_prepare_v2(database,
                           "select seq, time, uid, actor, action, detail, previous, hash from audit "
                           "order by seq",
                           -1, &statement, NULL) == SQLITE_OK) {
        while (verdict->intact && (step = sqlite3_step(statement)) == SQLITE_ROW) {
            struct row row = {.seq = sqlite3_column_int64(statement, 0),
                              .time_us = sqlite3_column_int64(statement, 1),
                              .uid = sqlite3_column_int64(statement, 2),
                              .actor = column_text(statement, 3),
                              .action = column_text(statement, 4),
                              .detail = column_text(statement, 5),
                              .previous = column_text(statement, 6)};
            verdict->intact = verify_row(verdict, &row, column_text(statement, 7));
        }
    }
    bool ok = step == SQLITE_DONE || (step == SQLITE_ROW && !verdict->intact);
    if (!ok) {
        store_failed(database, "the audit log can't be read", error);
    }
    sqlite3_finalize(statement);
    return ok;
}

static void verify_done(struct store_job *job, const struct error *error)
{
    struct verify *verify = CONTAINER_OF(job, struct verify, job);
    verify->done(verify->context, &verify->verdict, error);
    free(verify);
}

void audit_verify(struct audit *audit, audit_verify_done done, void *context)
{
    struct verify *verify = store_job_new(sizeof(*verify));
    verify->job.run = verify_run;
    verify->job.done = verify_done;
    verify->done = done;
    verify->context = context;
    store_read(audit->store, &verify->job);
}

/* --- life --- */

struct audit *audit_new(struct store *store, struct error *error)
{
    struct audit *audit = calloc(1, sizeof(*audit));
    if (audit == NULL) {
        error_set(error, ERROR_MEMORY, "out of memory");
        return NULL;
    }
    audit->store = store;
    return audit;
}

void audit_free(struct audit *audit)
{
    free(audit);
}
