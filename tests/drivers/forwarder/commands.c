/* What a test says to the forwarder, and what comes of it. */
#include "forwarder.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static const struct link *find_link(const struct forwarder *forwarder, const char *name)
{
    for (size_t i = 0; i < forwarder->link_count; i++) {
        if (strcmp(forwarder->links[i].name, name) == 0) {
            return &forwarder->links[i];
        }
    }
    return NULL;
}

static void admit(struct link *link)
{
    if (link->listener < 0) {
        link->listener = listen_on(link->listen_port);
    }
}

static void clear_faults(struct forwarder *forwarder, struct link *link)
{
    for (int end = 0; end < ENDS; end++) {
        link->faults[end] = (struct fault){.cut_after = -1};
    }
    admit(link);
    for (struct connection *connection = forwarder->connections; connection != NULL;
         connection = connection->next) {
        if (connection->link == link && connection->half_open) {
            close_both(connection, true);
        }
    }
}

static void reset_all(struct forwarder *forwarder, struct link *link)
{
    for (struct connection *connection = forwarder->connections; connection != NULL;
         connection = connection->next) {
        if (connection->link == link) {
            close_both(connection, true);
        }
    }
}

static void halve(struct forwarder *forwarder, struct link *link, enum end gone)
{
    for (struct connection *connection = forwarder->connections; connection != NULL;
         connection = connection->next) {
        if (connection->link == link && !connection->over && !connection->half_open) {
            close_end(connection, gone, true);
            connection->half_open = true;
        }
    }
}

static void forget(struct forwarder *forwarder, const struct link *link)
{
    for (struct connection *connection = forwarder->connections; connection != NULL;
         connection = connection->next) {
        connection->half_open = connection->half_open || connection->link == link;
    }
}

/* False: it isn't a fault that has a way. */
static bool set_fault(struct fault *fault, const char *what, int64_t value)
{
    if (strcmp(what, "stall") == 0) {
        fault->stalled = true;
    } else if (strcmp(what, "delay") == 0) {
        fault->delay_us = value * MS_US;
    } else if (strcmp(what, "throttle") == 0) {
        fault->bytes_per_second = value;
    } else if (strcmp(what, "cut") == 0) {
        fault->cut_after = value;
    } else {
        return false;
    }
    return true;
}

/* False: not understood. */
static bool command(struct forwarder *forwarder, struct link *link, const char *what, const char *which,
                    int64_t value)
{
    const bool both = strcmp(which, "both") == 0;
    bool done = false;
    if (both || strcmp(which, "up") == 0) {
        done = set_fault(&link->faults[CLIENT], what, value);
    }
    if (both || strcmp(which, "down") == 0) {
        done = set_fault(&link->faults[SERVER], what, value);
    }
    if (done) {
        return true;
    }
    if (strcmp(what, "pass") == 0) {
        clear_faults(forwarder, link);
    } else if (strcmp(what, "refuse") == 0) {
        if (link->listener >= 0) {
            close(link->listener);
        }
        link->listener = -1;
    } else if (strcmp(what, "admit") == 0) {
        admit(link);
    } else if (strcmp(what, "reset") == 0) {
        reset_all(forwarder, link);
    } else if (strcmp(what, "forget") == 0) {
        forget(forwarder, link);
    } else if (strcmp(what, "half") == 0) {
        halve(forwarder, link, strcmp(which, "server") == 0 ? SERVER : CLIENT);
    } else {
        return false;
    }
    return true;
}

static int count_connections(const struct forwarder *forwarder, const struct link *link)
{
    int count = 0;
    for (const struct connection *connection = forwarder->connections; connection != NULL;
         connection = connection->next) {
        count += connection->link == link && !connection->over && !connection->half_open;
    }
    return count;
}

static void obey(struct forwarder *forwarder, const char *line, FILE *answer)
{
    char what[NAME_SIZE] = "", name[NAME_SIZE] = "", which[NAME_SIZE] = "";
    char number[NAME_SIZE] = "";
    bool done = false;
    (void)sscanf(line, "%15s %15s %15s %15s", what, name, which, number);
    const int64_t value = strtoll(number, NULL, 10);
    const struct link *counted = find_link(forwarder, name);
    if (strcmp(what, "count") == 0 && counted != NULL) {
        fprintf(answer, "ok %d\n", count_connections(forwarder, counted));
        return;
    }
    for (size_t i = 0; i < forwarder->link_count; i++) {
        if (strcmp(name, "*") == 0 || strcmp(name, forwarder->links[i].name) == 0) {
            done = command(forwarder, &forwarder->links[i], what, which, value);
        }
    }
    fputs(done ? "ok\n" : "error\n", answer);
}

/* One caller at a time: it connects, says one line and waits for the answer. */
void obey_caller(struct forwarder *forwarder, int listener)
{
    char line[128];
    int caller = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    FILE *stream = caller < 0 ? NULL : fdopen(caller, "r+");
    if (stream == NULL) {
        return;
    }
    if (fgets(line, sizeof(line), stream) != NULL) {
        fseek(stream, 0, SEEK_CUR);
        obey(forwarder, line, stream);
    }
    fclose(stream);
}

int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (strlen(path) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        fatal(path);
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    if (listener < 0 || bind(listener, (const struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(listener, BACKLOG) != 0) {
        fatal(path);
    }
    return listener;
}

bool add_link(struct forwarder *forwarder, const char *text)
{
    struct link *link = &forwarder->links[forwarder->link_count];
    const char *equals = strchr(text, '='), *colon = strchr(text, ':');
    if (equals == NULL || colon == NULL || equals - text >= NAME_SIZE) {
        return false;
    }
    memcpy(link->name, text, (size_t)(equals - text));
    link->listen_port = (int)strtol(equals + 1, NULL, 10);
    link->target_port = (int)strtol(colon + 1, NULL, 10);
    link->listener = -1;
    clear_faults(forwarder, link);
    forwarder->link_count++;
    return true;
}
