/* The journal's disk: rows reach it one after the other, slowly, not at all, or unseen. */
#include "tests/sim/sim.h"

#include "conf/base/ensure.h"

#include <stdlib.h>
#include <string.h>

static void store(struct journal *journal, const struct record *row)
{
    if (journal->count == journal->size) {
        journal->size = journal->size == 0 ? 256 : 2 * journal->size;
        journal->rows = realloc(journal->rows, journal->size * sizeof *journal->rows);
        ENSURE(journal->rows != NULL);
    }
    /* As the daemon does: what is read at a start went through the text. */
    char line[RECORD_LINE_SIZE];
    struct error error;
    record_encode(row, line);
    struct record *kept = &journal->rows[journal->count++];
    *kept = (struct record){.time_us = row->time_us};
    ENSURE(record_decode(line, kept, &error));
}

/* Where the rows on disk say that traffic is; between commit and released it isn't settled. */
static void note_settled(struct sim *sim, const struct record *row)
{
    if (row->kind == RECORD_COMMIT) {
        sim->settled_epoch = 0;
    }
    if (row->kind == RECORD_STEADY || row->kind == RECORD_RELEASED || row->kind == RECORD_END) {
        sim->settled = row->side;
        sim->settled_epoch = row->epoch;
    }
}

void journal_begin(struct sim *sim, const struct record *first)
{
    store(&sim->my->journal, first);
    note_settled(sim, first);
}

static void begin(struct sim *sim);

static void written(struct sim *sim, const struct moment *moment)
{
    struct journal *journal = &sim->my->journal;
    if (moment->life != journal->life) {
        return;
    }
    const struct journal_write write = journal->queue[0];
    const bool failed = journal->full;
    const bool unseen = failed && sim_chance(sim, 300); /* a failed fsync: it may be there all the same */
    if (unseen) {
        faults_unseen_row(sim);
    }
    if (!failed || unseen) {
        store(journal, &write.row);
        note_settled(sim, &write.row);
    }
    memmove(&journal->queue[0], &journal->queue[1], (journal->queued - 1) * sizeof journal->queue[0]);
    journal->queued--;
    journal->writing = false;
    begin(sim);
    struct error error;
    error_clear(&error);
    if (failed) {
        (void)error_set(&error, ERROR_SYSTEM, "no space left on the disk");
        SAY(sim, "journal", "%s can't be written%s", record_kind_name(write.row.kind),
            unseen ? ", but is there" : "");
    }
    ports_answer(sim, write.ticket, !failed, false, &error, NULL);
}

static void begin(struct sim *sim)
{
    struct journal *journal = &sim->my->journal;
    if (journal->queued > 0 && !journal->writing) {
        journal->writing = true;
        const int64_t slow_us = journal->slow_us;
        sim_later(sim, sim_between(sim, 150, 2500) + (slow_us > 0 ? sim_between(sim, 0, slow_us) : 0),
                  written, 0, journal->life, 0);
    }
}

void journal_write(struct sim *sim, const struct record *row, uint64_t ticket)
{
    struct journal *journal = &sim->my->journal;
    if (journal->queued == QUEUE) {
        oracle_broke(sim, "the journal's queue grows without bound");
        return;
    }
    journal->queue[journal->queued++] = (struct journal_write){.row = *row, .ticket = ticket};
    begin(sim);
}

/* The daemon dies: of what is queued the first row may have reached the disk. */
void journal_crash(struct sim *sim)
{
    struct journal *journal = &sim->my->journal;
    if (journal->writing && !journal->full && sim_chance(sim, 500)) {
        store(journal, &journal->queue[0].row);
        note_settled(sim, &journal->queue[0].row);
    }
    journal->queued = 0;
    journal->writing = false;
    journal->life = ++sim->life;
}

bool journal_says(const struct sim *sim, uint64_t flip, enum record_kind kind, enum flip_phase phase)
{
    for (uint32_t i = sim->my->journal.count; i > 0; i--) {
        const struct record *row = &sim->my->journal.rows[i - 1];
        if (row->flip == flip && row->kind == kind && (phase == FLIP_PHASE_NONE || row->phase == phase)) {
            return true;
        }
    }
    return false;
}
