#include "control/cli/columns.h"
#include "control/cli/verbs.h"

#include <stdio.h>
#include <string.h>

enum { HELP_LIMIT = 64 * 1024 };

static const char exit_statuses[] =
    "exit status  0 done, 1 refused or failed: traffic is where it was, 2 bad usage or configuration,\n"
    "             3 flipped, then flipped back, 4 inconclusive: an operator must decide, 5 no daemon\n";

static void put_verbs(struct strbuf *out, const char *title, const char *const *names)
{
    struct columns columns;
    columns_init(&columns, 2);
    for (; *names != NULL; names++) {
        const struct verb *verb = verbs_find(*names);
        columns_add(&columns, (const char *const[]){verb->name, verb->summary});
    }
    strbuf_printf(out, "\n%s\n", title);
    columns_print(&columns, out, "  ");
}

void help_overview(struct strbuf *out)
{
    static const char *const run[] = {"serve", NULL};
    static const char *const look[] = {"status", "check", "sessions", "watch",
                                       "events", "audit", "version",  NULL};
    static const char *const act[] = {"prepare",  "cutover", "flip-back", "abort",  "hold", "release",
                                      "finalize", "recover", "rejoin",    "reload", "rpc",  NULL};
    strbuf_puts(
        out,
        "usage: switchback VERB [FLAGS]\n\n"
        "A PostgreSQL proxy in front of a blue and a green cluster: moves traffic from one to the other\n"
        "without an error or a lost commit, and back.\n");
    put_verbs(out, "run", run);
    put_verbs(out, "look", look);
    put_verbs(out, "act", act);
    strbuf_puts(out,
                "\nEvery verb takes --json, --socket PATH and --help; switchback help VERB says more.\n");
    strbuf_puts(out, exit_statuses);
}

static void add_flag(struct columns *columns, const struct flag *flag)
{
    char name[96];
    char letter[8] = "";
    if (flag->letter != 0) {
        (void)snprintf(letter, sizeof letter, "-%c, ", flag->letter);
    }
    (void)snprintf(name, sizeof name, "%s--%s%s%s", letter, flag->name, flag->value == NULL ? "" : " ",
                   flag->value == NULL ? "" : flag->value);
    columns_add(columns, (const char *const[]){name, flag->doc});
}

void help_verb(struct strbuf *out, const struct verb *verb)
{
    static const struct flag common[] = {
        {"json", 0, FLAG_SWITCH, NULL, .doc = "one JSON document on standard output, keys that stay"},
        {"socket", 0, FLAG_TEXT, "PATH",
         .doc = "of the daemon; else $SWITCHBACK_SOCKET, else /run/switchback/control.sock"},
    };
    struct columns columns;
    columns_init(&columns, 2);
    for (size_t i = 0; i < verb->flag_count; i++) {
        add_flag(&columns, &verb->flags[i]);
    }
    for (size_t i = 0; i < ARRAY_LENGTH(common); i++) {
        add_flag(&columns, &common[i]);
    }
    strbuf_printf(out, "usage: switchback %s%s%s\n\n%s\n", verb->name, verb->usage[0] == '\0' ? "" : " ",
                  verb->usage, verb->summary);
    if (verb->details != NULL) {
        strbuf_printf(out, "\n%s\n", verb->details);
    }
    strbuf_puts(out, "\n");
    columns_print(&columns, out, "  ");
    strbuf_printf(out, "\n%s", exit_statuses);
}

int verb_help(const struct invocation *invocation)
{
    struct strbuf text;
    const struct verb *verb = invocation->word_count == 0 ? NULL : verbs_find(invocation->words[0]);
    if (invocation->word_count > 0 && verb == NULL) {
        struct error error;
        cli_unknown_verb(invocation->words[0], &error);
        return cli_fail(invocation->cli, invocation->json, &error);
    }
    strbuf_init(&text, HELP_LIMIT);
    if (verb == NULL) {
        help_overview(&text);
    } else {
        help_verb(&text, verb);
    }
    json_t *document = json_pack("{s:s}", "help", strbuf_text(&text));
    cli_print(invocation, &text, document);
    json_decref(document);
    strbuf_deinit(&text);
    return EXIT_DONE;
}
