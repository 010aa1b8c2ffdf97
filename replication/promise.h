/*
 * A probe commit: it waits on the active side until every stream has it on the other one, and is seen
 * waiting. Steps of procedures whose strands are on the side that follows, for turn (flip_turn.c) and
 * replication_promise.
 */
#ifndef SWITCHBACK_REPLICATION_PROMISE_H
#define SWITCHBACK_REPLICATION_PROMISE_H

#include "replication/flip.h"

/* Begins the probe on the other side's probe lane and looks whether it waits, again until it is seen. */
void promise_build_probe(struct strand *strand, struct strbuf *sql);
enum verdict promise_judge_probe(struct strand *strand, const struct reply *reply, struct error *error);
/* The probe's statement: writes where the side is ours and active, else nothing. */
void promise_put_probe(struct strbuf *sql, uint64_t owner);
/* Until the probe has returned. */
enum verdict promise_judge_return(struct strand *strand, const struct reply *reply, struct error *error);
/* The stream of this database counts under the names. */
void promise_build_synchronous(struct strand *strand, struct strbuf *sql);
enum verdict promise_judge_synchronous(struct strand *strand, const struct reply *reply, struct error *error);
/* What the probe wrote is here: a commit that was cancelled while it waited returns just so. */
void promise_build_arrival(struct strand *strand, struct strbuf *sql);
enum verdict promise_judge_arrival(struct strand *strand, const struct reply *reply, struct error *error);
/* The subscription here confirms what it flushed at once. */
void promise_build_confirm(struct strand *strand, struct strbuf *sql);

#define PROMISE_CONFIRM_STEP                                                                                 \
    {                                                                                                        \
        .name = "confirm at once", .build = promise_build_confirm                                            \
    }
#define PROMISE_PROBE_STEP                                                                                   \
    {                                                                                                        \
        .name = "see a commit wait", .on = ON_OTHER_SIDE, .build = promise_build_probe,                      \
        .judge = promise_judge_probe                                                                         \
    }
#define PROMISE_RETURN_STEP                                                                                  \
    {                                                                                                        \
        .name = "see it return", .on = ON_OTHER_SIDE, .sql = "select", .judge = promise_judge_return,        \
        .least_us = 1000                                                                                     \
    }
#define PROMISE_SYNCHRONOUS_STEP                                                                             \
    {                                                                                                        \
        .name = "see the stream count", .on = ON_OTHER_SIDE, .build = promise_build_synchronous,             \
        .judge = promise_judge_synchronous                                                                   \
    }
#define PROMISE_ARRIVAL_STEP                                                                                 \
    {                                                                                                        \
        .name = "see what it wrote", .build = promise_build_arrival, .judge = promise_judge_arrival          \
    }

/* The phase is over: who waits for an answer of its probe does so for nobody. */
void promise_forget(struct probe *probe);
/* Probes that wait on `side` give up: a fence waits for every transaction there. */
void promise_cancel_probes(struct replication *replication, enum side side);

#endif
