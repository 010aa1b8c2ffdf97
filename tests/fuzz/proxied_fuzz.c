/* libFuzzer: the header of a load balancer, whole and in pieces: the pieces must come to the same. */
#include "conf/base/ensure.h"
#include "proxy/wire/proxied.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct proxied whole, part;
    size_t whole_size = 0, part_size = 0;
    enum wire_answer answer = proxied_parse(slice_of(data, size), &whole, &whole_size);
    enum { LONGEST_BEGINNING = 240 };
    for (size_t have = 0; have < size && have < LONGEST_BEGINNING; have++) {
        switch (proxied_parse(slice_of(data, have), &part, &part_size)) {
        case WIRE_PARTIAL:
            break;
        case WIRE_BAD:
            ENSURE(answer == WIRE_BAD);
            return 0;
        case WIRE_OK:
            ENSURE(answer == WIRE_OK && part_size == whole_size && part.kind == whole.kind &&
                   part.port == whole.port && memcmp(part.address, whole.address, sizeof(part.address)) == 0);
            return 0;
        }
    }
    return 0;
}
