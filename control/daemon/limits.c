#include "control/daemon/limits.h"

#include "conf/base/log.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>

enum {
    DESCRIPTORS_A_CLIENT = 3, /* itself, its server link, and in a flip the link to the other side */
    DESCRIPTORS_BESIDE = 512  /* listeners, manager connections, journal, control socket, hooks */
};

void limits_raise_descriptors(int64_t max_clients)
{
    struct rlimit limit;
    rlim_t wanted = (rlim_t)max_clients * DESCRIPTORS_A_CLIENT + DESCRIPTORS_BESIDE;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) {
        return;
    }
    rlim_t before = limit.rlim_max;
    limit.rlim_cur = wanted;
    limit.rlim_max = before < wanted ? wanted : before;
    if (setrlimit(RLIMIT_NOFILE, &limit) == 0) {
        return;
    }
    /* Only root may go beyond the hard limit. */
    limit.rlim_cur = limit.rlim_max = before;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
        LOG_WARN("descriptor_limit_stays", LOG_STR("error", strerror(errno)));
    }
    LOG_WARN("descriptor_limit", LOG_U64("limit", before), LOG_U64("wanted", wanted),
             LOG_I64("clients_in_a_flip", ((int64_t)before - DESCRIPTORS_BESIDE) / DESCRIPTORS_A_CLIENT),
             LOG_STR("remedy", "raise LimitNOFILE of the service, or lower listen.max_clients"));
}
