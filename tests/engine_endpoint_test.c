/*
 * Endpoints and listeners of one server, against real sockets: several of each at once, each with
 * rules of its own; which requests go where; what is refused before the start; sockets that
 * somebody else opened.
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "support/engine_checks.h"
#include "support/engine_server.h"
#include "support/raw_client.h"
#include "support/test_allocator.h"

TestSuite(engine_endpoint, .timeout = 60);

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* ---- programs ---- */

/* What one endpoint's callbacks get as `user`. */
typedef struct place {
    const char *name;
    _Atomic uint64_t opened, closed, shards_seen, unknown_peers;
    _Atomic uint64_t peer_families; /* a bit for each */
} place;

static void on_open(rws_conn *conn, void *user)
{
    place *own = user;
    struct sockaddr_storage peer;
    socklen_t len = sizeof peer;
    atomic_fetch_or(&own->shards_seen, 1u << rws_conn_shard(conn));
    if (rws_conn_peer(conn, &peer, &len) == 0)
        atomic_fetch_or(&own->peer_families, (uint64_t)1 << peer.ss_family);
    else
        atomic_fetch_add(&own->unknown_peers, 1);
    atomic_fetch_add(&own->opened, 1);
}

/* The endpoint's name, and what came. */
static int on_message(rws_conn *conn, const rws_message *message, void *user)
{
    const place *own = user;
    char text[200];
    int len = snprintf(text, sizeof text, "%s:%.*s", own->name,
                       (int)(rws_message_len(message) < 100 ? rws_message_len(message) : 100),
                       (const char *)rws_message_data(message));
    return rws_conn_send_text(conn, text, (size_t)len);
}

static void on_close(rws_conn *conn, const rws_close_info *info, void *user)
{
    place *own = user;
    (void)conn;
    cr_expect_eq(info->size, sizeof *info);
    atomic_fetch_add(&own->closed, 1);
}

static const rws_handler naming = {
    .size = sizeof(rws_handler),
    .on_open = on_open,
    .on_message = on_message,
    .on_close = on_close,
};

static rws_server *make(uint32_t shards, uint32_t off)
{
    rws_server *server;
    rws_error error;
    char features[TEST_FEATURES_BYTES];
    rws_runtime_options options = RWS_RUNTIME_OPTIONS_DEFAULT;
    rws__features_write(off, features, sizeof features);
    options.features_off = features;
    options.shards = shards;
    options.connections_max = 256;
    options.drain_timeout_ms = 2000;
    options.linger_timeout_ms = 500;
    cr_assert_eq(rws_server_create(&server, &options, &error), 0, "%s", error.text);
    return server;
}

static rws_endpoint_options endpoint_options(const char *path, place *user)
{
    rws_endpoint_options options = RWS_ENDPOINT_OPTIONS_DEFAULT;
    options.handler = &naming;
    options.user = user;
    options.path = path;
    options.close_timeout_ms = 500;
    return options;
}

static rws_endpoint *add(rws_server *server, const rws_endpoint_options *options)
{
    rws_endpoint *endpoint = NULL;
    rws_error error;
    cr_assert_eq(rws_server_add_endpoint(server, options, &endpoint, &error), 0, "%s", error.text);
    cr_assert_not_null(endpoint);
    return endpoint;
}

static rws_endpoint *add_place(rws_server *server, const char *path, place *user)
{
    rws_endpoint_options options = endpoint_options(path, user);
    return add(server, &options);
}

static void listen_with(rws_server *server, const rws_listener_options *options)
{
    rws_error error;
    cr_assert_eq(rws_server_listen(server, options, &error), 0, "%s", error.text);
}

static void listen_on_loopback(rws_server *server)
{
    rws_listener_options options = RWS_LISTENER_OPTIONS_DEFAULT;
    options.port = 0;
    listen_with(server, &options);
}

static void start(rws_server *server)
{
    rws_error error;
    cr_assert_eq(rws_server_start(server, &error), 0, "%s", error.text);
}

static void stop(rws_server *server)
{
    rws_server_stop(server);
    cr_expect_eq(rws_server_wait(server), 0);
    rws_server_destroy(server);
}

/* ---- clients ---- */

/* Ask for `target`; `lines` are more headers. Returns the answer's status; its head is in `head`.
 */
static int ask(raw_client *client, const char *target, const char *lines, char head[1024])
{
    char request[2048];
    snprintf(request, sizeof request,
             "GET %s HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s\r\n",
             target, lines);
    if (!raw_send_text(client, request)) return -1;
    return raw_read_head(client, head, 1024);
}

static int ask_port(raw_client *client, uint16_t port, const char *target, const char *lines)
{
    char head[1024];
    cr_assert(raw_connect(client, "127.0.0.1", port, 0));
    return ask(client, target, lines, head);
}

static void expect_text(raw_client *client, const char *text)
{
    raw_frame frame;
    cr_assert_eq(raw_read_frame(client, &frame), 1, "instead of \"%s\"", text);
    cr_expect(frame.first == RAW_TEXT && frame.len == strlen(text) &&
                  memcmp(frame.payload, text, frame.len) == 0,
              "%02x \"%.*s\" instead of \"%s\"", frame.first, (int)frame.len,
              (const char *)frame.payload, text);
}

/* The endpoint that serves it says its name. */
static void expect_name(raw_client *client, const char *name)
{
    char wanted[64];
    cr_assert(raw_send_frame(client, RAW_TEXT, "who", 3));
    snprintf(wanted, sizeof wanted, "%s:who", name);
    expect_text(client, wanted);
}

static void expect_served(raw_client *client, const char *target, const char *name)
{
    char head[1024];
    cr_assert_eq(ask(client, target, "", head), 101, "%s", target);
    expect_name(client, name);
    raw_close(client);
}

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

/* ---- listeners ---- */

Test(engine_endpoint, a_listener_serves_the_endpoints_that_it_names)
{
    EACH_FEATURES(off)
    {
        place chat = {.name = "chat"}, admin = {.name = "admin"}, two = {.name = "two"};
        rws_server *server = make(1, *off);
        rws_endpoint *for_all = add_place(server, "/", &chat);
        rws_endpoint *inside = add_place(server, "/admin", &admin);
        /* The same path again, for a listener of its own. */
        rws_endpoint *second = add_place(server, "/", &two);
        rws_endpoint *const outer[] = {for_all}, *const inner[] = {inside, second};
        rws_listener_options options = RWS_LISTENER_OPTIONS_DEFAULT;
        options.port = 0;
        options.endpoints = outer;
        options.endpoints_count = 1;
        listen_with(server, &options);
        options.endpoints = inner;
        options.endpoints_count = 2;
        listen_with(server, &options);
        start(server);
        static const struct {
            uint32_t listener;
            const char *target, *name;
        } rows[] = {{0, "/", "chat"}, {0, "/admin", NULL}, {1, "/", "two"}, {1, "/admin", "admin"}};
        for (size_t i = 0; i < COUNT(rows); i++) {
            raw_client client;
            int status =
                ask_port(&client, rws_server_port(server, rows[i].listener), rows[i].target, "");
            cr_expect_eq(status, rows[i].name != NULL ? 101 : 404, "row %zu", i);
            if (status == 101) expect_name(&client, rows[i].name);
            raw_close(&client);
        }
        stop(server);
    }
}

Test(engine_endpoint, a_listener_names_only_what_it_could_serve)
{
    place any = {.name = "any"};
    rws_server *server = make(1, 0), *other = make(1, 0);
    rws_endpoint_options client = endpoint_options(NULL, &any);
    client.role = RWS_CLIENT;
    rws_endpoint *good = add_place(server, "/", &any), *dials = add(server, &client);
    rws_endpoint *strange = add_place(other, "/", &any);
    rws_endpoint *const null[] = {good, NULL}, *const wrong_role[] = {dials};
    rws_endpoint *const strangers[] = {good, good, strange};
    const struct {
        rws_endpoint *const *list;
        uint32_t count;
        const char *text;
    } rows[] = {
        {NULL, 1, "endpoints is NULL"}, {null, 0, "endpoints_count is 0"},
        {null, 2, "endpoints[1]"},      {wrong_role, 1, "endpoints[0]"},
        {strangers, 3, "endpoints[2]"},
    };
    size_t files = test_open_files();
    for (size_t i = 0; i < COUNT(rows); i++) {
        rws_error error = {0};
        rws_listener_options options = RWS_LISTENER_OPTIONS_DEFAULT;
        options.port = 0;
        options.endpoints = rows[i].list;
        options.endpoints_count = rows[i].count;
        cr_expect_eq(rws_server_listen(server, &options, &error), RWS_E_OPTION, "row %zu", i);
        cr_expect_not_null(strstr(error.text, rows[i].text), "row %zu: %s", i, error.text);
    }
    cr_expect_eq(test_open_files(), files);
    cr_expect_eq(rws_server_port(server, 0), 0);
    rws_server_destroy(server);
    rws_server_destroy(other);
}

static int socket_of(int family)
{
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_geq(fd, 0);
    return fd;
}

/* A listening socket as a supervisor would make it. */
static int listen_by_hand(uint16_t *port)
{
    int fd = socket_of(AF_INET);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, len), 0);
    cr_assert_eq(listen(fd, 64), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

static int listen_unix_by_hand(const char *path)
{
    int fd = socket_of(AF_UNIX);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, path, strlen(path) + 1);
    (void)unlink(path);
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    cr_assert_eq(listen(fd, 64), 0);
    return fd;
}

/* A path of this process. */
static void make_path(char path[64], const char *name)
{
    snprintf(path, 64, "/tmp/ringws-endpoint-%s-%d.sock", name, (int)getpid());
}

static bool ipv6_is_here(void)
{
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    bool good = bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
    close(fd);
    return good;
}

enum { IPV4, IPV6, UNIX, INHERITED, INHERITED_UNIX, LISTENERS };

typedef struct spot {
    char path[64];
    uint16_t port;
} spot;

static bool reach(raw_client *client, const spot *where, int kind)
{
    if (kind == UNIX || kind == INHERITED_UNIX) return raw_connect_unix(client, where->path);
    return raw_connect(client, kind == IPV6 ? "::1" : "127.0.0.1", where->port, 0);
}

/* Every kind of listener at once, the i-th with i + 1 hundred ms for a handshake and (i + 1) * 400
 * bytes for its head. */
static rws_server *serve_everywhere(uint32_t shards, uint32_t off, place *user, spot spots[])
{
    rws_server *server = make(shards, off);
    add_place(server, NULL, user);
    for (int i = 0; i < LISTENERS; i++) {
        rws_listener_options options = RWS_LISTENER_OPTIONS_DEFAULT;
        uint16_t port = 0;
        spots[i] = (spot){0};
        options.port = 0;
        options.handshake_timeout_ms = (uint32_t)(i + 1) * 100;
        options.handshake_bytes_max = (size_t)(i + 1) * 400;
        if (i == IPV6 && ipv6_is_here()) options.address = "::1";
        if (i == UNIX || i == INHERITED_UNIX)
            make_path(spots[i].path, i == UNIX ? "own" : "inherited");
        if (i == UNIX) options.unix_path = spots[i].path;
        if (i == INHERITED) options.fd = listen_by_hand(&port);
        if (i == INHERITED_UNIX) options.fd = listen_unix_by_hand(spots[i].path);
        listen_with(server, &options);
        spots[i].port = rws_server_port(server, (uint32_t)i);
        if (i == INHERITED) cr_expect_eq(spots[i].port, port, "it is read back");
        cr_expect_eq(spots[i].port == 0, i == UNIX || i == INHERITED_UNIX, "listener %d", i);
    }
    cr_expect_eq(rws_server_port(server, LISTENERS), 0);
    cr_expect_eq(rws_server_port(server, UINT32_MAX), 0);
    start(server);
    return server;
}

static int address_of(int kind)
{
    return kind == IPV6 && !ipv6_is_here() ? IPV4 : kind;
}

Test(engine_endpoint, a_server_listens_in_several_places_at_once)
{
    EACH_FEATURES(off)
    {
        place any = {.name = "any"};
        spot spots[LISTENERS];
        rws_server *server = serve_everywhere(1, *off, &any, spots);
        for (int round = 0; round < 3; round++)
            for (int i = 0; i < LISTENERS; i++) {
                raw_client client;
                cr_assert(reach(&client, &spots[i], address_of(i)), "listener %d", i);
                expect_served(&client, "/", "any");
            }
        cr_expect_eq(any.unknown_peers, 0);
        stop(server);
        cr_expect_eq(any.closed, any.opened);
        /* All are closed, and of the files the inherited one is left. */
        for (int i = 0; i < LISTENERS; i++) {
            raw_client client;
            cr_expect_not(reach(&client, &spots[i], address_of(i)), "listener %d", i);
        }
        cr_expect_neq(access(spots[UNIX].path, F_OK), 0);
        cr_expect_eq(access(spots[INHERITED_UNIX].path, F_OK), 0);
        (void)unlink(spots[INHERITED_UNIX].path);
    }
}

Test(engine_endpoint, listeners_have_handshake_limits_of_their_own)
{
    EACH_FEATURES(off)
    {
        place any = {.name = "any"};
        spot spots[LISTENERS];
        char lines[2048] = "", head[1024];
        rws_server *server = serve_everywhere(1, *off, &any, spots);
        for (int i = 0; i < LISTENERS; i++) {
            raw_client client;
            size_t bytes_max = (size_t)(i + 1) * 400;
            cr_assert(reach(&client, &spots[i], address_of(i)));
            uint64_t begin = test_now_ms();
            cr_expect(raw_read_end(&client));
            uint64_t took = test_now_ms() - begin, timeout = (uint64_t)(i + 1) * 100;
            cr_expect(took + 50 >= timeout && took < timeout + 2000, "listener %d: %llu ms", i,
                      (unsigned long long)took);
            raw_close(&client);
            for (int over = 0; over < 2; over++) {
                memset(lines, 'x', sizeof lines);
                memcpy(lines, "X: ", 3);
                memcpy(lines + bytes_max - (over ? 0 : 200), "\r\n", 3);
                cr_assert(reach(&client, &spots[i], address_of(i)));
                cr_expect_eq(ask(&client, "/", lines, head), over ? 431 : 101, "listener %d", i);
                raw_close(&client);
            }
        }
        stop(server);
        (void)unlink(spots[INHERITED_UNIX].path);
    }
}

/* In a drain all of them stop, and what is open anywhere is closed with 1001. */
Test(engine_endpoint, a_drain_ends_all_listeners)
{
    EACH_FEATURES(off)
    {
        place any = {.name = "any"};
        spot spots[LISTENERS];
        raw_client clients[LISTENERS * 6];
        rws_server *server = serve_everywhere(3, *off, &any, spots);
        for (int i = 0; i < LISTENERS * 6; i++) {
            char head[1024];
            cr_assert(reach(&clients[i], &spots[i % LISTENERS], address_of(i % LISTENERS)));
            cr_assert_eq(ask(&clients[i], "/", "", head), 101);
        }
        rws_server_stop(server);
        for (int i = 0; i < LISTENERS * 6; i++) {
            cr_expect_eq(raw_read_close(&clients[i]), 1001, "connection %d", i);
            cr_expect(raw_send_frame(&clients[i], RAW_CLOSE, "\x03\xE9", 2));
            cr_expect(raw_read_end(&clients[i]));
            raw_close(&clients[i]);
        }
        cr_expect_eq(rws_server_wait(server), 0);
        rws_server_destroy(server);
        cr_expect_eq(any.closed, LISTENERS * 6);
        (void)unlink(spots[INHERITED_UNIX].path);
    }
}

Test(engine_endpoint, sixteen_listeners_and_no_more)
{
    place any = {.name = "any"};
    rws_server *server = make(2, 0);
    rws_error error = {0};
    add_place(server, NULL, &any);
    for (int i = 0; i < 16; i++)
        listen_on_loopback(server);
    cr_expect_eq(rws_server_listen(server, NULL, &error), RWS_E_STATE);
    cr_expect_not_null(strstr(error.text, "16"), "%s", error.text);
    start(server);
    for (int round = 0; round < 3; round++)
        for (uint32_t i = 0; i < 16; i++) {
            raw_client client;
            cr_assert(raw_connect(&client, "127.0.0.1", rws_server_port(server, i), 0));
            expect_served(&client, "/", "any");
        }
    stop(server);
}

/* ---- one socket for all shards ---- */

Test(engine_endpoint, one_socket_serves_all_shards)
{
    static const int kinds[] = {UNIX, INHERITED, INHERITED_UNIX};
    EACH_FEATURES(off)
    {
        place any = {.name = "any"};
        spot spots[LISTENERS];
        rws_server *server = serve_everywhere(3, *off, &any, spots);
        for (size_t k = 0; k < COUNT(kinds); k++) {
            atomic_store(&any.shards_seen, 0);
            atomic_store(&any.peer_families, 0);
            for (int i = 0; i < 9; i++) {
                raw_client client;
                cr_assert(reach(&client, &spots[kinds[k]], kinds[k]));
                expect_served(&client, "/", "any");
            }
            cr_expect_eq(any.shards_seen, 7, "listener %d: shards %llx", kinds[k],
                         (unsigned long long)any.shards_seen);
            int family = kinds[k] == INHERITED ? AF_INET : AF_UNIX;
            cr_expect_eq(any.peer_families, (uint64_t)1 << family, "listener %d", kinds[k]);
        }
        cr_expect_eq(any.unknown_peers, 0, "features off %x", *off);
        stop(server);
        (void)unlink(spots[INHERITED_UNIX].path);
    }
}

/* ---- sockets that somebody else opened ---- */

static int listen_to(rws_server *server, int fd, rws_error *error)
{
    rws_listener_options options = RWS_LISTENER_OPTIONS_DEFAULT;
    options.fd = fd;
    return rws_server_listen(server, &options, error);
}

Test(engine_endpoint, an_inherited_socket_has_to_listen)
{
    place any = {.name = "any"};
    rws_server *server = make(1, 0);
    add_place(server, NULL, &any);
    int deaf = socket_of(AF_INET), file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int datagram = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const struct {
        int fd, status;
    } rows[] = {{deaf, -EINVAL}, {file, -ENOTSOCK}, {datagram, -EINVAL}, {100000, -EBADF}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        rws_error error = {0};
        cr_expect_eq(listen_to(server, rows[i].fd, &error), rows[i].status, "row %zu", i);
        cr_expect_not_null(strstr(error.text, "listens"), "%s", error.text);
        if (rows[i].fd < 100000) cr_expect_geq(fcntl(rows[i].fd, F_GETFD), 0, "it is not taken");
    }
    /* Nor is one that listens, if another option is wrong. */
    uint16_t port;
    int good = listen_by_hand(&port);
    rws_error error;
    rws_listener_options options = RWS_LISTENER_OPTIONS_DEFAULT;
    options.fd = good;
    options.endpoints_count = 1;
    cr_expect_eq(rws_server_listen(server, &options, &error), RWS_E_OPTION);
    cr_expect_geq(fcntl(good, F_GETFD), 0);
    cr_expect_eq(listen_to(server, good, &error), 0);
    rws_server_destroy(server); /* never started: it is taken all the same */
    cr_expect_lt(fcntl(good, F_GETFD), 0);
    close(deaf);
    close(file);
    close(datagram);
}

static int get_int(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof value;
    cr_assert_eq(getsockopt(fd, level, name, &value, &len), 0);
    return value;
}

/* Accepted sockets inherit what is set on the one that listens. */
Test(engine_endpoint, an_inherited_socket_gets_the_listeners_options)
{
    place any = {.name = "any"};
    rws_server *server = make(1, 0);
    add_place(server, NULL, &any);
    uint16_t port;
    int fd = listen_by_hand(&port), ours = dup(fd);
    rws_error error;
    rws_listener_options options = RWS_LISTENER_OPTIONS_DEFAULT;
    options.fd = fd;
    options.keepalive_s = 77;
    options.user_timeout_ms = 31000;
    cr_assert_eq(rws_server_listen(server, &options, &error), 0, "%s", error.text);
    cr_expect_eq(get_int(ours, IPPROTO_TCP, TCP_NODELAY), 1);
    cr_expect_eq(get_int(ours, SOL_SOCKET, SO_KEEPALIVE), 1);
    cr_expect_eq(get_int(ours, IPPROTO_TCP, TCP_KEEPIDLE), 77);
    cr_expect_eq(get_int(ours, IPPROTO_TCP, TCP_USER_TIMEOUT), 31000);
    rws_server_destroy(server);
    close(ours);
}

/* The kernel does not wait on a socket that is not blocking, so the loop would spin. */
Test(engine_endpoint, an_inherited_socket_that_does_not_block_costs_nothing_idle)
{
    EACH_FEATURES(off)
    {
        place any = {.name = "any"};
        rws_server *server = make(2, *off);
        add_place(server, NULL, &any);
        uint16_t port;
        rws_error error;
        int fd = listen_by_hand(&port);
        cr_assert_eq(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK), 0);
        cr_assert_eq(listen_to(server, fd, &error), 0, "%s", error.text);
        start(server);
        raw_client client;
        cr_assert(raw_connect(&client, "127.0.0.1", port, 0));
        expect_served(&client, "/", "any");
        rws_stats stats = {.size = sizeof stats};
        test_sleep_ms(100);
        rws_server_stats(server, &stats);
        uint64_t before = stats.ring_enters;
        test_sleep_ms(300);
        rws_server_stats(server, &stats);
        cr_expect_leq(stats.ring_enters - before, 10);
        stop(server);
    }
}

/* A supervisor goes on holding it: who connects between two servers is served by the second. */
Test(engine_endpoint, what_waits_in_an_inherited_socket_is_the_next_servers)
{
    EACH_FEATURES(off)
    {
        place any = {.name = "any"};
        uint16_t port;
        rws_error error;
        int ours = listen_by_hand(&port);
        raw_client between[8];
        for (int round = 0; round < 2; round++) {
            rws_server *server = make(2, *off);
            add_place(server, NULL, &any);
            cr_assert_eq(listen_to(server, dup(ours), &error), 0, "%s", error.text);
            start(server);
            for (size_t i = 0; round == 1 && i < COUNT(between); i++)
                expect_served(&between[i], "/", "any");
            raw_client client;
            cr_assert(raw_connect(&client, "127.0.0.1", port, 0));
            expect_served(&client, "/", "any");
            stop(server);
            cr_expect_eq(fcntl(ours, F_GETFL) & O_NONBLOCK, 0, "its flags are as they were");
            for (size_t i = 0; round == 0 && i < COUNT(between); i++)
                cr_assert(raw_connect(&between[i], "127.0.0.1", port, 0));
        }
        close(ours);
    }
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
