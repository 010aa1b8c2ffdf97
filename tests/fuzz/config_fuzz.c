/* libFuzzer: a configuration file. What loads prints, and doesn't differ from itself. */
#include "conf/base/ensure.h"
#include "conf/settings/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void judge(const struct settings *settings)
{
    struct settings_list changed = {0}, restart = {0};
    struct error error;
    error_clear(&error);
    char *printed = settings_print(settings, &error);
    ENSURE(printed != NULL && printed[0] != '\0');
    free(printed);
    ENSURE(settings_compare(settings, settings, &changed, &restart, &error));
    ENSURE(changed.count == 0 && restart.count == 0);
    settings_list_deinit(&changed);
    settings_list_deinit(&restart);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[32];
    struct error error;
    int file = memfd_create("switchback.yaml", MFD_CLOEXEC);
    ENSURE(file >= 0 && write(file, data, size) == (ssize_t)size);
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    error_clear(&error);
    struct settings *settings = settings_load(path, &error);
    if (settings != NULL) {
        judge(settings);
    } else {
        ENSURE(error.message[0] != '\0');
    }
    settings_free(settings);
    (void)close(file);
    return 0;
}
