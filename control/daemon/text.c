#include "control/daemon/text.h"

#include <stdlib.h>
#include <string.h>

/* Replaces what is left of ASCII's range: only reached when the text as a whole isn't UTF-8. */
static json_t *replaced(const char *text)
{
    char *copy = strdup(text);
    if (copy == NULL) {
        return NULL;
    }
    for (char *c = copy; *c != '\0'; c++) {
        if ((unsigned char)*c >= 0x80) {
            *c = '?';
        }
    }
    json_t *string = json_string(copy);
    free(copy);
    return string;
}

json_t *text_json(const char *text)
{
    json_t *string = json_string(text);
    return string != NULL ? string : replaced(text);
}

json_t *text_json_or_null(const char *text)
{
    return text == NULL || text[0] == '\0' ? json_null() : text_json(text);
}
