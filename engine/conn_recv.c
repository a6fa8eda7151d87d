/*
 * Receiving: completions in, messages out.
 *
 * In the usual case a multishot receive brings whole frames in a provided buffer; the payload is
 * unmasked and checked there, and the handler sees the buffer itself: nothing is copied. What is
 * cut is collected in the assembly. A large message is received straight into the assembly
 * ("direct"): a cut header comes from a provided buffer, the rest by single receives into the
 * message's own memory. While such messages come (`bulk`) no multishot receive is armed, because
 * taking one back costs more than it gives.
 */
#include "engine/conn.h"
#include "engine/dialer.h"
#include "engine/message.h"
#include "engine/op.h"
#include "engine/shard.h"
#include "codec/close.h"

#include <errno.h>
#include <string.h>

/* With at least this much of a frame missing, the rest is received into its own memory. */
#define DIRECT_MIN 65536u
/* A connection with large messages takes at most this much into a provided buffer: the next header
 * and some. */
#define BULK_PEEK 4096u
/* After so many receives without a large message the connection is an ordinary one again. */
#define BULK_RECVS 16u
/* A receive that brought this much is followed by more: the next one may ask for all that is left.
 */
#define FLOW_BYTES_MIN 2048u
/* The first block of a message that trickles in. */
#define TRICKLE_BYTES 960u
/* When much of the budget is in use, a receive into the assembly asks for at most three times what
 * came already, or this. */
#define DIRECT_STEP_BYTES 16384u
/* Receives into assemblies that are submitted in one turn ask for at most this much, or are one:
 * one message after the other is received, unmasked and sent while it is in the cache (1 MiB from
 * 16 connections: 0.81 to 0.73 of uWebSockets' time), and small ones in between wait less. */
#define DIRECT_TURN_BYTES 524288u
/* What a payload costs beyond its bytes, at most: its head, and the rest of a page. */
#define PAYLOAD_COST_BYTES 8192u

/* ---- arming ---- */

static bool is_in_large_frame(const rws_conn *conn)
{
    return conn->state == RWS__CONN_OPEN && conn->decoder.state == RWS__DECODER_DATA &&
           conn->decoder.frame_left >= DIRECT_MIN &&
           (conn->shard->features & RWS_FEATURE_DIRECT_LARGE);
}

/* Whether to go on receiving the frame into the assembly, which may be at its last piece. */
static bool wants_direct(const rws_conn *conn)
{
    if (!conn->bulk || conn->state != RWS__CONN_OPEN || conn->stalled != NULL) return false;
    return conn->decoder.state == RWS__DECODER_DATA && conn->decoder.frame_left > BULK_PEEK;
}

/* How far the assembly may grow beyond `came` bytes, at most by `want`, within the budget for
 * partial messages; 0: not at all, and the connection is paused. One connection at a time may go
 * past the budget: otherwise no message would ever end and give memory back. */
static size_t within_budget(rws_conn *conn, size_t came, size_t want)
{
    rws__shard *shard = conn->shard;
    const rws__pool *pool = shard->partial;
    /* What its last receive asked for and did not bring is charged already. */
    size_t charged = conn->assembly != NULL ? conn->assembly->charged : 0;
    size_t others = pool->charged_bytes - charged;
    if (others + came + want <= pool->budget_bytes) return want;
    if (shard->budget_holder == NULL) shard->budget_holder = conn;
    size_t bound = shard->budget_holder == conn ? pool->charged_bytes_max : pool->budget_bytes;
    /* Heads and whole pages count too. */
    size_t most = bound > others + PAYLOAD_COST_BYTES ? bound - others - PAYLOAD_COST_BYTES : 0;
    if (most > came) return most - came < want ? most - came : want;
    rws__conn_set_pause(conn, RWS__PAUSE_BUDGET);
    return 0;
}

/* What the next receive into the assembly should bring. An announced length alone gets little: it
 * costs the peer nothing. */
static size_t choose_ask(const rws_conn *conn, size_t came, size_t left)
{
    size_t step = 3 * came;
    if (conn->flows) {
        if (rws__pool_has_plenty(conn->shard->partial, left)) return left;
        if (step < DIRECT_STEP_BYTES) step = DIRECT_STEP_BYTES;
    } else if (came < TRICKLE_BYTES) {
        step = TRICKLE_BYTES - came;
    }
    return step < left ? step : left;
}

/* Receive into the assembly. Returns 0, -EAGAIN (not in this turn), -EBUSY (paused) or -ENOMEM. */
static int arm_direct(rws_conn *conn, uint64_t user_data)
{
    rws__shard *shard = conn->shard;
    size_t came = conn->assembly != NULL ? conn->assembly->len : 0;
    size_t left = (size_t)conn->decoder.frame_left;
    size_t ask = within_budget(conn, came, choose_ask(conn, came, left));
    if (ask == 0) return -EBUSY;
    if (shard->direct_bytes > 0 && shard->direct_bytes + ask > DIRECT_TURN_BYTES) return -EAGAIN;
    int res = rws__payload_reserve(&conn->assembly, shard->partial, came + ask,
                                   conn->flows ? came + left : 0);
    if (res == 0) res = rws__payload_charge(conn->assembly, came + ask);
    if (res != 0) return res;
    shard->direct_bytes += ask;
    return rws__ring_recv(shard->ring, (uint32_t)conn->file, conn->assembly->data + came, ask,
                          user_data);
}

void rws__conn_arm_recv(rws_conn *conn)
{
    rws__shard *shard = conn->shard;
    uint64_t user_data = rws__op_pack(RWS__OP_RECV, conn->slot, conn->generation);
    rws__recv_mode mode;
    int res;
    if (wants_direct(conn)) {
        mode = RWS__RECV_DIRECT;
        res = arm_direct(conn, user_data);
        if (res == -ENOMEM) {
            rws__conn_fail(conn, RWS_E_POLICY, RWS_CLOSE_TRY_AGAIN_LATER);
            return;
        }
        if (res == -EAGAIN) rws__conn_defer(conn);
        if (res == -EAGAIN || res == -EBUSY) return;
    } else if (conn->bulk || !(shard->features & RWS_FEATURE_MULTISHOT_RECV)) {
        mode = RWS__RECV_SINGLE;
        res = rws__ring_recv_provided(shard->ring, (uint32_t)conn->file, conn->bulk ? BULK_PEEK : 0,
                                      user_data);
    } else {
        mode = RWS__RECV_MULTISHOT;
        res = rws__ring_recv_multishot(shard->ring, (uint32_t)conn->file, user_data);
    }
    if (res != 0) {
        rws__conn_mark_dirty(conn);
        return;
    }
    conn->recv_mode = (uint8_t)mode;
    conn->ops++;
}

/* ---- events ---- */

/* Give a message to the program. */
static void deliver(rws_conn *conn, const rws_message *message)
{
    rws__shard *shard = conn->shard;
    const rws__config *config = shard->config;
    rws__count(&shard->counters.messages_received, 1);
    if (config->handler.on_message == NULL) return;
    int res = config->handler.on_message(conn, message, config->user);
    /* One that closed it already has said with which code. */
    if (res < 0 && conn->state == RWS__CONN_OPEN)
        rws__conn_fail(conn, RWS_E_INTERNAL, RWS_CLOSE_INTERNAL_ERROR);
}

/* It lies in memory that is used again afterwards. */
static void deliver_received(rws_conn *conn, const rws__event *event)
{
    rws__received message = {
        .head = rws__message_head(RWS__MESSAGE_RECEIVED, event->opcode, event->len),
        .data = event->data,
        .pool = conn->shard->partial,
    };
    deliver(conn, &message.head);
}

/* It lies in memory of its own; *taken*. */
static void deliver_payload(rws_conn *conn, rws__payload *payload, uint8_t opcode)
{
    rws__payload_complete(payload);
    rws__message_from_payload(payload, opcode);
    deliver(conn, &payload->head);
    rws__payload_end_delivery(payload);
}

static bool is_in_assembly(const rws_conn *conn, const uint8_t *data)
{
    const rws__payload *assembly = conn->assembly;
    /* Behind a full one is the head of another block, or nothing of the slab: no other input. */
    return assembly != NULL && assembly->len < assembly->capacity &&
           data == assembly->data + assembly->len;
}

static void on_data(rws_conn *conn, const rws__event *event)
{
    if (conn->state != RWS__CONN_OPEN) return; /* after our close frame data is dropped */
    bool in_place = is_in_assembly(conn, event->data);
    if (event->message_first && event->message_last && !in_place) {
        deliver_received(conn, event);
        return;
    }
    if (in_place) {
        conn->assembly->len += (uint32_t)event->len;
    } else {
        size_t had = conn->assembly != NULL ? conn->assembly->len : 0;
        size_t expected = conn->flows ? had + event->len + (size_t)conn->decoder.frame_left : 0;
        if (expected < 2 * had) expected = 2 * had;
        if (expected < TRICKLE_BYTES) expected = TRICKLE_BYTES;
        if (rws__payload_append(&conn->assembly, conn->shard->partial, event->data, event->len,
                                expected) != 0) {
            rws__conn_fail(conn, RWS_E_POLICY, RWS_CLOSE_TRY_AGAIN_LATER);
            return;
        }
    }
    if (!event->message_last) {
        if (!conn->bulk && is_in_large_frame(conn)) {
            conn->bulk = true;
            rws__conn_mark_dirty(conn);
        }
        conn->small_recvs = 0;
        (void)within_budget(conn, conn->assembly->len, 1);
        return;
    }
    rws__payload *message = conn->assembly;
    conn->assembly = NULL;
    deliver_payload(conn, message, event->opcode);
}

/* The stash exists only while a header or control frame is cut. */
static bool give_stash(rws_conn *conn)
{
    conn->decoder.stash = rws__pool_take(conn->shard->partial, RWS__STASH_BYTES);
    return conn->decoder.stash != NULL;
}

static void take_stash_back(rws_conn *conn)
{
    if (conn->decoder.stash == NULL || !rws__decoder_stash_is_free(&conn->decoder)) return;
    rws__pool_give(conn->shard->partial, conn->decoder.stash);
    conn->decoder.stash = NULL;
}

/* A message that has begun has a deadline; none is left while nothing is partial. */
static void update_deadline(rws_conn *conn)
{
    rws__shard *shard = conn->shard;
    if (conn->state != RWS__CONN_OPEN) return;
    bool idle = rws__decoder_is_idle(&conn->decoder);
    if (idle == !rws__timer_is_set(&conn->timer)) return;
    if (idle)
        rws__timer_clear(&shard->wheel, &conn->timer);
    else
        rws__timer_set(&shard->wheel, &conn->timer, shard->now_ms,
                       shard->config->message_timeout_ms);
}

/* A message, or a control frame between messages, came whole: what follows has a deadline of its
 * own, also if it has begun in the same bytes. */
static void end_deadline(rws_conn *conn, const rws__event *event)
{
    if (!rws__timer_is_set(&conn->timer) || conn->state != RWS__CONN_OPEN) return;
    bool message_ended = event->kind == RWS__EVENT_DATA && event->message_last;
    bool control_alone = event->kind == RWS__EVENT_CONTROL && conn->decoder.message_opcode == 0;
    if (message_ended || control_alone) rws__timer_clear(&conn->shard->wheel, &conn->timer);
}

static void stall(rws_conn *conn, const uint8_t *data, size_t len)
{
    if (len == 0) return;
    size_t had = conn->stalled != NULL ? conn->stalled->len : 0;
    if (rws__payload_append(&conn->stalled, conn->shard->partial, data, len, 2 * had) != 0)
        rws__conn_fail(conn, RWS_E_POLICY, RWS_CLOSE_TRY_AGAIN_LATER);
}

void rws__conn_frames(rws_conn *conn, uint8_t *data, size_t len)
{
    const rws__message_rules *rules = &conn->shard->config->rules;
    rws__input input = {data, len};
    rws__event event;
    if (conn->stalled != NULL) { /* what came before goes first */
        stall(conn, data, len);
        return;
    }
    for (;;) {
        if (conn->state != RWS__CONN_OPEN && conn->state != RWS__CONN_CLOSE_SENT) return;
        if (conn->state == RWS__CONN_OPEN && conn->pauses != 0) {
            stall(conn, input.data, input.len);
            break;
        }
        rws__decoder_next(&conn->decoder, rules, &input, &event);
        if (event.kind == RWS__EVENT_NEED) break;
        end_deadline(conn, &event);
        switch (event.kind) {
        case RWS__EVENT_DATA: on_data(conn, &event); break;
        case RWS__EVENT_CONTROL:
            rws__conn_on_control(conn, event.opcode, event.data, event.len);
            break;
        case RWS__EVENT_STASH:
            if (!give_stash(conn)) rws__conn_fail(conn, RWS_E_POLICY, RWS_CLOSE_TRY_AGAIN_LATER);
            break;
        case RWS__EVENT_ERROR:
            rws__conn_fail(conn, event.status, rws__close_code_for(event.status));
            break;
        case RWS__EVENT_NEED: break;
        }
    }
    take_stash_back(conn);
    update_deadline(conn);
}

void rws__conn_on_eof(rws_conn *conn)
{
    switch ((rws__conn_state)conn->state) {
    case RWS__CONN_UPGRADING:
        if (rws__conn_dial(conn) != NULL)
            rws__dial_failed(conn, RWS_E_CLOSED,
                             "the server closed the connection before it answered");
        else
            rws__count(&conn->shard->counters.refused, 1);
        rws__conn_cut(conn, RWS_CLOSED_BY_PEER);
        break;
    case RWS__CONN_OPEN:
    case RWS__CONN_CLOSE_SENT:
    case RWS__CONN_CLOSE_RECEIVED: rws__conn_cut(conn, RWS_CLOSED_BY_PEER); break;
    case RWS__CONN_DRAINING: /* pump goes on */
    case RWS__CONN_FREE:
    case RWS__CONN_CONNECTING:
    case RWS__CONN_STATE_COUNT: break;
    }
}

/* The receive ended: what to do about `res` < 0. */
static void on_recv_error(rws_conn *conn, int32_t res)
{
    switch (-res) {
    case ENOBUFS: /* flow control: the buffers are back at the end of the turn */
        rws__count(&conn->shard->counters.no_buffers, 1);
        return;
    case ECANCELED:
    case EINTR:
    case EAGAIN: return; /* armed again if it is still wanted */
    default: break;
    }
    if (conn->state == RWS__CONN_UPGRADING && rws__conn_dial(conn) != NULL)
        rws__dial_failed(conn, res, "the connection broke during the handshake");
    else if (conn->state == RWS__CONN_UPGRADING)
        rws__count(&conn->shard->counters.refused, 1);
    conn->eof = true;
    rws__conn_cut(conn, RWS_CLOSED_BY_PEER);
}

void rws__conn_on_recv(rws_conn *conn, int32_t res, uint8_t *data, bool more)
{
    if (!more) {
        if (conn->recv_mode == RWS__RECV_DIRECT) data = conn->assembly->data + conn->assembly->len;
        conn->recv_mode = RWS__RECV_IDLE;
        conn->recv_cancelled = false;
        conn->ops--;
        rws__conn_mark_dirty(conn);
    }
    if (res < 0) {
        on_recv_error(conn, res);
        return;
    }
    if (res == 0) {
        conn->eof = true;
        rws__conn_mark_dirty(conn);
        return;
    }
    rws__count(&conn->shard->counters.bytes_received, (uint64_t)res);
    conn->flows = (uint32_t)res >= FLOW_BYTES_MIN;
    if (conn->bulk && ++conn->small_recvs > BULK_RECVS) conn->bulk = false;
    switch ((rws__conn_state)conn->state) {
    case RWS__CONN_UPGRADING: rws__conn_upgrade_input(conn, data, (size_t)res); break;
    case RWS__CONN_OPEN:
    case RWS__CONN_CLOSE_SENT: rws__conn_frames(conn, data, (size_t)res); break;
    case RWS__CONN_CLOSE_RECEIVED: /* nothing may follow a close frame */
    case RWS__CONN_DRAINING:
    case RWS__CONN_FREE:
    case RWS__CONN_CONNECTING:
    case RWS__CONN_STATE_COUNT: break;
    }
}
