/*
 * Frames that no proper client sends, to a real server: the right close code, at the first byte
 * that decides, and nothing of it reaches the program. With all kernel features, and without them.
 * ctest: filtered
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "support/engine_checks.h"
#include "support/engine_server.h"
#include "support/raw_client.h"

TestSuite(engine_security_frames, .timeout = 60);

#define MESSAGE_MAX 1000u

static void start(engine_server *server, uint32_t off)
{
    test_options options = engine_server_options();
    options.features_off = off;
    options.message_bytes_max = MESSAGE_MAX;
    int res = engine_server_start(server, &options, NULL);
    cr_assert_eq(res, 0, "%s", server->error.text);
}

typedef struct bytes {
    const char *data;
    size_t len;
} bytes;
#define BYTES(literal)                                                                             \
    {                                                                                              \
        literal, sizeof literal - 1                                                                \
    }

typedef struct bad_frame {
    const char *name;
    bytes sent;
    int code;
} bad_frame;

#define KEY "\x37\xfa\x21\x3d"

static const bad_frame bad_frames[] = {
    {"length 2^63 - 1", BYTES("\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff" KEY), 1009},
    {"length 2^63", BYTES("\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00" KEY), 1002},
    {"length 2^64 - 1", BYTES("\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff" KEY), 1002},
    {"length 2^32", BYTES("\x82\xff\x00\x00\x00\x01\x00\x00\x00\x00" KEY), 1009},
    {"125 in 16 bits", BYTES("\x82\xfe\x00\x7d" KEY), 1002},
    {"0 in 16 bits", BYTES("\x82\xfe\x00\x00" KEY), 1002},
    {"65535 in 64 bits", BYTES("\x82\xff\x00\x00\x00\x00\x00\x00\xff\xff" KEY), 1002},
    {"0 in 64 bits", BYTES("\x82\xff\x00\x00\x00\x00\x00\x00\x00\x00" KEY), 1002},
    {"one byte over the limit", BYTES("\x82\xfe\x03\xe9" KEY), 1009},
    {"not masked", BYTES("\x81\x02hi"), 1002},
    {"an empty frame, not masked", BYTES("\x81\x00"), 1002},
    {"RSV1", BYTES("\xc1\x80" KEY), 1002},
    {"RSV2", BYTES("\xa1\x80" KEY), 1002},
    {"RSV3", BYTES("\x91\x80" KEY), 1002},
    {"RSV1 on a ping", BYTES("\xc9\x80" KEY), 1002},
    {"RSV1 on a continuation", BYTES("\x01\x80" KEY "\xc0\x80" KEY), 1002},
    {"opcode 3", BYTES("\x83\x80" KEY), 1002},
    {"opcode 7", BYTES("\x87\x80" KEY), 1002},
    {"opcode 11", BYTES("\x8b\x80" KEY), 1002},
    {"opcode 15", BYTES("\x8f\x80" KEY), 1002},
    {"a continuation of nothing", BYTES("\x80\x80" KEY), 1002},
    {"a message within a message", BYTES("\x01\x80" KEY "\x81\x80" KEY), 1002},
    {"a ping in two frames", BYTES("\x09\x80" KEY), 1002},
    {"a close in two frames", BYTES("\x08\x80" KEY), 1002},
    {"a ping of 126 bytes", BYTES("\x89\xfe\x00\x7e" KEY), 1002},
    {"a pong of 65536 bytes", BYTES("\x8a\xff\x00\x00\x00\x00\x00\x01\x00\x00" KEY), 1002},
    {"a close of 126 bytes", BYTES("\x88\xfe\x00\x7e" KEY), 1002},
};

static void check_bad_frame(const engine_server *server, const bad_frame *row, bool one_by_one)
{
    raw_client client;
    cr_assert(raw_open(&client, server->port), "%s", row->name);
    size_t step = one_by_one ? 1 : row->sent.len;
    /* The server may have failed it before the last byte. */
    for (size_t at = 0; at < row->sent.len; at += step)
        if (!raw_send(&client, row->sent.data + at, step)) break;
    int code = raw_read_close(&client);
    cr_expect_eq(code, row->code, "%s%s: close code %d", row->name,
                 one_by_one ? ", byte by byte" : "", code);
    cr_expect(raw_read_end(&client), "%s: no end", row->name);
    raw_close(&client);
}

Test(engine_security_frames, bad_frames_are_failed_with_their_code)
{
    EACH_FEATURES(off)
    {
        engine_server server;
        start(&server, *off);
        size_t count = sizeof bad_frames / sizeof bad_frames[0];
        for (size_t i = 0; i < count; i++) {
            check_bad_frame(&server, &bad_frames[i], false);
            check_bad_frame(&server, &bad_frames[i], true);
        }
        cr_expect_eq(atomic_load(&server.messages), 0);
        cr_expect(engine_server_await(&server.closed, 2 * count));
        cr_expect_eq(engine_server_stats(&server).protocol_errors, 2 * count);
        stop_serving(&server);
    }
}

/* Send `len` bytes of a message in `frames` frames. */
static void send_in_frames(raw_client *client, size_t len, size_t frames)
{
    uint8_t payload[MESSAGE_MAX + 1];
    memset(payload, 'x', sizeof payload);
    for (size_t i = 0; i < frames; i++) {
        size_t part = i + 1 < frames ? len / frames : len - len / frames * (frames - 1);
        uint8_t first = (uint8_t)((i == 0 ? 2u : 0u) | (i + 1 == frames ? RAW_FIN : 0u));
        cr_assert(raw_send_frame(client, first, payload, part));
    }
}

Test(engine_security_frames, exactly_the_limit_is_accepted_and_one_byte_more_is_not)
{
    static const size_t frames[] = {1, 2, 3, 10, 100};
    EACH_FEATURES(off)
    {
        engine_server server;
        start(&server, *off);
        for (size_t i = 0; i < sizeof frames / sizeof frames[0]; i++) {
            raw_client client;
            raw_frame echo;
            cr_assert(raw_open(&client, server.port));
            send_in_frames(&client, MESSAGE_MAX, frames[i]);
            cr_assert_eq(raw_read_frame(&client, &echo), 1);
            cr_expect_eq(echo.first, RAW_BINARY);
            cr_expect_eq(echo.len, MESSAGE_MAX);
            send_in_frames(&client, MESSAGE_MAX + 1, frames[i]);
            cr_expect_eq(raw_read_close(&client), 1009, "%zu frames", frames[i]);
            raw_close(&client);
        }
        stop_serving(&server);
    }
}

Test(engine_security_frames, empty_fragments_are_bounded)
{
    EACH_FEATURES(off)
    {
        engine_server server;
        start(&server, *off);
        raw_client client;
        raw_frame echo;
        cr_assert(raw_open(&client, server.port));
        /* 1,024 empty ones in a row are a message still; a byte in between starts anew. */
        cr_assert(raw_send_frame(&client, 1, "a", 1));
        for (int i = 0; i < 1024; i++)
            cr_assert(raw_send_frame(&client, 0, NULL, 0));
        cr_assert(raw_send_frame(&client, 0, "b", 1));
        for (int i = 0; i < 1024; i++)
            cr_assert(raw_send_frame(&client, 0, NULL, 0));
        cr_assert(raw_send_frame(&client, RAW_FIN, "c", 1));
        cr_assert_eq(raw_read_frame(&client, &echo), 1);
        cr_expect_eq(echo.len, 3);
        cr_expect_eq(memcmp(echo.payload, "abc", 3), 0);

        cr_assert(raw_send_frame(&client, 1, "a", 1));
        for (int i = 0; i < 1025; i++)
            if (!raw_send_frame(&client, 0, NULL, 0)) break;
        cr_expect_eq(raw_read_close(&client), 1008);
        raw_close(&client);
        stop_serving(&server);
    }
}

Test(engine_security_frames, fragments_are_counted)
{
    engine_server server;
    test_options options = engine_server_options();
    options.fragments_max = 100;
    cr_assert_eq(engine_server_start(&server, &options, NULL), 0);
    raw_client client;
    raw_frame echo;
    cr_assert(raw_open(&client, server.port));
    send_in_frames(&client, 100, 100);
    cr_assert_eq(raw_read_frame(&client, &echo), 1);
    cr_expect_eq(echo.len, 100);
    for (int i = 0; i < 101; i++)
        if (!raw_send_frame(&client, i == 0 ? 2 : 0, "x", 1)) break;
    cr_expect_eq(raw_read_close(&client), 1008);
    raw_close(&client);
    stop_serving(&server);
}

Test(engine_security_frames, a_message_that_does_not_end_has_a_deadline)
{
    static const struct {
        const char *name;
        bytes sent;
    } rows[] = {
        {"a header alone", BYTES("\x82\x85" KEY)},   {"half a header", BYTES("\x82")},
        {"a first frame", BYTES("\x02\x80" KEY)},    {"half a payload", BYTES("\x82\x85" KEY "ab")},
        {"half a ping", BYTES("\x89\x85" KEY "ab")},
    };
    EACH_FEATURES(off)
    {
        engine_server server;
        test_options options = engine_server_options();
        options.features_off = *off;
        options.message_timeout_ms = 200;
        cr_assert_eq(engine_server_start(&server, &options, NULL), 0);
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            raw_client client;
            cr_assert(raw_open(&client, server.port));
            cr_assert(raw_send(&client, rows[i].sent.data, rows[i].sent.len));
            uint64_t begin = test_now_ms();
            cr_expect_eq(raw_read_close(&client), 1008, "%s", rows[i].name);
            cr_expect_geq(test_now_ms() - begin, 150, "%s", rows[i].name);
            raw_close(&client);
        }
        cr_expect_eq(engine_server_stats(&server).timeouts, sizeof rows / sizeof rows[0]);
        stop_serving(&server);
    }
}
