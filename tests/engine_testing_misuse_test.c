/*
 * The testing kit: calls that make no sense are failures with a sentence, and no crash.
 * ctest: testing kit
 */
#include "support/kit_log.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <sys/resource.h>

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

TestSuite(engine_testing_misuse, .init = open_one);

/* `call` is one failure, with this text, about here. */
#define FAILS(call, expected)                                                                      \
    do {                                                                                           \
        failures.count = 0;                                                                        \
        call;                                                                                      \
        cr_assert_eq(failures.count, 1, "%u failures of " #call, failures.count);                  \
        cr_assert_str_eq(failures.text, expected);                                                 \
        cr_assert(abs(failures.line - __LINE__) <= 2);                                             \
    } while (0)

static void expect_no_test(rws_test *none, const char *text)
{
    FAILS(rws_test_stop(none), text);
    FAILS(cr_assert_not(rws_test_has_ended(none)), text);
    FAILS(rws_test_advance(none, 1), text);
    FAILS(cr_assert_eq(rws_test_now_ms(none), 0), text);
    FAILS(cr_assert_null(rws_test_runtime(none)), text);
    FAILS(cr_assert_null(rws_test_server(none)), text);
    FAILS(cr_assert_null(rws_test_client(none)), text);
    FAILS(cr_assert_null(rws_test_endpoint(none, 0)), text);
    FAILS(cr_assert_null(rws_test_allocator(none)), text);
    FAILS(rws_test_fail_alloc(none, 1), text);
    FAILS(cr_assert_not(rws_test_alloc_failed(none)), text);
    FAILS(cr_assert_null(rws_test_connect(none)), text);
    FAILS(cr_assert_null(rws_test_connect_with(none, NULL)), text);
    FAILS(cr_assert_null(rws_test_connect_raw(none, NULL, 0)), text);
    FAILS(cr_assert_null(rws_test_url(none)), text);
    FAILS(cr_assert_eq(rws_test_dial(none, NULL), RWS_E_ARGUMENT), text);
    FAILS(cr_assert_null(rws_test_accept(none, NULL)), text);
    FAILS(cr_assert_null(rws_test_accept_raw(none)), text);
}

static void expect_no_peer_to_feed(rws_test_peer *none, const char *text)
{
    const rws_span piece = {"x", 1};
    FAILS(rws_test_feed_text(none, "x"), text);
    FAILS(rws_test_feed_binary(none, "x", 1), text);
    FAILS(rws_test_feed_fragments(none, RWS_TEXT, &piece, 1), text);
    FAILS(rws_test_feed_frame(none, RWS_TEXT, true, "x", 1), text);
    FAILS(rws_test_feed_raw(none, "x", 1), text);
    FAILS(rws_test_feed_ping(none, "x", 1), text);
    FAILS(rws_test_feed_pong(none, "x", 1), text);
    FAILS(rws_test_feed_close(none, 1000, NULL), text);
}

static void expect_no_peer(rws_test_peer *none, const char *text)
{
    expect_no_peer_to_feed(none, text);
    FAILS(rws_test_feed_end(none), text);
    FAILS(rws_test_reset(none), text);
    FAILS(rws_test_vanish(none), text);
    FAILS(rws_test_stop_reading(none), text);
    FAILS(rws_test_resume_reading(none), text);
    FAILS(cr_assert_null(rws_test_conn(none)), text);
    FAILS(cr_assert_null(rws_test_head(none).data), text);
    FAILS(cr_assert_not(rws_test_expect_upgraded(none, NULL)), text);
    FAILS(cr_assert_not(rws_test_expect_refused(none, 404)), text);
    FAILS(cr_assert_not(rws_test_expect_body(none, "x")), text);
    FAILS(cr_assert_not(rws_test_expect_header(none, "x", NULL)), text);
    FAILS(cr_assert_not(rws_test_expect_text(none, "x")), text);
    FAILS(cr_assert_not(rws_test_expect_binary(none, "x", 1)), text);
    FAILS(cr_assert_not(rws_test_expect_message(none, RWS_MESSAGE_TEXT("x"), NULL)), text);
    FAILS(cr_assert_eq(rws_test_skip_messages(none), 0), text);
    FAILS(cr_assert_not(rws_test_expect_ping(none, "x", 1)), text);
    FAILS(cr_assert_not(rws_test_expect_pong(none, "x", 1)), text);
    FAILS(cr_assert_not(rws_test_expect_close(none, 1000)), text);
    FAILS(cr_assert_not(rws_test_expect_close_reason(none, 1000, "x")), text);
    FAILS(cr_assert_not(rws_test_expect_nothing(none)), text);
    FAILS(cr_assert_not(rws_test_expect_ended(none)), text);
}

Test(engine_testing_misuse, tests_and_peers_that_are_null)
{
    expect_no_test(NULL, "the test is NULL: was it opened?");
    expect_no_peer(NULL, "the peer is NULL: did it connect?");
    cr_assert(rws_test_close(NULL));
    cr_assert(rws_test_close(test));
}

/* Also while another test is open. */
Test(engine_testing_misuse, tests_and_peers_that_were_closed)
{
    static const char no_test[] =
        "the test is not open on this thread: it was closed before, or belongs to another thread";
    static const char no_peer[] = "the peer is of no test that is open on this thread: its test "
                                  "was closed before, or belongs to another thread";
    rws_test *other = rws_test_open(&handler, NULL);
    for (int others = 1; others >= 0; others--) {
        cr_assert(rws_test_close(others == 1 ? test : other));
        expect_no_test(test, no_test);
        FAILS(cr_assert_not(rws_test_close(test)), no_test);
        expect_no_peer(peer, no_peer);
    }
}

Test(engine_testing_misuse, strings_and_bytes_that_are_null)
{
    static const char no_data[] = "data is NULL, but its length is 3";
    const rws_span piece = {NULL, 3};
    FAILS(rws_test_feed_text(peer, NULL), "text is NULL");
    FAILS(rws_test_feed_binary(peer, NULL, 3), no_data);
    FAILS(rws_test_feed_fragments(peer, RWS_TEXT, &piece, 1), no_data);
    FAILS(rws_test_feed_fragments(peer, RWS_TEXT, NULL, 1), "pieces is NULL");
    FAILS(rws_test_feed_raw(peer, NULL, 3), no_data);
    FAILS(rws_test_feed_ping(peer, NULL, 3), no_data);
    FAILS(cr_assert_null(rws_test_connect_raw(test, NULL, 3)), no_data);
    FAILS(cr_assert_not(rws_test_expect_body(peer, NULL)), "body is NULL");
    FAILS(cr_assert_not(rws_test_expect_header(peer, NULL, NULL)), "name is NULL");
    FAILS(cr_assert_not(rws_test_expect_text(peer, NULL)), "text is NULL");
    FAILS(cr_assert_not(rws_test_expect_binary(peer, NULL, 3)), no_data);
    FAILS(cr_assert_not(rws_test_expect_pong(peer, NULL, 3)), no_data);
    FAILS(cr_assert_not(rws_test_expect_message(peer, NULL, NULL)), "message is NULL");
    FAILS(cr_assert_not(rws_test_expect_close_reason(peer, 1000, NULL)), "reason is NULL");
    rws_test_feed_binary(peer, NULL, 0);
    cr_assert(rws_test_expect_nothing(peer));
    cr_assert(rws_test_close(test));
}

Test(engine_testing_misuse, requests_and_answers_with_null)
{
    static const char no_request[] = "the upgrade request can't be written: an argument is invalid";
    static const rws_header nameless = {NULL, NULL};
    rws_test_request request = RWS_TEST_REQUEST_DEFAULT;
    request.path = NULL;
    FAILS(cr_assert_null(rws_test_connect_with(test, &request)), no_request);
    request.path = "/";
    request.headers_count = 1;
    FAILS(cr_assert_null(rws_test_connect_with(test, &request)), no_request);
    request.headers = &nameless;
    FAILS(cr_assert_null(rws_test_connect_with(test, &request)), no_request);
    cr_assert(rws_test_close(test));
    rws_endpoint_options endpoint = RWS_ENDPOINT_OPTIONS_DEFAULT;
    endpoint.role = RWS_CLIENT;
    test = rws_test_open(&handler, &endpoint);
    cr_assert_eq(rws_test_dial(test, NULL), 0);
    rws_test_answer answer = RWS_TEST_ANSWER_DEFAULT;
    answer.headers_count = 1;
    FAILS(cr_assert_null(rws_test_accept(test, &answer)),
          "the answer can't be written: an argument is invalid");
    cr_assert(rws_test_close(test));
}

Test(engine_testing_misuse, feeding_after_an_end)
{
    rws_test_feed_end(peer);
    rws_test_feed_end(peer);
    cr_assert_eq(failures.count, 0);
    expect_no_peer_to_feed(peer, "peer 1 has ended its half (rws_test_feed_end()): nothing can be "
                                 "fed behind that");
    cr_assert(rws_test_expect_ended(peer));
    cr_assert(rws_test_close(test));
}

/* What is fed to a connection that is gone is lost; what was received before can be taken. */
Test(engine_testing_misuse, peers_that_are_gone)
{
    for (int vanishes = 0; vanishes < 2; vanishes++) {
        rws_test_peer *gone = rws_test_connect(test);
        rws_test_feed_ping(gone, "x", 1);
        for (int twice = 0; twice < 2; twice++)
            vanishes ? rws_test_vanish(gone) : rws_test_reset(gone);
        rws_test_feed_text(gone, "lost");
        rws_test_feed_close(gone, 1000, NULL);
        rws_test_feed_end(gone);
        rws_test_stop_reading(gone);
        rws_test_resume_reading(gone);
        cr_assert(rws_test_expect_upgraded(gone, ""));
        cr_assert(rws_test_expect_pong(gone, "x", 1));
        cr_assert(rws_test_expect_nothing(gone));
        cr_assert_eq(failures.count, 0);
        cr_assert_not(rws_test_expect_close(gone, 1000));
        cr_assert_not_null(strstr(failures.text, vanishes
                                                     ? "nothing: it has vanished"
                                                     : "nothing: it has reset the connection"));
        cr_assert_not(rws_test_expect_refused(gone, 403));
        cr_assert_not(rws_test_expect_body(gone, "x"));
        cr_assert_not(rws_test_expect_message(gone, RWS_MESSAGE_TEXT("x"), NULL));
        cr_assert_not(rws_test_expect_ended(gone));
        failures.count = 0;
    }
    cr_assert(rws_test_close(test));
}

/* A second close frame is sent as it is: the engine ignores what comes behind the first. */
Test(engine_testing_misuse, two_close_frames)
{
    rws_test_feed_close(peer, 1000, "one");
    rws_test_feed_close(peer, 1001, "two");
    cr_assert(rws_test_expect_close_reason(peer, 1000, "one"));
    cr_assert(rws_test_expect_ended(peer));
    cr_assert(rws_test_close(test));
    cr_assert_eq(failures.count, 0);
}

/* In a callback the engine has not finished what the test would look at. */
static int feed_inside(rws_conn *conn, const rws_message *message, void *user)
{
    (void)conn;
    (void)message;
    (void)user;
    static const char inside[] =
        "it was called inside a callback, which is a part of what the test "
        "looks at: call it when the feeding call has returned";
    FAILS(rws_test_feed_text(peer, "again"), inside);
    FAILS(rws_test_advance(test, 1), inside);
    FAILS(cr_assert_not(rws_test_close(test)), inside);
    return 0;
}

Test(engine_testing_misuse, inside_a_callback)
{
    cr_assert(rws_test_close(test));
    handler.on_message = feed_inside;
    test = rws_test_open(&handler, NULL);
    peer = rws_test_connect(test);
    rws_test_feed_text(peer, "once");
    failures.count = 0;
    cr_assert(rws_test_close(test));
    cr_expect_eq(failures.count, 0, "%s", failures.text);
}

/* The limit of open files is that of another kernel. */
Test(engine_testing_misuse, many_connections)
{
    struct rlimit limit;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = 512;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    cr_assert(rws_test_close(test));
    rws_test_options options = RWS_TEST_OPTIONS_DEFAULT;
    options.handler = &handler;
    rws_runtime_options runtime = RWS_RUNTIME_OPTIONS_DEFAULT;
    runtime.connections_max = 2000;
    options.runtime = &runtime;
    test = rws_test_open_with(&options);
    cr_assert_not_null(test, "%s", failures.text);
    cr_assert(rws_test_close(test));
}
