/*
 * What is wrong with a file of rules: every complaint with its file and line, not only the first, so that one
 * look mends them all. conf/settings shows them.
 */
#ifndef SWITCHBACK_CONF_HBA_PROBLEMS_H
#define SWITCHBACK_CONF_HBA_PROBLEMS_H

#include "conf/base/strbuf.h"

enum { HBA_PROBLEMS_SHOWN = 100 }; /* more are only counted */

struct hba_problems {
    struct strbuf text; /* "FILE:LINE: what\n" each */
    size_t count;
};

void hba_problems_init(struct hba_problems *problems);
void hba_problems_deinit(struct hba_problems *problems);

/* Control characters of the arguments are shown as "?". line 0: the file as a whole. */
void hba_problem(struct hba_problems *problems, const char *file, int line, const char *format, ...)
    PRINTF_LIKE(4, 5);

#endif
