/*
 * The methods of the control socket that aren't the controller's: version, events, subscribe, audit,
 * journal, reload.
 * Parameters and results are those of control/cli/contract.md. Used by serve.c.
 */
#ifndef SWITCHBACK_CONTROL_DAEMON_METHODS_H
#define SWITCHBACK_CONTROL_DAEMON_METHODS_H

#include "conf/base/error.h"
#include "conf/settings/settings.h"
#include "control/daemon/audit.h"
#include "control/daemon/events.h"
#include "control/daemon/journal.h"
#include "control/daemon/rpc.h"

#include <stdint.h>

/* What a reload came to: it was applied if nothing needs a restart. Both lists are owned by the caller. */
struct reload_result {
    bool applied;
    struct settings_list changed, restart;
};

struct methods {
    struct events *events;
    struct audit *audit;
    struct journal *journal;
    int64_t started_us;      /* wall clock */
    int64_t denied_since_us; /* monotonic: the minute in which denied calls are counted */
    uint64_t denied;
    MUST_USE bool (*reload)(void *context, struct reload_result *result, struct error *error);
    void *context;
};

/* methods must outlive the server. */
void methods_register(struct rpc *rpc, struct methods *methods);

/*
 * The audit row of a call that may change something, or was denied: for rpc_config.called. Of denied calls at
 * most METHODS_DENIED_A_MINUTE are written, so that nobody without a role can fill the disk; the rest is
 * counted.
 */
enum { METHODS_DENIED_A_MINUTE = 30 };
void methods_audit_call(struct methods *methods, const struct rpc_peer *peer, const char *method,
                        const json_t *params, bool allowed);

#endif
