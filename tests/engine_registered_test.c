/*
 * Registered memory on the scripted ring (ctest: scripted ring), which checks that registered
 * memory keeps its pages, and that nothing is unregistered while a send reads it: when a region is
 * registered, when it is not, and how it is given back.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <string.h>

#include "engine/stream/registered.h"
#include "support/scripted_ring.h"
#include "support/seed.h"

#define REGION  131072u
#define BYTES   ((size_t)64 * REGION)
#define MESSAGE (REGION - 1000u) /* takes a block of a whole region */
#define REST    255u             /* registered.c's */
#define IDLE    256u

static rws__slab slab;
static rws__ring *ring;
static rws__registered registered;

/* ---- helpers ---- */

static void start_with(uint32_t entries_max, uint32_t features_off)
{
    const char *what;
    rws__ring_options options = {.registered_max = RWS__REGISTERED_MAX,
                                 .features_off = features_off};
    cr_assert_eq(rws__ring_create(&ring, &options, &what), 0);
    cr_assert_eq(rws__slab_init(&slab, BYTES), 0);
    rws__registered_init(&registered, &slab, ring, entries_max, REGION);
    rws__registered_start(&registered);
}

static void start(uint32_t entries_max)
{
    start_with(entries_max, 0);
}

static void end(void)
{
    rws__registered_settle(&registered);
    rws__registered_deinit(&registered);
    cr_expect_null(slab.returner);
    cr_expect_null(ring->broken, "%s", ring->broken);
    rws__ring_destroy(ring);
    rws__slab_deinit(&slab);
}

/* A block of a region of its own, filled. */
static uint8_t *take(void)
{
    uint8_t *block = rws__slab_take(&slab, MESSAGE);
    cr_assert_not_null(block);
    memset(block, 0x5a, MESSAGE);
    return block;
}

/* More than an eighth of the range is in use: nothing that is freed is kept. */
static void make_scarce(void)
{
    cr_assert_not_null(rws__slab_take(&slab, BYTES / 4));
}

static int32_t begin(const uint8_t *block)
{
    return rws__registered_begin(&registered, block, MESSAGE);
}

/* A send from begin to end; whether it was a registered one. */
static bool send_once(const uint8_t *block)
{
    int32_t entry = begin(block);
    rws__registered_end(&registered, entry);
    return entry != RWS__NOT_REGISTERED;
}

static void expect_registered(uint32_t entries, uint64_t calls)
{
    cr_expect_eq(registered.entries_used, entries, "%u entries are in use",
                 registered.entries_used);
    cr_expect_eq(ring->registers, calls, "%llu calls", (unsigned long long)ring->registers);
}

/* ---- what is registered ---- */

Test(engine_registered, registers_a_region_with_its_first_send)
{
    start(4);
    uint8_t *a = take(), *b = take();
    expect_registered(0, 0);
    int32_t first = begin(a), second = begin(a), other = begin(b);
    cr_expect_geq(first, 0);
    cr_expect_eq(second, first);
    cr_expect_neq(other, first);
    cr_expect_geq(other, 0);
    expect_registered(2, 2);
    cr_expect_eq(ring->registered[first].memory, slab.base + (a - slab.base) / REGION * REGION);
    cr_expect_eq(ring->registered[first].len, REGION);
    rws__registered_end(&registered, first);
    rws__registered_end(&registered, second);
    rws__registered_end(&registered, other);
    cr_expect(send_once(a));
    expect_registered(2, 2);
    end();
}

Test(engine_registered, shares_a_region_between_its_blocks)
{
    start(4);
    uint8_t *a = rws__slab_take(&slab, REGION / 2), *b = rws__slab_take(&slab, REGION / 2);
    cr_assert_eq((a - slab.base) / REGION, (b - slab.base) / REGION);
    int32_t first = rws__registered_begin(&registered, a, REGION / 2);
    int32_t second = rws__registered_begin(&registered, b + 9, REGION / 2 - 9);
    cr_expect_geq(first, 0);
    cr_expect_eq(first, second);
    expect_registered(1, 1);
    rws__registered_end(&registered, first);
    rws__registered_end(&registered, second);
    end();
}

Test(engine_registered, leaves_other_memory_alone)
{
    start(4);
    static uint8_t elsewhere[100];
    uint8_t *large = rws__slab_take(&slab, 4 * REGION);
    const struct {
        const char *name;
        const uint8_t *data;
        size_t len;
    } rows[] = {
        {"not of the slab", elsewhere, sizeof elsewhere}, {"before the slab", slab.base - 1, 100},
        {"behind the slab", slab.base + BYTES, 100},      {"nothing", large, 0},
        {"over the end of a region", large, REGION + 1},  {"by one byte", large + REGION - 1, 2},
        {"three regions", large + 5, 3 * REGION},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        cr_expect_eq(rws__registered_begin(&registered, rows[i].data, rows[i].len),
                     RWS__NOT_REGISTERED, "%s", rows[i].name);
    rws__registered_end(&registered, RWS__NOT_REGISTERED);
    expect_registered(0, 0);
    end();
}

Test(engine_registered, registers_nothing_before_it_is_worth_while)
{
    start(4);
    registered.started = false;
    uint8_t *block = take();
    for (int n = 0; n < 100; n++)
        cr_assert_not(send_once(block));
    expect_registered(0, 0);
    rws__registered_start(&registered);
    cr_expect(send_once(block));
    end();
}

Test(engine_registered, does_nothing_where_it_can_not)
{
    static const struct {
        uint32_t entries_max, off;
    } rows[] = {{0, 0}, {4, RWS__FEATURE_REGISTERED_BUFFERS}, {4, RWS__FEATURE_ALL}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        start_with(rows[i].entries_max, rows[i].off);
        cr_expect_null(slab.returner, "the slab gives its pages back itself");
        cr_expect_not(send_once(take()));
        rws__registered_settle(&registered);
        expect_registered(0, 0);
        end();
    }
}

/* A slab that is smaller than a region is one. */
Test(engine_registered, registers_a_small_slab_as_a_whole)
{
    const char *what;
    rws__ring_options options = {.registered_max = 1};
    cr_assert_eq(rws__ring_create(&ring, &options, &what), 0);
    cr_assert_eq(rws__slab_init(&slab, 65536), 0);
    rws__registered_init(&registered, &slab, ring, 1, RWS__REGISTERED_BYTES);
    rws__registered_start(&registered);
    int32_t entry = rws__registered_begin(&registered, slab.base, 65536);
    cr_expect_eq(entry, 0);
    cr_expect_eq(ring->registered[0].len, 65536);
    rws__registered_end(&registered, entry);
    end();
}

/* ---- limits ---- */

Test(engine_registered, sends_plainly_when_the_table_is_full)
{
    start(3);
    uint8_t *blocks[5];
    for (size_t n = 0; n < 5; n++)
        blocks[n] = take();
    for (int round = 0; round < 20; round++)
        for (size_t n = 0; n < 5; n++)
            cr_assert_eq(send_once(blocks[n]), n < 3);
    expect_registered(3, 3);
    end();
}

/* A region that is not read any more makes room for one that is; not one that is being read. */
Test(engine_registered, replaces_a_region_that_is_idle)
{
    start(2);
    uint8_t *read = take(), *idle = take(), *waits = take();
    int32_t entry = begin(read);
    cr_assert_geq(entry, 0);
    cr_assert(send_once(idle));
    for (uint32_t n = 0; n < IDLE; n++)
        cr_assert_not(send_once(waits), "after %u sends", n);
    cr_expect(send_once(waits), "the idle one made room");
    expect_registered(2, 3);
    cr_expect_eq(ring->unregisters, 1);
    /* Now the older one is in flight, the younger one is used. */
    for (uint32_t n = 0; n < 2 * IDLE; n++) {
        cr_assert(send_once(waits));
        cr_assert_not(send_once(idle));
    }
    expect_registered(2, 3);
    rws__registered_end(&registered, entry);
    cr_expect(send_once(idle), "it has rested, and there is room");
    end();
}

Test(engine_registered, stops_asking_when_the_kernel_refuses)
{
    static const int errors[] = {-ENOMEM, -EFAULT, -EINVAL, -EOPNOTSUPP};
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        start(8);
        uint8_t *blocks[6];
        for (size_t n = 0; n < 6; n++)
            blocks[n] = take();
        cr_assert(send_once(blocks[0]) && send_once(blocks[1]));
        ring->register_result = errors[i];
        for (int n = 0; n < 50; n++)
            cr_assert_not(send_once(blocks[2 + n % 4]));
        expect_registered(2, 3);
        cr_expect(send_once(blocks[0]), "what is registered stays so");
        /* There is more room now, but nothing says so. */
        ring->register_result = 0;
        cr_expect_not(send_once(blocks[2]));
        end();
    }
}

/* Within what it had it goes on: what is given back may be used for another region. */
Test(engine_registered, registers_as_much_as_before_after_a_refusal)
{
    start(8);
    uint8_t *a = take(), *b = take(), *c = take();
    make_scarce();
    cr_assert(send_once(a) && send_once(b));
    ring->register_result = -ENOMEM;
    cr_assert_not(send_once(c));
    ring->register_result = 0;
    rws__slab_give(&slab, a);
    rws__registered_settle(&registered);
    expect_registered(1, 3);
    cr_expect(send_once(c));
    cr_expect_not(send_once(take()));
    expect_registered(2, 4);
    end();
}

Test(engine_registered, is_off_for_good_when_nothing_can_be_registered)
{
    start(8);
    uint8_t *block = take();
    ring->register_result = -ENOMEM;
    for (int n = 0; n < 1000; n++)
        cr_assert_not(send_once(block));
    expect_registered(0, 1);
    end();
}

/* ---- pages ---- */

/* The trap: a registered send reads the old pages of addresses that were given new ones. */
Test(engine_registered, keeps_the_pages_of_a_registered_region)
{
    start(4);
    make_scarce();
    uint8_t *block = take(), *other = take();
    cr_assert(send_once(block));
    rws__slab_give(&slab, block);
    rws__slab_give(&slab, other);
    cr_expect_eq(block[MESSAGE - 1], 0x5a, "they are the kernel's");
    cr_expect_eq(other[MESSAGE - 1], 0, "these are not");
    cr_expect_eq(registered.leaving, 1);
    cr_expect_eq(ring->unregisters, 0);
    rws__registered_settle(&registered);
    cr_expect_eq(ring->unregisters, 1);
    cr_expect_eq(block[MESSAGE - 1], 0, "unregistered, then given back");
    cr_expect_eq(registered.leaving, 0);
    expect_registered(0, 1);
    end();
}

/* Whatever happens to the memory while a send reads its region. */
Test(engine_registered, waits_for_the_last_send)
{
    start(4);
    make_scarce();
    uint8_t *half = rws__slab_take(&slab, REGION / 2), *other = rws__slab_take(&slab, REGION / 2);
    cr_assert_eq((half - slab.base) / REGION, (other - slab.base) / REGION);
    int32_t first = rws__registered_begin(&registered, half, 1000);
    int32_t second = rws__registered_begin(&registered, half, 1000);
    cr_assert_geq(first, 0);
    cr_assert_eq(first, second);
    memset(other, 0x77, REGION / 2);
    rws__slab_give(&slab, other);
    for (int n = 0; n < 3; n++)
        rws__registered_settle(&registered);
    cr_expect_eq(ring->unregisters, 0, "two sends read it");
    cr_expect_eq(other[REGION / 2 - 1], 0x77);
    cr_expect_not(send_once(half), "no new one");
    rws__registered_end(&registered, first);
    rws__registered_settle(&registered);
    cr_expect_eq(ring->unregisters, 0, "one reads it");
    /* The block is in use again when the region goes: it stays as it is. */
    cr_assert_eq(rws__slab_take(&slab, REGION / 2), other);
    memset(other, 0x33, REGION / 2);
    rws__registered_end(&registered, second);
    rws__registered_settle(&registered);
    cr_expect_eq(ring->unregisters, 1);
    for (size_t i = 0; i < REGION / 2; i++)
        cr_assert_eq(other[i], 0x33, "byte %zu", i);
    end();
}

/* Registering made all of a region resident, also what was never used. */
Test(engine_registered, gives_all_free_pages_of_a_region_back)
{
    start(4);
    make_scarce();
    uint8_t *first = rws__slab_take(&slab, 8192), *second = rws__slab_take(&slab, 8192);
    uint8_t *region = slab.base + (first - slab.base) / REGION * REGION;
    cr_assert_eq((second - slab.base) / REGION, (first - slab.base) / REGION);
    int32_t entry = rws__registered_begin(&registered, first, 8192);
    cr_assert_geq(entry, 0);
    memset(first, 1, 8192);
    for (size_t at = 65536 + 4096; at < REGION; at += 4096)
        region[at + 100] = 1; /* of free blocks, but the pages that hold links */
    rws__registered_end(&registered, entry);
    rws__slab_give(&slab, second);
    rws__registered_settle(&registered);
    expect_registered(0, 1);
    cr_expect_eq(first[8191], 1, "it is in use");
    for (size_t at = 65536 + 4096; at < REGION; at += 4096)
        cr_expect_eq(region[at + 100], 0, "at %zu", at);
    end();
}

/* A block of many regions is freed, of which some are registered. */
Test(engine_registered, gives_what_is_not_registered_back_at_once)
{
    start(4);
    make_scarce();
    uint8_t *large = rws__slab_take(&slab, 8 * REGION);
    memset(large, 1, 8 * REGION);
    cr_assert_geq(rws__registered_begin(&registered, large + 2 * REGION, 100), 0);
    cr_assert_geq(rws__registered_begin(&registered, large + 7 * REGION, 100), 1);
    rws__registered_end(&registered, 0);
    rws__slab_give(&slab, large);
    for (size_t n = 0; n < 8; n++)
        cr_expect_eq(large[n * REGION + REGION / 2], n == 2 || n == 7, "region %zu", n);
    rws__registered_settle(&registered);
    for (size_t n = 0; n < 8; n++)
        cr_expect_eq(large[n * REGION + REGION / 2], n == 7, "region %zu", n);
    rws__registered_end(&registered, 1);
    rws__registered_settle(&registered);
    cr_expect_eq(large[7 * REGION + REGION / 2], 0);
    expect_registered(0, 2);
    end();
}

Test(engine_registered, tries_again_when_it_can_not_be_unregistered)
{
    start(4);
    make_scarce();
    uint8_t *block = take();
    cr_assert(send_once(block));
    rws__slab_give(&slab, block);
    ring->unregister_result = -ENOMEM;
    for (int n = 0; n < 3; n++)
        rws__registered_settle(&registered);
    cr_expect_eq(ring->unregisters, 3);
    cr_expect_eq(block[MESSAGE - 1], 0x5a, "its pages stay as long");
    cr_assert_eq(take(), block);
    cr_expect_not(send_once(block));
    ring->unregister_result = 0;
    rws__registered_settle(&registered);
    cr_expect_eq(ring->unregisters, 4);
    cr_expect_eq(block[MESSAGE - 1], 0x5a, "it is in use");
    expect_registered(0, 1);
    end();
}

/* Where what is freed goes back at once, registering for each send would cost more than it spares.
 */
Test(engine_registered, lets_a_region_rest_that_was_given_back)
{
    start(4);
    make_scarce();
    uint8_t *block = take();
    cr_assert(send_once(block));
    for (uint32_t n = 0; n < 3 * (REST + 1); n++) {
        rws__slab_give(&slab, block);
        rws__registered_settle(&registered);
        cr_assert_eq(take(), block);
        cr_assert_eq(send_once(block), (n + 1) % (REST + 1) == 0, "send %u", n);
    }
    expect_registered(1, 4);
    end();
}

static void end_twice(void)
{
    start(1);
    int32_t entry = begin(take());
    rws__registered_end(&registered, entry);
    rws__registered_end(&registered, entry);
}

#ifndef RINGWS_COVERAGE /* asserts are assumed there */
Test(engine_registered, asserts_that_a_send_ends_once, .signal = 6)
{
    end_twice();
}
#endif

/* ---- at random ---- */

#define OWNERS 48u

typedef struct owner {
    uint8_t *block;
    size_t bytes;
    uint8_t mark;
    script_op *op; /* a send that reads it */
    int32_t entry;
} owner;

static void check_owner(const owner *o)
{
    for (size_t at = 0; at < o->bytes; at += 501)
        cr_assert_eq(o->block[at], o->mark, "a block in use lost what it held");
}

static void step_of(owner *o)
{
    if (o->block == NULL) {
        o->bytes = 256 + next_random() % (next_random() % 4 == 0 ? 2 * REGION : REGION / 4);
        o->block = rws__slab_take(&slab, o->bytes);
        if (o->block == NULL) return;
        o->mark = (uint8_t)next_random();
        memset(o->block, o->mark, o->bytes);
        return;
    }
    check_owner(o);
    if (o->op != NULL) { /* the result, then the notification */
        if (!o->op->notifies) {
            script_complete(ring, o->op, (int32_t)o->bytes, RWS__CQE_MORE);
            return;
        }
        script_notify(ring, o->op, false);
        rws__registered_end(&registered, o->entry);
        o->op = NULL;
    } else if (next_random() % 2) {
        o->entry = rws__registered_begin(&registered, o->block, o->bytes);
        if (o->entry == RWS__NOT_REGISTERED) return;
        cr_assert_eq(rws__ring_send_registered(ring, (uint32_t)(o->mark), o->block, o->bytes,
                                               (uint32_t)o->entry, 0),
                     0);
        for (script_op *op = ring->ops; op != NULL; op = op->next)
            o->op = op;
        return;
    }
    rws__slab_give(&slab, o->block);
    o->block = NULL;
}

/* Returns how many sends read registered memory; a run that is refused at once has none. */
static uint64_t random_run(void)
{
    static owner owners[OWNERS];
    start(1 + (uint32_t)(next_random() % 6));
    memset(owners, 0, sizeof owners);
    ring->manual = SCRIPT_BIT(SCRIPT_SEND_ZERO_COPY);
    ring->turns_left = INT32_MAX;
    if (next_random() % 2) make_scarce();
    for (int step = 0; step < 2000; step++) {
        ring->register_result = next_random() % 400 == 0 ? -ENOMEM : 0;
        ring->unregister_result = next_random() % 8 == 0 ? -ENOMEM : 0;
        step_of(&owners[next_random() % OWNERS]);
        if (next_random() % 3 == 0) {
            rws__registered_settle(&registered);
            (void)rws__ring_turn(ring, false);
            rws__cqe cqes[16];
            while (rws__ring_reap(ring, cqes, 16) > 0) {
            }
        }
        /* Regions would rest for longer than this test. */
        if (step % 50 == 0)
            for (size_t n = 0; n < BYTES / REGION && registered.slab != NULL; n++)
                registered.regions[n].rest = 0;
        cr_assert_null(ring->broken, "%s", ring->broken);
    }
    for (uint32_t n = 0; n < OWNERS; n++)
        if (owners[n].block != NULL) check_owner(&owners[n]);
    uint64_t sends = ring->sends_registered;
    end();
    return sends;
}

Test(engine_registered, keeps_every_owners_bytes)
{
    seed_random();
    uint64_t sends = 0;
    for (int run = 0; run < 40; run++)
        sends += random_run();
    cr_expect_gt(sends, 0);
}
