/*
 * A shard: one ring, one thread, its connections, buffers and timers. Nothing here is shared with
 * other shards; other threads speak to it through its mailbox, its stop flag and its counters
 * (relaxed atomics that only the loop writes).
 *
 * One turn of the loop: pump the dirty connections (their sends, receives and closes become
 * submissions), enter the kernel once, reap all completions and dispatch each, settle the quiet
 * sends, fire the timers, run the mailbox.
 */
#ifndef RINGWS_ENGINE_SHARD_H
#define RINGWS_ENGINE_SHARD_H

#include "engine/config.h"
#include "engine/conn.h"
#include "engine/listener.h"
#include "engine/mailbox.h"
#include "engine/base/payload.h"
#include "engine/ring/ring.h"
#include "engine/base/slab.h"
#include "engine/base/wheel.h"

#include <stdatomic.h>

/* Connections beyond connections_max that are taken only to be answered with 503. */
#define RWS__RESERVE 64u

/* Settled once per turn: at most one quiet send of a connection is in flight. */
typedef struct rws__quiet_list {
    rws_conn **conns;
    uint32_t count, capacity;
} rws__quiet_list;

/* The bytes in provided buffers that are being read: a large message in them that is sent on as it
 * is, is lent instead of copied. */
typedef struct rws__delivery {
    const uint8_t *buffer, *buffer_end; /* NULL: none */
} rws__delivery;

typedef struct rws__counters {
    _Atomic uint64_t connections, accepted, upgraded, refused, messages_received, messages_sent,
        bytes_received, bytes_sent, protocol_errors, timeouts, no_buffers, cq_overflows,
        accept_pauses, cut_off, ring_enters, sends_zero_copy, zero_copy_given_up;
} rws__counters;

typedef struct rws__group rws__group;

struct rws__shard {
    rws__ring *ring;
    const rws__config *config;
    rws__group *group;
    uint32_t index;
    uint32_t features;
    uint64_t now_ms;
    /* Connections, by slot + 1 (0: none): to be pumped at the end of the turn, and before those,
     * first come, first served. */
    uint32_t dirty;
    uint32_t deferred, deferred_last;
    size_t direct_bytes; /* asked for by direct receives of this turn */
    rws__quiet_list quiet;
    rws__slab send_slab;
    rws__pool *partial; /* messages and heads that have not come whole; retained messages */
    rws__delivery delivery;
    rws__wheel wheel;
    uint64_t tick_armed_ms; /* when the earliest timeout in the ring fires; 0: none */

    rws_conn *conns;      /* slots_max of them; mapped, so that a slot never used costs nothing */
    rws__conn_cold *cold; /* likewise */
    uint32_t slots_max;
    uint32_t slots_touched; /* slots that were ever used */
    uint32_t slots_used;
    uint32_t *free_slots; /* first in, first out */
    uint32_t free_first, free_count;
    uint32_t budget_waiters; /* connections paused for RWS__PAUSE_BUDGET */
    rws_conn *budget_holder; /* the one that goes on while they wait, or NULL */

    rws__listener listener;
    rws__mailbox mailbox;
    uint64_t wake_value;
    bool wake_armed;
    bool refused; /* the ring did not take an accept, a timeout, …: try again without waiting */

    atomic_bool stop;
    bool draining;
    bool drain_expired;
    rws__timer drain_timer;
    rws__timer accept_timer; /* a failing accept is tried again */

    rws__http_header *headers; /* scratch of the upgrade in progress */
    uint8_t random[256];       /* masking keys, section 5.3 */
    uint32_t random_left;

    rws__counters counters;
};

/* Make what does not need the loop's thread (memory, mailbox). Any thread. */
int rws__shard_init(rws__shard *shard, rws__group *group, const rws__config *config, uint32_t index,
                    rws_error *error);
void rws__shard_deinit(rws__shard *shard);

/* On the loop's thread: make the ring. Nothing is accepted before rws__shard_run(). */
int rws__shard_open(rws__shard *shard, rws_error *error);
/* Run until stopped and drained. Returns 0, RWS_E_TIMEOUT (some were cut off) or -errno. */
int rws__shard_run(rws__shard *shard);
void rws__shard_close(rws__shard *shard);

/* Any thread and signal handlers. */
void rws__shard_stop(rws__shard *shard);

/* Take a free slot, or NULL. Its state is FREE until the caller says what it is used for; the
 * deadline of the handshake runs already. */
rws_conn *rws__shard_take_conn(rws__shard *shard);
void rws__shard_give_conn(rws__shard *shard, rws_conn *conn);

/* Send `fd` (*taken*) on its way into the table, as the file of `conn`. */
void rws__shard_install(rws__shard *shard, rws_conn *conn, int fd);

/* A file that was accepted into the table; `address` may be NULL. */
void rws__shard_accepted(rws__shard *shard, int32_t file, const struct sockaddr_storage *address);
/* An accepted ordinary descriptor (*taken*): it is put into the table first. */
void rws__shard_adopt_fd(rws__shard *shard, int fd);

/* Four bytes from the kernel's CSPRNG. */
uint32_t rws__shard_mask_key(rws__shard *shard);

/* Add to a counter that only this thread writes. */
static inline void rws__count(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

#endif
