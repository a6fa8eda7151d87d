/*
 * The testing kit: what can't be done or shown as it is. A server that never comes to rest,
 * requests and answers that can't be written, and texts with bytes that are no characters.
 */
/* ctest: testing kit */
#include "support/kit_log.h"

#include <criterion/criterion.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

TestSuite(engine_testing_limits, .timeout = 60);

static kit_failures failures;
static rws_handler handler;
static rws_test *test;

static void open_one(rws_role role)
{
    static rws_endpoint_options endpoint;
    rws_test_on_failure(kit_on_failure, &failures);
    handler = (rws_handler)RWS_HANDLER_DEFAULT;
    endpoint = (rws_endpoint_options)RWS_ENDPOINT_OPTIONS_DEFAULT;
    endpoint.handler = &handler;
    endpoint.role = role;
    test = rws_test_open(NULL, &endpoint);
    cr_assert_eq(failures.count, 0);
}

static bool is_said(const char *text)
{
    return failures.count == 1 && strstr(failures.text, text) != NULL;
}

/* ---- no rest ---- */

static void post_again(void *arg, bool cancelled)
{
    if (!cancelled) rws_post(arg, 0, post_again, arg);
}

static bool connect_one(rws_test_peer *peer)
{
    (void)peer;
    return rws_test_connect(test) != NULL;
}

static bool connect_raw(rws_test_peer *peer)
{
    (void)peer;
    return rws_test_connect_raw(test, "GET", 3) != NULL;
}

static bool accept_one(rws_test_peer *peer)
{
    (void)peer;
    return rws_test_accept(test, NULL) != NULL;
}

static bool expect_text(rws_test_peer *peer)
{
    return rws_test_expect_text(peer, "a");
}

static bool expect_pong(rws_test_peer *peer)
{
    return rws_test_expect_pong(peer, "a", 1);
}

static bool expect_upgraded(rws_test_peer *peer)
{
    return rws_test_expect_upgraded(peer, NULL);
}

static bool expect_refused(rws_test_peer *peer)
{
    return rws_test_expect_refused(peer, 403);
}

static bool expect_header(rws_test_peer *peer)
{
    return rws_test_expect_header(peer, "upgrade", "websocket");
}

static bool expect_body(rws_test_peer *peer)
{
    return rws_test_expect_body(peer, "");
}

static bool expect_nothing(rws_test_peer *peer)
{
    return rws_test_expect_nothing(peer);
}

static bool expect_ended(rws_test_peer *peer)
{
    return rws_test_expect_ended(peer);
}

static bool advance(rws_test_peer *peer)
{
    (void)peer;
    rws_test_advance(test, 1);
    return false;
}

/* Every call that lets the engine run says so, and fails. */
Test(engine_testing_limits, nothing_is_expected_of_what_does_not_rest)
{
    static bool (*const calls[])(rws_test_peer *) = {
        connect_one,    connect_raw,   accept_one,  expect_text,    expect_pong,  expect_upgraded,
        expect_refused, expect_header, expect_body, expect_nothing, expect_ended, advance,
    };
    open_one(RWS_SERVER);
    rws_test_peer *peer = rws_test_connect(test);
    cr_assert_not_null(peer);
    cr_assert_eq(rws_post(rws_test_runtime(test), 0, post_again, rws_test_runtime(test)), 0);
    for (size_t i = 0; i < COUNT(calls); i++) {
        failures.count = 0;
        cr_expect_not(calls[i](peer), "call %zu", i);
        cr_expect(is_said("the engine does not come to rest"), "call %zu: %s", i, failures.text);
    }
    cr_expect_not(rws_test_close(test));
}

/* ---- handshakes that can't be written ---- */

Test(engine_testing_limits, headers_that_a_request_does_not_have)
{
    static const rws_header rows[] = {
        {"Host", "b"}, {"Sec-WebSocket-Key", "x"}, {"X", "a\r\nb"}, {"X Y", "a"}, {"", "a"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        open_one(RWS_SERVER);
        rws_test_request request = RWS_TEST_REQUEST_DEFAULT;
        request.headers = &rows[i];
        request.headers_count = 1;
        cr_expect_null(rws_test_connect_with(test, &request), "row %zu", i);
        cr_expect(is_said("the upgrade request can't be written"), "row %zu: %s", i, failures.text);
        cr_expect(rws_test_close(test));
        failures.count = 0;
    }
}

Test(engine_testing_limits, headers_that_an_answer_does_not_have)
{
    static const struct {
        int status;
        rws_header header;
        const char *says; /* NULL: it is sent */
    } rows[] = {
        {0, {"X", "a"}, NULL},
        {101, {"X", "a"}, NULL},
        {403, {"X", "a"}, NULL},
        {101, {"Upgrade", "h2c"}, "the answer can't be written"},
        {403, {"Content-Length", "7"}, "the answer can't be written"},
        {600, {"X", "a"}, "the answer can't be written"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        open_one(RWS_CLIENT);
        cr_assert_eq(rws_test_dial(test, NULL), 0);
        rws_test_answer answer = RWS_TEST_ANSWER_DEFAULT;
        answer.status = rows[i].status;
        answer.headers = &rows[i].header;
        answer.headers_count = 1;
        cr_expect_eq(rws_test_accept(test, &answer) != NULL, rows[i].says == NULL, "row %zu", i);
        if (rows[i].says == NULL)
            cr_expect_eq(failures.count, 0, "row %zu: %s", i, failures.text);
        else
            cr_expect(is_said(rows[i].says), "row %zu: %s", i, failures.text);
        cr_expect(rws_test_close(test));
        failures.count = 0;
    }
}

Test(engine_testing_limits, an_answer_of_another_size)
{
    open_one(RWS_CLIENT);
    cr_assert_eq(rws_test_dial(test, NULL), 0);
    rws_test_answer answer = RWS_TEST_ANSWER_DEFAULT;
    static const size_t sizes[] = {0, 3, sizeof answer + 8, sizeof answer - 1};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        failures.count = 0;
        answer.size = sizes[i];
        cr_expect_null(rws_test_accept(test, &answer));
        cr_expect(is_said("start from RWS_TEST_ANSWER_DEFAULT"), "%s", failures.text);
    }
    cr_expect(rws_test_close(test));
}

Test(engine_testing_limits, options_of_another_size)
{
    rws_test_on_failure(kit_on_failure, &failures);
    handler = (rws_handler)RWS_HANDLER_DEFAULT;
    for (int i = 0; i < 4; i++) {
        rws_test_options options = RWS_TEST_OPTIONS_DEFAULT;
        rws_endpoint_options endpoint = RWS_ENDPOINT_OPTIONS_DEFAULT;
        rws_runtime_options runtime = RWS_RUNTIME_OPTIONS_DEFAULT;
        rws_listener_options listener = RWS_LISTENER_OPTIONS_DEFAULT;
        size_t *const sizes[] = {&options.size, &endpoint.size, &runtime.size, &listener.size};
        options.handler = &handler;
        options.endpoint = &endpoint;
        options.runtime = &runtime;
        options.listener = &listener;
        *sizes[i] = 3;
        failures.count = 0;
        cr_expect_null(rws_test_open_with(&options));
        cr_expect(is_said("the struct's size is 3: start from RWS_"), "%s", failures.text);
    }
}

/* ---- what a failure says ---- */

static int choose(rws_request *request, void *user)
{
    (void)user;
    return rws_request_choose_subprotocol(request, "chat");
}

Test(engine_testing_limits, another_subprotocol)
{
    static const char raw[] =
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Protocol: chat\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    rws_test_on_failure(kit_on_failure, &failures);
    handler = (rws_handler)RWS_HANDLER_DEFAULT;
    handler.on_upgrade = choose;
    test = rws_test_open(&handler, NULL);
    rws_test_peer *peer = rws_test_connect_raw(test, raw, sizeof raw - 1);
    cr_expect(rws_test_expect_upgraded(peer, "chat"));
    cr_expect_not(rws_test_expect_upgraded(peer, "chit"));
    cr_expect(is_said("received: the upgrade, with the subprotocol \"chat\""), "%s", failures.text);
    cr_expect(rws_test_close(test));
}

/* 20 bytes. */
#define UMLAUTS "\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4"

Test(engine_testing_limits, bytes_that_are_no_characters)
{
    static const struct {
        const char *sent;
        size_t len;
        const char *said;
    } rows[] = {
        {"\r\x7f", 2, "ping, 2 bytes: \"\\r\\x7f\""},
        {"a\xff", 2, "ping, 2 bytes: \"a\\xff\""},
        {"a\xc3", 2, "ping, 2 bytes: \"a\\xc3\""},
        {"a\0b", 3, "ping, 3 bytes: \"a\\x00b\""},
        {"\xc3\xa4", 2, "ping, 2 bytes: \"\xc3\xa4\""},
        /* 60 bytes are shown: no character is cut. */
        {"-" UMLAUTS UMLAUTS UMLAUTS, 61, "ping, 61 bytes: \"-" UMLAUTS UMLAUTS},
        {"-" UMLAUTS UMLAUTS UMLAUTS, 61, "\xc3\xa4\"..."},
        {UMLAUTS UMLAUTS UMLAUTS "\xff", 61, "ping, 61 bytes: \"\\xc3\\xa4"},
    };
    open_one(RWS_SERVER);
    rws_test_peer *peer = rws_test_connect(test);
    for (size_t i = 0; i < COUNT(rows); i++) {
        failures.count = 0;
        cr_assert_eq(
            rws_conn_send_frame(rws_test_conn(peer), RWS_PING, true, rows[i].sent, rows[i].len), 0,
            "row %zu", i);
        cr_expect_not(rws_test_expect_ping(peer, "expected", 8));
        cr_expect(is_said(rows[i].said), "row %zu: %s", i, failures.text);
    }
    cr_expect(rws_test_close(test));
}

/* The part around the first difference begins and ends with whole characters. */
Test(engine_testing_limits, a_part_of_a_long_text)
{
    char sent[302], expected[302];
    open_one(RWS_SERVER);
    rws_test_peer *peer = rws_test_connect(test);
    for (size_t first = 0; first < 2; first++) {
        memset(sent, '-', sizeof sent);
        for (size_t at = first; at + 1 < 300; at += 2)
            memcpy(sent + at, "\xc3\xa4", 2);
        sent[300] = '\0';
        memcpy(expected, sent, sizeof sent);
        for (size_t mark = 99; mark < 301; mark += 67) {
            failures.count = 0;
            expected[mark < 300 ? mark : 299] = '?';
            cr_assert_eq(rws_conn_send_text(rws_test_conn(peer), sent, 300), 0);
            cr_expect_not(rws_test_expect_text(peer, expected));
            cr_expect(is_said("received: text, 300 bytes: ...\"\xc3\xa4"), "%s", failures.text);
            cr_expect_null(strstr(strstr(failures.text, "received"), "\\x"), "%s", failures.text);
            memcpy(expected, sent, sizeof sent);
        }
    }
    cr_expect(rws_test_close(test));
}
