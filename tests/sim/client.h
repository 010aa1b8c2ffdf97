/* Who uses the proxy, and who goes around it. */
#ifndef SWITCHBACK_TESTS_SIM_CLIENT_H
#define SWITCHBACK_TESTS_SIM_CLIENT_H

#include "tests/sim/cluster.h"

enum transaction_state {
    TRANSACTION_RUNS,
    TRANSACTION_ACKNOWLEDGED,
    TRANSACTION_IN_DOUBT,
    TRANSACTION_FAILED /* the client was told so, or never asked for its commit */
};

struct transaction {
    uint8_t client; /* CLIENTS and above: a writer */
    uint8_t database, table, statements;
    enum transaction_state state;
    enum side side;   /* it was executed on */
    bool committed;   /* on that side */
    bool published;   /* its table was, when it was committed */
    bool unconfirmed; /* acknowledged by a cancel, not by the other side */
    uint64_t epoch;
    int64_t value; /* of the sequence */
};

struct client {
    uint64_t life;
    bool connected;
    unsigned daemon;      /* it is, or was last, connected to */
    uint32_t transaction; /* under way; 0 */
    unsigned said;        /* statements sent, the commit included */
    uint64_t commits, errors;
};

/* Someone who writes on one side, around the proxy. */
struct writer {
    enum side side;
    int link;
    uint32_t transaction;
    unsigned said;
    uint64_t life;
};

/* What the server answers to a statement. */
enum answer {
    ANSWER_OK,
    ANSWER_FENCED,
    ANSWER_FAILED,
    ANSWER_LATER /* it waits for a lock, or for the other side */
};

void client_start(struct sim *sim);
enum answer client_execute(struct sim *sim, struct link *link, unsigned statement);
void client_connected(struct sim *sim, unsigned client);
void client_answered(struct sim *sim, unsigned client, enum answer answer);
/* The session ended: sqlstate "" is a lost connection. */
void client_ended(struct sim *sim, unsigned client, const char *sqlstate);
void writers_start(struct sim *sim);
void writers_end(struct sim *sim, enum side side, unsigned database);  /* by pg_terminate_backend */
void sessions_end(struct sim *sim, enum side side, unsigned database); /* the proxy's as well */

#endif
