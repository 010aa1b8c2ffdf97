#include "conf/hba/problems.h"

#include <stdio.h>

enum { TEXT_LIMIT = 64 * 1024, COMPLAINT_SIZE = 512 };

void hba_problems_init(struct hba_problems *problems)
{
    problems->count = 0;
    strbuf_init(&problems->text, TEXT_LIMIT);
}

void hba_problems_deinit(struct hba_problems *problems)
{
    strbuf_deinit(&problems->text);
}

static void make_printable(char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f) {
            *text = '?';
        }
    }
}

void hba_problem(struct hba_problems *problems, const char *file, int line, const char *format, ...)
{
    char complaint[COMPLAINT_SIZE];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(complaint, sizeof complaint, format, arguments);
    va_end(arguments);
    if (++problems->count > HBA_PROBLEMS_SHOWN) {
        return;
    }
    make_printable(complaint);
    if (line > 0) {
        strbuf_printf(&problems->text, "%s:%d: %s\n", file, line, complaint);
    } else {
        strbuf_printf(&problems->text, "%s: %s\n", file, complaint);
    }
}
