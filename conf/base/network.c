#include "conf/base/network.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

enum { V4_BITS = 32, V6_BITS = 128, MAPPED_AT = 12 };

static bool parse_bits(const char *text, unsigned most, unsigned *bits)
{
    char *end = NULL;
    if (text[0] < '0' || text[0] > '9') {
        return false;
    }
    unsigned long number = strtoul(text, &end, 10);
    *bits = (unsigned)number;
    return *end == '\0' && number <= most;
}

static bool bit_is_set(const uint8_t *address, unsigned bit)
{
    return (address[bit / 8] >> (7 - bit % 8) & 1) != 0;
}

bool network_parse_address(const char *text, int *family, uint8_t bytes[16])
{
    if (inet_pton(AF_INET, text, bytes) == 1) {
        *family = AF_INET;
    } else if (inet_pton(AF_INET6, text, bytes) == 1) {
        *family = AF_INET6;
    } else {
        return false;
    }
    return true;
}

bool network_parse(const char *text, struct network *network)
{
    char host[INET6_ADDRSTRLEN];
    size_t length = strcspn(text, "/");
    *network = (struct network){.family = AF_UNSPEC};
    if (length >= sizeof(host)) {
        return false;
    }
    memcpy(host, text, length);
    host[length] = '\0';
    if (!network_parse_address(host, &network->family, network->address)) {
        return false;
    }
    unsigned most = network->family == AF_INET ? V4_BITS : V6_BITS;
    network->bits = most;
    if (text[length] == '/' && !parse_bits(text + length + 1, most, &network->bits)) {
        return false;
    }
    for (unsigned bit = network->bits; bit < most; bit++) {
        if (bit_is_set(network->address, bit)) {
            return false;
        }
    }
    return true;
}

const uint8_t *network_bytes(const struct sockaddr *address, int *family)
{
    if (address == NULL) {
        return NULL;
    }
    *family = address->sa_family;
    if (address->sa_family == AF_INET) {
        return (const uint8_t *)&((const struct sockaddr_in *)(const void *)address)->sin_addr;
    }
    if (address->sa_family != AF_INET6) {
        return NULL;
    }
    const struct in6_addr *v6 = &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr;
    if (!IN6_IS_ADDR_V4MAPPED(v6)) {
        return v6->s6_addr;
    }
    *family = AF_INET;
    return v6->s6_addr + MAPPED_AT;
}

bool network_is_address(const char *text)
{
    int family = AF_UNSPEC;
    uint8_t bytes[16];
    return network_parse_address(text, &family, bytes);
}

bool network_contains(const struct network *network, const struct sockaddr *address)
{
    int family = AF_UNSPEC;
    const uint8_t *bytes = network_bytes(address, &family);
    if (bytes == NULL || family != network->family) {
        return false;
    }
    for (unsigned bit = 0; bit < network->bits; bit++) {
        if (bit_is_set(bytes, bit) != bit_is_set(network->address, bit)) {
            return false;
        }
    }
    return true;
}
