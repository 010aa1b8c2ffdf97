/* Text from clusters, peers and commands on its way into JSON, which is UTF-8 or nothing. */
#ifndef SWITCHBACK_CONTROL_DAEMON_TEXT_H
#define SWITCHBACK_CONTROL_DAEMON_TEXT_H

#include <jansson.h>
#include <stddef.h>

/* A JSON string; bytes that aren't UTF-8 become '?'. A new reference, NULL: out of memory. */
json_t *text_json(const char *text);

/* As above; null for "" and NULL. */
json_t *text_json_or_null(const char *text);

#endif
