/*
 * The testing kit: the handler is a client's, and the test plays the server. ctest: testing kit
 */
#include "support/kit_log.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

static kit_log events;
static rws_handler handler;
static rws_endpoint_options endpoint;

static void on_dial_error(const rws_error *error, void *dial_user, void *user)
{
    (void)dial_user;
    kit_add(user, "dial error %d; ", error->status);
}

static rws_test *open_client(void)
{
    handler = kit_handler();
    handler.on_dial_error = on_dial_error;
    events = (kit_log){.len = 0};
    endpoint = kit_endpoint(&handler, &events);
    endpoint.role = RWS_CLIENT;
    return rws_test_open(NULL, &endpoint);
}

Test(engine_testing_client, a_dial_and_an_echo)
{
    rws_test *test = open_client();
    static const rws_header headers[] = {{"X-Token", "secret"}};
    rws_dial_options dial = RWS_DIAL_OPTIONS_DEFAULT;
    dial.headers = headers;
    dial.headers_count = 1;
    dial.subprotocols = "chat";
    dial.user = &events;
    cr_assert_eq(rws_test_dial(test, &dial), 0);
    rws_test_answer answer = RWS_TEST_ANSWER_DEFAULT;
    answer.subprotocol = "chat";
    rws_test_peer *peer = rws_test_accept(test, &answer);
    rws_test_expect_header(peer, "x-token", "secret");
    cr_assert_eq(strncmp(rws_test_head(peer).data, "GET / HTTP/1.1\r\n", 16), 0);
    rws_conn *conn = rws_test_conn(peer);
    cr_assert_not_null(conn);
    cr_assert_eq(rws_conn_user(conn), (void *)&events);
    cr_assert_eq(rws_conn_subprotocol(conn).len, 4);
    rws_test_feed_text(peer, "to the client");
    rws_test_expect_text(peer, "to the client");
    rws_test_feed_ping(peer, "?", 1);
    rws_test_expect_pong(peer, "?", 1);
    rws_test_feed_close(peer, 1000, NULL);
    rws_test_expect_close(peer, 1000);
    rws_test_feed_end(peer);
    rws_test_expect_ended(peer);
    cr_assert_str_eq(events.text, "open; text to the client; close 0 1000 peer; ");
    cr_assert(rws_test_close(test));
}

Test(engine_testing_client, the_program_dials)
{
    rws_test *test = open_client();
    rws_error error;
    cr_assert_eq(rws_client_dial(rws_test_client(test), rws_test_url(test), NULL, NULL, &error), 0);
    rws_test_peer *first = rws_test_accept(test, NULL);
    cr_assert_eq(rws_client_dial(rws_test_client(test), rws_test_url(test), NULL, NULL, &error), 0);
    rws_test_peer *second = rws_test_accept(test, NULL);
    cr_assert_neq(rws_test_conn(first), rws_test_conn(second));
    cr_assert_eq(rws_test_conn(second), events.last);
    rws_conn_send_text(rws_test_conn(second), "second", 6);
    rws_test_expect_nothing(first);
    rws_test_expect_text(second, "second");
    cr_assert(rws_test_close(test));
}

Test(engine_testing_client, answers_that_are_no_upgrade)
{
    rws_test *test = open_client();
    rws_test_answer answer = RWS_TEST_ANSWER_DEFAULT;
    answer.status = 403;
    cr_assert_eq(rws_test_dial(test, NULL), 0);
    rws_test_peer *refused = rws_test_accept(test, &answer);
    rws_test_feed_end(refused);
    rws_test_expect_ended(refused);
    cr_assert_str_eq(kit_take(&events), "dial error -5011; ");

    cr_assert_eq(rws_test_dial(test, NULL), 0);
    rws_test_peer *raw = rws_test_accept_raw(test);
    rws_test_feed_raw(raw, "SSH-2.0\r\n", 9);
    rws_test_feed_end(raw);
    cr_assert_eq(strncmp(kit_take(&events), "dial error", 10), 0);

    cr_assert_eq(rws_test_dial(test, NULL), 0);
    rws_test_peer *silent = rws_test_accept_raw(test);
    rws_test_advance(test, 9999);
    cr_assert_str_eq(kit_take(&events), "");
    rws_test_advance(test, 33);
    cr_assert_str_eq(kit_take(&events), "dial error -5012; ");
    rws_test_expect_ended(silent);
    cr_assert(rws_test_close(test));
}

/* A client accepts no masked frame. */
Test(engine_testing_client, a_raw_frame)
{
    rws_test *test = open_client();
    rws_test_dial(test, NULL);
    rws_test_peer *peer = rws_test_accept(test, NULL);
    rws_test_feed_raw(peer, "\x81\x81\1\1\1\1a", 7);
    rws_test_expect_close(peer, RWS_CLOSE_PROTOCOL_ERROR);
    cr_assert(rws_test_close(test));
}

Test(engine_testing_client, a_server_that_dials)
{
    handler = kit_handler();
    kit_log dialled = {.len = 0};
    events = (kit_log){.len = 0};
    endpoint = kit_endpoint(&handler, &events);
    rws_endpoint_options broker = kit_endpoint(&handler, &dialled);
    broker.role = RWS_CLIENT;
    rws_test_options options = RWS_TEST_OPTIONS_DEFAULT;
    options.endpoint = &endpoint;
    options.endpoints = &(const rws_endpoint_options *){&broker};
    options.endpoints_count = 1;
    rws_test *test = rws_test_open_with(&options);
    rws_test_peer *guest = rws_test_connect(test);
    cr_assert_eq(rws_server_dial(rws_test_server(test), rws_test_endpoint(test, 1),
                                 rws_test_url(test), NULL, NULL, NULL),
                 0);
    rws_test_peer *peer = rws_test_accept(test, NULL);
    rws_test_feed_text(peer, "from the broker");
    rws_test_expect_text(peer, "from the broker");
    rws_test_expect_nothing(guest);
    cr_assert_neq(rws_test_conn(guest), rws_test_conn(peer));
    cr_assert_str_eq(dialled.text, "open; text from the broker; ");
    cr_assert(rws_test_close(test));
}

static kit_failures failures;

/* A peer that the engine has dialled answers: it is answered nothing. */
Test(engine_testing_client, no_answer_to_expect)
{
    static const char sentence[] =
        "peer 1 was dialled by the engine: it receives a request, and answers by itself, so there "
        "is no answer to expect";
    rws_test *test = open_client();
    rws_test_on_failure(kit_on_failure, &failures);
    rws_test_dial(test, NULL);
    rws_test_peer *peer = rws_test_accept_raw(test);
    cr_assert_not(rws_test_expect_upgraded(peer, NULL));
    cr_assert_str_eq(failures.text, sentence);
    cr_assert_not(rws_test_expect_refused(peer, 403));
    cr_assert_str_eq(failures.text, sentence);
    cr_assert_not(rws_test_expect_body(peer, ""));
    cr_assert_str_eq(failures.text, sentence);
    cr_assert_eq(failures.count, 3);
    cr_assert(rws_test_expect_header(peer, "upgrade", "websocket"));
    cr_assert(rws_test_close(test));
}

Test(engine_testing_client, failures_of_a_server)
{
    rws_test *test = open_client();
    rws_test_on_failure(kit_on_failure, &failures);
    cr_assert_null(rws_test_connect(test));
    cr_assert_str_eq(failures.text,
                     "there is nobody to connect to: the test's endpoint is a client's");
    cr_assert_eq(failures.line, __LINE__ - 3);
    rws_test_dial(test, NULL);
    rws_test_answer answer = RWS_TEST_ANSWER_DEFAULT;
    answer.status = 99;
    cr_assert_null(rws_test_accept(test, &answer));
    cr_assert_str_eq(failures.text, "the answer can't be written: an argument is invalid");
    cr_assert(rws_test_close(test));
    test = rws_test_open(&handler, NULL);
    cr_assert_eq(rws_test_dial(test, NULL), RWS_E_STATE);
    cr_assert(rws_test_close(test));
}
