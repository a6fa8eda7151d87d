#include "engine/stream/sendq.h"

#include "engine/base/assert.h"

#include <string.h>

#define CHUNK_ORDER_MIN 9  /* 512 bytes: a small answer and its header */
#define CHUNK_ORDER_MAX 16 /* 64 KiB: larger ones only for a larger message */

static rws__chunk *take_chunk(rws__sendq *queue, rws__slab *slab, size_t bytes)
{
    rws__chunk *chunk = rws__slab_take(slab, bytes);
    if (chunk == NULL) return NULL;
    size_t block = rws__slab_block_bytes(slab, chunk);
    queue->held_bytes += block;
    *chunk = (rws__chunk){.data = chunk->own, .capacity = (uint32_t)(block - sizeof(rws__chunk))};
    return chunk;
}

static void give_chunk(rws__sendq *queue, rws__slab *slab, rws__chunk *chunk)
{
    queue->held_bytes -= rws__slab_block_bytes(slab, chunk);
    if (chunk->lender != NULL) rws__lender_release(chunk->lender);
    rws__slab_give(slab, chunk);
}

static void append_chunk(rws__sendq *queue, rws__chunk *chunk)
{
    if (queue->tail == NULL)
        queue->head = chunk;
    else
        queue->tail->next = chunk;
    queue->tail = chunk;
}

/* A chunk of at least `bytes`, if its share allows it. */
static rws__chunk *take_shared(rws__sendq *queue, rws__slab *slab, const rws__share *share,
                               size_t bytes, rws__share_use use)
{
    /* A block is less than twice what was asked for, and the first half is anybody's. */
    if (slab->used_bytes + 2 * bytes > slab->bytes / 2 &&
        !rws__share_allows(share, slab->used_bytes, queue->held_bytes, rws__slab_block_for(bytes),
                           use))
        return NULL;
    return take_chunk(queue, slab, bytes);
}

size_t rws__sendq_usual_bytes(rws__sendq *queue)
{
    if (queue->chunk_order == 0) queue->chunk_order = CHUNK_ORDER_MIN;
    if (queue->head != NULL && queue->chunk_order < CHUNK_ORDER_MAX) queue->chunk_order++;
    return (size_t)1 << queue->chunk_order;
}

uint8_t *rws__sendq_add(rws__sendq *queue, rws__slab *slab, size_t bytes)
{
    rws__chunk *chunk = take_chunk(queue, slab, bytes);
    if (chunk == NULL) return NULL;
    append_chunk(queue, chunk);
    return chunk->own;
}

uint8_t *rws__sendq_grow(rws__sendq *queue, rws__slab *slab, const rws__share *share, size_t bytes,
                         rws__share_use use)
{
    size_t want = sizeof(rws__chunk) + bytes;
    size_t usual = rws__sendq_usual_bytes(queue);
    rws__chunk *chunk = take_shared(queue, slab, share, want > usual ? want : usual, use);
    if (chunk == NULL && want < usual) chunk = take_shared(queue, slab, share, want, use);
    if (chunk == NULL) return NULL;
    append_chunk(queue, chunk);
    return chunk->own;
}

/* A chunk is empty if its room was reserved and then not used. */
static const rws__chunk *first_with_bytes(const rws__sendq *queue)
{
    const rws__chunk *chunk = queue->head;
    while (chunk != NULL && chunk->begin == chunk->end)
        chunk = chunk->next;
    return chunk;
}

bool rws__sendq_lend(rws__sendq *queue, rws__slab *slab, const uint8_t *data, size_t bytes,
                     rws__lender *lender)
{
    rws__chunk *chunk = take_chunk(queue, slab, sizeof(rws__chunk));
    if (chunk == NULL) return false;
    chunk->data = data;
    chunk->lender = lender;
    chunk->end = chunk->capacity = (uint32_t)bytes;
    append_chunk(queue, chunk);
    queue->bytes += bytes;
    return true;
}

bool rws__sendq_front_is_borrowed(const rws__sendq *queue)
{
    const rws__chunk *chunk = first_with_bytes(queue);
    return chunk != NULL && chunk->lender != NULL && chunk->lender->ops->is_transient;
}

rws__lender *rws__sendq_lender(const rws__sendq *queue)
{
    const rws__chunk *chunk = first_with_bytes(queue);
    if (chunk == NULL || chunk->lender == NULL || chunk->lender->ops->is_transient) return NULL;
    return chunk->lender;
}

void rws__sendq_copy_borrowed(rws__sendq *queue, rws__slab *slab)
{
    for (rws__chunk **at = &queue->head; *at != NULL; at = &(*at)->next) {
        rws__chunk *lent = *at;
        if (lent->lender == NULL || !lent->lender->ops->is_transient) continue;
        uint32_t bytes = lent->end - lent->begin;
        rws__chunk *copy = take_chunk(queue, slab, sizeof(rws__chunk) + bytes);
        if (copy == NULL) return;
        memcpy(copy->own, lent->data + lent->begin, bytes);
        copy->end = bytes;
        copy->next = lent->next;
        *at = copy;
        if (queue->tail == lent) queue->tail = copy;
        give_chunk(queue, slab, lent);
    }
}

size_t rws__sendq_front(const rws__sendq *queue, const uint8_t **data)
{
    const rws__chunk *chunk = first_with_bytes(queue);
    if (chunk == NULL) return 0;
    *data = chunk->data + chunk->begin;
    return chunk->end - chunk->begin;
}

/* The queue is empty: let the size of the next first chunk follow this burst. */
static void learn(rws__sendq *queue)
{
    size_t need = sizeof(rws__chunk) + queue->burst;
    if (queue->chunk_order > CHUNK_ORDER_MIN && need * 4 < (size_t)1 << queue->chunk_order)
        queue->chunk_order--;
    else if (queue->chunk_order < CHUNK_ORDER_MAX && need > (size_t)1 << queue->chunk_order)
        queue->chunk_order++;
    queue->burst = 0;
}

void rws__sendq_advance(rws__sendq *queue, rws__slab *slab, size_t bytes)
{
    queue->bytes -= bytes;
    while (bytes > 0) {
        rws__chunk *chunk = queue->head;
        RWS_ASSERT(chunk != NULL);
        size_t have = chunk->end - chunk->begin;
        if (bytes < have) {
            chunk->begin += (uint32_t)bytes;
            return;
        }
        bytes -= have;
        queue->head = chunk->next;
        if (queue->head == NULL) queue->tail = NULL;
        give_chunk(queue, slab, chunk);
    }
    if (queue->head == NULL) learn(queue);
}

void rws__sendq_clear(rws__sendq *queue, rws__slab *slab)
{
    while (queue->head != NULL) {
        rws__chunk *chunk = queue->head;
        queue->head = chunk->next;
        give_chunk(queue, slab, chunk);
    }
    queue->tail = NULL;
    queue->bytes = 0;
    queue->burst = 0;
}
