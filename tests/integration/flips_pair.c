#include "tests/integration/flips_pair.h"

#include "conf/base/clock.h"
#include "replication/names.h"
#include "replication/schema.h"
#include "replication/sql.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ACCOUNTS = 5000, SEQUENCES = 50, PADS = 46, LIMIT = 64 << 20 };

/* --- SQL, blocking: this is a test --- */

static PGconn *dial(const struct pair *pair, enum side side, const char *database, const char *user)
{
    char conninfo[512];
    (void)snprintf(
        conninfo, sizeof conninfo,
        "host=%s port=%d dbname=%s user=%s sslmode=disable application_name=flips connect_timeout=5",
        pair->settings.sides[side].host, (int)pair->settings.sides[side].port, database, user);
    return PQconnectdb(conninfo);
}

static void die(PGconn *connection, const char *sql)
{
    (void)fprintf(stderr, "%.200s\n%s", sql, PQerrorMessage(connection));
    exit(1);
}

/* The last result; the caller clears it. Ends the test on an error. */
static PGresult *run(PGconn *connection, const char *sql)
{
    PGresult *result = PQexec(connection, sql);
    ExecStatusType status = PQresultStatus(result);
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
        die(connection, sql);
    }
    return result;
}

static void execute(PGconn *connection, const char *format, ...) PRINTF_LIKE(2, 3);

static void execute(PGconn *connection, const char *format, ...)
{
    char *text = NULL;
    va_list arguments;
    va_start(arguments, format);
    int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    if (length >= 0) {
        PQclear(run(connection, text));
    }
    free(text);
}

static char *value(PGconn *connection, const char *sql)
{
    PGresult *result = run(connection, sql);
    char *copy = strdup(PQntuples(result) > 0 ? PQgetvalue(result, 0, 0) : "");
    PQclear(result);
    return copy;
}

/* An admin connection that survives a crash of its cluster. */
static PGconn *admin(struct pair *pair, enum side side, size_t database)
{
    PGconn **connection = &pair->admin[side][database];
    for (int attempt = 0; attempt < 200; attempt++) {
        if (*connection != NULL && PQstatus(*connection) == CONNECTION_OK) {
            PGresult *alive = PQexec(*connection, "set session_replication_role = replica");
            bool ok = PQresultStatus(alive) == PGRES_COMMAND_OK;
            PQclear(alive);
            if (ok) {
                return *connection;
            }
        }
        PQfinish(*connection);
        /* named as the manager's, so that the fence leaves it alone */
        *connection = dial(pair, side, pair->database_names[database], "switchback");
        PGresult *named = PQexec(*connection, "set application_name = 'switchback test'");
        PQclear(named);
        if (PQstatus(*connection) != CONNECTION_OK) {
            (void)usleep(50000);
        }
    }
    die(*connection, "connect");
    return NULL;
}

/* --- making the pair --- */

void pair_init(struct pair *pair, const char *const address[SIDE_COUNT], size_t databases, size_t writers)
{
    pair->loop = uv_default_loop();
    pair->database_count = databases < MAX_DATABASES ? databases : MAX_DATABASES;
    pair->writer_count = writers < MAX_WRITERS ? writers : MAX_WRITERS;
    for (int side = 0; side < SIDE_COUNT; side++) {
        const char *colon = strrchr(address[side], ':');
        pair->settings.sides[side].host = strndup(address[side], (size_t)(colon - address[side]));
        pair->settings.sides[side].port = strtol(colon + 1, NULL, 10);
    }
    for (size_t i = 0; i < pair->database_count; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "app%zu", i);
        pair->database_names[i] = strdup(name);
    }
    pair->settings.databases =
        (struct settings_list){.items = pair->database_names, .count = pair->database_count};
    pair->settings.manager.user = strdup("switchback");
    pair->settings.manager.password = strdup("");
    pair->tags = calloc(TAGS_KEPT, 1);
    (void)pthread_mutex_init(&pair->lock, NULL);
    (void)pthread_cond_init(&pair->arrived, NULL);
    (void)pthread_cond_init(&pair->changed, NULL);
}

void pair_deinit(struct pair *pair)
{
    for (int side = 0; side < SIDE_COUNT; side++) {
        free(pair->settings.sides[side].host);
        for (size_t i = 0; i < pair->database_count; i++) {
            PQfinish(pair->admin[side][i]);
        }
    }
    for (size_t i = 0; i < pair->database_count; i++) {
        free(pair->database_names[i]);
    }
    free(pair->settings.manager.user);
    free(pair->settings.manager.password);
    free(pair->tags);
}

static const char tables_sql[] =
    "create table acc(id int primary key, bal bigint not null default 0, f text);"
    "create table tel(id int primary key, bal bigint not null default 0);"
    "create table br(id int primary key, bal bigint not null default 0);"
    "create table hist(id bigserial primary key, tag bigint unique, aid int, delta int, at timestamptz "
    "default now());"
    "create table part(id bigint, k int, primary key(id, k)) partition by list (k);"
    "create table part0 partition of part for values in (0); create table part1 partition of part for values "
    "in (1);"
    "create sequence odd increment -7 start -3; create sequence unused start 42; select setval('unused', 77, "
    "false);";

static void create_tables(PGconn *connection)
{
    execute(connection, "%s", tables_sql);
    execute(
        connection,
        "do $$ begin for i in 1..%d loop execute format('create sequence sq%%s', i); end loop;"
        " for i in 1..%d loop execute format('create table pad%%s(id int primary key)', i); end loop; end $$",
        SEQUENCES, PADS);
}

static void install(struct pair *pair, enum side side, size_t database)
{
    PGconn *connection = admin(pair, side, database);
    struct strbuf sql;
    strbuf_init(&sql, SQL_LIMIT);
    const struct schema_identity identity = {.side = side,
                                             .standing =
                                                 side == SIDE_BLUE ? STANDING_ACTIVE : STANDING_STANDBY,
                                             .epoch = 1,
                                             .pair = "flips"};
    PQclear(run(connection, "set search_path = pg_catalog"));
    for (int again = 0; again < 2; again++) { /* the second time it changes nothing */
        strbuf_clear(&sql);
        schema_install(&sql, &pair->settings, &identity);
        PQclear(run(connection, strbuf_text(&sql)));
        strbuf_clear(&sql);
        schema_fences(&sql);
        PQclear(run(connection, strbuf_text(&sql)));
    }
    strbuf_deinit(&sql);
    char *tables =
        value(connection, "select string_agg(name, ', ') from switchback.managed_table where leaf");
    execute(connection, "create publication %s for table %s, switchback.marker", names_publication(side),
            tables);
    free(tables);
}

static void subscribe(struct pair *pair, enum side subscriber, size_t database, bool copy)
{
    enum side publisher = side_other(subscriber);
    char slot[NAMES_SLOT_SIZE];
    names_slot(publisher, pair->database_names[database], slot);
    execute(admin(pair, publisher, database), "select pg_create_logical_replication_slot('%s', 'pgoutput')",
            slot);
    execute(
        admin(pair, subscriber, database),
        "create subscription %s connection 'host=%s port=%d user=switchback dbname=%s application_name=%s'"
        " publication %s with (create_slot = false, slot_name = '%s', copy_data = %s, enabled = %s,"
        " synchronous_commit = local)",
        names_subscription(publisher), pair->settings.sides[publisher].host,
        (int)pair->settings.sides[publisher].port, pair->database_names[database], slot,
        names_publication(publisher), slot, copy ? "true" : "false", copy ? "true" : "false");
}

static void wait_for_copy(struct pair *pair, size_t database)
{
    for (int attempt = 0; attempt < 600; attempt++) {
        char *left = value(admin(pair, SIDE_GREEN, database),
                           "select count(*) filter (where srsubstate <> 'r') + (count(*) = 0)::int"
                           " from pg_subscription_rel");
        bool done = strcmp(left, "0") == 0;
        free(left);
        if (done) {
            return;
        }
        (void)usleep(50000);
    }
    (void)fprintf(stderr, "the initial copy did not end\n");
    exit(1);
}

void pair_create(struct pair *pair)
{
    for (int side = 0; side < SIDE_COUNT; side++) {
        PGconn *first = dial(pair, (enum side)side, "postgres", "postgres");
        execute(first, "do $$ begin if to_regrole('switchback') is null then"
                       " create role switchback superuser login; end if; end $$");
        execute(first, "create role app superuser login"); /* whom only the fence keeps out */
        for (size_t i = 0; i < pair->database_count; i++) {
            execute(first, "create database %s", pair->database_names[i]);
        }
        PQfinish(first);
        for (size_t i = 0; i < pair->database_count; i++) {
            PGconn *connection = admin(pair, (enum side)side, i);
            create_tables(connection);
            if (side == SIDE_BLUE) {
                execute(connection,
                        "insert into acc select g, 0, repeat('x', 60) from generate_series(1, %d) g",
                        ACCOUNTS);
                execute(connection, "insert into tel select g, 0 from generate_series(1, 100) g");
                execute(connection, "insert into br select g, 0 from generate_series(1, 10) g");
            }
            install(pair, (enum side)side, i);
        }
    }
    for (size_t i = 0; i < pair->database_count; i++) {
        subscribe(pair, SIDE_GREEN, i, true);
        wait_for_copy(pair, i);
        subscribe(pair, SIDE_BLUE, i, false);
    }
}

/* --- writers --- */

static int pick(struct writer *writer, int below)
{
    return rand_r(&writer->seed) % below;
}

static bool try_execute(PGconn *connection, const char *sql)
{
    PGresult *result = PQexec(connection, sql);
    ExecStatusType status = PQresultStatus(result);
    PQclear(result);
    return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
}

static uint64_t new_tag(struct pair *pair)
{
    (void)pthread_mutex_lock(&pair->lock);
    uint64_t tag = ++pair->next_tag;
    (void)pthread_mutex_unlock(&pair->lock);
    if (tag >= TAGS_KEPT) {
        (void)fprintf(stderr, "too many transactions for one run\n");
        exit(1);
    }
    return tag;
}

static void write_once(struct writer *writer, enum side active)
{
    struct pair *pair = writer->pair;
    PGconn *connection = writer->connection[active];
    uint64_t tag = new_tag(pair);
    int delta = pick(writer, 199) - 99;
    char work[1024];
    (void)snprintf(
        work, sizeof work,
        "begin; update acc set bal = bal + %d where id = %d; update tel set bal = bal + %d where id = %d;"
        " update br set bal = bal + %d where id = %d;"
        " insert into hist(tag, aid, delta) values (%" PRIu64 ", 1, %d);"
        " insert into part values (%" PRIu64 ", %d); delete from part where id < %" PRId64 ";"
        " select nextval('sq%d'), nextval('odd')",
        delta, 1 + pick(writer, ACCOUNTS), delta, 1 + pick(writer, 100), delta, 1 + pick(writer, 10), tag,
        delta, tag, pick(writer, 2), (int64_t)tag - 1000, 1 + pick(writer, SEQUENCES));
    bool done = try_execute(connection, work);
    bool acknowledged = done && try_execute(connection, "commit");
    bool broken = PQstatus(connection) != CONNECTION_OK;
    if (!acknowledged && !broken) {
        (void)fprintf(stderr, "writer on %s: %s", side_name(active), PQerrorMessage(connection));
        (void)try_execute(connection, "rollback");
    }
    (void)pthread_mutex_lock(&pair->lock);
    pair->tags[tag] = acknowledged ? 1 : done ? 2 : 0;
    pair->acknowledged += acknowledged ? 1 : 0;
    pair->errors += acknowledged || pair->lossy ? 0 : 1;
    (void)pthread_mutex_unlock(&pair->lock);
}

static bool wait_at_boundary(struct writer *writer, enum side *active)
{
    struct pair *pair = writer->pair;
    (void)pthread_mutex_lock(&pair->lock);
    pair->at_boundary++;
    (void)pthread_cond_signal(&pair->arrived);
    while (pair->held && !pair->stopping) {
        (void)pthread_cond_wait(&pair->changed, &pair->lock);
    }
    pair->at_boundary--;
    *active = pair->active;
    bool go_on = !pair->stopping;
    (void)pthread_mutex_unlock(&pair->lock);
    return go_on;
}

static void *write_on(void *argument)
{
    struct writer *writer = argument;
    enum side active;
    while (wait_at_boundary(writer, &active)) {
        PGconn **connection = &writer->connection[active];
        if (PQstatus(*connection) != CONNECTION_OK) {
            PQfinish(*connection);
            *connection = dial(writer->pair, active, writer->pair->database_names[writer->database], "app");
            (void)usleep(20000);
            continue;
        }
        write_once(writer, active);
    }
    return NULL;
}

static void collect_pids(struct pair *pair)
{
    pair->pid_count = 0;
    for (size_t i = 0; i < pair->writer_count; i++) {
        for (int side = 0; side < SIDE_COUNT; side++) {
            pair->pids[pair->pid_count++] = PQbackendPID(pair->writers[i].connection[side]);
        }
    }
}

void pair_start(struct pair *pair, enum side active)
{
    pair->active = active;
    for (size_t i = 0; i < pair->writer_count; i++) {
        struct writer *writer = &pair->writers[i];
        *writer =
            (struct writer){.pair = pair, .database = i % pair->database_count, .seed = (unsigned)i + 1};
        for (int side = 0; side < SIDE_COUNT; side++) {
            writer->connection[side] =
                dial(pair, (enum side)side, pair->database_names[writer->database], "app");
        }
    }
    for (size_t i = 0; i < pair->writer_count; i++) {
        (void)pthread_create(&pair->writers[i].thread, NULL, write_on, &pair->writers[i]);
    }
}

void pair_hold(struct pair *pair)
{
    (void)pthread_mutex_lock(&pair->lock);
    pair->held = true;
    while (pair->at_boundary < pair->writer_count) {
        (void)pthread_cond_wait(&pair->arrived, &pair->lock);
    }
    collect_pids(pair);
    (void)pthread_mutex_unlock(&pair->lock);
}

void pair_release(struct pair *pair, enum side active, bool lossy)
{
    (void)pthread_mutex_lock(&pair->lock);
    pair->held = false;
    pair->active = active;
    pair->lossy = pair->lossy || lossy;
    (void)pthread_cond_broadcast(&pair->changed);
    (void)pthread_mutex_unlock(&pair->lock);
}

void pair_stop(struct pair *pair)
{
    (void)pthread_mutex_lock(&pair->lock);
    pair->stopping = true;
    (void)pthread_cond_broadcast(&pair->changed);
    (void)pthread_mutex_unlock(&pair->lock);
    for (size_t i = 0; i < pair->writer_count; i++) {
        (void)pthread_join(pair->writers[i].thread, NULL);
        PQfinish(pair->writers[i].connection[SIDE_BLUE]);
        PQfinish(pair->writers[i].connection[SIDE_GREEN]);
    }
}

/* --- comparing --- */

static bool same(struct pair *pair, size_t database, const char *what, const char *sql)
{
    char *blue = value(admin(pair, SIDE_BLUE, database), sql);
    char *green = value(admin(pair, SIDE_GREEN, database), sql);
    bool equal = strcmp(blue, green) == 0;
    if (!equal) {
        printf("%s of %s differ:\n  blue  %.300s\n  green %.300s\n", what, pair->database_names[database],
               blue, green);
    }
    free(blue);
    free(green);
    return equal;
}

bool pair_compare(struct pair *pair, const char *when)
{
    static const char *const tables[] = {"acc", "tel", "br", "hist", "part", "pad1"};
    bool equal = true;
    for (size_t database = 0; database < pair->database_count; database++) {
        for (size_t i = 0; i < ARRAY_LENGTH(tables); i++) {
            char sql[256], what[64];
            (void)snprintf(sql, sizeof sql,
                           "select count(*) || ' ' || coalesce(md5(string_agg(t::text, ',' order by id)), '')"
                           " from public.%s t",
                           tables[i]);
            (void)snprintf(what, sizeof what, "%s: rows of %s", when, tables[i]);
            equal = same(pair, database, what, sql) && equal;
        }
        char *sums = value(admin(pair, SIDE_BLUE, database),
                           "select (select sum(bal) from public.acc) = (select sum(bal) from public.tel) and"
                           " (select sum(bal) from public.tel) = (select sum(bal) from public.br)");
        if (strcmp(sums, "t") != 0) {
            printf("%s: the sums of %s don't agree\n", when, pair->database_names[database]);
            equal = false;
        }
        free(sums);
    }
    return equal;
}

void pair_compare_sequences(struct pair *pair)
{
    struct strbuf sql;
    strbuf_init(&sql, LIMIT);
    strbuf_puts(&sql,
                "select (select last_value || ' ' || is_called from public.odd), (select last_value || ' ' ||"
                " is_called from public.unused)");
    for (int i = 1; i <= SEQUENCES; i++) {
        strbuf_printf(&sql, ", (select last_value from public.sq%d)", i);
    }
    strbuf_puts(&sql, ", (select last_value from public.hist_id_seq)");
    struct strbuf one;
    strbuf_init(&one, LIMIT);
    strbuf_printf(&one, "select q::text from (%s) q", strbuf_text(&sql));
    for (size_t database = 0; database < pair->database_count; database++) {
        if (!same(pair, database, "sequences", strbuf_text(&one))) {
            exit(1);
        }
    }
    strbuf_deinit(&one);
    strbuf_deinit(&sql);
}

bool pair_check_acknowledged(struct pair *pair, enum side active)
{
    uint64_t lost = 0, unknown = 0, doubled = 0, in_doubt = 0;
    uint8_t *found = calloc(TAGS_KEPT, 1);
    for (size_t database = 0; database < pair->database_count; database++) {
        PGresult *rows = run(admin(pair, active, database), "select tag from public.hist");
        for (int i = 0; i < PQntuples(rows); i++) {
            uint64_t tag = strtoull(PQgetvalue(rows, i, 0), NULL, 10);
            doubled += found[tag] != 0 ? 1 : 0;
            unknown += pair->tags[tag] == 0 ? 1 : 0;
            in_doubt += pair->tags[tag] == 2 ? 1 : 0;
            found[tag] = 1;
        }
        PQclear(rows);
    }
    for (uint64_t tag = 1; tag <= pair->next_tag; tag++) {
        lost += pair->tags[tag] == 1 && found[tag] == 0 ? 1 : 0;
    }
    free(found);
    printf("acknowledged %" PRIu64 ", lost %" PRIu64 ", doubled %" PRIu64
           ", never committed but there %" PRIu64 ", in doubt and there %" PRIu64 "\n",
           pair->acknowledged, lost, doubled, unknown, in_doubt);
    return lost == 0 && doubled == 0 && unknown == 0;
}

uint64_t pair_acknowledged(struct pair *pair)
{
    return pair->acknowledged;
}

uint64_t pair_errors(struct pair *pair)
{
    return pair->errors;
}
