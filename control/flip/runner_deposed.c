/*
 * Another controller owns the pair. This one decides nothing and holds nothing, but its clients are served
 * all the same: it follows what the clusters say. A side that takes the writes gets the traffic; while there
 * is none, as in the other one's flip, clients wait. Whose side has changed is ended (57P01) and comes in
 * again.
 */
#include "control/flip/runner_internal.h"

void flip_deposed(struct flip *flip)
{
    const bool refuses =
        flip->hold.stands ? flip->fenced || flip->hold.refuses : flip->hold.over && flip->hold.refuses;
    if (flip->hold.stands) {
        /* Before the fence the clients go on where they are; behind it they would find a fenced side. */
        struct flip_request request = flip_request(flip, FLIP_ACTION_EXPIRE);
        request.refuse = refuses;
        request.deadline_us = flip->now_us;
        flip_tell(flip, &request);
        flip->hold.stands = false;
    }
    if (flip->armed) {
        const struct flip_request request = flip_request(flip, FLIP_ACTION_DISARM);
        flip_tell(flip, &request);
        flip->armed = false;
    }
    flip_watch_pause(flip);
    flip->follow = (struct flip_follow){.refuses = refuses,
                                        .side = flip->history.known ? flip->history.active : flip->initial,
                                        .epoch = flip->history.epoch > 0 ? flip->history.epoch : 1};
    flip->mode = FLIP_MODE_DEPOSED;
    flip->await = (struct flip_await){0};
    flip->retry = (struct flip_retry){0};
    error_set(&flip->why, ERROR_STALE,
              "another controller has taken ownership of the pair; this one decides nothing");
    error_remedy(
        &flip->why,
        "stop one of the two daemons, or restart this one, which then takes over: if it is the one to keep, "
        "or if there is no other (a state.dir that was lost or restored)");
    flip_alarm(flip, &flip->why);
}

void flip_follow(struct flip *flip, const struct flip_event *event)
{
    struct flip_follow *follow = &flip->follow;
    /* A side that comes back may say that it is open when it was left behind: the pair's epoch only grows. */
    const bool open = event->open && event->epoch >= follow->epoch;
    if (follow->known && follow->open == open &&
        (!open || (follow->side == event->side && follow->epoch == event->epoch))) {
        return;
    }
    follow->known = true;
    follow->open = open;
    if (open) {
        follow->side = event->side;
        follow->epoch = event->epoch;
    }
    const struct flip_request route = {
        .kind = FLIP_ACTION_ROUTE, .side = follow->side, .epoch = follow->epoch, .open = follow->open};
    flip_tell(flip, &route);
    if (follow->open && follow->refuses) { /* the flip's own hold, which nothing else ends any more */
        const struct flip_request release = flip_request(flip, FLIP_ACTION_RELEASE);
        follow->refuses = false;
        flip_tell(flip, &release);
    }
}
