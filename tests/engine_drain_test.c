/*
 * How a shard ends on the scripted ring (ctest: scripted ring): a drain and what comes in while it
 * begins, files that no connection has, a loop that ends with an error.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "support/scripted_shard.h"
#include "support/test_allocator.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static world w;

static void stop(void)
{
    rws__loop_stop(&w.shard->loop);
    world_turns(&w, 3);
}

static script_op *accept_in_flight(void)
{
    script_op *op = script_find(w.ring, SCRIPT_ACCEPT_MULTISHOT, UINT32_MAX);
    return op != NULL ? op : script_find(w.ring, SCRIPT_ACCEPT_DIRECT, UINT32_MAX);
}

/* ---- draining ---- */

/* The accept was not taken back yet: who comes in has the second that requests have in a drain, and
 * not the ten of a handshake, which the drain's own five do not wait for. */
Test(engine_drain, gives_a_second_to_those_who_come_in_while_it_begins)
{
    test_options options = world_server_options();
    world_start(&w, &options);
    w.ring->manual = SCRIPT_BIT(SCRIPT_CANCEL);
    stop();
    cr_assert_not(w.ended);
    uint32_t late = w.next_file++;
    script_complete(w.ring, accept_in_flight(), (int32_t)late, RWS__CQE_MORE);
    world_turns(&w, 2);
    script_complete(w.ring, accept_in_flight(), -ECANCELED, 0);
    w.ring->manual = 0;
    world_turns(&w, 3);
    cr_assert_not(w.ended);
    world_pass(&w, 1000 - RWS__TICK_MS);
    cr_assert_not(w.ring->closed[late]);
    world_pass(&w, 3 * RWS__TICK_MS);
    cr_assert(w.ring->closed[late]);
    cr_assert(w.ended);
    cr_assert_eq(w.result, 0);
    cr_assert_eq(world_stats(&w).cut_off, 0);
    world_end(&w);
}

/* Its request is answered, and nothing is opened. */
Test(engine_drain, refuses_those_who_come_in_while_it_begins)
{
    test_options options = world_server_options();
    world_start(&w, &options);
    w.ring->manual = SCRIPT_BIT(SCRIPT_CANCEL);
    stop();
    uint32_t late = w.next_file++;
    script_complete(w.ring, accept_in_flight(), (int32_t)late, RWS__CQE_MORE);
    world_turns(&w, 2);
    script_complete(w.ring, accept_in_flight(), -ECANCELED, 0);
    w.ring->manual = 0;
    world_turns(&w, 2);
    world_feed(&w, late, world_request, strlen(world_request));
    world_turns(&w, 3);
    feed_bytes_append(&w.ring->wire[late], "", 1);
    cr_assert_not_null(strstr((char *)w.ring->wire[late].data, "HTTP/1.1 503 "));
    world_log_is(&w, "", "nothing is opened");
    world_eof(&w, late);
    world_turns(&w, 3);
    cr_assert(w.ended);
    cr_assert_eq(w.result, 0);
    world_end(&w);
}

/* A connection is opened by the bytes of the turn in which the drain begins. */
Test(engine_drain, closes_what_was_opened_in_its_first_turn)
{
    test_options options = world_server_options();
    world_start(&w, &options);
    uint32_t file = world_accept(&w);
    rws__loop_stop(&w.shard->loop);
    script_recv(w.ring, file, world_request, strlen(world_request), false);
    world_turns(&w, 3);
    world_log_is(&w, "open0 ", "opened");
    feed_bytes *wire = &w.ring->wire[file];
    cr_assert_gt(wire->len, 4);
    cr_assert_eq(memcmp(wire->data + wire->len - 4, "\x88\x02\x03\xe9", 4), 0, "1001");
    world_frame(&w, file, RWS_CLOSE, "\x03\xe9");
    world_turns(&w, 3);
    cr_assert(w.ended);
    cr_assert_eq(w.result, 0);
    world_end(&w);
}

/* Whoever keeps its socket after it was told all is not waited for. */
static void linger(bool kernel_tells, bool acknowledged)
{
    test_options options = world_server_options();
    options.close_timeout_ms = 4900;
    options.drain_timeout_ms = 3000;
    options.features_off = kernel_tells ? 0 : RWS__FEATURE_SOCKET_COMMANDS;
    world_start(&w, &options);
    uint32_t before = world_open(&w), meanwhile = world_open(&w);
    world_feed(&w, before, "\xff\xff", 2); /* a violation: it lingers */
    world_turns(&w, 3);
    cr_assert_not(w.ring->closed[before]);
    if (!acknowledged) w.ring->unacknowledged[before] = w.ring->unacknowledged[meanwhile] = 7;
    stop();
    world_feed(&w, meanwhile, "\xff\xff", 2);
    world_turns(&w, 3);
    world_pass(&w, 700);
    cr_assert_eq(w.ended, acknowledged);
    if (!acknowledged) {
        w.ring->unacknowledged[before] = 0;
        world_pass(&w, 2200);
        cr_assert(w.ring->closed[before]);
        cr_assert_not(w.ended, "the other one may still get it");
        world_pass(&w, 200);
        cr_assert(w.ended);
        cr_assert_eq(world_stats(&w).cut_off, 1);
    }
    cr_assert_eq(w.result, acknowledged ? 0 : RWS_E_TIMEOUT);
    world_end(&w);
}

Test(engine_drain, waits_for_those_who_linger_only_until_they_have_acknowledged_all)
{
    linger(true, true);
    linger(true, false);
    linger(false, true);
}

/* Only its own deadline ends it: neither the close's nor that of lingering does. */
Test(engine_drain, waits_for_a_close_frame_for_as_long_as_it_lasts)
{
    test_options options = world_server_options();
    options.close_timeout_ms = 100;
    options.drain_timeout_ms = 3000;
    world_start(&w, &options);
    uint32_t file = world_open(&w);
    stop();
    world_pass(&w, 2900);
    cr_assert(w.open[file]);
    world_frame(&w, file, RWS_CLOSE, "\x03\xe9");
    world_turns(&w, 3);
    cr_assert(w.ended);
    cr_assert_eq(w.result, 0);
    world_end(&w);
}

/* The question of the close's deadline was under way when the drain began. */
Test(engine_drain, is_not_ended_by_a_question_from_before)
{
    test_options options = world_server_options();
    options.close_timeout_ms = 160;
    world_start(&w, &options);
    uint32_t file = world_open(&w);
    rws_conn_close(world_conn(&w, file), 1000, NULL);
    w.ring->manual = SCRIPT_BIT(SCRIPT_UNACKNOWLEDGED);
    world_pass(&w, 192);
    script_op *op = script_find(w.ring, SCRIPT_UNACKNOWLEDGED, file);
    cr_assert_not_null(op);
    stop();
    script_complete(w.ring, op, 0, 0);
    world_turns(&w, 3);
    cr_assert(w.open[file]);
    world_frame(&w, file, RWS_CLOSE, "\x03\xe8");
    world_turns(&w, 3);
    cr_assert(w.ended);
    cr_assert_eq(w.result, 0);
    world_end(&w);
}

/* No memory for the close frame: it is ended without one, and not forgotten. */
Test(engine_drain, ends_those_who_can_not_be_told)
{
    test_options options = world_server_options();
    options.send_pool_bytes_max = 1u << 20;
    world_start(&w, &options);
    world_open(&w);
    world_turns(&w, 2);
    world_use_up(&w.shard->conns.streams.send_slab);
    stop();
    world_turns(&w, 3);
    world_give_back(&w.shard->conns.streams.send_slab);
    world_log_is(&w, "open0 close0:1006::us ", "ended");
    world_pass(&w, 300);
    cr_assert(w.ended);
    world_end(&w);
}

/* Without a deadline of the drain it ends when the last connection has. */
Test(engine_drain, waits_without_an_end_where_it_may)
{
    test_options options = world_server_options();
    options.drain_timeout_ms = RWS_NEVER;
    options.close_timeout_ms = 300;
    world_start(&w, &options);
    uint32_t file = world_open(&w);
    stop();
    world_pass(&w, 60000);
    cr_assert_not(w.ended);
    cr_assert_str_eq(world_sent(&w, file), "close:1001: ");
    world_frame(&w, file, RWS_CLOSE, "\x03\xe9");
    world_eof(&w, file);
    world_turns(&w, 3);
    cr_assert(w.ended);
    cr_assert_eq(w.result, 0);
    cr_assert_eq(world_stats(&w).timeouts, 0);
    world_end(&w);
}

/* A server that answers the close frame and does not end the transport is no failure of the client,
 * and does not hold it up. */
Test(engine_drain, a_client_does_not_wait_long_for_the_end_of_the_transport)
{
    static const uint32_t drains_ms[] = {5000, 200};
    for (size_t i = 0; i < 2; i++) {
        test_options options = world_server_options();
        options.drain_timeout_ms = drains_ms[i];
        options.close_timeout_ms = 5000;
        world_start_client(&w, &options);
        uint32_t file = world_open_client(&w);
        cr_assert_eq(rws_conn_close(world_conn(&w, file), 1000, NULL), 0);
        world_turns(&w, 2);
        world_frame(&w, file, RWS_CLOSE, "\x03\xe8");
        world_turns(&w, 2);
        cr_assert_eq(w.close_status, 0);
        cr_assert_not(w.ring->closed[file]);
        stop();
        cr_assert_not(w.ended);
        world_pass(&w, drains_ms[i] < 600 ? drains_ms[i] : 600);
        world_turns(&w, 3);
        cr_assert(w.ended);
        cr_assert_eq(w.result, 0);
        cr_assert_eq(world_stats(&w).cut_off, 0);
        world_end(&w);
    }
}

/* What is thrown away is said, though nobody was cut by the drain's deadline. */
Test(engine_drain, says_that_it_discarded_bytes)
{
    test_options options = world_server_options();
    options.send_timeout_ms = 1280;
    options.drain_timeout_ms = 60000;
    world_start(&w, &options);
    uint32_t file = world_open(&w);
    w.ring->manual = SCRIPT_BIT(SCRIPT_SEND);
    static const char data[1000];
    cr_assert_eq(rws_conn_send_binary(world_conn(&w, file), data, sizeof data), 0);
    world_pump(&w);
    script_complete(w.ring, script_find(w.ring, SCRIPT_SEND_QUIET, file), -EAGAIN, 0);
    world_turns(&w, 2);
    stop();
    world_pass(&w, 2000);
    cr_assert(w.ended);
    cr_assert_eq(w.result, RWS_E_TIMEOUT);
    cr_assert_eq(world_stats(&w).cut_off, 0);
    cr_assert_eq(world_stats(&w).timeouts, 1);
    cr_assert_eq(world_stats(&w).bytes_discarded, 1000 + 4 + 4);
    world_end(&w);
}

/* ---- files that no connection has ---- */

/* More are accepted than there are slots; the ring takes their closes only later. */
Test(engine_drain, closes_files_without_a_slot_when_the_ring_takes_it)
{
    for (uint32_t refused = 0; refused < 8; refused++) {
        test_options options = world_server_options();
        options.connections_max = 1;
        world_start(&w, &options);
        uint32_t slots = w.shard->conns.streams.options.slots_max;
        script_op *op = script_find(w.ring, SCRIPT_ACCEPT_MULTISHOT, UINT32_MAX);
        cr_assert_not_null(op);
        w.ring->refuse[SCRIPT_CLOSE] = refused;
        for (uint32_t i = 0; i < slots + 5; i++)
            script_complete(w.ring, op, (int32_t)w.next_file++, RWS__CQE_MORE);
        world_turns(&w, refused + 3);
        for (uint32_t file = slots; file < slots + 5; file++)
            cr_assert(w.ring->closed[file], "%u refused: file %u", refused, file);
        for (uint32_t file = 0; file < slots; file++)
            cr_assert_not(w.ring->closed[file]);
        world_end(&w);
    }
}

/* The shard that was to have it has ended with the post on its way. */
Test(engine_drain, answers_what_was_handed_to_a_shard_that_has_ended)
{
    test_options options = world_server_options();
    options.unix_path = "/nowhere/drain.sock";
    options.shards = 2;
    world_start(&w, &options);
    int fds[2];
    for (int i = 0; i < 2; i++) {
        fds[i] = script_socket();
        script_op *op = script_find(w.ring, SCRIPT_ACCEPT_FD, UINT32_MAX);
        cr_assert_not_null(op);
        script_complete(w.ring, op, fds[i], 0);
        world_turns(&w, 2);
    }
    cr_assert_eq(w.shard->conns.streams.slots_used, 1, "one is this shard's");
    rws__loop_close_mailbox(&w.runtime.workers[1].shard.loop);
    cr_assert_eq(script_net.turned_away, 1);
    cr_assert_eq(strncmp(script_net.answer, "HTTP/1.1 503 ", 13), 0, "%s", script_net.answer);
    cr_assert_not(script_socket_is_open(fds[1]));
    world_end(&w);
}

/* ---- those who linger make room ---- */

Test(engine_drain, closes_the_one_that_lingers_longest_for_a_new_one)
{
    test_options options = world_server_options();
    options.connections_max = 1;
    world_start(&w, &options);
    uint32_t slots = w.shard->conns.streams.options.slots_max;
    uint32_t kept_free = RWS__RESERVE_FREE + RWS__RESERVE_DIALS;
    w.upgrade_result = -1;
    uint32_t first = w.next_file;
    for (uint32_t i = 0; i < 3 * slots; i++) {
        uint32_t file = world_accept(&w);
        world_feed(&w, file, world_request, strlen(world_request));
        world_turns(&w, 2);
        cr_assert_not(w.ring->closed[file], "client %u is waited for", i);
        cr_assert_geq(slots - w.shard->conns.streams.slots_used, kept_free - 1);
        bool makes_room = i + kept_free > slots;
        cr_assert_eq(w.ring->closed[first], makes_room, "client %u", i);
        if (makes_room) first++;
    }
    world_end(&w);
}

/* ---- the loop ends with an error ---- */

typedef enum moment {
    NO_REQUEST,
    HALF_A_REQUEST,
    OPEN,
    HALF_A_MESSAGE,
    PAUSED,
    QUEUED,
    CLOSE_SENT,
    CLOSE_RECEIVED,
    ABORTED, /* in the same turn */
    LINGERS,
    CLOSED,
    MOMENTS
} moment;

static uint32_t take_moment(moment at)
{
    if (at == NO_REQUEST) return world_accept(&w);
    if (at == HALF_A_REQUEST) {
        uint32_t waits = world_accept(&w);
        world_feed(&w, waits, world_request, 40);
        return waits;
    }
    uint32_t file = world_open(&w);
    rws_conn *conn = world_conn(&w, file);
    static const char large[100000];
    switch (at) {
    case HALF_A_MESSAGE: world_feed(&w, file, "\x82\xfe\x10", 3); break;
    case PAUSED: rws_conn_pause(conn); break;
    case QUEUED: rws_conn_send_binary(conn, large, sizeof large); break;
    case CLOSE_SENT: rws_conn_close(conn, 1000, NULL); break;
    case CLOSE_RECEIVED: world_frame(&w, file, RWS_CLOSE, "\x03\xe8"); break;
    case ABORTED: rws_conn_abort(conn); break;
    case LINGERS: world_feed(&w, file, "\xff\xff", 2); break;
    case CLOSED:
        rws_conn_abort(conn);
        world_pump(&w);
        break;
    default: break;
    }
    return file;
}

/* `aborts`: what the program still does with a connection when its posts are cancelled. */
static void end_early(rws_conn *aborts)
{
    w.ring->turn_result = -EBADF;
    world_turn(&w);
    cr_assert(w.ended);
    cr_assert_eq(w.result, -EBADF);
    if (aborts != NULL) rws_conn_abort(aborts);
    rws__shard_close(w.shard);
    cr_expect_eq(w.shard->conns.streams.slots_used, 0);
    cr_expect_eq(w.shard->conns.streams.send_slab.used_bytes, 0);
    cr_expect_eq(w.shard->conns.streams.partial->slab.used_bytes, 0);
    cr_expect_eq(w.shard->conns.open_count, 0);
    cr_expect_null(w.broken, "the callback %s came out of order", w.broken);
    for (uint32_t file = 0; file < SCRIPT_FILES; file++)
        cr_expect_not(w.open[file], "on_close is missing for %u", file);
}

static void forget(void)
{
    rws__runtime_deinit(&w.runtime);
    feed_bytes_free(&w.log);
}

Test(engine_drain, tells_everybody_once_when_the_loop_ends_with_an_error)
{
    for (int draining = 0; draining < 2; draining++) {
        for (uint64_t manual = 0; manual < 2; manual++) {
            test_options options = world_server_options();
            options.handle_close = true;
            options.connections_max = MOMENTS;
            world_start(&w, &options);
            uint32_t opens = 0;
            for (moment at = 0; at < MOMENTS; at++) {
                /* The last ones are in flight when it ends. */
                if (at == QUEUED && manual)
                    w.ring->manual = SCRIPT_BIT(SCRIPT_SEND) | SCRIPT_BIT(SCRIPT_SHUTDOWN) |
                                     SCRIPT_BIT(SCRIPT_CLOSE) | SCRIPT_BIT(SCRIPT_CANCEL);
                take_moment(at);
                opens += at >= OPEN;
            }
            if (draining) stop();
            end_early(world_conn(&w, OPEN));
            cr_expect_eq(w.closes, opens, "%u instead of %u", w.closes, opens);
            forget();
        }
    }
}

/* What the kernel was lent comes back with the ring: nothing keeps the memory. */
Test(engine_drain, gives_loans_back_when_the_loop_ends_with_an_error)
{
    static test_allocator memory;
    static const rws_allocator counting = TEST_ALLOCATOR(&memory);
    static const char large[200000];
    for (int result_was_posted = 0; result_was_posted < 2; result_was_posted++) {
        test_options options = world_server_options();
        options.message_bytes_max = 1u << 20;
        world_start(&w, &options);
        w.shard->listeners[0].loopback = false;
        uint32_t file = world_open(&w);
        w.ring->manual = SCRIPT_BIT(SCRIPT_SEND_ZERO_COPY);
        rws_message *message;
        cr_assert_eq(rws_message_create(&message, &counting, RWS_BINARY, large, sizeof large), 0);
        cr_assert_eq(rws_conn_send_message(world_conn(&w, file), message), 0);
        rws_message_release(message);
        world_turns(&w, 2);
        script_op *op = script_find(w.ring, SCRIPT_SEND_ZERO_COPY, file);
        cr_assert_not_null(op);
        cr_assert_gt(memory.bytes, sizeof large);
        if (result_was_posted) {
            script_complete(w.ring, op, (int32_t)op->len, RWS__CQE_MORE);
            world_turns(&w, 2);
        }
        end_early(NULL);
        cr_assert_eq(memory.bytes, 0, "%zu bytes are still lent", memory.bytes);
        forget();
    }
}
