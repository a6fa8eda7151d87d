/*
 * Messages out: frames into the send queue of the stream.
 */
#include "engine/conn/conn.h"
#include "engine/conn/message.h"

#include "codec/frame.h"
#include "codec/mask.h"

#include <errno.h>
#include <string.h>

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

static bool is_client(const rws_conn *conn)
{
    return conn->endpoint->rules.role == RWS_CLIENT;
}

/* Whether the pool has room for one more answer: as large as the largest message. */
static inline bool has_room(const rws_conn *conn)
{
    size_t most = (size_t)conn->endpoint->rules.message_bytes_max;
    return rws__stream_has_share(&conn->stream, most + RWS__FRAME_HEADER_MAX + sizeof(rws__chunk));
}

/* Something was queued: above the high watermark, or where the next answer may not fit its share of
 * a pool that runs low, a server stops reading. */
static inline void queued(rws_conn *conn)
{
    size_t bytes = rws__stream_queued(&conn->stream);
    if (bytes <= conn->endpoint->high_watermark_bytes && has_room(conn)) return;
    conn->stream.report_sent = true;
    if (!is_client(conn)) rws__conn_set_pause(conn, RWS__PAUSE_QUEUE);
}

/* Frames of any size, of both roles; apart, so that the small ones do not pay for it. */
__attribute__((noinline)) static int queue_any(rws_conn *conn, uint8_t opcode, bool fin,
                                               const void *data, size_t len, rws__share_use use)
{
    bool masked = is_client(conn);
    rws__frame frame = {.payload_len = len, .opcode = opcode, .fin = fin, .masked = masked};
    if (masked && !conn->endpoint->fixed_mask_key)
        frame.mask_key = rws__conns_mask_key(rws__conn_table(conn));
    size_t header = rws__frame_header_len(len, masked);
    uint8_t *out = rws__stream_reserve(&conn->stream, header + len, use);
    if (out == NULL) return -ENOMEM;
    rws__frame_write(out, &frame);
    if (masked)
        rws__mask(out + header, data, len, frame.mask_key);
    else if (len > 0)
        memcpy(out + header, data, len);
    rws__stream_commit(&conn->stream, header + len);
    queued(conn);
    return 0;
}

int rws__conn_queue_frame(rws_conn *conn, uint8_t opcode, bool fin, const void *data, size_t len,
                          rws__share_use use)
{
    if (len > RWS__FRAME_CONTROL_MAX || is_client(conn))
        return queue_any(conn, opcode, fin, data, len, use);
    uint8_t *out = rws__stream_reserve(&conn->stream, 2 + len, use);
    if (out == NULL) return -ENOMEM;
    out += rws__frame_write_small(out, opcode, fin, len);
    if (len > 0) memcpy(out, data, len);
    rws__stream_commit(&conn->stream, 2 + len);
    queued(conn);
    return 0;
}

static int admit(rws_conn *conn, size_t len)
{
    size_t bytes = rws__stream_queued(&conn->stream);
    if (bytes == 0 || bytes + len + RWS__FRAME_HEADER_MAX <= conn->endpoint->send_queue_bytes_max)
        return 0;
    conn->stream.report_sent = true;
    return RWS_E_BACKLOG;
}

/* ---- loans ---- */

/* Queue what `lender` lends (*taken*). False: there is no memory, and the loan is given back. */
static bool queue_loan(rws_conn *conn, const uint8_t *data, size_t bytes, rws__lender *lender)
{
    if (!rws__stream_lend(&conn->stream, data, bytes, lender)) {
        rws__lender_release(lender);
        return false;
    }
    queued(conn);
    return true;
}

/* The lender of a message in a provided buffer, for this turn only. The header goes where the
 * client's was, which is longer by its masking key. */
static rws__lender *lend_received(rws_conn *conn, rws__received *message, const uint8_t **frame)
{
    if (message->head.len < LEND_BYTES_MIN) return NULL;
    size_t header = rws__frame_header_len(message->head.len, false);
    uint8_t *begin = message->data - header;
    rws__lender *lender = rws__stream_lend_buffer(&conn->stream, begin, header + message->head.len);
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
        if (rws__stream_queued(&conn->stream) > 0 && bytes < LEND_BEHIND_BYTES_MIN) return NULL;
    } else if (message->len < LEND_BYTES_MIN) {
        return NULL;
    }
    return rws__message_lend(message, conn->stream.streams->partial);
}

/* Queue a message to be sent from where it lies. False: it has to be copied, by a filter too. */
__attribute__((noinline)) static bool lend_message(rws_conn *conn, const rws_message *message)
{
    const uint8_t *frame;
    if (conn->stream.filter != NULL) return false;
    rws__lender *lender = message->form == RWS__MESSAGE_RECEIVED
                              ? lend_received(conn, (rws__received *)message, &frame)
                              : lend_lasting(conn, message, &frame);
    if (lender == NULL) return false;
    size_t bytes = message->header_len + (size_t)message->len;
    return queue_loan(conn, frame, bytes, lender);
}

/* ---- the public functions ---- */

/* Whether a message of `len` bytes may be queued now. 0, RWS_E_STATE or RWS_E_BACKLOG. */
static int may_queue(rws_conn *conn, size_t len)
{
    if (conn->state != RWS__CONN_OPEN || conn->send_open) return RWS_E_STATE;
    return admit(conn, len);
}

static int queue_message(rws_conn *conn, uint8_t opcode, const void *data, size_t len)
{
    int res = rws__conn_queue_frame(conn, opcode, true, data, len, RWS__SHARE_MESSAGE);
    if (res == 0) rws__count(&rws__conn_counters(conn)->messages_sent, 1);
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
    if (len > RWS__FRAME_CONTROL_MAX && !is_client(conn) && lend_message(conn, message)) {
        rws__count(&rws__conn_counters(conn)->messages_sent, 1);
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
    if (rws__stream_queued(&conn->stream) > conn->endpoint->send_queue_bytes_max + CONTROL_RESERVE)
        return RWS_E_BACKLOG;
    return rws__conn_queue_frame(conn, (uint8_t)opcode, true, data, len, RWS__SHARE_PONG);
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
    res = rws__conn_queue_frame(conn, (uint8_t)opcode, fin, data, len, RWS__SHARE_MESSAGE);
    if (res != 0) return res;
    conn->send_open = !fin;
    if (fin) rws__count(&rws__conn_counters(conn)->messages_sent, 1);
    return 0;
}

size_t rws_conn_buffered(const rws_conn *conn)
{
    return rws__stream_queued(&conn->stream);
}

void rws__conn_on_sent(rws__stream *stream)
{
    rws_conn *conn = (rws_conn *)stream;
    const rws__endpoint *endpoint = conn->endpoint;
    size_t bytes = rws__stream_queued(stream);
    /* With an empty queue it goes on in any case. */
    if (bytes > endpoint->low_watermark_bytes || (bytes > 0 && !has_room(conn))) return;
    stream->report_sent = false;
    rws__conn_clear_pause(conn, RWS__PAUSE_QUEUE);
    if (conn->state == RWS__CONN_OPEN && endpoint->handler.on_drain != NULL)
        endpoint->handler.on_drain(conn, endpoint->user);
}
