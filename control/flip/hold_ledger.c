#include "control/flip/hold_ledger.h"

#include <stdio.h>

void hold_take(struct hold_ledger *ledger, enum hold_owner owner, int64_t now_us, int64_t deadline_us,
               bool refuse, const char *reason)
{
    struct hold *hold = &ledger->holds[owner];
    if (!hold->stands) {
        hold->since_us = now_us;
    }
    hold->stands = true;
    hold->deadline_us = deadline_us;
    hold->refuse = refuse;
    (void)snprintf(hold->reason, sizeof hold->reason, "%s", reason);
}

bool hold_drop(struct hold_ledger *ledger, enum hold_owner owner)
{
    const bool stood = ledger->holds[owner].stands;
    ledger->holds[owner] = (struct hold){0};
    return stood;
}

bool hold_expire(struct hold_ledger *ledger, int64_t now_us)
{
    bool expired = false;
    for (int i = 0; i < HOLD_OWNER_COUNT; i++) {
        if (ledger->holds[i].stands && ledger->holds[i].deadline_us <= now_us) {
            expired |= hold_drop(ledger, (enum hold_owner)i);
        }
    }
    return expired;
}

struct hold_gate hold_gate(const struct hold_ledger *ledger)
{
    struct hold_gate gate = {0};
    for (int i = 0; i < HOLD_OWNER_COUNT; i++) {
        const struct hold *hold = &ledger->holds[i];
        if (!hold->stands) {
            continue;
        }
        /* Behind a fence nobody may go on where they were, whoever else holds. */
        const bool decides = hold->refuse ? !gate.refuse || hold->deadline_us > gate.deadline_us
                                          : !gate.refuse && hold->deadline_us > gate.deadline_us;
        if (!gate.closed || decides) {
            gate =
                (struct hold_gate){.closed = true, .refuse = hold->refuse, .deadline_us = hold->deadline_us};
        }
    }
    return gate;
}

int64_t hold_next_us(const struct hold_ledger *ledger)
{
    int64_t next = INT64_MAX;
    for (int i = 0; i < HOLD_OWNER_COUNT; i++) {
        if (ledger->holds[i].stands && ledger->holds[i].deadline_us < next) {
            next = ledger->holds[i].deadline_us;
        }
    }
    return next;
}
