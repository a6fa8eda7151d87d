/*
 * What the tests of zero-copy sends on the scripted ring have in common: one world, large messages
 * made with an allocator that counts, and the send in flight with its notification.
 */
#ifndef RINGWS_TESTS_SUPPORT_SCRIPTED_ZERO_COPY_H
#define RINGWS_TESTS_SUPPORT_SCRIPTED_ZERO_COPY_H

#include <criterion/criterion.h>
#include <stdlib.h>

#include "support/scripted_shard.h"
#include "support/test_allocator.h"

#define LARGE     100000u
#define ZERO_COPY SCRIPT_BIT(SCRIPT_SEND_ZERO_COPY)

static world w;
static test_allocator memory; /* of created messages */
static const rws_allocator counting = TEST_ALLOCATOR(&memory);

static inline test_options options_for_large(void)
{
    test_options options = world_server_options();
    options.message_bytes_max = 2u << 20;
    options.high_watermark_bytes = 16u << 20;
    options.send_queue_bytes_max = 32u << 20;
    return options;
}

/* As a listener on all addresses is; no address of a peer is known. */
static inline void start_with(const test_options *options)
{
    world_start(&w, options);
    w.shard->listeners[0].loopback = false;
}

static inline void start(void)
{
    test_options options = options_for_large();
    start_with(&options);
}

static inline uint8_t *numbers(size_t len)
{
    uint8_t *bytes = malloc(len + 1);
    cr_assert_not_null(bytes);
    for (size_t i = 0; i < len; i++)
        bytes[i] = world_byte(i);
    return bytes;
}

static inline int try_created(uint32_t file, size_t len)
{
    rws_message *created;
    uint8_t *bytes = numbers(len);
    cr_assert_eq(rws_message_create(&created, &counting, RWS_BINARY, bytes, len), 0);
    free(bytes);
    int res = rws_conn_send_message(world_conn(&w, file), created);
    rws_message_release(created);
    return res;
}

static inline void send_created(uint32_t file, size_t len)
{
    cr_assert_eq(try_created(file, len), 0);
}

static inline uint64_t zero_copies(void)
{
    return w.ring->calls_of[SCRIPT_SEND_ZERO_COPY];
}

static inline script_op *in_flight(uint32_t file)
{
    return script_find(w.ring, SCRIPT_SEND_ZERO_COPY, file);
}

/* The result of the zero-copy send in flight, and a turn; its notification is to follow. */
static inline void complete(uint32_t file, int32_t res)
{
    cr_assert_not_null(in_flight(file));
    cr_assert_not(in_flight(file)->notifies);
    script_complete(w.ring, in_flight(file), res, RWS__CQE_MORE);
    world_turn(&w);
}

static inline void complete_all(uint32_t file)
{
    cr_assert_not_null(in_flight(file));
    complete(file, (int32_t)in_flight(file)->len);
}

static inline void notify(uint32_t file, bool copied)
{
    cr_assert_not_null(in_flight(file));
    cr_assert(in_flight(file)->notifies);
    script_notify(w.ring, in_flight(file), copied);
    world_turn(&w);
}

/* A large message was sent without a copy, and its notification is awaited. */
static inline uint32_t open_and_lend(void)
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

/* From the peer, in pieces of `step`: in one piece it is echoed from the provided buffer. */
static inline void feed_message(uint32_t file, size_t len, size_t step)
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

static inline void end(void)
{
    world_end(&w);
    cr_expect_eq(memory.bytes, 0);
}

#endif
