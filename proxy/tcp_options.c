#include "proxy/tcp_options.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

enum { US_A_SECOND = 1000000, US_A_MS = 1000 };

/* Options are a help, not a condition: a socket without them works. */
static void set(int socket, int level, int name, int64_t value)
{
    int number = (int)value;
    (void)setsockopt(socket, level, name, &number, sizeof(number));
}

/* The kernel counts whole seconds, and takes no 0. */
static int64_t seconds(int64_t us)
{
    return us < US_A_SECOND ? 1 : us / US_A_SECOND;
}

void tcp_options_apply(int socket, const struct settings_tcp *options)
{
    set(socket, IPPROTO_TCP, TCP_NODELAY, 1);
    if (options->keepalives_idle_us > 0) {
        set(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
        set(socket, IPPROTO_TCP, TCP_KEEPIDLE, seconds(options->keepalives_idle_us));
        set(socket, IPPROTO_TCP, TCP_KEEPINTVL, seconds(options->keepalives_interval_us));
        set(socket, IPPROTO_TCP, TCP_KEEPCNT, options->keepalives_count);
    }
    if (options->user_timeout_us > 0) {
        set(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, options->user_timeout_us / US_A_MS);
    }
}
