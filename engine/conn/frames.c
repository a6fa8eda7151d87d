/*
 * Messages in: bytes of the stream, frames of the decoder, messages to the program.
 *
 * In the usual case whole frames come in a provided buffer; the payload is unmasked and checked
 * there, and the handler sees the buffer itself: nothing is copied. What is cut is collected in the
 * assembly, and a large message is received straight into it.
 *
 * The pipeline: the decoder gives events; what inflates will stand between them and the sink; the
 * sink here makes whole messages, and one that gives pieces to the program takes its place.
 */
#include "engine/conn/conn.h"
#include "engine/conn/message.h"

#include "codec/close.h"

#include <errno.h>

/* The last bytes of a frame are received with what follows it. */
#define DIRECT_REST_MIN 4096u
/* The first block of a message that trickles in. */
#define TRICKLE_BYTES 960u
/* When much of the budget is in use, a receive into the assembly asks for at most three times what
 * was received already, or this. */
#define DIRECT_STEP_BYTES 16384u
/* What a payload costs beyond its bytes, in pages: its head, and the rest of a page. */
#define PAYLOAD_COST_PAGES 2u

static rws__pool *pool_of(const rws_conn *conn)
{
    return conn->stream.streams->partial;
}

/* ---- large messages: receives into the assembly ---- */

/* How far the assembly may grow beyond `received` bytes, at most by `want`, within the budget for
 * partial messages; 0: not at all, and the connection is paused. One connection at a time may go
 * past the budget: otherwise no message would ever end and give memory back. */
static size_t within_budget(rws_conn *conn, size_t received, size_t want)
{
    rws__conns *conns = rws__conn_table(conn);
    const rws__pool *pool = pool_of(conn);
    /* What its last receive asked for and did not bring is charged already. */
    size_t charged = conn->assembly != NULL ? conn->assembly->charged : 0;
    size_t others = pool->charged_bytes - charged;
    if (others + received + want <= pool->budget_bytes) return want;
    if (conns->budget_holder == NULL) conns->budget_holder = conn;
    size_t bound = conns->budget_holder == conn ? pool->charged_bytes_max : pool->budget_bytes;
    /* Heads and whole pages count too. */
    others += PAYLOAD_COST_PAGES * pool->slab.page_bytes;
    size_t most = bound > others ? bound - others : 0;
    if (most > received) return most - received < want ? most - received : want;
    /* Those that wait must not hold what they only asked for: the one that may go past the budget
     * would find no room for it, and all would wait for each other. */
    if (conn->assembly != NULL) rws__payload_uncharge(conn->assembly);
    rws__conn_set_pause(conn, RWS__PAUSE_BUDGET);
    return 0;
}

/* What the next receive into the assembly should bring. An announced length alone gets little: it
 * costs the peer nothing. */
static size_t choose_ask(const rws_conn *conn, size_t received, size_t left)
{
    size_t step = 3 * received;
    if (conn->stream.more_expected) {
        if (rws__pool_has_plenty(pool_of(conn), left)) return left;
        if (step < DIRECT_STEP_BYTES) step = DIRECT_STEP_BYTES;
    } else if (received < TRICKLE_BYTES) {
        step = TRICKLE_BYTES - received;
    }
    return step < left ? step : left;
}

size_t rws__conn_direct(rws__stream *stream)
{
    rws_conn *conn = (rws_conn *)stream;
    size_t left = (size_t)conn->decoder.frame_left;
    if (conn->state != RWS__CONN_OPEN || conn->decoder.state != RWS__DECODER_DATA ||
        left <= DIRECT_REST_MIN)
        return RWS__DIRECT_NONE;
    size_t received = rws__conn_collected(conn);
    size_t ask = within_budget(conn, received, choose_ask(conn, received, left));
    return ask > 0 ? ask : RWS__DIRECT_PAUSED;
}

uint8_t *rws__conn_direct_memory(rws__stream *stream, size_t bytes)
{
    rws_conn *conn = (rws_conn *)stream;
    size_t received = rws__conn_collected(conn);
    size_t whole = stream->more_expected ? received + (size_t)conn->decoder.frame_left : 0;
    if (rws__payload_reserve(&conn->assembly, pool_of(conn), received + bytes, whole) == 0 &&
        rws__payload_charge(conn->assembly, received + bytes) == 0)
        return conn->assembly->data + received;
    rws__conn_fail(conn, -ENOMEM, RWS_CLOSE_TRY_AGAIN_LATER);
    return NULL;
}

/* ---- the sink: whole messages ---- */

/* Give a message to the program. */
static void deliver(rws_conn *conn, const rws_message *message)
{
    const rws__endpoint *endpoint = conn->endpoint;
    rws__count(&rws__conn_counters(conn)->messages_received, 1);
    if (endpoint->handler.on_message == NULL) return;
    int res = endpoint->handler.on_message(conn, message, endpoint->user);
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
        .pool = pool_of(conn),
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

/* Add a piece to the assembly. */
static int collect(rws_conn *conn, const rws__event *event)
{
    if (is_in_assembly(conn, event->data)) {
        conn->assembly->len += (uint32_t)event->len;
        return 0;
    }
    size_t had = rws__conn_collected(conn), expected = 0;
    if (conn->stream.more_expected) expected = had + event->len + (size_t)conn->decoder.frame_left;
    if (expected < 2 * had) expected = 2 * had;
    if (expected < TRICKLE_BYTES) expected = TRICKLE_BYTES;
    return rws__payload_append(&conn->assembly, pool_of(conn), event->data, event->len, expected);
}

static void on_data(rws_conn *conn, const rws__event *event)
{
    if (conn->state != RWS__CONN_OPEN) return; /* after our close frame data is dropped */
    if (event->message_first && event->message_last && !is_in_assembly(conn, event->data)) {
        deliver_received(conn, event);
        return;
    }
    if (collect(conn, event) != 0) {
        rws__conn_fail(conn, -ENOMEM, RWS_CLOSE_TRY_AGAIN_LATER);
        return;
    }
    if (!event->message_last) {
        if (conn->decoder.state == RWS__DECODER_DATA &&
            rws__stream_is_bulk(&conn->stream, conn->decoder.frame_left))
            rws__stream_expect_bulk(&conn->stream);
        conn->stream.small_recvs = 0;
        (void)within_budget(conn, conn->assembly->len, 1);
        return;
    }
    rws__payload *message = conn->assembly;
    conn->assembly = NULL;
    deliver_payload(conn, message, event->opcode);
}

/* ---- the decoder ---- */

/* The stash exists only while a header or control frame is cut. */
static bool give_stash(rws_conn *conn)
{
    conn->decoder.stash = rws__pool_take(pool_of(conn), RWS__STASH_BYTES);
    return conn->decoder.stash != NULL;
}

static void take_stash_back(rws_conn *conn)
{
    if (conn->decoder.stash == NULL || !rws__decoder_stash_is_free(&conn->decoder)) return;
    rws__pool_give(pool_of(conn), conn->decoder.stash);
    conn->decoder.stash = NULL;
}

/* A message that has begun has a deadline; none is left while nothing is partial. */
static void update_deadline(rws_conn *conn)
{
    if (conn->state != RWS__CONN_OPEN) return;
    bool idle = rws__decoder_is_idle(&conn->decoder);
    if (idle == !rws__timer_is_set(&conn->timer)) return;
    if (idle) {
        rws__conn_clear_deadline(conn);
        return;
    }
    conn->collected_mark = rws__conn_collected(conn);
    rws__conn_set_deadline(conn, conn->endpoint->message_timeout_ms);
}

/* A message, or a control frame between messages, was received as a whole: what follows has a
 * deadline of its own, also if it has begun in the same bytes. */
static void end_deadline(rws_conn *conn, const rws__event *event)
{
    if (!rws__timer_is_set(&conn->timer) || conn->state != RWS__CONN_OPEN) return;
    bool message_ended = event->kind == RWS__EVENT_DATA && event->message_last;
    bool control_alone = event->kind == RWS__EVENT_CONTROL && conn->decoder.message_opcode == 0;
    if (message_ended || control_alone) rws__conn_clear_deadline(conn);
}

static void on_event(rws_conn *conn, const rws__event *event)
{
    end_deadline(conn, event);
    switch (event->kind) {
    case RWS__EVENT_DATA: on_data(conn, event); break;
    case RWS__EVENT_CONTROL:
        rws__conn_on_control(conn, event->opcode, event->data, event->len);
        break;
    case RWS__EVENT_STASH:
        if (!give_stash(conn)) rws__conn_fail(conn, -ENOMEM, RWS_CLOSE_TRY_AGAIN_LATER);
        break;
    case RWS__EVENT_ERROR:
        rws__conn_fail(conn, event->status, rws__close_code_for(event->status));
        break;
    case RWS__EVENT_NEED: break;
    }
}

size_t rws__conn_frames(rws_conn *conn, uint8_t *data, size_t len)
{
    const rws__message_rules *rules = &conn->endpoint->rules;
    rws__input input = {data, len};
    rws__event event;
    for (;;) {
        if (conn->state != RWS__CONN_OPEN && conn->state != RWS__CONN_CLOSE_SENT) return len;
        if (conn->state == RWS__CONN_OPEN && conn->pauses != 0) break;
        rws__decoder_next(&conn->decoder, rules, &input, &event);
        if (event.kind == RWS__EVENT_NEED) break;
        on_event(conn, &event);
    }
    take_stash_back(conn);
    update_deadline(conn);
    return len - input.len;
}
