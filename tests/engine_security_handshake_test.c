/*
 * The opening handshake against a real server: cut into bytes, too large, smuggling, from the
 * wrong origin, slower than its deadline, and with frames in its wake. ctest: filtered
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "support/engine_checks.h"
#include "support/engine_server.h"
#include "support/raw_client.h"

TestSuite(engine_security_handshake, .timeout = 60);

#define START      "GET / HTTP/1.1\r\n"
#define HOST       "Host: localhost\r\n"
#define UPGRADE    "Upgrade: websocket\r\n"
#define CONNECTION "Connection: Upgrade\r\n"
#define KEY        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
#define VERSION    "Sec-WebSocket-Version: 13\r\n"
#define FIELDS     HOST UPGRADE CONNECTION KEY VERSION
#define REQUEST    START FIELDS "\r\n"

/* The status of the answer to `request`; the connection has to end after a refusal. */
static int ask(const engine_server *server, const char *request, size_t len, char *head,
               size_t size)
{
    raw_client client;
    cr_assert(raw_connect(&client, "127.0.0.1", server->port, 0));
    (void)raw_send(&client, request, len);
    int status = raw_read_head(&client, head, size);
    if (status > 101) cr_expect(raw_read_end(&client), "the connection goes on after %d", status);
    raw_close(&client);
    return status;
}

Test(engine_security_handshake, a_request_byte_by_byte_and_cut_in_two)
{
    EACH_FEATURES(off)
    {
        engine_server server;
        test_options options = engine_server_options();
        options.features_off = *off;
        cr_assert_eq(engine_server_start(&server, &options, NULL), 0);
        const size_t len = sizeof REQUEST - 1;
        char head[512];
        for (size_t cut = 0; cut < len; cut++) {
            raw_client client;
            cr_assert(raw_connect(&client, "127.0.0.1", server.port, 0));
            for (size_t at = 0; cut == 0 && at < len; at++)
                cr_assert(raw_send(&client, &REQUEST[at], 1));
            if (cut > 0) {
                cr_assert(raw_send(&client, REQUEST, cut));
                cr_assert(raw_send(&client, &REQUEST[cut], len - cut));
            }
            cr_assert_eq(raw_read_head(&client, head, sizeof head), 101, "cut %zu", cut);
            echo_works(&client);
            raw_close(&client);
        }
        stop_serving(&server);
    }
}

/* One request and two messages, in one piece, and cut everywhere. */
Test(engine_security_handshake, frames_that_come_with_the_request_are_delivered)
{
    static const char stream[] = REQUEST "\x81\x85\0\0\0\0first\x81\x86\0\0\0\0second";
    const size_t len = sizeof stream - 1;
    EACH_FEATURES(off)
    {
        engine_server server;
        test_options options = engine_server_options();
        options.features_off = *off;
        cr_assert_eq(engine_server_start(&server, &options, NULL), 0);
        for (size_t cut = 0; cut<len; cut += cut> 20 && cut + 60 < len ? 7 : 1) {
            raw_client client;
            raw_frame echo;
            char head[512];
            cr_assert(raw_connect(&client, "127.0.0.1", server.port, 0));
            cr_assert(raw_send(&client, stream, cut > 0 ? cut : len));
            if (cut > 0) cr_assert(raw_send(&client, stream + cut, len - cut));
            cr_assert_eq(raw_read_head(&client, head, sizeof head), 101, "cut %zu", cut);
            cr_assert_eq(raw_read_frame(&client, &echo), 1, "cut %zu", cut);
            cr_expect(echo.len == 5 && memcmp(echo.payload, "first", 5) == 0, "cut %zu", cut);
            cr_assert_eq(raw_read_frame(&client, &echo), 1, "cut %zu", cut);
            cr_expect(echo.len == 6 && memcmp(echo.payload, "second", 6) == 0, "cut %zu", cut);
            raw_close(&client);
        }
        stop_serving(&server);
    }
}

/* A head of `bytes` in all, as one long header or as many short ones; returns the status. */
static int ask_large(const engine_server *server, size_t bytes, bool many, bool one_by_one)
{
    char *request = malloc(bytes + 64);
    cr_assert_not_null(request);
    size_t len = (size_t)sprintf(request, "%s", START FIELDS);
    while (many && len + 2 + 12 < bytes)
        len += (size_t)sprintf(request + len, "a%zu: b\r\n", len % 1000);
    if (bytes > len + 2 + 5) {
        len += (size_t)sprintf(request + len, "x: ");
        while (len + 4 < bytes)
            request[len++] = 'y';
        len += (size_t)sprintf(request + len, "\r\n");
    }
    len += (size_t)sprintf(request + len, "\r\n");
    raw_client client;
    char head[512];
    cr_assert(raw_connect(&client, "127.0.0.1", server->port, 0));
    size_t step = one_by_one ? 1 : len;
    for (size_t at = 0; at < len; at += step)
        if (!raw_send(&client, request + at, step)) break;
    int status = raw_read_head(&client, head, sizeof head);
    raw_close(&client);
    free(request);
    return status;
}

Test(engine_security_handshake, a_head_is_bounded_in_bytes_and_not_in_headers)
{
    EACH_FEATURES(off)
    {
        engine_server server;
        test_options options = engine_server_options();
        options.features_off = *off;
        options.headers_max = 16;
        options.handshake_bytes_max = 8192;
        cr_assert_eq(engine_server_start(&server, &options, NULL), 0);
        for (int many = 0; many < 2; many++) {
            cr_expect_eq(ask_large(&server, 8000, many, false), 101);
            cr_expect_eq(ask_large(&server, 8192, many, false), 101);
            cr_expect_eq(ask_large(&server, 8300, many, false), 431);
            cr_expect_eq(ask_large(&server, 60000, many, false), 431);
            /* Linear time: 8,192 receives of a byte each. */
            uint64_t begin = test_now_ms();
            cr_expect_eq(ask_large(&server, 8000, many, true), 101);
            cr_expect_eq(ask_large(&server, 9000, many, true), 431);
            cr_expect_lt(test_now_ms() - begin, 10000);
        }
        stop_serving(&server);
    }
}

typedef struct row {
    const char *name;
    const char *request;
    size_t len; /* 0: strlen */
    int status;
} row;

static const row rows[] = {
    {"a body by Content-Length", START FIELDS "Content-Length: 5\r\n\r\nhello", 0, 400},
    {"two Content-Lengths", START FIELDS "Content-Length: 0\r\nContent-Length: 0\r\n\r\n", 0, 400},
    {"a signed Content-Length", START FIELDS "Content-Length: +0\r\n\r\n", 0, 400},
    {"chunked", START FIELDS "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0, 400},
    {"identity", START FIELDS "Transfer-Encoding: identity\r\n\r\n", 0, 400},
    {"obs-fold", START FIELDS "X: a\r\n b\r\n\r\n", 0, 400},
    {"obs-fold of a tab", START FIELDS "X: a\r\n\tb\r\n\r\n", 0, 400},
    {"bare LF", "GET / HTTP/1.1\n" FIELDS "\r\n", 0, 400},
    {"bare LF in a header", START FIELDS "X: a\nY: b\r\n\r\n", 0, 400},
    {"bare CR", START FIELDS "X: a\rY: b\r\n\r\n", 0, 400},
    {"NUL in a value", START FIELDS "X: a\0b\r\n\r\n", sizeof(START FIELDS "X: a\0b\r\n\r\n") - 1,
     400},
    {"NUL in a name", START FIELDS "X\0Y: b\r\n\r\n", sizeof(START FIELDS "X\0Y: b\r\n\r\n") - 1,
     400},
    {"space before the colon", START FIELDS "X : a\r\n\r\n", 0, 400},
    {"an empty name", START FIELDS ": a\r\n\r\n", 0, 400},
    {"no colon", START FIELDS "X\r\n\r\n", 0, 400},
    {"a space at the start", " " REQUEST, 0, 400},
    {"two spaces", "GET  / HTTP/1.1\r\n" FIELDS "\r\n", 0, 400},
    {"a target with a fragment of another line", "GET /a b HTTP/1.1\r\n" FIELDS "\r\n", 0, 400},
    {"no Host", START UPGRADE CONNECTION KEY VERSION "\r\n", 0, 400},
    {"two Hosts", START HOST FIELDS "\r\n", 0, 400},
    {"a Host with a path", START "Host: a/b\r\n" UPGRADE CONNECTION KEY VERSION "\r\n", 0, 400},
    {"two keys", START FIELDS KEY "\r\n", 0, 400},
    {"a short key", START HOST UPGRADE CONNECTION VERSION "Sec-WebSocket-Key: YWJj\r\n\r\n", 0,
     400},
    {"no key", START HOST UPGRADE CONNECTION VERSION "\r\n", 0, 400},
    {"two origins", START FIELDS "Origin: http://a\r\nOrigin: http://b\r\n\r\n", 0, 400},
    {"POST", "POST / HTTP/1.1\r\n" FIELDS "\r\n", 0, 405},
    {"HTTP/1.0", "GET / HTTP/1.0\r\n" FIELDS "\r\n", 0, 505},
    {"no upgrade", START HOST "\r\n", 0, 426},
    {"version 8", START HOST UPGRADE CONNECTION KEY "Sec-WebSocket-Version: 8\r\n\r\n", 0, 426},
    {"no version", START HOST UPGRADE CONNECTION KEY "\r\n", 0, 426},
    {"a TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11, 400},
    {"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0, 400},
};

Test(engine_security_handshake, what_could_smuggle_is_refused_and_the_connection_ends)
{
    EACH_FEATURES(off)
    {
        engine_server server;
        test_options options = engine_server_options();
        options.features_off = *off;
        cr_assert_eq(engine_server_start(&server, &options, NULL), 0);
        const size_t count = sizeof rows / sizeof rows[0];
        for (size_t i = 0; i < count; i++) {
            char head[1024];
            size_t len = rows[i].len > 0 ? rows[i].len : strlen(rows[i].request);
            int status = ask(&server, rows[i].request, len, head, sizeof head);
            cr_expect_eq(status, rows[i].status, "%s: %d", rows[i].name, status);
            if (status == 426)
                cr_expect_not_null(strstr(head, "Sec-WebSocket-Version: 13\r\n"), "%s", head);
            cr_expect_not_null(strstr(head, "Connection: close"), "%s", rows[i].name);
        }
        cr_expect_eq(engine_server_stats(&server).refused, count);
        cr_expect_eq(atomic_load(&server.opened), 0);
        stop_serving(&server);
    }
}

Test(engine_security_handshake, only_listed_origins_are_upgraded)
{
    static const char *const allowed[] = {"https://example.org", "http://localhost:8080"};
    static const struct {
        const char *origin;
        int status;
    } origins[] = {
        {"https://example.org", 101},
        {"https://EXAMPLE.org:443", 101},
        {"http://localhost:8080", 101},
        {"http://example.org", 403},
        {"https://example.org:444", 403},
        {"https://example.org.evil.com", 403},
        {"https://evil-example.org", 403},
        {"https://evil.com/https://example.org", 403},
        {"https://example.org@evil.com", 403},
        {"https://example.org ", 101}, /* white space around a value is not part of it */
        {"http://localhost", 403},
        {"null", 403},
        {"", 403},
    };
    engine_server server;
    test_options options = engine_server_options();
    options.origins = allowed;
    options.origins_count = 2;
    cr_assert_eq(engine_server_start(&server, &options, NULL), 0);
    for (size_t i = 0; i < sizeof origins / sizeof origins[0]; i++) {
        char request[512], head[1024];
        int len =
            snprintf(request, sizeof request, START FIELDS "Origin: %s\r\n\r\n", origins[i].origin);
        int status = ask(&server, request, (size_t)len, head, sizeof head);
        cr_expect_eq(status, origins[i].status, "'%s': %d", origins[i].origin, status);
    }
    stop_serving(&server); /* whose client sends no Origin: it is no browser */
}

/* Whether something can still be sent after `ms`: the server has not dropped us. */
static uint64_t drip(raw_client *client, const char *text, uint32_t pause_ms)
{
    uint64_t begin = test_now_ms();
    struct timeval pause = {.tv_usec = pause_ms * 1000};
    (void)setsockopt(client->fd, SOL_SOCKET, SO_RCVTIMEO, &pause, sizeof pause);
    for (; *text != '\0'; text++) {
        char byte;
        if (!raw_send(client, text, 1)) break;
        if (recv(client->fd, &byte, 1, 0) >= 0) break;
    }
    return test_now_ms() - begin;
}

Test(engine_security_handshake, a_slow_handshake_meets_one_deadline)
{
    EACH_FEATURES(off)
    {
        engine_server server;
        test_options options = engine_server_options();
        options.features_off = *off;
        options.handshake_timeout_ms = 400;
        cr_assert_eq(engine_server_start(&server, &options, NULL), 0);
        raw_client silent, slow, half;
        cr_assert(raw_connect(&silent, "127.0.0.1", server.port, 0));
        cr_assert(raw_connect(&half, "127.0.0.1", server.port, 0));
        cr_assert(raw_send(&half, REQUEST, sizeof REQUEST - 2));
        cr_assert(raw_connect(&slow, "127.0.0.1", server.port, 0));
        /* 170 bytes at 20 ms each would take 3.4 s; bytes that come do not move the deadline. */
        uint64_t took = drip(&slow, REQUEST, 20);
        cr_expect(took >= 300 && took < 2000, "%llu ms", (unsigned long long)took);
        cr_expect(raw_read_end(&silent));
        cr_expect(raw_read_end(&half));
        cr_expect_eq(engine_server_stats(&server).timeouts, 3);
        cr_expect_eq(engine_server_stats(&server).refused, 0, "each counts once");
        cr_expect(engine_server_await_connections(&server, 0));
        raw_close(&silent);
        raw_close(&slow);
        raw_close(&half);
        stop_serving(&server);
    }
}
