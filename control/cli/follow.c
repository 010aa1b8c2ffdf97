/* What goes on for as long as somebody looks: events --follow, watch. */
#include "control/cli/verbs.h"

#include "conf/base/clock.h"
#include "conf/settings/unit.h"
#include "control/cli/client.h"
#include "control/cli/field.h"
#include "control/cli/interrupt.h"
#include "control/cli/readable.h"
#include "control/cli/render.h"
#include "control/cli/terminal.h"

#include <stdlib.h>
#include <string.h>

enum { SCREEN_LIMIT = 256 * 1024, SHOWN_EVENTS = 12 };

static const int64_t answer_timeout_us = 30000000;
static const int64_t look_us = 500000; /* between two looks at the status */

/* --- events */

struct follower {
    const struct invocation *invocation;
    int64_t not_before_us; /* wall clock; 0: any */
    bool dropped;
    char reason[160];
};

static void print_event(const struct follower *follower, const json_t *event)
{
    if (readable_parse_time(field_string(event, "time")) < follower->not_before_us) {
        return;
    }
    struct strbuf line;
    strbuf_init(&line, SCREEN_LIMIT);
    render_event(&line, event, clock_wall_us());
    cli_print(follower->invocation, &line, event);
    strbuf_deinit(&line);
}

static void note_dropped(struct follower *follower, const json_t *params)
{
    follower->dropped = true;
    (void)snprintf(follower->reason, sizeof follower->reason, "%s", field_string(params, "reason"));
}

static void notice_event(void *context, const char *method, const json_t *params)
{
    struct follower *follower = context;
    if (strcmp(method, "event") == 0) {
        print_event(follower, params);
    } else if (strcmp(method, "dropped") == 0) {
        note_dropped(follower, params);
    }
}

/* --since: a number is for the daemon, a duration is compared here. */
static json_t *since_params(struct follower *follower)
{
    const char *since = arguments_value(follower->invocation, "since");
    int64_t value = 0;
    if (since == NULL) {
        return json_object();
    }
    if (unit_parse_integer(since, &value) == UNIT_OK) {
        return json_pack("{s:I}", "since", (json_int_t)value);
    }
    if (unit_parse_duration(since, &value) == UNIT_OK) {
        follower->not_before_us = clock_wall_us() - value;
    }
    return json_object();
}

/* Listens until Ctrl-C (true) or until the daemon ends it. */
static bool listen_on(struct client *client, struct follower *follower, struct client_wait *wait,
                      struct error *error)
{
    while (!wait->stopped) {
        wait->timeout_us = look_us;
        bool ok = client_listen(client, wait, error);
        if (follower->dropped) {
            return error_set(error, ERROR_DAEMON_UNREACHABLE, "the daemon ended the stream: %s",
                             follower->reason);
        }
        if (!ok) {
            return false;
        }
    }
    return true;
}

static bool follow_events(struct client *client, struct follower *follower, struct client_wait *wait,
                          json_int_t after, struct error *error)
{
    wait->context = follower;
    wait->notice = notice_event;
    wait->stop = interrupt_catch();
    json_t *params = json_pack("{s:I}", "since", after);
    json_t *result = client_call(client, "subscribe", params, wait, error);
    json_decref(params);
    if (result == NULL) {
        return wait->stopped;
    }
    json_decref(result);
    return listen_on(client, follower, wait, error);
}

static bool list_events(struct client *client, struct follower *follower, json_int_t *last,
                        struct error *error)
{
    struct client_wait wait = {.timeout_us = answer_timeout_us};
    json_t *params = since_params(follower);
    json_t *result = client_call(client, "events", params, &wait, error);
    json_decref(params);
    if (result == NULL) {
        return false;
    }
    size_t index;
    const json_t *event;
    json_array_foreach(json_object_get(result, "events"), index, event)
    {
        print_event(follower, event);
    }
    *last = field_integer(result, "last_seq");
    json_decref(result);
    return true;
}

int verb_events(const struct invocation *invocation)
{
    struct error error;
    struct follower follower = {.invocation = invocation};
    struct client_wait wait = {.timeout_us = answer_timeout_us};
    json_int_t last = 0;
    struct client *client = client_open(client_socket_path(invocation->socket), &error);
    bool ok = client != NULL && list_events(client, &follower, &last, &error);
    follower.not_before_us = 0;
    if (ok && arguments_value(invocation, "follow") != NULL) {
        ok = follow_events(client, &follower, &wait, last, &error);
    }
    client_close(client);
    return ok ? EXIT_DONE : cli_fail(invocation->cli, invocation->json, &error);
}

/* --- watch */

struct viewer {
    struct follower follower;
    json_t *status;
    json_t *events; /* the last ones, for the screen */
    size_t lines;   /* on the screen, to be drawn over */
    char said[256]; /* what the last plain status said */
};

static size_t count_lines(const char *text)
{
    size_t count = 0;
    for (; *text != '\0'; text++) {
        count += *text == '\n';
    }
    return count;
}

/* As many of the last events as there is room for. */
static void put_events(struct strbuf *screen, const json_t *events, size_t room)
{
    size_t count = json_array_size(events);
    for (size_t i = count > room ? count - room : 0; i < count; i++) {
        render_event(screen, json_array_get(events, i), clock_wall_us());
    }
}

/* On a terminal: the status, below it the last events, drawn over what stood there. Lines are cut, so that
 * each takes one row. */
static void draw(struct viewer *viewer)
{
    FILE *out = viewer->follower.invocation->cli->out;
    struct terminal_size size = terminal_size(out);
    struct strbuf screen;
    strbuf_init(&screen, SCREEN_LIMIT);
    render_status(&screen, viewer->status, clock_wall_us());
    strbuf_puts(&screen, "\n");
    size_t used = count_lines(strbuf_text(&screen)) + 1;
    put_events(&screen, viewer->events, used < size.rows ? size.rows - used : 0);
    if (viewer->lines > 0) {
        (void)fprintf(out, "\033[%zuA", viewer->lines);
    }
    viewer->lines = 0;
    const char *text = strbuf_text(&screen);
    while (*text != '\0' && viewer->lines + 1 < size.rows) {
        size_t length = strcspn(text, "\n");
        (void)fprintf(out, "\033[K%.*s\n", (int)terminal_fit(text, length, size.columns - 1), text);
        viewer->lines++;
        text += length + (text[length] == '\n' ? 1 : 0);
    }
    (void)fputs("\033[J", out);
    (void)fflush(out);
    strbuf_deinit(&screen);
}

/* What of the status is worth a line of its own when it changes. */
static void summarize(const json_t *status, char said[256])
{
    const json_t *way = json_object_get(status, "way_back");
    struct strbuf gates;
    size_t index;
    const json_t *gate;
    strbuf_init(&gates, 160);
    json_array_foreach(json_object_get(status, "gates"), index, gate)
    {
        strbuf_puts(&gates, field_string(gate, "state"));
    }
    (void)snprintf(said, 256, "%s %s %d %zu %s", field_string(status, "active"),
                   field_string(status, "phase"), field_true(way, "open"),
                   json_array_size(json_object_get(status, "trouble")), strbuf_text(&gates));
    strbuf_deinit(&gates);
}

static void show_status(struct viewer *viewer)
{
    const struct invocation *invocation = viewer->follower.invocation;
    char said[256];
    if (!invocation->json && invocation->cli->out_terminal) {
        draw(viewer);
        return;
    }
    summarize(viewer->status, said);
    bool first = viewer->said[0] == '\0';
    if (strcmp(said, viewer->said) == 0) {
        return;
    }
    memcpy(viewer->said, said, sizeof said);
    if (invocation->json) {
        json_t *line = json_pack("{s:O}", "status", viewer->status);
        cli_print_line(invocation, line);
        json_decref(line);
    } else if (first) { /* later ones are told by events */
        struct strbuf text;
        strbuf_init(&text, SCREEN_LIMIT);
        render_status(&text, viewer->status, clock_wall_us());
        strbuf_puts(&text, "\n");
        cli_print(invocation, &text, NULL);
        strbuf_deinit(&text);
    }
}

static void notice_news(void *context, const char *method, const json_t *params)
{
    struct viewer *viewer = context;
    const struct invocation *invocation = viewer->follower.invocation;
    if (strcmp(method, "dropped") == 0) {
        note_dropped(&viewer->follower, params);
    } else if (strcmp(method, "event") != 0) {
        return;
    } else if (invocation->json) {
        json_t *line = json_pack("{s:O}", "event", params);
        cli_print_line(invocation, line);
        json_decref(line);
    } else if (!invocation->cli->out_terminal) {
        print_event(&viewer->follower, params);
    } else {
        (void)json_array_append_new(viewer->events, json_deep_copy(params));
        if (json_array_size(viewer->events) > SHOWN_EVENTS) {
            (void)json_array_remove(viewer->events, 0);
        }
    }
}

static bool look(struct client *client, struct viewer *viewer, struct client_wait *wait, struct error *error)
{
    wait->timeout_us = answer_timeout_us;
    json_t *status = client_call(client, "status", NULL, wait, error);
    if (status == NULL) {
        return wait->stopped;
    }
    json_decref(viewer->status);
    viewer->status = status;
    show_status(viewer);
    return true;
}

static bool view(struct client *client, struct viewer *viewer, struct error *error)
{
    struct client_wait wait = {.context = viewer, .notice = notice_news, .timeout_us = answer_timeout_us};
    wait.stop = interrupt_catch();
    json_t *result = client_call(client, "subscribe", NULL, &wait, error);
    if (result == NULL) {
        return wait.stopped;
    }
    json_decref(result);
    while (!wait.stopped) {
        if (!look(client, viewer, &wait, error)) {
            return false;
        }
        wait.timeout_us = look_us;
        if (!wait.stopped && !client_listen(client, &wait, error)) {
            return false;
        }
        if (viewer->follower.dropped) {
            return error_set(error, ERROR_DAEMON_UNREACHABLE, "the daemon ended the stream: %s",
                             viewer->follower.reason);
        }
    }
    return true;
}

int verb_watch(const struct invocation *invocation)
{
    struct error error;
    struct viewer viewer = {.follower = {.invocation = invocation}, .events = json_array()};
    struct client *client = client_open(client_socket_path(invocation->socket), &error);
    bool ok = client != NULL && view(client, &viewer, &error);
    client_close(client);
    json_decref(viewer.status);
    json_decref(viewer.events);
    return ok ? EXIT_DONE : cli_fail(invocation->cli, invocation->json, &error);
}
