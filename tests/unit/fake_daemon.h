/*
 * For the tests of control/cli: runs a command line in this process, against a daemon in another that answers
 * by a script.
 */
#ifndef SWITCHBACK_TESTS_UNIT_FAKE_DAEMON_H
#define SWITCHBACK_TESTS_UNIT_FAKE_DAEMON_H

#include "conf/base/compiler.h"
#include "control/cli/cli.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { ARGUMENTS = 16, TEXT = 65536 };

static char folder[] = "/tmp/switchback-cli-XXXXXX";
static char socket_path[64], config_path[64];

/* --- a run of the command line */

struct run {
    int status;
    char out[TEXT], err[TEXT];
};

static const char *served;

static inline int fake_serve(const char *path)
{
    served = path;
    return 0;
}

static inline void run_arguments(struct run *run, int argc, char *const *argv)
{
    char *out = NULL, *err = NULL;
    size_t out_length = 0, err_length = 0;
    struct cli cli = {.out = open_memstream(&out, &out_length),
                      .err = open_memstream(&err, &err_length),
                      .serve = fake_serve};
    assert_non_null(cli.out);
    assert_non_null(cli.err);
    run->status = cli_run(&cli, argc, argv);
    assert_int_equal(fclose(cli.out), 0);
    assert_int_equal(fclose(cli.err), 0);
    (void)snprintf(run->out, sizeof run->out, "%s", out);
    (void)snprintf(run->err, sizeof run->err, "%s", err);
    free(out);
    free(err);
}

/* The words after "switchback", separated by single blanks; '_' in a word is a blank. */
static inline void run_line(struct run *run, const char *line)
{
    char copy[1024];
    char *argv[ARGUMENTS] = {(char[]){"switchback"}};
    int argc = 1;
    (void)snprintf(copy, sizeof copy, "%s", line);
    for (char *word = strtok(copy, " "); word != NULL && argc < ARGUMENTS; word = strtok(NULL, " ")) {
        for (char *at = word; *at != '\0'; at++) {
            *at = *at == '_' ? ' ' : *at;
        }
        argv[argc++] = word;
    }
    run_arguments(run, argc, argv);
}

static inline void contains(const char *text, const char *part)
{
    if (strstr(text, part) == NULL) {
        fail_msg("expected \"%s\" in \"%s\"", part, text);
    }
}

/* --- a daemon by a script */

/* What it does after each request, in order: sends these lines; "!" interrupts the client (SIGINT), "x" hangs
 * up,
 * "?" sends the rest byte by byte. */
struct script {
    const char *const *steps;
    pid_t pid;
    int requests; /* read end: what the client sent */
};

static inline void send_text(int fd, const char *text, bool slowly)
{
    size_t length = strlen(text);
    while (length > 0) {
        ssize_t sent = write(fd, text, slowly ? 1 : length);
        if (sent <= 0) {
            _exit(1);
        }
        text += sent;
        length -= (size_t)sent;
    }
}

static inline void play(int listener, int requests, const char *const *steps)
{
    int fd = accept(listener, NULL, NULL);
    bool slowly = false;
    char line[TEXT];
    for (; *steps != NULL; steps++) {
        size_t length = 0; /* one request */
        while (length < sizeof line && read(fd, line + length, 1) == 1 && line[length] != '\n') {
            length++;
        }
        line[length] = '\n';
        if (write(requests, line, length + 1) != (ssize_t)(length + 1)) {
            _exit(1);
        }
        for (const char *at = *steps; *at != '\0'; at += strcspn(at, "\n") + 1) {
            char answer[TEXT];
            (void)snprintf(answer, sizeof answer, "%.*s\n", (int)strcspn(at, "\n"), at);
            if (at[0] == '!') {
                (void)kill(getppid(), SIGINT);
            } else if (at[0] == 'x') {
                _exit(0);
            } else if (at[0] == '?') {
                slowly = true;
            } else {
                send_text(fd, answer, slowly);
            }
            if (at[strcspn(at, "\n")] == '\0') {
                break;
            }
        }
    }
    while (read(fd, line, 1) > 0) { /* until the client has gone */
    }
    _exit(0);
}

static inline void start(struct script *script, const char *const *steps)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int pipes[2];
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(listener >= 0);
    memcpy(address.sun_path, socket_path, strlen(socket_path) + 1);
    (void)unlink(socket_path);
    assert_int_equal(bind(listener, (const struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(pipe(pipes), 0);
    script->pid = fork();
    assert_true(script->pid >= 0);
    if (script->pid == 0) {
        (void)alarm(20);
        play(listener, pipes[1], steps);
    }
    (void)close(listener);
    (void)close(pipes[1]);
    script->requests = pipes[0];
}

/* What the client sent, all of it. */
static inline void stop(struct script *script, char requests[TEXT])
{
    size_t length = 0;
    ssize_t got = 0;
    int status = 0;
    while (length < TEXT - 1 && (got = read(script->requests, requests + length, TEXT - 1 - length)) > 0) {
        length += (size_t)got;
    }
    requests[length] = '\0';
    (void)close(script->requests);
    assert_int_equal(waitpid(script->pid, &status, 0), script->pid);
    assert_true(WIFEXITED(status));
    (void)unlink(socket_path);
}

#define RESULT(id, json) "{\"jsonrpc\":\"2.0\",\"id\":" #id ",\"result\":" json "}"
#define PROGRESS(json)   "{\"jsonrpc\":\"2.0\",\"method\":\"progress\",\"params\":" json "}"
#define EVENT(json)      "{\"jsonrpc\":\"2.0\",\"method\":\"event\",\"params\":" json "}"
#define ERROR(id, code, message, remedy)                                                                     \
    "{\"jsonrpc\":\"2.0\",\"id\":" #id ",\"error\":{\"code\":-32000,\"message\":\"" message "\","            \
    "\"data\":{\"code\":\"" code "\",\"message\":\"" message "\",\"remedy\":" remedy "}}}"

/* Runs the line against the script; the requests must be these. */
static inline void run_against(struct run *run, const char *const *steps, const char *line,
                               const char *expected)
{
    struct script script;
    char requests[TEXT];
    start(&script, steps);
    run_line(run, line);
    stop(&script, requests);
    assert_string_equal(requests, expected);
}

#define STEPS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define REQUEST(id, method, params)                                                                          \
    "{\"jsonrpc\":\"2.0\",\"id\":" #id ",\"method\":\"" method "\",\"params\":" params "}\n"
#define REQUEST_BARE(id, method) "{\"jsonrpc\":\"2.0\",\"id\":" #id ",\"method\":\"" method "\"}\n"

static inline int make_folder(void **state)
{
    (void)state;
    if (mkdtemp(folder) == NULL) {
        return -1;
    }
    (void)snprintf(socket_path, sizeof socket_path, "%s/s", folder);
    (void)snprintf(config_path, sizeof config_path, "%s/c.yaml", folder);
    (void)setenv("TZ", "UTC", 1);
    return setenv("SWITCHBACK_SOCKET", socket_path, 1);
}

static inline int drop_folder(void **state)
{
    (void)state;
    (void)unlink(socket_path);
    (void)unlink(config_path);
    return rmdir(folder);
}

#endif
