#include "control/cli/progress.h"

#include "conf/base/clock.h"
#include "control/cli/field.h"
#include "control/cli/render.h"
#include "control/cli/terminal.h"

#include <string.h>

enum { LINE_LIMIT = 4096 };

static const int64_t redraw_us = 200000;
static const int64_t plain_line_us = 5000000; /* at most one so often while only figures change */

void progress_init(struct progress *progress, const struct invocation *invocation)
{
    *progress = (struct progress){.invocation = invocation, .begun_us = clock_mono_us()};
}

void progress_deinit(struct progress *progress)
{
    json_decref(progress->last);
    progress->last = NULL;
}

static void draw(struct progress *progress)
{
    FILE *stream = progress->invocation->cli->err;
    struct strbuf line;
    strbuf_init(&line, LINE_LIMIT);
    render_progress(&line, progress->invocation->verb->name, progress->last,
                    clock_mono_us() - progress->begun_us);
    const char *text = strbuf_text(&line);
    (void)fprintf(stream, "\r\033[K%.*s",
                  (int)terminal_fit(text, line.length, terminal_size(stream).columns - 1), text);
    (void)fflush(stream);
    strbuf_deinit(&line);
    progress->drawn = true;
}

/* What makes a plain line worth printing. */
static void name_step(const json_t *params, char step[PROGRESS_STEP_SIZE])
{
    (void)snprintf(step, PROGRESS_STEP_SIZE, "%s%s %s", field_string(params, "phase"),
                   field_string(params, "step"), field_string(params, "message"));
}

static void print_plain(struct progress *progress)
{
    char step[PROGRESS_STEP_SIZE];
    name_step(progress->last, step);
    int64_t now_us = clock_mono_us();
    if (strcmp(step, progress->step) == 0 && now_us - progress->printed_us < plain_line_us) {
        return;
    }
    memcpy(progress->step, step, sizeof step);
    progress->printed_us = now_us;
    struct strbuf line;
    strbuf_init(&line, LINE_LIMIT);
    render_progress(&line, progress->invocation->verb->name, progress->last, now_us - progress->begun_us);
    (void)fprintf(progress->invocation->cli->err, "%s\n", strbuf_text(&line));
    strbuf_deinit(&line);
}

static void notice(void *context, const char *method, const json_t *params)
{
    struct progress *progress = context;
    if (strcmp(method, "progress") != 0 || !json_is_object(params)) {
        return;
    }
    json_decref(progress->last);
    progress->last = json_deep_copy(params);
    if (progress->invocation->json || progress->last == NULL) {
        return;
    }
    if (progress->invocation->cli->err_terminal) {
        draw(progress);
    } else {
        print_plain(progress);
    }
}

static void tick(void *context)
{
    struct progress *progress = context;
    if (!progress->invocation->json && progress->invocation->cli->err_terminal) {
        draw(progress);
    }
}

void progress_attach(struct progress *progress, struct client_wait *wait)
{
    wait->context = progress;
    wait->notice = notice;
    wait->tick = tick;
    wait->tick_us = redraw_us;
}

void progress_end(struct progress *progress)
{
    if (progress->drawn) {
        (void)fputs("\r\033[K", progress->invocation->cli->err);
        (void)fflush(progress->invocation->cli->err);
        progress->drawn = false;
    }
}

uint64_t progress_flip(const struct progress *progress)
{
    json_int_t flip = field_integer(progress->last, "flip");
    return flip > 0 ? (uint64_t)flip : 0;
}

const char *progress_phase(const struct progress *progress)
{
    return field_string(progress->last, "phase");
}
