/*
 * The book-keeping of provided buffers, for whichever ring: who still reads them, which bytes of
 * them are used up, and when the kernel gets them again. The ring itself only gives the kernel one
 * when it is told to (`provide`), and says what its completions say.
 *
 * Invariants:
 * - The buffers lie in a row and are given to the kernel in that order: what fills one and goes on
 *   in the next is in one piece.
 * - A buffer is given again when the kernel has used it up and nobody reads it.
 * - The kernel goes round all incremental buffers that it has, and touches all of their memory and
 *   cache. So it has the halves of two at first; when it found none (-ENOBUFS) it gets them whole,
 *   and twice as many. Plain buffers it has all from the start.
 */
#ifndef RINGWS_RING_BUFFERS_H
#define RINGWS_RING_BUFFERS_H

#include "engine/ring/ring.h"

typedef struct rws__buffers rws__buffers;

/* Give the kernel the buffer `index`, `bytes` at `memory`, behind those that it has. */
typedef void (*rws__provide_fn)(rws__ring *ring, uint32_t index, uint8_t *memory, size_t bytes);

/* What is known of one. */
typedef struct rws__buffer {
    rws__lender lender; /* of bytes in this buffer */
    rws__lender across; /* of bytes that begin in it and end in the next */
    rws__buffers *all;
    uint32_t head;    /* incremental: bytes that the kernel has used up */
    uint32_t readers; /* completions that were not recycled yet, and loans */
    bool in_ring;     /* the kernel may still fill it, or it waits for its turn */
    bool waits;       /* nobody reads it, and the kernel is given one before it first */
} rws__buffer;

struct rws__buffers {
    uint32_t count;
    uint32_t start;  /* so many are given by half while there are no more */
    uint32_t in_use; /* the first so many were given to the kernel */
    uint32_t next;   /* the one that the kernel is given next */
    size_t bytes;    /* of each */
    uint8_t *memory;
    rws__buffer *states;
    rws__provide_fn provide;
    rws__ring *ring; /* what `provide` is called with */
};

/* Memory for `count` buffers of `bytes`; nothing is given to the kernel yet. Returns 0 or -ENOMEM.
 */
int rws__buffers_init(rws__buffers *buffers, uint32_t count, size_t bytes, rws__provide_fn fn,
                      rws__ring *ring);
/* Zeroed memory is fine too. */
void rws__buffers_deinit(rws__buffers *buffers);
/* The kernel gets its first ones. */
void rws__buffers_start(rws__buffers *buffers, bool incremental);
/* It found none. */
void rws__buffers_grow(rws__buffers *buffers);

/* rws__ring_buffer(), …_recycle(), …_continues() and …_lend() */
uint8_t *rws__buffers_look(rws__buffers *buffers, const rws__cqe *cqe);
void rws__buffers_recycle(rws__buffers *buffers, const rws__cqe *cqe);
bool rws__buffers_continue(const rws__buffers *buffers, const uint8_t *end, const rws__cqe *cqe);
rws__lender *rws__buffers_lend(rws__buffers *buffers, const uint8_t *data, size_t len);

#endif
