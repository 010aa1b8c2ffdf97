/* The files behind store.h: the state directory, its lock, and a checked connection to the database. */
#ifndef SWITCHBACK_CONTROL_DAEMON_STORE_FILE_H
#define SWITCHBACK_CONTROL_DAEMON_STORE_FILE_H

#include "conf/base/error.h"

#include <sqlite3.h>
#include <stdbool.h>

enum { STORE_PATH_SIZE = 512, STORE_BUSY_TIMEOUT_MS = 5000 };

/* Creates the directory if it is missing; fills path with that of the database. */
MUST_USE bool store_directory(const char *directory, char path[STORE_PATH_SIZE], struct error *error);

/* A descriptor whose closing gives the lock back; -1 with *error naming who holds it. */
MUST_USE int store_lock(const char *directory, struct error *error);

/* Opens for writing; creates, checks and upgrades. */
MUST_USE sqlite3 *store_connect(const char *directory, const char *path, struct error *error);
MUST_USE sqlite3 *store_connect_read_only(const char *path, struct error *error);

/* Fills *error from the connection's last failure: "what: reason". Returns false. */
bool store_failed(sqlite3 *database, const char *what, struct error *error);

MUST_USE bool store_execute(sqlite3 *database, const char *sql, struct error *error);

/* The first column of the first row of a query, such as a pragma. */
MUST_USE bool store_read_number(sqlite3 *database, const char *sql, sqlite3_int64 *number,
                                struct error *error);

#endif
