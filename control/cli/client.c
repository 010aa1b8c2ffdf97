#include "control/cli/client.h"

#include "conf/base/clock.h"
#include "conf/base/strbuf.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static const char default_socket[] = "/run/switchback/control.sock";

enum { READ_SIZE = 64 * 1024 };

struct client {
    int fd;
    char *path;
    json_int_t last_id;
    struct strbuf input; /* what came and is not yet taken */
    size_t taken;        /* of input */
    json_t *answer;      /* of the call under way */
    bool listening;      /* no call is under way */
};

const char *client_socket_path(const char *given)
{
    const char *environment = getenv("SWITCHBACK_SOCKET");
    if (given != NULL) {
        return given;
    }
    return environment != NULL && environment[0] != '\0' ? environment : default_socket;
}

static void complain_unreachable(const char *path, int reason, struct error *error)
{
    (void)error_set(error, ERROR_DAEMON_UNREACHABLE, "the daemon can't be reached at %s: %s", path,
                    strerror(reason));
    switch (reason) {
    case ENOENT:
        (void)error_remedy(error,
                           "start it with switchback serve -c FILE, or name its socket with --socket PATH "
                           "or SWITCHBACK_SOCKET");
        break;
    case ECONNREFUSED:
        (void)error_remedy(error,
                           "nobody listens there any more: start the daemon again, it recovers by itself");
        break;
    case EACCES:
    case EPERM:
        (void)error_remedy(error,
                           "this user may not open the socket: use one that control.viewers, operators or "
                           "approvers name");
        break;
    default:
        break;
    }
}

struct client *client_open(const char *path, struct error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) {
        complain_unreachable(path, ENAMETOOLONG, error);
        return NULL;
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    struct client *client = calloc(1, sizeof *client);
    char *copy = strdup(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client == NULL || copy == NULL || fd < 0 ||
        connect(fd, (const struct sockaddr *)&address, sizeof address) != 0) {
        complain_unreachable(path, errno, error);
        if (fd >= 0) {
            (void)close(fd);
        }
        free(copy);
        free(client);
        return NULL;
    }
    client->fd = fd;
    client->path = copy;
    strbuf_init(&client->input, CLIENT_LINE_LIMIT);
    return client;
}

void client_close(struct client *client)
{
    if (client == NULL) {
        return;
    }
    (void)close(client->fd);
    strbuf_deinit(&client->input);
    json_decref(client->answer);
    free(client->path);
    free(client);
}

static bool lost(const struct client *client, const char *why, struct error *error)
{
    (void)error_set(error, ERROR_DAEMON_UNREACHABLE, "the connection to the daemon at %s was lost: %s",
                    client->path, why);
    return error_remedy(error,
                        "what was asked may go on: see switchback status; a cutover with --key can be asked "
                        "for again with the same key");
}

/* --- sending */

static bool send_all(struct client *client, const char *bytes, size_t length, struct error *error)
{
    while (length > 0) {
        ssize_t sent = send(client->fd, bytes, length, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) {
            continue;
        }
        if (sent < 0) {
            return lost(client, strerror(errno), error);
        }
        bytes += sent;
        length -= (size_t)sent;
    }
    return true;
}

static bool send_request(struct client *client, const char *method, json_t *params, struct error *error)
{
    json_t *request = json_pack("{s:s, s:I, s:s, s:O*}", "jsonrpc", "2.0", "id", ++client->last_id, "method",
                                method, "params", params);
    char *line = request == NULL ? NULL : json_dumps(request, JSON_COMPACT);
    json_decref(request);
    if (line == NULL) {
        return error_set(error, ERROR_MEMORY, "out of memory");
    }
    bool ok = send_all(client, line, strlen(line), error) && send_all(client, "\n", 1, error);
    free(line);
    return ok;
}

/* --- receiving */

/* One document: a notification goes to the callback, the answer is kept, anything else is passed over. */
static bool take_line(struct client *client, const char *line, size_t length, const struct client_wait *wait,
                      struct error *error)
{
    json_error_t reason;
    json_t *document = json_loadb(line, length, JSON_REJECT_DUPLICATES, &reason);
    if (!json_is_object(document)) {
        json_decref(document);
        return lost(client, "it did not send JSON", error);
    }
    const json_t *id = json_object_get(document, "id");
    const char *method = json_string_value(json_object_get(document, "method"));
    if (method != NULL) {
        if (wait->notice != NULL) {
            wait->notice(wait->context, method, json_object_get(document, "params"));
        }
    } else if (!client->listening && client->answer == NULL &&
               (json_integer_value(id) == client->last_id || json_is_null(id))) {
        client->answer = json_incref(document);
    }
    json_decref(document);
    return true;
}

/* Takes whole lines from the input; stops at the answer, what follows it is for later. */
static bool take_input(struct client *client, const struct client_wait *wait, struct error *error)
{
    while (client->answer == NULL && client->taken < client->input.length) {
        const char *start = client->input.data + client->taken;
        const char *end = memchr(start, '\n', client->input.length - client->taken);
        if (end == NULL) {
            break;
        }
        client->taken += (size_t)(end - start) + 1;
        if (!take_line(client, start, (size_t)(end - start), wait, error)) {
            return false;
        }
    }
    if (client->taken == client->input.length) {
        strbuf_clear(&client->input);
        client->taken = 0;
    } else if (client->taken > READ_SIZE) {
        size_t rest = client->input.length - client->taken;
        memmove(client->input.data, client->input.data + client->taken, rest);
        client->input.data[rest] = '\0';
        client->input.length = rest;
        client->taken = 0;
    }
    return true;
}

static bool receive(struct client *client, struct error *error)
{
    char bytes[READ_SIZE];
    ssize_t got = recv(client->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) {
        return true;
    }
    if (got <= 0) {
        return lost(client, got == 0 ? "it has closed it" : strerror(errno), error);
    }
    strbuf_append(&client->input, bytes, (size_t)got);
    return !client->input.failed || lost(client, "its answer is too long", error);
}

/* Waits for bytes, a tick, the end of the time, or a signal: SIGINT is let through only while waiting, so
 * that one that comes just before isn't missed. */
static bool wait_readable(const struct client *client, int64_t until_us, int64_t now_us)
{
    struct pollfd readable = {.fd = client->fd, .events = POLLIN};
    struct timespec left = {.tv_sec = 0};
    if (until_us > now_us) {
        left.tv_sec = (until_us - now_us) / 1000000;
        left.tv_nsec = (until_us - now_us) % 1000000 * 1000;
    }
    sigset_t mask;
    (void)pthread_sigmask(SIG_SETMASK, NULL, &mask);
    (void)sigdelset(&mask, SIGINT);
    return ppoll(&readable, 1, until_us == INT64_MAX ? NULL : &left, &mask) > 0;
}

enum outcome { OUTCOME_ANSWERED, OUTCOME_TIMEOUT, OUTCOME_STOPPED, OUTCOME_FAILED };

static enum outcome wait_answer(struct client *client, struct client_wait *wait, struct error *error)
{
    int64_t begun_us = clock_mono_us();
    int64_t end_us = wait->timeout_us > 0 ? begun_us + wait->timeout_us : INT64_MAX;
    int64_t tick_us = wait->tick != NULL ? begun_us + wait->tick_us : INT64_MAX;
    for (;;) {
        if (!take_input(client, wait, error)) {
            return OUTCOME_FAILED;
        }
        if (client->answer != NULL) {
            return OUTCOME_ANSWERED;
        }
        int64_t now_us = clock_mono_us();
        if (wait->stop != NULL && *wait->stop != 0) {
            wait->stopped = true;
            return OUTCOME_STOPPED;
        }
        if (now_us >= end_us) {
            return OUTCOME_TIMEOUT;
        }
        if (now_us >= tick_us) {
            wait->tick(wait->context);
            tick_us = now_us + wait->tick_us;
        }
        if (wait_readable(client, end_us < tick_us ? end_us : tick_us, now_us) && !receive(client, error)) {
            return OUTCOME_FAILED;
        }
    }
}

/* From an error of JSON-RPC to ours: `data` has the code and the remedy. */
static void take_error(const json_t *answer, struct error *error)
{
    const json_t *problem = json_object_get(answer, "error");
    const json_t *data = json_object_get(problem, "data");
    const char *code = json_string_value(json_object_get(data, "code"));
    const char *message = json_string_value(json_object_get(data, "message"));
    const char *remedy = json_string_value(json_object_get(data, "remedy"));
    message = message == NULL ? json_string_value(json_object_get(problem, "message")) : message;
    (void)error_set(error, code == NULL ? ERROR_INTERNAL : error_code_parse(code), "%s",
                    message == NULL ? "the daemon's answer has neither a result nor an error" : message);
    if (remedy != NULL) {
        (void)error_remedy(error, "%s", remedy);
    }
}

json_t *client_call(struct client *client, const char *method, json_t *params, struct client_wait *wait,
                    struct error *error)
{
    client->listening = false;
    wait->stopped = false;
    if (!send_request(client, method, params, error)) {
        return NULL;
    }
    enum outcome outcome = wait_answer(client, wait, error);
    json_t *answer = client->answer;
    client->answer = NULL;
    json_t *result = NULL;
    if (outcome == OUTCOME_STOPPED) {
        (void)error_set(error, ERROR_ABORTED, "interrupted");
    } else if (outcome == OUTCOME_TIMEOUT) {
        (void)error_set(error, ERROR_DAEMON_UNREACHABLE, "the daemon at %s did not answer in time",
                        client->path);
        (void)error_remedy(error, "look at its log; its process may be stopped or overloaded");
    } else if (outcome == OUTCOME_ANSWERED) {
        result = json_incref(json_object_get(answer, "result"));
        if (result == NULL) {
            take_error(answer, error);
        }
    }
    json_decref(answer);
    return result;
}

bool client_listen(struct client *client, struct client_wait *wait, struct error *error)
{
    client->listening = true;
    wait->stopped = false;
    return wait_answer(client, wait, error) != OUTCOME_FAILED;
}
