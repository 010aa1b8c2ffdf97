/* proxy/lock_scout: in the hold one session asks for all of its worker who holds locks. */
#include "proxy_world.h"

#include "proxy/wire/decode.h"

enum { SESSIONS = 3, FIRST_PID = 4711, TEXT_SIZE = 16384 };

struct stage {
    struct world *world;
    struct pair pairs[SESSIONS];
    int targets[SESSIONS];
};

static const struct proxy_route target = {.side = SIDE_GREEN, .epoch = 2, .open = true};

/* --- the servers' part --- */

static void login_as(struct world *world, int fd, uint32_t pid)
{
    uint8_t packet[512];
    struct build build;
    expect(world, fd, packet, startup_packet_of(packet, STARTUP_PROTOCOL_3_2, "joe", "app"));
    put(fd, BYTES(NEGOTIATE_3_0 "R\0\0\0\x08\0\0\0\0"
                                "S\0\0\0\x16server_version\00016\0"));
    build_init(&build, packet, sizeof(packet));
    build_begin(&build, 'K');
    build_u32(&build, pid);
    build_bytes(&build, SERVER_KEY, 4);
    build_end(&build);
    build_ready(&build, 'I');
    put(fd, packet, build.length);
}

/* What comes up to Sync: 'f' the whole question, 'c' the cheap one, 's' the scout's, 'r' a replay. */
static char expect_question(struct world *world, int fd)
{
    static const struct {
        const char *mark;
        char kind;
    } marks[] = {{"select 'set'", 'f'}, {"distinct on", 's'}, {"set_config($1, $2", 'r'}, {"'auth'", 'c'}};
    char text[TEXT_SIZE];
    char kind = '?';
    char type;
    do {
        type = expect_message(world, fd, text, sizeof(text));
        const char *sql = type == 'P' ? text + strlen(text) + 1 : "";
        for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]) && kind == '?'; i++) {
            kind = strstr(sql, marks[i].mark) != NULL ? marks[i].kind : kind;
        }
        kind = kind == 'c' && strstr(sql, marks[0].mark) != NULL ? 'f' : kind;
    } while (type != 'S' && type != 0);
    return kind;
}

static void add_row(struct build *build, const char *const columns[5])
{
    build_begin(build, 'D');
    build_u16(build, 5);
    for (size_t i = 0; i < 5; i++) {
        if (columns[i] == NULL) {
            build_u32(build, UINT32_MAX);
        } else {
            build_u32(build, (uint32_t)strlen(columns[i]));
            build_bytes(build, columns[i], strlen(columns[i]));
        }
    }
    build_end(build);
}

static void add_complete(struct build *build)
{
    build_begin(build, 'C');
    build_string(build, "SELECT 1");
    build_end(build);
}

/* A session without anything; or the scout's answer, with what one of them holds. */
static void answer(int fd, char kind, const char *holder)
{
    uint8_t packet[1024];
    struct build build;
    build_init(&build, packet, sizeof(packet));
    add_complete(&build);
    if (kind == 's' && holder != NULL) {
        add_row(&build, (const char *const[5]){"lock", holder, "0", "42", "1"});
    } else if (kind == 'c' || kind == 'f') {
        add_row(&build, (const char *const[5]){"auth", "joe", "none", "1", "0"});
    }
    add_complete(&build);
    build_ready(&build, 'I');
    put(fd, packet, build.length);
}

/* Which of the sessions, but this one, the scout's question comes on. */
static size_t expect_scout_but(struct stage *stage, size_t gone)
{
    for (size_t i = 0;; i = (i + 1) % SESSIONS) {
        if (i != gone && world_readable(stage->world, stage->pairs[i].server, 1000)) {
            assert_int_equal(expect_question(stage->world, stage->pairs[i].server), 's');
            return i;
        }
    }
}

static size_t expect_scout(struct stage *stage)
{
    return expect_scout_but(stage, SESSIONS);
}

/* --- the stage: sessions that were armed, have worked since, and are held and asked --- */

static void open_stage(struct stage *stage)
{
    struct world *world = world_new();
    stage->world = world;
    world->settings.workers = 1;
    world_start(world);
    for (uint32_t i = 0; i < SESSIONS; i++) {
        struct pair *pair = &stage->pairs[i];
        pair->client = client_connect(world);
        client_startup(pair->client);
        pair->server = server_accept_login(world, SIDE_BLUE);
        login_as(world, pair->server, FIRST_PID + i);
        client_greeted(world, pair->client, pair->key);
        pair_works(world, pair);
    }
    proxy_arm(world->proxy, 5, target, 5000000);
    for (uint32_t i = 0; i < SESSIONS; i++) {
        stage->targets[i] = server_accept_login(world, SIDE_GREEN);
        login_as(world, stage->targets[i], FIRST_PID + i); /* the same numbers on the other side */
    }
    for (size_t i = 0; i < SESSIONS; i++) {
        assert_int_equal(expect_question(world, stage->pairs[i].server), 'f');
        answer(stage->pairs[i].server, 'f', NULL);
    }
    for (size_t i = 0; i < SESSIONS; i++) {
        assert_int_equal(expect_question(world, stage->targets[i]), 'r');
        put(stage->targets[i], BYTES(READY_I));
    }
    assert_int_equal(world_event(world, PROXY_EVENT_ARMED)->counts.armed, SESSIONS);
    for (size_t i = 0; i < SESSIONS; i++) {
        pair_works(world, &stage->pairs[i]);
    }
    proxy_hold(world->proxy, 5, clock_mono_us() + 5000000, PROXY_EXPIRE_REFUSE);
    (void)world_event(world, PROXY_EVENT_HELD);
    for (size_t i = 0; i < SESSIONS; i++) {
        assert_int_equal(expect_question(world, stage->pairs[i].server), 'c');
        answer(stage->pairs[i].server, 'c', NULL);
    }
}

static void close_stage(struct stage *stage, uint64_t moved)
{
    struct world *world = stage->world;
    proxy_swap(world->proxy, 5, target);
    struct proxy_event *event = world_event(world, PROXY_EVENT_SWAPPED);
    assert_int_equal(event->counts.moved, moved);
    world_release(world, 5);
    world_disarm(world, 5);
    for (size_t i = 0; i < SESSIONS; i++) {
        (void)close(stage->targets[i]);
        pair_close(&stage->pairs[i]);
    }
    world_free(world);
}

/* --- tests --- */

static void nobody_holds_anything(void **state)
{
    (void)state;
    struct stage stage;
    open_stage(&stage);
    size_t scout = expect_scout(&stage);
    expect_silence(stage.world, stage.pairs[(scout + 1) % SESSIONS].server); /* one asks for all */
    answer(stage.pairs[scout].server, 's', "99");                            /* somebody else's */
    struct proxy_event *event = world_event(stage.world, PROXY_EVENT_DRAINED);
    assert_int_equal(event->counts.immovable, 0);
    assert_int_equal(event->counts.armed, SESSIONS);
    close_stage(&stage, SESSIONS);
}

static void who_holds_a_lock_stays(void **state)
{
    (void)state;
    struct stage stage;
    open_stage(&stage);
    size_t scout = expect_scout(&stage);
    answer(stage.pairs[scout].server, 's', "4712");
    assert_int_equal(world_event(stage.world, PROXY_EVENT_DRAINED)->counts.immovable, 1);
    close_stage(&stage, SESSIONS - 1);
}

/* Then each asks for itself. */
static void a_scout_that_fails(void **state)
{
    (void)state;
    struct stage stage;
    open_stage(&stage);
    size_t scout = expect_scout(&stage);
    uint8_t packet[256];
    struct build build;
    build_init(&build, packet, sizeof(packet));
    build_error(&build, "ERROR", "42501", "permission denied for function pg_lock_status", NULL);
    build_ready(&build, 'I');
    put(stage.pairs[scout].server, packet, build.length);
    for (size_t i = 0; i < SESSIONS; i++) {
        assert_int_equal(expect_question(stage.world, stage.pairs[i].server), 'f');
        answer(stage.pairs[i].server, 'f', NULL);
    }
    assert_int_equal(world_event(stage.world, PROXY_EVENT_DRAINED)->counts.armed, SESSIONS);
    close_stage(&stage, SESSIONS);
}

/* Another one goes in its place. */
static void a_scout_that_loses_its_server(void **state)
{
    (void)state;
    struct stage stage;
    open_stage(&stage);
    size_t scout = expect_scout(&stage);
    (void)shutdown(stage.pairs[scout].server, SHUT_RDWR);
    size_t other = expect_scout_but(&stage, scout);
    answer(stage.pairs[other].server, 's', NULL);
    assert_int_equal(world_event(stage.world, PROXY_EVENT_DRAINED)->counts.armed, SESSIONS - 1);
    close_stage(&stage, SESSIONS - 1);
}

int main(void)
{
    (void)signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_holds_anything),
        cmocka_unit_test(who_holds_a_lock_stays),
        cmocka_unit_test(a_scout_that_fails),
        cmocka_unit_test(a_scout_that_loses_its_server),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
