/* A session of the ledger: connects, works at its rate, connects again. */
#include "ledger.h"

#include <inttypes.h>
#include <stdlib.h>

enum { RECONNECT_US = 20000, LONGEST_SLEEP_US = 100000 /* between looks at whether the run ends */ };

/* Connects, again and again until it works or the run ends. */
static bool session_connect(struct session *session)
{
    while (!atomic_load(&stopping)) {
        session->conn = PQconnectdb(session->options->conninfo);
        if (PQstatus(session->conn) == CONNECTION_OK && ledger_set_up(session)) {
            return true;
        }
        PQfinish(session->conn);
        session->conn = NULL;
        sleep_us(RECONNECT_US);
    }
    return false;
}

static void session_recover(struct session *session)
{
    struct operation *operation = &session->operations[session->count - 1];
    if (PQstatus(session->conn) == CONNECTION_OK && operation->sqlstate[0] &&
        PQtransactionStatus(session->conn) != PQTRANS_IDLE) {
        PQclear(PQexec(session->conn, "rollback"));
    }
    if (PQstatus(session->conn) != CONNECTION_OK) {
        PQfinish(session->conn);
        session->conn = NULL;
        session->reconnects++;
        session_connect(session);
    }
}

void *session_run(void *context)
{
    struct session *session = context;
    session->seed = (unsigned)(session->options->run * 7919 + session->number);
    int64_t pause = session->options->rate > 0 ? (int64_t)(1e6 / session->options->rate) : 0;
    int64_t next = now_us(CLOCK_MONOTONIC) + (pause ? rand_r(&session->seed) % pause : 0);
    bool connected = session_connect(session);
    while (connected && !atomic_load(&stopping)) {
        if (pause) {
            int64_t wait = next - now_us(CLOCK_MONOTONIC);
            if (wait > 0) {
                sleep_us(wait > LONGEST_SLEEP_US ? LONGEST_SLEEP_US : wait);
                if (wait > LONGEST_SLEEP_US) {
                    continue;
                }
            }
            next = wait < -1000000 ? now_us(CLOCK_MONOTONIC) : next + pause;
        }
        ledger_step(session);
        struct operation *operation = &session->operations[session->count - 1];
        operation->elapsed_us = now_us(CLOCK_REALTIME) - operation->start_us;
        session_recover(session);
        connected = session->conn != NULL;
    }
    PQfinish(session->conn);
    return NULL;
}
