/*
 * Messages out: frames into the send queue of the stream.
 */
#include "engine/conn/conn.h"
#include "engine/conn/prepared.h"

#include "codec/frame.h"
#include "codec/mask.h"

#include <errno.h>
#include <string.h>

/* Control frames may go over send_queue_bytes_max by this much; reading has stopped long before. */
#define CONTROL_RESERVE 65536u
/* Smaller prepared messages are copied: that touches no more cache lines than a loan. */
#define LEND_PREPARED_BYTES_MIN        256u
#define LEND_PREPARED_BEHIND_BYTES_MIN 16384u
/* Keeps a frame within a chunk's 32-bit counts. */
#define FRAME_BYTES_MAX 0x7FF00000u

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

/* Queue what `lender` lends (*taken*). 0, or -ENOMEM with the loan given back. */
static int queue_loan(rws_conn *conn, const uint8_t *data, size_t bytes, rws__lender *lender)
{
    if (!rws__stream_lend(&conn->stream, data, bytes, lender)) {
        lender->release(lender);
        return -ENOMEM;
    }
    queued(conn);
    return 0;
}

/* Whoever keeps the message in on_message, for one more loan; NULL: it has to be copied. */
static rws__lender *find_lender(rws_conn *conn, size_t header)
{
    const rws__delivery *delivery = &rws__conn_table(conn)->delivery;
    if (delivery->payload != NULL) return rws__payload_lend(delivery->payload);
    /* The header goes where the client's was, which is longer by its masking key. */
    return rws__stream_lend_buffer(&conn->stream, delivery->data - header, header + delivery->len);
}

/* Send the message in on_message from where it lies. False: it has to be copied. */
static bool lend_delivery(rws_conn *conn, rws_opcode opcode, size_t len)
{
    rws__delivery *delivery = &rws__conn_table(conn)->delivery;
    if (len != delivery->len || is_client(conn) || conn->stream.filter != NULL) return false;
    if (delivery->framed_opcode != 0 && delivery->framed_opcode != opcode) return false;
    rws__frame frame = {.payload_len = len, .opcode = (uint8_t)opcode, .fin = true};
    size_t header = rws__frame_header_len(len, false);
    rws__lender *lender = find_lender(conn, header);
    if (lender == NULL) return false;
    uint8_t *begin = delivery->data - header;
    if (queue_loan(conn, begin, header + len, lender) != 0) return false;
    /* Those who were lent it before send the same bytes. */
    if (delivery->framed_opcode == 0) rws__frame_write(begin, &frame);
    delivery->framed_opcode = (uint8_t)opcode;
    return true;
}

/* ---- the public functions ---- */

bool rws__may_send(rws_opcode opcode, const void *data, size_t len)
{
    return (opcode == RWS_TEXT || opcode == RWS_BINARY) && (data != NULL || len == 0) &&
           len <= FRAME_BYTES_MAX;
}

int rws_conn_send(rws_conn *conn, rws_opcode opcode, const void *data, size_t len)
{
    if (!rws__may_send(opcode, data, len)) return RWS_E_ARGUMENT;
    if (conn->state != RWS__CONN_OPEN || conn->send_open) return RWS_E_STATE;
    int res = admit(conn, len);
    if (res != 0) return res;
    bool lent = data != NULL && data == rws__conn_table(conn)->delivery.data &&
                lend_delivery(conn, opcode, len);
    if (!lent)
        res = rws__conn_queue_frame(conn, (uint8_t)opcode, true, data, len, RWS__SHARE_MESSAGE);
    if (res == 0) rws__count(&rws__conn_counters(conn)->messages_sent, 1);
    return res;
}

int rws_conn_send_prepared(rws_conn *conn, rws_prepared *prepared)
{
    size_t bytes = prepared->header_len + prepared->len;
    /* Behind others it is copied to them, so that all leave with one send. */
    bool copied = bytes < LEND_PREPARED_BYTES_MIN ||
                  (rws__stream_queued(&conn->stream) > 0 && bytes < LEND_PREPARED_BEHIND_BYTES_MIN);
    if (copied || conn->endpoint->rules.role != RWS_SERVER || conn->stream.filter != NULL)
        return rws_conn_send(conn, (rws_opcode)prepared->opcode,
                             prepared->frame + prepared->header_len, prepared->len);
    if (conn->state != RWS__CONN_OPEN || conn->send_open) return RWS_E_STATE;
    int res = admit(conn, prepared->len);
    if (res != 0) return res;
    res = queue_loan(conn, prepared->frame, bytes, rws__prepared_lend(prepared));
    if (res == 0) rws__count(&rws__conn_counters(conn)->messages_sent, 1);
    return res;
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
    if ((data == NULL && len > 0) || len > FRAME_BYTES_MAX) return RWS_E_ARGUMENT;
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
