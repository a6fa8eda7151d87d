/*
 * The life of a connection: its states, its deadlines, and its end.
 */
#include "engine/conn/conn.h"

#include "codec/close.h"

#include <errno.h>
#include <string.h>

#define TO(state) (1u << (state))

/* The only legal moves. No way back to OPEN: RFC 6455, section 5.5.1. */
static const uint16_t conn_moves[RWS__CONN_STATE_COUNT] = {
    [RWS__CONN_FREE] = TO(RWS__CONN_CONNECTING),
    [RWS__CONN_CONNECTING] = TO(RWS__CONN_UPGRADING) | TO(RWS__CONN_ENDED) | TO(RWS__CONN_FREE),
    [RWS__CONN_UPGRADING] = TO(RWS__CONN_OPEN) | TO(RWS__CONN_ENDED),
    [RWS__CONN_OPEN] =
        TO(RWS__CONN_CLOSE_SENT) | TO(RWS__CONN_CLOSE_RECEIVED) | TO(RWS__CONN_ENDING),
    [RWS__CONN_CLOSE_SENT] = TO(RWS__CONN_ENDING),
    [RWS__CONN_CLOSE_RECEIVED] = TO(RWS__CONN_ENDING),
    [RWS__CONN_ENDING] = TO(RWS__CONN_ENDED),
    [RWS__CONN_ENDED] = TO(RWS__CONN_FREE),
};

/* ---- deadlines ---- */

static rws__deadline deadline_kind(const rws_conn *conn)
{
    return conn->state == RWS__CONN_OPEN ? RWS__DEADLINE_MESSAGE : RWS__DEADLINE_OPENING;
}

void rws__conn_set_deadline(rws_conn *conn, uint32_t delay_ms)
{
    rws__loop_set(rws__conn_loop(conn), deadline_kind(conn), &conn->timer, delay_ms);
}

void rws__conn_clear_deadline(rws_conn *conn)
{
    rws__loop_clear(rws__conn_loop(conn), deadline_kind(conn), &conn->timer);
}

void rws__conn_enter(rws_conn *conn, rws__conn_state state)
{
    RWS_ASSERT(conn_moves[conn->state] & TO(state));
    /* The handshake's deadline goes on; every other state has its own. */
    if (state != RWS__CONN_CONNECTING && state != RWS__CONN_UPGRADING)
        rws__conn_clear_deadline(conn);
    conn->state = (uint8_t)state;
    if (state == RWS__CONN_OPEN) rws__conn_table(conn)->open_count++;
    if (state != RWS__CONN_ENDING) return;
    RWS_ASSERT(rws__conn_table(conn)->open_count > 0);
    rws__conn_table(conn)->open_count--;
}

/* ---- the end ---- */

rws__dial *rws__conn_dial(rws_conn *conn)
{
    return conn->stream.has_cold ? rws__conn_cold_part(conn)->dial : NULL;
}

/* on_close: nothing is told of it after that. */
static void tell(rws_conn *conn, const rws__cause *cause)
{
    const rws__endpoint *endpoint = conn->endpoint;
    rws__conn_enter(conn, RWS__CONN_ENDED);
    if (endpoint->handler.on_close == NULL) return;
    rws_close_info info = {
        .size = sizeof info,
        .status = cause->status,
        .code = cause->code,
        .who = cause->who,
        .reason = cause->text,
    };
    endpoint->handler.on_close(conn, &info, endpoint->user);
}

/* A handshake that did not lead to an open connection. */
static void tell_refused(rws_conn *conn, const rws__cause *cause)
{
    const rws__dial *dial = rws__conn_dial(conn);
    rws__counters *counters = rws__conn_counters(conn);
    rws__conn_enter(conn, RWS__CONN_ENDED);
    if (dial != NULL) {
        rws__conn_table(conn)->dials_count--;
        rws__dial_fail(dial, counters, cause);
    } else {
        rws__count_refused(counters, cause->status);
        rws__conn_drop_request(conn);
    }
}

rws__cause rws__conn_cut_cause(const rws_conn *conn, int status, rws_closer who)
{
    rws__cause cause = rws__cause_abnormal(status, who, NULL);
    if (conn->state == RWS__CONN_CLOSE_RECEIVED) {
        cause.code = conn->close_code;
        cause.who = RWS_CLOSED_BY_PEER;
    }
    return cause;
}

void rws__conn_end(rws_conn *conn, const rws__cause *cause, rws__finish finish)
{
    if (conn->state >= RWS__CONN_ENDING) return;
    bool was_open = conn->state >= RWS__CONN_OPEN;
    if (was_open) rws__conn_enter(conn, RWS__CONN_ENDING);
    rws__conn_clear_pause(conn, conn->pauses);
    rws__stream_finish(&conn->stream, finish);
    if (was_open)
        tell(conn, cause);
    else
        tell_refused(conn, cause);
}

void rws__conn_end_later(rws_conn *conn, int status, uint16_t code, rws_closer who,
                         rws__finish finish)
{
    rws__conn_enter(conn, RWS__CONN_ENDING);
    conn->end_status = (int16_t)status;
    conn->end_who = (uint8_t)who;
    conn->close_code = code;
    rws__conn_clear_pause(conn, conn->pauses);
    rws__stream_finish(&conn->stream, finish);
    rws__stream_want_turn(&conn->stream);
}

static void on_turn(rws__stream *stream)
{
    rws_conn *conn = (rws_conn *)stream;
    if (conn->state == RWS__CONN_UPGRADING) rws__conn_answer_request(conn);
    if (conn->state != RWS__CONN_ENDING) return;
    rws__cause cause = {conn->end_status, conn->close_code, conn->end_who, {NULL, 0}};
    tell(conn, &cause);
}

void rws__conn_fail(rws_conn *conn, int status, uint16_t code)
{
    if (conn->state >= RWS__CONN_ENDING) return;
    rws__counters *counters = rws__conn_counters(conn);
    if (status == RWS_E_TIMEOUT)
        rws__count(&counters->timeouts, 1);
    else if (status == -ENOMEM)
        rws__count(&counters->out_of_memory, 1);
    else if (status != RWS_E_INTERNAL)
        rws__count(&counters->protocol_errors, 1);
    uint8_t payload[RWS__FRAME_CONTROL_MAX];
    const char *text = rws_strerror(status);
    rws__cause cause = {status, code, RWS_CLOSED_BY_US, {text, strlen(text)}};
    int len = rws__close_write(payload, code, cause.text);
    RWS_ASSERT(len >= 0);
    /* After our own close frame nothing may be sent any more (section 5.5.1). */
    if (conn->state != RWS__CONN_CLOSE_SENT &&
        rws__conn_queue_frame(conn, RWS_CLOSE, true, payload, (size_t)len, RWS__SHARE_ONCE) != 0)
        cause = rws__cause_abnormal(status, RWS_CLOSED_BY_US, NULL);
    rws__conn_end(conn, &cause, RWS__FINISH_LINGER);
}

/* ---- what the stream tells ---- */

static void on_up(rws__stream *stream)
{
    rws_conn *conn = (rws_conn *)stream;
    rws__conn_enter(conn, RWS__CONN_UPGRADING);
    if (rws__conn_dial(conn) != NULL) rws__conn_start_handshake(conn);
}

static size_t on_input(rws__stream *stream, uint8_t *data, size_t len)
{
    rws_conn *conn = (rws_conn *)stream;
    if (conn->state == RWS__CONN_OPEN || conn->state == RWS__CONN_CLOSE_SENT)
        return rws__conn_frames(conn, data, len);
    if (conn->state == RWS__CONN_UPGRADING) return rws__conn_upgrade_input(conn, data, len);
    RWS_ASSERT(conn->state >= RWS__CONN_CLOSE_RECEIVED);
    return len; /* nothing may follow a close frame */
}

/* What is queued is sent. */
void rws__conn_on_eof(rws_conn *conn)
{
    /* The program may still answer the peer's close frame. */
    if (conn->state == RWS__CONN_CLOSE_RECEIVED) return;
    bool upgrading = conn->state == RWS__CONN_UPGRADING;
    rws__cause cause = rws__cause_abnormal(
        RWS_E_CLOSED, RWS_CLOSED_BY_PEER,
        upgrading ? "the server closed the connection before it answered" : NULL);
    rws__conn_end(conn, &cause, upgrading ? RWS__FINISH_CUT : RWS__FINISH_CLOSE);
}

static void on_eof(rws__stream *stream)
{
    rws__conn_on_eof((rws_conn *)stream);
}

/* Whether it is the connect of a dial that failed: not a step before it, nor a filter behind it. */
static bool is_failed_connect(const rws_conn *conn, const rws__cause *cause)
{
    const rws__stream *stream = &conn->stream;
    return conn->state == RWS__CONN_CONNECTING && stream->file >= 0 && stream->has_cold &&
           rws__stream_cold_of(stream)->dial != NULL && cause->who == RWS_CLOSED_BY_PEER;
}

/* The transport is over. The peer may have said before how it ends, even if nobody answered. */
static void on_ended(rws__stream *stream, const rws__cause *cause)
{
    rws_conn *conn = (rws_conn *)stream;
    /* Where there is another address the dial goes on when this file is closed (on_released). Until
     * then the connection has its deadline, and may be cancelled. */
    if (is_failed_connect(conn, cause) && rws__dial_go_on(rws__conn_dial(conn), cause)) return;
    rws__cause own = rws__conn_cut_cause(conn, cause->status, cause->who);
    own.text = cause->text;
    if (conn->state >= RWS__CONN_OPEN) own.text = (rws_span){NULL, 0};
    /* It is cut already, unless a filter has something to send. */
    rws__conn_end(conn, &own, RWS__FINISH_LINGER);
}

static void on_input_overflow(rws__stream *stream)
{
    rws_conn *conn = (rws_conn *)stream;
    rws__cause cause =
        rws__cause_abnormal(-ENOMEM, RWS_CLOSED_BY_US, "no memory for what the peer sent");
    if (conn->state == RWS__CONN_OPEN)
        rws__conn_fail(conn, -ENOMEM, RWS_CLOSE_TRY_AGAIN_LATER);
    else
        rws__conn_end(conn, &cause, RWS__FINISH_CUT);
}

/* The close's deadline passed: whether the peer still takes what was sent. */
static void on_asked(rws__stream *stream, bool moved)
{
    rws_conn *conn = (rws_conn *)stream;
    /* The deadline was set again with the question. */
    if (conn->state != RWS__CONN_CLOSE_SENT || moved || rws__conn_table(conn)->draining) return;
    rws__cause cause = rws__cause_abnormal(RWS_E_TIMEOUT, RWS_CLOSED_BY_US, NULL);
    rws__count(&rws__conn_counters(conn)->timeouts, 1);
    rws__conn_end(conn, &cause, RWS__FINISH_CUT);
}

static void on_released(rws__stream *stream)
{
    rws_conn *conn = (rws_conn *)stream;
    rws__conns *conns = rws__conn_table(conn);
    rws__dial *next = NULL;
    if (conns->budget_holder == conn) conns->budget_holder = NULL;
    rws__payload_release(conn->assembly);
    if (conn->decoder.stash != NULL) rws__pool_give(conns->streams.partial, conn->decoder.stash);
    if (stream->has_cold) {
        rws__conn_cold *cold = rws__conn_cold_part(conn);
        RWS_ASSERT(cold->request == NULL);
        if (cold->subprotocol != NULL) rws__pool_give(conns->streams.partial, cold->subprotocol);
        if (conn->state == RWS__CONN_CONNECTING)
            next = cold->dial;
        else if (cold->dial != NULL)
            rws__dial_free(conns->streams.loop->env, cold->dial);
        cold->dial = NULL;
    }
    rws__conn_enter(conn, RWS__CONN_FREE);
    RWS_ASSERT(!rws__timer_is_set(&conn->timer));
    if (next == NULL) return;
    conns->dials_count--;
    next->start(next, conns);
}

const rws__stream_events rws__conn_events = {
    .on_up = on_up,
    .on_input = on_input,
    .on_eof = on_eof,
    .on_sent = rws__conn_on_sent,
    .on_asked = on_asked,
    .on_ended = on_ended,
    .on_input_overflow = on_input_overflow,
    .on_turn = on_turn,
    .on_released = on_released,
    .check = rws__conn_check,
    .direct = rws__conn_direct,
    .direct_memory = rws__conn_direct_memory,
};

/* ---- deadlines that passed ---- */

/* The handshake's. */
static void on_handshake_timeout(rws_conn *conn)
{
    rws__cause cause =
        rws__cause_abnormal(RWS_E_TIMEOUT, RWS_CLOSED_BY_US, "the handshake did not end in time");
    rws__count(&rws__conn_counters(conn)->timeouts, 1);
    if (rws__conn_give_up_request(conn, RWS_E_TIMEOUT,
                                  "The server did not decide in time. Try again later."))
        return;
    rws__conn_end(conn, &cause, RWS__FINISH_CUT);
}

void rws__conns_on_opening_deadline(rws__timer *timer, void *loop)
{
    (void)loop;
    rws_conn *conn = (void *)((char *)timer - offsetof(rws_conn, timer));
    rws__cause cause = rws__conn_cut_cause(conn, RWS_E_TIMEOUT, RWS_CLOSED_BY_US);
    switch ((rws__conn_state)conn->state) {
    case RWS__CONN_CONNECTING:
    case RWS__CONN_UPGRADING: on_handshake_timeout(conn); return;
    case RWS__CONN_CLOSE_SENT:
        /* In a drain its own deadline is for all of them. What is still queued has a deadline, too;
         * this one is for the peer's close frame behind it. */
        rws__conn_set_deadline(conn, conn->endpoint->close_timeout_ms);
        if (!rws__conn_table(conn)->draining && rws__stream_queued(&conn->stream) == 0)
            rws__stream_ask(&conn->stream, conn->endpoint->close_timeout_ms);
        return;
    case RWS__CONN_CLOSE_RECEIVED:
        rws__count(&rws__conn_counters(conn)->timeouts, 1);
        rws__conn_end(conn, &cause, RWS__FINISH_CUT);
        return;
    case RWS__CONN_OPEN:
    case RWS__CONN_ENDING:
    case RWS__CONN_ENDED:
    case RWS__CONN_FREE:
    case RWS__CONN_STATE_COUNT: break;
    }
    RWS_UNREACHABLE("this state has no such deadline");
}

/* A message that has begun did not end. A slow peer is waited for while the message goes on, and
 * one that can't help it because this side does not read; pings in between are no progress. */
void rws__conns_on_message_deadline(rws__timer *timer, void *loop)
{
    (void)loop;
    rws_conn *conn = (void *)((char *)timer - offsetof(rws_conn, timer));
    const rws__endpoint *endpoint = conn->endpoint;
    uint32_t collected = rws__conn_collected(conn), received = collected - conn->collected_mark;
    uint64_t floor = (uint64_t)endpoint->progress_bytes_per_s_min * endpoint->message_timeout_ms;
    if (conn->pauses & RWS__PAUSE_BUDGET) {
        rws__conn_fail(conn, -ENOMEM, RWS_CLOSE_TRY_AGAIN_LATER);
    } else if (conn->pauses != 0 || (uint64_t)received * 1000 >= floor) {
        conn->collected_mark = collected;
        rws__conn_set_deadline(conn, endpoint->message_timeout_ms);
    } else {
        rws__conn_fail(conn, RWS_E_TIMEOUT, RWS_CLOSE_POLICY_VIOLATION);
    }
}

/* ---- pausing ---- */

void rws__conn_set_pause(rws_conn *conn, uint8_t reason)
{
    if (conn->pauses & reason) return;
    if (reason == RWS__PAUSE_BUDGET)
        rws__slot_queue_append(&rws__conn_table(conn)->budget, &conn->stream);
    conn->pauses |= reason;
    rws__stream_pause(&conn->stream);
}

void rws__conn_clear_pause(rws_conn *conn, uint8_t reasons)
{
    if ((conn->pauses & reasons) == 0) return;
    if (conn->pauses & reasons & RWS__PAUSE_BUDGET)
        rws__slot_queue_remove(&rws__conn_table(conn)->budget, &conn->stream);
    conn->pauses &= (uint8_t)~reasons;
    if (conn->pauses == 0) rws__stream_resume(&conn->stream);
}

/* ---- the public functions that only read or set ---- */

void rws_conn_pause(rws_conn *conn)
{
    /* Nothing is delivered any more once it closes, but the peer's close frame has to be read. */
    if (conn->state != RWS__CONN_OPEN) return;
    rws__conn_set_pause(conn, RWS__PAUSE_USER);
}

void rws_conn_resume(rws_conn *conn)
{
    rws__conn_clear_pause(conn, RWS__PAUSE_USER);
}

void rws_conn_abort(rws_conn *conn)
{
    if (conn->state < RWS__CONN_OPEN || conn->state >= RWS__CONN_ENDING) return;
    rws__cause cause = rws__conn_cut_cause(conn, RWS_E_ABORTED, RWS_CLOSED_BY_US);
    rws__conn_end_later(conn, cause.status, cause.code, cause.who, RWS__FINISH_CUT);
}

int rws_conn_peer(rws_conn *conn, struct sockaddr_storage *address, socklen_t *len)
{
    const struct sockaddr *peer = rws__stream_peer(&conn->stream);
    if (peer == NULL) return RWS_E_STATE;
    socklen_t have = peer->sa_family == AF_INET    ? sizeof(struct sockaddr_in)
                     : peer->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                                   : sizeof(sa_family_t);
    memcpy(address, peer, have < *len ? have : *len);
    *len = have;
    return 0;
}

void *rws_conn_user(const rws_conn *conn)
{
    return conn->user;
}

void rws_conn_set_user(rws_conn *conn, void *conn_user)
{
    conn->user = conn_user;
}

uint64_t rws_conn_id(const rws_conn *conn)
{
    return rws__conn_id(conn);
}

uint32_t rws_conn_shard(const rws_conn *conn)
{
    return rws__conn_table(conn)->index;
}

rws_span rws_conn_subprotocol(const rws_conn *conn)
{
    rws_span span = {NULL, 0};
    if (!conn->stream.has_cold) return span;
    span.data = ((const rws__conn_cold *)rws__stream_cold_of(&conn->stream))->subprotocol;
    if (span.data != NULL) span.len = strlen(span.data);
    return span;
}
