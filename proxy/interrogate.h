/*
 * Asks a server what state one of its sessions is in, by one query of its catalogs, sent as named extended
 * messages so that the client's unnamed statement survives. The whole question takes about 1.5 ms; the cheap
 * one, which is all that most sessions need in the hold, a tenth of that. Used by move_ask.c.
 */
#ifndef SWITCHBACK_PROXY_INTERROGATE_H
#define SWITCHBACK_PROXY_INTERROGATE_H

#include "conf/base/strbuf.h"
#include "proxy/move.h"
#include "proxy/move_snapshot.h"
#include "proxy/wire/build.h"

/* Names that begin so are ours, on either server, for the time of one exchange. */
#define INTERROGATE_PREFIX "switchback "

enum interrogate_level {
    INTERROGATE_CHEAP, /* all but settings, temporary objects and replication slots */
    INTERROGATE_FULL
};

enum { INTERROGATE_QUICK_SIZE = 33, INTERROGATE_TIMEOUT_SIZE = 32 };

struct interrogation {
    enum interrogate_level level;
    bool patient; /* the session's statement_timeout is put aside meanwhile */
    struct snapshot *snapshot;
    struct strbuf *reasons; /* why it can't move, separated by "; " */
    const struct move_types *types;
    char quick[INTERROGATE_QUICK_SIZE];     /* a digest of settings that functions like to change */
    char timeout[INTERROGATE_TIMEOUT_SIZE]; /* statement_timeout, if it was put aside */
    bool temporary;                         /* it has a temporary schema, which INTERROGATE_FULL looks into */
    bool failed;                            /* out of memory, too large, or an answer that makes no sense */
};

struct interrogate_question {
    enum interrogate_level level;
    bool patient;       /* the session's statement_timeout is put aside meanwhile */
    bool kept;          /* the cheap question stands prepared on that server, with these names */
    struct slice names; /* of settings, separated by blanks; none with a quote in it */
};

/* Messages up to Sync. They leave the cheap question prepared: planning is most of what it costs. */
void interrogate_build(struct build *build, const struct interrogate_question *question);
/* Removes what questions, answered or failed, have left prepared. */
void interrogate_build_cleanup(struct build *build);

/* A DataRow of the answer. */
void interrogate_row(struct interrogation *interrogation, struct slice body);

/* Adds a reason; what doesn't fit is left out. */
void interrogate_reason(struct strbuf *reasons, const char *format, ...) PRINTF_LIKE(2, 3);

/* Whether an oid is in the list. */
bool move_types_has(const struct move_types *types, uint32_t oid);

#endif
