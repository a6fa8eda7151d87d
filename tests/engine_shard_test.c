/*
 * A shard on the scripted ring (ctest: scripted ring): a submission queue that is full at any call,
 * draining, posts, and the memory budget.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/scripted_shard.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static world w;

/* ---- the submission queue is full ---- */

static void count_post(void *arg, bool cancelled)
{
    int *counts = arg;
    counts[cancelled]++;
}

static void echo(world *self, rws_conn *conn, const char *what)
{
    static const char answer[70000];
    (void)self;
    if (strcmp(what, "message") == 0) {
        cr_assert_eq(rws_conn_send_text(conn, "echo", 4), 0);
        cr_assert_eq(rws_conn_send_binary(conn, answer, sizeof answer), 0);
    }
}

/* Feed a frame in pieces as it is received, with some turns for what was refused. */
static void feed_patiently(uint32_t file, const void *data, size_t len)
{
    const uint8_t *bytes = data;
    for (int i = 0; i < 60 && len > 0; i++) {
        size_t taken = script_recv(w.ring, file, bytes, len, false);
        bytes += taken;
        len -= taken;
        world_turn(&w);
    }
    cr_assert_eq(len, 0, "call %llu: %zu bytes are not received", (unsigned long long)w.ring->calls,
                 len);
    world_turns(&w, 3);
}

static void feed_frame(uint32_t file, uint8_t first, const char *text, size_t len)
{
    feed_bytes frame = {0};
    feed_append_frame(&frame, first, true, text, len);
    feed_patiently(file, frame.data, frame.len);
    feed_bytes_free(&frame);
}

static uint32_t accept_patiently(void)
{
    for (int i = 0; i < 5 && script_find(w.ring, SCRIPT_ACCEPT_MULTISHOT, UINT32_MAX) == NULL; i++)
        world_advance(&w, 16);
    return world_accept(&w);
}

/* All that a connection does: open, echo, pause and resume, a large message, an answer of a full
 * socket, the closing handshake; and one that fails. Returns the number of calls. */
static uint64_t whole_life(uint64_t refuse_call, script_kind refuse_kind, uint32_t times)
{
    static char large[150000];
    test_options options = world_server_options();
    options.message_bytes_max = 1u << 20;
    options.high_watermark_bytes = 60000;
    options.low_watermark_bytes = 6000;
    world_start(&w, &options);
    w.ring->refuse_call = refuse_call;
    if (times > 0) w.ring->refuse[refuse_kind] = times;
    w.hook = echo;
    uint32_t file = accept_patiently();
    feed_patiently(file, world_request, strlen(world_request));
    w.ring->wire[file].len = 0;
    feed_frame(file, 0x81, "one", 3);
    rws_conn_pause(world_conn(&w, file));
    world_turns(&w, 4);
    rws_conn_resume(world_conn(&w, file));
    world_turns(&w, 4);
    feed_frame(file, 0x82, large, sizeof large);
    feed_frame(file, 0x88, "\x03\xe8", 2);
    world_turns(&w, 6);
    cr_assert(w.ring->closed[file], "call %llu", (unsigned long long)refuse_call);
    uint32_t other = accept_patiently();
    feed_patiently(other, world_request, strlen(world_request));
    feed_patiently(other, "\xff\xff\xff\xff", 4);
    world_turns(&w, 4);
    script_op *op = script_find_recv(w.ring, other);
    cr_assert_not_null(op);
    script_complete(w.ring, op, 0, 0);
    world_turns(&w, 6);
    cr_assert(w.ring->closed[other], "call %llu", (unsigned long long)refuse_call);
    char context[64];
    snprintf(context, sizeof context, "call %llu, kind %d", (unsigned long long)refuse_call,
             (int)refuse_kind);
    cr_expect_str_eq(world_sent(&w, file),
                     "text:echo binary:70000 text:echo binary:70000 "
                     "close:1000: ",
                     "%s", context);
    world_log_is(&w,
                 "open0 text0:one drain0 binary0:150000:00000000 drain0 close0:1000::peer open1 "
                 "close1:1002:the peer broke the WebSocket protocol (RFC 6455):us ",
                 context);
    cr_expect_eq(w.ring->slept, 0, "%s: it waited and nobody would have woken it", context);
    uint64_t calls = w.ring->calls;
    w.ring->refuse_call = 0;
    memset(w.ring->refuse, 0, sizeof w.ring->refuse);
    world_end(&w);
    return calls;
}

Test(engine_shard, loses_nothing_when_any_one_submission_is_refused)
{
    uint64_t calls = whole_life(0, SCRIPT_KINDS, 0);
    cr_assert_gt(calls, 20, "%llu", (unsigned long long)calls);
    for (uint64_t call = 1; call <= calls; call++)
        whole_life(call, SCRIPT_KINDS, 0);
}

Test(engine_shard, loses_nothing_when_a_kind_of_submission_is_refused_again_and_again)
{
    for (int kind = 0; kind < SCRIPT_KINDS; kind++)
        whole_life(0, (script_kind)kind, 3);
}

Test(engine_shard, submits_a_few_at_a_time_if_the_kernel_takes_no_more)
{
    test_options options = world_server_options();
    world_start(&w, &options);
    for (int n = 0; n < 8; n++)
        world_open(&w);
    w.ring->submit_max = 1;
    for (uint32_t n = 0; n < 8; n++)
        cr_assert_eq(rws_conn_send_text(world_conn(&w, n), "hello", 5), 0);
    world_turns(&w, 20);
    for (uint32_t n = 0; n < 8; n++) {
        cr_assert_str_eq(world_sent(&w, n), "text:hello ");
        cr_assert_eq(rws_conn_buffered(world_conn(&w, n)), 0);
    }
    world_end(&w);
}

Test(engine_shard, wakes_up_for_posts_although_that_was_not_submitted)
{
    test_options options = world_server_options();
    world_start(&w, &options);
    int counts[2] = {0, 0};
    for (int i = 1; i <= 3; i++) {
        w.ring->refuse[SCRIPT_READ_EVENT] = 2;
        rws_post(&w.runtime, 0, count_post, counts);
        world_turns(&w, 5);
        cr_assert_eq(counts[0], i);
    }
    world_end(&w);
}

/* ---- draining ---- */

static void stop(void)
{
    rws__loop_stop(&w.shard->loop);
    world_turns(&w, 4);
}

Test(engine_shard, drains_at_once_when_nobody_is_there)
{
    test_options options = world_server_options();
    world_start(&w, &options);
    stop();
    cr_assert(w.ended);
    cr_assert_eq(w.result, 0);
    world_end(&w);
}

Test(engine_shard, drains_with_a_closing_handshake)
{
    test_options options = world_server_options();
    options.handle_close = true;
    world_start(&w, &options);
    uint32_t open = world_open(&w), closing = world_open(&w), answering = world_open(&w);
    rws_conn_close(world_conn(&w, closing), 4000, NULL);
    world_frame(&w, answering, RWS_CLOSE, "\x03\xe8");
    w.log.len = 0;
    stop();
    cr_assert_not(w.ended);
    cr_assert_str_eq(world_sent(&w, open), "close:1001: ");
    cr_assert_str_eq(world_sent(&w, closing), "close:4000: ");
    cr_assert_str_eq(world_sent(&w, answering), "close:1001: ");
    world_frame(&w, open, RWS_CLOSE, "\x03\xe9");
    world_frame(&w, closing, RWS_CLOSE, "\x0f\xa0");
    world_turns(&w, 4);
    cr_assert(w.ended);
    cr_assert_eq(w.result, 0);
    cr_assert_eq(world_stats(&w).cut_off, 0);
    world_end(&w);
    cr_assert_eq(w.closes, 3);
}

Test(engine_shard, cuts_off_what_does_not_close_in_time)
{
    test_options options = world_server_options();
    options.drain_timeout_ms = 1000;
    options.close_timeout_ms = 60000;
    world_start(&w, &options);
    world_open(&w);
    world_open(&w);
    uint32_t upgrading = world_accept(&w);
    stop();
    world_advance(&w, 900);
    cr_assert_not(w.ended);
    world_advance(&w, 150);
    world_turns(&w, 4);
    cr_assert(w.ended);
    cr_assert_eq(w.result, RWS_E_TIMEOUT);
    cr_assert_geq(world_stats(&w).cut_off, 2);
    cr_assert(w.ring->closed[upgrading]);
    world_log_is(&w, "open0 open1 close0:1006::us close1:1006::us ", "cut off");
    world_end(&w);
}

Test(engine_shard, answers_503_to_a_request_that_comes_while_it_drains)
{
    test_options options = world_server_options();
    world_start(&w, &options);
    uint32_t file = world_accept(&w);
    stop();
    world_feed(&w, file, world_request, strlen(world_request));
    world_turns(&w, 3);
    feed_bytes_append(&w.ring->wire[file], "", 1);
    cr_assert_not_null(strstr((char *)w.ring->wire[file].data, "HTTP/1.1 503 "));
    world_eof(&w, file);
    world_turns(&w, 4);
    cr_assert(w.ended);
    cr_assert_eq(w.result, 0);
    world_log_is(&w, "", "no callback");
    world_end(&w);
}

Test(engine_shard, takes_what_waits_in_the_backlog_before_it_stops_listening)
{
    test_options options = world_server_options();
    world_start(&w, &options);
    script_net.backlog = 1;
    stop();
    cr_assert_not(w.ended);
    cr_assert_eq(w.shard->listeners[0].fd, -1);
    world_feed(&w, 100, world_request, strlen(world_request));
    world_turns(&w, 3);
    feed_bytes_append(&w.ring->wire[100], "", 1);
    cr_assert_not_null(strstr((char *)w.ring->wire[100].data, "HTTP/1.1 503 "));
    world_eof(&w, 100);
    world_end(&w);
    cr_assert_eq(w.result, 0);
}

/* A kernel that refuses it would let an accept of the drain wait for ever. */
Test(engine_shard, takes_nothing_from_a_backlog_for_which_it_would_wait)
{
    test_options options = world_server_options();
    world_start(&w, &options);
    script_net.backlog = 1;
    script_net.stop_waiting_result = -EPERM;
    stop();
    cr_assert_eq(w.shard->listeners[0].fd, -1);
    cr_assert_eq(script_net.backlog, 1);
    cr_assert(w.ended);
    world_end(&w);
    script_net.backlog = 0;
    script_net.stop_waiting_result = 0;
}

/* What comes in while a drain begins, and what is opened then: engine_drain_test.c. */
Test(engine_shard, refuses_a_request_that_had_begun_before_it_drains)
{
    test_options options = world_server_options();
    world_start(&w, &options);
    uint32_t file = world_accept(&w);
    world_feed(&w, file, world_request, 30);
    stop();
    world_feed(&w, file, world_request + 30, strlen(world_request) - 30);
    world_turns(&w, 3);
    world_log_is(&w, "", "refused");
    world_eof(&w, file);
    world_turns(&w, 3);
    cr_assert(w.ended);
    world_end(&w);
}

/* A loop that can't go on: on_close is owed all the same. */
Test(engine_shard, closes_every_connection_when_the_loop_ends_early)
{
    test_options options = world_server_options();
    world_start(&w, &options);
    world_open(&w);
    world_open(&w);
    world_accept(&w);
    rws__shard_close(w.shard);
    world_log_is(&w, "open0 open1 close0:1006::us close1:1006::us ", "the end");
    rws__runtime_deinit(&w.runtime);
    feed_bytes_free(&w.log);
}

/* ---- posts ---- */

Test(engine_shard, runs_posts_once_and_cancels_what_is_left)
{
    test_options options = world_server_options();
    world_start(&w, &options);
    int counts[2] = {0, 0};
    for (int i = 0; i < 3; i++)
        cr_assert_eq(rws_post(&w.runtime, 0, count_post, counts), 0);
    cr_assert_eq(rws_post(&w.runtime, 1, count_post, counts), RWS_E_ARGUMENT);
    cr_assert_eq(counts[0], 0, "not in the call");
    world_turns(&w, 2);
    cr_assert_eq(counts[0], 3);
    rws_post(&w.runtime, 0, count_post, counts);
    rws__shard_close(w.shard);
    cr_assert_eq(counts[0], 3);
    cr_assert_eq(counts[1], 1);
    cr_assert_eq(rws_post(&w.runtime, 0, count_post, counts), RWS_E_STATE);
    rws__runtime_deinit(&w.runtime);
    feed_bytes_free(&w.log);
}

/* ---- several without threads ---- */

static bool take_turn(rws__shard *shard)
{
    shard->loop.ring->turns_left = 1;
    cr_assert_eq(rws__shard_turn(shard, false), 0);
    return rws__shard_has_ended(shard);
}

Test(engine_shard, takes_its_turns_beside_others_on_one_thread)
{
    static rws_runtime runtime;
    rws_runtime_options options = RWS_RUNTIME_OPTIONS_DEFAULT;
    options.shards = 3;
    options.connections_max = 4;
    rws__runtime_config config;
    rws_error error = {0};
    cr_assert_eq(rws__runtime_config_make(&config, &options, 1, &error), 0, "%s", error.text);
    cr_assert_eq(rws__runtime_init(&runtime, &config, &error), 0, "%s", error.text);
    cr_assert_eq(rws__runtime_open(&runtime, &error), 0, "%s", error.text);
    cr_expect_eq(rws__runtime_open(&runtime, &error), RWS_E_STATE);
    cr_expect_eq(rws__runtime_wait(&runtime), RWS_E_STATE);
    int counts[3][2] = {0};
    for (uint32_t i = 0; i < 3; i++)
        cr_assert_eq(rws_post(&runtime, i, count_post, counts[i]), 0);
    for (uint32_t i = 3; i-- > 0;) {
        cr_expect_not(take_turn(&runtime.workers[i].shard));
        cr_expect_eq(counts[i][0], 1, "shard %u", i);
        cr_expect_eq(counts[(i + 2) % 3][0], i == 0, "the others had no turn");
    }
    /* One of them can't go on; that is its own end. */
    runtime.workers[1].shard.loop.ring->turn_result = -EBADF;
    runtime.workers[1].shard.loop.ring->turns_left = 1;
    cr_expect_eq(rws__shard_turn(&runtime.workers[1].shard, true), -EBADF);
    cr_expect(rws__shard_has_ended(&runtime.workers[1].shard));
    cr_expect_eq(rws__shard_result(&runtime.workers[1].shard), -EBADF);
    rws__runtime_stop(&runtime);
    for (uint32_t i = 0; i < 3; i += 2)
        cr_expect(take_turn(&runtime.workers[i].shard));
    cr_expect_eq(rws__runtime_close(&runtime), -EBADF);
    rws__runtime_deinit(&runtime);
}
