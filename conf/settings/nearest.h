/* Which known word an unknown one may have meant: for keys of the configuration and verbs of the command
 * line. */
#ifndef SWITCHBACK_CONF_SETTINGS_NEAREST_H
#define SWITCHBACK_CONF_SETTINGS_NEAREST_H

#include <stddef.h>

/* The nearest of the candidates, NULL if none is near enough to suggest it. */
const char *nearest_word(const char *word, const char *const *candidates, size_t count);

#endif
