/*
 * 1,000 tests (open, connect, echo, close) of the testing kit take less than a second where it is
 * optimised. The bounds here are loose, because other programs run as well. ctest: testing kit
 */
#include "ringws/testing.h"

#include <stdio.h>
#include <time.h>

#define TESTS 1000

#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define SECONDS_MAX 4.0
#else
#define SECONDS_MAX 90.0
#endif

static int echo(rws_conn *conn, const rws_message *message, void *user)
{
    (void)user;
    return rws_conn_send_message(conn, message);
}

static double now_s(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int main(void)
{
    rws_handler handler = RWS_HANDLER_DEFAULT;
    handler.on_message = echo;
    double start_s = now_s();
    for (int i = 0; i < TESTS; i++) {
        rws_test *test = rws_test_open(&handler, NULL);
        rws_test_peer *peer = rws_test_connect(test);
        rws_test_feed_text(peer, "hello");
        rws_test_expect_text(peer, "hello");
        rws_test_feed_close(peer, RWS_CLOSE_NORMAL, NULL);
        rws_test_expect_close(peer, RWS_CLOSE_NORMAL);
        rws_test_close(test);
    }
    double taken_s = now_s() - start_s;
    printf("%d tests took %.3f s\n", TESTS, taken_s);
    return taken_s > SECONDS_MAX;
}
