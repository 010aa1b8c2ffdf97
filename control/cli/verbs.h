/*
 * The verbs as rows: name, usage, flags, the method they call and how its result is shown and judged. One
 * table drives parsing, help, and the calls; what isn't a plain call (serve, events, watch ...) has a
 * function.
 */
#ifndef SWITCHBACK_CONTROL_CLI_VERBS_H
#define SWITCHBACK_CONTROL_CLI_VERBS_H

#include "conf/base/strbuf.h"
#include "control/cli/cli.h"
#include "control/cli/exit_status.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

enum flag_kind {
    FLAG_SWITCH,
    FLAG_TEXT,
    FLAG_DURATION, /* sent as text, checked here */
    FLAG_NUMBER,   /* a whole number from 0 */
    FLAG_SINCE     /* a whole number or a duration; not sent by itself */
};

struct flag {
    const char *name; /* "--dry-run" without the dashes; its parameter is "dry_run" */
    char letter;      /* short form; 0: none */
    enum flag_kind kind;
    const char *value; /* how the help calls its value */
    bool local;        /* not a parameter of the method */
    bool required;
    const char *doc;
};

enum { VERB_FLAGS = 6, VERB_WORDS = 2 };

struct invocation;

struct verb {
    const char *name;
    const char *usage;   /* after "switchback NAME" */
    const char *summary; /* one line */
    const char *details; /* paragraphs of the help; NULL: none */
    const struct flag *flags;
    size_t flag_count;
    size_t least_words, most_words; /* that aren't flags */
    const char *method;
    bool waits; /* may take long: shows progress, and Ctrl-C detaches */
    bool flips; /* answers with what a flip came to: an error says `result: refused` as well */
    void (*render)(struct strbuf *out, const struct invocation *invocation, const json_t *result);
    enum exit_status (*judge)(const json_t *result); /* NULL: done */
    int (*run)(const struct invocation *invocation); /* instead of a plain call */
};

const struct verb *verbs_all(size_t *count);
const struct verb *verbs_find(const char *name);

/* --- one command line */

struct invocation {
    const struct cli *cli;
    const struct verb *verb;
    bool json, help;
    const char *socket; /* --socket; NULL: not given */
    const char
        *values[VERB_FLAGS]; /* of the verb's flags, in their order; NULL: not given, "" for a switch */
    const char *words[VERB_WORDS];
    size_t word_count;
    json_t *params; /* for the method */
};

/* Fills *invocation from argv after the verb; false with an ERROR_USAGE in *error. */
MUST_USE bool arguments_parse(struct invocation *invocation, int argc, char *const *argv,
                              struct error *error);
void arguments_deinit(struct invocation *invocation);

/* The value of a flag; NULL: not given. */
const char *arguments_value(const struct invocation *invocation, const char *flag);

/* --- what verbs are made of */

/* Fills *error: which verb may have been meant. */
void cli_unknown_verb(const char *word, struct error *error);

/* Says what is wrong, on the stream that fits (--json: a document on standard output); returns the status. */
int cli_fail(const struct cli *cli, bool json, const struct error *error);
/* Writes a text or, with --json, the document. */
void cli_print(const struct invocation *invocation, const struct strbuf *text, const json_t *document);
void cli_print_line(const struct invocation *invocation, const json_t *document); /* one document, one line */

/* The plain call of a row: connects, calls its method, shows and judges the result. */
int call_run(const struct invocation *invocation);

/* serve.c, follow.c, help.c, call.c */
int verb_serve(const struct invocation *invocation);
int verb_events(const struct invocation *invocation);
int verb_watch(const struct invocation *invocation);
int verb_rpc(const struct invocation *invocation);
int verb_version(const struct invocation *invocation);
int verb_help(const struct invocation *invocation);

void help_overview(struct strbuf *out);
void help_verb(struct strbuf *out, const struct verb *verb);

#endif
