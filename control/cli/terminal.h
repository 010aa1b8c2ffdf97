/* The size of a terminal, and texts that must fit into its lines to be drawn over later. */
#ifndef SWITCHBACK_CONTROL_CLI_TERMINAL_H
#define SWITCHBACK_CONTROL_CLI_TERMINAL_H

#include <stddef.h>
#include <stdio.h>

struct terminal_size {
    size_t rows, columns;
};

/* 24 by 80 if it can't be asked. */
struct terminal_size terminal_size(FILE *stream);

/* How many bytes of a text (UTF-8) fit into so many columns. */
size_t terminal_fit(const char *text, size_t length, size_t columns);

#endif
