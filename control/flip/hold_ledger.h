/*
 * Who holds the clients, why, and until when. The gate is open when nobody holds it: a flip and an operator
 * may hold at once, each for its own reason, and neither lets go of the other's. The proxy has one gate; the
 * ledger says what that gate must be. Pure; the controller keeps one and passes on what changes.
 */
#ifndef SWITCHBACK_CONTROL_FLIP_HOLD_LEDGER_H
#define SWITCHBACK_CONTROL_FLIP_HOLD_LEDGER_H

#include "conf/base/compiler.h"

#include <stdbool.h>
#include <stdint.h>

enum hold_owner { HOLD_OPERATOR, HOLD_FLIP, HOLD_OWNER_COUNT };

enum { HOLD_REASON_SIZE = 256 };

struct hold {
    bool stands;
    int64_t since_us, deadline_us; /* monotonic */
    bool refuse;                   /* at the deadline: 57P03 instead of going on */
    char reason[HOLD_REASON_SIZE];
};

struct hold_ledger {
    struct hold holds[HOLD_OWNER_COUNT];
};

/* What the gate must be: of all holds that stand, the last deadline. A hold that refuses decides alone. */
struct hold_gate {
    bool closed;
    bool refuse;
    int64_t deadline_us;
};

/* Takes a hold, or changes the one that this owner has. */
void hold_take(struct hold_ledger *ledger, enum hold_owner owner, int64_t now_us, int64_t deadline_us,
               bool refuse, const char *reason);
/* False if this owner holds nothing. */
bool hold_drop(struct hold_ledger *ledger, enum hold_owner owner);
/* Drops what is past its deadline; true if something was. */
bool hold_expire(struct hold_ledger *ledger, int64_t now_us);

struct hold_gate hold_gate(const struct hold_ledger *ledger);
/* The next deadline at which a hold ends; INT64_MAX if nobody holds. */
int64_t hold_next_us(const struct hold_ledger *ledger);

#endif
