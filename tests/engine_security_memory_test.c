/*
 * What peers can make the server hold: memory follows the bytes that came, never what was declared;
 * queues are bounded; nothing is left when they are gone. ctest: filtered ctest: timeout=300
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "support/engine_checks.h"
#include "support/engine_server.h"
#include "support/raw_client.h"

TestSuite(engine_security_memory, .timeout = 90);

#define MIB 1048576u

/* Resident now, less what it was; 0 if it fell. */
static size_t growth(size_t before)
{
    size_t now = test_resident_bytes();
    return now > before ? now - before : 0;
}

/* 100 connections that declare 256 MiB each, and send 1,000 bytes of it. */
Test(engine_security_memory, a_declared_length_takes_no_memory)
{
    EACH_FEATURES(off)
    {
        engine_server server;
        test_options options = engine_server_options();
        options.features_off = *off;
        options.message_bytes_max = 256 * MIB;
        cr_assert_eq(engine_server_start(&server, &options, NULL), 0);
        raw_client *clients = open_many(&server, 100);
        size_t before = test_resident_bytes();
        uint64_t received = engine_server_stats(&server).bytes_received;
        uint8_t out[RAW_HEADER_MAX + 1000] = {0};
        size_t header = raw_frame_header(out, RAW_BINARY, 256 * MIB, (const uint8_t *)"\1\2\3\4");
        for (int i = 0; i < 100; i++)
            cr_assert(raw_send(&clients[i], out, header + 1000));
        while (engine_server_stats(&server).bytes_received < received + 100 * (header + 1000))
            test_sleep_ms(1);
        test_sleep_ms(50);
        size_t grown = growth(before);
        if (MEMORY_IS_MEASURABLE)
            cr_expect_lt(grown, 100 * 20480 + 4 * MIB, "%zu KiB resident", grown >> 10);
        /* And no room that others need is set aside: all go on. */
        for (int i = 0; i < 100; i++)
            cr_expect(raw_is_silent(&clients[i], 0), "connection %d was closed", i);
        cr_expect_eq(atomic_load(&server.closed), 0);
        close_many(clients, 100);
        stop_serving(&server);
    }
}

/* Wait until the server has read all that it wants to read. */
static void await_quiet(const engine_server *server)
{
    uint64_t received = 0, now;
    while ((now = engine_server_stats(server).bytes_received) != received) {
        received = now;
        test_sleep_ms(150);
    }
}

/*
 * 2,000 connections, each one byte short of a message of 64 KiB: 125 MiB, with a budget of 24 MiB.
 * What the budget does not hold waits in the sockets.
 */
Test(engine_security_memory, messages_one_byte_short_stay_within_the_budget)
{
    const uint32_t count = test_raise_files() >= 9000 && !TEST_IS_SLOW ? 2000 : 400;
    const size_t size = 65536;
    EACH_FEATURES(off)
    {
        engine_server server;
        test_options options = engine_server_options();
        options.features_off = *off;
        options.connections_max = count + 16;
        options.message_bytes_max = size;
        options.partial_bytes_max = 24 * MIB;
        options.message_timeout_ms = 3000;
        /* Small ones, so that little has arrived of a message when its connection is paused. */
        options.recv_buffers = 8;
        options.recv_buffer_bytes = 2048;
        options.drain_timeout_ms = 10000;
        int res = engine_server_start(&server, &options, NULL);
        cr_assert_eq(res, 0, "%s", server.error.text);
        raw_client *clients = open_many(&server, count);
        size_t before = test_resident_bytes();
        uint8_t *out = calloc(1, RAW_HEADER_MAX + size);
        cr_assert_not_null(out);
        size_t header = raw_frame_header(out, RAW_BINARY, size, (const uint8_t *)"\1\2\3\4");
        size_t largest = 0;
        uint64_t begin = test_now_ms();
        for (uint32_t i = 0; i < count; i++) {
            (void)raw_send(&clients[i], out, header + size - 1);
            size_t grown = i % 50 == 0 ? growth(before) : 0;
            if (grown > largest) largest = grown;
        }
        await_quiet(&server);
        if (growth(before) > largest) largest = growth(before);
        if (MEMORY_IS_MEASURABLE)
            cr_expect_lt(largest, 24 * MIB + 14 * MIB, "%zu MiB resident", largest >> 20);
        /* With receives of one small buffer at a time none is failed at once. (A multishot receive
         * brings more before it can be taken back: what has no room then is failed. So is a record
         * of a filter that has no room.) Those that
         * hold memory and those that wait for it meet their deadline. */
        uint64_t closed = atomic_load(&server.closed); /* before the clock: it may stand for long */
        if (*off == RWS__FEATURE_ALL && !raw_is_filtered() && test_now_ms() - begin < 2500)
            cr_expect_eq(closed, 0, "%llu closed, the last with %u", (unsigned long long)closed,
                         atomic_load(&server.last_code));
        cr_expect(engine_server_await(&server.closed, count), "%llu closed",
                  (unsigned long long)atomic_load(&server.closed));
        int ended_well = 0;
        for (uint32_t i = 0; i < count; i += 100) {
            int code = raw_read_close(&clients[i]);
            ended_well += code == 1013 || code == 1008;
        }
        cr_expect_gt(ended_well, 0);
        cr_expect_eq(atomic_load(&server.messages), 0);
        free(out);
        close_many(clients, count);
        stop_serving(&server);
    }
}

/* Send what the sockets take of a message of `len` bytes on each, turn by turn, until all is out.
 */
static void send_side_by_side(raw_client *clients, uint32_t count, const uint8_t *data, size_t len)
{
    size_t sent[16] = {0}, left = count * len;
    uint64_t end = test_now_ms() + 20000;
    cr_assert_leq(count, 16);
    while (left > 0) {
        cr_assert(test_now_ms() < end, "%zu bytes are left", left);
        for (uint32_t i = 0; i < count; i++) {
            size_t most = len - sent[i] < 65536 ? len - sent[i] : 65536;
            ssize_t part = send(clients[i].fd, data + sent[i], most, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (part <= 0) continue;
            sent[i] += (size_t)part;
            left -= (size_t)part;
        }
    }
}

/* Twelve messages of 1 MiB at once, where the budget holds seven: they wait for each other, and all
 * come through. */
Test(engine_security_memory, messages_that_wait_for_the_budget_are_delivered)
{
    if (raw_is_filtered())
        cr_skip_test("it sends on the sockets itself, without the filter's records");
    EACH_FEATURES(off)
    {
        engine_server server;
        test_options options = engine_server_options();
        options.features_off = *off;
        options.message_bytes_max = MIB;
        options.partial_bytes_max = 7 * MIB;
        cr_assert_eq(engine_server_start(&server, &options, NULL), 0);
        raw_client *clients = open_many(&server, 12);
        uint8_t *out = calloc(1, RAW_HEADER_MAX + MIB);
        cr_assert_not_null(out);
        size_t header = raw_frame_header(out, RAW_BINARY, MIB, (const uint8_t *)"\1\2\3\4");
        send_side_by_side(clients, 12, out, header + MIB);
        for (int i = 0; i < 12; i++) {
            raw_frame echo;
            cr_assert_eq(raw_read_frame(&clients[i], &echo), 1, "connection %d", i);
            cr_expect_eq(echo.first, RAW_BINARY, "connection %d", i);
            cr_expect_eq(echo.len, MIB, "connection %d", i);
        }
        free(out);
        close_many(clients, 12);
        stop_serving(&server);
    }
}

/* A message in a million tiny fragments, one byte each: what it holds is the million bytes. */
Test(engine_security_memory, tiny_fragments_take_no_more_than_their_bytes)
{
    engine_server server;
    test_options options = engine_server_options();
    options.message_bytes_max = 2 * MIB;
    options.fragments_max = 2000000;
    cr_assert_eq(engine_server_start(&server, &options, NULL), 0);
    raw_client client;
    cr_assert(raw_open(&client, server.port));
    size_t before = test_resident_bytes();
    uint8_t frames[7 * 1000] = {0};
    for (size_t i = 0; i < 1000; i++)
        memcpy(frames + 7 * i, "\x00\x81\0\0\0\0x", 7);
    cr_assert(raw_send(&client, "\x02\x81\0\0\0\0x", 7));
    for (int i = 0; i < 1000; i++)
        cr_assert(raw_send(&client, frames, sizeof frames));
    size_t grown = growth(before);
    if (MEMORY_IS_MEASURABLE) cr_expect_lt(grown, 8 * MIB, "%zu KiB", grown >> 10);
    raw_frame echo;
    cr_assert(raw_send_frame(&client, RAW_FIN, "y", 1));
    cr_assert_eq(raw_read_frame(&client, &echo), 1);
    cr_expect_eq(echo.len, 1000002);
    raw_close(&client);
    stop_serving(&server);
}

/* A peer that sends pings and never reads. The pongs stop at the high watermark, and so does the
 * reading. */
Test(engine_security_memory, a_ping_flood_without_reading_is_bounded)
{
    EACH_FEATURES(off)
    {
        engine_server server;
        test_options options = engine_server_options();
        options.features_off = *off;
        options.socket_send_buffer_bytes = 8192;
        cr_assert_eq(engine_server_start(&server, &options, NULL), 0);
        raw_client client, ten;
        cr_assert(raw_connect(&client, "127.0.0.1", server.port, 8192));
        cr_assert(raw_upgrade(&client));
        size_t before = test_resident_bytes();
        uint8_t pings[131 * 100];
        uint8_t payload[125] = {0};
        for (size_t i = 0; i < 100; i++) {
            size_t header =
                raw_frame_header(pings + 131 * i, RAW_PING, 125, (const uint8_t *)"\0\0\0\0");
            memcpy(pings + 131 * i + header, payload, 125);
        }
        struct timeval limit = {.tv_usec = 300000};
        (void)setsockopt(client.fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        size_t sent = 0;
        while (sent < 64 * MIB && raw_send(&client, pings, sizeof pings))
            sent += sizeof pings;
        cr_expect_lt(sent, 64 * MIB, "the server went on reading");
        size_t grown = growth(before);
        /* The receive pool, and what had arrived before the pause. */
        if (MEMORY_IS_MEASURABLE) cr_expect_lt(grown, 20 * MIB, "%zu KiB", grown >> 10);
        /* Others are served meanwhile: ten pings get ten pongs. */
        raw_frame pong;
        cr_assert(raw_open(&ten, server.port));
        for (char i = 0; i < 10; i++)
            cr_assert(raw_send_frame(&ten, RAW_PING, &i, 1));
        for (char i = 0; i < 10; i++) {
            cr_assert_eq(raw_read_frame(&ten, &pong), 1);
            cr_expect_eq(pong.first, RAW_PONG);
            cr_expect(pong.len == 1 && pong.payload[0] == i);
        }
        raw_close(&ten);
        raw_close(&client);
        stop_serving(&server);
    }
}

/* ---- a reader that does not read ---- */

static _Atomic uint64_t refused, largest_queue;

/* Answer each message with 64 KiB, whatever the queue says. */
static int flood(rws_conn *conn, const rws_message *message, void *user)
{
    (void)message;
    static const uint8_t answer[65536];
    (void)user;
    for (int i = 0; i < 100; i++)
        if (rws_conn_send_binary(conn, answer, sizeof answer) == RWS_E_BACKLOG)
            atomic_fetch_add(&refused, 1);
    size_t queued = rws_conn_buffered(conn);
    if (queued > atomic_load(&largest_queue)) atomic_store(&largest_queue, queued);
    return 0;
}

Test(engine_security_memory, a_reader_with_a_closed_window_has_a_bounded_queue)
{
    EACH_FEATURES(off)
    {
        engine_server server, echo;
        test_options options = engine_server_options();
        rws_handler handler = engine_server_handler();
        handler.on_message = flood;
        options.features_off = *off;
        options.send_queue_bytes_max = MIB;
        options.socket_send_buffer_bytes = 8192;
        atomic_store(&refused, 0);
        atomic_store(&largest_queue, 0);
        cr_assert_eq(engine_server_start(&server, &options, &handler), 0);
        cr_assert_eq(engine_server_start(&echo, NULL, NULL), 0);
        raw_client *clients = calloc(20, sizeof *clients);
        cr_assert_not_null(clients);
        size_t before = test_resident_bytes();
        for (int i = 0; i < 20; i++) {
            cr_assert(raw_connect(&clients[i], "127.0.0.1", server.port, 4096));
            cr_assert(raw_upgrade(&clients[i]));
            cr_assert(raw_send_frame(&clients[i], RAW_TEXT, "x", 1));
        }
        while (atomic_load(&refused) < 20u * 80)
            test_sleep_ms(1);
        cr_expect_leq(atomic_load(&largest_queue), MIB);
        size_t grown = growth(before);
        if (MEMORY_IS_MEASURABLE)
            cr_expect_lt(grown, 20 * 5 / 4 * MIB + 16 * MIB, "%zu MiB", grown >> 20);
        /* The same shard serves others at once: a handshake and an answer. */
        raw_client other;
        raw_frame frame;
        uint64_t begin = test_now_ms();
        cr_assert(raw_open(&other, server.port));
        cr_assert(raw_send_frame(&other, RAW_TEXT, "x", 1));
        for (int i = 0; i < 15; i++)
            cr_assert_eq(raw_read_frame(&other, &frame), 1);
        cr_expect_lt(test_now_ms() - begin, 3000);
        raw_close(&other);
        /* A reader that comes back gets all that was queued, and on_drain is called. */
        uint64_t drains = atomic_load(&server.drains);
        for (int i = 0; i < 15; i++) {
            cr_assert_eq(raw_read_frame(&clients[0], &frame), 1);
            cr_expect_eq(frame.len, 65536);
        }
        cr_expect(engine_server_await(&server.drains, drains + 1));
        close_many(clients, 20);
        cr_expect(engine_server_await_connections(&server, 0));
        cr_expect_eq(engine_server_stop(&server), 0);
        stop_serving(&echo);
    }
}

/* ---- churn ---- */

typedef enum step {
    AFTER_CONNECT,
    IN_THE_REQUEST,
    AFTER_THE_REQUEST,
    AFTER_THE_101,
    IN_A_HEADER,
    IN_A_SMALL_PAYLOAD,
    IN_A_LARGE_PAYLOAD,
    BETWEEN_FRAMES,
    BEFORE_THE_ECHO,
    AFTER_A_CLOSE_FRAME,
    AFTER_A_REFUSAL,
    AFTER_A_VIOLATION,
    STEPS
} step;

static void reach(raw_client *client, step at)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                                  "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    static uint8_t large[200000];
    if (at == AFTER_CONNECT) return;
    if (at <= AFTER_THE_REQUEST) {
        raw_send(client, request, at == IN_THE_REQUEST ? 40 : sizeof request - 1);
        return;
    }
    if (at == AFTER_A_REFUSAL) {
        raw_send_text(client, "GET / HTTP/1.1\r\n\r\n");
        return;
    }
    cr_assert(raw_upgrade(client));
    switch (at) {
    case IN_A_HEADER: raw_send(client, "\x82\xfe\x10", 3); break;
    case IN_A_SMALL_PAYLOAD: raw_send(client, "\x82\xfe\x10\x00\1\2\3\4abc", 11); break;
    case IN_A_LARGE_PAYLOAD:
        raw_send(client, "\x82\xff\0\0\0\0\0\x0f\0\0\1\2\3\4", 14);
        raw_send(client, large, sizeof large);
        break;
    case BETWEEN_FRAMES: raw_send_frame(client, 2, "abc", 3); break;
    case BEFORE_THE_ECHO: raw_send_frame(client, RAW_BINARY, large, sizeof large); break;
    case AFTER_A_CLOSE_FRAME: raw_send_frame(client, RAW_CLOSE, "\x03\xE8", 2); break;
    case AFTER_A_VIOLATION: raw_send(client, "\xff\xff\xff\xff", 4); break;
    default: break;
    }
}

static void churn(const engine_server *server, uint32_t rounds)
{
    for (uint32_t round = 0; round < rounds; round++) {
        for (uint32_t at = 0; at < STEPS; at++) {
            raw_client client;
            cr_assert(raw_connect(&client, "127.0.0.1", server->port, 0));
            reach(&client, (step)at);
            if (round % 3 == 2)
                raw_close(&client);
            else
                raw_reset(&client);
        }
    }
}

Test(engine_security_memory, resets_at_every_step_leave_nothing_behind)
{
    EACH_FEATURES(off)
    {
        engine_server server;
        test_options options = engine_server_options();
        options.features_off = *off;
        options.message_bytes_max = MIB;
        options.connections_max = 512; /* a slow loop has many that are not gone yet */
        options.close_timeout_ms = 100;
        options.handshake_timeout_ms = 1000;
        cr_assert_eq(engine_server_start(&server, &options, NULL), 0);
        churn(&server, 30); /* what is kept warm is kept by now */
        cr_assert(engine_server_await_connections(&server, 0));
        size_t files = test_open_files(), memory = test_resident_bytes();
        churn(&server, 150);
        cr_assert(engine_server_await_connections(&server, 0), "%llu connections are left",
                  (unsigned long long)engine_server_stats(&server).connections);
        cr_expect_eq(test_open_files(), files);
        size_t grown = growth(memory);
        if (MEMORY_IS_MEASURABLE) cr_expect_lt(grown, 2 * MIB, "%zu KiB", grown >> 10);
        cr_expect_eq(atomic_load(&server.opened), atomic_load(&server.closed));
        rws_stats stats = engine_server_stats(&server);
        /* One that waited for too long counts among the timeouts. */
        uint64_t ended = stats.upgraded + stats.refused;
        cr_expect(stats.accepted >= ended && stats.accepted - ended <= stats.timeouts,
                  "%llu, %llu and %llu", (unsigned long long)stats.accepted,
                  (unsigned long long)stats.upgraded, (unsigned long long)stats.refused);
        stop_serving(&server);
    }
}
