/* The journal's disk: rows reach it one after the other, slowly, not at all, or unseen. */
#include "tests/sim/sim.h"

#include "conf/base/ensure.h"

#include <stdlib.h>
#include <string.h>

static struct record *room(struct record **rows, uint32_t *count, uint32_t *size)
{
    if (*count == *size) {
        *size = *size == 0 ? 256 : 2 * *size;
        *rows = realloc(*rows, *size * sizeof **rows);
        ENSURE(*rows != NULL);
    }
    return &(*rows)[(*count)++];
}

static void store(struct sim *sim, const struct record *row)
{
    struct journal *journal = &sim->my->journal;
    struct record *kept = room(&journal->rows, &journal->count, &journal->size);
    if (journal->owners_size != journal->size) {
        journal->owners_size = journal->size;
        journal->owners = realloc(journal->owners, journal->size * sizeof *journal->owners);
        ENSURE(journal->owners != NULL);
    }
    journal->owners[journal->count - 1] = sim->my->owner_kept;
    /* As the daemon does: what is read at a start went through the text. */
    char line[RECORD_LINE_SIZE];
    struct error error;
    record_encode(row, line);
    *kept = (struct record){.time_us = row->time_us};
    ENSURE(record_decode(line, kept, &error));
}

void journal_restore(struct sim *sim, uint32_t rows)
{
    struct journal *journal = &sim->my->journal;
    for (uint32_t i = rows; i < journal->count; i++) {
        *room(&journal->lost, &journal->lost_count, &journal->lost_size) = journal->rows[i];
    }
    SAY(sim, "journal", "%s: %u of %u rows are left", rows == 0 ? "it is gone" : "an older copy", rows,
        journal->count);
    journal->count = rows;
    sim->my->owner_kept = rows > 0 ? journal->owners[rows - 1] : 0;
    sim->my->owned_since = false;
}

/* Where the rows on disk say that traffic is; between commit and released it isn't settled. */
static void note_settled(struct sim *sim, const struct record *row)
{
    if (row->epoch < sim->settled_last) {
        return; /* it comes late, from a daemon that decides nothing any more */
    }
    if (row->kind == RECORD_COMMIT) {
        sim->settled_epoch = 0;
    }
    if (row->kind == RECORD_STEADY || row->kind == RECORD_RELEASED || row->kind == RECORD_END) {
        sim->settled = row->side;
        sim->settled_epoch = sim->settled_last = row->epoch;
    }
}

void journal_begin(struct sim *sim, const struct record *first)
{
    store(sim, first);
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
        store(sim, &write.row);
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
        store(sim, &journal->queue[0].row);
        note_settled(sim, &journal->queue[0].row);
    }
    journal->queued = 0;
    journal->writing = false;
    journal->life = ++sim->life;
}

static bool says(const struct record *rows, uint32_t count, const struct record *what)
{
    for (uint32_t i = count; i > 0; i--) {
        const struct record *row = &rows[i - 1];
        const bool adopted = row->kind == RECORD_BEGIN && row->committed && what->kind == RECORD_COMMIT;
        if (row->flip == what->flip && (row->kind == what->kind || adopted) &&
            (what->phase == FLIP_PHASE_NONE || row->phase == what->phase)) {
            return true;
        }
    }
    return false;
}

/* What a statement that outlived its daemon was told may have been lost with the journal since. */
bool journal_says(const struct sim *sim, bool orphan, uint64_t flip, enum record_kind kind,
                  enum flip_phase phase)
{
    const struct journal *journal = &sim->my->journal;
    const struct record what = {.flip = flip, .kind = kind, .phase = phase};
    return says(journal->rows, journal->count, &what) ||
           (orphan && says(journal->lost, journal->lost_count, &what));
}
