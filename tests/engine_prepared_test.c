/* Prepared messages on the scripted ring (ctest: scripted ring): framed once, sent to many. */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/conn/prepared.h"
#include "support/scripted_shard.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static world w;

/* ---- an allocator that counts ---- */

static size_t bytes_out;
static int allocations_left;

static void *counting_alloc(size_t size, void *user)
{
    (void)user;
    if (allocations_left-- <= 0) return NULL;
    bytes_out += size;
    return malloc(size);
}

static void counting_release(void *memory, size_t size, void *user)
{
    (void)user;
    bytes_out -= size;
    free(memory);
}

static const rws_allocator counting = {counting_alloc, counting_release, NULL};

static rws_prepared *prepare(rws_opcode opcode, size_t len)
{
    char *bytes = malloc(len + 1);
    cr_assert_not_null(bytes);
    for (size_t i = 0; i < len; i++)
        bytes[i] = (char)('a' + i % 26);
    rws_prepared *prepared;
    allocations_left = 1;
    cr_assert_eq(rws_prepared_create(&prepared, &counting, opcode, bytes, len), 0);
    memset(bytes, 0, len);
    free(bytes); /* it was copied */
    return prepared;
}

static void is_sent(uint32_t file, rws_opcode opcode, size_t len, size_t count)
{
    uint8_t head[RWS__FRAME_HEADER_MAX];
    rws__frame frame = {.payload_len = len, .opcode = (uint8_t)opcode, .fin = true};
    size_t header = rws__frame_write(head, &frame);
    const feed_bytes *wire = &w.ring->wire[file];
    cr_assert_eq(wire->len, count * (header + len), "%zu bytes were sent", wire->len);
    for (size_t n = 0; n < count; n++) {
        const uint8_t *at = wire->data + n * (header + len);
        cr_assert_arr_eq(at, head, header);
        for (size_t i = 0; i < len; i++)
            cr_assert_eq(at[header + i], (uint8_t)('a' + i % 26), "byte %zu", i);
    }
}

static void start(void)
{
    rws_server_options options = world_server_options();
    options.message_bytes_max = 1u << 20;
    world_start(&w, &options);
}

/* ---- tests ---- */

/* 252 and a header of 4 bytes: from here on it is not copied any more. */
Test(engine_prepared, is_sent_to_many_connections)
{
    static const size_t sizes[] = {0, 1, 125, 126, 251, 252, 253, 65535, 65536, 300000};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        start();
        uint32_t files[5];
        for (size_t n = 0; n < COUNT(files); n++)
            files[n] = world_open(&w);
        rws_opcode opcode = i % 2 == 0 ? RWS_TEXT : RWS_BINARY;
        rws_prepared *prepared = prepare(opcode, sizes[i]);
        for (size_t n = 0; n < COUNT(files); n++)
            for (int twice = 0; twice < 2; twice++)
                cr_assert_eq(rws_conn_send_prepared(world_conn(&w, files[n]), prepared), 0);
        rws_prepared_release(prepared);
        cr_assert_eq(bytes_out > 0, sizes[i] >= 252, "%zu: who has it queued is a holder",
                     sizes[i]);
        world_turns(&w, 4);
        for (size_t n = 0; n < COUNT(files); n++)
            is_sent(files[n], opcode, sizes[i], 2);
        cr_assert_eq(bytes_out, 0);
        world_end(&w);
    }
}

Test(engine_prepared, keeps_its_place_among_other_messages)
{
    start();
    uint32_t file = world_open(&w);
    rws_conn *conn = world_conn(&w, file);
    rws_prepared *prepared = prepare(RWS_TEXT, 300);
    cr_assert_eq(rws_conn_send_text(conn, "first", 5), 0);
    cr_assert_eq(rws_conn_send_prepared(conn, prepared), 0);
    cr_assert_eq(rws_conn_send_text(conn, "last", 4), 0);
    cr_assert_eq(rws_conn_buffered(conn), 7 + 304 + 6);
    rws_prepared_release(prepared);
    world_turns(&w, 5);
    cr_assert_str_eq(world_sent(&w, file), "text:first text:300 text:last ");
    cr_assert_eq(bytes_out, 0);
    world_end(&w);
}

Test(engine_prepared, a_burst_leaves_with_few_sends)
{
    start();
    uint32_t file = world_open(&w);
    rws_prepared *prepared = prepare(RWS_TEXT, 300);
    for (int burst = 0; burst < 10; burst++) {
        for (int i = 0; i < 64; i++)
            cr_assert_eq(rws_conn_send_prepared(world_conn(&w, file), prepared), 0);
        if (burst == 9) memset(w.ring->calls_of, 0, sizeof w.ring->calls_of);
        world_turns(&w, 12);
    }
    cr_expect_leq(w.ring->calls_of[SCRIPT_SEND] + w.ring->calls_of[SCRIPT_SEND_QUIET], 3);
    is_sent(file, RWS_TEXT, 300, 640);
    rws_prepared_release(prepared);
    world_end(&w);
}

Test(engine_prepared, lives_until_the_last_completion)
{
    start();
    uint32_t file = world_open(&w);
    w.ring->manual = SCRIPT_BIT(SCRIPT_SEND) | SCRIPT_BIT(SCRIPT_CANCEL) |
                     SCRIPT_BIT(SCRIPT_CANCEL_FILE) | SCRIPT_BIT(SCRIPT_CLOSE);
    rws_prepared *prepared = prepare(RWS_BINARY, 300000);
    cr_assert_eq(rws_conn_send_prepared(world_conn(&w, file), prepared), 0);
    rws_prepared_release(prepared);
    world_turns(&w, 2);
    rws_conn_abort(world_conn(&w, file));
    world_turns(&w, 2);
    cr_assert_gt(bytes_out, 0, "the send in flight still owns it");
    w.ring->manual = 0;
    script_complete(w.ring, script_find(w.ring, SCRIPT_CLOSE, file), 0, 0);
    script_cancel_closed(w.ring);
    world_turns(&w, 3);
    cr_assert_eq(bytes_out, 0);
    world_end(&w);
}

Test(engine_prepared, is_given_back_when_the_loop_ended_with_an_error)
{
    start();
    uint32_t file = world_open(&w);
    w.ring->manual = SCRIPT_BIT(SCRIPT_SEND);
    rws_prepared *prepared = prepare(RWS_BINARY, 300000);
    cr_assert_eq(rws_conn_send_prepared(world_conn(&w, file), prepared), 0);
    rws_prepared_release(prepared);
    world_turns(&w, 2);
    cr_assert_gt(bytes_out, 0);
    rws__shard_close(w.shard);
    cr_assert_eq(bytes_out, 0);
}

Test(engine_prepared, refuses_what_a_send_refuses)
{
    static const char byte[1];
    rws_prepared *prepared = (rws_prepared *)&prepared;
    cr_expect_eq(rws_prepared_create(&prepared, NULL, RWS_PING, byte, 1), RWS_E_ARGUMENT);
    cr_expect_null(prepared);
    cr_expect_eq(rws_prepared_create(&prepared, NULL, RWS_TEXT, NULL, 1), RWS_E_ARGUMENT);
    cr_expect_eq(rws_prepared_create(&prepared, NULL, RWS_TEXT, byte, (size_t)1 << 31),
                 RWS_E_ARGUMENT);
    const rws_allocator half = {counting_alloc, NULL, NULL};
    cr_expect_eq(rws_prepared_create(&prepared, &half, RWS_TEXT, byte, 1), RWS_E_ARGUMENT);
    allocations_left = 0;
    cr_expect_eq(rws_prepared_create(&prepared, &counting, RWS_TEXT, byte, 1), -ENOMEM);
    cr_expect_null(prepared);
    cr_assert_eq(rws_prepared_create(&prepared, NULL, RWS_TEXT, NULL, 0), 0);
    rws_prepared_release(rws_prepared_retain(prepared));
    rws_prepared_release(prepared);
    rws_prepared_release(NULL);
}

Test(engine_prepared, is_refused_in_the_wrong_state_and_over_the_bound)
{
    rws_server_options options = world_server_options();
    options.send_queue_bytes_max = 400000;
    world_start(&w, &options);
    uint32_t file = world_open(&w);
    rws_conn *conn = world_conn(&w, file);
    rws_prepared *prepared = prepare(RWS_TEXT, 300);
    cr_expect_eq(rws_conn_send_frame(conn, RWS_TEXT, false, "x", 1), 0);
    cr_expect_eq(rws_conn_send_prepared(conn, prepared), RWS_E_STATE, "within a message");
    cr_expect_eq(rws_conn_send_frame(conn, RWS_CONTINUATION, true, "x", 1), 0);
    int sent = 0, status;
    while ((status = rws_conn_send_prepared(conn, prepared)) == 0)
        cr_assert_lt(++sent, 2000);
    cr_expect_eq(status, RWS_E_BACKLOG);
    cr_expect_leq(rws_conn_buffered(conn), 400000);
    cr_expect_eq(rws_conn_close(conn, 1000, NULL), 0);
    cr_expect_eq(rws_conn_send_prepared(conn, prepared), RWS_E_STATE, "closing");
    rws_prepared_release(prepared);
    world_turns(&w, 3);
    world_end(&w);
    cr_expect_eq(bytes_out, 0);
}

Test(engine_prepared, is_given_back_when_the_pool_is_used_up)
{
    rws_server_options options = world_server_options();
    options.send_pool_bytes_max = 65536;
    world_start(&w, &options);
    uint32_t file = world_open(&w);
    world_use_up(&w.shard->conns.streams.send_slab);
    rws_prepared *prepared = prepare(RWS_TEXT, 300);
    cr_expect_eq(rws_conn_send_prepared(world_conn(&w, file), prepared), -ENOMEM);
    rws_prepared_release(prepared);
    cr_expect_eq(bytes_out, 0);
    world_give_back(&w.shard->conns.streams.send_slab);
    world_end(&w);
}
