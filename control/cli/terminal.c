#include "control/cli/terminal.h"

#include <sys/ioctl.h>

enum { USUAL_ROWS = 24, USUAL_COLUMNS = 80, FEWEST = 10 };

struct terminal_size terminal_size(FILE *stream)
{
    struct winsize size = {.ws_row = 0};
    if (ioctl(fileno(stream), TIOCGWINSZ, &size) != 0 || size.ws_row == 0 || size.ws_col == 0) {
        return (struct terminal_size){.rows = USUAL_ROWS, .columns = USUAL_COLUMNS};
    }
    return (struct terminal_size){.rows = size.ws_row < FEWEST ? FEWEST : size.ws_row,
                                  .columns = size.ws_col < FEWEST ? FEWEST : size.ws_col};
}

size_t terminal_fit(const char *text, size_t length, size_t columns)
{
    size_t at = 0;
    for (size_t letters = 0; at < length; at++) {
        letters += ((unsigned char)text[at] & 0xc0) != 0x80;
        if (letters > columns) {
            break;
        }
    }
    return at;
}
