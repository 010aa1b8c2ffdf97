#include "conf/settings/settings.h"

#include "conf/hba/userlist.h"
#include "conf/settings/gates.h"
#include "conf/settings/rules.h"
#include "conf/settings/table.h"
#include "conf/settings/walk.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* --- lists */

bool settings_list_add(struct settings_list *list, const char *text)
{
    char **items = realloc(list->items, (list->count + 1) * sizeof *items);
    if (items == NULL) {
        return false;
    }
    list->items = items;
    items[list->count] = strdup(text);
    if (items[list->count] == NULL) {
        return false;
    }
    list->count++;
    return true;
}

bool settings_list_has(const struct settings_list *list, const char *text)
{
    for (size_t i = 0; i < list->count; i++) {
        if (strcmp(list->items[i], text) == 0) {
            return true;
        }
    }
    return false;
}

void settings_list_deinit(struct settings_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->items[i]);
    }
    free(list->items);
    *list = (struct settings_list){.items = NULL};
}

bool settings_counts_add(struct settings_counts *counts, const char *name, int64_t number)
{
    struct settings_count *items = realloc(counts->items, (counts->count + 1) * sizeof *items);
    if (items == NULL) {
        return false;
    }
    counts->items = items;
    items[counts->count] = (struct settings_count){.name = strdup(name), .number = number};
    if (items[counts->count].name == NULL) {
        return false;
    }
    counts->count++;
    return true;
}

int64_t settings_counts_get(const struct settings_counts *counts, const char *name, int64_t fallback)
{
    for (size_t i = 0; i < counts->count; i++) {
        if (strcmp(counts->items[i].name, name) == 0) {
            return counts->items[i].number;
        }
    }
    return fallback;
}

void settings_counts_deinit(struct settings_counts *counts)
{
    for (size_t i = 0; i < counts->count; i++) {
        free(counts->items[i].name);
    }
    free(counts->items);
    *counts = (struct settings_counts){.items = NULL};
}

/* --- load */

/* Reads the tree into the settings; whatever happens, the settings can be freed. */
static bool fill(struct settings *settings, const char *file, const struct tree_node *tree,
                 struct error *error)
{
    size_t count = 0;
    const struct setting *rows = settings_table(&count);
    const struct tree_node **nodes = calloc(count, sizeof(const struct tree_node *));
    char *folder = strdup(settings->path);
    if (nodes == NULL || folder == NULL) {
        free(nodes);
        free(folder);
        return error_set(error, ERROR_MEMORY, "%s: out of memory", file);
    }
    char *slash = strrchr(folder, '/');
    slash[slash == folder ? 1 : 0] = '\0';
    struct walk walk = {.file = file,
                        .folder = folder,
                        .prefix = "",
                        .rows = rows,
                        .count = count,
                        .nodes = nodes,
                        .target = settings,
                        .error = error};
    bool ok = walk_fill(&walk, tree) && walk_defaults(&walk);
    for (size_t i = 0; ok && i < count; i++) {
        if (rows[i].type == SETTING_GATES) {
            ok = gates_load(&walk, nodes[i], settings);
        }
    }
    ok = ok && rules_apply(&walk, settings);
    free(nodes);
    free(folder);
    return ok;
}

struct settings *settings_load(const char *path, struct error *error)
{
    error_clear(error);
    struct tree_node *tree = tree_read(path, error);
    if (tree == NULL) {
        return NULL;
    }
    struct settings *settings = calloc(1, sizeof *settings);
    char *absolute = realpath(path, NULL);
    if (settings == NULL || absolute == NULL) {
        (void)error_set(error, ERROR_SYSTEM, "%s: %s", path, strerror(errno));
        free(absolute);
        free(settings);
        tree_free(tree);
        return NULL;
    }
    settings->path = absolute;
    bool ok = fill(settings, path, tree, error);
    tree_free(tree);
    if (!ok) {
        settings_free(settings);
        return NULL;
    }
    return settings;
}

/* --- free */

static void free_fields(void *target, const struct setting *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        void *field = (char *)target + rows[i].offset;
        char *text = NULL;
        switch (rows[i].type) {
        case SETTING_SECRET:
        case SETTING_STRING:
        case SETTING_TEXT:
        case SETTING_PATH:
        case SETTING_ADDRESS:
            memcpy(&text, field, sizeof text);
            if (rows[i].type == SETTING_SECRET && text != NULL) {
                explicit_bzero(text, strlen(text));
            }
            free(text);
            break;
        case SETTING_LIST:
            settings_list_deinit(field);
            break;
        case SETTING_COUNTS:
            settings_counts_deinit(field);
            break;
        default:
            break;
        }
    }
}

void settings_free(struct settings *settings)
{
    if (settings == NULL) {
        return;
    }
    size_t count = 0;
    const struct setting *rows = gate_table(&count);
    for (size_t i = 0; i < settings->gate_count; i++) {
        struct gate_draft draft = {.gate = settings->gates[i]};
        free_fields(&draft, rows, count);
    }
    free(settings->gates);
    rows = settings_table(&count);
    free_fields(settings, rows, count);
    hba_unref(settings->auth.hba);
    userlist_unref(settings->auth.userlist);
    free(settings->path);
    free(settings);
}

bool settings_is_managed(const struct settings *settings, const char *database)
{
    return settings_list_has(&settings->databases, database);
}
