/* Fair shares: what greedy holders leave to the others. */
#include <criterion/criterion.h>

#include <stdlib.h>

#include "engine/base/share.h"
#include "support/seed.h"

#define MIB     ((size_t)1 << 20)
#define HOLDERS 2000u

static rws__share share;
static size_t used, held[HOLDERS];

static void start(size_t bytes, uint32_t holders)
{
    rws__share_init(&share, bytes, holders);
    used = 0;
    for (size_t n = 0; n < HOLDERS; n++)
        held[n] = 0;
}

static bool take(uint32_t n, size_t more, rws__share_use use)
{
    if (!rws__share_allows(&share, used, held[n], more, use)) return false;
    held[n] += more;
    used += more;
    cr_assert_leq(used, share.bytes);
    return true;
}

/* As much as it gets in blocks of `block`, up to `most`. */
static void grab(uint32_t n, size_t block, size_t most)
{
    while (held[n] + block <= most && take(n, block, RWS__SHARE_MESSAGE)) {
    }
}

Test(engine_share, gives_anybody_what_it_wants_up_to_half)
{
    start(4 * MIB, 100);
    cr_expect(take(0, 2 * MIB, RWS__SHARE_MESSAGE));
    cr_expect_not(take(0, 1, RWS__SHARE_MESSAGE), "it has its share");
    cr_expect(take(1, MIB / 4, RWS__SHARE_MESSAGE), "another one has not");
    cr_expect_not(take(1, MIB / 2, RWS__SHARE_MESSAGE));
}

/* 24 readers that never read, with a queue of 1 MiB each, in a pool of 4 MiB; then a small echo. */
Test(engine_share, leaves_the_minimum_to_everybody)
{
    static const size_t blocks[] = {512, 4096, 65536, MIB};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) {
        start(4 * MIB, 320);
        for (uint32_t n = 0; n < 24; n++)
            grab(n, blocks[i], MIB);
        for (uint32_t n = 24; n < 320; n++)
            cr_assert(take(n, 2048, RWS__SHARE_MESSAGE), "holder %u, blocks of %zu", n, blocks[i]);
        cr_expect_geq(share.minimum_bytes, 2048);
    }
}

/* The default pool and connections, all of which want 1 MiB. */
Test(engine_share, leaves_the_minimum_when_all_are_greedy)
{
    enum { COUNT = HOLDERS };
    start(128 * MIB, COUNT);
    for (uint32_t n = 0; n < COUNT; n++)
        grab(n, 4096, MIB);
    for (uint32_t n = 0; n < COUNT; n++)
        cr_assert_geq(held[n], share.minimum_bytes / 4096 * 4096, "holder %u", n);
    cr_expect_leq(used, 128 * MIB / 16 * 15, "the reserve is kept");
}

Test(engine_share, keeps_a_reserve_for_what_ends_a_connection)
{
    start(128 * MIB, HOLDERS);
    for (uint32_t n = 0; n < HOLDERS; n++)
        grab(n, 512, MIB);
    for (uint32_t n = 0; n < HOLDERS; n++) {
        bool has_more = held[n] > share.minimum_bytes;
        cr_assert_eq(take(n, 512, RWS__SHARE_PONG), !has_more, "a pong of %u", n);
        cr_assert_not(take(n, 4096, RWS__SHARE_PONG), "pongs are bounded");
    }
    for (uint32_t n = 0; n < HOLDERS; n++)
        cr_assert(take(n, 2048, RWS__SHARE_ONCE), "the close frame of %u", n);
}

/* Pongs without end, of a peer that does not read them. */
Test(engine_share, bounds_pongs)
{
    start(16 * MIB, 100);
    for (uint32_t n = 0; n < 100; n++)
        while (take(n, 512, RWS__SHARE_PONG)) {
        }
    cr_expect_leq(used, 16 * MIB / 32 * 31);
    for (uint32_t n = 0; n < 100; n++)
        cr_assert(take(n, 4096, RWS__SHARE_ONCE));
}

Test(engine_share, never_gives_more_than_there_is)
{
    static const size_t sizes[] = {0, 1, 15, 16, 4096, MIB, (size_t)1 << 40};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        start(sizes[i], 3);
        for (int use = RWS__SHARE_MESSAGE; use <= RWS__SHARE_ONCE; use++) {
            rws__share_use as = (rws__share_use)use;
            cr_expect_not(rws__share_allows(&share, 0, 0, sizes[i] + 1, as));
            cr_expect_not(rws__share_allows(&share, sizes[i], sizes[i], 1, as));
            cr_expect_not(rws__share_allows(&share, sizes[i] / 2, 0, SIZE_MAX, as));
        }
        cr_expect(rws__share_allows(&share, sizes[i], 0, 0, RWS__SHARE_ONCE));
        cr_expect(rws__share_allows(&share, 0, 0, sizes[i] / 2, RWS__SHARE_MESSAGE));
    }
}

/* ---- holders with filters ---- */

static size_t wire[HOLDERS];

/* What such a holder counts for: its wire queue's part, too, where that is not taken. */
static size_t counted(uint32_t n)
{
    return held[n] + (wire[n] > share.wire_bytes ? wire[n] : share.wire_bytes);
}

static void take_message(uint32_t n, size_t block)
{
    if (!rws__share_allows(&share, used, counted(n), block, RWS__SHARE_MESSAGE)) return;
    held[n] += block;
    used += block;
}

static bool take_wire(uint32_t n, size_t block)
{
    if (!rws__share_allows(&share, used, wire[n], block, RWS__SHARE_WIRE) &&
        !rws__share_allows(&share, used, held[n] + wire[n], block, RWS__SHARE_MESSAGE))
        return false;
    wire[n] += block;
    used += block;
    cr_assert_leq(used, share.bytes);
    return true;
}

/* All queue and seal as much as they can, and send nothing. */
Test(engine_share, leaves_a_part_to_every_wire_queue)
{
    static const size_t blocks[] = {512, 4096, 65536, MIB};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) {
        start(4 * MIB, 256);
        for (uint32_t n = 0; n < 256; n++)
            wire[n] = 0;
        for (int round = 0; round < 3000; round++)
            for (uint32_t n = 0; n < 200; n++)
                round % 3 == 0 ? (void)take_wire(n, 512) : take_message(n, blocks[i]);
        cr_expect_leq(used, 4 * MIB / 16 * 15, "the reserve is kept");
        for (uint32_t n = 200; n < 256; n++) {
            take_message(n, 2048);
            cr_expect_eq(held[n], 2048, "holder %u, blocks of %zu", n, blocks[i]);
        }
        for (uint32_t n = 0; n < 256; n++)
            while (wire[n] < 2048)
                cr_assert(take_wire(n, 256), "holder %u, blocks of %zu", n, blocks[i]);
    }
}

static void random_filtered_run(void)
{
    uint32_t holders = 1 + (uint32_t)(next_random() % 300);
    start(((size_t)1 + next_random() % 64) << 20, holders);
    for (uint32_t n = 0; n < holders; n++)
        wire[n] = 0;
    for (int step = 0; step < 20000; step++) {
        uint32_t n = (uint32_t)(next_random() % holders);
        size_t block = (size_t)256 << next_random() % 12;
        size_t *part = next_random() % 2 ? &wire[n] : &held[n];
        if (next_random() % 3 == 0) {
            size_t less = *part > 0 ? next_random() % *part + 1 : 0;
            *part -= less;
            used -= less;
        } else if (part == &wire[n]) {
            (void)take_wire(n, block);
        } else {
            take_message(n, block);
        }
        uint32_t other = (uint32_t)(next_random() % holders);
        if (wire[other] < share.wire_bytes)
            cr_assert(rws__share_allows(&share, used, wire[other], share.wire_bytes - wire[other],
                                        RWS__SHARE_WIRE));
        if (counted(other) < share.minimum_bytes)
            cr_assert(rws__share_allows(&share, used, counted(other),
                                        share.minimum_bytes - counted(other), RWS__SHARE_MESSAGE));
    }
}

Test(engine_share, keeps_its_promise_to_wire_queues_at_random)
{
    seed_random();
    for (int run = 0; run < 50; run++)
        random_filtered_run();
}

/* ---- at random ---- */

static void random_run(void)
{
    uint32_t holders = 1 + (uint32_t)(next_random() % 300);
    start(((size_t)1 + next_random() % 64) << 16, holders);
    for (int step = 0; step < 20000; step++) {
        uint32_t n = (uint32_t)(next_random() % holders);
        size_t block = (size_t)256 << next_random() % 12;
        if (next_random() % 3 == 0) {
            size_t part = held[n] > 0 ? next_random() % held[n] + 1 : 0;
            held[n] -= part;
            used -= part;
        } else {
            (void)take(n, block, next_random() % 8 ? RWS__SHARE_MESSAGE : RWS__SHARE_PONG);
        }
        /* The promise: whoever has less gets it. */
        uint32_t other = (uint32_t)(next_random() % holders);
        if (held[other] < share.minimum_bytes)
            cr_assert(rws__share_allows(&share, used, held[other],
                                        share.minimum_bytes - held[other], RWS__SHARE_MESSAGE),
                      "%zu of %zu used by %u holders", used, share.bytes, holders);
    }
}

Test(engine_share, keeps_its_promise_at_random)
{
    seed_random();
    for (int run = 0; run < 50; run++)
        random_run();
}
