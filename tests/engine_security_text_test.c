/*
 * Text that is not UTF-8, and the end of connections: close frames that break a rule, data after
 * them, peers that never end. ctest: filtered
 */
#include <criterion/criterion.h>

#include "support/engine_checks.h"
#include "support/engine_server.h"
#include "support/raw_client.h"

TestSuite(engine_security_text, .timeout = 60);

static void start(engine_server *server, uint32_t off)
{
    test_options options = engine_server_options();
    options.features_off = off;
    int res = engine_server_start(server, &options, NULL);
    cr_assert_eq(res, 0, "%s", server->error.text);
}

/* Text with the byte at `bad` (from 0) the first that can't be valid; the last byte if the text is
 * only cut. */
typedef struct bad_text {
    const char *text;
    size_t bad;
} bad_text;

static const bad_text bad_texts[] = {
    {"\x80", 0},                  /* a continuation */
    {"ok\xC3(", 3},               /* a character that does not go on */
    {"\xC0\xAF", 0},              /* overlong */
    {"ab\xE0\x80\xAF", 3},        /* overlong */
    {"\xE2\x82(", 2},             /* the third byte */
    {"\xED\xA0\x80", 1},          /* a surrogate */
    {"\xF0\x80\x80\x80", 1},      /* overlong */
    {"\xF0\x9F\x98(", 3},         /* the fourth byte */
    {"\xF4\x90\x80\x80", 1},      /* above U+10FFFF */
    {"\xF5", 0},                  /* never valid */
    {"0123456789abcdef\xFF", 16}, /* after a vector */
    {"\xCE\xBA\xE1\xBD\xB9\xFF", 5},
};

/* In a frame that is cut after `cut` bytes of payload: it has to be failed as soon as the bad byte
 * is there, however much is to follow. */
static void check_cut(const engine_server *server, const bad_text *row, size_t cut)
{
    static const uint8_t key[4] = {1, 2, 3, 4};
    raw_client client;
    cr_assert(raw_open(&client, server->port));
    uint8_t out[RAW_HEADER_MAX + 64];
    size_t len = strlen(row->text);
    size_t header = raw_frame_header(out, RAW_TEXT, 100, key);
    memcpy(out + header, row->text, len);
    raw_mask(out + header, len, key, 0);
    cr_assert(raw_send(&client, out, header + cut));
    if (cut <= row->bad) {
        cr_assert(raw_is_silent(&client, 2), "failed before the bad byte");
        cr_assert(raw_send(&client, out + header + cut, row->bad + 1 - cut));
    }
    cr_expect_eq(raw_read_close(&client), 1007, "text of %zu bytes, cut at %zu", len, cut);
    raw_close(&client);
}

/* The same text in two frames. */
static void check_fragments(const engine_server *server, const bad_text *row, size_t cut)
{
    raw_client client;
    cr_assert(raw_open(&client, server->port));
    size_t len = strlen(row->text);
    cr_assert(raw_send_frame(&client, 1, row->text, cut));
    (void)raw_send_frame(&client, RAW_FIN, row->text + cut, len - cut);
    cr_expect_eq(raw_read_close(&client), 1007, "text of %zu bytes, frames cut at %zu", len, cut);
    raw_close(&client);
}

Test(engine_security_text, invalid_text_is_failed_at_the_first_bad_byte)
{
    EACH_FEATURES(off)
    {
        engine_server server;
        start(&server, *off);
        for (size_t i = 0; i < sizeof bad_texts / sizeof bad_texts[0]; i++) {
            for (size_t cut = 0; cut <= bad_texts[i].bad + 1; cut++) {
                check_cut(&server, &bad_texts[i], cut);
                check_fragments(&server, &bad_texts[i], cut);
            }
        }
        cr_expect_eq(atomic_load(&server.messages), 0);
        stop_serving(&server);
    }
}

Test(engine_security_text, a_character_that_is_cut_by_the_end_of_the_message_is_invalid)
{
    static const char *const rows[] = {"\xC3", "x\xE2\x82", "\xF0\x9F\x98"};
    engine_server server;
    start(&server, 0);
    for (size_t i = 0; i < 3; i++) {
        raw_client client;
        cr_assert(raw_open(&client, server.port));
        cr_assert(raw_send_frame(&client, RAW_TEXT, rows[i], strlen(rows[i])));
        cr_expect_eq(raw_read_close(&client), 1007);
        raw_close(&client);
        /* Within the message it may be cut anywhere. */
        raw_frame echo;
        cr_assert(raw_open(&client, server.port));
        cr_assert(raw_send_frame(&client, 1, "\xF0\x9F", 2));
        cr_assert(raw_send_frame(&client, RAW_PING, NULL, 0));
        cr_assert(raw_send_frame(&client, RAW_FIN, "\x98\x80", 2));
        cr_assert_eq(raw_read_frame(&client, &echo), 1);
        cr_expect_eq(echo.first, RAW_PONG);
        cr_assert_eq(raw_read_frame(&client, &echo), 1);
        cr_expect_eq(echo.first, RAW_TEXT);
        cr_expect_eq(echo.len, 4);
        raw_close(&client);
    }
    stop_serving(&server);
}

/* ---- close frames ---- */

typedef struct close_row {
    const char *name;
    const char *payload;
    size_t len;
    int answer; /* 0: a close frame without a code */
} close_row;

static const close_row close_rows[] = {
    {"empty", "", 0, 0},
    {"1000", "\x03\xE8", 2, 1000},
    {"1001 with a reason",
     "\x03\xE9"
     "bye",
     5, 1001},
    {"1003", "\x03\xEB", 2, 1003},
    {"1007", "\x03\xEF", 2, 1007},
    {"1014", "\x03\xF6", 2, 1014},
    {"3000", "\x0B\xB8", 2, 3000},
    {"4999", "\x13\x87", 2, 4999},
    {"one byte", "\x03", 1, 1002},
    {"0", "\x00\x00", 2, 1002},
    {"999", "\x03\xE7", 2, 1002},
    {"1004", "\x03\xEC", 2, 1002},
    {"1005", "\x03\xED", 2, 1002},
    {"1006", "\x03\xEE", 2, 1002},
    {"1015", "\x03\xF7", 2, 1002},
    {"1016", "\x03\xF8", 2, 1002},
    {"2999", "\x0B\xB7", 2, 1002},
    {"5000", "\x13\x88", 2, 1002},
    {"65535", "\xFF\xFF", 2, 1002},
    {"a reason that is not UTF-8", "\x03\xE8\xC3\x28", 4, 1007},
    {"a reason that is cut",
     "\x03\xE8"
     "ok\xE2\x82",
     6, 1007},
};

Test(engine_security_text, close_frames_are_answered_by_their_rule)
{
    EACH_FEATURES(off)
    {
        engine_server server;
        start(&server, *off);
        for (size_t i = 0; i < sizeof close_rows / sizeof close_rows[0]; i++) {
            const close_row *row = &close_rows[i];
            raw_client client;
            raw_frame answer;
            cr_assert(raw_open(&client, server.port));
            cr_assert(raw_send_frame(&client, RAW_CLOSE, row->payload, row->len));
            cr_assert_eq(raw_read_frame(&client, &answer), 1, "%s", row->name);
            int code = answer.len >= 2 ? answer.payload[0] << 8 | answer.payload[1] : 0;
            cr_expect_eq(answer.first, RAW_CLOSE, "%s", row->name);
            cr_expect_eq(code, row->answer, "%s: %d", row->name, code);
            /* An answer to a good one is what came, byte for byte: nothing uninitialised in it. */
            if (row->answer != 1002 && row->answer != 1007)
                cr_expect(answer.len == row->len &&
                              memcmp(answer.payload, row->payload, row->len) == 0,
                          "%s", row->name);
            cr_expect_eq(raw_read_frame(&client, &answer), 0, "%s: nothing may follow", row->name);
            raw_close(&client);
        }
        stop_serving(&server);
    }
}

Test(engine_security_text, data_after_a_close_frame_is_not_delivered)
{
    EACH_FEATURES(off)
    {
        engine_server server;
        start(&server, *off);
        raw_client client;
        cr_assert(raw_open(&client, server.port));
        cr_assert(raw_send(&client,
                           "\x88\x82\0\0\0\0\x03\xE8"
                           "\x81\x82\0\0\0\0hi",
                           16));
        (void)raw_send_frame(&client, RAW_TEXT, "more", 4);
        (void)raw_send_frame(&client, RAW_PING, "more", 4);
        cr_expect_eq(raw_read_close(&client), 1000);
        cr_expect(raw_read_end(&client));
        raw_close(&client);
        cr_assert(engine_server_await(&server.closed, 1));
        cr_expect_eq(atomic_load(&server.messages), 0);
        cr_expect_eq(atomic_load(&server.last_code), 1000);
        cr_expect_eq(atomic_load(&server.last_closer), RWS_CLOSED_BY_PEER);
        stop_serving(&server);
    }
}

static int close_at_once(rws_conn *conn, const rws_message *message, void *user)
{
    (void)message;
    (void)user;
    return rws_conn_close(conn, 4000, "enough");
}

/* A peer that got our close frame and does nothing, or goes on talking: the deadline ends it. */
Test(engine_security_text, a_peer_that_never_closes_meets_the_deadline)
{
    EACH_FEATURES(off)
    {
        for (int talks = 0; talks < 2; talks++) {
            engine_server server;
            test_options options = engine_server_options();
            rws_handler handler = engine_server_handler();
            options.features_off = *off;
            options.close_timeout_ms = 300;
            handler.on_message = close_at_once;
            cr_assert_eq(engine_server_start(&server, &options, &handler), 0);
            raw_client client;
            cr_assert(raw_open(&client, server.port));
            cr_assert(raw_send_frame(&client, RAW_TEXT, "x", 1));
            cr_expect_eq(raw_read_close(&client), 4000);
            uint64_t begin = test_now_ms();
            for (int i = 0; talks == 1 && i < 100; i++) {
                if (!raw_send_frame(&client, RAW_TEXT, "never", 5)) break;
                if (!raw_send_frame(&client, RAW_PING, "", 0)) break;
                test_sleep_ms(5);
            }
            cr_expect(raw_read_end(&client));
            uint64_t took = test_now_ms() - begin;
            cr_expect(took >= 200 && took < 3000, "%llu ms", (unsigned long long)took);
            cr_expect(engine_server_await_connections(&server, 0));
            cr_expect_eq(atomic_load(&server.closed), 1);
            cr_expect_eq(atomic_load(&server.last_code), 1006);
            cr_expect_eq(engine_server_stats(&server).timeouts, 1);
            raw_close(&client);
            cr_expect_eq(engine_server_stop(&server), 0);
        }
    }
}

/* A peer that broke a rule and then holds its half open. */
Test(engine_security_text, a_failed_peer_that_lingers_meets_the_deadline)
{
    EACH_FEATURES(off)
    {
        engine_server server;
        start(&server, *off);
        raw_client client;
        cr_assert(raw_open(&client, server.port));
        cr_assert(raw_send(&client, "\x83\x80\0\0\0\0", 6));
        cr_expect_eq(raw_read_close(&client), 1002);
        cr_expect_eq(engine_server_stats(&server).connections, 1);
        uint64_t begin = test_now_ms();
        cr_expect(engine_server_await_connections(&server, 0));
        uint64_t took = test_now_ms() - begin;
        cr_expect(took >= 300 && took < 4000, "%llu ms", (unsigned long long)took);
        raw_close(&client);
        stop_serving(&server);
    }
}
