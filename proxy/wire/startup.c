#include "proxy/wire/startup.h"

enum {
    CODE_SSL = 80877103,
    CODE_GSSENC = 80877104,
    CODE_CANCEL = 80877102,
    PREFIX = 8, /* length and code */
    TLS_HANDSHAKE = 0x16
};

static uint32_t get_u32(const uint8_t *data)
{
    return (uint32_t)data[0] << 24 | (uint32_t)data[1] << 16 | (uint32_t)data[2] << 8 | data[3];
}

static bool has_prefix(struct slice text, const char *prefix)
{
    size_t length = strlen(prefix);
    return text.length >= length && memcmp(text.data, prefix, length) == 0;
}

/* The text up to the next NUL within *rest, which is taken with it. */
static bool take_text(struct slice *rest, struct slice *text)
{
    const uint8_t *end = rest->length == 0 ? NULL : memchr(rest->data, 0, rest->length);
    if (end == NULL) {
        return false;
    }
    *text = slice_of(rest->data, (size_t)(end - rest->data));
    *rest = slice_of(end + 1, rest->length - text->length - 1);
    return true;
}

bool startup_next(struct slice *parameters, struct slice *name, struct slice *value)
{
    return take_text(parameters, name) && take_text(parameters, value);
}

static bool parse_parameters(struct slice body, struct startup *startup)
{
    if (body.length == 0) {
        return false;
    }
    /* whatever the last byte is: PostgreSQL only wants to arrive there */
    startup->parameters = slice_of(body.data, body.length - 1);
    struct slice rest = startup->parameters;
    while (rest.length > 0) {
        struct slice name;
        struct slice value;
        if (!startup_next(&rest, &name, &value) || name.length == 0) {
            return false;
        }
        if (slice_equals(name, "user")) {
            startup->user = value;
        } else if (slice_equals(name, "database")) {
            startup->database = value;
        } else if (slice_equals(name, "options")) {
            startup->options = value;
        } else if (slice_equals(name, "replication")) {
            startup->replication = value;
        } else if (has_prefix(name, "_pq_.")) {
            startup->unknown_keys++;
        }
    }
    if (startup->database.length == 0) {
        startup->database = startup->user;
    }
    startup->spoken = startup->version < STARTUP_PROTOCOL_3_2 ? startup->version : STARTUP_PROTOCOL_3_2;
    startup->negotiate = startup->unknown_keys > 0 || startup->spoken != startup->version;
    return true;
}

static bool parse_body(struct slice body, struct startup *startup)
{
    switch (startup->version) {
    case CODE_SSL:
        startup->kind = STARTUP_SSL_REQUEST; /* a body isn't looked at, as in PostgreSQL */
        return true;
    case CODE_GSSENC:
        startup->kind = STARTUP_GSSENC_REQUEST;
        return true;
    case CODE_CANCEL:
        startup->kind = STARTUP_CANCEL_REQUEST;
        if (body.length < 4 + CANCEL_KEY_MIN || body.length > 4 + CANCEL_KEY_MAX) {
            return false;
        }
        startup->pid = get_u32(body.data);
        startup->key = slice_of(body.data + 4, body.length - 4);
        return true;
    default:
        if (startup->version >> 16 != 3) {
            startup->kind = STARTUP_UNSUPPORTED;
            return true;
        }
        startup->kind = STARTUP_MESSAGE;
        return parse_parameters(body, startup);
    }
}

enum wire_answer startup_parse(struct slice bytes, struct startup *startup, size_t *consumed)
{
    struct slice none = slice_of("", 0);
    *startup = (struct startup){.parameters = none,
                                .user = none,
                                .database = none,
                                .options = none,
                                .replication = none,
                                .key = none};
    *consumed = 0;
    if (bytes.length > 0 && bytes.data[0] == TLS_HANDSHAKE) {
        startup->kind = STARTUP_DIRECT_TLS;
        return WIRE_OK;
    }
    if (bytes.length < 4) {
        return bytes.length > 0 && bytes.data[0] != 0 ? WIRE_BAD : WIRE_PARTIAL;
    }
    uint32_t length = get_u32(bytes.data);
    if (length < PREFIX || length > STARTUP_PACKET_MAX + 4) {
        return WIRE_BAD;
    }
    if (bytes.length < length) {
        return WIRE_PARTIAL;
    }
    startup->version = get_u32(bytes.data + 4);
    if (!parse_body(slice_of(bytes.data + PREFIX, length - PREFIX), startup)) {
        return WIRE_BAD;
    }
    *consumed = length;
    return WIRE_OK;
}

/* As parse_bool() does: any unambiguous beginning of true, yes, on; or 1; and the word database. */
bool startup_is_replication(const struct startup *startup)
{
    static const char *const words[] = {"true", "yes", "on"};
    char value[16];
    if (startup->replication.length == 0 || startup->replication.length >= sizeof value) {
        return false;
    }
    (void)slice_copy(startup->replication, value, sizeof value);
    for (char *c = value; *c != '\0'; c++) {
        *c = (char)(*c >= 'A' && *c <= 'Z' ? *c - 'A' + 'a' : *c);
    }
    if (strcmp(value, "1") == 0 || strcmp(value, "database") == 0) {
        return true;
    }
    for (size_t i = 0; i < ARRAY_LENGTH(words); i++) {
        size_t length = strlen(value);
        if (strncmp(words[i], value, length) == 0 && (words[i][0] != 'o' || length == 2)) {
            return true;
        }
    }
    return false;
}
