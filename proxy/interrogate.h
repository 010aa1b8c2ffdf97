/*
 * Asks a server what state one of its sessions is in, by queries of its catalogs, sent as named extended
 * messages so that the client's unnamed statement survives, and closed behind themselves: a client never
 * finds anything of ours in its session. The whole question takes about 1.5 ms; the cheap one, which is all
 * that most sessions need in the hold, a fifth of that. Used by move_ask.c.
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
    INTERROGATE_CHEAP, /* all but settings, temporary objects, advisory locks and replication slots */
    INTERROGATE_FULL
};

enum { INTERROGATE_QUICK_SIZE = 33, INTERROGATE_VALUE_SIZE = 32 };

/* Timeouts are put aside while we ask, so that a client's own can't end our question. */
enum interrogate_aside { ASIDE_STATEMENT, ASIDE_LOCK, ASIDE_TRANSACTION, ASIDE_IDLE_SESSION, ASIDE_COUNT };

struct interrogation {
    enum interrogate_level level;
    bool aside_first;   /* the timeouts were put aside before */
    unsigned questions; /* that it was asked */
    struct snapshot *snapshot;
    struct strbuf *reasons;             /* why it can't move, separated by "; " */
    char quick[INTERROGATE_QUICK_SIZE]; /* a digest of settings that functions like to change */
    char aside[ASIDE_COUNT]
              [INTERROGATE_VALUE_SIZE]; /* their values; "" for 0, or one the server doesn't know */
    bool set_here[ASIDE_COUNT];         /* by the session itself */
    uint64_t named;                     /* a digest of the server's settings among the names */
    bool temporary;                     /* it has a temporary schema, which INTERROGATE_FULL looks into */
    bool failed;                        /* out of memory, too large, or an answer that makes no sense */
};

struct interrogate_question {
    enum interrogate_level level;
    bool aside;         /* timeouts are in force: they are put aside first */
    bool unnamed;       /* whether there is an unnamed statement is asked as well */
    struct slice names; /* of settings, separated by blanks; none with a quote in it */
};

/*
 * Messages up to Sync; returns how many questions they are. The unnamed statement is described behind them
 * all: an error after as many CommandCompletes says that there is none (26000), or not how it looks.
 */
unsigned interrogate_build(struct build *build, const struct interrogate_question *question);
/*
 * Asks for all sessions of that server at once which of them hold advisory locks (of a transaction or not)
 * and temporary replication slots: a server goes through the locks of all sessions whenever one asks for its
 * own.
 */
void interrogate_build_scout(struct build *build);
/* A DataRow of that answer: a backend, and what it holds. False: it makes no sense. */
MUST_USE bool interrogate_scout_row(struct slice body, uint32_t *pid, char holding[MOVE_HOLDING_SIZE]);

/* Removes what a question that failed has left prepared. */
void interrogate_build_cleanup(struct build *build);

/* The SQL that puts a session's timeouts aside until its transaction ends. */
const char *interrogate_aside_sql(void);

/* A DataRow of the answer. */
void interrogate_row(struct interrogation *interrogation, struct slice body);

/* Adds a reason; what doesn't fit is left out. */
void interrogate_reason(struct strbuf *reasons, const char *format, ...) PRINTF_LIKE(2, 3);

#endif
