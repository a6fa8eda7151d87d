/*
 * The same with a test framework that is in this file: a hook is told of failed expectations, the
 * test goes on, and the result is written as TAP, which many programs read.
 */
#include <ringws/testing.h>

#define main example_main
#include "../echo.c" // NOLINT(bugprone-suspicious-include): its functions are static
#undef main

static int failed_here, failed, number;

static void on_failure(const char *file, int line, const char *text, void *user)
{
    (void)user;
    printf("# %s:%d: %s\n", file, line, text);
    failed_here++;
}

static void run(const char *name, void (*function)(void))
{
    failed_here = 0;
    function();
    printf("%s %d - %s\n", failed_here == 0 ? "ok" : "not ok", ++number, name);
    failed += failed_here != 0;
}

static void test_ping(void)
{
    rws_test *test = rws_test_open(&handler, NULL);
    rws_test_peer *peer = rws_test_connect(test);
    rws_test_feed_ping(peer, "alive?", 6);
    rws_test_expect_pong(peer, "alive?", 6);
    rws_test_close(test);
}

static void test_close(void)
{
    rws_test *test = rws_test_open(&handler, NULL);
    rws_test_peer *peer = rws_test_connect(test);
    rws_test_feed_close(peer, RWS_CLOSE_NORMAL, "bye");
    rws_test_expect_close_reason(peer, RWS_CLOSE_NORMAL, "bye");
    rws_test_expect_ended(peer);
    rws_test_close(test);
}

/* A test that fails, so that it is seen how: only with an argument. */
static void test_that_fails(void)
{
    rws_test *test = rws_test_open(&handler, NULL);
    rws_test_peer *peer = rws_test_connect(test);
    rws_test_feed_text(peer, "hello");
    rws_test_expect_text(peer, "Hello");
    rws_test_close(test);
}

int main(int argc, char **argv)
{
    (void)argv;
    rws_test_on_failure(on_failure, NULL);
    run("ping", test_ping);
    run("close", test_close);
    if (argc > 1) run("a test that fails", test_that_fails);
    printf("1..%d\n", number);
    return failed != 0;
}
