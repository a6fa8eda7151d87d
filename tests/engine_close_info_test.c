/*
 * What on_close is told: for every way in which a connection ends one status, one code, who ended
 * it and the reason, against real sockets.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/close.h"
#include "support/engine_checks.h"
#include "support/engine_server.h"
#include "support/raw_client.h"

TestSuite(engine_close_info, .timeout = 60);

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* ---- the program ---- */

/* What on_close was told; written by the loop before `closes` counts it. */
static struct {
    _Atomic uint64_t closes, messages;
    _Atomic uint64_t came_later; /* -ENOMEM with 1013 */
    size_t size;
    int status;
    uint16_t code;
    rws_closer who;
    char reason[128];
} told;

/* Between the loop and the test: what orders them otherwise is a socket, which ThreadSanitizer does
 * not see. */
static pthread_mutex_t told_lock = PTHREAD_MUTEX_INITIALIZER;

static void forget(void)
{
    pthread_mutex_lock(&told_lock);
    memset(&told, 0, sizeof told);
    pthread_mutex_unlock(&told_lock);
}

static int on_message(rws_conn *conn, const rws_message *message, void *user)
{
    static const char large[1 << 20];
    const char *text = rws_message_data(message);
    (void)user;
    atomic_fetch_add(&told.messages, 1);
    switch (rws_message_len(message) > 0 ? text[0] : ' ') {
    case 'a': rws_conn_abort(conn); return 0;
    case 'c': return rws_conn_close(conn, 4000, "ours");
    case 'e': return rws_conn_close(conn, 1005, NULL);
    case 'f': return -EIO;
    case 'F': (void)rws_conn_close(conn, 4001, "closed before"); return -EIO;
    case 'l': return rws_conn_send_binary(conn, large, sizeof large);
    default: return 0;
    }
}

static void on_close(rws_conn *conn, const rws_close_info *info, void *user)
{
    (void)conn;
    (void)user;
    pthread_mutex_lock(&told_lock);
    told.size = info->size;
    told.status = info->status;
    told.code = info->code;
    told.who = info->who;
    snprintf(told.reason, sizeof told.reason, "%.*s", (int)info->reason.len, info->reason.data);
    pthread_mutex_unlock(&told_lock);
    if (info->status == -ENOMEM && info->code == 1013) atomic_fetch_add(&told.came_later, 1);
    atomic_fetch_add(&told.closes, 1);
}

static int on_ping(rws_conn *conn, const void *data, size_t len, void *user)
{
    (void)conn;
    (void)data;
    (void)user;
    return len == 0 ? 0 : -1;
}

/* The close frame's code says what is done with it. */
static int on_close_frame(rws_conn *conn, uint16_t code, rws_span reason, void *user)
{
    (void)reason;
    (void)user;
    switch (code) {
    case 4001: return rws_conn_close(conn, 4999, "answered");
    case 4002: rws_conn_abort(conn); return 0;
    case 4003: return -1; /* the engine answers after all */
    default: return 0;    /* nobody answers */
    }
}

/* ---- the peer ---- */

static void say(raw_client *client, const char *text)
{
    cr_assert(raw_send_frame(client, RAW_TEXT, text, strlen(text)));
}

static void send_close(raw_client *client, uint16_t code, const char *reason)
{
    uint8_t payload[125] = {(uint8_t)(code >> 8), (uint8_t)code};
    size_t len = strlen(reason);
    memcpy(payload + 2, reason, len);
    cr_assert(raw_send_frame(client, RAW_CLOSE, payload, 2 + len));
}

static void peer_closes(raw_client *client)
{
    send_close(client, 1000, "bye");
}

static void peer_closes_emptily(raw_client *client)
{
    cr_assert(raw_send_frame(client, RAW_CLOSE, "", 0));
}

static void peer_ends(raw_client *client)
{
    raw_end(client);
}

static void peer_resets(raw_client *client)
{
    say(client, "x");
    cr_assert(engine_server_await(&told.messages, 1));
    raw_reset(client);
}

static void we_abort(raw_client *client)
{
    say(client, "abort");
}

static void we_close_and_are_answered(raw_client *client)
{
    say(client, "close");
    cr_expect_eq(raw_read_close(client), 4000);
    send_close(client, 4000, "ours");
}

static void we_close_and_are_answered_otherwise(raw_client *client)
{
    say(client, "close");
    cr_expect_eq(raw_read_close(client), 4000);
    send_close(client, 1001, "theirs");
}

static void we_close_emptily(raw_client *client)
{
    say(client, "empty");
    cr_expect_eq(raw_read_close(client), 0);
    peer_closes_emptily(client);
}

static void we_close_and_the_peer_ends(raw_client *client)
{
    say(client, "close");
    cr_expect_eq(raw_read_close(client), 4000);
    raw_end(client);
}

static void we_close_and_nobody_answers(raw_client *client)
{
    say(client, "close");
    cr_expect_eq(raw_read_close(client), 4000);
}

static void peer_does_not_mask(raw_client *client)
{
    cr_assert(raw_send(client, "\x81\x01x", 3));
}

static void peer_closes_with_a_bad_code(raw_client *client)
{
    send_close(client, 1006, "");
}

static void peer_closes_with_half_a_code(raw_client *client)
{
    cr_assert(raw_send_frame(client, RAW_CLOSE, "\x03", 1));
}

static void peer_gives_a_reason_that_is_not_text(raw_client *client)
{
    send_close(client, 1000, "\xff");
}

static void peer_sends_bad_text(raw_client *client)
{
    say(client, "\xc3\x28");
}

static void peer_sends_too_much(raw_client *client)
{
    static char large[1001];
    cr_assert(raw_send_frame(client, RAW_BINARY, large, sizeof large));
}

static void peer_sends_too_many_fragments(raw_client *client)
{
    for (int i = 0; i < 5; i++)
        if (!raw_send_frame(client, i == 0 ? 0x1 : 0x0, "x", 1)) return;
}

static void peer_does_not_end_its_message(raw_client *client)
{
    cr_assert(raw_send_frame(client, 0x1, "half", 4));
}

static void peer_reads_nothing(raw_client *client)
{
    say(client, "large");
}

static void callback_fails(raw_client *client)
{
    say(client, "fail");
}

static void callback_closes_and_fails(raw_client *client)
{
    say(client, "Fail");
    cr_expect_eq(raw_read_close(client), 4001);
    send_close(client, 4001, "");
}

static void ping_callback_fails(raw_client *client)
{
    cr_assert(raw_send_frame(client, RAW_PING, "x", 1));
}

static void frame_is_answered(raw_client *client)
{
    send_close(client, 4001, "theirs");
}

static void frame_is_followed_by_an_abort(raw_client *client)
{
    send_close(client, 4002, "theirs");
}

static void frame_is_left_to_the_engine(raw_client *client)
{
    send_close(client, 4003, "theirs");
}

static void frame_is_never_answered(raw_client *client)
{
    send_close(client, 4004, "theirs");
}

static void frame_is_never_answered_and_the_peer_resets(raw_client *client)
{
    send_close(client, 4004, "theirs");
    test_sleep_ms(30);
    raw_reset(client);
}

/* ---- the table ---- */

/* The text that the engine sends with a code of its own. */
#define OWN_TEXT "\1"

typedef struct cause_case {
    const char *name;
    void (*peer)(raw_client *client);
    int status;
    uint16_t code;
    rws_closer who;
    const char *reason;
    bool control; /* with on_ping and on_close_frame */
} cause_case;

#define US   RWS_CLOSED_BY_US
#define PEER RWS_CLOSED_BY_PEER
#define ROW(peer, ...)                                                                             \
    {                                                                                              \
#peer, peer, __VA_ARGS__                                                                   \
    }

static const cause_case causes[] = {
    ROW(peer_closes, 0, 1000, PEER, "bye", false),
    ROW(peer_closes_emptily, 0, 1005, PEER, "", false),
    ROW(peer_ends, RWS_E_CLOSED, 1006, PEER, "", false),
    ROW(peer_resets, -ECONNRESET, 1006, PEER, "", false),
    ROW(we_abort, RWS_E_ABORTED, 1006, US, "", false),
    ROW(we_close_and_are_answered, 0, 4000, US, "ours", false),
    ROW(we_close_and_are_answered_otherwise, 0, 1001, US, "theirs", false),
    ROW(we_close_emptily, 0, 1005, US, "", false),
    ROW(we_close_and_the_peer_ends, RWS_E_CLOSED, 1006, PEER, "", false),
    ROW(we_close_and_nobody_answers, RWS_E_TIMEOUT, 1006, US, "", false),
    ROW(peer_does_not_mask, RWS_E_PROTOCOL, 1002, US, OWN_TEXT, false),
    ROW(peer_closes_with_a_bad_code, RWS_E_PROTOCOL, 1002, US, OWN_TEXT, false),
    ROW(peer_closes_with_half_a_code, RWS_E_PROTOCOL, 1002, US, OWN_TEXT, false),
    ROW(peer_gives_a_reason_that_is_not_text, RWS_E_UTF8, 1007, US, OWN_TEXT, false),
    ROW(peer_sends_bad_text, RWS_E_UTF8, 1007, US, OWN_TEXT, false),
    ROW(peer_sends_too_much, RWS_E_TOO_BIG, 1009, US, OWN_TEXT, false),
    ROW(peer_sends_too_many_fragments, RWS_E_POLICY, 1008, US, OWN_TEXT, false),
    ROW(peer_does_not_end_its_message, RWS_E_TIMEOUT, 1008, US, OWN_TEXT, false),
    ROW(peer_reads_nothing, RWS_E_TIMEOUT, 1006, US, "", false),
    ROW(callback_fails, RWS_E_INTERNAL, 1011, US, OWN_TEXT, false),
    ROW(callback_closes_and_fails, 0, 4001, US, "", false),
    ROW(ping_callback_fails, RWS_E_INTERNAL, 1011, US, OWN_TEXT, true),
    ROW(frame_is_answered, 0, 4001, PEER, "", true),
    ROW(frame_is_followed_by_an_abort, RWS_E_ABORTED, 4002, PEER, "", true),
    ROW(frame_is_left_to_the_engine, 0, 4003, PEER, "theirs", true),
    ROW(frame_is_never_answered, RWS_E_TIMEOUT, 4004, PEER, "", true),
    ROW(frame_is_never_answered_and_the_peer_resets, -ECONNRESET, 4004, PEER, "", true),
};

static engine_server server;

static void serve(uint32_t off, bool control)
{
    test_options options = engine_server_options();
    rws_handler handler = RWS_HANDLER_DEFAULT;
    options.features_off = off;
    options.handle_ping = options.handle_close = control;
    options.message_bytes_max = 1000;
    options.fragments_max = 4;
    options.message_timeout_ms = 200;
    options.close_timeout_ms = 200;
    options.send_timeout_ms = 300;
    options.send_queue_bytes_max = 2 << 20;
    options.socket_send_buffer_bytes = 16384;
    handler.on_message = on_message;
    handler.on_close = on_close;
    handler.on_ping = on_ping;
    handler.on_close_frame = on_close_frame;
    cr_assert_eq(engine_server_start(&server, &options, &handler), 0, "%s", server.error.text);
}

static void check_told(const cause_case *row, uint32_t off)
{
    const char *reason = row->reason[0] == OWN_TEXT[0] ? rws_strerror(row->status) : row->reason;
    pthread_mutex_lock(&told_lock);
    cr_expect_eq(told.size, sizeof(rws_close_info), "%s", row->name);
    cr_expect_eq(told.status, row->status, "%s: status %d instead of %d, off %x", row->name,
                 told.status, row->status, off);
    cr_expect_eq(told.code, row->code, "%s: code %u instead of %u", row->name, told.code,
                 row->code);
    cr_expect_eq(told.who, row->who, "%s: ended by %d", row->name, (int)told.who);
    cr_expect_str_eq(told.reason, reason, "%s: \"%s\"", row->name, told.reason);
    pthread_mutex_unlock(&told_lock);
}

Test(engine_close_info, tells_every_cause_apart)
{
    EACH_FEATURES(off)
    {
        for (int control = 0; control < 2; control++) {
            serve(*off, control);
            for (size_t i = 0; i < COUNT(causes); i++) {
                raw_client client;
                if (causes[i].control != control) continue;
                forget();
                cr_assert(raw_connect(&client, "127.0.0.1", server.port, 4096));
                cr_assert(raw_upgrade(&client));
                causes[i].peer(&client);
                cr_assert(engine_server_await(&told.closes, 1), "%s", causes[i].name);
                check_told(&causes[i], *off);
                raw_close(&client);
                cr_assert(engine_server_await_connections(&server, 0), "%s", causes[i].name);
                cr_expect_eq(told.closes, 1, "%s", causes[i].name);
            }
            cr_expect_eq(engine_server_stop(&server), 0);
        }
    }
}

/* The drain closes with 1001; who does not answer is cut off. */
Test(engine_close_info, tells_what_a_drain_did)
{
    EACH_FEATURES(off)
    {
        for (int answers = 0; answers < 2; answers++) {
            raw_client client;
            test_options options = engine_server_options();
            rws_handler handler = RWS_HANDLER_DEFAULT;
            options.features_off = *off;
            options.drain_timeout_ms = answers ? 5000 : 200;
            handler.on_close = on_close;
            forget();
            cr_assert_eq(engine_server_start(&server, &options, &handler), 0);
            cr_assert(raw_open(&client, server.port));
            rws_server_stop(server.server);
            cr_expect_eq(raw_read_close(&client), 1001);
            if (answers) send_close(&client, 1001, "");
            cr_expect_eq(engine_server_stop(&server), answers ? 0 : RWS_E_TIMEOUT);
            const cause_case row = {
                "drain", NULL, answers ? 0 : RWS_E_TIMEOUT, answers ? 1001 : 1006, US, "", false};
            check_told(&row, *off);
            cr_expect_eq(told.closes, 1);
            raw_close(&client);
        }
    }
}

/* Many who begin messages at once use up what there is for them: the last ones are told to come
 * later, and the program can tell that from what a peer did wrong. */
Test(engine_close_info, tells_that_memory_ran_out)
{
    EACH_FEATURES(off)
    {
        enum { CLIENTS = 40 };
        static char half[40000];
        raw_client clients[CLIENTS];
        test_options options = engine_server_options();
        rws_handler handler = RWS_HANDLER_DEFAULT;
        options.features_off = *off;
        options.partial_bytes_max = 100000;
        options.message_bytes_max = 50000;
        options.message_timeout_ms = 300;
        handler.on_close = on_close;
        forget();
        cr_assert_eq(engine_server_start(&server, &options, &handler), 0);
        uint64_t later = 0;
        for (int i = 0; i < CLIENTS; i++) {
            uint8_t header[RAW_HEADER_MAX];
            static const uint8_t key[4] = {0};
            size_t len = raw_frame_header(header, RAW_BINARY, 50000, key);
            cr_assert(raw_open(&clients[i], server.port));
            (void)raw_send(&clients[i], header, len);
            (void)raw_send(&clients[i], half, sizeof half);
        }
        for (int i = 0; i < CLIENTS; i++) {
            int code = raw_read_close(&clients[i]);
            cr_expect(code == 1013 || code == 1008, "%d", code);
            if (code == 1013) later++;
            raw_close(&clients[i]);
        }
        cr_expect_gt(later, 0);
        cr_assert(engine_server_await(&told.closes, CLIENTS));
        cr_expect_eq(told.came_later, later);
        cr_expect_eq(engine_server_stats(&server).out_of_memory, later);
        cr_expect_eq(engine_server_stats(&server).protocol_errors, 0);
        cr_expect_eq(engine_server_stop(&server), 0);
    }
}
