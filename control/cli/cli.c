#include "control/cli/cli.h"

#include "conf/settings/nearest.h"
#include "control/cli/verbs.h"

#include <string.h>

enum { HELP_LIMIT = 64 * 1024, NAMES_LIMIT = 64 };

void cli_unknown_verb(const char *word, struct error *error)
{
    const char *names[NAMES_LIMIT];
    size_t count = 0;
    const struct verb *verbs = verbs_all(&count);
    for (size_t i = 0; i < count && i < NAMES_LIMIT; i++) {
        names[i] = verbs[i].name;
    }
    const char *nearest = nearest_word(word, names, count);
    (void)error_set(error, ERROR_USAGE, "there is no verb \"%.60s\"", word);
    if (word[0] == '-') {
        (void)error_remedy(error, "the verb comes first: switchback VERB [FLAGS]");
    } else if (nearest != NULL) {
        (void)error_remedy(error, "did you mean %s? switchback help lists all", nearest);
    } else {
        (void)error_remedy(error, "switchback help lists them");
    }
}

/* Asked for before anything is parsed, so that a usage error is JSON too. */
static bool wants_json(int argc, char *const *argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            return true;
        }
    }
    return false;
}

static int print_help(const struct invocation *invocation)
{
    struct strbuf text;
    strbuf_init(&text, HELP_LIMIT);
    help_verb(&text, invocation->verb);
    cli_print(&(struct invocation){.cli = invocation->cli}, &text, NULL);
    strbuf_deinit(&text);
    return EXIT_DONE;
}

static int print_overview(FILE *stream)
{
    struct strbuf text;
    strbuf_init(&text, HELP_LIMIT);
    help_overview(&text);
    (void)fputs(strbuf_text(&text), stream);
    strbuf_deinit(&text);
    return EXIT_USAGE;
}

static const struct verb *find_verb(const char *word)
{
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        return verbs_find("help");
    }
    return verbs_find(strcmp(word, "--version") == 0 ? "version" : word);
}

int cli_run(const struct cli *cli, int argc, char *const *argv)
{
    struct error error;
    if (argc < 2) {
        return print_overview(cli->err);
    }
    struct invocation invocation = {.cli = cli, .verb = find_verb(argv[1])};
    if (invocation.verb == NULL) {
        cli_unknown_verb(argv[1], &error);
        return cli_fail(cli, wants_json(argc, argv), &error);
    }
    int status;
    if (!arguments_parse(&invocation, argc - 2, argv + 2, &error)) {
        status = cli_fail(cli, wants_json(argc, argv), &error);
    } else if (invocation.help) {
        status = print_help(&invocation);
    } else if (invocation.verb->run != NULL) {
        status = invocation.verb->run(&invocation);
    } else {
        status = call_run(&invocation);
    }
    arguments_deinit(&invocation);
    return status;
}
