/*
 * The kernel made of memory under the engine: ctest: simulated ring
 */
#include <criterion/criterion.h>

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "engine/server/runtime.h"
#include "engine/simulated/kernel.h"
#include "support/feed.h"

static int echo(rws_conn *conn, const rws_message *message, void *user)
{
    (void)user;
    return rws_conn_send_message(conn, message);
}

static const rws_handler handler = {.size = sizeof handler, .on_message = echo};

static rws_runtime runtime;
static struct sockaddr_in address;

static void start(void)
{
    rws_runtime_options options = RWS_RUNTIME_OPTIONS_DEFAULT;
    options.shards = 1;
    options.connections_max = 16;
    rws_endpoint_options endpoint = RWS_ENDPOINT_OPTIONS_DEFAULT;
    endpoint.handler = &handler;
    rws_listener_options listener = RWS_LISTENER_OPTIONS_DEFAULT;
    listener.port = 0;
    rws__runtime_config config;
    rws_error error;
    cr_assert_eq(rws__runtime_config_make(&config, &options, 1, &error), 0, "%s", error.text);
    cr_assert_eq(rws__runtime_init(&runtime, &config, &error), 0, "%s", error.text);
    cr_assert_eq(rws__runtime_add_endpoint(&runtime, &endpoint, NULL, NULL, &error), 0);
    cr_assert_eq(rws__runtime_listen(&runtime, &listener, &error), 0, "%s", error.text);
    cr_assert_eq(rws__runtime_open(&runtime, &error), 0, "%s", error.text);
    address = (struct sockaddr_in){.sin_family = AF_INET,
                                   .sin_port = htons(runtime.listeners[0].port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* Turns until the shard sleeps. */
static void settle(void)
{
    rws__shard *shard = &runtime.workers[0].shard;
    for (uint32_t i = 0; i < 10000; i++) {
        if (rws__shard_has_ended(shard)) return;
        cr_assert_eq(rws__shard_turn(shard, true), 0);
        if (rws__sim_ring_sleeps(shard->loop.ring)) return;
    }
    cr_assert_fail("the shard does not come to rest");
}

static void finish(void)
{
    rws__runtime_stop(&runtime);
    for (uint32_t i = 0; i < 100 && !rws__shard_has_ended(&runtime.workers[0].shard); i++) {
        settle();
        uint64_t next = rws__sim_next_us();
        if (next != UINT64_MAX) rws__sim_advance_to(next);
    }
    cr_assert(rws__shard_has_ended(&runtime.workers[0].shard));
    rws__runtime_close(&runtime);
    rws__runtime_deinit(&runtime);
    rws__sim_end();
}

static int dial(void)
{
    int fd = rws__sim_connect((struct sockaddr *)&address, sizeof address);
    cr_assert_geq(fd, 0);
    return fd;
}

static void expect(int fd, const void *data, size_t len)
{
    char got[4096];
    size_t have = 0;
    for (ssize_t res; have < len; have += (size_t)res) {
        settle();
        res = rws__sim_read(fd, got + have, sizeof got - have);
        cr_assert_gt(res, 0);
    }
    cr_expect_arr_eq(got, data, len);
}

static int upgrade(void)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n"
                                  "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    int fd = dial();
    cr_assert_eq(rws__sim_write(fd, request, sizeof request - 1), (ssize_t)sizeof request - 1);
    static const char answer[] = "HTTP/1.1 101";
    expect(fd, answer, sizeof answer - 1);
    char rest[4096];
    while (rws__sim_readable(fd) > 0)
        (void)rws__sim_read(fd, rest, sizeof rest);
    return fd;
}

Test(engine_simulated, echoes)
{
    start();
    int fd = upgrade();
    feed_bytes frame = {0};
    feed_append_frame(&frame, 0x81, true, "hello", 5);
    cr_assert_eq(rws__sim_write(fd, frame.data, frame.len), (ssize_t)frame.len);
    expect(fd, "\x81\x05hello", 7);
    feed_bytes_free(&frame);
    rws__sim_shutdown(fd);
    settle();
    rws__socket_close(fd);
    finish();
}

/* The same seed is the same run, whatever the faults. */
Test(engine_simulated, a_seed_is_a_run)
{
    uint64_t ends[2];
    for (int i = 0; i < 2; i++) {
        rws__sim_options options = rws__sim_defaults;
        options.seed = 7;
        options.poison = true;
        for (int fault = 0; fault < RWS__SIM_FAULTS; fault++)
            if (fault == RWS__SIM_DELAY || fault == RWS__SIM_SHORT_RECV || fault == RWS__SIM_LATE ||
                fault == RWS__SIM_REORDER)
                options.chance[fault] = 20000;
        rws__sim_start(&options);
        start();
        int fd = dial();
        for (uint32_t n = 0; n < 100; n++) {
            settle();
            uint64_t next = rws__sim_next_us();
            if (next != UINT64_MAX) rws__sim_advance_to(next);
        }
        ends[i] = rws__sim_now_us();
        rws__socket_close(fd);
        finish();
    }
    cr_expect_eq(ends[0], ends[1]);
}
