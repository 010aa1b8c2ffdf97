/*
 * Whose clusters answer at the addresses of `sides`: the pair's id and the side's name stand in every state
 * row. A cluster of another pair, or the other one of ours, is asked nothing more and never written to: not
 * even ownership is taken there, which would depose that pair's own controller.
 */
#ifndef SWITCHBACK_REPLICATION_IDENTITY_H
#define SWITCHBACK_REPLICATION_IDENTITY_H

#include "replication/engine.h"

/* of switchback.state, in this order; identity_judge_row reads them from column `at` on */
#define IDENTITY_COLUMNS "pair, side"

/* False with *why: the state row that was read on `side` is not ours. */
MUST_USE bool identity_judge_row(const struct replication *replication, enum side side,
                                 const struct reply *reply, int at, struct error *why);

/* The pair isn't known yet: what both sides say together. "" for a side that says nothing. False with *why:
 * they contradict each other. */
MUST_USE bool identity_settle(struct replication *replication, const char *blue_pair, const char *green_pair,
                              struct error *why);

/* Keeps in mind, and logs when it is news, whether what answers there is ours (why->code NONE). */
void identity_note(struct replication *replication, enum side side, const struct error *why);

/* Facts of both sides were read: marks those that are none of ours (foreign), remembers the others. */
void identity_learn(struct replication *replication, struct pair_facts *facts);

#endif
