#include "proxy/wire/proxied.h"

enum {
    SIGNATURE_SIZE = 12,
    FIXED_SIZE = 16, /* signature, version and command, family and transport, length */
    VERSION_2 = 0x20,
    COMMAND_LOCAL = 0x0,
    COMMAND_PROXY = 0x1,
    STREAM = 0x1,
    FAMILY_UNSPECIFIED = 0x0,
    FAMILY_V4 = 0x1,
    FAMILY_V6 = 0x2,
    FAMILY_UNIX = 0x3,
    V4_SIZE = 12, /* two addresses, two ports */
    V6_SIZE = 36,
    UNIX_SIZE = 216
};

static const uint8_t signature[SIGNATURE_SIZE] = {'\r', '\n', '\r', '\n', 0,   '\r',
                                                  '\n', 'Q',  'U',  'I',  'T', '\n'};

/* The bytes of addresses that a family has; -1: it isn't one. */
static int size_of_addresses(uint8_t family)
{
    switch (family) {
    case FAMILY_UNSPECIFIED:
        return 0;
    case FAMILY_V4:
        return V4_SIZE;
    case FAMILY_V6:
        return V6_SIZE;
    case FAMILY_UNIX:
        return UNIX_SIZE;
    default:
        return -1;
    }
}

static void take_source(const uint8_t *addresses, size_t size, enum proxied_kind kind,
                        struct proxied *proxied)
{
    const uint8_t *port = addresses + 2 * size;
    proxied->kind = kind;
    memcpy(proxied->address, addresses, size);
    proxied->port = (uint16_t)(port[0] << 8 | port[1]);
}

enum wire_answer proxied_parse(struct slice bytes, struct proxied *proxied, size_t *size)
{
    size_t known = bytes.length < SIGNATURE_SIZE ? bytes.length : SIGNATURE_SIZE;
    *proxied = (struct proxied){.kind = PROXIED_ITSELF};
    if (known > 0 && memcmp(bytes.data, signature, known) != 0) {
        return WIRE_BAD;
    }
    if (bytes.length < FIXED_SIZE) {
        return WIRE_PARTIAL;
    }
    uint8_t command = bytes.data[12] & 0x0f, family = bytes.data[13] >> 4, transport = bytes.data[13] & 0x0f;
    size_t length = (size_t)bytes.data[14] << 8 | bytes.data[15];
    if ((bytes.data[12] & 0xf0) != VERSION_2 || command > COMMAND_PROXY) {
        return WIRE_BAD;
    }
    *size = FIXED_SIZE + length;
    if (command == COMMAND_LOCAL) {
        return WIRE_OK; /* whatever the rest says */
    }
    int addresses = size_of_addresses(family);
    bool unspecified = family == FAMILY_UNSPECIFIED;
    if (addresses < 0 || (transport != STREAM && !unspecified) || length < (size_t)addresses) {
        return WIRE_BAD;
    }
    if (bytes.length < FIXED_SIZE + (size_t)addresses) {
        return WIRE_PARTIAL;
    }
    if (family == FAMILY_V4) {
        take_source(bytes.data + FIXED_SIZE, 4, PROXIED_V4, proxied);
    } else if (family == FAMILY_V6) {
        take_source(bytes.data + FIXED_SIZE, 16, PROXIED_V6, proxied);
    }
    return WIRE_OK;
}
