/*
 * The lines of PostgreSQL's pg_hba.conf and pg_ident.conf as fields of words: quotes, comma lists, comments,
 * lines continued by a backslash, words that come from another file (@file), and included files. Files are
 * read through a source, so that tests and the fuzzer bring their own. (PostgreSQL documentation, "The
 * pg_hba.conf File".)
 */
#ifndef SWITCHBACK_CONF_HBA_LINES_H
#define SWITCHBACK_CONF_HBA_LINES_H

#include "conf/hba/problems.h"

struct hba_word {
    char *text;
    bool quoted; /* it began with a quote: never a keyword */
};

struct hba_field { /* words separated by commas */
    struct hba_word *words;
    size_t count;
};

struct hba_line {
    char *file;
    int line;
    struct hba_field *fields;
    size_t count;
    struct hba_line *next;
};

enum hba_read { HBA_READ_DONE, HBA_READ_ABSENT, HBA_READ_FAILED };

/* Reads a whole file into text; not done: says why. */
struct hba_source {
    enum hba_read (*read)(void *context, const char *path, struct strbuf *text, const char **why);
    void *context;
};

enum { HBA_FILE_LIMIT = 1024 * 1024, HBA_DEPTH_LIMIT = 10, HBA_WORDS_LIMIT = 200000 };

/* Files of the machine. */
extern const struct hba_source hba_files;

/* All lines of the file and of those that it includes, in order; what is wrong goes into problems. */
struct hba_line *hba_lines_read(const struct hba_source *source, const char *path,
                                struct hba_problems *problems);
/* The same from a text; `name` stands for the file. */
struct hba_line *hba_lines_parse(const struct hba_source *source, const char *name, const char *text,
                                 size_t length, struct hba_problems *problems);
void hba_lines_free(struct hba_line *lines);

/* A word as the rules compare keywords: never if it was quoted. */
bool hba_word_is(const struct hba_word *word, const char *keyword);

#endif
