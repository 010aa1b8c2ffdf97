/*
 * Messages that the proxy sends to either side, written into a buffer of the caller's. Nothing is written
 * past the capacity, but the length goes on counting: a caller that finds length > capacity makes a buffer of
 * that length and builds again.
 */
#ifndef SWITCHBACK_PROXY_WIRE_BUILD_H
#define SWITCHBACK_PROXY_WIRE_BUILD_H

#include "proxy/wire/slice.h"

struct build {
    uint8_t *data; /* may be NULL with capacity 0: counts only */
    size_t capacity;
    size_t length;
    size_t message; /* where the message being built began */
};

void build_init(struct build *build, void *data, size_t capacity);
static inline bool build_fits(const struct build *build)
{
    return build->length <= build->capacity;
}

/* Any message: begin, fields, end. */
void build_begin(struct build *build, char type);
void build_u8(struct build *build, uint8_t value);
void build_u16(struct build *build, uint16_t value);
void build_u32(struct build *build, uint32_t value);
void build_bytes(struct build *build, const void *bytes, size_t length);
void build_text(struct build *build, struct slice text); /* with the final NUL */
void build_string(struct build *build, const char *text);
void build_end(struct build *build);

/* --- to a server --- */

/* StartupMessage: begin, parameters, end. version: STARTUP_PROTOCOL_3_2 ... */
void build_startup_begin(struct build *build, uint32_t version);
void build_startup_parameter(struct build *build, struct slice name, struct slice value);
void build_startup_end(struct build *build);
void build_cancel(struct build *build, uint32_t pid, struct slice key);
void build_sasl_initial(struct build *build, const char *mechanism, struct slice response);
void build_sasl_response(struct build *build, struct slice response);
void build_password(struct build *build, const char *password);
void build_query(struct build *build, const char *sql);
void build_parse(struct build *build, struct slice name, struct slice sql, const uint32_t *types,
                 uint16_t type_count);
/* All parameters and results as text; a parameter with data NULL is an SQL NULL. */
void build_bind(struct build *build, struct slice portal, struct slice statement,
                const struct slice *parameters, uint16_t parameter_count);
void build_describe(struct build *build, char kind, struct slice name);
void build_execute(struct build *build, struct slice portal, uint32_t max_rows);
void build_close(struct build *build, char kind, struct slice name);
void build_flush(struct build *build);
void build_sync(struct build *build);
void build_terminate(struct build *build);

/* --- to a client --- */

void build_authentication_ok(struct build *build);
void build_authentication_md5(struct build *build, struct slice salt);
/* One mechanism, or (second not NULL) two, the better one first. */
void build_authentication_sasl(struct build *build, const char *mechanism, const char *second);
void build_authentication_sasl_continue(struct build *build, struct slice data);
void build_authentication_sasl_final(struct build *build, struct slice data);
void build_parameter_status(struct build *build, struct slice name, struct slice value);
void build_backend_key(struct build *build, uint32_t pid, struct slice key);
void build_ready(struct build *build, char status);
/* severity: "FATAL", "ERROR"; hint may be NULL */
void build_error(struct build *build, const char *severity, const char *sqlstate, const char *message,
                 const char *hint);
void build_notice(struct build *build, const char *severity, const char *sqlstate, const char *message);
/* Answers a startup with the version that is spoken, and all of its parameters that begin with _pq_. */
void build_negotiate(struct build *build, uint32_t spoken, struct slice parameters);

#endif
