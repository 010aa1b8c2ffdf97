#include "conf/hba/hba.h"

#include "conf/base/ensure.h"
#include "conf/hba/ident.h"
#include "conf/hba/rule.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct hba {
    atomic_uint references;
    struct hba_rule *rules;
    struct hba_ident *idents;
    bool has_file;
    uint64_t rules_print, maps_print; /* hashes of all words */
};

static void hba_free(struct hba *hba)
{
    while (hba->rules != NULL) {
        struct hba_rule *rule = hba->rules;
        hba->rules = rule->next;
        hba_rule_free(rule);
    }
    while (hba->idents != NULL) {
        struct hba_ident *ident = hba->idents;
        hba->idents = ident->next;
        hba_ident_free(ident);
    }
    free(hba);
}

struct hba *hba_ref(struct hba *hba)
{
    if (hba != NULL) {
        atomic_fetch_add_explicit(&hba->references, 1, memory_order_relaxed);
    }
    return hba;
}

void hba_unref(struct hba *hba)
{
    if (hba != NULL && atomic_fetch_sub_explicit(&hba->references, 1, memory_order_acq_rel) == 1) {
        hba_free(hba);
    }
}

/* --- loading --- */

/* FNV-1a over the words, each with its NUL and what separates it from the next. */
static uint64_t add_text(uint64_t hash, const char *text, char end)
{
    size_t length = strlen(text);
    for (size_t i = 0; i <= length; i++) {
        hash = (hash ^ (uint8_t)text[i]) * UINT64_C(0x100000001b3);
    }
    return (hash ^ (uint8_t)end) * UINT64_C(0x100000001b3);
}

static uint64_t print_of(const struct hba_line *lines)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (const struct hba_line *line = lines; line != NULL; line = line->next) {
        for (size_t i = 0; i < line->count; i++) {
            const struct hba_field *field = &line->fields[i];
            for (size_t j = 0; j < field->count; j++) {
                hash = add_text(hash, field->words[j].text, field->words[j].quoted ? '"' : ',');
            }
            hash = add_text(hash, "", ' ');
        }
        hash = add_text(hash, "", '\n');
    }
    return hash;
}

static void read_idents(struct hba *hba, const struct hba_source *source, const char *path,
                        struct hba_problems *problems)
{
    struct hba_line *lines = hba_lines_read(source, path, problems);
    struct hba_ident **last = &hba->idents;
    hba->maps_print = print_of(lines);
    for (const struct hba_line *line = lines; line != NULL; line = line->next) {
        *last = hba_ident_parse(line, problems);
        if (*last != NULL) {
            last = &(*last)->next;
        }
    }
    hba_lines_free(lines);
}

static bool has_map(const struct hba *hba, const char *map)
{
    for (const struct hba_ident *ident = hba->idents; ident != NULL; ident = ident->next) {
        if (strcmp(ident->map, map) == 0) {
            return true;
        }
    }
    return false;
}

static void check_map(const struct hba *hba, const struct hba_rule *rule, struct hba_problems *problems)
{
    if (rule->map != NULL && !has_map(hba, rule->map)) {
        hba_problem(problems, rule->file, rule->demand.line,
                    "map=%.60s: no line of auth.ident_file has that map, so nobody could come in", rule->map);
    }
}

static void take_rules(struct hba *hba, const struct hba_line *lines, struct hba_problems *problems)
{
    struct hba_rule **last = &hba->rules;
    for (const struct hba_line *line = lines; line != NULL; line = line->next) {
        *last = hba_rule_parse(line, problems);
        if (*last != NULL) {
            check_map(hba, *last, problems);
            last = &(*last)->next;
        }
    }
}

/* Takes the lines. */
static struct hba *make(const struct hba_source *source, const char *name, struct hba_line *lines,
                        const char *ident_path, struct hba_problems *problems)
{
    struct hba *hba = calloc(1, sizeof *hba);
    ENSURE(hba != NULL);
    atomic_init(&hba->references, 1);
    if (ident_path[0] != '\0') {
        read_idents(hba, source, ident_path, problems);
    }
    hba->rules_print = print_of(lines);
    take_rules(hba, lines, problems);
    if (lines == NULL && problems->count == 0) {
        hba_problem(problems, name, 0, "it has no rules, so nobody could come in");
    }
    hba_lines_free(lines);
    if (problems->count > 0) {
        hba_free(hba);
        return NULL;
    }
    return hba;
}

struct hba *hba_load_from(const struct hba_source *source, const char *hba_path, const char *ident_path,
                          struct hba_problems *problems)
{
    struct hba_line *lines = hba_lines_read(source, hba_path, problems);
    struct hba *hba = make(source, hba_path, lines, ident_path, problems);
    if (hba != NULL) {
        hba->has_file = true;
    }
    return hba;
}

struct hba *hba_load(const char *hba_path, const char *ident_path, struct hba_problems *problems)
{
    return hba_load_from(&hba_files, hba_path, ident_path, problems);
}

/* "map=NAME" in quotes, those inside doubled. */
static void put_map(struct strbuf *text, const char *map)
{
    strbuf_puts(text, " \"map=");
    for (; *map != '\0'; map++) {
        strbuf_append(text, *map == '"' ? "\"\"" : map, *map == '"' ? 2 : 1);
    }
    strbuf_puts(text, "\"");
}

struct hba *hba_load_method(enum hba_method method, enum hba_client_name client_name, const char *map,
                            const char *ident_path, struct hba_problems *problems)
{
    static const char *const databases[] = {"all", "replication"};
    static const char name[] = "auth.method";
    const char *word = hba_method_name(method);
    struct strbuf text;
    strbuf_init(&text, HBA_FILE_LIMIT);
    for (size_t i = 0; i < ARRAY_LENGTH(databases); i++) {
        if (method == HBA_CERT) {
            strbuf_printf(&text, "hostssl %s all all cert clientname=%s", databases[i],
                          hba_client_name_text(client_name));
            if (map[0] != '\0') {
                put_map(&text, map);
            }
        } else {
            strbuf_printf(&text, "local %s all %s\nhost %s all all %s", databases[i], word, databases[i],
                          word);
        }
        strbuf_puts(&text, "\n");
    }
    ENSURE(!text.failed);
    struct hba_line *lines = hba_lines_parse(&hba_files, name, strbuf_text(&text), text.length, problems);
    strbuf_deinit(&text);
    return make(&hba_files, name, lines, ident_path, problems);
}

/* --- asking --- */

const struct hba_demand *hba_match(const struct hba *hba, const struct hba_client *client)
{
    for (const struct hba_rule *rule = hba->rules; rule != NULL; rule = rule->next) {
        if (hba_rule_holds(rule, client)) {
            return &rule->demand;
        }
    }
    return NULL;
}

bool hba_same_rules(const struct hba *a, const struct hba *b)
{
    return a->rules_print == b->rules_print;
}

bool hba_same_maps(const struct hba *a, const struct hba *b)
{
    return a->maps_print == b->maps_print;
}

bool hba_has_file(const struct hba *hba)
{
    return hba->has_file;
}

bool hba_has_method(const struct hba *hba, enum hba_method method)
{
    for (const struct hba_rule *rule = hba->rules; rule != NULL; rule = rule->next) {
        if (rule->demand.method == method) {
            return true;
        }
    }
    return false;
}

bool hba_needs_groups(const struct hba *hba)
{
    for (const struct hba_rule *rule = hba->rules; rule != NULL; rule = rule->next) {
        if (hba_names_need_groups(&rule->databases) || hba_names_need_groups(&rule->users)) {
            return true;
        }
    }
    for (const struct hba_ident *ident = hba->idents; ident != NULL; ident = ident->next) {
        if (hba_names_need_groups(&ident->role)) {
            return true;
        }
    }
    return false;
}

const struct hba_demand *hba_needs_tls(const struct hba *hba)
{
    for (const struct hba_rule *rule = hba->rules; rule != NULL; rule = rule->next) {
        if (rule->type == HBA_HOSTSSL) {
            return &rule->demand;
        }
    }
    return NULL;
}

const struct hba_demand *hba_needs_certificate(const struct hba *hba)
{
    for (const struct hba_rule *rule = hba->rules; rule != NULL; rule = rule->next) {
        if (rule->demand.certificate != HBA_CERTIFICATE_ANY) {
            return &rule->demand;
        }
    }
    return NULL;
}

bool hba_may_be(const struct hba *hba, const char *map, const char *name, const struct hba_client *client)
{
    if (map == NULL) {
        return strcmp(name, client->user) == 0;
    }
    for (const struct hba_ident *ident = hba->idents; ident != NULL; ident = ident->next) {
        if (hba_ident_allows(ident, map, name, client)) {
            return true;
        }
    }
    return false;
}
