/* control/cli: what flips, checks and lists read like, from JSON as contract.md has it. */
#include "control/cli/exit_status.h"
#include "render_scene.h"

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

static void render_check_short(struct strbuf *out, const json_t *json)
{
    render_check(out, json, false);
}

static void render_check_all(struct strbuf *out, const json_t *json)
{
    render_check(out, json, true);
}

static void checks_read_well(void **state)
{
    (void)state;
    static const char report[] =
        "{'ok': false, 'checks': ["
        " {'id': 'slots', 'state': 'fail', 'message': 'none is free', 'objects': [], 'remedy': null},"
        " {'id': 'settings', 'state': 'pass', 'message': 'wal_level is logical', 'objects': [], 'remedy': "
        "null},"
        " {'id': 'identity', 'state': 'fail', 'message': '1 table has no key', 'objects': ['public.t'],"
        "  'remedy': 'add a primary key'}]}";
    expect(render_check_all, report,
           "pass  settings: wal_level is logical\n"
           "fail  slots: none is free\n"
           "fail  identity: 1 table has no key\n"
           "            public.t\n"
           "          add a primary key\n"
           "1 pass, 0 warn, 2 fail\n");
    expect(render_check_short, report,
           "fail  slots: none is free\n"
           "fail  identity: 1 table has no key\n"
           "            public.t\n"
           "          add a primary key\n"
           "1 pass (--all lists them), 0 warn, 2 fail\n");
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

int main(void)
{
    const struct CMUnitTest tests[] = {
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
    return cmocka_run_group_tests(tests, in_utc, NULL);
}
