/*
 * The loop on the scripted ring (ctest: scripted ring): the one timeout that it has in the kernel,
 * and a loop that can't be made.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "support/scripted_shard.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static world w;

/* ---- the timeout ---- */

static uint32_t timeouts_in_flight(void)
{
    uint32_t count = 0;
    for (const script_op *op = w.ring->ops; op != NULL; op = op->next)
        if (op->kind == SCRIPT_TIMEOUT) count++;
    return count;
}

static uint64_t timeouts_armed(void)
{
    return w.ring->calls_of[SCRIPT_TIMEOUT];
}

static void feed_half(uint32_t file)
{
    feed_bytes frame = {0};
    feed_append_frame(&frame, 0x81, true, "hello", 5);
    world_feed(&w, file, frame.data, 8);
    feed_bytes_free(&frame);
}

static void feed_rest(uint32_t file)
{
    feed_bytes frame = {0};
    feed_append_frame(&frame, 0x81, true, "hello", 5);
    world_feed(&w, file, frame.data + 8, frame.len - 8);
    feed_bytes_free(&frame);
}

/* Deadlines of a second, of half a minute and of a minute come and go while one of a minute stays:
 * each earlier one moves the timeout, and none leaves another one behind. */
Test(engine_loop, has_one_timeout_whatever_comes_and_goes)
{
    test_options options = world_server_options();
    options.handshake_timeout_ms = 1000;
    options.message_timeout_ms = 60000;
    options.close_timeout_ms = 30000;
    world_start(&w, &options);
    uint32_t holder = world_open(&w);
    feed_half(holder);
    uint64_t seed = 1;
    for (int i = 0; i < 150; i++) {
        uint32_t file = world_open(&w);
        feed_half(file);
        feed_rest(file);
        if (i % 3 == 0) rws_conn_close(world_conn(&w, file), 1000, NULL);
        if (i % 3 == 1) rws_conn_abort(world_conn(&w, file));
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        world_advance(&w, (seed >> 33) % 380);
        if (i % 3 == 0) world_frame(&w, file, RWS_CLOSE, "\x03\xe8");
        if (i % 3 == 2) world_frame(&w, file, RWS_CLOSE, "\x03\xe9");
        world_turns(&w, 3);
        cr_assert_leq(timeouts_in_flight(), 1, "client %d: %u timeouts", i, timeouts_in_flight());
        cr_assert(w.ring->closed[file], "client %d", i);
    }
    /* Then it is quiet: one that was early, and the one that counts. */
    uint64_t armed = timeouts_armed();
    for (int s = 0; s < 29; s++)
        world_advance(&w, 1000);
    cr_assert_leq(timeouts_armed() - armed, 2);
    world_end(&w);
}

/* The deadline is the only one: the loop wakes up for it, and not before. */
static const uint32_t delays_ms[] = {16,   17,   1000,  8175,  8176,  8191,  8192,  8193,
                                     8208, 8209, 16383, 16384, 16400, 24576, 30001, 86400000};

Test(engine_loop, wakes_up_once_for_one_deadline)
{
    for (size_t i = 0; i < COUNT(delays_ms); i++) {
        uint32_t delay_ms = delays_ms[i];
        test_options options = world_server_options();
        options.message_timeout_ms = delay_ms;
        options.handshake_timeout_ms = 100;
        world_start(&w, &options);
        uint32_t file = world_open(&w);
        world_advance(&w, 150); /* what the handshake armed has fired */
        world_turns(&w, 2);
        cr_assert_eq(timeouts_in_flight(), 0);
        uint64_t armed = timeouts_armed(), begin = script_now_ms;
        feed_half(file);
        world_turns(&w, 2);
        /* Time passes: a pause of the kernel's at a time, as long as nothing is due. */
        script_op *op = script_find(w.ring, SCRIPT_TIMEOUT, UINT32_MAX);
        cr_assert_not_null(op, "%u ms", delay_ms);
        cr_assert_geq(op->target, begin + delay_ms, "%u ms: it is early", delay_ms);
        cr_assert_leq(op->target, begin + delay_ms + RWS__TICK_MS, "%u ms: it is late", delay_ms);
        script_now_ms = op->target;
        world_turns(&w, 4);
        cr_assert_not(w.open[file], "%u ms: it did not end", delay_ms);
        cr_assert_eq(w.ring->calls_of[SCRIPT_TIMEOUT_UPDATE], 0);
        /* One more for those that linger now. */
        cr_assert_leq(timeouts_armed() - armed, 2, "%u ms", delay_ms);
        world_end(&w);
    }
}

/* A stale one, as of the time before it was moved, arms nothing. */
Test(engine_loop, is_not_misled_by_the_completion_of_another_timeout)
{
    test_options options = world_server_options();
    world_start(&w, &options);
    feed_half(world_open(&w));
    world_turns(&w, 2);
    cr_assert_eq(timeouts_in_flight(), 1);
    uint64_t current = script_find(w.ring, SCRIPT_TIMEOUT, UINT32_MAX)->user_data;
    for (uint32_t back = 1; back < 4; back++) {
        script_forge(w.ring, current - back, -ETIME, 0, NULL);
        script_forge(w.ring, 0, -ENOENT, 0, NULL); /* an update that came too late */
        world_turns(&w, 3);
        cr_assert_eq(timeouts_in_flight(), 1);
    }
    world_end(&w);
}

/* The ring takes neither the timeout nor its update: it is tried again without waiting. */
Test(engine_loop, arms_the_timeout_although_the_ring_is_full)
{
    test_options options = world_server_options();
    options.handshake_timeout_ms = 5000;
    options.message_timeout_ms = 1000;
    world_start(&w, &options);
    w.ring->refuse[SCRIPT_TIMEOUT] = 3;
    w.ring->refuse[SCRIPT_TIMEOUT_UPDATE] = 3;
    uint32_t waits = world_accept(&w);
    world_turns(&w, 4);
    cr_assert_eq(timeouts_in_flight(), 1);
    uint32_t file = world_open(&w);
    feed_half(file);
    world_turns(&w, 5);
    world_advance(&w, 1016);
    cr_assert_not(w.open[file]);
    world_advance(&w, 4000);
    cr_assert(w.ring->closed[waits]);
    world_end(&w);
}

/* ---- one that can't be made ---- */

/* There is no event, and so nothing to lock, to close or to cancel. */
Test(engine_loop, is_freed_although_it_could_not_be_made)
{
    static const rws__loop_owner owner;
    static rws__loop loop;
    static const rws__env env;
    script_net.events_max = 0;
    cr_assert_eq(rws__loop_init(&loop, &env, &owner), -EMFILE);
    cr_assert_null(loop.mailbox.env);
    rws__loop_deinit(&loop);
    rws__loop_deinit(&loop);
    static rws__loop never;
    rws__loop_deinit(&never);
}

/* Of three shards the first, the second or the third fails. */
Test(engine_loop, is_freed_with_those_that_were_made)
{
    for (uint32_t made = 0; made < 3; made++) {
        rws_runtime_options options = RWS_RUNTIME_OPTIONS_DEFAULT;
        options.shards = 3;
        options.connections_max = 4;
        rws__runtime_config config;
        rws_error error = {0};
        cr_assert_eq(rws__runtime_config_make(&config, &options, 1, &error), 0, "%s", error.text);
        script_net.events_max = made;
        static rws_runtime runtime;
        int res = rws__runtime_init(&runtime, &config, &error);
        cr_assert_eq(res, -EMFILE);
        cr_assert_not_null(strstr(error.text, "eventfd"), "%s", error.text);
    }
}
