#include "conf/hba/address.h"

#include "conf/base/network.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

enum { V4_BYTES = 4, V6_BYTES = 16 };

static size_t size_of(int family)
{
    return family == AF_INET ? V4_BYTES : V6_BYTES;
}

bool hba_address_parse(const char *text, struct hba_address *address, bool *needs_mask)
{
    char host[INET6_ADDRSTRLEN];
    size_t length = strcspn(text, "/");
    *address = (struct hba_address){.kind = HBA_ADDRESS_NETWORK};
    *needs_mask = text[length] == '\0';
    if (length >= sizeof host) {
        return false;
    }
    memcpy(host, text, length);
    host[length] = '\0';
    if (!network_parse_address(host, &address->family, address->bytes)) {
        return false;
    }
    if (*needs_mask) {
        return true;
    }
    const char *digits = text + length + 1;
    char *end = NULL;
    if (digits[0] < '0' || digits[0] > '9') {
        return false;
    }
    unsigned long bits = strtoul(digits, &end, 10);
    if (*end != '\0' || bits > 8 * size_of(address->family)) {
        return false;
    }
    for (unsigned long bit = 0; bit < bits; bit++) {
        address->mask[bit / 8] = (uint8_t)(address->mask[bit / 8] | 0x80U >> bit % 8);
    }
    return true;
}

bool hba_address_parse_mask(const char *text, struct hba_address *address)
{
    int family = AF_UNSPEC;
    return network_parse_address(text, &family, address->mask) && family == address->family;
}

static bool same_network(const uint8_t *a, const uint8_t *b, const uint8_t *mask, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (((a[i] ^ b[i]) & mask[i]) != 0) {
            return false;
        }
    }
    return true;
}

/* An address of this machine, or (subnet) of a network that it is in. */
static bool is_own(const uint8_t *bytes, int family, bool subnet)
{
    struct ifaddrs *interfaces = NULL;
    bool own = false;
    if (getifaddrs(&interfaces) != 0) {
        return false;
    }
    for (const struct ifaddrs *one = interfaces; one != NULL && !own; one = one->ifa_next) {
        int own_family = AF_UNSPEC, mask_family = AF_UNSPEC;
        const uint8_t *address = network_bytes(one->ifa_addr, &own_family);
        const uint8_t *mask = network_bytes(one->ifa_netmask, &mask_family);
        if (address == NULL || own_family != family) {
            continue;
        }
        own = subnet && mask != NULL ? same_network(address, bytes, mask, size_of(family))
                                     : memcmp(address, bytes, size_of(family)) == 0;
    }
    freeifaddrs(interfaces);
    return own;
}

bool hba_address_holds(const struct hba_address *address, const struct sockaddr *client)
{
    int family = AF_UNSPEC;
    const uint8_t *bytes = network_bytes(client, &family);
    if (bytes == NULL) {
        return false;
    }
    switch (address->kind) {
    case HBA_ADDRESS_ALL:
        return true;
    case HBA_ADDRESS_SAMEHOST:
        return is_own(bytes, family, false);
    case HBA_ADDRESS_SAMENET:
        return is_own(bytes, family, true);
    case HBA_ADDRESS_NETWORK:
        break;
    }
    return family == address->family && same_network(address->bytes, bytes, address->mask, size_of(family));
}
