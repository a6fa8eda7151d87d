/*
 * On the scripted ring (ctest: scripted ring): a large message that the program sends on as it is
 * leaves from where it lies. That no memory of a send changes before its completion, and that a
 * provided buffer is recycled once, is checked by the ring.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "support/scripted_shard.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static world w;

/* ---- programs ---- */

static void echo(world *self, rws_conn *conn, const char *what)
{
    if (strcmp(what, "message") != 0) return;
    cr_expect_eq(rws_conn_send_message(conn, self->message), 0);
}

/* To every connection, the sender last. */
static void echo_to_all(world *self, rws_conn *conn, const char *what)
{
    if (strcmp(what, "message") != 0) return;
    for (uint32_t slot = 0; slot < self->shard->conns.streams.slots_touched; slot++) {
        rws_conn *other = (rws_conn *)rws__streams_at(&self->shard->conns.streams, slot);
        if (other == conn || other->state != RWS__CONN_OPEN) continue;
        cr_expect_eq(rws_conn_send_message(other, self->message), 0);
    }
    echo(self, conn, what);
}

static void echo_as_text_and_binary(world *self, rws_conn *conn, const char *what)
{
    if (strcmp(what, "message") != 0) return;
    const void *data = rws_message_data(self->message);
    size_t len = rws_message_len(self->message);
    cr_expect_eq(rws_conn_send_text(conn, data, len), 0);
    cr_expect_eq(rws_conn_send_binary(conn, data, len), 0);
}

static void echo_a_part(world *self, rws_conn *conn, const char *what)
{
    if (strcmp(what, "message") != 0) return;
    const char *data = rws_message_data(self->message);
    size_t len = rws_message_len(self->message);
    cr_expect_eq(rws_conn_send_binary(conn, data + 1, len - 1), 0);
    cr_expect_eq(rws_conn_send_binary(conn, data, len - 1), 0);
}

/* ---- helpers ---- */

static void start(uint32_t features_off)
{
    test_options options = world_server_options();
    options.features_off = features_off;
    options.message_bytes_max = 2u << 20;
    world_start(&w, &options);
    w.hook = echo;
}

/* The wire of `file` holds `count` frames of `opcode` with the payload of world_long_frame(). */
static void echoes_are_sent(uint32_t file, uint8_t opcode, size_t len, size_t count,
                            const char *name)
{
    uint8_t head[RWS__FRAME_HEADER_MAX];
    rws__frame frame = {.payload_len = len, .opcode = opcode, .fin = true};
    size_t header = rws__frame_write(head, &frame);
    const feed_bytes *wire = &w.ring->wire[file];
    cr_assert_eq(wire->len, count * (header + len), "%s, %zu bytes: %zu were sent", name, len,
                 wire->len);
    for (size_t n = 0; n < count; n++) {
        const uint8_t *at = wire->data + n * (header + len);
        cr_assert_arr_eq(at, head, header);
        for (size_t i = 0; i < len; i++)
            cr_assert_eq(at[header + i], world_byte(i), "%s, %zu bytes: byte %zu", name, len, i);
    }
}

static void nothing_is_held(void)
{
    cr_expect_eq(w.ring->buffers_out, 0);
    cr_expect_eq(w.shard->conns.streams.partial->slab.used_bytes, 0);
    cr_expect_eq(w.shard->conns.streams.send_slab.used_bytes, 0);
}

/* ---- tests ---- */

/* Around every limit, in whatever pieces it comes, with and without the features. */
Test(engine_lend, echoes_every_size_in_every_piece)
{
    static const size_t sizes[] = {4095, 4096, 4097, 65535, 65536, 65537, 262134, 262135, 1u << 20};
    static const size_t steps[] = {3, 7, 9, 13, 14, 15, 4096, 16384, 70000, 2u << 20};
    static const uint32_t features_off[] = {0, RWS__FEATURE_DIRECT_LARGE, RWS__FEATURE_SKIP_SUCCESS,
                                            RWS__FEATURE_ALL};
    for (size_t i = 0; i < COUNT(sizes) * COUNT(steps) * COUNT(features_off); i++) {
        size_t step = steps[i % COUNT(steps)];
        size_t size = sizes[i / COUNT(steps) % COUNT(sizes)];
        if (step < 4096 && size > 4097) step += 4096; /* only the header needs the small cuts */
        if (step < 16384 && size > 65537) continue;   /* the same cuts as below, many times */
        char name[64];
        snprintf(name, sizeof name, "pieces of %zu, features %zu", step,
                 i / COUNT(steps) / COUNT(sizes));
        start(features_off[i / COUNT(steps) / COUNT(sizes)]);
        uint32_t file = world_open(&w);
        for (size_t n = 1; n <= 3; n++) {
            feed_bytes frame = world_long_frame(size);
            world_feed_pieces(&w, file, &frame, step);
            feed_bytes_free(&frame);
            world_turns(&w, 4);
            echoes_are_sent(file, RWS_BINARY, size, n, name);
            nothing_is_held();
        }
        world_end(&w);
    }
}

Test(engine_lend, sends_a_message_from_the_provided_buffer)
{
    start(0);
    uint32_t file = world_open(&w);
    feed_bytes frame = world_long_frame(4096);
    cr_assert_eq(script_recv(w.ring, file, frame.data, frame.len, false), frame.len);
    world_turn(&w); /* the send is queued and not submitted yet */
    cr_assert_eq(w.ring->buffers_out, 1);
    const script_op *op = script_find(w.ring, SCRIPT_SEND_QUIET, file);
    cr_assert_not_null(op);
    cr_assert_eq(op->len, 4100, "header and payload in one piece");
    world_turn(&w);
    nothing_is_held();
    feed_bytes_free(&frame);
    world_end(&w);
}

/* Both buffers are held until the send is done. The header is written over the end of the one that
 * came, which is longer: the bytes to send begin at the fifth. */
Test(engine_lend, sends_a_message_from_the_two_buffers_in_which_it_lies)
{
    static const size_t cuts[] = {1, 4, 5, 8, 9, 2000, 4103};
    for (size_t i = 0; i < COUNT(cuts) * 2; i++) {
        size_t cut = cuts[i / 2];
        bool last = i & 1, full = cut >= 8;
        start(0);
        uint32_t file = world_open(&w);
        w.ring->manual = full ? SCRIPT_BIT(SCRIPT_SEND_QUIET) : 0;
        feed_bytes frame = world_long_frame(4096);
        script_join(w.ring, frame.len);
        script_recv(w.ring, file, frame.data, cut, false);
        script_recv(w.ring, file, frame.data + cut, frame.len - cut, last);
        world_turn(&w);
        cr_assert_eq(w.ring->buffers_out, cut > 4 ? 2 : 1, "cut at %zu", cut);
        script_op *op = script_find(w.ring, SCRIPT_SEND_QUIET, file);
        cr_assert_not_null(op);
        cr_assert_eq(op->len, 4100, "header and payload in one piece");
        cr_assert_eq(w.shard->conns.streams.partial->slab.used_bytes, 0);
        if (full) script_complete(w.ring, op, 3, 0); /* the rest is copied */
        world_turn(&w);
        cr_assert_eq(w.ring->buffers_out, 0, "cut at %zu", cut);
        world_turns(&w, 2);
        echoes_are_sent(file, RWS_BINARY, 4096, 1, "in two buffers");
        nothing_is_held();
        feed_bytes_free(&frame);
        world_end(&w);
    }
}

Test(engine_lend, copies_a_message_that_lies_in_three_buffers)
{
    start(0);
    uint32_t file = world_open(&w);
    feed_bytes frame = world_long_frame(6000);
    script_join(w.ring, frame.len);
    for (size_t at = 0; at < frame.len; at += 2500)
        script_recv(w.ring, file, frame.data + at, frame.len - at < 2500 ? frame.len - at : 2500,
                    false);
    world_turn(&w);
    cr_assert_eq(w.ring->buffers_out, 0, "they are recycled at once");
    world_turns(&w, 2);
    echoes_are_sent(file, RWS_BINARY, 6000, 1, "in three buffers");
    nothing_is_held();
    feed_bytes_free(&frame);
    world_end(&w);
}

/* What ring.h allows every ring. */
Test(engine_lend, copies_what_a_ring_neither_joins_nor_lends)
{
    static const size_t sizes[] = {10, 4096, 6000, 65536, 262135};
    static const size_t steps[] = {2500, 16384, 1u << 20};
    for (size_t i = 0; i < COUNT(sizes) * COUNT(steps); i++) {
        start(0);
        w.ring->lends_none = true;
        uint32_t file = world_open(&w);
        feed_bytes frame = world_long_frame(sizes[i % COUNT(sizes)]);
        world_feed_pieces(&w, file, &frame, steps[i / COUNT(sizes)]);
        world_turns(&w, 4);
        echoes_are_sent(file, RWS_BINARY, sizes[i % COUNT(sizes)], 1, "neither joined nor lent");
        nothing_is_held();
        feed_bytes_free(&frame);
        world_end(&w);
    }
}

/* The head was kept, because it came in pieces: what came behind it is not in a provided buffer. */
Test(engine_lend, copies_a_message_that_came_behind_a_kept_request)
{
    start(0);
    uint32_t file = world_accept(&w);
    size_t head = strlen(world_request);
    world_feed(&w, file, world_request, 20);
    feed_bytes bytes = {0}, frame = world_long_frame(5000);
    feed_bytes_append(&bytes, world_request + 20, head - 20);
    feed_bytes_append(&bytes, frame.data, frame.len);
    world_feed_pieces(&w, file, &bytes, bytes.len);
    world_turns(&w, 4);
    feed_bytes *wire = &w.ring->wire[file];
    cr_assert_gt(wire->len, 5004);
    const uint8_t *echo = wire->data + wire->len - 5004;
    cr_expect_eq(echo[0], 0x82);
    for (size_t i = 0; i < 5000; i++)
        cr_assert_eq(echo[4 + i], world_byte(i), "byte %zu", i);
    nothing_is_held();
    feed_bytes_free(&bytes);
    feed_bytes_free(&frame);
    world_end(&w);
}

/* Messages that came together: a buffer is lent for the next send only, so all are copied. */
Test(engine_lend, sends_pipelined_messages_in_order)
{
    start(0);
    uint32_t file = world_open(&w);
    feed_bytes frame = world_long_frame(5000), frames = {0};
    for (int i = 0; i < 5; i++)
        feed_bytes_append(&frames, frame.data, frame.len);
    world_feed_pieces(&w, file, &frames, frames.len);
    cr_assert_eq(w.ring->buffers_out, 0, "before the next turn");
    world_turns(&w, 5);
    echoes_are_sent(file, RWS_BINARY, 5000, 5, "pipelined");
    nothing_is_held();
    feed_bytes_free(&frame);
    feed_bytes_free(&frames);
    world_end(&w);
}

Test(engine_lend, copies_a_message_behind_a_send_in_flight)
{
    start(RWS__FEATURE_SKIP_SUCCESS); /* no quiet sends */
    uint32_t file = world_open(&w);
    w.ring->manual = SCRIPT_BIT(SCRIPT_SEND);
    feed_bytes frame = world_long_frame(5000);
    world_feed_pieces(&w, file, &frame, frame.len);
    script_op *op = script_find(w.ring, SCRIPT_SEND, file);
    cr_assert_not_null(op);
    world_feed_pieces(&w, file, &frame, frame.len);
    cr_assert_eq(rws_conn_buffered(world_conn(&w, file)), 2 * 5004);
    cr_assert_eq(w.ring->buffers_out, 0);
    w.ring->manual = 0;
    script_complete(w.ring, op, (int32_t)op->len, 0);
    world_turns(&w, 3);
    echoes_are_sent(file, RWS_BINARY, 5000, 2, "behind another");
    nothing_is_held();
    feed_bytes_free(&frame);
    world_end(&w);
}

/* The socket takes a part, or nothing: the rest is copied, and the buffer goes back at once. So
 * does that of the next message, whether it comes together with the short count or behind the send
 * of the rest, and it waits for the rest. */
Test(engine_lend, gives_the_buffer_back_when_the_socket_is_full)
{
    static const int32_t results[] = {-EAGAIN, 1, 4095, 20003};
    for (size_t i = 0; i < 2 * COUNT(results); i++) {
        int32_t result = results[i / 2];
        bool together = i & 1;
        start(0);
        uint32_t file = world_open(&w);
        w.ring->manual = SCRIPT_BIT(SCRIPT_SEND_QUIET) | SCRIPT_BIT(SCRIPT_SEND);
        feed_bytes frame = world_long_frame(20000);
        cr_assert_eq(script_recv(w.ring, file, frame.data, frame.len, false), frame.len);
        world_turn(&w);
        script_op *op = script_find(w.ring, SCRIPT_SEND_QUIET, file);
        cr_assert_not_null(op);
        cr_assert_eq(w.ring->buffers_out, 1);
        script_complete(w.ring, op, result, 0);
        if (!together) {
            world_turn(&w);
            cr_assert_eq(w.ring->buffers_out, 0, "after %d", (int)result);
        }
        cr_assert_eq(script_recv(w.ring, file, frame.data, frame.len, false), frame.len);
        world_turn(&w);
        cr_assert_eq(w.ring->buffers_out, 0, "after %d: of the next message", (int)result);
        cr_assert_null(script_find(w.ring, SCRIPT_SEND_QUIET, file));
        script_op *rest = script_find(w.ring, SCRIPT_SEND, file);
        cr_assert_not_null(rest);
        w.ring->manual = 0;
        script_complete(w.ring, rest, (int32_t)rest->len, 0);
        world_turns(&w, 3);
        echoes_are_sent(file, RWS_BINARY, 20000, 2, "after a full socket");
        /* It had room for all of that: the next one is lent again. */
        cr_assert_eq(script_recv(w.ring, file, frame.data, frame.len, false), frame.len);
        world_turn(&w);
        cr_assert_not_null(script_find(w.ring, SCRIPT_SEND_QUIET, file));
        cr_assert_eq(w.ring->buffers_out, 1);
        world_turns(&w, 3);
        echoes_are_sent(file, RWS_BINARY, 20000, 3, "and the next");
        nothing_is_held();
        feed_bytes_free(&frame);
        world_end(&w);
    }
}

static bool was_borrowed;

static void echo_and_look(world *self, rws_conn *conn, const char *what)
{
    echo(self, conn, what);
    was_borrowed = rws__sendq_front_is_borrowed(&conn->stream.sendq);
}

/* A quiet send that completes has met a full socket, even if it took all: the next send is counted,
 * and may take longer than a buffer may be lent. */
Test(engine_lend, copies_the_next_message_when_the_socket_took_all_and_is_full)
{
    start(0);
    uint32_t file = world_open(&w);
    w.hook = echo_and_look;
    w.ring->manual = SCRIPT_BIT(SCRIPT_SEND_QUIET);
    feed_bytes frame = world_long_frame(20000);
    cr_assert_eq(script_recv(w.ring, file, frame.data, frame.len, false), frame.len);
    world_turn(&w);
    cr_assert(was_borrowed);
    script_op *op = script_find(w.ring, SCRIPT_SEND_QUIET, file);
    cr_assert_not_null(op);
    script_complete(w.ring, op, (int32_t)op->len, 0);
    world_turn(&w);
    nothing_is_held();
    cr_assert_eq(script_recv(w.ring, file, frame.data, frame.len, false), frame.len);
    world_turn(&w);
    cr_assert_not(was_borrowed);
    cr_assert_eq(w.ring->buffers_out, 0, "before the next turn");
    cr_assert_null(script_find(w.ring, SCRIPT_SEND_QUIET, file));
    cr_assert_not_null(script_find(w.ring, SCRIPT_SEND, file));
    world_turns(&w, 3);
    echoes_are_sent(file, RWS_BINARY, 20000, 2, "one quiet, one counted");
    nothing_is_held();
    feed_bytes_free(&frame);
    world_end(&w);
}

/* No memory for the copy: the connection is cut, and the buffer is not kept for long. */
Test(engine_lend, cuts_a_connection_whose_message_can_not_be_kept)
{
    start(0);
    uint32_t file = world_open(&w);
    w.ring->manual = SCRIPT_BIT(SCRIPT_SEND_QUIET);
    feed_bytes frame = world_long_frame(20000);
    cr_assert_eq(script_recv(w.ring, file, frame.data, frame.len, false), frame.len);
    world_turn(&w);
    world_use_up(&w.shard->conns.streams.send_slab);
    script_complete(w.ring, script_find(w.ring, SCRIPT_SEND_QUIET, file), -EAGAIN, 0);
    world_turns(&w, 4);
    cr_assert_not_null(strstr(world_log(&w), "close0:1006:"), "%s", world_log(&w));
    world_give_back(&w.shard->conns.streams.send_slab);
    nothing_is_held();
    feed_bytes_free(&frame);
    world_end(&w);
}

Test(engine_lend, lends_one_message_to_many_connections)
{
    static const size_t sizes[] = {4096, 70000, 300000};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        start(0);
        w.hook = echo_to_all;
        uint32_t files[4];
        for (int n = 0; n < 4; n++)
            files[n] = world_open(&w);
        feed_bytes frame = world_long_frame(sizes[i]);
        world_feed_pieces(&w, files[1], &frame, 16384);
        world_turns(&w, 5);
        for (int n = 0; n < 4; n++)
            echoes_are_sent(files[n], RWS_BINARY, sizes[i], 1, "to all");
        nothing_is_held();
        feed_bytes_free(&frame);
        world_end(&w);
    }
}

/* A receiver goes away while it holds a loan. */
Test(engine_lend, takes_the_loan_back_from_a_receiver_that_is_cut_off)
{
    start(0);
    w.hook = echo_to_all;
    w.ring->manual = SCRIPT_BIT(SCRIPT_SEND) | SCRIPT_BIT(SCRIPT_SEND_QUIET);
    uint32_t first = world_accept(&w), second;
    w.ring->manual = 0;
    world_feed(&w, first, world_request, strlen(world_request));
    world_turns(&w, 2);
    second = world_open(&w);
    w.ring->manual = SCRIPT_BIT(SCRIPT_SEND);
    feed_bytes frame = world_long_frame(300000);
    world_feed_pieces(&w, second, &frame, 100000);
    world_turns(&w, 2);
    cr_assert_gt(w.shard->conns.streams.partial->slab.used_bytes, 0);
    cr_assert_eq(w.shard->conns.streams.partial->charged_bytes, 0, "it is whole");
    rws_conn_abort(world_conn(&w, first));
    w.ring->manual = 0;
    script_op *op = script_find(w.ring, SCRIPT_SEND, second);
    cr_assert_not_null(op);
    script_complete(w.ring, op, (int32_t)op->len, 0);
    world_turns(&w, 4);
    echoes_are_sent(second, RWS_BINARY, 300000, 1, "the one that stays");
    feed_bytes_free(&frame);
    world_end(&w);
}

/* As bytes it is copied, with any opcode, though they are those of a message. */
Test(engine_lend, sends_one_message_as_text_and_as_binary)
{
    static const size_t sizes[] = {5000, 70000};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        start(0);
        w.hook = echo_as_text_and_binary;
        uint32_t file = world_open(&w);
        feed_bytes frame = world_long_frame(sizes[i]);
        world_feed_pieces(&w, file, &frame, 20000);
        world_turns(&w, 5);
        size_t header = sizes[i] < 65536 ? 4 : 10;
        const feed_bytes *wire = &w.ring->wire[file];
        cr_assert_eq(wire->len, 2 * (header + sizes[i]));
        cr_expect_eq(wire->data[0], 0x81);
        cr_expect_eq(wire->data[header + sizes[i]], 0x82);
        cr_expect_arr_eq(wire->data + header, wire->data + 2 * header + sizes[i], sizes[i]);
        feed_bytes_free(&frame);
        world_end(&w);
    }
}

Test(engine_lend, copies_a_part_of_a_message)
{
    start(0);
    w.hook = echo_a_part;
    uint32_t file = world_open(&w);
    feed_bytes frame = world_long_frame(5000);
    world_feed_pieces(&w, file, &frame, frame.len);
    world_turns(&w, 3);
    const feed_bytes *wire = &w.ring->wire[file];
    cr_assert_eq(wire->len, 2 * (4 + 4999));
    cr_expect_eq(wire->data[4], 7, "from its second byte");
    cr_expect_eq(wire->data[4 + 4999 + 4], 0, "from its first");
    feed_bytes_free(&frame);
    world_end(&w);
}
