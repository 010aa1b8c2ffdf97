/*
 * The event stream: what an operator wants to see happen (phases, gates, alarms, sides lost and found). A
 * bounded ring in memory that subscribers follow; every event is logged too. Numbers go on over a restart
 * (they start from the wall clock), so that a subscriber can tell what it has missed.
 *
 * Used on the loop's thread by the controller (publishes), and by the method `subscribe`.
 */
#ifndef SWITCHBACK_CONTROL_DAEMON_EVENTS_H
#define SWITCHBACK_CONTROL_DAEMON_EVENTS_H

#include "conf/base/compiler.h"
#include "conf/base/error.h"
#include "conf/base/log.h"

#include <jansson.h>
#include <stdint.h>

struct events;
struct events_subscriber;

enum { EVENTS_KEPT = 1024, EVENT_WORD_SIZE = 32, EVENT_MESSAGE_SIZE = 512 };

struct event {
    uint64_t seq;
    int64_t time_us; /* wall clock */
    enum log_level level;
    char type[EVENT_WORD_SIZE];  /* "phase", "flip", "gate", "alarm", "side", "hold", "reload", "start" ... */
    uint64_t flip;               /* 0: none */
    char phase[EVENT_WORD_SIZE]; /* "" if none */
    char message[EVENT_MESSAGE_SIZE];
};

MUST_USE struct events *events_new(struct error *error);
void events_free(struct events *events);

void events_publish(struct events *events, enum log_level level, const char *type, uint64_t flip,
                    const char *phase, const char *format, ...) PRINTF_LIKE(6, 7);

/* An event of before the start, in its place before those that are to come; seq is given here. */
void events_put_back(struct events *events, const struct event *event);

/* Kept events with a seq above `after`, oldest first. */
void events_each(const struct events *events, uint64_t after,
                 void (*visit)(void *context, const struct event *event), void *context);
uint64_t events_last_seq(const struct events *events);

/* deliver is called for each new event, from inside events_publish. NULL: out of memory. */
struct events_subscriber *events_subscribe(struct events *events,
                                           void (*deliver)(void *context, const struct event *event),
                                           void *context);
void events_unsubscribe(struct events *events, struct events_subscriber *subscriber);

/* {seq, time, type, level, flip, phase, message}; flip and phase are null if there is none. A new reference,
 * NULL: out of memory. */
json_t *event_json(const struct event *event);

#endif
