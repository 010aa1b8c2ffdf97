/* Rows of cells, printed with each column as wide as its widest cell. Used for lists on a terminal. */
#ifndef SWITCHBACK_CONTROL_CLI_COLUMNS_H
#define SWITCHBACK_CONTROL_CLI_COLUMNS_H

#include "conf/base/strbuf.h"

#include <stdbool.h>
#include <stddef.h>

enum { COLUMNS_LIMIT = 12 };

struct columns {
    size_t width;
    char **cells;
    size_t count;
    bool failed;
};

void columns_init(struct columns *columns, size_t width);
/* `width` texts of a peer's or our own, escaped here. */
void columns_add(struct columns *columns, const char *const *cells);
/* Prints and empties them; each line starts with the indent. */
void columns_print(struct columns *columns, struct strbuf *out, const char *indent);

#endif
