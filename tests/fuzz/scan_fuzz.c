/* libFuzzer: a text gives the same names and hints however it is split, and none if a glance finds it dull.
 * The first byte says where to split. */
#include "conf/base/ensure.h"
#include "proxy/wire/glance.h"
#include "proxy/wire/scan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Order and number of the names count, too. */
static void found(void *context, const char *name)
{
    uint64_t *digest = context;
    size_t length = strlen(name);
    ENSURE(length > 0 && length < SCAN_NAME_SIZE);
    for (size_t i = 0; i <= length; i++) {
        *digest = (*digest ^ (uint8_t)name[i]) * UINT64_C(1099511628211);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t digests[2] = {0, 0};
    struct scan scan;
    if (size < 1) {
        return 0;
    }
    size_t split = data[0] < size ? data[0] : size - 1;
    struct slice text = slice_of(data + 1, size - 1);
    scan_begin(&scan, found, &digests[0]);
    scan_text(&scan, text);
    uint32_t flags = scan_end(&scan);
    ENSURE(!glance_is_dull(text) || (flags == 0 && digests[0] == 0));
    scan_begin(&scan, found, &digests[1]);
    scan_text(&scan, slice_of(text.data, split));
    scan_text(&scan, slice_of(text.data + split, text.length - split));
    ENSURE(scan_end(&scan) == flags);
    ENSURE(digests[0] == digests[1]);
    char name[SCAN_NAME_SIZE];
    (void)scan_is_custom_name(text, name);
    return 0;
}
