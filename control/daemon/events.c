#include "control/daemon/events.h"

#include "conf/base/clock.h"
#include "control/daemon/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct events_subscriber {
    void (*deliver)(void *context, const struct event *event);
    void *context;
    struct events_subscriber *next;
    bool gone; /* unsubscribed while an event was being delivered: freed after */
};

struct events {
    struct event *ring; /* event n stands at n % EVENTS_KEPT */
    uint64_t first, last;
    struct events_subscriber *subscribers;
    int delivering;
};

struct events *events_new(struct error *error)
{
    struct events *events = calloc(1, sizeof(*events));
    struct event *ring = calloc(EVENTS_KEPT, sizeof(*ring));
    if (events == NULL || ring == NULL) {
        free(events);
        free(ring);
        error_set(error, ERROR_MEMORY, "out of memory");
        return NULL;
    }
    events->ring = ring;
    events->last = (uint64_t)(clock_wall_us() / 1000);
    events->first = events->last + 1;
    return events;
}

static void sweep(struct events *events, bool all)
{
    struct events_subscriber **link = &events->subscribers;
    while (*link != NULL) {
        struct events_subscriber *subscriber = *link;
        if (subscriber->gone || all) {
            *link = subscriber->next;
            free(subscriber);
        } else {
            link = &subscriber->next;
        }
    }
}

void events_free(struct events *events)
{
    if (events != NULL) {
        sweep(events, true);
        free(events->ring);
        free(events);
    }
}

static void log_event(const struct event *event)
{
    if (!log_enabled(event->level)) {
        return;
    }
    struct log_field fields[5];
    size_t count = 0;
    fields[count++] = LOG_STR("type", event->type);
    if (event->flip != 0) {
        fields[count++] = LOG_U64("flip", event->flip);
    }
    if (event->phase[0] != '\0') {
        fields[count++] = LOG_STR("phase", event->phase);
    }
    fields[count++] = LOG_STR("message", event->message);
    fields[count] = (struct log_field){.kind = LOG_KIND_END};
    log_write(event->level, "event", fields);
}

static void deliver(struct events *events, const struct event *event)
{
    events->delivering++;
    for (struct events_subscriber *s = events->subscribers; s != NULL; s = s->next) {
        if (!s->gone) {
            s->deliver(s->context, event);
        }
    }
    events->delivering--;
    if (events->delivering == 0) {
        sweep(events, false);
    }
}

static void keep(struct events *events, const struct event *event)
{
    events->last = event->seq;
    events->ring[event->seq % EVENTS_KEPT] = *event;
    if (events->last - events->first >= EVENTS_KEPT) {
        events->first = events->last - EVENTS_KEPT + 1;
    }
}

void events_put_back(struct events *events, const struct event *event)
{
    struct event copy = *event;
    copy.seq = events->last + 1;
    keep(events, &copy);
}

void events_publish(struct events *events, enum log_level level, const char *type, uint64_t flip,
                    const char *phase, const char *format, ...)
{
    struct event event = {.seq = events->last + 1, .time_us = clock_wall_us(), .level = level, .flip = flip};
    (void)snprintf(event.type, sizeof(event.type), "%s", type);
    (void)snprintf(event.phase, sizeof(event.phase), "%s", phase == NULL ? "" : phase);
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(event.message, sizeof(event.message), format, arguments);
    va_end(arguments);

    keep(events, &event);
    log_event(&event);
    deliver(events, &event);
}

void events_each(const struct events *events, uint64_t after,
                 void (*visit)(void *context, const struct event *event), void *context)
{
    uint64_t from = after < events->first ? events->first : after + 1;
    for (uint64_t seq = from; seq <= events->last; seq++) {
        visit(context, &events->ring[seq % EVENTS_KEPT]);
    }
}

uint64_t events_last_seq(const struct events *events)
{
    return events->last;
}

struct events_subscriber *events_subscribe(struct events *events,
                                           void (*deliver_one)(void *context, const struct event *event),
                                           void *context)
{
    struct events_subscriber *subscriber = calloc(1, sizeof(*subscriber));
    if (subscriber != NULL) {
        subscriber->deliver = deliver_one;
        subscriber->context = context;
        subscriber->next = events->subscribers;
        events->subscribers = subscriber;
    }
    return subscriber;
}

void events_unsubscribe(struct events *events, struct events_subscriber *subscriber)
{
    subscriber->gone = true;
    if (events->delivering == 0) {
        sweep(events, false);
    }
}

static const char *level_name(enum log_level level)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    return names[level];
}

json_t *event_json(const struct event *event)
{
    char time[CLOCK_TEXT_SIZE];
    return json_pack("{s:I, s:s, s:o, s:s, s:o, s:o, s:o}", "seq", (json_int_t)event->seq, "time",
                     clock_format(event->time_us, time), "type", text_json(event->type), "level",
                     level_name(event->level), "flip",
                     event->flip == 0 ? json_null() : json_integer((json_int_t)event->flip), "phase",
                     text_json_or_null(event->phase), "message", text_json(event->message));
}
