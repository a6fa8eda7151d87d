/*
 * Dials against real sockets: what the request carries and what it can't be made to carry, the
 * shard, the deadline, dials that are given up at every stage, and the sentences of those that
 * can't be made.
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/engine_checks.h"
#include "support/engine_server.h"
#include "support/raw_client.h"
#include "support/test_allocator.h"

TestSuite(engine_dial, .timeout = 60);

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* ---- the program that dials ---- */

/* What became of dials; `dial_user` points to one of these. */
typedef struct outcome {
    _Atomic uint64_t opened, closed, failed, answers;
    uint64_t taken; /* dials, where a test counts them */
    _Atomic int status;
    _Atomic uint32_t shard;
    char text[256], subprotocol[64];
} outcome;

static void on_open(rws_conn *conn, void *user)
{
    outcome *own = rws_conn_user(conn);
    rws_span name = rws_conn_subprotocol(conn);
    (void)user;
    snprintf(own->subprotocol, sizeof own->subprotocol, "%.*s", (int)name.len, name.data);
    atomic_store(&own->shard, rws_conn_shard(conn));
    atomic_fetch_add(&own->opened, 1);
    (void)rws_conn_send_text(conn, "hello", 5);
}

static int on_message(rws_conn *conn, const rws_message *message, void *user)
{
    outcome *own = rws_conn_user(conn);
    (void)message;
    (void)user;
    atomic_fetch_add(&own->answers, 1);
    return 0;
}

static void on_close(rws_conn *conn, const rws_close_info *info, void *user)
{
    outcome *own = rws_conn_user(conn);
    (void)info;
    (void)user;
    atomic_fetch_add(&own->closed, 1);
}

static void on_dial_error(const rws_error *error, void *dial_user, void *user)
{
    outcome *own = dial_user;
    (void)user;
    snprintf(own->text, sizeof own->text, "%s", error->text);
    atomic_store(&own->status, error->status);
    atomic_fetch_add(&own->failed, 1);
}

static const rws_handler dialling = {
    .size = sizeof(rws_handler),
    .on_open = on_open,
    .on_message = on_message,
    .on_close = on_close,
    .on_dial_error = on_dial_error,
};

static rws_client *make(uint32_t shards, uint32_t off, const char *const *subprotocols,
                        uint32_t subprotocols_count)
{
    rws_client *client;
    rws_error error;
    char features[TEST_FEATURES_BYTES];
    rws_runtime_options options = RWS_RUNTIME_OPTIONS_DEFAULT;
    rws__features_write(off, features, sizeof features);
    options.features_off = features;
    options.shards = shards;
    options.connections_max = 64;
    options.linger_timeout_ms = 300;
    rws_endpoint_options endpoint = RWS_ENDPOINT_OPTIONS_DEFAULT;
    endpoint.handler = &dialling;
    endpoint.close_timeout_ms = 300;
    endpoint.subprotocols = subprotocols;
    endpoint.subprotocols_count = subprotocols_count;
    cr_assert_eq(rws_client_create(&client, &options, &endpoint, &error), 0, "%s", error.text);
    return client;
}

static void start(rws_client *client)
{
    rws_error error;
    cr_assert_eq(rws_client_start(client, &error), 0, "%s", error.text);
}

static void finish(rws_client *client)
{
    rws_client_stop(client);
    int res = rws_client_wait(client);
    cr_expect(res == 0, "%d", res);
    rws_client_destroy(client);
}

static rws_dial_options dial_options(outcome *user)
{
    rws_dial_options options = RWS_DIAL_OPTIONS_DEFAULT;
    options.user = user;
    return options;
}

/* ---- a server that shows what it was asked ---- */

static int listen_by_hand(uint16_t *port, int backlog)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, len), 0);
    cr_assert_eq(listen(fd, backlog), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

static bool comes_in(int listener, int ms)
{
    struct pollfd poller = {.fd = listener, .events = POLLIN};
    return poll(&poller, 1, ms) == 1;
}

/* The next request's head. Returns the connection. */
static int read_request(int listener, char *head, size_t size)
{
    size_t len = 0;
    cr_assert(comes_in(listener, RAW_TIMEOUT_MS), "nobody connects");
    int fd = accept(listener, NULL, NULL);
    cr_assert_geq(fd, 0);
    head[0] = '\0';
    while (strstr(head, "\r\n\r\n") == NULL && len + 1 < size) {
        ssize_t got = recv(fd, head + len, size - 1 - len, 0);
        cr_assert_gt(got, 0);
        len += (size_t)got;
        head[len] = '\0';
    }
    return fd;
}

static void make_url(char url[64], uint16_t port)
{
    snprintf(url, 64, "ws://127.0.0.1:%u/chat?x=1", port);
}

/* ---- what the request carries ---- */

static const char *const own_list[] = {"v2", "v1"};

typedef struct request_case {
    const char *origin, *subprotocols;
    rws_header headers[3];
    uint32_t headers_count;
    const char *lines[3]; /* in the request */
    const char *none;     /* a text that is not */
} request_case;

static const request_case request_cases[] = {
    {NULL, NULL, {{NULL, NULL}}, 0, {"\r\nSec-WebSocket-Protocol: v2, v1\r\n"}, "Origin"},
    {NULL, "", {{NULL, NULL}}, 0, {"GET /chat?x=1 HTTP/1.1\r\n"}, "Sec-WebSocket-Protocol"},
    {NULL, "a, b", {{NULL, NULL}}, 0, {"\r\nSec-WebSocket-Protocol: a, b\r\n"}, " v2"},
    {"https://me.example", "x", {{NULL, NULL}}, 0, {"\r\nOrigin: https://me.example\r\n"}, " v2"},
    {NULL,
     "x",
     {{"Authorization", "Bearer abc"}, {"Cookie", "a=b; c=d"}, {"X-Empty", ""}},
     3,
     {"\r\nAuthorization: Bearer abc\r\n", "\r\nCookie: a=b; c=d\r\n", "\r\nX-Empty: \r\n"},
     "Origin"},
};

/* Strings are copied: the dial waits for the start, and the caller's memory changes before it. */
Test(engine_dial, carries_what_its_options_say)
{
    EACH_FEATURES(off)
    {
        for (size_t i = 0; i < COUNT(request_cases); i++) {
            const request_case *row = &request_cases[i];
            uint16_t port;
            char url[64], head[8192], strings[8][64];
            outcome end = {0};
            rws_error error = {0};
            int listener = listen_by_hand(&port, 8);
            rws_client *client = make(1, *off, own_list, 2);
            rws_header headers[3];
            rws_dial_options options = dial_options(&end);
            make_url(url, port);
            memset(strings, 0, sizeof strings);
            for (uint32_t n = 0; n < row->headers_count; n++) {
                snprintf(strings[2 * n], 64, "%s", row->headers[n].name);
                snprintf(strings[2 * n + 1], 64, "%s", row->headers[n].value);
                headers[n] = (rws_header){strings[2 * n], strings[2 * n + 1]};
            }
            options.headers = headers;
            options.headers_count = row->headers_count;
            if (row->origin != NULL)
                options.origin = memcpy(strings[6], row->origin, strlen(row->origin));
            if (row->subprotocols != NULL)
                options.subprotocols =
                    memcpy(strings[7], row->subprotocols, strlen(row->subprotocols));
            cr_assert_eq(rws_client_dial(client, url, &options, NULL, &error), 0, "%s", error.text);
            memset(strings, 'z', sizeof strings);
            memset(url, 'z', sizeof url);
            start(client);
            int fd = read_request(listener, head, sizeof head);
            for (size_t n = 0; n < COUNT(row->lines) && row->lines[n] != NULL; n++)
                cr_expect_not_null(strstr(head, row->lines[n]), "row %zu: %s", i, head);
            cr_expect_null(strstr(head, row->none), "row %zu: %s", i, head);
            cr_expect_null(strstr(head, "zzzz"), "row %zu: %s", i, head);
            close(fd);
            cr_assert(engine_server_await(&end.failed, 1));
            cr_expect_eq(end.status, RWS_E_CLOSED);
            finish(client);
            close(listener);
            cr_expect_eq(end.failed, 1);
            cr_expect_eq(end.opened, 0);
        }
    }
}

/* ---- what it can't carry ---- */

Test(engine_dial, lets_nothing_be_injected)
{
    static const struct {
        const char *target, *origin, *subprotocols, *name, *value;
        int status;
    } rows[] = {
        {"/", NULL, NULL, "X-A", "b\r\nX-Evil: 1", RWS_E_ARGUMENT},
        {"/", NULL, NULL, "X-A", "b\nX-Evil: 1", RWS_E_ARGUMENT},
        {"/", NULL, NULL, "X-A", "b\r", RWS_E_ARGUMENT},
        {"/", NULL, NULL, "X-A", "\x01", RWS_E_ARGUMENT},
        {"/", NULL, NULL, "X-A", "\x7f", RWS_E_ARGUMENT},
        {"/", NULL, NULL, "X-A\r\nX-Evil", "1", RWS_E_ARGUMENT},
        {"/", NULL, NULL, "X A", "1", RWS_E_ARGUMENT},
        {"/", NULL, NULL, "X-A:", "1", RWS_E_ARGUMENT},
        {"/", NULL, NULL, "", "1", RWS_E_ARGUMENT},
        {"/", NULL, NULL, NULL, "1", RWS_E_ARGUMENT},
        {"/", NULL, NULL, "X-A", NULL, RWS_E_ARGUMENT},
        {"/", NULL, NULL, "Host", "evil.example", RWS_E_ARGUMENT},
        {"/", NULL, NULL, "sec-websocket-key", "x", RWS_E_ARGUMENT},
        {"/", NULL, NULL, "Sec-WebSocket-Version", "8", RWS_E_ARGUMENT},
        {"/", NULL, NULL, "Sec-WebSocket-Protocol", "x", RWS_E_ARGUMENT},
        {"/", NULL, NULL, "Sec-WebSocket-Extensions", "x", RWS_E_ARGUMENT},
        {"/", NULL, NULL, "Upgrade", "h2c", RWS_E_ARGUMENT},
        {"/", NULL, NULL, "Connection", "close", RWS_E_ARGUMENT},
        {"/", NULL, NULL, "Content-Length", "5", RWS_E_ARGUMENT},
        {"/", NULL, NULL, "Transfer-Encoding", "chunked", RWS_E_ARGUMENT},
        {"/", "a\r\nX-Evil: 1", NULL, NULL, NULL, RWS_E_ARGUMENT},
        {"/", "a b", NULL, NULL, NULL, RWS_E_ARGUMENT},
        {"/", NULL, "a\r\nX-Evil: 1", NULL, NULL, RWS_E_ARGUMENT},
        {"/", NULL, "a b", NULL, NULL, RWS_E_ARGUMENT},
        {"/", NULL, "a, a", NULL, NULL, RWS_E_ARGUMENT},
        {"/a b", NULL, NULL, NULL, NULL, RWS_E_URL},
        {"/\r\nX: y", NULL, NULL, NULL, NULL, RWS_E_URL},
    };
    uint16_t port;
    int listener = listen_by_hand(&port, 8);
    outcome end = {0};
    rws_client *client = make(1, 0, own_list, 2);
    start(client);
    for (size_t i = 0; i < COUNT(rows); i++) {
        char url[64];
        rws_error error = {0};
        uint64_t id = 77;
        rws_dial_options options = dial_options(&end);
        rws_header header = {rows[i].name, rows[i].value};
        snprintf(url, sizeof url, "ws://127.0.0.1:%u%s", port, rows[i].target);
        options.origin = rows[i].origin;
        options.subprotocols = rows[i].subprotocols;
        options.headers = &header;
        options.headers_count = rows[i].name != NULL || rows[i].value != NULL;
        int res = rws_client_dial(client, url, &options, &id, &error);
        cr_expect_eq(res, rows[i].status, "row %zu: %d", i, res);
        cr_expect_eq(error.status, rows[i].status, "row %zu", i);
        cr_expect_gt(strlen(error.text), 20, "row %zu: %s", i, error.text);
        cr_expect_eq(id, 77, "there is nothing to cancel");
    }
    cr_expect_not(comes_in(listener, 50));
    finish(client);
    close(listener);
    cr_expect_eq(end.failed, 0);
}

Test(engine_dial, bounds_the_headers_that_are_added)
{
    static char values[2][5000];
    static const struct {
        size_t bytes; /* of both lines */
        bool good;
    } rows[] = {{100, true}, {4095, true}, {4096, true}, {4097, false}, {9000, false}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        uint16_t port;
        char url[64], head[16384];
        outcome end = {0};
        rws_error error = {0};
        int listener = listen_by_hand(&port, 8);
        rws_client *client = make(1, 0, NULL, 0);
        /* "x: " and CRLF are 5 bytes. */
        rws_header headers[] = {{"x", values[0]}, {"y", values[1]}};
        rws_dial_options options = dial_options(&end);
        size_t first = rows[i].bytes / 2, second = rows[i].bytes - first;
        memset(values, 0, sizeof values);
        memset(values[0], 'v', first - 5);
        memset(values[1], 'v', second - 5);
        options.headers = headers;
        options.headers_count = 2;
        make_url(url, port);
        int res = rws_client_dial(client, url, &options, NULL, &error);
        cr_expect_eq(res, rows[i].good ? 0 : RWS_E_ARGUMENT, "%zu bytes: %d", rows[i].bytes, res);
        start(client);
        if (rows[i].good) {
            int fd = read_request(listener, head, sizeof head);
            cr_expect_not_null(strstr(head, values[1]), "%zu bytes", rows[i].bytes);
            close(fd);
            cr_assert(engine_server_await(&end.failed, 1));
        }
        finish(client);
        close(listener);
        cr_expect_eq(end.failed, rows[i].good);
    }
}

/* A list that would not fit the request is refused, not cut. */
Test(engine_dial, offers_the_whole_list_or_none)
{
    static char names[300][40];
    static const char *list[300];
    static const struct {
        uint32_t count;
        bool good;
    } rows[] = {{60, true}, {190, true}, {300, false}};
    for (uint32_t i = 0; i < COUNT(list); i++) {
        snprintf(names[i], sizeof names[i], "subprotocol-number-%03u.example.org", i);
        list[i] = names[i];
    }
    for (size_t i = 0; i < COUNT(rows); i++) {
        uint16_t port;
        char url[64], head[16384];
        outcome end = {0};
        rws_error error = {0};
        int listener = listen_by_hand(&port, 8);
        rws_client *client = make(1, 0, list, rows[i].count);
        rws_dial_options options = dial_options(&end);
        make_url(url, port);
        start(client);
        int res = rws_client_dial(client, url, &options, NULL, &error);
        cr_expect_eq(res, rows[i].good ? 0 : RWS_E_ARGUMENT, "%u names: %d", rows[i].count, res);
        if (rows[i].good) {
            int fd = read_request(listener, head, sizeof head);
            for (uint32_t n = 0; n < rows[i].count; n++)
                cr_expect_not_null(strstr(head, names[n]), "%s of %u", names[n], rows[i].count);
            close(fd);
            cr_assert(engine_server_await(&end.failed, 1));
        }
        finish(client);
        close(listener);
    }
}

/* ---- sentences ---- */

Test(engine_dial, says_what_is_wrong_with_a_url)
{
    static const struct {
        const char *url;
        int status;
        const char *text;
    } rows[] = {
        {"http://127.0.0.1/", RWS_E_URL, "http://127.0.0.1/"},
        {"wss://127.0.0.1/", RWS_E_URL, "wss://127.0.0.1/"},
        {"127.0.0.1:80", RWS_E_URL, "127.0.0.1:80"},
        {"", RWS_E_URL, "ws://HOST"},
        {"ws://", RWS_E_URL, "ws://HOST"},
        {"ws://host:0/", RWS_E_URL, "host:0"},
        {"ws://host:65536/", RWS_E_URL, "host:65536"},
        {"ws://host:x/", RWS_E_URL, "host:x"},
        {"ws://user@host/", RWS_E_URL, "user@host"},
        {"ws://no-such-host.invalid/", RWS_E_ADDRESS, "no-such-host.invalid"},
        {NULL, RWS_E_ARGUMENT, "a URL"},
    };
    outcome end = {0};
    rws_client *client = make(1, 0, NULL, 0);
    for (size_t i = 0; i < COUNT(rows); i++) {
        rws_error error = {0};
        rws_dial_options options = dial_options(&end);
        int res = rws_client_dial(client, rows[i].url, &options, NULL, &error);
        cr_expect_eq(res, rows[i].status, "%s: %d", rows[i].url, res);
        cr_expect_eq(error.status, res);
        cr_expect_not_null(strstr(error.text, rows[i].text), "%s: \"%s\"", rows[i].url, error.text);
        cr_expect_eq(rws_client_dial(client, rows[i].url, NULL, NULL, NULL), res);
    }
    start(client);
    rws_client_stop(client);
    cr_expect_eq(rws_client_wait(client), 0);
    rws_error error = {0};
    cr_expect_eq(rws_client_dial(client, "ws://127.0.0.1:9/", NULL, NULL, &error), RWS_E_STATE);
    cr_expect_not_null(strstr(error.text, "stopped"), "%s", error.text);
    cr_expect_eq(rws_client_cancel(client, 1), RWS_E_STATE);
    rws_client_destroy(client);
    cr_expect_eq(end.failed, 0);
}

Test(engine_dial, a_server_dials_with_its_own_endpoints_for_clients)
{
    rws_error error = {0};
    rws_server *server, *other;
    rws_runtime_options runtime = RWS_RUNTIME_OPTIONS_DEFAULT;
    rws_endpoint_options options = RWS_ENDPOINT_OPTIONS_DEFAULT;
    rws_endpoint *serves, *strange;
    runtime.shards = 1;
    options.handler = &dialling;
    cr_assert_eq(rws_server_create(&server, &runtime, &error), 0, "%s", error.text);
    cr_assert_eq(rws_server_create(&other, &runtime, &error), 0, "%s", error.text);
    cr_assert_eq(rws_server_add_endpoint(server, &options, &serves, &error), 0);
    options.role = RWS_CLIENT;
    cr_assert_eq(rws_server_add_endpoint(other, &options, &strange, &error), 0);
    const rws_endpoint *const rows[] = {NULL, serves, strange};
    for (size_t i = 0; i < COUNT(rows); i++) {
        error = (rws_error){0};
        cr_expect_eq(rws_server_dial(server, rows[i], "ws://127.0.0.1:9/", NULL, NULL, &error),
                     RWS_E_ARGUMENT, "row %zu", i);
        cr_expect_not_null(strstr(error.text, "RWS_CLIENT"), "%s", error.text);
    }
    rws_server_destroy(server);
    rws_server_destroy(other);
}

/* ---- shards, the deadline ---- */

Test(engine_dial, lives_on_the_shard_that_was_chosen)
{
    EACH_FEATURES(off)
    {
        engine_server server;
        char url[64];
        outcome ends[12];
        memset(ends, 0, sizeof ends);
        cr_assert_eq(engine_server_start(&server, NULL, NULL), 0);
        rws_client *client = make(4, *off, NULL, 0);
        make_url(url, server.port);
        start(client);
        uint32_t seen = 0;
        for (uint32_t i = 0; i < COUNT(ends); i++) {
            rws_dial_options options = dial_options(&ends[i]);
            uint64_t id = 0;
            if (i < 8) options.shard = 3 - i % 4; /* the others in turn */
            cr_assert_eq(rws_client_dial(client, url, &options, &id, NULL), 0);
            cr_expect_neq(id, 0);
            cr_assert(engine_server_await(&ends[i].answers, 1));
            if (i < 8)
                cr_expect_eq(ends[i].shard, 3 - i % 4);
            else
                seen |= 1u << ends[i].shard;
        }
        cr_expect_eq(seen, 15);
        finish(client);
        cr_expect_eq(engine_server_stop(&server), 0);
        for (uint32_t i = 0; i < COUNT(ends); i++)
            cr_expect(ends[i].opened == 1 && ends[i].closed == 1 && ends[i].failed == 0);
    }
}

Test(engine_dial, has_a_deadline_from_the_dial_to_the_answer)
{
    EACH_FEATURES(off)
    {
        uint16_t port;
        char url[64], head[4096];
        outcome end = {0};
        int listener = listen_by_hand(&port, 8);
        rws_client *client = make(1, *off, NULL, 0);
        rws_dial_options options = dial_options(&end);
        options.timeout_ms = 200;
        make_url(url, port);
        start(client);
        uint64_t begin = test_now_ms();
        cr_assert_eq(rws_client_dial(client, url, &options, NULL, NULL), 0);
        int fd = read_request(listener, head, sizeof head);
        cr_assert(engine_server_await(&end.failed, 1));
        uint64_t took = test_now_ms() - begin;
        cr_expect(took >= 190 && took < 2000, "%llu ms", (unsigned long long)took);
        cr_expect_eq(end.status, RWS_E_TIMEOUT);
        close(fd);
        close(listener);
        finish(client);
        cr_expect_eq(end.failed, 1);
    }
}

/* ---- given up ---- */

/* A port that takes no more connections, so that a dial stays on its way. */
static int listen_full(uint16_t *port, int fillers[4])
{
    int listener = listen_by_hand(port, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    address.sin_port = htons(*port);
    for (int i = 0; i < 4; i++) {
        fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        (void)connect(fillers[i], (struct sockaddr *)&address, sizeof address);
    }
    return listener;
}

typedef enum stage { NOT_STARTED, CONNECTING, WAITING, STAGES } stage;

Test(engine_dial, reports_a_dial_that_is_given_up_once)
{
    static const char *const names[] = {"not started", "connecting", "waiting for the answer"};
    EACH_FEATURES(off)
    {
        for (int at = 0; at < STAGES; at++) {
            uint16_t port;
            uint64_t id = 0;
            char url[64], head[4096];
            int fillers[4] = {-1, -1, -1, -1}, fd = -1;
            outcome end = {0};
            int listener =
                at == CONNECTING ? listen_full(&port, fillers) : listen_by_hand(&port, 8);
            rws_client *client = make(2, *off, NULL, 0);
            rws_dial_options options = dial_options(&end);
            options.timeout_ms = 15000;
            make_url(url, port);
            if (at != NOT_STARTED) start(client);
            cr_assert_eq(rws_client_dial(client, url, &options, &id, NULL), 0);
            if (at == CONNECTING) test_sleep_ms(50);
            if (at == WAITING) fd = read_request(listener, head, sizeof head);
            cr_expect_eq(end.failed, 0, "%s", names[at]);
            for (int again = 0; again < 2; again++)
                cr_expect_eq(rws_client_cancel(client, id), 0, "%s", names[at]);
            if (at == NOT_STARTED) start(client);
            cr_assert(engine_server_await(&end.failed, 1), "%s", names[at]);
            cr_expect_eq(end.status, RWS_E_ABORTED, "%s: %d", names[at], end.status);
            cr_expect_not_null(strstr(end.text, "cancelled"), "%s", end.text);
            cr_expect_eq(rws_client_cancel(client, id), 0);
            /* The transport is gone. */
            if (at == WAITING) cr_expect_leq(recv(fd, head, sizeof head, 0), 0);
            rws_stats stats = {.size = sizeof stats};
            rws_client_stats(client, &stats);
            finish(client);
            cr_expect_eq(end.failed, 1, "%s", names[at]);
            cr_expect_eq(end.opened, 0, "%s", names[at]);
            for (int i = 0; i < 4; i++)
                if (fillers[i] >= 0) close(fillers[i]);
            if (fd >= 0) close(fd);
            close(listener);
        }
    }
}

Test(engine_dial, cancels_nothing_that_is_open_and_nobody_elses)
{
    EACH_FEATURES(off)
    {
        engine_server server;
        uint16_t port;
        uint64_t open_id = 0, waiting_id = 0;
        char url[64], head[4096];
        outcome open = {0}, waiting = {0};
        cr_assert_eq(engine_server_start(&server, NULL, NULL), 0);
        int listener = listen_by_hand(&port, 8);
        rws_client *client = make(2, *off, NULL, 0);
        start(client);
        rws_dial_options options = dial_options(&open);
        make_url(url, server.port);
        options.shard = 1;
        cr_assert_eq(rws_client_dial(client, url, &options, &open_id, NULL), 0);
        cr_assert(engine_server_await(&open.answers, 1));
        options = dial_options(&waiting);
        make_url(url, port);
        options.shard = 1;
        cr_assert_eq(rws_client_dial(client, url, &options, &waiting_id, NULL), 0);
        int fd = read_request(listener, head, sizeof head);
        cr_expect_neq(open_id, waiting_id);
        const struct {
            uint64_t id;
            int status;
        } rows[] = {
            {open_id, 0},
            {0, 0},
            {waiting_id + 1, 0},
            {waiting_id & 0xFFFFFF, 0}, /* of the other shard */
            {waiting_id | 2ull << 56, RWS_E_ARGUMENT},
            {UINT64_MAX, RWS_E_ARGUMENT},
        };
        for (size_t i = 0; i < COUNT(rows); i++)
            cr_expect_eq(rws_client_cancel(client, rows[i].id), rows[i].status, "row %zu", i);
        test_sleep_ms(50);
        cr_expect_eq(waiting.failed, 0);
        cr_expect_eq(open.closed, 0, "it is open, and stays so");
        cr_expect_eq(rws_client_cancel(client, waiting_id), 0);
        cr_assert(engine_server_await(&waiting.failed, 1));
        cr_expect_eq(waiting.status, RWS_E_ABORTED);
        close(fd);
        close(listener);
        finish(client);
        cr_expect(open.opened == 1 && open.closed == 1 && open.failed == 0);
        cr_expect(waiting.opened == 0 && waiting.failed == 1);
        cr_expect_eq(engine_server_stop(&server), 0);
    }
}

/* ---- memory that runs out ---- */

/* A client that dials, gives up and ends without ever running; stopped where a call fails. */
static int live(const rws_allocator *allocator, outcome *end)
{
    rws_client *client = NULL;
    uint64_t id = 0;
    rws_header header = {"X-A", "b"};
    rws_runtime_options runtime = RWS_RUNTIME_OPTIONS_DEFAULT;
    rws_endpoint_options endpoint = RWS_ENDPOINT_OPTIONS_DEFAULT;
    rws_dial_options options = dial_options(end);
    runtime.allocator = allocator;
    runtime.shards = 2;
    runtime.connections_max = 16;
    endpoint.handler = &dialling;
    endpoint.subprotocols = own_list;
    endpoint.subprotocols_count = 2;
    options.origin = "https://example.org";
    options.headers = &header;
    options.headers_count = 1;
    int res = rws_client_create(&client, &runtime, &endpoint, NULL);
    cr_expect_eq(client == NULL, res != 0);
    for (int i = 0; res == 0 && i < 2; i++) {
        res = rws_client_dial(client, "ws://127.0.0.1:9/", &options, &id, NULL);
        if (res == 0) end->taken++;
    }
    if (res == 0) res = rws_client_cancel(client, id);
    rws_client_destroy(client);
    return res;
}

Test(engine_dial, no_allocation_that_fails_leaves_something_behind)
{
    size_t files = test_open_files();
    int res = -1;
    for (size_t fail_at = 1; res != 0; fail_at++) {
        test_allocator memory = {.fail_at = fail_at};
        rws_allocator allocator = TEST_ALLOCATOR(&memory);
        outcome end = {0};
        res = live(&allocator, &end);
        cr_expect(res == 0 || res == -ENOMEM, "allocation %zu: %d", fail_at, res);
        cr_expect_eq(memory.live, 0, "allocation %zu: %zu blocks are left", fail_at, memory.live);
        cr_expect_eq(end.failed, end.taken, "each dial that was taken is reported once");
        cr_assert_eq(test_open_files(), files, "allocation %zu", fail_at);
        cr_assert_lt(fail_at, 100);
    }
}

/* ---- subprotocols, both sides ---- */

static int choose_v1(rws_request *request, void *user)
{
    (void)user;
    (void)rws_request_choose_subprotocol(request, "v1");
    return 0;
}

Test(engine_dial, agrees_on_the_servers_first_that_the_client_offers)
{
    static const char *const servers[] = {"v3", "v2", "v1"};
    static const struct {
        uint32_t servers;  /* so many of the list */
        const char *offer; /* NULL: the endpoint's, v2 and v1 */
        bool chooses;
        const char *agreed;
    } rows[] = {
        {3, NULL, false, "v2"}, {3, "v1, v2, v3", false, "v3"},
        {3, "v1", false, "v1"}, {3, "x, v1", false, "v1"},
        {3, "x", false, ""},    {3, "", false, ""},
        {0, NULL, false, ""},   {3, NULL, true, "v1"},
        {0, NULL, true, "v1"},  {3, "v2, v3", true, "v3"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        rws_server *server;
        rws_error error;
        char url[64];
        outcome end = {0};
        rws_handler handler = RWS_HANDLER_DEFAULT;
        rws_runtime_options runtime = RWS_RUNTIME_OPTIONS_DEFAULT;
        rws_endpoint_options endpoint = RWS_ENDPOINT_OPTIONS_DEFAULT;
        rws_listener_options listener = RWS_LISTENER_OPTIONS_DEFAULT;
        if (rows[i].chooses) handler.on_upgrade = choose_v1;
        runtime.shards = 1;
        endpoint.handler = &handler;
        if (rows[i].servers > 0) endpoint.subprotocols = servers;
        endpoint.subprotocols_count = rows[i].servers;
        listener.port = 0;
        cr_assert_eq(rws_server_create(&server, &runtime, &error), 0, "%s", error.text);
        cr_assert_eq(rws_server_add_endpoint(server, &endpoint, NULL, &error), 0);
        cr_assert_eq(rws_server_listen(server, &listener, &error), 0, "%s", error.text);
        cr_assert_eq(rws_server_start(server, &error), 0, "%s", error.text);
        rws_client *client = make(1, 0, own_list, 2);
        start(client);
        rws_dial_options options = dial_options(&end);
        options.subprotocols = rows[i].offer;
        make_url(url, rws_server_port(server, 0));
        cr_assert_eq(rws_client_dial(client, url, &options, NULL, &error), 0, "%s", error.text);
        cr_assert(engine_server_await(&end.opened, 1), "row %zu: %s", i, end.text);
        cr_expect_str_eq(end.subprotocol, rows[i].agreed, "row %zu: \"%s\"", i, end.subprotocol);
        finish(client);
        rws_server_destroy(server);
    }
}
