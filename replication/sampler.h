/*
 * The standing sample: a heartbeat on the active side and a look at the other every 250 ms, fences and table
 * sets every second, the idle slot moved along every 15 s. Its answers are replication.h's `struct
 * replication_sample`.
 */
#ifndef SWITCHBACK_REPLICATION_SAMPLER_H
#define SWITCHBACK_REPLICATION_SAMPLER_H

#include "replication/engine.h"

MUST_USE struct sampler *sampler_new(struct replication *replication);
void sampler_stop(struct sampler *sampler); /* engine_part_closed when its timers are gone */
void sampler_free(struct sampler *sampler); /* when nothing of the engine is left; NULL is allowed */

/* No heartbeat and no look until then (monotonic) or sampler_wake: a flip's phase needs the clusters for
 * itself. */
void sampler_rest(struct sampler *sampler, int64_t until_us);
void sampler_wake(struct sampler *sampler);

/* What a flip has just proved, known until it is looked at again: a side's fence, and that the streams of the
 * active side run; `crossed`: a commit there was seen on the other side. */
void sampler_note_fence(struct sampler *sampler, enum side side, bool fenced);
void sampler_note_turn(struct sampler *sampler, enum side active, uint64_t epoch, bool crossed);

/* As last told by replication_set_active. */
uint64_t sampler_epoch(const struct sampler *sampler);

/* The side came back without our number in its state rows: gives it to it, if nobody is about to. */
void sampler_own(struct sampler *sampler, enum side side);

#endif
