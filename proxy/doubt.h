/*
 * What is at stake if a session's server goes now: whether what it was asked and has not answered may have
 * been committed. Pure; in_doubt.c acts on it.
 *
 * Only a COMMIT of a transaction block can be found out about afterwards: right in front of it, in the same
 * write, the server is asked by a FunctionCall of ours which id the transaction has, and pg_xact_status()
 * knows what became of that id. It must not be the id of a later transaction, though: a server that crashes
 * gives ids anew which it had not written to disk. So the first message of each server link asks when the
 * server's statistics began, which is when it crashed last (from 15 on); that question tells also whether the
 * session may ask at all, at a time when a refusal breaks no transaction.
 */
#ifndef SWITCHBACK_PROXY_DOUBT_H
#define SWITCHBACK_PROXY_DOUBT_H

#include "proxy/wire/boundary.h"
#include "proxy/wire/build.h"

enum {
    DOUBT_REPLIES = 6,        /* to Parse, Bind, Describe, Execute and Sync */
    DOUBT_NAMES = 4,          /* of prepared COMMITs; drivers have one */
    DOUBT_QUESTION_SIZE = 30, /* two FunctionCalls */
    DOUBT_ERROR_MAX = 16 * 1024
};

/* What may be asked in front of a client's message. */
enum doubt_question { DOUBT_QUESTION_NONE, DOUBT_QUESTION_SERVER, DOUBT_QUESTION_TRANSACTION };

/* What is at stake. */
enum doubt_stake {
    DOUBT_NOTHING,
    DOUBT_ROLLED_BACK, /* a transaction is open that nothing under way could have ended */
    DOUBT_UNKNOWN,     /* something may have been committed, nobody can say whether */
    DOUBT_COMMIT       /* the COMMIT of a transaction whose id is known */
};

struct doubt {
    uint64_t transaction; /* its id, told in front of the COMMIT under way; 0: it has none, or wasn't asked */
    int64_t incarnation;  /* when the server's statistics began; 0: not known */
    uint8_t question;     /* enum doubt_question, being answered */
    uint8_t values;       /* answers to it so far */
    bool known;           /* the server was asked, and */
    bool may_ask;         /* allows it */
    bool refused;         /* the question being answered had an error */
    bool unconfirmed;     /* a commit under way was not confirmed by the other side */
    uint8_t notice_match; /* how much of a notice's telling field has passed */

    /* the COMMIT under way */
    bool committing; /* all that was sent since nothing was owed is one, as far as it goes */
    bool whole;      /* its Query or Sync was sent */
    bool more;       /* and something behind it */
    bool committed;  /* the client was told that it is done */
    uint8_t reply_count, reply_at;
    uint8_t replies[DOUBT_REPLIES]; /* types of messages that it will be answered by */

    uint32_t names[DOUBT_NAMES]; /* digests of the names of prepared COMMITs; 0: none */
    uint8_t next_name;
    uint8_t *error; /* the answer to our question, in place of the COMMIT's that follows from it */
    size_t error_length;
    bool error_open;   /* more of it is to come */
    bool error_told;   /* its client has it */
    bool in_its_place; /* a reply that it stands for is passing */
};

/* The session's server is another one, or the first one. */
void doubt_begin(struct doubt *doubt);
void doubt_deinit(struct doubt *doubt);

/* What to ask in front of this message, which its client begins. */
enum doubt_question doubt_question(const struct doubt *doubt, const struct boundary *boundary,
                                   const struct frame_piece *piece);
/* Appends it. told: the server can say when its statistics began. Returns how many calls they are. */
unsigned doubt_ask(struct doubt *doubt, enum doubt_question question, bool told, struct build *build);
/* A piece of the answer (step.aside, or an error that ends the connection). */
void doubt_answered(struct doubt *doubt, const struct frame_piece *piece, const struct boundary_step *step);

/* A piece that the client sent, before boundary_client(). */
void doubt_client(struct doubt *doubt, const struct boundary *boundary, const struct frame_piece *piece);
/* A piece that the server sent, which isn't ours, after boundary_server(). */
void doubt_server(struct doubt *doubt, const struct boundary *boundary, const struct frame_piece *piece,
                  const struct boundary_step *step);
/* A piece of a NoticeResponse. True: it ends one which says that a commit was not confirmed. */
MUST_USE bool doubt_notice(struct doubt *doubt, const struct frame_piece *piece);

/*
 * Our question has failed, so has its transaction, and the COMMIT becomes a ROLLBACK: its client is to hear
 * why. True: the piece, at hand in doubt_server(), isn't passed on but *instead is, an error or nothing.
 */
MUST_USE bool doubt_replaces(struct doubt *doubt, const struct frame_piece *piece, struct slice *instead);

/* may_end: what is under way may end a transaction (move_may_end()). */
enum doubt_stake doubt_stake(const struct doubt *doubt, const struct boundary *boundary, bool may_end);
/* The replies that the client of a committed COMMIT has yet to get. */
void doubt_build_replies(const struct doubt *doubt, struct build *build);

/* COMMIT or END, and nothing else. */
bool doubt_is_commit(struct slice text);

#endif
