/*
 * The testing kit: what a peer feeds arrives at the handler, and what the engine sends is what the
 * peer is asked for. ctest: testing kit
 */
#include "support/kit_log.h"

#include "engine/testing/kit.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>

static kit_log events;
static rws_handler handler;

static rws_test *open_logged(void)
{
    handler = kit_handler();
    events = (kit_log){.len = 0};
    rws_endpoint_options endpoint = kit_endpoint(&handler, &events);
    return rws_test_open(NULL, &endpoint);
}

Test(engine_testing_feed, text_and_binary)
{
    rws_test *test = open_logged();
    rws_test_peer *peer = rws_test_connect(test);
    rws_test_feed_text(peer, "hello");
    rws_test_feed_binary(peer, "\0\1\2", 3);
    rws_test_feed_text(peer, "");
    rws_test_expect_text(peer, "hello");
    rws_test_expect_binary(peer, "\0\1\2", 3);
    rws_test_expect_text(peer, "");
    rws_test_expect_nothing(peer);
    cr_assert(rws_test_close(test));
}

Test(engine_testing_feed, a_message_is_large)
{
    rws_test *test = open_logged();
    rws_test_peer *peer = rws_test_connect(test);
    size_t len = 60000;
    char *data = calloc(1, len);
    for (size_t i = 0; i < len; i++)
        data[i] = (char)(i * 7);
    for (int i = 0; i < 50; i++) {
        rws_test_feed_binary(peer, data, len);
        rws_test_expect_binary(peer, data, len);
    }
    free(data);
    cr_assert(rws_test_close(test));
}

Test(engine_testing_feed, fragments_and_a_ping_in_between)
{
    rws_test *test = open_logged();
    rws_test_peer *peer = rws_test_connect(test);
    const rws_span pieces[] = {{"one ", 4}, {"", 0}, {"two ", 4}, {"three", 5}};
    rws_test_feed_fragments(peer, RWS_TEXT, pieces, 4);
    rws_test_expect_text(peer, "one two three");
    rws_test_feed_frame(peer, RWS_BINARY, false, "a", 1);
    rws_test_feed_ping(peer, "between", 7);
    rws_test_expect_pong(peer, "between", 7);
    rws_test_feed_frame(peer, RWS_CONTINUATION, true, "b", 1);
    rws_test_expect_binary(peer, "ab", 2);
    cr_assert(rws_test_close(test));
}

Test(engine_testing_feed, raw_bytes)
{
    rws_test *test = open_logged();
    rws_test_peer *peer = rws_test_connect(test);
    static const char hello[] = "\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"; /* RFC 6455, 5.7 */
    for (size_t i = 0; i < sizeof hello - 1; i++) {
        rws_test_expect_nothing(peer);
        rws_test_feed_raw(peer, hello + i, 1);
    }
    rws_test_expect_text(peer, "Hello");
    rws_test_feed_raw(peer, "\xff", 1);
    rws_test_feed_raw(peer, "\xff", 1);
    rws_test_expect_close(peer, RWS_CLOSE_PROTOCOL_ERROR);
    rws_test_feed_end(peer);
    rws_test_expect_ended(peer);
    cr_assert(rws_test_close(test));
    cr_assert_str_eq(events.text, "open; text Hello; close -5005 1002 us; ");
}

Test(engine_testing_feed, a_frame_without_a_mask)
{
    rws_test *test = open_logged();
    rws_test_request request = RWS_TEST_REQUEST_DEFAULT;
    request.no_masks = true;
    rws_test_peer *peer = rws_test_connect_with(test, &request);
    rws_test_expect_upgraded(peer, "");
    rws_test_feed_text(peer, "bare");
    rws_test_expect_close(peer, RWS_CLOSE_PROTOCOL_ERROR);
    cr_assert(rws_test_close(test));
}

static int echo_pong(rws_conn *conn, const void *data, size_t len, void *user)
{
    (void)conn;
    kit_add(user, "pong %.*s; ", (int)len, (const char *)data);
    return 0;
}

Test(engine_testing_feed, pings_and_pongs)
{
    handler = kit_handler();
    handler.on_pong = echo_pong;
    events = (kit_log){.len = 0};
    rws_endpoint_options endpoint = kit_endpoint(&handler, &events);
    rws_test *test = rws_test_open(NULL, &endpoint);
    rws_test_peer *peer = rws_test_connect(test);
    rws_test_feed_ping(peer, "", 0);
    rws_test_expect_pong(peer, "", 0);
    cr_assert_eq(rws_conn_send_frame(rws_test_conn(peer), RWS_PING, true, "are you there", 13), 0);
    rws_test_expect_ping(peer, "are you there", 13);
    rws_test_feed_pong(peer, "yes", 3);
    cr_assert_str_eq(kit_take(&events), "open; pong yes; ");
    cr_assert(rws_test_close(test));
}

Test(engine_testing_feed, the_peer_closes)
{
    rws_test *test = open_logged();
    rws_test_peer *peer = rws_test_connect(test);
    rws_test_feed_close(peer, 4321, "enough");
    rws_test_expect_close_reason(peer, 4321, "enough");
    rws_test_feed_end(peer);
    rws_test_expect_ended(peer);
    cr_assert_str_eq(kit_take(&events), "open; close 0 4321 peer; ");
    cr_assert_null(rws_test_conn(peer));
    cr_assert(rws_test_close(test));
}

/* A close frame is a close frame, whichever call has sent it: the peer does not send another. */
Test(engine_testing_feed, the_peer_closes_by_a_frame)
{
    rws_test *test = open_logged();
    rws_test_peer *peer = rws_test_connect(test);
    cr_assert_not(peer->close_sent);
    rws_test_feed_frame(peer, RWS_CLOSE, true, "\x03\xe8", 2);
    rws_test_expect_close(peer, 1000);
    cr_assert(peer->close_sent);
    cr_assert(rws_test_close(test));
    cr_assert_str_eq(kit_take(&events), "open; close 0 1000 peer; ");
}

Test(engine_testing_feed, the_engine_closes)
{
    rws_test *test = open_logged();
    rws_test_peer *peer = rws_test_connect(test);
    cr_assert_eq(rws_conn_close(rws_test_conn(peer), 1005, NULL), 0);
    rws_test_expect_close(peer, 1005);
    rws_test_expect_nothing(peer);
    rws_test_feed_close(peer, 1005, NULL);
    rws_test_feed_end(peer);
    rws_test_expect_ended(peer);
    cr_assert_str_eq(kit_take(&events), "open; close 0 1005 us; ");
    cr_assert(rws_test_close(test));
}

Test(engine_testing_feed, ends_without_a_close)
{
    rws_test *test = open_logged();
    rws_test_peer *halved = rws_test_connect(test);
    rws_test_feed_end(halved);
    rws_test_expect_ended(halved);
    cr_assert_str_eq(kit_take(&events), "open; close -5013 1006 peer; ");
    rws_test_peer *gone = rws_test_connect(test);
    rws_test_reset(gone);
    cr_assert_str_eq(kit_take(&events), "open; close -104 1006 peer; ");
    rws_test_peer *aborted = rws_test_connect(test);
    rws_conn_abort(rws_test_conn(aborted));
    rws_test_expect_ended(aborted);
    cr_assert_str_eq(kit_take(&events), "open; close -5019 1006 us; ");
    cr_assert(rws_test_close(test));
}

/* ---- handshakes ---- */

static int choose(rws_request *request, void *user)
{
    rws_span token = rws_request_header(request, "x-token");
    kit_add(user, "upgrade %.*s; ", (int)rws_request_target(request).len,
            rws_request_target(request).data);
    if (token.data == NULL) {
        rws_request_add_header(request, "X-Hint", "a token is missing");
        rws_request_respond(request, 401, "no token", 8);
        return -EACCES;
    }
    rws_request_add_header(request, "X-Seen", "yes");
    return rws_request_choose_subprotocol(request, "chat");
}

Test(engine_testing_feed, upgrade_requests)
{
    handler = kit_handler();
    handler.on_upgrade = choose;
    events = (kit_log){.len = 0};
    static const char *const origins[] = {"https://example.org"};
    rws_endpoint_options endpoint = kit_endpoint(&handler, &events);
    endpoint.path = "/chat";
    endpoint.origins = origins;
    endpoint.origins_count = 1;
    rws_test *test = rws_test_open(NULL, &endpoint);

    rws_test_request request = RWS_TEST_REQUEST_DEFAULT;
    rws_test_expect_refused(rws_test_connect_with(test, NULL), 404);
    request.path = "/chat?room=1";
    request.origin = "https://evil.example";
    rws_test_expect_refused(rws_test_connect_with(test, &request), 403);
    request.origin = "https://example.org";
    rws_test_peer *refused = rws_test_connect_with(test, &request);
    rws_test_expect_refused(refused, 401);
    rws_test_expect_header(refused, "x-hint", "a token is missing");
    rws_test_expect_header(refused, "x-seen", NULL);
    rws_test_expect_body(refused, "no token");
    static const rws_header headers[] = {{"X-Token", "secret"}};
    request.headers = headers;
    request.headers_count = 1;
    request.subprotocols = "other, chat";
    rws_test_peer *peer = rws_test_connect_with(test, &request);
    rws_test_expect_upgraded(peer, "chat");
    rws_test_expect_header(peer, "x-seen", "yes");
    cr_assert_str_eq(kit_take(&events), "upgrade /chat?room=1; upgrade /chat?room=1; open; ");
    cr_assert(rws_test_close(test));
}

Test(engine_testing_feed, a_raw_upgrade_request)
{
    rws_test *test = open_logged();
    rws_test_peer *peer = rws_test_connect_raw(test, NULL, 0);
    static const char request[] =
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    for (size_t i = 0; i < sizeof request - 1; i++)
        rws_test_feed_raw(peer, request + i, 1);
    rws_test_expect_upgraded(peer, "");
    rws_test_feed_text(peer, "after");
    rws_test_expect_text(peer, "after");
    rws_test_peer *wrong = rws_test_connect_raw(test, "POST / HTTP/1.1\r\nHost: a\r\n\r\n", 28);
    rws_test_expect_refused(wrong, 405);
    rws_test_expect_ended(wrong);
    cr_assert(rws_test_close(test));
}

Test(engine_testing_feed, several_endpoints)
{
    handler = kit_handler();
    kit_log others = {.len = 0};
    events = (kit_log){.len = 0};
    rws_endpoint_options more = kit_endpoint(&handler, &others);
    more.path = "/other";
    rws_test_options options = RWS_TEST_OPTIONS_DEFAULT;
    rws_endpoint_options endpoint = kit_endpoint(&handler, &events);
    options.endpoint = &endpoint;
    /* As of a header that was older than the library: nothing behind its end is read. */
    rws_endpoint_options last = kit_endpoint(&handler, &others);
    last.path = "/last";
    last.size = offsetof(rws_endpoint_options, subprotocols);
    void *shorter = memcpy(malloc(last.size), &last, last.size);
    const rws_endpoint_options *all[] = {&more, shorter};
    options.endpoints = all;
    options.endpoints_count = 2;
    rws_test *test = rws_test_open_with(&options);
    rws_test_request request = RWS_TEST_REQUEST_DEFAULT;
    request.path = "/other";
    rws_test_expect_upgraded(rws_test_connect_with(test, &request), NULL);
    cr_assert_str_eq(kit_take(&others), "open; ");
    cr_assert_str_eq(kit_take(&events), "");
    cr_assert_not_null(rws_test_endpoint(test, 1));
    request.path = "/last";
    rws_test_expect_upgraded(rws_test_connect_with(test, &request), NULL);
    cr_assert_str_eq(kit_take(&others), "open; ");
    cr_assert_not_null(rws_test_endpoint(test, 2));
    cr_assert_null(rws_test_endpoint(test, 3));
    free(shorter);
    cr_assert(rws_test_close(test));
}

/* ---- several peers ---- */

static rws_conn *members[8];
static size_t members_count;

static void join(rws_conn *conn, void *user)
{
    (void)user;
    members[members_count++] = conn;
}

static int tell_all(rws_conn *conn, const rws_message *message, void *user)
{
    (void)conn;
    (void)user;
    for (size_t i = 0; i < members_count; i++)
        rws_conn_send_message(members[i], message);
    return 0;
}

Test(engine_testing_feed, a_chat_room)
{
    rws_handler room = RWS_HANDLER_DEFAULT;
    room.on_open = join;
    room.on_message = tell_all;
    rws_test *test = rws_test_open(&room, NULL);
    rws_test_peer *peers[5];
    for (int i = 0; i < 5; i++)
        peers[i] = rws_test_connect(test);
    rws_test_feed_text(peers[0], "from 0");
    rws_test_feed_text(peers[3], "from 3");
    for (int i = 0; i < 5; i++) {
        cr_assert_eq(rws_test_conn(peers[i]), members[i]);
        rws_test_expect_message(peers[i], RWS_MESSAGE_TEXT("from 3"), RWS_MESSAGE_TEXT("from 0"),
                                NULL);
        rws_test_expect_nothing(peers[i]);
    }
    cr_assert(rws_test_close(test));
}

/* ---- backpressure ---- */

Test(engine_testing_feed, a_peer_that_does_not_read)
{
    rws_test *test = open_logged();
    rws_test_peer *peer = rws_test_connect(test);
    static const char block[16384] = "block";
    rws_test_stop_reading(peer);
    rws_conn *conn = rws_test_conn(peer);
    unsigned sent = 0;
    while (rws_conn_send_binary(conn, block, sizeof block) == 0) {
        sent++;
        rws_test_advance(test, 0);
        cr_assert(sent < 1000);
    }
    cr_assert(rws_conn_buffered(conn) > 512 * 1024);
    cr_assert_str_eq(kit_take(&events), "open; ");
    rws_test_resume_reading(peer);
    cr_assert_str_eq(kit_take(&events), "drain; ");
    for (unsigned i = 0; i < sent; i++)
        rws_test_expect_binary(peer, block, sizeof block);
    rws_test_expect_nothing(peer);
    cr_assert(rws_test_close(test));
}

/* Above the high watermark a server does not read either: what is fed waits, and none is lost. */
Test(engine_testing_feed, an_echo_waits_for_a_peer_that_does_not_read)
{
    rws_test *test = open_logged();
    rws_test_peer *peer = rws_test_connect(test);
    static const char block[32768] = "block";
    rws_test_stop_reading(peer);
    for (int i = 0; i < 100; i++)
        rws_test_feed_binary(peer, block, sizeof block);
    rws_test_resume_reading(peer);
    for (int i = 0; i < 10; i++)
        rws_test_expect_binary(peer, block, sizeof block);
    rws_test_feed_ping(peer, "", 0);
    cr_assert_eq(rws_test_skip_messages(peer), 90);
    rws_test_expect_pong(peer, "", 0);
    cr_assert_eq(rws_test_skip_messages(peer), 0);
    cr_assert(rws_test_close(test));
}

/* ---- what the program under test may need ---- */

static void run_post(void *arg, bool cancelled)
{
    kit_add(arg, cancelled ? "cancelled; " : "posted; ");
}

Test(engine_testing_feed, posts_and_counters)
{
    rws_test *test = open_logged();
    rws_test_peer *peer = rws_test_connect(test);
    uint64_t id = rws_conn_id(rws_test_conn(peer));
    cr_assert_eq(rws_post(rws_test_runtime(test), 0, run_post, &events), 0);
    cr_assert_eq(rws_post_send(rws_test_runtime(test), id, RWS_MESSAGE_TEXT("posted")), 0);
    rws_test_expect_text(peer, "posted");
    cr_assert_eq(rws_post_close(rws_test_runtime(test), id, 1000, NULL), 0);
    rws_test_expect_close(peer, 1000);
    cr_assert_str_eq(kit_take(&events), "open; posted; ");
    rws_stats stats = {.size = sizeof stats};
    rws_server_stats(rws_test_server(test), &stats);
    cr_assert_eq(stats.upgraded, 1);
    struct sockaddr_storage address;
    socklen_t len = sizeof address;
    rws_test_peer *other = rws_test_connect(test);
    cr_assert_eq(rws_conn_peer(rws_test_conn(other), &address, &len), 0);
    cr_assert_eq(((struct sockaddr_in *)&address)->sin_addr.s_addr, htonl(INADDR_LOOPBACK));
    cr_assert(rws_test_close(test));
}

Test(engine_testing_feed, two_tests_at_once)
{
    rws_test *one = open_logged();
    rws_handler none = RWS_HANDLER_DEFAULT;
    rws_test *two = rws_test_open(&none, NULL);
    rws_test_peer *a = rws_test_connect(one), *b = rws_test_connect(two);
    rws_test_feed_text(a, "echo");
    rws_test_feed_text(b, "none");
    rws_test_expect_text(a, "echo");
    rws_test_expect_nothing(b);
    cr_assert(rws_test_close(one));
    rws_test_feed_ping(b, "x", 1);
    rws_test_expect_pong(b, "x", 1);
    cr_assert(rws_test_close(two));
}
