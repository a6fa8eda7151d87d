/*
 * The book-keeping of provided buffers (engine/ring/buffers.h) without a kernel (ctest: scripted
 * ring): which buffer is given when, how much of it, and what is lent. A kernel of a queue takes
 * the buffers as they are given and fills them one after the other.
 */
#include <criterion/criterion.h>

#include <stdlib.h>
#include <string.h>

#include "engine/ring/buffers.h"

#define BUFFERS 8u
#define BYTES   4096u

static rws__buffers buffers;

/* What the kernel was given and has not used up, in order. */
static struct {
    uint32_t index;
    uint8_t *memory;
    size_t bytes, used;
} given[BUFFERS];
static uint32_t given_count;

static void provide(rws__ring *ring, uint32_t index, uint8_t *memory, size_t bytes)
{
    cr_assert_null(ring);
    cr_assert_lt(given_count, BUFFERS, "more than there are");
    for (uint32_t i = 0; i < given_count; i++)
        cr_assert_neq(given[i].index, index, "it has this one already");
    given[given_count].index = index;
    given[given_count].memory = memory;
    given[given_count].bytes = bytes;
    given[given_count++].used = 0;
}

static void start(bool incremental)
{
    given_count = 0;
    cr_assert_eq(rws__buffers_init(&buffers, BUFFERS, BYTES, provide, NULL), 0);
    rws__buffers_start(&buffers, incremental);
}

/* A receive of up to `len` bytes, which are in the first buffer. */
static rws__cqe receive(size_t len, bool incremental)
{
    cr_assert_gt(given_count, 0);
    size_t room = given[0].bytes - given[0].used;
    if (len > room) len = room;
    given[0].used += len;
    rws__cqe cqe = {.res = (int32_t)len,
                    .flags = RWS__CQE_BUFFER | given[0].index << RWS__CQE_BUFFER_SHIFT};
    if (incremental && given[0].used < given[0].bytes)
        cqe.flags |= RWS__CQE_BUFFER_MORE;
    else
        memmove(given, given + 1, --given_count * sizeof given[0]);
    return cqe;
}

Test(engine_provided, plain_ones_are_given_whole_and_again_when_they_are_read)
{
    start(false);
    cr_assert_eq(given_count, BUFFERS);
    for (uint32_t i = 0; i < 3 * BUFFERS; i++) {
        cr_assert_eq(given[0].index, i % BUFFERS);
        cr_assert_eq(given[0].bytes, BYTES);
        rws__cqe cqe = receive(10, false);
        cr_assert_eq(rws__buffers_look(&buffers, &cqe), buffers.memory + i % BUFFERS * BYTES);
        cr_assert_eq(given_count, BUFFERS - 1);
        rws__buffers_recycle(&buffers, &cqe);
        cr_assert_eq(given_count, BUFFERS);
    }
    rws__buffers_deinit(&buffers);
}

Test(engine_provided, incremental_ones_are_two_halves_that_double_when_none_is_found)
{
    start(true);
    static const uint32_t counts[] = {2, 4, 8, 8};
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(given_count, counts[i]);
        cr_assert_eq(given[counts[i] - 1].bytes, i == 0 ? BYTES / 2 : BYTES);
        rws__buffers_grow(&buffers);
    }
    rws__buffers_deinit(&buffers);
}

/* Recycled in any order, they are given in the order in which they lie. */
Test(engine_provided, are_given_in_a_row)
{
    start(false);
    rws__cqe cqes[3];
    for (int i = 0; i < 3; i++) {
        cqes[i] = receive(BYTES, false);
        (void)rws__buffers_look(&buffers, &cqes[i]);
    }
    rws__buffers_recycle(&buffers, &cqes[2]);
    rws__buffers_recycle(&buffers, &cqes[1]);
    cr_assert_eq(given_count, BUFFERS - 3, "the first one is still read");
    rws__buffers_recycle(&buffers, &cqes[0]);
    cr_assert_eq(given_count, BUFFERS);
    for (uint32_t i = 0; i < BUFFERS; i++)
        cr_assert_eq(given[i].index, (i + 3) % BUFFERS);
    rws__buffers_deinit(&buffers);
}

Test(engine_provided, lend_one_piece_across_two_of_them)
{
    start(true);
    rws__buffers_grow(&buffers); /* the first two are halves yet: use them up */
    for (int i = 0; i < 2; i++) {
        rws__cqe cqe = receive(BYTES, true);
        (void)rws__buffers_look(&buffers, &cqe);
        rws__buffers_recycle(&buffers, &cqe);
    }
    rws__cqe first = receive(BYTES, true), second = receive(100, true);
    uint8_t *data = rws__buffers_look(&buffers, &first);
    cr_assert(rws__buffers_continue(&buffers, data + BYTES, &second));
    cr_assert_eq(rws__buffers_look(&buffers, &second), data + BYTES);
    cr_assert_null(rws__buffers_lend(&buffers, data + BYTES - 1, BYTES + 2), "in three");
    rws__lender *both = rws__buffers_lend(&buffers, data + BYTES - 1, 2);
    rws__lender *one = rws__buffers_lend(&buffers, data, BYTES);
    cr_assert_not_null(both);
    cr_assert_not_null(one);
    rws__buffers_recycle(&buffers, &first);
    rws__buffers_recycle(&buffers, &second);
    uint32_t before = given_count;
    rws__lender_release(one);
    cr_assert_eq(given_count, before, "the other loan has it too");
    rws__lender_release(both);
    cr_assert_eq(given_count, before + 1, "the second one is still filled");
    rws__cqe third = receive(1, true);
    cr_assert_not(rws__buffers_continue(&buffers, data, &third), "not where that began");
    rws__buffers_deinit(&buffers);
}
