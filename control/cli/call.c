/* The plain call of a verb, and what every verb prints with. */
#include "control/cli/verbs.h"

#include "conf/base/clock.h"
#include "conf/base/version.h"
#include "control/cli/client.h"
#include "control/cli/field.h"
#include "control/cli/interrupt.h"
#include "control/cli/progress.h"
#include "control/cli/render.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    TEXT_LIMIT = 64 * 1024 * 1024,
    FIGURES = 10 /* of a number with decimals: 429.031, not 429.03100000000001 */
};

static const int64_t answer_timeout_us = 30000000; /* of what the daemon answers at once */

/* --- output */

void cli_print_line(const struct invocation *invocation, const json_t *document)
{
    char *text = json_dumps(document, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_ENCODE_ANY |
                                          JSON_REAL_PRECISION(FIGURES));
    if (text != NULL) {
        (void)fprintf(invocation->cli->out, "%s\n", text);
        (void)fflush(invocation->cli->out);
    }
    free(text);
}

void cli_print(const struct invocation *invocation, const struct strbuf *text, const json_t *document)
{
    if (invocation->json) {
        cli_print_line(invocation, document);
        return;
    }
    (void)fputs(text->failed ? "the answer is too long to be shown: use --json\n" : strbuf_text(text),
                invocation->cli->out);
    (void)fflush(invocation->cli->out);
}

static json_t *error_document(const struct error *error)
{
    return json_pack("{s:{s:s, s:s, s:s*}}", "error", "code", error_code_text(error->code), "message",
                     error->message, "remedy", error->remedy[0] == '\0' ? NULL : error->remedy);
}

int cli_fail(const struct cli *cli, bool json, const struct error *error)
{
    if (json) {
        json_t *document = error_document(error);
        const struct invocation only_output = {.cli = cli};
        cli_print_line(&only_output, document);
        json_decref(document);
    } else {
        struct strbuf text;
        strbuf_init(&text, TEXT_LIMIT);
        render_error(&text, error);
        (void)fputs(strbuf_text(&text), cli->err);
        strbuf_deinit(&text);
    }
    return (int)exit_status_of_error(error->code);
}

/* --- a call */

/* Ctrl-C: the daemon goes on with what it was asked for. */
static int detach(const struct invocation *invocation, const struct progress *progress)
{
    struct error error;
    uint64_t flip = progress_flip(progress);
    if (flip != 0) {
        (void)error_set(&error, ERROR_ABORTED, "detached: flip %" PRIu64 " goes on", flip);
        (void)error_remedy(&error, "follow it with switchback watch; switchback %s takes it back",
                           render_is_past_commit(progress_phase(progress)) ? "flip-back" : "abort");
    } else {
        (void)error_set(&error, ERROR_ABORTED, "detached: %s goes on in the daemon", invocation->verb->name);
        (void)error_remedy(&error, "follow it with switchback events --follow");
    }
    (void)cli_fail(invocation->cli, invocation->json, &error);
    return EXIT_INCONCLUSIVE;
}

/* The daemon's error. A flip that it refused before it began still has a result, for scripts that read that.
 */
static int fail(const struct invocation *invocation, const struct error *error)
{
    const enum exit_status status = exit_status_of_error(error->code);
    const char *result = status == EXIT_REFUSED        ? "refused"
                         : status == EXIT_INCONCLUSIVE ? "inconclusive"
                                                       : NULL;
    if (!invocation->json || !invocation->verb->flips || result == NULL) {
        return cli_fail(invocation->cli, invocation->json, error);
    }
    json_t *document = error_document(error);
    (void)json_object_set_new(document, "result", json_string(result));
    (void)json_object_set_new(document, "flip", json_null());
    (void)json_object_set_new(document, "reason", json_string(error->message));
    cli_print_line(invocation, document);
    json_decref(document);
    return (int)status;
}

static int show_result(const struct invocation *invocation, const json_t *result)
{
    const struct verb *verb = invocation->verb;
    struct strbuf text;
    strbuf_init(&text, TEXT_LIMIT);
    if (!invocation->json && verb->render != NULL) {
        verb->render(&text, invocation, result);
    }
    cli_print(invocation, &text, result);
    strbuf_deinit(&text);
    return (int)(verb->judge == NULL ? EXIT_DONE : verb->judge(result));
}

int call_run(const struct invocation *invocation)
{
    const struct verb *verb = invocation->verb;
    struct error error;
    struct client *client = client_open(client_socket_path(invocation->socket), &error);
    if (client == NULL) {
        return cli_fail(invocation->cli, invocation->json, &error);
    }
    struct progress progress;
    struct client_wait wait = {.timeout_us = answer_timeout_us};
    progress_init(&progress, invocation);
    if (verb->waits) {
        wait.timeout_us = 0;
        wait.stop = interrupt_catch();
        progress_attach(&progress, &wait);
    }
    json_t *result = client_call(client, verb->method, invocation->params, &wait, &error);
    progress_end(&progress);
    int status = result != NULL ? show_result(invocation, result)
                 : wait.stopped ? detach(invocation, &progress)
                                : fail(invocation, &error);
    progress_deinit(&progress);
    json_decref(result);
    client_close(client);
    return status;
}

/* --- rpc, version */

int verb_rpc(const struct invocation *invocation)
{
    struct error error;
    json_t *params = NULL;
    if (invocation->word_count > 1) {
        json_error_t reason;
        params = json_loads(invocation->words[1], JSON_REJECT_DUPLICATES, &reason);
        if (!json_is_object(params)) {
            json_decref(params);
            (void)error_set(&error, ERROR_USAGE, "rpc: expected a JSON object%s%s",
                            reason.text[0] == '\0' ? "" : ": ", reason.text);
            (void)error_remedy(&error, "usage: switchback rpc %s", invocation->verb->usage);
            return cli_fail(invocation->cli, invocation->json, &error);
        }
    }
    struct client *client = client_open(client_socket_path(invocation->socket), &error);
    struct client_wait wait = {.timeout_us = 0};
    json_t *result = client == NULL ? NULL : client_call(client, invocation->words[0], params, &wait, &error);
    int status = EXIT_DONE;
    if (result == NULL) {
        status = cli_fail(invocation->cli, invocation->json, &error);
    } else {
        cli_print_line(invocation, result);
    }
    json_decref(result);
    json_decref(params);
    client_close(client);
    return status;
}

int verb_version(const struct invocation *invocation)
{
    struct error error;
    struct client *client = client_open(client_socket_path(invocation->socket), &error);
    struct client_wait wait = {.timeout_us = answer_timeout_us / 10};
    json_t *daemon = client == NULL ? NULL : client_call(client, "version", NULL, &wait, &error);
    struct strbuf text;
    strbuf_init(&text, TEXT_LIMIT);
    strbuf_printf(&text, "switchback %s (%s)\n", version_number(), version_build());
    render_version(&text, daemon);
    json_t *document = json_pack("{s:s, s:s, s:O?}", "version", version_number(), "build", version_build(),
                                 "daemon", daemon);
    cli_print(invocation, &text, document);
    json_decref(document);
    strbuf_deinit(&text);
    json_decref(daemon);
    client_close(client);
    return EXIT_DONE;
}
