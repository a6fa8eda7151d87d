/*
 * The send queue of a connection: chunks from the shard's send slab, in order. What is appended
 * goes into the last chunk if it fits, also behind bytes that are in flight. An empty queue holds
 * no memory.
 *
 * The size of the first chunk follows the connection's bursts: a queue that holds one small echo at
 * a time takes 512 bytes, so that many connections share a hot cache; one that collects pipelined
 * answers takes a chunk that holds a whole burst, so that it leaves with one send.
 *
 * A chunk can also stand for bytes that somebody else lends (lender.h): a large message is sent
 * from where it lies.
 */
#ifndef RINGWS_STREAM_SENDQ_H
#define RINGWS_STREAM_SENDQ_H

#include "engine/base/lender.h"
#include "engine/base/share.h"
#include "engine/base/slab.h"

#include <stddef.h>
#include <stdint.h>

typedef struct rws__chunk {
    struct rws__chunk *next;
    const uint8_t *data;
    rws__lender *lender; /* of `data`; NULL: it is `own` */
    uint32_t begin;      /* first byte that was not sent yet */
    uint32_t end;        /* behind the last byte */
    uint32_t capacity;   /* of `own`; with a lender `end`: nothing is appended */
    uint8_t own[];
} rws__chunk;

typedef struct rws__sendq {
    rws__chunk *head, *tail;
    size_t bytes;        /* queued or in flight */
    size_t held_bytes;   /* of the slab, in blocks; and what the stream's wire queue counts for */
    uint32_t burst;      /* bytes appended since the queue was empty */
    uint8_t chunk_order; /* size of the next first chunk; 0: never used */
} rws__sendq;

/* A chunk with room for `bytes` at the end of the queue, if its share allows that `use`; returns
 * the room, or NULL. The bytes count only with rws__sendq_commit(). */
uint8_t *rws__sendq_grow(rws__sendq *queue, rws__slab *slab, const rws__share *share, size_t bytes,
                         rws__share_use use);
/* The size of block that the next chunk has where a smaller one would do; asked once for each. */
size_t rws__sendq_usual_bytes(rws__sendq *queue);
/* A chunk in a block of `bytes`, which the caller may take; returns its room, or NULL. */
uint8_t *rws__sendq_add(rws__sendq *queue, rws__slab *slab, size_t bytes);
static inline void rws__sendq_commit(rws__sendq *queue, size_t bytes)
{
    queue->tail->end += (uint32_t)bytes;
    queue->bytes += bytes;
    queue->burst += (uint32_t)bytes;
}

/* Queue `bytes` that `lender` lends: *taken* if true is returned, and given back by release() when
 * they were sent or the queue is cleared. False: the slab is used up. */
bool rws__sendq_lend(rws__sendq *queue, rws__slab *slab, const uint8_t *data, size_t bytes,
                     rws__lender *lender);
/* Copy what was lent for this turn only and could not be sent in it, as far as the slab has room.
 */
void rws__sendq_copy_borrowed(rws__sendq *queue, rws__slab *slab);
/* Whether the front is lent for this turn only. */
bool rws__sendq_front_is_borrowed(const rws__sendq *queue);

/* Whoever lends the front for as long as it takes, or NULL. */
rws__lender *rws__sendq_lender(const rws__sendq *queue);

/* The bytes to send next, in one piece; 0 if the queue is empty. */
size_t rws__sendq_front(const rws__sendq *queue, const uint8_t **data);
/* `bytes` of the front were sent. */
void rws__sendq_advance(rws__sendq *queue, rws__slab *slab, size_t bytes);
void rws__sendq_clear(rws__sendq *queue, rws__slab *slab);

#endif
