/*
 * Sending on the scripted ring (ctest: scripted ring): whatever a send completes with, the bytes
 * leave whole, once and in order, or the connection ends.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "support/scripted_shard.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static world w;

static void start(void)
{
    test_options options = world_server_options();
    world_start(&w, &options);
}

static void send_text(uint32_t file, const char *text)
{
    cr_assert_eq(rws_conn_send_text(world_conn(&w, file), text, strlen(text)), 0);
}

static void check_counters(const char *name, uint64_t bytes)
{
    rws_stats stats = world_stats(&w);
    cr_expect_eq(stats.bytes_sent, bytes, "%s: %llu bytes counted", name,
                 (unsigned long long)stats.bytes_sent);
}

/* The results of the sends of one message, in turn; then everything succeeds. ALL: as asked. */
#define ALL     100000
#define NOTHING 200000
static const struct send_case {
    const char *name;
    int32_t results[6];
} send_cases[] = {
    {"quiet", {ALL}},
    {"quiet: socket full", {-EAGAIN, ALL}},
    {"quiet: interrupted", {-EINTR, ALL}},
    {"quiet: no buffers", {-ENOBUFS, ALL}},
    {"quiet: no memory", {-ENOMEM, ALL}},
    {"quiet: cancelled", {-ECANCELED, ALL}},
    {"quiet: nothing", {NOTHING, ALL}},
    {"quiet: one byte", {1, ALL}},
    {"quiet: all but one byte", {12, ALL}},
    {"counted: short", {-EAGAIN, 1, ALL}},
    {"counted: nothing", {-EAGAIN, NOTHING, ALL}},
    {"counted: socket full", {-EAGAIN, -EAGAIN, ALL}},
    {"counted: interrupted", {-EAGAIN, -EINTR, ALL}},
    {"counted: no memory", {3, -ENOMEM, ALL}},
    {"counted: cancelled", {3, -ECANCELED, ALL}},
    {"counted: byte by byte", {1, 1, 1, 1, 1, 1}},
};

/* Complete the send in flight; returns whether there was one. */
static bool complete_send(uint32_t file, int32_t res)
{
    script_op *op = script_find(w.ring, SCRIPT_SEND_QUIET, file);
    if (op == NULL) op = script_find(w.ring, SCRIPT_SEND, file);
    if (op == NULL) return false;
    if (res == NOTHING) res = 0;
    script_complete(w.ring, op, res > (int32_t)op->len ? (int32_t)op->len : res, 0);
    return true;
}

static void check_send(const struct send_case *row)
{
    start();
    uint32_t file = world_open(&w);
    rws_stats before = world_stats(&w);
    w.ring->manual = SCRIPT_BIT(SCRIPT_SEND);
    send_text(file, "hello there");
    world_pump(&w);
    for (size_t i = 0; i < COUNT(row->results) && row->results[i] != 0; i++) {
        cr_assert(complete_send(file, row->results[i]), "%s: result %zu has no send", row->name, i);
        if (i == 0) send_text(file, "and more"); /* comes while the first is on its way */
        world_turn(&w);
    }
    for (int i = 0; i < 10; i++) {
        complete_send(file, ALL);
        world_turn(&w);
    }
    cr_expect_str_eq(world_sent(&w, file), "text:hello there text:and more ", "%s: %s", row->name,
                     world_sent(&w, file));
    cr_expect_eq(rws_conn_buffered(world_conn(&w, file)), 0);
    check_counters(row->name, before.bytes_sent + w.ring->wire[file].len);
    world_log_is(&w, "open0 ", row->name);
    world_end(&w);
}

Test(engine_conn_send, loses_nothing_whatever_a_send_returns)
{
    for (size_t i = 0; i < COUNT(send_cases); i++)
        check_send(&send_cases[i]);
}

Test(engine_conn_send, is_counted_after_a_quiet_send_that_met_a_full_socket)
{
    start();
    uint32_t file = world_open(&w);
    w.ring->manual = SCRIPT_BIT(SCRIPT_SEND);
    send_text(file, "one");
    world_pump(&w);
    complete_send(file, -EAGAIN);
    world_turn(&w);
    cr_assert_null(script_find(w.ring, SCRIPT_SEND_QUIET, file));
    cr_assert_not_null(script_find(w.ring, SCRIPT_SEND, file));
    complete_send(file, ALL);
    world_turn(&w);
    send_text(file, "two");
    world_pump(&w);
    cr_assert_not_null(script_find(w.ring, SCRIPT_SEND_QUIET, file), "quiet again after a success");
    world_end(&w);
}

Test(engine_conn_send, has_one_send_in_flight)
{
    start();
    uint32_t file = world_open(&w);
    w.ring->manual = SCRIPT_BIT(SCRIPT_SEND);
    send_text(file, "one");
    world_pump(&w);
    complete_send(file, 2);
    world_turn(&w);
    for (int i = 0; i < 5; i++) {
        send_text(file, "more");
        world_turn(&w);
        cr_assert_eq(script_count(w.ring, file), 2, "a receive and a send");
    }
    complete_send(file, ALL);
    world_turn(&w);
    complete_send(file, ALL);
    world_turn(&w);
    cr_assert_str_eq(world_sent(&w, file), "text:one text:more text:more text:more text:more "
                                           "text:more ");
    world_end(&w);
}

Test(engine_conn_send, ends_the_connection_when_the_transport_broke)
{
    static const int32_t fatal[] = {-EPIPE, -ECONNRESET, -ETIMEDOUT, -EIO, -EBADF, -EHOSTUNREACH};
    for (size_t i = 0; i < 2 * COUNT(fatal); i++) {
        bool counted = i >= COUNT(fatal);
        start();
        uint32_t file = world_open(&w);
        w.ring->manual = SCRIPT_BIT(SCRIPT_SEND);
        send_text(file, "hello");
        world_pump(&w);
        if (counted) {
            complete_send(file, -EAGAIN);
            world_turn(&w);
        }
        complete_send(file, fatal[i % COUNT(fatal)]);
        world_turns(&w, 3);
        world_log_is(&w, "open0 close0:1006::peer ", strerror(-fatal[i % COUNT(fatal)]));
        cr_assert(w.ring->closed[file]);
        cr_assert_eq(w.shard->conns.streams.slots_used, 0);
        world_end(&w);
    }
}

/* What is sent is not touched while the kernel has it, although the program is through with it. */
Test(engine_conn_send, keeps_the_memory_of_a_send_until_its_completion)
{
    start();
    uint32_t file = world_open(&w), other = world_open(&w);
    w.ring->manual = SCRIPT_BIT(SCRIPT_SEND) | SCRIPT_BIT(SCRIPT_CANCEL_FILE);
    send_text(file, "slow");
    world_pump(&w);
    complete_send(file, -EAGAIN);
    world_turn(&w);
    rws_conn_abort(world_conn(&w, file));
    world_turns(&w, 3);
    cr_assert(w.ring->closed[file]);
    script_complete(w.ring, script_find_recv(w.ring, file), -ECANCELED, 0);
    for (int i = 0; i < 8; i++) {
        send_text(other, "others write what was freed");
        world_turn(&w);
    }
    cr_assert_eq(w.shard->conns.streams.slots_used, 2, "its send is in flight");
    complete_send(file, -ECANCELED); /* compares the memory */
    world_turns(&w, 2);
    cr_assert_eq(w.shard->conns.streams.slots_used, 1);
    cr_assert_null(w.ring->broken, "%s", w.ring->broken);
    world_end(&w);
}

/* ---- quiet sends ---- */

Test(engine_conn_send, settles_a_quiet_send_only_when_it_was_submitted)
{
    start();
    uint32_t file = world_open(&w);
    send_text(file, "hello");
    w.ring->submit_max = 0;
    world_turns(&w, 3);
    cr_assert_gt(rws_conn_buffered(world_conn(&w, file)), 0, "nothing was submitted");
    w.ring->submit_max = UINT32_MAX;
    world_turns(&w, 2);
    cr_assert_eq(rws_conn_buffered(world_conn(&w, file)), 0);
    cr_assert_str_eq(world_sent(&w, file), "text:hello ");
    world_end(&w);
}

/* An accept queues an operation while completions are handled: that is not a left-over. */
Test(engine_conn_send, settles_a_quiet_send_in_a_turn_that_accepts)
{
    start();
    uint32_t file = world_open(&w);
    send_text(file, "hello");
    world_pump(&w);
    for (int i = 0; i < 3; i++) {
        script_op *op = script_find(w.ring, SCRIPT_ACCEPT_MULTISHOT, UINT32_MAX);
        script_complete(w.ring, op, (int32_t)w.next_file++, RWS__CQE_MORE);
        world_turn(&w);
        cr_assert_eq(rws_conn_buffered(world_conn(&w, file)), 0, "turn %d", i);
        send_text(file, "hello");
        world_pump(&w);
    }
    world_end(&w);
}

Test(engine_conn_send, counts_every_send_if_the_feature_is_off)
{
    test_options options = world_server_options();
    options.features_off = RWS__FEATURE_SKIP_SUCCESS;
    world_start(&w, &options);
    uint32_t file = world_open(&w);
    send_text(file, "hello");
    world_turns(&w, 2);
    cr_assert_eq(w.ring->calls_of[SCRIPT_SEND_QUIET], 0);
    cr_assert_str_eq(world_sent(&w, file), "text:hello ");
    world_end(&w);
}

Test(engine_conn_send, counts_a_large_send_from_the_start)
{
    static const struct {
        size_t len;
        uint64_t quiet;
        const char *sent;
    } rows[] = {{262134, 1, "binary:262134 "}, {262135, 0, "binary:262135 "}};
    static const char zeros[262135];
    for (size_t i = 0; i < 2; i++) { /* with its header of 10 bytes: 256 KiB, and one more */
        test_options options = world_server_options();
        options.high_watermark_bytes = 1u << 20; /* above it none is quiet */
        world_start(&w, &options);
        uint32_t file = world_open(&w);
        uint64_t before = w.ring->calls_of[SCRIPT_SEND_QUIET];
        cr_assert_eq(rws_conn_send_binary(world_conn(&w, file), zeros, rows[i].len), 0);
        world_turns(&w, 3);
        cr_expect_eq(w.ring->calls_of[SCRIPT_SEND_QUIET] - before, rows[i].quiet);
        cr_assert_str_eq(world_sent(&w, file), rows[i].sent);
        world_end(&w);
    }
}

/* ---- backpressure ---- */

static void start_with_watermarks(void)
{
    test_options options = world_server_options();
    options.high_watermark_bytes = 1000;
    options.low_watermark_bytes = 100;
    options.send_queue_bytes_max = 2000;
    world_start(&w, &options);
}

Test(engine_conn_send, stops_reading_above_the_high_watermark_and_goes_on_at_the_low_one)
{
    start_with_watermarks();
    uint32_t file = world_open(&w);
    static const char data[990];
    w.ring->manual = SCRIPT_BIT(SCRIPT_SEND);
    cr_assert_eq(rws_conn_send_binary(world_conn(&w, file), data, sizeof data), 0);
    world_pump(&w);
    complete_send(file, -EAGAIN);
    world_turns(&w, 2);
    cr_assert_not_null(script_find_recv(w.ring, file), "at the high watermark it reads");
    send_text(file, "x");
    send_text(file, "x");
    send_text(file, "x");
    world_turns(&w, 2);
    cr_assert_null(script_find_recv(w.ring, file), "above it reading has stopped");
    complete_send(file, 800);
    world_turns(&w, 2);
    cr_assert_null(script_find_recv(w.ring, file), "between the marks it stays so");
    complete_send(file, 150);
    world_turns(&w, 2);
    cr_assert_not_null(script_find_recv(w.ring, file), "at the low watermark it reads again");
    world_log_is(&w, "open0 drain0 ", "backpressure");
    world_end(&w);
}

Test(engine_conn_send, refuses_what_is_over_the_bound_and_tells_when_there_is_room)
{
    start_with_watermarks();
    uint32_t file = world_open(&w);
    rws_conn *conn = world_conn(&w, file);
    static const char data[1500], huge[100000];
    w.ring->manual = SCRIPT_BIT(SCRIPT_SEND);
    cr_assert_eq(rws_conn_send_binary(conn, huge, sizeof huge), 0, "on an empty queue");
    cr_assert_eq(rws_conn_send_binary(conn, data, sizeof data), RWS_E_BACKLOG);
    cr_assert_eq(rws_conn_send_frame(conn, RWS_TEXT, false, data, sizeof data), RWS_E_BACKLOG);
    cr_assert_eq(rws_conn_send_frame(conn, RWS_PING, true, "p", 1), RWS_E_BACKLOG);
    world_turn(&w);
    complete_send(file, ALL);
    world_turns(&w, 2);
    world_log_is(&w, "open0 drain0 ", "room again");
    cr_assert_eq(rws_conn_send_binary(conn, data, sizeof data), 0);
    cr_assert_eq(rws_conn_send_binary(conn, data, 600), RWS_E_BACKLOG);
    cr_assert_eq(rws_conn_send_frame(conn, RWS_PING, true, "p", 1), 0, "control frames have a bit");
    world_turn(&w);
    complete_send(file, ALL);
    world_turns(&w, 3);
    complete_send(file, ALL);
    world_turns(&w, 3);
    world_log_is(&w, "drain0 ", "room again");
    cr_assert_str_eq(world_sent(&w, file), "binary:100000 binary:1500 ping:p ");
    world_end(&w);
}

/* ---- the rules of rws_conn_send…() ---- */

Test(engine_conn_send, keeps_the_order_of_frames)
{
    start();
    uint32_t file = world_open(&w);
    rws_conn *conn = world_conn(&w, file);
    static const char big[126];
    cr_assert_eq(rws_conn_send_frame(conn, RWS_CONTINUATION, true, "x", 1), RWS_E_STATE);
    cr_assert_eq(rws_conn_send_frame(conn, RWS_TEXT, false, "he", 2), 0);
    cr_assert_eq(rws_conn_send_frame(conn, RWS_BINARY, false, "x", 1), RWS_E_STATE);
    cr_assert_eq(rws_conn_send_text(conn, "x", 1), RWS_E_STATE, "a message is being sent");
    cr_assert_eq(rws_conn_send_frame(conn, RWS_PING, true, "p", 1), 0);
    cr_assert_eq(rws_conn_send_frame(conn, RWS_PING, false, "p", 1), RWS_E_ARGUMENT);
    cr_assert_eq(rws_conn_send_frame(conn, RWS_PONG, true, big, sizeof big), RWS_E_ARGUMENT);
    cr_assert_eq(rws_conn_send_frame(conn, RWS_CLOSE, true, NULL, 0), RWS_E_ARGUMENT);
    cr_assert_eq(rws_conn_send_frame(conn, RWS_CONTINUATION, true, "llo", 3), 0);
    cr_assert_eq(rws_conn_send(conn, RWS_PING, "x", 1), RWS_E_ARGUMENT);
    cr_assert_eq(rws_conn_send(conn, (rws_opcode)3, "x", 1), RWS_E_ARGUMENT);
    cr_assert_eq(rws_conn_send_text(conn, NULL, 1), RWS_E_ARGUMENT);
    cr_assert_eq(rws_conn_send_text(conn, NULL, 0), 0);
    world_turns(&w, 2);
    cr_assert_eq(w.ring->wire[file].data[0], 0x01, "the first frame is not the last");
    cr_assert_str_eq(world_sent(&w, file), "text:he ping:p more:llo text: ");
    world_end(&w);
}

Test(engine_conn_send, refuses_to_send_once_it_is_closing)
{
    start();
    uint32_t file = world_open(&w);
    rws_conn *conn = world_conn(&w, file);
    cr_assert_eq(rws_conn_close(conn, 999, NULL), RWS_E_ARGUMENT);
    cr_assert_eq(rws_conn_close(conn, 1000, "\xff"), RWS_E_ARGUMENT);
    cr_assert_eq(rws_conn_close(conn, 4000, "done"), 0);
    cr_assert_eq(rws_conn_close(conn, 1000, NULL), RWS_E_STATE);
    cr_assert_eq(rws_conn_send_text(conn, "x", 1), RWS_E_STATE);
    cr_assert_eq(rws_conn_send_frame(conn, RWS_PING, true, NULL, 0), RWS_E_STATE);
    world_turns(&w, 2);
    cr_assert_str_eq(world_sent(&w, file), "close:4000:done ");
    world_end(&w);
}

Test(engine_conn_send, reports_a_pool_that_is_used_up)
{
    test_options options = world_server_options();
    options.send_pool_bytes_max = 262144;
    options.send_queue_bytes_max = 1u << 20;
    world_start(&w, &options);
    uint32_t file = world_open(&w);
    rws_conn *conn = world_conn(&w, file);
    static const char data[40000], small[1000];
    cr_assert_eq(rws_conn_send_binary(conn, data, sizeof data), 0);
    int res = 0, sent = 0;
    while (sent < 1000 && (res = rws_conn_send_binary(conn, small, sizeof small)) == 0)
        sent++;
    cr_assert_eq(res, -ENOMEM);
    world_turns(&w, 10);
    cr_assert_eq(rws_conn_buffered(conn), 0);
    cr_assert_eq(w.ring->wire[file].len, 40004 + (size_t)sent * 1004);
    cr_assert_eq(rws_conn_send_binary(conn, data, sizeof data), 0, "room again");
    world_end(&w);
}
