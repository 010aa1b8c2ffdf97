/*
 * The daemon as a service of systemd, without its library: tells it what is going on (sd_notify(3): a
 * datagram to $NOTIFY_SOCKET), and takes the sockets that it listens on for us (sd_listen_fds(3)). Without
 * systemd nothing of it does anything. Used by serve.c only.
 */
#ifndef SWITCHBACK_CONTROL_DAEMON_SERVICE_H
#define SWITCHBACK_CONTROL_DAEMON_SERVICE_H

#include "conf/base/error.h"
#include "proxy/proxy.h"

#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { SERVICE_STATUS_SIZE = 384 };

struct service {
    int socket; /* -1: nobody wants to be told */
    struct sockaddr_un address;
    socklen_t address_length;
    int64_t watchdog_us;              /* it wants to hear from us within this; 0: it doesn't */
    char status[SERVICE_STATUS_SIZE]; /* what it was told last */
};

/*
 * Reads what systemd left in the environment, and removes it, so that no hook takes it for its own. False
 * with *error: a socket that was passed is of no use.
 */
MUST_USE bool service_open(struct service *service, struct proxy_sockets *sockets, struct error *error);
void service_close(struct service *service);

void service_ready(const struct service *service);
void service_reloading(const struct service *service);
/* It may take that long before everybody is gone. */
void service_stopping(const struct service *service, int64_t within_us);
void service_alive(const struct service *service);
/* One line for `systemctl status`; the same again isn't sent. */
void service_status(struct service *service, const char *status);

#endif
