/*
 * Whether a text is one SQL PREPARE and nothing else. A server keeps with a statement that SQL has prepared
 * the whole text that came with it: `set a = 1; prepare p as ...` can't be sent again to prepare p, `prepare
 * p as
 * ...` can. Used by interrogate.c.
 */
#ifndef SWITCHBACK_PROXY_WIRE_PREPARE_TEXT_H
#define SWITCHBACK_PROXY_WIRE_PREPARE_TEXT_H

#include "proxy/wire/slice.h"

/* True if text is a single PREPARE of that name. What can't be told for sure is false: a backslash in a plain
 * string (standard_conforming_strings may have been off) or a name in U&"". */
bool prepare_text_is_alone(struct slice text, struct slice name);

#endif
