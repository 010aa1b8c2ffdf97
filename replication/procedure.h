/*
 * A procedure is a table of steps that runs in every managed database at once, one strand for each, and ends
 * with one outcome when all strands have ended. A step is a request and the judgement of its reply:
 *
 *   static const struct step steps[] = {
 *       {.name = "lock tables", .build = build_lock},
 *       {.name = "see marker", .on = ON_OTHER_SIDE, .build = build_look, .judge = judge_look},
 *   };
 *   procedure_start(replication, &(struct procedure_plan){.name = "fence", .steps = steps,
 *       .step_count = ARRAY_LENGTH(steps), .sides = SIDE_BIT(source), ...});
 *
 * A failed strand ends; the others run on to their end, and the first error is the procedure's.
 */
#ifndef SWITCHBACK_REPLICATION_PROCEDURE_H
#define SWITCHBACK_REPLICATION_PROCEDURE_H

#include "conf/base/strbuf.h"
#include "replication/engine.h"

#define SIDE_BIT(side) (1U << (unsigned)(side))
enum { BOTH_SIDES = 3 };

struct strand;

enum verdict {
    VERDICT_NEXT,  /* go on with the next step */
    VERDICT_AGAIN, /* ask again, at first at once, later at growing pauses up to the step's again_us */
    VERDICT_END,   /* this strand is done and well */
    VERDICT_FAIL   /* this strand failed: *error says why */
};

enum step_place { ON_THIS_SIDE, ON_OTHER_SIDE };

struct step {
    const char *name; /* of what it does: stands before its error's message and in the log */
    enum step_place on;
    enum lane lane;
    bool single;    /* one statement by the extended protocol */
    bool tolerant;  /* judge sees failed replies too; else they end the strand */
    bool unlimited; /* may outlive the procedure's deadline (a copy, an index) */
    bool heals;     /* refused by a side that came back and lacks our number: asked again once it has it */
    bool (*skip)(const struct strand *strand); /* NULL: never */
    /* Either the text itself or a function that writes it. A buffer left empty skips the request. */
    const char *sql;
    void (*build)(struct strand *strand, struct strbuf *sql);
    enum verdict (*judge)(struct strand *strand, const struct reply *reply,
                          struct error *error); /* NULL: next */
    int64_t least_us, again_us; /* shortest and longest pause between two askings; 0 and, for 0, 5 ms */
};

struct procedure_plan {
    const char *name;
    const struct step *steps;
    size_t step_count;
    unsigned sides;      /* SIDE_BIT(side), or BOTH_SIDES: strands on both */
    bool quiet;          /* runs all the time: only its failures are logged */
    bool cluster;        /* one strand a side instead of one a database: for the lanes of a side */
    int64_t deadline_us; /* monotonic, for every step; 0 for none */
    /* Called once, on the loop, never inside procedure_start. Frees data if it was allocated. */
    void (*done)(void *data, const struct replication_result *result);
    void *data;
};

struct strand {
    struct replication *replication;
    const struct procedure_plan *plan;
    enum side side;
    size_t database; /* index */
    const char *database_name;
    void *data; /* the plan's */
    bool failed, uncertain;
    struct error error;
};

struct procedure;

/* Copies the plan. Never NULL: a procedure that can't even be allocated could not answer either. */
struct procedure *procedure_start(struct replication *replication, const struct procedure_plan *plan);
/* Cancels what runs and lets no strand begin another step; done follows with ERROR_ABORTED. */
void procedure_abort(struct procedure *procedure);
void procedure_abort_all(struct replication *replication);

/* A step that ends the strand, well, where our schema isn't installed: asking would leave errors in its log.
 */
enum verdict procedure_judge_installed(struct strand *strand, const struct reply *reply, struct error *error);
#define PROCEDURE_INSTALLED_SQL "select to_regclass('switchback.state') is not null"

/* Calls plan->done with this error, later: for an operation that can't begin. */
void procedure_refuse(struct replication *replication, const struct procedure_plan *plan,
                      const struct error *error);
#endif
