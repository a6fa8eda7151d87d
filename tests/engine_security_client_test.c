/*
 * The client's side against a scripted server: frames that come with the answer, answers that are
 * none, masked frames, keys that have to differ, strings that may not break out of their line.
 * ctest: filtered
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "codec/handshake.h"
#include "support/engine_checks.h"
#include "support/engine_server.h"
#include "support/engine_filter.h"
#include "support/raw_client.h"

TestSuite(engine_security_client, .timeout = 60);

/* ---- a client that records ---- */

typedef struct watch {
    rws_client *client;
    test_options options;
    char url[64];
    int listener;
    _Atomic uint64_t opened, closed, messages, errors;
    _Atomic uint32_t code;
    _Atomic int error;
    pthread_mutex_t lock; /* of the texts */
    char text[1024];      /* messages, separated by '|' */
    char error_text[256];
    int send_on_open; /* that many messages of "0123456789" */
} watch;

static void on_open(rws_conn *conn, void *user)
{
    watch *own = user;
    for (int i = 0; i < own->send_on_open; i++)
        cr_assert_eq(rws_conn_send_text(conn, "0123456789", 10), 0);
    atomic_fetch_add(&own->opened, 1);
}

static int on_message(rws_conn *conn, const rws_message *message, void *user)
{
    const void *data = rws_message_data(message);
    size_t len = rws_message_len(message);
    watch *own = user;
    (void)conn;
    pthread_mutex_lock(&own->lock);
    size_t used = strlen(own->text);
    if (used + len + 2 < sizeof own->text)
        snprintf(own->text + used, sizeof own->text - used, "%.*s|", (int)len, (const char *)data);
    pthread_mutex_unlock(&own->lock);
    atomic_fetch_add(&own->messages, 1);
    return 0;
}

static void on_close(rws_conn *conn, const rws_close_info *info, void *user)
{
    watch *own = user;
    (void)conn;
    (void)info;
    (void)info;
    atomic_store(&own->code, info->code);
    atomic_fetch_add(&own->closed, 1);
}

static void on_dial_error(const rws_error *error, void *dial_user, void *user)
{
    watch *own = user;
    cr_expect_eq(dial_user, user);
    pthread_mutex_lock(&own->lock);
    snprintf(own->error_text, sizeof own->error_text, "%s", error->text);
    pthread_mutex_unlock(&own->lock);
    atomic_store(&own->error, error->status);
    atomic_fetch_add(&own->errors, 1);
}

static void start(watch *own, uint32_t off)
{
    memset(own, 0, sizeof *own);
    pthread_mutex_init(&own->lock, NULL);
    own->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    cr_assert_eq(bind(own->listener, (struct sockaddr *)&address, len), 0);
    cr_assert_eq(listen(own->listener, 16), 0);
    cr_assert_eq(getsockname(own->listener, (struct sockaddr *)&address, &len), 0);
    snprintf(own->url, sizeof own->url, "ws://127.0.0.1:%u/x", ntohs(address.sin_port));

    test_options options = {0};
    rws_handler handler = RWS_HANDLER_DEFAULT;
    options.features_off = off;
    options.connections_max = 64;
    options.handshake_timeout_ms = 500;
    options.close_timeout_ms = 300;
    options.user = own;
    handler.on_open = on_open;
    handler.on_message = on_message;
    handler.on_close = on_close;
    handler.on_dial_error = on_dial_error;
    own->options = options;
    rws_error error = {0};
    cr_assert_eq(test_client_create(&own->client, &options, &handler, &error), 0, "%s", error.text);
    engine_filter_client(own->client);
    cr_assert_eq(rws_client_start(own->client, &error), 0, "%s", error.text);
}

static void stop(watch *own)
{
    rws_client_destroy(own->client);
    close(own->listener);
    pthread_mutex_destroy(&own->lock);
}

/* Dial, accept, read the request; `accept_value` is what the answer has to have. */
static void meet(watch *own, raw_client *server, char accept_value[RWS__ACCEPT_BYTES + 1],
                 const char *subprotocols)
{
    char head[2048];
    cr_assert_eq(test_dial(own->client, &own->options, own->url, subprotocols, own), 0);
    int fd = accept4(own->listener, NULL, NULL, SOCK_CLOEXEC);
    cr_assert_geq(fd, 0);
    int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    raw_adopt(server, fd);
    (void)raw_read_head(server, head, sizeof head);
    cr_assert_eq(strncmp(head, "GET /x HTTP/1.1\r\n", 17), 0, "%s", head);
    const char *key = strstr(head, "Sec-WebSocket-Key: ");
    cr_assert_not_null(key, "%s", head);
    rws__handshake_accept(key + 19, accept_value);
    accept_value[RWS__ACCEPT_BYTES] = '\0';
}

static size_t answer(char *out, size_t size, const char *accept_value)
{
    return (size_t)snprintf(out, size,
                            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                            "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
                            accept_value);
}

static void check_text(watch *own, const char *wanted)
{
    pthread_mutex_lock(&own->lock);
    cr_expect_str_eq(own->text, wanted);
    own->text[0] = '\0';
    pthread_mutex_unlock(&own->lock);
}

Test(engine_security_client, frames_that_come_with_the_answer_are_delivered)
{
    EACH_FEATURES(off)
    {
        watch own;
        start(&own, *off);
        for (size_t cut = 0; cut < 160; cut++) {
            raw_client server;
            char accept_value[RWS__ACCEPT_BYTES + 1], out[512];
            meet(&own, &server, accept_value, NULL);
            size_t len = answer(out, sizeof out, accept_value);
            memcpy(out + len,
                   "\x81\x03"
                   "one\x81\x03"
                   "two",
                   10);
            len += 10;
            size_t first = cut == 0 || cut > len ? len : cut;
            for (size_t i = 0; cut == 1 && i < len; i++)
                cr_assert(raw_send(&server, out + i, 1));
            if (cut != 1) {
                cr_assert(raw_send(&server, out, first));
                cr_assert(raw_send(&server, out + first, len - first));
            }
            cr_assert(engine_server_await(&own.messages, 2 * cut + 2), "cut %zu", cut);
            check_text(&own, "one|two|");
            raw_reset(&server);
            cr_assert(engine_server_await(&own.closed, cut + 1));
        }
        cr_expect_eq(atomic_load(&own.errors), 0, "%s", own.error_text);
        stop(&own);
    }
}

/* ---- answers that are none ---- */

typedef struct bad_answer {
    const char *name;
    const char *answer; /* with %s for Sec-WebSocket-Accept */
    int status;
} bad_answer;

#define STATUS "HTTP/1.1 101 Switching Protocols\r\n"
#define ACCEPT "Sec-WebSocket-Accept: %s\r\n"
#define BOTH   "Upgrade: websocket\r\nConnection: Upgrade\r\n"

static const bad_answer bad_answers[] = {
    {"200", "HTTP/1.1 200 OK\r\n" BOTH ACCEPT "\r\n", RWS_E_UPGRADE},
    {"302", "HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", RWS_E_UPGRADE},
    {"401", "HTTP/1.1 401 Unauthorized\r\n\r\n", RWS_E_UPGRADE},
    {"no Upgrade", STATUS "Connection: Upgrade\r\n" ACCEPT "\r\n", RWS_E_UPGRADE},
    {"no Connection", STATUS "Upgrade: websocket\r\n" ACCEPT "\r\n", RWS_E_UPGRADE},
    {"no accept value", STATUS BOTH "\r\n", RWS_E_UPGRADE},
    {"another accept value",
     STATUS BOTH "Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n", RWS_E_UPGRADE},
    {"two accept values", STATUS BOTH ACCEPT "Sec-WebSocket-Accept: x\r\n\r\n", RWS_E_UPGRADE},
    {"a subprotocol that was not offered",
     STATUS BOTH ACCEPT "Sec-WebSocket-Protocol: soap\r\n\r\n", RWS_E_UPGRADE},
    {"an extension", STATUS BOTH ACCEPT "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
     RWS_E_UPGRADE},
    {"no HTTP", "SSH-2.0-OpenSSH_9.6\r\n\r\n", RWS_E_HTTP},
    {"bare LF", "HTTP/1.1 101 Switching Protocols\n" BOTH ACCEPT "\r\n", RWS_E_HTTP},
    {"half an answer", "HTTP/1.1 101 Swit", RWS_E_CLOSED},
    {"nothing", "", RWS_E_CLOSED},
};

Test(engine_security_client, an_answer_that_is_no_upgrade_is_a_dial_error)
{
    EACH_FEATURES(off)
    {
        watch own;
        start(&own, *off);
        const size_t count = sizeof bad_answers / sizeof bad_answers[0];
        for (size_t i = 0; i < count; i++) {
            raw_client server;
            char accept_value[RWS__ACCEPT_BYTES + 1], out[512];
            meet(&own, &server, accept_value, "chat");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-extra-args"
            snprintf(out, sizeof out, bad_answers[i].answer, accept_value);
#pragma GCC diagnostic pop
            (void)raw_send_text(&server, out);
            if (bad_answers[i].status == RWS_E_CLOSED) raw_end(&server);
            cr_assert(engine_server_await(&own.errors, i + 1), "%s", bad_answers[i].name);
            cr_expect_eq(atomic_load(&own.error), bad_answers[i].status, "%s: %d (%s)",
                         bad_answers[i].name, atomic_load(&own.error), own.error_text);
            cr_expect_gt(strlen(own.error_text), 10);
            cr_expect(raw_read_end(&server), "%s", bad_answers[i].name);
            raw_close(&server);
        }
        cr_expect_eq(atomic_load(&own.opened) + atomic_load(&own.closed), 0);
        cr_expect_eq(atomic_load(&own.errors), count);
        stop(&own);
    }
}

Test(engine_security_client, an_answer_is_bounded_in_bytes_and_time)
{
    EACH_FEATURES(off)
    {
        watch own;
        raw_client server;
        char accept_value[RWS__ACCEPT_BYTES + 1], line[1024];
        start(&own, *off);
        meet(&own, &server, accept_value, NULL);
        memset(line, 'x', sizeof line);
        cr_assert(raw_send_text(&server, STATUS "X: "));
        for (int i = 0; i < 1000; i++)
            if (!raw_send(&server, line, sizeof line)) break;
        cr_assert(engine_server_await(&own.errors, 1));
        cr_expect_eq(atomic_load(&own.error), RWS_E_HTTP_TOO_BIG);
        raw_close(&server);

        uint64_t begin = test_now_ms();
        meet(&own, &server, accept_value, NULL);
        for (int i = 0; i < 100 && atomic_load(&own.errors) < 2; i++) {
            if (!raw_send_text(&server, i == 0 ? STATUS "X: " : "y")) break;
            test_sleep_ms(20);
        }
        cr_assert(engine_server_await(&own.errors, 2));
        cr_expect_eq(atomic_load(&own.error), RWS_E_TIMEOUT);
        cr_expect_lt(test_now_ms() - begin, 1900);
        raw_close(&server);
        stop(&own);
    }
}

/* ---- frames ---- */

Test(engine_security_client, bad_frames_of_a_server_are_failed)
{
    static const struct {
        const char *name, *frame;
        size_t len;
        uint32_t code;
    } rows[] = {
        {"masked", "\x81\x82\1\2\3\4hi", 8, 1002},
        {"an empty masked frame", "\x82\x80\1\2\3\4", 6, 1002},
        {"a masked ping", "\x89\x80\1\2\3\4", 6, 1002},
        {"RSV1", "\xc1\0", 2, 1002},
        {"not minimal", "\x82\x7e\0\1x", 5, 1002},
        {"2^63", "\x82\x7f\x80\0\0\0\0\0\0\0", 10, 1002},
        {"too big", "\x82\x7f\0\0\0\0\0\2\0\0", 10, 1009},
        {"not UTF-8", "\x81\1\xff", 3, 1007},
    };
    EACH_FEATURES(off)
    {
        watch own;
        start(&own, *off);
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            raw_client server;
            raw_frame frame;
            char accept_value[RWS__ACCEPT_BYTES + 1], out[512];
            meet(&own, &server, accept_value, NULL);
            size_t len = answer(out, sizeof out, accept_value);
            memcpy(out + len, rows[i].frame, rows[i].len);
            cr_assert(raw_send(&server, out, len + rows[i].len));
            cr_assert_eq(raw_read_frame(&server, &frame), 1, "%s", rows[i].name);
            cr_expect_eq(frame.first, RAW_CLOSE);
            cr_expect(frame.masked);
            cr_expect_eq((uint32_t)(frame.payload[0] << 8 | frame.payload[1]), rows[i].code, "%s",
                         rows[i].name);
            cr_expect(raw_read_end(&server));
            cr_expect(engine_server_await(&own.closed, i + 1));
            cr_expect_eq(atomic_load(&own.code), rows[i].code, "%s", rows[i].name);
            raw_close(&server);
        }
        cr_expect_eq(atomic_load(&own.messages), 0);
        stop(&own);
    }
}

Test(engine_security_client, every_frame_has_a_key_of_its_own)
{
    watch own;
    uint32_t keys[1000];
    size_t count = 0;
    start(&own, 0);
    own.send_on_open = 250;
    for (int dial = 0; dial < 4; dial++) {
        raw_client server;
        raw_frame frame;
        char accept_value[RWS__ACCEPT_BYTES + 1], out[512];
        meet(&own, &server, accept_value, NULL);
        cr_assert(raw_send(&server, out, answer(out, sizeof out, accept_value)));
        for (int i = 0; i < 250; i++) {
            cr_assert_eq(raw_read_frame(&server, &frame), 1);
            cr_assert(frame.masked);
            cr_expect(frame.len == 10 && memcmp(frame.payload, "0123456789", 10) == 0);
            memcpy(&keys[count++], frame.key, 4);
        }
        raw_close(&server);
    }
    /* 1,000 random keys: one pair may be equal by chance (1 in 8,600), two will not be. Every bit
     * is set in about half of them. */
    size_t equal = 0, bits[32] = {0};
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < i; j++)
            equal += keys[i] == keys[j];
        for (int bit = 0; bit < 32; bit++)
            bits[bit] += keys[i] >> bit & 1;
    }
    cr_expect_leq(equal, 1);
    for (int bit = 0; bit < 32; bit++)
        cr_expect(bits[bit] > 380 && bits[bit] < 620, "bit %d is set %zu times of 1000", bit,
                  bits[bit]);
    stop(&own);
}

/* ---- strings of the program ---- */

Test(engine_security_client, no_string_breaks_out_of_the_request)
{
    static const struct {
        const char *url, *subprotocols;
        int status;
    } rows[] = {
        {"ws://127.0.0.1:1/a\r\nX-Evil: 1", NULL, RWS_E_URL},
        {"ws://127.0.0.1:1/a b", NULL, RWS_E_URL},
        {"ws://127.0.0.1:1/\x01", NULL, RWS_E_URL},
        {"ws://127.0.0.1\r\nX-Evil: 1:1/", NULL, RWS_E_URL},
        {"ws://127.0.0.1:1/?x=\n", NULL, RWS_E_URL},
        {"ws://user@127.0.0.1:1/", NULL, RWS_E_URL},
        {"ws://127.0.0.1:70000/", NULL, RWS_E_URL},
        {"ws://127.0.0.1:0/", NULL, RWS_E_URL},
        {"ws://", NULL, RWS_E_URL},
        {"http://127.0.0.1/", NULL, RWS_E_URL},
        {"ws://127.0.0.1:1/#part", NULL, RWS_E_URL},
        {"ws://127.0.0.1:1/", "chat\r\nX-Evil: 1", RWS_E_ARGUMENT},
        {"ws://127.0.0.1:1/", "a b", RWS_E_ARGUMENT},
        {"ws://127.0.0.1:1/", "a,,\x01", RWS_E_ARGUMENT},
    };
    watch own;
    start(&own, 0);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int res = test_dial(own.client, &own.options, rows[i].url, rows[i].subprotocols, &own);
        cr_expect_eq(res, rows[i].status, "row %zu: %d", i, res);
    }
    cr_expect_eq(atomic_load(&own.errors), 0);
    stop(&own);
}

Test(engine_security_client, nobody_listens)
{
    watch own;
    start(&own, 0);
    cr_assert_eq(test_dial(own.client, &own.options, "ws://127.0.0.1:1/", NULL, &own), 0);
    cr_assert(engine_server_await(&own.errors, 1));
    cr_expect_eq(atomic_load(&own.error), -ECONNREFUSED);
    cr_expect_not_null(strstr(own.error_text, "refused"));
    stop(&own);
}
