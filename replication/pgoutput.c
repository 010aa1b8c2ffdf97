#include "replication/pgoutput.h"

#include <string.h>

struct reader {
    const uint8_t *at, *end;
    bool bad; /* once bad, all that is read is zero */
};

static uint64_t take(struct reader *reader, size_t bytes)
{
    uint64_t value = 0;
    if (reader->bad || (size_t)(reader->end - reader->at) < bytes) {
        reader->bad = true;
        return 0;
    }
    for (size_t i = 0; i < bytes; i++) {
        value = value << 8 | *reader->at++;
    }
    return value;
}

static const char *take_bytes(struct reader *reader, size_t length)
{
    if (reader->bad || (size_t)(reader->end - reader->at) < length) {
        reader->bad = true;
        return "";
    }
    const char *bytes = (const char *)reader->at;
    reader->at += length;
    return bytes;
}

static struct pgoutput_value take_name(struct reader *reader)
{
    const uint8_t *zero = reader->bad ? NULL : memchr(reader->at, 0, (size_t)(reader->end - reader->at));
    if (zero == NULL) {
        reader->bad = true;
        return (struct pgoutput_value){.kind = 'n', .text = ""};
    }
    struct pgoutput_value name = {
        .kind = 't', .text = (const char *)reader->at, .length = (size_t)(zero - reader->at)};
    reader->at = zero + 1;
    return name;
}

static void take_tuple(struct reader *reader, struct pgoutput_tuple *tuple)
{
    size_t count = (size_t)take(reader, 2);
    if (count == 0 || count > PGOUTPUT_COLUMNS_MAX) {
        reader->bad = true;
        return;
    }
    for (size_t i = 0; i < count && !reader->bad; i++) {
        struct pgoutput_value value = {.kind = (char)take(reader, 1), .text = ""};
        if (value.kind == 't') {
            value.length = (size_t)take(reader, 4);
            value.text = take_bytes(reader, value.length);
        } else if (value.kind != 'n' && value.kind != 'u') {
            reader->bad = true; /* binary wasn't asked for */
        }
        tuple->values[i] = value;
    }
    tuple->count = reader->bad ? 0 : count;
}

/* [K or O, tuple] [N, tuple] */
static void take_row(struct reader *reader, struct pgoutput_message *message)
{
    message->relation = (uint32_t)take(reader, 4);
    while (!reader->bad && reader->at < reader->end) {
        char kind = (char)take(reader, 1);
        if (kind == 'N') {
            take_tuple(reader, &message->new);
        } else if (kind == 'K' || kind == 'O') {
            take_tuple(reader, &message->old);
        } else {
            reader->bad = true;
        }
    }
    bool whole = message->kind == PGOUTPUT_DELETE ? message->old.count > 0 : message->new.count > 0;
    reader->bad = reader->bad || !whole;
}

static void take_relation(struct reader *reader, struct pgoutput_message *message)
{
    message->relation = (uint32_t)take(reader, 4);
    (void)take_name(reader); /* schema */
    (void)take_name(reader); /* name */
    (void)take(reader, 1);   /* replica identity */
    size_t count = (size_t)take(reader, 2);
    if (count > PGOUTPUT_COLUMNS_MAX) {
        reader->bad = true;
        return;
    }
    for (size_t i = 0; i < count && !reader->bad; i++) {
        (void)take(reader, 1); /* flags */
        message->columns[i] = take_name(reader);
        (void)take(reader, 8); /* type and modifier */
    }
    message->column_count = count;
}

static void take_truncate(struct reader *reader, struct pgoutput_message *message)
{
    size_t count = (size_t)take(reader, 4);
    (void)take(reader, 1); /* options */
    for (size_t i = 0; i < count && !reader->bad; i++) {
        uint32_t relation = (uint32_t)take(reader, 4);
        if (i < PGOUTPUT_RELATIONS_MAX) {
            message->relations[i] = relation;
            message->relation_count = i + 1;
        }
    }
}

bool pgoutput_parse(const uint8_t *bytes, size_t length, struct pgoutput_message *message)
{
    struct reader reader = {.at = bytes, .end = bytes + length};
    uint8_t kind = (uint8_t)take(&reader, 1);
    message->kind = (enum pgoutput_kind)kind;
    message->relation_count = message->column_count = 0;
    message->old.count = message->new.count = 0;
    switch (kind) {
    case PGOUTPUT_COMMIT:
        (void)take(&reader, 1); /* flags */
        (void)take(&reader, 8); /* of the record itself */
        message->end_lsn = take(&reader, 8);
        break;
    case PGOUTPUT_INSERT:
    case PGOUTPUT_UPDATE:
    case PGOUTPUT_DELETE:
        take_row(&reader, message);
        break;
    case PGOUTPUT_RELATION:
        take_relation(&reader, message);
        break;
    case PGOUTPUT_TRUNCATE:
        take_truncate(&reader, message);
        break;
    case PGOUTPUT_BEGIN:
        break;
    default:
        message->kind = PGOUTPUT_OTHER;
        break;
    }
    return !reader.bad;
}
