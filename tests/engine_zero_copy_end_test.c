/*
 * Zero-copy sends on the scripted ring (ctest: scripted ring): how connections end while the kernel
 * has the memory, one message in many sends, and whatever happens at random. That the memory does
 * not change is checked by the ring.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "support/scripted_zero_copy.h"
#include "support/seed.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* ---- the end ---- */

/* What the peer has not taken is thrown away before the file is closed, or the kernel would keep
 * it for minutes. */
Test(engine_zero_copy_end, is_cut_off_with_a_notification_that_is_awaited)
{
    for (uint32_t refusals = 0; refusals < 3; refusals++) {
        start();
        uint32_t file = open_and_lend();
        uint64_t disconnects = w.ring->calls_of[SCRIPT_DISCONNECT];
        w.ring->refuse[SCRIPT_DISCONNECT] = refusals;
        rws_conn_abort(world_conn(&w, file));
        world_pump(&w);
        cr_expect_not(w.ring->closed[file]);
        world_turns(&w, refusals + 1);
        cr_expect_eq(w.ring->calls_of[SCRIPT_DISCONNECT] - disconnects, 1);
        cr_expect(w.ring->closed[file]);
        world_turns(&w, 2);
        cr_expect_eq(memory.bytes, 0);
        cr_expect_eq(w.shard->conns.streams.slots_used, 0);
        end();
    }
}

Test(engine_zero_copy_end, has_its_slot_until_the_notification)
{
    start();
    uint32_t file = open_and_lend();
    uint64_t user_data = in_flight(file)->user_data;
    /* The card has it still: the notification does not come with the disconnect. */
    in_flight(file)->notifies = false;
    rws_conn_abort(world_conn(&w, file));
    w.ring->manual |= SCRIPT_BIT(SCRIPT_CANCEL_FILE);
    world_turn(&w);
    script_complete(w.ring, script_find_recv(w.ring, file), -ECANCELED, 0);
    world_turns(&w, 5);
    cr_expect(w.ring->closed[file]);
    cr_expect_eq(w.shard->conns.streams.slots_used, 1);
    cr_expect_gt(memory.bytes, 0);
    cr_expect_eq(user_data, in_flight(file)->user_data);
    in_flight(file)->notifies = true;
    notify(file, false);
    world_turn(&w);
    cr_expect_eq(w.shard->conns.streams.slots_used, 0);
    cr_expect_eq(memory.bytes, 0);
    end();
}

/* The send itself is in flight: it is cancelled, and notified of. */
Test(engine_zero_copy_end, is_cut_off_in_the_middle_of_a_send)
{
    static const int32_t results[] = {-ECANCELED, 1, 65536, 100010, -EPIPE, -ENOMEM};
    for (size_t i = 0; i < 2 * COUNT(results); i++) {
        bool more = i % 2;
        start();
        w.ring->manual = ZERO_COPY | SCRIPT_BIT(SCRIPT_CANCEL_FILE);
        uint32_t file = world_open(&w);
        send_created(file, LARGE);
        send_created(file, LARGE);
        world_turn(&w);
        rws_conn_abort(world_conn(&w, file));
        world_pump(&w);
        script_op *op = in_flight(file);
        script_complete(w.ring, op, results[i / 2], more ? RWS__CQE_MORE : 0);
        world_turn(&w);
        script_complete(w.ring, script_find_recv(w.ring, file), -ECANCELED, 0);
        world_turns(&w, 2);
        if (more && in_flight(file) != NULL) notify(file, true);
        world_turns(&w, 2);
        cr_expect_eq(w.shard->conns.streams.slots_used, 0, "%d", results[i / 2]);
        cr_expect_eq(memory.bytes, 0);
        world_log_is(&w, "open0 close0:1006::us ", "cut off");
        end();
    }
}

Test(engine_zero_copy_end, ends_the_connection_when_the_transport_broke)
{
    static const int32_t fatal[] = {-EPIPE, -ECONNRESET, -ETIMEDOUT, -EHOSTUNREACH};
    for (size_t i = 0; i < 2 * COUNT(fatal); i++) {
        bool more = i % 2;
        start();
        w.ring->manual = ZERO_COPY;
        uint32_t file = world_open(&w);
        send_created(file, LARGE);
        world_turn(&w);
        script_complete(w.ring, in_flight(file), fatal[i / 2], more ? RWS__CQE_MORE : 0);
        world_turns(&w, 4);
        world_log_is(&w, "open0 close0:1006::peer ", strerror(-fatal[i / 2]));
        cr_expect_eq(w.shard->conns.streams.slots_used, 0);
        cr_expect_eq(world_stats(&w).zero_copy_given_up, 0);
        end();
    }
}

/* Both close frames are there; the transport ends when the peer has what was sent before. */
Test(engine_zero_copy_end, closes_when_the_peer_has_taken_everything)
{
    static const uint32_t off[] = {0, RWS__FEATURE_SOCKET_COMMANDS}; /* how it closes */
    for (size_t i = 0; i < 3 * COUNT(off); i++) {
        test_options options = options_for_large();
        options.features_off = off[i / 3];
        start_with(&options);
        uint32_t file = open_and_lend();
        if (i % 3 == 0) rws_conn_close(world_conn(&w, file), 1000, "bye");
        world_frame(&w, file, RWS_CLOSE, "\x03\xe8");
        if (i % 3 == 2) world_eof(&w, file); /* it reads on */
        world_turns(&w, 5);
        cr_expect_not(w.ring->closed[file], "case %zu", i);
        cr_expect_eq(w.ring->calls_of[SCRIPT_SHUTDOWN], 0, "case %zu", i);
        cr_expect_not(w.open[file], "on_close does not wait");
        notify(file, false);
        world_turns(&w, 3);
        if (off[i / 3] != 0 && i % 3 != 2) { /* the kernel can't tell that all is acknowledged */
            cr_expect_eq(w.ring->calls_of[SCRIPT_SHUTDOWN], 1, "case %zu", i);
            cr_expect_not(w.ring->closed[file], "case %zu", i);
            world_eof(&w, file);
            world_turns(&w, 3);
        }
        cr_expect(w.ring->closed[file], "case %zu", i);
        cr_expect_eq(w.ring->calls_of[SCRIPT_DISCONNECT], 0, "case %zu", i);
        cr_expect_eq(w.shard->conns.streams.slots_used, 0, "case %zu", i);
        end();
    }
}

/* It ended its half, and may read on. */
Test(engine_zero_copy_end, is_waited_for_when_the_peer_ends_without_a_close_frame)
{
    start();
    uint32_t file = open_and_lend();
    world_eof(&w, file);
    world_turns(&w, 3);
    world_log_is(&w, "open0 close0:1006::peer ", "no close frame");
    cr_assert_not(w.ring->closed[file]);
    notify(file, false);
    world_turns(&w, 3);
    cr_assert_eq(w.ring->calls_of[SCRIPT_DISCONNECT], 0);
    cr_assert(w.ring->closed[file]);
    cr_assert_eq(memory.bytes, 0);
    end();
}

Test(engine_zero_copy_end, is_cut_off_at_the_deadline_of_sending)
{
    test_options options = options_for_large();
    options.send_timeout_ms = 640;
    start_with(&options);
    uint32_t file = open_and_lend();
    world_frame(&w, file, RWS_CLOSE, "\x03\xe8");
    world_pass(&w, 640);
    cr_assert_not(w.ring->closed[file]);
    world_pass(&w, 640 / 4 + 16);
    cr_assert(w.ring->closed[file]);
    cr_assert_eq(w.ring->calls_of[SCRIPT_DISCONNECT], 1);
    world_turn(&w);
    cr_assert_eq(w.shard->conns.streams.slots_used, 0);
    cr_assert_eq(memory.bytes, 0);
    end();
}

/* A server that stops cuts it off at the drain's deadline, and counts it. */
Test(engine_zero_copy_end, does_not_keep_a_server_that_stops)
{
    test_options options = options_for_large();
    options.drain_timeout_ms = 500;
    start_with(&options);
    uint32_t file = open_and_lend();
    rws__loop_stop(&w.shard->loop);
    world_turns(&w, 3);
    world_frame(&w, file, RWS_CLOSE, "\x03\xe9");
    world_advance(&w, 300);
    cr_assert_not(w.ended, "the peer has its time");
    world_advance(&w, 400);
    world_turns(&w, 3);
    cr_assert(w.ended);
    cr_assert_eq(w.result, RWS_E_TIMEOUT);
    cr_assert_eq(world_stats(&w).cut_off, 1);
    end();
}

/* ---- many ---- */

static void send_on_to_all(world *self, rws_conn *conn, const char *what)
{
    (void)conn;
    if (strcmp(what, "message") != 0) return;
    for (uint32_t slot = 0; slot < self->shard->conns.streams.slots_touched; slot++) {
        rws_conn *other = (rws_conn *)rws__streams_at(&self->shard->conns.streams, slot);
        if (other->state != RWS__CONN_OPEN) continue;
        cr_expect_eq(rws_conn_send_message(other, self->message), 0);
    }
}

/* One payload is lent to several queues and several sends, which end in any order. */
Test(engine_zero_copy_end, lends_one_message_for_many_sends)
{
    start();
    w.hook = send_on_to_all;
    w.ring->manual = ZERO_COPY;
    uint32_t files[5];
    for (size_t n = 0; n < COUNT(files); n++)
        files[n] = world_open(&w);
    feed_message(files[2], LARGE, 40000);
    world_turn(&w);
    cr_assert_eq(zero_copies(), 5);
    complete_all(files[3]);
    notify(files[3], false);
    complete_all(files[0]);
    complete(files[1], -ENOMEM);
    complete(files[4], 70000);
    rws_conn_abort(world_conn(&w, files[0]));
    world_turns(&w, 3);
    complete_all(files[2]);
    notify(files[2], true);
    cr_assert_gt(w.shard->conns.streams.partial->slab.used_bytes, 0);
    notify(files[4], false);
    notify(files[1], true);
    world_turns(&w, 3);
    cr_assert_eq(w.shard->conns.streams.partial->slab.used_bytes, 0);
    for (size_t n = 1; n < COUNT(files); n++)
        cr_assert_str_eq(world_sent(&w, files[n]), "binary:100000 ", "file %u", files[n]);
    end();
}

/* ---- at random ---- */

#define CONNS 4u

static void complete_at_random(script_op *op)
{
    static const int32_t errors[] = {-EAGAIN, -EINTR, -ENOMEM, -ENOBUFS};
    int32_t res = (int32_t)op->len;
    uint32_t more = RWS__CQE_MORE;
    if (op->notifies) {
        script_notify(w.ring, op, next_random() % 40 == 0);
        return;
    }
    uint64_t pick = next_random() % 12;
    if (pick < 2) res = (int32_t)(next_random() % op->len) + 1;
    if (pick == 2) res = errors[next_random() % (next_random() % 8 == 0 ? 4 : 2)];
    if (pick == 3) res = 0;
    if (res <= 0 && next_random() % 2) more = 0;
    script_complete(w.ring, op, res, op->kind == SCRIPT_SEND_ZERO_COPY ? more : 0);
}

static void send_at_random(uint32_t file, feed_bytes *expected)
{
    uint64_t pick = next_random() % 8;
    size_t len = pick < 4 ? 60000 + next_random() % 20000 : next_random() % 300;
    int res;
    uint8_t *bytes = numbers(len);
    if (pick % 4 < 3)
        res = try_created(file, len);
    else
        res = rws_conn_send_binary(world_conn(&w, file), bytes, len);
    if (res == 0) feed_append_frame(expected, 0x82, false, bytes, len);
    free(bytes);
}

static void random_run(void)
{
    static const uint32_t off[] = {0, RWS__FEATURE_SKIP_SUCCESS};
    test_options options = options_for_large();
    options.features_off = off[next_random() % 2];
    start_with(&options);
    uint32_t files[CONNS];
    feed_bytes expected[CONNS] = {0};
    for (uint32_t n = 0; n < CONNS; n++)
        files[n] = world_open(&w);
    w.ring->manual = ZERO_COPY | SCRIPT_BIT(SCRIPT_SEND);
    for (int step = 0; step < 150; step++) {
        uint32_t n = (uint32_t)(next_random() % CONNS);
        switch (next_random() % 4) {
        case 0: send_at_random(files[n], &expected[n]); break;
        case 1: {
            script_op *op = in_flight(files[n]);
            if (op != NULL && op->submitted) complete_at_random(op);
            break;
        }
        case 2: {
            script_op *op = script_find(w.ring, SCRIPT_SEND, files[n]);
            if (op != NULL && op->submitted) complete_at_random(op);
            break;
        }
        default: world_turn(&w);
        }
    }
    /* One is cut off as it stands; the others get all. */
    rws_conn_abort(world_conn(&w, files[0]));
    w.ring->manual = 0;
    world_turns(&w, 300);
    for (uint32_t n = 0; n < CONNS; n++) {
        const feed_bytes *wire = &w.ring->wire[files[n]];
        if (n > 0) cr_assert_eq(wire->len, expected[n].len);
        cr_assert_leq(wire->len, expected[n].len);
        cr_assert(wire->len == 0 || memcmp(wire->data, expected[n].data, wire->len) == 0);
        feed_bytes_free(&expected[n]);
    }
    cr_assert_eq(memory.bytes, 0);
    end();
}

Test(engine_zero_copy_end, sends_all_in_order_whatever_happens)
{
    seed_random();
    for (int run = 0; run < 60; run++)
        random_run();
}
