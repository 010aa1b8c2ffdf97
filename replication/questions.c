/* Questions of others: a gate's query, types whose oids differ. Logins ask in roles.c. */
#include "replication/procedure.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "replication/sql.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TYPES_WITHIN_US = 2000000 };

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

struct types_question {
    char *database;
    struct replication_type *types[SIDE_COUNT]; /* by name, bytewise, with the oids of one side */
    size_t counts[SIDE_COUNT];
    replication_types_done done;
    void *context;
};

/* An array is known by its element: what its own name is depends on which names were free. A multirange's
 * range is told from 14 on. */
static const char types_sql[] =
    "select (case when e.oid is null then format('%I.%I', n.nspname, t.typname)"
    " else format('%I.%I[]', m.nspname, e.typname) end) collate \"C\", t.oid, case when e.oid is not null "
    "then 'a' when"
    " t.typtype in ('c', 'd', 'r', 'm') then t.typtype::text else '' end, coalesce(e.oid, r.rngsubtype,"
    " mr.rngtypid, t.typbasetype) from pg_type t join pg_namespace n on n.oid = t.typnamespace left join "
    "pg_type"
    " e on e.oid = t.typelem and e.typarray = t.oid left join pg_namespace m on m.oid = e.typnamespace left "
    "join"
    " pg_range r on r.rngtypid = t.oid left join pg_range mr on (to_jsonb(mr)->>'rngmultitypid')::oid = t.oid"
    " where t.oid >= 16384 and n.nspname not in ('switchback', 'information_schema') and n.nspname !~ '^pg_'"
    " order by 1";

static enum replication_type_kind kind_of(const char *letter)
{
    switch (letter[0]) {
    case 'a':
        return REPLICATION_TYPE_ARRAY;
    case 'c':
        return REPLICATION_TYPE_COMPOSITE;
    case 'd':
        return REPLICATION_TYPE_DOMAIN;
    case 'r':
        return REPLICATION_TYPE_RANGE;
    case 'm':
        return REPLICATION_TYPE_MULTIRANGE;
    default:
        return REPLICATION_TYPE_PLAIN;
    }
}

static enum verdict judge_types(struct strand *strand, const struct reply *reply, struct error *error)
{
    struct types_question *question = strand->data;
    (void)error;
    size_t count = (size_t)reply_row_count(reply);
    struct replication_type *types = calloc(count + 1, sizeof *types);
    ENSURE(types != NULL);
    for (size_t i = 0; i < count; i++) {
        types[i].name = strdup(reply_value(reply, (int)i, 0));
        types[i].oids[strand->side] = (uint32_t)reply_uint(reply, (int)i, 1);
        types[i].kind = kind_of(reply_value(reply, (int)i, 2));
        types[i].related[strand->side] = (uint32_t)reply_uint(reply, (int)i, 3);
        ENSURE(types[i].name != NULL);
    }
    question->types[strand->side] = types;
    question->counts[strand->side] = count;
    return VERDICT_NEXT;
}

/* One list of both, which are sorted. The names are borrowed. */
static size_t merge_types(const struct types_question *question, struct replication_type *merged)
{
    const struct replication_type *blue = question->types[SIDE_BLUE], *green = question->types[SIDE_GREEN];
    size_t count = 0, i = 0, j = 0;
    while (i < question->counts[SIDE_BLUE] || j < question->counts[SIDE_GREEN]) {
        int order = i == question->counts[SIDE_BLUE]    ? 1
                    : j == question->counts[SIDE_GREEN] ? -1
                                                        : strcmp(blue[i].name, green[j].name);
        struct replication_type *type = &merged[count++];
        *type = order <= 0 ? blue[i++] : green[j];
        if (order >= 0) {
            type->oids[SIDE_GREEN] = green[j].oids[SIDE_GREEN];
            type->related[SIDE_GREEN] = green[j].related[SIDE_GREEN];
            j++;
        }
    }
    return count;
}

static void types_read(void *data, const struct replication_result *result)
{
    struct types_question *question = data;
    size_t most = question->counts[SIDE_BLUE] + question->counts[SIDE_GREEN];
    struct replication_type *merged = calloc(most + 1, sizeof *merged);
    ENSURE(merged != NULL);
    size_t count = result->ok ? merge_types(question, merged) : 0;
    question->done(question->context, result, question->database, merged, count);
    free(merged);
    for (int side = 0; side < SIDE_COUNT; side++) {
        for (size_t i = 0; i < question->counts[side]; i++) {
            free(question->types[side][i].name);
        }
        free(question->types[side]);
    }
    free(question->database);
    free(question);
}

/* Nobody holds clients to wait for a side that is known to be lost. */
static bool is_lost(const struct replication *replication)
{
    struct replication_sample sample;
    replication_sample(replication, &sample);
    return sample.taken_us != 0 && !(sample.sides[SIDE_BLUE].reachable && sample.sides[SIDE_GREEN].reachable);
}

static bool is_other_database(const struct strand *strand)
{
    const struct types_question *question = strand->data;
    return strcmp(strand->database_name, question->database) != 0;
}

void replication_read_types(struct replication *replication, const char *database,
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
        .database = strdup(*database != '\0' ? database : engine_database(replication, 0)),
        .done = done,
        .context = context};
    ENSURE(question->database != NULL);
    size_t index;
    if (!find_database(replication, database, &index)) {
        refuse_database(replication, database, types_read, question);
        return;
    }
    if (is_lost(replication)) {
        struct error error;
        (void)error_set(&error, ERROR_UNREACHABLE, "a side doesn't answer");
        procedure_refuse(
            replication,
            &(struct procedure_plan){
                .name = "types", .sides = BOTH_SIDES, .cluster = true, .done = types_read, .data = question},
            &error);
        return;
    }
    (void)procedure_start(replication,
                          &(struct procedure_plan){.name = "types",
                                                   .steps = steps,
                                                   .step_count = ARRAY_LENGTH(steps),
                                                   .sides = BOTH_SIDES,
                                                   .deadline_us = clock_mono_us() + TYPES_WITHIN_US,
                                                   .done = types_read,
                                                   .data = question});
}
