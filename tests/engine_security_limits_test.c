/*
 * What runs out: receive buffers, the completion queue, direct descriptors, descriptors. Flow
 * control or a clear answer, nothing lost, and service again afterwards. ctest: filtered
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "support/engine_checks.h"
#include "support/engine_server.h"
#include "support/raw_client.h"

TestSuite(engine_security_limits, .timeout = 90);

/* Connections beyond connections_max that are taken to be answered with 503. */
#define RESERVE 64u

static void stop(engine_server *server)
{
    cr_assert(engine_server_await_connections(server, 0));
    stop_serving(server);
}

Test(engine_security_limits, one_small_buffer_serves_two_hundred_connections)
{
    const uint32_t count = 200;
    EACH_FEATURES(off)
    {
        engine_server server;
        test_options options = engine_server_options();
        options.features_off = *off;
        options.recv_buffers = 1;
        options.recv_buffer_bytes = 512;
        cr_assert_eq(engine_server_start(&server, &options, NULL), 0);
        raw_client *clients = open_many(&server, count);
        uint8_t payload[5000];
        for (uint32_t round = 0; round < 5; round++) {
            for (uint32_t i = 0; i < count; i++) {
                memset(payload, (int)(i + round), sizeof payload);
                cr_assert(raw_send_frame(&clients[i], RAW_BINARY, payload, sizeof payload));
            }
            for (uint32_t i = 0; i < count; i++) {
                raw_frame echo;
                memset(payload, (int)(i + round), sizeof payload);
                cr_assert_eq(raw_read_frame(&clients[i], &echo), 1, "connection %u", i);
                cr_assert(echo.len == sizeof payload &&
                          memcmp(echo.payload, payload, sizeof payload) == 0);
            }
        }
        cr_expect_gt(engine_server_stats(&server).no_buffers, 0);
        close_many(clients, count);
        stop(&server);
    }
}

/* ---- more completions at once than the queue holds ---- */

static int echo_slowly(rws_conn *conn, const rws_message *message, void *user)
{
    const void *data = rws_message_data(message);
    size_t len = rws_message_len(message);
    engine_server *server = user;
    if (len == 4 && memcmp(data, "hold", 4) == 0) {
        atomic_fetch_add(&server->messages, 1);
        test_sleep_ms(1500);
    }
    return rws_conn_send_message(conn, message);
}

Test(engine_security_limits, more_completions_than_the_queue_holds_lose_nothing)
{
    const uint32_t count = test_raise_files() >= 14000 ? 6000 : 400;
    EACH_FEATURES(off)
    {
        engine_server server;
        test_options options = engine_server_options();
        rws_handler handler = engine_server_handler();
        options.features_off = *off;
        options.connections_max = count + 16;
        options.drain_timeout_ms = 20000;
        handler.on_message = echo_slowly;
        int res = engine_server_start(&server, &options, &handler);
        cr_assert_eq(res, 0, "%s", server.error.text);
        raw_client *clients = open_many(&server, count);
        /* While one callback holds the loop, all others send. */
        cr_assert(raw_send_frame(&clients[0], RAW_TEXT, "hold", 4));
        cr_assert(engine_server_await(&server.messages, 1));
        for (uint32_t i = 1; i < count; i++)
            cr_assert(raw_send_frame(&clients[i], RAW_BINARY, &i, sizeof i));
        for (uint32_t i = 0; i < count; i++) {
            raw_frame echo;
            cr_assert_eq(raw_read_frame(&clients[i], &echo), 1, "connection %u", i);
            cr_assert_eq(echo.len, 4);
            cr_assert(i == 0 || memcmp(echo.payload, &i, sizeof i) == 0);
        }
        printf("features off %x: %u connections, %llu overflows of the completion queue\n", *off,
               count, (unsigned long long)engine_server_stats(&server).cq_overflows);
        close_many(clients, count);
        stop(&server);
    }
}

/* ---- the table of direct descriptors ---- */

Test(engine_security_limits, a_full_table_answers_503_waits_and_recovers)
{
    if (raw_is_filtered())
        cr_skip_test("a raw client can't send before the filter's hello, and nobody accepts it");
    EACH_FEATURES(off)
    {
        engine_server server;
        test_options options = engine_server_options();
        options.features_off = *off;
        options.connections_max = 4;
        options.handshake_timeout_ms = 15000;
        cr_assert_eq(engine_server_start(&server, &options, NULL), 0);
        raw_client *open = open_many(&server, 4), refused, waiting;
        char head[1024];
        cr_assert(raw_connect(&refused, "127.0.0.1", server.port, 0));
        cr_assert(raw_send_text(&refused, "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                                          "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                                          "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"));
        cr_expect_eq(raw_read_head(&refused, head, sizeof head), 503);
        cr_expect(raw_read_end(&refused));
        raw_close(&refused);
        cr_assert(engine_server_await_connections(&server, 4));

        /* Fill the reserve with connections that ask for nothing, one after the other. */
        raw_client *idle = calloc(RESERVE, sizeof *idle);
        cr_assert_not_null(idle);
        for (uint32_t i = 0; i < RESERVE; i++) {
            cr_assert(raw_connect(&idle[i], "127.0.0.1", server.port, 0));
            cr_assert(engine_server_await_connections(&server, 5 + i));
        }
        /* One more waits in the backlog, and is served when there is room. */
        cr_assert(raw_connect(&waiting, "127.0.0.1", server.port, 0));
        cr_expect(raw_is_silent(&waiting, 200));
        cr_expect_eq(engine_server_stats(&server).connections, 4 + RESERVE);
        cr_expect_geq(engine_server_stats(&server).accept_pauses, 1);
        /* The open ones are served all the time. */
        raw_frame echo;
        cr_assert(raw_send_frame(&open[3], RAW_TEXT, "x", 1));
        cr_assert_eq(raw_read_frame(&open[3], &echo), 1);
        close_many(idle, RESERVE);
        raw_close(&open[0]);
        cr_assert(engine_server_await_connections(&server, 4));
        cr_assert(raw_upgrade(&waiting));
        raw_close(&waiting);
        close_many(open, 4);
        stop(&server);
    }
}

/* 500 at once where 16 have room. Each gets an answer or an end, and then all is well. */
Test(engine_security_limits, a_burst_over_the_table_recovers)
{
    EACH_FEATURES(off)
    {
        engine_server server;
        test_options options = engine_server_options();
        options.features_off = *off;
        options.connections_max = 16;
        options.close_timeout_ms = 200;
        cr_assert_eq(engine_server_start(&server, &options, NULL), 0);
        raw_client *clients = calloc(500, sizeof *clients);
        cr_assert_not_null(clients);
        for (int i = 0; i < 500; i++) {
            cr_assert(raw_connect(&clients[i], "127.0.0.1", server.port, 0));
            (void)raw_send_text(&clients[i], "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                                             "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                                             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
        }
        int opened = 0, refused = 0, ended = 0;
        for (int i = 0; i < 500; i++) {
            char head[1024];
            int status = raw_read_head(&clients[i], head, sizeof head);
            opened += status == 101;
            refused += status == 503;
            ended += status == -1;
            if (status != 101) raw_close(&clients[i]);
        }
        printf("features off %x: %d open, %d refused, %d ended\n", *off, opened, refused, ended);
        cr_expect(opened >= 1 && opened <= 16, "%d", opened);
        cr_expect_gt(refused, 0);
        close_many(clients, 500);
        stop(&server);
    }
}

/* ---- descriptors ---- */

Test(engine_security_limits, too_few_descriptors_are_a_sentence)
{
    struct rlimit limit;
    engine_server server;
    test_options options = engine_server_options();
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = 300;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    options.connections_max = 10000;
    cr_expect_eq(engine_server_start(&server, &options, NULL), RWS_E_OPTION);
    cr_expect_not_null(strstr(server.error.text, "ulimit -n"), "%s", server.error.text);
    cr_expect_not_null(strstr(server.error.text, "connections_max"), "%s", server.error.text);
    /* By default it takes what there is. */
    options.connections_max = 0;
    int res = engine_server_start(&server, &options, NULL);
    cr_assert_eq(res, 0, "%s", server.error.text);
    stop(&server);
}

/* A unix socket is accepted as an ordinary descriptor: when none is left, the connection waits. */
Test(engine_security_limits, no_descriptor_left_is_waited_for)
{
    if (raw_is_filtered())
        cr_skip_test("a raw client can't send before the filter's hello, and nobody accepts it");
    char path[64];
    struct rlimit limit;
    engine_server server;
    raw_client early, late;
    int fillers[256];
    uint32_t filled = 0;
    test_options options = engine_server_options();
    snprintf(path, sizeof path, "/tmp/ringws-limits-%d.sock", (int)getpid());
    options.unix_path = path;
    options.shards = 2;
    options.connections_max = 32;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = 256;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    cr_assert_eq(engine_server_start(&server, &options, NULL), 0, "%s", server.error.text);
    cr_assert(raw_connect_unix(&early, path));
    cr_assert(raw_upgrade(&early));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    while (filled < 256 && (fillers[filled] = fcntl(0, F_DUPFD_CLOEXEC, 3)) >= 0)
        filled++;
    cr_assert_gt(filled, 0);
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    memcpy(to.sun_path, path, strlen(path) + 1);
    cr_assert_eq(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    raw_adopt(&late, fd);
    cr_expect(raw_is_silent(&late, 300));
    /* Who is open is served. */
    raw_frame echo;
    cr_assert(raw_send_frame(&early, RAW_TEXT, "x", 1));
    cr_assert_eq(raw_read_frame(&early, &echo), 1);
    while (filled > 0)
        close(fillers[--filled]);
    cr_assert(raw_upgrade(&late));
    raw_close(&early);
    raw_close(&late);
    cr_expect(engine_server_await_connections(&server, 0));
    cr_expect_eq(engine_server_stop(&server), 0);
    cr_expect_neq(access(path, F_OK), 0, "the socket's file is left");
}
