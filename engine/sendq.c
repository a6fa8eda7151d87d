#include "engine/sendq.h"

#include "engine/assert.h"

#define CHUNK_ORDER_MIN 9  /* 512 bytes: a small answer and its header */
#define CHUNK_ORDER_MAX 16 /* 64 KiB: larger ones only for a larger message */

static rws__chunk *add_chunk(rws__sendq *queue, rws__slab *slab, size_t bytes)
{
    if (queue->chunk_order == 0) queue->chunk_order = CHUNK_ORDER_MIN;
    if (queue->head != NULL && queue->chunk_order < CHUNK_ORDER_MAX) queue->chunk_order++;
    size_t want = sizeof(rws__chunk) + bytes;
    size_t usual = (size_t)1 << queue->chunk_order;
    rws__chunk *chunk = rws__slab_take(slab, want > usual ? want : usual);
    if (chunk == NULL && want < usual) chunk = rws__slab_take(slab, want);
    if (chunk == NULL) return NULL;
    size_t block = rws__slab_block_bytes(slab, chunk);
    chunk->next = NULL;
    chunk->begin = chunk->end = 0;
    chunk->capacity = (uint32_t)(block - sizeof(rws__chunk));
    if (queue->tail == NULL)
        queue->head = chunk;
    else
        queue->tail->next = chunk;
    queue->tail = chunk;
    return chunk;
}

uint8_t *rws__sendq_reserve(rws__sendq *queue, rws__slab *slab, size_t bytes)
{
    rws__chunk *chunk = queue->tail;
    if (chunk == NULL || chunk->capacity - chunk->end < bytes) {
        chunk = add_chunk(queue, slab, bytes);
        if (chunk == NULL) return NULL;
    }
    return chunk->data + chunk->end;
}

void rws__sendq_commit(rws__sendq *queue, size_t bytes)
{
    queue->tail->end += (uint32_t)bytes;
    queue->bytes += bytes;
    queue->burst += (uint32_t)bytes;
}

size_t rws__sendq_front(const rws__sendq *queue, const uint8_t **data)
{
    const rws__chunk *chunk = queue->head;
    /* A chunk is empty if its room was reserved and then not used. */
    while (chunk != NULL && chunk->begin == chunk->end)
        chunk = chunk->next;
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
        rws__slab_give(slab, chunk);
    }
    if (queue->head == NULL) learn(queue);
}

void rws__sendq_clear(rws__sendq *queue, rws__slab *slab)
{
    while (queue->head != NULL) {
        rws__chunk *chunk = queue->head;
        queue->head = chunk->next;
        rws__slab_give(slab, chunk);
    }
    queue->tail = NULL;
    queue->bytes = 0;
    queue->burst = 0;
}
