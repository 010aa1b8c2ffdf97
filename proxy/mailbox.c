#include "proxy/mailbox.h"

#include <stdlib.h>

static struct letter *take_all(struct mailbox *mailbox)
{
    uv_mutex_lock(&mailbox->lock);
    struct letter *first = mailbox->first;
    mailbox->first = NULL;
    mailbox->last = NULL;
    uv_mutex_unlock(&mailbox->lock);
    return first;
}

static void on_wake(uv_async_t *async)
{
    struct mailbox *mailbox = async->data;
    mailbox->taken = take_all(mailbox);
    while (mailbox->taken != NULL) {
        struct letter *letter = mailbox->taken;
        mailbox->taken = letter->next;
        letter->deliver(letter, mailbox->receiver);
    }
}

int mailbox_init(struct mailbox *mailbox, uv_loop_t *loop, void *receiver)
{
    *mailbox = (struct mailbox){.receiver = receiver};
    int failure = uv_mutex_init(&mailbox->lock);
    if (failure != 0) {
        return failure;
    }
    failure = uv_async_init(loop, &mailbox->async, on_wake);
    if (failure != 0) {
        uv_mutex_destroy(&mailbox->lock);
        return failure;
    }
    mailbox->async.data = mailbox;
    return 0;
}

bool mailbox_post(struct mailbox *mailbox, struct letter *letter)
{
    letter->next = NULL;
    uv_mutex_lock(&mailbox->lock);
    bool dropped = mailbox->closing;
    if (!dropped) {
        if (mailbox->last == NULL) {
            mailbox->first = letter;
        } else {
            mailbox->last->next = letter;
        }
        mailbox->last = letter;
        /* under the lock: the receiver can't close the handle in between */
        uv_async_send(&mailbox->async);
    }
    uv_mutex_unlock(&mailbox->lock);
    if (dropped) {
        free(letter);
    }
    return !dropped;
}

static void on_close(uv_handle_t *handle)
{
    struct mailbox *mailbox = handle->data;
    mailbox->closed(mailbox->receiver);
}

void mailbox_close(struct mailbox *mailbox, void (*closed)(void *receiver))
{
    uv_mutex_lock(&mailbox->lock);
    mailbox->closing = true;
    uv_mutex_unlock(&mailbox->lock);
    mailbox->closed = closed;
    uv_close((uv_handle_t *)&mailbox->async, on_close);
}

bool mailbox_close_empty(struct mailbox *mailbox, void (*closed)(void *receiver))
{
    uv_mutex_lock(&mailbox->lock);
    mailbox->closing = mailbox->first == NULL && mailbox->taken == NULL;
    uv_mutex_unlock(&mailbox->lock);
    if (mailbox->closing) {
        mailbox->closed = closed;
        uv_close((uv_handle_t *)&mailbox->async, on_close);
    }
    return mailbox->closing;
}

void mailbox_deinit(struct mailbox *mailbox)
{
    struct letter *letter = take_all(mailbox);
    while (letter != NULL) {
        struct letter *next = letter->next;
        free(letter);
        letter = next;
    }
    uv_mutex_destroy(&mailbox->lock);
}
