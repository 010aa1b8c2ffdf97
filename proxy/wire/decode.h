/*
 * Bodies of messages, decoded where they lie: slices point into the body, which must be complete. All return
 * false for a body that does not keep to the protocol, and never read beyond it. (PostgreSQL documentation,
 * "Message Formats".)
 */
#ifndef SWITCHBACK_PROXY_WIRE_DECODE_H
#define SWITCHBACK_PROXY_WIRE_DECODE_H

#include "proxy/wire/slice.h"

/* --- from the server --- */

struct decode_error {
    struct slice severity; /* not localized (V) if the server sent it, else S */
    struct slice sqlstate; /* empty if absent */
    struct slice message, detail, hint;
};

enum decode_authentication {
    AUTHENTICATION_OK = 0,
    AUTHENTICATION_CLEARTEXT = 3,
    AUTHENTICATION_MD5 = 5,
    AUTHENTICATION_SASL = 10,
    AUTHENTICATION_SASL_CONTINUE = 11,
    AUTHENTICATION_SASL_FINAL = 12
};

MUST_USE bool decode_ready(struct slice body, char *status); /* I, T or E */
/* ErrorResponse and NoticeResponse. A body that was cut gives the fields that are whole. */
void decode_error(struct slice body, struct decode_error *error);
bool decode_error_is_fatal(const struct decode_error *error);     /* FATAL or PANIC: the connection ends */
MUST_USE bool decode_text(struct slice body, struct slice *text); /* CommandComplete, Query, CopyFail */
MUST_USE bool decode_parameter_status(struct slice body, struct slice *name, struct slice *value);
MUST_USE bool decode_backend_key(struct slice body, uint32_t *pid, struct slice *key);
/* NegotiateProtocolVersion: the version the server speaks, and how many options it doesn't know */
MUST_USE bool decode_negotiate(struct slice body, uint32_t *version, uint32_t *unknown);
/* data: what follows the kind: mechanisms, salt, SASL data */
MUST_USE bool decode_authentication(struct slice body, uint32_t *kind, struct slice *data);
MUST_USE bool decode_sasl_offers(struct slice data, const char *mechanism);
MUST_USE bool decode_notification(struct slice body, uint32_t *pid, struct slice *channel,
                                  struct slice *payload);
/* format 0 text, 1 binary; CopyInResponse, CopyOutResponse, CopyBothResponse */
MUST_USE bool decode_copy(struct slice body, uint8_t *format, uint16_t *columns);

/* RowDescription: *fields to be walked with decode_field_next(). */
struct decode_field {
    struct slice name;
    uint32_t table_oid, type_oid;
    uint16_t column, format;
};
MUST_USE bool decode_row_description(struct slice body, uint16_t *count, struct slice *fields);
MUST_USE bool decode_field_next(struct slice *fields, struct decode_field *field);

/* DataRow: *columns to be walked with decode_column_next(); a NULL has is_null and an empty value. */
MUST_USE bool decode_data_row(struct slice body, uint16_t *count, struct slice *columns);
MUST_USE bool decode_column_next(struct slice *columns, struct slice *value, bool *is_null);

/* ParameterDescription: the oids are read with decode_oid(). */
MUST_USE bool decode_parameter_description(struct slice body, uint16_t *count, struct slice *oids);
uint32_t decode_oid(struct slice oids, uint16_t index);

/* --- from the client --- */

struct decode_parse {
    struct slice name, text;
    uint16_t type_count;
    struct slice types; /* decode_oid() */
};

struct decode_bind {
    struct slice portal, statement;
    uint16_t format_count;
    struct slice formats; /* two bytes each */
    uint16_t parameter_count;
    struct slice parameters; /* decode_column_next() */
};

MUST_USE bool decode_parse(struct slice body, struct decode_parse *parse);
MUST_USE bool decode_bind(struct slice body, struct decode_bind *bind);
/* True if the parameter at that index is sent as text. */
bool decode_bind_is_text(const struct decode_bind *bind, uint16_t index);
MUST_USE bool decode_execute(struct slice body, struct slice *portal, uint32_t *max_rows);
/* Describe and Close: kind is 'S' or 'P' */
MUST_USE bool decode_target(struct slice body, char *kind, struct slice *name);
/* SASLInitialResponse: response is empty if the client sent none */
MUST_USE bool decode_sasl_initial(struct slice body, struct slice *mechanism, struct slice *response);

#endif
