#include "control/cli/columns.h"

#include "conf/base/ensure.h"
#include "control/cli/readable.h"

#include <stdlib.h>

enum { CELL_LIMIT = 64 * 1024 };

void columns_init(struct columns *columns, size_t width)
{
    ENSURE(width <= COLUMNS_LIMIT);
    *columns = (struct columns){.width = width};
}

void columns_add(struct columns *columns, const char *const *cells)
{
    char **grown = realloc(columns->cells, (columns->count + columns->width) * sizeof *grown);
    if (grown == NULL) {
        columns->failed = true;
        return;
    }
    columns->cells = grown;
    for (size_t i = 0; i < columns->width; i++) {
        struct strbuf cell;
        strbuf_init(&cell, CELL_LIMIT);
        readable_put(&cell, cells[i]);
        grown[columns->count] = strbuf_take(&cell);
        columns->failed = columns->failed || grown[columns->count] == NULL;
        columns->count++;
    }
}

static size_t letters(const char *text)
{
    size_t count = 0;
    for (; *text != '\0'; text++) {
        count += ((unsigned char)*text & 0xc0) != 0x80;
    }
    return count;
}

static void print_rows(const struct columns *columns, struct strbuf *out, const char *indent)
{
    size_t widest[COLUMNS_LIMIT] = {0};
    for (size_t i = 0; i < columns->count; i++) {
        size_t width = letters(columns->cells[i]);
        widest[i % columns->width] = width > widest[i % columns->width] ? width : widest[i % columns->width];
    }
    for (size_t i = 0; i < columns->count; i += columns->width) {
        size_t last = columns->width; /* no blanks at the end of a line */
        while (last > 0 && columns->cells[i + last - 1][0] == '\0') {
            last--;
        }
        strbuf_puts(out, indent);
        for (size_t column = 0; column < last; column++) {
            const char *cell = columns->cells[i + column];
            size_t blanks = column + 1 < last ? widest[column] - letters(cell) + 2 : 0;
            strbuf_printf(out, "%s%*s", cell, (int)blanks, "");
        }
        strbuf_puts(out, "\n");
    }
}

void columns_print(struct columns *columns, struct strbuf *out, const char *indent)
{
    if (columns->failed) {
        out->failed = true;
    } else {
        print_rows(columns, out, indent);
    }
    for (size_t i = 0; i < columns->count; i++) {
        free(columns->cells[i]);
    }
    free(columns->cells);
    columns_init(columns, columns->width);
}
