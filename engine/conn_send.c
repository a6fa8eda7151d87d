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
#include "engine/op.h"
#include "engine/prepared.h"
#include "engine/shard.h"
#include "codec/frame.h"
#include "codec/mask.h"

#include <errno.h>
#include <string.h>

/* Larger sends often meet a full socket: they are counted from the start. */
#define QUIET_MAX 262144u
/* Control frames may go over send_queue_bytes_max by this much; reading has stopped long before. */
#define CONTROL_RESERVE 65536u
/* Smaller prepared messages are copied: that touches no more cache lines than a loan. */
#define LEND_PREPARED_BYTES_MIN        256u
#define LEND_PREPARED_BEHIND_BYTES_MIN 16384u
/* Keeps a frame within a chunk's 32-bit counts. */
#define FRAME_BYTES_MAX 0x7FF00000u

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

/* Queue what `lender` lends (*taken*). 0, or -ENOMEM with the loan given back. */
static int queue_loan(rws_conn *conn, const uint8_t *data, size_t bytes, rws__lender *lender)
{
    if (!rws__sendq_lend(&conn->sendq, &conn->shard->send_slab, data, bytes, lender)) {
        rws__lender_release(lender);
        return -ENOMEM;
    }
    queued(conn);
    return 0;
}

/* Whoever keeps the message in on_message, for one more loan; NULL: it has to be copied. */
static rws__lender *find_lender(rws_conn *conn, size_t header)
{
    const rws__delivery *delivery = &conn->shard->delivery;
    if (delivery->payload != NULL) return rws__payload_lend(delivery->payload);
    /* A buffer is lent for this turn only: the next send has to be this one. */
    if (delivery->buffer == NULL || conn->sendq.bytes > 0 || conn->send_mode != RWS__SEND_IDLE ||
        conn->send_blocked)
        return NULL;
    /* It may have come behind a request that was kept. */
    if (delivery->data < delivery->buffer || delivery->data >= delivery->buffer_end) return NULL;
    /* The header goes where the client's was, which is longer by its masking key; but part of that
     * may have come in another buffer. */
    if (delivery->data < delivery->buffer + header) return NULL;
    return rws__ring_lend(conn->shard->ring, delivery->data - header, header + delivery->len);
}

/* Send the message in on_message from where it lies. False: it has to be copied. */
static bool lend_delivery(rws_conn *conn, rws_opcode opcode, size_t len)
{
    rws__shard *shard = conn->shard;
    rws__delivery *delivery = &shard->delivery;
    if (len != delivery->len || shard->config->role != RWS_SERVER) return false;
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
    bool lent =
        data != NULL && data == conn->shard->delivery.data && lend_delivery(conn, opcode, len);
    if (!lent) res = rws__conn_queue_frame(conn, (uint8_t)opcode, true, data, len);
    if (res == 0) rws__count(&conn->shard->counters.messages_sent, 1);
    return res;
}

int rws_conn_send_prepared(rws_conn *conn, rws_prepared *prepared)
{
    rws__shard *shard = conn->shard;
    size_t bytes = prepared->header_len + prepared->len;
    /* Behind others it is copied to them, so that all leave with one send. */
    bool copied = bytes < LEND_PREPARED_BYTES_MIN ||
                  (conn->sendq.bytes > 0 && bytes < LEND_PREPARED_BEHIND_BYTES_MIN);
    if (copied || shard->config->role != RWS_SERVER)
        return rws_conn_send(conn, (rws_opcode)prepared->opcode,
                             prepared->frame + prepared->header_len, prepared->len);
    if (conn->state != RWS__CONN_OPEN || conn->send_open) return RWS_E_STATE;
    int res = admit(conn, prepared->len);
    if (res != 0) return res;
    res = queue_loan(conn, prepared->frame, bytes, rws__prepared_lend(prepared));
    if (res == 0) rws__count(&shard->counters.messages_sent, 1);
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
    if (conn->sendq.bytes > conn->shard->config->send_queue_bytes_max + CONTROL_RESERVE)
        return RWS_E_BACKLOG;
    return rws__conn_queue_frame(conn, (uint8_t)opcode, true, data, len);
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
