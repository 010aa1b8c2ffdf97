/* Who reaches whom: cuts, one-way loss, delay, messages that come late. */
#ifndef SWITCHBACK_TESTS_SIM_NETWORK_H
#define SWITCHBACK_TESTS_SIM_NETWORK_H

#include "tests/sim/clock.h"

enum node { NODE_BLUE = SIDE_BLUE, NODE_GREEN = SIDE_GREEN, NODE_PROXY, NODE_SECOND, NODE_COUNT };

struct parked {
    struct moment moment;
    enum node from, to;
};

enum { PARKED = 256 };

struct network {
    bool cut[NODE_COUNT][NODE_COUNT]; /* from, to */
    int64_t slow_us[NODE_COUNT];      /* added to what comes from or goes to it */
    struct parked parked[PARKED];     /* what a cut keeps: it arrives late, after all */
    unsigned parked_count;
};

int64_t network_nodes(const struct sim *sim); /* that there are in this world */
bool network_passes(const struct sim *sim, enum node from, enum node to);
bool network_both_ways(const struct sim *sim, enum node one, enum node other);
/* Arrives after a delay; over a cut: after it heals, or never. */
void network_send(struct sim *sim, enum node from, enum node to, happening happen, uint32_t who,
                  uint64_t life, int64_t value);
void network_set_cut(struct sim *sim, enum node from, enum node to, bool cut);
const char *network_node(enum node node);

#endif
