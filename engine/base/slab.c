#include "engine/base/slab.h"

#include "engine/base/assert.h"
#include "engine/base/pages.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

/* Free blocks that are kept as they are, per slab; a shard has two. 16 messages of 1 MiB and their
 * heads take 32 MiB of blocks, of which half is ever written, and as much again leaves room for
 * other sizes; fresh pages for each message double what it costs. */
#define WARM_BYTES_MAX ((size_t)64 << 20)
/* With more than this part of the range in use, no free block is kept, so that what is resident
 * follows what is used. */
#define SCARCE 8

/* The first so many bytes are used before the rest is: each half of a split holds links in its
 * first page, and for a small slab those of the whole range would be most of its memory. */
#define FIRST_ORDER 20

/* Tags: the order, and the state of the block that starts there; 0 in the middle of a block. */
#define TAG_USED   0x40u
#define TAG_MERGED 0x80u
#define TAG_WARM   0xC0u
#define TAG_STATE  0xC0u
#define TAG_ORDER  0x3Fu

static size_t tag_index(const rws__slab *slab, const void *block)
{
    return (size_t)((const uint8_t *)block - slab->base) >> RWS__SLAB_ORDER_MIN;
}

static void set_tag(rws__slab *slab, const void *block, unsigned state, unsigned order)
{
    slab->tags[tag_index(slab, block)] = (uint8_t)(state | order);
}

static void push(rws__slab_block **list, rws__slab_block *block)
{
    block->prev = NULL;
    block->next = *list;
    if (*list != NULL) (*list)->prev = block;
    *list = block;
}

static rws__slab_block *pop(rws__slab_block **list)
{
    rws__slab_block *block = *list;
    *list = block->next;
    if (*list != NULL) (*list)->prev = NULL;
    return block;
}

static void unlink_block(rws__slab_block **list, rws__slab_block *block)
{
    if (block->prev != NULL)
        block->prev->next = block->next;
    else
        *list = block->next;
    if (block->next != NULL) block->next->prev = block->prev;
}

static unsigned order_for(size_t bytes)
{
    unsigned order = RWS__SLAB_ORDER_MIN;
    while (((size_t)1 << order) < bytes)
        order++;
    return order;
}

int rws__slab_init(rws__slab *slab, size_t bytes_max)
{
    return rws__slab_init_paged(slab, bytes_max, rws__page_bytes());
}

int rws__slab_init_paged(rws__slab *slab, size_t bytes_max, size_t page_bytes)
{
    memset(slab, 0, sizeof *slab);
    slab->page_bytes = page_bytes;
    slab->page_order = (uint8_t)order_for(page_bytes);
    RWS_ASSERT((size_t)1 << slab->page_order == page_bytes);
    unsigned order = order_for(bytes_max);
    if (order > RWS__SLAB_ORDER_MAX) return -ENOMEM;
    slab->order_top = (uint8_t)order;
    slab->bytes = (size_t)1 << order;
    slab->tags_bytes = slab->bytes >> RWS__SLAB_ORDER_MIN;
    slab->base = rws__pages_reserve(slab->bytes);
    slab->tags = rws__pages_reserve(slab->tags_bytes);
    if (slab->base == NULL || slab->tags == NULL) {
        rws__slab_deinit(slab);
        return -ENOMEM;
    }
    slab->order_first = order < FIRST_ORDER ? (uint8_t)order : FIRST_ORDER;
    set_tag(slab, slab->base, TAG_MERGED, slab->order_first);
    push(&slab->merged[slab->order_first], (rws__slab_block *)slab->base);
    return 0;
}

void rws__slab_deinit(rws__slab *slab)
{
    rws__pages_release(slab->base, slab->bytes);
    rws__pages_release(slab->tags, slab->tags_bytes);
    memset(slab, 0, sizeof *slab);
}

static void give_back(rws__slab *slab, void *pages, size_t bytes)
{
    if (slab->returner != NULL)
        slab->returner->give_back(slab->returner, pages, bytes);
    else
        rws__pages_give_back(pages, bytes);
}

/* Merge a free block with its buddies as far as they are merged ones too. */
static void merge(rws__slab *slab, rws__slab_block *block, unsigned order)
{
    size_t page = slab->page_bytes;
    if (order > slab->page_order)
        give_back(slab, (uint8_t *)block + page, ((size_t)1 << order) - page);
    while (order < slab->order_top) {
        size_t offset = (size_t)((uint8_t *)block - slab->base);
        uint8_t *buddy = slab->base + (offset ^ (size_t)1 << order);
        if (slab->tags[tag_index(slab, buddy)] != (TAG_MERGED | order)) break;
        unlink_block(&slab->merged[order], (rws__slab_block *)buddy);
        set_tag(slab, buddy, 0, 0);
        set_tag(slab, block, 0, 0);
        uint8_t *upper = buddy > (uint8_t *)block ? buddy : (uint8_t *)block;
        /* Its links are gone. */
        if (order >= slab->page_order) give_back(slab, upper, page);
        if (buddy < (uint8_t *)block) block = (rws__slab_block *)buddy;
        order++;
    }
    set_tag(slab, block, TAG_MERGED, order);
    push(&slab->merged[order], block);
}

/* Make the rest of the range free too; false if it is already. */
static bool add_rest(rws__slab *slab)
{
    if (slab->order_first == slab->order_top) return false;
    for (unsigned order = slab->order_first; order < slab->order_top; order++) {
        rws__slab_block *half = (rws__slab_block *)(slab->base + ((size_t)1 << order));
        set_tag(slab, half, TAG_MERGED, order);
        push(&slab->merged[order], half);
    }
    unsigned first = slab->order_first;
    slab->order_first = slab->order_top;
    if (slab->tags[0] == (TAG_MERGED | first)) {
        rws__slab_block *block = (rws__slab_block *)slab->base;
        unlink_block(&slab->merged[first], block);
        merge(slab, block, first);
    }
    return true;
}

/* The smallest order of a merged block that holds one of `order`; above order_top: none. */
static unsigned order_merged(const rws__slab *slab, unsigned order)
{
    while (order <= slab->order_top && slab->merged[order] == NULL)
        order++;
    return order;
}

/* Cut a block of `order` out of the smallest merged one that holds it. */
static rws__slab_block *split(rws__slab *slab, unsigned order)
{
    unsigned from = order_merged(slab, order);
    if (from > slab->order_top && add_rest(slab)) from = order_merged(slab, order);
    if (from > slab->order_top) return NULL;
    rws__slab_block *block = pop(&slab->merged[from]);
    while (from > order) {
        from--;
        rws__slab_block *half = (rws__slab_block *)((uint8_t *)block + ((size_t)1 << from));
        set_tag(slab, half, TAG_MERGED, from);
        push(&slab->merged[from], half);
    }
    return block;
}

/* Merge all warm blocks: the last resort of an allocation that found no room. */
static void merge_warm(rws__slab *slab)
{
    for (unsigned order = RWS__SLAB_ORDER_MIN; order <= slab->order_top; order++) {
        while (slab->warm[order] != NULL)
            merge(slab, pop(&slab->warm[order]), order);
    }
    slab->warm_bytes = 0;
}

void *rws__slab_take(rws__slab *slab, size_t bytes)
{
    unsigned order = order_for(bytes);
    if (order > slab->order_top) return NULL;
    rws__slab_block *block;
    if (slab->warm[order] != NULL) {
        block = pop(&slab->warm[order]);
        slab->warm_bytes -= (size_t)1 << order;
    } else {
        block = split(slab, order);
        if (block == NULL) {
            merge_warm(slab);
            block = split(slab, order);
            if (block == NULL) return NULL;
        }
    }
    set_tag(slab, block, TAG_USED, order);
    slab->used_bytes += (size_t)1 << order;
    return block;
}

size_t rws__slab_block_for(size_t bytes)
{
    return (size_t)1 << order_for(bytes);
}

size_t rws__slab_block_bytes(const rws__slab *slab, const void *block)
{
    uint8_t tag = slab->tags[tag_index(slab, block)];
    RWS_ASSERT((tag & TAG_STATE) == TAG_USED);
    return (size_t)1 << (tag & TAG_ORDER);
}

void rws__slab_give(rws__slab *slab, void *block)
{
    size_t bytes = rws__slab_block_bytes(slab, block);
    unsigned order = slab->tags[tag_index(slab, block)] & TAG_ORDER;
    slab->used_bytes -= bytes;
    bool scarce = slab->used_bytes + slab->warm_bytes > slab->bytes / SCARCE;
    if (slab->warm_bytes + bytes <= WARM_BYTES_MAX && !scarce) {
        set_tag(slab, block, TAG_WARM, order);
        push(&slab->warm[order], block);
        slab->warm_bytes += bytes;
        return;
    }
    merge(slab, block, order);
}

/* The offset of the block that holds the byte at `offset`, a multiple of the page size. */
static size_t block_begin(const rws__slab *slab, size_t offset)
{
    for (unsigned order = slab->page_order; order < slab->order_top; order++) {
        size_t begin = offset & ~(((size_t)1 << order) - 1);
        uint8_t tag = slab->tags[begin >> RWS__SLAB_ORDER_MIN];
        if ((tag & TAG_STATE) != 0 && begin + ((size_t)1 << (tag & TAG_ORDER)) > offset)
            return begin;
    }
    return 0;
}

/* Give back the pages of the free block at `offset` that lie between `begin` and `end`; its first
 * page holds the list. */
static void give_back_part(rws__slab *slab, size_t offset, unsigned order, size_t begin, size_t end)
{
    size_t from = offset + slab->page_bytes, to = offset + ((size_t)1 << order);
    if (from < begin) from = begin;
    if (to > end) to = end;
    if (from < to) rws__pages_give_back(slab->base + from, to - from);
}

void rws__slab_give_back_free(rws__slab *slab, size_t begin, size_t end)
{
    size_t offset = block_begin(slab, begin);
    /* What has no tag is the rest of the range, which was never used. */
    while (offset < end && slab->tags[offset >> RWS__SLAB_ORDER_MIN] != 0) {
        uint8_t tag = slab->tags[offset >> RWS__SLAB_ORDER_MIN];
        unsigned order = tag & TAG_ORDER;
        if ((tag & TAG_STATE) == TAG_MERGED) give_back_part(slab, offset, order, begin, end);
        offset += (size_t)1 << order;
    }
}
