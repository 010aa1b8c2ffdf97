/*
 * The secret behind the salts that unknown users are told: kept in the state directory, because a salt that
 * changes with a restart tells that there is no such user.
 */
#ifndef SWITCHBACK_CONTROL_DAEMON_MOCK_SECRET_H
#define SWITCHBACK_CONTROL_DAEMON_MOCK_SECRET_H

#include "conf/base/error.h"

#include <stdint.h>

enum { MOCK_SECRET_SIZE = 32 };

/* Reads DIRECTORY/mock_secret, which is made when it is missing or damaged. */
MUST_USE bool mock_secret_load(const char *directory, uint8_t secret[MOCK_SECRET_SIZE], struct error *error);

#endif
