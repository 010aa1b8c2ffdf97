/* Settings as text: printed as YAML that loads again, and compared by that text for a reload. */
#include "conf/settings/gates.h"
#include "conf/settings/settings.h"
#include "conf/settings/table.h"
#include "conf/settings/unit.h"

#include "conf/base/strbuf.h"
#include "conf/hba/userlist.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { PRINT_LIMIT = 4 * 1024 * 1024, DOC_COLUMN = 44 };

/* Double-quoted: the one style of YAML that can hold any text. */
static void print_quoted(struct strbuf *out, const char *text)
{
    strbuf_puts(out, "\"");
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') {
            strbuf_printf(out, "\\%c", c);
        } else if (c < 0x20 || c == 0x7f) {
            strbuf_printf(out, "\\x%02x", c);
        } else {
            strbuf_append(out, text, 1);
        }
    }
    strbuf_puts(out, "\"");
}

static void print_list(struct strbuf *out, const struct settings_list *list)
{
    strbuf_puts(out, "[");
    for (size_t i = 0; i < list->count; i++) {
        strbuf_puts(out, i == 0 ? " " : ", ");
        print_quoted(out, list->items[i]);
    }
    strbuf_puts(out, list->count == 0 ? "]" : " ]");
}

static void print_counts(struct strbuf *out, const struct settings_counts *counts)
{
    strbuf_puts(out, "{");
    for (size_t i = 0; i < counts->count; i++) {
        strbuf_puts(out, i == 0 ? " " : ", ");
        print_quoted(out, counts->items[i].name);
        strbuf_printf(out, ": %" PRId64, counts->items[i].number);
    }
    strbuf_puts(out, counts->count == 0 ? "}" : " }");
}

static void print_words(struct strbuf *out, const struct setting *row, int64_t mask)
{
    const char *separator = "[ ";
    for (size_t i = 0; row->words[i] != NULL; i++) {
        if ((mask >> i & 1) != 0) {
            strbuf_printf(out, "%s%s", separator, row->words[i]);
            separator = ", ";
        }
    }
    strbuf_puts(out, " ]");
}

static void print_address(struct strbuf *out, const char *host, int64_t port)
{
    if (port == 0) {
        strbuf_puts(out, "\"\"");
    } else if (strchr(host, ':') != NULL) {
        strbuf_printf(out, "\"[%s]:%" PRId64 "\"", host, port);
    } else {
        strbuf_printf(out, "\"%s:%" PRId64 "\"", host, port);
    }
}

static int64_t read_number(const void *field, size_t size)
{
    if (size == sizeof(int64_t)) {
        int64_t number = 0;
        memcpy(&number, field, sizeof number);
        return number;
    }
    unsigned word = 0;
    memcpy(&word, field, sizeof word);
    return word;
}

static void print_value(struct strbuf *out, const void *target, const struct setting *row)
{
    const void *field = (const char *)target + row->offset;
    char unit[UNIT_TEXT_SIZE];
    const char *text = NULL;
    double ratio = 0;
    int64_t port = 0;
    switch (row->type) {
    case SETTING_STRING:
    case SETTING_TEXT:
    case SETTING_PATH:
    case SETTING_SECRET:
        memcpy(&text, field, sizeof text);
        print_quoted(out, text);
        break;
    case SETTING_ADDRESS:
        memcpy(&text, field, sizeof text);
        memcpy(&port, (const char *)target + row->port_offset, sizeof port);
        print_address(out, text, port);
        break;
    case SETTING_INTEGER:
        strbuf_printf(out, "%" PRId64, read_number(field, row->size));
        break;
    case SETTING_DURATION:
        strbuf_puts(out, unit_format_duration(read_number(field, row->size), unit));
        break;
    case SETTING_PERCENT:
        memcpy(&ratio, field, sizeof ratio);
        strbuf_puts(out, unit_format_percent(ratio, unit));
        break;
    case SETTING_BOOLEAN:
        strbuf_puts(out, *(const bool *)field ? "true" : "false");
        break;
    case SETTING_WORD:
        strbuf_puts(out, row->words[read_number(field, row->size)]);
        break;
    case SETTING_WORDS:
        print_words(out, row, read_number(field, row->size));
        break;
    case SETTING_LIST:
        print_list(out, field);
        break;
    case SETTING_COUNTS:
        print_counts(out, field);
        break;
    case SETTING_GATES:
        break;
    }
}

static bool gate_shows(const struct settings_gate *gate, enum gate_field field)
{
    return gates_has_field(gate->kind, field) && (field != GATE_FIELD_MAX || gate->has_max) &&
           (field != GATE_FIELD_MAX_INCREASE || gate->has_max_increase);
}

static void print_gate(struct strbuf *out, const struct settings_gate *gate)
{
    size_t count = 0;
    const struct setting *rows = gate_table(&count);
    char max[UNIT_TEXT_SIZE];
    const char *separator = "\n  - { ";
    for (size_t field = 0; field < count; field++) {
        if (!gate_shows(gate, (enum gate_field)field)) {
            continue;
        }
        strbuf_printf(out, "%s%s: ", separator, rows[field].name);
        separator = ", ";
        if (field == GATE_FIELD_METRIC) {
            strbuf_puts(out, gates_metric(gate->kind));
        } else if (field == GATE_FIELD_MAX) {
            strbuf_puts(out, gates_format_max(gate, max));
        } else {
            struct gate_draft draft = {.gate = *gate};
            print_value(out, &draft, &rows[field]);
        }
    }
    strbuf_puts(out, " }");
}

static void print_gates(struct strbuf *out, const struct settings *settings)
{
    for (size_t i = 0; i < settings->gate_count; i++) {
        print_gate(out, &settings->gates[i]);
    }
}

/* Opens the sections of `name` that `before`, the row above, did not have open; returns the depth. */
static int print_sections(struct strbuf *out, const char *before, const char *name)
{
    int depth = 0;
    bool same = true;
    const char *part = name;
    for (const char *dot = strchr(part, '.'); dot != NULL; dot = strchr(part, '.')) {
        size_t length = (size_t)(dot - name) + 1;
        same = same && strncmp(before, name, length) == 0;
        if (!same) {
            strbuf_printf(out, "%*s%.*s:\n", depth * 2, "", (int)(dot - part), part);
        }
        part = dot + 1;
        depth++;
    }
    return depth;
}

static const char *last_part(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot == NULL ? name : dot + 1;
}

char *settings_print(const struct settings *settings, struct error *error)
{
    struct strbuf out;
    strbuf_init(&out, PRINT_LIMIT);
    size_t count = 0;
    const struct setting *rows = settings_table(&count);
    const char *before = "";
    strbuf_printf(&out, "# %s, with defaults; secrets are not shown\n", settings->path);
    for (size_t i = 0; i < count; i++) {
        const struct setting *row = &rows[i];
        int depth = print_sections(&out, before, row->name);
        before = row->name;
        size_t start = out.length;
        if (row->type == SETTING_SECRET) {
            const char *secret = NULL;
            memcpy(&secret, (const char *)settings + row->offset, sizeof secret);
            strbuf_printf(&out, "%*s# %s: %s\n", depth * 2, "", last_part(row->name),
                          secret[0] == '\0' ? "none" : "********");
            continue;
        }
        strbuf_printf(&out, "%*s%s: ", depth * 2, "", last_part(row->name));
        if (row->type != SETTING_GATES) {
            print_value(&out, settings, row);
        }
        int width = (int)(out.length - start);
        strbuf_printf(&out, "%*s # %s", width < DOC_COLUMN ? DOC_COLUMN - width : 0, "", row->doc);
        if (row->type == SETTING_GATES) {
            print_gates(&out, settings);
        }
        strbuf_puts(&out, "\n");
    }
    char *text = strbuf_take(&out);
    if (text == NULL) {
        (void)error_set(error, ERROR_MEMORY, "the configuration is too large to print");
    }
    return text;
}

/* What a file holds is part of the setting that names it. */
static bool files_differ(const struct settings *old, const struct settings *new, const struct setting *row)
{
    const struct settings_auth *a = &old->auth, *b = &new->auth;
    if (row->offset == offsetof(struct settings, auth.hba_file)) {
        return old->auth_method == new->auth_method && !hba_same_rules(a->hba, b->hba);
    }
    if (row->offset == offsetof(struct settings, auth.ident_file)) {
        return !hba_same_maps(a->hba, b->hba);
    }
    return row->offset == offsetof(struct settings, auth.verifier_file) &&
           !userlist_same(a->userlist, b->userlist);
}

static bool differ(const struct settings *old, const struct settings *new, const struct setting *row,
                   bool *different)
{
    struct strbuf a, b;
    strbuf_init(&a, PRINT_LIMIT);
    strbuf_init(&b, PRINT_LIMIT);
    if (row->type == SETTING_GATES) {
        print_gates(&a, old);
        print_gates(&b, new);
    } else {
        print_value(&a, old, row);
        print_value(&b, new, row);
    }
    bool ok = !a.failed && !b.failed;
    *different = strcmp(strbuf_text(&a), strbuf_text(&b)) != 0 || files_differ(old, new, row);
    if (row->type == SETTING_SECRET) {
        explicit_bzero(a.data, a.length);
        explicit_bzero(b.data, b.length);
    }
    strbuf_deinit(&a);
    strbuf_deinit(&b);
    return ok;
}

bool settings_compare(const struct settings *old, const struct settings *new, struct settings_list *changed,
                      struct settings_list *restart, struct error *error)
{
    *changed = (struct settings_list){.items = NULL};
    *restart = (struct settings_list){.items = NULL};
    size_t count = 0;
    const struct setting *rows = settings_table(&count);
    for (size_t i = 0; i < count; i++) {
        bool different = false;
        if (!differ(old, new, &rows[i], &different) ||
            (different && !settings_list_add(rows[i].reloadable ? changed : restart, rows[i].name))) {
            settings_list_deinit(changed);
            settings_list_deinit(restart);
            return error_set(error, ERROR_MEMORY, "out of memory");
        }
    }
    return true;
}
