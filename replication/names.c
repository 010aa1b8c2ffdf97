#include "replication/names.h"

#include "conf/base/ensure.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/random.h>

enum { READABLE_BYTES = 20 };

const char *names_instance(void)
{
    static char text[NAMES_INSTANCE_SIZE];
    if (text[0] == '\0') {
        uint32_t number;
        ENSURE(getrandom(&number, sizeof number, 0) == (ssize_t)sizeof number);
        (void)snprintf(text, sizeof text, "%08" PRIx32, number);
    }
    return text;
}

char *names_application(const char *purpose, char name[NAMES_APPLICATION_SIZE])
{
    (void)snprintf(name, NAMES_APPLICATION_SIZE, NAMES_APPLICATION "%s %s", purpose, names_instance());
    return name;
}

const char *names_publication(enum side side)
{
    return side == SIDE_BLUE ? "switchback_blue" : "switchback_green";
}

const char *names_subscription(enum side publisher)
{
    return publisher == SIDE_BLUE ? "switchback_from_blue" : "switchback_from_green";
}

/* FNV-1a: a few databases of one cluster must not collide, nobody attacks it. */
static uint32_t hash(const char *text)
{
    uint32_t value = 2166136261U;
    for (; *text != '\0'; text++) {
        value = (value ^ (unsigned char)*text) * 16777619U;
    }
    return value;
}

char *names_slot(enum side publisher, const char *database, char name[NAMES_SLOT_SIZE])
{
    char readable[READABLE_BYTES + 1];
    size_t length = 0;
    for (; database[length] != '\0' && length < READABLE_BYTES; length++) {
        unsigned char c = (unsigned char)database[length];
        bool allowed = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        readable[length] = allowed ? (char)c : '_';
    }
    readable[length] = '\0';
    (void)snprintf(name, NAMES_SLOT_SIZE, "switchback_%s_%08" PRIx32 "_to_%s", readable, hash(database),
                   side_name(side_other(publisher)));
    return name;
}
