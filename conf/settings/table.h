/*
 * The settings as rows. One table drives loading, checking, printing, comparing for a reload, and the test
 * that the example file documents every key. A second table has the fields of a gate. Only conf/settings and
 * its test include this.
 */
#ifndef SWITCHBACK_CONF_SETTINGS_TABLE_H
#define SWITCHBACK_CONF_SETTINGS_TABLE_H

#include "conf/settings/settings.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum setting_type {
    SETTING_STRING,   /* char *; least and most are bytes */
    SETTING_TEXT,     /* the same, may span lines */
    SETTING_PATH,     /* char *; made absolute */
    SETTING_SECRET,   /* char *; never in the file itself: NAME_file or NAME_env fill it */
    SETTING_INTEGER,  /* int64_t */
    SETTING_DURATION, /* int64_t, microseconds */
    SETTING_PERCENT,  /* double, 0.2 is 20% */
    SETTING_BOOLEAN,  /* bool */
    SETTING_WORD,     /* an enum or int64_t: the index in words */
    SETTING_WORDS,    /* int64_t: bit i for words[i]; a list */
    SETTING_ADDRESS,  /* "host:port" or "": char * and, at port_offset, int64_t */
    SETTING_LIST,     /* struct settings_list */
    SETTING_COUNTS,   /* struct settings_counts: names of the file's own, each with a whole number */
    SETTING_GATES     /* gates and gate_count: the second table */
};

struct setting {
    const char *name; /* its path in the file, "flip.drain.timeout" */
    enum setting_type type;
    bool required;
    bool reloadable;      /* else a change needs a restart */
    const char *fallback; /* as it would stand in the file; NULL: empty, or derived (rules.c) */
    int64_t least, most;  /* bounds; both 0: none */
    const char *const *words;
    size_t offset, size; /* of its field */
    size_t port_offset;
    const char *doc;  /* one line */
    const char *hint; /* remedy of a bad value; NULL: the message says enough */
};

const struct setting *settings_table(size_t *count);

/* A gate as it stands in the file: what `max` means depends on the metric, so both stay texts. */
struct gate_draft {
    struct settings_gate gate;
    char *metric;
    char *max;
};

const struct setting *gate_table(size_t *count);

/* Rows of the gate table that tell something about a kind of gate only. */
enum gate_field {
    GATE_FIELD_NAME,
    GATE_FIELD_METRIC,
    GATE_FIELD_SQL,
    GATE_FIELD_COMMAND,
    GATE_FIELD_MAX,
    GATE_FIELD_MAX_INCREASE,
    GATE_FIELD_EXPECT,
    GATE_FIELD_DATABASE,
    GATE_FIELD_INTERVAL,
    GATE_FIELD_TIMEOUT,
    GATE_FIELD_GRACE,
    GATE_FIELD_FAILURES,
    GATE_FIELD_MIN_SAMPLES,
    GATE_FIELD_WHEN,
    GATE_FIELD_COUNT
};

#endif
