#include "proxy/wire/build.h"

#include "conf/base/ensure.h"
#include "proxy/wire/startup.h"

enum { CODE_CANCEL = 80877102 };

void build_init(struct build *build, void *data, size_t capacity)
{
    *build = (struct build){.data = data, .capacity = capacity};
}

void build_bytes(struct build *build, const void *bytes, size_t length)
{
    if (length > 0 && build->length <= build->capacity && length <= build->capacity - build->length) {
        memcpy(build->data + build->length, bytes, length);
    }
    build->length += length;
}

void build_u8(struct build *build, uint8_t value)
{
    build_bytes(build, &value, 1);
}

void build_u16(struct build *build, uint16_t value)
{
    uint8_t bytes[2] = {(uint8_t)(value >> 8), (uint8_t)value};
    build_bytes(build, bytes, sizeof bytes);
}

void build_u32(struct build *build, uint32_t value)
{
    uint8_t bytes[4] = {(uint8_t)(value >> 24), (uint8_t)(value >> 16), (uint8_t)(value >> 8),
                        (uint8_t)value};
    build_bytes(build, bytes, sizeof bytes);
}

void build_text(struct build *build, struct slice text)
{
    build_bytes(build, text.data, text.length);
    build_u8(build, 0);
}

void build_string(struct build *build, const char *text)
{
    build_bytes(build, text, strlen(text) + 1);
}

void build_begin(struct build *build, char type)
{
    build_u8(build, (uint8_t)type);
    build->message = build->length;
    build_u32(build, 0);
}

/* The length that stands at build->message. */
void build_end(struct build *build)
{
    size_t whole = build->length - build->message;
    ENSURE(whole >= 4 && whole <= INT32_MAX);
    if (build->length <= build->capacity) {
        struct build field = {.data = build->data + build->message, .capacity = 4};
        build_u32(&field, (uint32_t)whole);
    }
}

static void build_empty(struct build *build, char type)
{
    build_begin(build, type);
    build_end(build);
}

void build_startup_begin(struct build *build, uint32_t version)
{
    build->message = build->length;
    build_u32(build, 0);
    build_u32(build, version);
}

void build_startup_parameter(struct build *build, struct slice name, struct slice value)
{
    build_text(build, name);
    build_text(build, value);
}

void build_startup_end(struct build *build)
{
    build_u8(build, 0);
    build_end(build);
}

void build_cancel(struct build *build, uint32_t pid, struct slice key)
{
    build->message = build->length;
    build_u32(build, 0);
    build_u32(build, CODE_CANCEL);
    build_u32(build, pid);
    build_bytes(build, key.data, key.length);
    build_end(build);
}

void build_sasl_initial(struct build *build, const char *mechanism, struct slice response)
{
    build_begin(build, 'p');
    build_string(build, mechanism);
    build_u32(build, (uint32_t)response.length);
    build_bytes(build, response.data, response.length);
    build_end(build);
}

void build_password(struct build *build, const char *password)
{
    build_begin(build, 'p');
    build_string(build, password);
    build_end(build);
}

void build_sasl_response(struct build *build, struct slice response)
{
    build_begin(build, 'p');
    build_bytes(build, response.data, response.length);
    build_end(build);
}

void build_query(struct build *build, const char *sql)
{
    build_begin(build, 'Q');
    build_string(build, sql);
    build_end(build);
}

void build_parse(struct build *build, struct slice name, struct slice sql, const uint32_t *types,
                 uint16_t type_count)
{
    build_begin(build, 'P');
    build_text(build, name);
    build_text(build, sql);
    build_u16(build, type_count);
    for (uint16_t i = 0; i < type_count; i++) {
        build_u32(build, types[i]);
    }
    build_end(build);
}

void build_bind(struct build *build, struct slice portal, struct slice statement,
                const struct slice *parameters, uint16_t parameter_count)
{
    build_begin(build, 'B');
    build_text(build, portal);
    build_text(build, statement);
    build_u16(build, 0);
    build_u16(build, parameter_count);
    for (uint16_t i = 0; i < parameter_count; i++) {
        if (parameters[i].data == NULL) {
            build_u32(build, UINT32_MAX);
        } else {
            build_u32(build, (uint32_t)parameters[i].length);
            build_bytes(build, parameters[i].data, parameters[i].length);
        }
    }
    build_u16(build, 0);
    build_end(build);
}

static void build_target(struct build *build, char type, char kind, struct slice name)
{
    build_begin(build, type);
    build_u8(build, (uint8_t)kind);
    build_text(build, name);
    build_end(build);
}

void build_describe(struct build *build, char kind, struct slice name)
{
    build_target(build, 'D', kind, name);
}

void build_close(struct build *build, char kind, struct slice name)
{
    build_target(build, 'C', kind, name);
}

void build_execute(struct build *build, struct slice portal, uint32_t max_rows)
{
    build_begin(build, 'E');
    build_text(build, portal);
    build_u32(build, max_rows);
    build_end(build);
}

void build_flush(struct build *build)
{
    build_empty(build, 'H');
}

void build_sync(struct build *build)
{
    build_empty(build, 'S');
}

void build_terminate(struct build *build)
{
    build_empty(build, 'X');
}

static void build_authentication(struct build *build, uint32_t kind, struct slice data)
{
    build_begin(build, 'R');
    build_u32(build, kind);
    build_bytes(build, data.data, data.length);
    build_end(build);
}

void build_authentication_ok(struct build *build)
{
    build_authentication(build, 0, slice_of("", 0));
}

void build_authentication_md5(struct build *build, struct slice salt)
{
    build_authentication(build, 5, salt);
}

void build_authentication_sasl(struct build *build, const char *mechanism, const char *second)
{
    build_begin(build, 'R');
    build_u32(build, 10);
    build_string(build, mechanism);
    if (second != NULL) {
        build_string(build, second);
    }
    build_u8(build, 0);
    build_end(build);
}

void build_authentication_sasl_continue(struct build *build, struct slice data)
{
    build_authentication(build, 11, data);
}

void build_authentication_sasl_final(struct build *build, struct slice data)
{
    build_authentication(build, 12, data);
}

void build_parameter_status(struct build *build, struct slice name, struct slice value)
{
    build_begin(build, 'S');
    build_text(build, name);
    build_text(build, value);
    build_end(build);
}

void build_backend_key(struct build *build, uint32_t pid, struct slice key)
{
    build_begin(build, 'K');
    build_u32(build, pid);
    build_bytes(build, key.data, key.length);
    build_end(build);
}

void build_ready(struct build *build, char status)
{
    build_begin(build, 'Z');
    build_u8(build, (uint8_t)status);
    build_end(build);
}

static void build_report(struct build *build, char type, const char *severity, const char *sqlstate,
                         const char *message, const char *hint)
{
    build_begin(build, type);
    build_u8(build, 'S');
    build_string(build, severity);
    build_u8(build, 'V');
    build_string(build, severity);
    build_u8(build, 'C');
    build_string(build, sqlstate);
    build_u8(build, 'M');
    build_string(build, message);
    if (hint != NULL) {
        build_u8(build, 'H');
        build_string(build, hint);
    }
    build_u8(build, 0);
    build_end(build);
}

void build_error(struct build *build, const char *severity, const char *sqlstate, const char *message,
                 const char *hint)
{
    build_report(build, 'E', severity, sqlstate, message, hint);
}

void build_notice(struct build *build, const char *severity, const char *sqlstate, const char *message)
{
    build_report(build, 'N', severity, sqlstate, message, NULL);
}

static bool is_protocol_option(struct slice name)
{
    static const char prefix[] = "_pq_.";
    return name.length >= sizeof prefix - 1 && memcmp(name.data, prefix, sizeof prefix - 1) == 0;
}

void build_negotiate(struct build *build, uint32_t spoken, struct slice parameters)
{
    uint32_t count = 0;
    struct slice name;
    struct slice value;
    for (struct slice rest = parameters; startup_next(&rest, &name, &value);) {
        count += is_protocol_option(name) ? 1 : 0;
    }
    build_begin(build, 'v');
    build_u32(build, spoken);
    build_u32(build, count);
    for (struct slice rest = parameters; startup_next(&rest, &name, &value);) {
        if (is_protocol_option(name)) {
            build_text(build, name);
        }
    }
    build_end(build);
}
