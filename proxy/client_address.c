#include "proxy/client_address.h"

#include <netdb.h>
#include <stdio.h>
#include <string.h>

void client_address_of_socket(union client_address *address, int socket, bool is_unix)
{
    struct sockaddr_storage peer = {.ss_family = AF_UNSPEC};
    socklen_t length = sizeof(peer);
    memset(address, 0, sizeof(*address));
    if (is_unix) {
        address->any.sa_family = AF_UNIX;
    } else if (getpeername(socket, (struct sockaddr *)&peer, &length) == 0 &&
               (peer.ss_family == AF_INET || peer.ss_family == AF_INET6)) {
        memcpy(address, &peer, sizeof(*address));
    }
}

void client_address_name(const union client_address *address, char name[PROXY_PEER_SIZE])
{
    char host[NI_MAXHOST], service[NI_MAXSERV];
    bool v6 = address->any.sa_family == AF_INET6;
    socklen_t length = v6 ? sizeof(address->v6) : sizeof(address->v4);
    name[0] = '\0';
    if (address->any.sa_family == AF_UNIX) {
        (void)snprintf(name, PROXY_PEER_SIZE, "[local]");
    } else if (address->any.sa_family != AF_UNSPEC &&
               getnameinfo(&address->any, length, host, sizeof(host), service, sizeof(service),
                           NI_NUMERICHOST | NI_NUMERICSERV) == 0) {
        (void)snprintf(name, PROXY_PEER_SIZE, "%s%.46s%s:%.5s", v6 ? "[" : "", host, v6 ? "]" : "", service);
    }
}
