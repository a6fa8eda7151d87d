/*
 * Zero-copy sends on the scripted ring (ctest: scripted ring): when one is tried, when that is
 * given up, and that the kernel has the memory until its notification. That the memory does not
 * change is checked by the ring.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/scripted_zero_copy.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* ---- what is sent without a copy ---- */

static void echo(world *self, rws_conn *conn, const char *what)
{
    if (strcmp(what, "message") != 0) return;
    cr_expect_eq(rws_conn_send_message(conn, self->message), 0);
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
