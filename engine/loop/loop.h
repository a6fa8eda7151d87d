/*
 * The loop of a shard: one ring, one thread, the clock, the wheels of the deadlines and the
 * mailbox. It knows no streams: whoever owns the loop gives it a table of functions.
 *
 * One turn: on_flush (what is wanted becomes submissions), the kernel is entered once, all
 * completions are reaped and dispatched, on_settled, the wheels, the mailbox.
 *
 * Invariants:
 * - At most one kernel timeout is armed that counts (`tick`), for the earliest deadline of all
 *   wheels. Its number is in its user_data, so that one that was superseded is told apart.
 * - Each kind of deadline has a wheel and one function of its own.
 * - A turn does not wait while something is to be tried again that no completion will remind of.
 *   For what belongs to no stream that is `refused`: the ring did not take an operation (a timeout,
 *   an accept, a cancel …), or submissions of the last turn are left over. It counts for one turn.
 *   A stream whose operation was not taken is marked dirty instead, and on_flush says so.
 * - Another thread touches the mailbox, the stop flag and the counters, nothing else.
 */
#ifndef RINGWS_LOOP_LOOP_H
#define RINGWS_LOOP_LOOP_H

#include "engine/base/counters.h"
#include "engine/base/env.h"
#include "engine/base/wheel.h"
#include "engine/loop/mailbox.h"
#include "engine/loop/op.h"
#include "engine/ring/ring.h"

#include <stdatomic.h>

/* The kinds of deadlines. */
typedef enum rws__deadline {
    RWS__DEADLINE_OPENING = 0, /* a connection's handshake, from accept or dial; its close */
    RWS__DEADLINE_MESSAGE,     /* a message that has begun makes progress */
    RWS__DEADLINE_SENDING,     /* the peer takes what is queued */
    RWS__DEADLINE_LINGER,      /* the peer ends its half after ours */
    RWS__DEADLINE_SHARD,       /* the drain; an accept that is tried again */
    RWS__DEADLINE_KINDS
} rws__deadline;

typedef struct rws__loop rws__loop;

/* Who owns the loop. */
typedef struct rws__loop_owner {
    /* Turn what is wanted into submissions. Once per turn, before the kernel is entered. Returns
     * whether more is wanted at once, so that the turn may not wait. */
    bool (*on_flush)(rws__loop *loop);
    /* Handle the first of `left` completions, and those that belong to it; returns their number. */
    uint32_t (*on_completions)(rws__loop *loop, const rws__cqe *cqes, uint32_t left);
    /* All completions of the turn were handled. `all_submitted`: the kernel took everything. */
    void (*on_settled)(rws__loop *loop, bool all_submitted);
    /* rws__loop_stop() was called. Once. */
    void (*on_stop)(rws__loop *loop);
} rws__loop_owner;

struct rws__loop {
    rws__ring *ring;
    const rws__env *env;
    const rws__loop_owner *owner;
    uint64_t now_ms;   /* read once per turn */
    uint32_t features; /* of the ring */
    bool refused;      /* this turn may not wait */
    bool wake_armed;
    bool stopping;          /* on_stop was called */
    uint32_t tick;          /* the number of the timeout that counts */
    uint64_t next_ms;       /* no deadline is earlier */
    uint64_t wheels_ms;     /* the wheels need not be looked at before */
    uint64_t tick_armed_ms; /* when it fires; 0: none is armed */
    uint64_t wake_value;    /* the kernel writes it */
    rws__wheel wheels[RWS__DEADLINE_KINDS];
    rws__timer_fn on_deadline[RWS__DEADLINE_KINDS]; /* context: the loop */
    rws__mailbox mailbox;
    atomic_bool stop;
    rws__counters counters;
};

/* Make what does not need the loop's thread. `env` and `owner` are borrowed for good. Returns 0 or
 * -errno of eventfd(2). Any thread. */
int rws__loop_init(rws__loop *loop, const rws__env *env, const rws__loop_owner *owner);
/* Zeroed memory is fine too. Any thread, when the loop's has ended. */
void rws__loop_deinit(rws__loop *loop);

/* On the loop's thread: make the ring. `*what` names the step that failed. */
int rws__loop_open(rws__loop *loop, const rws__ring_options *options, const char **what);
/* Cancel the posts that wait. The ring is still there, for the last ones who lend to it. */
void rws__loop_close_mailbox(rws__loop *loop);
void rws__loop_close_ring(rws__loop *loop);

/* One turn; waits unless something is wanted at once or `may_wait` is false. Returns 0 or -errno of
 * io_uring_enter(2). */
int rws__loop_turn(rws__loop *loop, bool may_wait);

/* Any thread and signal handlers. */
void rws__loop_stop(rws__loop *loop);

/* Set (or move) a deadline of a kind, `delay_ms` from now; clear it. A timer belongs to one kind as
 * long as it is set. */
static inline void rws__loop_set(rws__loop *loop, rws__deadline kind, rws__timer *timer,
                                 uint64_t delay_ms)
{
    rws__timer_set(&loop->wheels[kind], timer, loop->now_ms, delay_ms);
    uint64_t next = rws__wheel_next_ms(&loop->wheels[kind]);
    if (next < loop->next_ms) loop->next_ms = next;
}
static inline void rws__loop_clear(rws__loop *loop, rws__deadline kind, rws__timer *timer)
{
    rws__timer_clear(&loop->wheels[kind], timer);
}

#endif
