#include "engine/base/payload.h"

#include "engine/base/assert.h"
#include "engine/base/pages.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

static_assert(offsetof(rws__payload, data) == 64, "one cache line before the data");
static_assert(offsetof(rws__payload, len) ==
                  offsetof(rws__payload, head) + offsetof(rws_message, len),
              "two names of one field");

/* Addresses for each byte of the budget. Half is for what was received: rounded up to a power of
 * two, and the old block beside the new one while a payload grows. */
#define ADDRESSES_PER_BYTE 16u
/* What comes before connections are paused may go beyond the budget by a third, or this. */
#define BURST_MIN ((size_t)1 << 20)

int rws__pool_init(rws__pool *pool, size_t bytes_max)
{
    return rws__pool_init_paged(pool, bytes_max, rws__page_bytes());
}

int rws__pool_init_paged(rws__pool *pool, size_t bytes_max, size_t page_bytes)
{
    atomic_init(&pool->users, 1);
    atomic_init(&pool->returned, NULL);
    pool->budget_bytes = bytes_max;
    pool->charged_bytes_max = bytes_max + (bytes_max / 3 > BURST_MIN ? bytes_max / 3 : BURST_MIN);
    size_t addresses = ADDRESSES_PER_BYTE * bytes_max, most = (size_t)1 << RWS__SLAB_ORDER_MAX;
    return rws__slab_init_paged(&pool->slab, addresses < most ? addresses : most, page_bytes);
}

void rws__pool_deinit(rws__pool *pool)
{
    rws__slab_deinit(&pool->slab);
}

int rws__pool_create(rws__pool **out, const rws__env *env, size_t bytes_max,
                     size_t retained_bytes_max)
{
    /* Pages, because it may outlive the allocator of the program. */
    rws__pool *pool = rws__pages_reserve(sizeof(rws__pool));
    *out = pool;
    if (pool == NULL) return -ENOMEM;
    int res = rws__pool_init(pool, bytes_max);
    if (res != 0) {
        rws__pages_release(pool, sizeof(rws__pool));
        *out = NULL;
        return res;
    }
    size_t quarter = pool->slab.bytes / 4;
    pool->env = env;
    pool->retained_bytes_max = retained_bytes_max < quarter ? retained_bytes_max : quarter;
    return 0;
}

void rws__pool_close(rws__pool *pool)
{
    if (pool == NULL) return;
    /* Release, then acquire by the last: it is unmapped after everybody's accesses. */
    if (atomic_fetch_sub_explicit(&pool->users, 1, memory_order_acq_rel) != 1) return;
    rws__pool_deinit(pool);
    rws__pages_release(pool, sizeof(rws__pool));
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
    size_t page = payload->pool->slab.page_bytes;
    size_t pages = (offsetof(rws__payload, data) + bytes + page - 1) / page * page;
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

void rws__payload_uncharge(rws__payload *payload)
{
    size_t now = cost(payload, payload->len);
    if (now >= payload->charged) return;
    payload->pool->charged_bytes -= payload->charged - now;
    payload->charged = (uint32_t)now;
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

/* ---- what the program holds ---- */

static void release_elsewhere(rws__lender *lender)
{
    rws__payload_drop(
        (rws__payload *)(void *)((char *)lender - offsetof(rws__payload, lender_elsewhere)));
}

static void retain_elsewhere(rws__lender *lender)
{
    rws__payload *payload =
        (rws__payload *)(void *)((char *)lender - offsetof(rws__payload, lender_elsewhere));
    /* Relaxed: whoever adds a holder is one already. */
    atomic_fetch_add_explicit(&payload->holders, 1, memory_order_relaxed);
}

static const rws__lender_ops elsewhere_ops = {.release = release_elsewhere,
                                              .retain = retain_elsewhere};

/* Make `holders`, of which there were none, one of the holders on the loop. False: over the budget.
 */
static bool begin_holding(rws__payload *payload, unsigned holders)
{
    rws__pool *pool = payload->pool;
    size_t block = rws__slab_block_bytes(&pool->slab, payload);
    if (pool->retained_bytes + block > pool->retained_bytes_max) rws__pool_collect(pool);
    if (pool->retained_bytes + block > pool->retained_bytes_max) return false;
    RWS_ASSERT(!payload->retained);
    pool->retained_bytes += block;
    payload->retained = true;
    payload->refs++;
    payload->lender_elsewhere.ops = &elsewhere_ops;
    atomic_fetch_add_explicit(&pool->users, 1, memory_order_relaxed);
    /* Relaxed: the program hands it to other threads, if it does, by means that order memory. */
    atomic_store_explicit(&payload->holders, holders, memory_order_relaxed);
    return true;
}

/* There are no holders any more. */
static void end_holding(rws__payload *payload)
{
    rws__pool *pool = payload->pool;
    RWS_ASSERT(payload->retained);
    pool->retained_bytes -= rws__slab_block_bytes(&pool->slab, payload);
    payload->retained = false;
    rws__payload_release(payload);
}

void rws__pool_take_returned(rws__pool *pool)
{
    /* Acquire: pairs with the release in rws__payload_drop(). */
    rws__payload *payload = atomic_exchange_explicit(&pool->returned, NULL, memory_order_acquire);
    while (payload != NULL) {
        rws__payload *next = payload->next_returned;
        end_holding(payload);
        payload = next;
    }
}

rws__payload *rws__payload_take_retained(rws__pool *pool, size_t len)
{
    if (len > UINT32_MAX / 2) return NULL;
    rws__payload *payload = take(pool, len);
    if (payload == NULL) return NULL;
    bool held = begin_holding(payload, 1);
    rws__payload_release(payload);
    return held ? payload : NULL;
}

bool rws__payload_retain(rws__payload *payload)
{
    /* Two: the program, and on_message, which the payload was given to. */
    if (!rws__payload_is_held(payload)) return begin_holding(payload, 2);
    /* Relaxed: whoever adds a holder is one already. */
    atomic_fetch_add_explicit(&payload->holders, 1, memory_order_relaxed);
    return true;
}

void rws__payload_drop(rws__payload *payload)
{
    /* Release, then acquire by the last: the loop takes it back after everybody's reads. */
    if (atomic_fetch_sub_explicit(&payload->holders, 1, memory_order_acq_rel) != 1) return;
    rws__pool *pool = payload->pool;
    rws__payload *first = atomic_load_explicit(&pool->returned, memory_order_relaxed);
    /* Release: pairs with the acquire of the loop. It takes the whole list, so that a block that is
     * first again is no danger. */
    do {
        payload->next_returned = first;
    } while (!atomic_compare_exchange_weak_explicit(&pool->returned, &first, payload,
                                                    memory_order_release, memory_order_relaxed));
    rws__pool_close(pool);
}

void rws__payload_end_delivery(rws__payload *payload)
{
    if (payload->retained &&
        atomic_fetch_sub_explicit(&payload->holders, 1, memory_order_acq_rel) == 1) {
        rws__pool *pool = payload->pool;
        end_holding(payload);
        rws__pool_close(pool);
    }
    rws__payload_release(payload);
}

rws__lender *rws__payload_lend_elsewhere(rws__payload *payload)
{
    return rws__payload_retain(payload) ? &payload->lender_elsewhere : NULL;
}
