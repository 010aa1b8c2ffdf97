/* From argv to an invocation: flags by the verb's rows, in any order, "--name value" or "--name=value". */
#include "control/cli/verbs.h"

#include "conf/settings/unit.h"

#include <stdio.h>
#include <string.h>

enum { PARAM_SIZE = 64 };

/* A cursor over the arguments after the verb. */
struct arguments {
    int count, at;
    char *const *items;
};

static bool usage_error(struct error *error, const struct verb *verb, const char *what, const char *which)
{
    (void)error_set(error, ERROR_USAGE, "%s: %s%s", verb->name, what, which);
    return error_remedy(error, "usage: switchback %s%s%s", verb->name, verb->usage[0] == '\0' ? "" : " ",
                        verb->usage);
}

/* "--key=K" and "--key K" and "-c FILE": whether this item is the flag, and its value if it needs one. */
static bool is_flag(const char *item, const char *name, char letter, const char **attached)
{
    *attached = NULL;
    if (letter != 0 && item[0] == '-' && item[1] == letter) {
        *attached = item[2] == '\0' ? NULL : item + 2;
        return true;
    }
    if (strncmp(item, "--", 2) != 0 || strncmp(item + 2, name, strlen(name)) != 0) {
        return false;
    }
    const char *rest = item + 2 + strlen(name);
    if (*rest == '=') {
        *attached = rest + 1;
    }
    return *rest == '\0' || *rest == '=';
}

static bool take_value(struct arguments *arguments, const struct verb *verb, const char *attached,
                       const char **value, struct error *error)
{
    const char *flag = arguments->items[arguments->at];
    if (attached != NULL) {
        *value = attached;
        return true;
    }
    if (arguments->at + 1 >= arguments->count) {
        return usage_error(error, verb, "a value is missing after ", flag);
    }
    *value = arguments->items[++arguments->at];
    return true;
}

static void name_of_param(const char *flag, char param[PARAM_SIZE])
{
    (void)snprintf(param, PARAM_SIZE, "%s", flag);
    for (char *at = param; *at != '\0'; at++) {
        *at = *at == '-' ? '_' : *at;
    }
}

/* Checks the value and adds it to the parameters. */
static bool keep(struct invocation *invocation, const struct flag *flag, const char *value,
                 struct error *error)
{
    int64_t number = 0;
    bool is_number = unit_parse_integer(value, &number) == UNIT_OK && number >= 0;
    bool is_duration = unit_parse_duration(value, &(int64_t){0}) == UNIT_OK;
    json_t *json = NULL;
    switch (flag->kind) {
    case FLAG_SWITCH:
        json = json_true();
        break;
    case FLAG_TEXT:
        json = json_string(value);
        if (json == NULL) {
            return usage_error(error, invocation->verb, "expected UTF-8 for --", flag->name);
        }
        break;
    case FLAG_DURATION:
        if (!is_duration) {
            return usage_error(error, invocation->verb,
                               "expected a duration such as 30s (us ms s m h), found ", value);
        }
        json = json_string(value);
        break;
    case FLAG_NUMBER:
        if (!is_number) {
            return usage_error(error, invocation->verb, "expected a whole number, found ", value);
        }
        json = json_integer(number);
        break;
    case FLAG_SINCE:
        if (!is_number && !is_duration) {
            return usage_error(error, invocation->verb,
                               "expected an event's number or a duration such as 10m, found ", value);
        }
        break;
    }
    char param[PARAM_SIZE];
    name_of_param(flag->name, param);
    if (flag->local) {
        json_decref(json);
        return true;
    }
    return json_object_set_new(invocation->params, param, json) == 0 ||
           error_set(error, ERROR_MEMORY, "out of memory");
}

/* Flags that every verb has. *known: it was one. */
static bool take_common(struct invocation *invocation, struct arguments *arguments, bool *known,
                        struct error *error)
{
    const char *item = arguments->items[arguments->at], *attached = NULL;
    *known = true;
    if (is_flag(item, "json", 0, &attached) && attached == NULL) {
        invocation->json = true;
    } else if (is_flag(item, "help", 'h', &attached) && attached == NULL) {
        invocation->help = true;
    } else if (is_flag(item, "socket", 0, &attached)) {
        return take_value(arguments, invocation->verb, attached, &invocation->socket, error);
    } else {
        *known = false;
    }
    return true;
}

static bool take_flag(struct invocation *invocation, struct arguments *arguments, struct error *error)
{
    const struct verb *verb = invocation->verb;
    const char *item = arguments->items[arguments->at];
    bool known = false;
    if (!take_common(invocation, arguments, &known, error) || known) {
        return known;
    }
    for (size_t i = 0; i < verb->flag_count; i++) {
        const struct flag *flag = &verb->flags[i];
        const char *attached = NULL, *value = "";
        if (!is_flag(item, flag->name, flag->letter, &attached)) {
            continue;
        }
        if (invocation->values[i] != NULL) {
            return usage_error(error, verb, "given twice: ", item);
        }
        if (flag->kind == FLAG_SWITCH && attached != NULL) {
            return usage_error(error, verb, "takes no value: ", item);
        }
        if (flag->kind != FLAG_SWITCH && !take_value(arguments, verb, attached, &value, error)) {
            return false;
        }
        invocation->values[i] = value;
        return keep(invocation, flag, value, error);
    }
    return usage_error(error, verb, "unknown flag ", item);
}

bool arguments_parse(struct invocation *invocation, int argc, char *const *argv, struct error *error)
{
    struct arguments arguments = {.count = argc, .items = argv};
    const struct verb *verb = invocation->verb;
    bool flags_over = false;
    invocation->params = json_object();
    if (invocation->params == NULL) {
        return error_set(error, ERROR_MEMORY, "out of memory");
    }
    for (; arguments.at < argc; arguments.at++) {
        const char *item = argv[arguments.at];
        if (!flags_over && strcmp(item, "--") == 0) {
            flags_over = true;
        } else if (!flags_over && item[0] == '-' && item[1] != '\0') {
            if (!take_flag(invocation, &arguments, error)) {
                return false;
            }
        } else if (invocation->word_count == verb->most_words) {
            return usage_error(error, verb, "unexpected argument ", item);
        } else {
            invocation->words[invocation->word_count++] = item;
        }
    }
    if (invocation->help) {
        return true;
    }
    if (invocation->word_count < verb->least_words) {
        return usage_error(error, verb, "an argument is missing", "");
    }
    for (size_t i = 0; i < verb->flag_count; i++) {
        if (verb->flags[i].required && invocation->values[i] == NULL) {
            return usage_error(error, verb, "missing --", verb->flags[i].name);
        }
    }
    return true;
}

void arguments_deinit(struct invocation *invocation)
{
    json_decref(invocation->params);
    invocation->params = NULL;
}

const char *arguments_value(const struct invocation *invocation, const char *flag)
{
    for (size_t i = 0; i < invocation->verb->flag_count; i++) {
        if (strcmp(invocation->verb->flags[i].name, flag) == 0) {
            return invocation->values[i];
        }
    }
    return NULL;
}
