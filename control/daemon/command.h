/*
 * Runs what the configuration names: hooks, the backup, gates of kind `command`. Each in its own process
 * group, with a time limit for the whole group, a small environment without secrets, and its output kept up
 * to a bound. Used by the controller, on the loop's thread.
 */
#ifndef SWITCHBACK_CONTROL_DAEMON_COMMAND_H
#define SWITCHBACK_CONTROL_DAEMON_COMMAND_H

#include "conf/base/error.h"
#include "conf/settings/settings.h"

#include <stdint.h>
#include <uv.h>

struct command;

enum { COMMAND_OUTPUT_LIMIT = 8192, COMMAND_WORDS_SIZE = 192 };

/* Added to PATH, HOME, USER, LOGNAME, SHELL, LANG, LC_ALL, TZ and TMPDIR of the daemon: all that a command
 * gets. NULL and 0 are left out. */
struct command_environment {
    uint64_t flip;       /* SWITCHBACK_FLIP */
    const char *from;    /* SWITCHBACK_FROM: blue, green */
    const char *to;      /* SWITCHBACK_TO */
    const char *phase;   /* SWITCHBACK_PHASE */
    const char *event;   /* SWITCHBACK_EVENT: type of the event that `notify` tells about */
    const char *message; /* SWITCHBACK_MESSAGE */
};

struct command_result {
    bool ok;      /* ran and exited with 0 */
    bool started; /* false: could not be started (a gate counts that as its own error) */
    bool timed_out;
    int exit_status; /* -1 if it was ended by a signal */
    int signal;      /* 0: none */
    int64_t duration_us;
    char words[COMMAND_WORDS_SIZE]; /* "exited with 3", "did not end within 2 s and was killed" ... */
    const char *output;             /* stdout and stderr together, escaped; the end of it if there was more */
};

/* result is valid during the call. The command is freed after it. */
typedef void (*command_done)(void *context, const struct command_result *result);

/*
 * argv must have at least one item. Answers exactly once, never from inside the call, and always: what can't
 * be started is a result too. Returns NULL only if memory ran out, then done isn't called.
 */
MUST_USE struct command *command_run(uv_loop_t *loop, const struct settings_list *argv, int64_t timeout_us,
                                     const struct command_environment *environment, command_done done,
                                     void *context);
void command_kill(struct command *command); /* the whole group, at once; done is still called */

#endif
