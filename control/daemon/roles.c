#include "control/daemon/roles.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NAME_BUFFER_SIZE = 16384, UID_MAX = 0x7ffffffe };

struct grant {
    bool is_group;
    uint32_t id;
    unsigned role;
};

struct roles {
    uid_t own;
    struct grant *grants;
    size_t count;
};

const char *role_name(unsigned role)
{
    switch (role) {
    case ROLE_VIEWER:
        return "viewer";
    case ROLE_OPERATOR:
        return "operator";
    case ROLE_APPROVER:
        return "approver";
    default:
        return "nobody";
    }
}

static bool parse_number(const char *text, uint32_t *number)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < 0 || value > UID_MAX) {
        return false;
    }
    *number = (uint32_t)value;
    return true;
}

static bool find_group(const char *name, uint32_t *id)
{
    struct group entry, *found = NULL;
    char *buffer = malloc(NAME_BUFFER_SIZE);
    if (buffer != NULL && getgrnam_r(name, &entry, buffer, NAME_BUFFER_SIZE, &found) == 0 && found != NULL) {
        *id = found->gr_gid;
    }
    free(buffer);
    return found != NULL;
}

static bool find_user(const char *name, uint32_t *id)
{
    struct passwd entry, *found = NULL;
    char *buffer = malloc(NAME_BUFFER_SIZE);
    if (buffer != NULL && getpwnam_r(name, &entry, buffer, NAME_BUFFER_SIZE, &found) == 0 && found != NULL) {
        *id = found->pw_uid;
    }
    free(buffer);
    return found != NULL;
}

/* "1000", "alice", "%dba" or "%1000". */
static bool parse_grant(const char *item, unsigned role, struct grant *grant, struct error *error)
{
    grant->role = role;
    grant->is_group = item[0] == '%';
    const char *name = grant->is_group ? item + 1 : item;
    if (parse_number(name, &grant->id)) {
        return true;
    }
    if (grant->is_group ? find_group(name, &grant->id) : find_user(name, &grant->id)) {
        return true;
    }
    error_set(error, ERROR_CONFIG, "control.%ss: %s \"%s\" is not known to the system", role_name(role),
              grant->is_group ? "group" : "user", name);
    return error_remedy(error, "use the name of a user, a uid, or %% and a group");
}

static bool add_list(struct roles *roles, const struct settings_list *list, unsigned role,
                     struct error *error)
{
    for (size_t i = 0; i < list->count; i++) {
        if (!parse_grant(list->items[i], role, &roles->grants[roles->count], error)) {
            return false;
        }
        roles->count++;
    }
    return true;
}

struct roles *roles_new(const struct settings *settings, struct error *error)
{
    size_t room = settings->control_viewers.count + settings->control_operators.count +
                  settings->control_approvers.count;
    struct roles *roles = calloc(1, sizeof(*roles));
    if (roles != NULL) {
        roles->grants = calloc(room + 1, sizeof(*roles->grants));
    }
    if (roles == NULL || roles->grants == NULL) {
        free(roles);
        error_set(error, ERROR_MEMORY, "out of memory");
        return NULL;
    }
    roles->own = geteuid();
    if (!add_list(roles, &settings->control_viewers, ROLE_VIEWER, error) ||
        !add_list(roles, &settings->control_operators, ROLE_OPERATOR, error) ||
        !add_list(roles, &settings->control_approvers, ROLE_APPROVER, error)) {
        roles_free(roles);
        return NULL;
    }
    return roles;
}

void roles_free(struct roles *roles)
{
    if (roles != NULL) {
        free(roles->grants);
        free(roles);
    }
}

bool roles_any_configured(const struct roles *roles)
{
    return roles->count > 0;
}

static bool matches(const struct grant *grant, uid_t uid, const gid_t *groups, size_t group_count)
{
    if (!grant->is_group) {
        return grant->id == uid;
    }
    for (size_t i = 0; i < group_count; i++) {
        if (groups[i] == grant->id) {
            return true;
        }
    }
    return false;
}

unsigned roles_of(const struct roles *roles, uid_t uid, const gid_t *groups, size_t group_count)
{
    if (uid == 0 || uid == roles->own) {
        return ROLE_VIEWER | ROLE_OPERATOR | ROLE_APPROVER;
    }
    unsigned granted = 0;
    for (size_t i = 0; i < roles->count; i++) {
        if (matches(&roles->grants[i], uid, groups, group_count)) {
            granted |= roles->grants[i].role | ROLE_VIEWER;
        }
    }
    return granted;
}
