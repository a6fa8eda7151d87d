/*
 * The slab: the memory of one shard for queued sends or for messages that have not come whole, in
 * blocks of 2^k bytes (a buddy system) within one range of addresses that is reserved at start.
 *
 * Reserved is not used: a page costs memory only once it was written. Freed blocks are kept on a
 * list per size, last in first out, so that the next owner finds them in the cache (a kept 1 MiB
 * block costs 13 µs to fill, a fresh mapping 432); blocks beyond a bound for all sizes together are
 * merged with their buddies, and give their pages back, but for the first page of each, which holds
 * its links.
 *
 * Invariants: a block of 2^k bytes is aligned to its size within the range; `used_bytes` is the sum
 * of the blocks given out; nothing is ever given out beyond the range; what is given back to the
 * kernel are whole pages of free blocks.
 */
#ifndef RINGWS_BASE_SLAB_H
#define RINGWS_BASE_SLAB_H

#include <stddef.h>
#include <stdint.h>

#define RWS__SLAB_ORDER_MIN 8 /* 256 bytes */
#define RWS__SLAB_ORDER_MAX 40

typedef struct rws__slab_block {
    struct rws__slab_block *next, *prev;
} rws__slab_block;

/* Whoever gives pages of free blocks back to the kernel in place of the slab, because something
 * else may still read them. It may do so at once, or later by rws__slab_give_back_free(). */
typedef struct rws__page_returner {
    void (*give_back)(struct rws__page_returner *self, void *pages, size_t bytes);
} rws__page_returner;

typedef struct rws__slab {
    uint8_t *base;
    uint8_t *tags; /* a byte for each 256 bytes: what starts there */
    size_t bytes;  /* a power of two */
    size_t tags_bytes;
    size_t used_bytes;
    size_t page_bytes;
    rws__page_returner *returner; /* NULL: pages are given back at once */
    uint8_t page_order;
    uint8_t order_top;
    uint8_t order_first; /* of the part at the start that is in use; at last the whole range */
    rws__slab_block *warm[RWS__SLAB_ORDER_MAX + 1]; /* kept as they are */
    size_t warm_bytes;
    rws__slab_block *merged[RWS__SLAB_ORDER_MAX + 1]; /* free, buddies are merged */
} rws__slab;

/* Reserve at least `bytes_max` (rounded up to a power of two). Returns 0 or -ENOMEM. */
int rws__slab_init(rws__slab *slab, size_t bytes_max);
/* The same for pages of `page_bytes` (a power of two, at least the system's), for tests. */
int rws__slab_init_paged(rws__slab *slab, size_t bytes_max, size_t page_bytes);
void rws__slab_deinit(rws__slab *slab);

/* A block of at least `bytes`, or NULL when the range is in use. */
void *rws__slab_take(rws__slab *slab, size_t bytes);
void rws__slab_give(rws__slab *slab, void *block);

/* The size of the block that rws__slab_take() gives for `bytes`. */
size_t rws__slab_block_for(size_t bytes);
/* The size that a block was given out with. */
size_t rws__slab_block_bytes(const rws__slab *slab, const void *block);

/* Give the pages of the merged free blocks back that lie between `begin` and `end`, offsets in the
 * range that are multiples of the page size. At once: the returner is not asked. */
void rws__slab_give_back_free(rws__slab *slab, size_t begin, size_t end);

#endif
