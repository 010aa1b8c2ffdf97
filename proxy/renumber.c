#include "proxy/renumber.h"

#include "conf/base/ensure.h"
#include "proxy/mover.h"
#include "proxy/session.h"
#include "proxy/worker.h"

#include <utlist.h>

bool renumber_begin(struct session *session)
{
    struct worker *worker = session->worker;
    static struct database_types unmanaged = {.map = NULL};
    session->home = session->link->side;
    session->types = &unmanaged;
    if (config_is_managed(worker->config, session->startup.database)) {
        session->types = types_of(&worker->types, session->startup.database);
    }
    return session->types != NULL;
}

/* Its numbering on the other side. */
static bool make_numbering(struct session *session)
{
    struct mover *mover = session->mover;
    if (mover->numbering == NULL && type_map_differs(session->types->map)) {
        mover->numbering = numbering_new(session->types->map, session->home);
        return mover->numbering != NULL;
    }
    return true;
}

bool renumber_target(struct session *session, const struct server_link *target, struct move_numbers *numbers)
{
    bool leaves = target->side != session->home;
    if (leaves && !make_numbering(session)) {
        return false;
    }
    const struct type_map *map =
        session->numbering != NULL ? numbering_map(session->numbering) : session->types->map;
    *numbers =
        (struct move_numbers){.statements = {.map = map, .from = session->link->side, .to = target->side},
                              .unnamed = {.map = map, .from = session->home, .to = target->side},
                              .numbering = leaves ? session->mover->numbering : NULL};
    return true;
}

/*
 * A session away from home goes on by the new map, unless that gives another number to what its client knows
 * by one: then its home's types were made anew (a side that was prepared again), and it speaks numbers that
 * nobody has any more.
 */
static void take_map(struct session *session, struct type_map *map)
{
    struct numbering *numbering = session->numbering;
    uint32_t changed = numbering_strange(numbering);
    changed = changed != 0 ? changed : type_map_disagreement(numbering_map(numbering), map, session->home);
    if (changed == 0) {
        numbering_set_map(numbering, map);
    } else {
        move_knows_type(session->move, changed);
    }
}

bool renumber_swapped(struct session *session)
{
    struct mover *mover = session->mover;
    numbering_free(session->numbering);
    session->numbering = NULL;
    if (session->link->side == session->home) {
        return true;
    }
    if (!make_numbering(session)) {
        return false;
    }
    session->numbering = mover->numbering;
    mover->numbering = NULL;
    if (session->numbering == NULL) {
        session->home =
            session->link->side; /* both sides have the same numbers: it speaks this one's as well */
    } else if (numbering_map(session->numbering) != session->types->map) {
        take_map(session, session->types->map); /* it has come since it was armed */
    }
    return true;
}

void renumber_map(struct worker *worker, const char *database, struct type_map *map)
{
    struct database_types *types = types_of(&worker->types, database);
    ENSURE(types != NULL);
    type_map_unref(types->map);
    types->map = map;
    struct session *session = NULL;
    DL_FOREACH(worker->sessions, session)
    {
        if (session->types == types && session->numbering != NULL) {
            take_map(session, map);
        }
    }
}
