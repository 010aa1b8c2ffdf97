/* The addresses that a rule speaks of: a network, the machine's own, or all. */
#ifndef SWITCHBACK_CONF_HBA_ADDRESS_H
#define SWITCHBACK_CONF_HBA_ADDRESS_H

#include "conf/base/compiler.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

enum hba_address_kind { HBA_ADDRESS_ALL, HBA_ADDRESS_SAMEHOST, HBA_ADDRESS_SAMENET, HBA_ADDRESS_NETWORK };

struct hba_address {
    enum hba_address_kind kind;
    int family; /* AF_INET, AF_INET6 */
    uint8_t bytes[16], mask[16];
};

/* "10.0.0.0/8", or an address whose mask stands in a field of its own (*needs_mask). False: neither. */
MUST_USE bool hba_address_parse(const char *text, struct hba_address *address, bool *needs_mask);
MUST_USE bool hba_address_parse_mask(const char *text, struct hba_address *address);

bool hba_address_holds(const struct hba_address *address, const struct sockaddr *client);

#endif
