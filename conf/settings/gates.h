/*
 * The gates of the configuration: which fields fit which kind, what `max` means for it, the gate `lag` that
 * stands by default. Used by the loader and the printer.
 */
#ifndef SWITCHBACK_CONF_SETTINGS_GATES_H
#define SWITCHBACK_CONF_SETTINGS_GATES_H

#include "conf/settings/unit.h"
#include "conf/settings/walk.h"

/* Reads the list `gates` (NULL: not given) into the settings and adds the default. */
MUST_USE bool gates_load(const struct walk *outer, const struct tree_node *list, struct settings *settings);

/* The metric's name in the file; NULL for sql and command. */
const char *gates_metric(enum gate_kind kind);

/* Whether a gate of this kind has the field at all. */
bool gates_has_field(enum gate_kind kind, enum gate_field field);

/* `max` as the file writes it, "" if unset. Returns text. */
char *gates_format_max(const struct settings_gate *gate, char text[UNIT_TEXT_SIZE]);

#endif
