/*
 * Zero-copy sends on the scripted ring (ctest: scripted ring): when one is tried, when that is
 * given up, and that the kernel has the memory until its notification, whatever happens meanwhile.
 * That the memory does not change is checked by the ring.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "support/scripted_shard.h"
#include "support/seed.h"
#include "support/test_allocator.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define LARGE        100000u
#define ZERO_COPY    SCRIPT_BIT(SCRIPT_SEND_ZERO_COPY)

static world w;

/* ---- helpers ---- */

static test_options options_for_large(void)
{
    test_options options = world_server_options();
    options.message_bytes_max = 2u << 20;
    options.high_watermark_bytes = 16u << 20;
    options.send_queue_bytes_max = 32u << 20;
    return options;
}

/* As a listener on all addresses is; no address of a peer is known. */
static void start_with(const test_options *options)
{
    world_start(&w, options);
    w.shard->listeners[0].loopback = false;
}

static void start(void)
{
    test_options options = options_for_large();
    start_with(&options);
}

static test_allocator memory; /* of created messages */
static const rws_allocator counting = TEST_ALLOCATOR(&memory);

static uint8_t *numbers(size_t len)
{
    uint8_t *bytes = malloc(len + 1);
    cr_assert_not_null(bytes);
    for (size_t i = 0; i < len; i++)
        bytes[i] = world_byte(i);
    return bytes;
}

static int try_created(uint32_t file, size_t len)
{
    rws_message *created;
    uint8_t *bytes = numbers(len);
    cr_assert_eq(rws_message_create(&created, &counting, RWS_BINARY, bytes, len), 0);
    free(bytes);
    int res = rws_conn_send_message(world_conn(&w, file), created);
    rws_message_release(created);
    return res;
}

static void send_created(uint32_t file, size_t len)
{
    cr_assert_eq(try_created(file, len), 0);
}

static uint64_t zero_copies(void)
{
    return w.ring->calls_of[SCRIPT_SEND_ZERO_COPY];
}

static script_op *in_flight(uint32_t file)
{
    return script_find(w.ring, SCRIPT_SEND_ZERO_COPY, file);
}

/* The result of the zero-copy send in flight, and a turn; its notification is to follow. */
static void complete(uint32_t file, int32_t res)
{
    cr_assert_not_null(in_flight(file));
    cr_assert_not(in_flight(file)->notifies);
    script_complete(w.ring, in_flight(file), res, RWS__CQE_MORE);
    world_turn(&w);
}

static void complete_all(uint32_t file)
{
    cr_assert_not_null(in_flight(file));
    complete(file, (int32_t)in_flight(file)->len);
}

static void notify(uint32_t file, bool copied)
{
    cr_assert_not_null(in_flight(file));
    cr_assert(in_flight(file)->notifies);
    script_notify(w.ring, in_flight(file), copied);
    world_turn(&w);
}

/* A large message was sent without a copy, and its notification is awaited. */
static uint32_t open_and_lend(void)
{
    w.ring->manual = ZERO_COPY;
    uint32_t file = world_open(&w);
    send_created(file, LARGE);
    world_turn(&w);
    complete_all(file);
    cr_assert_gt(memory.bytes, 0, "the kernel has it");
    cr_assert_eq(rws_conn_buffered(world_conn(&w, file)), 0);
    return file;
}

static void end(void)
{
    world_end(&w);
    cr_expect_eq(memory.bytes, 0);
}

/* ---- what is sent without a copy ---- */

static void echo(world *self, rws_conn *conn, const char *what)
{
    if (strcmp(what, "message") != 0) return;
    cr_expect_eq(rws_conn_send_message(conn, self->message), 0);
}

/* From the peer, in pieces of `step`: in one piece it is echoed from the provided buffer. */
static void feed_message(uint32_t file, size_t len, size_t step)
{
    feed_bytes frame = {0};
    uint8_t *bytes = numbers(len);
    feed_append_frame(&frame, 0x82, true, bytes, len);
    free(bytes);
    for (size_t at = 0; at < frame.len;) {
        size_t piece = frame.len - at < step ? frame.len - at : step;
        size_t taken = script_recv(w.ring, file, frame.data + at, piece, false);
        cr_assert_gt(taken, 0);
        at += taken;
        world_turns(&w, 2);
    }
    feed_bytes_free(&frame);
}

static void send_copy(uint32_t file, size_t len)
{
    uint8_t *bytes = numbers(len);
    cr_assert_eq(rws_conn_send_binary(world_conn(&w, file), bytes, len), 0);
    free(bytes);
}

static void echo_from_buffer(uint32_t file, size_t len)
{
    feed_message(file, len, SIZE_MAX);
}

static void echo_from_payload(uint32_t file, size_t len)
{
    feed_message(file, len, 40000);
}

/* 64 KiB of a frame, header included, which is 4 bytes long up to a payload of 65,535. */
Test(engine_zero_copy, is_for_64_kib_that_are_lent_for_long)
{
    static const struct {
        const char *name;
        void (*send)(uint32_t file, size_t len);
        size_t len;
        uint64_t count;
    } rows[] = {
        {"created", send_created, 65531, 0},         {"created", send_created, 65532, 1},
        {"created", send_created, 65533, 1},         {"payload", echo_from_payload, 65531, 0},
        {"payload", echo_from_payload, 65532, 1},    {"payload", echo_from_payload, 65533, 1},
        {"payload", echo_from_payload, 1u << 20, 1}, {"buffer", echo_from_buffer, 65532, 0},
        {"buffer", echo_from_buffer, 200000, 0},     {"copied", send_copy, 65532, 0},
        {"copied", send_copy, 1u << 20, 0},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        start();
        w.hook = echo;
        uint32_t file = world_open(&w);
        rows[i].send(file, rows[i].len);
        world_turns(&w, 3);
        char sent[64];
        snprintf(sent, sizeof sent, "binary:%zu ", rows[i].len);
        cr_expect_str_eq(world_sent(&w, file), sent, "%s", rows[i].name);
        cr_expect_eq(zero_copies(), rows[i].count, "%s, %zu bytes", rows[i].name, rows[i].len);
        cr_expect_eq(world_stats(&w).sends_zero_copy, rows[i].count);
        cr_expect_eq(world_stats(&w).zero_copy_given_up, 0);
        end();
    }
}

static const struct sockaddr_in far_peer = {.sin_family = AF_INET, .sin_addr = {0x0100000a}};

Test(engine_zero_copy, is_not_tried_where_it_is_known_to_be_in_vain)
{
    static const struct {
        const char *name;
        uint32_t off;
        bool loopback_listener, asks, far, tried;
    } rows[] = {
        {"nothing known", 0, false, false, false, true},
        {"feature off", RWS__FEATURE_SEND_ZC, false, false, false, false},
        {"listener on loopback", 0, true, false, false, false},
        {"peer on loopback", 0, false, true, false, false},
        {"peer on loopback, told by its accept", RWS__FEATURE_SOCKET_COMMANDS, false, false, false,
         true}, /* the script's accepts bring no address */
        {"peer far away", 0, false, false, true, true},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        test_options options = options_for_large();
        options.features_off = rows[i].off;
        world_start(&w, &options);
        cr_expect(w.shard->listeners[0].loopback, "it listens on 127.0.0.1");
        w.shard->listeners[0].loopback = rows[i].loopback_listener;
        uint32_t file = world_open(&w);
        struct sockaddr_storage peer;
        socklen_t len = sizeof peer;
        if (rows[i].asks) cr_assert_eq(rws_conn_peer(world_conn(&w, file), &peer, &len), 0);
        if (rows[i].far) rws__conn_cold_part(world_conn(&w, file))->stream.peer.in = far_peer;
        send_created(file, LARGE);
        world_turns(&w, 3);
        cr_expect_str_eq(world_sent(&w, file), "binary:100000 ", "%s", rows[i].name);
        cr_expect_eq(zero_copies(), rows[i].tried ? 1 : 0, "%s", rows[i].name);
        end();
    }
}

/* Whatever it is cut into on the way in, and with any features. */
Test(engine_zero_copy, echoes_every_size_in_every_piece)
{
    static const size_t sizes[] = {65531, 65532, 65535, 65536, 65537, 262135, 1u << 20};
    static const size_t steps[] = {4096, 16384, 70000, 2u << 20};
    static const uint32_t off[] = {0, RWS__FEATURE_SKIP_SUCCESS, RWS__FEATURE_DIRECT_LARGE,
                                   RWS__FEATURE_ALL & ~RWS__FEATURE_SEND_ZC, RWS__FEATURE_ALL};
    for (size_t i = 0; i < COUNT(sizes) * COUNT(steps) * COUNT(off); i++) {
        size_t size = sizes[i % COUNT(sizes)], step = steps[i / COUNT(sizes) % COUNT(steps)];
        test_options options = options_for_large();
        options.features_off = off[i / COUNT(sizes) / COUNT(steps)];
        start_with(&options);
        w.hook = echo;
        uint32_t file = world_open(&w);
        char sent[128] = "";
        for (int n = 0; n < 3; n++) {
            feed_message(file, size, step);
            world_turns(&w, 3);
            snprintf(sent + strlen(sent), sizeof sent - strlen(sent), "binary:%zu ", size);
            cr_assert_str_eq(world_sent(&w, file), sent, "pieces of %zu, features off %x", step,
                             options.features_off);
        }
        uint8_t *bytes = numbers(size);
        cr_assert_arr_eq(w.ring->wire[file].data + w.ring->wire[file].len - size, bytes, size);
        free(bytes);
        cr_expect_eq(w.shard->conns.streams.partial->slab.used_bytes, 0);
        end();
    }
}

/* ---- the notification ---- */

Test(engine_zero_copy, keeps_the_memory_until_the_notification)
{
    start();
    uint32_t file = open_and_lend();
    world_turns(&w, 5);
    cr_assert_gt(memory.bytes, 0);
    notify(file, false);
    cr_assert_eq(memory.bytes, 0);
    cr_assert_eq(world_stats(&w).zero_copy_given_up, 0);
    end();
}

Test(engine_zero_copy, keeps_an_echo_until_the_notification)
{
    start();
    w.hook = echo;
    w.ring->manual = ZERO_COPY;
    uint32_t file = world_open(&w);
    feed_message(file, LARGE, 40000);
    world_turn(&w);
    complete_all(file);
    cr_assert_eq(w.shard->conns.streams.send_slab.used_bytes, 0, "the queue is empty");
    cr_assert_gt(w.shard->conns.streams.partial->slab.used_bytes, 0, "the kernel has the payload");
    cr_assert_eq(w.shard->conns.streams.partial->charged_bytes, 0);
    /* The next messages come while it has it, and are other memory. */
    feed_message(file, LARGE + 1, 40000);
    feed_message(file, LARGE + 2, 40000);
    world_turns(&w, 3);
    notify(file, false);
    cr_assert_eq(w.shard->conns.streams.partial->slab.used_bytes, 0);
    cr_assert_str_eq(world_sent(&w, file), "binary:100000 binary:100001 binary:100002 ");
    cr_assert_eq(zero_copies(), 1);
    end();
}

/* One notification at a time: what is sent meanwhile is sent plainly. */
Test(engine_zero_copy, sends_plainly_behind_a_notification_that_is_awaited)
{
    start();
    uint32_t file = open_and_lend();
    for (size_t n = 1; n <= 5; n++) {
        send_created(file, LARGE + n);
        cr_assert_eq(rws_conn_send_text(world_conn(&w, file), "and", 3), 0);
    }
    world_turns(&w, 12);
    cr_assert_str_eq(world_sent(&w, file), "binary:100000 binary:100001 text:and binary:100002 "
                                           "text:and binary:100003 text:and binary:100004 "
                                           "text:and binary:100005 text:and ");
    cr_assert_eq(zero_copies(), 1);
    notify(file, false);
    cr_assert_eq(memory.bytes, 0);
    send_created(file, LARGE);
    world_turn(&w);
    cr_assert_eq(zero_copies(), 2, "and then again without a copy");
    complete_all(file);
    notify(file, false);
    end();
}

Test(engine_zero_copy, has_one_send_in_flight)
{
    start();
    w.ring->manual = ZERO_COPY;
    uint32_t file = world_open(&w);
    for (size_t n = 0; n < 4; n++) {
        send_created(file, LARGE + n);
        cr_assert_eq(rws_conn_send_text(world_conn(&w, file), "and", 3), 0);
        world_turns(&w, 2);
        cr_assert_eq(script_count(w.ring, file), 2, "a receive and a send");
    }
    complete_all(file);
    notify(file, false);
    w.ring->manual = 0;
    world_turns(&w, 10);
    cr_assert_str_eq(world_sent(&w, file), "binary:100000 text:and binary:100001 text:and "
                                           "binary:100002 text:and binary:100003 text:and ");
    cr_assert_eq(zero_copies(), 4, "each after the notification of the one before");
    end();
}

/* In one turn, and in the wrong order, which the kernel does not do: each is counted once. */
Test(engine_zero_copy, takes_the_notification_early)
{
    for (int order = 0; order < 3; order++) {
        start();
        w.ring->manual = ZERO_COPY;
        uint32_t file = world_open(&w);
        rws_conn *conn = world_conn(&w, file);
        send_created(file, LARGE);
        world_turn(&w);
        script_op *op = in_flight(file);
        if (order == 0) {
            script_complete(w.ring, op, (int32_t)op->len, RWS__CQE_MORE);
            script_notify(w.ring, op, false);
        } else {
            script_forge(w.ring, op->user_data, 0, RWS__CQE_NOTIFICATION, NULL);
            script_complete(w.ring, op, (int32_t)op->len, order == 1 ? 0 : RWS__CQE_MORE);
            if (order == 2) script_notify(w.ring, op, false);
        }
        world_turn(&w);
        cr_expect_eq(memory.bytes, 0, "order %d", order);
        cr_expect_eq(conn->stream.ops, 1, "order %d: its receive", order);
        send_created(file, LARGE);
        world_turn(&w);
        complete_all(file);
        notify(file, false);
        cr_expect_str_eq(world_sent(&w, file), "binary:100000 binary:100000 ");
        end();
    }
}

/* ---- given up ---- */

Test(engine_zero_copy, is_given_up_for_good_with_the_first_report_of_a_copy)
{
    start();
    uint32_t file = open_and_lend(), other = world_open(&w);
    notify(file, true);
    cr_assert_eq(memory.bytes, 0);
    cr_assert_eq(world_stats(&w).zero_copy_given_up, 1);
    for (int n = 0; n < 5; n++) {
        send_created(file, LARGE);
        world_turns(&w, 2);
    }
    cr_assert_eq(zero_copies(), 1);
    cr_assert_eq(memory.bytes, 0);
    send_created(other, LARGE); /* it is on its own */
    world_turn(&w);
    cr_assert_eq(zero_copies(), 2);
    complete_all(other);
    notify(other, false);
    send_created(other, LARGE);
    world_turn(&w);
    cr_assert_eq(zero_copies(), 3);
    complete_all(other);
    notify(other, true);
    cr_assert_eq(world_stats(&w).zero_copy_given_up, 2);
    end();
}

/* A slot that is used again starts anew. */
Test(engine_zero_copy, is_tried_again_by_the_next_connection_of_a_slot)
{
    start();
    w.ring->copies = true;
    for (uint64_t n = 1; n <= 200; n++) { /* all 72 slots, twice and more */
        uint32_t file = world_open(&w);
        send_created(file, LARGE);
        send_created(file, LARGE);
        world_turns(&w, 3);
        cr_assert_eq(zero_copies(), n);
        cr_assert_eq(world_stats(&w).zero_copy_given_up, n);
        rws_conn_abort(world_conn(&w, file));
        world_turns(&w, 3);
    }
    end();
}

/* The results of the one zero-copy send, with a notification to follow or without. */
static const struct failure {
    const char *name;
    int32_t res;
    bool given_up;
} failures[] = {
    {"over the limit of locked memory", -ENOMEM, true},
    {"no buffers", -ENOBUFS, true},
    {"not with this socket", -EOPNOTSUPP, true},
    {"not with this kernel", -EINVAL, true},
    {"memory that can't be pinned", -EFAULT, true},
    {"interrupted", -EINTR, false},
    {"socket full", -EAGAIN, false},
    {"nothing", 0, false},
};

Test(engine_zero_copy, loses_nothing_when_it_fails)
{
    for (size_t i = 0; i < 3 * COUNT(failures); i++) {
        const struct failure *row = &failures[i / 3];
        bool more = i % 3 > 0, early = i % 3 == 2;
        start();
        w.ring->manual = ZERO_COPY;
        uint32_t file = world_open(&w);
        send_created(file, LARGE);
        cr_assert_eq(rws_conn_send_text(world_conn(&w, file), "and more", 8), 0);
        world_turn(&w);
        script_op *op = in_flight(file);
        script_complete(w.ring, op, row->res, more ? RWS__CQE_MORE : 0);
        /* The kernel calls it copied, because nothing was sent. */
        if (early) script_notify(w.ring, op, true);
        world_turn(&w);
        if (more && !early) {
            world_turns(&w, 4);
            cr_expect_str_eq(world_sent(&w, file), "binary:100000 text:and more ", "%s", row->name);
            notify(file, true);
        }
        w.ring->manual = 0;
        world_turns(&w, 5);
        cr_expect_str_eq(world_sent(&w, file), "binary:100000 text:and more ", "%s, %zu", row->name,
                         i % 3);
        cr_expect_eq(memory.bytes, 0, "%s", row->name);
        cr_expect_eq(world_stats(&w).zero_copy_given_up, row->given_up ? 1 : 0, "%s", row->name);
        uint64_t before = zero_copies();
        send_created(file, LARGE);
        world_turns(&w, 3);
        cr_expect_eq(zero_copies() - before, row->given_up ? 0 : 1, "%s", row->name);
        world_log_is(&w, "open0 ", row->name);
        end();
    }
}

Test(engine_zero_copy, sends_the_rest_after_a_short_count)
{
    static const int32_t counts[] = {1, 9, 10, 11, 65536, 100009};
    for (size_t i = 0; i < 2 * COUNT(counts); i++) {
        bool early = i % 2 == 0;
        start();
        w.ring->manual = ZERO_COPY;
        uint32_t file = world_open(&w);
        send_created(file, LARGE);
        world_turn(&w);
        complete(file, counts[i / 2]);
        if (early) {
            notify(file, false); /* before the rest was sent */
        } else {
            world_turns(&w, 3);
            cr_expect_str_eq(world_sent(&w, file), "binary:100000 ", "plainly");
            cr_expect_gt(memory.bytes, 0, "the kernel has the first part");
            notify(file, false);
        }
        w.ring->manual = 0;
        world_turns(&w, 3);
        cr_expect_str_eq(world_sent(&w, file), "binary:100000 ");
        uint8_t *bytes = numbers(LARGE);
        cr_expect_arr_eq(w.ring->wire[file].data + 10, bytes, LARGE);
        free(bytes);
        cr_expect_eq(memory.bytes, 0);
        end();
    }
}

Test(engine_zero_copy, is_tried_again_when_the_ring_takes_no_more)
{
    start();
    uint32_t file = world_open(&w);
    w.ring->refuse[SCRIPT_SEND_ZERO_COPY] = 3;
    send_created(file, LARGE);
    world_turns(&w, 6);
    cr_assert_str_eq(world_sent(&w, file), "binary:100000 ");
    cr_assert_eq(world_stats(&w).sends_zero_copy, 1);
    cr_assert_eq(memory.bytes, 0);
    end();
}

/* ---- the end ---- */

/* What the peer has not taken is thrown away before the file is closed, or the kernel would keep
 * it for minutes. */
Test(engine_zero_copy, is_cut_off_with_a_notification_that_is_awaited)
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

Test(engine_zero_copy, has_its_slot_until_the_notification)
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
Test(engine_zero_copy, is_cut_off_in_the_middle_of_a_send)
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

Test(engine_zero_copy, ends_the_connection_when_the_transport_broke)
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
Test(engine_zero_copy, closes_when_the_peer_has_taken_everything)
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
Test(engine_zero_copy, is_waited_for_when_the_peer_ends_without_a_close_frame)
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

Test(engine_zero_copy, is_cut_off_at_the_deadline_of_sending)
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
Test(engine_zero_copy, does_not_keep_a_server_that_stops)
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
Test(engine_zero_copy, lends_one_message_for_many_sends)
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

Test(engine_zero_copy, sends_all_in_order_whatever_happens)
{
    seed_random();
    for (int run = 0; run < 60; run++)
        random_run();
}
