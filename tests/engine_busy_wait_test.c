/*
 * A server that polls instead of sleeping (busy_wait_us): it serves, its timers fire, posts and the
 * stop reach it, with the optional kernel features and without; after the wait is over it sleeps.
 * ctest: filtered
 */
#include <criterion/criterion.h>

#include <stdatomic.h>
#include <time.h>

#include "support/engine_checks.h"
#include "support/engine_server.h"
#include "support/raw_client.h"

TestSuite(engine_busy_wait, .timeout = 60);

static void start(engine_server *server, uint64_t busy_wait_us, uint32_t off)
{
    test_options options = engine_server_options();
    options.busy_wait_us = busy_wait_us;
    options.features_off = off;
    options.handshake_timeout_ms = 200;
    int res = engine_server_start(server, &options, NULL);
    cr_assert_eq(res, 0, "%s", server->error.text);
}

static uint64_t cpu_ms(void)
{
    struct timespec now;
    cr_assert_eq(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now), 0);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* What the process uses while nobody asks for anything. */
static uint64_t idle_cpu_ms(uint32_t for_ms)
{
    uint64_t before = cpu_ms();
    test_sleep_ms(for_ms);
    return cpu_ms() - before;
}

static void count_post(void *arg, bool cancelled)
{
    _Atomic uint64_t *runs = arg;
    if (!cancelled) atomic_fetch_add(runs, 1);
}

Test(engine_busy_wait, polls_and_serves)
{
    EACH_FEATURES(off)
    {
        engine_server server;
        raw_client client;
        start(&server, UINT64_MAX, *off);
        cr_assert(raw_open(&client, server.port));
        for (int i = 0; i < 1000; i++)
            echo_works(&client);
        /* It does poll, and it polls the flag: the kernel is entered only when there is something.
         */
        uint64_t enters = engine_server_stats(&server).ring_enters;
        cr_expect_gt(idle_cpu_ms(300), 50);
        cr_expect_leq(engine_server_stats(&server).ring_enters - enters, 50);
        raw_close(&client);
        stop_serving(&server);
    }
}

Test(engine_busy_wait, timers_fire_while_it_polls)
{
    EACH_FEATURES(off)
    {
        engine_server server;
        raw_client silent;
        start(&server, UINT64_MAX, *off);
        cr_assert(raw_connect(&silent, "127.0.0.1", server.port, 0));
        uint64_t begin = test_now_ms();
        cr_expect(raw_read_end(&silent));
        cr_expect_geq(test_now_ms() - begin, 190, "the handshake's deadline came early");
        cr_expect_eq(engine_server_stats(&server).timeouts, 1);
        raw_close(&silent);
        stop_serving(&server);
    }
}

Test(engine_busy_wait, posts_arrive_while_it_polls)
{
    EACH_FEATURES(off)
    {
        engine_server server;
        _Atomic uint64_t runs = 0;
        start(&server, UINT64_MAX, *off);
        for (uint64_t i = 1; i <= 100; i++) {
            cr_assert_eq(test_post(server.server, 0, count_post, &runs), 0);
            cr_assert(engine_server_await(&runs, i));
        }
        stop_serving(&server);
    }
}

Test(engine_busy_wait, stops_and_drains_while_it_polls)
{
    EACH_FEATURES(off)
    {
        engine_server server;
        raw_client client;
        start(&server, UINT64_MAX, *off);
        cr_assert(raw_open(&client, server.port));
        echo_works(&client);
        rws_server_stop(server.server);
        cr_expect_eq(raw_read_close(&client), 1001);
        cr_assert(raw_send_frame(&client, RAW_CLOSE, "\x03\xE9", 2));
        cr_expect(raw_read_end(&client));
        cr_expect_eq(engine_server_stop(&server), 0);
        raw_close(&client);
    }
}

Test(engine_busy_wait, sleeps_when_the_wait_is_over)
{
    engine_server server;
    raw_client client;
    start(&server, 1000, 0);
    cr_assert(raw_open(&client, server.port));
    for (int i = 0; i < 20; i++) {
        echo_works(&client);
        test_sleep_ms(5);
        echo_works(&client);
    }
    cr_expect_leq(idle_cpu_ms(500), 100);
    echo_works(&client);
    raw_close(&client);
    stop_serving(&server);
}
