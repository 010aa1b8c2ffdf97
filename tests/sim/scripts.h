/* What the files of scripts share. Included by tests/sim/scripts*.c only. */
#ifndef SWITCHBACK_TESTS_SIM_SCRIPTS_H
#define SWITCHBACK_TESTS_SIM_SCRIPTS_H

#include "tests/sim/sim.h"

#define BLUE           (1U << SIDE_BLUE)
#define GREEN          (1U << SIDE_GREEN)
#define STEPS_OF(list) .steps = (list), .count = ARRAY_LENGTH(list)

enum { SIDES_MOST = 4 }; /* sets of sides */

static inline struct database *database_at(struct sim *sim, const struct strand *strand)
{
    return &sim->clusters[strand->at].databases[strand->database];
}

static inline enum verdict not_yet(struct error *error, enum error_code code, const char *what)
{
    (void)error_set(error, code, "%s", what);
    return VERDICT_AGAIN;
}

bool scripts_any_failed(const struct call *call);

/* --- scripts_own.c */
extern const struct script scripts_learn;

/* --- scripts_turn.c */
enum {
    SCRIPTS_TURN_STEPS = 4,
    SCRIPTS_FOLLOW_STEPS = 4,
    SCRIPTS_PROOF_STEPS = 4,
    SCRIPTS_PROMISE_STEPS = 5,
    SCRIPTS_CONTACT_STEPS = 5,
    SCRIPTS_CUT_OFF_STEPS = 3,
    SCRIPTS_ADOPT_STEPS = 2
};
extern const struct step scripts_turn_steps[SCRIPTS_TURN_STEPS];
/* The lossless turn, its names beside the first: the stream is enabled, then it is proved that commits wait.
 */
extern const struct step scripts_follow_steps[SCRIPTS_FOLLOW_STEPS], scripts_proof_steps[SCRIPTS_PROOF_STEPS];
/* The promise regained: its strands run on the other side of `request.side`, which is active. */
extern const struct step scripts_promise_steps[SCRIPTS_PROMISE_STEPS];
extern const struct step scripts_names_steps[2], scripts_names_ahead_steps[2], scripts_unname_steps[1];
bool scripts_names_ended(struct sim *sim, struct call *call);

/* --- scripts_alone.c: a side that comes back, one that takes over, one that is chosen */
extern const struct step scripts_contact_steps[SCRIPTS_CONTACT_STEPS],
    scripts_cut_off_steps[SCRIPTS_CUT_OFF_STEPS], scripts_reattach_steps[1],
    scripts_adopt_steps[SCRIPTS_ADOPT_STEPS];

#endif
