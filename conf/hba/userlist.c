#include "conf/hba/userlist.h"

#include "conf/base/ensure.h"

#include <ctype.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { MD5_TEXT_LENGTH = 35, ROLE_LIMIT = 63, VERIFIER_LIMIT = 255, ROLES_LIMIT = 100000 };

struct user {
    char *role, *verifier;
    int line;
};

struct userlist {
    atomic_uint references;
    struct user *users; /* sorted by role */
    size_t count, md5_count, capacity;
    uint32_t iterations; /* what most of the SCRAM verifiers have, if there is such a most */
    size_t votes;        /* for it, those for others taken away */
};

static void userlist_free(struct userlist *list)
{
    for (size_t i = 0; i < list->count; i++) {
        explicit_bzero(list->users[i].verifier, strlen(list->users[i].verifier));
        free(list->users[i].verifier);
        free(list->users[i].role);
    }
    free(list->users);
    free(list);
}

struct userlist *userlist_ref(struct userlist *list)
{
    if (list != NULL) {
        atomic_fetch_add_explicit(&list->references, 1, memory_order_relaxed);
    }
    return list;
}

void userlist_unref(struct userlist *list)
{
    if (list != NULL && atomic_fetch_sub_explicit(&list->references, 1, memory_order_acq_rel) == 1) {
        userlist_free(list);
    }
}

/* --- parsing --- */

/* Takes "text" with its quotes into out; NULL if it isn't one, else what follows. */
static const char *take_quoted(const char *at, const char *end, struct strbuf *out)
{
    strbuf_clear(out);
    if (at == end || *at != '"') {
        return NULL;
    }
    for (at++; at < end; at++) {
        if (*at != '"') {
            strbuf_append(out, at, 1);
        } else if (at + 1 < end && at[1] == '"') {
            strbuf_append(out, at++, 1);
        } else {
            return out->failed ? NULL : at + 1;
        }
    }
    return NULL;
}

static const char *skip_blanks(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\t')) {
        at++;
    }
    return at;
}

static bool is_md5(const char *text)
{
    if (strlen(text) != MD5_TEXT_LENGTH || strncmp(text, "md5", 3) != 0) {
        return false;
    }
    for (const char *at = text + 3; *at != '\0'; at++) {
        if (!isdigit((unsigned char)*at) && (*at < 'a' || *at > 'f')) {
            return false;
        }
    }
    return true;
}

static const char scheme[] = "SCRAM-SHA-256$";

/* SCRAM-SHA-256$iterations:salt$stored:server; the login decodes it. */
static bool is_scram(const char *text)
{
    if (strncmp(text, scheme, sizeof scheme - 1) != 0) {
        return false;
    }
    const char *salt = strchr(text, ':');
    const char *stored = salt == NULL ? NULL : strchr(salt, '$');
    return stored != NULL && strchr(stored, ':') != NULL;
}

/* The majority's vote (Boyer and Moore): one pass finds it. */
static void count_iterations(struct userlist *list, const char *verifier)
{
    if (!is_scram(verifier)) {
        return;
    }
    unsigned long iterations = strtoul(verifier + sizeof scheme - 1, NULL, 10);
    if (iterations == 0 || iterations > INT32_MAX) {
        return;
    }
    if (list->votes == 0) {
        list->iterations = (uint32_t)iterations;
    }
    list->votes = iterations == list->iterations ? list->votes + 1 : list->votes - 1;
}

static void add_user(struct userlist *list, const char *role, const char *verifier, int line)
{
    if (list->count == list->capacity) {
        list->capacity = list->capacity == 0 ? 16 : list->capacity * 2;
        list->users = realloc(list->users, list->capacity * sizeof *list->users);
        ENSURE(list->users != NULL);
    }
    struct user *user = &list->users[list->count++];
    *user = (struct user){.role = strdup(role), .verifier = strdup(verifier), .line = line};
    ENSURE(user->role != NULL && user->verifier != NULL);
    list->md5_count += is_md5(verifier) ? 1 : 0;
    count_iterations(list, verifier);
}

static void check_and_add(struct userlist *list, const char *path, int line, const struct strbuf *role,
                          const struct strbuf *verifier, struct hba_problems *problems)
{
    const char *text = strbuf_text(verifier);
    if (role->length == 0 || role->length > ROLE_LIMIT || strlen(strbuf_text(role)) != role->length) {
        hba_problem(problems, path, line, "a role has 1 to %d bytes", ROLE_LIMIT);
    } else if (verifier->length > VERIFIER_LIMIT || strlen(text) != verifier->length) {
        hba_problem(problems, path, line, "the verifier is too long");
    } else if (text[0] != '\0' && !is_md5(text) && !is_scram(text)) {
        hba_problem(problems, path, line,
                    "expected SCRAM-SHA-256$... or md5... as pg_authid.rolpassword holds it; passwords in "
                    "plain text are not supported");
    } else if (list->count == ROLES_LIMIT) {
        hba_problem(problems, path, line, "more than %d roles", ROLES_LIMIT);
    } else {
        add_user(list, strbuf_text(role), text, line);
    }
}

struct draft {
    struct strbuf role, verifier;
};

static void parse_line(struct userlist *list, const char *path, int line, const char *at, const char *end,
                       struct draft *draft, struct hba_problems *problems)
{
    at = skip_blanks(at, end);
    if (at == end || *at == ';' || *at == '#' || *at == '\r') {
        return;
    }
    at = take_quoted(at, end, &draft->role);
    at = at == NULL ? NULL : take_quoted(skip_blanks(at, end), end, &draft->verifier);
    if (at == NULL) { /* what follows the two is ignored, as PgBouncer does */
        hba_problem(problems, path, line, "expected \"role\" \"verifier\"");
        return;
    }
    check_and_add(list, path, line, &draft->role, &draft->verifier, problems);
}

static void parse_lines(struct userlist *list, const char *path, const struct strbuf *text,
                        struct hba_problems *problems)
{
    const char *at = strbuf_text(text), *end = at + text->length;
    struct draft draft;
    strbuf_init(&draft.role, HBA_FILE_LIMIT);
    strbuf_init(&draft.verifier, HBA_FILE_LIMIT);
    for (int line = 1; at < end; line++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        stop = stop == NULL ? end : stop;
        parse_line(list, path, line, at, stop, &draft, problems);
        at = stop + 1;
    }
    if (draft.verifier.data != NULL) {
        explicit_bzero(draft.verifier.data, draft.verifier.capacity);
    }
    strbuf_deinit(&draft.role);
    strbuf_deinit(&draft.verifier);
}

static int compare_users(const void *left, const void *right)
{
    const struct user *a = left, *b = right;
    int order = strcmp(a->role, b->role);
    return order != 0 ? order : (a->line > b->line) - (a->line < b->line);
}

static void check_twice(const struct userlist *list, const char *path, struct hba_problems *problems)
{
    for (size_t i = 1; i < list->count; i++) {
        if (strcmp(list->users[i - 1].role, list->users[i].role) == 0) {
            hba_problem(problems, path, list->users[i].line, "\"%s\" stands in line %d already",
                        list->users[i].role, list->users[i - 1].line);
        }
    }
}

struct userlist *userlist_load(const struct hba_source *source, const char *path,
                               struct hba_problems *problems)
{
    struct strbuf text;
    const char *why = "";
    size_t before = problems->count;
    struct userlist *list = calloc(1, sizeof *list);
    ENSURE(list != NULL);
    atomic_init(&list->references, 1);
    strbuf_init(&text, (size_t)16 * HBA_FILE_LIMIT);
    if (source->read(source->context, path, &text, &why) != HBA_READ_DONE) {
        hba_problem(problems, path, 0, "can't be read: %s", why);
    } else {
        parse_lines(list, path, &text, problems);
        if (list->count > 0) {
            qsort(list->users, list->count, sizeof *list->users, compare_users);
        }
        check_twice(list, path, problems);
    }
    if (text.data != NULL) {
        explicit_bzero(text.data, text.capacity);
    }
    strbuf_deinit(&text);
    if (problems->count > before) {
        userlist_free(list);
        return NULL;
    }
    return list;
}

/* --- asking --- */

const char *userlist_find(const struct userlist *list, const char *role)
{
    size_t low = 0, high = list->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(role, list->users[middle].role);
        if (order == 0) {
            return list->users[middle].verifier;
        }
        if (order < 0) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return NULL;
}

bool userlist_same(const struct userlist *a, const struct userlist *b)
{
    if (a == NULL || b == NULL || a->count != b->count) {
        return a == b;
    }
    for (size_t i = 0; i < a->count; i++) {
        if (strcmp(a->users[i].role, b->users[i].role) != 0 ||
            strcmp(a->users[i].verifier, b->users[i].verifier) != 0) {
            return false;
        }
    }
    return true;
}

bool userlist_is_md5(const struct userlist *list)
{
    return list->md5_count * 2 > list->count;
}

uint32_t userlist_iterations(const struct userlist *list)
{
    return list->iterations;
}
