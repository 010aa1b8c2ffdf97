#include "replication/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHUNK = 65536, COMPLAINT_LIMIT = 4096, EXTRA_FD = 3 };

/* The read ends of the child's output; -1 when at end. */
struct child {
    pid_t pid;
    int output, complaint;
    struct strbuf complaints;
};

static bool add_redirections(posix_spawn_file_actions_t *actions, const struct child_plan *plan, int output,
                             int complaint)
{
    int status = plan->input >= 0
                     ? posix_spawn_file_actions_adddup2(actions, plan->input, STDIN_FILENO)
                     : posix_spawn_file_actions_addopen(actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    status |= posix_spawn_file_actions_adddup2(actions, output, STDOUT_FILENO);
    status |= posix_spawn_file_actions_adddup2(actions, complaint, STDERR_FILENO);
    if (plan->extra >= 0) {
        status |= posix_spawn_file_actions_adddup2(actions, plan->extra, EXTRA_FD);
    }
    return status == 0;
}

/* The task's thread blocks all signals; the child must not. */
static bool set_signals(posix_spawnattr_t *attributes)
{
    sigset_t none;
    sigset_t all;
    sigemptyset(&none);
    sigfillset(&all);
    sigdelset(&all, SIGKILL);
    sigdelset(&all, SIGSTOP);
    int status = posix_spawnattr_setsigmask(attributes, &none);
    status |= posix_spawnattr_setsigdefault(attributes, &all);
    status |= posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    return status == 0;
}

static int spawn(struct child *child, const struct child_plan *plan, int output, int complaint)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    if (posix_spawn_file_actions_init(&actions) != 0) {
        return ENOMEM;
    }
    if (posix_spawnattr_init(&attributes) != 0) {
        (void)posix_spawn_file_actions_destroy(&actions);
        return ENOMEM;
    }
    int status = ENOMEM;
    if (add_redirections(&actions, plan, output, complaint) && set_signals(&attributes)) {
        status = posix_spawn(&child->pid, plan->arguments[0], &actions, &attributes, plan->arguments,
                             plan->environment);
    }
    (void)posix_spawnattr_destroy(&attributes);
    (void)posix_spawn_file_actions_destroy(&actions);
    return status;
}

static void close_end(int *fd)
{
    if (*fd >= 0) {
        (void)close(*fd);
        *fd = -1;
    }
}

static bool start(struct child *child, const struct child_plan *plan, struct error *error)
{
    int output[2] = {-1, -1};
    int complaint[2] = {-1, -1};
    int status = 0;
    if ((plan->output < 0 && pipe2(output, O_CLOEXEC) != 0) || pipe2(complaint, O_CLOEXEC) != 0) {
        status = errno;
    } else {
        status = spawn(child, plan, plan->output < 0 ? output[1] : plan->output, complaint[1]);
    }
    child->output = output[0];
    child->complaint = complaint[0];
    close_end(&output[1]);
    close_end(&complaint[1]);
    if (status != 0) {
        close_end(&child->output);
        close_end(&child->complaint);
        return error_set(error, ERROR_SYSTEM, "can't run %s: %s", plan->arguments[0], strerror(status));
    }
    return true;
}

/* What it said, without the newline at its end. */
static const char *complaint_of(struct child *child)
{
    struct strbuf *text = &child->complaints;
    while (text->length > 0 && text->data[text->length - 1] == '\n') {
        text->data[--text->length] = '\0';
    }
    return strbuf_text(text);
}

/* Moves what is there into the buffer (NULL: drops it); closes the end when the child has. */
static void drain(int *fd, struct strbuf *into)
{
    char chunk[CHUNK];
    ssize_t length = read(*fd, chunk, sizeof chunk);
    if (length > 0 && into != NULL) {
        strbuf_append(into, chunk, (size_t)length);
    } else if (length == 0 || (length < 0 && errno != EINTR && errno != EAGAIN)) {
        close_end(fd);
    }
}

/* Until both ends are closed. False if the task must stop. */
static bool collect(struct task *task, struct child *child, const struct child_plan *plan)
{
    while (child->output >= 0 || child->complaint >= 0) {
        struct pollfd ready[] = {
            {.fd = child->output, .events = POLLIN},
            {.fd = child->complaint, .events = POLLIN},
            {.fd = task_wake_fd(task), .events = POLLIN},
        };
        if (poll(ready, ARRAY_LENGTH(ready), -1) < 0) {
            continue;
        }
        if (task_stopping(task)) {
            return false;
        }
        if (ready[0].revents != 0) {
            drain(&child->output, plan->captured);
        }
        if (ready[1].revents != 0) {
            drain(&child->complaint, &child->complaints);
        }
    }
    return true;
}

static int reap(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return status;
}

bool child_run(struct task *task, const struct child_plan *plan, struct error *error)
{
    struct child child = {.output = -1, .complaint = -1};
    strbuf_init(&child.complaints, COMPLAINT_LIMIT);
    if (!start(&child, plan, error)) {
        return false;
    }
    bool whole = collect(task, &child, plan);
    if (!whole) {
        (void)kill(child.pid, SIGKILL);
    }
    close_end(&child.output);
    close_end(&child.complaint);
    int status = reap(child.pid);
    bool ok = false;
    if (!whole) {
        ok = task_aborted(error);
    } else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        ok = error_set(error, ERROR_COMMAND_FAILED, "%s failed (%s %d): %s", plan->arguments[0],
                       WIFEXITED(status) ? "status" : "signal",
                       WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status), complaint_of(&child));
    } else if (plan->captured != NULL && plan->captured->failed) {
        ok = error_set(error, ERROR_MEMORY, "%s wrote too much", plan->arguments[0]);
    } else {
        ok = true;
    }
    strbuf_deinit(&child.complaints);
    return ok;
}
