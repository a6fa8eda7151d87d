/*
 * Fair shares of a pool that many holders take from, so that those who never give back can't starve
 * the others: who may take how much, as arithmetic on what is in use. Nothing is allocated here.
 *
 * The pool has four parts, in this order:
 * - 1/2: anybody takes what it wants.
 * - 3/16: a holder may have at most as much as is left in this part; one gets half of it, the next
 * half of the rest, and so on.
 * - 1/4 is promised: each holder may always have 1/holders_max of it, its *minimum*. Of the minimum
 * of a holder with filters, half is for its wire queue, which what it has queued has to go through:
 * so what is queued can be sent, whatever the others hold.
 * - 1/16 is the reserve. Half of it is for pongs, in equal parts, of holders that have no more than
 * their minimum (a pong would wait behind what others have queued); half for what is sent at most
 * once for a holder, the handshake's answer and the close frame.
 *
 * Invariant: as long as all that is taken was allowed, a holder with no more than its minimum in
 * use is allowed that minimum, whatever the others did. (What is beyond the minimum of any holder
 * was taken from the first two parts, and the minimums of all fit into the third.) With filters
 * that is true of the two halves of the minimum: a wire queue with no more than its half is allowed
 * that, whatever its own holder has beside it; for all else that half counts as held (filter.c).
 *
 * All sizes are those of blocks, as rws__slab_block_bytes() gives them. A minimum that is smaller
 * than the smallest block promises nothing: a pool of 2 KiB for each holder has one of 512 bytes.
 * A wire queue may have 512 bytes even so, as long as there are any: else streams whose queues fill
 * such a pool would wait for each other.
 */
#ifndef RINGWS_BASE_SHARE_H
#define RINGWS_BASE_SHARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum rws__share_use {
    RWS__SHARE_MESSAGE = 0,
    RWS__SHARE_PONG,
    RWS__SHARE_WIRE, /* of a wire queue's own: `held` is what that has */
    RWS__SHARE_ONCE, /* at most once for a holder: the handshake's answer, the close frame */
} rws__share_use;

typedef struct rws__share {
    size_t bytes;         /* of the pool */
    size_t common_bytes;  /* the first two parts */
    size_t minimum_bytes; /* of one holder, in the third */
    size_t pong_bytes;    /* of one holder, in the reserve */
    size_t wire_bytes;    /* of one holder with filters, in its minimum */
} rws__share;

/* The shares of a pool of `bytes` for at most `holders_max` (at least 1) holders. */
void rws__share_init(rws__share *share, size_t bytes, uint32_t holders_max);

/* Whether a holder of `held` bytes, which may count `wire_bytes` that it has not taken, may take
 * `more`, while all holders have `used` bytes. */
bool rws__share_allows(const rws__share *share, size_t used, size_t held, size_t more,
                       rws__share_use use);

#endif
