#include "engine/loop/mailbox.h"

#include "engine/ring/event.h"

#include <errno.h>
#include <string.h>

#define BATCH 64u /* posts that are taken out under one lock */

int rws__mailbox_init(rws__mailbox *mailbox, const rws__env *env)
{
    memset(mailbox, 0, sizeof *mailbox);
    mailbox->event = rws__event_open();
    if (mailbox->event < 0) return mailbox->event;
    pthread_mutex_init(&mailbox->lock, NULL);
    mailbox->env = env; /* from here on there is something to free */
    return 0;
}

void rws__mailbox_deinit(rws__mailbox *mailbox)
{
    if (mailbox->env == NULL) return;
    rws__mailbox_close(mailbox);
    rws__free(mailbox->env, mailbox->posts, mailbox->capacity * sizeof(rws__post));
    pthread_mutex_destroy(&mailbox->lock);
    rws__event_close(mailbox->event);
    mailbox->env = NULL;
}

/* Double the ring; called with the lock held. */
static int grow(rws__mailbox *mailbox)
{
    uint32_t capacity = mailbox->capacity == 0 ? 16 : mailbox->capacity * 2;
    rws__post *posts = rws__alloc(mailbox->env, capacity * sizeof(rws__post));
    if (posts == NULL) return -ENOMEM;
    for (uint32_t i = 0; i < mailbox->count; i++)
        posts[i] = mailbox->posts[(mailbox->first + i) % mailbox->capacity];
    rws__free(mailbox->env, mailbox->posts, mailbox->capacity * sizeof(rws__post));
    mailbox->posts = posts;
    mailbox->capacity = capacity;
    mailbox->first = 0;
    return 0;
}

int rws__mailbox_post(rws__mailbox *mailbox, rws__post_fn fn, void *arg)
{
    int status = 0;
    bool wake = false;
    pthread_mutex_lock(&mailbox->lock);
    if (mailbox->closed)
        status = RWS_E_STATE;
    else if (mailbox->count == RWS__MAILBOX_MAX)
        status = RWS_E_BACKLOG;
    else if (mailbox->count == mailbox->capacity)
        status = grow(mailbox);
    if (status == 0) {
        wake = mailbox->count == 0 && !mailbox->running;
        mailbox->posts[(mailbox->first + mailbox->count++) % mailbox->capacity] =
            (rws__post){fn, arg};
    }
    pthread_mutex_unlock(&mailbox->lock);
    if (wake) rws__mailbox_wake(mailbox);
    return status;
}

void rws__mailbox_wake(const rws__mailbox *mailbox)
{
    rws__event_signal(mailbox->event);
}

/* Take out at most `max` of the posts that wait, the first ones; returns their number. Called with
 * the lock held. */
static uint32_t take(rws__mailbox *mailbox, rws__post *out, uint32_t max)
{
    uint32_t count = mailbox->count < max ? mailbox->count : max;
    for (uint32_t i = 0; i < count; i++)
        out[i] = mailbox->posts[(mailbox->first + i) % mailbox->capacity];
    if (count > 0) mailbox->first = (mailbox->first + count) % mailbox->capacity;
    mailbox->count -= count;
    return count;
}

/* Run `left` of the posts that wait, in order. Called with the lock held, and returns with it; the
 * functions are called without it. */
static void run(rws__mailbox *mailbox, uint32_t left, bool cancelled)
{
    rws__post batch[BATCH];
    uint32_t count;
    while ((count = take(mailbox, batch, left < BATCH ? left : BATCH)) > 0) {
        pthread_mutex_unlock(&mailbox->lock);
        for (uint32_t i = 0; i < count; i++)
            batch[i].fn(batch[i].arg, cancelled);
        left -= count;
        pthread_mutex_lock(&mailbox->lock);
    }
}

void rws__mailbox_run(rws__mailbox *mailbox)
{
    pthread_mutex_lock(&mailbox->lock);
    mailbox->running = true;
    /* What the functions post themselves waits for the next turn. */
    run(mailbox, mailbox->count, false);
    mailbox->running = false;
    bool more = mailbox->count > 0;
    pthread_mutex_unlock(&mailbox->lock);
    if (more) rws__mailbox_wake(mailbox);
}

void rws__mailbox_close(rws__mailbox *mailbox)
{
    if (mailbox->env == NULL) return;
    pthread_mutex_lock(&mailbox->lock);
    mailbox->closed = true;
    run(mailbox, mailbox->count, true);
    pthread_mutex_unlock(&mailbox->lock);
}
