/* prepare, step 6: the schema switchback and the fence triggers on both sides. From here on the standby is
 * fenced. */
#include "replication/prepare.h"

#include "conf/base/clock.h"
#include "replication/schema.h"

#include <string.h>

enum {
    FENCES_WITHIN_US = 10 * 60 * 1000000,
    FENCES_PAUSE_US = 500000,
};

static bool install(struct prepare *prepare, size_t database, enum side side, struct error *error)
{
    const struct settings wanted = {.migrators = prepare->brief->migrators,
                                    .local_tables = prepare->brief->local_tables};
    const struct schema_identity identity = {
        .side = side,
        .standing = side == prepare->active ? STANDING_ACTIVE : STANDING_STANDBY,
        .epoch = prepare->epoch,
        .owner = prepare->owner,
        .pair = prepare->pair,
    };
    struct strbuf sql;
    strbuf_init(&sql, SQL_LIMIT);
    schema_install(&sql, &wanted, &identity);
    bool ok = prepare_run(prepare->databases[database].sides[side], error, &sql);
    strbuf_deinit(&sql);
    return ok;
}

/*
 * CREATE TRIGGER waits for the table's writers, and every writer after it waits too: so it gives up soon and
 * comes again. deadlock_timeout is below lock_timeout, or an autovacuum would never yield to it.
 */
static bool raise_triggers(struct prepare *prepare, size_t database, enum side side, struct error *error)
{
    static const char patience[] = "set lock_timeout = '300ms'; set deadlock_timeout = '20ms'";
    struct blocking *blocking = prepare->databases[database].sides[side];
    int64_t deadline = clock_mono_us() + FENCES_WITHIN_US;
    struct strbuf sql;
    strbuf_init(&sql, SQL_LIMIT);
    schema_fences(&sql);
    bool ok = blocking_run(blocking, error, patience);
    while (ok && !prepare_run(blocking, error, &sql)) {
        bool again = strcmp(blocking->sqlstate, "55P03") == 0 || strcmp(blocking->sqlstate, "40P01") == 0;
        if (!again || clock_mono_us() > deadline) {
            ok = false;
            if (again) {
                error_remedy(error, "a transaction keeps a table locked: end it, then run prepare again");
            }
            break;
        }
        prepare_say(prepare, -1, -1, "%s, database %s: waiting for a transaction that holds a table",
                    side_name(side), blocking->database);
        ok = task_sleep(prepare->task, FENCES_PAUSE_US, error);
    }
    strbuf_deinit(&sql);
    return ok && blocking_run(blocking, error, "set lock_timeout = 0; reset deadlock_timeout");
}

bool prepare_fences(struct prepare *prepare, struct error *error)
{
    for (size_t i = 0; i < prepare->database_count; i++) {
        struct prepare_database *database = &prepare->databases[i];
        /* The active side first: a standby that knows itself as one always has an active side that does. */
        if (!install(prepare, i, prepare->active, error) || !install(prepare, i, prepare->standby, error)) {
            return false;
        }
        database->installed[SIDE_BLUE] = true;
        database->installed[SIDE_GREEN] = true;
        if (!raise_triggers(prepare, i, prepare->standby, error) ||
            !raise_triggers(prepare, i, prepare->active, error)) {
            return false;
        }
        prepare_say(prepare, (double)(i + 1) / (double)prepare->database_count, -1, "%s: fenced",
                    database->name);
    }
    return true;
}
