/* The storm's servers: a thread for each connection, which answers what it is asked, slowly at times. */
#ifndef SWITCHBACK_TESTS_UNIT_STORM_SERVER_H
#define SWITCHBACK_TESTS_UNIT_STORM_SERVER_H

#include "tests/unit/storm.h"

struct storm_backend {
    struct storm *storm;
    int fd;
    unsigned seed, pid;
    bool failed;              /* until Sync */
    struct storm_query query; /* of the last Parse */
};

static inline bool backend_get(const struct storm_backend *backend, void *bytes, size_t length)
{
    size_t have = 0;
    while (have < length) {
        ssize_t count = recv(backend->fd, (char *)bytes + have, length - have, 0);
        if (count <= 0) {
            return false;
        }
        have += (size_t)count;
    }
    return true;
}

static inline bool backend_put(const struct storm_backend *backend, const void *bytes, size_t length)
{
    size_t sent = 0;
    while (sent < length) {
        ssize_t count = send(backend->fd, (const char *)bytes + sent, length - sent, MSG_NOSIGNAL);
        if (count <= 0) {
            return false;
        }
        sent += (size_t)count;
    }
    return true;
}

static inline bool backend_error(const struct storm_backend *backend, const char *severity,
                                 const char *sqlstate)
{
    uint8_t packet[256];
    struct build build;
    build_init(&build, packet, sizeof(packet));
    build_error(&build, severity, sqlstate, "the storm", NULL);
    return backend_put(backend, packet, build.length);
}

/* Half of an answer is sent: what was asked for happens. */
static inline void backend_die(struct storm_backend *backend, enum storm_deed deed)
{
    atomic_fetch_add(&backend->storm->deaths, 1);
    if (deed == DEED_RESET) {
        storm_reset(backend->fd);
        backend->fd = -1;
        return;
    }
    if (deed == DEED_FATAL) {
        (void)backend_error(backend, "FATAL", "57P01");
    }
    (void)shutdown(backend->fd, SHUT_WR);
    char rest[4096]; /* what still comes is read until the proxy closes */
    while (recv(backend->fd, rest, sizeof(rest), 0) > 0) {
    }
}

/* A row of that many bytes. */
static inline bool backend_row(const struct storm_backend *backend, unsigned id, size_t at, size_t length)
{
    uint8_t packet[STORM_ROW + 16];
    struct build build;
    build_init(&build, packet, sizeof(packet));
    build_begin(&build, 'D');
    build_u16(&build, 1);
    build_u32(&build, (uint32_t)length);
    for (size_t i = 0; i < length; i++) {
        build_u8(&build, (uint8_t)storm_byte(id, at + i));
    }
    build_end(&build);
    return backend_put(backend, packet, build.length);
}

static inline bool backend_cancelled(const struct storm_backend *backend)
{
    return atomic_exchange(&backend->storm->cancel_asked[backend->pid], false);
}

/* False: the connection is over. */
static inline bool backend_answer(struct storm_backend *backend, const struct storm_query *query)
{
    unsigned pause_ms = query->pause_ms;
    for (size_t at = 0; at < query->bytes;) {
        size_t left = query->bytes - at, length = 1 + storm_pick(&backend->seed, STORM_ROW);
        if (query->deed != DEED_NOTHING && at > query->bytes / 2) {
            backend_die(backend, query->deed);
            return false;
        }
        for (; pause_ms > 0 && storm_pick(&backend->seed, 2) == 0; pause_ms--) {
            storm_sleep_us(1000);
        }
        if (backend_cancelled(backend)) {
            atomic_fetch_add(&backend->storm->cancelled, 1);
            backend->failed = true;
            return backend_error(backend, "ERROR", "57014");
        }
        length = length < left ? length : left;
        if (!backend_row(backend, query->id, at, length)) {
            return false;
        }
        at += length;
    }
    return backend_put(backend, BYTES(COMPLETE_1));
}

/* The text of a query, and whether all of what fills it has come. */
static inline struct storm_query backend_parse(const char *text, size_t length)
{
    struct storm_query query = {0};
    unsigned deed = 0;
    if (sscanf(text, "%u %u %u %u %u", &query.id, &query.bytes, &query.pause_ms, &deed, &query.filler) != 5 ||
        length != STORM_TEXT + query.filler) {
        storm_fail("server", "a query came that nobody has sent", length);
    }
    for (size_t i = STORM_TEXT; i < length; i++) {
        if (text[i] != storm_byte(query.id, i)) {
            storm_fail("server", "a query has wrong bytes", i);
        }
    }
    query.deed = (enum storm_deed)deed;
    return query;
}

/* False: the connection is over. */
static inline bool backend_message(struct storm_backend *backend, char type, char *body, size_t length)
{
    if (type == 'S' || type == 'Q') {
        bool ok = type == 'S';
        if (type == 'Q') {
            const struct storm_query query = backend_parse(body, length - 1);
            (void)backend_cancelled(backend);
            ok = backend_answer(backend, &query);
        }
        backend->failed = false;
        return ok && backend_put(backend, BYTES(READY_I));
    }
    if (backend->failed) {
        return true;
    }
    if (type == 'P') { /* one that came before this meant another statement */
        (void)backend_cancelled(backend);
    }
    switch (type) {
    case 'P': /* the name is empty, and there are no types of parameters */
        backend->query = backend_parse(body + 1, length - 4);
        return backend_put(backend, "1\0\0\0\x04", 5);
    case 'B':
        return backend_put(backend, "2\0\0\0\x04", 5);
    case 'E':
        return backend_answer(backend, &backend->query);
    case 'X':
        return false;
    default:
        storm_fail("server", "a message came that nobody has sent", (unsigned long)type);
    }
}

static inline void backend_talk(struct storm_backend *backend)
{
    for (;;) {
        uint8_t header[5];
        if (!backend_get(backend, header, sizeof(header))) {
            return;
        }
        size_t length =
            ((size_t)header[1] << 24 | (size_t)header[2] << 16 | (size_t)header[3] << 8 | header[4]) - 4;
        char *body = malloc(length + 1);
        if (body == NULL) {
            storm_fail("server", "out of memory", length);
        }
        body[length] = '\0';
        if (storm_pick(&backend->seed, 8) == 0) {
            storm_sleep_us(storm_pick(&backend->seed, 10000)); /* the proxy has to wait with the rest */
        }
        bool more =
            backend_get(backend, body, length) && backend_message(backend, (char)header[0], body, length);
        free(body);
        if (!more) {
            return;
        }
    }
}

static inline bool backend_login(struct storm_backend *backend)
{
    uint8_t size[4], packet[512], greeting[256];
    struct build build;
    if (!backend_get(backend, size, sizeof(size))) {
        return false;
    }
    size_t length = ((size_t)size[2] << 8 | size[3]) - 4;
    if (length > sizeof(packet) || !backend_get(backend, packet, length)) {
        return false;
    }
    if (packet[1] == 0xd2) { /* a cancel request */
        unsigned pid = (unsigned)packet[6] << 8 | packet[7];
        atomic_store(&backend->storm->cancel_asked[pid % STORM_SERVERS], true);
        return false;
    }
    build_init(&build, greeting, sizeof(greeting));
    build_bytes(&build, BYTES(NEGOTIATE_3_0 "R\0\0\0\x08\0\0\0\0"
                                            "S\0\0\0\x16server_version\00016\0"));
    build_backend_key(&build, backend->pid, slice_of(SERVER_KEY, 4));
    build_ready(&build, 'I');
    return backend_put(backend, greeting, build.length);
}

static inline void *backend_run(void *argument)
{
    struct storm_backend *backend = argument;
    const int small = 16384;
    if (storm_pick(&backend->seed, 4) == 0) {
        (void)setsockopt(backend->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    }
    if (backend_login(backend)) {
        backend_talk(backend);
    }
    if (backend->fd >= 0) {
        (void)close(backend->fd);
    }
    free(backend);
    return NULL;
}

/* Accepts until its listening socket is shut down. */
static inline void *server_run(void *argument)
{
    struct storm *storm = argument;
    for (;;) {
        int fd = accept(storm->world->servers[SIDE_BLUE], NULL, NULL);
        if (fd < 0) {
            return NULL;
        }
        unsigned pid = atomic_fetch_add(&storm->accepted, 1);
        struct storm_backend *backend = calloc(1, sizeof(*backend));
        if (backend == NULL || pid >= STORM_SERVERS) {
            storm_fail("server", "too many connections", pid);
        }
        *backend = (struct storm_backend){.storm = storm, .fd = fd, .seed = pid + 1, .pid = pid};
        if (pthread_create(&storm->servers[pid], NULL, backend_run, backend) != 0) {
            storm_fail("server", "no thread", pid);
        }
    }
}

#endif
