#include "control/daemon/store_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    APPLICATION_ID = 0x53574221, /* "SWB!", so that no other program's database is taken for ours */
    SCHEMA_VERSION = 1
};

static const char schema[] =
    "create table journal (seq integer primary key, time integer not null, flip integer not null,"
    " kind text not null, phase text not null, data text not null);"
    "create table audit (seq integer primary key, time integer not null, uid integer not null,"
    " actor text not null, action text not null, detail text not null, previous text not null,"
    " hash text not null);"
    "create table reserve (filling blob);";

/* Came later than the rest; what doesn't know it doesn't miss it. */
static const char memory[] =
    "create table if not exists memory (name text primary key, value text not null) without rowid";

bool store_failed(sqlite3 *database, const char *what, struct error *error)
{
    int code = database == NULL ? SQLITE_NOMEM : sqlite3_errcode(database);
    const char *text = database == NULL ? "out of memory" : sqlite3_errmsg(database);
    error_set(error, ERROR_SYSTEM, "%s: %s", what, text);
    switch (code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return error_remedy(error, "the database is damaged: move it and its -wal file away (keep them) and "
                                   "start again; without a journal the clusters say which side is active");
    case SQLITE_FULL:
        return error_remedy(error, "free space on the file system of state.dir");
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
        return error_remedy(error, "state.dir and its files must be writable for the daemon's user");
    default:
        return false;
    }
}

bool store_execute(sqlite3 *database, const char *sql, struct error *error)
{
    if (sqlite3_exec(database, sql, NULL, NULL, NULL) != SQLITE_OK) {
        return store_failed(database, sqlite3_db_filename(database, "main"), error);
    }
    return true;
}

bool store_read_number(sqlite3 *database, const char *sql, sqlite3_int64 *number, struct error *error)
{
    sqlite3_stmt *statement = NULL;
    bool ok = sqlite3_prepare_v2(database, sql, -1, &statement, NULL) == SQLITE_OK;
    if (ok) {
        int step = sqlite3_step(statement);
        ok = step == SQLITE_ROW || step == SQLITE_DONE;
        *number = step == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : 0;
    }
    if (!ok) {
        store_failed(database, sqlite3_db_filename(database, "main"), error);
    }
    sqlite3_finalize(statement);
    return ok;
}

/* A name that was just created survives a crash of the machine only once its directory is flushed. */
static bool flush_directory(const char *directory, struct error *error)
{
    int descriptor = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = descriptor >= 0 && fsync(descriptor) == 0;
    if (!ok) {
        error_set(error, ERROR_SYSTEM, "state.dir %s can't be flushed: %s", directory, strerror(errno));
    }
    if (descriptor >= 0) {
        close(descriptor);
    }
    return ok;
}

bool store_directory(const char *directory, char path[STORE_PATH_SIZE], struct error *error)
{
    int length = snprintf(path, STORE_PATH_SIZE, "%s/switchback.db", directory);
    if (length < 0 || length >= STORE_PATH_SIZE) {
        return error_set(error, ERROR_CONFIG, "state.dir is too long: %s", directory);
    }
    if (mkdir(directory, 0700) == 0) {
        return true;
    }
    if (errno != EEXIST) {
        error_set(error, ERROR_SYSTEM, "state.dir %s can't be created: %s", directory, strerror(errno));
        return error_remedy(error, "create it, owned by the daemon's user, with mode 0700");
    }
    struct stat status;
    if (stat(directory, &status) != 0 || !S_ISDIR(status.st_mode)) {
        return error_set(error, ERROR_SYSTEM, "state.dir %s is not a directory", directory);
    }
    return true;
}

static long read_pid(int descriptor)
{
    char text[32] = "";
    ssize_t length = pread(descriptor, text, sizeof(text) - 1, 0);
    return length > 0 ? strtol(text, NULL, 10) : 0;
}

int store_lock(const char *directory, struct error *error)
{
    char path[STORE_PATH_SIZE];
    if (snprintf(path, sizeof(path), "%s/lock", directory) >= (int)sizeof(path)) {
        error_set(error, ERROR_CONFIG, "state.dir is too long: %s", directory);
        return -1;
    }
    int descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (descriptor < 0) {
        error_set(error, ERROR_SYSTEM, "%s can't be opened: %s", path, strerror(errno));
        error_remedy(error, "state.dir must be writable for the daemon's user");
        return -1;
    }
    if (flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
        long pid = errno == EWOULDBLOCK ? read_pid(descriptor) : 0;
        if (pid > 0) {
            error_set(error, ERROR_SYSTEM, "another switchback (pid %ld) uses state.dir %s", pid, directory);
            error_remedy(error, "stop it, or give this one a state.dir of its own");
        } else {
            error_set(error, ERROR_SYSTEM, "%s can't be locked: %s", path, strerror(errno));
        }
        close(descriptor);
        return -1;
    }
    char text[32];
    int length = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
    if (ftruncate(descriptor, 0) != 0 || pwrite(descriptor, text, (size_t)length, 0) != length) {
        error_set(error, ERROR_SYSTEM, "%s can't be written: %s", path, strerror(errno));
        close(descriptor);
        return -1;
    }
    return descriptor;
}

/* SQLite would create it for everybody to read; its -wal and -shm take over the mode that they find. */
static bool create_file(const char *path, struct error *error)
{
    int descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (descriptor < 0) {
        error_set(error, ERROR_SYSTEM, "%s can't be opened: %s", path, strerror(errno));
        return error_remedy(error, "state.dir and its files must be writable for the daemon's user");
    }
    close(descriptor);
    return true;
}

static bool check_pages(sqlite3 *database, const char *path, struct error *error)
{
    sqlite3_stmt *statement = NULL;
    bool ok = sqlite3_prepare_v2(database, "pragma quick_check(1)", -1, &statement, NULL) == SQLITE_OK &&
              sqlite3_step(statement) == SQLITE_ROW;
    if (!ok) {
        store_failed(database, path, error);
    } else if (strcmp((const char *)sqlite3_column_text(statement, 0), "ok") != 0) {
        ok = error_set(error, ERROR_SYSTEM, "%s is damaged: %s", path,
                       (const char *)sqlite3_column_text(statement, 0));
        error_remedy(error, "move it and its -wal file away (keep them) and start again; without a journal "
                            "the clusters say which side is active");
    }
    sqlite3_finalize(statement);
    return ok;
}

static bool prepare_schema(sqlite3 *database, const char *path, struct error *error)
{
    sqlite3_int64 application, version, tables;
    if (!store_read_number(database, "pragma application_id", &application, error) ||
        !store_read_number(database, "pragma user_version", &version, error) ||
        !store_read_number(database, "select count(*) from sqlite_schema", &tables, error)) {
        return false;
    }
    if (tables == 0) {
        char sql[sizeof(schema) + 128];
        (void)snprintf(sql, sizeof(sql),
                       "begin; pragma application_id = %d; pragma user_version = %d; %s commit;",
                       APPLICATION_ID, SCHEMA_VERSION, schema);
        return store_execute(database, sql, error);
    }
    if (application != APPLICATION_ID) {
        return error_set(error, ERROR_SYSTEM, "%s is not a journal of switchback", path);
    }
    if (version != SCHEMA_VERSION) {
        error_set(error, ERROR_SYSTEM, "%s has version %lld, this switchback knows version %d", path,
                  (long long)version, SCHEMA_VERSION);
        return error_remedy(error, "start the version of switchback that wrote it");
    }
    return true;
}

sqlite3 *store_connect(const char *directory, const char *path, struct error *error)
{
    if (!create_file(path, error)) {
        return NULL;
    }
    sqlite3 *database = NULL;
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX;
    if (sqlite3_open_v2(path, &database, flags, NULL) != SQLITE_OK) {
        store_failed(database, path, error);
        sqlite3_close(database);
        return NULL;
    }
    sqlite3_busy_timeout(database, STORE_BUSY_TIMEOUT_MS);
    /* Moving the log into the database is the writer's own decision: never in the middle of a flip. */
    if (!check_pages(database, path, error) ||
        !store_execute(database,
                       "pragma journal_mode = wal; pragma synchronous = full; pragma wal_autocheckpoint = 0",
                       error) ||
        !prepare_schema(database, path, error) || !store_execute(database, memory, error) ||
        !flush_directory(directory, error)) {
        sqlite3_close(database);
        return NULL;
    }
    return database;
}

sqlite3 *store_connect_read_only(const char *path, struct error *error)
{
    sqlite3 *database = NULL;
    int flags = SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX;
    if (sqlite3_open_v2(path, &database, flags, NULL) != SQLITE_OK) {
        store_failed(database, path, error);
        sqlite3_close(database);
        return NULL;
    }
    sqlite3_busy_timeout(database, STORE_BUSY_TIMEOUT_MS);
    return database;
}
