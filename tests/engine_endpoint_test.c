/*
 * Endpoints of one server, against real sockets: several at once, each with rules of its own; which
 * requests go where; what is refused before the start.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "support/engine_places.h"
#include "support/test_allocator.h"

TestSuite(engine_endpoint, .timeout = 60);

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* ---- one shard serves two endpoints and dials a third ---- */

/* A bridge: what comes at /ask goes to the broker, whose answers go back. All of it runs on the one
 * loop, so nothing is locked. */
typedef struct bridge {
    rws_conn *broker, *asker;
    _Atomic uint64_t brokers_opened, brokers_closed, shard;
} bridge;

static void asker_open(rws_conn *conn, void *user)
{
    bridge *own = user;
    own->asker = conn;
}

static int asker_message(rws_conn *conn, const rws_message *message, void *user)
{
    bridge *own = user;
    cr_expect_eq(rws_conn_shard(conn), rws_conn_shard(own->broker));
    return rws_conn_send_message(own->broker, message);
}

static void broker_open(rws_conn *conn, void *user)
{
    bridge *own = user;
    own->broker = conn;
    cr_expect_eq(rws_conn_user(conn), &own->shard);
    atomic_store(&own->shard, rws_conn_shard(conn));
    atomic_fetch_add(&own->brokers_opened, 1);
}

static int broker_message(rws_conn *conn, const rws_message *message, void *user)
{
    const bridge *own = user;
    (void)conn;
    return rws_conn_send_message(own->asker, message);
}

static void broker_close(rws_conn *conn, const rws_close_info *info, void *user)
{
    bridge *own = user;
    (void)conn;
    cr_expect_eq(info->who, RWS_CLOSED_BY_US);
    atomic_fetch_add(&own->brokers_closed, 1);
}

Test(engine_endpoint, one_shard_serves_two_endpoints_and_dials_a_third)
{
    EACH_FEATURES(off)
    {
        engine_server broker;
        test_options broker_options = engine_server_options();
        broker_options.features_off = *off;
        cr_assert_eq(engine_server_start(&broker, &broker_options, NULL), 0);
        bridge own = {0};
        place plain = {.name = "plain"};
        rws_handler asker = RWS_HANDLER_DEFAULT, dialled = RWS_HANDLER_DEFAULT;
        asker.on_open = asker_open;
        asker.on_message = asker_message;
        dialled.on_open = broker_open;
        dialled.on_message = broker_message;
        dialled.on_close = broker_close;
        rws_server *server = make(1, *off);
        rws_endpoint_options options = endpoint_options("/ask", NULL);
        options.handler = &asker;
        options.user = &own;
        add(server, &options);
        add_place(server, "/plain", &plain);
        options = endpoint_options(NULL, NULL);
        options.handler = &dialled;
        options.user = &own;
        options.role = RWS_CLIENT;
        const rws_endpoint *third = add(server, &options);
        listen_on_loopback(server);
        start(server);
        char url[64];
        rws_dial_options dial = RWS_DIAL_OPTIONS_DEFAULT;
        rws_error error;
        snprintf(url, sizeof url, "ws://127.0.0.1:%u/", broker.port);
        dial.user = &own.shard;
        cr_assert_eq(rws_server_dial(server, third, url, &dial, NULL, &error), 0, "%s", error.text);
        cr_assert(engine_server_await(&own.brokers_opened, 1));
        raw_client asks, plains;
        uint16_t port = rws_server_port(server, 0);
        cr_assert_eq(ask_port(&asks, port, "/ask", ""), 101);
        cr_assert_eq(ask_port(&plains, port, "/plain", ""), 101);
        for (int i = 0; i < 10; i++) {
            cr_assert(raw_send_frame(&asks, RAW_TEXT, "through the broker", 18));
            expect_text(&asks, "through the broker");
            expect_name(&plains, "plain");
        }
        cr_expect_eq(atomic_load(&broker.messages), 10);
        raw_close(&asks);
        raw_close(&plains);
        stop(server);
        cr_expect_eq(own.brokers_closed, 1);
        cr_expect_eq(engine_server_stop(&broker), 0);
    }
}

/* ---- rules of their own ---- */

/* "/small" takes 10 bytes, in 300 ms; "/large" 1,000, for a minute. */
Test(engine_endpoint, endpoints_have_limits_and_deadlines_of_their_own)
{
    EACH_FEATURES(off)
    {
        place small = {.name = "small"}, large = {.name = "large"};
        rws_server *server = make(1, *off);
        rws_endpoint_options options = endpoint_options("/small", &small);
        options.message_bytes_max = 10;
        options.message_timeout_ms = 300;
        options.validate_utf8 = false;
        add(server, &options);
        options = endpoint_options("/large", &large);
        options.message_bytes_max = 1000;
        add(server, &options);
        listen_on_loopback(server);
        start(server);
        uint16_t port = rws_server_port(server, 0);
        raw_client smalls[3], larges[3];
        char bytes[1001];
        memset(bytes, 'x', sizeof bytes);
        for (int i = 0; i < 3; i++) {
            cr_assert_eq(ask_port(&smalls[i], port, "/small", ""), 101);
            cr_assert_eq(ask_port(&larges[i], port, "/large", ""), 101);
        }
        /* Sizes. */
        cr_assert(raw_send_frame(&smalls[0], RAW_TEXT, bytes, 10));
        expect_text(&smalls[0], "small:xxxxxxxxxx");
        cr_assert(raw_send_frame(&smalls[0], RAW_TEXT, bytes, 11));
        cr_expect_eq(raw_read_close(&smalls[0]), 1009);
        raw_frame frame;
        cr_assert(raw_send_frame(&larges[0], RAW_TEXT, bytes, 1000));
        cr_assert_eq(raw_read_frame(&larges[0], &frame), 1);
        cr_assert(raw_send_frame(&larges[0], RAW_TEXT, bytes, 1001));
        cr_expect_eq(raw_read_close(&larges[0]), 1009);
        /* Text. */
        cr_assert(raw_send_frame(&larges[1], RAW_TEXT, "\xff", 1));
        cr_expect_eq(raw_read_close(&larges[1]), 1007);
        cr_assert(raw_send_frame(&smalls[1], RAW_TEXT, "\xff", 1));
        expect_text(&smalls[1], "small:\xff");
        /* Deadlines: both have begun a message. */
        cr_assert(raw_send_frame(&smalls[2], 0x1, "half", 4));
        cr_assert(raw_send_frame(&larges[2], 0x1, "half", 4));
        cr_expect_eq(raw_read_close(&smalls[2]), 1008);
        cr_assert(raw_send_frame(&larges[2], RAW_FIN, "whole", 5));
        expect_text(&larges[2], "large:halfwhole");
        cr_expect_eq(small.opened, 3);
        cr_expect_eq(large.opened, 3);
        for (int i = 0; i < 3; i++) {
            raw_close(&smalls[i]);
            raw_close(&larges[i]);
        }
        stop(server);
        cr_expect_eq(small.closed, 3);
        cr_expect_eq(large.closed, 3);
    }
}

Test(engine_endpoint, endpoints_have_origins_and_subprotocols_of_their_own)
{
    static const char *const origins[] = {"https://a.example"};
    static const char *const for_chat[] = {"chat.v2", "chat"}, *const for_feed[] = {"feed"};
    static const struct {
        const char *target, *lines;
        int status;
        const char *chosen; /* NULL: none */
    } rows[] = {
        {"/chat", "", 101, NULL},
        {"/chat", "Origin: https://a.example\r\n", 101, NULL},
        {"/chat", "Origin: https://b.example\r\n", 403, NULL},
        {"/feed", "Origin: https://b.example\r\n", 101, NULL},
        {"/chat", "Sec-WebSocket-Protocol: chat\r\n", 101, "chat"},
        {"/chat", "Sec-WebSocket-Protocol: chat, chat.v2\r\n", 101, "chat.v2"},
        {"/chat", "Sec-WebSocket-Protocol: feed\r\n", 101, NULL},
        {"/chat", "Sec-WebSocket-Protocol: Chat\r\n", 101, NULL},
        {"/chat", "Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: chat\r\n", 101, "chat"},
        {"/feed", "Sec-WebSocket-Protocol: chat, feed\r\n", 101, "feed"},
        {"/feed", "Sec-WebSocket-Protocol: chat\r\n", 101, NULL},
    };
    EACH_FEATURES(off)
    {
        place chat = {.name = "chat"}, feed = {.name = "feed"};
        rws_server *server = make(1, *off);
        rws_endpoint_options options = endpoint_options("/chat", &chat);
        options.origins = origins;
        options.origins_count = 1;
        options.subprotocols = for_chat;
        options.subprotocols_count = 2;
        add(server, &options);
        options = endpoint_options("/feed", &feed);
        options.subprotocols = for_feed;
        options.subprotocols_count = 1;
        add(server, &options);
        listen_on_loopback(server);
        start(server);
        for (size_t i = 0; i < COUNT(rows); i++) {
            raw_client client;
            char head[1024], wanted[64] = "";
            cr_assert(raw_connect(&client, "127.0.0.1", rws_server_port(server, 0), 0));
            cr_expect_eq(ask(&client, rows[i].target, rows[i].lines, head), rows[i].status,
                         "row %zu", i);
            if (rows[i].chosen != NULL)
                snprintf(wanted, sizeof wanted, "\r\nSec-WebSocket-Protocol: %s\r\n",
                         rows[i].chosen);
            cr_expect_not_null(strstr(head, wanted), "row %zu: %s", i, head);
            if (rows[i].chosen == NULL)
                cr_expect_null(strstr(head, "Sec-WebSocket-Protocol"), "row %zu: %s", i, head);
            raw_close(&client);
        }
        stop(server);
    }
}

/* ---- paths ---- */

Test(engine_endpoint, the_path_alone_chooses_the_endpoint)
{
    static const struct {
        const char *target;
        const char *served_by, *served_without_any; /* NULL: 404 */
    } rows[] = {
        {"/", "any", NULL},    {"/a", "a", "a"},      {"/a?", "a", "a"},     {"/a?x=/b", "a", "a"},
        {"/a?/a/b", "a", "a"}, {"/a/", "any", NULL},  {"/a/b", "ab", "ab"},  {"/a/b?", "ab", "ab"},
        {"/A", "any", NULL},   {"/aa", "any", NULL},  {"/%61", "any", NULL}, {"/b?/a", "any", NULL},
        {"//a", "any", NULL},  {"/a;x", "any", NULL},
    };
    EACH_FEATURES(off)
    {
        for (int with_any = 0; with_any < 2; with_any++) {
            place any = {.name = "any"}, a = {.name = "a"}, ab = {.name = "ab"};
            rws_server *server = make(1, *off);
            if (with_any) add_place(server, NULL, &any); /* first, and still the last resort */
            add_place(server, "/a", &a);
            add_place(server, "/a/b", &ab);
            listen_on_loopback(server);
            start(server);
            for (size_t i = 0; i < COUNT(rows); i++) {
                raw_client client;
                const char *name = with_any ? rows[i].served_by : rows[i].served_without_any;
                int status = ask_port(&client, rws_server_port(server, 0), rows[i].target, "");
                cr_expect_eq(status, name != NULL ? 101 : 404, "%s: %d", rows[i].target, status);
                if (status == 101) expect_name(&client, name);
                if (status != 101) cr_expect(raw_read_end(&client));
                raw_close(&client);
            }
            rws_stats stats = {.size = sizeof stats};
            rws_server_stats(server, &stats);
            cr_expect_eq(stats.upgraded + stats.refused, COUNT(rows));
            stop(server);
        }
    }
}

/* ---- what is refused ---- */

Test(engine_endpoint, two_endpoints_of_one_path_are_refused_at_the_start)
{
    static const char *const paths[] = {"/same", NULL};
    for (size_t i = 0; i < COUNT(paths); i++) {
        place one = {.name = "one"}, two = {.name = "two"};
        rws_error error = {0};
        rws_server *server = make(1, 0);
        add_place(server, "/other", &one);
        add_place(server, paths[i], &one);
        add_place(server, paths[i], &two);
        cr_expect_eq(rws_server_start(server, NULL), 0, "without a listener it does not matter");
        rws_server_destroy(server);

        server = make(1, 0);
        add_place(server, paths[i], &one);
        add_place(server, paths[i], &two);
        listen_on_loopback(server);
        for (int again = 0; again < 2; again++) {
            cr_expect_eq(rws_server_start(server, &error), RWS_E_OPTION);
            cr_expect_not_null(strstr(error.text, i == 0 ? "/same" : "every other"), "%s",
                               error.text);
        }
        cr_expect_eq(rws_server_run(server, &error), RWS_E_OPTION);
        cr_expect_eq(rws_server_wait(server), RWS_E_STATE, "it was not started");
        rws_server_destroy(server);
    }
}

/* And goes on when what was missing is there. */
Test(engine_endpoint, a_server_without_an_endpoint_says_so)
{
    place any = {.name = "any"};
    rws_error error = {0};
    rws_server *server = make(2, 0);
    rws_endpoint_options client = endpoint_options(NULL, &any);
    client.role = RWS_CLIENT;
    listen_on_loopback(server);
    add(server, &client); /* not one that could serve */
    listen_on_loopback(server);
    for (int again = 0; again < 2; again++) {
        cr_expect_eq(rws_server_start(server, &error), RWS_E_OPTION);
        cr_expect_not_null(strstr(error.text, "rws_server_add_endpoint"), "%s", error.text);
    }
    add_place(server, NULL, &any);
    start(server);
    for (uint32_t i = 0; i < 2; i++) {
        raw_client connection;
        cr_assert(raw_connect(&connection, "127.0.0.1", rws_server_port(server, i), 0));
        expect_served(&connection, "/", "any");
    }
    stop(server);
}

Test(engine_endpoint, nothing_is_added_after_the_start)
{
    place any = {.name = "any"};
    rws_error error = {0};
    rws_server *server = make(1, 0);
    add_place(server, NULL, &any);
    listen_on_loopback(server);
    start(server);
    rws_endpoint_options options = endpoint_options("/late", &any);
    rws_endpoint *late = NULL;
    cr_expect_eq(rws_server_add_endpoint(server, &options, &late, &error), RWS_E_STATE);
    cr_expect_null(late);
    cr_expect_not_null(strstr(error.text, "start"), "%s", error.text);
    cr_expect_eq(rws_server_listen(server, NULL, &error), RWS_E_STATE);
    cr_expect_not_null(strstr(error.text, "start"), "%s", error.text);
    stop(server);
}

/* ---- memory that runs out ---- */

/* A whole life up to the start, stopped where a call fails. */
static int live(const rws_allocator *allocator, rws_error *error)
{
    static const char *const names[] = {"one", "two"};
    static place any = {.name = "any"};
    rws_server *server = NULL;
    rws_endpoint *endpoint = NULL, *client = NULL;
    rws_runtime_options runtime = RWS_RUNTIME_OPTIONS_DEFAULT;
    runtime.allocator = allocator;
    runtime.shards = 2;
    runtime.connections_max = 16;
    int res = rws_server_create(&server, &runtime, error);
    cr_expect_eq(server == NULL, res != 0);
    rws_endpoint_options options = endpoint_options("/one", &any);
    options.subprotocols = names;
    options.subprotocols_count = 2;
    if (res == 0) res = rws_server_add_endpoint(server, &options, &endpoint, error);
    options.path = NULL;
    if (res == 0) res = rws_server_add_endpoint(server, &options, NULL, error);
    options.role = RWS_CLIENT;
    if (res == 0) res = rws_server_add_endpoint(server, &options, &client, error);
    rws_listener_options listener = RWS_LISTENER_OPTIONS_DEFAULT;
    listener.port = 0;
    listener.endpoints = &endpoint;
    listener.endpoints_count = 1;
    if (res == 0) res = rws_server_listen(server, &listener, error);
    listener.endpoints = NULL;
    listener.endpoints_count = 0;
    if (res == 0) res = rws_server_listen(server, &listener, error);
    rws_dial_options dial = RWS_DIAL_OPTIONS_DEFAULT;
    dial.origin = "https://example.org";
    if (res == 0) res = rws_server_dial(server, client, "ws://127.0.0.1:9/", &dial, NULL, error);
    if (res == 0) res = rws_post_close(rws_server_runtime(server), 1, 1000, NULL);
    int first = res == 0 ? rws_server_start(server, error) : res;
    /* What failed once for want of memory can be done again. */
    if (res == 0 && first != 0)
        cr_expect_eq(rws_server_start(server, NULL), 0, "after %s", error->text);
    rws_server_destroy(server);
    return first;
}

Test(engine_endpoint, no_allocation_that_fails_leaves_something_behind)
{
    size_t files = test_open_files();
    int res = -1;
    for (size_t fail_at = 1; res != 0; fail_at++) {
        test_allocator memory = {.fail_at = fail_at};
        rws_allocator allocator = TEST_ALLOCATOR(&memory);
        rws_error error = {0};
        res = live(&allocator, &error);
        cr_expect(res == 0 || res == -ENOMEM, "allocation %zu: %d %s", fail_at, res, error.text);
        cr_expect_eq(memory.live, 0, "allocation %zu: %zu blocks are left", fail_at, memory.live);
        cr_assert_eq(test_open_files(), files, "allocation %zu", fail_at);
        cr_assert_lt(fail_at, 200);
    }
}

/* ---- the last posts of a server that never ran ---- */

typedef struct stubborn {
    rws_server *server;
    rws_endpoint *endpoint;
    int errors, accepted, refused;
} stubborn;

static void dial_again(const rws_error *error, void *dial_user, void *user)
{
    stubborn *own = user;
    (void)dial_user;
    cr_expect_eq(error->status, RWS_E_STATE);
    own->errors++;
    for (uint32_t shard = 0; shard < 3; shard++) {
        rws_dial_options options = RWS_DIAL_OPTIONS_DEFAULT;
        options.shard = shard;
        int res =
            rws_server_dial(own->server, own->endpoint, "ws://127.0.0.1:9/", &options, NULL, NULL);
        cr_expect(res == 0 || res == RWS_E_STATE, "%d", res);
        if (res == 0) own->accepted++;
        if (res == RWS_E_STATE) own->refused++;
    }
}

/* Each is reported once, and what they post in turn is refused or reported. */
Test(engine_endpoint, dials_of_a_server_that_never_ran_fail_once)
{
    rws_handler dialled = RWS_HANDLER_DEFAULT;
    stubborn own = {.server = make(3, 0)};
    dialled.on_dial_error = dial_again;
    rws_endpoint_options options = endpoint_options(NULL, NULL);
    options.handler = &dialled;
    options.user = &own;
    options.role = RWS_CLIENT;
    own.endpoint = add(own.server, &options);
    for (int i = 0; i < 6; i++)
        cr_assert_eq(
            rws_server_dial(own.server, own.endpoint, "ws://127.0.0.1:9/", NULL, NULL, NULL), 0);
    rws_server_destroy(own.server);
    cr_expect_eq(own.errors, 6 + own.accepted);
    cr_expect_gt(own.refused, 0);
}
