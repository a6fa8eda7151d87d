/*
 * Sending: messages in, one send in flight per connection.
 *
 * A send starts "quiet": it does not wait and posts no completion on success, which saves a
 * completion per answer. When the socket is full it completes with what it managed, and the
 * connection goes on with a counted send, which the kernel finishes when there is room.
 */
#include "engine/base/assert.h"
#include "engine/conn.h"
#include "engine/dialer.h"
#include "engine/message.h"
#include "engine/op.h"
#include "engine/shard.h"
#include "codec/frame.h"
#include "codec/mask.h"

#include <errno.h>
#include <string.h>

/* Larger sends often meet a full socket: they are counted from the start. */
#define QUIET_MAX 262144u
/* Control frames may go over send_queue_bytes_max by this much; reading has stopped long before. */
#define CONTROL_RESERVE 65536u
/* Smaller messages that are only there until on_message returns are cheaper to copy than to lend.
 */
#define LEND_BYTES_MIN 4096u
/* Those that are held have many receivers, so that copies would cost more; but smaller frames are
 * copied: that touches no more cache lines than a loan. */
#define LEND_HELD_BYTES_MIN 256u
/* Behind others a frame is copied to them, so that all leave with one send. */
#define LEND_BEHIND_BYTES_MIN 16384u

/* Something was queued. */
static void queued(rws_conn *conn)
{
    const rws__config *config = conn->shard->config;
    if (conn->send_mode == RWS__SEND_IDLE) rws__conn_mark_dirty(conn);
    if (conn->sendq.bytes <= config->high_watermark_bytes) return;
    conn->want_drain = true;
    if (config->role == RWS_SERVER) rws__conn_set_pause(conn, RWS__PAUSE_QUEUE);
}

/* Frames of any size, of both roles; apart, so that the small ones do not pay for it. */
__attribute__((noinline)) static int queue_any(rws_conn *conn, uint8_t opcode, bool fin,
                                               const void *data, size_t len)
{
    rws__shard *shard = conn->shard;
    bool masked = shard->config->role == RWS_CLIENT;
    rws__frame frame = {.payload_len = len, .opcode = opcode, .fin = fin, .masked = masked};
    if (masked) frame.mask_key = rws__shard_mask_key(shard);
    size_t header = rws__frame_header_len(len, masked);
    uint8_t *out = rws__sendq_reserve(&conn->sendq, &shard->send_slab, header + len);
    if (out == NULL) return -ENOMEM;
    rws__frame_write(out, &frame);
    if (masked)
        rws__mask(out + header, data, len, frame.mask_key);
    else if (len > 0)
        memcpy(out + header, data, len);
    rws__sendq_commit(&conn->sendq, header + len);
    queued(conn);
    return 0;
}

int rws__conn_queue_frame(rws_conn *conn, uint8_t opcode, bool fin, const void *data, size_t len)
{
    rws__shard *shard = conn->shard;
    if (len > RWS__FRAME_CONTROL_MAX || shard->config->role != RWS_SERVER)
        return queue_any(conn, opcode, fin, data, len);
    uint8_t *out = rws__sendq_reserve(&conn->sendq, &shard->send_slab, 2 + len);
    if (out == NULL) return -ENOMEM;
    out += rws__frame_write_small(out, opcode, fin, len);
    if (len > 0) memcpy(out, data, len);
    rws__sendq_commit(&conn->sendq, 2 + len);
    queued(conn);
    return 0;
}

static int admit(rws_conn *conn, size_t len)
{
    size_t queued = conn->sendq.bytes;
    if (queued == 0 ||
        queued + len + RWS__FRAME_HEADER_MAX <= conn->shard->config->send_queue_bytes_max)
        return 0;
    conn->want_drain = true;
    return RWS_E_BACKLOG;
}

/* Queue what `lender` lends (*taken*). False: there is no memory, and the loan is given back. */
static bool queue_loan(rws_conn *conn, const uint8_t *data, size_t bytes, rws__lender *lender)
{
    if (!rws__sendq_lend(&conn->sendq, &conn->shard->send_slab, data, bytes, lender)) {
        rws__lender_release(lender);
        return false;
    }
    queued(conn);
    return true;
}

/* The lender of a message in a provided buffer, which is lent for this turn only: the next send has
 * to be this one. */
static rws__lender *lend_received(rws_conn *conn, rws__received *message, const uint8_t **frame)
{
    const rws__delivery *delivery = &conn->shard->delivery;
    if (message->head.len < LEND_BYTES_MIN || delivery->buffer == NULL || conn->sendq.bytes > 0 ||
        conn->send_mode != RWS__SEND_IDLE || conn->send_blocked)
        return NULL;
    /* It may have come behind a request that was kept. */
    if (message->data < delivery->buffer || message->data >= delivery->buffer_end) return NULL;
    /* The header goes where the client's was, which is longer by its masking key; but part of that
     * may have come in another buffer. */
    size_t header = rws__frame_header_len(message->head.len, false);
    if (message->data < delivery->buffer + header) return NULL;
    uint8_t *begin = message->data - header;
    rws__lender *lender = rws__ring_lend(conn->shard->ring, begin, header + message->head.len);
    if (lender == NULL) return NULL;
    /* Those who were lent it before send the same bytes. */
    if (message->head.header_len == 0) {
        rws__frame head = {
            .payload_len = message->head.len, .opcode = message->head.opcode, .fin = true};
        message->head.header_len = (uint8_t)rws__frame_write(begin, &head);
    }
    *frame = begin;
    return lender;
}

/* The lender of a message in memory of its own. */
static rws__lender *lend_lasting(const rws_conn *conn, const rws_message *message,
                                 const uint8_t **frame)
{
    size_t bytes = rws__message_frame(message, frame);
    if (rws__message_is_held(message)) {
        if (bytes < LEND_HELD_BYTES_MIN) return NULL;
        if (conn->sendq.bytes > 0 && bytes < LEND_BEHIND_BYTES_MIN) return NULL;
    } else if (message->len < LEND_BYTES_MIN) {
        return NULL;
    }
    return rws__message_lend(message, conn->shard->partial);
}

/* Queue a message to be sent from where it lies. False: it has to be copied. */
__attribute__((noinline)) static bool lend_message(rws_conn *conn, const rws_message *message)
{
    const uint8_t *frame;
    rws__lender *lender = message->form == RWS__MESSAGE_RECEIVED
                              ? lend_received(conn, (rws__received *)message, &frame)
                              : lend_lasting(conn, message, &frame);
    if (lender == NULL) return false;
    size_t bytes = message->header_len + (size_t)message->len;
    return queue_loan(conn, frame, bytes, lender);
}

/* Whether a message of `len` bytes may be queued now. 0, RWS_E_STATE or RWS_E_BACKLOG. */
static int may_queue(rws_conn *conn, size_t len)
{
    if (conn->state != RWS__CONN_OPEN || conn->send_open) return RWS_E_STATE;
    return admit(conn, len);
}

static int queue_message(rws_conn *conn, uint8_t opcode, const void *data, size_t len)
{
    int res = rws__conn_queue_frame(conn, opcode, true, data, len);
    if (res == 0) rws__count(&conn->shard->counters.messages_sent, 1);
    return res;
}

int rws_conn_send(rws_conn *conn, rws_opcode opcode, const void *data, size_t len)
{
    if (!rws__may_send(opcode, data, len)) return RWS_E_ARGUMENT;
    int res = may_queue(conn, len);
    return res != 0 ? res : queue_message(conn, (uint8_t)opcode, data, len);
}

int rws_conn_send_message(rws_conn *conn, const rws_message *message)
{
    /* A constant may have been compiled with a newer header. */
    if (message == NULL || message->layout != RWS_MESSAGE_LAYOUT) return RWS_E_ARGUMENT;
    size_t len = message->len;
    int res = may_queue(conn, len);
    if (res != 0) return res;
    /* A client masks every frame by itself, which is a copy. */
    if (len > RWS__FRAME_CONTROL_MAX && conn->shard->config->role == RWS_SERVER &&
        lend_message(conn, message)) {
        rws__count(&conn->shard->counters.messages_sent, 1);
        return 0;
    }
    return queue_message(conn, message->opcode, rws__message_data(message), len);
}

int rws_conn_send_text(rws_conn *conn, const char *text, size_t len)
{
    return rws_conn_send(conn, RWS_TEXT, text, len);
}

int rws_conn_send_binary(rws_conn *conn, const void *data, size_t len)
{
    return rws_conn_send(conn, RWS_BINARY, data, len);
}

static int send_control(rws_conn *conn, rws_opcode opcode, const void *data, size_t len)
{
    if (len > RWS__FRAME_CONTROL_MAX) return RWS_E_ARGUMENT;
    if (conn->sendq.bytes > conn->shard->config->send_queue_bytes_max + CONTROL_RESERVE)
        return RWS_E_BACKLOG;
    return rws__conn_queue_frame(conn, (uint8_t)opcode, true, data, len);
}

int rws_conn_send_frame(rws_conn *conn, rws_opcode opcode, bool fin, const void *data, size_t len)
{
    if ((data == NULL && len > 0) || len > RWS__MESSAGE_BYTES_MAX) return RWS_E_ARGUMENT;
    if (conn->state != RWS__CONN_OPEN) return RWS_E_STATE;
    switch (opcode) {
    case RWS_PING:
    case RWS_PONG: return fin ? send_control(conn, opcode, data, len) : RWS_E_ARGUMENT;
    case RWS_TEXT:
    case RWS_BINARY:
        if (conn->send_open) return RWS_E_STATE;
        break;
    case RWS_CONTINUATION:
        if (!conn->send_open) return RWS_E_STATE;
        break;
    case RWS_CLOSE:
    default: return RWS_E_ARGUMENT;
    }
    int res = admit(conn, len);
    if (res != 0) return res;
    res = rws__conn_queue_frame(conn, (uint8_t)opcode, fin, data, len);
    if (res != 0) return res;
    conn->send_open = !fin;
    if (fin) rws__count(&conn->shard->counters.messages_sent, 1);
    return 0;
}

size_t rws_conn_buffered(const rws_conn *conn)
{
    return conn->sendq.bytes;
}

/*
 * A quiet send is settled when the loop wakes up for something else. So it is only for bytes that
 * nobody waits for: not when more is queued behind them, on_drain is owed, or the connection is to
 * end after them.
 */
static bool may_be_quiet(const rws_conn *conn, size_t len)
{
    /* The list is not settled while the kernel leaves submissions over, and may fill up. */
    const rws__quiet_list *quiet = &conn->shard->quiet;
    return (conn->shard->features & RWS_FEATURE_SKIP_SUCCESS) && !conn->send_blocked &&
           !conn->want_drain && len <= QUIET_MAX && len == conn->sendq.bytes &&
           conn->state != RWS__CONN_DRAINING && quiet->count < quiet->capacity;
}

/* What is lent for this turn is sent in it or copied. False: there is no memory for the copy. */
static bool end_borrowing(rws_conn *conn)
{
    if (!rws__sendq_front_is_borrowed(&conn->sendq)) return true;
    rws__sendq_copy_borrowed(&conn->sendq, &conn->shard->send_slab);
    return !rws__sendq_front_is_borrowed(&conn->sendq);
}

static rws__send_mode choose_mode(rws_conn *conn, size_t len)
{
    if (rws__conn_may_zero_copy(conn, len)) return RWS__SEND_ZERO_COPY;
    return may_be_quiet(conn, len) ? RWS__SEND_QUIET : RWS__SEND_COUNTED;
}

int rws__conn_submit_send(rws_conn *conn)
{
    rws__shard *shard = conn->shard;
    const uint8_t *data;
    size_t len = rws__sendq_front(&conn->sendq, &data);
    RWS_ASSERT(len > 0);
    uint64_t user_data = rws__op_pack(RWS__OP_SEND, conn->slot, conn->generation);
    uint32_t file = (uint32_t)conn->file;
    rws__send_mode mode = choose_mode(conn, len);
    int res;
    switch (mode) {
    case RWS__SEND_ZERO_COPY:
        res = rws__ring_send_zero_copy(shard->ring, file, data, len, user_data);
        break;
    case RWS__SEND_QUIET:
        res = rws__ring_send_quiet(shard->ring, file, data, len, user_data);
        break;
    default:
        if (!end_borrowing(conn)) {
            rws__conn_cut(conn, RWS_CLOSED_BY_US);
            return 0;
        }
        len = rws__sendq_front(&conn->sendq, &data);
        res = rws__ring_send(shard->ring, file, data, len, user_data);
    }
    if (res != 0) return res;
    conn->send_mode = (uint8_t)mode;
    conn->send_len = (uint32_t)len;
    conn->ops++;
    if (mode == RWS__SEND_ZERO_COPY) rws__conn_lend_to_kernel(conn);
    if (mode == RWS__SEND_QUIET) {
        RWS_ASSERT(shard->quiet.count < shard->quiet.capacity);
        shard->quiet.conns[shard->quiet.count++] = conn;
    }
    return 0;
}

static void sent(rws_conn *conn, size_t len)
{
    rws__shard *shard = conn->shard;
    const rws__config *config = shard->config;
    rws__count(&shard->counters.bytes_sent, len);
    rws__sendq_advance(&conn->sendq, &shard->send_slab, len);
    if (conn->sendq.bytes > 0 || conn->state == RWS__CONN_DRAINING) rws__conn_mark_dirty(conn);
    if (!conn->want_drain || conn->sendq.bytes > config->low_watermark_bytes) return;
    conn->want_drain = false;
    rws__conn_clear_pause(conn, RWS__PAUSE_QUEUE);
    if (conn->state == RWS__CONN_OPEN && config->handler.on_drain != NULL)
        config->handler.on_drain(conn, config->user);
}

void rws__conn_quiet_done(rws_conn *conn)
{
    conn->send_mode = RWS__SEND_IDLE;
    conn->ops--;
    sent(conn, conn->send_len);
}

void rws__conn_on_send(rws_conn *conn, int32_t res, bool more)
{
    bool quiet = conn->send_mode == RWS__SEND_QUIET;
    if (conn->send_mode == RWS__SEND_ZERO_COPY) res = rws__conn_end_zero_copy(conn, res, more);
    conn->send_mode = RWS__SEND_IDLE;
    conn->ops--;
    conn->send_blocked = quiet;
    rws__conn_mark_dirty(conn);
    if (res >= 0) {
        sent(conn, (size_t)res);
        return;
    }
    switch (-res) {
    case EAGAIN:
    case EINTR:
    case ENOBUFS:
    case ENOMEM: conn->send_blocked = true; return;
    case ECANCELED: return; /* the file is being closed */
    default:
        if (rws__conn_dial(conn) != NULL)
            rws__dial_failed(conn, res, "the connection broke during the handshake");
        conn->eof = true;
        rws__conn_cut(conn, RWS_CLOSED_BY_PEER);
    }
}
