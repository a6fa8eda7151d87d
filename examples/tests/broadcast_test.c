/*
 * The chat room of examples/broadcast.c, tested with Criterion. Each of its tests runs in a process
 * of its own; a hook turns a failed expectation into one of Criterion's.
 */
#include <criterion/criterion.h>
#include <ringws/testing.h>

#define main example_main
#include "../broadcast.c" // NOLINT(bugprone-suspicious-include): its functions are static
#undef main

static room lobby;
static rws_test *test;

static void on_failure(const char *file, int line, const char *text, void *user)
{
    (void)user;
    cr_assert(false, "%s:%d: %s", file, line, text);
}

static void enter(void)
{
    rws_test_on_failure(on_failure, NULL);
    rws_endpoint_options endpoint = RWS_ENDPOINT_OPTIONS_DEFAULT;
    endpoint.handler = &handler;
    endpoint.user = &lobby;
    test = rws_test_open(NULL, &endpoint);
}

static void leave(void)
{
    rws_test_close(test);
    cr_assert_eq(lobby.count, 0);
    free(lobby.members);
}

// cppcheck-suppress unknownMacro
TestSuite(broadcast, .init = enter, .fini = leave);

Test(broadcast, everybody_gets_every_message)
{
    rws_test_peer *peers[20];
    for (int i = 0; i < 20; i++)
        peers[i] = rws_test_connect(test);
    rws_test_feed_text(peers[3], "from three");
    rws_test_feed_binary(peers[19], "\1\2", 2);
    for (int i = 0; i < 20; i++)
        rws_test_expect_message(peers[i], RWS_MESSAGE_BINARY("\1\2"),
                                RWS_MESSAGE_TEXT("from three"), NULL);
}

Test(broadcast, who_has_left_gets_nothing)
{
    rws_test_peer *alice = rws_test_connect(test), *bob = rws_test_connect(test),
                  *eve = rws_test_connect(test);
    rws_test_reset(alice);
    rws_test_feed_close(eve, RWS_CLOSE_NORMAL, NULL);
    rws_test_expect_close(eve, RWS_CLOSE_NORMAL);
    cr_assert_eq(lobby.count, 1);
    rws_test_feed_text(bob, "anybody?");
    rws_test_expect_text(bob, "anybody?");
    rws_test_expect_ended(eve);
}

Test(broadcast, who_does_not_read_is_sent_away)
{
    rws_test_peer *slow = rws_test_connect(test), *fast = rws_test_connect(test);
    static const char message[60000] = "a long one";
    rws_test_stop_reading(slow);
    for (int i = 0; i < 40; i++) {
        rws_test_feed_binary(fast, message, sizeof message);
        rws_test_expect_binary(fast, message, sizeof message);
    }
    rws_test_resume_reading(slow);
    cr_assert_lt(rws_test_skip_messages(slow), 40);
    rws_test_expect_close_reason(slow, RWS_CLOSE_TRY_AGAIN_LATER, "too slow for this room");
    rws_test_feed_close(slow, RWS_CLOSE_TRY_AGAIN_LATER, NULL);
    cr_assert_eq(lobby.count, 1);
}

Test(broadcast, no_memory_to_hold_a_message)
{
    rws_test_peer *peer = rws_test_connect(test);
    rws_test_fail_alloc(test, 1);
    rws_test_feed_text(peer, "hello");
    cr_assert(rws_test_alloc_failed(test));
    rws_test_expect_close(peer, RWS_CLOSE_INTERNAL_ERROR);
}
