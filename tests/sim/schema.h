/* What the functions of the schema `switchback` do: each in one database, at once. */
#ifndef SWITCHBACK_TESTS_SIM_SCHEMA_H
#define SWITCHBACK_TESTS_SIM_SCHEMA_H

#include "tests/sim/cluster.h"

enum verdict {
    VERDICT_OK,
    VERDICT_BLOCKED, /* it waits for a lock, in the server */
    VERDICT_AGAIN,   /* not yet true: it is asked again */
    VERDICT_FAILED
};

/* Who asks, and for what. */
struct claim {
    enum side side;
    unsigned database;
    uint64_t owner, connection;
    uint64_t flip, epoch; /* before the flip */
};

bool schema_owned(struct sim *sim, const struct claim *claim);
enum verdict schema_claim(struct sim *sim, const struct claim *claim, struct error *error);
enum verdict schema_beat(struct sim *sim, const struct claim *claim, bool check, struct error *error);
enum verdict schema_raise_fence(struct sim *sim, const struct claim *claim, struct error *error);
enum verdict schema_seal(struct sim *sim, const struct claim *claim, struct error *error);
enum verdict schema_lower_fence(struct sim *sim, const struct claim *claim, struct error *error);
enum verdict schema_reopen(struct sim *sim, const struct claim *claim, struct error *error);
enum verdict schema_make_ready(struct sim *sim, const struct claim *claim, bool *open, struct error *error);
enum verdict schema_commit_ready(struct sim *sim, const struct claim *claim, struct error *error);
enum verdict schema_follow(struct sim *sim, const struct claim *claim, position start, struct error *error);
enum verdict schema_fence_left_behind(struct sim *sim, const struct claim *claim, uint64_t opened_for,
                                      bool *compare, struct error *error);
bool schema_holds_more(const struct sim *sim, const struct claim *claim, position has);
enum verdict schema_rejoin_unchanged(struct sim *sim, const struct claim *claim, position start,
                                     struct error *error);
/* schema_alone.c */
position schema_promise_marker(struct sim *sim, enum side side, unsigned database, uint64_t *n);
enum verdict schema_cut_off(struct sim *sim, const struct claim *claim, struct error *error);
enum verdict schema_reattach(struct sim *sim, const struct claim *claim, struct error *error);
enum verdict schema_make_ready_alone(struct sim *sim, const struct claim *claim, bool *open,
                                     struct error *error);
enum verdict schema_adopt(struct sim *sim, const struct claim *claim, struct error *error);
void schema_end_ready(struct sim *sim, enum side side, unsigned database);

#endif
