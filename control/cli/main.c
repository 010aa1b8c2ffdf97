/* The one program: `switchback VERB ...`. */
#include "control/cli/cli.h"
#include "control/daemon/serve.h"

#include <unistd.h>

int main(int argc, char **argv)
{
    const struct cli cli = {.out = stdout,
                            .err = stderr,
                            .out_terminal = isatty(STDOUT_FILENO) == 1,
                            .err_terminal = isatty(STDERR_FILENO) == 1,
                            .serve = serve_run};
    return cli_run(&cli, argc, argv);
}
