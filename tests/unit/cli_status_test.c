/* control/cli: what `status` says, from JSON as contract.md has it. */
#include "render_scene.h"

#define STEADY                                                                                               \
    "{'active': 'blue', 'since': '2026-11-20T02:14:07.000Z', 'epoch': 7, 'phase': 'steady', 'flip': null,"   \
    " 'trouble': [], 'prepared': true,"                                                                      \
    " 'sides': {'blue': {'reachable': true, 'fenced': false, 'version': '15.18', 'standing': 'active'},"     \
    "           'green': {'reachable': true, 'fenced': true, 'version': '17.10 (Debian 17.10-1)', "          \
    "'standing': 'standby'}},"                                                                               \
    " 'way_back': {'open': true, 'reason': null, 'estimate_ms': 40, 'commits_at_risk': 0},"                  \
    " 'lag': {'seconds': 0, 'bytes': 0, 'marker_age_ms': 120, 'streaming': true},"                           \
    " 'sessions': {'total': 212, 'held': 0, 'in_transaction': 31, 'immovable': 2, 'waiting': 0, 'max': "     \
    "1000},"                                                                                                 \
    " 'gates': [{'name': 'a', 'state': 'pass', 'value': 0, 'reason': null},"                                 \
    "   {'name': 'b', 'state': 'pass'}, {'name': 'c', 'state': 'pass'}, {'name': 'd', 'state': 'pass'}],"    \
    " 'hold': null, 'watch': null, 'last_flip': null}"

/* The steady status with some keys replaced. */
static void expect_status(const char *changes, const char *expected)
{
    json_t *status = quoted(STEADY), *changed = quoted(changes);
    assert_int_equal(json_object_update(status, changed), 0);
    struct strbuf out;
    strbuf_init(&out, 10000);
    render_status(&out, status, NOW);
    assert_string_equal(strbuf_text(&out), expected);
    strbuf_deinit(&out);
    json_decref(changed);
    json_decref(status);
}

static void status_in_peace(void **state)
{
    (void)state;
    expect_status("{}", "active    blue, since 02:14:07 (epoch 7)      standby green 17.10, fenced\n"
                        "in sync   yes, lag 0 s, 0 bytes, marker seen 120 ms ago\n"
                        "way back  open, about 40 ms, 0 commits at risk\n"
                        "clients   212 connected, 31 in a transaction, 2 can't move: switchback sessions "
                        "--immovable\n"
                        "gates     4 pass\n"
                        "next      switchback check, then switchback cutover --dry-run\n");
}

/* No second cutover is to be had: what is next is to end the way back, or to take it. */
static void status_after_a_cutover(void **state)
{
    (void)state;
    expect_status(
        "{'sessions': {'total': 3, 'in_transaction': 0},"
        " 'gates': [{'name': 'lag', 'state': 'waiting', 'value': null, 'reason': null}],"
        " 'last_flip': {'id': 12, 'kind': 'cutover', 'from': 'green', 'to': 'blue', 'result': 'done',"
        "               'ended': null, 'stall_ms': null}}",
        "active    blue, since 02:14:07 (epoch 7)      standby green 17.10, fenced\n"
        "in sync   yes, lag 0 s, 0 bytes, marker seen 120 ms ago\n"
        "way back  open, about 40 ms, 0 commits at risk\n"
        "clients   3 connected, 0 in a transaction\n"
        "gates     1 waiting for a watch\n"
        "last flip 12 green -> blue: done\n"
        "next      switchback finalize ends the way back, switchback flip-back takes it\n");
}

/* What can't be reached comes before anything else. */
static void status_with_both_sides_down(void **state)
{
    (void)state;
    expect_status("{'sessions': {'total': 0, 'in_transaction': 0}, 'gates': [], 'epoch': 0, 'since': null,"
                  " 'lag': {'seconds': null, 'bytes': null, 'streaming': false},"
                  " 'sides': {'blue': {'reachable': false}, 'green': {'reachable': false}},"
                  " 'way_back': {'open': false, 'reason': null, 'commits_at_risk': null}}",
                  "TROUBLE   blue, the active side, can't be reached\n"
                  "TROUBLE   green, the standby side, can't be reached\n"
                  "active    blue      standby green, unreachable\n"
                  "in sync   no, not streaming, lag unknown\n"
                  "way back  closed\n"
                  "clients   0 connected, 0 in a transaction\n"
                  "gates     none\n"
                  "next      bring blue back: nothing else can be done before\n");
}

static void status_before_prepare(void **state)
{
    (void)state;
    expect_status("{'prepared': false, 'gates': [], 'sessions': {'total': 1, 'in_transaction': 0},"
                  " 'lag': {'seconds': null, 'bytes': null, 'streaming': false},"
                  " 'sides': {'blue': {'reachable': true}, 'green': {'reachable': true, 'version': '17.10',"
                  "           'fenced': false}},"
                  " 'way_back': {'open': false, 'reason': 'not prepared', 'estimate_ms': null,"
                  "              'commits_at_risk': null}}",
                  "active    blue, since 02:14:07 (epoch 7)      standby green 17.10, not fenced\n"
                  "in sync   no, the standby is not prepared\n"
                  "way back  closed: not prepared\n"
                  "clients   1 connected, 0 in a transaction\n"
                  "gates     none\n"
                  "next      switchback check, then switchback prepare\n");
}

static void status_in_a_flip(void **state)
{
    (void)state;
    expect_status(
        "{'phase': 'drain', 'flip': {'id': 12, 'kind': 'cutover', 'from': 'blue', 'to': 'green',"
        " 'phase': 'drain', 'elapsed_ms': 1234, 'message': '3 sessions left'},"
        " 'lag': {'seconds': 0.5, 'bytes': 5100000, 'streaming': true},"
        " 'sessions': {'total': 212, 'held': 209, 'in_transaction': 3, 'immovable': 0, 'max': 260}}",
        "flip      12 cutover blue -> green: drain, 1.2 s, 3 sessions left\n"
        "active    blue, since 02:14:07 (epoch 7)      standby green 17.10, fenced\n"
        "in sync   no, lag 500 ms, 5.1 MB\n"
        "way back  open, about 40 ms, 0 commits at risk\n"
        "clients   212 connected of at most 260, 3 in a transaction, 209 held\n"
        "gates     4 pass\n"
        "next      switchback watch; switchback abort takes it back\n");
}

static void status_in_the_watch(void **state)
{
    (void)state;
    expect_status(
        "{'active': 'green', 'phase': 'watch',"
        " 'watch': {'flip': 12, 'remaining_ms': 1683000, 'flip_back': 'auto'},"
        " 'gates': [{'name': 'errors', 'state': 'fail', 'value': 0.3, 'reason': '0.3 is above 0.01, 2 of 3'},"
        "           {'name': 'app', 'state': 'inconclusive', 'reason': 'could not be started'},"
        "           {'name': 'lag', 'state': 'pass'}, {'name': 'slow', 'state': 'waiting'}],"
        " 'last_flip': {'id': 12, 'kind': 'cutover', 'from': 'blue', 'to': 'green', 'result': 'done',"
        "   'ended': '2026-11-20T11:58:00Z', 'stall_ms': {'p50': 41, 'p99': 60, 'max': 71}}}",
        "active    green, since 02:14:07 (epoch 7)      standby blue 15.18, not fenced\n"
        "in sync   yes, lag 0 s, 0 bytes, marker seen 120 ms ago\n"
        "way back  open, about 40 ms, 0 commits at risk\n"
        "watch     of flip 12, 28 min 3 s left; a failing gate flips back by itself\n"
        "clients   212 connected, 31 in a transaction, 2 can't move: switchback sessions --immovable\n"
        "gates     1 pass, 1 fail, 1 inconclusive, 1 waiting\n"
        "          errors fails: 0.3 is above 0.01, 2 of 3\n"
        "          app is inconclusive: could not be started\n"
        "last flip 12 blue -> green: done at 11:58:00, clients waited 41 ms, at most 71 ms\n"
        "next      switchback watch; switchback flip-back goes back now\n");
}

static void status_says_trouble_first(void **state)
{
    (void)state;
    expect_status(
        "{'active': null, 'phase': 'undecided',"
        " 'trouble': [{'code': 'undecided', 'message': 'blue and green both claim\\nepoch 8',"
        "              'remedy': 'look at both'},"
        "             {'code': 'alarm', 'message': 'a\\u001b[31m', 'remedy': null}],"
        " 'way_back': {'open': false, 'reason': 'undecided'}, 'gates': []}",
        "TROUBLE   blue and green both claim\n"
        "          epoch 8\n"
        "          look at both\n"
        "TROUBLE   a\\x1b[31m\n"
        "active    none\n"
        "in sync   yes, lag 0 s, 0 bytes, marker seen 120 ms ago\n"
        "way back  closed: undecided\n"
        "clients   212 connected, 31 in a transaction, 2 can't move: switchback sessions --immovable\n"
        "gates     none\n"
        "next      switchback recover says what is seen and what can be decided\n");
}

static void status_of_a_lossless_watch(void **state)
{
    (void)state;
    expect_status(
        "{'phase': 'watch', 'active': 'green', 'way_back': {'open': true, 'commits_at_risk': 0, 'promise': "
        "{'on': true}},"
        " 'sides': {'green': {'reachable': true}, 'blue': {'reachable': true, 'fenced': true}}, 'gates': []}",
        "active    green, since 02:14:07 (epoch 7)      standby blue, fenced\n"
        "in sync   yes, lag 0 s, 0 bytes, marker seen 120 ms ago\n"
        "way back  open, 0 commits at risk\n"
        "          lossless: each commit is on blue before its client hears of it\n"
        "clients   212 connected, 31 in a transaction, 2 can't move: switchback sessions --immovable\n"
        "gates     none\n"
        "next      switchback watch; switchback flip-back goes back now\n");
    expect_status(
        "{'phase': 'steady', 'way_back': {'open': false, 'promise': {'on': false, 'reason': 'blue went'}},"
        " 'sides': {'blue': {'reachable': true}, 'green': {'reachable': true, 'fenced': true, 'standing': "
        "'diverged'}},"
        " 'gates': []}",
        "active    blue, since 02:14:07 (epoch 7)      standby green, diverged, fenced\n"
        "in sync   yes, lag 0 s, 0 bytes, marker seen 120 ms ago\n"
        "way back  closed\n"
        "          not lossless: blue went\n"
        "clients   212 connected, 31 in a transaction, 2 can't move: switchback sessions --immovable\n"
        "gates     none\n"
        "next      switchback rejoin --dry-run lists what only green holds, switchback rejoin brings it "
        "back\n");
}

/* The line that is read first, and followed. */
static void expect_next(const char *changes, const char *expected)
{
    json_t *status = quoted(STEADY), *changed = quoted(changes);
    assert_int_equal(json_object_update(status, changed), 0);
    struct strbuf out;
    strbuf_init(&out, 10000);
    render_status(&out, status, NOW);
    const char *next = strstr(strbuf_text(&out), "\nnext      ");
    assert_non_null(next);
    assert_string_equal(next + strlen("\nnext      "), expected);
    strbuf_deinit(&out);
    json_decref(changed);
    json_decref(status);
}

#define GREEN_DEAD                                                                                           \
    "{'active': 'green', 'phase': 'watch', 'sides': {'green': {'reachable': false}, 'blue': {'reachable': "  \
    "true}}, "

static void status_of_a_dead_active_side_says_who_acts(void **state)
{
    (void)state;
    expect_next(GREEN_DEAD "'way_back': {'promise': {'on': true}}, 'watch': {'flip_back': 'auto'}}",
                "wait: blue takes over by itself once green counts as dead, and loses nothing\n");
    expect_next(GREEN_DEAD "'way_back': {'promise': {'on': true}}, 'watch': {'flip_back': 'manual'}}",
                "bring green back, or switchback flip-back once it counts as dead: that loses nothing\n");
    expect_next(GREEN_DEAD "'way_back': {'promise': {'on': true}}, 'watch': {'flip_back': 'manual'},"
                           " 'trouble': [{'code': 'side_dead', 'message': 'it is', 'remedy': 'flip-back'}]}",
                "decide: nothing goes back by itself\n");
    expect_next(GREEN_DEAD "'way_back': {'promise': {'on': false}}, 'watch': {'flip_back': 'auto'}}",
                "bring green back: nothing else can be done before\n");
    expect_next("{'active': 'green', 'sides': {'green': {'reachable': false}, 'blue': {'reachable': false}},"
                " 'way_back': {'promise': {'on': true}}, 'watch': {'flip_back': 'auto'}}",
                "bring green back, or blue\n");
}

/* Commits wait for a standby that is gone: no word of peace then. */
static void status_says_who_waits_for_the_standby(void **state)
{
    (void)state;
    expect_status(
        "{'phase': 'watch', 'active': 'green', 'way_back': {'open': false, 'reason': 'blue is gone',"
        " 'promise': {'on': true, 'waiting': 12}}, 'lag': {'streaming': false},"
        " 'sides': {'green': {'reachable': true}, 'blue': {'reachable': false}}, 'gates': [],"
        " 'last_flip': {'id': 4, 'kind': 'takeover', 'from': 'blue', 'to': 'green', 'result': 'done'}}",
        "TROUBLE   blue, the standby side, can't be reached\n"
        "active    green, since 02:14:07 (epoch 7)      standby blue, unreachable\n"
        "in sync   no, not streaming, lag unknown\n"
        "way back  closed: blue is gone\n"
        "          lossless: each commit is on blue before its client hears of it\n"
        "          12 wait for that now, for flip.lossless_max_wait at most\n"
        "clients   212 connected, 31 in a transaction, 2 can't move: switchback sessions --immovable\n"
        "gates     none\n"
        "last flip 4 blue -> green, a takeover: done\n"
        "next      bring blue back; it is fenced on contact\n");
}

static void status_with_a_lost_standby(void **state)
{
    (void)state;
    expect_status(
        "{'sides': {'blue': {'reachable': true}, 'green': {'reachable': false,"
        " 'problem': 'connection refused'}},"
        " 'lag': {'seconds': 12, 'bytes': null, 'streaming': false},"
        " 'way_back': {'open': false, 'reason': 'green is unreachable', 'commits_at_risk': 1},"
        " 'hold': {'owner': 'root', 'reason': 'maintenance', 'remaining_ms': 8000}, 'gates': []}",
        "TROUBLE   green, the standby side, can't be reached: connection refused\n"
        "active    blue, since 02:14:07 (epoch 7)      standby green, unreachable\n"
        "in sync   no, not streaming, lag 12.0 s\n"
        "way back  closed: green is unreachable, 1 commit at risk\n"
        "hold      by root: maintenance, 8.0 s left: switchback release\n"
        "clients   212 connected, 31 in a transaction, 2 can't move: switchback sessions --immovable\n"
        "gates     none\n"
        "next      switchback release\n");
}

static void status_of_nothing_is_survived(void **state)
{
    (void)state;
    struct strbuf out;
    strbuf_init(&out, 10000);
    json_t *status = json_object();
    render_status(&out, status, NOW);
    assert_non_null(strstr(strbuf_text(&out), "TROUBLE   no side is active"));
    json_decref(status);
    status = quoted("{'active': 5, 'sides': [], 'lag': 'x', 'gates': {}, 'flip': [], 'sessions': null}");
    render_status(&out, status, NOW);
    json_decref(status);
    strbuf_deinit(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status_in_peace),
        cmocka_unit_test(status_after_a_cutover),
        cmocka_unit_test(status_with_both_sides_down),
        cmocka_unit_test(status_before_prepare),
        cmocka_unit_test(status_in_a_flip),
        cmocka_unit_test(status_in_the_watch),
        cmocka_unit_test(status_says_trouble_first),
        cmocka_unit_test(status_of_a_lossless_watch),
        cmocka_unit_test(status_of_a_dead_active_side_says_who_acts),
        cmocka_unit_test(status_says_who_waits_for_the_standby),
        cmocka_unit_test(status_with_a_lost_standby),
        cmocka_unit_test(status_of_nothing_is_survived),
    };
    return cmocka_run_group_tests(tests, in_utc, NULL);
}
