/* What the parts of the ledger share: options, sessions, operations. See ledger.c for what it is. */
#ifndef TESTS_DRIVERS_LEDGER_H
#define TESTS_DRIVERS_LEDGER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <libpq-fe.h>

enum {
    OPENING_BALANCE = 1000 /* as in ledger.sql */,
    MAX_SESSIONS = 10000,
    TEXT_SIZE = 128,
    LISTS = 8,               /* that are appended to at a time */
    LIST_OPERATIONS = 512,   /* of a session, after which it goes on with other lists: they stay short */
    LISTS_OF_A_RUN = 1000000 /* list ids of run R begin at R times this */
};

enum outcome { ACKNOWLEDGED, IN_DOUBT, FAILED, OUTCOMES };
extern const char *const outcome_names[OUTCOMES];

/* Kinds that leave a row in `entry`; 'l' leaves an element in `list`, the others nothing. */
#define ENTRY_KINDS "tapicw"

/* One operation, as it goes into the file. */
struct operation {
    char kind; /* t: transfer, a: append, r: read; with --states also p: transfer in one pipeline, i: idle in
                  transaction, c: COPY, w: long statement, l: append to a list, s: see a list, n: notify */
    enum outcome outcome;
    char sqlstate[6];
    int64_t n;          /* the operation's number in its session */
    int64_t start_us;   /* since 1970 */
    int64_t elapsed_us; /* of the whole operation */
    int64_t longest_us; /* its longest round trip, what a client feels of a pause */
    int64_t list;       /* l, s: which */
    int64_t seen;       /* s: how many elements it had */
    uint64_t hash;      /* s: of these, list_hash */
};

struct options {
    const char *conninfo, *out;
    int accounts, sessions, run;
    double seconds, rate;
    bool states;
};

struct session {
    const struct options *options;
    int number;
    unsigned seed;
    pthread_t thread;
    PGconn *conn;
    struct operation *operations;
    size_t count, capacity;
    int64_t last_acknowledged; /* n of the last row in `entry`; 0: none */
    int64_t list, list_n;      /* the last acknowledged append to a list; n 0: none */
    uint64_t reconnects, wrong;
    char wrong_text[TEXT_SIZE * 2]; /* the first thing that was not as the session had set it */
};

extern atomic_bool stopping;

_Noreturn void fatal(const char *what, const char *why);
int64_t now_us(clockid_t clock);
void sleep_us(int64_t us);

/* An element says whose it is: elements of a session ascend in each list. */
static inline int64_t list_element(int session, int64_t n)
{
    return (int64_t)session << 40 | n;
}

/* Goes on with `hash` (0 at first) over one more element (FNV-1a over its bytes). */
uint64_t list_hash(uint64_t hash, int64_t element);

void *session_run(void *context); /* session.c: a session's thread */

/* steps.c: one operation each, on the session's connection, which may be lost by it. */
void ledger_step(struct session *session);
bool ledger_set_up(struct session *session); /* what an application does after it connected */

int ledger_verify(const struct options *options); /* verify.c; the exit status */

#endif
