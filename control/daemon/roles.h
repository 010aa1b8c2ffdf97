/*
 * Who may do what on the control socket: control.viewers, operators and approvers of the configuration
 * resolved to uids and gids. Root and the daemon's own uid may do all. Pure but for the name lookups when it
 * is built. Used by the control socket.
 */
#ifndef SWITCHBACK_CONTROL_DAEMON_ROLES_H
#define SWITCHBACK_CONTROL_DAEMON_ROLES_H

#include "conf/base/error.h"
#include "conf/settings/settings.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Bits. An operator and an approver may do what a viewer may; an approver isn't an operator. */
enum { ROLE_VIEWER = 1, ROLE_OPERATOR = 2, ROLE_APPROVER = 4 };

struct roles;

/* A name that the system doesn't know is an error (a typo would lock somebody out, or in later). Blocks. */
MUST_USE struct roles *roles_new(const struct settings *settings, struct error *error);
void roles_free(struct roles *roles);

bool roles_any_configured(const struct roles *roles);
unsigned roles_of(const struct roles *roles, uid_t uid, const gid_t *groups, size_t group_count);

const char *role_name(unsigned role); /* of one bit */

#endif
