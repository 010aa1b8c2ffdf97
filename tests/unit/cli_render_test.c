/* control/cli: what an operator reads, from JSON as contract.md has it. */
#include "conf/base/compiler.h"
#include "control/cli/columns.h"
#include "control/cli/exit_status.h"
#include "control/cli/readable.h"
#include "control/cli/render.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

/* 2026-11-20T12:00:00Z */
#define NOW INT64_C(1795176000000000)

static json_t *parse(const char *text)
{
    json_error_t error;
    json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (json == NULL) {
        fail_msg("%s in line %d", error.text, error.line);
    }
    return json;
}

/* --- readable texts */

static char *escaped(const char *text)
{
    struct strbuf out;
    strbuf_init(&out, 1000);
    readable_put(&out, text);
    return strbuf_take(&out);
}

static void expect_escaped(const char *text, const char *expected)
{
    char *found = escaped(text);
    assert_string_equal(found, expected);
    free(found);
}

static void texts_of_peers_cannot_act_on_a_terminal(void **state)
{
    (void)state;
    expect_escaped("caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x90\x98", "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x90\x98");
    expect_escaped("\x1b[2J\x07", "\\x1b[2J\\x07");
    expect_escaped("a\nb\tc\rd\x7f", "a\\x0ab\\x09c\\x0dd\\x7f");
    expect_escaped("\xc2\x9b"
                   "31m",
                   "\\x9b31m"); /* C1: CSI in one character */
    expect_escaped("\xe2\x80\xae"
                   "evil",
                   "\\u{202e}evil");                                       /* right to left from here */
    expect_escaped("\xff\xc3", "\\xff\\xc3");                              /* no UTF-8 */
    expect_escaped("\xc0\x80 \xe0\x80\x80", "\\xc0\\x80 \\xe0\\x80\\x80"); /* overlong */
}

static void figures_read_as_people_say_them(void **state)
{
    (void)state;
    struct strbuf out;
    strbuf_init(&out, 1000);
    readable_put_duration(&out, 0);
    strbuf_puts(&out, ", ");
    readable_put_duration(&out, 1.5);
    strbuf_puts(&out, ", ");
    readable_put_duration(&out, 200000);
    strbuf_puts(&out, ", ");
    readable_put_bytes(&out, 0);
    strbuf_puts(&out, ", ");
    readable_put_bytes(&out, 1);
    strbuf_puts(&out, ", ");
    readable_put_bytes(&out, 1536);
    strbuf_puts(&out, ", ");
    readable_put_bytes(&out, 64e6);
    strbuf_puts(&out, ", ");
    readable_put_count(&out, 1, "row", "rows");
    assert_string_equal(strbuf_text(&out), "0 s, 1.5 ms, 3 min 20 s, 0 bytes, 1 byte, 1.5 kB, 64 MB, 1 row");
    strbuf_deinit(&out);
}

static void times_of_other_days_have_a_date(void **state)
{
    (void)state;
    struct strbuf out;
    strbuf_init(&out, 1000);
    assert_int_equal(readable_parse_time("2026-11-20T12:00:00Z"), NOW);
    assert_int_equal(readable_parse_time("2026-11-20T12:00:00.25Z"), NOW + 250000);
    assert_int_equal(readable_parse_time("yesterday"), -1);
    assert_int_equal(readable_parse_time(""), -1);
    readable_put_time(&out, NOW - 3600000000, NOW);
    strbuf_puts(&out, ", ");
    readable_put_time(&out, NOW - 86400000000, NOW);
    strbuf_puts(&out, ", ");
    readable_put_time(&out, -1, NOW);
    assert_string_equal(strbuf_text(&out), "11:00:00, 2026-11-19 12:00:00, unknown");
    strbuf_deinit(&out);
}

static void columns_are_as_wide_as_they_must(void **state)
{
    (void)state;
    struct strbuf out;
    struct columns columns;
    strbuf_init(&out, 1000);
    columns_init(&columns, 3);
    columns_add(&columns, (const char *const[]){"A", "B", "C"});
    columns_add(&columns, (const char *const[]){"caf\xc3\xa9", "", "x\n"});
    columns_add(&columns, (const char *const[]){"1", "22", ""});
    columns_print(&columns, &out, "  ");
    assert_string_equal(strbuf_text(&out), "  A     B   C\n"
                                           "  caf\xc3\xa9      x\\x0a\n"
                                           "  1     22\n");
    strbuf_deinit(&out);
}

/* --- status */

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

/* Single quotes stand for double ones: JSON that can be read in C. */
static json_t *quoted(const char *text)
{
    char *copy = strdup(text);
    assert_non_null(copy);
    for (char *at = copy; *at != '\0'; at++) {
        *at = *at == '\'' ? '"' : *at;
    }
    json_t *json = parse(copy);
    free(copy);
    return json;
}

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

/* --- flips, checks, lists */

typedef void (*renderer)(struct strbuf *out, const json_t *json);

static void expect(renderer render, const char *json, const char *expected)
{
    json_t *document = quoted(json);
    struct strbuf out;
    strbuf_init(&out, 100000);
    render(&out, document);
    assert_string_equal(strbuf_text(&out), expected);
    strbuf_deinit(&out);
    json_decref(document);
}

static void flips_read_well(void **state)
{
    (void)state;
    expect(render_flip,
           "{'result': 'done', 'flip': 12, 'from': 'blue', 'to': 'green', 'reason': null,"
           " 'phases': [{'phase': 'arm', 'ms': 210}, {'phase': 'hold', 'ms': 1.2}, {'phase': 'drain', 'ms': "
           "0.003}],"
           " 'stall_ms': {'p50': 41, 'p99': 60, 'max': 71}, 'moved': 98, 'disconnected': 2}",
           "done: flip 12 blue -> green, traffic is on green\n"
           "pause     41 ms at the median, 60 ms at p99, at most 71 ms\n"
           "clients   98 moved, 2 disconnected\n"
           "phases    arm 210 ms, hold 1.2 ms, drain 0 s\n"
           "next      switchback status says whether the way back is open\n");
    expect(render_flip,
           "{'result': 'flipped_back', 'flip': 12, 'from': 'blue', 'to': 'green',"
           " 'reason': 'gate errors failed', 'phases': [], 'stall_ms': null}",
           "flipped back: flip 12 blue -> green, traffic is on blue\n"
           "reason    gate errors failed\n");
    expect(render_flip,
           "{'result': 'refused', 'flip': null, 'from': 'blue', 'to': 'green', 'reason': 'check failed',"
           " 'remedy': 'see switchback check'}",
           "refused: flip blue -> green, traffic is on blue\n"
           "reason    check failed\n"
           "          see switchback check\n");
    expect(render_flip, "{'result': 'started', 'flip': 3, 'from': 'blue', 'to': 'green'}",
           "started: flip 3 blue -> green\n"
           "next      switchback watch follows it, switchback abort takes it back\n");
    expect(render_flip, "{'result': 'inconclusive', 'flip': 3, 'reason': 'green is lost'}",
           "inconclusive: flip 3\n"
           "reason    green is lost\n"
           "next      switchback status says what must be decided\n");
}

static void dry_runs_read_well(void **state)
{
    (void)state;
    expect(
        render_dry_run,
        "{'dry_run': true, 'from': 'blue', 'to': 'green', 'predicted_stall_ms': 45,"
        " 'phases': [{'phase': 'hold', 'does': 'new work waits', 'timeout_ms': 5000, 'on_failure': 'undo'},"
        "            {'phase': 'turn', 'does': 'the reverse stream runs', 'timeout_ms': null,"
        "             'on_failure': 'retry'}],"
        " 'blockers': [{'code': 'not_in_sync', 'message': 'lag is 12 s', 'remedy': 'wait'}]}",
        "PHASE  LIMIT  WHAT HAPPENS             ON FAILURE\n"
        "hold   5.0 s  new work waits           undo\n"
        "turn          the reverse stream runs  retry\n"
        "\n"
        "would     flip blue -> green, with a pause of about 45 ms; nothing was done\n"
        "blocker   lag is 12 s\n"
        "          wait\n"
        "next      remove what blocks it, then try again\n");
}

static void checks_read_well(void **state)
{
    (void)state;
    expect(render_check,
           "{'ok': false, 'checks': ["
           " {'id': 'slots', 'state': 'fail', 'message': 'none is free', 'objects': [], 'remedy': null},"
           " {'id': 'settings', 'state': 'pass', 'message': 'wal_level is logical', 'objects': [], 'remedy': "
           "null},"
           " {'id': 'identity', 'state': 'fail', 'message': '1 table has no key', 'objects': ['public.t'],"
           "  'remedy': 'add a primary key'}]}",
           "pass  settings: wal_level is logical\n"
           "fail  slots: none is free\n"
           "fail  identity: 1 table has no key\n"
           "            public.t\n"
           "          add a primary key\n"
           "1 pass, 0 warn, 2 fail\n");
}

static void render_sessions_all(struct strbuf *out, const json_t *json)
{
    render_sessions(out, json, false);
}

static void render_sessions_immovable(struct strbuf *out, const json_t *json)
{
    render_sessions(out, json, true);
}

static void render_event_now(struct strbuf *out, const json_t *json)
{
    render_event(out, json, NOW);
}

static void render_audit_now(struct strbuf *out, const json_t *json)
{
    render_audit(out, json, NOW);
}

static void lists_read_well(void **state)
{
    (void)state;
    expect(
        render_sessions_all,
        "{'sessions': [{'id': 7, 'user': 'app', 'database': 'shop', 'client': '10.0.0.9:4711', 'side': "
        "'blue',"
        " 'state': 'idle', 'movable': true, 'reasons': [], 'state_age_ms': 1500},"
        " {'id': 12, 'user': 'x\\ny', 'database': 'shop', 'client': 'local', 'side': 'blue', 'state': "
        "'active',"
        " 'movable': false, 'reasons': ['temporary table', 'LISTEN'], 'state_age_ms': 20}]}",
        "ID  USER    DATABASE  CLIENT         SIDE  STATE   FOR    HOLDS  MOVES  WHY NOT\n"
        "7   app     shop      10.0.0.9:4711  blue  idle    1.5 s  ?      yes\n"
        "12  x\\x0ay  shop      local          blue  active  20 ms  ?      no     temporary table; LISTEN\n"
        "2 sessions\n");
    expect(render_sessions_all,
           "{'sessions': [{'id': 7, 'user': 'a', 'database': 's', 'client': 'c', 'side': 'blue', 'state': "
           "'idle', 'movable': true, 'reasons': [], 'state_age_ms': 20, 'holds': {'counts': {'settings': 0,"
           " 'statements': 0, 'channels': 0}, 'role': null, 'session_user': null}},"
           " {'id': 8, 'user': 'a', 'database': 's', 'client': 'c', 'side': 'blue', 'state': 'idle',"
           " 'movable': true, 'reasons': [], 'state_age_ms': 20, 'holds': {'counts': {'settings': 2,"
           " 'statements': 1, 'channels': 0}, 'role': 'h\\nx', 'session_user': 'u'}}]}",
           "ID  USER  DATABASE  CLIENT  SIDE  STATE  FOR    HOLDS                                            "
           "     MOVES  WHY NOT\n"
           "7   a     s         c       blue  idle   20 ms  nothing                                          "
           "     yes\n"
           "8   a     s         c       blue  idle   20 ms  2 settings, 1 statement, role h\\x0ax, session "
           "user u  yes\n"
           "2 sessions\n");
    expect(render_sessions_all, "{'sessions': []}", "no sessions\n");
    expect(render_sessions_immovable, "{'sessions': []}", "every session can move\n");
    expect(render_event_now,
           "{'seq': 4, 'time': '2026-11-20T11:00:00.5Z', 'type': 'phase', 'level': 'info', 'flip': 3,"
           " 'phase': 'drain', 'message': 'began'}",
           "11:00:00  phase  flip 3 drain: began\n");
    expect(render_event_now,
           "{'seq': 5, 'time': '2026-11-20T11:00:01Z', 'type': 'alarm', 'level': 'error', 'flip': null,"
           " 'phase': null, 'message': 'green is\\u0007 lost'}",
           "11:00:01  alarm ERROR: green is\\x07 lost\n");
    expect(
        render_audit_now,
        "{'rows': [{'seq': 1, 'time': '2026-11-20T11:00:00Z', 'uid': 0, 'actor': 'root', 'action': 'cutover',"
        " 'detail': {'key': 'k'}, 'hash': 'ab'},"
        " {'seq': 2, 'time': '2026-11-20T11:00:01Z', 'uid': -1, 'actor': 'switchback', 'action': 'flip_done',"
        " 'detail': {}, 'hash': 'cd'}]}",
        "SEQ  WHEN      WHO         WHAT       DETAIL\n"
        "1    11:00:00  root (0)    cutover    {\"key\":\"k\"}\n"
        "2    11:00:01  switchback  flip_done\n");
    expect(render_audit_verdict, "{'intact': true, 'rows': 2, 'last_hash': 'cd'}",
           "intact: 2 rows, each chained to the one before\nlast hash cd\n");
    expect(render_audit_verdict,
           "{'intact': false, 'rows': 2, 'broken_seq': 2, 'reason': 'row 2 was changed', 'last_hash': 'ab'}",
           "BROKEN at row 2: row 2 was changed\nlast good hash ab\n");
}

static void render_hold_now(struct strbuf *out, const json_t *json)
{
    render_hold(out, json, NOW);
}

static void answers_read_well(void **state)
{
    (void)state;
    expect(render_hold_now,
           "{'hold': 3, 'owner': 'root', 'reason': 'x', 'deadline': '2026-11-20T12:00:30Z', 'sessions': 12,"
           " 'held': 11}",
           "held: 11 sessions of 12 at the boundary, until 12:00:30\n"
           "next      switchback release\n");
    expect(render_release, "{'released': 3, 'stall_ms': {'p50': 1000, 'p99': 2000, 'max': 2500}}",
           "released: 3 clients had waited, 1.0 s at the median, at most 2.5 s\n");
    expect(render_release, "{'released': 0}", "released: 0 clients had waited\n");
    expect(render_reload, "{'applied': true, 'changed': ['gates', 'log.level'], 'restart': []}",
           "the new configuration is in force\n"
           "changed   gates\n"
           "          log.level\n");
    expect(render_reload, "{'applied': false, 'changed': [], 'restart': ['workers']}",
           "nothing was applied: a restart is needed\n"
           "restart   workers\n");
    expect(render_reload, "{'applied': true, 'changed': [], 'restart': []}", "nothing has changed\n");
    expect(render_prepare, "{'ok': true, 'active': 'blue', 'elapsed_ms': 61000}",
           "prepared, after 1 min 1 s\n"
           "next      switchback check, then switchback cutover --dry-run\n");
    expect(render_abort, "{'flip': 3, 'result': 'aborting'}", "flip 3 is being taken back\n");
    expect(render_finalize, "{'ok': true, 'message': '2 databases'}", "the way back is ended: 2 databases\n");
}

/* --- decisions */

static void decisions_read_well(void **state)
{
    (void)state;
    expect(render_recover,
           "{'needed': true, 'decided': false, 'active': null, 'epoch': 4,"
           " 'reason': 'both sides are at epoch 4', 'remedy': 'compare them',"
           " 'sides': {'blue': {'reachable': true, 'standing': 'active', 'epoch': 4, 'fenced': false},"
           "           'green': {'reachable': false, 'problem': 'connection refused'}},"
           " 'would': 'nothing: nobody is served',"
           " 'choices': [{'use': 'blue', 'possible': true, 'does': 'blue would be opened at epoch 6'},"
           "             {'use': 'green', 'possible': false, 'reason': 'green is away',"
           "              'remedy': 'bring it back'}]}",
           "decide    both sides are at epoch 4\n"
           "          compare them\n"
           "blue      active at epoch 4, not fenced\n"
           "green     can't be reached: connection refused\n"
           "by itself nothing: nobody is served\n"
           "choice    switchback recover --use blue\n"
           "          blue would be opened at epoch 6\n"
           "choice    switchback recover --use green: not possible, green is away\n"
           "          bring it back\n"
           "next      decide by one of the choices; nothing was done\n");
    expect(render_recover,
           "{'needed': false, 'decided': false, 'active': 'blue', 'epoch': 3, 'sides': {}, 'choices': []}",
           "nothing is to be decided: blue is active at epoch 3\n"
           "next      switchback status\n");
    expect(render_recover, "{'needed': true, 'decided': true, 'would': 'blue serves at epoch 6'}",
           "decided   blue serves at epoch 6\n"
           "next      switchback status\n");
}

static void a_rejoin_says_what_is_lost(void **state)
{
    (void)state;
    expect(render_rejoin,
           "{'side': 'green', 'active': 'blue', 'dry_run': true, 'transactions': 1, 'rows': 3,"
           " 'stranded': [{'xid': '77', 'database': 'app', 'table': 'public.t', 'operation': 'insert',"
           "               'key': 'id=\\u001b1'}]}",
           "XID  DATABASE  TABLE     OPERATION  KEY\n"
           "77   app       public.t  insert     id=\\x1b1\n"
           "and 2 more\n\n"
           "green holds 1 transaction (3 rows) that blue never got\n"
           "would     copy blue's rows for these keys to green, then let it follow blue\n"
           "next      keep what you need of the list (--json has it all), then switchback rejoin\n");
    expect(render_rejoin, "{'side': 'green', 'active': 'blue', 'transactions': 0, 'rows': 0, 'stranded': []}",
           "green holds nothing that blue never got\n"
           "done      it follows blue again\n"
           "next      switchback status says whether the way back is open\n");
}

static void progress_reads_well(void **state)
{
    (void)state;
    struct strbuf out;
    strbuf_init(&out, 1000);
    json_t *flip = quoted("{'flip': 3, 'phase': 'drain', 'elapsed_ms': 900, 'lag_seconds': 0, 'held': 40,"
                          " 'undrained': 2}");
    json_t *step =
        quoted("{'step': 'initial copy', 'message': '3 of 7 tables', 'fraction': 0.426, 'eta_ms': 90000}");
    render_progress(&out, "cutover", flip, 1200000);
    strbuf_puts(&out, "\n");
    render_progress(&out, "prepare", step, 60000000);
    strbuf_puts(&out, "\n");
    render_progress(&out, "check", NULL, 2000000);
    assert_string_equal(strbuf_text(&out),
                        "cutover  1.2 s  drain, 2 not yet at the boundary, lag 0 s, 40 held\n"
                        "prepare  1 min  initial copy 43%, 1 min 30 s to go: 3 of 7 tables\n"
                        "check  2.0 s");
    json_decref(flip);
    json_decref(step);
    strbuf_deinit(&out);
}

static void results_have_their_exit_status(void **state)
{
    (void)state;
    assert_int_equal(exit_status_of_result("done"), 0);
    assert_int_equal(exit_status_of_result("started"), 0);
    assert_int_equal(exit_status_of_result("refused"), 1);
    assert_int_equal(exit_status_of_result("aborted"), 1);
    assert_int_equal(exit_status_of_result("flipped_back"), 3);
    assert_int_equal(exit_status_of_result("inconclusive"), 4);
    assert_int_equal(exit_status_of_result("anything else"), 4);
    assert_int_equal(exit_status_of_error(ERROR_NONE), 0);
    assert_int_equal(exit_status_of_error(ERROR_FLIP_RUNNING), 1);
    assert_int_equal(exit_status_of_error(ERROR_ALREADY_ACTIVE), 1);
    assert_int_equal(exit_status_of_error(ERROR_PERMISSION), 1);
    assert_int_equal(exit_status_of_error(ERROR_USAGE), 2);
    assert_int_equal(exit_status_of_error(ERROR_CONFIG), 2);
    assert_int_equal(exit_status_of_error(ERROR_UNDECIDED), 4);
    assert_int_equal(exit_status_of_error(ERROR_DAEMON_UNREACHABLE), 5);
}

static int in_utc(void **state)
{
    (void)state;
    int result = setenv("TZ", "UTC", 1);
    tzset();
    return result;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_of_peers_cannot_act_on_a_terminal),
        cmocka_unit_test(figures_read_as_people_say_them),
        cmocka_unit_test(times_of_other_days_have_a_date),
        cmocka_unit_test(columns_are_as_wide_as_they_must),
        cmocka_unit_test(status_in_peace),
        cmocka_unit_test(status_after_a_cutover),
        cmocka_unit_test(status_with_both_sides_down),
        cmocka_unit_test(status_before_prepare),
        cmocka_unit_test(status_in_a_flip),
        cmocka_unit_test(status_in_the_watch),
        cmocka_unit_test(status_says_trouble_first),
        cmocka_unit_test(status_of_a_lossless_watch),
        cmocka_unit_test(status_with_a_lost_standby),
        cmocka_unit_test(status_of_nothing_is_survived),
        cmocka_unit_test(flips_read_well),
        cmocka_unit_test(dry_runs_read_well),
        cmocka_unit_test(checks_read_well),
        cmocka_unit_test(lists_read_well),
        cmocka_unit_test(answers_read_well),
        cmocka_unit_test(decisions_read_well),
        cmocka_unit_test(a_rejoin_says_what_is_lost),
        cmocka_unit_test(progress_reads_well),
        cmocka_unit_test(results_have_their_exit_status),
    };
    return cmocka_run_group_tests_name("cli_render", tests, in_utc, NULL);
}
