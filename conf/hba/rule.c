#include "conf/hba/rule.h"

#include "conf/base/ensure.h"

#include <stdlib.h>
#include <string.h>

static const char *const method_names[] = {
    [HBA_TRUST] = "trust", [HBA_REJECT] = "reject", [HBA_SCRAM_SHA_256] = "scram-sha-256",
    [HBA_MD5] = "md5",     [HBA_CERT] = "cert",     [HBA_PEER] = "peer",
};

static const char *const client_names[] = {
    [HBA_CLIENT_NAME_CN] = "CN", [HBA_CLIENT_NAME_DN] = "DN", [HBA_CLIENT_NAME_SAN] = "SAN"};

const char *hba_client_name_text(enum hba_client_name name)
{
    return client_names[name];
}

const char *hba_method_name(enum hba_method method)
{
    return method_names[method];
}

void hba_rule_free(struct hba_rule *rule)
{
    if (rule != NULL) {
        hba_names_free(&rule->databases);
        hba_names_free(&rule->users);
        free(rule->file);
        free(rule->map);
        free(rule);
    }
}

/* A line while it is parsed. */
struct parse {
    const struct hba_line *line;
    struct hba_problems *problems;
    struct hba_rule *rule;
    size_t field; /* the next one */
};

#define COMPLAIN(parse, ...)                                                                                 \
    (hba_problem((parse)->problems, (parse)->line->file, (parse)->line->line, __VA_ARGS__), false)

/* The next field, which must be there; one word unless several are allowed. */
static const struct hba_field *next_field(struct parse *parse, const char *what, bool several)
{
    if (parse->field == parse->line->count) {
        (void)COMPLAIN(parse, "the line ends before its %s", what);
        return NULL;
    }
    const struct hba_field *field = &parse->line->fields[parse->field++];
    if (field->count == 0 || (field->count > 1 && !several)) {
        (void)COMPLAIN(parse, field->count == 0 ? "the %s is empty" : "one %s was expected, not several",
                       what);
        return NULL;
    }
    return field;
}

static bool parse_type(struct parse *parse)
{
    static const struct {
        const char *word;
        enum hba_type type;
    } types[] = {{"local", HBA_LOCAL},
                 {"host", HBA_HOST},
                 {"hostssl", HBA_HOSTSSL},
                 {"hostnossl", HBA_HOSTNOSSL},
                 {"hostnogssenc", HBA_HOST}}; /* GSSAPI is never spoken here */
    const struct hba_field *field = next_field(parse, "connection type", false);
    if (field == NULL) {
        return false;
    }
    const char *word = field->words[0].text;
    for (size_t i = 0; i < ARRAY_LENGTH(types); i++) {
        if (strcmp(word, types[i].word) == 0) {
            parse->rule->type = types[i].type;
            return true;
        }
    }
    if (strcmp(word, "hostgssenc") == 0) {
        return COMPLAIN(parse, "hostgssenc is not supported: no client speaks GSSAPI with Switchback");
    }
    return COMPLAIN(parse, "unknown connection type \"%.60s\": local, host, hostssl or hostnossl", word);
}

static bool parse_mask(struct parse *parse)
{
    const struct hba_field *field = next_field(parse, "netmask", false);
    if (field == NULL) {
        return false;
    }
    const char *text = field->words[0].text;
    return hba_address_parse_mask(text, &parse->rule->address) ||
           COMPLAIN(parse, "\"%.60s\" is no netmask of such an address; or write ADDRESS/BITS", text);
}

static bool parse_address(struct parse *parse)
{
    static const struct {
        const char *keyword;
        enum hba_address_kind kind;
    } keywords[] = {
        {"all", HBA_ADDRESS_ALL}, {"samehost", HBA_ADDRESS_SAMEHOST}, {"samenet", HBA_ADDRESS_SAMENET}};
    const struct hba_field *field = next_field(parse, "address", false);
    if (field == NULL) {
        return false;
    }
    const struct hba_word *word = &field->words[0];
    for (size_t i = 0; i < ARRAY_LENGTH(keywords); i++) {
        if (hba_word_is(word, keywords[i].keyword)) {
            parse->rule->address.kind = keywords[i].kind;
            return true;
        }
    }
    bool needs_mask = false;
    if (hba_address_parse(word->text, &parse->rule->address, &needs_mask)) {
        return !needs_mask || parse_mask(parse);
    }
    if (strchr(word->text, '/') != NULL || strchr(word->text, ':') != NULL) {
        return COMPLAIN(parse, "\"%.60s\" is no address with a mask, such as 10.0.0.0/8 or ::1/128",
                        word->text);
    }
    return COMPLAIN(parse, "\"%.60s\": host names are not supported, write an address with a mask",
                    word->text);
}

static bool set_method(struct parse *parse, const char *word)
{
    struct hba_rule *rule = parse->rule;
    bool local = rule->type == HBA_LOCAL;
    for (size_t i = 0; i < ARRAY_LENGTH(method_names); i++) {
        if (strcmp(word, method_names[i]) == 0) {
            rule->demand.method = (enum hba_method)i;
            return true;
        }
    }
    if (strcmp(word, "ident") == 0 && local) { /* as PostgreSQL has it */
        rule->demand.method = HBA_PEER;
        return true;
    }
    static const char *const others[] = {"ident", "password", "gss",    "sspi", "pam",
                                         "bsd",   "ldap",     "radius", "oauth"};
    for (size_t i = 0; i < ARRAY_LENGTH(others); i++) {
        if (strcmp(word, others[i]) == 0) {
            return COMPLAIN(parse,
                            "the method \"%s\" is not supported: trust, reject, scram-sha-256, md5, "
                            "cert or (local) peer",
                            word);
        }
    }
    return COMPLAIN(parse, "unknown method \"%.60s\"", word);
}

static bool parse_method(struct parse *parse)
{
    const struct hba_field *field = next_field(parse, "authentication method", false);
    struct hba_demand *demand = &parse->rule->demand;
    if (field == NULL || !set_method(parse, field->words[0].text)) {
        return false;
    }
    if (demand->method == HBA_PEER && parse->rule->type != HBA_LOCAL) {
        return COMPLAIN(parse, "peer is for local lines only");
    }
    if (demand->method == HBA_CERT) {
        if (parse->rule->type != HBA_HOSTSSL) {
            return COMPLAIN(parse, "cert is for hostssl lines only");
        }
        demand->certificate = HBA_CERTIFICATE_VERIFY_FULL;
    }
    return true;
}

/* --- options --- */

static bool set_map(struct parse *parse, const char *value)
{
    struct hba_rule *rule = parse->rule;
    if (rule->demand.method != HBA_CERT && rule->demand.method != HBA_PEER) {
        return COMPLAIN(parse, "map is for the methods cert and peer only");
    }
    free(rule->map);
    rule->map = strdup(value);
    ENSURE(rule->map != NULL);
    return true;
}

static bool set_clientcert(struct parse *parse, const char *value)
{
    struct hba_demand *demand = &parse->rule->demand;
    if (parse->rule->type != HBA_HOSTSSL) {
        return COMPLAIN(parse, "clientcert is for hostssl lines only");
    }
    if (strcmp(value, "verify-full") == 0) {
        demand->certificate = HBA_CERTIFICATE_VERIFY_FULL;
        return true;
    }
    if (strcmp(value, "verify-ca") != 0) {
        return COMPLAIN(parse, "clientcert is verify-ca or verify-full, not \"%.60s\"", value);
    }
    if (demand->method == HBA_CERT) {
        return COMPLAIN(parse, "the method cert checks names: clientcert can only be verify-full");
    }
    demand->certificate = HBA_CERTIFICATE_VERIFY_CA;
    return true;
}

static bool set_client_name(struct parse *parse, const char *value)
{
    if (parse->rule->type != HBA_HOSTSSL) {
        return COMPLAIN(parse, "clientname is for hostssl lines only");
    }
    for (size_t i = 0; i < ARRAY_LENGTH(client_names); i++) {
        if (strcmp(value, client_names[i]) == 0) {
            parse->rule->demand.client_name = (enum hba_client_name)i;
            return true;
        }
    }
    return COMPLAIN(parse, "clientname is CN, DN or SAN, not \"%.60s\"", value);
}

static bool parse_option(struct parse *parse, const char *text)
{
    static const struct {
        const char *name;
        bool (*set)(struct parse *parse, const char *value);
    } options[] = {{"map", set_map}, {"clientcert", set_clientcert}, {"clientname", set_client_name}};
    const char *equals = strchr(text, '=');
    if (equals == NULL) {
        return COMPLAIN(parse, "an option is NAME=VALUE, not \"%.60s\"", text);
    }
    for (size_t i = 0; i < ARRAY_LENGTH(options); i++) {
        size_t length = strlen(options[i].name);
        if (length == (size_t)(equals - text) && memcmp(text, options[i].name, length) == 0) {
            return options[i].set(parse, equals + 1);
        }
    }
    return COMPLAIN(parse, "unknown option \"%.60s\": map, clientcert or clientname", text);
}

static bool parse_options(struct parse *parse)
{
    bool good = true;
    for (; parse->field < parse->line->count; parse->field++) {
        const struct hba_field *field = &parse->line->fields[parse->field];
        for (size_t i = 0; i < field->count; i++) {
            good = parse_option(parse, field->words[i].text) && good;
        }
    }
    return good;
}

static bool parse_rule(struct parse *parse)
{
    struct hba_rule *rule = parse->rule;
    size_t before = parse->problems->count;
    const struct hba_field *databases = NULL, *users = NULL;
    if (!parse_type(parse) || (databases = next_field(parse, "database", true)) == NULL ||
        (users = next_field(parse, "role", true)) == NULL) {
        return false;
    }
    hba_names_parse_databases(&rule->databases, parse->line, databases, parse->problems);
    hba_names_parse_users(&rule->users, parse->line, users, parse->problems);
    if ((rule->type != HBA_LOCAL && !parse_address(parse)) || !parse_method(parse) || !parse_options(parse)) {
        return false;
    }
    return parse->problems->count == before;
}

struct hba_rule *hba_rule_parse(const struct hba_line *line, struct hba_problems *problems)
{
    struct hba_rule *rule = calloc(1, sizeof *rule);
    ENSURE(rule != NULL);
    struct parse parse = {.line = line, .problems = problems, .rule = rule};
    if (!parse_rule(&parse)) {
        hba_rule_free(rule);
        return NULL;
    }
    rule->file = strdup(line->file);
    ENSURE(rule->file != NULL);
    rule->demand.file = rule->file;
    rule->demand.line = line->line;
    rule->demand.map = rule->map;
    return rule;
}

bool hba_rule_holds(const struct hba_rule *rule, const struct hba_client *client)
{
    if ((rule->type == HBA_LOCAL) != client->local || (rule->type == HBA_HOSTSSL && !client->tls) ||
        (rule->type == HBA_HOSTNOSSL && client->tls)) {
        return false;
    }
    return (client->local || hba_address_holds(&rule->address, client->address)) &&
           hba_names_have_user(&rule->users, client) && hba_names_have_database(&rule->databases, client);
}
