/* libFuzzer: the packets without a type, and the answer to a newer minor version. */
#include "conf/base/ensure.h"
#include "proxy/wire/build.h"
#include "proxy/wire/startup.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct startup startup;
    size_t consumed = 0;
    if (startup_parse(slice_of(data, size), &startup, &consumed) == WIRE_OK) {
        ENSURE(consumed <= size);
        (void)startup_is_replication(&startup);
        uint8_t reply[STARTUP_PACKET_MAX * 2];
        struct build build;
        build_init(&build, reply, sizeof reply);
        build_negotiate(&build, startup.spoken, startup.parameters);
        ENSURE(build_fits(&build));
    }
    return 0;
}
