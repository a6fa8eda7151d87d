/*
 * The testing kit: the virtual clock meets every deadline of the engine at its time, in no time.
 * ctest: testing kit
 */
#include "support/kit_log.h"

#include <criterion/criterion.h>
#include <stdlib.h>

/* Deadlines pass in ticks. */
#define TICK_MS 16u

static kit_log events;
static rws_handler handler;
static rws_endpoint_options endpoint;
static rws_runtime_options runtime;
static rws_listener_options listener;
static rws_test_options options;

static void defaults(void)
{
    handler = kit_handler();
    events = (kit_log){.len = 0};
    endpoint = kit_endpoint(&handler, &events);
    runtime = (rws_runtime_options)RWS_RUNTIME_OPTIONS_DEFAULT;
    listener = (rws_listener_options)RWS_LISTENER_OPTIONS_DEFAULT;
    options = (rws_test_options)RWS_TEST_OPTIONS_DEFAULT;
    options.endpoint = &endpoint;
    options.runtime = &runtime;
    options.listener = &listener;
}

TestSuite(engine_testing_time, .init = defaults);

/* Nothing is received up to 1 ms before the deadline, and `after_it` a tick later. */
#define MEETS(test, peer, ms, after_it)                                                            \
    do {                                                                                           \
        rws_test_advance(test, (ms)-1);                                                            \
        rws_test_expect_nothing(peer);                                                             \
        rws_test_advance(test, 1 + 2 * TICK_MS);                                                   \
        after_it;                                                                                  \
    } while (0)

Test(engine_testing_time, time_stands_still_and_goes_as_far_as_it_is_told)
{
    rws_test *test = rws_test_open_with(&options);
    uint64_t start_ms = rws_test_now_ms(test);
    rws_test_peer *peer = rws_test_connect(test);
    rws_test_feed_text(peer, "a");
    rws_test_expect_text(peer, "a");
    rws_test_advance(test, 0);
    cr_assert_eq(rws_test_now_ms(test), start_ms);
    rws_test_advance(test, 1);
    cr_assert_eq(rws_test_now_ms(test), start_ms + 1);
    rws_test_advance(test, 7ull * 24 * 3600 * 1000);
    cr_assert_eq(rws_test_now_ms(test), start_ms + 1 + 7ull * 24 * 3600 * 1000);
    rws_test_feed_text(peer, "b");
    rws_test_expect_text(peer, "b");
    cr_assert(rws_test_close(test));
}

Test(engine_testing_time, the_handshake)
{
    listener.handshake_timeout_ms = 700;
    rws_test *test = rws_test_open_with(&options);
    rws_test_peer *silent = rws_test_connect_raw(test, NULL, 0);
    MEETS(test, silent, 700, rws_test_expect_ended(silent));
    rws_test_peer *slow = rws_test_connect_raw(test, "GET / HTTP/1.1\r\n", 16);
    MEETS(test, slow, 700, rws_test_expect_ended(slow));
    cr_assert_str_eq(events.text, "");
    cr_assert(rws_test_close(test));
}

Test(engine_testing_time, a_message)
{
    endpoint.message_timeout_ms = 5000;
    rws_test *test = rws_test_open_with(&options);
    rws_test_peer *peer = rws_test_connect(test);
    rws_test_feed_frame(peer, RWS_TEXT, false, "half", 4);
    MEETS(test, peer, 5000, rws_test_expect_close(peer, RWS_CLOSE_POLICY_VIOLATION));
    rws_test_feed_close(peer, 1008, NULL);
    rws_test_feed_end(peer);
    rws_test_expect_ended(peer);
    cr_assert_str_eq(events.text, "open; close -5012 1008 us; ");
    cr_assert(rws_test_close(test));
}

Test(engine_testing_time, a_close)
{
    endpoint.close_timeout_ms = 3000;
    rws_test *test = rws_test_open_with(&options);
    rws_test_peer *peer = rws_test_connect(test);
    rws_conn_close(rws_test_conn(peer), 1000, NULL);
    rws_test_expect_close(peer, 1000);
    MEETS(test, peer, 3000, rws_test_expect_ended(peer));
    cr_assert_str_eq(events.text, "open; close -5012 1006 us; ");
    cr_assert(rws_test_close(test));
}

Test(engine_testing_time, sending)
{
    runtime.send_timeout_ms = 4000;
    rws_test *test = rws_test_open_with(&options);
    rws_test_peer *peer = rws_test_connect(test);
    static const char block[16384] = "block";
    rws_test_stop_reading(peer);
    while (rws_conn_send_binary(rws_test_conn(peer), block, sizeof block) == 0)
        rws_test_advance(test, 0);
    rws_test_advance(test, 3999);
    cr_assert_str_eq(events.text, "open; ");
    /* At most a quarter late, and a tick for each of ten looks. */
    rws_test_advance(test, 1 + 4000 / 4 + 10 * TICK_MS);
    cr_assert_str_eq(events.text, "open; close -5012 1006 us; ");
    cr_assert(rws_test_close(test));
}

/* After the end of this side the peer's is waited for. */
Test(engine_testing_time, lingering)
{
    runtime.linger_timeout_ms = 2000;
    rws_test *test = rws_test_open_with(&options);
    rws_test_peer *refused = rws_test_connect_raw(test, "PUT / HTTP/1.1\r\nHost: a\r\n\r\n", 27);
    rws_test_expect_refused(refused, 405);
    rws_stats stats = {.size = sizeof stats};
    rws_test_advance(test, 1999);
    rws_server_stats(rws_test_server(test), &stats);
    cr_assert_eq(stats.connections, 1);
    rws_test_advance(test, 1 + 2 * TICK_MS);
    rws_server_stats(rws_test_server(test), &stats);
    cr_assert_eq(stats.connections, 0);
    cr_assert(rws_test_close(test));
}

Test(engine_testing_time, a_drain)
{
    runtime.drain_timeout_ms = 1500;
    endpoint.close_timeout_ms = 60000;
    rws_test *test = rws_test_open_with(&options);
    rws_test_peer *peer = rws_test_connect(test);
    rws_test_stop(test);
    rws_test_expect_close(peer, RWS_CLOSE_GOING_AWAY);
    MEETS(test, peer, 1500, rws_test_expect_ended(peer));
    cr_assert(rws_test_has_ended(test));
    cr_assert_str_eq(events.text, "open; close -5012 1006 us; ");
    rws_test_advance(test, 1000);
    cr_assert(rws_test_close(test));
}

Test(engine_testing_time, a_drain_of_peers_that_close)
{
    rws_test *test = rws_test_open_with(&options);
    rws_test_peer *peer = rws_test_connect(test);
    cr_assert_not(rws_test_has_ended(test));
    rws_server_stop(rws_test_server(test));
    rws_test_expect_close(peer, RWS_CLOSE_GOING_AWAY);
    rws_test_feed_close(peer, RWS_CLOSE_GOING_AWAY, NULL);
    rws_test_feed_end(peer);
    rws_test_expect_ended(peer);
    cr_assert(rws_test_has_ended(test));
    cr_assert(rws_test_close(test));
}

/* rws_test_close() waits for nobody longer than a drain does. */
Test(engine_testing_time, a_test_ends_with_peers_that_are_gone)
{
    rws_test *test = rws_test_open_with(&options);
    rws_test_peer *vanished = rws_test_connect(test);
    rws_test_vanish(vanished);
    rws_test_stop_reading(rws_test_connect(test));
    rws_test_connect_raw(test, "GET ", 4);
    cr_assert(rws_test_close(test));
    cr_assert_not_null(strstr(events.text, "close -5012 1006 us; "));
}
