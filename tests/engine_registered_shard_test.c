/*
 * Registered memory in a shard on the scripted ring (ctest: scripted ring): which sends of a
 * connection read it, and that each is counted until its last completion.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <string.h>

#include "support/scripted_shard.h"

#define LARGE 100000u

static world w;

static void echo(world *at, rws_conn *conn, const char *what)
{
    if (strcmp(what, "message") != 0) return;
    cr_expect_eq(rws_conn_send_message(conn, at->message), 0);
}

static uint32_t open_echo(uint32_t features_off)
{
    test_options options = world_server_options();
    options.message_bytes_max = 4u << 20;
    options.high_watermark_bytes = 16u << 20;
    options.features_off = features_off;
    world_start(&w, &options);
    w.shard->listeners[0].loopback = false;
    w.hook = echo;
    return world_open(&w);
}

/* A large message comes and goes. */
static void echo_one(uint32_t file, size_t len)
{
    feed_bytes frame = world_long_frame(len);
    for (size_t at = 0; at < frame.len; at += 0) {
        size_t piece = frame.len - at < 40000 ? frame.len - at : 40000;
        size_t taken = script_recv(w.ring, file, frame.data + at, piece, false);
        cr_assert_gt(taken, 0);
        at += taken;
        world_turns(&w, 2);
    }
    feed_bytes_free(&frame);
    world_turns(&w, 2);
}

/* The first notification shows that it is worth while. */
Test(engine_registered_shard, is_used_by_a_shard_once_the_kernel_did_not_copy)
{
    uint32_t file = open_echo(0);
    for (uint64_t n = 0; n < 6; n++) {
        echo_one(file, LARGE);
        cr_expect_eq(w.ring->calls_of[SCRIPT_SEND_ZERO_COPY], n + 1);
        cr_expect_eq(w.ring->sends_registered, n, "all but the first");
    }
    cr_expect_eq(w.ring->registers, 1, "the same block each time");
    cr_expect_str_eq(world_sent(&w, file), "binary:100000 binary:100000 binary:100000 "
                                           "binary:100000 binary:100000 binary:100000 ");
    world_end(&w);
}

Test(engine_registered_shard, is_not_used_by_a_shard_where_it_is_in_vain)
{
    static const struct {
        const char *name;
        uint32_t off;
        bool copies;
        size_t len;
    } rows[] = {
        {"the kernel copies", 0, true, LARGE},
        {"feature off", RWS__FEATURE_REGISTERED_BUFFERS, false, LARGE},
        {"no zero copy", RWS__FEATURE_SEND_ZC, false, LARGE},
        {"larger than a region", 0, false, 3u << 20},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint32_t file = open_echo(rows[i].off);
        w.ring->copies = rows[i].copies;
        for (int n = 0; n < 3; n++) {
            echo_one(file, rows[i].len);
            rws_conn_abort(world_conn(&w, file));
            world_turns(&w, 3);
            file = world_open(&w);
        }
        cr_expect_eq(w.ring->registers, 0, "%s", rows[i].name);
        cr_expect_eq(w.ring->sends_registered, 0, "%s", rows[i].name);
        world_end(&w);
    }
}

/* What is not a payload lies elsewhere. */
Test(engine_registered_shard, is_not_used_for_created_messages)
{
    static uint8_t bytes[LARGE];
    rws_message *message;
    uint32_t file = open_echo(0);
    cr_assert_eq(rws_message_create(&message, NULL, RWS_BINARY, bytes, LARGE), 0);
    for (int n = 0; n < 3; n++) {
        cr_assert_eq(rws_conn_send_message(world_conn(&w, file), message), 0);
        world_turns(&w, 3);
    }
    cr_expect_eq(w.ring->calls_of[SCRIPT_SEND_ZERO_COPY], 3);
    cr_expect_eq(w.ring->sends_registered, 0);
    rws_message_release(message);
    world_end(&w);
}

static uint32_t sends_begun(void)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < RWS__REGISTERED_MAX; i++)
        sum += w.shard->conns.streams.registered.entries[i].sends;
    return sum;
}

/* Each of these ends the send in its own way; what reads a region is counted until then. */
Test(engine_registered_shard, counts_a_shards_sends_however_they_end)
{
    static const int32_t results[] = {LARGE + 10, 70000, 0, -EAGAIN, -ENOMEM, -EINVAL, -EPIPE};
    for (size_t i = 0; i < 2 * sizeof results / sizeof results[0]; i++) {
        bool more = i % 2;
        uint32_t file = open_echo(0);
        echo_one(file, LARGE);
        w.ring->refuse[SCRIPT_SEND_ZERO_COPY] = (uint32_t)i % 3;
        w.ring->manual = SCRIPT_BIT(SCRIPT_SEND_ZERO_COPY);
        echo_one(file, LARGE);
        world_turns(&w, 3);
        script_op *op = script_find(w.ring, SCRIPT_SEND_ZERO_COPY, file);
        cr_assert_not_null(op);
        cr_assert_neq(op->registered, 0);
        cr_expect_eq(sends_begun(), 1, "result %d", results[i / 2]);
        script_complete(w.ring, op, results[i / 2], more ? RWS__CQE_MORE : 0);
        world_turn(&w);
        /* It may have been tried again. */
        bool reads = script_find(w.ring, SCRIPT_SEND_ZERO_COPY, file) != NULL;
        cr_expect(reads || !more);
        cr_expect_eq(sends_begun(), reads, "result %d", results[i / 2]);
        if (more && script_find(w.ring, SCRIPT_SEND_ZERO_COPY, file) == op && op->notifies)
            script_notify(w.ring, op, false);
        w.ring->manual = 0;
        world_turns(&w, 4);
        cr_expect_eq(sends_begun(), 0, "result %d", results[i / 2]);
        world_end(&w);
    }
}

/* The pool is nearly full, so that nothing freed is kept: in the next turn the region goes. */
Test(engine_registered_shard, is_given_back_by_a_shard_that_is_short_of_memory)
{
    uint32_t file = open_echo(0);
    echo_one(file, LARGE);
    echo_one(file, LARGE);
    cr_assert_eq(w.shard->conns.streams.registered.entries_used, 1);
    rws__slab *pool = &w.shard->conns.streams.partial->slab;
    void *much = rws__slab_take(pool, pool->bytes / 4);
    cr_assert_not_null(much);
    echo_one(file, LARGE);
    world_turns(&w, 2);
    cr_expect_eq(w.shard->conns.streams.registered.entries_used, 0);
    cr_expect_eq(w.ring->unregisters, 1);
    rws__slab_give(pool, much);
    world_end(&w);
}
