/*
 * The first packets of a connection, which have no type byte: StartupMessage, SSLRequest, GSSENCRequest and
 * CancelRequest. The login calls startup_parse() on what it has read so far, before it allocates anything.
 */
#ifndef SWITCHBACK_PROXY_WIRE_STARTUP_H
#define SWITCHBACK_PROXY_WIRE_STARTUP_H

#include "proxy/wire/slice.h"

enum {
    STARTUP_PACKET_MAX = 10000, /* without the length field, as PostgreSQL's MAX_STARTUP_PACKET_LENGTH */
    STARTUP_PROTOCOL_3_0 = 196608,
    STARTUP_PROTOCOL_3_2 = 196610, /* the newest that we speak; its cancel keys are long */
    CANCEL_KEY_MIN = 4,
    CANCEL_KEY_MAX = 256 /* protocol 3.2; 4 bytes before */
};

enum startup_kind {
    STARTUP_NOTHING, /* not a packet, or only its beginning */
    STARTUP_MESSAGE,
    STARTUP_SSL_REQUEST,
    STARTUP_GSSENC_REQUEST,
    STARTUP_CANCEL_REQUEST,
    STARTUP_DIRECT_TLS,  /* first byte 0x16: a TLS ClientHello without SSLRequest; nothing is consumed */
    STARTUP_UNSUPPORTED, /* another major version: version is filled */
};

struct startup {
    enum startup_kind kind;
    uint32_t version;         /* major << 16 | minor, as asked for */
    uint32_t spoken;          /* STARTUP_MESSAGE: the one that is spoken then */
    struct slice parameters;  /* STARTUP_MESSAGE: name, value pairs, without the final NUL */
    struct slice user;        /* empty: missing, which is a FATAL 28000 */
    struct slice database;    /* defaults to user */
    struct slice options;     /* verbatim, never interpreted */
    struct slice replication; /* "" if absent; startup_is_replication() */
    bool negotiate;           /* a newer minor version or unknown _pq_. keys: NegotiateProtocolVersion */
    uint32_t unknown_keys;    /* how many parameters begin with _pq_. */
    uint32_t pid;             /* STARTUP_CANCEL_REQUEST */
    struct slice key;         /* of the cancel: 4 to 256 bytes */
};

/*
 * Parses the packet at the beginning of bytes. WIRE_OK: *consumed is its size. WIRE_PARTIAL needs more bytes,
 * never beyond STARTUP_PACKET_MAX + 4. WIRE_BAD: a StartupMessage whose layout is wrong (kind says that it is
 * one), or nothing that can come here, or too long. Slices point into bytes.
 */
MUST_USE enum wire_answer startup_parse(struct slice bytes, struct startup *startup, size_t *consumed);

/* Takes the next name and value off *parameters; false at the end. Both end with a NUL beyond the slice. */
MUST_USE bool startup_next(struct slice *parameters, struct slice *name, struct slice *value);

/* Any `replication` value that PostgreSQL takes for a walsender: true, on, yes, 1, database. */
bool startup_is_replication(const struct startup *startup);

#endif
