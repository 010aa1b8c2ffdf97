/* What the files of the session move share. Nobody else looks into a struct move. */
#ifndef SWITCHBACK_PROXY_MOVE_INTERNAL_H
#define SWITCHBACK_PROXY_MOVE_INTERNAL_H

#include "proxy/interrogate.h"
#include "proxy/move.h"
#include "proxy/move_late.h"
#include "proxy/move_snapshot.h"
#include "proxy/wire/scan.h"

enum {
    MOVE_NAMES_MAX = 256,           /* settings learned by name; more make a session immovable */
    MOVE_UNNAMED_MAX = 1 << 20,     /* bytes of an unnamed statement that is kept */
    MOVE_UNNAMED_PENDING = 8,       /* unnamed statements that may be on their way at once */
    MOVE_BODY_MAX = 64 << 20,       /* bytes of a row of an answer */
    MOVE_BIND_MAX = 64 << 10,       /* bytes of a Bind that is looked into for names */
    MOVE_PARAMETERS_MAX = 64 << 10, /* bytes of all ParameterStatus of a server */
    MOVE_REASONS_MAX = 1024,
    MOVE_HOLDS_MAX = 1024, /* bytes of the list for people */
    MOVE_FAILURE_SIZE = 256,
    MOVE_LATE_MAX = 32,         /* statements that a target refuses: each costs another replay */
    MOVE_LATE_TYPES_MAX = 1024, /* their parameters */
    MOVE_ATTEMPTS = 3,
    MOVE_CANCELLED_ATTEMPTS =
        20 /* a timeout of a millisecond may end even the statement that puts it aside */
};

/* What traffic may have changed since the session was asked last. */
enum move_dirt {
    MOVE_DIRT_USED = 1,    /* anything was run */
    MOVE_DIRT_SETTINGS = 2 /* settings may have changed */
};

/* The body of a Parse without a name: its text and types, to be sent again as they are. */
struct move_unnamed {
    uint64_t id;     /* among all of the session's, whatever server it is on */
    uint64_t number; /* of the Parse, see boundary.h, plus one; 0: of a server before */
    uint8_t *body;   /* NULL: none */
    uint32_t length;
};

struct move {
    bool replication;

    /* traffic */
    uint8_t dirt;             /* enum move_dirt */
    uint32_t hints;           /* enum scan_flag, of all texts since the session was asked last */
    bool always_settings;     /* a statement that may run again sets what its text doesn't tell */
    bool computed_name;       /* set_config() of a name that can't be told */
    bool named_sets;          /* a SET for the session was prepared, and may run at any time */
    bool unnamed_sets;        /* the unnamed statement is one */
    bool named_ends;          /* a statement was prepared that may end a transaction */
    bool unnamed_ends;        /* the unnamed statement is one */
    bool may_end;             /* one was run since nothing was owed last */
    bool unsync, unsync_here; /* it has asked for commits that nobody confirms; until its transaction ends */
    bool watch_binds;         /* names may come as parameters */
    uint32_t known_type;      /* move_knows_type(); 0: none */
    uint32_t used_function;   /* a user's function that was called by its oid; 0: none */
    uint32_t name_count;      /* more than MOVE_NAMES_MAX: not all of them were kept */
    struct strbuf names;      /* settings that traffic mentioned, each followed by a blank */
    struct strbuf parameters; /* ParameterStatus as its server sent it: name\0value\0 ... */
    struct strbuf told;       /* the same as the client knows it, where that differs; else empty */
    struct scan scan;
    uint8_t parse_field; /* of the Parse that passes: name, text, types */
    bool parse_unnamed;
    struct strbuf bind; /* the Bind that passes in pieces */
    struct frame_capture capture;

    struct move_unnamed unnamed;                       /* as the server has it */
    struct move_unnamed pending[MOVE_UNNAMED_PENDING]; /* sent, not answered, oldest first */
    uint8_t pending_count;
    bool collecting;   /* the last one of them is still passing */
    bool unnamed_lost; /* there may be one that wasn't kept */
    bool kill;         /* a Query or Close destroys those numbered up to kill_to, once answered */
    uint64_t kill_to;
    uint64_t last_id; /* of all unnamed statements so far */

    struct move_late *late; /* statements that its server has yet to get */
    struct translation late_to_server;

    /* asking */
    struct snapshot *own;  /* what it was when it was asked last; NULL: never, or forgotten */
    struct strbuf reasons; /* why it can't move, by that */
    struct strbuf holds;   /* what it had then, see move_holds() */
    uint32_t held[MOVE_HELD_COUNT];
    bool was_asked;
    char quick[INTERROGATE_QUICK_SIZE];
    uint64_t named;
    char aside[ASIDE_COUNT][INTERROGATE_VALUE_SIZE]; /* the timeouts that were in force */
    bool temporary; /* it had a temporary schema then, and has it for its life */
    struct interrogation asking;
    struct strbuf asking_reasons;
    struct strbuf body; /* a row that comes in pieces */
    uint8_t asked_dirt; /* dirt and hints before we asked */
    uint32_t asked_hints;
    uint8_t attempts;
    bool scouted;      /* whether it holds locks or slots is known, since its last traffic */
    uint8_t completes; /* CommandCompletes of the answer so far */
    bool cancelled;    /* the last error was a cancel: a timeout's, or one that came late */
    bool cleaning;     /* asking has failed for good, and its remains are being removed */
    bool broken;       /* the exchange under way has failed */
    char failure[MOVE_FAILURE_SIZE];

    /* the target */
    struct snapshot *target;         /* what was replayed; NULL: nothing */
    struct strbuf target_parameters; /* ParameterStatus as the target sent it */
    struct move_late *target_late;   /* statements that it refused */
    size_t late_count;               /* of them */
    bool target_unclean;             /* which statements it has isn't known: a replay failed */
    char *refused;                   /* the statement that made the last replay fail */
    uint64_t target_unnamed;         /* id of the unnamed statement it has; 0: none */
    struct snapshot *replaying;
    uint64_t replaying_unnamed;
    bool replaying_state;    /* what is being answered is the state, not the unnamed statement */
    struct move_step *steps; /* of the replay under way */
    size_t step_count, answers;
    uint8_t syncs; /* ReadyForQuery still to come */
};

/* move_traffic.c */
void move_learn_name(struct move *move, const char *name);
void move_forget_unnamed(struct move_unnamed *unnamed);

/* move_late.c, traffic: a message from the client; its Parse with that number was answered; a ReadyForQuery;
 * all are closed; Parses up to a number came to nothing. */
void move_late_client(struct move *move, const struct frame_piece *piece, uint64_t parses_sent);
void move_late_replaced(struct move *move, uint64_t number);
void move_late_ready(struct move *move, bool failed);
void move_late_forget_all(struct move *move);
void move_late_failed(struct move *move, uint64_t last);
/* Adds those that its server lacks to its state; drops those of the target that it has no more. */
MUST_USE bool move_late_list(const struct move *move, struct snapshot *snapshot);
void move_late_refresh(struct move *move);

/* move_holds.c */
void move_note_holds(struct move *move);

/* move.c */
bool move_parameter_set(struct strbuf *parameters, struct slice name, struct slice value);
/* The current value, NULL if the server never reported it. */
const char *move_parameter_get(const struct strbuf *parameters, const char *name);
void move_fail(struct move *move, const char *format, ...) PRINTF_LIKE(2, 3);
/* The whole body of a message that may come in pieces, at its last piece. False: not yet, or out of memory
 * (move->broken). */
bool move_body(struct move *move, const struct frame_piece *piece, struct slice *body);

/* move_replay.c */
void move_replay_forget(struct move *move);

#endif
