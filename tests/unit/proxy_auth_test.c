/* proxy: what a client has to prove, by rules and by method, against a scripted server. SCRAM itself is in
 * proxy_login_test. */
#include "tests/unit/proxy_world.h"

#include "conf/hba/lines.h"
#include "conf/hba/userlist.h"
#include "proxy/wire/md5.h"

#define STORED "md50123456789abcdef0123456789abcdef"
#define SCRAM_STORED                                                                                         \
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="               \
    ":wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="

static enum hba_read read_given(void *context, const char *path, struct strbuf *text, const char **why)
{
    (void)path;
    *why = "";
    strbuf_puts(text, context);
    return HBA_READ_DONE;
}

static void set_rules(struct world *world, const char *text)
{
    const struct hba_source source = {.read = read_given, .context = (void *)(uintptr_t)text};
    struct hba_problems problems;
    hba_problems_init(&problems);
    world->settings.auth_method = AUTH_HBA;
    world->settings.auth.hba = hba_load_from(&source, "hba", "", &problems);
    if (world->settings.auth.hba == NULL) {
        fail_msg("%s", strbuf_text(&problems.text));
    }
    hba_problems_deinit(&problems);
}

static void end_world(struct world *world)
{
    struct hba *hba = world->settings.auth.hba;
    struct userlist *list = world->settings.auth.userlist;
    world_free(world);
    hba_unref(hba);
    userlist_unref(list);
}

static int begin_as(struct world *world, const char *user)
{
    uint8_t packet[512];
    int client = client_connect(world);
    put(client, packet, startup_packet(packet, user, "app"));
    return client;
}

/* The salt of the request for md5. */
static void expect_md5(struct world *world, int client, uint8_t salt[MD5_SALT_SIZE])
{
    char body[64];
    assert_int_equal(expect_message(world, client, body, sizeof(body)), 'R');
    assert_memory_equal(body, "\0\0\0\x05", 4);
    memcpy(salt, body + 4, MD5_SALT_SIZE);
}

static void answer_md5(int client, const char *stored, const uint8_t salt[MD5_SALT_SIZE])
{
    char digits[MD5_DIGITS], answer[MD5_ANSWER_SIZE];
    uint8_t packet[64];
    struct build build;
    assert_true(md5_verifier_parse(stored, digits) && md5_answer(digits, salt, answer));
    build_init(&build, packet, sizeof(packet));
    build_password(&build, answer);
    put(client, packet, build.length);
}

static void an_md5_login_opens_the_server_too(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->settings.auth_method = AUTH_MD5;
    world->verifier = STORED;
    world_start(world);
    uint8_t salt[MD5_SALT_SIZE], packet[512];
    int client = client_connect(world);
    client_startup(client);
    expect_md5(world, client, salt);
    answer_md5(client, STORED, salt);
    int server = server_accept_login(world, SIDE_BLUE);
    expect(world, server, packet, startup_packet_of(packet, STARTUP_PROTOCOL_3_2, "joe", "app"));
    put(server, BYTES("R\0\0\0\x0c\0\0\0\x05\x09\x08\x07\x06"));
    char digits[MD5_DIGITS], answer[MD5_ANSWER_SIZE], body[64];
    assert_true(md5_verifier_parse(STORED, digits));
    assert_true(md5_answer(digits, (const uint8_t *)"\x09\x08\x07\x06", answer));
    assert_int_equal(expect_message(world, server, body, sizeof(body)), 'p');
    assert_string_equal(body, answer);
    server_greet(server);
    client_greeted(world, client, NULL);
    (void)close(client);
    (void)close(server);
    end_world(world);
}

static void wrong_md5_answers_and_unknown_users_look_alike(void **state)
{
    (void)state;
    for (int known = 0; known < 2; known++) {
        struct world *world = world_new();
        world->settings.auth_method = AUTH_MD5;
        world->verifier = known ? STORED : NULL;
        world->md5 = true;
        world_start(world);
        uint8_t salt[MD5_SALT_SIZE];
        int client = client_connect(world);
        client_startup(client);
        expect_md5(world, client, salt);
        answer_md5(client, "md5fedcba9876543210fedcba9876543210", salt);
        expect_error(world, client, "28P01");
        expect_end(world, client);
        (void)close(client);
        client = client_connect(world);
        client_startup(client);
        expect_md5(world, client, salt);
        put(client, BYTES("p\0\0\0\x08zero")); /* without its NUL */
        expect_error(world, client, "08P01");
        (void)close(client);
        end_world(world);
    }
}

/* As PostgreSQL does: the password's kind decides under md5, and only under md5. */
static void the_stored_kind_decides_under_md5(void **state)
{
    (void)state;
    static const struct {
        enum auth_method method;
        const char *verifier;
        bool encryption_is_md5, asked_md5;
    } cases[] = {
        {AUTH_MD5, SCRAM_STORED, true, false},
        {AUTH_MD5, STORED, false, true},
        {AUTH_MD5, NULL, false, false},
        {AUTH_MD5, NULL, true, true},
        {AUTH_SCRAM_SHA_256, STORED, true, false},
        {AUTH_SCRAM_SHA_256, NULL, true, false},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        struct world *world = world_new();
        world->settings.auth_method = cases[i].method;
        world->verifier = cases[i].verifier;
        world->md5 = cases[i].encryption_is_md5;
        world_start(world);
        uint8_t salt[MD5_SALT_SIZE];
        int client = client_connect(world);
        client_startup(client);
        if (cases[i].asked_md5) {
            expect_md5(world, client, salt);
        } else {
            expect(world, client, BYTES("R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0"));
        }
        (void)close(client);
        end_world(world);
    }
}

static void rules_decide_who_proves_what(void **state)
{
    (void)state;
    struct world *world = world_new();
    set_rules(world, "host all bad  all reject\n"
                     "host app joe  127.0.0.0/8 trust\n"
                     "host all ann  all scram-sha-256\n"
                     "hostssl all zoe all trust\n");
    world_start(world);
    int client = client_connect(world);
    client_startup(client);
    int server = server_login(world, SIDE_BLUE);
    client_greeted(world, client, NULL);
    (void)close(client);
    (void)close(server);
    client = begin_as(world, "ann");
    expect(world, client, BYTES("R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0"));
    (void)close(client);
    static const char *const refused[] = {"bad", "zoe", "eve"};
    for (size_t i = 0; i < ARRAY_LENGTH(refused); i++) {
        client = begin_as(world, refused[i]);
        expect_error(world, client, "28000");
        expect_end(world, client);
        (void)close(client);
    }
    end_world(world);
}

static void groups_are_asked_for_before_a_rule_speaks_of_them(void **state)
{
    (void)state;
    for (int blocked = 0; blocked < 2; blocked++) {
        struct world *world = world_new();
        world->group = blocked ? "blocked" : "others";
        set_rules(world, "host all +blocked all reject\nhost all all all trust\n");
        world_start(world);
        int client = client_connect(world);
        client_startup(client);
        if (blocked) {
            expect_error(world, client, "28000");
        } else {
            int server = server_login(world, SIDE_BLUE);
            client_greeted(world, client, NULL);
            (void)close(server);
        }
        (void)close(client);
        end_world(world);
    }
}

/* The server cuts names at 63 bytes: a rule for the short one is not to be passed by with a longer one. */
static void long_names_are_cut_as_the_server_does(void **state)
{
    (void)state;
    struct world *world = world_new();
    char rules[200], name[80], cut[64];
    memset(name, 'a', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    (void)snprintf(cut, sizeof(cut), "%.63s", name);
    (void)snprintf(rules, sizeof(rules), "host all %s all reject\nhost all all all trust\n", cut);
    set_rules(world, rules);
    world_start(world);
    int client = begin_as(world, name);
    expect_error(world, client, "28000");
    (void)close(client);
    end_world(world);
}

/* The server takes the last of what is said twice; what rules and policies judge must be the same. */
static void what_is_said_twice_counts_as_for_the_server(void **state)
{
    (void)state;
    static const struct {
        const char *parameters; /* separated by "|" */
        const char *sqlstate;   /* NULL: the server is asked */
    } cases[] = {
        {"user|bad|user|joe|database|app", NULL},
        {"user|joe|user|bad|database|app", "28000"},
        {"user|joe|database|other|database|app", NULL},
        {"user|joe|database|app|database|other", "3D000"},
        {"user|joe|database|app|database|", "3D000"},          /* the default: joe */
        {"user|joe|database|other|replication|true", "28000"}, /* no rule says replication */
        {"user|joe|database|other|replication|database", "3D000"},
        {"user|joe|database|other|replication|database|replication|true", "3D000"}, /* still a database's */
        {"user|joe|database|app|replication|database|replication|true", NULL},
    };
    struct world *world = world_new();
    set_rules(world, "host all bad all reject\nhost all all all trust\n");
    world_start(world);
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        uint8_t packet[512];
        char text[200];
        struct build build;
        (void)snprintf(text, sizeof(text), "%s", cases[i].parameters);
        build_init(&build, packet, sizeof(packet));
        build_startup_begin(&build, STARTUP_PROTOCOL_3_0);
        char *rest = text;
        while (rest != NULL) {
            const char *name = strsep(&rest, "|");
            const char *value = strsep(&rest, "|");
            build_startup_parameter(&build, slice_text(name), slice_text(value));
        }
        build_startup_end(&build);
        int client = client_connect(world);
        put(client, packet, build.length);
        if (cases[i].sqlstate != NULL) {
            expect_error(world, client, cases[i].sqlstate);
        } else {
            int server = server_accept_login(world, SIDE_BLUE);
            server_greet(server);
            client_greeted(world, client, NULL);
            (void)close(server);
        }
        (void)close(client);
    }
    end_world(world);
}

/* A client may send its answer before it is asked: it isn't left waiting. */
static void what_comes_before_the_question_is_not_forgotten(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->settings.auth_method = AUTH_MD5;
    world->verifier = STORED;
    world_start(world);
    uint8_t bytes[600], salt[MD5_SALT_SIZE];
    size_t length = startup_packet(bytes, "joe", "app");
    memcpy(bytes + length, "p\0\0\0\x0aguess", 11);
    int client = client_connect(world);
    put(client, bytes, length + 11);
    expect_md5(world, client, salt);
    expect_error(world, client, "28P01");
    (void)close(client);
    end_world(world);
}

/* As of an auth.query that fails for a name: that is no reason to refuse others at once. */
static void an_error_instead_of_a_role_leaves_the_side_up(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->settings.auth_method = AUTH_MD5;
    world->verifier = STORED;
    world_start(world);
    world->refuses = true;
    for (int i = 0; i < 5; i++) {
        int client = begin_as(world, "strange");
        expect_error(world, client, "57P03");
        (void)close(client);
    }
    world->refuses = false;
    uint8_t salt[MD5_SALT_SIZE];
    int client = begin_as(world, "joe");
    expect_md5(world, client, salt);
    (void)close(client);
    end_world(world);
}

/* One that isn't in the list must look like those that are. */
static void unknown_roles_are_told_the_iterations_of_the_list(void **state)
{
    (void)state;
    struct hba_problems problems;
    const struct hba_source source = {
        .read = read_given,
        .context = "\"a\" \"SCRAM-SHA-256$4096:YQ==$b:c\"\n\"b\" \"SCRAM-SHA-256$12000:YQ==$b:c\"\n"
                   "\"c\" \"SCRAM-SHA-256$12000:YQ==$b:c\"\n"};
    struct world *world = world_new();
    hba_problems_init(&problems);
    world->settings.auth_method = AUTH_SCRAM_SHA_256;
    world->settings.auth.userlist = userlist_load(&source, "users", &problems);
    assert_non_null(world->settings.auth.userlist);
    hba_problems_deinit(&problems);
    world_start(world);
    int client = begin_as(world, "nobody");
    expect(world, client, BYTES("R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0"));
    put(client, BYTES("p\0\0\0\x21SCRAM-SHA-256\0\0\0\0\x0bn,,n=,r=abc"));
    char body[256] = "";
    assert_int_equal(expect_message(world, client, body, sizeof(body) - 1), 'R');
    assert_non_null(strstr(body + 4, ",i=12000"));
    (void)close(client);
    end_world(world);
}

/* Else who knows his own password could come in as anybody, where the server trusts the proxy. */
static void an_answer_for_an_earlier_session_is_not_taken(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->settings.auth_method = AUTH_MD5;
    world->verifier = STORED;
    world->stray = "md5fedcba9876543210fedcba9876543210";
    world_start(world);
    uint8_t salt[MD5_SALT_SIZE];
    int client = client_connect(world);
    client_startup(client);
    expect_md5(world, client, salt);
    answer_md5(client, STORED, salt);
    int server = server_login(world, SIDE_BLUE);
    client_greeted(world, client, NULL);
    (void)close(client);
    (void)close(server);
    end_world(world);
}

static void a_list_of_verifiers_is_asked_instead(void **state)
{
    (void)state;
    struct hba_problems problems;
    const struct hba_source source = {.read = read_given,
                                      .context = "\"joe\" \"" STORED "\"\n\"out\" \"\"\n"};
    struct world *world = world_new();
    hba_problems_init(&problems);
    world->settings.auth_method = AUTH_MD5;
    world->settings.auth.userlist = userlist_load(&source, "users", &problems);
    assert_non_null(world->settings.auth.userlist);
    hba_problems_deinit(&problems);
    world->verifier = "md5fedcba9876543210fedcba9876543210"; /* what the side would say */
    world_start(world);
    uint8_t salt[MD5_SALT_SIZE];
    int client = client_connect(world);
    client_startup(client);
    expect_md5(world, client, salt);
    answer_md5(client, STORED, salt);
    int server = server_login(world, SIDE_BLUE);
    client_greeted(world, client, NULL);
    (void)close(client);
    (void)close(server);
    static const char *const refused[] = {"out", "nobody"};
    for (size_t i = 0; i < ARRAY_LENGTH(refused); i++) { /* no password lets them in, as of the list's kind */
        client = begin_as(world, refused[i]);
        expect(world, client, BYTES("R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0"));
        (void)close(client);
    }
    end_world(world);
}

static void too_many_wrong_passwords_end_it(void **state)
{
    (void)state;
    struct world *world = world_new();
    world->settings.auth_method = AUTH_MD5;
    world->settings.auth.failed_logins_max = 3;
    world->settings.auth.failed_logins_window_us = INT64_C(3600000000);
    world->settings.auth.failed_logins_local = true;
    world->verifier = STORED;
    world_start(world);
    uint8_t salt[MD5_SALT_SIZE], late_salt[MD5_SALT_SIZE];
    int late = client_connect(world);
    client_startup(late);
    expect_md5(world, late, late_salt);
    for (int i = 0; i < 3; i++) {
        int client = client_connect(world);
        client_startup(client);
        expect_md5(world, client, salt);
        answer_md5(client, "md5fedcba9876543210fedcba9876543210", salt);
        expect_error(world, client, "28P01");
        (void)close(client);
    }
    int client = client_connect(world);
    client_startup(client);
    expect_error(world, client, "28000"); /* without being asked */
    expect_end(world, client);
    (void)close(client);
    answer_md5(late, STORED, late_salt); /* begun before: its proof isn't looked at, right or wrong */
    expect_error(world, late, "28000");
    (void)close(late);
    end_world(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_md5_login_opens_the_server_too),
        cmocka_unit_test(wrong_md5_answers_and_unknown_users_look_alike),
        cmocka_unit_test(the_stored_kind_decides_under_md5),
        cmocka_unit_test(rules_decide_who_proves_what),
        cmocka_unit_test(groups_are_asked_for_before_a_rule_speaks_of_them),
        cmocka_unit_test(long_names_are_cut_as_the_server_does),
        cmocka_unit_test(what_is_said_twice_counts_as_for_the_server),
        cmocka_unit_test(what_comes_before_the_question_is_not_forgotten),
        cmocka_unit_test(unknown_roles_are_told_the_iterations_of_the_list),
        cmocka_unit_test(an_error_instead_of_a_role_leaves_the_side_up),
        cmocka_unit_test(an_answer_for_an_earlier_session_is_not_taken),
        cmocka_unit_test(a_list_of_verifiers_is_asked_instead),
        cmocka_unit_test(too_many_wrong_passwords_end_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
