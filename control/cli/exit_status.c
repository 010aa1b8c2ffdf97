#include "control/cli/exit_status.h"

#include <string.h>

enum exit_status exit_status_of_error(enum error_code code)
{
    switch (code) {
    case ERROR_NONE:
        return EXIT_DONE;
    case ERROR_USAGE:
    case ERROR_CONFIG:
        return EXIT_USAGE;
    case ERROR_UNDECIDED:
        return EXIT_INCONCLUSIVE;
    case ERROR_DAEMON_UNREACHABLE:
        return EXIT_UNREACHABLE;
    default:
        return EXIT_REFUSED;
    }
}

enum exit_status exit_status_of_result(const char *result)
{
    static const struct {
        const char *result;
        enum exit_status status;
    } rows[] = {
        {"done", EXIT_DONE},
        {"started", EXIT_DONE},
        {"refused", EXIT_REFUSED},
        {"aborted", EXIT_REFUSED},
        {"aborting", EXIT_DONE}, /* of the verb abort: the undo has begun */
        {"flipped_back", EXIT_FLIPPED_BACK},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (strcmp(rows[i].result, result) == 0) {
            return rows[i].status;
        }
    }
    return EXIT_INCONCLUSIVE;
}
