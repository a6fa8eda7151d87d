/*
 * A payload: bytes of one connection that grow until they are whole — a message, an HTTP head,
 * input received during a pause — in one block of the shard's pool for partial data.
 *
 * A payload that is whole is a message (`head`), which is lent to send queues instead of copied;
 * the frame's header is written into `room`, right before the data, so that both leave as one
 * piece. The program may hold it as long as it likes, on any thread.
 *
 * Invariants:
 * - The block may be as large as the whole message that was announced: that takes addresses only,
 *   a page costs memory once something was received for it. What counts against the budget
 * (`charged`) is what was received, and the receive in flight.
 * - Lent blocks take at most a quarter of the pool's addresses; beyond, echoes are copied.
 * Announced blocks are given while half of them is free; beyond, blocks are as large as what was
 * received.
 * - `refs` are the holders on the loop: the connection, and each loan to a queue of this loop. The
 * last one gives the block back. Only the loop reads and writes them.
 * - `holders` are those on any thread: the program, and each loan to a queue of another loop. While
 * there are any, they are together one of `refs`. The last one puts the block on the pool's list
 * `returned`, which the loop takes back once a turn. Nobody can become the first one but the loop,
 * in on_message, which is a holder itself from then until on_message has returned: so nobody holds
 * a block that is on the list.
 * - What the program holds is within a budget of its own (`retained_bytes_max`), and within a
 * quarter of the addresses.
 * - `users` of the pool are the shard, and each payload that has holders. The last one unmaps it.
 */
#ifndef RINGWS_BASE_PAYLOAD_H
#define RINGWS_BASE_PAYLOAD_H

#include "engine/base/env.h"
#include "engine/base/lender.h"
#include "engine/base/slab.h"
#include "ringws/message.h"

#include <stdatomic.h>
#include <stdint.h>

typedef struct rws__payload rws__payload;

/* The memory of a shard for what has not come whole, and for messages that the program holds. */
typedef struct rws__pool {
    rws__slab slab;
    size_t budget_bytes;  /* where connections are paused */
    size_t charged_bytes; /* what counts against it */
    size_t lent_bytes;    /* blocks that send queues were lent */
    /* Beyond, no payload grows. Small blocks (a stash, a subprotocol: at most one each per
     * connection) are still given. */
    size_t charged_bytes_max;
    size_t retained_bytes; /* blocks that the program holds, or that the loop has not taken back */
    size_t retained_bytes_max;
    const rws__env *env; /* what the program holds beyond that is copied with its allocator */

    /* What other threads write, on a cache line of its own. */
    _Alignas(64) _Atomic(rws__payload *) returned; /* blocks that nobody but the loop holds */
    atomic_size_t users;
} rws__pool;

#define RWS__PAYLOAD_ROOM 16u /* the longest frame header is 14 bytes */

struct rws__payload {
    rws__lender lender; /* to queues of its own loop */
    union {
        rws__lender lender_elsewhere; /* to queues of other loops; while there are holders */
        rws__payload *next_returned;  /* on the pool's list; when there are none any more */
    };
    rws__pool *pool;
    uint32_t capacity;
    uint32_t charged;
    uint32_t refs : 30;
    uint32_t lent : 1;     /* to a send queue of its loop, now or before */
    uint32_t retained : 1; /* the holders are one of `refs` */
    atomic_uint holders;
    union {
        rws_message head; /* valid when it is whole */
        struct {
            uint32_t other_fields;
            uint32_t len; /* head.len */
        };
    };
    uint8_t room[RWS__PAYLOAD_ROOM];
    uint8_t data[];
};

/* Make a pool in memory of its own, for a budget of `bytes_max`. `env` is that of the shard, for
 * rws_message_retain(). Returns 0 or -ENOMEM. */
int rws__pool_create(rws__pool **out, const rws__env *env, size_t bytes_max,
                     size_t retained_bytes_max);
/* One user less. `pool` may be NULL. */
void rws__pool_close(rws__pool *pool);

/* What they are made of, for a pool whose payloads no program holds. */
int rws__pool_init(rws__pool *pool, size_t bytes_max);
/* The same for pages of `page_bytes`, for tests: rws__slab_init_paged(). */
int rws__pool_init_paged(rws__pool *pool, size_t bytes_max, size_t page_bytes);
void rws__pool_deinit(rws__pool *pool);

/* Take back what other threads have released; the loop calls it once a turn. */
void rws__pool_take_returned(rws__pool *pool);
static inline void rws__pool_collect(rws__pool *pool)
{
    /* Relaxed: what is not seen yet is taken in a later turn. */
    if (atomic_load_explicit(&pool->returned, memory_order_relaxed) != NULL)
        rws__pool_take_returned(pool);
}

/* A small block that is charged as a whole, or NULL. */
void *rws__pool_take(rws__pool *pool, size_t bytes);
void rws__pool_give(rws__pool *pool, void *block);

/* Whether `bytes` that are merely announced may be charged: within half of the budget. */
bool rws__pool_has_plenty(const rws__pool *pool, size_t bytes);

/* Make `*payload` (NULL: none yet) hold at least `need` bytes, with room for the `expected` ones if
 * addresses are plenty. Returns 0 or -ENOMEM. */
int rws__payload_reserve(rws__payload **payload, rws__pool *pool, size_t need, size_t expected);
/* Charge for `bytes` of the payload, if that is more than before. Returns 0 or -ENOMEM. */
int rws__payload_charge(rws__payload *payload, size_t bytes);
/* No receive into it is in flight: charge for no more than it has. */
void rws__payload_uncharge(rws__payload *payload);
/* Append; `expected` as above. Returns 0 or -ENOMEM. */
int rws__payload_append(rws__payload **payload, rws__pool *pool, const uint8_t *data, size_t len,
                        size_t expected);
/* It is whole: from here on it does not count against the budget. */
void rws__payload_complete(rws__payload *payload);
/* One holder less. `payload` may be NULL. */
void rws__payload_release(rws__payload *payload);

/* The lender for one more loan to a queue of this loop, or NULL if the addresses are scarce. */
rws__lender *rws__payload_lend(rws__payload *payload);

/* ---- what the program holds ---- */

/* A payload for `len` bytes of a message that has one holder, or NULL: over the budget, or the pool
 * is used up. Loop. */
rws__payload *rws__payload_take_retained(rws__pool *pool, size_t len);
/* One more holder. Any thread that is one; the loop for a payload that is in on_message. False:
 * over the budget. */
bool rws__payload_retain(rws__payload *payload);
/* One holder less. Any thread. */
void rws__payload_drop(rws__payload *payload);
/* on_message, to which `payload` was given, has returned: the connection lets go of it. Loop. */
void rws__payload_end_delivery(rws__payload *payload);

/* Whether there are holders: true for whoever is one. */
static inline bool rws__payload_is_held(const rws__payload *payload)
{
    return atomic_load_explicit(&payload->holders, memory_order_relaxed) > 0;
}

/* The lender for one more loan to a queue of another loop; otherwise as rws__payload_retain(). */
rws__lender *rws__payload_lend_elsewhere(rws__payload *payload);

#endif
