#include "replication/dump_filter.h"

#include "replication/names.h"

#include <string.h>

enum { SET_TIMEOUT_MAJOR = 17 };

static bool contains(const char *line, size_t length, const char *text)
{
    return memmem(line, length, text, strlen(text)) != NULL;
}

/* The next line of the text, without its newline; *rest moves behind it. */
static size_t take_line(const char **rest, const char **line)
{
    size_t length = strcspn(*rest, "\n");
    *line = *rest;
    *rest += length + ((*rest)[length] == '\n' ? 1 : 0);
    return length;
}

void dump_filter_list(const char *list, struct strbuf *kept)
{
    const char *line;
    for (const char *rest = list; *rest != '\0';) {
        size_t length = take_line(&rest, &line);
        if (!contains(line, length, NAMES_FENCE_TRIGGER) &&
            !contains(line, length, " EVENT TRIGGER - " NAMES_SCHEMA) &&
            !contains(line, length, " COMMENT - EVENT TRIGGER " NAMES_SCHEMA)) {
            strbuf_append(kept, line, length);
            strbuf_puts(kept, "\n");
        }
    }
}

void dump_filter_sql(const char *text, int standby_major, struct strbuf *sql)
{
    static const char restrict_command[] = "\\restrict ";
    static const char unrestrict[] = "\\unrestrict ";
    static const char timeout[] = "SET transaction_timeout = 0;";
    const char *key = NULL;
    size_t key_length = 0;
    bool preamble = true;
    const char *line;
    for (const char *rest = text; *rest != '\0';) {
        size_t length = take_line(&rest, &line);
        preamble = preamble && strncmp(line, "CREATE ", strlen("CREATE ")) != 0;
        if (preamble && key == NULL && strncmp(line, restrict_command, strlen(restrict_command)) == 0) {
            key = line + strlen(restrict_command);
            key_length = length - strlen(restrict_command);
        } else if (preamble && standby_major < SET_TIMEOUT_MAJOR &&
                   strncmp(line, timeout, strlen(timeout)) == 0) {
            continue;
        } else if (key == NULL || strncmp(line, unrestrict, strlen(unrestrict)) != 0 ||
                   length != strlen(unrestrict) + key_length ||
                   strncmp(line + strlen(unrestrict), key, key_length) != 0) {
            strbuf_append(sql, line, length);
            strbuf_puts(sql, "\n");
        }
    }
}
