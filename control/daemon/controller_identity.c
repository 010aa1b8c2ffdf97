/* Whose clusters these are, as state.dir remembers it: by that a cluster is known that isn't of this pair. */
#include "control/daemon/controller_internal.h"

#include "conf/base/ensure.h"

#include <stdio.h>
#include <string.h>

enum { IDENTITY_TEXT = 1024 };

static void take(const json_t *json, const char *key, char to[REPLICATION_NAME_SIZE])
{
    const char *text = json_string_value(json_object_get(json, key));
    (void)snprintf(to, REPLICATION_NAME_SIZE, "%s", text != NULL ? text : "");
}

bool controller_identity_recall(const struct controller *controller, struct replication_identity *identity,
                                struct error *error)
{
    char text[IDENTITY_TEXT];
    memset(identity, 0, sizeof *identity);
    if (!journal_recall(controller->journal, "identity", text, sizeof text, error)) {
        return false;
    }
    json_t *json = text[0] != '\0' ? json_loads(text, 0, NULL) : NULL;
    take(json, "pair", identity->pair);
    for (int i = 0; i < SIDE_COUNT; i++) {
        take(json, side_name((enum side)i), identity->system_identifiers[i]);
    }
    identity->owner = (uint64_t)json_integer_value(json_object_get(json, "owner"));
    identity->owned_since = json_is_true(json_object_get(json, "owned_since"));
    json_decref(json);
    return true;
}

void controller_identity_remember(struct controller *controller, journal_done done, void *context)
{
    const struct replication_identity *identity = replication_identity(controller->replication);
    json_t *json = json_pack("{s:s, s:s, s:s, s:I, s:b}", "pair", identity->pair, side_name(SIDE_BLUE),
                             identity->system_identifiers[SIDE_BLUE], side_name(SIDE_GREEN),
                             identity->system_identifiers[SIDE_GREEN], "owner", (json_int_t)identity->owner,
                             "owned_since", identity->owned_since ? 1 : 0);
    char *text = json_dumps(json, JSON_COMPACT);
    ENSURE(text != NULL);
    journal_remember(controller->journal, "identity", text, done, context);
    free(text);
    json_decref(json);
}

void controller_identified(void *context)
{
    controller_identity_remember(context, NULL, NULL);
}

/* A number that can't be remembered is raised all the same: without it nothing could be decided. */
static void on_remembered(void *context, const struct error *error)
{
    struct controller *controller = context;
    (void)error; /* logged */
    replication_chosen(controller->replication);
    controller_unref(controller);
}

void controller_choosing(void *context)
{
    struct controller *controller = context;
    controller_ref(controller);
    controller_identity_remember(controller, on_remembered, controller);
}
