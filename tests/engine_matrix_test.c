/*
 * Every call of the program and every event of the transport in every state and every callback, on
 * the scripted ring (ctest: scripted ring). What is checked is what holds for all of them: on_close
 * comes exactly once for each on_open and never within a call of the program, nothing is called
 * after it, no memory and no operation is left, and the server drains. Debug builds check the
 * invariants of the connection after every turn.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/scripted_shard.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static world w;

/* ---- what the program does ---- */

typedef enum act {
    NOTHING,
    SEND,
    SEND_LARGE,
    SEND_FRAMES,
    PING,
    CLOSE,
    ABORT,
    PAUSE,
    RESUME,
    PAUSE_AND_ABORT,
    CLOSE_AND_ABORT,
    SEND_AND_CLOSE,
    PEER,
    STOP,
    ACTS
} act;

static const char *const act_names[ACTS] = {
    "nothing", "send",   "send large",      "send frames",     "ping",           "close", "abort",
    "pause",   "resume", "pause and abort", "close and abort", "send and close", "peer",  "stop",
};

static char large[120000];

static void do_act(rws_conn *conn, act what)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof address;
    uint32_t closes = w.closes;
    switch (what) {
    case SEND: (void)rws_conn_send(conn, RWS_TEXT, "hello", 5); break;
    case SEND_LARGE: (void)rws_conn_send(conn, RWS_BINARY, large, sizeof large); break;
    case SEND_FRAMES:
        (void)rws_conn_send_frame(conn, RWS_TEXT, false, "he", 2);
        (void)rws_conn_send_frame(conn, RWS_CONTINUATION, true, "llo", 3);
        break;
    case PING: (void)rws_conn_send_frame(conn, RWS_PING, true, "?", 1); break;
    case CLOSE: (void)rws_conn_close(conn, 1000, "bye"); break;
    case ABORT: rws_conn_abort(conn); break;
    case PAUSE: rws_conn_pause(conn); break;
    case RESUME: rws_conn_resume(conn); break;
    case PAUSE_AND_ABORT:
        rws_conn_pause(conn);
        rws_conn_abort(conn);
        break;
    case CLOSE_AND_ABORT:
        (void)rws_conn_close(conn, 1000, NULL);
        rws_conn_abort(conn);
        break;
    case SEND_AND_CLOSE:
        (void)rws_conn_send(conn, RWS_TEXT, "hello", 5);
        (void)rws_conn_close(conn, 1000, NULL);
        break;
    case PEER: (void)rws_conn_peer(conn, (void *)&address, &len); break;
    case STOP: rws__loop_stop(&w.shard->loop); break;
    default: break;
    }
    cr_assert_eq(w.closes, closes, "on_close came from within '%s'", act_names[what]);
}

/* ---- what happens ---- */

typedef enum event {
    TURN,
    MESSAGE,
    TWO_MESSAGES,
    HALF_A_MESSAGE,
    PING_FRAME,
    CLOSE_FRAME,
    TWO_CLOSE_FRAMES,
    BAD_FRAME,
    BAD_CLOSE_FRAME,
    END_OF_STREAM,
    MESSAGE_AND_END,
    CLOSE_AND_END,
    RESET,
    SEND_FAILS,
    SEND_IS_SHORT,
    LONG_TIME,
    EVENTS
} event;

static const char *const event_names[EVENTS] = {
    "a turn",
    "a message",
    "two messages",
    "half a message",
    "a ping",
    "a close frame",
    "two close frames",
    "a bad frame",
    "a bad close frame",
    "the end",
    "a message and the end",
    "a close frame and the end",
    "a reset",
    "a send that fails",
    "a short send",
    "a long time",
};

static void append(feed_bytes *bytes, uint8_t first, const char *text)
{
    feed_append_frame(bytes, first, true, text, strlen(text));
}

/* Bytes for whatever receives, if anything does. */
static void bring(uint32_t file, const feed_bytes *bytes, bool ends)
{
    size_t at = 0;
    while (at < bytes->len) {
        size_t taken = script_recv(w.ring, file, bytes->data + at, bytes->len - at, false);
        if (taken == 0) break;
        at += taken;
        if (at < bytes->len) world_turn(&w);
    }
    script_op *op = ends ? script_find_recv(w.ring, file) : NULL;
    if (op != NULL) script_complete(w.ring, op, 0, 0);
}

static void end_recv(uint32_t file, int32_t res)
{
    script_op *op = script_find_recv(w.ring, file);
    if (op != NULL) script_complete(w.ring, op, res, 0);
}

static void end_send(uint32_t file, int32_t res)
{
    script_op *op = script_find(w.ring, SCRIPT_SEND, file);
    if (op == NULL) op = script_find(w.ring, SCRIPT_SEND_QUIET, file);
    if (op == NULL) return;
    if (res > (int32_t)op->len) res = (int32_t)op->len;
    script_complete(w.ring, op, res, 0);
}

static void happen(uint32_t file, event what)
{
    feed_bytes bytes = {0};
    bool ends = what == END_OF_STREAM || what == MESSAGE_AND_END || what == CLOSE_AND_END;
    switch (what) {
    case MESSAGE:
    case MESSAGE_AND_END: append(&bytes, 0x81, "hello"); break;
    case TWO_MESSAGES:
        append(&bytes, 0x81, "hello");
        append(&bytes, 0x81, "again");
        break;
    case HALF_A_MESSAGE:
        append(&bytes, 0x81, "hello");
        bytes.len -= 3;
        break;
    case PING_FRAME: append(&bytes, 0x89, "ping"); break;
    case CLOSE_FRAME:
    case CLOSE_AND_END: append(&bytes, 0x88, "\x03\xe8"); break;
    case TWO_CLOSE_FRAMES:
        append(&bytes, 0x88, "\x03\xe8");
        append(&bytes, 0x88, "\x03\xe9");
        break;
    case BAD_FRAME: feed_bytes_append(&bytes, "\xff\xff", 2); break;
    case BAD_CLOSE_FRAME: append(&bytes, 0x88, "\x03"); break;
    case RESET: end_recv(file, -ECONNRESET); break;
    case SEND_FAILS: end_send(file, -EPIPE); break;
    case SEND_IS_SHORT: end_send(file, 1); break;
    case LONG_TIME: world_pass(&w, 400); break;
    default: break;
    }
    bring(file, &bytes, ends);
    feed_bytes_free(&bytes);
    world_turn(&w);
}

/* ---- one run ---- */

static struct {
    const char *callback; /* in which the program acts; NULL: between the turns */
    act what;
    uint32_t times;
} plan;

static void on_callback(world *self, rws_conn *conn, const char *what)
{
    (void)self;
    if (plan.callback == NULL || strcmp(plan.callback, what) != 0 || plan.times == 0) return;
    plan.times--;
    do_act(conn, plan.what);
}

static void start(bool program_answers)
{
    test_options options = world_server_options();
    options.message_bytes_max = 1u << 20;
    options.high_watermark_bytes = 4000;
    options.low_watermark_bytes = 1000;
    options.handle_ping = options.handle_pong = true;
    options.handle_close = program_answers;
    options.handshake_timeout_ms = 200;
    options.message_timeout_ms = 200;
    options.close_timeout_ms = 200;
    options.send_timeout_ms = 128;
    options.drain_timeout_ms = 500;
    world_start(&w, &options);
    w.hook = on_callback;
}

static void end(const char *context)
{
    plan.callback = NULL;
    plan.times = 0;
    w.ring->manual = 0;
    uint32_t opens = 0;
    for (const char *at = world_log(&w); (at = strstr(at, "open")) != NULL; at++)
        opens++;
    world_end(&w);
    cr_assert_leq(w.closes, opens);
    cr_assert_eq(w.closes, opens, "%s: %u times on_open, %u times on_close", context, opens,
                 w.closes);
}

/* ---- in every callback ---- */

static const char *const callbacks[] = {"open", "message", "drain",      "close",
                                        "ping", "pong",    "close_frame"};

/* Something of everything, so that each callback is called. */
static void live(uint32_t file)
{
    feed_bytes bytes = {0};
    append(&bytes, 0x81, "hello");
    append(&bytes, 0x89, "ping");
    append(&bytes, 0x8a, "pong");
    append(&bytes, 0x01, "frag");
    bring(file, &bytes, false);
    world_turns(&w, 2);
    rws_conn *conn = world_conn(&w, file);
    if (conn != NULL && w.open[file]) (void)rws_conn_send(conn, RWS_BINARY, large, 8000);
    world_turns(&w, 4);
    bytes.len = 0;
    append(&bytes, 0x80, "ment");
    append(&bytes, 0x88, "\x03\xe8");
    bring(file, &bytes, false);
    feed_bytes_free(&bytes);
    world_turns(&w, 3);
}

Test(engine_matrix, takes_every_call_in_every_callback)
{
    for (size_t at = 0; at < COUNT(callbacks); at++) {
        for (act what = 0; what < ACTS; what++) {
            for (int variant = 0; variant < 6; variant++) {
                char context[128];
                snprintf(context, sizeof context, "'%s' in on_%s, variant %d", act_names[what],
                         callbacks[at], variant);
                start(variant & 1);
                plan.callback = callbacks[at];
                plan.what = what;
                plan.times = variant & 2 ? 100 : 1;
                if (variant & 4) w.ring->features &= ~RWS__FEATURE_ALL;
                uint32_t file = world_accept(&w);
                world_feed(&w, file, world_request, strlen(world_request));
                world_turns(&w, 2);
                live(file);
                end(context);
            }
        }
    }
}

/* ---- in every state ---- */

typedef enum state {
    OPEN,
    PAUSED,
    STALLED, /* paused, and input waits */
    PARTIAL,
    BLOCKED, /* the socket is full, and more is queued than the watermark */
    CLOSE_SENT,
    CLOSE_SENT_BLOCKED,
    CLOSE_RECEIVED, /* the program has not answered yet */
    CLOSED_BY_PEER,
    CLOSED_BY_PEER_BLOCKED,
    FAILED,
    FAILED_BLOCKED,
    ENDED_BLOCKED, /* the peer ended its half, and does not take what is queued */
    ABORTED,
    STATES
} state;

static const char *const state_names[STATES] = {
    "open",
    "paused",
    "stalled",
    "partial",
    "blocked",
    "close sent",
    "close sent, blocked",
    "close received",
    "closed by the peer",
    "closed by the peer, blocked",
    "failed",
    "failed, blocked",
    "ended, blocked",
    "aborted",
};

static void block(uint32_t file)
{
    w.ring->manual |= SCRIPT_BIT(SCRIPT_SEND);
    (void)rws_conn_send(world_conn(&w, file), RWS_BINARY, large, 3000);
    world_pump(&w);
    end_send(file, 10);
    world_turn(&w);
    (void)rws_conn_send(world_conn(&w, file), RWS_BINARY, large, 3000);
    world_turn(&w);
}

static uint32_t reach(state where)
{
    uint32_t file = world_open(&w);
    rws_conn *conn = world_conn(&w, file);
    switch (where) {
    case PAUSED:
        rws_conn_pause(conn);
        world_turns(&w, 2);
        break;
    case STALLED:
        rws_conn_pause(conn);
        happen(file, TWO_MESSAGES);
        break;
    case PARTIAL: happen(file, HALF_A_MESSAGE); break;
    case BLOCKED:
    case CLOSE_SENT_BLOCKED:
    case CLOSED_BY_PEER_BLOCKED:
    case FAILED_BLOCKED:
    case ENDED_BLOCKED: block(file); break;
    default: break;
    }
    switch (where) {
    case CLOSE_SENT:
    case CLOSE_SENT_BLOCKED: rws_conn_close(conn, 1000, NULL); break;
    case CLOSE_RECEIVED:
    case CLOSED_BY_PEER:
    case CLOSED_BY_PEER_BLOCKED: happen(file, CLOSE_FRAME); break;
    case FAILED:
    case FAILED_BLOCKED: happen(file, BAD_FRAME); break;
    case ENDED_BLOCKED: happen(file, END_OF_STREAM); break;
    case ABORTED: rws_conn_abort(conn); break;
    default: break;
    }
    return file;
}

/* Kinds of submissions that are not taken, or do not complete, for a while. */
static const struct trouble {
    const char *name;
    uint32_t manual, refused;
} troubles[] = {
    {"no trouble", 0, 0},
    {"slow sends", SCRIPT_BIT(SCRIPT_SEND), 0},
    {"slow ends", SCRIPT_BIT(SCRIPT_SHUTDOWN) | SCRIPT_BIT(SCRIPT_CLOSE), 0},
    {"slow cancels", SCRIPT_BIT(SCRIPT_CANCEL) | SCRIPT_BIT(SCRIPT_CANCEL_FILE), 0},
    {"slow answers", SCRIPT_BIT(SCRIPT_UNACKNOWLEDGED), 0},
    {"a full queue", 0, 2},
};

static void take_trouble(const struct trouble *trouble)
{
    w.ring->manual |= trouble->manual;
    for (int kind = SCRIPT_RECV_MULTISHOT; kind < SCRIPT_KINDS; kind++)
        w.ring->refuse[kind] = trouble->refused;
}

/* The ring forgets a cancel that is slow: what it was meant for ends now. */
static void end_cancelled(uint32_t file)
{
    rws_conn *conn = world_conn(&w, file);
    if (conn != NULL && conn->stream.recv_cancelled) end_recv(file, -ECANCELED);
    script_op *op = script_find(w.ring, SCRIPT_ACCEPT_MULTISHOT, UINT32_MAX);
    if (op != NULL && w.shard->listeners[0].cancelled) script_complete(w.ring, op, -ECANCELED, 0);
    script_cancel_closed(w.ring);
}

static void end_trouble(uint32_t file)
{
    w.ring->manual = 0;
    memset(w.ring->refuse, 0, sizeof w.ring->refuse);
    end_cancelled(file);
    world_turns(&w, 4);
}

static void act_on(uint32_t file, act what)
{
    rws_conn *conn = world_conn(&w, file);
    /* As the program, which forgets it with on_close. */
    if (conn != NULL && w.open[file]) do_act(conn, what);
}

static void take_pair(state where, act what, event then, bool event_first,
                      const struct trouble *trouble)
{
    char context[256];
    snprintf(context, sizeof context, "%s: '%s', %s %s, %s", state_names[where], act_names[what],
             event_names[then], event_first ? "before" : "after", trouble->name);
    start(where == CLOSE_RECEIVED);
    uint32_t file = reach(where);
    take_trouble(trouble);
    if (!event_first) act_on(file, what);
    happen(file, then);
    if (event_first) act_on(file, what);
    world_turns(&w, 2);
    end_trouble(file);
    end(context);
}

static void take_state(state where)
{
    for (act what = 0; what < ACTS; what++)
        for (event then = 0; then < EVENTS; then++)
            for (int first = 0; first < 2; first++)
                for (size_t i = 0; i < COUNT(troubles); i++)
                    take_pair(where, what, then, first, &troubles[i]);
}

/* One test for each, so that they run side by side. */
#define STATE_TEST(name, where)                                                                    \
    Test(engine_matrix, takes_every_call_and_event_when_##name)                                    \
    {                                                                                              \
        take_state(where);                                                                         \
    }
STATE_TEST(open, OPEN)
STATE_TEST(paused, PAUSED)
STATE_TEST(stalled, STALLED)
STATE_TEST(partial, PARTIAL)
STATE_TEST(blocked, BLOCKED)
STATE_TEST(close_was_sent, CLOSE_SENT)
STATE_TEST(close_was_sent_to_a_full_socket, CLOSE_SENT_BLOCKED)
STATE_TEST(close_was_received, CLOSE_RECEIVED)
STATE_TEST(the_peer_closed, CLOSED_BY_PEER)
STATE_TEST(the_peer_closed_behind_a_full_socket, CLOSED_BY_PEER_BLOCKED)
STATE_TEST(failed, FAILED)
STATE_TEST(failed_with_a_full_socket, FAILED_BLOCKED)
STATE_TEST(the_peer_ended_behind_a_full_socket, ENDED_BLOCKED)
STATE_TEST(aborted, ABORTED)
