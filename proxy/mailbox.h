/*
 * How threads of the proxy talk: a queue of letters and a uv_async_t that wakes the receiver's loop. Used
 * between the main loop and the workers, and between workers for cancel requests; never on the data path.
 *
 * A letter is one malloc'ed block without inner allocations (so an undelivered one can simply be freed) whose
 * first member is a struct letter. Delivery hands it over: deliver() frees it.
 */
#ifndef SWITCHBACK_PROXY_MAILBOX_H
#define SWITCHBACK_PROXY_MAILBOX_H

#include "conf/base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

struct letter {
    struct letter *next;
    void (*deliver)(struct letter *letter, void *receiver);
};

struct mailbox {
    uv_async_t async;
    uv_mutex_t lock;
    struct letter *first, *last;
    struct letter *taken; /* of those that are being delivered, the next; the receiver's thread alone */
    void *receiver;
    void (*closed)(void *receiver);
    bool closing; /* under the lock: later letters are dropped */
};

/* The mailbox delivers on `loop`. Returns 0 or a libuv error. */
MUST_USE int mailbox_init(struct mailbox *mailbox, uv_loop_t *loop, void *receiver);

/* Any thread. Takes the letter. False: the receiver has closed its mailbox, nobody will read it. */
bool mailbox_post(struct mailbox *mailbox, struct letter *letter);

/* On the receiver's loop: delivers nothing more; closed() comes once the loop has let go of the handle. */
void mailbox_close(struct mailbox *mailbox, void (*closed)(void *receiver));
/* The same, unless letters wait: false, they are delivered first. */
MUST_USE bool mailbox_close_empty(struct mailbox *mailbox, void (*closed)(void *receiver));

/* After closed(), when no other thread posts any more. */
void mailbox_deinit(struct mailbox *mailbox);

#endif
