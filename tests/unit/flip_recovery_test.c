/* What a start decides, case by case: flip.md "Recovery". */
#include "control/flip/recovery.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { FLIP = 7, EPOCH = 4 };

static struct flip_side_facts away(void)
{
    return (struct flip_side_facts){0};
}

static struct flip_side_facts side(uint64_t epoch, bool active, bool fence)
{
    return (struct flip_side_facts){.reachable = true,
                                    .databases = 1,
                                    .installed = 1,
                                    .active = active,
                                    .standby = !active,
                                    .epoch_min = epoch,
                                    .epoch_max = epoch,
                                    .fences_on = fence,
                                    .fences_off = !fence};
}

static struct flip_side_facts active(uint64_t epoch)
{
    return side(epoch, true, false);
}

static struct flip_side_facts standby(uint64_t epoch)
{
    return side(epoch, false, true);
}

static struct flip_side_facts fenced(uint64_t epoch)
{
    struct flip_side_facts facts = side(epoch, true, true);
    facts.fenced_for = FLIP;
    facts.fenced_for_count = 1;
    return facts;
}

static struct flip_side_facts undone(uint64_t epoch)
{
    struct flip_side_facts facts = active(epoch);
    facts.aborted = FLIP;
    return facts;
}

/* Two databases: the undo has reached the first. */
static struct flip_side_facts half_undone(uint64_t epoch)
{
    struct flip_side_facts facts = fenced(epoch);
    facts.databases = facts.installed = facts.active = 2;
    facts.aborted = FLIP;
    facts.fences_off = 1;
    return facts;
}

static struct flip_side_facts bare(void)
{
    return (struct flip_side_facts){.reachable = true, .databases = 1};
}

/* It has heard of later flips. */
static struct flip_side_facts after(struct flip_side_facts facts, uint64_t flip)
{
    facts.last_flip = flip;
    return facts;
}

static struct flip_side_facts foreign(struct flip_side_facts facts)
{
    (void)snprintf(facts.foreign, sizeof facts.foreign, "it belongs to another pair");
    return facts;
}

/* How far the journal says that flip 7, blue to green at epoch 4, has come. */
enum progress { NOTHING, UNPREPARED, STEADY, BEGUN, FENCING, COMMITTED, BACK, RELEASED, ENDED };

static struct flip_history history_of(enum progress progress, enum flip_kind kind)
{
    const bool takeover = kind == FLIP_KIND_TAKEOVER;
    struct flip_history result;
    flip_history_init(&result);
    const struct record rows[] = {
        [UNPREPARED] = {.kind = RECORD_UNPREPARED, .side = SIDE_BLUE},
        [STEADY] = {.kind = RECORD_STEADY, .side = SIDE_BLUE, .epoch = EPOCH},
        [BEGUN] = {.kind = RECORD_BEGIN, .flip_kind = kind, .side = SIDE_BLUE, .epoch = EPOCH},
        [FENCING] = {.kind = RECORD_INTENT,
                     .phase = takeover ? FLIP_PHASE_CATCHUP : FLIP_PHASE_FENCE,
                     .side = SIDE_BLUE},
        [COMMITTED] = {.kind = RECORD_COMMIT, .side = SIDE_GREEN, .epoch = EPOCH + 1},
        [BACK] = {.kind = RECORD_BACK, .side = SIDE_BLUE, .epoch = EPOCH + 2},
        [RELEASED] = {.kind = RECORD_RELEASED, .side = SIDE_GREEN, .epoch = EPOCH + 1},
        [ENDED] = {.kind = RECORD_END, .side = SIDE_GREEN, .epoch = EPOCH + 1, .outcome = FLIP_OUTCOME_DONE},
    };
    for (int i = UNPREPARED; i <= (int)progress; i++) {
        struct record row = rows[i];
        if (i == BACK && progress != BACK) {
            continue;
        }
        row.flip = i <= STEADY ? 0 : FLIP;
        flip_history_fold(&result, &row);
    }
    return result;
}

static struct flip_history history(enum progress progress)
{
    return history_of(progress, FLIP_KIND_CUTOVER);
}

struct expected {
    enum progress progress;
    struct flip_side_facts blue, green;
    enum recovery_verdict verdict;
    enum side active; /* STEADY only */
    uint64_t epoch;
};

static void check_of(enum flip_kind kind, const struct expected *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct recovery recovery;
        const struct flip_history known = history_of(cases[i].progress, kind);
        const struct flip_facts facts = {.sides = {cases[i].blue, cases[i].green}};
        recovery_decide(&known, &facts, SIDE_BLUE, &recovery);
        if (recovery.verdict != cases[i].verdict) {
            fail_msg("case %zu: %s instead of %s", i, recovery_verdict_name(recovery.verdict),
                     recovery_verdict_name(cases[i].verdict));
        }
        if (recovery.verdict == RECOVERY_STEADY || recovery.verdict == RECOVERY_UNPREPARED) {
            assert_int_equal(recovery.active, cases[i].active);
            assert_int_equal(recovery.epoch, cases[i].epoch);
        } else if (recovery.verdict == RECOVERY_WAIT || recovery.verdict == RECOVERY_UNDECIDED) {
            assert_true(recovery.why.message[0] != '\0' && recovery.why.remedy[0] != '\0');
        } else {
            assert_int_equal(recovery.spec.id, FLIP);
            assert_int_equal(recovery.spec.source, SIDE_BLUE);
            assert_int_equal(recovery.spec.epoch, EPOCH);
        }
    }
}

static void check(const struct expected *cases, size_t count)
{
    check_of(FLIP_KIND_CUTOVER, cases, count);
}

/* Two databases, one of them open at the next epoch. */
static struct flip_side_facts half_open(uint64_t epoch)
{
    struct flip_side_facts facts = standby(epoch);
    facts.databases = facts.installed = 2;
    facts.active = facts.standby = 1;
    facts.epoch_max = epoch + 1;
    facts.fences_on = facts.fences_off = 1;
    return facts;
}

static struct flip_side_facts reattached(uint64_t epoch)
{
    struct flip_side_facts facts = standby(epoch);
    facts.aborted = FLIP;
    return facts;
}

/* Flip 7 was a takeover: blue is dead or was, green has every commit that it acknowledged. */
static void test_a_takeover_was_under_way(void **state)
{
    (void)state;
    const struct expected cases[] = {
        {BEGUN, away(), standby(4), RECOVERY_STEADY, SIDE_BLUE, 4}, /* nothing was touched */
        {FENCING, away(), standby(4), RECOVERY_UNDO, 0, 0},
        {FENCING, active(4), standby(4), RECOVERY_UNDO, 0, 0},
        {FENCING, active(4), away(), RECOVERY_UNDO, 0, 0}, /* green follows again when it is back */
        {COMMITTED, away(), standby(4), RECOVERY_FORWARD, 0, 0},
        {COMMITTED, away(), half_open(4), RECOVERY_FORWARD, 0, 0},
        {COMMITTED, away(), active(5), RECOVERY_FORWARD, 0, 0},
        {COMMITTED, active(4), standby(4), RECOVERY_FORWARD, 0, 0}, /* blue is back: too late */
        {COMMITTED, active(4), away(), RECOVERY_WAIT, 0, 0}, /* green may have been opened, or been undone */
        {COMMITTED, away(), away(), RECOVERY_WAIT, 0, 0},
        {COMMITTED, away(), reattached(4), RECOVERY_UNDO, 0, 0},
        {COMMITTED, active(4), reattached(4), RECOVERY_UNDO, 0, 0},
        {BACK, active(4), away(), RECOVERY_UNDO, 0, 0}, /* the journal says so itself */
        {BACK, away(), standby(4), RECOVERY_UNDO, 0, 0},
        {RELEASED, active(4), active(5), RECOVERY_FORWARD, 0, 0},
        {RELEASED, away(), away(), RECOVERY_WAIT, 0, 0},               /* the journal may be an older copy */
        {ENDED, active(4), active(5), RECOVERY_STEADY, SIDE_GREEN, 5}, /* blue is fenced on contact */
        {ENDED, active(4), away(), RECOVERY_STEADY, SIDE_GREEN, 5},
    };
    check_of(FLIP_KIND_TAKEOVER, cases, sizeof cases / sizeof cases[0]);
}

/* Without a journal: one database is open, and the side that was left has no fence. */
static void test_half_a_takeover_without_a_journal(void **state)
{
    (void)state;
    const struct flip_history nothing = history(NOTHING);
    struct flip_facts facts = {.sides = {active(4), half_open(4)}};
    struct recovery recovery;
    recovery_decide(&nothing, &facts, SIDE_BLUE, &recovery);
    assert_int_equal(recovery.verdict, RECOVERY_FORWARD);
    assert_true(recovery.spec.kind == FLIP_KIND_TAKEOVER && recovery.spec.source == SIDE_BLUE &&
                recovery.spec.epoch == 4 && recovery.from_clusters);
    facts.sides[SIDE_GREEN].opened_for = FLIP;   /* under another number the open one can't be gone on with */
    facts.sides[SIDE_BLUE].last_flip = FLIP + 2; /* refused, or aborted before it had touched green */
    recovery_decide(&nothing, &facts, SIDE_BLUE, &recovery);
    assert_true(recovery.verdict == RECOVERY_FORWARD && recovery.spec.id == FLIP);
    facts.sides[SIDE_BLUE] = away(); /* it may have been opened again */
    recovery_decide(&nothing, &facts, SIDE_BLUE, &recovery);
    assert_int_equal(recovery.verdict, RECOVERY_WAIT);
}

/* What an operator is told before the choice is made. */
static void test_choices(void **state)
{
    (void)state;
    struct recovery_choice choices[SIDE_COUNT];
    struct flip_history known = history(COMMITTED);
    struct flip_facts facts = {.sides = {active(4), away()}};
    recovery_choices(&known, &facts, choices);
    assert_true(choices[SIDE_BLUE].possible && !choices[SIDE_GREEN].possible);
    assert_true(choices[SIDE_BLUE].may_lack && choices[SIDE_BLUE].other_unseen);
    assert_true(choices[SIDE_BLUE].epoch > EPOCH + 2); /* whatever green is at, it is left behind */
    assert_int_equal(choices[SIDE_GREEN].why_not.code, ERROR_UNREACHABLE);
    assert_non_null(strstr(choices[SIDE_BLUE].does, "green can't be reached"));

    facts = (struct flip_facts){.sides = {active(4), active(4)}};
    known = history(STEADY);
    recovery_choices(&known, &facts, choices);
    for (int i = 0; i < SIDE_COUNT; i++) {
        assert_true(choices[i].possible && choices[i].may_lack && choices[i].fences_other);
        assert_true(choices[i].epoch == choices[1 - i].epoch);
    }
    facts = (struct flip_facts){.sides = {standby(4), standby(4)}}; /* nobody was ahead: nothing is lost */
    recovery_choices(&known, &facts, choices);
    assert_true(choices[SIDE_BLUE].possible && !choices[SIDE_BLUE].may_lack &&
                !choices[SIDE_BLUE].fences_other);
    facts = (struct flip_facts){.sides = {bare(), active(4)}};
    recovery_choices(&known, &facts, choices);
    assert_int_equal(choices[SIDE_BLUE].why_not.code, ERROR_NOT_PREPARED);
}

/* A promise is of one side, and ends with whatever makes another one active. */
static void test_promise_in_the_journal(void **state)
{
    (void)state;
    struct flip_history known = history(ENDED);
    const struct record on = {.kind = RECORD_PROMISE_ON, .flip = FLIP, .side = SIDE_GREEN, .time_us = 5};
    const struct record off = {
        .kind = RECORD_PROMISE_OFF, .flip = FLIP, .side = SIDE_GREEN, .time_us = 6, .text = "blue is gone"};
    const struct record ends[] = {{.kind = RECORD_STEADY, .side = SIDE_BLUE, .epoch = 9},
                                  {.kind = RECORD_DECIDED, .side = SIDE_BLUE, .epoch = 9},
                                  {.kind = RECORD_RELEASED, .side = SIDE_BLUE, .epoch = 6, .flip = FLIP}};
    assert_false(known.promise);
    flip_history_fold(&known, &on);
    assert_true(known.promise && known.promise_us == 5);
    flip_history_fold(&known, &off);
    assert_false(known.promise);
    assert_string_equal(known.promise_why, "blue is gone");
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        flip_history_fold(&known, &on);
        flip_history_fold(&known, &ends[i]);
        assert_false(known.promise);
    }
}

static void test_a_flip_was_under_way(void **state)
{
    (void)state;
    const struct expected cases[] = {
        {BEGUN, active(4), standby(4), RECOVERY_STEADY, SIDE_BLUE, 4},
        {BEGUN, away(), standby(4), RECOVERY_STEADY, SIDE_BLUE, 4},
        {FENCING, active(4), standby(4), RECOVERY_UNDO, 0, 0},
        {FENCING, fenced(4), standby(4), RECOVERY_UNDO, 0, 0},
        {FENCING, fenced(4), away(), RECOVERY_UNDO, 0, 0},
        {FENCING, away(), standby(4), RECOVERY_UNDO, 0, 0},
        {FENCING, fenced(4), active(5), RECOVERY_FORWARD, 0, 0}, /* an old copy of the journal */
        {COMMITTED, fenced(4), standby(4), RECOVERY_FORWARD, 0, 0},
        {COMMITTED, fenced(4), active(5), RECOVERY_FORWARD, 0, 0},
        {COMMITTED, fenced(4), away(), RECOVERY_FORWARD, 0, 0}, /* the runner then goes back */
        {COMMITTED, undone(4), standby(4), RECOVERY_UNDO, 0, 0},
        {COMMITTED, undone(4), active(5), RECOVERY_UNDECIDED, 0, 0},
        {COMMITTED, half_undone(4), standby(4), RECOVERY_UNDO, 0,
         0}, /* its first database may have written */
        {COMMITTED, half_undone(4), away(), RECOVERY_UNDO, 0, 0},
        {COMMITTED, half_undone(4), active(5), RECOVERY_UNDECIDED, 0, 0},
        {FENCING, half_undone(4), standby(4), RECOVERY_UNDO, 0, 0},
        {COMMITTED, away(), active(5), RECOVERY_FORWARD, 0, 0},
        {COMMITTED, away(), standby(4), RECOVERY_WAIT, 0, 0},
        {COMMITTED, away(), away(), RECOVERY_WAIT, 0, 0},
        {COMMITTED, active(4), standby(4), RECOVERY_UNDECIDED, 0, 0},
        {BACK, fenced(4), active(5), RECOVERY_BACK, 0, 0},
        {BACK, active(6), away(), RECOVERY_BACK, 0, 0},
        {BACK, away(), active(5), RECOVERY_BACK, 0, 0},
        {RELEASED, fenced(4), active(5), RECOVERY_FORWARD, 0, 0},
        {RELEASED, away(), away(), RECOVERY_WAIT, 0, 0},             /* the journal may be an older copy */
        {RELEASED, fenced(4), standby(4), RECOVERY_UNDECIDED, 0, 0}, /* green was restored */
    };
    check(cases, sizeof cases / sizeof cases[0]);
}

/* state.dir was restored, or another daemon has run the pair meanwhile: what the clusters say is later. */
static void test_the_journal_is_older(void **state)
{
    (void)state;
    const struct expected cases[] = {
        {BEGUN, standby(5), active(5), RECOVERY_STEADY, SIDE_GREEN, 5},
        {BEGUN, away(), after(active(4), FLIP), RECOVERY_WAIT, 0, 0}, /* it had gone further than this */
        {FENCING, standby(5), active(5), RECOVERY_STEADY, SIDE_GREEN, 5},
        {FENCING, after(standby(4), 9), after(active(4), 9), RECOVERY_STEADY, SIDE_GREEN, 4},
        {FENCING, after(active(4), 9), standby(4), RECOVERY_STEADY, SIDE_BLUE, 4}, /* undone by the other */
        {COMMITTED, standby(9), active(9), RECOVERY_STEADY, SIDE_GREEN, 9},
        {COMMITTED, active(8), standby(8), RECOVERY_STEADY, SIDE_BLUE, 8},
        {BACK, active(8), standby(8), RECOVERY_STEADY, SIDE_BLUE, 8},
        {RELEASED, active(8), standby(8), RECOVERY_STEADY, SIDE_BLUE, 8},
        {RELEASED, active(8), away(), RECOVERY_WAIT, 0, 0},
        {RELEASED, after(active(6), 8), standby(6), RECOVERY_STEADY, SIDE_BLUE, 6},
    };
    check(cases, sizeof cases / sizeof cases[0]);
}

/* Others have run the pair since: neither "steady", nor a commit, nor the promise of this journal counts. */
static void test_others_have_owned_the_pair(void **state)
{
    (void)state;
    struct recovery recovery;
    struct flip_history known = history(STEADY);
    struct flip_facts facts = {.sides = {active(4), away()}, .owned_since = true};
    recovery_decide(&known, &facts, SIDE_BLUE, &recovery);
    assert_int_equal(recovery.verdict, RECOVERY_WAIT);
    facts.owned_since = false;
    recovery_decide(&known, &facts, SIDE_BLUE, &recovery);
    assert_int_equal(recovery.verdict, RECOVERY_STEADY);

    known = history_of(COMMITTED, FLIP_KIND_TAKEOVER);
    facts = (struct flip_facts){.sides = {active(4), standby(4)}, .owned_since = true};
    recovery_decide(&known, &facts, SIDE_BLUE, &recovery);
    assert_true(recovery.verdict == RECOVERY_STEADY && recovery.active == SIDE_BLUE &&
                recovery.from_clusters);
}

/* What this daemon has been told once isn't forgotten when who told it goes away. */
static void test_a_lower_epoch_than_was_seen(void **state)
{
    (void)state;
    struct recovery recovery;
    const struct flip_history known = history(STEADY);
    struct flip_facts facts = {.sides = {active(4), away()}, .epoch_seen = 5};
    recovery_decide(&known, &facts, SIDE_BLUE, &recovery);
    assert_int_equal(recovery.verdict, RECOVERY_WAIT);
    facts.epoch_seen = 4;
    recovery_decide(&known, &facts, SIDE_BLUE, &recovery);
    assert_int_equal(recovery.verdict, RECOVERY_STEADY);
}

/* Nor is a flip undone at a side that is known to be behind the one that is away: the journal is an older
 * copy. */
static void test_no_undo_below_what_was_seen(void **state)
{
    (void)state;
    struct recovery recovery;
    const struct flip_history known = history(FENCING);
    struct flip_facts facts = {.sides = {fenced(EPOCH), away()}, .epoch_seen = EPOCH + 1};
    recovery_decide(&known, &facts, SIDE_BLUE, &recovery);
    assert_int_equal(recovery.verdict, RECOVERY_WAIT);
    facts.epoch_seen = EPOCH;
    recovery_decide(&known, &facts, SIDE_BLUE, &recovery);
    assert_int_equal(recovery.verdict, RECOVERY_UNDO);
}

/* A flip that was found committed on the clusters, by a start without its journal: it may have been released.
 */
static void test_an_adopted_flip_may_have_been_released(void **state)
{
    (void)state;
    struct recovery recovery;
    struct flip_history known = history(STEADY);
    const struct record adopted = {
        .kind = RECORD_BEGIN, .flip = FLIP, .side = SIDE_BLUE, .epoch = EPOCH, .committed = true};
    flip_history_fold(&known, &adopted);
    struct flip_facts facts = {.sides = {fenced(EPOCH), away()}};
    recovery_decide(&known, &facts, SIDE_BLUE, &recovery);
    assert_int_equal(recovery.verdict, RECOVERY_WAIT);
    facts.sides[SIDE_GREEN] = active(EPOCH + 1);
    recovery_decide(&known, &facts, SIDE_BLUE, &recovery);
    assert_int_equal(recovery.verdict, RECOVERY_FORWARD);
    facts.sides[SIDE_BLUE] = undone(EPOCH);
    facts.sides[SIDE_GREEN] = standby(EPOCH);
    recovery_decide(&known, &facts, SIDE_BLUE, &recovery);
    assert_int_equal(recovery.verdict, RECOVERY_UNDO);
}

/* A flip-back died behind its fence, a takeover went over it: the fence that is left is of no flip under way.
 */
static void test_a_fence_that_a_takeover_left(void **state)
{
    (void)state;
    struct recovery recovery;
    const struct flip_history nothing = history(NOTHING);
    struct flip_facts facts = {.sides = {fenced(4), active(5)}};
    facts.sides[SIDE_GREEN].opened_for = FLIP + 1;
    recovery_decide(&nothing, &facts, SIDE_BLUE, &recovery);
    assert_true(recovery.verdict == RECOVERY_STEADY && recovery.active == SIDE_GREEN && recovery.epoch == 5);
    facts.sides[SIDE_GREEN].opened_for = FLIP;
    recovery_decide(&nothing, &facts, SIDE_BLUE, &recovery);
    assert_int_equal(recovery.verdict, RECOVERY_FORWARD);
    /* The target, whichever side it is, half open: its source's fence tells what was under way. */
    facts = (struct flip_facts){.sides = {half_open(4), fenced(4)}};
    recovery_decide(&nothing, &facts, SIDE_BLUE, &recovery);
    assert_true(recovery.verdict == RECOVERY_FORWARD && recovery.spec.kind == FLIP_KIND_CUTOVER &&
                recovery.spec.source == SIDE_GREEN && recovery.spec.id == FLIP);
}

/* What answers is another pair's, the other side, or a cluster never prepared. */
static void test_clusters_of_others(void **state)
{
    (void)state;
    const struct expected cases[] = {
        {STEADY, active(4), foreign(active(9)), RECOVERY_STEADY, SIDE_BLUE, 4},
        {STEADY, foreign(active(4)), standby(4), RECOVERY_UNDECIDED, 0, 0},
        {STEADY, foreign(bare()), away(), RECOVERY_UNDECIDED, 0, 0},
        {STEADY, foreign(standby(4)), foreign(active(4)), RECOVERY_UNDECIDED, 0, 0}, /* exchanged */
        {NOTHING, active(4), foreign(standby(4)), RECOVERY_UNDECIDED, 0, 0},
        {NOTHING, bare(), foreign(active(4)), RECOVERY_UNDECIDED, 0, 0},
        {FENCING, fenced(4), foreign(bare()), RECOVERY_UNDECIDED, 0, 0},
        {RELEASED, fenced(4), foreign(active(5)), RECOVERY_UNDECIDED, 0, 0},
        {ENDED, foreign(bare()), active(5), RECOVERY_STEADY, SIDE_GREEN, 5},
    };
    check(cases, sizeof cases / sizeof cases[0]);
}

static void test_steady(void **state)
{
    (void)state;
    const struct expected cases[] = {
        {STEADY, active(4), standby(4), RECOVERY_STEADY, SIDE_BLUE, 4},
        {STEADY, active(4), away(), RECOVERY_STEADY, SIDE_BLUE, 4}, /* serves when the standby is down */
        {STEADY, away(), standby(4), RECOVERY_STEADY, SIDE_BLUE, 4},
        {STEADY, away(), after(standby(4), 9), RECOVERY_WAIT, 0,
         0}, /* a flip that it doesn't know was fenced */
        {STEADY, active(4), after(standby(4), 9), RECOVERY_STEADY, SIDE_BLUE, 4},
        {STEADY, away(), standby(6), RECOVERY_WAIT, 0, 0}, /* an old journal, and who knows is away */
        {STEADY, away(), away(), RECOVERY_WAIT, 0, 0},     /* it may be an old one */
        {STEADY, bare(), bare(), RECOVERY_STEADY, SIDE_BLUE, 4},
        {STEADY, active(3), standby(3), RECOVERY_UNDECIDED, 0, 0},       /* restored */
        {STEADY, standby(5), active(5), RECOVERY_STEADY, SIDE_GREEN, 5}, /* an old journal */
        {STEADY, fenced(4), active(5), RECOVERY_FORWARD, 0, 0},          /* and in the middle of it */
        {STEADY, fenced(4), standby(4), RECOVERY_UNDO, 0, 0},
        {STEADY, fenced(4), away(), RECOVERY_WAIT, 0, 0},
        {ENDED, standby(5), active(5), RECOVERY_STEADY, SIDE_GREEN, 5},
        {ENDED, fenced(4), active(5), RECOVERY_STEADY, SIDE_GREEN, 5}, /* turn is still to come */
    };
    check(cases, sizeof cases / sizeof cases[0]);
}

static void test_without_a_journal(void **state)
{
    (void)state;
    const struct expected cases[] = {
        {NOTHING, bare(), bare(), RECOVERY_UNPREPARED, SIDE_BLUE, 0},
        {NOTHING, bare(), away(), RECOVERY_UNPREPARED, SIDE_BLUE, 0}, /* green is still to come */
        {NOTHING, away(), away(), RECOVERY_WAIT, 0, 0}, /* a journal that was lost looks like a new one */
        {NOTHING, away(), bare(), RECOVERY_WAIT, 0, 0},
        {UNPREPARED, away(), away(), RECOVERY_UNPREPARED, SIDE_BLUE, 0},
        {UNPREPARED, standby(5), active(5), RECOVERY_STEADY, SIDE_GREEN, 5},
        {NOTHING, active(4), standby(4), RECOVERY_STEADY, SIDE_BLUE, 4},
        {NOTHING, standby(5), active(5), RECOVERY_STEADY, SIDE_GREEN, 5},
        {NOTHING, active(1), away(), RECOVERY_WAIT, 0,
         0}, /* green may have taken over, and blue not have heard */
        {NOTHING, active(4), away(), RECOVERY_WAIT, 0, 0},
        {NOTHING, away(), standby(4), RECOVERY_WAIT, 0, 0},
        {NOTHING, fenced(4), standby(4), RECOVERY_UNDO, 0, 0},
        {NOTHING, fenced(4), active(5), RECOVERY_FORWARD, 0, 0},
        {NOTHING, fenced(4), away(), RECOVERY_WAIT, 0, 0},
        {NOTHING, active(6), active(5), RECOVERY_STEADY, SIDE_BLUE, 6}, /* it was opened again */
        {NOTHING, active(4), active(4), RECOVERY_UNDECIDED, 0, 0},
        {NOTHING, standby(4), standby(4), RECOVERY_UNDECIDED, 0, 0},
    };
    check(cases, sizeof cases / sizeof cases[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_takeover_was_under_way),
        cmocka_unit_test(test_half_a_takeover_without_a_journal),
        cmocka_unit_test(test_choices),
        cmocka_unit_test(test_promise_in_the_journal),
        cmocka_unit_test(test_a_flip_was_under_way),
        cmocka_unit_test(test_the_journal_is_older),
        cmocka_unit_test(test_others_have_owned_the_pair),
        cmocka_unit_test(test_a_lower_epoch_than_was_seen),
        cmocka_unit_test(test_no_undo_below_what_was_seen),
        cmocka_unit_test(test_an_adopted_flip_may_have_been_released),
        cmocka_unit_test(test_a_fence_that_a_takeover_left),
        cmocka_unit_test(test_clusters_of_others),
        cmocka_unit_test(test_steady),
        cmocka_unit_test(test_without_a_journal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
