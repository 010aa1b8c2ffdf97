#include "conf/base/ensure.h"

#include <stdio.h>
#include <stdlib.h>

_Noreturn void ensure_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "switchback: broken invariant: %s (%s:%d)\n", condition, file, line);
    abort();
}
