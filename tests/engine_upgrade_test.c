/*
 * on_upgrade: what a program reads of the request and says about the answer, on the wire; and that
 * no string of its can break out of its line. ctest: filtered
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "support/engine_server.h"
#include "support/raw_client.h"

TestSuite(engine_upgrade, .timeout = 60);

#define FIELDS                                                                                     \
    "Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"                             \
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"

static void start(engine_server *server, int (*on_upgrade)(rws_request *request, void *user))
{
    rws_handler handler = engine_server_handler();
    handler.on_upgrade = on_upgrade;
    int res = engine_server_start(server, NULL, &handler);
    cr_assert_eq(res, 0, "%s", server->error.text);
}

/* Ask with `fields` added; the head of the answer is in `head`. */
static int ask(const engine_server *server, const char *target, const char *fields, char *head,
               size_t size, raw_client *client)
{
    char request[8192];
    int len =
        snprintf(request, sizeof request, "GET %s HTTP/1.1\r\n" FIELDS "%s\r\n", target, fields);
    cr_assert(raw_connect(client, "127.0.0.1", server->port, 0));
    cr_assert(raw_send(client, request, (size_t)len));
    return raw_read_head(client, head, size);
}

static void stop(engine_server *server)
{
    cr_assert(engine_server_await_connections(server, 0));
    cr_assert_eq(engine_server_stop(server), 0);
}

/* ---- header injection ---- */

static int inject(rws_request *request, void *user)
{
    static const char *const bad_values[] = {"a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\rX-Evil: 1",
                                             "a\r\n\r\nevil",  "\x01",         "\x7f"};
    static const char *const bad_names[] = {"",
                                            "X Y",
                                            "X:",
                                            "X\r\nX-Evil",
                                            "X\n",
                                            "Connection",
                                            "connection",
                                            "Upgrade",
                                            "Content-Length",
                                            "Transfer-Encoding",
                                            "Sec-WebSocket-Accept",
                                            "sec-websocket-protocol"};
    static const char *const bad_protocols[] = {"", "chat\r\nX-Evil: 1", "other", "CHAT",
                                                "chat, super"};
    (void)user;
    for (size_t i = 0; i < sizeof bad_values / sizeof bad_values[0]; i++)
        cr_expect_eq(rws_request_add_header(request, "X-Good", bad_values[i]), RWS_E_ARGUMENT,
                     "value %zu", i);
    for (size_t i = 0; i < sizeof bad_names / sizeof bad_names[0]; i++)
        cr_expect_eq(rws_request_add_header(request, bad_names[i], "evil"), RWS_E_ARGUMENT,
                     "name %zu", i);
    for (size_t i = 0; i < sizeof bad_protocols / sizeof bad_protocols[0]; i++)
        cr_expect_eq(rws_request_choose_subprotocol(request, bad_protocols[i]), RWS_E_ARGUMENT,
                     "protocol %zu", i);
    cr_expect_eq(rws_request_respond(request, 199, NULL, 0), RWS_E_ARGUMENT);
    cr_expect_eq(rws_request_respond(request, 600, NULL, 0), RWS_E_ARGUMENT);
    cr_expect_eq(rws_request_respond(request, 101, NULL, 0), RWS_E_ARGUMENT);
    char large[4098];
    memset(large, 'x', sizeof large);
    large[4097] = '\0';
    cr_expect_eq(rws_request_respond(request, 404, large, 4097), RWS_E_ARGUMENT);
    cr_expect_eq(rws_request_add_header(request, "X-Large", large), RWS_E_HTTP_TOO_BIG);

    cr_expect_eq(rws_request_add_header(request, "X-Good", "yes\xc3\xa9"), 0);
    cr_expect_eq(rws_request_choose_subprotocol(request, "chat"), 0);
    rws_span reject = rws_request_query(request, "reject");
    if (reject.data == NULL) return 0;
    static const char body[] = "nothing\r\nX-Evil: 1\r\n\r\nHTTP/1.1 200 OK\r\n";
    cr_expect_eq(rws_request_respond(request, 404, body, sizeof body - 1), 0);
    return -1;
}

Test(engine_upgrade, no_string_breaks_out_of_its_line)
{
    engine_server server;
    raw_client client;
    char head[8192];
    start(&server, inject);
    int status =
        ask(&server, "/", "Sec-WebSocket-Protocol: soap, chat\r\n", head, sizeof head, &client);
    cr_expect_eq(status, 101);
    cr_expect_not_null(strstr(head, "\r\nX-Good: yes\xc3\xa9\r\n"), "%s", head);
    cr_expect_not_null(strstr(head, "\r\nSec-WebSocket-Protocol: chat\r\n"), "%s", head);
    cr_expect_null(strstr(head, "vil"), "%s", head);
    cr_expect_null(strstr(head, "X-Large"), "%s", head);
    raw_close(&client);

    status =
        ask(&server, "/?reject=1", "Sec-WebSocket-Protocol: chat\r\n", head, sizeof head, &client);
    cr_expect_eq(status, 404);
    /* The body is what its length says, and nothing of it is a header. */
    cr_expect_not_null(strstr(head, "Content-Length: 39\r\n"), "%s", head);
    cr_expect_null(strstr(head, "X-Evil"), "%s", head);
    cr_expect(raw_read_end(&client));
    raw_close(&client);
    stop(&server);
}

/* ---- what the program reads ---- */

static bool is(rws_span span, const char *text)
{
    return span.data != NULL && span.len == strlen(text) && memcmp(span.data, text, span.len) == 0;
}

static int read_request(rws_request *request, void *user)
{
    rws_span name, value;
    (void)user;
    cr_expect(is(rws_request_method(request), "GET"));
    cr_expect(is(rws_request_target(request), "/a/b?x=1&y=&z&xx=2"));
    cr_expect(is(rws_request_path(request), "/a/b"));
    cr_expect(is(rws_request_query(request, "x"), "1"));
    cr_expect(is(rws_request_query(request, "y"), ""));
    cr_expect(is(rws_request_query(request, "z"), ""));
    cr_expect(is(rws_request_query(request, "xx"), "2"));
    cr_expect_null(rws_request_query(request, "q").data);
    cr_expect(is(rws_request_header(request, "x-two"), "first"));
    cr_expect_null(rws_request_header(request, "x-three").data);
    cr_expect(is(rws_request_origin(request), "http://a"));
    cr_expect_eq(rws_request_header_count(request), 8);
    cr_expect(rws_request_header_at(request, 0, &name, &value));
    cr_expect(is(name, "host") && is(value, "localhost"));
    cr_expect(rws_request_header_at(request, 7, &name, &value));
    cr_expect(is(name, "x-two") && is(value, "second"));
    cr_expect_not(rws_request_header_at(request, 8, &name, &value));
    struct sockaddr_storage address;
    socklen_t len = sizeof address;
    cr_expect_eq(rws_request_peer(request, &address, &len), 0);
    cr_expect_eq(address.ss_family, AF_INET);
    rws_request_set_user(request, user, NULL);
    return 0;
}

static void check_user(rws_conn *conn, void *user)
{
    engine_server *server = user;
    cr_expect_eq(rws_conn_user(conn), user);
    cr_expect_eq(rws_conn_subprotocol(conn).len, 0);
    atomic_fetch_add(&server->opened, 1);
}

Test(engine_upgrade, a_program_reads_the_request)
{
    engine_server server;
    raw_client client;
    char head[8192];
    rws_handler handler = engine_server_handler();
    handler.on_upgrade = read_request;
    handler.on_open = check_user;
    cr_assert_eq(engine_server_start(&server, NULL, &handler), 0);
    int status =
        ask(&server, "/a/b?x=1&y=&z&xx=2",
            "Origin: http://a\r\nX-Two: first\r\nX-two:  second \r\n", head, sizeof head, &client);
    cr_expect_eq(status, 101);
    cr_expect(engine_server_await(&server.opened, 1));
    raw_close(&client);
    stop(&server);
}

static int refuse_plain(rws_request *request, void *user)
{
    (void)request;
    (void)user;
    return -1;
}

static int redirect(rws_request *request, void *user)
{
    (void)user;
    cr_expect_eq(rws_request_add_header(request, "Location", "https://example.org/"), 0);
    cr_expect_eq(rws_request_respond(request, 307, NULL, 0), 0);
    return RWS_E_ARGUMENT;
}

/* Such as a health check gets. */
static int answer_plain(rws_request *request, void *user)
{
    (void)user;
    cr_expect_eq(rws_request_add_header(request, "Content-Type", "application/json"), 0);
    cr_expect_eq(rws_request_respond(request, 200, "{}", 2), 0);
    return -1;
}

static int answer_nothing(rws_request *request, void *user)
{
    (void)user;
    cr_expect_eq(rws_request_respond(request, 204, "left out", 8), 0);
    return -1;
}

Test(engine_upgrade, a_refusal_says_what_the_program_chose_and_nothing_follows)
{
    static const struct {
        int (*on_upgrade)(rws_request *request, void *user);
        int status;
        const char *has;
    } rows[] = {{refuse_plain, 403, "Connection: close\r\n"},
                {redirect, 307, "Location: https://example.org/\r\n"},
                {answer_plain, 200, "Content-Length: 2\r\nContent-Type: application/json\r\n\r\n"},
                {answer_nothing, 204, "Connection: close\r\n\r\n"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        engine_server server;
        raw_client client;
        char head[2048];
        start(&server, rows[i].on_upgrade);
        cr_expect_eq(ask(&server, "/", "", head, sizeof head, &client), rows[i].status);
        cr_expect_not_null(strstr(head, rows[i].has), "%s", head);
        cr_expect(raw_read_end(&client));
        raw_close(&client);
        cr_expect(engine_server_await_connections(&server, 0));
        cr_expect_eq(atomic_load(&server.opened) + atomic_load(&server.closed), 0);
        cr_expect_eq(engine_server_stats(&server).refused, 1);
        stop(&server);
    }
}

/* ---- close reasons ---- */

static int close_badly(rws_conn *conn, const rws_message *message, void *user)
{
    (void)message;
    static const uint16_t bad_codes[] = {0, 999, 1004, 1006, 1015, 1016, 2999, 5000, 65535};
    char long_reason[125];
    memset(long_reason, 'x', 124);
    long_reason[124] = '\0';
    (void)user;
    for (size_t i = 0; i < sizeof bad_codes / sizeof bad_codes[0]; i++)
        cr_expect_eq(rws_conn_close(conn, bad_codes[i], NULL), RWS_E_ARGUMENT, "%u", bad_codes[i]);
    cr_expect_eq(rws_conn_close(conn, 1000, long_reason), RWS_E_ARGUMENT);
    cr_expect_eq(rws_conn_close(conn, 1000, "\xff"), RWS_E_ARGUMENT);
    cr_expect_eq(rws_conn_close(conn, 1000, "\xe2\x82"), RWS_E_ARGUMENT);
    cr_expect_eq(rws_conn_close(conn, 1005, "a reason needs a code"), RWS_E_ARGUMENT);
    cr_expect_eq(rws_conn_close(conn, 3000, long_reason + 1), 0);
    cr_expect_eq(rws_conn_close(conn, 1000, NULL), RWS_E_STATE);
    return 0;
}

Test(engine_upgrade, close_reasons_are_checked)
{
    engine_server server;
    raw_client client;
    raw_frame frame;
    rws_handler handler = engine_server_handler();
    handler.on_message = close_badly;
    cr_assert_eq(engine_server_start(&server, NULL, &handler), 0);
    cr_assert(raw_open(&client, server.port));
    cr_assert(raw_send_frame(&client, RAW_TEXT, "x", 1));
    cr_assert_eq(raw_read_frame(&client, &frame), 1);
    cr_expect_eq(frame.first, RAW_CLOSE);
    cr_expect_eq(frame.len, 125);
    cr_expect_eq(frame.payload[0] << 8 | frame.payload[1], 3000);
    raw_close(&client);
    stop(&server);
}
