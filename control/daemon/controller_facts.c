/* Ownership, then the facts of both clusters, summed up for the runner. */
#include "control/daemon/controller_internal.h"

#include "conf/base/ensure.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct learning {
    struct controller *controller;
    uint64_t ticket;
};

static void finish(struct learning *learning)
{
    struct controller *controller = learning->controller;
    free(learning);
    controller_unref(controller);
}

static uint64_t higher(uint64_t one, uint64_t other)
{
    return one > other ? one : other;
}

static void add_database(struct flip_side_facts *side, const struct database_facts *database)
{
    if (!database->installed) {
        return;
    }
    side->epoch_min =
        side->installed == 0 || database->epoch < side->epoch_min ? database->epoch : side->epoch_min;
    side->epoch_max = higher(side->epoch_max, database->epoch);
    side->installed++;
    side->active += database->standing == STANDING_ACTIVE;
    side->standby += database->standing == STANDING_STANDBY;
    side->diverged += database->standing == STANDING_DIVERGED;
    side->fenced_for = higher(side->fenced_for, database->fenced_for);
    side->fenced_for_count += database->fenced_for != 0;
    side->aborted = higher(side->aborted, database->aborted);
    side->opened_for = higher(side->opened_for, database->opened_for);
    side->last_flip = higher(side->last_flip, database->last_flip);
    side->fences_on += database->fences_enabled == database->tables;
    side->fences_off += database->fences_enabled == 0;
}

void controller_sum_facts(const struct pair_facts *pair, struct flip_facts *facts)
{
    *facts = (struct flip_facts){.owned_since = pair->owned_since};
    for (int i = 0; i < SIDE_COUNT; i++) {
        const struct side_facts *from = &pair->sides[i];
        struct flip_side_facts *to = &facts->sides[i];
        to->reachable = from->reachable;
        to->identity_changed = from->identity_changed;
        to->databases = (unsigned)from->database_count;
        if (from->foreign.code != ERROR_NONE) {
            (void)snprintf(to->foreign, sizeof to->foreign, "%.*s", (int)sizeof to->foreign - 1,
                           from->foreign.message);
            continue; /* what it says is about others */
        }
        for (size_t d = 0; from->reachable && d < from->database_count; d++) {
            add_database(to, &from->databases[d]);
        }
    }
}

static void audit_facts(struct controller *controller, const struct flip_facts *facts)
{
    json_t *detail = json_object();
    for (int i = 0; i < SIDE_COUNT; i++) {
        const struct flip_side_facts *side = &facts->sides[i];
        json_object_set_new(
            detail, side_name((enum side)i),
            json_pack("{s:b, s:i, s:i, s:i, s:I, s:I, s:I, s:b, s:o}", "reachable", side->reachable ? 1 : 0,
                      "installed", (int)side->installed, "active", (int)side->active, "fenced",
                      (int)side->fences_on, "epoch", (json_int_t)side->epoch_max, "fenced_for",
                      (json_int_t)side->fenced_for, "aborted", (json_int_t)side->aborted, "identity_changed",
                      side->identity_changed ? 1 : 0, "foreign", text_json_or_null(side->foreign)));
    }
    audit_decision(controller->audit, "facts", detail);
}

/* A side that came back, fenced on contact: it follows again, or somebody has to bring it back. */
static void tell_met(struct controller *controller, const struct flip_facts *facts)
{
    const struct flip_history *history = &controller->flip.history;
    const enum side side = side_other(history->active);
    const struct flip_side_facts *met = &facts->sides[side];
    if (!controller->met || !history->known || !met->reachable) {
        return;
    }
    controller->met = false;
    if (met->diverged > 0) {
        events_publish(
            controller->events, LOG_LEVEL_WARN, "side", 0, NULL,
            "%s is fenced, and diverged: it may hold what %s never got. switchback rejoin --dry-run "
            "lists it, switchback rejoin brings it back",
            side_name(side), side_name(history->active));
    } else if (met->standby == met->databases) {
        events_publish(controller->events, LOG_LEVEL_INFO, "side", 0, NULL,
                       "%s is fenced, holds nothing that %s lacks, and follows it", side_name(side),
                       side_name(history->active));
    }
}

static void on_facts(void *context, const struct replication_result *result, const struct pair_facts *pair)
{
    struct learning *learning = context;
    struct controller *controller = learning->controller;
    if (!result->ok) {
        controller_answer(controller, learning->ticket, false, result->uncertain, &result->error);
    } else if (!controller->stopping) {
        struct flip_facts facts;
        struct flip_event event = {.kind = FLIP_EVENT_FACTS, .ticket = learning->ticket, .facts = &facts};
        controller_sum_facts(pair, &facts);
        audit_facts(controller, &facts);
        tell_met(controller, &facts);
        controller_feed(controller, &event);
    }
    finish(learning);
}

static void on_owned(void *context, const struct replication_result *result)
{
    struct learning *learning = context;
    struct controller *controller = learning->controller;
    /* A cluster that isn't ours is no failure: the facts say which one it is. */
    const bool wrong = !result->ok && result->error.code == ERROR_WRONG_CLUSTER;
    if ((!result->ok && !wrong) || controller->stopping) {
        controller_answer(controller, learning->ticket, false, result->uncertain, &result->error);
        finish(learning);
        return;
    }
    replication_read_facts(controller->replication, on_facts, learning);
}

void controller_learn(struct controller *controller, uint64_t ticket)
{
    struct learning *learning = malloc(sizeof *learning);
    ENSURE(learning != NULL);
    *learning = (struct learning){.controller = controller, .ticket = ticket};
    controller_ref(controller);
    replication_own(controller->replication, on_owned, learning);
}
