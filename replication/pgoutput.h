/*
 * What pgoutput says, protocol version 1 (PostgreSQL's "Logical Replication Message Formats"), as far as a
 * list of changed rows needs it. Pure: bytes in, slices of them out; nothing is trusted to be whole.
 */
#ifndef SWITCHBACK_REPLICATION_PGOUTPUT_H
#define SWITCHBACK_REPLICATION_PGOUTPUT_H

#include "conf/base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pgoutput_kind {
    PGOUTPUT_BEGIN = 'B',
    PGOUTPUT_COMMIT = 'C',
    PGOUTPUT_INSERT = 'I',
    PGOUTPUT_UPDATE = 'U',
    PGOUTPUT_DELETE = 'D',
    PGOUTPUT_TRUNCATE = 'T',
    PGOUTPUT_RELATION = 'R',
    PGOUTPUT_OTHER = 0
};

enum { PGOUTPUT_COLUMNS_MAX = 1600, PGOUTPUT_RELATIONS_MAX = 64 };

struct pgoutput_value {
    char kind;        /* 't': text; 'n': NULL; 'u': unchanged, not sent */
    const char *text; /* not terminated */
    size_t length;
};

struct pgoutput_tuple {
    size_t count; /* 0: there is none */
    struct pgoutput_value values[PGOUTPUT_COLUMNS_MAX];
};

struct pgoutput_message {
    enum pgoutput_kind kind;
    uint64_t end_lsn;                           /* COMMIT */
    uint32_t relation;                          /* RELATION, INSERT, UPDATE, DELETE */
    uint32_t relations[PGOUTPUT_RELATIONS_MAX]; /* TRUNCATE: the first of them */
    size_t relation_count;
    struct pgoutput_tuple old,
        new; /* UPDATE: `old` only if its key changed, or is the whole row; DELETE: old */
    /* RELATION: its columns, as names */
    size_t column_count;
    struct pgoutput_value columns[PGOUTPUT_COLUMNS_MAX];
};

/* False: these bytes are no message of that protocol. The slices point into them. */
MUST_USE bool pgoutput_parse(const uint8_t *bytes, size_t length, struct pgoutput_message *message);

#endif
