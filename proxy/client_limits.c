#include "proxy/client_limits.h"

#include "conf/base/ensure.h"

#include <stdlib.h>
#include <string.h>
#include <uthash.h>

enum kind { KIND_DATABASE = 'd', KIND_ROLE = 'r' };

struct client_count {
    UT_hash_handle hh;
    uint64_t number;
    char key[]; /* the kind, then the name */
};

void client_limits_init(struct client_limits *limits)
{
    ENSURE(uv_mutex_init(&limits->mutex) == 0);
    limits->counts = NULL;
}

void client_limits_deinit(struct client_limits *limits)
{
    ENSURE(limits->counts == NULL);
    uv_mutex_destroy(&limits->mutex);
}

/* The count of a name, made if there is none; NULL: out of memory. */
static struct client_count *get(struct client_limits *limits, enum kind kind, const char *name)
{
    size_t length = strlen(name) + 1;
    struct client_count *made = calloc(1, sizeof(*made) + length + 1), *found = NULL;
    if (made == NULL) {
        return NULL;
    }
    made->key[0] = (char)kind;
    memcpy(made->key + 1, name, length);
    HASH_FIND(hh, limits->counts, made->key, length, found);
    if (found != NULL) {
        free(made);
        return found;
    }
    HASH_ADD_KEYPTR(hh, limits->counts, made->key, length, made);
    return made;
}

static void drop_unused(struct client_limits *limits, struct client_count *count)
{
    if (count != NULL && count->number == 0) {
        ENSURE(limits->counts != NULL); /* it is in there */
        HASH_DEL(limits->counts, count);
        free(count);
    }
}

static bool is_full(const struct client_count *count, int64_t most)
{
    return most > 0 && count->number >= (uint64_t)most;
}

enum client_verdict client_limits_enter(struct client_limits *limits, const struct settings_limits *settings,
                                        const char *database, const char *role, struct client_place *place)
{
    enum client_verdict verdict = CLIENT_ADMITTED;
    int64_t of_database = settings_counts_get(&settings->databases, database, settings->per_database);
    int64_t of_role = settings_counts_get(&settings->roles, role, settings->per_role);
    uv_mutex_lock(&limits->mutex);
    struct client_count *databases = get(limits, KIND_DATABASE, database);
    struct client_count *roles = get(limits, KIND_ROLE, role);
    if (databases == NULL || roles == NULL) {
        verdict = CLIENT_NO_MEMORY;
    } else if (is_full(databases, of_database)) {
        verdict = CLIENT_DATABASE_FULL;
    } else if (is_full(roles, of_role)) {
        verdict = CLIENT_ROLE_FULL;
    } else {
        databases->number++;
        roles->number++;
        *place = (struct client_place){.database = databases, .role = roles};
    }
    drop_unused(limits, databases);
    drop_unused(limits, roles);
    uv_mutex_unlock(&limits->mutex);
    return verdict;
}

void client_limits_leave(struct client_limits *limits, struct client_place *place)
{
    if (place->database == NULL) {
        return;
    }
    uv_mutex_lock(&limits->mutex);
    place->database->number--;
    place->role->number--;
    drop_unused(limits, place->database);
    drop_unused(limits, place->role);
    uv_mutex_unlock(&limits->mutex);
    *place = (struct client_place){.database = NULL};
}
