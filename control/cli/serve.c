/* `switchback serve`: checks or prints the configuration, or hands over to the daemon. */
#include "control/cli/verbs.h"

#include "conf/settings/settings.h"
#include "control/daemon/serve.h"

#include <stdlib.h>

static const char default_config[] = "/etc/switchback/switchback.yaml";

static int check_config(const struct invocation *invocation, const char *path, bool print)
{
    struct error error;
    struct settings *settings = settings_load(path, &error);
    bool usable = settings != NULL && (print || serve_check(settings, &error));
    char *text = usable ? settings_print(settings, &error) : NULL;
    int status = EXIT_DONE;
    if (text == NULL) {
        status = cli_fail(invocation->cli, invocation->json, &error);
    } else if (invocation->json) {
        json_t *document = json_pack("{s:b, s:s, s:s*}", "ok", 1, "path", settings->path, "configuration",
                                     print ? text : NULL);
        cli_print_line(invocation, document);
        json_decref(document);
    } else if (print) {
        (void)fputs(text, invocation->cli->out);
    } else {
        (void)fprintf(invocation->cli->out, "%s: good\n", path);
    }
    free(text);
    settings_free(settings);
    return status;
}

int verb_serve(const struct invocation *invocation)
{
    const char *given = arguments_value(invocation, "config");
    const char *path = given == NULL ? default_config : given;
    bool print = arguments_value(invocation, "print-config") != NULL;
    if (print || arguments_value(invocation, "check-config") != NULL) {
        return check_config(invocation, path, print);
    }
    return invocation->cli->serve(path);
}
