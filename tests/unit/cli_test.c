/* control/cli: whole command lines against a daemon that answers by a script. */
#include "conf/base/strbuf.h"
#include "control/cli/verbs.h"
#include "tests/unit/fake_daemon.h"

/* --- usage */

static void usage_errors_say_what_is_wrong(void **state)
{
    (void)state;
    static const struct {
        const char *line, *message, *remedy;
    } rows[] = {
        {"statsu", "there is no verb \"statsu\"", "did you mean status?"},
        {"xyzzy", "there is no verb \"xyzzy\"", "switchback help lists them"},
        {"-v status", "there is no verb \"-v\"", "the verb comes first"},
        {"status --jso", "status: unknown flag --jso", "usage: switchback status"},
        {"status -x", "status: unknown flag -x", "usage: switchback status"},
        {"status extra", "status: unexpected argument extra", "usage: switchback status"},
        {"cutover --key", "cutover: a value is missing after --key", "usage: switchback cutover [--dry-run]"},
        {"cutover --key a --key b", "cutover: given twice: --key", "usage:"},
        {"cutover --dry-run=yes", "cutover: takes no value: --dry-run=yes", "usage:"},
        {"cutover --dry-ru", "cutover: unknown flag --dry-ru", "usage:"},
        {"hold --reason x", "hold: missing --for", "usage: switchback hold --for DURATION --reason TEXT"},
        {"hold --for 5s", "hold: missing --reason", "usage:"},
        {"hold --for 5 --reason x", "hold: expected a duration such as 30s (us ms s m h), found 5", "usage:"},
        {"audit --limit -3", "audit: expected a whole number, found -3", "usage:"},
        {"audit --limit x", "audit: expected a whole number, found x", "usage:"},
        {"events --since soon", "events: expected an event's number or a duration", "usage:"},
        {"cutover --reason=\xff", "cutover: expected UTF-8 for --reason", "usage:"},
        {"rpc", "rpc: an argument is missing", "usage: switchback rpc METHOD [JSON]"},
        {"rpc status {", "rpc: expected a JSON object", "usage: switchback rpc METHOD [JSON]"},
        {"rpc status []", "rpc: expected a JSON object", "usage:"},
        {"rpc a {} b", "rpc: unexpected argument b", "usage:"},
        {"help xyzzy", "there is no verb \"xyzzy\"", "switchback help lists them"},
        {"help statu", "there is no verb \"statu\"", "did you mean status?"},
    };
    struct run run;
    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
        run_line(&run, rows[i].line);
        assert_int_equal(run.status, 2);
        assert_string_equal(run.out, "");
        contains(run.err, rows[i].message);
        contains(run.err, rows[i].remedy);
    }
    run_line(&run, "");
    assert_int_equal(run.status, 2);
    contains(run.err, "usage: switchback VERB");
}

static void usage_errors_are_json_when_asked(void **state)
{
    (void)state;
    struct run run;
    run_line(&run, "hold --json");
    assert_int_equal(run.status, 2);
    assert_string_equal(run.err, "");
    assert_string_equal(run.out,
                        "{\"error\":{\"code\":\"usage\",\"message\":\"hold: missing --for\",\"remedy\":"
                        "\"usage: switchback hold --for DURATION --reason TEXT\"}}\n");
}

static void every_verb_has_help(void **state)
{
    (void)state;
    struct run run, overview;
    size_t count = 0;
    const struct verb *verbs = verbs_all(&count);
    char line[64];
    run_line(&overview, "help");
    assert_int_equal(overview.status, 0);
    for (size_t i = 0; i < count; i++) {
        assert_true(verbs[i].flag_count <= VERB_FLAGS);
        assert_true((verbs[i].method != NULL && verbs[i].render != NULL) || verbs[i].run != NULL);
        (void)snprintf(line, sizeof line, "help %s", verbs[i].name);
        run_line(&run, line);
        assert_int_equal(run.status, 0);
        (void)snprintf(line, sizeof line, "usage: switchback %s", verbs[i].name);
        contains(run.out, line);
        contains(run.out, verbs[i].summary);
        contains(run.out, "--json");
        for (size_t j = 0; j < verbs[i].flag_count; j++) {
            contains(run.out, verbs[i].flags[j].name);
            contains(verbs[i].usage, verbs[i].flags[j].name);
        }
        char text[TEXT];
        (void)snprintf(text, sizeof text, "%s", run.out);
        (void)snprintf(line, sizeof line, "%s --help", verbs[i].name);
        run_line(&run, line);
        assert_int_equal(run.status, 0);
        assert_string_equal(run.out, text);
        if (strcmp(verbs[i].name, "help") != 0) {
            contains(overview.out, verbs[i].summary);
        }
    }
    run_line(&run, "--help");
    assert_string_equal(run.out, overview.out);
}

static void arguments_become_parameters(void **state)
{
    (void)state;
    struct run run;
    run_against(
        &run, STEPS(RESULT(1, "{\"result\":\"done\"}")),
        "cutover --watch --key=release_1 --reason because_it's_time",
        REQUEST(1, "cutover", "{\"watch\":true,\"key\":\"release 1\",\"reason\":\"because it's time\"}"));
    run_against(&run, STEPS(RESULT(1, "{}")), "hold --reason x --for 1.5s",
                REQUEST(1, "hold", "{\"reason\":\"x\",\"for\":\"1.5s\"}"));
    run_against(&run, STEPS(RESULT(1, "{\"rows\":[]}")), "audit --limit 5 --since=17",
                REQUEST(1, "audit", "{\"limit\":5,\"since\":17}"));
    run_against(&run, STEPS(RESULT(1, "{\"sessions\":[]}")), "sessions --immovable",
                REQUEST(1, "sessions", "{\"immovable\":true}"));
    run_against(&run, STEPS(RESULT(1, "{\"result\":\"started\"}")), "flip-back --no-wait",
                REQUEST(1, "flip_back", "{\"no_wait\":true}"));
    run_against(&run, STEPS(RESULT(1, "{\"a\":1}")), "rpc any {\"b\":[2]}", REQUEST(1, "any", "{\"b\":[2]}"));
    assert_string_equal(run.out, "{\"a\":1}\n");
    run_against(&run, STEPS(RESULT(1, "null")), "rpc any", REQUEST_BARE(1, "any"));
    assert_string_equal(run.out, "null\n");
}

/* --- exit status */

static void results_end_with_their_status(void **state)
{
    (void)state;
    static const struct {
        const char *line, *result;
        int status;
    } rows[] = {
        {"cutover", "{\"result\":\"done\"}", 0},
        {"cutover --no-wait", "{\"result\":\"started\",\"flip\":1}", 0},
        {"cutover", "{\"result\":\"refused\"}", 1},
        {"cutover", "{\"result\":\"aborted\"}", 1},
        {"cutover --watch", "{\"result\":\"flipped_back\"}", 3},
        {"cutover", "{\"result\":\"inconclusive\"}", 4},
        {"flip-back", "{\"result\":\"done\"}", 0},
        {"cutover --dry-run", "{\"dry_run\":true,\"blockers\":[]}", 0},
        {"cutover --dry-run", "{\"dry_run\":true,\"blockers\":[{\"message\":\"x\"}]}", 1},
        {"check", "{\"ok\":true,\"checks\":[]}", 0},
        {"check", "{\"ok\":false,\"checks\":[]}", 1},
        {"audit --verify", "{\"intact\":true}", 0},
        {"audit --verify", "{\"intact\":false}", 1},
        {"reload", "{\"applied\":true}", 0},
        {"reload", "{\"applied\":false,\"restart\":[\"workers\"]}", 1},
        {"abort", "{\"flip\":1,\"result\":\"aborting\"}", 0},
        {"status", "{\"active\":\"blue\",\"trouble\":[{\"code\":\"alarm\"}]}", 0},
        {"status", "{\"active\":null,\"trouble\":[{\"code\":\"undecided\"}]}", 4},
        {"status", "{\"active\":\"green\",\"trouble\":[{\"code\":\"commits_at_risk\"}]}", 4},
        {"flip-back --accept-loss", "{\"result\":\"done\"}", 0},
        {"recover", "{\"needed\":false,\"decided\":false}", 0},
        {"recover", "{\"needed\":true,\"decided\":false}", 4},
        {"rejoin --dry-run", "{\"transactions\":1}", 0},
        {"recover --use blue", "{\"needed\":true,\"decided\":true}", 0},
    };
    struct run run;
    char answer[256], requests[TEXT];
    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
        struct script script;
        (void)snprintf(answer, sizeof answer, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":%s}", rows[i].result);
        start(&script, STEPS(answer));
        run_line(&run, rows[i].line);
        stop(&script, requests);
        if (run.status != rows[i].status) {
            fail_msg("%s with %s: expected %d, found %d", rows[i].line, rows[i].result, rows[i].status,
                     run.status);
        }
    }
}

static void errors_end_with_their_status(void **state)
{
    (void)state;
    struct run run;
    run_against(&run, STEPS(ERROR(1, "flip_running", "flip 3 is running", "\"wait\"")), "cutover",
                REQUEST(1, "cutover", "{}"));
    assert_int_equal(run.status, 1);
    assert_string_equal(run.err, "switchback: flip 3 is running\n            wait\n");
    assert_string_equal(run.out, "");
    run_against(&run, STEPS(ERROR(1, "undecided", "who is active?", "null")), "cutover --json",
                REQUEST(1, "cutover", "{}"));
    assert_int_equal(run.status, 4);
    assert_string_equal(run.out,
                        "{\"error\":{\"code\":\"undecided\",\"message\":\"who is active?\"},"
                        "\"result\":\"inconclusive\",\"flip\":null,\"reason\":\"who is active?\"}\n");
    run_against(&run, STEPS(ERROR(1, "flip_running", "flip 3 is running", "null")), "flip-back --json",
                REQUEST(1, "flip_back", "{}"));
    assert_int_equal(run.status, 1);
    assert_string_equal(run.out, "{\"error\":{\"code\":\"flip_running\",\"message\":\"flip 3 is running\"},"
                                 "\"result\":\"refused\",\"flip\":null,\"reason\":\"flip 3 is running\"}\n");
    run_against(&run, STEPS(ERROR(1, "configuration", "f.yaml:3: x", "null")), "reload",
                REQUEST(1, "reload", "{}"));
    assert_int_equal(run.status, 2);
    /* an error of JSON-RPC itself, without our data */
    run_against(&run,
                STEPS("{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32600,\"message\":\"no\"}}"),
                "status", REQUEST(1, "status", "{}"));
    assert_int_equal(run.status, 1);
    assert_string_equal(run.err, "switchback: no\n");
    run_against(&run, STEPS("{\"jsonrpc\":\"2.0\",\"id\":1}"), "status", REQUEST(1, "status", "{}"));
    assert_int_equal(run.status, 1);
    contains(run.err, "neither a result nor an error");
}

/* --- the socket */

static void a_daemon_that_is_not_there_is_explained(void **state)
{
    (void)state;
    struct run run;
    char line[256];
    run_line(&run, "status");
    assert_int_equal(run.status, 5);
    contains(run.err, socket_path);
    contains(run.err, "No such file or directory");
    contains(run.err, "switchback serve");
    run_line(&run, "status --json --socket /nowhere/at/all");
    assert_int_equal(run.status, 5);
    contains(run.out,
             "{\"error\":{\"code\":\"daemon_unreachable\",\"message\":\"the daemon can't be reached at "
             "/nowhere/at/all: No such file");
    /* the socket of a daemon that has ended */
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, socket_path, strlen(socket_path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof address), 0);
    (void)close(fd);
    run_line(&run, "events");
    assert_int_equal(run.status, 5);
    contains(run.err, "Connection refused");
    contains(run.err, "nobody listens there any more");
    (void)unlink(socket_path);
    memset(line, 'x', sizeof line);
    memcpy(line, "status --socket ", 16);
    line[sizeof line - 1] = '\0';
    run_line(&run, line);
    assert_int_equal(run.status, 5);
    contains(run.err, "File name too long");
    /* version doesn't need it */
    run_line(&run, "version");
    assert_int_equal(run.status, 0);
    contains(run.out, "switchback 0");
    run_line(&run, "version --json");
    contains(run.out, "\"daemon\":null}");
}

static void a_lost_connection_is_explained(void **state)
{
    (void)state;
    struct run run;
    run_against(&run, STEPS(PROGRESS("{\"flip\":3,\"phase\":\"drain\"}") "\nx"), "cutover",
                REQUEST(1, "cutover", "{}"));
    assert_int_equal(run.status, 5);
    contains(run.err, "was lost: it has closed it");
    contains(run.err, "what was asked may go on");
    run_against(&run, STEPS("HTTP/1.1 200 OK"), "status", REQUEST(1, "status", "{}"));
    assert_int_equal(run.status, 5);
    contains(run.err, "it did not send JSON");
}

static void answers_may_come_in_pieces_and_among_others(void **state)
{
    (void)state;
    struct run run;
    run_against(&run,
                STEPS("?\n" PROGRESS("{\"step\":\"x\"}") "\n" RESULT(
                    99, "{\"active\":\"green\"}") "\n" RESULT(1, "{\"active\":\"blue\",\"epoch\":7}")),
                "status --json", REQUEST(1, "status", "{}"));
    assert_int_equal(run.status, 0);
    assert_string_equal(run.out, "{\"active\":\"blue\",\"epoch\":7}\n");
}

static void a_long_answer_is_taken_whole(void **state)
{
    (void)state;
    struct strbuf answer;
    struct run run;
    strbuf_init(&answer, TEXT);
    strbuf_puts(&answer, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"sessions\":[");
    for (int i = 0; i < 500; i++) {
        strbuf_printf(&answer, "%s{\"id\":%d,\"user\":\"u\",\"movable\":true,\"state\":\"idle\"}",
                      i == 0 ? "" : ",", i);
    }
    strbuf_puts(&answer, "]}}");
    run_against(&run, STEPS(strbuf_text(&answer)), "sessions", REQUEST(1, "sessions", "{}"));
    assert_int_equal(run.status, 0);
    contains(run.out, "500 sessions\n");
    strbuf_deinit(&answer);
}

/* --- waiting */

static void progress_is_told_in_plain_lines(void **state)
{
    (void)state;
    static const char steps[] = PROGRESS("{\"flip\":3,\"phase\":\"arm\",\"held\":0}") "\n" PROGRESS(
        "{\"flip\":3,\"phase\":\"arm\",\"held\":1}") "\n" PROGRESS("{\"flip\":3,\"phase\":\"drain\",\"held\":"
                                                                   "40,\"lag_seconds\":0,\"message\":"
                                                                   "\"a\\u001bb\"}") "\n" RESULT(1,
                                                                                                 "{\"result\""
                                                                                                 ":\"done\","
                                                                                                 "\"flip\":3,"
                                                                                                 "\"from\":"
                                                                                                 "\"blue\","
                                                                                                 "\"to\":"
                                                                                                 "\"green\""
                                                                                                 "}");
    struct run run;
    run_against(&run, STEPS(steps), "cutover", REQUEST(1, "cutover", "{}"));
    assert_int_equal(run.status, 0);
    contains(run.out, "done: flip 3 blue -> green, traffic is on green\n");
    contains(run.err, "  arm\n");
    contains(run.err, "  drain, lag 0 s, 40 held: a\\x1bb\n");
    size_t lines = 0;
    for (const char *at = run.err; *at != '\0'; at++) {
        lines += *at == '\n';
    }
    assert_int_equal(lines, 2); /* the same phase again is no news */
    run_against(&run, STEPS(steps), "cutover --json", REQUEST(1, "cutover", "{}"));
    assert_string_equal(run.err, "");
    assert_string_equal(run.out, "{\"result\":\"done\",\"flip\":3,\"from\":\"blue\",\"to\":\"green\"}\n");
}

static void progress_on_a_terminal_is_one_line(void **state)
{
    (void)state;
    struct script script;
    char requests[TEXT];
    char *out = NULL, *err = NULL;
    size_t out_length = 0, err_length = 0;
    struct cli cli = {.out = open_memstream(&out, &out_length),
                      .err = open_memstream(&err, &err_length),
                      .out_terminal = true,
                      .err_terminal = true};
    char *argv[] = {(char[]){"switchback"}, (char[]){"cutover"}};
    start(&script,
          STEPS(PROGRESS("{\"flip\":3,\"phase\":\"drain\"}") "\n" RESULT(1, "{\"result\":\"done\"}")));
    assert_int_equal(cli_run(&cli, 2, argv), 0);
    stop(&script, requests);
    assert_int_equal(fclose(cli.out), 0);
    assert_int_equal(fclose(cli.err), 0);
    contains(err, "\r\033[Kcutover  ");
    contains(err, "  drain\r\033[K"); /* taken away before the result */
    assert_null(strchr(err, '\n'));
    free(out);
    free(err);
}

static void ctrl_c_detaches(void **state)
{
    (void)state;
    struct run run;
    run_against(&run, STEPS(PROGRESS("{\"flip\":3,\"phase\":\"drain\"}") "\n!"), "cutover",
                REQUEST(1, "cutover", "{}"));
    assert_int_equal(run.status, 4);
    contains(run.err, "detached: flip 3 goes on");
    contains(run.err, "switchback watch; switchback abort takes it back");
    run_against(&run, STEPS(PROGRESS("{\"flip\":3,\"phase\":\"watch\"}") "\n!"), "cutover --watch",
                REQUEST(1, "cutover", "{\"watch\":true}"));
    contains(run.err, "switchback flip-back takes it back");
    run_against(&run, STEPS("!"), "prepare --json", REQUEST(1, "prepare", "{}"));
    assert_int_equal(run.status, 4);
    contains(run.out, "\"code\":\"aborted\",\"message\":\"detached: prepare goes on in the daemon\"");
}

/* --- events, watch */

#define EVENT_4                                                                                              \
    "{\"seq\":4,\"time\":\"2026-11-20T11:00:00Z\",\"type\":\"phase\",\"level\":\"info\",\"flip\":3,"         \
    "\"phase\":\"drain\",\"message\":\"began\"}"
#define EVENT_5                                                                                              \
    "{\"seq\":5,\"time\":\"2026-11-20T11:00:01Z\",\"type\":\"alarm\",\"level\":\"error\",\"flip\":null,"     \
    "\"phase\":null,\"message\":\"lost\"}"

static void events_are_listed(void **state)
{
    (void)state;
    struct run run;
    run_against(&run, STEPS(RESULT(1, "{\"events\":[" EVENT_4 "],\"last_seq\":4}")), "events --since 3",
                REQUEST(1, "events", "{\"since\":3}"));
    assert_int_equal(run.status, 0);
    contains(run.out, "phase  flip 3 drain: began\n");
    run_against(&run, STEPS(RESULT(1, "{\"events\":[" EVENT_4 "," EVENT_5 "],\"last_seq\":5}")),
                "events --json", REQUEST(1, "events", "{}"));
    assert_string_equal(run.out, EVENT_4 "\n" EVENT_5 "\n");
    /* older than a duration */
    run_against(
        &run, STEPS(RESULT(1, "{\"events\":[{\"seq\":1,\"time\":\"2001-01-01T00:00:00Z\"}],\"last_seq\":1}")),
        "events --since 10m", REQUEST(1, "events", "{}"));
    assert_string_equal(run.out, "");
}

static void events_are_followed(void **state)
{
    (void)state;
    struct run run;
    run_against(&run,
                STEPS(RESULT(1, "{\"events\":[" EVENT_4 "],\"last_seq\":4}"),
                      RESULT(2, "{\"last_seq\":4}") "\n" EVENT(EVENT_5) "\n!"),
                "events -f --json", REQUEST(1, "events", "{}") REQUEST(2, "subscribe", "{\"since\":4}"));
    assert_int_equal(run.status, 0);
    assert_string_equal(run.out, EVENT_4 "\n" EVENT_5 "\n");
    run_against(&run,
                STEPS(RESULT(1, "{\"events\":[],\"last_seq\":0}"),
                      RESULT(2, "{\"last_seq\":0}") "\n"
                                                    "{\"jsonrpc\":\"2.0\",\"method\":\"dropped\",\"params\":{"
                                                    "\"reason\":\"too slow\"}}\nx"),
                "events --follow", REQUEST(1, "events", "{}") REQUEST(2, "subscribe", "{\"since\":0}"));
    assert_int_equal(run.status, 5);
    contains(run.err, "the daemon ended the stream: too slow");
}

#define CALM "{\"active\":\"blue\",\"phase\":\"steady\",\"epoch\":7}"
#define FLIP "{\"active\":\"blue\",\"phase\":\"drain\",\"epoch\":7}"

static void watch_tells_what_changes(void **state)
{
    (void)state;
    struct run run;
    run_against(&run,
                STEPS(RESULT(1, "{\"last_seq\":4}"), RESULT(2, CALM), RESULT(3, CALM) "\n" EVENT(EVENT_5),
                      RESULT(4, FLIP) "\n!"),
                "watch --json",
                REQUEST_BARE(1, "subscribe") REQUEST_BARE(2, "status") REQUEST_BARE(3, "status")
                    REQUEST_BARE(4, "status"));
    assert_int_equal(run.status, 0);
    assert_string_equal(run.out, "{\"status\":" CALM "}\n{\"event\":" EVENT_5 "}\n{\"status\":" FLIP "}\n");
    run_against(&run, STEPS(RESULT(1, "{\"last_seq\":4}"), RESULT(2, CALM) "\n" EVENT(EVENT_4) "\n!"),
                "watch", REQUEST_BARE(1, "subscribe") REQUEST_BARE(2, "status"));
    contains(run.out, "active    blue (epoch 7)\n");
    contains(run.out, "phase  flip 3 drain: began\n");
}

/* --- serve */

static void serve_checks_and_prints_the_configuration(void **state)
{
    (void)state;
    struct run run;
    char line[256];
    FILE *file = fopen(config_path, "we");
    assert_non_null(file);
    assert_true(
        fputs("sides: { blue: { host: a }, green: { host: b } }\nmanager: { user: m }\ndatabases: [ a ]\n",
              file) >= 0);
    assert_int_equal(fclose(file), 0);
    (void)snprintf(line, sizeof line, "serve -c %s", config_path);
    run_line(&run, line);
    assert_int_equal(run.status, 0);
    assert_string_equal(served, config_path);
    (void)snprintf(line, sizeof line, "serve --config=%s --check-config", config_path);
    run_line(&run, line);
    assert_int_equal(run.status, 0);
    contains(run.out, ": good\n");
    (void)snprintf(line, sizeof line, "serve -c%s --print-config", config_path);
    run_line(&run, line);
    contains(run.out, "drain:\n    timeout: 5s");
    (void)snprintf(line, sizeof line, "serve -c %s --check-config --json", config_path);
    run_line(&run, line);
    contains(run.out, "{\"ok\":true,\"path\":");
    (void)unlink(config_path);
    run_line(&run, line);
    assert_int_equal(run.status, 2);
    contains(run.out, "{\"error\":{\"code\":\"configuration\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(usage_errors_say_what_is_wrong),
        cmocka_unit_test(usage_errors_are_json_when_asked),
        cmocka_unit_test(every_verb_has_help),
        cmocka_unit_test(arguments_become_parameters),
        cmocka_unit_test(results_end_with_their_status),
        cmocka_unit_test(errors_end_with_their_status),
        cmocka_unit_test(a_daemon_that_is_not_there_is_explained),
        cmocka_unit_test(a_lost_connection_is_explained),
        cmocka_unit_test(answers_may_come_in_pieces_and_among_others),
        cmocka_unit_test(a_long_answer_is_taken_whole),
        cmocka_unit_test(progress_is_told_in_plain_lines),
        cmocka_unit_test(progress_on_a_terminal_is_one_line),
        cmocka_unit_test(ctrl_c_detaches),
        cmocka_unit_test(events_are_listed),
        cmocka_unit_test(events_are_followed),
        cmocka_unit_test(watch_tells_what_changes),
        cmocka_unit_test(serve_checks_and_prints_the_configuration),
    };
    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests_name("cli", tests, make_folder, drop_folder);
}
