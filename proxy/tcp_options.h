/* What a connected TCP socket is told: no delay, keepalive, and when what was sent must have been taken. */
#ifndef SWITCHBACK_PROXY_TCP_OPTIONS_H
#define SWITCHBACK_PROXY_TCP_OPTIONS_H

#include "conf/settings/settings.h"

void tcp_options_apply(int socket, const struct settings_tcp *options);

#endif
