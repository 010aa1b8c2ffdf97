/*
 * prepare from the inside: what its steps share. Each step looks at what is there before it acts, so that a
 * run that ended anywhere, with the program or with a cluster, is continued by the next one. Included by
 * prepare*.c only.
 */
#ifndef SWITCHBACK_REPLICATION_PREPARE_H
#define SWITCHBACK_REPLICATION_PREPARE_H

#include "replication/blocking.h"
#include "replication/names.h"
#include "replication/sql.h"
#include "replication/tables.h"

enum { PAIR_SIZE = 64 };

/*
 * SQL: which of the standby's tables prepare has filled: only their rows may it remove to copy them again. A
 * side that was opened since holds rows of its own; what was noted before doesn't count then.
 */
#define COPIED_TABLES                                                                                        \
    "select k.name from switchback.copied k join switchback.state s on s.opened_for = k.opened_for"
#define NOTE_COPIED                                                                                          \
    "insert into switchback.copied (name, opened_for) " WITH_MANAGED                                         \
    "select m.name, s.opened_for from managed m, switchback.state s where m.oid not in (select r.srrelid"    \
    " from pg_subscription_rel r join pg_subscription u on u.oid = r.srsubid where u.subname like"           \
    " 'switchback\\_from\\_%') on conflict (name) do update set opened_for = excluded.opened_for"

/* One managed database. Its connections are open from the step `databases` on. */
struct prepare_database {
    const char *name;
    struct blocking *sides[SIDE_COUNT];
    bool installed[SIDE_COUNT]; /* has a state row */
    bool rebuild;               /* its forward stream was lost: tables are emptied and copied again */
};

struct prepare {
    struct task *task;
    struct brief *brief;
    enum side active, standby;
    uint64_t owner;                        /* of this controller */
    struct blocking *clusters[SIDE_COUNT]; /* connected to the database postgres, or a managed one */
    struct prepare_database *databases;
    size_t database_count;
    char pair[PAIR_SIZE];
    uint64_t epoch;

    const char *step; /* the one that runs, for progress */
    replication_done done;
    void *context;
};

/* One line of progress of the step that runs. fraction < 0: unknown; eta_us < 0: unknown. */
void prepare_say(struct prepare *prepare, double fraction, int64_t eta_us, const char *format, ...)
    PRINTF_LIKE(4, 5);

/* The connection of a database, opened again if it was lost; tries for a while. NULL with *error filled. */
MUST_USE struct blocking *prepare_connect(struct prepare *prepare, size_t database, enum side side,
                                          struct error *error);
/* As blocking_run and blocking_query; a transaction that failed is rolled back. */
MUST_USE bool prepare_run(struct blocking *blocking, struct error *error, const struct strbuf *sql);

/* Fails if a table that is about to be filled holds rows that no prepare has copied. */
MUST_USE bool prepare_refuse_foreign_rows(struct prepare *prepare, size_t database, struct error *error);
/* First column of the rows, as a list that the caller frees by settings_list_deinit. */
MUST_USE bool prepare_list(struct blocking *blocking, struct error *error, const char *sql,
                           struct settings_list *list);

/* Writes a marker on the active side and returns its number, owned by the caller. Its purpose is prepare's
 * own: nobody else counts there. NULL with *error filled. */
MUST_USE char *prepare_mark(struct prepare *prepare, size_t database, struct error *error);

/* During the copy: looks for tables that never get in sync (stream_find_stuck), and makes the stream anew. */
MUST_USE bool prepare_suspect(struct prepare *prepare, size_t database, char **suspects, struct error *error);
MUST_USE bool prepare_unstick(struct prepare *prepare, size_t database, struct error *error);

/* A stream that was relaxed to catch up (prepare_catchup.c): whether it is, and whether its standby has
 * crashed since. */
MUST_USE bool prepare_read_relaxed(struct blocking *standby, enum side publisher, bool *relaxed,
                                   bool *crashed, struct error *error);
/* It flushes again; fails with ERROR_NOT_IN_SYNC if the standby has crashed since. Nothing to do is fine. */
MUST_USE bool prepare_tighten(struct prepare *prepare, size_t database, struct error *error);
/* A marker crosses, however long the stream takes, as long as it moves. */
MUST_USE bool prepare_catch_up(struct prepare *prepare, size_t database, struct error *error);

/* The steps, in their order (the table in prepare.c says what each does). */
MUST_USE bool prepare_settings(struct prepare *prepare, struct error *error);
MUST_USE bool prepare_roles(struct prepare *prepare, struct error *error);
MUST_USE bool prepare_databases(struct prepare *prepare, struct error *error);
MUST_USE bool prepare_state(struct prepare *prepare, struct error *error);
MUST_USE bool prepare_schema(struct prepare *prepare, struct error *error);
MUST_USE bool prepare_fences(struct prepare *prepare, struct error *error);
MUST_USE bool prepare_forward(struct prepare *prepare, struct error *error);
MUST_USE bool prepare_copy(struct prepare *prepare, struct error *error);
MUST_USE bool prepare_reverse(struct prepare *prepare, struct error *error);
MUST_USE bool prepare_finish(struct prepare *prepare, struct error *error);
MUST_USE bool prepare_streaming(struct prepare *prepare, struct error *error);

#endif
