#include "control/daemon/command_environment.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A list of what passes, not of what doesn't: a secret can have any name. */
static const char *const inherited[] = {"PATH", "HOME",   "USER", "LOGNAME", "SHELL",
                                        "LANG", "LC_ALL", "TZ",   "TMPDIR"};

enum { TOLD = 6 };

static bool add(char **variables, size_t *count, const char *name, const char *value)
{
    if (value == NULL) {
        return true;
    }
    if (asprintf(&variables[*count], "%s=%s", name, value) < 0) {
        variables[*count] = NULL;
        return false;
    }
    (*count)++;
    return true;
}

char **command_environment_new(const struct command_environment *environment)
{
    size_t count = 0;
    bool ok = true;
    char flip[32];
    char **variables = calloc(ARRAY_LENGTH(inherited) + TOLD + 1, sizeof(*variables));
    if (variables == NULL) {
        return NULL;
    }
    for (size_t i = 0; ok && i < ARRAY_LENGTH(inherited); i++) {
        ok = add(variables, &count, inherited[i], getenv(inherited[i]));
    }
    (void)snprintf(flip, sizeof(flip), "%" PRIu64, environment->flip);
    ok = ok && add(variables, &count, "SWITCHBACK_FLIP", environment->flip == 0 ? NULL : flip) &&
         add(variables, &count, "SWITCHBACK_FROM", environment->from) &&
         add(variables, &count, "SWITCHBACK_TO", environment->to) &&
         add(variables, &count, "SWITCHBACK_PHASE", environment->phase) &&
         add(variables, &count, "SWITCHBACK_EVENT", environment->event) &&
         add(variables, &count, "SWITCHBACK_MESSAGE", environment->message);
    if (!ok) {
        command_environment_free(variables);
        return NULL;
    }
    return variables;
}

void command_environment_free(char **variables)
{
    if (variables != NULL) {
        for (char **variable = variables; *variable != NULL; variable++) {
            free(*variable);
        }
        free((void *)variables);
    }
}
