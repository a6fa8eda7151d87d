/*
 * The mailbox of a shard: functions that other threads want run on its thread. Bounded; a mutex
 * guards it, because it is off the hot path. The event that wakes the shard is signalled by
 * the sender, once for a run of posts.
 */
#ifndef RINGWS_LOOP_MAILBOX_H
#define RINGWS_LOOP_MAILBOX_H

#include "engine/base/env.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define RWS__MAILBOX_MAX 65536u /* posts that wait; more is RWS_E_BACKLOG */

typedef void (*rws__post_fn)(void *arg, bool cancelled);

typedef struct rws__post {
    rws__post_fn fn;
    void *arg;
} rws__post;

typedef struct rws__mailbox {
    pthread_mutex_t lock;
    rws__post *posts; /* a growing ring */
    uint32_t capacity, first, count;
    bool closed;
    bool running; /* rws__mailbox_run() wakes the shard for what is posted meanwhile */
    int event;    /* wakes the shard (engine/ring/event.h) */
    const rws__env *env;
} rws__mailbox;

int rws__mailbox_init(rws__mailbox *mailbox, const rws__env *env);
/* Cancel what is left and free. */
void rws__mailbox_deinit(rws__mailbox *mailbox);

/* Any thread. 0, RWS_E_BACKLOG, RWS_E_STATE (closed) or -ENOMEM. */
int rws__mailbox_post(rws__mailbox *mailbox, rws__post_fn fn, void *arg);
/* Any thread and signal handlers. */
void rws__mailbox_wake(const rws__mailbox *mailbox);
/* Loop thread: run what is there now. */
void rws__mailbox_run(rws__mailbox *mailbox);
/* Loop thread, or the one that destroys: refuse further posts and cancel the ones that wait. Zeroed
 * memory is fine too. */
void rws__mailbox_close(rws__mailbox *mailbox);

#endif
