/*
 * proxy/wire/boundary, by scenarios. A scenario is a line of words:
 *   >X      the client sends a message of type X, which is forwarded; >X? it must wait;
 *           >X+ it has a body that it shouldn't have
 *   <X      the server sends a message of type X; <ZI <ZT <ZE its status; <E an error, <EF a fatal one
 *   @ !     the session is at its boundary, is not
 *   pN aN   N Parse messages were counted, N were settled
 *   sN      the last ReadyForQuery answered N statements
 *   c -     the server is in copy-in, is not
 *   may     one more ReadyForQuery may come; none
 *   ask     our own messages are sent; ours, theirs: whose the last server message was
 * The answers are those of real servers (15 and 17), to whom random message sequences were sent.
 */
#include "proxy/wire/boundary.h"
#include "proxy/wire/build.h"

#include "guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct scene {
    struct boundary boundary;
    struct boundary_step step;
    struct boundary_step ready;
    int64_t now_us;
};

static struct frame_piece piece_of(uint8_t type, struct slice body)
{
    return (struct frame_piece){.type = type,
                                .first = true,
                                .last = true,
                                .length = (uint32_t)body.length,
                                .bytes = body,
                                .head = (const uint8_t *)"     "};
}

static bool client_says(struct scene *scene, const char *word)
{
    struct frame_piece piece = piece_of((uint8_t)word[1], slice_of("x", word[2] == '+' ? 1 : 0));
    enum boundary_verdict expected = BOUNDARY_FORWARD;
    if (word[2] == '?') {
        expected = BOUNDARY_WAIT;
    }
    return boundary_client(&scene->boundary, &piece, scene->now_us) == expected;
}

static void server_says(struct scene *scene, const char *word)
{
    struct slice body = slice_of("", 0);
    if (word[1] == 'Z') {
        body = slice_of(word + 2, 1);
    } else if (word[1] == 'E') {
        body = word[2] == 'F' ? slice_of("VFATAL\0C57P01\0", 15) : slice_of("VERROR\0C22012\0", 15);
    }
    struct frame_piece piece = piece_of((uint8_t)word[1], body);
    boundary_server(&scene->boundary, &piece, scene->now_us, &scene->step);
    if (scene->step.kind == BOUNDARY_READY) {
        scene->ready = scene->step;
    }
}

static bool play(struct scene *scene, const char *word)
{
    struct boundary *boundary = &scene->boundary;
    scene->now_us += 1000;
    switch (word[0]) {
    case '>':
        return client_says(scene, word);
    case '<':
        server_says(scene, word);
        return true;
    case '@':
        return boundary_at(boundary);
    case '!':
        return !boundary_at(boundary);
    case 'p':
        return boundary->parses_sent == (uint64_t)strtol(word + 1, NULL, 10);
    case 's':
        return scene->ready.statements == (uint32_t)strtol(word + 1, NULL, 10);
    case 'c':
        return boundary_in_copy_in(boundary);
    case '-':
        return !boundary_in_copy_in(boundary);
    case 'm':
        return boundary_may_owe(boundary);
    case 'n':
        return !boundary_may_owe(boundary);
    case 'o':
        return scene->step.ours;
    case 't':
        return !scene->step.ours;
    case 'a':
        if (strcmp(word, "ask") == 0) {
            boundary_inject(boundary, scene->now_us);
            return true;
        }
        return boundary->parses_answered == (uint64_t)strtol(word + 1, NULL, 10);
    default:
        return false;
    }
}

static void run(const char *name, const char *scenario)
{
    struct scene scene = {.now_us = 1000000};
    char line[1024];
    char *rest = NULL;
    boundary_init(&scene.boundary);
    (void)slice_copy(slice_text(scenario), line, sizeof line);
    int number = 1;
    for (char *word = strtok_r(line, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest)) {
        if (!play(&scene, word)) {
            fail_msg("%s: word %d, %s", name, number, word);
        }
        number++;
    }
}

static const struct {
    const char *name, *scenario;
} scenarios[] = {
    {"fresh", "@"},
    {"simple query", "@ >Q ! <T <D <C ! <ZI @ s1"},
    {"several statements in a Query, one ReadyForQuery", ">Q <C <T <C <I ! <ZI @ s1"},
    {"transaction", ">Q <C <ZT ! >Q <E <ZE ! >Q <C <ZI @"},
    {"queries in a row", ">Q >Q >Q >Q >Q <C <ZI ! <C <ZI <C <ZI <C <ZI ! <C <ZI @"},
    {"a run with an error within", ">Q >Q >Q >Q >Q <C <ZI <E <ZI <C <ZI <C <ZI ! <C <ZI @"},
    {"extended", ">P >B >D >E ! >S <1 <2 <n <C ! <ZI @ p1 a1 s1"},
    {"nothing sent since the last Sync", ">P ! >H <1 ! >B >E >H <2 <C ! >S ! <ZI @"},
    {"Flush alone owes nothing", ">H @"},
    {"Flush with a body fails, and what follows is skipped", ">H+ ! >Q <E ! >S <ZI @ >Q <C <ZI @"},
    {"Sync alone", ">S ! <ZI @"},
    {"Describe of a statement", ">P >D >S <1 <t ! <T ! <ZI @"},
    {"portal suspended", ">P >B >E >E >S <1 <2 <D <s <D <C <ZI @ s2"},
    {"Close of a missing name", ">C >S <3 <ZI @"},
    {"error skips to Sync", ">P >B >E >S <1 <E ! <ZI @ a1"},
    {"error in the first of three", ">P >B >P >B >P >S p3 <E a3 ! <ZI @"},
    {"error, the rest is sent", ">P >H <E ! >B >E >P ! p1 a1 >S ! <ZI @ >P p2 >S <1 <ZI @ a2"},
    {"a Query before Sync is skipped too", ">P >B >E >Q >S <E ! <ZI @ s1"},
    {"a Query before Sync is answered if all is well", ">P >B >E >Q >S <1 <2 <C <C ! <ZI ! <ZI @"},
    {"error in the Query that follows: it doesn't skip", ">P >B >E >Q >S <1 <2 <C <E ! <ZI ! <ZI @"},
    {"FunctionCall", ">F ! <V <ZI @ s1"},
    {"FunctionCall skipped", ">P >F >S <E ! <ZI @"},
    {"error at Sync", ">P >B >E >S <1 <2 <C <E ! <ZI @"},
    {"the segment behind the failed one lives on", ">P >B >E >S >P >B >E >S <E <ZI ! <1 <2 <C ! <ZI @ a2"},
    {"the failed one is in a run",
     ">P >B >E >S >P >B >E >S >P >B >E >S >P >B >E >S <1 <2 <C <ZI <1 <E <ZI a2 "
     "<1 <2 <C <ZI <1 <2 <C ! <ZI @ a4"},
    {"asynchronous messages", "<N <A <S @ >Q <N <S <A <C <ZI @"},
    {"fatal while idle", "<EF"},

    {"data, a Sync and what doesn't belong there, all sent ahead of a copy that fails at it",
     ">Q >d >S >E >c >Q <G - <E <ZI ! <ZI ! <E ! >f >S ! <ZI @"},
    {"the same of an Execute", ">P >B >E >d >S >D >S <1 <2 <G - <E ! <ZI ! <E ! <ZI @"},
    {"many Syncs behind the data", ">Q >d >S >S >S >Q <G <E <ZI <ZI <ZI <ZI ! <C <ZI @"},
    {"the copy fails before the Sync, with data behind it", ">Q >d >S >d >Q <G <E <ZI <ZI ! <C <ZI @"},
    {"the copy fails behind the Sync", ">Q >d >S >d >Q <G <E <ZI ! <C <ZI @"},
    {"the same of an Execute, before the Sync", ">P >B >E >d >S >d >Q <1 <2 <G <E <ZI <C <ZI @"},
    {"a Sync is answered while an Execute and an end of data are on their way",
     ">Q >d <G >S <E <ZI >E >c >Q <ZI ! <E ! >S <ZI @"},
    {"data and Syncs ahead of a copy that goes on", ">Q >d >S >d >S <G c >d >c <C <ZI @"},
    {"data and Syncs ahead of a copy, then what doesn't belong there",
     ">Q >d >S >S <G c >Q - <E <ZI <ZI <ZI ! <C <ZI @"},
    {"copy in", ">Q <G c ! >d >d >c - ! <C <ZI @"},
    {"copy in, failed by the client", ">Q <G >d >f ! <E <ZI @"},
    {"copy in fails at once, data comes late", ">Q <G >d <E <ZI @ >d >d >c @ >Q <C <ZI @"},
    {"copy in fails at once, CopyDone was on its way", ">Q <G >d >d >c <E ! <ZI @"},
    {"copy in, Sync and Flush are ignored", ">Q <G >S >H >d >S >c <C <ZI @"},
    {"copy in fails at a Sync that it may have ignored", ">Q <G >S >c <E <ZI @ may <ZI @ none"},
    {"data sent before the server asked for it", ">Q >d >d >c <G - ! <C <ZI @"},
    {"data sent to a Query that fails", ">Q >d >c <E <ZI @"},
    {"CopyDone without a copy", ">Q >c <C <ZI @ >c @"},
    {"a Query during copy in: the copy had failed, or the connection ends",
     ">Q <G >d >Q - <E <ZI ! <C <ZI @"},
    {"a Query sent right behind the copy", ">Q >Q >Q <G - <E <ZI ! <C <ZI ! <C <ZI @"},
    {"a bad row behind a Sync, then a Query", ">Q <G >S >d >Q <E <ZI ! <C <ZI @"},
    {"two copies in one Query", ">Q <G >d >c <C ! <G c >c <C ! <ZI @"},
    {"two copies in one Query, data sent at once", ">Q >d >c >d >c <G - <C <G - <C ! <ZI @"},
    {"Syncs behind a copy, then a Query: it had failed before",
     ">Q >S >S >Q <G - <E <ZI ! <ZI ! <ZI ! <C <ZI @"},
    {"the same, as it comes", ">Q <G >S >S >Q <E <ZI ! <ZI ! <ZI ! <C <ZI @"},
    {"copy in, extended", ">P >B >E >S <1 <2 <G c ! >d >d >c >S <C ! <ZI @"},
    {"copy in, extended, Sync comes after", ">P >B >E >H <1 <2 <G >d >c >S <C ! <ZI @"},
    {"copy in, extended, fails: the next Sync ends it", ">P >B >E >S <1 <2 <G >d >d <E ! >d >c ! >S ! <ZI @"},
    {"copy in, extended, fails, CopyDone and Sync were on their way",
     ">P >B >E >S <1 <2 <G >d >c >S <E ! <ZI @"},
    {"copy in, extended, fails before it read the first Sync", ">P >B >E >S <1 <2 <G <E <ZI @ >c >S ! <ZI @"},
    {"... and the client had finished", ">P >B >E >S <1 <2 <G >d >c >S <E <ZI <ZI @"},
    {"copy in, extended, with data sent at once", ">P >B >E >d >d >c >S <1 <2 <G - ! <C ! <ZI @"},
    {"copy in, extended, CopyFail", ">P >B >E >S <1 <2 <G >f >S <E ! <ZI"},
    {"copy in, extended, more follows", ">P >B >E >B >E >S <1 <2 <G - <E ! <ZI @"},
    {"copy in, extended, another segment follows",
     ">P >B >E >S >P >B >E >S <1 <2 <G - <E ! <ZI ! <1 <2 <C ! <ZI @ a2"},
    {"the same, as it comes", ">P >B >E >S <1 <2 <G c >P - >B >E >S <E ! <ZI ! <1 <2 <C ! <ZI @ a2"},
    {"a late answer isn't taken for a Query's", ">P >B >E >S <1 <2 <G >d >c >S <E <ZI >Q <ZI ! <C <ZI @"},
    {"copy out", ">Q <H <d <d <c <C ! <ZI @"},
    {"copy both", ">Q <W >d <d >d >c <c <C ! <ZI @"},

    {"asking", "ask ! <1 ours <2 ours <D ours <C ours <3 ours <ZI ours @"},
    {"asking fails", "ask <1 ours <E ours <ZI ours @"},
    {"asking beside asynchronous messages", "ask <A theirs <S theirs <N ours <1 <2 <C <3 <ZI ours @"},
    {"asking, and a late answer comes first",
     ">P >B >E >S <1 <2 <G >d >c >S <E <ZI ask <ZI theirs <1 ours <2 <C <3 <ZI ours @"},
    {"the client waits while we ask", "ask >Q? <1 <2 <C <3 <ZI >Q ! <C <ZI @"},

    {"an answer that nobody owes", "<1 <C <ZI @ >Q <C <ZI @"},
};

static void scenes(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(scenarios); i++) {
        run(scenarios[i].name, scenarios[i].scenario);
    }
}

static void say(struct scene *scene, const char *word, uint32_t times)
{
    for (uint32_t i = 0; i < times; i++) {
        assert_true(play(scene, word));
    }
}

/* 100,000 messages without a Sync, and as many with one each, need no more room than one. */
static void long_pipelines(void **state)
{
    (void)state;
    struct scene scene = {.now_us = 1};
    boundary_init(&scene.boundary);
    for (int i = 0; i < 100000; i++) {
        say(&scene, ">P", 1);
        say(&scene, ">B", 1);
        say(&scene, ">E", 1);
    }
    say(&scene, ">S", 1);
    for (int i = 0; i < 100000; i++) {
        say(&scene, "<1", 1);
        say(&scene, "<2", 1);
        say(&scene, "<C", 1);
    }
    assert_false(boundary_at(&scene.boundary));
    say(&scene, "<ZI", 1);
    assert_true(boundary_at(&scene.boundary));
    assert_int_equal(scene.ready.statements, 100000);

    for (int i = 0; i < 100000; i++) {
        say(&scene, ">B", 1);
        say(&scene, ">E", 1);
        say(&scene, ">S", 1);
    }
    for (int i = 0; i < 100000; i++) {
        assert_false(boundary_at(&scene.boundary));
        say(&scene, "<2", 1);
        say(&scene, "<C", 1);
        say(&scene, "<ZI", 1);
    }
    assert_true(boundary_at(&scene.boundary));
}

/* Unequal segments fill the queue: then the client waits, until an answer makes room. An open one never does.
 */
static void a_full_queue_waits(void **state)
{
    (void)state;
    struct scene scene = {.now_us = 1};
    boundary_init(&scene.boundary);
    int sent = 0;
    for (;; sent++) {
        struct frame_piece piece = piece_of('P', slice_of("", 0));
        if (boundary_client(&scene.boundary, &piece, 1) == BOUNDARY_WAIT) {
            break;
        }
        for (int i = 0; i < sent; i++) {
            say(&scene, ">P", 1);
        }
        say(&scene, ">S", 1);
        assert_true(sent < BOUNDARY_SEGMENTS);
    }
    assert_true(sent >= BOUNDARY_SEGMENTS / 2);
    say(&scene, ">Q?", 1);
    say(&scene, ">X", 1);
    say(&scene, "<1", 1);
    say(&scene, "<ZI", 1);
    say(&scene, ">P", 50);
    for (int i = 1; i < sent; i++) {
        say(&scene, "<1", (uint32_t)i + 1);
        say(&scene, "<ZI", 1);
    }
    say(&scene, ">S", 1);
    say(&scene, "<1", 50);
    say(&scene, "<ZI", 1);
    assert_true(boundary_at(&scene.boundary));
}

static void latency_counts_from_the_answer_before(void **state)
{
    (void)state;
    struct scene scene = {.now_us = 0};
    boundary_init(&scene.boundary);
    say(&scene, ">Q", 1);
    say(&scene, ">Q", 1);
    assert_int_equal(boundary_since_us(&scene.boundary), 1000);
    scene.now_us = 9000;
    say(&scene, "<ZI", 1);
    assert_int_equal(scene.ready.latency_us, 9000);
    assert_int_equal(boundary_since_us(&scene.boundary), 10000);
    scene.now_us = 14000;
    say(&scene, "<ZI", 1);
    assert_int_equal(scene.ready.latency_us, 5000);
    assert_int_equal(boundary_since_us(&scene.boundary), 0);
}

static void errors_carry_their_sqlstate(void **state)
{
    (void)state;
    struct scene scene = {.now_us = 0};
    boundary_init(&scene.boundary);
    say(&scene, ">Q", 1);
    say(&scene, "<E", 1);
    assert_int_equal(scene.step.kind, BOUNDARY_ERROR);
    assert_string_equal(scene.step.sqlstate, "22012");
    assert_false(scene.step.fatal);
    say(&scene, "<ZI", 1);
    assert_true(scene.ready.failed);
    say(&scene, "<EF", 1);
    assert_true(scene.step.fatal);
}

/* Whatever comes in whatever order: no assertion of ours fails, and the queue keeps its bounds. */
static void random_messages_are_survived(void **state)
{
    (void)state;
    static const char client[] = "QPBDESHCFXdcf";
    static const char server[] = "123CDEGHIWNASTVZZnstcd";
    uint64_t seed = 2026;
    for (int round = 0; round < 3000; round++) {
        struct scene scene = {.now_us = 0};
        boundary_init(&scene.boundary);
        for (int i = 0; i < 200; i++) {
            char word[4] = {'<', server[random_next(&seed) % (sizeof server - 1)],
                            "ITE"[random_next(&seed) % 3], '\0'};
            struct frame_piece piece =
                piece_of((uint8_t)client[random_next(&seed) % (sizeof client - 1)], slice_of("", 0));
            uint64_t choice = random_next(&seed) % 3;
            scene.now_us += 100;
            if (choice == 0) {
                server_says(&scene, word);
            } else {
                (void)!boundary_client(&scene.boundary, &piece, scene.now_us);
            }
            if (!boundary_owes(&scene.boundary) && random_next(&seed) % 10 == 0) {
                boundary_inject(&scene.boundary, scene.now_us);
            }
            assert_true(scene.boundary.count <= BOUNDARY_SEGMENTS);
            assert_true(scene.boundary.parses_answered <= scene.boundary.parses_sent);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scenes),
        cmocka_unit_test(long_pipelines),
        cmocka_unit_test(a_full_queue_waits),
        cmocka_unit_test(latency_counts_from_the_answer_before),
        cmocka_unit_test(errors_carry_their_sqlstate),
        cmocka_unit_test(random_messages_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
