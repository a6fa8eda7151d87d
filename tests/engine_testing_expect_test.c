/*
 * The testing kit: what each expectation says when it is not met, word for word, and where.
 * ctest: testing kit
 */
#include "support/kit_log.h"

#include "engine/testing/kit.h"

#include <criterion/criterion.h>
#include <setjmp.h>
#include <stdlib.h>

static kit_failures failures;
static rws_handler handler;
static rws_test *test;
static rws_test_peer *peer;

static void open_one(void)
{
    rws_test_on_failure(kit_on_failure, &failures);
    handler = (rws_handler)RWS_HANDLER_DEFAULT;
    test = rws_test_open(&handler, NULL);
    peer = rws_test_connect(test);
    cr_assert_eq(failures.count, 0);
}

static void close_one(void)
{
    unsigned before = failures.count;
    cr_assert(rws_test_close(test));
    cr_assert_eq(failures.count, before);
}

TestSuite(engine_testing_expect, .init = open_one, .fini = close_one);

/* `call` fails with this text, about here: which line of a call of several lines is meant, gcc and
 * clang do not agree on. */
#define FAILS(call, expected)                                                                      \
    do {                                                                                           \
        unsigned before = failures.count;                                                          \
        cr_assert_not(call);                                                                       \
        cr_assert_eq(failures.count, before + 1);                                                  \
        cr_assert(abs(failures.line - __LINE__) <= 10);                                            \
        cr_assert_str_eq(failures.file, __FILE__);                                                 \
        cr_assert_str_eq(failures.text, expected);                                                 \
    } while (0)

#define HEAD "peer 1 did not receive what was expected\n"

static void send_text(const char *text)
{
    cr_assert_eq(rws_conn_send_text(rws_test_conn(peer), text, strlen(text)), 0);
}

static void send_binary(const void *data, size_t len)
{
    cr_assert_eq(rws_conn_send_binary(rws_test_conn(peer), data, len), 0);
}

Test(engine_testing_expect, a_line)
{
    rws_test_expect_text(peer, "hello");
    cr_assert_eq(failures.line, __LINE__ - 1);
    cr_assert_str_eq(failures.file, __FILE__);
    failures.count = 0;
}

Test(engine_testing_expect, texts)
{
    send_text("hello");
    FAILS(rws_test_expect_text(peer, "hallo"), HEAD "  expected: text, 5 bytes: \"hallo\"\n"
                                                    "  received: text, 5 bytes: \"hello\"\n"
                                                    "  the first difference is at byte 1");
    FAILS(rws_test_expect_text(peer, "again"), HEAD "  expected: text, 5 bytes: \"again\"\n"
                                                    "  received: nothing");
    send_text("x");
    FAILS(rws_test_expect_text(peer, "x y"), HEAD "  expected: text, 3 bytes: \"x y\"\n"
                                                  "  received: text, 1 byte: \"x\"\n"
                                                  "  the first difference is at byte 1");
    send_text("tab\t \"quoted\" \\ line\n\x01 \xc3\xa4");
    FAILS(rws_test_expect_text(peer, ""),
          HEAD "  expected: text, 0 bytes: \"\"\n"
               "  received: text, 25 bytes: \"tab\\t \\\"quoted\\\" \\\\ line\\n\\x01 \xc3\xa4\"\n"
               "  the first difference is at byte 0");
    /* Text is not checked by the engine: what a peer would not accept is not accepted here. */
    send_text("\xff");
    FAILS(rws_test_expect_text(peer, "a"), HEAD "  expected: text, 1 byte: \"a\"\n"
                                                "  received: a text that is not valid UTF-8");
}

/* Of long ones the part around the first difference is shown, and no character is cut. */
Test(engine_testing_expect, long_texts)
{
    char sent[201], expected[201];
    for (int i = 0; i < 200; i++)
        sent[i] = expected[i] = (char)('a' + i % 26);
    sent[200] = expected[200] = '\0';
    sent[100] = '!';
    send_text(sent);
    FAILS(rws_test_expect_text(peer, expected),
          HEAD "  expected: text, 200 bytes: "
               "...\"yzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdef\"...\n"
               "  received: text, 200 bytes: "
               "...\"yzabcdefghijklmnopqrstuv!xyzabcdefghijklmnopqrstuvwxyzabcdef\"...\n"
               "  the first difference is at byte 100");
    char umlauts[201];
    for (int i = 0; i < 200; i += 2)
        memcpy(umlauts + i, "\xc3\xa4", 2);
    umlauts[200] = '\0';
    umlauts[101] = '\xb6';
    send_text(umlauts);
    cr_assert_not(rws_test_expect_text(peer, expected));
    cr_assert_not_null(strstr(failures.text, "received: text, 200 bytes: \"\xc3\xa4\xc3\xa4"));
}

Test(engine_testing_expect, binary_data)
{
    send_binary("\0\1\2\3", 4);
    FAILS(rws_test_expect_binary(peer, "\0\1\xff\3", 4),
          HEAD "  expected: binary, 4 bytes: 00 01 [ff] 03\n"
               "  received: binary, 4 bytes: 00 01 [02] 03\n"
               "  the first difference is at byte 2");
    send_binary("\1\2", 2);
    FAILS(rws_test_expect_binary(peer, "\1\2\3", 3),
          HEAD "  expected: binary, 3 bytes: 01 02 [03]\n"
               "  received: binary, 2 bytes: 01 02 []\n"
               "  the first difference is at byte 2");
    send_binary("", 0);
    FAILS(rws_test_expect_binary(peer, "\1", 1), HEAD "  expected: binary, 1 byte: [01]\n"
                                                      "  received: binary, 0 bytes: []\n"
                                                      "  the first difference is at byte 0");
    uint8_t data[64];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)i;
    send_binary(data, sizeof data);
    data[40] = 0xff;
    FAILS(rws_test_expect_binary(peer, data, sizeof data),
          HEAD "  expected: binary, 64 bytes: "
               "... 22 23 24 25 26 27 [ff] 29 2a 2b 2c 2d 2e 2f 30 31 ...\n"
               "  received: binary, 64 bytes: "
               "... 22 23 24 25 26 27 [28] 29 2a 2b 2c 2d 2e 2f 30 31 ...\n"
               "  the first difference is at byte 40");
}

Test(engine_testing_expect, another_kind)
{
    send_binary("hello", 5);
    FAILS(rws_test_expect_text(peer, "hello"), HEAD "  expected: text, 5 bytes: \"hello\"\n"
                                                    "  received: binary, 5 bytes: 68 65 6c 6c 6f");
    rws_test_feed_ping(peer, "?", 1);
    FAILS(rws_test_expect_binary(peer, "?", 1), HEAD "  expected: binary, 1 byte: 3f\n"
                                                     "  received: pong, 1 byte: \"?\"");
    send_text("x");
    FAILS(rws_test_expect_nothing(peer), HEAD "  expected: nothing\n"
                                              "  received: text, 1 byte: \"x\"");
    send_text("y");
    FAILS(rws_test_expect_ended(peer), HEAD "  expected: the end of the stream\n"
                                            "  received: text, 1 byte: \"y\"");
    FAILS(rws_test_expect_ended(peer), HEAD "  expected: the end of the stream\n"
                                            "  received: nothing");
}

Test(engine_testing_expect, messages_in_any_order)
{
    send_text("c");
    FAILS(rws_test_expect_message(peer, RWS_MESSAGE_TEXT("a"), RWS_MESSAGE_BINARY("\1"), NULL),
          HEAD "  expected: text, 1 byte: \"a\"\n"
               "        or: binary, 1 byte: 01\n"
               "  received: text, 1 byte: \"c\"");
    send_binary("\1", 1);
    FAILS(rws_test_expect_message(peer, RWS_MESSAGE_TEXT("a"), RWS_MESSAGE_BINARY("\1"), NULL),
          HEAD "  expected: text, 1 byte: \"a\"\n"
               "  received: nothing");
    send_text("ab");
    FAILS(rws_test_expect_message(peer, RWS_MESSAGE_TEXT("ac"), NULL),
          HEAD "  expected: text, 2 bytes: \"ac\"\n"
               "  received: text, 2 bytes: \"ab\"\n"
               "  the first difference is at byte 1");
    send_text("same");
    send_text("same");
    cr_assert(
        rws_test_expect_message(peer, RWS_MESSAGE_TEXT("same"), RWS_MESSAGE_TEXT("same"), NULL));
}

Test(engine_testing_expect, too_many_messages_at_once)
{
    RWS_MESSAGE_TEXT_DEFINE(m, "m");
    FAILS(rws_test_expect_message(peer, m, m, m, m, m, m, m, m, m, m, m, m, m, m, m, m, m, m, m, m,
                                  m, m, m, m, m, m, m, m, m, m, m, m, m, m, m, m, m, m, m, m, m, m,
                                  m, m, m, m, m, m, m, m, m, m, m, m, m, m, m, m, m, m, m, m, m, m,
                                  m, NULL),
          "more than 64 messages are expected at once");
}

Test(engine_testing_expect, pings_and_pongs)
{
    cr_assert_eq(rws_conn_send_frame(rws_test_conn(peer), RWS_PING, true, "one", 3), 0);
    FAILS(rws_test_expect_ping(peer, "two", 3), HEAD "  expected: ping, 3 bytes: \"two\"\n"
                                                     "  received: ping, 3 bytes: \"one\"\n"
                                                     "  the first difference is at byte 0");
    rws_test_feed_ping(peer, "one", 3);
    FAILS(rws_test_expect_pong(peer, "once", 4), HEAD "  expected: pong, 4 bytes: \"once\"\n"
                                                      "  received: pong, 3 bytes: \"one\"\n"
                                                      "  the first difference is at byte 2");
}

Test(engine_testing_expect, closes)
{
    rws_test_feed_close(peer, 1000, "bye");
    FAILS(rws_test_expect_close(peer, 1001), HEAD "  expected: close, code 1001\n"
                                                  "  received: close, code 1000, reason \"bye\"");
    FAILS(rws_test_expect_close_reason(peer, 1000, "bye"),
          HEAD "  expected: close, code 1000, reason \"bye\"\n"
               "  received: the end of the stream");
    FAILS(rws_test_expect_close(peer, 1005), HEAD "  expected: close without a code (1005)\n"
                                                  "  received: the end of the stream");
    FAILS(rws_test_expect_nothing(peer), HEAD "  expected: nothing\n"
                                              "  received: the end of the stream");
}

Test(engine_testing_expect, peers_that_are_gone)
{
    rws_test_stop_reading(peer);
    FAILS(rws_test_expect_text(peer, "a"), HEAD "  expected: text, 1 byte: \"a\"\n"
                                                "  received: nothing: it does not read");
    rws_test_vanish(peer);
    FAILS(rws_test_expect_text(peer, "a"), HEAD "  expected: text, 1 byte: \"a\"\n"
                                                "  received: nothing: it has vanished");
    peer = rws_test_connect(test);
    rws_test_reset(peer);
    FAILS(rws_test_expect_ended(peer), "peer 2 did not receive what was expected\n"
                                       "  expected: the end of the stream\n"
                                       "  received: nothing: it has reset the connection");
}

Test(engine_testing_expect, handshakes)
{
    FAILS(rws_test_expect_upgraded(peer, "chat"),
          HEAD "  expected: the upgrade, with the subprotocol \"chat\"\n"
               "  received: the upgrade, with no subprotocol");
    FAILS(rws_test_expect_refused(peer, 403), HEAD "  expected: a refusal, 403\n"
                                                   "  received: the upgrade, with no subprotocol");
    FAILS(rws_test_expect_header(peer, "upgrade", "h2c"),
          HEAD "  expected: the header upgrade: h2c\n"
               "  received: the header upgrade: websocket");
    FAILS(rws_test_expect_header(peer, "upgrade", NULL),
          HEAD "  expected: no header upgrade\n"
               "  received: the header upgrade: websocket");
    FAILS(rws_test_expect_header(peer, "x-none", "1"), HEAD "  expected: the header x-none: 1\n"
                                                            "  received: no header x-none");
    rws_test_peer *silent = rws_test_connect_raw(test, "GET", 3);
    FAILS(rws_test_expect_upgraded(silent, NULL), "peer 2 did not receive what was expected\n"
                                                  "  expected: the upgrade\n"
                                                  "  received: no answer to its upgrade request");
    FAILS(rws_test_expect_header(silent, "upgrade", NULL),
          "peer 2 did not receive what was expected\n"
          "  expected: no header upgrade\n"
          "  received: no answer to its upgrade request");
    rws_test_peer *refused = rws_test_connect_raw(test, "PUT / HTTP/1.1\r\nHost: a\r\n\r\n", 27);
    FAILS(rws_test_expect_upgraded(refused, ""), "peer 3 did not receive what was expected\n"
                                                 "  expected: the upgrade, with no subprotocol\n"
                                                 "  received: a refusal, 405 Method Not Allowed\n"
                                                 "            the end of the stream");
    FAILS(rws_test_expect_refused(refused, 404), "peer 3 did not receive what was expected\n"
                                                 "  expected: a refusal, 404\n"
                                                 "  received: a refusal, 405 Method Not Allowed\n"
                                                 "            the end of the stream");
    cr_assert(rws_test_expect_refused(refused, 405));
    FAILS(rws_test_expect_body(refused, "A WebSocket"),
          "peer 3 did not receive what was expected\n"
          "  expected: text, 11 bytes: \"A WebSocket\"\n"
          "  received: text, 40 bytes: \"A WebSocket handshake is a GET request.\\n\"\n"
          "  the first difference is at byte 11");
    FAILS(rws_test_expect_body(peer, "a"), HEAD "  expected: a refusal with a body\n"
                                                "  received: the upgrade, with no subprotocol");
    FAILS(rws_test_expect_text(refused, "a"), "peer 3 did not receive what was expected\n"
                                              "  expected: text, 1 byte: \"a\"\n"
                                              "  received: a refusal, 405 Method Not Allowed\n"
                                              "            the end of the stream");
}

/* Of a peer that was upgraded: what was received before is no handshake. */
Test(engine_testing_expect, after_a_frame_that_breaks_the_protocol)
{
    send_text("\xff");
    FAILS(rws_test_expect_text(peer, "a"), HEAD "  expected: text, 1 byte: \"a\"\n"
                                                "  received: a text that is not valid UTF-8");
    FAILS(rws_test_expect_text(peer, "a"),
          HEAD "  expected: text, 1 byte: \"a\"\n"
               "  received: nothing more: the engine broke the protocol before: a text that is not "
               "valid UTF-8");
    cr_assert(rws_test_expect_upgraded(peer, ""));
    FAILS(rws_test_expect_refused(peer, 403), HEAD "  expected: a refusal, 403\n"
                                                   "  received: the upgrade, with no subprotocol");
}

/* The engine sends no such close frame: it is put into what the peer has read. */
Test(engine_testing_expect, after_a_close_frame_that_breaks_the_protocol)
{
    rws__bytes_append(&peer->in, "\x88\x01\x03", 3);
    rws__peer_decode(peer);
    FAILS(rws_test_expect_close(peer, 1000),
          HEAD "  expected: close, code 1000\n"
               "  received: a close frame that breaks the protocol (RFC 6455)");
    cr_assert(rws_test_expect_upgraded(peer, NULL));
}

/* A framework may leave a failed call by longjmp(): the next test works. */
static jmp_buf escape;

static void leave(const char *file, int line, const char *text, void *user)
{
    (void)file;
    (void)line;
    (void)text;
    (void)user;
    longjmp(escape, 1);
}

Test(engine_testing_expect, a_hook_that_does_not_return)
{
    rws_test_on_failure(leave, NULL);
    if (setjmp(escape) == 0) {
        rws_test_expect_text(peer, "never sent");
        cr_assert(false, "the hook was not called");
    }
    rws_test *next = rws_test_open(&handler, NULL);
    rws_test_peer *other = rws_test_connect(next);
    rws_test_feed_ping(other, "x", 1);
    cr_assert(rws_test_expect_pong(other, "x", 1));
    cr_assert(rws_test_close(next));
}

/* ---- calls that can't be done ---- */

static void post_again(void *arg, bool cancelled)
{
    if (!cancelled) rws_post(arg, 0, post_again, arg);
}

Test(engine_testing_expect, no_rest)
{
    rws_post(rws_test_runtime(test), 0, post_again, rws_test_runtime(test));
    FAILS(rws_test_expect_nothing(peer),
          "the engine does not come to rest: after 200000 turns there is still something to do (a "
          "post that posts itself again?)");
    cr_assert_not(rws_test_close(test));
    cr_assert_eq(failures.count, 2);
    test = rws_test_open(&handler, NULL);
}

Test(engine_testing_expect, calls_that_cannot_be_done)
{
    rws_test_request request = RWS_TEST_REQUEST_DEFAULT;
    request.path = "no slash";
    FAILS(rws_test_connect_with(test, &request),
          "the upgrade request can't be written: an argument is invalid");
    request.size = 3;
    FAILS(rws_test_connect_with(test, &request),
          "the struct's size is 3: start from RWS_TEST_REQUEST_DEFAULT");
    FAILS((rws_test_feed_close(peer, 1006, NULL), false),
          "a close frame with the code 1006 and this reason can't be sent: an argument is invalid");
    FAILS((rws_test_feed_fragments(peer, RWS_TEXT, NULL, 0), false),
          "a message in fragments needs at least one piece");
    cr_assert_null(rws_test_accept(test, NULL));
    cr_assert_eq(strncmp(failures.text, "nobody has dialled ws://127.0.0.1:", 34), 0);
    rws_test_stop(test);
    FAILS(rws_test_connect(test), "the engine does not listen any more: it was stopped");
}

Test(engine_testing_expect, options_that_are_wrong)
{
    FAILS(rws_test_open(NULL, NULL), "the test can't be opened: the handler is missing");
    rws_endpoint_options endpoint = RWS_ENDPOINT_OPTIONS_DEFAULT;
    endpoint.path = "no slash";
    FAILS(rws_test_open(&handler, &endpoint),
          "the test can't be opened: path is \"no slash\"; it must begin with '/'");
    rws_runtime_options runtime = RWS_RUNTIME_OPTIONS_DEFAULT;
    runtime.features_off = "wings";
    rws_test_options options = RWS_TEST_OPTIONS_DEFAULT;
    options.handler = &handler;
    options.runtime = &runtime;
    options.endpoints_count = 2;
    FAILS(rws_test_open_with(&options), "the test can't be opened: features_off has \"wings\": the "
                                        "names are those of rws_feature_at(), and \"all\"");
    options.runtime = NULL;
    FAILS(rws_test_open_with(&options),
          "the test can't be opened: endpoints is NULL, but endpoints_count is 2");
    const rws_endpoint_options *none[2] = {NULL};
    options.endpoints = none;
    FAILS(rws_test_open_with(&options), "the test can't be opened: the handler is missing");
}

/* Servers and clients of the program's own would wait for a ring that never wakes up. */
Test(engine_testing_expect, no_server_of_its_own)
{
    static const char sentence[] =
        "this program is linked with ringws_testing, whose kernel is simulated: rws_test_open() "
        "runs a handler; to serve or to dial, link ringws instead";
    rws_server *server;
    rws_client *client;
    rws_error error;
    rws_endpoint_options endpoint = RWS_ENDPOINT_OPTIONS_DEFAULT;
    endpoint.handler = &handler;
    cr_assert_eq(rws_server_create(&server, NULL, &error), -95);
    cr_assert_str_eq(error.text, sentence);
    cr_assert_null(server);
    cr_assert_eq(rws_client_create(&client, NULL, &endpoint, &error), -95);
    cr_assert_str_eq(error.text, sentence);
    rws_probe probe = {.size = sizeof probe};
    cr_assert_eq(rws_probe_kernel(&probe), -95);
    cr_assert_str_eq(probe.text, sentence);
    cr_assert_eq(rws_server_run(rws_test_server(test), &error), RWS_E_STATE);
    cr_assert_str_eq(error.text, "it was started already");
    cr_assert_eq(rws_server_start(rws_test_server(test), &error), RWS_E_STATE);
    cr_assert_eq(rws_client_start(rws_test_client(test), &error), RWS_E_STATE);
}
