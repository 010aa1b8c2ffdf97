#include "control/cli/verbs.h"

#include "conf/base/clock.h"
#include "control/cli/field.h"
#include "control/cli/render.h"

#include <string.h>

/* --- flags */

static const struct flag serve_flags[] = {
    {"config", 'c', FLAG_TEXT, "FILE", .local = true, .doc = "default: /etc/switchback/switchback.yaml"},
    {"check-config", 0, FLAG_SWITCH, NULL, .local = true,
     .doc = "say whether the configuration is good, and exit"},
    {"print-config", 0, FLAG_SWITCH, NULL, .local = true,
     .doc = "print it with all defaults, secrets masked, and exit"},
};
static const struct flag check_flags[] = {
    {"all", 0, FLAG_SWITCH, NULL, .local = true, .doc = "list what passes, too; --json always does"},
};
static const struct flag cutover_flags[] = {
    {"dry-run", 0, FLAG_SWITCH, NULL, .doc = "say what would be done and predict the pause; do nothing"},
    {"no-wait", 0, FLAG_SWITCH, NULL, .doc = "return once it has begun"},
    {"watch", 0, FLAG_SWITCH, NULL, .doc = "wait for the end of the watch as well; 3 if it flipped back"},
    {"key", 0, FLAG_TEXT, "K", .doc = "the same key again attaches to the first one or returns its result"},
    {"reason", 0, FLAG_TEXT, "TEXT", .doc = "for the audit log"},
};
static const struct flag flip_back_flags[] = {
    {"accept-loss", 0, FLAG_SWITCH, NULL,
     .doc = "go back though the active side is dead and commits are at risk; the refusal says how many"},
    {"no-wait", 0, FLAG_SWITCH, NULL, .doc = "return once it has begun"},
    {"key", 0, FLAG_TEXT, "K", .doc = "the same key again attaches to the first one or returns its result"},
    {"reason", 0, FLAG_TEXT, "TEXT", .doc = "for the audit log"},
};
static const struct flag recover_flags[] = {
    {"use", 0, FLAG_TEXT, "SIDE",
     .doc = "decide: this side becomes active; the other one is fenced on contact"},
    {"reason", 0, FLAG_TEXT, "TEXT", .doc = "for the audit log"},
};
static const struct flag rejoin_flags[] = {
    {"dry-run", 0, FLAG_SWITCH, NULL, .doc = "list what only the diverged side holds; do nothing"},
    {"reason", 0, FLAG_TEXT, "TEXT", .doc = "for the audit log"},
};
static const struct flag reason_flags[] = {
    {"reason", 0, FLAG_TEXT, "TEXT", .doc = "for the audit log"},
};
static const struct flag hold_flags[] = {
    {"for", 0, FLAG_DURATION, "DURATION", .required = true, .doc = "when it ends by itself: 30s, 2m"},
    {"reason", 0, FLAG_TEXT, "TEXT", .required = true, .doc = "who reads status will want to know"},
};
static const struct flag sessions_flags[] = {
    {"immovable", 0, FLAG_SWITCH, NULL, .doc = "only those that can't move, and why"},
    {"ask", 0, FLAG_SWITCH, NULL, .doc = "ask each session first what it holds; its client waits meanwhile"},
};
static const struct flag events_flags[] = {
    {"follow", 'f', FLAG_SWITCH, NULL, .local = true, .doc = "go on with new ones, until Ctrl-C"},
    {"since", 0, FLAG_SINCE, "SEQ|DURATION", .local = true,
     .doc = "after this number, or not older than 10m"},
};
static const struct flag audit_flags[] = {
    {"verify", 0, FLAG_SWITCH, NULL, .doc = "check the chain of hashes over all rows; 1 if it is broken"},
    {"since", 0, FLAG_NUMBER, "SEQ", .doc = "rows after this number"},
    {"limit", 0, FLAG_NUMBER, "N", .doc = "at most so many, the newest"},
};

/* --- how results are shown */

static void show_status(struct strbuf *out, const struct invocation *invocation, const json_t *result)
{
    (void)invocation;
    render_status(out, result, clock_wall_us());
}

static void show_check(struct strbuf *out, const struct invocation *invocation, const json_t *result)
{
    render_check(out, result, arguments_value(invocation, "all") != NULL);
}

static void show_prepare(struct strbuf *out, const struct invocation *invocation, const json_t *result)
{
    (void)invocation;
    render_prepare(out, result);
}

static void show_flip(struct strbuf *out, const struct invocation *invocation, const json_t *result)
{
    (void)invocation;
    if (field_true(result, "dry_run")) {
        render_dry_run(out, result);
    } else {
        render_flip(out, result);
    }
}

static void show_abort(struct strbuf *out, const struct invocation *invocation, const json_t *result)
{
    (void)invocation;
    render_abort(out, result);
}

static void show_finalize(struct strbuf *out, const struct invocation *invocation, const json_t *result)
{
    (void)invocation;
    render_finalize(out, result);
}

static void show_recover(struct strbuf *out, const struct invocation *invocation, const json_t *result)
{
    (void)invocation;
    render_recover(out, result);
}

static void show_rejoin(struct strbuf *out, const struct invocation *invocation, const json_t *result)
{
    (void)invocation;
    render_rejoin(out, result);
}

static void show_hold(struct strbuf *out, const struct invocation *invocation, const json_t *result)
{
    (void)invocation;
    render_hold(out, result, clock_wall_us());
}

static void show_release(struct strbuf *out, const struct invocation *invocation, const json_t *result)
{
    (void)invocation;
    render_release(out, result);
}

static void show_sessions(struct strbuf *out, const struct invocation *invocation, const json_t *result)
{
    render_sessions(out, result, arguments_value(invocation, "immovable") != NULL);
}

static void show_audit(struct strbuf *out, const struct invocation *invocation, const json_t *result)
{
    if (arguments_value(invocation, "verify") != NULL) {
        render_audit_verdict(out, result);
    } else {
        render_audit(out, result, clock_wall_us());
    }
}

static void show_reload(struct strbuf *out, const struct invocation *invocation, const json_t *result)
{
    (void)invocation;
    render_reload(out, result);
}

/* --- what they mean for the exit status */

/* Nobody is served before an operator has decided, or this daemon no longer decides anything: a script that
 * asks must not read on as if all were well. */
static enum exit_status judge_status(const json_t *result)
{
    size_t index;
    const json_t *trouble;
    json_array_foreach(json_object_get(result, "trouble"), index, trouble)
    {
        const char *code = field_string(trouble, "code");
        static const enum error_code deciding[] = {ERROR_UNDECIDED, ERROR_STALE, ERROR_SIDE_DEAD,
                                                   ERROR_COMMITS_AT_RISK};
        for (size_t i = 0; i < ARRAY_LENGTH(deciding); i++) {
            if (strcmp(code, error_code_text(deciding[i])) == 0) {
                return EXIT_INCONCLUSIVE;
            }
        }
    }
    return EXIT_DONE;
}

static enum exit_status judge_check(const json_t *result)
{
    return field_true(result, "ok") ? EXIT_DONE : EXIT_REFUSED;
}

static enum exit_status judge_flip(const json_t *result)
{
    if (field_true(result, "dry_run")) {
        return json_array_size(json_object_get(result, "blockers")) == 0 ? EXIT_DONE : EXIT_REFUSED;
    }
    return exit_status_of_result(field_string(result, "result"));
}

/* Asked only to say what it sees: as long as a decision is wanted, a script must not read on. */
static enum exit_status judge_recover(const json_t *result)
{
    return field_true(result, "needed") && !field_true(result, "decided") ? EXIT_INCONCLUSIVE : EXIT_DONE;
}

static enum exit_status judge_audit(const json_t *result)
{
    return json_is_false(json_object_get(result, "intact")) ? EXIT_REFUSED : EXIT_DONE;
}

static enum exit_status judge_reload(const json_t *result)
{
    return json_is_false(json_object_get(result, "applied")) ? EXIT_REFUSED : EXIT_DONE;
}

/* --- the table */

#define FLAGS(array) .flags = (array), .flag_count = ARRAY_LENGTH(array)

static const struct verb verbs[] = {
    {.name = "serve",
     .usage = "[-c FILE] [--check-config | --print-config]",
     .summary = "run the proxy and the controller in the foreground",
     .details = "Clients connect to the address that `listen` names, or to the sockets that systemd passes.\n"
                "SIGHUP reloads the configuration. SIGTERM stops it: what runs may go on to its end for\n"
                "timeouts.shutdown; a second one ends that, a third one the process. Started again after a\n"
                "crash it recovers a flip that was under way by itself.",
     FLAGS(serve_flags),
     .run = verb_serve},
    {.name = "status",
     .usage = "",
     .summary = "both sides, lag, gates, clients, and whether the way back is open",
     .details =
         "TROUBLE comes first, and what to do comes last. \"lossless\": an active side that dies now loses\n"
         "no commit, and the other one takes over. Exits with 4 as long as something waits for an\n"
         "operator's decision.",
     .method = "status",
     .render = show_status,
     .judge = judge_status},
    {.name = "check",
     .usage = "[--all]",
     .summary = "the preflight list: pass, warn or fail, and what to do about it",
     .details = "Changes nothing. A cutover runs it as well and is refused if anything fails.",
     FLAGS(check_flags),
     .method = "check",
     .waits = true,
     .render = show_check,
     .judge = judge_check},
    {.name = "prepare",
     .usage = "",
     .summary = "build replication to the standby: roles, schema, publication, subscription, initial copy",
     .details = "Can be run again at any point and continues. It goes on in the daemon if you detach.",
     .method = "prepare",
     .waits = true,
     .render = show_prepare},
    {.name = "cutover",
     .usage = "[--dry-run] [--no-wait] [--watch] [--key K] [--reason TEXT]",
     .summary = "move traffic to the standby, without an error or a lost commit",
     .details =
         "Returns when traffic is released on the target; with --watch at the end of the watch, in which a\n"
         "failing gate flips back by itself. Ctrl-C detaches, the flip goes on.\n"
         "In a pipeline: switchback cutover --watch --key release-42 --json",
     FLAGS(cutover_flags),
     .method = "cutover",
     .waits = true,
     .flips = true,
     .render = show_flip,
     .judge = judge_flip},
    {.name = "flip-back",
     .usage = "[--accept-loss] [--no-wait] [--key K] [--reason TEXT]",
     .summary = "go back to the other side; loses nothing, can be taken back itself",
     .details =
         "A cutover the other way, shorter: no check list, gates, approval or backup. Ends the watch.\n"
         "Is the active side dead, and was each of its commits confirmed by the other one (status says\n"
         "lossless), it is a takeover that loses nothing. Else it is refused, and says how many commits are\n"
         "at risk; only --accept-loss goes then.",
     FLAGS(flip_back_flags),
     .method = "flip_back",
     .waits = true,
     .flips = true,
     .render = show_flip,
     .judge = judge_flip},
    {.name = "abort",
     .usage = "[--reason TEXT]",
     .summary = "stop a flip that has not passed its commit point",
     .details = "Clients go on where they were, as if nothing had happened.",
     FLAGS(reason_flags),
     .method = "abort",
     .render = show_abort},
    {.name = "finalize",
     .usage = "[--reason TEXT]",
     .summary = "end the way back: reverse replication is dropped",
     .details = "Afterwards a flip-back isn't possible before another prepare, which copies everything\n"
                "anew into an emptied standby.",
     FLAGS(reason_flags),
     .method = "finalize",
     .waits = true,
     .render = show_finalize},
    {.name = "recover",
     .usage = "[--use SIDE] [--reason TEXT]",
     .summary = "what only an operator can decide: which side is active",
     .details =
         "Without --use it says what it sees and what each choice would do, and does nothing; 4 if a\n"
         "decision is wanted. With --use that side becomes active; the other one is fenced as soon as\n"
         "it can be reached.",
     FLAGS(recover_flags),
     .method = "recover",
     .waits = true,
     .render = show_recover,
     .judge = judge_recover},
    {.name = "rejoin",
     .usage = "[--dry-run] [--reason TEXT]",
     .summary = "bring a diverged side back: it takes the active side's rows and follows it",
     .details = "A side that was taken over from may hold transactions that never arrived; no client was\n"
                "told that they had committed, unless --accept-loss was given. They are listed (--dry-run\n"
                "only lists them), noted in the audit log, and replaced by what the active side holds.",
     FLAGS(rejoin_flags),
     .method = "rejoin",
     .waits = true,
     .render = show_rejoin},
    {.name = "hold",
     .usage = "--for DURATION --reason TEXT",
     .summary = "stop new work at each session's boundary, with a deadline",
     .details = "Running transactions go on. Clients see a pause, no error.",
     FLAGS(hold_flags),
     .method = "hold",
     .render = show_hold},
    {.name = "release",
     .usage = "",
     .summary = "let held clients go on",
     .method = "release",
     .render = show_release},
    {.name = "sessions",
     .usage = "[--immovable] [--ask]",
     .summary = "the sessions, what each would do in a flip, and why one can't move",
     .details =
         "What a session holds (settings, prepared statements, channels, a role) is known from when it was\n"
         "asked last, in a flip or by --ask; ? means never. --json has the names.",
     FLAGS(sessions_flags),
     .method = "sessions",
     .render = show_sessions},
    {.name = "watch",
     .usage = "",
     .summary = "live view: phases, lag, gates, held clients",
     .details = "Redraws on a terminal, else writes a line an event. Ends with Ctrl-C.",
     .run = verb_watch},
    {.name = "events",
     .usage = "[-f | --follow] [--since SEQ|DURATION]",
     .summary = "what happened, and with --follow what happens",
     FLAGS(events_flags),
     .run = verb_events},
    {.name = "audit",
     .usage = "[--verify] [--since SEQ] [--limit N]",
     .summary = "who asked for what, what was decided and why",
     FLAGS(audit_flags),
     .method = "audit",
     .render = show_audit,
     .judge = judge_audit},
    {.name = "reload",
     .usage = "",
     .summary = "apply a changed configuration, all of it or none",
     .details = "Names the keys that need a restart.",
     .method = "reload",
     .render = show_reload,
     .judge = judge_reload},
    {.name = "rpc",
     .usage = "METHOD [JSON]",
     .summary = "send one raw request",
     .details = "switchback rpc hold '{\"for\": \"10s\", \"reason\": \"test\"}'",
     .least_words = 1,
     .most_words = 2,
     .run = verb_rpc},
    {.name = "help",
     .usage = "[VERB]",
     .summary = "this list, or help for one verb",
     .most_words = 1,
     .run = verb_help},
    {.name = "version",
     .usage = "",
     .summary = "version and build, of the daemon too if it runs",
     .run = verb_version},
};

const struct verb *verbs_all(size_t *count)
{
    *count = ARRAY_LENGTH(verbs);
    return verbs;
}

const struct verb *verbs_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LENGTH(verbs); i++) {
        if (strcmp(verbs[i].name, name) == 0) {
            return &verbs[i];
        }
    }
    return NULL;
}
