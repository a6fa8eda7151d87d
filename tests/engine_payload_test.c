/* Payloads: what is charged, what grows, and who holds them. */
#include <criterion/criterion.h>

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/payload.h"

#define BUDGET ((size_t)1 << 20)
#define HEAD   sizeof(rws__payload)

static rws__pool pool;

static void start(void)
{
    cr_assert_eq(rws__pool_init(&pool, BUDGET), 0);
}

static void end(void)
{
    cr_assert_eq(pool.charged_bytes, 0);
    cr_assert_eq(pool.slab.used_bytes, 0);
    rws__pool_deinit(&pool);
}

static int append(rws__payload **payload, size_t len, size_t expected)
{
    static uint8_t bytes[1 << 16];
    cr_assert_leq(len, sizeof bytes);
    size_t at = *payload != NULL ? (*payload)->len : 0;
    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)((at + i) * 31 + (at + i) / 256);
    return rws__payload_append(payload, &pool, bytes, len, expected);
}

static void holds_the_stream(const rws__payload *payload)
{
    for (size_t i = 0; i < payload->len; i++)
        cr_assert_eq(payload->data[i], (uint8_t)(i * 31 + i / 256), "byte %zu", i);
}

Test(engine_payload, grows_with_what_comes)
{
    static const size_t pieces[] = {1, 191, 192, 193, 4032, 4096, 65536};
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        start();
        rws__payload *payload = NULL;
        size_t len = 0;
        while (len < 200000 && len < 500 * pieces[i]) {
            cr_assert_eq(append(&payload, pieces[i], 0), 0);
            len += pieces[i];
            cr_assert_eq(payload->len, len);
            cr_assert_geq(payload->capacity, len);
            cr_assert_leq(payload->charged, HEAD + len + 4096, "at most a page more than came");
            cr_assert_eq(pool.charged_bytes, payload->charged);
        }
        holds_the_stream(payload);
        rws__payload_release(payload);
        end();
    }
}

/* A byte costs the page that it lies in, and no more than its block. */
Test(engine_payload, charges_pages_of_any_size)
{
    static const size_t page_sizes[] = {4096, 16384, 65536};
    for (size_t i = 0; i < sizeof page_sizes / sizeof page_sizes[0]; i++) {
        size_t page = page_sizes[i];
        if (page < (size_t)sysconf(_SC_PAGESIZE)) continue;
        cr_assert_eq(rws__pool_init_paged(&pool, BUDGET, page), 0);
        rws__payload *large = NULL, *small = NULL;
        cr_assert_eq(append(&large, 2048, 200000), 0);
        cr_expect_eq(large->charged, page, "2 KiB of a large message take a page of %zu", page);
        cr_assert_eq(append(&small, 900, 0), 0);
        cr_expect_eq(small->charged, 1024, "a small block costs itself");
        cr_assert_eq(rws__payload_charge(large, page), 0);
        cr_expect_eq(large->charged, 2 * page, "its head takes part of the first page");
        rws__payload_release(large);
        rws__payload_release(small);
        end();
    }
}

Test(engine_payload, is_charged_for_what_it_has_alone)
{
    start();
    rws__payload *payload = NULL;
    static const uint8_t data[10000];
    cr_assert_eq(rws__payload_append(&payload, &pool, data, sizeof data, 200000), 0);
    size_t before = pool.charged_bytes;
    rws__payload_uncharge(payload);
    cr_assert_eq(pool.charged_bytes, before, "that is what it has");
    cr_assert_eq(rws__payload_charge(payload, 150000), 0);
    cr_assert_gt(pool.charged_bytes, 150000);
    rws__payload_uncharge(payload);
    cr_assert_eq(pool.charged_bytes, before);
    cr_assert_eq(payload->charged, before);
    rws__payload_release(payload);
    end();
}

/* The block is as large as what was announced, so that it is not copied; the charge is not. */
Test(engine_payload, has_room_for_what_is_expected)
{
    start();
    rws__payload *payload = NULL;
    cr_assert_eq(append(&payload, 100, 200000), 0);
    cr_assert_geq(payload->capacity, 200000);
    cr_assert_leq(payload->charged, 4096);
    rws__payload *before = payload;
    cr_assert_eq(append(&payload, 60000, 0), 0);
    cr_assert_eq(payload, before);
    cr_assert_eq(rws__payload_charge(payload, 200000), 0);
    cr_assert_geq(pool.charged_bytes, 200000);
    cr_assert_eq(rws__payload_charge(payload, 100), 0, "a charge is never taken back");
    cr_assert_geq(pool.charged_bytes, 200000);
    holds_the_stream(payload);
    rws__payload_release(payload);
    end();
}

Test(engine_payload, is_not_charged_when_it_is_complete)
{
    start();
    rws__payload *payload = NULL;
    cr_assert_eq(append(&payload, 60000, 0), 0);
    rws__payload_complete(payload);
    cr_assert_eq(pool.charged_bytes, 0);
    cr_assert_gt(pool.slab.used_bytes, 0);
    holds_the_stream(payload);
    rws__payload_release(payload);
    end();
}

Test(engine_payload, stops_at_the_budget_and_a_burst)
{
    start();
    rws__payload *held[64];
    size_t count = 0;
    for (;; count++) {
        cr_assert_lt(count, 64);
        held[count] = NULL;
        if (append(&held[count], 65536 - HEAD, 0) != 0) break;
        cr_assert_leq(pool.charged_bytes, pool.charged_bytes_max);
    }
    cr_assert_eq(pool.charged_bytes_max, 2 * BUDGET, "a small budget's burst is 1 MiB");
    cr_assert_eq(pool.charged_bytes, pool.charged_bytes_max, "to the last byte");
    /* What is no payload, as a decoder's stash, is given all the same, and charged. */
    void *block = rws__pool_take(&pool, 256);
    cr_assert_not_null(block);
    cr_assert_eq(pool.charged_bytes, pool.charged_bytes_max + 256);
    rws__pool_give(&pool, block);
    for (size_t i = 0; i <= count; i++)
        rws__payload_release(held[i]);
    end();
}

Test(engine_payload, lives_until_its_last_holder)
{
    start();
    rws__payload *payload = NULL;
    cr_assert_eq(append(&payload, 1000, 0), 0);
    rws__payload_complete(payload);
    rws__lender *first = rws__payload_lend(payload), *second = rws__payload_lend(payload);
    cr_assert_not_null(first);
    cr_assert_not(first->ops->is_transient);
    rws__payload_release(payload);
    rws__lender_release(first);
    cr_assert_gt(pool.slab.used_bytes, 0);
    holds_the_stream(payload);
    rws__lender_release(second);
    end();
}

/* Announced blocks take half of the addresses; what comes has the rest. */
Test(engine_payload, leaves_half_of_the_addresses_to_what_comes)
{
    start();
    static rws__payload *held[1024];
    size_t count = 0;
    for (;; count++) {
        cr_assert_lt(count, 1024);
        held[count] = NULL;
        cr_assert_eq(append(&held[count], 1, 100000), 0);
        if (held[count]->capacity < 100000) break;
    }
    cr_assert_leq(pool.slab.used_bytes, pool.slab.bytes / 2 + 256);
    cr_assert_geq(pool.slab.used_bytes, pool.slab.bytes / 4);
    for (size_t i = 0; i <= count; i++)
        rws__payload_release(held[i]);
    rws__payload_release(NULL);
    end();
}

/* Lent blocks take a quarter of the addresses; a block that is lent already may be lent again. */
Test(engine_payload, lends_a_quarter_of_the_addresses)
{
    start();
    static rws__payload *held[1024];
    static rws__lender *loans[1024];
    size_t count = 0;
    for (;; count++) {
        cr_assert_lt(count, 1024);
        held[count] = NULL;
        cr_assert_eq(append(&held[count], 60000, 0), 0);
        rws__payload_complete(held[count]);
        loans[count] = rws__payload_lend(held[count]);
        if (loans[count] == NULL) break;
    }
    cr_assert_eq(count, pool.slab.bytes / 4 / 65536);
    cr_assert_eq(held[count]->refs, 1);
    rws__lender *again = rws__payload_lend(held[0]);
    cr_assert_not_null(again, "it takes no more addresses");
    rws__lender_release(again);
    rws__lender_release(loans[0]);
    cr_assert_null(rws__payload_lend(held[count]), "a holder still has the block");
    rws__payload_release(held[0]);
    loans[0] = rws__payload_lend(held[count]);
    cr_assert_not_null(loans[0]);
    rws__lender_release(loans[0]);
    for (size_t i = 1; i < count; i++)
        rws__lender_release(loans[i]);
    for (size_t i = 1; i <= count; i++)
        rws__payload_release(held[i]);
    cr_assert_eq(pool.lent_bytes, 0);
    end();
}

/* ---- what the program holds ---- */

static const rws__env environment;

static rws__pool *make_pool(size_t retained_bytes_max)
{
    rws__pool *own;
    cr_assert_eq(rws__pool_create(&own, &environment, BUDGET, retained_bytes_max), 0);
    return own;
}

/* As on_message gets it. */
static rws__payload *deliver(rws__pool *own, size_t len)
{
    static const uint8_t bytes[65536];
    rws__payload *payload = NULL;
    cr_assert_eq(rws__payload_append(&payload, own, bytes, len, 0), 0);
    rws__payload_complete(payload);
    return payload;
}

Test(engine_payload, is_given_back_once_in_the_turn_after_its_last_holder)
{
    rws__pool *own = make_pool(BUDGET);
    rws__payload *payload = deliver(own, 1000);
    cr_assert_not(rws__payload_is_held(payload));
    cr_assert(rws__payload_retain(payload));
    cr_assert(rws__payload_retain(payload));
    cr_assert_eq(own->retained_bytes, 2048);
    cr_assert_eq(atomic_load(&own->users), 2, "one for all holders");
    rws__payload_end_delivery(payload);
    rws__payload_drop(payload);
    rws__pool_collect(own);
    cr_assert(rws__payload_is_held(payload));
    rws__payload_drop(payload);
    cr_assert_eq(own->retained_bytes, 2048);
    rws__pool_collect(own);
    cr_assert_eq(own->retained_bytes, 0);
    cr_assert_eq(own->slab.used_bytes, 0);
    cr_assert_eq(atomic_load(&own->users), 1);
    rws__pool_close(own);
}

/* Whoever drops it while it is delivered does not put it on the list, so that it may be retained
 * again. */
Test(engine_payload, is_not_on_the_list_while_it_is_delivered)
{
    rws__pool *own = make_pool(BUDGET);
    rws__payload *payload = deliver(own, 1000);
    for (int i = 0; i < 3; i++) {
        cr_assert(rws__payload_retain(payload));
        rws__payload_drop(payload);
        cr_assert_null(atomic_load(&own->returned));
        cr_assert_eq(own->retained_bytes, 2048, "counted once");
    }
    rws__payload_end_delivery(payload);
    cr_assert_null(atomic_load(&own->returned));
    cr_assert_eq(own->slab.used_bytes, 0);
    rws__pool_close(own);
}

Test(engine_payload, outlives_its_pool_and_unmaps_it)
{
    rws__pool *own = make_pool(BUDGET);
    rws__payload *first = deliver(own, 1000), *second = deliver(own, 60000);
    cr_assert(rws__payload_retain(first));
    cr_assert(rws__payload_retain(second));
    rws__payload_end_delivery(first);
    rws__payload_end_delivery(second);
    rws__lender *lender = rws__payload_lend_elsewhere(second);
    lender->ops->retain(lender);
    rws__payload_drop(second);
    rws__pool_close(own);
    rws__payload_drop(first);
    rws__lender_release(lender);
    cr_assert_eq(second->len, 60000);
    rws__lender_release(lender);
}

/* A loan to a queue of the same loop is none of the program's holders. */
Test(engine_payload, is_lent_on_when_the_program_holds_it_no_more)
{
    rws__pool *own = make_pool(BUDGET);
    rws__payload *payload = deliver(own, 1000);
    cr_assert(rws__payload_retain(payload));
    rws__lender *lender = rws__payload_lend(payload);
    rws__payload_end_delivery(payload);
    rws__payload_drop(payload);
    rws__pool_collect(own);
    cr_assert_eq(own->retained_bytes, 0);
    cr_assert_eq(payload->len, 1000);
    cr_assert_gt(own->slab.used_bytes, 0);
    rws__lender_release(lender);
    cr_assert_eq(own->slab.used_bytes, 0);
    rws__pool_close(own);
}

Test(engine_payload, is_held_within_the_budget)
{
    rws__pool *own = make_pool(4096);
    rws__payload *first = deliver(own, 1000), *second = deliver(own, 1000),
                 *third = deliver(own, 100);
    cr_assert(rws__payload_retain(first));
    cr_assert(rws__payload_retain(second));
    cr_assert_not(rws__payload_retain(third));
    cr_assert_not(rws__payload_is_held(third));
    cr_assert(rws__payload_retain(first), "it is counted already");
    rws__payload_end_delivery(first);
    rws__payload_drop(first);
    cr_assert_not(rws__payload_retain(third));
    rws__payload_drop(first);
    cr_assert(rws__payload_retain(third), "what was released is taken back first");
    rws__payload_drop(second);
    rws__payload_drop(third);
    rws__payload_end_delivery(second);
    rws__payload_end_delivery(third);
    cr_assert_eq(own->retained_bytes, 0);
    cr_assert_eq(own->slab.used_bytes, 0);
    rws__pool_close(own);
}
