/*
 * The pointer that on_upgrade gives to a connection: its release is called exactly when no on_open
 * follows, with that pointer, once.
 */
#include <criterion/criterion.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/engine_checks.h"
#include "support/engine_server.h"
#include "support/raw_client.h"

TestSuite(engine_request_user, .timeout = 60);

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* ---- the program ---- */

/* One for each request, so that a wrong pointer is found. */
typedef struct ticket {
    _Atomic uint64_t asked, released, opened, closed;
} ticket;

static ticket tickets[64];
static _Atomic uint64_t used;
static _Atomic uint64_t strange; /* pointers that are none of these */

static ticket *known(void *pointer)
{
    ticket *one = pointer;
    if (one >= tickets && one < tickets + COUNT(tickets)) return one;
    atomic_fetch_add(&strange, 1);
    return &tickets[COUNT(tickets) - 1];
}

static void release(void *conn_user)
{
    atomic_fetch_add(&known(conn_user)->released, 1);
}

/* The path says what is done. */
static int on_upgrade(rws_request *request, void *user)
{
    (void)user;
    ticket *one = &tickets[atomic_fetch_add(&used, 1)];
    rws_span path = rws_request_path(request);
    atomic_fetch_add(&one->asked, 1);
    switch (path.data[1]) {
    case 'n': rws_request_set_user(request, one, NULL); return 0;
    case 'N': rws_request_set_user(request, one, NULL); return -1;
    case 't': /* another one first */
        rws_request_set_user(request, &tickets[0], release);
        rws_request_set_user(request, one, release);
        return path.len > 2 ? -1 : 0;
    default: break;
    }
    rws_request_set_user(request, one, release);
    switch (path.data[1]) {
    case 'r': return -1;
    case 's': (void)rws_request_respond(request, 404, "nothing here\n", 13); return -1;
    case 'a': (void)rws_request_respond(request, 404, NULL, 0); return 0; /* accepted after all */
    default: return 0;
    }
}

static void on_open(rws_conn *conn, void *user)
{
    (void)user;
    atomic_fetch_add(&known(rws_conn_user(conn))->opened, 1);
}

static void on_close(rws_conn *conn, const rws_close_info *info, void *user)
{
    (void)info;
    (void)user;
    atomic_fetch_add(&known(rws_conn_user(conn))->closed, 1);
}

static engine_server server;

static void start(uint32_t off, uint32_t connections_max, const rws_handler *handler)
{
    test_options options = engine_server_options();
    options.features_off = off;
    options.connections_max = connections_max;
    memset(tickets, 0, sizeof tickets);
    atomic_store(&used, 0);
    atomic_store(&strange, 0);
    cr_assert_eq(engine_server_start(&server, &options, handler), 0, "%s", server.error.text);
}

static rws_handler make_handler(void)
{
    rws_handler handler = RWS_HANDLER_DEFAULT;
    handler.on_upgrade = on_upgrade;
    handler.on_open = on_open;
    handler.on_close = on_close;
    return handler;
}

static void send_request(raw_client *client, const char *path)
{
    char request[512];
    cr_assert(raw_connect(client, "127.0.0.1", server.port, 0));
    snprintf(request, sizeof request,
             "GET %s HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
             path);
    cr_assert(raw_send_text(client, request));
}

static void expect(const ticket *one, uint64_t released, uint64_t opened, const char *context)
{
    cr_expect_eq(one->released, released, "%s: released %llu times", context,
                 (unsigned long long)one->released);
    cr_expect_eq(one->opened, opened, "%s", context);
    cr_expect_eq(one->closed, opened, "%s", context);
}

Test(engine_request_user, is_released_exactly_when_no_on_open_follows)
{
    static const struct {
        const char *path;
        int status;
        uint64_t released, opened;
    } rows[] = {
        {"/open", 101, 0, 1},   {"/refused", 403, 1, 0}, {"/status", 404, 1, 0},
        {"/accept", 101, 0, 1}, {"/none", 101, 0, 1},    {"/None", 403, 0, 0},
        {"/t", 101, 0, 1},      {"/tr", 403, 1, 0},
    };
    EACH_FEATURES(off)
    {
        rws_handler handler = make_handler();
        start(*off, 64, &handler);
        atomic_store(&used, 1); /* the first one is "another one" */
        for (size_t i = 0; i < COUNT(rows); i++) {
            raw_client client;
            char head[1024];
            send_request(&client, rows[i].path);
            cr_expect_eq(raw_read_head(&client, head, sizeof head), rows[i].status, "%s",
                         rows[i].path);
            raw_close(&client);
        }
        cr_assert(engine_server_await_connections(&server, 0));
        cr_expect_eq(engine_server_stop(&server), 0);
        for (size_t i = 0; i < COUNT(rows); i++)
            expect(&tickets[i + 1], rows[i].released, rows[i].opened, rows[i].path);
        expect(&tickets[0], 2, 0, "it was replaced, twice");
        cr_expect_eq(strange, 0);
    }
}

/* A server that is full does not ask; one that closes in on_open has opened it. */
Test(engine_request_user, is_not_given_by_those_who_are_not_asked)
{
    EACH_FEATURES(off)
    {
        rws_handler handler = make_handler();
        raw_client first, second;
        char head[1024];
        start(*off, 1, &handler);
        send_request(&first, "/open");
        cr_expect_eq(raw_read_head(&first, head, sizeof head), 101);
        send_request(&second, "/open");
        cr_expect_eq(raw_read_head(&second, head, sizeof head), 503);
        raw_close(&first);
        raw_close(&second);
        cr_assert(engine_server_await_connections(&server, 0));
        cr_expect_eq(engine_server_stop(&server), 0);
        cr_expect_eq(used, 1);
        expect(&tickets[0], 0, 1, "the first");
        cr_expect_eq(strange, 0);
    }
}

/* The client is gone, or ends its half, before the answer: either is told of, never both. */
Test(engine_request_user, is_accounted_for_when_the_client_goes_at_once)
{
    EACH_FEATURES(off)
    {
        rws_handler handler = make_handler();
        start(*off, 64, &handler);
        for (int i = 0; i < 30; i++) {
            raw_client client;
            send_request(&client, i % 2 ? "/open" : "/refused");
            if (i % 3 == 0)
                raw_reset(&client);
            else
                raw_close(&client);
        }
        cr_assert(engine_server_await_connections(&server, 0));
        cr_expect_eq(engine_server_stop(&server), 0);
        for (uint64_t i = 0; i < used; i++) {
            cr_expect_eq(tickets[i].asked, 1);
            cr_expect_eq(tickets[i].released + tickets[i].opened, 1, "request %llu",
                         (unsigned long long)i);
            cr_expect_eq(tickets[i].opened, tickets[i].closed);
        }
        cr_expect_eq(strange, 0);
    }
}
