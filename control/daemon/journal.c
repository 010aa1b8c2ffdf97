#include "control/daemon/journal.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "control/daemon/store_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct journal {
    struct store *store;
    uint64_t last_seq, last_flip;
};

static void copy_word(char *to, size_t size, const char *from)
{
    ENSURE(strlen(from) < size);
    memcpy(to, from, strlen(from) + 1);
}

static void bind_text(sqlite3_stmt *statement, int column, const char *text)
{
    sqlite3_bind_text(statement, column, text, -1, SQLITE_STATIC);
}

/* Runs a statement that returns no rows, and frees it. */
static bool finish(sqlite3 *database, sqlite3_stmt *statement, struct error *error)
{
    bool ok = sqlite3_step(statement) == SQLITE_DONE;
    if (!ok) {
        store_failed(database, "the journal can't be written", error);
    }
    sqlite3_finalize(statement);
    return ok;
}

/* --- rows --- */

struct append {
    struct store_job job;
    struct journal_row row;
    char *data;
    journal_done done;
    void *context;
};

static bool append_run(struct store_job *job, struct sqlite3 *database, struct error *error)
{
    const struct append *append = CONTAINER_OF(job, struct append, job);
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v2(database, "insert into journal values (?, ?, ?, ?, ?, ?)", -1, &statement, NULL) !=
        SQLITE_OK) {
        return store_failed(database, "the journal can't be written", error);
    }
    sqlite3_bind_int64(statement, 1, (sqlite3_int64)append->row.seq);
    sqlite3_bind_int64(statement, 2, append->row.time_us);
    sqlite3_bind_int64(statement, 3, (sqlite3_int64)append->row.flip);
    bind_text(statement, 4, append->row.kind);
    bind_text(statement, 5, append->row.phase);
    bind_text(statement, 6, append->data);
    return finish(database, statement, error);
}

static void append_done(struct store_job *job, const struct error *error)
{
    struct append *append = CONTAINER_OF(job, struct append, job);
    if (append->done != NULL) {
        append->done(append->context, error);
    }
    free(append->data);
    free(append);
}

uint64_t journal_append(struct journal *journal, uint64_t flip, const char *kind, const char *phase,
                        const char *data, journal_done done, void *context)
{
    struct append *append = store_job_new(sizeof(*append));
    append->job.run = append_run;
    append->job.done = append_done;
    append->done = done;
    append->context = context;
    append->data = strdup(data);
    ENSURE(append->data != NULL);
    append->row.seq = ++journal->last_seq;
    append->row.time_us = clock_wall_us();
    append->row.flip = flip;
    copy_word(append->row.kind, sizeof(append->row.kind), kind);
    copy_word(append->row.phase, sizeof(append->row.phase), phase);
    if (flip > journal->last_flip) {
        journal->last_flip = flip;
    }
    store_write(journal->store, &append->job);
    return append->row.seq;
}

static bool read_word(sqlite3_stmt *statement, int column, char word[JOURNAL_WORD_SIZE])
{
    const char *text = (const char *)sqlite3_column_text(statement, column);
    return text != NULL && snprintf(word, JOURNAL_WORD_SIZE, "%s", text) < JOURNAL_WORD_SIZE;
}

/* Visits the rows of a query over the journal's columns in their order. */
static bool each_row(sqlite3 *database, const char *sql, sqlite3_int64 parameter,
                     bool (*visit)(void *context, const struct journal_row *row), void *context,
                     struct error *error)
{
    sqlite3_stmt *statement = NULL;
    bool ok = sqlite3_prepare_v2(database, sql, -1, &statement, NULL) == SQLITE_OK;
    if (ok) {
        sqlite3_bind_int64(statement, 1, parameter);
    }
    int step = SQLITE_DONE;
    while (ok && (step = sqlite3_step(statement)) == SQLITE_ROW) {
        struct journal_row row = {
            .seq = (uint64_t)sqlite3_column_int64(statement, 0),
            .time_us = sqlite3_column_int64(statement, 1),
            .flip = (uint64_t)sqlite3_column_int64(statement, 2),
            .data = (const char *)sqlite3_column_text(statement, 5),
        };
        if (row.data == NULL || !read_word(statement, 3, row.kind) || !read_word(statement, 4, row.phase)) {
            sqlite3_finalize(statement);
            return error_set(error, ERROR_SYSTEM, "row %" PRIu64 " of the journal can't be read", row.seq);
        }
        if (!visit(context, &row)) {
            step = SQLITE_DONE;
            break;
        }
    }
    ok = ok && step == SQLITE_DONE;
    if (!ok) {
        store_failed(database, "the journal can't be read", error);
    }
    sqlite3_finalize(statement);
    return ok;
}

bool journal_each(struct journal *journal, bool (*visit)(void *context, const struct journal_row *row),
                  void *context, struct error *error)
{
    sqlite3 *database = store_open_reader(journal->store, error);
    bool ok = database != NULL &&
              each_row(database,
                       "select seq, time, flip, kind, phase, data from journal where seq >= ? order by seq",
                       0, visit, context, error);
    sqlite3_close(database);
    return ok;
}

/* --- memory --- */

struct remember {
    struct store_job job;
    char name[JOURNAL_WORD_SIZE];
    char *value;
    journal_done done;
    void *context;
};

static bool remember_run(struct store_job *job, struct sqlite3 *database, struct error *error)
{
    const struct remember *remember = CONTAINER_OF(job, struct remember, job);
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v2(database, "insert or replace into memory values (?, ?)", -1, &statement, NULL) !=
        SQLITE_OK) {
        return store_failed(database, "the journal can't be written", error);
    }
    bind_text(statement, 1, remember->name);
    bind_text(statement, 2, remember->value);
    return finish(database, statement, error);
}

static void remember_done(struct store_job *job, const struct error *error)
{
    struct remember *remember = CONTAINER_OF(job, struct remember, job);
    if (error != NULL) {
        LOG_WARN("not_remembered", LOG_STR("name", remember->name), LOG_STR("error", error->message));
    }
    if (remember->done != NULL) {
        remember->done(remember->context, error);
    }
    free(remember->value);
    free(remember);
}

void journal_remember(struct journal *journal, const char *name, const char *value, journal_done done,
                      void *context)
{
    struct remember *remember = store_job_new(sizeof(*remember));
    remember->job.run = remember_run;
    remember->job.done = remember_done;
    copy_word(remember->name, sizeof remember->name, name);
    remember->done = done;
    remember->context = context;
    remember->value = strdup(value);
    ENSURE(remember->value != NULL);
    store_write(journal->store, &remember->job);
}

bool journal_recall(struct journal *journal, const char *name, char *value, size_t size, struct error *error)
{
    sqlite3_stmt *statement = NULL;
    sqlite3 *database = store_open_reader(journal->store, error);
    if (database == NULL) {
        return false;
    }
    *value = '\0';
    bool ok = sqlite3_prepare_v2(database, "select value from memory where name = ?", -1, &statement, NULL) ==
              SQLITE_OK;
    if (ok) {
        bind_text(statement, 1, name);
        const int step = sqlite3_step(statement);
        ok = step == SQLITE_ROW || step == SQLITE_DONE;
        if (step == SQLITE_ROW) {
            (void)snprintf(value, size, "%s", (const char *)sqlite3_column_text(statement, 0));
        }
    }
    if (!ok) {
        store_failed(database, "the journal can't be read", error);
    }
    sqlite3_finalize(statement);
    sqlite3_close(database);
    return ok;
}

void journal_reserve(struct journal *journal, journal_done done, void *context)
{
    store_reserve(journal->store, done, context);
}

void journal_idle(struct journal *journal)
{
    store_idle(journal->store);
}

/* --- report --- */

struct report {
    struct store_job job;
    uint64_t first_flip;
    json_t *rows;
    journal_report_done done;
    void *context;
};

static bool report_row(void *context, const struct journal_row *row)
{
    struct report *report = context;
    char time[CLOCK_TEXT_SIZE];
    json_t *data = row->data[0] == '\0' ? json_object() : json_loads(row->data, 0, NULL);
    json_t *item = json_pack("{s:I, s:s, s:I, s:s, s:s, s:o}", "seq", (json_int_t)row->seq, "time",
                             clock_format(row->time_us, time), "flip", (json_int_t)row->flip, "kind",
                             row->kind, "phase", row->phase, "data", data == NULL ? json_null() : data);
    return json_array_append_new(report->rows, item) == 0;
}

static bool report_run(struct store_job *job, struct sqlite3 *database, struct error *error)
{
    struct report *report = CONTAINER_OF(job, struct report, job);
    report->rows = json_array();
    return each_row(database,
                    "select seq, time, flip, kind, phase, data from journal where flip >= ? and flip > 0 "
                    "order by seq",
                    (sqlite3_int64)report->first_flip, report_row, report, error);
}

static void report_done(struct store_job *job, const struct error *error)
{
    struct report *report = CONTAINER_OF(job, struct report, job);
    report->done(report->context, report->rows, error);
    json_decref(report->rows);
    free(report);
}

void journal_report(struct journal *journal, size_t flips, journal_report_done done, void *context)
{
    struct report *report = store_job_new(sizeof(*report));
    report->job.run = report_run;
    report->job.done = report_done;
    report->done = done;
    report->context = context;
    report->first_flip = journal->last_flip >= flips ? journal->last_flip - flips + 1 : 0;
    store_read(journal->store, &report->job);
}

/* --- life --- */

static bool load(struct journal *journal, struct error *error)
{
    sqlite3_int64 last_seq = 0, last_flip = 0;
    sqlite3 *database = store_open_reader(journal->store, error);
    bool ok = database != NULL &&
              store_read_number(database, "select max(seq) from journal", &last_seq, error) &&
              store_read_number(database, "select max(flip) from journal", &last_flip, error);
    journal->last_seq = (uint64_t)last_seq;
    journal->last_flip = (uint64_t)last_flip;
    sqlite3_close(database);
    return ok;
}

struct journal *journal_new(struct store *store, struct error *error)
{
    struct journal *journal = calloc(1, sizeof(*journal));
    if (journal == NULL) {
        error_set(error, ERROR_MEMORY, "out of memory");
        return NULL;
    }
    journal->store = store;
    if (!load(journal, error)) {
        journal_free(journal);
        return NULL;
    }
    return journal;
}

void journal_free(struct journal *journal)
{
    free(journal);
}
