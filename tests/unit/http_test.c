/* control/daemon: the http server by raw requests, and the format of /metrics. */
#include "control/daemon/http.h"

#include "conf/base/log.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { ANSWER_SIZE = 256 * 1024 };

static struct metrics *example(void)
{
    static struct metrics metrics;
    metrics = (struct metrics){.has_active = true,
                               .active = SIDE_GREEN,
                               .epoch = 7,
                               .phase = "we\"ird\\\nphase",
                               .held = true,
                               .stall_us = 90000,
                               .stall_p50_us = 40000,
                               .stall_p99_us = 80000,
                               .way_back_estimate_us = -1,
                               .ready = true,
                               .started_wall_us = 1700000000000000};
    metrics.flips[METRICS_RESULT_DONE] = 3;
    metrics.proxy.sessions = 5;
    metrics.proxy.sides[SIDE_GREEN].statements = 10;
    metrics.proxy.sides[SIDE_GREEN].latency[0] = 4;
    metrics.proxy.sides[SIDE_GREEN].latency[50] = 5;
    metrics.proxy.sides[SIDE_GREEN].latency[PROXY_LATENCY_BUCKETS - 1] = 1;
    metrics.proxy.sides[SIDE_GREEN].latency_sum_us = 1500000;
    metrics.proxy.sides[SIDE_GREEN].errors_by_class[proxy_error_class_index("42P01")] = 2;
    metrics.replication.taken_us = 1;
    metrics.replication.lag_us = -1;
    metrics.replication.lag_bytes = 4096;
    metrics.replication.sides[SIDE_BLUE].reachable = true;
    return &metrics;
}

/* --- the format, by its grammar */

static const char *skip_name(const char *at)
{
    assert_true(isalpha((unsigned char)*at) || *at == '_');
    while (isalnum((unsigned char)*at) || *at == '_') {
        at++;
    }
    return at;
}

static const char *skip_labels(const char *at)
{
    assert_int_equal(*at, '{');
    do {
        at = skip_name(at + 1);
        assert_int_equal(*at++, '=');
        assert_int_equal(*at++, '"');
        while (*at != '"') {
            assert_true(*at != '\n' && *at != '\0');
            if (*at == '\\') {
                at++;
                assert_non_null(strchr("\\\"n", *at));
            }
            at++;
        }
        at++;
    } while (*at == ',');
    assert_int_equal(*at, '}');
    return at + 1;
}

/* Every line is a comment or a sample, samples belong to the family that was announced last, none twice. */
static void check_format(const char *text)
{
    char family[128] = "";
    static char seen[512][192];
    size_t seen_count = 0;
    assert_int_equal(text[strlen(text) - 1], '\n');
    for (const char *line = text; *line != '\0'; line = strchr(line, '\n') + 1) {
        if (*line == '#') {
            char name[128], rest[16];
            if (sscanf(line, "# TYPE %127s %15s", name, rest) == 2) {
                assert_string_equal(name, family);
                assert_non_null(strstr("counter gauge histogram", rest));
            } else {
                assert_int_equal(sscanf(line, "# HELP %127s %15s", name, rest), 2);
                strcpy(family, name);
            }
            continue;
        }
        assert_int_equal(strncmp(line, family, strlen(family)), 0);
        const char *at = skip_name(line);
        at = *at == '{' ? skip_labels(at) : at;
        assert_true(seen_count < ARRAY_LENGTH(seen) && (size_t)(at - line) < sizeof(seen[0]));
        memcpy(seen[seen_count], line, (size_t)(at - line));
        for (size_t i = 0; i < seen_count; i++) {
            assert_string_not_equal(seen[i], seen[seen_count]);
        }
        seen_count++;
        assert_int_equal(*at, ' ');
        char *end;
        (void)strtod(at + 1, &end);
        assert_true(end > at + 1);
        assert_int_equal(*end, '\n');
    }
}

static void metrics_are_valid_prometheus_text(void **state)
{
    (void)state;
    struct strbuf text;
    strbuf_init(&text, ANSWER_SIZE);
    metrics_print(example(), &text);
    assert_false(text.failed);
    check_format(strbuf_text(&text));
    static const char *const expected[] = {
        "\nswitchback_active{side=\"green\"} 1\n",
        "\nswitchback_active{side=\"blue\"} 0\n",
        "\nswitchback_phase{phase=\"we\\\"ird\\\\\\nphase\"} 1\n",
        "\nswitchback_sessions 5\n",
        "\nswitchback_statements_total{side=\"green\"} 10\n",
        "\nswitchback_errors_total{side=\"green\",class=\"42\"} 2\n",
        "\nswitchback_statement_seconds_bucket{side=\"green\",le=\"+Inf\"} 10\n",
        "\nswitchback_statement_seconds_count{side=\"green\"} 10\n",
        "\nswitchback_statement_seconds_sum{side=\"green\"} 1.500000\n",
        "\nswitchback_stall_seconds{quantile=\"1\"} 0.090000\n",
        "\nswitchback_flips_total{result=\"done\"} 3\n",
        "\nswitchback_lag_bytes 4096\n",
    };
    for (size_t i = 0; i < ARRAY_LENGTH(expected); i++) {
        assert_non_null(strstr(strbuf_text(&text), expected[i]));
    }
    assert_null(strstr(strbuf_text(&text), "switchback_lag_seconds")); /* unknown */
    strbuf_deinit(&text);
}

static void buckets_only_grow(void **state)
{
    (void)state;
    struct strbuf text;
    strbuf_init(&text, ANSWER_SIZE);
    metrics_print(example(), &text);
    double last_bound = 0;
    unsigned long last_count = 0;
    int buckets = 0;
    const char *prefix = "switchback_statement_seconds_bucket{side=\"green\",le=\"";
    for (const char *at = strbuf_text(&text); (at = strstr(at, prefix)) != NULL; buckets++) {
        at += strlen(prefix);
        char *end;
        double bound = strtod(at, &end);
        unsigned long count = strtoul(end + 3, NULL, 10);
        assert_true(bound > last_bound && count >= last_count);
        last_bound = bound;
        last_count = count;
    }
    assert_in_range(buckets, 10, 40);
    assert_int_equal(last_count, 10);
    strbuf_deinit(&text);
}

/* --- the server */

static struct http *server;

static int set_up(void **state)
{
    (void)state;
    struct error error;
    server = http_start("127.0.0.1", 0, &error);
    return server == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    http_stop(server);
    return 0;
}

static int dial(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(http_port(server)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval limit = {.tv_sec = 20};
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    assert_int_equal(connect(client, (struct sockaddr *)&address, sizeof(address)), 0);
    return client;
}

/* Everything up to the end of the connection. */
static const char *ask(const char *request)
{
    static char answer[ANSWER_SIZE];
    size_t length = 0;
    int client = dial();
    assert_int_equal(write(client, request, strlen(request)), (ssize_t)strlen(request));
    for (ssize_t count = 1; count > 0 && length<sizeof(answer) - 1; length += count> 0 ? (size_t)count : 0) {
        count = read(client, answer + length, sizeof(answer) - 1 - length);
    }
    answer[length] = '\0';
    close(client);
    return answer;
}

static const char *get(const char *path)
{
    char request[256];
    (void)snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", path);
    return ask(request);
}

static void expect(const char *answer, int status, const char *body)
{
    char start[32];
    (void)snprintf(start, sizeof(start), "HTTP/1.1 %d ", status);
    assert_int_equal(strncmp(answer, start, strlen(start)), 0);
    const char *found = strstr(answer, "\r\n\r\n");
    assert_non_null(found);
    assert_string_equal(found + 4, body);
}

static void readiness_follows_the_snapshot(void **state)
{
    (void)state;
    expect(get("/readyz"), 503, "starting\n");
    expect(get("/metrics"), 503, "starting\n");
    http_publish(server, example());
    expect(get("/readyz"), 200, "ready\n");
    struct metrics *metrics = example();
    metrics->ready = false;
    strcpy(metrics->unready_reason, "green can't be reached: connection refused");
    http_publish(server, metrics);
    expect(get("/readyz"), 503, "green can't be reached: connection refused\n");
    expect(get("/healthz"), 200, "ok\n");
}

static void a_scrape_gets_the_metrics(void **state)
{
    (void)state;
    http_publish(server, example());
    const char *answer = get("/metrics?x=1");
    assert_non_null(strstr(answer, "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    check_format(strstr(answer, "\r\n\r\n") + 4);
}

static void it_is_read_only(void **state)
{
    (void)state;
    expect(get("/"), 404, "there are /healthz, /readyz and /metrics\n");
    expect(get("/metrics/../healthz"), 404, "there are /healthz, /readyz and /metrics\n");
    const char *answer =
        ask("POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
    assert_non_null(strstr(answer, "Allow: GET, HEAD\r\n"));
    expect(answer, 405, "read-only\n");
    expect(ask("DELETE /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), 405, "read-only\n");
    expect(ask("HEAD /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), 200, "");
}

static void garbage_and_idlers_do_no_harm(void **state)
{
    (void)state;
    int idle[40];
    for (size_t i = 0; i < 20; i++) {
        idle[i] = dial();
        assert_true(write(idle[i], "GET /hea", 8) == 8);
    }
    static char large[64 * 1024];
    memset(large, 'x', sizeof(large) - 1);
    (void)ask("\x16\x03\x01 not http at all\r\n\r\n");
    (void)ask("GET\r\n\r\n");
    int client = dial();
    (void)!write(client, "GET /", 5);
    (void)!write(client, large, sizeof(large) - 1);
    close(client);
    expect(get("/healthz"), 200, "ok\n");
    for (size_t i = 0; i < 20; i++) {
        close(idle[i]);
    }
}

static void a_port_in_use_is_said(void **state)
{
    (void)state;
    struct error error;
    assert_null(http_start("127.0.0.1", http_port(server), &error));
    assert_non_null(strstr(error.message, "can't be opened: Address already in use"));
    assert_null(http_start("no.such.host.invalid", 1, &error));
    assert_non_null(strstr(error.message, "no.such.host.invalid"));
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(metrics_are_valid_prometheus_text),
        cmocka_unit_test(buckets_only_grow),
        cmocka_unit_test_setup_teardown(readiness_follows_the_snapshot, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_scrape_gets_the_metrics, set_up, tear_down),
        cmocka_unit_test_setup_teardown(it_is_read_only, set_up, tear_down),
        cmocka_unit_test_setup_teardown(garbage_and_idlers_do_no_harm, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_port_in_use_is_said, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
