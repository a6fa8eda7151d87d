/*
 * A payload: bytes of one connection that grow until they are whole — a message, an HTTP head,
 * input that came during a pause — in one block of the shard's pool for partial data.
 *
 * A payload that is sent on as it is (an echo) is lent to the send queue instead of copied; the
 * frame's header is written into `room`, right before the data, so that both leave as one piece.
 *
 * Invariants:
 * - The block may be as large as the whole message that was announced: that takes addresses only,
 *   a page costs memory once something came for it. What counts against the budget (`charged`) is
 *   what came, and the receive in flight.
 * - Lent blocks take at most a quarter of the pool's addresses; beyond, echoes are copied.
 * Announced blocks are given while half of them is free; beyond, blocks are as large as what came.
 * - `refs` are the holders: the connection, and each loan. The last one gives the block back.
 */
#ifndef RINGWS_BASE_PAYLOAD_H
#define RINGWS_BASE_PAYLOAD_H

#include "engine/base/lender.h"
#include "engine/base/slab.h"

#include <stdint.h>

/* The memory of a shard for what has not come whole. */
typedef struct rws__pool {
    rws__slab slab;
    size_t budget_bytes;  /* where connections are paused */
    size_t charged_bytes; /* what counts against it */
    size_t lent_bytes;    /* blocks that send queues were lent */
    /* Beyond, no payload grows. Small blocks (a stash, a subprotocol: at most one each per
     * connection) are still given. */
    size_t charged_bytes_max;
} rws__pool;

#define RWS__PAYLOAD_ROOM 16u /* the longest frame header is 14 bytes */

typedef struct rws__payload {
    rws__lender lender;
    rws__pool *pool;
    uint32_t len;
    uint32_t capacity;
    uint32_t charged;
    uint32_t refs : 31;
    uint32_t lent : 1; /* to a send queue, now or before */
    uint64_t unused[2]; /* so that the data begins on a cache line */
    uint8_t room[RWS__PAYLOAD_ROOM];
    uint8_t data[];
} rws__payload;

/* Make a pool for a budget of `bytes_max`. Returns 0 or -ENOMEM. */
int rws__pool_init(rws__pool *pool, size_t bytes_max);
void rws__pool_deinit(rws__pool *pool);

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
/* Append; `expected` as above. Returns 0 or -ENOMEM. */
int rws__payload_append(rws__payload **payload, rws__pool *pool, const uint8_t *data, size_t len,
                        size_t expected);
/* It is whole: from here on it does not count against the budget. */
void rws__payload_complete(rws__payload *payload);
/* One holder less. `payload` may be NULL. */
void rws__payload_release(rws__payload *payload);

/* The lender for one more holder, or NULL if the addresses are scarce. */
rws__lender *rws__payload_lend(rws__payload *payload);

#endif
