/* The source of lines that reads the machine's files. */
#include "conf/hba/lines.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static enum hba_read read_file(void *context, const char *path, struct strbuf *text, const char **why)
{
    char piece[4096];
    size_t length = 0;
    (void)context;
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        *why = strerror(errno);
        return errno == ENOENT ? HBA_READ_ABSENT : HBA_READ_FAILED;
    }
    while ((length = fread(piece, 1, sizeof piece, file)) > 0) {
        strbuf_append(text, piece, length);
    }
    bool failed = ferror(file) != 0;
    *why = failed ? strerror(errno) : text->failed ? "it is too large" : "";
    (void)fclose(file);
    explicit_bzero(piece, sizeof piece);
    return failed || text->failed ? HBA_READ_FAILED : HBA_READ_DONE;
}

const struct hba_source hba_files = {.read = read_file};
