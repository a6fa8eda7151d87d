/* What on_upgrade sees of a request, and what it may say to it. */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/conn/request.h"
#include "engine/server/shard.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static rws__http_header headers[8];
static rws_conn conn;
static rws__conn_cold cold;
static rws__loop loop;
static rws__pool pool;
static rws__conns conns = {
    .streams = {.loop = &loop,
                .cold = (uint8_t *)&cold,
                .options.cold_bytes = sizeof cold,
                .partial = &pool},
};
static rws_request request;
static uint8_t bytes[4096];

/* A request as upgrade.c makes it. */
static void start(const char *target, const char *lines)
{
    int len = snprintf((char *)bytes, sizeof bytes,
                       "GET %s HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                       "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                       "Sec-WebSocket-Version: 13\r\n%s\r\n",
                       target, lines);
    if (pool.slab.base == NULL) cr_assert_eq(rws__pool_init(&pool, 65536), 0);
    rws__payload_release(request.extra);
    rws__payload_release(request.body);
    cr_assert_eq(pool.charged_bytes, 0);
    memset(&conn, 0, sizeof conn);
    conn.stream.streams = &conns.streams;
    memset(&request, 0, sizeof request);
    request.conn = &conn;
    request.head.headers = headers;
    request.head.headers_capacity = COUNT(headers);
    cr_assert_eq(rws__http_parse_request(&request.head, bytes, (size_t)len), 0);
}

static void span_is(rws_span span, const char *text, const char *context)
{
    if (text == NULL) {
        cr_expect_null(span.data, "%s: \"%.*s\" instead of nothing", context, (int)span.len,
                       span.data);
        return;
    }
    cr_expect_not_null(span.data, "%s: nothing instead of \"%s\"", context, text);
    cr_expect(span.len == strlen(text) && memcmp(span.data, text, span.len) == 0,
              "%s: \"%.*s\" instead of \"%s\"", context, (int)span.len, span.data, text);
}

Test(engine_request, gives_the_parts_of_the_request)
{
    start("/chat?a=1", "Origin: https://example.org\r\nX-Thing:  some thing \r\nx-thing: two\r\n");
    span_is(rws_request_method(&request), "GET", "method");
    span_is(rws_request_target(&request), "/chat?a=1", "target");
    span_is(rws_request_path(&request), "/chat", "path");
    span_is(rws_request_origin(&request), "https://example.org", "origin");
    span_is(rws_request_header(&request, "x-thing"), "some thing", "the first of two");
    span_is(rws_request_header(&request, "x-other"), NULL, "no such header");
    cr_expect_eq(rws_request_header_count(&request), 8);
    rws_span name, value;
    cr_assert(rws_request_header_at(&request, 7, &name, &value));
    span_is(name, "x-thing", "the last name");
    span_is(value, "two", "the last value");
    cr_expect_not(rws_request_header_at(&request, 8, &name, &value));
    cr_expect_not(rws_request_header_at(&request, SIZE_MAX, &name, &value));
    rws_request_set_user(&request, &bytes, NULL);
    cr_expect_eq(request.user, &bytes);
    struct sockaddr_storage address;
    socklen_t len = sizeof address;
    cr_expect_eq(rws_request_peer(&request, &address, &len), RWS_E_STATE);
}

static int pointers[3];
static char released[64];

static void release_one(void *pointer)
{
    size_t len = strlen(released);
    snprintf(released + len, sizeof released - len, "%td", (int *)pointer - pointers);
    cr_expect_neq(request.user, pointer, "it may be freed: nobody has it any more");
}

static void release_other(void *pointer)
{
    strcat(released, "other ");
    release_one(pointer);
}

/* What is set again releases what it takes the place of, as that one's own release says. */
Test(engine_request, releases_a_user_that_another_one_replaces)
{
    start("/", "");
    released[0] = '\0';
    rws_request_set_user(&request, &pointers[0], release_one);
    rws_request_set_user(&request, &pointers[1], release_other);
    cr_expect_str_eq(released, "0");
    rws_request_set_user(&request, &pointers[1], release_one);
    rws_request_set_user(&request, &pointers[1], release_one);
    cr_expect_str_eq(released, "0", "the same pointer is kept");
    rws_request_set_user(&request, &pointers[2], NULL);
    cr_expect_str_eq(released, "01");
    rws_request_set_user(&request, &pointers[0], release_other);
    cr_expect_str_eq(released, "01", "nothing is to be done for the third");
    rws_request_set_user(&request, NULL, NULL);
    cr_expect_str_eq(released, "01other 0");
    cr_expect_null(request.release_user);
}

Test(engine_request, has_no_origin_if_there_is_none)
{
    start("/", "");
    span_is(rws_request_origin(&request), NULL, "origin");
    span_is(rws_request_path(&request), "/", "path");
}

Test(engine_request, finds_query_parameters)
{
    static const struct {
        const char *target, *name, *value;
    } rows[] = {
        {"/", "a", NULL},
        {"/?", "a", NULL},
        {"/?a", "a", ""},
        {"/?a=", "a", ""},
        {"/?a=1", "a", "1"},
        {"/?a=1", "A", NULL},
        {"/?a=1", "", NULL},
        {"/?ab=1&a=2", "a", "2"},
        {"/?a=1&ab=2", "ab", "2"},
        {"/?a=1&a=2", "a", "1"},
        {"/?x&a=1", "a", "1"},
        {"/?&&a=1&&", "a", "1"},
        {"/?a=b=c", "a", "b=c"},
        {"/?a=b?c", "a", "b?c"},
        {"/?a?b=1", "a?b", "1"},
        {"/?=1&a=2", "a", "2"},
        {"/?a=%26b%3d&c=+", "a", "%26b%3d"},
        {"/?a=%26b%3d&c=+", "c", "+"},
        {"/?%61=1", "a", NULL},
        {"/a=1", "a", NULL},
        {"/a=1?b=2", "a", NULL},
        {"/?b=2&a", "a", ""},
        {"/?aa", "a", NULL},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        start(rows[i].target, "");
        span_is(rws_request_query(&request, rows[i].name), rows[i].value, rows[i].target);
    }
}

Test(engine_request, chooses_only_a_subprotocol_that_was_offered)
{
    static const struct {
        const char *lines, *name;
        bool offered;
    } rows[] = {
        {"", "chat", false},
        {"Sec-WebSocket-Protocol: chat\r\n", "chat", true},
        {"Sec-WebSocket-Protocol: chat\r\n", "Chat", false},
        {"Sec-WebSocket-Protocol: chat\r\n", "cha", false},
        {"Sec-WebSocket-Protocol: chat\r\n", "chatt", false},
        {"Sec-WebSocket-Protocol: chat\r\n", "", false},
        {"Sec-WebSocket-Protocol: a, chat ,b\r\n", "chat", true},
        {"Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: b, chat\r\n", "chat", true},
        {"Sec-WebSocket-Protocol: a, b\r\n", "a, b", false},
        {"X-Protocol: chat\r\n", "chat", false},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        start("/", rows[i].lines);
        cr_expect_eq(rws_request_choose_subprotocol(&request, rows[i].name),
                     rows[i].offered ? 0 : RWS_E_ARGUMENT, "%s from %s", rows[i].name,
                     rows[i].lines);
        span_is(request.subprotocol, rows[i].offered ? rows[i].name : NULL, rows[i].lines);
    }
}

Test(engine_request, copies_the_name_of_the_subprotocol)
{
    start("/", "Sec-WebSocket-Protocol: a, chat\r\n");
    char name[] = "chat";
    cr_assert_eq(rws_request_choose_subprotocol(&request, name), 0);
    memset(name, 'x', 4);
    span_is(request.subprotocol, "chat", "after the caller's memory changed");
    cr_assert_eq(rws_request_choose_subprotocol(&request, "a"), 0);
    span_is(request.subprotocol, "a", "the last choice counts");
}

Test(engine_request, lets_nothing_be_injected_into_the_headers)
{
    static const struct {
        const char *name, *value;
        bool good;
    } rows[] = {
        {"X-Good", "value", true},
        {"x-empty", "", true},
        {"Set-Cookie", "a=b; Path=/", true},
        {"X-Tab", "a\tb", true},
        {"X-Latin", "caf\xe9", true},
        {"", "value", false},
        {"X Bad", "value", false},
        {"X-Bad:", "value", false},
        {"X-Bad\r\nX", "value", false},
        {"X-Bad\n", "value", false},
        {"X-\x7f", "value", false},
        {"X-B\xe9", "value", false},
        {"X-Bad", "a\r\nSet-Cookie: b", false},
        {"X-Bad", "a\n", false},
        {"X-Bad", "a\rb", false},
        {"X-Bad", "a\x01", false},
        {"X-Bad", "a\x7f", false},
        {"Sec-WebSocket-Accept", "x", false},
        {"sec-websocket-protocol", "x", false},
        {"Sec-WebSocket-Extensions", "permessage-deflate", false},
        {"Upgrade", "x", false},
        {"Connection", "close", false},
        {"Content-Length", "0", false},
        {"Transfer-Encoding", "chunked", false},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        start("/", "");
        int res = rws_request_add_header(&request, rows[i].name, rows[i].value);
        cr_expect_eq(res, rows[i].good ? 0 : RWS_E_ARGUMENT, "\"%s\": \"%s\" gives %d",
                     rows[i].name, rows[i].value, res);
        if (!rows[i].good) cr_expect_null(request.extra, "\"%s\"", rows[i].name);
    }
}

Test(engine_request, bounds_the_headers_that_are_added)
{
    static char value[RWS__EXTRA_MAX];
    start("/", "");
    /* "x: " and CRLF are 5 bytes. */
    memset(value, 'v', sizeof value - 1);
    cr_assert_eq(rws_request_add_header(&request, "x", value + 3), RWS_E_HTTP_TOO_BIG);
    cr_assert_null(request.extra);
    cr_assert_eq(rws_request_add_header(&request, "x", value + 4), 0);
    cr_assert_eq(request.extra->len, RWS__EXTRA_MAX);
    cr_assert_eq(rws_request_add_header(&request, "y", ""), RWS_E_HTTP_TOO_BIG);
    cr_assert_eq(rws_request_add_header(&request, "y:", ""), RWS_E_ARGUMENT);
    cr_assert_eq(request.extra->len, RWS__EXTRA_MAX);
}

static void body_is(const char *text)
{
    rws_span body = rws__payload_span(request.body);
    cr_expect_eq(body.len, strlen(text));
    if (body.len > 0) cr_expect_eq(memcmp(body.data, text, body.len), 0);
}

Test(engine_request, takes_an_answer_within_bounds)
{
    static char body[RWS__BODY_MAX + 1];
    memset(body, 'b', sizeof body);
    start("/", "");
    cr_expect_eq(rws_request_respond(&request, 199, NULL, 0), RWS_E_ARGUMENT);
    cr_expect_eq(rws_request_respond(&request, 600, NULL, 0), RWS_E_ARGUMENT);
    cr_expect_eq(rws_request_respond(&request, 101, NULL, 0), RWS_E_ARGUMENT);
    cr_expect_eq(rws_request_respond(&request, -1, NULL, 0), RWS_E_ARGUMENT);
    cr_expect_eq(rws_request_respond(&request, 400, NULL, 1), RWS_E_ARGUMENT);
    cr_expect_eq(rws_request_respond(&request, 400, body, sizeof body), RWS_E_ARGUMENT);
    cr_expect_eq(rws_request_respond(&request, 400, body, SIZE_MAX), RWS_E_ARGUMENT);
    cr_expect_eq(request.status, 0, "nothing was changed");
    cr_expect_eq(rws_request_respond(&request, 200, NULL, 0), 0);
    cr_expect_eq(request.status, 200);
    body_is("");
    cr_expect_eq(rws_request_respond(&request, 599, body, RWS__BODY_MAX), 0);
    cr_expect_eq(request.status, 599);
    cr_expect_eq(request.body->len, RWS__BODY_MAX);
    cr_expect_eq(rws_request_respond(&request, 404, "a\0b\xff", 4), 0, "any bytes");
    cr_expect_eq(request.body->len, 4);
    cr_expect_eq(memcmp(request.body->data, "a\0b\xff", 4), 0);
    cr_expect_eq(rws_request_respond(&request, 299, "", 0), 0);
    body_is("");
}

/* What the answer is to say is taken when it is said, and left as it was when it can't be. */
Test(engine_request, says_that_there_is_no_memory)
{
    static void *held[65536];
    start("/", "");
    cr_assert_eq(rws_request_add_header(&request, "x", "one"), 0);
    cr_assert_eq(rws_request_respond(&request, 404, "nothing", 7), 0);
    size_t count = 0, charged = pool.charged_bytes;
    while (count < COUNT(held) && (held[count] = rws__slab_take(&pool.slab, 256)) != NULL)
        count++;
    cr_assert_lt(count, COUNT(held));
    char value[512];
    memset(value, 'v', sizeof value - 1);
    value[sizeof value - 1] = '\0';
    cr_expect_eq(rws_request_add_header(&request, "y", value), -ENOMEM);
    cr_expect_eq(rws_request_respond(&request, 500, value, sizeof value), -ENOMEM);
    cr_expect_eq(request.status, 404);
    body_is("nothing");
    cr_expect_eq(request.extra->len, strlen("x: one\r\n"));
    cr_expect_eq(rws_request_respond(&request, 204, NULL, 0), 0, "it needs none");
    while (count > 0)
        rws__slab_give(&pool.slab, held[--count]);
    cr_expect_lt(pool.charged_bytes, charged);
}
