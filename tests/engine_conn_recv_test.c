/*
 * Receiving on the scripted ring (ctest: scripted ring): every way in which a receive can end, and
 * what arrives while a connection is paused.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/loop/op.h"
#include "support/scripted_shard.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static world w;

static void start(uint32_t features_off)
{
    test_options options = world_server_options();
    options.features_off = features_off;
    options.message_bytes_max = 1u << 20;
    world_start(&w, &options);
}

static void long_frame_is_received(size_t len, const char *name)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < len; i++)
        sum = sum * 31 + world_byte(i);
    char expected[64];
    snprintf(expected, sizeof expected, "binary0:%zu:%08x ", len, sum);
    world_log_is(&w, expected, name);
}

/* ---- results ---- */

typedef enum recv_mode { MULTISHOT, SINGLE, DIRECT } recv_mode;

/* Bring a connection to the given mode; a large message is open in DIRECT. */
static uint32_t open_in_mode(recv_mode mode, feed_bytes *rest)
{
    start(mode == SINGLE ? RWS__FEATURE_MULTISHOT_RECV : 0);
    uint32_t file = world_open(&w);
    *rest = (feed_bytes){0};
    if (mode == DIRECT) {
        feed_bytes frame = world_long_frame(200000);
        world_feed(&w, file, frame.data, 100);
        world_turns(&w, 2);
        feed_bytes_append(rest, frame.data + 100, frame.len - 100);
        feed_bytes_free(&frame);
    } else {
        feed_append_frame(rest, 0x81, true, "hello", 5);
    }
    static const script_kind kinds[] = {SCRIPT_RECV_MULTISHOT, SCRIPT_RECV_PROVIDED, SCRIPT_RECV};
    script_op *op = script_find_recv(w.ring, file);
    cr_assert_not_null(op);
    cr_assert_eq(op->kind, kinds[mode]);
    world_log_is(&w, "open0 ", "opened");
    return file;
}

static void message_came(recv_mode mode, const char *name)
{
    if (mode == DIRECT)
        long_frame_is_received(200000, name);
    else
        world_log_is(&w, "text0:hello ", name);
}

Test(engine_conn_recv, goes_on_after_a_receive_that_ended_for_a_passing_reason)
{
    static const int32_t passing[] = {-ENOBUFS, -ECANCELED, -EINTR, -EAGAIN};
    for (size_t i = 0; i < 3 * COUNT(passing); i++) {
        recv_mode mode = (enum recv_mode)(i / COUNT(passing));
        int32_t res = passing[i % COUNT(passing)];
        feed_bytes rest;
        uint32_t file = open_in_mode(mode, &rest);
        for (int n = 0; n < 3; n++) {
            script_complete(w.ring, script_find_recv(w.ring, file), res, 0);
            world_turns(&w, 2);
            cr_assert_not_null(script_find_recv(w.ring, file), "not armed again after %d", res);
        }
        world_feed_pieces(&w, file, &rest, rest.len);
        message_came(mode, strerror(-res));
        cr_expect_eq(world_stats(&w).no_buffers, res == -ENOBUFS ? 3 : 0);
        feed_bytes_free(&rest);
        world_end(&w);
    }
}

Test(engine_conn_recv, ends_the_connection_when_the_transport_broke)
{
    static const int32_t fatal[] = {-ECONNRESET, -ETIMEDOUT, -EPIPE, -EIO, -ENOTCONN, -EBADF, 0};
    for (size_t i = 0; i < 3 * COUNT(fatal); i++) {
        recv_mode mode = (enum recv_mode)(i / COUNT(fatal));
        feed_bytes rest;
        uint32_t file = open_in_mode(mode, &rest);
        script_complete(w.ring, script_find_recv(w.ring, file), fatal[i % COUNT(fatal)], 0);
        world_turns(&w, 3);
        world_log_is(&w, "close0:1006::peer ", "broken");
        cr_assert(w.ring->closed[file]);
        cr_assert_eq(w.shard->conns.streams.slots_used, 0);
        feed_bytes_free(&rest);
        world_end(&w);
    }
}

Test(engine_conn_recv, arms_again_when_a_multishot_ends_with_data)
{
    feed_bytes frame;
    uint32_t file = open_in_mode(MULTISHOT, &frame);
    for (int i = 0; i < 3; i++) {
        script_recv(w.ring, file, frame.data, frame.len, true);
        world_turn(&w);
        world_log_is(&w, "text0:hello ", "the last completion");
        cr_assert_not_null(script_find_recv(w.ring, file));
    }
    feed_bytes_free(&frame);
    world_end(&w);
}

Test(engine_conn_recv, handles_many_completions_of_one_turn_in_order)
{
    start(0);
    uint32_t file = world_open(&w);
    w.log.len = 0;
    char expected[8192] = "";
    for (int i = 0; i < 300; i++) {
        char text[16];
        int len = snprintf(text, sizeof text, "m%d", i);
        feed_bytes frame = {0};
        feed_append_frame(&frame, 0x81, true, text, (size_t)len);
        script_recv(w.ring, file, frame.data, frame.len, false);
        feed_bytes_free(&frame);
        strcat(strcat(strcat(expected, "text0:"), text), " ");
    }
    world_turn(&w);
    world_log_is(&w, expected, "300 messages");
    world_end(&w);
}

Test(engine_conn_recv, takes_everything_byte_by_byte)
{
    start(0);
    uint32_t file = world_accept(&w);
    feed_bytes bytes = {0};
    feed_bytes_append(&bytes, world_request, strlen(world_request));
    feed_append_frame(&bytes, 0x01, true, "he", 2);
    feed_append_frame(&bytes, 0x89, true, "ping", 4);
    feed_append_frame(&bytes, 0x80, true, "llo", 3);
    feed_append_frame(&bytes, 0x82, true, NULL, 0);
    feed_append_frame(&bytes, 0x88, true, "\x03\xe8", 2);
    world_feed_pieces(&w, file, &bytes, 1);
    world_turns(&w, 4);
    world_log_is(&w, "open0 text0:hello binary0: close0:1000::peer ", "byte by byte");
    feed_bytes_free(&bytes);
    world_end(&w);
}

Test(engine_conn_recv, keeps_the_frames_that_come_with_the_request)
{
    feed_bytes bytes = {0};
    feed_bytes_append(&bytes, world_request, strlen(world_request));
    feed_append_frame(&bytes, 0x81, true, "early", 5);
    feed_append_frame(&bytes, 0x81, true, "bird", 4);
    for (size_t cut = 1; cut <= bytes.len; cut++) {
        start(0);
        uint32_t file = world_accept(&w);
        script_recv(w.ring, file, bytes.data, cut, false);
        if (cut < bytes.len) script_recv(w.ring, file, bytes.data + cut, bytes.len - cut, false);
        world_turn(&w);
        char context[32];
        snprintf(context, sizeof context, "cut at %zu", cut);
        world_log_is(&w, "open0 text0:early text0:bird ", context);
        world_end(&w);
    }
    feed_bytes_free(&bytes);
}

/* ---- one message in several buffers ---- */

/* The message lies where it was received. */
static void is_not_copied(world *self, rws_conn *conn, const char *what)
{
    (void)conn;
    if (strcmp(what, "message") == 0)
        cr_expect_eq(self->shard->conns.streams.partial->slab.used_bytes, 0);
}

/* The kernel fills the rest of one buffer and goes on in the next, which lies behind it. */
Test(engine_conn_recv, a_message_in_two_buffers_is_one_piece)
{
    static const size_t sizes[] = {200, 5000, 70000};
    for (size_t i = 0; i < COUNT(sizes) * 2; i++) {
        bool last = i & 1;
        feed_bytes frame = world_long_frame(sizes[i / 2]);
        const size_t cuts[] = {1, 2, 5, 8, 14, 100, frame.len / 2, frame.len - 1};
        for (size_t n = 0; n < COUNT(cuts); n++) {
            char name[64];
            snprintf(name, sizeof name, "%zu bytes cut at %zu", sizes[i / 2], cuts[n]);
            start(0);
            uint32_t file = world_open(&w);
            w.log.len = 0;
            w.hook = is_not_copied;
            uint64_t armed = w.ring->calls_of[SCRIPT_RECV_MULTISHOT];
            script_join(w.ring, frame.len);
            script_recv(w.ring, file, frame.data, cuts[n], false);
            script_recv(w.ring, file, frame.data + cuts[n], frame.len - cuts[n], last);
            world_turn(&w);
            long_frame_is_received(sizes[i / 2], name);
            cr_assert_eq(w.ring->buffers_out, 0, "%s: a buffer is not recycled", name);
            cr_assert_eq(w.ring->calls_of[SCRIPT_RECV_MULTISHOT], armed + last,
                         "%s: armed again if it ended, and only then", name);
            world_frame(&w, file, RWS_TEXT, "next");
            world_log_is(&w, "text0:next ", name);
            world_end(&w);
        }
        feed_bytes_free(&frame);
    }
}

/* One buffer is filled by the receives of all connections in turn. */
Test(engine_conn_recv, what_another_connection_received_right_behind_is_not_joined)
{
    start(0);
    uint32_t first = world_open(&w), second = world_open(&w);
    w.log.len = 0;
    feed_bytes frame = world_long_frame(5000), other = {0};
    feed_append_frame(&other, 0x81, true, "hello", 5);
    script_join(w.ring, 1000 + other.len + frame.len - 1000);
    script_recv(w.ring, first, frame.data, 1000, false);
    script_recv(w.ring, second, other.data, other.len, false);
    script_recv(w.ring, first, frame.data + 1000, frame.len - 1000, false);
    world_turn(&w);
    cr_assert_eq(strncmp(world_log(&w), "text1:hello ", 12), 0, "%s", world_log(&w));
    memmove(w.log.data, w.log.data + 12, w.log.len -= 12);
    long_frame_is_received(5000, "in two pieces");
    feed_bytes_free(&frame);
    feed_bytes_free(&other);
    world_end(&w);
}

/* ---- large messages ---- */

Test(engine_conn_recv, receives_large_messages_in_pieces_of_any_size)
{
    static const size_t steps[] = {1000, 4096, 16384, 65536, 70000, 1u << 20};
    static const size_t sizes[] = {65535, 65536, 65537, 70000, 131072, 300000, 1u << 20};
    for (size_t i = 0; i < COUNT(steps) * COUNT(sizes) * 2; i++) {
        size_t step = steps[i % COUNT(steps)], size = sizes[i / 2 / COUNT(steps)];
        start(i & 1 ? RWS__FEATURE_DIRECT_LARGE : 0);
        uint32_t file = world_open(&w);
        w.log.len = 0;
        for (int n = 0; n < 2; n++) {
            feed_bytes frame = world_long_frame(size);
            world_feed_pieces(&w, file, &frame, step);
            feed_bytes_free(&frame);
            world_turns(&w, 2);
            long_frame_is_received(size, "large");
        }
        world_frame(&w, file, RWS_TEXT, "small");
        world_log_is(&w, "text0:small ", "after large ones");
        cr_assert_eq(w.shard->conns.streams.partial->slab.used_bytes, 0);
        world_end(&w);
    }
}

Test(engine_conn_recv, keeps_the_memory_of_a_receive_until_its_completion)
{
    feed_bytes rest;
    uint32_t file = open_in_mode(DIRECT, &rest);
    uint32_t other = world_open(&w);
    w.ring->manual = SCRIPT_BIT(SCRIPT_CANCEL_FILE) | SCRIPT_BIT(SCRIPT_CANCEL);
    rws_conn_abort(world_conn(&w, file));
    world_turns(&w, 3);
    cr_assert(w.ring->closed[file]);
    cr_assert_eq(w.shard->conns.streams.slots_used, 2, "its receive is in flight");
    feed_bytes frame = world_long_frame(30000);
    for (size_t at = 0; at < frame.len; at += 1000)
        world_feed(&w, other, frame.data + at, frame.len - at < 1000 ? frame.len - at : 1000);
    script_recv(w.ring, file, rest.data, 1000, true); /* compares the memory */
    world_turns(&w, 2);
    cr_assert_eq(w.shard->conns.streams.slots_used, 1);
    cr_assert_null(w.ring->broken, "%s", w.ring->broken);
    feed_bytes_free(&frame);
    feed_bytes_free(&rest);
    world_end(&w);
}

/* Receives into assemblies were armed `count` times, of late that of `file`, for all that is left
 * of its frame. */
static void armed_last(uint32_t file, uint64_t count, size_t rest)
{
    cr_assert_eq(w.ring->calls_of[SCRIPT_RECV], count, "%u in place of %u were armed",
                 (unsigned)w.ring->calls_of[SCRIPT_RECV], (unsigned)count);
    const script_op *op = script_find(w.ring, SCRIPT_RECV, file);
    cr_assert_not_null(op, "it is not the turn of %u", file);
    cr_assert_eq(op->len, rest);
}

/* At most so much is received into assemblies in one turn, and each of these messages is more. The
 * engine's turn is here a world_pump(); a world_turn() is two, with completions in between. */
Test(engine_conn_recv, large_messages_take_turns_in_the_order_they_came)
{
    enum { HEAD = 4000 }; /* so much that the rest is asked for at once */
    start(0);
    uint32_t files[3];
    for (int i = 0; i < 3; i++)
        files[i] = world_open(&w);
    w.log.len = 0;
    feed_bytes frame = world_long_frame(1u << 20);
    const uint8_t *rest = frame.data + HEAD;
    size_t left = frame.len - HEAD, half = left / 2;
    for (int i = 0; i < 3; i++)
        cr_assert_eq(script_recv(w.ring, files[i], frame.data, HEAD, false), HEAD);
    world_turn(&w); /* the multishot receives are taken back */
    cr_assert_eq(w.ring->calls_of[SCRIPT_RECV], 0);
    world_turn(&w);
    armed_last(files[0], 1, left);
    /* Its second half waits until both others had their turns. */
    cr_assert_eq(script_recv(w.ring, files[0], rest, half, false), half);
    world_turn(&w);
    armed_last(files[2], 3, left);
    cr_assert_eq(script_find(w.ring, SCRIPT_RECV, UINT32_MAX)->file, files[1], "it came before");
    cr_assert_null(script_find(w.ring, SCRIPT_RECV, files[0]), "it waits");
    world_pump(&w);
    armed_last(files[0], 4, left - half);
    world_pump(&w);
    cr_assert_eq(w.ring->calls_of[SCRIPT_RECV], 4, "nobody else waits");
    cr_assert_eq(script_recv(w.ring, files[0], rest + half, left - half, false), left - half);
    for (int i = 1; i < 3; i++)
        cr_assert_eq(script_recv(w.ring, files[i], rest, left, false), left);
    world_turn(&w);
    const char *at = world_log(&w);
    for (int i = 0; i < 3; i++) {
        char word[32];
        snprintf(word, sizeof word, "binary%u:1048576:", files[i]);
        cr_assert_eq(strncmp(at, word, strlen(word)), 0, "not \"%s\" next: %s", word,
                     world_log(&w));
        at = strchr(at, ' ') + 1;
    }
    cr_assert_eq(*at, 0);
    feed_bytes_free(&frame);
    world_end(&w);
}

/* BULK_PEEK and BULK_RECVS in engine/conn_recv.c. */
#define PEEK_BYTES 4096u
#define PEEKS      16

static void receives_one_at_a_time(uint32_t file, int n)
{
    const script_op *op = script_find_recv(w.ring, file);
    cr_assert_not_null(op);
    cr_assert_eq(op->kind, SCRIPT_RECV_PROVIDED, "after %d small ones", n);
    cr_assert_eq(op->len, PEEK_BYTES);
}

Test(engine_conn_recv, goes_back_to_multishot_when_no_more_large_messages_come)
{
    start(0);
    uint32_t file = world_open(&w);
    feed_bytes frame = world_long_frame(100000);
    /* Another large message in between: the small ones are counted anew. */
    static const int small_ones[] = {PEEKS - 1, 2, PEEKS - 1};
    for (size_t i = 0; i < COUNT(small_ones); i++) {
        w.log.len = 0;
        world_feed_pieces(&w, file, &frame, 1000);
        world_turns(&w, 2);
        long_frame_is_received(100000, "large");
        for (int n = 0; n < small_ones[i]; n++) {
            receives_one_at_a_time(file, n);
            world_frame(&w, file, RWS_TEXT, "small");
        }
    }
    receives_one_at_a_time(file, PEEKS - 1);
    for (int n = PEEKS - 1; n < PEEKS + 1; n++)
        world_frame(&w, file, RWS_TEXT, "small");
    for (int n = 0; n < 3; n++) {
        cr_assert_eq(script_find_recv(w.ring, file)->kind, SCRIPT_RECV_MULTISHOT);
        world_frame(&w, file, RWS_TEXT, "small");
    }
    feed_bytes_free(&frame);
    world_end(&w);
}

/* ---- generations ---- */

static void forge_frame(uint32_t slot, uint32_t generation)
{
    feed_bytes frame = {0};
    feed_append_frame(&frame, 0x81, true, "ghost", 5);
    script_forge(w.ring, rws__op_pack(RWS__OP_RECV, slot, generation), (int32_t)frame.len,
                 RWS__CQE_MORE, frame.data);
    feed_bytes_free(&frame);
}

Test(engine_conn_recv, drops_completions_of_a_connection_that_is_gone)
{
    static const uint32_t before[] = {1, 2, UINT32_MAX - 1, UINT32_MAX};
    for (size_t i = 0; i < COUNT(before); i++) {
        start(0);
        rws__streams_at(&w.shard->conns.streams, 0)->generation = before[i];
        uint32_t file = world_open(&w);
        rws_conn *conn = world_conn(&w, file);
        cr_assert_eq(conn->stream.slot, 0);
        cr_assert_eq(conn->stream.generation, before[i]);
        const uint32_t stale[] = {before[i] - 1, before[i] + 1, before[i] - 2};
        for (size_t n = 0; n < COUNT(stale); n++) {
            forge_frame(0, stale[n]);
            script_forge(w.ring, rws__op_pack(RWS__OP_RECV, 0, stale[n]), 0, 0, NULL);
            script_forge(w.ring, rws__op_pack(RWS__OP_RECV, 0, stale[n]), -ECONNRESET, 0, NULL);
            script_forge(w.ring, rws__op_pack(RWS__OP_SEND, 0, stale[n]), -EPIPE, 0, NULL);
            script_forge(w.ring, rws__op_pack(RWS__OP_CLOSE, 0, stale[n]), 0, 0, NULL);
            script_forge(w.ring, rws__op_pack(RWS__OP_SHUTDOWN, 0, stale[n]), 0, 0, NULL);
            script_forge(w.ring, rws__op_pack(RWS__OP_CONNECT, 0, stale[n]), 0, 0, NULL);
            script_forge(w.ring, rws__op_pack(RWS__OP_INSTALL, 0, stale[n]), 1, 0, NULL);
        }
        world_turns(&w, 2);
        cr_assert_eq(w.ring->buffers_out, 0, "its buffer goes back");
        world_frame(&w, file, RWS_TEXT, "real");
        world_log_is(&w, "open0 text0:real ", "only the real one");
        world_end(&w);
    }
}

Test(engine_conn_recv, uses_free_slots_first_in_first_out_with_a_new_generation)
{
    start(0);
    uint32_t first[3], slots[3], generations[3];
    for (int i = 0; i < 3; i++) {
        first[i] = world_open(&w);
        slots[i] = world_conn(&w, first[i])->stream.slot;
        generations[i] = world_conn(&w, first[i])->stream.generation;
    }
    static const int order[] = {1, 2, 0};
    for (int i = 0; i < 3; i++) {
        rws_conn_abort(world_conn(&w, first[order[i]]));
        world_turns(&w, 3);
    }
    for (int i = 0; i < 3; i++) {
        rws_conn *conn = world_conn(&w, world_open(&w));
        cr_assert_eq(conn->stream.slot, slots[order[i]]);
        cr_assert_eq(conn->stream.generation, generations[order[i]] + 1);
    }
    world_end(&w);
}
