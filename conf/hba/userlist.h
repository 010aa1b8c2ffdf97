/*
 * A file of roles and their verifiers, in the format of PgBouncer's userlist.txt: "role" "verifier", one a
 * line, quotes doubled inside. A verifier is what pg_authid.rolpassword holds: SCRAM-SHA-256$... or md5...;
 * "" lets the role in by no password. A password in plain text is refused. conf/settings loads it
 * (auth.verifier_file), the proxy looks roles up in it instead of asking the active side.
 */
#ifndef SWITCHBACK_CONF_HBA_USERLIST_H
#define SWITCHBACK_CONF_HBA_USERLIST_H

#include "conf/hba/lines.h"

#include <stdint.h>

struct userlist;

/* NULL: problems says everything that is wrong. */
MUST_USE struct userlist *userlist_load(const struct hba_source *source, const char *path,
                                        struct hba_problems *problems);
struct userlist *userlist_ref(struct userlist *list);
void userlist_unref(struct userlist *list); /* wipes it with the last one; NULL is allowed */

/* The verifier of a role; NULL: it isn't in the list. */
const char *userlist_find(const struct userlist *list, const char *role);
/* Both NULL counts as the same. */
bool userlist_same(const struct userlist *a, const struct userlist *b);
/* Most of it are md5 verifiers: what a role that isn't in it is asked for. */
bool userlist_is_md5(const struct userlist *list);
/* Of most of its SCRAM verifiers, for the same purpose; 0: it has none. */
uint32_t userlist_iterations(const struct userlist *list);

#endif
