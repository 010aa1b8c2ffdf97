/*
 * What a waiting verb shows: on a terminal one line that is rewritten (what, elapsed, lag, held clients),
 * else a plain line when something changes. It goes to standard error; with --json there is none.
 */
#ifndef SWITCHBACK_CONTROL_CLI_PROGRESS_H
#define SWITCHBACK_CONTROL_CLI_PROGRESS_H

#include "control/cli/client.h"
#include "control/cli/verbs.h"

enum { PROGRESS_STEP_SIZE = 96 };

struct progress {
    const struct invocation *invocation;
    int64_t begun_us, printed_us;  /* monotonic */
    json_t *last;                  /* parameters of the last notification */
    char step[PROGRESS_STEP_SIZE]; /* the last one printed as a plain line */
    bool drawn;                    /* a line stands on the terminal */
};

void progress_init(struct progress *progress, const struct invocation *invocation);
void progress_deinit(struct progress *progress);

/* Makes the wait show it. */
void progress_attach(struct progress *progress, struct client_wait *wait);
/* Takes the line off the terminal. */
void progress_end(struct progress *progress);

/* The flip that is under way, as far as told; 0. */
uint64_t progress_flip(const struct progress *progress);
const char *progress_phase(const struct progress *progress); /* its phase; "" */

#endif
