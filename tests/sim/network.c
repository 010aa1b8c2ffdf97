/* Who reaches whom. What a cut keeps arrives when it heals, or never: a TCP connection does either. */
#include "tests/sim/sim.h"

const char *network_node(enum node node)
{
    return node == NODE_PROXY    ? "proxy"
           : node == NODE_SECOND ? "the second proxy"
                                 : side_name((enum side)node);
}

int64_t network_nodes(const struct sim *sim)
{
    return NODE_PROXY + (int64_t)sim->daemon_count;
}

bool network_passes(const struct sim *sim, enum node from, enum node to)
{
    return !sim->network.cut[from][to];
}

bool network_both_ways(const struct sim *sim, enum node one, enum node other)
{
    return network_passes(sim, one, other) && network_passes(sim, other, one);
}

static int64_t delay_us(struct sim *sim, enum node from, enum node to)
{
    const int64_t slow_us = sim->network.slow_us[from] + sim->network.slow_us[to];
    return sim_between(sim, 50, 300) + (slow_us > 0 ? sim_between(sim, 0, slow_us) : 0);
}

void network_send(struct sim *sim, enum node from, enum node to, happening happen, uint32_t who,
                  uint64_t life, int64_t value)
{
    struct network *network = &sim->network;
    if (network_passes(sim, from, to)) {
        sim_later(sim, delay_us(sim, from, to), happen, who, life, value);
    } else if (network->parked_count < PARKED && sim_chance(sim, 500)) {
        network->parked[network->parked_count++] =
            (struct parked){.moment = {.happen = happen,
                                       .who = who,
                                       .daemon = (unsigned)(sim->my - sim->daemons),
                                       .life = life,
                                       .value = value},
                            .from = from,
                            .to = to};
    }
}

void network_set_cut(struct sim *sim, enum node from, enum node to, bool cut)
{
    struct network *network = &sim->network;
    if (network->cut[from][to] == cut) {
        return;
    }
    SAY(sim, "network", "%s %s %s", network_node(from), cut ? "no longer reaches" : "reaches again",
        network_node(to));
    network->cut[from][to] = cut;
    const enum node proxy = from > to ? from : to, side = from > to ? to : from;
    if (cut && proxy >= NODE_PROXY && side < NODE_PROXY) {
        oracle_away(sim, (enum side)side);
    }
    unsigned kept = 0;
    for (unsigned i = 0; i < network->parked_count && !cut; i++) {
        const struct parked *parked = &network->parked[i];
        if (parked->from == from && parked->to == to) {
            struct daemon *before = sim_as(sim, parked->moment.daemon);
            sim_later(sim, sim_between(sim, 100, 300 * SIM_MS), parked->moment.happen, parked->moment.who,
                      parked->moment.life, parked->moment.value);
            sim->my = before;
        } else {
            network->parked[kept++] = *parked;
        }
    }
    if (!cut) {
        network->parked_count = kept;
    }
}
