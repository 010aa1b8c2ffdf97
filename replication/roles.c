/*
 * What a login needs to know of a role: its verifier, from pg_authid or by the operator's auth.query, whether
 * it may log in and has not expired, and of which roles it is a member. The session has a fixed search_path
 * (connection.h), and the role's name travels as a literal or a parameter.
 */
#include "replication/procedure.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "replication/sql.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROLE_WITHIN_US = 3000000, TOLD_EVERY_US = 1000000, GROUPS_LIMIT = 256 * 1024 };

struct role_question {
    struct replication *replication;
    enum side side;
    replication_role_done done;
    void *context;
    bool valid; /* it has not expired */
    struct replication_role role;
    struct strbuf groups;
    int64_t deadline_us;
    char name[]; /* of the role */
};

/* One line a second says why logins fail. */
static void say_why(const struct role_question *question, const struct error *error)
{
    static int64_t told_us; /* on the loop's thread, as all of this */
    int64_t now_us = clock_mono_us();
    if (told_us == 0 || now_us - told_us > TOLD_EVERY_US) {
        told_us = now_us;
        LOG_WARN("role_not_read", LOG_STR("side", side_name(question->side)), LOG_STR("user", question->name),
                 LOG_STR("error", error->message));
    }
}

static void finish(struct role_question *question, const struct reply *reply)
{
    /* no role's name has bytes that are no characters: nobody is called that */
    bool no_name = !reply->ok && strcmp(reply->sqlstate, "22021") == 0;
    struct replication_result result = {.ok = reply->ok || no_name, .error = reply->error};
    if (question->groups.failed) { /* half a list of groups would let in whom a rule rejects */
        result.ok = error_set(&result.error, ERROR_MEMORY, "the role has too many groups");
    }
    if (!result.ok) {
        say_why(question, &result.error);
    }
    question->role.groups = strbuf_text(&question->groups);
    question->role.groups_length = question->groups.length;
    question->done(question->context, &result, &question->role);
    strbuf_deinit(&question->groups);
    explicit_bzero(&question->role, sizeof question->role);
    free(question);
}

static void keep_verifier(struct role_question *question, const char *verifier)
{
    struct replication_role *role = &question->role;
    if (verifier != NULL && strlen(verifier) < sizeof role->verifier) {
        (void)snprintf(role->verifier, sizeof role->verifier, "%s", verifier);
    }
}

/* --- the operator's query --- */

static void query_answered(void *context, const struct reply *reply)
{
    struct role_question *question = context;
    const PGresult *rows = reply->ok ? reply_rows(reply) : NULL;
    if (!reply->ok) {
        question->role.verifier[0] = '\0';
    } else if (rows == NULL || PQntuples(rows) > 1) {
        LOG_WARN("auth_query_unusable", LOG_STR("user", question->name),
                 LOG_STR("error", rows == NULL ? "it returns no rows at all" : "it returns several rows"));
    } else if (question->role.found && question->valid) {
        keep_verifier(question, reply_value(reply, 0, PQnfields(rows) == 1 ? 0 : 1));
    }
    finish(question, reply);
}

/* --- the role --- */

static void keep_groups(struct role_question *question, const PGresult *rows)
{
    for (int i = 0; i < PQntuples(rows); i++) {
        strbuf_append(&question->groups, PQgetvalue(rows, i, 0), (size_t)PQgetlength(rows, i, 0) + 1);
    }
}

static void role_answered(void *context, const struct reply *reply)
{
    struct role_question *question = context;
    const char *query = engine_settings(question->replication)->auth.query;
    if (!reply->ok || reply->count == 0 || PQntuples(reply->results[0]) != 1) {
        finish(question, reply);
        return;
    }
    const PGresult *row = reply->results[0];
    question->role.found = PQgetvalue(row, 0, 0)[0] == 't';
    question->role.can_login = PQgetvalue(row, 0, 1)[0] == 't';
    question->valid = PQgetvalue(row, 0, 2)[0] == 't';
    question->role.md5 = PQgetvalue(row, 0, 3)[0] == 't';
    question->role.iterations = (uint32_t)strtoul(PQgetvalue(row, 0, 4), NULL, 10);
    if (question->valid && PQgetisnull(row, 0, 5) == 0) {
        keep_verifier(question, PQgetvalue(row, 0, 5));
    }
    if (reply->count > 1) {
        keep_groups(question, reply->results[1]);
    }
    if (query == NULL || query[0] == '\0') {
        finish(question, reply);
        return;
    }
    question->role.verifier[0] = '\0';
    connection_send_parameter(engine_lane(question->replication, question->side, LANE_ROLES, 0), query,
                              question->name, question->deadline_us, query_answered, question);
}

/* With a query of the operator's the manager need not be able to read pg_authid. */
static void ask(struct role_question *question, bool groups)
{
    const char *query = engine_settings(question->replication)->auth.query;
    bool by_query = query != NULL && query[0] != '\0';
    struct strbuf sql;
    strbuf_init(&sql, SQL_LIMIT);
    strbuf_printf(&sql,
                  "select r.oid is not null, coalesce(r.rolcanlogin, false),"
                  " r.rolvaliduntil is null or r.rolvaliduntil > now(),"
                  " current_setting('password_encryption') <> 'scram-sha-256',"
                  " current_setting('scram_iterations', true), %s"
                  " from (select 1) one left join %s r on ",
                  by_query ? "null" : "r.rolpassword", by_query ? "pg_roles" : "pg_authid");
    sql_format(&sql, "r.rolname = %L", question->name);
    if (groups) {
        sql_format(&sql,
                   "; with recursive m(oid) as (select oid from pg_roles where rolname = %L union"
                   " select a.roleid from pg_auth_members a join m on a.member = m.oid)"
                   " select r.rolname from m join pg_roles r on r.oid = m.oid",
                   question->name);
    }
    connection_send(engine_lane(question->replication, question->side, LANE_ROLES, 0), strbuf_text(&sql),
                    question->deadline_us, role_answered, question);
    strbuf_deinit(&sql);
}

void replication_read_role(struct replication *replication, enum side side, const char *role, bool groups,
                           replication_role_done done, void *context)
{
    size_t size = strlen(role) + 1;
    struct role_question *question = calloc(1, sizeof *question + size);
    ENSURE(question != NULL);
    question->replication = replication;
    question->side = side;
    question->done = done;
    question->context = context;
    question->deadline_us = clock_mono_us() + ROLE_WITHIN_US;
    memcpy(question->name, role, size);
    strbuf_init(&question->groups, GROUPS_LIMIT);
    ask(question, groups);
}
