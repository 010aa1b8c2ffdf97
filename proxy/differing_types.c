#include "proxy/differing_types.h"

#include <stdlib.h>

static struct differing_types *find(struct differing_types **all, const char *database)
{
    for (struct differing_types *entry = *all; entry != NULL; entry = entry->next) {
        if (strcmp(entry->database, database) == 0) {
            return entry;
        }
    }
    struct differing_types *entry = calloc(1, sizeof(*entry));
    char *name = strdup(database);
    if (entry == NULL || name == NULL) {
        free(entry);
        free(name);
        return NULL;
    }
    entry->database = name;
    entry->next = *all;
    *all = entry;
    return entry;
}

const struct move_types *types_of(struct differing_types **all, const char *database)
{
    const struct differing_types *entry = find(all, database);
    return entry != NULL ? &entry->types : NULL;
}

bool types_set(struct differing_types **all, const char *database, uint32_t *oids, size_t count)
{
    struct differing_types *entry = find(all, database);
    if (entry == NULL) {
        free(oids);
        return false;
    }
    free(entry->oids);
    entry->oids = oids;
    entry->types = (struct move_types){.oids = oids, .count = count};
    return true;
}

void types_free(struct differing_types *all)
{
    while (all != NULL) {
        struct differing_types *next = all->next;
        free(all->database);
        free(all->oids);
        free(all);
        all = next;
    }
}
