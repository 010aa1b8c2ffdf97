#include "control/flip/ports.h"

enum {
    SECOND_US = 1000000,
    CHECK_TIMEOUT_US = 120 * SECOND_US, /* the whole check list of a large schema */
    ARM_TIMEOUT_US = 30 * SECOND_US,    /* 1,000 links opened and filled, nobody waits */
};
static const int64_t approve_timeout_us = (int64_t)24 * 3600 * SECOND_US; /* people sleep */

void flip_options_from_settings(struct flip_options *options, const struct settings *settings)
{
    *options = (struct flip_options){
        .check_timeout_us = CHECK_TIMEOUT_US,
        .approve_timeout_us = approve_timeout_us,
        .backup_timeout_us = settings->backup_timeout_us,
        .hook_timeout_us = settings->hook_timeout_us,
        .arm_timeout_us = ARM_TIMEOUT_US,
        .drain_timeout_us = settings->drain_timeout_us,
        .drain_grace_us = settings->drain_grace_us,
        .catchup_timeout_us = settings->catchup_timeout_us,
        .max_hold_us = settings->max_hold_us,
        .watch_duration_us = settings->watch_duration_us,
        .lossless = settings->lossless,
        .lossless_max_wait_us = settings->lossless_max_wait_us,
        .dead_after_us = settings->dead_after_us,
        .drain_on_timeout = settings->drain_on_timeout,
        .immovable = settings->immovable,
        .watch_flip_back = settings->watch_flip_back,
        .has_backup = settings->backup_command.count > 0,
        .has_backup_verify = settings->backup_verify_command.count > 0,
        .has_hook_before = settings->hook_before_cutover.count > 0,
        .has_hook_after = settings->hook_after_cutover.count > 0,
        .has_hook_on_flip_back = settings->hook_on_flip_back.count > 0,
    };
}
