#include "control/daemon/command.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "conf/base/strbuf.h"
#include "control/daemon/command_environment.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    KILL_AFTER_MS = 1000, /* from TERM to KILL */
    DRAIN_MS = 250        /* for output that something left behind could still write */
};

struct command {
    uv_process_t process;
    uv_pipe_t output;
    uv_timer_t timer;
    int open_handles;
    int64_t started_us, timeout_us;
    command_done done;
    void *context;

    struct command_result result;
    bool spawned; /* the process's handle is initialized */
    bool ended, output_ended, closing;
    char *name;

    char kept[COMMAND_OUTPUT_LIMIT]; /* a ring: byte n of the output stands at n % COMMAND_OUTPUT_LIMIT */
    size_t written;
    char read_buffer[4096];
};

/* --- result --- */

static void put_escaped(struct strbuf *text, unsigned char c)
{
    if (c == '\n' || c == '\t' || (c >= 0x20 && c != 0x7f)) {
        strbuf_append(text, &c, 1);
    } else if (c != '\r') {
        strbuf_printf(text, "\\x%02x", c);
    }
}

static void collect_output(const struct command *command, struct strbuf *text)
{
    size_t from = 0;
    strbuf_init(text, (size_t)COMMAND_OUTPUT_LIMIT * 4 + 16);
    if (command->written > COMMAND_OUTPUT_LIMIT) {
        from = command->written - COMMAND_OUTPUT_LIMIT;
        strbuf_puts(text, "[...]");
        /* Not in the middle of a character of UTF-8. */
        while (from < command->written && (command->kept[from % COMMAND_OUTPUT_LIMIT] & 0xc0) == 0x80) {
            from++;
        }
    }
    for (size_t i = from; i < command->written; i++) {
        put_escaped(text, (unsigned char)command->kept[i % COMMAND_OUTPUT_LIMIT]);
    }
}

static void put_words(struct command_result *result, int64_t timeout_us)
{
    char limit[CLOCK_TEXT_SIZE];
    if (result->timed_out) {
        (void)snprintf(result->words, sizeof(result->words), "did not end within %s and was stopped",
                       clock_format_duration(timeout_us, limit));
    } else if (result->signal != 0) {
        (void)snprintf(result->words, sizeof(result->words), "was ended by signal %d (%s)", result->signal,
                       strsignal(result->signal));
    } else {
        (void)snprintf(result->words, sizeof(result->words), "exited with %d", result->exit_status);
    }
}

static void on_closed(uv_handle_t *handle)
{
    struct command *command = handle->data;
    if (--command->open_handles > 0) {
        return;
    }
    struct strbuf output;
    collect_output(command, &output);
    command->result.output = strbuf_text(&output);
    if (command->result.started) {
        put_words(&command->result, command->timeout_us);
    }
    command->result.duration_us = clock_mono_us() - command->started_us;
    LOG_DEBUG("command_ended", LOG_STR("command", command->name), LOG_STR("how", command->result.words),
              LOG_MS("duration_ms", command->result.duration_us));
    command->done(command->context, &command->result);
    strbuf_deinit(&output);
    free(command->name);
    free(command);
}

static void close_handles(struct command *command)
{
    if (command->closing) {
        return;
    }
    command->closing = true;
    command->open_handles = 2;
    if (command->spawned) {
        command->open_handles++;
        uv_close((uv_handle_t *)&command->process, on_closed);
    }
    uv_close((uv_handle_t *)&command->output, on_closed);
    uv_close((uv_handle_t *)&command->timer, on_closed);
}

/* --- running --- */

static void signal_group(const struct command *command, int number)
{
    /* The group outlives its leader while anything is left in it. */
    (void)kill(-command->process.pid, number);
}

static void on_drained(uv_timer_t *timer)
{
    close_handles(timer->data);
}

static void finish_if_over(struct command *command)
{
    if (!command->ended || command->closing) {
        return;
    }
    if (command->output_ended) {
        close_handles(command);
    } else {
        uv_timer_start(&command->timer, on_drained, DRAIN_MS, 0);
    }
}

static void on_exit_of_leader(uv_process_t *process, int64_t exit_status, int number)
{
    struct command *command = process->data;
    command->ended = true;
    command->result.signal = number;
    command->result.exit_status = number == 0 ? (int)exit_status : -1;
    command->result.ok = number == 0 && exit_status == 0 && !command->result.timed_out;
    if (command->result.timed_out) {
        signal_group(command, SIGKILL); /* what it has started is over its time as well */
    }
    finish_if_over(command);
}

static void on_kill(uv_timer_t *timer)
{
    signal_group(timer->data, SIGKILL);
}

static void on_timeout(uv_timer_t *timer)
{
    struct command *command = timer->data;
    command->result.timed_out = true;
    signal_group(command, SIGTERM);
    uv_timer_start(timer, on_kill, KILL_AFTER_MS, 0);
}

void command_kill(struct command *command)
{
    if (command->result.started && !command->ended) {
        signal_group(command, SIGKILL);
    }
}

static void provide_room(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    (void)suggested;
    struct command *command = handle->data;
    *buffer = uv_buf_init(command->read_buffer, sizeof(command->read_buffer));
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer)
{
    struct command *command = stream->data;
    for (ssize_t i = 0; i < count; i++) {
        command->kept[command->written % COMMAND_OUTPUT_LIMIT] = buffer->base[i];
        command->written++;
    }
    if (count < 0) {
        command->output_ended = true;
        uv_read_stop(stream);
        finish_if_over(command);
    }
}

/* Spawns with both outputs on one pipe, so that their lines stay in order. 0 or libuv's error. */
static int spawn(struct command *command, char **argv, char **environment)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        return -errno;
    }
    uv_stdio_container_t streams[3] = {
        {.flags = UV_IGNORE},
        {.flags = UV_INHERIT_FD, .data.fd = ends[1]},
        {.flags = UV_INHERIT_FD, .data.fd = ends[1]},
    };
    uv_process_options_t options = {
        .exit_cb = on_exit_of_leader,
        .file = argv[0],
        .args = argv,
        .env = environment,
        .flags = UV_PROCESS_DETACHED, /* leads a group of its own */
        .stdio_count = 3,
        .stdio = streams,
    };
    int status = uv_spawn(command->output.loop, &command->process, &options);
    command->spawned = true;
    close(ends[1]);
    if (status != 0) {
        close(ends[0]);
        return status;
    }
    ENSURE(uv_pipe_open(&command->output, ends[0]) == 0);
    ENSURE(uv_read_start((uv_stream_t *)&command->output, provide_room, on_read) == 0);
    return 0;
}

static void start(struct command *command, char **argv, const struct command_environment *environment)
{
    char **variables = command_environment_new(environment);
    int status = variables == NULL ? UV_ENOMEM : spawn(command, argv, variables);
    command_environment_free(variables);
    if (status != 0) {
        (void)snprintf(command->result.words, sizeof(command->result.words), "%s could not be started: %s",
                       command->name, uv_strerror(status));
        close_handles(command);
        return;
    }
    command->result.started = true;
    uv_timer_start(&command->timer, on_timeout, (uint64_t)(command->timeout_us + 999) / 1000, 0);
}

struct command *command_run(uv_loop_t *loop, const struct settings_list *argv, int64_t timeout_us,
                            const struct command_environment *environment, command_done done, void *context)
{
    ENSURE(argv->count > 0);
    struct command *command = calloc(1, sizeof(*command));
    char **arguments = calloc(argv->count + 1, sizeof(*arguments));
    char *name = strdup(argv->items[0]);
    if (command == NULL || arguments == NULL || name == NULL) {
        free(command);
        free(arguments);
        free(name);
        return NULL;
    }
    memcpy(arguments, argv->items, argv->count * sizeof(*arguments));
    command->name = name;
    command->done = done;
    command->context = context;
    command->started_us = clock_mono_us();
    command->timeout_us = timeout_us;
    command->result.exit_status = -1;
    command->process.data = command;
    command->output.data = command;
    command->timer.data = command;
    ENSURE(uv_pipe_init(loop, &command->output, 0) == 0);
    ENSURE(uv_timer_init(loop, &command->timer) == 0);
    start(command, arguments, environment);
    free(arguments);
    return command;
}
