/*
 * The handler of examples/echo.c, tested by a plain program with assert(): a failed expectation
 * prints what was expected and what was received, and aborts, as assert() does.
 */
#include <assert.h>
#include <ringws/testing.h>

#define main example_main
#include "../echo.c" // NOLINT(bugprone-suspicious-include): its functions are static
#undef main

#ifdef NDEBUG
#error "without assert() this tests less than it says"
#endif

static void test_echo(void)
{
    rws_test *test = rws_test_open(&handler, NULL);
    rws_test_peer *peer = rws_test_connect(test);
    rws_test_feed_text(peer, "hello");
    rws_test_expect_text(peer, "hello");
    rws_test_feed_binary(peer, "\x00\xff", 2);
    rws_test_expect_binary(peer, "\x00\xff", 2);
    rws_test_close(test);
}

static void test_fragments_are_one_message(void)
{
    rws_test *test = rws_test_open(&handler, NULL);
    rws_test_peer *peer = rws_test_connect(test);
    const rws_span pieces[] = {{"hel", 3}, {"lo", 2}};
    rws_test_feed_fragments(peer, RWS_TEXT, pieces, 2);
    rws_test_expect_text(peer, "hello");
    rws_test_expect_nothing(peer);
    rws_test_close(test);
}

static void test_a_client_that_says_half_a_message(void)
{
    rws_test *test = rws_test_open(&handler, NULL);
    rws_test_peer *peer = rws_test_connect(test);
    rws_test_feed_frame(peer, RWS_TEXT, false, "half", 4);
    rws_test_advance(test, 59 * 1000);
    rws_test_expect_nothing(peer);
    rws_test_advance(test, 2 * 1000);
    rws_test_expect_close(peer, RWS_CLOSE_POLICY_VIOLATION);
    rws_stats stats = {.size = sizeof stats};
    rws_server_stats(rws_test_server(test), &stats);
    assert(stats.messages_received == 0);
    assert(stats.timeouts == 1);
    rws_test_close(test);
}

int main(void)
{
    test_echo();
    test_fragments_are_one_message();
    test_a_client_that_says_half_a_message();
    return 0;
}
