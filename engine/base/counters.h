/*
 * The counters of a shard: relaxed atomics that only its loop writes, so that any thread may read
 * them without stopping it. rws_stats documents each.
 */
#ifndef RINGWS_BASE_COUNTERS_H
#define RINGWS_BASE_COUNTERS_H

#include <stdatomic.h>
#include <stdint.h>

typedef struct rws__counters {
    _Atomic uint64_t connections, accepted, upgraded, refused, messages_received, messages_sent,
        bytes_received, bytes_sent, protocol_errors, timeouts, no_buffers, cq_overflows,
        accept_pauses, cut_off, ring_enters, sends_zero_copy, zero_copy_given_up, posts_dropped,
        bytes_discarded, out_of_memory;
} rws__counters;

/* Add to a counter that only this thread writes. */
static inline void rws__count(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

#endif
