/*
 * The life of a connection on the scripted ring (ctest: scripted ring): whoever ends it and
 * whenever, on_close comes exactly once, and everything is given back with the last completion.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/scripted_shard.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static world w;

Test(engine_conn, echoes_a_message_and_closes)
{
    test_options options = world_server_options();
    world_start(&w, &options);
    uint32_t file = world_open(&w);
    world_log_is(&w, "open0 ", "after the handshake");
    world_frame(&w, file, RWS_TEXT, "hello");
    world_log_is(&w, "text0:hello ", "a message");
    cr_assert_eq(rws_conn_send_text(world_conn(&w, file), "hi", 2), 0);
    world_turns(&w, 2);
    cr_assert_str_eq(world_sent(&w, file), "text:hi ");
    world_frame(&w, file, RWS_CLOSE,
                "\x03\xe8"
                "bye");
    world_turns(&w, 4);
    world_log_is(&w, "close0:1000:bye:peer ", "a close frame");
    cr_assert_str_eq(world_sent(&w, file), "text:hi close:1000:bye ");
    cr_assert(w.ring->closed[file]);
    world_end(&w);
}

/* ---- when: what the connection is doing ---- */

typedef enum end_moment {
    IDLE,
    PAUSED,
    PAUSED_WITH_DATA,
    CUT_HEADER,
    CUT_MESSAGE,
    CUT_LARGE_MESSAGE,
    SENDING,
    CLOSE_SENT,
    CLOSE_RECEIVED,
    IN_CALLBACK, /* the rest */
    IN_OPEN = IN_CALLBACK,
    IN_MESSAGE,
    IN_DRAIN,
    IN_PING,
    IN_PONG,
    IN_CLOSE_FRAME,
    IN_CLOSE,
    MOMENTS
} end_moment;

static const char *const moment_names[MOMENTS] = {
    "idle",        "paused",       "paused with data",
    "in a header", "in a message", "in a large message",
    "sending",     "close sent",   "close received",
    "open",        "message",      "drain",
    "ping",        "pong",         "close_frame",
    "close",
};

/* ---- who ends it ---- */

typedef enum end_kind {
    NOBODY,
    CLOSE,
    CLOSE_AND_ABORT,
    ABORT,
    ABORT_AND_CLOSE,
    SEND_AND_CLOSE,
    PAUSE_AND_CLOSE,
    CALLBACK_ENDERS, /* the rest is not for callbacks */
    PEER_CLOSE = CALLBACK_ENDERS,
    PEER_BAD_CLOSE,
    PEER_GARBAGE,
    PEER_EOF,
    PEER_RESET,
    SEND_RESET,
    TIME,
    STOP,
    ENDERS
} end_kind;

static const char *const ender_names[ENDERS] = {
    "nobody",         "close",           "close and abort", "abort",     "abort and close",
    "send and close", "pause and close", "peer's close",    "bad close", "garbage",
    "end of stream",  "reset",           "send failed",     "time",      "stop",
};

static void end_by_program(rws_conn *conn, end_kind ender)
{
    if (ender == SEND_AND_CLOSE) rws_conn_send_text(conn, "last", 4);
    if (ender == PAUSE_AND_CLOSE) rws_conn_pause(conn);
    if (ender == ABORT || ender == ABORT_AND_CLOSE) rws_conn_abort(conn);
    if (ender != ABORT && ender != NOBODY) rws_conn_close(conn, 4000, "program");
    if (ender == CLOSE_AND_ABORT) rws_conn_abort(conn);
    if (ender == PAUSE_AND_CLOSE) rws_conn_pause(conn);
}

/* The moment and the ender of the case that runs, for the hook. */
static end_moment current_moment;
static end_kind current_ender;

static void end_in_callback(world *self, rws_conn *conn, const char *what)
{
    (void)self;
    if (current_moment < IN_CALLBACK || strcmp(what, moment_names[current_moment]) != 0) return;
    end_by_program(conn, current_ender);
}

static void peer_sends(uint32_t file, uint8_t first, bool masked, const char *text, size_t take)
{
    feed_bytes frame = {0};
    feed_append_frame(&frame, first, masked, text, strlen(text));
    if (script_find_recv(w.ring, file) != NULL)
        script_recv(w.ring, file, frame.data, take < frame.len ? take : frame.len, false);
    feed_bytes_free(&frame);
    world_turn(&w);
}

static void complete_recv(uint32_t file, int32_t res)
{
    script_op *op = script_find_recv(w.ring, file);
    if (op != NULL) script_complete(w.ring, op, res, 0);
    world_turn(&w);
}

static void end_from_outside(uint32_t file, end_kind ender)
{
    switch (ender) {
    case PEER_CLOSE: peer_sends(file, 0x88, true, "\x03\xe8peer", 100); break;
    case PEER_BAD_CLOSE: peer_sends(file, 0x88, true, "\x03", 100); break;
    case PEER_GARBAGE: peer_sends(file, 0xff, false, "garbage", 100); break;
    case PEER_EOF: complete_recv(file, 0); break;
    case PEER_RESET: complete_recv(file, -ECONNRESET); break;
    case SEND_RESET: {
        rws_conn *conn = world_conn(&w, file);
        if (rws_conn_send_text(conn, "x", 1) != 0) break;
        world_pump(&w);
        script_op *op = script_find(w.ring, SCRIPT_SEND_QUIET, file);
        if (op == NULL) op = script_find(w.ring, SCRIPT_SEND, file);
        if (op != NULL) script_complete(w.ring, op, -EPIPE, 0);
        world_turn(&w);
        break;
    }
    case TIME: world_advance(&w, 100000); break;
    case STOP: rws__loop_stop(&w.shard->loop); break;
    default: end_by_program(world_conn(&w, file), ender);
    }
}

static const char *long_text(void)
{
    static char text[300001];
    memset(text, 'x', sizeof text - 1);
    return text;
}

/* Bring an open connection to a moment; callbacks come with what the peer does here. */
static void bring_to(uint32_t file, end_moment moment)
{
    rws_conn *conn = world_conn(&w, file);
    switch (moment) {
    case PAUSED: rws_conn_pause(conn); break;
    case PAUSED_WITH_DATA:
        rws_conn_pause(conn);
        peer_sends(file, 0x81, true, "kept", 100);
        break;
    case CUT_HEADER: peer_sends(file, 0x81, true, "hello", 3); break;
    case CUT_MESSAGE: peer_sends(file, 0x81, true, "hello", 8); break;
    case CUT_LARGE_MESSAGE: peer_sends(file, 0x81, true, long_text(), 1000); break;
    case SENDING:
    case IN_DRAIN:
        rws_conn_send_text(conn, long_text(), 300000);
        world_turns(&w, 2);
        if (moment == SENDING) return;
        script_complete(w.ring, script_find(w.ring, SCRIPT_SEND, file), 300010, 0);
        break;
    case CLOSE_SENT: rws_conn_close(conn, 1000, "first"); break;
    case CLOSE_RECEIVED:
    case IN_CLOSE_FRAME: peer_sends(file, 0x88, true, "\x03\xe8peer", 100); break;
    case IN_MESSAGE: peer_sends(file, 0x81, true, "hello", 100); break;
    case IN_PING: peer_sends(file, 0x89, true, "ping", 100); break;
    case IN_PONG: peer_sends(file, 0x8a, true, "pong", 100); break;
    case IN_CLOSE: rws_conn_abort(conn); break;
    default: break;
    }
    world_turns(&w, 2);
}

typedef struct end_variant {
    bool manual_close; /* the end of the file is scripted, and comes late */
    int callbacks;     /* what they return */
    bool program_controls;
} end_variant;

static void check_end(end_moment moment, end_kind ender, const end_variant *variant)
{
    char name[128];
    snprintf(name, sizeof name, "%s while %s (%d %d %d)", ender_names[ender], moment_names[moment],
             variant->manual_close, variant->callbacks, variant->program_controls);
    current_moment = moment;
    current_ender = ender;
    test_options options = world_server_options();
    options.message_bytes_max = 1u << 20;
    options.high_watermark_bytes = 65536;
    options.handle_ping = options.handle_pong = options.handle_close = variant->program_controls;
    world_start(&w, &options);
    w.hook = end_in_callback;
    if (moment == SENDING || moment == IN_DRAIN) w.ring->manual = SCRIPT_BIT(SCRIPT_SEND);
    if (variant->manual_close)
        w.ring->manual |=
            SCRIPT_BIT(SCRIPT_CLOSE) | SCRIPT_BIT(SCRIPT_CANCEL_FILE) | SCRIPT_BIT(SCRIPT_CANCEL);
    w.message_result = w.control_result = variant->callbacks;
    uint32_t file = world_accept(&w);
    world_feed(&w, file, world_request, strlen(world_request));
    world_turn(&w);
    rws_conn *conn = world_conn(&w, file);
    if (conn != NULL && w.open[file]) bring_to(file, moment);
    conn = world_conn(&w, file);
    if (moment < IN_CALLBACK && conn != NULL && w.open[file]) end_from_outside(file, ender);
    world_turns(&w, 3);
    if (w.ring->closed[file] && !variant->manual_close)
        cr_expect_eq(w.shard->conns.streams.slots_used, 0, "%s: the slot is not free", name);
    script_op *accept = script_find(w.ring, SCRIPT_ACCEPT_MULTISHOT, UINT32_MAX);
    if (variant->manual_close && w.shard->conns.draining && accept != NULL)
        script_complete(w.ring, accept, -ECANCELED, 0); /* what the cancel was meant for */
    world_end(&w);
    cr_expect_eq(w.closes, 1, "%s: %u times closed", name, w.closes);
}

static void check_all(const end_variant *variant)
{
    for (int moment = 0; moment < MOMENTS; moment++) {
        int enders = moment < (int)IN_CALLBACK ? ENDERS : CALLBACK_ENDERS;
        for (int ender = 0; ender < enders; ender++)
            check_end((enum end_moment)moment, (enum end_kind)ender, variant);
    }
}

Test(engine_conn, closes_exactly_once_whoever_ends_it_and_whenever)
{
    check_all(&(end_variant){.program_controls = true});
}

Test(engine_conn, closes_exactly_once_when_the_engine_answers_the_control_frames)
{
    check_all(&(end_variant){.program_controls = false});
}

Test(engine_conn, closes_exactly_once_when_every_callback_fails)
{
    check_all(&(end_variant){.program_controls = true, .callbacks = -1});
}

Test(engine_conn, closes_exactly_once_when_the_kernel_takes_its_time)
{
    check_all(&(end_variant){.manual_close = true, .program_controls = true});
}

/* ---- what on_close and the peer are told ---- */

static const struct told_case {
    const char *name;
    end_moment moment;
    end_kind ender;
    const char *log;  /* from the ender on */
    const char *sent; /* all frames */
} told_cases[] = {
    {"peer closes", IDLE, PEER_CLOSE, "close0:1000:peer:peer ", "close:1000:peer "},
    {"bad close", IDLE, PEER_BAD_CLOSE,
     "close0:1002:the peer broke the WebSocket protocol (RFC 6455):us ",
     "close:1002:the peer broke the WebSocket protocol (RFC 6455) "},
    {"garbage", IDLE, PEER_GARBAGE,
     "close0:1002:the peer broke the WebSocket protocol (RFC 6455):us ",
     "close:1002:the peer broke the WebSocket protocol (RFC 6455) "},
    {"end of stream", IDLE, PEER_EOF, "close0:1006::peer ", ""},
    {"end of stream in a header", CUT_HEADER, PEER_EOF, "close0:1006::peer ", ""},
    {"end of stream in a message", CUT_MESSAGE, PEER_EOF, "close0:1006::peer ", ""},
    {"end of stream in a large message", CUT_LARGE_MESSAGE, PEER_EOF, "close0:1006::peer ", ""},
    {"end of stream after our close", CLOSE_SENT, PEER_EOF, "close0:1006::peer ",
     "close:1000:first "},
    {"reset", IDLE, PEER_RESET, "close0:1006::peer ", ""},
    {"abort", IDLE, ABORT, "close0:1006::us ", ""},
    {"abort after our close", CLOSE_SENT, ABORT, "close0:1006::us ", "close:1000:first "},
    {"send and close", IDLE, SEND_AND_CLOSE, "", "text:last close:4000:program "},
    {"peer answers our close", CLOSE_SENT, PEER_CLOSE, "close0:1000:peer:us ", "close:1000:first "},
    {"peer breaks a rule after our close", CLOSE_SENT, PEER_GARBAGE,
     "close0:1002:the peer broke the WebSocket protocol (RFC 6455):us ", "close:1000:first "},
    {"peer never answers our close", CLOSE_SENT, TIME, "close0:1006::us ", "close:1000:first "},
    {"drain", IDLE, STOP, "", "close:1001: "},
};

Test(engine_conn, tells_the_code_and_who_closed)
{
    for (size_t i = 0; i < COUNT(told_cases); i++) {
        const struct told_case *row = &told_cases[i];
        test_options options = world_server_options();
        options.message_bytes_max = 1u << 20;
        world_start(&w, &options);
        uint32_t file = world_open(&w);
        bring_to(file, row->moment);
        w.log.len = 0;
        end_from_outside(file, row->ender);
        world_turns(&w, 3);
        world_log_is(&w, row->log, row->name);
        cr_expect_str_eq(world_sent(&w, file), row->sent, "%s: %s", row->name,
                         world_sent(&w, file));
        world_end(&w);
    }
}

Test(engine_conn, drops_what_follows_a_close)
{
    static const end_moment moments[] = {CLOSE_SENT, CLOSE_RECEIVED};
    for (size_t i = 0; i < COUNT(moments); i++) {
        test_options options = world_server_options();
        options.handle_close = true;
        world_start(&w, &options);
        uint32_t file = world_open(&w);
        bring_to(file, moments[i]);
        w.log.len = 0;
        peer_sends(file, 0x81, true, "too late", 100);
        peer_sends(file, 0x89, true, "ping", 100);
        world_turns(&w, 2);
        world_log_is(&w, "", "after a close frame");
        cr_assert_null(strstr(world_sent(&w, file), "pong"));
        world_end(&w);
    }
}

/* The slot goes back with the last completion, in whatever order they come. */
Test(engine_conn, gives_the_slot_back_with_the_last_completion)
{
    for (int order = 0; order < 6; order++) {
        test_options options = world_server_options();
        options.high_watermark_bytes = 1u << 20; /* it goes on reading */
        world_start(&w, &options);
        w.ring->manual =
            SCRIPT_BIT(SCRIPT_CLOSE) | SCRIPT_BIT(SCRIPT_CANCEL_FILE) | SCRIPT_BIT(SCRIPT_SEND);
        uint32_t file = world_open(&w);
        rws_conn_send_text(world_conn(&w, file), long_text(), 300000);
        world_turn(&w);
        rws_conn_abort(world_conn(&w, file));
        world_turns(&w, 2);
        script_op *ops[3] = {script_find(w.ring, SCRIPT_SEND, file), script_find_recv(w.ring, file),
                             script_find(w.ring, SCRIPT_CLOSE, file)};
        int first = order / 2, second = (first + 1 + order % 2) % 3, third = 3 - first - second;
        const int sequence[3] = {first, second, third};
        for (int i = 0; i < 3; i++) {
            cr_assert_eq(w.shard->conns.streams.slots_used, 1, "order %d, before completion %d",
                         order, i);
            cr_assert_not_null(ops[sequence[i]]);
            script_complete(w.ring, ops[sequence[i]], sequence[i] == 2 ? 0 : -ECANCELED, 0);
            world_turn(&w);
        }
        cr_assert_eq(w.shard->conns.streams.slots_used, 0, "order %d", order);
        world_end(&w);
    }
}

/* By its name: to find what belongs to a file the kernel looks at every connection's receive. */
Test(engine_conn, cancels_a_receive_that_is_alone_by_its_name)
{
    test_options options = world_server_options();
    options.high_watermark_bytes = 1u << 20; /* it goes on reading */
    world_start(&w, &options);
    uint32_t alone = world_open(&w), sending = world_open(&w);
    peer_sends(alone, 0x88, true, "\x03\xe8", 100);
    world_turns(&w, 3);
    cr_expect(w.ring->closed[alone]);
    cr_expect_eq(w.ring->calls_of[SCRIPT_CANCEL], 1);
    cr_expect_eq(w.ring->calls_of[SCRIPT_CANCEL_FILE], 0);
    cr_expect_eq(w.shard->conns.streams.slots_used, 1);

    w.ring->manual = SCRIPT_BIT(SCRIPT_SEND);
    rws_conn_send_text(world_conn(&w, sending), long_text(), 300000);
    world_turn(&w);
    rws_conn_abort(world_conn(&w, sending));
    world_turns(&w, 3);
    cr_expect(w.ring->closed[sending]);
    cr_expect_eq(w.ring->calls_of[SCRIPT_CANCEL_FILE], 1, "its send has to be taken back too");
    cr_expect_eq(w.shard->conns.streams.slots_used, 0);
    world_end(&w);
}

/* The kernel looks the file of a shutdown up late: until then its index is not given to another. */
Test(engine_conn, closes_the_file_only_after_the_shutdown_has_completed)
{
    test_options options = world_server_options();
    world_start(&w, &options);
    w.ring->manual = SCRIPT_BIT(SCRIPT_SHUTDOWN);
    uint32_t file = world_open(&w);
    peer_sends(file, 0xff, false, "garbage", 100);
    world_turns(&w, 3);
    complete_recv(file, 0);
    world_advance(&w, 100000);
    cr_assert_eq(w.ring->calls_of[SCRIPT_CLOSE], 0);
    cr_assert_eq(w.shard->conns.streams.slots_used, 1);
    script_complete(w.ring, script_find(w.ring, SCRIPT_SHUTDOWN, file), -ENOTCONN, 0);
    world_turns(&w, 3);
    cr_assert(w.ring->closed[file]);
    cr_assert_eq(w.shard->conns.streams.slots_used, 0);
    world_end(&w);
}

/* Before 6.7 the kernel puts the file of a close late, so the peer is told by a shutdown first. */
Test(engine_conn, tells_the_peer_of_every_end_before_the_close_where_that_is_late)
{
    static const uint32_t off[] = {0, RWS__FEATURE_SOCKET_COMMANDS};
    for (size_t i = 0; i < 2; i++)
        for (int aborted = 0; aborted < 2; aborted++) {
            test_options options = world_server_options();
            options.features_off = off[i];
            world_start(&w, &options);
            uint32_t file = world_open(&w);
            if (aborted)
                rws_conn_abort(world_conn(&w, file));
            else
                complete_recv(file, 0);
            world_turns(&w, 5);
            cr_expect(w.ring->closed[file]);
            cr_expect_eq(w.ring->calls_of[SCRIPT_SHUTDOWN], i, "off 0x%x, aborted %d", off[i],
                         aborted);
            cr_expect_eq(w.shard->conns.streams.slots_used, 0);
            world_end(&w);
        }
}
