#include "engine/base/payload.h"

#include "engine/base/assert.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

static_assert(offsetof(rws__payload, data) == 64, "one cache line before the data");

#define PAGE 4096u
/* Addresses for each byte of the budget. Half is for what came: rounded up to a power of two, and
 * the old block beside the new one while a payload grows. */
#define ADDRESSES_PER_BYTE 16u
/* What comes before connections are paused may go beyond the budget by a third, or this. */
#define BURST_MIN ((size_t)1 << 20)

int rws__pool_init(rws__pool *pool, size_t bytes_max)
{
    pool->budget_bytes = bytes_max;
    pool->charged_bytes_max = bytes_max + (bytes_max / 3 > BURST_MIN ? bytes_max / 3 : BURST_MIN);
    size_t addresses = ADDRESSES_PER_BYTE * bytes_max, most = (size_t)1 << RWS__SLAB_ORDER_MAX;
    return rws__slab_init(&pool->slab, addresses < most ? addresses : most);
}

void rws__pool_deinit(rws__pool *pool)
{
    rws__slab_deinit(&pool->slab);
}

static bool addresses_are_plenty(const rws__pool *pool, size_t bytes)
{
    return pool->slab.used_bytes + bytes <= pool->slab.bytes / 2;
}

bool rws__pool_has_plenty(const rws__pool *pool, size_t bytes)
{
    return pool->charged_bytes + bytes <= pool->budget_bytes / 2;
}

void *rws__pool_take(rws__pool *pool, size_t bytes)
{
    void *block = rws__slab_take(&pool->slab, bytes);
    if (block != NULL) pool->charged_bytes += rws__slab_block_bytes(&pool->slab, block);
    return block;
}

void rws__pool_give(rws__pool *pool, void *block)
{
    pool->charged_bytes -= rws__slab_block_bytes(&pool->slab, block);
    rws__slab_give(&pool->slab, block);
}

static void release(rws__lender *lender)
{
    rws__payload_release((rws__payload *)lender);
}

static void retain(rws__lender *lender)
{
    ((rws__payload *)lender)->refs++;
}

static const rws__lender_ops payload_ops = {.release = release, .retain = retain};

/* What `bytes` of a payload cost: pages, but no more than its block. */
static size_t cost(const rws__payload *payload, size_t bytes)
{
    size_t pages = (offsetof(rws__payload, data) + bytes + PAGE - 1) / PAGE * PAGE;
    size_t block = offsetof(rws__payload, data) + payload->capacity;
    return pages < block ? pages : block;
}

int rws__payload_charge(rws__payload *payload, size_t bytes)
{
    rws__pool *pool = payload->pool;
    size_t now = cost(payload, bytes);
    if (now <= payload->charged) return 0;
    size_t more = now - payload->charged;
    if (pool->charged_bytes + more > pool->charged_bytes_max) return -ENOMEM;
    pool->charged_bytes += more;
    payload->charged = (uint32_t)now;
    return 0;
}

static rws__payload *take(rws__pool *pool, size_t bytes)
{
    rws__payload *payload = rws__slab_take(&pool->slab, offsetof(rws__payload, data) + bytes);
    if (payload == NULL) return NULL;
    size_t block = rws__slab_block_bytes(&pool->slab, payload);
    *payload = (rws__payload){
        .lender = {&payload_ops},
        .pool = pool,
        .capacity = (uint32_t)(block - offsetof(rws__payload, data)),
        .refs = 1,
    };
    return payload;
}

int rws__payload_reserve(rws__payload **payload, rws__pool *pool, size_t need, size_t expected)
{
    rws__payload *old = *payload;
    if (old != NULL && need <= old->capacity) return 0;
    if (need > UINT32_MAX / 2) return -ENOMEM;
    rws__payload *new = NULL;
    /* A block is up to twice what was asked for. */
    if (expected > need && expected <= UINT32_MAX / 2 && addresses_are_plenty(pool, 2 * expected))
        new = take(pool, expected);
    if (new == NULL) new = take(pool, need);
    if (new == NULL) return -ENOMEM;
    if (old != NULL) {
        RWS_ASSERT(old->refs == 1);
        if (rws__payload_charge(new, old->len) != 0) {
            rws__payload_release(new);
            return -ENOMEM;
        }
        memcpy(new->data, old->data, old->len);
        new->len = old->len;
        rws__payload_release(old);
    }
    *payload = new;
    return 0;
}

int rws__payload_append(rws__payload **payload, rws__pool *pool, const uint8_t *data, size_t len,
                        size_t expected)
{
    size_t need = (*payload != NULL ? (*payload)->len : 0) + len;
    int res = rws__payload_reserve(payload, pool, need, expected);
    if (res == 0) res = rws__payload_charge(*payload, need);
    if (res != 0) return res;
    if (len > 0) memcpy((*payload)->data + (*payload)->len, data, len);
    (*payload)->len = (uint32_t)need;
    return 0;
}

void rws__payload_complete(rws__payload *payload)
{
    payload->pool->charged_bytes -= payload->charged;
    payload->charged = 0;
}

void rws__payload_release(rws__payload *payload)
{
    if (payload == NULL || --payload->refs > 0) return;
    rws__pool *pool = payload->pool;
    rws__payload_complete(payload);
    if (payload->lent) pool->lent_bytes -= rws__slab_block_bytes(&pool->slab, payload);
    rws__slab_give(&pool->slab, payload);
}

rws__lender *rws__payload_lend(rws__payload *payload)
{
    rws__pool *pool = payload->pool;
    size_t block = rws__slab_block_bytes(&pool->slab, payload);
    if (!payload->lent) {
        if (pool->lent_bytes + block > pool->slab.bytes / 4) return NULL;
        pool->lent_bytes += block;
        payload->lent = true;
    }
    payload->refs++;
    return &payload->lender;
}
