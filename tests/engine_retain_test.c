/*
 * Received messages that are held beyond on_message, on the scripted ring (ctest: scripted ring),
 * and what the budget for them does.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "codec/frame.h"
#include "engine/conn/message.h"
#include "support/scripted_shard.h"
#include "support/test_allocator.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
/* The head of a payload. */
#define HEAD sizeof(rws__payload)

static world w;

static test_allocator memory;
static const rws_allocator counting = TEST_ALLOCATOR(&memory);

/* ---- programs ---- */

static rws_message *held;
static bool same; /* whether what is held is what was given */

static void hold(world *self, rws_conn *conn, const char *what)
{
    (void)conn;
    if (strcmp(what, "message") != 0) return;
    held = rws_message_retain(self->message);
    same = held == self->message;
}

static void hold_and_echo(world *self, rws_conn *conn, const char *what)
{
    if (strcmp(what, "message") != 0) return;
    hold(self, conn, what);
    cr_assert_eq(rws_conn_send_message(conn, self->message), 0);
}

/* The memory is given back when on_message has returned, and not before. */
static void hold_and_release(world *self, rws_conn *conn, const char *what)
{
    if (strcmp(what, "message") != 0) return;
    for (int i = 0; i < 3; i++) {
        hold(self, conn, what);
        cr_assert_not_null(held);
        cr_assert_eq(*(const uint8_t *)rws_message_data(held), world_byte(0));
        rws_message_release(held);
        rws__pool_collect(self->shard->conns.streams.partial);
    }
}

static void hold_twice(world *self, rws_conn *conn, const char *what)
{
    if (strcmp(what, "message") != 0) return;
    hold(self, conn, what);
    rws_message *again = rws_message_retain(held);
    cr_assert_eq(again, held);
    again = rws_message_retain(self->message);
    cr_assert_eq(again == held, same);
    rws_message_release(again);
}

/* ---- helpers ---- */

static void start(size_t retained_bytes_max)
{
    test_options options = world_server_options();
    options.message_bytes_max = 1u << 20;
    options.retained_bytes_max = retained_bytes_max;
    options.allocator = &counting;
    world_start(&w, &options);
    w.hook = hold;
    held = NULL;
}

/* A message of `len` bytes in pieces of `step`, so that it is in a provided buffer (one piece), or
 * in memory of its own. */
static void feed_message(uint32_t file, size_t len, size_t step)
{
    feed_bytes frame = world_long_frame(len);
    world_feed_pieces(&w, file, &frame, step);
    feed_bytes_free(&frame);
}

static void is_message(const rws_message *message, size_t len)
{
    cr_assert_not_null(message);
    cr_assert_eq(rws_message_len(message), len);
    cr_assert_eq(rws_message_opcode(message), RWS_BINARY);
    const uint8_t *data = rws_message_data(message);
    cr_assert_not_null(data);
    for (size_t i = 0; i < len; i++)
        cr_assert_eq(data[i], world_byte(i), "byte %zu of %zu", i, len);
}

static void is_sent(uint32_t file, size_t len, size_t count)
{
    uint8_t head[RWS__FRAME_HEADER_MAX];
    rws__frame frame = {.payload_len = len, .opcode = RWS_BINARY, .fin = true};
    size_t header = rws__frame_write(head, &frame);
    const feed_bytes *wire = &w.ring->wire[file];
    cr_assert_eq(wire->len, count * (header + len), "%zu bytes: %zu were sent", len, wire->len);
    for (size_t n = 0; n < count; n++) {
        const uint8_t *at = wire->data + n * (header + len);
        cr_assert_arr_eq(at, head, header);
        for (size_t i = 0; i < len; i++)
            cr_assert_eq(at[header + i], world_byte(i), "%zu bytes: byte %zu", len, i);
    }
}

static void nothing_is_held(void)
{
    cr_expect_eq(w.shard->conns.streams.partial->slab.used_bytes, 0);
    cr_expect_eq(w.shard->conns.streams.partial->retained_bytes, 0);
    cr_expect_eq(w.shard->conns.streams.partial->lent_bytes, 0);
    cr_expect_eq(atomic_load(&w.shard->conns.streams.partial->users), 1);
    cr_expect_eq(w.ring->buffers_out, 0);
}

static void release_and_collect(void)
{
    rws_message_release(held);
    held = NULL;
    world_turn(&w);
    nothing_is_held();
}

/* Where messages lie: in a provided buffer, and in memory of their own, small (in pieces) and large
 * (received straight into it). */
static const struct {
    size_t len, step;
    bool same;
} messages[] = {
    {0, 100, false},           {1, 100, false},      {125, 1000, false},     {126, 1000, false},
    {4095, 10000, false},      {4096, 10000, false}, {65535, 100000, false}, {100, 60, true},
    {4096, 2000, true},        {65535, 20000, true}, {65536, 20000, true},   {300000, 20000, true},
    {1048576, 1u << 20, true},
};

/* ---- what is held ---- */

Test(engine_retain, a_message_is_there_when_its_buffer_is_used_again)
{
    for (size_t i = 0; i < COUNT(messages); i++) {
        start(0);
        uint32_t file = world_open(&w);
        feed_message(file, messages[i].len, messages[i].step);
        world_turns(&w, 3);
        cr_assert_eq(w.ring->buffers_out, 0, "no receive buffer is held");
        cr_assert_eq(same, messages[i].same, "%zu in pieces of %zu", messages[i].len,
                     messages[i].step);
        is_message(held, messages[i].len);
        cr_assert_eq(w.shard->conns.streams.partial->charged_bytes, 0, "it is whole");
        cr_assert_gt(w.shard->conns.streams.partial->retained_bytes, messages[i].len);
        release_and_collect();
        world_end(&w);
    }
}

Test(engine_retain, a_message_is_sent_in_a_later_turn_and_to_another_connection)
{
    for (size_t i = 0; i < COUNT(messages); i++) {
        start(0);
        uint32_t file = world_open(&w), other = world_open(&w);
        feed_message(file, messages[i].len, messages[i].step);
        world_turns(&w, 3);
        cr_assert_eq(rws_conn_send_message(world_conn(&w, other), held), 0);
        world_turns(&w, 4);
        cr_assert_eq(rws_conn_send_message(world_conn(&w, other), held), 0);
        cr_assert_eq(rws_conn_send_message(world_conn(&w, file), held), 0);
        rws_message_release(held);
        world_turns(&w, 5);
        is_sent(other, messages[i].len, 2);
        is_sent(file, messages[i].len, 1);
        nothing_is_held();
        world_end(&w);
    }
}

Test(engine_retain, an_echo_and_what_is_held_are_one_message)
{
    for (size_t i = 0; i < COUNT(messages); i++) {
        start(0);
        w.hook = hold_and_echo;
        uint32_t file = world_open(&w);
        feed_message(file, messages[i].len, messages[i].step);
        world_turns(&w, 4);
        is_sent(file, messages[i].len, 1);
        is_message(held, messages[i].len);
        release_and_collect();
        world_end(&w);
    }
}

Test(engine_retain, a_message_outlives_its_connection)
{
    for (size_t i = 0; i < COUNT(messages); i++) {
        start(0);
        uint32_t file = world_open(&w), other = world_open(&w);
        feed_message(file, messages[i].len, messages[i].step);
        rws_conn_abort(world_conn(&w, file));
        world_turns(&w, 4);
        script_cancel_closed(w.ring);
        world_turns(&w, 4);
        cr_assert_null(world_conn(&w, file));
        is_message(held, messages[i].len);
        cr_assert_eq(rws_conn_send_message(world_conn(&w, other), held), 0);
        rws_message_release(held);
        world_turns(&w, 4);
        is_sent(other, messages[i].len, 1);
        nothing_is_held();
        world_end(&w);
    }
}

/* The pool is unmapped by the last holder: the address sanitizer, or a fault, would tell. */
Test(engine_retain, a_message_outlives_its_shard)
{
    for (size_t i = 0; i < COUNT(messages); i++) {
        start(0);
        uint32_t file = world_open(&w);
        feed_message(file, messages[i].len, messages[i].step);
        world_turns(&w, 2);
        w.ring->manual = 0;
        rws__shard_close(w.shard);
        rws__runtime_deinit(&w.runtime);
        is_message(held, messages[i].len);
        rws_message *again = rws_message_retain(held);
        cr_assert_eq(again, held);
        rws_message_release(held);
        is_message(again, messages[i].len);
        rws_message_release(again);
        feed_bytes_free(&w.log);
    }
    cr_assert_eq(memory.bytes, 0);
}

Test(engine_retain, a_message_that_is_released_at_once_is_given_back_after_the_callback)
{
    for (size_t i = 1; i < COUNT(messages); i++) {
        start(0);
        w.hook = hold_and_release;
        uint32_t file = world_open(&w);
        for (int n = 0; n < 3; n++)
            feed_message(file, messages[i].len, messages[i].step);
        world_turns(&w, 3);
        nothing_is_held();
        world_end(&w);
    }
}

Test(engine_retain, a_message_has_as_many_holders_as_it_was_retained)
{
    for (size_t i = 0; i < COUNT(messages); i++) {
        start(0);
        w.hook = hold_twice;
        uint32_t file = world_open(&w);
        feed_message(file, messages[i].len, messages[i].step);
        world_turns(&w, 3);
        is_message(held, messages[i].len);
        rws_message_release(held);
        world_turns(&w, 2);
        is_message(held, messages[i].len);
        release_and_collect();
        world_end(&w);
    }
}

Test(engine_retain, a_message_is_held_although_on_message_fails)
{
    start(0);
    w.message_result = -1;
    uint32_t file = world_open(&w);
    feed_message(file, 300000, 20000);
    world_turns(&w, 3);
    cr_assert_not_null(strstr(world_log(&w), "close0:1011:"), "%s", world_log(&w));
    is_message(held, 300000);
    rws_message_release(held);
    world_end(&w);
}

/* Released before it was sent: the queue is a holder. */
Test(engine_retain, a_queue_holds_what_it_was_given)
{
    start(0);
    uint32_t file = world_open(&w);
    w.ring->manual = SCRIPT_BIT(SCRIPT_SEND);
    feed_message(file, 300000, 20000);
    cr_assert_eq(rws_conn_send_message(world_conn(&w, file), held), 0);
    rws_message_release(held);
    world_turns(&w, 2);
    script_op *op = script_find(w.ring, SCRIPT_SEND, file);
    cr_assert_not_null(op);
    cr_assert_eq(op->len, 300010, "header and payload in one piece");
    cr_assert_gt(w.shard->conns.streams.partial->slab.used_bytes, 300000);
    cr_assert_eq(w.shard->conns.streams.partial->retained_bytes, 0, "the program holds it no more");
    w.ring->manual = 0;
    script_complete(w.ring, op, (int32_t)op->len, 0);
    world_turns(&w, 3);
    is_sent(file, 300000, 1);
    nothing_is_held();
    world_end(&w);
}

/* A message that is held has many receivers, so that it is lent from 256 bytes on; one that is only
 * echoed from 4 KiB. */
Test(engine_retain, a_small_message_is_lent_once_it_is_held)
{
    static const struct {
        size_t len;
        bool lent;
    } rows[] = {{251, false}, {252, true}, {4000, true}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        start(0);
        uint32_t file = world_open(&w);
        feed_message(file, rows[i].len, 10000);
        cr_assert_eq(rws_conn_send_message(world_conn(&w, file), held), 0);
        world_pump(&w);
        const script_op *op = script_find(w.ring, SCRIPT_SEND_QUIET, file);
        cr_assert_not_null(op);
        const uint8_t *data = rws_message_data(held);
        cr_assert_eq(op->memory == data - 4, rows[i].lent, "%zu", rows[i].len);
        world_turns(&w, 3);
        is_sent(file, rows[i].len, 1);
        release_and_collect();
        world_end(&w);
    }
}

/* ---- other shards ---- */

static const rws__env environment = {.allocator = TEST_ALLOCATOR(&memory)};

/* As a shard makes it: in a provided buffer, and held. */
static rws_message *hold_in(rws__pool *pool, size_t len)
{
    uint8_t *bytes = malloc(len + 1);
    cr_assert_not_null(bytes);
    for (size_t i = 0; i < len; i++)
        bytes[i] = world_byte(i);
    rws__received received = {
        .head = rws__message_head(RWS__MESSAGE_RECEIVED, RWS_BINARY, len),
        .data = bytes,
        .pool = pool,
    };
    cr_assert_eq(rws_message_data(&received.head), bytes);
    rws_message *message = rws_message_retain(&received.head);
    cr_assert_neq(message, &received.head);
    free(bytes);
    return message;
}

static rws__pool *make_pool(size_t retained_bytes_max)
{
    rws__pool *pool;
    cr_assert_eq(rws__pool_create(&pool, &environment, 1u << 20, retained_bytes_max), 0);
    return pool;
}

/* A queue of one shard holds a message of another one, which ends first or last. */
Test(engine_retain, a_message_of_another_shard_is_lent)
{
    static const size_t lens[] = {251, 252, 300000};
    for (size_t i = 0; i < 2 * COUNT(lens); i++) {
        size_t len = lens[i / 2];
        bool closed_first = i & 1;
        start(0);
        uint32_t file = world_open(&w), other = world_open(&w);
        w.ring->manual = SCRIPT_BIT(SCRIPT_SEND) | SCRIPT_BIT(SCRIPT_SEND_QUIET);
        rws__pool *pool = make_pool(1u << 20);
        rws_message *message = hold_in(pool, len);
        cr_assert_eq(rws_conn_send_message(world_conn(&w, file), message), 0);
        cr_assert_eq(rws_conn_send_message(world_conn(&w, other), message), 0);
        rws_message_release(message);
        rws__pool_collect(pool);
        cr_assert_eq(pool->retained_bytes > 0, len >= 252, "the queues hold it");
        cr_assert_eq(w.shard->conns.streams.partial->retained_bytes, 0);
        if (closed_first) rws__pool_close(pool);
        w.ring->manual = 0;
        world_turns(&w, 2);
        script_kind kind = len > 262144 ? SCRIPT_SEND : SCRIPT_SEND_QUIET;
        for (int n = 0; n < 2; n++) {
            script_op *op = script_find(w.ring, kind, n == 0 ? file : other);
            if (op != NULL) script_complete(w.ring, op, (int32_t)op->len, 0);
        }
        world_turns(&w, 4);
        is_sent(file, len, 1);
        is_sent(other, len, 1);
        if (!closed_first) {
            rws__pool_collect(pool);
            cr_expect_eq(pool->slab.used_bytes, 0);
            cr_expect_eq(pool->retained_bytes, 0);
            rws__pool_close(pool);
        }
        world_end(&w);
    }
}

/* A program that runs two loops in turn on one thread sends on what was not retained. */
Test(engine_retain, a_message_is_lent_to_another_shard_from_within_on_message)
{
    for (size_t over = 0; over < 2; over++) {
        start(0);
        uint32_t file = world_open(&w);
        w.ring->manual = SCRIPT_BIT(SCRIPT_SEND);
        rws__pool *pool = make_pool((1u << 19) - over);
        rws__payload *payload = NULL;
        uint8_t *bytes = calloc(1, 300000);
        cr_assert_not_null(bytes);
        cr_assert_eq(rws__payload_append(&payload, pool, bytes, 300000, 0), 0);
        free(bytes);
        rws__payload_complete(payload);
        rws__message_from_payload(payload, RWS_TEXT);
        cr_assert_eq(rws_conn_send_message(world_conn(&w, file), &payload->head), 0);
        rws__payload_end_delivery(payload);
        cr_assert_eq(pool->slab.used_bytes > 0, over == 0, "over the budget it is copied");
        world_turn(&w);
        script_op *op = script_find(w.ring, SCRIPT_SEND, file);
        cr_assert_not_null(op);
        w.ring->manual = 0;
        script_complete(w.ring, op, (int32_t)op->len, 0);
        world_turns(&w, 3);
        cr_assert_str_eq(world_sent(&w, file), "text:300000 ");
        rws__pool_collect(pool);
        cr_assert_eq(pool->slab.used_bytes, 0);
        rws__pool_close(pool);
        world_end(&w);
    }
}

/* What the kernel reads without a copy is held for it, too. */
Test(engine_retain, a_message_of_another_shard_is_held_for_the_kernel)
{
    start(0);
    uint32_t file = world_open(&w);
    rws__conn_cold_part(world_conn(&w, file))->stream.peer.generic.sa_family = AF_INET;
    world_conn(&w, file)->stream.no_card = false;
    w.ring->manual = SCRIPT_BIT(SCRIPT_SEND_ZERO_COPY);
    rws__pool *pool = make_pool(1u << 20);
    rws_message *message = hold_in(pool, 100000);
    cr_assert_eq(rws_conn_send_message(world_conn(&w, file), message), 0);
    rws_message_release(message);
    world_turn(&w);
    script_op *op = script_find(w.ring, SCRIPT_SEND_ZERO_COPY, file);
    cr_assert_not_null(op);
    script_complete(w.ring, op, (int32_t)op->len, RWS__CQE_MORE);
    world_turns(&w, 2);
    cr_assert_eq(rws_conn_buffered(world_conn(&w, file)), 0);
    rws__pool_collect(pool);
    cr_assert_gt(pool->retained_bytes, 0, "the kernel has it");
    script_notify(w.ring, script_find(w.ring, SCRIPT_SEND_ZERO_COPY, file), false);
    world_turns(&w, 2);
    rws__pool_collect(pool);
    cr_assert_eq(pool->retained_bytes, 0);
    is_sent(file, 100000, 1);
    rws__pool_close(pool);
    world_end(&w);
}

/* ---- the list ---- */

Test(engine_retain, everything_that_was_released_is_taken_back_at_once)
{
    rws__pool *pool = make_pool(1u << 20);
    rws_message *messages_held[100];
    for (size_t i = 0; i < COUNT(messages_held); i++)
        messages_held[i] = hold_in(pool, i * 50);
    cr_assert_eq(atomic_load(&pool->users), 1 + COUNT(messages_held));
    size_t held_bytes = pool->retained_bytes;
    rws__pool_collect(pool);
    cr_assert_eq(pool->retained_bytes, held_bytes);
    for (size_t i = 0; i < COUNT(messages_held); i++)
        is_message(messages_held[i], i * 50);
    for (size_t i = 0; i < COUNT(messages_held); i += 2)
        rws_message_release(messages_held[i]);
    cr_assert_eq(pool->retained_bytes, held_bytes, "not before the loop's turn");
    rws__pool_collect(pool);
    cr_assert_lt(pool->retained_bytes, held_bytes);
    for (size_t i = 1; i < COUNT(messages_held); i += 2)
        rws_message_release(messages_held[i]);
    rws__pool_collect(pool);
    cr_assert_eq(pool->retained_bytes, 0);
    cr_assert_eq(pool->slab.used_bytes, 0);
    cr_assert_eq(atomic_load(&pool->users), 1);
    rws__pool_close(pool);
}

/* ---- the budget ---- */

Test(engine_retain, what_is_over_the_budget_is_copied_with_the_allocator)
{
    /* 192 bytes fill a block of 256, with the head. */
    static const struct {
        size_t len, budget;
        bool in_pool;
    } rows[] = {{256 - HEAD, 255, false},
                {256 - HEAD, 256, true},
                {256 - HEAD + 1, 256, false},
                {256 - HEAD + 1, 511, false},
                {256 - HEAD + 1, 512, true},
                {0, 255, false},
                {0, 256, true}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        rws__pool *pool = make_pool(rows[i].budget);
        rws_message *first = hold_in(pool, rows[i].len);
        is_message(first, rows[i].len);
        cr_assert_eq(first->form == RWS__MESSAGE_PAYLOAD, rows[i].in_pool);
        cr_assert_eq(memory.bytes > 0, !rows[i].in_pool, "row %zu", i);
        rws_message *second = hold_in(pool, rows[i].len);
        is_message(second, rows[i].len);
        cr_assert_eq(second->form, RWS__MESSAGE_CREATED);
        rws_message_release(first);
        /* What was released is taken back before anything is copied. */
        rws_message *third = hold_in(pool, rows[i].len);
        cr_assert_eq(third->form == RWS__MESSAGE_PAYLOAD, rows[i].in_pool);
        rws_message_release(second);
        rws_message_release(third);
        rws__pool_collect(pool);
        cr_assert_eq(pool->retained_bytes, 0);
        cr_assert_eq(pool->slab.used_bytes, 0);
        cr_assert_eq(memory.bytes, 0);
        rws__pool_close(pool);
    }
}

Test(engine_retain, a_message_in_its_own_memory_is_copied_beyond_the_budget)
{
    for (size_t over = 0; over < 2; over++) {
        start((1u << 19) - over);
        uint32_t file = world_open(&w);
        size_t before = memory.bytes;
        feed_message(file, 300000, 20000);
        world_turns(&w, 3);
        cr_assert_eq(same, over == 0);
        cr_assert_eq(memory.bytes > before, over == 1);
        cr_assert_eq(w.shard->conns.streams.partial->slab.used_bytes > 0, over == 0);
        is_message(held, 300000);
        cr_assert_eq(rws_conn_send_message(world_conn(&w, file), held), 0);
        release_and_collect();
        world_turns(&w, 3);
        is_sent(file, 300000, 1);
        cr_assert_eq(memory.bytes, before);
        world_end(&w);
    }
}

/* Whatever the option says, what comes keeps its part of the addresses. */
Test(engine_retain, a_quarter_of_the_addresses_is_the_most)
{
    rws__pool *pool;
    cr_assert_eq(rws__pool_create(&pool, &environment, 65536, SIZE_MAX), 0);
    cr_assert_eq(pool->retained_bytes_max, pool->slab.bytes / 4);
    rws__pool_close(pool);
}

Test(engine_retain, a_pool_that_is_used_up_has_the_allocator)
{
    rws__pool *pool = make_pool(1u << 20);
    world_use_up(&pool->slab);
    rws_message *message = hold_in(pool, 1000);
    is_message(message, 1000);
    cr_assert_eq(message->form, RWS__MESSAGE_CREATED);
    cr_assert_gt(memory.bytes, 1000);
    world_give_back(&pool->slab);
    rws__pool_close(pool);
    is_message(message, 1000);
    rws_message_release(message);
    cr_assert_eq(memory.bytes, 0);
}

Test(engine_retain, without_memory_nothing_is_held)
{
    rws__pool *pool = make_pool(255);
    memory.fail_from = 1;
    cr_assert_null(hold_in(pool, 10));
    cr_assert_eq(pool->retained_bytes, 0);
    cr_assert_eq(pool->slab.used_bytes, 0);
    memory.fail_from = 0;
    rws__pool_close(pool);

    start(1);
    uint32_t file = world_open(&w);
    memory.fail_from = 1;
    feed_message(file, 300000, 20000);
    memory.fail_from = 0;
    cr_assert_null(held);
    world_turns(&w, 2);
    nothing_is_held();
    world_end(&w);
}

/* ---- clients ---- */

/* They mask every frame by themselves, with a key of its own. */
Test(engine_retain, a_client_sends_messages_masked)
{
    test_options options = {0};
    options.connections_max = 4;
    world_start_client(&w, &options);
    uint32_t file = world_open_client(&w);
    rws_conn *conn = world_conn(&w, file);
    rws__pool *pool = make_pool(1u << 20);
    rws_message *message = hold_in(pool, 5000);
    cr_assert_eq(rws_conn_send_message(conn, RWS_MESSAGE_TEXT("hello")), 0);
    cr_assert_eq(rws_conn_send_message(conn, message), 0);
    cr_assert_eq(rws_conn_send_message(conn, message), 0);
    is_message(message, 5000);
    rws_message_release(message);
    rws__pool_collect(pool);
    cr_assert_eq(pool->retained_bytes, 0, "it was copied");
    world_turns(&w, 3);
    const feed_bytes *wire = &w.ring->wire[file];
    cr_assert_eq(wire->len, 6 + 5 + 2 * (8 + 5000));
    cr_assert_neq(memcmp(wire->data + 11 + 4, wire->data + 11 + 5008 + 4, 4), 0, "the keys");
    cr_assert_str_eq(world_sent(&w, file), "text:hello binary:5000 binary:5000 ");
    rws__pool_close(pool);
    world_end(&w);
}
