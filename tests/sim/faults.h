/* What goes wrong, and when (faults.c); at which moment (faults_aimed.c). */
#ifndef SWITCHBACK_TESTS_SIM_FAULTS_H
#define SWITCHBACK_TESTS_SIM_FAULTS_H

#include "control/flip/ports.h"
#include "tests/sim/cluster.h"

enum fault {
    FAULT_PROXY_CRASH,
    FAULT_CLUSTER_CRASH,
    FAULT_CUT,     /* between two, both ways */
    FAULT_ONE_WAY, /* one way only */
    FAULT_SLOW_NETWORK,
    FAULT_DISK_FULL,
    FAULT_DISK_SLOW,
    FAULT_STALL, /* the controller's loop stands still; the workers go on */
    FAULT_WALL_CLOCK,
    FAULT_LAG,       /* apply is slow */
    FAULT_DOUBLE,    /* an answer comes twice */
    FAULT_MUTE,      /* no answer at all */
    FAULT_BYPASS,    /* writers around the proxy */
    FAULT_TABLE,     /* somebody adds a table */
    FAULT_PREPARED,  /* somebody's prepared transaction stands */
    FAULT_BAD_GREEN, /* statements fail on green: the gate sees it */
    FAULT_OPERATOR,  /* holds, aborts, finalizes at bad moments */
    FAULT_COUNT
};

struct faults {
    bool on[FAULT_COUNT];
    bool any;
    bool over;        /* the liveness phase */
    unsigned aims;    /* so many of a thousand requests have something aimed at them */
    int64_t pause_us; /* at most, between two that strike at any time */
    int64_t lag_us[SIDE_COUNT];
    bool bad_green;
    int64_t lame_us[SIDE_COUNT][DATABASES];  /* of them one is slow */
    bool restarts, orphans, workers, deaths; /* this seed has those of faults_aimed.c */
    uint64_t still_connection[SIDE_COUNT];   /* its backend stands still until then */
    bool second;                             /* another daemon for the same pair */
    bool journals;                           /* a daemon that died may find no journal, or an older one */
    bool left;      /* a fence is left behind by a flip whose source died, and by the daemon after it */
    bool one_sided; /* a start may reach one side only, its clock go back, its journal be lost */
    int64_t still_until_us[SIDE_COUNT];
};

const char *fault_name(enum fault fault);
void faults_choose(struct sim *sim);
void faults_start(struct sim *sim);
/* A request goes out: a fault may be aimed at it. */
void faults_aim(struct sim *sim, const struct flip_request *request);
void faults_heal(struct sim *sim);
void faults_unseen_row(struct sim *sim);
bool faults_double(struct sim *sim);
bool faults_mute(struct sim *sim);
/* faults_aimed.c */
void faults_choose_aimed(struct sim *sim);
void faults_start_aimed(struct sim *sim);
void faults_aim_between(struct sim *sim, const struct flip_request *request);
void faults_before_start(struct sim *sim);
int64_t faults_stand_still(const struct sim *sim, enum side side, uint64_t connection);

#endif
