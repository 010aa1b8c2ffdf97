/*
 * A first look at SQL text: nearly no text says anything that scan.h looks for, and this finds out for a
 * tenth of the scan's price. The relay asks it about every Query and Parse that came in one piece.
 */
#ifndef SWITCHBACK_PROXY_WIRE_GLANCE_H
#define SWITCHBACK_PROXY_WIRE_GLANCE_H

#include "proxy/wire/slice.h"

/* True if a scan of this whole text would find no name and raise no flag. False: it must be made, as always
 * where the text isn't ended by its NUL, or by another byte that belongs to no word. */
bool glance_is_dull(struct slice text);

/* Whether a word of this length with this first letter, in lower case, may be one of those that raise a flag
 * or begin a name. */
bool glance_may_hint(char first, size_t length);

#endif
