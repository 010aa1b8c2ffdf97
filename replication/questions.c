/* Questions of others: a gate's query, types whose oids differ. Logins ask in roles.c. */
#include "replication/procedure.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "replication/sql.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TYPES_WITHIN_US = 10000000 };

/* --- a gate's query --- */

struct query {
    struct replication *replication;
    replication_value_done done;
    void *context;
};

static void query_answered(void *context, const struct reply *reply)
{
    struct query *query = context;
    struct replication_result result = {.ok = reply->ok, .error = reply->error};
    query->done(query->context, &result, reply->ok ? reply_value(reply, 0, 0) : NULL);
    free(query);
}

static void query_refused(void *data, const struct replication_result *result)
{
    struct query *query = data;
    query->done(query->context, result, NULL);
    free(query);
}

static MUST_USE bool find_database(const struct replication *replication, const char *name, size_t *index)
{
    *index = 0;
    if (*name == '\0') {
        return true; /* the first one */
    }
    for (; *index < replication->database_count; (*index)++) {
        if (strcmp(engine_database(replication, *index), name) == 0) {
            return true;
        }
    }
    return false;
}

static void refuse_database(struct replication *replication, const char *name,
                            void (*done)(void *data, const struct replication_result *result), void *data)
{
    struct error error;
    (void)error_set(&error, ERROR_USAGE, "database \"%s\" is not a managed one", name);
    procedure_refuse(
        replication,
        &(struct procedure_plan){
            .name = "refuse", .sides = SIDE_BIT(SIDE_BLUE), .cluster = true, .done = done, .data = data},
        &error);
}

void replication_query(struct replication *replication, enum side side, const char *database, const char *sql,
                       int64_t timeout_us, replication_value_done done, void *context)
{
    struct query *query = calloc(1, sizeof *query);
    ENSURE(query != NULL);
    *query = (struct query){.replication = replication, .done = done, .context = context};
    size_t index;
    if (!find_database(replication, database, &index)) {
        refuse_database(replication, database, query_refused, query);
        return;
    }
    connection_send_single(engine_lane(replication, side, LANE_GATE, index), sql,
                           clock_mono_us() + timeout_us, query_answered, query);
}

/* --- types --- */

/* One type: its oid on the side that was asked about, 0 where it has none. */
struct type {
    char *name;
    uint32_t oid;
};

struct types_question {
    enum side side;
    char *database;
    struct type *types[SIDE_COUNT];
    size_t counts[SIDE_COUNT];
    replication_types_done done;
    void *context;
};

static const char types_sql[] =
    "select format('%I.%I', n.nspname, t.typname), t.oid from pg_type t join pg_namespace n on n.oid ="
    " t.typnamespace where t.oid >= 16384 and n.nspname not in ('switchback', 'information_schema')"
    " and n.nspname !~ '^pg_' order by format('%I.%I', n.nspname, t.typname) collate \"C\"";

static enum verdict judge_types(struct strand *strand, const struct reply *reply, struct error *error)
{
    struct types_question *question = strand->data;
    (void)error;
    size_t count = (size_t)reply_row_count(reply);
    struct type *types = calloc(count + 1, sizeof *types);
    ENSURE(types != NULL);
    for (size_t i = 0; i < count; i++) {
        types[i].name = strdup(reply_value(reply, (int)i, 0));
        types[i].oid = (uint32_t)reply_uint(reply, (int)i, 1);
        ENSURE(types[i].name != NULL);
    }
    question->types[strand->side] = types;
    question->counts[strand->side] = count;
    return VERDICT_NEXT;
}

/* Both lists are sorted by name, bytewise: one walk over them. */
static size_t differing(const struct types_question *question, uint32_t *oids)
{
    const struct type *mine = question->types[question->side];
    const struct type *theirs = question->types[side_other(question->side)];
    size_t my_count = question->counts[question->side],
           their_count = question->counts[side_other(question->side)];
    size_t count = 0, j = 0;
    for (size_t i = 0; i < my_count; i++) {
        while (j < their_count && strcmp(theirs[j].name, mine[i].name) < 0) {
            j++;
        }
        bool there = j < their_count && strcmp(theirs[j].name, mine[i].name) == 0;
        if (!there || theirs[j].oid != mine[i].oid) {
            oids[count++] = mine[i].oid;
        }
    }
    return count;
}

static void types_read(void *data, const struct replication_result *result)
{
    struct types_question *question = data;
    uint32_t *oids = NULL;
    size_t count = 0;
    if (result->ok) {
        oids = calloc(question->counts[question->side] + 1, sizeof *oids);
        ENSURE(oids != NULL);
        count = differing(question, oids);
    }
    question->done(question->context, result, question->database, oids, count);
    free(oids);
    for (int side = 0; side < SIDE_COUNT; side++) {
        for (size_t i = 0; i < question->counts[side]; i++) {
            free(question->types[side][i].name);
        }
        free(question->types[side]);
    }
    free(question->database);
    free(question);
}

static bool is_other_database(const struct strand *strand)
{
    const struct types_question *question = strand->data;
    return strcmp(strand->database_name, question->database) != 0;
}

void replication_differing_types(struct replication *replication, enum side side, const char *database,
                                 replication_types_done done, void *context)
{
    static const struct step steps[] = {{.name = "read types",
                                         .lane = LANE_AUX,
                                         .skip = is_other_database,
                                         .sql = types_sql,
                                         .judge = judge_types}};
    struct types_question *question = calloc(1, sizeof *question);
    ENSURE(question != NULL);
    *question = (struct types_question){
        .side = side,
        .database = strdup(*database != '\0' ? database : engine_database(replication, 0)),
        .done = done,
        .context = context};
    ENSURE(question->database != NULL);
    size_t index;
    if (!find_database(replication, database, &index)) {
        refuse_database(replication, database, types_read, question);
        return;
    }
    (void)procedure_start(replication,
                          &(struct procedure_plan){.name = "differing types",
                                                   .steps = steps,
                                                   .step_count = ARRAY_LENGTH(steps),
                                                   .sides = BOTH_SIDES,
                                                   .deadline_us = clock_mono_us() + TYPES_WITHIN_US,
                                                   .done = types_read,
                                                   .data = question});
}
