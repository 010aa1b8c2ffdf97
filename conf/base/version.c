#include "conf/base/version.h"

#if defined(__clang__)
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED ", address sanitizer"
#elif defined(__SANITIZE_THREAD__)
#define SANITIZED ", thread sanitizer"
#else
#define SANITIZED ""
#endif

const char *version_number(void)
{
    return SWITCHBACK_VERSION;
}

const char *version_build(void)
{
    return COMPILER ", " SWITCHBACK_BUILD_TYPE SANITIZED;
}
