/* The send queue: what goes in comes out, in order, in whatever pieces it is sent. */
#include <criterion/criterion.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/stream/sendq.h"

static rws__slab slab;
static rws__sendq queue;
static rws__share share;

static void start(size_t bytes)
{
    cr_assert_eq(rws__slab_init(&slab, bytes), 0);
    rws__share_init(&share, slab.bytes, 1);
    memset(&queue, 0, sizeof queue);
}

static void end(void)
{
    rws__sendq_clear(&queue, &slab);
    cr_assert_eq(queue.bytes, 0);
    cr_assert_eq(queue.held_bytes, 0);
    cr_assert_eq(slab.used_bytes, 0);
    rws__slab_deinit(&slab);
}

/* As a stream reserves, with the use that may take everything. */
static uint8_t *reserve(size_t len)
{
    rws__chunk *chunk = queue.tail;
    if (chunk != NULL && chunk->capacity - chunk->end >= len) return chunk->own + chunk->end;
    return rws__sendq_grow(&queue, &slab, &share, len, RWS__SHARE_ONCE);
}

/* Bytes that tell their position in the stream. */
static uint8_t byte_at(uint64_t position)
{
    return (uint8_t)(position * 167 + position / 256);
}

static bool append(uint64_t *written, size_t len)
{
    uint8_t *out = reserve(len);
    if (out == NULL) return false;
    for (size_t i = 0; i < len; i++)
        out[i] = byte_at(*written + i);
    rws__sendq_commit(&queue, len);
    *written += len;
    return true;
}

static void send_some(uint64_t *sent, size_t max)
{
    const uint8_t *data = NULL;
    size_t len = rws__sendq_front(&queue, &data);
    if (len == 0) {
        cr_assert_eq(queue.bytes, 0, "bytes are queued and none can be sent");
        return;
    }
    if (len > max) len = max;
    for (size_t i = 0; i < len; i++)
        cr_assert_eq(data[i], byte_at(*sent + i), "byte %llu", (unsigned long long)(*sent + i));
    rws__sendq_advance(&queue, &slab, len);
    *sent += len;
}

Test(engine_sendq, holds_no_memory_when_empty)
{
    start(1u << 20);
    const uint8_t *data;
    cr_assert_eq(rws__sendq_front(&queue, &data), 0);
    uint64_t written = 0, sent = 0;
    cr_assert(append(&written, 100));
    cr_assert_eq(queue.bytes, 100);
    cr_assert_gt(slab.used_bytes, 0);
    send_some(&sent, 100);
    cr_assert_eq(queue.bytes, 0);
    cr_assert_eq(slab.used_bytes, 0);
    end();
}

Test(engine_sendq, gathers_small_messages_in_one_piece)
{
    start(1u << 20);
    uint64_t written = 0;
    for (int i = 0; i < 10; i++)
        cr_assert(append(&written, 20));
    const uint8_t *data;
    cr_assert_eq(rws__sendq_front(&queue, &data), 200);
    end();
}

Test(engine_sendq, learns_the_size_of_a_burst)
{
    start(1u << 22);
    uint64_t written = 0, sent = 0;
    for (int round = 0; round < 12; round++) {
        for (int i = 0; i < 100; i++)
            cr_assert(append(&written, 100));
        while (queue.bytes > 0)
            send_some(&sent, SIZE_MAX);
    }
    for (int i = 0; i < 100; i++)
        cr_assert(append(&written, 100));
    const uint8_t *data;
    cr_assert_eq(rws__sendq_front(&queue, &data), 10000, "a burst leaves with one send");
    while (queue.bytes > 0)
        send_some(&sent, SIZE_MAX);
    for (int round = 0; round < 20; round++) {
        cr_assert(append(&written, 20));
        send_some(&sent, SIZE_MAX);
    }
    cr_assert(append(&written, 20));
    cr_assert_leq(slab.used_bytes, 512, "and a quiet connection is small again");
    end();
}

Test(engine_sendq, does_not_move_what_is_in_flight)
{
    start(1u << 20);
    uint64_t written = 0, sent = 0;
    cr_assert(append(&written, 50));
    const uint8_t *before, *after;
    cr_assert_eq(rws__sendq_front(&queue, &before), 50);
    for (int i = 0; i < 50; i++)
        cr_assert(append(&written, 300));
    cr_assert_geq(rws__sendq_front(&queue, &after), 50);
    cr_assert_eq(before, after);
    while (queue.bytes > 0)
        send_some(&sent, 7);
    cr_assert_eq(sent, written);
    end();
}

/* Room that was reserved and not used: the writer gave up. */
Test(engine_sendq, steps_over_room_that_was_not_used)
{
    start(1u << 20);
    uint64_t written = 0, sent = 0;
    cr_assert_not_null(reserve(300));
    const uint8_t *data;
    cr_assert_eq(rws__sendq_front(&queue, &data), 0);
    cr_assert(append(&written, 5000)); /* does not fit there */
    cr_assert_eq(rws__sendq_front(&queue, &data), 5000);
    cr_assert_not_null(reserve(50000));
    cr_assert(append(&written, 100));
    while (queue.bytes > 0)
        send_some(&sent, 700);
    cr_assert_eq(sent, written);
    end();
}

Test(engine_sendq, takes_nothing_when_the_slab_is_used_up)
{
    start(4096);
    uint64_t written = 0, sent = 0;
    cr_assert_not(append(&written, 5000));
    cr_assert_eq(queue.bytes, 0);
    while (append(&written, 200))
        cr_assert_lt(written, 5000);
    size_t bytes = queue.bytes;
    cr_assert_not(append(&written, 2000));
    cr_assert_eq(queue.bytes, bytes);
    while (queue.bytes > 0)
        send_some(&sent, SIZE_MAX);
    cr_assert_eq(sent, written);
    cr_assert(append(&written, 200), "there is room again");
    end();
}

/* ---- lent bytes ---- */

static int releases;

static void count_release(rws__lender *lender)
{
    (void)lender;
    releases++;
}

static const rws__lender_ops keeper_ops = {.release = count_release};
static const rws__lender_ops hurried_ops = {.release = count_release, .is_transient = true};
static rws__lender keeper = {&keeper_ops};
static rws__lender hurried = {&hurried_ops};

/* Queue `len` lent bytes of the stream. */
static bool lend(uint64_t *written, uint8_t *memory, size_t len, rws__lender *lender)
{
    for (size_t i = 0; i < len; i++)
        memory[i] = byte_at(*written + i);
    if (!rws__sendq_lend(&queue, &slab, memory, len, lender)) return false;
    *written += len;
    return true;
}

Test(engine_sendq, sends_lent_bytes_from_where_they_lie)
{
    static uint8_t memory[2][5000];
    for (size_t step = 1; step < 7000; step += 997) {
        start(1u << 20);
        releases = 0;
        uint64_t written = 0, sent = 0;
        cr_assert(append(&written, 100));
        cr_assert(lend(&written, memory[0], 5000, &keeper));
        cr_assert(append(&written, 10), "nothing is appended to lent memory");
        cr_assert(lend(&written, memory[1], 1, &hurried));
        cr_assert(append(&written, 300));
        cr_assert_eq(queue.bytes, written);
        const uint8_t *data;
        send_some(&sent, 100);
        cr_assert_eq(rws__sendq_front(&queue, &data), 5000);
        cr_assert_eq(data, memory[0]);
        while (queue.bytes > 0) {
            send_some(&sent, step);
            cr_assert_eq(releases, (sent >= 5100) + (sent >= 5111), "%llu sent",
                         (unsigned long long)sent);
        }
        end();
    }
}

Test(engine_sendq, gives_lent_bytes_back_when_it_is_cleared)
{
    static uint8_t memory[100];
    start(1u << 20);
    releases = 0;
    uint64_t written = 0;
    cr_assert(lend(&written, memory, 100, &keeper));
    cr_assert(lend(&written, memory, 100, &hurried));
    rws__sendq_advance(&queue, &slab, 99);
    cr_assert_eq(releases, 0);
    end();
    cr_assert_eq(releases, 2);
}

/* What is lent for the turn is copied, from where it was sent to; the rest stays. */
Test(engine_sendq, keeps_what_was_lent_for_the_turn)
{
    static uint8_t memory[2][5000];
    static const size_t before[] = {0, 1, 4999};
    for (size_t i = 0; i < sizeof before / sizeof before[0]; i++) {
        start(1u << 20);
        releases = 0;
        uint64_t written = 0, sent = 0;
        cr_assert_not(rws__sendq_front_is_borrowed(&queue));
        cr_assert(lend(&written, memory[0], 5000, &hurried));
        cr_assert(rws__sendq_front_is_borrowed(&queue));
        cr_assert(lend(&written, memory[1], 5000, &keeper));
        if (before[i] > 0) send_some(&sent, before[i]);
        rws__sendq_copy_borrowed(&queue, &slab);
        cr_assert_not(rws__sendq_front_is_borrowed(&queue));
        cr_assert_eq(releases, 1);
        memset(memory[0], 0, sizeof memory[0]);
        cr_assert(append(&written, 10));
        while (queue.bytes > 0)
            send_some(&sent, 777);
        cr_assert_eq(sent, written);
        cr_assert_eq(releases, 2);
        end();
    }
}

Test(engine_sendq, lends_and_keeps_nothing_when_the_slab_is_used_up)
{
    static uint8_t memory[5000];
    start(4096);
    releases = 0;
    uint64_t written = 0, sent = 0;
    cr_assert(lend(&written, memory, 5000, &hurried));
    rws__sendq_copy_borrowed(&queue, &slab);
    cr_assert(rws__sendq_front_is_borrowed(&queue), "there is no room for a copy");
    while (append(&written, 200))
        continue;
    uint64_t whole = written;
    static uint8_t more[1];
    cr_assert_not(lend(&written, more, 1, &keeper));
    cr_assert_eq(written, whole);
    cr_assert_eq(queue.bytes, written);
    cr_assert_eq(releases, 0);
    while (queue.bytes > 0)
        send_some(&sent, SIZE_MAX);
    cr_assert_eq(sent, written);
    end();
}

Test(engine_sendq, keeps_the_stream_in_random_pieces)
{
    unsigned seed = (unsigned)time(NULL);
    cr_log_info("seed %u", seed);
    srand(seed);
    start(1u << 18);
    uint64_t written = 0, sent = 0;
    for (int step = 0; step < 30000; step++) {
        size_t len = (size_t)rand() % ((size_t)1 << (rand() % 14));
        if (rand() % 2 == 0)
            append(&written, len);
        else
            send_some(&sent, len + 1);
        cr_assert_eq(queue.bytes, written - sent, "seed %u", seed);
    }
    while (queue.bytes > 0)
        send_some(&sent, 1000);
    cr_assert_eq(sent, written);
    end();
}
