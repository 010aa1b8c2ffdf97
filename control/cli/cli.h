/*
 * The command line: `switchback VERB ...`. main.c is the program; tests run it with streams of their own.
 */
#ifndef SWITCHBACK_CONTROL_CLI_CLI_H
#define SWITCHBACK_CONTROL_CLI_CLI_H

#include <stdbool.h>
#include <stdio.h>

struct cli {
    FILE *out, *err;
    bool out_terminal, err_terminal;       /* may be redrawn */
    int (*serve)(const char *config_path); /* the daemon: serve_run */
};

/* Runs one verb; returns the exit status (exit_status.h). */
int cli_run(const struct cli *cli, int argc, char *const *argv);

#endif
