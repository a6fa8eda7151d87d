/*
 * The public calls against real sockets: addresses, shards, pausing, draining, control frames in
 * the program's hands, messages in frames, the life cycle. ctest: filtered
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/engine_checks.h"
#include "support/engine_server.h"
#include "support/raw_client.h"

TestSuite(engine_live, .timeout = 60);

static void start(engine_server *server, const test_options *options, const rws_handler *handler)
{
    int res = engine_server_start(server, options, handler);
    cr_assert_eq(res, 0, "%s", server->error.text);
}

static void stop(engine_server *server)
{
    cr_expect(engine_server_await_connections(server, 0));
    cr_expect_eq(engine_server_stop(server), 0);
}

static void expect_frame(raw_client *client, uint8_t first, const char *payload)
{
    raw_frame frame;
    cr_assert_eq(raw_read_frame(client, &frame), 1, "instead of \"%s\"", payload);
    cr_expect_eq(frame.first, first, "%02x with \"%s\" instead of \"%s\"", frame.first,
                 (const char *)frame.payload, payload);
    cr_expect(frame.len == strlen(payload) && memcmp(frame.payload, payload, frame.len) == 0,
              "\"%s\" instead of \"%s\"", (const char *)frame.payload, payload);
}

/* ---- addresses ---- */

/* Answer with the peer's address and port. */
static int tell_peer(rws_conn *conn, const rws_message *message, void *user)
{
    (void)message;
    union {
        struct sockaddr_storage storage;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } peer = {0};
    socklen_t peer_len = sizeof peer.storage;
    char text[INET6_ADDRSTRLEN] = "", answer[100];
    (void)user;
    int res = rws_conn_peer(conn, &peer.storage, &peer_len);
    unsigned port = 0;
    if (res == 0 && peer.storage.ss_family == AF_INET) {
        inet_ntop(AF_INET, &peer.in.sin_addr, text, sizeof text);
        port = ntohs(peer.in.sin_port);
    } else if (res == 0 && peer.storage.ss_family == AF_INET6) {
        inet_ntop(AF_INET6, &peer.in6.sin6_addr, text, sizeof text);
        port = ntohs(peer.in6.sin6_port);
    } else {
        snprintf(text, sizeof text, "%d, family %u, length", res, peer.storage.ss_family);
        port = peer_len;
    }
    int answer_len = snprintf(answer, sizeof answer, "%s %u", text, port);
    return rws_conn_send_text(conn, answer, (size_t)answer_len);
}

static unsigned own_port(const raw_client *client)
{
    struct sockaddr_in6 own = {0};
    socklen_t len = sizeof own;
    cr_assert_eq(getsockname(client->fd, (struct sockaddr *)&own, &len), 0);
    return ntohs(own.sin6_port); /* at the same place in a sockaddr_in */
}

Test(engine_live, the_peers_address_is_right_for_both_families)
{
    static const struct {
        const char *listen, *connect, *peer;
    } rows[] = {
        {"127.0.0.1", "127.0.0.1", "127.0.0.1"},
        {"::1", "::1", "::1"},
        {"::", "::1", "::1"},
        {"::", "127.0.0.1", "::ffff:127.0.0.1"},
    };
    bool no_ipv6 = false;
    EACH_FEATURES(off)
    {
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            engine_server server;
            test_options options = engine_server_options();
            rws_handler handler = engine_server_handler();
            options.features_off = *off;
            options.address = rows[i].listen;
            handler.on_message = tell_peer;
            int res = engine_server_start(&server, &options, &handler);
            if (res == -EADDRNOTAVAIL || res == -EAFNOSUPPORT) {
                no_ipv6 = true;
                continue;
            }
            cr_assert_eq(res, 0, "%s", server.error.text);
            /* Many at once, so that addresses could be mixed up. */
            raw_client clients[40];
            for (int at = 0; at < 40; at++)
                cr_assert(raw_connect(&clients[at], rows[i].connect, server.port, 0));
            for (int at = 0; at < 40; at++) {
                char wanted[100];
                cr_assert(raw_upgrade(&clients[at]));
                cr_assert(raw_send_frame(&clients[at], RAW_TEXT, "who?", 4));
                snprintf(wanted, sizeof wanted, "%s %u", rows[i].peer, own_port(&clients[at]));
                expect_frame(&clients[at], RAW_TEXT, wanted);
                raw_close(&clients[at]);
            }
            stop(&server);
        }
    }
    if (no_ipv6) cr_skip_test("there is no IPv6 here; IPv4 is right");
}

/* What on_close found out; 0: nothing yet, 1: the address is not known. */
static _Atomic uint64_t closed_port;

static void note_peer_port(rws_conn *conn, const rws_close_info *info, void *user)
{
    (void)user;
    union {
        struct sockaddr_storage storage;
        struct sockaddr_in in;
    } peer = {0};
    socklen_t len = sizeof peer.storage;
    (void)info;
    (void)info;
    (void)info;
    bool known = rws_conn_peer(conn, &peer.storage, &len) == 0;
    atomic_store(&closed_port, known ? ntohs(peer.in.sin_port) : 1);
}

/* Also if nobody has asked for it before, and the peer is gone. */
Test(engine_live, the_peers_address_is_known_to_the_end)
{
    EACH_FEATURES(off)
    {
        for (int reset = 0; reset < 2; reset++) {
            engine_server server;
            raw_client client;
            test_options options = engine_server_options();
            rws_handler handler = engine_server_handler();
            options.features_off = *off;
            handler.on_close = note_peer_port;
            atomic_store(&closed_port, 0);
            start(&server, &options, &handler);
            cr_assert(raw_open(&client, server.port));
            unsigned own = own_port(&client);
            if (reset)
                raw_reset(&client);
            else
                raw_close(&client);
            cr_assert(engine_server_await(&closed_port, 1));
            cr_expect_eq(atomic_load(&closed_port), own, "%s, features off %x",
                         reset ? "reset" : "closed", *off);
            stop(&server);
        }
    }
}

Test(engine_live, the_peers_address_can_be_left_out)
{
    EACH_FEATURES(off)
    {
        engine_server server;
        raw_client client;
        char wanted[100];
        test_options options = engine_server_options();
        rws_handler handler = engine_server_handler();
        options.features_off = *off | RWS__FEATURE_SOCKET_COMMANDS;
        options.no_peer_address = true;
        handler.on_message = tell_peer;
        start(&server, &options, &handler);
        cr_assert(raw_open(&client, server.port));
        cr_assert(raw_send_frame(&client, RAW_TEXT, "who?", 4));
        snprintf(wanted, sizeof wanted, "%d, family 0, length %u", RWS_E_STATE,
                 (unsigned)sizeof(struct sockaddr_storage));
        expect_frame(&client, RAW_TEXT, wanted);
        raw_close(&client);
        stop(&server);
    }
}

Test(engine_live, a_unix_socket_serves_all_shards)
{
    EACH_FEATURES(off)
    {
        engine_server server;
        raw_client clients[40];
        char path[64], wanted[100];
        test_options options = engine_server_options();
        rws_handler handler = engine_server_handler();
        snprintf(path, sizeof path, "/tmp/ringws-live-%d.sock", (int)getpid());
        options.features_off = *off;
        options.unix_path = path;
        options.shards = 4;
        handler.on_message = tell_peer;
        start(&server, &options, &handler);
        cr_expect_eq(rws_server_port(server.server, 0), 0);
        cr_expect_eq(rws_server_shards(server.server), 4);
        for (int i = 0; i < 40; i++)
            cr_assert(raw_connect_unix(&clients[i], path));
        for (int i = 0; i < 40; i++) {
            cr_assert(raw_upgrade(&clients[i]), "connection %d", i);
            cr_assert(raw_send_frame(&clients[i], RAW_TEXT, "who?", 4));
            snprintf(wanted, sizeof wanted, "0, family %d, length %u", AF_UNIX,
                     (unsigned)sizeof(sa_family_t));
            expect_frame(&clients[i], RAW_TEXT, wanted);
        }
        cr_expect_eq(atomic_load(&server.shards_seen), 0xF, "shards %llx",
                     (unsigned long long)atomic_load(&server.shards_seen));
        for (int i = 0; i < 40; i++)
            raw_close(&clients[i]);
        stop(&server);
        cr_expect_neq(access(path, F_OK), 0);
    }
}

Test(engine_live, a_port_serves_all_shards)
{
    engine_server server;
    raw_client clients[100];
    test_options options = engine_server_options();
    options.shards = 2;
    start(&server, &options, NULL);
    for (int i = 0; i < 100; i++)
        cr_assert(raw_open(&clients[i], server.port));
    cr_expect_eq(atomic_load(&server.shards_seen), 3);
    for (int i = 0; i < 100; i++)
        raw_close(&clients[i]);
    stop(&server);
}

/* ---- pause, resume, drain ---- */

static rws_conn *_Atomic paused_conn;

static int echo_until_pause(rws_conn *conn, const rws_message *message, void *user)
{
    const void *data = rws_message_data(message);
    size_t len = rws_message_len(message);
    engine_server *server = user;
    atomic_fetch_add(&server->messages, 1);
    if (len == 5 && memcmp(data, "pause", 5) == 0) {
        rws_conn_pause(conn);
        atomic_store(&paused_conn, conn);
    }
    return rws_conn_send_message(conn, message);
}

static void resume(void *arg, bool cancelled)
{
    (void)arg;
    if (!cancelled) rws_conn_resume(atomic_load(&paused_conn));
}

Test(engine_live, a_paused_connection_delivers_later_and_in_order)
{
    EACH_FEATURES(off)
    {
        engine_server server;
        raw_client client;
        test_options options = engine_server_options();
        rws_handler handler = engine_server_handler();
        options.features_off = *off;
        handler.on_message = echo_until_pause;
        start(&server, &options, &handler);
        cr_assert(raw_open(&client, server.port));
        for (uint64_t round = 1; round <= 3; round++) {
            /* In one segment: the pause takes effect within what was received already. */
            cr_assert(raw_send(&client,
                               "\x81\x83\0\0\0\0one\x81\x85\0\0\0\0pause\x81\x83\0\0\0\0two", 29));
            cr_assert(raw_send_frame(&client, RAW_PING, "later", 5));
            expect_frame(&client, RAW_TEXT, "one");
            expect_frame(&client, RAW_TEXT, "pause");
            cr_assert(raw_send_frame(&client, RAW_TEXT, "three", 5));
            cr_expect(raw_is_silent(&client, 100));
            cr_expect_eq(atomic_load(&server.messages), round * 4 - 2);
            cr_assert_eq(test_post(server.server, 0, resume, NULL), 0);
            expect_frame(&client, RAW_TEXT, "two");
            expect_frame(&client, RAW_PONG, "later");
            expect_frame(&client, RAW_TEXT, "three");
        }
        /* Paused to the end: the peer's end is seen after it goes on. */
        cr_assert(raw_send_frame(&client, RAW_TEXT, "pause", 5));
        expect_frame(&client, RAW_TEXT, "pause");
        cr_assert(raw_send_frame(&client, RAW_TEXT, "four", 4));
        test_sleep_ms(20);
        cr_assert_eq(test_post(server.server, 0, resume, NULL), 0);
        expect_frame(&client, RAW_TEXT, "four");
        raw_close(&client);
        stop(&server);
    }
}

/* ---- control frames in the program's hands ---- */

static int on_ping(rws_conn *conn, const void *data, size_t len, void *user)
{
    (void)user;
    char text[200];
    int text_len = snprintf(text, sizeof text, "ping %.*s", (int)len, (const char *)data);
    if (rws_conn_send_text(conn, text, (size_t)text_len) != 0) return RWS_E_STATE;
    return rws_conn_send_frame(conn, RWS_PONG, true, "mine", 4);
}

static int on_pong(rws_conn *conn, const void *data, size_t len, void *user)
{
    (void)user;
    char text[200];
    int text_len = snprintf(text, sizeof text, "pong %.*s", (int)len, (const char *)data);
    return rws_conn_send_text(conn, text, (size_t)text_len);
}

static int on_close_frame(rws_conn *conn, uint16_t code, rws_span reason, void *user)
{
    (void)user;
    if (code == 4001) return 0; /* never answered */
    if (code == 4002) return -1;
    cr_expect_eq(rws_conn_send_text(conn, "too late", 8), RWS_E_STATE);
    cr_expect(reason.len == 3 && memcmp(reason.data, "why", 3) == 0);
    return rws_conn_close(conn, 4999, "because");
}

Test(engine_live, control_frames_are_the_programs_if_it_wants_them)
{
    EACH_FEATURES(off)
    {
        engine_server server;
        raw_client client;
        test_options options = engine_server_options();
        rws_handler handler = engine_server_handler();
        options.features_off = *off;
        options.handle_ping = options.handle_pong = options.handle_close = true;
        options.close_timeout_ms = 300;
        handler.on_ping = on_ping;
        handler.on_pong = on_pong;
        handler.on_close_frame = on_close_frame;
        start(&server, &options, &handler);
        cr_assert(raw_open(&client, server.port));
        cr_assert(raw_send_frame(&client, RAW_PING, "a", 1));
        expect_frame(&client, RAW_TEXT, "ping a");
        expect_frame(&client, RAW_PONG, "mine");
        cr_assert(raw_send_frame(&client, RAW_PONG, "b", 1));
        expect_frame(&client, RAW_TEXT, "pong b");
        cr_assert(raw_send_frame(&client, RAW_CLOSE, "\x03\xE8why", 5));
        expect_frame(&client, RAW_CLOSE,
                     "\x13\x87"
                     "because");
        cr_expect(raw_read_end(&client));
        raw_close(&client);

        cr_assert(raw_open(&client, server.port));
        cr_assert(raw_send_frame(&client, RAW_CLOSE, "\x0F\xA1", 2));
        uint64_t begin = test_now_ms();
        cr_expect(raw_read_end(&client));
        cr_expect_geq(test_now_ms() - begin, 200);
        raw_close(&client);

        cr_assert(raw_open(&client, server.port));
        cr_assert(raw_send_frame(&client, RAW_CLOSE, "\x0F\xA2", 2));
        cr_expect_eq(raw_read_close(&client), 4002);
        raw_close(&client);
        stop(&server);
        cr_expect_eq(atomic_load(&server.opened), 3);
        cr_expect_eq(atomic_load(&server.closed), 3);
    }
}

/* ---- a message in frames ---- */

static int send_in_frames(rws_conn *conn, const rws_message *message, void *user)
{
    const void *data = rws_message_data(message);
    size_t len = rws_message_len(message);
    (void)user;
    char large[126] = {0};
    cr_expect_eq(rws_conn_send_frame(conn, RWS_CONTINUATION, true, "x", 1), RWS_E_STATE);
    cr_expect_eq(rws_conn_send_frame(conn, RWS_CLOSE, true, "\x03\xE8", 2), RWS_E_ARGUMENT);
    cr_expect_eq(rws_conn_send_frame(conn, (rws_opcode)3, true, "x", 1), RWS_E_ARGUMENT);
    cr_expect_eq(rws_conn_send_frame(conn, RWS_PING, false, "x", 1), RWS_E_ARGUMENT);
    cr_expect_eq(rws_conn_send_frame(conn, RWS_PING, true, large, 126), RWS_E_ARGUMENT);
    cr_expect_eq(rws_conn_send_frame(conn, RWS_TEXT, true, NULL, 1), RWS_E_ARGUMENT);
    cr_expect_eq(rws_conn_send(conn, RWS_PING, "x", 1), RWS_E_ARGUMENT);
    cr_expect_eq(rws_conn_send(conn, RWS_CONTINUATION, "x", 1), RWS_E_ARGUMENT);

    cr_expect_eq(rws_conn_send_frame(conn, RWS_TEXT, false, data, len), 0);
    cr_expect_eq(rws_conn_send_frame(conn, RWS_BINARY, true, "x", 1), RWS_E_STATE);
    cr_expect_eq(rws_conn_send_text(conn, "x", 1), RWS_E_STATE);
    cr_expect_eq(rws_conn_send_frame(conn, RWS_PING, true, "between", 7), 0);
    cr_expect_eq(rws_conn_send_frame(conn, RWS_CONTINUATION, false, NULL, 0), 0);
    cr_expect_eq(rws_conn_send_frame(conn, RWS_CONTINUATION, true, "end", 3), 0);
    cr_expect_eq(rws_conn_send_frame(conn, RWS_CONTINUATION, true, "x", 1), RWS_E_STATE);
    cr_expect_geq(rws_conn_buffered(conn), len + 3 + 7 + 8);
    return rws_conn_send_text(conn, "whole", 5);
}

Test(engine_live, frames_leave_in_their_order_and_out_of_order_is_refused)
{
    EACH_FEATURES(off)
    {
        engine_server server;
        raw_client client;
        test_options options = engine_server_options();
        rws_handler handler = engine_server_handler();
        options.features_off = *off;
        handler.on_message = send_in_frames;
        start(&server, &options, &handler);
        cr_assert(raw_open(&client, server.port));
        cr_assert(raw_send_frame(&client, RAW_TEXT, "begin", 5));
        expect_frame(&client, 0x1, "begin");
        expect_frame(&client, RAW_PING, "between");
        expect_frame(&client, 0x0, "");
        expect_frame(&client, RAW_FIN, "end");
        expect_frame(&client, RAW_TEXT, "whole");
        cr_expect_eq(engine_server_stats(&server).messages_sent, 2);
        raw_close(&client);
        stop(&server);
    }
}

/* ---- ends that the program chooses ---- */

static int end_it(rws_conn *conn, const rws_message *message, void *user)
{
    const void *data = rws_message_data(message);
    (void)user;
    switch (*(const char *)data) {
    case 'a': rws_conn_abort(conn); return 0;
    case 'c': return rws_conn_close(conn, 1000, NULL);
    case 'e': return rws_conn_close(conn, 1005, NULL);
    case 's':
        cr_expect_eq(rws_conn_send_text(conn, "last", 4), 0);
        cr_expect_eq(rws_conn_close(conn, 4000, NULL), 0);
        cr_expect_eq(rws_conn_send_text(conn, "x", 1), RWS_E_STATE);
        return 0;
    default: return -1;
    }
}

Test(engine_live, a_program_ends_connections_from_a_callback)
{
    static const struct {
        const char *sent;
        int code; /* on the wire; -1: none */
    } rows[] = {{"abort", -1}, {"close", 1000}, {"empty", 0}, {"send", 4000}, {"fail", 1011}};
    EACH_FEATURES(off)
    {
        engine_server server;
        test_options options = engine_server_options();
        rws_handler handler = engine_server_handler();
        options.features_off = *off;
        handler.on_message = end_it;
        start(&server, &options, &handler);
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            raw_client client;
            cr_assert(raw_open(&client, server.port));
            /* What follows in the same segment is not delivered. */
            uint8_t both[64] = {0x81, 0x80};
            size_t len = strlen(rows[i].sent);
            both[1] = (uint8_t)(0x80 | len);
            memcpy(both + 6, rows[i].sent, len);
            memcpy(both + 6 + len, "\x81\x81\0\0\0\0x", 7);
            cr_assert(raw_send(&client, both, 6 + len + 7));
            if (*rows[i].sent == 's') expect_frame(&client, RAW_TEXT, "last");
            cr_expect_eq(raw_read_close(&client), rows[i].code, "%s", rows[i].sent);
            (void)raw_send_frame(&client, RAW_CLOSE, "\x03\xE8", 2);
            cr_expect(raw_read_end(&client), "%s", rows[i].sent);
            raw_close(&client);
            cr_expect(engine_server_await(&server.closed, i + 1), "%s", rows[i].sent);
            cr_expect_eq(atomic_load(&server.last_closer), RWS_CLOSED_BY_US, "%s", rows[i].sent);
        }
        cr_expect_eq(engine_server_stats(&server).messages_received, sizeof rows / sizeof rows[0]);
        stop(&server);
    }
}

/* ---- life cycle ---- */

static void note_cancelled(void *arg, bool cancelled)
{
    *(int *)arg = cancelled ? 2 : 1;
}

Test(engine_live, calls_out_of_their_order_are_errors)
{
    rws_server *server = NULL;
    test_options options = engine_server_options();
    rws_handler handler = RWS_HANDLER_DEFAULT;
    rws_error error;
    cr_assert_eq(test_server_create(&server, &options, &handler, &error), 0);
    cr_expect_eq(rws_server_wait(server), RWS_E_STATE);
    cr_assert_eq(rws_server_start(server, &error), 0);
    cr_expect_eq(rws_server_start(server, &error), RWS_E_STATE);
    cr_expect_gt(strlen(error.text), 10);
    cr_expect_eq(rws_server_run(server, NULL), RWS_E_STATE);
    cr_expect_eq(test_post(server, 1, note_cancelled, &error), RWS_E_ARGUMENT);
    rws_server_stop(server);
    cr_expect_eq(rws_server_wait(server), 0);
    cr_expect_eq(rws_server_wait(server), 0);
    cr_expect_eq(rws_server_run(server, NULL), RWS_E_STATE);
    rws_server_destroy(server);
    rws_server_destroy(NULL);

    /* Never started, with a post that nobody runs: it is cancelled. */
    int noted = 0;
    cr_assert_eq(test_server_create(&server, &options, &handler, NULL), 0);
    cr_assert_eq(test_post(server, 0, note_cancelled, &noted), 0);
    rws_server_destroy(server);
    cr_expect_eq(noted, 2);

    /* Stopped before it runs: it returns at once. */
    cr_assert_eq(test_server_create(&server, &options, &handler, NULL), 0);
    rws_server_stop(server);
    cr_expect_eq(rws_server_run(server, &error), 0);
    rws_server_destroy(server);
}

Test(engine_live, options_out_of_range_are_named)
{
    rws_server *server = NULL;
    rws_handler handler = RWS_HANDLER_DEFAULT;
    rws_error error;
    test_options options = engine_server_options();
    options.recv_buffers = 3;
    cr_expect_eq(test_server_create(&server, &options, &handler, &error), RWS_E_OPTION);
    cr_expect_not_null(strstr(error.text, "recv_buffers"), "%s", error.text);
    options = engine_server_options();
    options.shards = 300;
    cr_expect_eq(test_server_create(&server, &options, &handler, &error), RWS_E_OPTION);
    cr_expect_not_null(strstr(error.text, "shards"), "%s", error.text);
    options = engine_server_options();
    options.low_watermark_bytes = 2000000;
    cr_expect_eq(test_server_create(&server, &options, &handler, &error), RWS_E_OPTION);
    cr_expect_not_null(strstr(error.text, "low_watermark_bytes"), "%s", error.text);
    cr_expect_null(server);
}
