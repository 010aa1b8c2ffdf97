/* How a verb ends, for scripts and CI: the exit status of design.md section 3. */
#ifndef SWITCHBACK_CONTROL_CLI_EXIT_STATUS_H
#define SWITCHBACK_CONTROL_CLI_EXIT_STATUS_H

#include "conf/base/error.h"

enum exit_status {
    EXIT_DONE = 0,
    EXIT_REFUSED = 1,      /* or failed: traffic is where it was */
    EXIT_USAGE = 2,        /* bad usage or bad configuration */
    EXIT_FLIPPED_BACK = 3, /* the flip happened, then traffic was flipped back */
    EXIT_INCONCLUSIVE = 4, /* an operator must decide, or look: the message says what */
    EXIT_UNREACHABLE = 5   /* the daemon can't be reached */
};

enum exit_status exit_status_of_error(enum error_code code);

/* Of the `result` of a flip: "done", "refused" ...; a text that isn't known is inconclusive. */
enum exit_status exit_status_of_result(const char *result);

#endif
