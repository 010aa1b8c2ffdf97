/*
 * replication.h by hand: reads one command a line, starts the operation, prints one line when it answers. For
 * test_replication.py, which makes the clusters misbehave between two commands.
 *
 *   replication_console --blue HOST:PORT --green HOST:PORT [--databases N]
 *
 *   3 fence 7 blue 1 5000 4711,4712      number, operation, flip, source, epoch, milliseconds, sessions
 *   3 ok                                 or: 3 error timeout certain raise fence: ...
 */
#include "tests/integration/flips_pair.h"

#include "conf/base/clock.h"
#include "conf/base/log.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINE_SIZE = 4096, MAX_WORDS = 12, MAX_SESSIONS = 64 };

struct console {
    struct pair pair;
    struct replication *replication;
    uv_poll_t input;
    char line[LINE_SIZE];
    size_t length;
    int changes;
    bool stopped;
};

static struct console console;

/* What an operation carries until it answers: its command's number. */
static void *number_of(const char *word)
{
    char *number = strdup(word);
    if (number == NULL) {
        abort();
    }
    return number;
}

static void print_result(const char *number, const struct replication_result *result)
{
    if (result->ok) {
        printf("%s ok", number);
    } else {
        printf("%s error %s %s %s", number, error_code_text(result->error.code),
               result->uncertain ? "uncertain" : "certain", result->error.message);
    }
}

static void answered(void *context, const struct replication_result *result)
{
    print_result(context, result);
    printf("\n");
    free(context);
}

/* --- questions --- */

static void facts_read(void *context, const struct replication_result *result, const struct pair_facts *facts)
{
    static const char *const standings[] = {"none", "active", "standby", "diverged"};
    print_result(context, result);
    for (int i = 0; i < SIDE_COUNT; i++) {
        const struct side_facts *side = &facts->sides[i];
        printf(" | %s %s %s", side_name((enum side)i), side->reachable ? "reachable" : "lost",
               side->identity_changed ? "changed" : "same");
        for (size_t d = 0; d < side->database_count; d++) {
            const struct database_facts *database = &side->databases[d];
            printf(" %s:%s:%" PRIu64 ":%" PRIu64 ":%" PRIu64 ":%" PRIu64 ":%zu/%zu", database->name,
                   standings[database->standing], database->epoch, database->fenced_for, database->aborted,
                   database->last_flip, database->fences_enabled, database->tables);
        }
    }
    printf("\n");
    free(context);
}

static void role_read(void *context, const struct replication_result *result,
                      const struct replication_role *role)
{
    print_result(context, result);
    printf(" %s %s %.14s\n", role->found ? "found" : "missing", role->can_login ? "login" : "nologin",
           role->verifier[0] == '\0' ? "none" : role->verifier);
    free(context);
}

static void value_read(void *context, const struct replication_result *result, const char *value)
{
    print_result(context, result);
    printf(" %s\n", result->ok ? (value == NULL ? "NULL" : value) : "");
    free(context);
}

static void types_read(void *context, const struct replication_result *result, const char *database,
                       const struct replication_type *types, size_t count)
{
    static const char letters[] = "bacdrm";
    print_result(context, result);
    printf(" %s", database);
    for (size_t i = 0; i < count; i++) {
        printf(" %s=%c:%" PRIu32 "/%" PRIu32 ":%" PRIu32 "/%" PRIu32, types[i].name, letters[types[i].kind],
               types[i].oids[SIDE_BLUE], types[i].oids[SIDE_GREEN], types[i].related[SIDE_BLUE],
               types[i].related[SIDE_GREEN]);
    }
    printf("\n");
    free(context);
}

/* For JSON; a quotation mark in an error is rare enough to be an apostrophe here. */
static const char *plain(char *text)
{
    for (char *c = text; *c != '\0'; c++) {
        *c = *c == '"' ? '\'' : *c == '\n' ? ' ' : *c;
    }
    return text;
}

static void print_sample(const char *number)
{
    struct replication_sample s;
    replication_sample(console.replication, &s);
    printf("%s ok {\"streaming\": %d, \"broken\": %d, \"lag_us\": %" PRId64 ", \"lag_bytes\": %" PRId64
           ", \"marker_age_us\": %" PRId64 ", \"at_risk\": %" PRIu64 ", \"slot_lost\": %d,"
           " \"slot_endangered\": %d, \"tables_differ\": %d, \"synchronous\": %d, \"sync_waiting\": %" PRIu64
           ", \"changes\": %d, \"problem\": \"%s\"",
           number, s.streaming, s.broken, s.lag_us, s.lag_bytes, s.marker_age_us, s.commits_at_risk,
           s.slot_lost, s.slot_endangered, s.tables_differ, s.synchronous, s.sync_waiting, console.changes,
           plain(s.problem));
    for (int i = 0; i < SIDE_COUNT; i++) {
        struct replication_side_sample *side = &s.sides[i];
        printf(", \"%s\": {\"reachable\": %d, \"fenced\": %d, \"fence_wrong\": %d, \"names_wrong\": %d, "
               "\"version\": \"%s\","
               " \"unreachable_us\": %" PRId64 ", \"problem\": \"%s\"}",
               side_name((enum side)i), side->reachable, side->fenced, side->fence_wrong, side->names_wrong,
               side->version, side->unreachable_us, plain(side->problem));
    }
    printf("}\n");
}

static void stranded_read(void *context, const struct replication_result *result,
                          const struct replication_stranded_list *list)
{
    print_result(context, result);
    printf(" %" PRIu64 " %" PRIu64, list->total, list->transactions);
    for (size_t i = 0; i < list->count; i++) {
        const struct replication_stranded *row = &list->rows[i];
        printf("|%s %s %s %s", row->database, row->operation, row->table, row->key);
    }
    printf("\n");
    free(context);
}

/* --- commands --- */

static enum side side_of(const char *word)
{
    enum side side;
    if (!side_parse(word, &side)) {
        printf("? no side: %s\n", word);
        exit(2);
    }
    return side;
}

static int64_t deadline(const char *milliseconds)
{
    return clock_mono_us() + strtoll(milliseconds, NULL, 10) * 1000;
}

/* fence FLIP SOURCE EPOCH MS [PID,PID...], and the others without pids */
static bool start_phase(char **words, int count)
{
    struct replication *replication = console.replication;
    const char *name = words[1];
    if (count < 6) {
        return false;
    }
    const struct replication_flip flip = {.flip = strtoull(words[2], NULL, 10),
                                          .source = side_of(words[3]),
                                          .epoch = strtoull(words[4], NULL, 10)};
    int64_t until = deadline(words[5]);
    if (strcmp(name, "fence") == 0) {
        int32_t sessions[MAX_SESSIONS];
        size_t session_count = 0;
        for (char *pid = count > 6 ? strtok(words[6], ",") : NULL;
             pid != NULL && session_count < MAX_SESSIONS; pid = strtok(NULL, ",")) {
            sessions[session_count++] = (int32_t)strtol(pid, NULL, 10);
        }
        replication_fence(replication, &flip, sessions, session_count, until, answered, number_of(words[0]));
        return true;
    }
    if (strcmp(name, "turn") == 0 || strcmp(name, "promise-turn") == 0) {
        replication_turn(replication, &flip, *name == 'p', until, answered, number_of(words[0]));
        return true;
    }
    static const struct {
        const char *name;
        void (*start)(struct replication *, const struct replication_flip *, int64_t, replication_done,
                      void *);
    } phases[] = {{"cut-off", replication_cut_off},
                  {"reattach", replication_reattach},
                  {"ready-alone", replication_ready_alone},
                  {"catchup", replication_catchup},
                  {"ready", replication_ready},
                  {"open", replication_open},
                  {"undo", replication_undo},
                  {"reopen", replication_reopen_source}};
    for (size_t i = 0; i < ARRAY_LENGTH(phases); i++) {
        if (strcmp(name, phases[i].name) == 0) {
            phases[i].start(replication, &flip, until, answered, number_of(words[0]));
            return true;
        }
    }
    return false;
}

static void on_stopped(void *context)
{
    printf("%s ok\n", (char *)context);
    free(context);
    console.stopped = true;
}

static bool start_question(char **words, int count)
{
    struct replication *replication = console.replication;
    const char *name = words[1];
    if (strcmp(name, "role") == 0 && count == 4) {
        replication_read_role(replication, side_of(words[2]), words[3], false, role_read,
                              number_of(words[0]));
    } else if (strcmp(name, "types") == 0 && count == 3) {
        replication_read_types(replication, words[2], types_read, number_of(words[0]));
    } else if (strcmp(name, "facts") == 0) {
        replication_read_facts(replication, facts_read, number_of(words[0]));
    } else if (strcmp(name, "sample") == 0) {
        print_sample(words[0]);
    } else {
        return false;
    }
    return true;
}

static bool start(char **words, int count)
{
    struct replication *replication = console.replication;
    const char *name = words[1];
    if (strcmp(name, "create") == 0) {
        pair_create(&console.pair);
        printf("%s ok\n", words[0]);
    } else if (strcmp(name, "own") == 0) {
        replication_own(replication, answered, number_of(words[0]));
    } else if (strcmp(name, "active") == 0 && count == 4) {
        replication_set_active(replication, side_of(words[2]), strtoull(words[3], NULL, 10));
        printf("%s ok\n", words[0]);
    } else if (strcmp(name, "probe") == 0 && count == 4) {
        replication_probe(replication, side_of(words[2]), deadline(words[3]), answered, number_of(words[0]));
    } else if (strcmp(name, "contact") == 0 && count == 4) {
        replication_fence_on_contact(replication, side_of(words[2]), strtoull(words[3], NULL, 10), answered,
                                     number_of(words[0]));
    } else if (strcmp(name, "names") == 0 && count == 6) {
        /* names ACTIVE EPOCH on|off MS */
        replication_names(replication, side_of(words[2]), strtoull(words[3], NULL, 10),
                          strcmp(words[4], "on") == 0, deadline(words[5]), answered, number_of(words[0]));
    } else if (strcmp(name, "promise") == 0 && count == 4) {
        replication_promise(replication, side_of(words[2]), deadline(words[3]), answered,
                            number_of(words[0]));
    } else if (strcmp(name, "adopt") == 0 && count == 5) {
        replication_adopt(replication, side_of(words[2]), strtoull(words[3], NULL, 10), deadline(words[4]),
                          answered, number_of(words[0]));
    } else if (strcmp(name, "stranded") == 0 && count == 3) {
        replication_stranded(replication, side_of(words[2]), stranded_read, number_of(words[0]));
    } else if (strcmp(name, "rejoin") == 0 && count == 3) {
        replication_rejoin(replication, side_of(words[2]), NULL, answered, number_of(words[0]));
    } else if (strcmp(name, "stop") == 0) {
        (void)uv_poll_stop(&console.input);
        uv_close((uv_handle_t *)&console.input, NULL);
        replication_stop(replication, on_stopped, number_of(words[0]));
    } else {
        return start_question(words, count) || start_phase(words, count);
    }
    return true;
}

/* NUMBER query SIDE DATABASE MS SQL...: the rest of the line is one word */
static bool start_query(char *line)
{
    char number[16], side[16], database[64], milliseconds[16];
    int sql = 0;
    if (sscanf(line, "%15s query %15s %63s %15s %n", number, side, database, milliseconds, &sql) != 4 ||
        sql == 0) {
        return false;
    }
    replication_query(console.replication, side_of(side), database, line + sql,
                      strtoll(milliseconds, NULL, 10) * 1000, value_read, number_of(number));
    return true;
}

static void obey(char *line)
{
    if (start_query(line)) {
        return;
    }
    char *words[MAX_WORDS];
    int count = 0;
    for (char *rest = line, *word; count < MAX_WORDS && (word = strsep(&rest, " ")) != NULL;) {
        words[count++] = word;
    }
    if (count < 2 || !start(words, count)) {
        printf("%s error usage certain what is that?\n", words[0]);
    }
}

static void on_input(uv_poll_t *poll, int status, int events)
{
    (void)poll;
    (void)events;
    ssize_t got = read(STDIN_FILENO, console.line + console.length, LINE_SIZE - 1 - console.length);
    if (status < 0 || got <= 0) {
        exit(1); /* who started us is gone */
    }
    console.length += (size_t)got;
    console.line[console.length] = '\0';
    char *begin = console.line;
    for (char *end; (end = strchr(begin, '\n')) != NULL; begin = end + 1) {
        *end = '\0';
        obey(begin);
    }
    console.length = strlen(begin);
    memmove(console.line, begin, console.length + 1);
}

static void changed(void *context)
{
    (void)context;
    console.changes++;
}

static void deposed(void *context)
{
    (void)context;
    printf("! deposed\n");
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"blue", required_argument, NULL, 'b'},
                                            {"green", required_argument, NULL, 'g'},
                                            {"databases", required_argument, NULL, 'd'},
                                            {"verbose", no_argument, NULL, 'v'},
                                            {NULL, 0, NULL, 0}};
    const char *address[SIDE_COUNT] = {NULL, NULL};
    long databases = 1;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'b' || c == 'g') {
            address[c == 'b' ? SIDE_BLUE : SIDE_GREEN] = optarg;
        } else if (c == 'd') {
            databases = strtol(optarg, NULL, 10);
        } else if (c == 'v') {
            log_configure(LOG_LEVEL_DEBUG, LOG_FORMAT_TEXT);
        } else {
            return 2;
        }
    }
    if (address[SIDE_BLUE] == NULL || address[SIDE_GREEN] == NULL) {
        (void)fprintf(stderr, "--blue and --green are needed\n");
        return 2;
    }
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    pair_init(&console.pair, address, (size_t)databases, 0);
    const struct replication_callbacks callbacks = {.changed = changed, .deposed = deposed};
    struct error error;
    console.replication = replication_new(console.pair.loop, &console.pair.settings, &callbacks, &error);
    if (console.replication == NULL) {
        (void)fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    (void)uv_poll_init(console.pair.loop, &console.input, STDIN_FILENO);
    (void)uv_poll_start(&console.input, UV_READABLE, on_input);
    (void)uv_run(console.pair.loop, UV_RUN_DEFAULT);
    pair_deinit(&console.pair);
    return console.stopped && uv_loop_close(console.pair.loop) == 0 ? 0 : 1;
}
