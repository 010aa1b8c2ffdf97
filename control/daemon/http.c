#include "control/daemon/http.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "conf/base/strbuf.h"

#include <errno.h>
#include <inttypes.h>
#include <microhttpd.h>
#include <netdb.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    BACKLOG = 64,
    CONNECTIONS = 32,
    IDLE_SECONDS = 10,
    CONNECTION_BYTES = 16 * 1024,
    TEXT_LIMIT = 256 * 1024,
    STALE_US = 10 * 1000 * 1000 /* a main loop that is silent for so long isn't healthy */
};

struct http {
    struct MHD_Daemon *daemon;
    uint16_t port;
    pthread_mutex_t mutex;
    struct metrics latest;
    bool published;
    int64_t heard_us; /* monotonic: the last snapshot, or the start */
};

/* --- answers, on the server's thread --- */

struct answer {
    unsigned status;
    const char *type;
    struct strbuf text;
};

static bool take_latest(struct http *http, struct metrics *metrics, int64_t *silence_us)
{
    pthread_mutex_lock(&http->mutex);
    *metrics = http->latest;
    *silence_us = clock_mono_us() - http->heard_us;
    bool published = http->published;
    pthread_mutex_unlock(&http->mutex);
    return published;
}

static void answer_health(struct http *http, struct answer *answer)
{
    struct metrics metrics;
    int64_t silence_us;
    take_latest(http, &metrics, &silence_us);
    if (silence_us > STALE_US) {
        answer->status = MHD_HTTP_SERVICE_UNAVAILABLE;
        strbuf_printf(&answer->text, "the main loop has been silent for %" PRId64 " s\n",
                      silence_us / 1000000);
    } else {
        strbuf_puts(&answer->text, "ok\n");
    }
}

static void answer_ready(struct http *http, struct answer *answer)
{
    struct metrics metrics;
    int64_t silence_us;
    bool published = take_latest(http, &metrics, &silence_us);
    if (published && metrics.ready && silence_us <= STALE_US) {
        strbuf_puts(&answer->text, "ready\n");
        return;
    }
    answer->status = MHD_HTTP_SERVICE_UNAVAILABLE;
    const char *reason = !published                          ? "starting"
                         : silence_us > STALE_US             ? "the main loop is silent"
                         : metrics.unready_reason[0] != '\0' ? metrics.unready_reason
                                                             : "no side is active";
    strbuf_printf(&answer->text, "%s\n", reason);
}

static void answer_metrics(struct http *http, struct answer *answer)
{
    struct metrics metrics;
    int64_t silence_us;
    if (!take_latest(http, &metrics, &silence_us)) {
        answer->status = MHD_HTTP_SERVICE_UNAVAILABLE;
        strbuf_puts(&answer->text, "starting\n");
        return;
    }
    answer->type = "text/plain; version=0.0.4; charset=utf-8";
    metrics_print(&metrics, &answer->text);
}

static const struct {
    const char *path;
    void (*answer)(struct http *http, struct answer *answer);
} pages[] = {
    {"/healthz", answer_health},
    {"/readyz", answer_ready},
    {"/metrics", answer_metrics},
};

static enum MHD_Result send_answer(struct MHD_Connection *connection, struct answer *answer)
{
    if (answer->text.failed) {
        answer->status = MHD_HTTP_INTERNAL_SERVER_ERROR;
    }
    struct MHD_Response *response =
        MHD_create_response_from_buffer(answer->text.length, answer->text.data, MHD_RESPMEM_MUST_COPY);
    if (response == NULL) {
        return MHD_NO;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, answer->type);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    if (answer->status == MHD_HTTP_METHOD_NOT_ALLOWED) {
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    }
    enum MHD_Result result = MHD_queue_response(connection, answer->status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *path,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_size, void **state)
{
    (void)version;
    (void)upload;
    struct http *http = context;
    bool reads = strcmp(method, MHD_HTTP_METHOD_GET) == 0 || strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
    if (reads && *state == NULL) {
        *state = http; /* the headers have come; the answer follows with the next call */
        return MHD_YES;
    }
    struct answer answer = {.status = MHD_HTTP_OK, .type = "text/plain; charset=utf-8"};
    strbuf_init(&answer.text, TEXT_LIMIT);
    if (!reads) {
        *upload_size = 0; /* whatever came is passed over */
        answer.status = MHD_HTTP_METHOD_NOT_ALLOWED;
        strbuf_puts(&answer.text, "read-only\n");
    } else {
        answer.status = MHD_HTTP_NOT_FOUND;
        for (size_t i = 0; i < ARRAY_LENGTH(pages); i++) {
            if (strcmp(pages[i].path, path) == 0) {
                answer.status = MHD_HTTP_OK;
                pages[i].answer(http, &answer);
            }
        }
        if (answer.status == MHD_HTTP_NOT_FOUND) {
            strbuf_puts(&answer.text, "there are /healthz, /readyz and /metrics\n");
        }
    }
    enum MHD_Result result = send_answer(connection, &answer);
    strbuf_deinit(&answer.text);
    return result;
}

static void on_log(void *context, const char *format, va_list arguments)
    __attribute__((format(printf, 2, 0)));

static void on_log(void *context, const char *format, va_list arguments)
{
    (void)context;
    char text[256];
    (void)vsnprintf(text, sizeof(text), format, arguments);
    text[strcspn(text, "\n")] = '\0';
    LOG_DEBUG("http_server", LOG_STR("message", text));
}

/* --- life, on the main loop's thread --- */

static int listen_on(const struct addrinfo *address)
{
    int descriptor = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int yes = 1;
    if (descriptor >= 0 &&
        (setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) != 0 ||
         bind(descriptor, address->ai_addr, address->ai_addrlen) != 0 || listen(descriptor, BACKLOG) != 0)) {
        int reason = errno;
        close(descriptor);
        errno = reason;
        return -1;
    }
    return descriptor;
}

static int open_listener(const char *host, uint16_t port, struct error *error)
{
    char service[8];
    (void)snprintf(service, sizeof(service), "%u", (unsigned)port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *addresses = NULL;
    int status = getaddrinfo(host, service, &hints, &addresses);
    if (status != 0) {
        error_set(error, ERROR_CONFIG, "http.listen: host \"%s\" can't be resolved: %s", host,
                  gai_strerror(status));
        return -1;
    }
    int descriptor = listen_on(addresses);
    if (descriptor < 0) {
        error_set(error, ERROR_SYSTEM, "http.listen: %s port %u can't be opened: %s", host, (unsigned)port,
                  strerror(errno));
        error_remedy(error, "set http.listen to a free port, or to \"\" to go without it");
    }
    freeaddrinfo(addresses);
    return descriptor;
}

static uint16_t bound_port(int descriptor)
{
    struct sockaddr_storage address;
    socklen_t size = sizeof(address);
    char service[NI_MAXSERV];
    if (getsockname(descriptor, (struct sockaddr *)&address, &size) != 0 ||
        getnameinfo((struct sockaddr *)&address, size, NULL, 0, service, sizeof(service), NI_NUMERICSERV) !=
            0) {
        return 0;
    }
    return (uint16_t)strtoul(service, NULL, 10);
}

struct http *http_start(const char *host, uint16_t port, struct error *error)
{
    struct http *http = calloc(1, sizeof(*http));
    if (http == NULL) {
        error_set(error, ERROR_MEMORY, "out of memory");
        return NULL;
    }
    int listener = open_listener(host, port, error);
    if (listener < 0) {
        free(http);
        return NULL;
    }
    http->port = bound_port(listener);
    http->heard_us = clock_mono_us();
    ENSURE(pthread_mutex_init(&http->mutex, NULL) == 0);
    http->daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_request, http,
        MHD_OPTION_LISTEN_SOCKET, listener, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_SECONDS, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)CONNECTION_BYTES, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL, MHD_OPTION_END);
    if (http->daemon == NULL) {
        error_set(error, ERROR_SYSTEM, "the http server can't be started");
        close(listener);
        pthread_mutex_destroy(&http->mutex);
        free(http);
        return NULL;
    }
    return http;
}

uint16_t http_port(const struct http *http)
{
    return http->port;
}

void http_publish(struct http *http, const struct metrics *metrics)
{
    pthread_mutex_lock(&http->mutex);
    http->latest = *metrics;
    http->published = true;
    http->heard_us = clock_mono_us();
    pthread_mutex_unlock(&http->mutex);
}

void http_stop(struct http *http)
{
    if (http != NULL) {
        MHD_stop_daemon(http->daemon);
        pthread_mutex_destroy(&http->mutex);
        free(http);
    }
}
