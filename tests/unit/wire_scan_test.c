/* proxy/wire/scan: which names and hints come out of a text, however it is split. */
#include "proxy/wire/glance.h"
#include "proxy/wire/scan.h"

#include "guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct {
    const char *sql;
    const char *names; /* found, separated by blanks; each once */
    uint32_t flags;    /* at least these */
} cases[] = {
    {"select 1", "", 0},
    {"set app.tenant = 'x'", "app.tenant", 0},
    {"SET App.Tenant TO 5", "app.tenant", 0},
    {"set session app.a = 1", "app.a", 0},
    {"SET LOCAL app.a TO DEFAULT", "app.a", 0},
    {"set app.a.b = 1", "app.a.b", 0},
    {"set \"my\".\"x\" = 1", "my.x", 0},
    {"set \"my.x\" = 1", "my.x", 0},
    {"set app . a = 1", "app.a", 0},
    {"set app.a=1;set app.b=2", "app.a app.b", 0},
    {"set search_path = a.b", "", 0},
    {"begin; set app.a = 1; commit", "app.a", 0},
    {"set/**/app.a = 1", "app.a", 0},
    {"set /* one /* two */ three */ app.a = 1", "app.a", 0},
    {"set -- why\n app.a = 1", "app.a", 0},
    {"set/*'*/app.a = 1", "app.a", 0},
    {"select '--', set_config('app.a', '1', false)", "app.a", SCAN_SETTING},
    {"select '/*', set_config('app.a', '1', false)", "app.a", SCAN_SETTING},
    {"select \"--\", set_config('app.a', '1', false)", "app.a", SCAN_SETTING},
    {"select pg_catalog.set_config ( 'App.A' , $1, true)", "app.a", SCAN_SETTING},
    {"select set_config(E'app.a', '1', false)", "app.a", SCAN_SETTING},
    {"select E'it\\'s --', set_config('app.a', '1', false)", "app.a", SCAN_SETTING},
    {"select 'it''s --', set_config('app.a', '1', false)", "app.a", SCAN_SETTING},
    {"select set_config($$app.a$$, '1', false)", "app.a", SCAN_SETTING},
    {"select set_config($1, $2, false)", "", SCAN_SETTING | SCAN_PARAMETER},
    {"select set_config($1::text, $2, false)", "", SCAN_SETTING | SCAN_PARAMETER},
    {"select set_config('app.' || $1, $2, false)", "", SCAN_SETTING | SCAN_COMPUTED},
    {"select set_config('app.a' || x, $2, false)", "", SCAN_SETTING | SCAN_COMPUTED},
    {"select set_config(name, value, false) from t", "", SCAN_SETTING | SCAN_COMPUTED},
    {"select set_config(lower($1), $2, false)", "", SCAN_SETTING | SCAN_COMPUTED},
    {"select set_config('search_path', '', false)", "search_path", SCAN_SETTING},
    {"do $$ begin perform set_config('app.a', '1', false); set app.b = 2; end $$", "app.a app.b",
     SCAN_SETTING},
    {"do $x$ -- don't\n begin set app.b = '$$'; end $x$; set app.c = 1", "app.b app.c", 0},
    {"do $$ begin execute 'set app.a = 1'; end $$", "app.a", 0},
    {"do 'begin execute ''set app.a = 1''; end'", "app.a", 0},
    {"do 'begin perform set_config(''app.a'', ''1'', false); end'", "app.a", SCAN_SETTING},
    {"prepare p as select set_config('app.a', $1, false)", "app.a", SCAN_SETTING},
    {"prepare p as select 1; select 2", "", SCAN_PREPARE},
    {"begin; prepare p as select 1", "", SCAN_PREPARE},
    {"reset App.a; reset \"b\".c", "app.a b.c", SCAN_SET},
    {"reset session authorization", "", SCAN_SET},
    {"set a = 1", "", SCAN_SET},
    {"begin; set session a = 1", "", SCAN_SET},
    {"/* set local */ set /* local */ a = 1", "", SCAN_SET},
    {"reset all", "", SCAN_SET},
    {"select pg_advisory_lock(1)", "", SCAN_ADVISORY},
    {"select pg_try_advisory_lock_shared(1, 2)", "", SCAN_ADVISORY},
    {"create temp table t(a int)", "", SCAN_TEMPORARY},
    {"CREATE TEMPORARY VIEW v AS SELECT 1", "", SCAN_TEMPORARY},
    {"select 1 into pg_temp.x", "", SCAN_TEMPORARY},
    {"declare c cursor with hold for select 1", "", SCAN_HOLD},
    {"listen x", "", SCAN_LISTEN},
    {"unlisten *", "", SCAN_LISTEN},
    {"deallocate all", "", SCAN_DEALLOCATE},
    {"discard all", "", SCAN_DISCARD},
    {"set role none", "", SCAN_AUTHORIZATION},
    {"Commit", "", SCAN_ENDS},
    {"/* a */ end;", "", SCAN_ENDS},
    {"insert into t values (1); commit and chain", "", SCAN_ENDS},
    {"rollback", "", SCAN_ENDS},
    {"abort", "", SCAN_ENDS},
    {"prepare transaction 'x'", "", SCAN_ENDS},
    {"SET synchronous_commit = off", "", SCAN_UNSYNC},
    {"set session synchronous_commit to 'Local'", "", SCAN_UNSYNC},
    {"set local synchronous_commit=remote_write", "", SCAN_UNSYNC_LOCAL},
    {"set synchronous_commit to on", "", SCAN_SYNC},
    {"set synchronous_commit = off; set synchronous_commit = remote_apply", "", SCAN_SYNC},
    {"reset synchronous_commit", "", SCAN_SYNC},
    {"reset all", "", SCAN_SYNC},
    {"select set_config('synchronous_commit', 'off', false)", "synchronous_commit", SCAN_UNSYNC},
    {"select set_config('synchronous_commit', $1, false)", "synchronous_commit", SCAN_UNSYNC},
    {"alter role app set synchronous_commit = off", "", SCAN_UNSYNC},
    {"create function f() returns void set synchronous_commit = off language sql as ''", "", SCAN_UNSYNC},
    {"set session authorization x", "", SCAN_AUTHORIZATION},
    {"update t set a = 1, b = c.d", "", 0},
};

struct names {
    char text[512];
};

/* Two matchers may find the same name: a list of each once. */
static void found(void *context, const char *name)
{
    struct names *names = context;
    char *rest = NULL;
    char copy[512];
    memcpy(copy, names->text, sizeof copy);
    for (char *word = strtok_r(copy, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest)) {
        if (strcmp(word, name) == 0) {
            return;
        }
    }
    size_t length = strlen(names->text);
    snprintf(names->text + length, sizeof names->text - length, "%s%s", length > 0 ? " " : "", name);
}

static void split_at_any_byte(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        size_t length = strlen(cases[i].sql);
        for (size_t split = 0; split <= length; split++) {
            struct names names = {.text = ""};
            struct scan scan;
            scan_begin(&scan, found, &names);
            scan_text(&scan, slice_of(cases[i].sql, split));
            scan_text(&scan, slice_of(cases[i].sql + split, length - split));
            uint32_t flags = scan_end(&scan);
            bool confused = (flags & SCAN_SYNC) != 0 && (flags & (SCAN_UNSYNC | SCAN_UNSYNC_LOCAL)) != 0;
            if (strcmp(names.text, cases[i].names) != 0 || (flags & cases[i].flags) != cases[i].flags ||
                confused) {
                fail_msg("%s (split at %zu): found \"%s\", flags %x", cases[i].sql, split, names.text, flags);
            }
        }
    }
}

static void ordinary_text_hints_at_nothing(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "update pgbench_accounts set abalance = abalance + 1 where aid = 7",
        "insert into orders (id, note) values ($1, $2) returning id",
        "begin; set local a = 1; set transaction read only; set constraints all deferred",
        "select case when a then b else c end from t",
        "show synchronous_commit",
        "select current_setting('synchronous_commit')",
        "update t set a = current_setting('synchronous_commit') where b = 1",
        "select hold, temp, prepare from t where pg_try_advisory_xact_lock(1) and pg_advisory_unlock(2)",
        "select a.b, '$1' from x a where c ->> 'k' = 'v' and d / 2 - 1 > 0",
    };
    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
        struct names names = {.text = ""};
        struct scan scan;
        scan_begin(&scan, found, &names);
        scan_text(&scan, slice_text(texts[i]));
        assert_int_equal(scan_end(&scan), 0);
        assert_string_equal(names.text, "");
    }
}

static void names_in_parameters(void **state)
{
    (void)state;
    char name[SCAN_NAME_SIZE];
    assert_true(scan_is_custom_name(slice_text("App.Tenant"), name));
    assert_string_equal(name, "app.tenant");
    assert_true(scan_is_custom_name(slice_text("a.b.c"), name));
    assert_false(scan_is_custom_name(slice_text("timezone"), name));
    assert_false(scan_is_custom_name(slice_text("a b.c"), name));
    assert_false(scan_is_custom_name(slice_text(".ab"), name));
    assert_false(scan_is_custom_name(slice_text("ab."), name));
    assert_false(scan_is_custom_name(slice_text("a..b"), name));
    assert_false(scan_is_custom_name(slice_text("1.5"), name));
    assert_false(scan_is_custom_name(slice_text("anna@x.y"), name));
    assert_false(scan_is_custom_name(slice_text(""), name));
}

static void long_names_are_dropped(void **state)
{
    (void)state;
    struct names names = {.text = ""};
    struct scan scan;
    scan_begin(&scan, found, &names);
    scan_text(&scan, slice_text("set a"));
    for (int i = 0; i < 5000; i++) {
        scan_text(
            &scan,
            slice_text(".aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
    }
    scan_text(&scan, slice_text(" = 1; set a.b = 1"));
    (void)scan_end(&scan);
    assert_string_equal(names.text, "a.b");
}

/* The glance must see whatever the scan would find; and most texts must be dull to it, or it is for nothing.
 */
static void a_glance_hides_nothing(void **state)
{
    (void)state;
    static const char *const dull[] = {
        "",
        "SELECT abalance FROM pgbench_accounts WHERE aid = 4711;",
        "insert into orders (id, note) values ($1, $12) returning id",
        "select a.b, '$1' from x a where c ->> 'k' = 'v' and d / 2 - 1 > 0 -- sets, ends, rolled",
        "BEGIN",
        "select resets, commits, tempo, \"holds\" from offset_listen where \xc3\xa9set = 1 and set_ = 2",
        "select 1 where _set = 3",
    };
    for (size_t i = 0; i < ARRAY_LENGTH(dull); i++) {
        assert_true(glance_is_dull(slice_of(dull[i], strlen(dull[i]) + 1)));
    }
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        if (cases[i].flags != 0 || cases[i].names[0] != '\0') {
            assert_false(glance_is_dull(slice_of(cases[i].sql, strlen(cases[i].sql) + 1)));
        }
    }
    static const char *const words[] = {
        "SET",
        "set_config(",
        "set",
        "E'",
        "'",
        "\"",
        "$$",
        "$x",
        "$1",
        "--",
        "/*",
        "*/",
        "\n",
        "\\",
        "\\x",
        "a.b",
        ".",
        ";",
        "=",
        " ",
        " ",
        " ",
        "local ",
        "commit",
        "end",
        "role",
        "hold",
        "with ",
        "create ",
        "temp ",
        "temporary",
        "pg_temp",
        "prepare",
        "transaction",
        "abort",
        "listen",
        "unlisten",
        "deallocate",
        "discard",
        "rollback",
        "reset ",
        "pg_advisory_lock",
        "session ",
        "synchronous_commit",
        "off",
        "authorization",
        "x",
        "\xff",
        "9",
        "into ",
        "aaaaaaaaaaaa",
    };
    uint64_t seed = 11;
    for (int round = 0; round < 50000; round++) {
        char text[512] = "";
        size_t length = 0;
        for (uint64_t i = random_next(&seed) % 12; i > 0; i--) {
            const char *word = words[random_next(&seed) % ARRAY_LENGTH(words)];
            length += (size_t)snprintf(text + length, sizeof text - length, "%s", word);
        }
        struct names names = {.text = ""};
        struct scan scan;
        scan_begin(&scan, found, &names);
        scan_text(&scan, slice_of(text, length));
        if (scan_end(&scan) != 0 || names.text[0] != '\0') {
            assert_false(glance_is_dull(slice_of(text, length)));
            assert_false(glance_is_dull(slice_of(text, length + 1)));
        }
    }
}

static void random_bytes_are_survived(void **state)
{
    (void)state;
    static const char *const words[] = {"set ", "set_config(", "'",  "\"",  "$$",    "$x$", "--",
                                        "/*",   "*/",          "\n", "a.b", "E'\\'", "$1",  ".",
                                        "(",    ",",           "=",  " ",   "local", "\xff"};
    uint64_t seed = 5;
    for (int round = 0; round < 20000; round++) {
        struct names names = {.text = ""};
        struct scan scan;
        scan_begin(&scan, found, &names);
        for (uint64_t i = random_next(&seed) % 30; i > 0; i--) {
            scan_text(&scan, slice_text(words[random_next(&seed) % ARRAY_LENGTH(words)]));
        }
        (void)scan_end(&scan);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(split_at_any_byte),      cmocka_unit_test(ordinary_text_hints_at_nothing),
        cmocka_unit_test(names_in_parameters),    cmocka_unit_test(long_names_are_dropped),
        cmocka_unit_test(a_glance_hides_nothing), cmocka_unit_test(random_bytes_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
