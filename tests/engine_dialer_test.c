/*
 * Dialling on the scripted ring (ctest: scripted ring): on_open or on_dial_error, exactly once,
 * however the dial goes; and the client's half of the handshake and of the closing handshake.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/server/dialer.h"
#include "support/scripted_shard.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* The file that the first dialled socket gets in the table. */
#define FILE_INDEX WORLD_DIALLED

static world w;

static void start(void)
{
    test_options options = {0};
    options.connections_max = 4;
    options.partial_bytes_max = 1u << 20; /* NO_MEMORY takes all of its addresses */
    options.handshake_timeout_ms = 1000;
    options.handshake_bytes_max = 8192; /* what ANSWER_TOO_LONG is over */
    options.close_timeout_ms = 500;
    world_start_client(&w, &options);
}

static int dial(const char *url, const char *subprotocols)
{
    return world_dial(&w, url, subprotocols, (void *)7);
}

static void dial_and_pump(void)
{
    cr_assert_eq(dial("ws://127.0.0.1:9/chat?x=1", "chat, superchat"), 0);
    world_pump(&w);
}

static void answer(const char *status, const char *lines, const char *behind)
{
    world_answer(&w, FILE_INDEX, status, lines, behind);
}

static uint32_t open_client(void)
{
    dial_and_pump();
    world_turns(&w, 5);
    answer("101 Switching Protocols", "", "");
    world_log_is(&w, "open100 ", "dialled");
    return FILE_INDEX;
}

Test(engine_dialer, opens_a_connection)
{
    start();
    dial_and_pump();
    world_turns(&w, 5);
    feed_bytes_append(&w.ring->wire[FILE_INDEX], "", 1);
    const char *request = (const char *)w.ring->wire[FILE_INDEX].data;
    cr_assert_eq(strncmp(request, "GET /chat?x=1 HTTP/1.1\r\n", 24), 0, "%s", request);
    w.ring->wire[FILE_INDEX].len--;
    answer("101 Switching Protocols", "Sec-WebSocket-Protocol: superchat\r\n", "\x81\x02hi");
    world_log_is(&w, "open100 text100:hi ", "dialled");
    rws_span chosen = rws_conn_subprotocol(world_conn(&w, FILE_INDEX));
    cr_assert_eq(chosen.len, 9);
    cr_assert_str_eq(chosen.data, "superchat");
    world_end(&w);
    cr_assert_eq(w.closes, 1);
}

Test(engine_dialer, masks_what_it_sends)
{
    start();
    uint32_t file = open_client();
    rws_conn_send_text(world_conn(&w, file), "hello", 5);
    rws_conn_send_text(world_conn(&w, file), "hello", 5);
    world_turns(&w, 2);
    const uint8_t *wire = w.ring->wire[file].data;
    cr_assert_eq(wire[1], 0x85);
    cr_assert_neq(memcmp(wire + 2, wire + 13, 4), 0, "each frame has a key of its own");
    cr_assert_str_eq(world_sent(&w, file), "text:hello text:hello ");
    world_end(&w);
}

/* ---- every way to fail ---- */

typedef enum dial_failure {
    INSTALL_FULL,
    INSTALL_ERROR,
    CONNECT_ERROR,
    CONNECT_TIMEOUT,
    SEND_ERROR,
    RECV_ERROR,
    RECV_EOF,
    ANSWER_404,
    ANSWER_GARBAGE,
    ANSWER_WRONG_KEY,
    ANSWER_TOO_LONG,
    ANSWER_OTHER_SUBPROTOCOL,
    ANSWER_TIMEOUT,
    NO_MEMORY,
    STOPPED_INSTALLING,
    STOPPED_CONNECTING,
    STOPPED_WAITING,
    FAILURES
} dial_failure;

static const int expected_status[FAILURES] = {
    [INSTALL_FULL] = -ENFILE,
    [INSTALL_ERROR] = -ENOMEM,
    [CONNECT_ERROR] = -ECONNREFUSED,
    [CONNECT_TIMEOUT] = RWS_E_TIMEOUT,
    [SEND_ERROR] = -EPIPE,
    [RECV_ERROR] = -ECONNRESET,
    [RECV_EOF] = RWS_E_CLOSED,
    [ANSWER_404] = RWS_E_UPGRADE,
    [ANSWER_GARBAGE] = RWS_E_HTTP,
    [ANSWER_WRONG_KEY] = RWS_E_UPGRADE,
    [ANSWER_TOO_LONG] = RWS_E_HTTP_TOO_BIG,
    [ANSWER_OTHER_SUBPROTOCOL] = RWS_E_UPGRADE,
    [ANSWER_TIMEOUT] = RWS_E_TIMEOUT,
    [NO_MEMORY] = -ENOMEM,
    [STOPPED_INSTALLING] = RWS_E_STATE,
    [STOPPED_CONNECTING] = RWS_E_STATE,
    [STOPPED_WAITING] = RWS_E_STATE,
};

static void complete(script_kind kind, int32_t res)
{
    script_op *op = script_find(w.ring, kind, UINT32_MAX);
    cr_assert_not_null(op, "operation %d is missing", (int)kind);
    script_complete(w.ring, op, res, 0);
    world_turns(&w, 4);
}

/* Up to the request that waits for its answer; fails on the way if it is told to. */
static bool fails_before_answer(dial_failure failure)
{
    w.ring->manual = SCRIPT_BIT(SCRIPT_INSTALL) | SCRIPT_BIT(SCRIPT_CONNECT);
    dial_and_pump();
    world_turn(&w);
    if (failure == STOPPED_INSTALLING) {
        rws__loop_stop(&w.shard->loop);
        world_turns(&w, 3);
        complete(SCRIPT_INSTALL, 1);
        return true;
    }
    complete(SCRIPT_INSTALL, failure == INSTALL_FULL ? 0 : failure == INSTALL_ERROR ? -ENOMEM : 1);
    if (failure <= INSTALL_ERROR) return true;
    if (failure == CONNECT_TIMEOUT || failure == STOPPED_CONNECTING) {
        if (failure == STOPPED_CONNECTING) rws__loop_stop(&w.shard->loop);
        world_turns(&w, 3);
        world_advance(&w, 1100);
        return true;
    }
    if (failure == SEND_ERROR) {
        script_complete(w.ring, script_find(w.ring, SCRIPT_CONNECT, FILE_INDEX), 0, 0);
        world_turn(&w);
        script_op *op = script_find(w.ring, SCRIPT_SEND_QUIET, FILE_INDEX);
        if (op == NULL) op = script_find(w.ring, SCRIPT_SEND, FILE_INDEX);
        cr_assert_not_null(op);
        script_complete(w.ring, op, -EPIPE, 0);
        return true;
    }
    complete(SCRIPT_CONNECT, failure == CONNECT_ERROR ? -ECONNREFUSED : 0);
    return failure == CONNECT_ERROR;
}

static const char wrong_key[] =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n";

static void fail_at_answer(dial_failure failure)
{
    static char large[9000];
    switch (failure) {
    case RECV_ERROR:
    case RECV_EOF:
        script_complete(w.ring, script_find_recv(w.ring, FILE_INDEX),
                        failure == RECV_EOF ? 0 : -ECONNRESET, 0);
        break;
    case ANSWER_404: answer("404 Not Found", "", ""); break;
    case ANSWER_GARBAGE: world_feed(&w, FILE_INDEX, "SSH-2.0-OpenSSH\r\n\r\n", 19); break;
    case ANSWER_WRONG_KEY: world_feed(&w, FILE_INDEX, wrong_key, strlen(wrong_key)); break;
    case ANSWER_TOO_LONG:
        memset(large, 'x', sizeof large);
        memcpy(large, "HTTP/1.1 101 OK\r\nX: ", 20);
        world_feed(&w, FILE_INDEX, large, sizeof large);
        break;
    case ANSWER_OTHER_SUBPROTOCOL:
        answer("101 Switching Protocols", "Sec-WebSocket-Protocol: other\r\n", "");
        break;
    case ANSWER_TIMEOUT: world_advance(&w, 1100); break;
    case NO_MEMORY:
        while (rws__slab_take(&w.shard->conns.streams.partial->slab, 256) != NULL)
            continue;
        world_feed(&w, FILE_INDEX, "HTTP/1.1 101 ", 13);
        break;
    case STOPPED_WAITING: rws__loop_stop(&w.shard->loop); break;
    default: cr_assert_fail("not a failure of the answer");
    }
}

static void check_failure(dial_failure failure)
{
    start();
    if (!fails_before_answer(failure)) fail_at_answer(failure);
    world_turns(&w, 4);
    script_cancel_closed(w.ring);
    world_turns(&w, 4);
    char expected[64], context[32];
    snprintf(expected, sizeof expected, "dial_error7:%d ", expected_status[failure]);
    snprintf(context, sizeof context, "failure %d", (int)failure);
    world_log_is(&w, expected, context);
    cr_expect_eq(w.shard->conns.streams.slots_used, 0, "%s", context);
    if (failure == NO_MEMORY) { /* what the test took itself */
        rws__pool_deinit(w.shard->conns.streams.partial);
        cr_assert_eq(rws__pool_init(w.shard->conns.streams.partial, 65536), 0);
    }
    world_end(&w);
    cr_expect_eq(w.closes, 0);
}

/* A full submission queue loses no dial: it is tried again in the next turns. */
Test(engine_dialer, goes_on_when_the_ring_took_it_later)
{
    start();
    w.ring->refuse[SCRIPT_INSTALL] = 2;
    w.ring->refuse[SCRIPT_CONNECT] = 3;
    dial_and_pump();
    world_turns(&w, 8);
    answer("101 Switching Protocols", "", "");
    world_turns(&w, 2);
    cr_assert_not_null(strstr(world_log(&w), "open"), "%s", world_log(&w));
    world_end(&w);
}

Test(engine_dialer, reports_every_failure_exactly_once)
{
    for (int failure = 0; failure < FAILURES; failure++)
        check_failure((enum dial_failure)failure);
}

Test(engine_dialer, reports_a_dial_beyond_connections_max)
{
    start();
    for (int i = 0; i < 4; i++)
        cr_assert_eq(dial("ws://127.0.0.1:9/", NULL), 0);
    world_log_is(&w, "", "four are on their way");
    cr_assert_eq(dial("ws://127.0.0.1:9/", NULL), 0);
    char expected[32];
    snprintf(expected, sizeof expected, "dial_error7:%d ", -ENFILE);
    world_log_is(&w, expected, "the fifth");
    world_end(&w);
}

/* Where descriptors are what is missing, the sentence says what to do; else the kernel's reason. */
Test(engine_dialer, says_why_there_is_no_socket)
{
    static const int results[] = {-EMFILE, -ENFILE, -EAFNOSUPPORT, -EACCES, -ENOBUFS};
    for (size_t i = 0; i < COUNT(results); i++) {
        start();
        script_net.make_result = results[i];
        cr_assert_eq(dial("ws://127.0.0.1:9/", NULL), 0);
        char expected[32];
        snprintf(expected, sizeof expected, "dial_error7:%d ", results[i]);
        world_log_is(&w, expected, "no socket");
        if (i < 2)
            cr_expect_not_null(strstr(w.dial_error, "ulimit -n"), "%s", w.dial_error);
        else
            cr_expect_str_eq(w.dial_error, rws_strerror(results[i]));
        script_net.make_result = 0;
        world_end(&w);
    }
}

Test(engine_dialer, says_that_the_runtime_is_stopping)
{
    start();
    uint32_t file = open_client();
    rws__loop_stop(&w.shard->loop);
    world_turns(&w, 2);
    cr_assert_eq(dial("ws://127.0.0.1:9/", NULL), 0);
    cr_expect_str_eq(w.dial_error, "the runtime is stopping");
    world_eof(&w, file);
    world_end(&w);
}

Test(engine_dialer, refuses_what_can_not_be_asked_for)
{
    static const struct {
        const char *url, *subprotocols;
        int status;
    } rows[] = {
        {"http://localhost/", NULL, RWS_E_URL},
        {"ws://", NULL, RWS_E_URL},
        {"ws://127.0.0.1/a b", NULL, RWS_E_URL},
        {"ws://127.0.0.1/\r\nX: y", NULL, RWS_E_URL},
        {"ws://127.0.0.1/", "a b", RWS_E_ARGUMENT},
        {"ws://127.0.0.1/", "a\r\nX: y", RWS_E_ARGUMENT},
    };
    start();
    for (size_t i = 0; i < COUNT(rows); i++)
        cr_expect_eq(dial(rows[i].url, rows[i].subprotocols), rows[i].status, "%s", rows[i].url);
    char path[256] = "ws+unix:///";
    memset(path + 11, 'p', 200);
    cr_expect_eq(dial(path, NULL), RWS_E_ADDRESS, "longer than a socket's path");
    world_log_is(&w, "", "nothing was started");
    world_end(&w);
}

/* A client lets the server end the transport, but not for ever. */
Test(engine_dialer, waits_for_the_server_to_end_the_transport)
{
    for (int patient = 0; patient < 2; patient++) {
        start();
        uint32_t file = open_client();
        rws_conn_close(world_conn(&w, file), 1000, "bye");
        world_turns(&w, 2);
        world_frame(&w, file, RWS_CLOSE,
                    "\x03\xe8"
                    "bye");
        world_turns(&w, 3);
        world_log_is(&w, "close100:1000:bye:us ", "closed");
        cr_assert_not(w.ring->closed[file]);
        if (patient)
            world_advance(&w, 550);
        else
            world_eof(&w, file);
        world_turns(&w, 3);
        cr_assert(w.ring->closed[file]);
        world_end(&w);
    }
}
