#include "replication/identity.h"

#include "conf/base/log.h"

#include <stdio.h>
#include <string.h>

static const char correct_sides[] =
    "correct the addresses in `sides`, then start again; nothing was changed there";

bool identity_judge_row(const struct replication *replication, enum side side, const struct reply *reply,
                        int at, struct error *why)
{
    const char *pair = reply_value(reply, 0, at), *recorded = reply_value(reply, 0, at + 1);
    const char *known = replication->identity.pair;
    if (recorded != NULL && strcmp(recorded, side_name(side)) != 0) {
        (void)error_set(why, ERROR_WRONG_CLUSTER,
                        "at the address of %s answers %s of the pair: the sides are exchanged, or both "
                        "addresses lead to one cluster",
                        side_name(side), recorded);
        return error_remedy(why, "%s", correct_sides);
    }
    if (pair != NULL && *known != '\0' && strcmp(pair, known) != 0) {
        (void)error_set(why, ERROR_WRONG_CLUSTER, "%s belongs to another pair: %s, not %s", side_name(side),
                        pair, known);
        return error_remedy(why, "correct the addresses in `sides`, or give this daemon the state.dir of "
                                 "the pair; nothing was changed there");
    }
    return true;
}

bool identity_settle(struct replication *replication, const char *blue_pair, const char *green_pair,
                     struct error *why)
{
    const char *pair = *blue_pair != '\0' ? blue_pair : green_pair;
    if (*replication->identity.pair != '\0' || *pair == '\0') {
        return true;
    }
    if (*blue_pair != '\0' && *green_pair != '\0' && strcmp(blue_pair, green_pair) != 0) {
        (void)error_set(why, ERROR_WRONG_CLUSTER, "blue belongs to the pair %s, green to %s", blue_pair,
                        green_pair);
        return error_remedy(why, "%s", correct_sides);
    }
    (void)snprintf(replication->identity.pair, sizeof replication->identity.pair, "%s", pair);
    return true;
}

void identity_note(struct replication *replication, enum side side, const struct error *why)
{
    const bool foreign = why->code != ERROR_NONE;
    if (foreign && !replication->foreign[side]) {
        LOG_ERROR("wrong_cluster", LOG_STR("side", side_name(side)), LOG_STR("why", why->message));
    }
    replication->foreign[side] = foreign;
}

/* --- facts --- */

static const struct database_facts *first_installed(const struct side_facts *side)
{
    for (size_t i = 0; side->reachable && i < side->database_count; i++) {
        if (side->databases[i].installed) {
            return &side->databases[i];
        }
    }
    return NULL;
}

static const char *pair_of(const struct side_facts *side)
{
    const struct database_facts *database = first_installed(side);
    return database != NULL && side->foreign.code == ERROR_NONE ? database->pair : "";
}

/* It answers, knows nothing of us, and isn't the cluster that was prepared. */
static void judge_replaced(const struct replication *replication, enum side which, struct side_facts *side)
{
    const char *known = replication->identity.system_identifiers[which];
    if (!side->reachable || first_installed(side) != NULL || *known == '\0' ||
        strcmp(known, side->system_identifier) == 0) {
        return;
    }
    (void)error_set(
        &side->foreign, ERROR_WRONG_CLUSTER,
        "at the address of %s answers a cluster that was never prepared (system identifier %s, not %s)",
        side_name(which), side->system_identifier, known);
    (void)error_remedy(&side->foreign,
                       "correct the addresses in `sides`; if it is to be the new %s: switchback "
                       "prepare, while the other side is active",
                       side_name(which));
}

void identity_learn(struct replication *replication, struct pair_facts *facts)
{
    struct replication_identity *known = &replication->identity;
    const struct replication_identity before = *known;
    struct side_facts *blue = &facts->sides[SIDE_BLUE], *green = &facts->sides[SIDE_GREEN];
    struct error why;
    if (!identity_settle(replication, pair_of(blue), pair_of(green), &why)) {
        blue->foreign = green->foreign = why;
    }
    for (int i = 0; i < SIDE_COUNT; i++) {
        struct side_facts *side = &facts->sides[i];
        judge_replaced(replication, (enum side)i, side);
        if (*pair_of(side) != '\0' && !side->identity_changed) {
            (void)snprintf(known->system_identifiers[i], sizeof known->system_identifiers[i], "%s",
                           side->system_identifier);
        }
        identity_note(replication, (enum side)i, &side->foreign);
    }
    if (memcmp(&before, known, sizeof before) != 0 || !replication->identity_told) {
        replication->identity_told = *known->pair != '\0';
        if (replication->identity_told && replication->callbacks.identified != NULL) {
            replication->callbacks.identified(replication->callbacks.context);
        }
    }
}

void replication_set_trusted(struct replication *replication)
{
    if (replication->identity.owned_since) {
        replication->identity.owned_since = false;
        if (replication->callbacks.identified != NULL) {
            replication->callbacks.identified(replication->callbacks.context);
        }
    }
}

void replication_set_identity(struct replication *replication, const struct replication_identity *identity)
{
    replication->identity = *identity;
}

const struct replication_identity *replication_identity(const struct replication *replication)
{
    return &replication->identity;
}
