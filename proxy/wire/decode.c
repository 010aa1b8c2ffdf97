#include "proxy/wire/decode.h"

/* A reader that fails once and for all: callers check `bad` at the end. */
struct reader {
    struct slice rest;
    bool bad;
};

static struct reader reader_of(struct slice body)
{
    return (struct reader){.rest = body};
}

static struct slice read_bytes(struct reader *reader, size_t count)
{
    if (reader->bad || reader->rest.length < count) {
        reader->bad = true;
        return slice_of("", 0);
    }
    struct slice bytes = slice_of(reader->rest.data, count);
    reader->rest = slice_of(reader->rest.data + count, reader->rest.length - count);
    return bytes;
}

static uint8_t read_u8(struct reader *reader)
{
    struct slice bytes = read_bytes(reader, 1);
    return reader->bad ? 0 : bytes.data[0];
}

static uint16_t get_u16(const uint8_t *data)
{
    return (uint16_t)(data[0] << 8 | data[1]);
}

static uint32_t get_u32(const uint8_t *data)
{
    return (uint32_t)data[0] << 24 | (uint32_t)data[1] << 16 | (uint32_t)data[2] << 8 | data[3];
}

static uint16_t read_u16(struct reader *reader)
{
    struct slice bytes = read_bytes(reader, 2);
    return reader->bad ? 0 : get_u16(bytes.data);
}

static uint32_t read_u32(struct reader *reader)
{
    struct slice bytes = read_bytes(reader, 4);
    return reader->bad ? 0 : get_u32(bytes.data);
}

/* Up to a NUL, which is taken too. */
static struct slice read_text(struct reader *reader)
{
    const uint8_t *end = NULL;
    if (!reader->bad && reader->rest.length > 0) {
        end = memchr(reader->rest.data, 0, reader->rest.length);
    }
    if (end == NULL) {
        reader->bad = true;
        return slice_of("", 0);
    }
    struct slice text = read_bytes(reader, (size_t)(end - reader->rest.data));
    (void)read_bytes(reader, 1);
    return text;
}

/* The peer must have sent exactly this. */
static bool finished(const struct reader *reader)
{
    return !reader->bad && reader->rest.length == 0;
}

bool decode_ready(struct slice body, char *status)
{
    if (body.length != 1 || (body.data[0] != 'I' && body.data[0] != 'T' && body.data[0] != 'E')) {
        return false;
    }
    *status = (char)body.data[0];
    return true;
}

void decode_error(struct slice body, struct decode_error *error)
{
    *error = (struct decode_error){.severity = slice_of("", 0),
                                   .sqlstate = slice_of("", 0),
                                   .message = slice_of("", 0),
                                   .detail = slice_of("", 0),
                                   .hint = slice_of("", 0)};
    struct reader reader = reader_of(body);
    bool plain = false; /* the severity that isn't localized was seen */
    for (;;) {
        uint8_t field = read_u8(&reader);
        struct slice text = field == 0 ? slice_of("", 0) : read_text(&reader);
        if (field == 0 || reader.bad) {
            return;
        }
        switch (field) {
        case 'V':
            error->severity = text;
            plain = true;
            break;
        case 'S':
            error->severity = plain ? error->severity : text;
            break;
        case 'C':
            error->sqlstate = text;
            break;
        case 'M':
            error->message = text;
            break;
        case 'D':
            error->detail = text;
            break;
        case 'H':
            error->hint = text;
            break;
        default:
            break;
        }
    }
}

bool decode_error_is_fatal(const struct decode_error *error)
{
    return slice_equals(error->severity, "FATAL") || slice_equals(error->severity, "PANIC");
}

bool decode_text(struct slice body, struct slice *text)
{
    struct reader reader = reader_of(body);
    *text = read_text(&reader);
    return finished(&reader);
}

bool decode_parameter_status(struct slice body, struct slice *name, struct slice *value)
{
    struct reader reader = reader_of(body);
    *name = read_text(&reader);
    *value = read_text(&reader);
    return finished(&reader);
}

bool decode_backend_key(struct slice body, uint32_t *pid, struct slice *key)
{
    struct reader reader = reader_of(body);
    *pid = read_u32(&reader);
    *key = reader.rest;
    return !reader.bad && key->length >= 4 && key->length <= 256;
}

bool decode_negotiate(struct slice body, uint32_t *version, uint32_t *unknown)
{
    struct reader reader = reader_of(body);
    *version = read_u32(&reader);
    *unknown = read_u32(&reader);
    return !reader.bad;
}

bool decode_authentication(struct slice body, uint32_t *kind, struct slice *data)
{
    struct reader reader = reader_of(body);
    *kind = read_u32(&reader);
    *data = reader.rest;
    return !reader.bad;
}

bool decode_sasl_offers(struct slice data, const char *mechanism)
{
    struct reader reader = reader_of(data);
    for (;;) {
        struct slice offer = read_text(&reader);
        if (reader.bad || offer.length == 0) {
            return false;
        }
        if (slice_equals(offer, mechanism)) {
            return true;
        }
    }
}

bool decode_notification(struct slice body, uint32_t *pid, struct slice *channel, struct slice *payload)
{
    struct reader reader = reader_of(body);
    *pid = read_u32(&reader);
    *channel = read_text(&reader);
    *payload = read_text(&reader);
    return finished(&reader);
}

bool decode_copy(struct slice body, uint8_t *format, uint16_t *columns)
{
    struct reader reader = reader_of(body);
    *format = read_u8(&reader);
    *columns = read_u16(&reader);
    (void)read_bytes(&reader, (size_t)*columns * 2);
    return finished(&reader);
}

bool decode_row_description(struct slice body, uint16_t *count, struct slice *fields)
{
    struct reader reader = reader_of(body);
    *count = read_u16(&reader);
    *fields = reader.rest;
    return !reader.bad;
}

bool decode_field_next(struct slice *fields, struct decode_field *field)
{
    struct reader reader = reader_of(*fields);
    field->name = read_text(&reader);
    field->table_oid = read_u32(&reader);
    field->column = read_u16(&reader);
    field->type_oid = read_u32(&reader);
    (void)read_bytes(&reader, 2 + 4); /* type length and modifier */
    field->format = read_u16(&reader);
    *fields = reader.rest;
    return !reader.bad;
}

bool decode_data_row(struct slice body, uint16_t *count, struct slice *columns)
{
    return decode_row_description(body, count, columns);
}

bool decode_column_next(struct slice *columns, struct slice *value, bool *is_null)
{
    struct reader reader = reader_of(*columns);
    uint32_t length = read_u32(&reader);
    *is_null = length == UINT32_MAX;
    *value = *is_null ? slice_of("", 0) : read_bytes(&reader, length);
    *columns = reader.rest;
    return !reader.bad;
}

bool decode_parameter_description(struct slice body, uint16_t *count, struct slice *oids)
{
    struct reader reader = reader_of(body);
    *count = read_u16(&reader);
    *oids = read_bytes(&reader, (size_t)*count * 4);
    return finished(&reader);
}

uint32_t decode_oid(struct slice oids, uint16_t index)
{
    size_t offset = (size_t)index * 4;
    return offset + 4 <= oids.length ? get_u32(oids.data + offset) : 0;
}

bool decode_parse(struct slice body, struct decode_parse *parse)
{
    struct reader reader = reader_of(body);
    parse->name = read_text(&reader);
    parse->text = read_text(&reader);
    parse->type_count = read_u16(&reader);
    parse->types = read_bytes(&reader, (size_t)parse->type_count * 4);
    return finished(&reader);
}

bool decode_bind(struct slice body, struct decode_bind *bind)
{
    struct reader reader = reader_of(body);
    bind->portal = read_text(&reader);
    bind->statement = read_text(&reader);
    bind->format_count = read_u16(&reader);
    bind->formats = read_bytes(&reader, (size_t)bind->format_count * 2);
    bind->parameter_count = read_u16(&reader);
    bind->parameters = reader.rest;
    return !reader.bad;
}

bool decode_bind_is_text(const struct decode_bind *bind, uint16_t index)
{
    if (bind->format_count == 0) {
        return true;
    }
    size_t offset = bind->format_count == 1 ? 0 : (size_t)index * 2;
    return offset + 2 <= bind->formats.length && get_u16(bind->formats.data + offset) == 0;
}

bool decode_execute(struct slice body, struct slice *portal, uint32_t *max_rows)
{
    struct reader reader = reader_of(body);
    *portal = read_text(&reader);
    *max_rows = read_u32(&reader);
    return finished(&reader);
}

bool decode_target(struct slice body, char *kind, struct slice *name)
{
    struct reader reader = reader_of(body);
    *kind = (char)read_u8(&reader);
    *name = read_text(&reader);
    return finished(&reader) && (*kind == 'S' || *kind == 'P');
}

bool decode_sasl_initial(struct slice body, struct slice *mechanism, struct slice *response)
{
    struct reader reader = reader_of(body);
    *mechanism = read_text(&reader);
    uint32_t length = read_u32(&reader);
    *response = length == UINT32_MAX ? slice_of("", 0) : read_bytes(&reader, length);
    return finished(&reader);
}
