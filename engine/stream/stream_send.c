/*
 * Sending: bytes in, one send in flight per stream.
 *
 * A send starts "quiet": it does not wait and posts no completion on success, which saves a
 * completion per answer. When the socket is full it completes with what it managed, and the stream
 * goes on with counted sends, which the kernel makes when there is room. Those take what fits and
 * no more, so that it is known how much that was: the peer has to make progress
 * (stream_progress.c).
 */
#include "engine/stream/internal.h"

#include <errno.h>

/* Larger sends often meet a full socket: they are counted from the start. */
#define QUIET_MAX 262144u
/* What was sent in all so far left at once, because it fits the first window of a connection
 * (RFC 6928: ten segments): nothing waits in the kernel that a reset could throw away. */
#define FIRST_WINDOW_BYTES 4096u
/* Where the kernel can't tell what is acknowledged, what it takes is looked at in such pieces. */
#define PIECE_BYTES 65536u

bool rws__stream_lend(rws__stream *stream, const uint8_t *data, size_t bytes, rws__lender *lender)
{
    if (stream->filter != NULL) return false;
    if (!rws__sendq_lend(&stream->sendq, &stream->streams->send_slab, data, bytes, lender))
        return false;
    if (stream->send_mode == RWS__SEND_IDLE) rws__stream_mark_dirty(stream);
    return true;
}

rws__lender *rws__stream_lend_buffer(rws__stream *stream, const uint8_t *data, size_t len)
{
    const rws__streams *streams = stream->streams;
    /* It is lent for this turn only: the next send has to be this one. */
    if (streams->buffer == NULL || stream->wired || stream->sendq.bytes > 0 ||
        stream->send_mode != RWS__SEND_IDLE || stream->send_blocked)
        return NULL;
    if (data < streams->buffer || data + len > streams->buffer_end) return NULL;
    return rws__ring_lend(streams->loop->ring, data, len);
}

bool rws__stream_is_sent(rws__stream *stream)
{
    return rws__stream_unsent(stream) == 0 && stream->send_mode == RWS__SEND_IDLE;
}

bool rws__stream_owes(rws__stream *stream)
{
    return !rws__stream_is_sent(stream) || rws__stream_lends_to_kernel(stream) ||
           (stream->wired && rws__filters_are_starved(stream));
}

/*
 * A quiet send is settled when the loop wakes up for something else. So it is only for bytes that
 * nobody waits for: not when more is queued behind them, on_sent is wanted, or the stream is to end
 * after them.
 */
static bool may_be_quiet(rws__stream *stream, size_t len)
{
    const rws__streams *streams = stream->streams;
    /* The list is not settled while the kernel leaves submissions over, and may fill up. */
    return (streams->loop->features & RWS__FEATURE_SKIP_SUCCESS) && !stream->send_blocked &&
           !stream->report_sent && len <= QUIET_MAX && rws__stream_unsent(stream) == len &&
           stream->phase == RWS__STREAM_UP && streams->quiet.count < streams->quiet.capacity;
}

/* What is lent for this turn is sent in it or copied. False: there is no memory for the copy. */
static bool end_borrowing(rws__stream *stream)
{
    if (!rws__sendq_front_is_borrowed(&stream->sendq)) return true;
    rws__sendq_copy_borrowed(&stream->sendq, &stream->streams->send_slab);
    return !rws__sendq_front_is_borrowed(&stream->sendq);
}

static rws__send_mode choose_mode(rws__stream *stream, size_t len)
{
    if (!stream->wired && rws__stream_may_zero_copy(stream, len)) return RWS__SEND_ZERO_COPY;
    return may_be_quiet(stream, len) ? RWS__SEND_QUIET : RWS__SEND_COUNTED;
}

/* A send that a completion follows. */
static int submit_counted(rws__stream *stream, uint64_t user_data, size_t *len)
{
    const rws__loop *loop = stream->streams->loop;
    const uint8_t *data;
    *len = rws__sendq_front(rws__stream_out(stream), &data);
    if (!stream->send_blocked)
        return rws__ring_send(loop->ring, (uint32_t)stream->file, data, *len, user_data);
    bool tells = (loop->features & RWS__FEATURE_SOCKET_COMMANDS) && stream->family != AF_UNIX;
    if (!tells && *len > PIECE_BYTES) *len = PIECE_BYTES;
    return rws__ring_send_some(loop->ring, (uint32_t)stream->file, data, *len, user_data);
}

static int submit(rws__stream *stream, rws__send_mode mode, const uint8_t *data, size_t *len)
{
    rws__ring *ring = stream->streams->loop->ring;
    uint64_t user_data = rws__stream_op(stream, RWS__OP_SEND);
    switch (mode) {
    case RWS__SEND_ZERO_COPY: return rws__stream_send_zero_copy(stream, data, *len, user_data);
    case RWS__SEND_QUIET:
        return rws__ring_send_quiet(ring, (uint32_t)stream->file, data, *len, user_data);
    default: return submit_counted(stream, user_data, len);
    }
}

void rws__stream_pump_send(rws__stream *stream)
{
    if (stream->send_mode != RWS__SEND_IDLE) return;
    if (stream->wired) rws__filters_seal(stream);
    rws__sendq *queue = rws__stream_out(stream);
    if (queue->bytes == 0) return;
    if (stream->phase < RWS__STREAM_UP || stream->phase >= RWS__STREAM_CLOSING) return;
    const uint8_t *data;
    size_t len = rws__sendq_front(queue, &data);
    RWS_ASSERT(len > 0);
    rws__send_mode mode = choose_mode(stream, len);
    if (mode == RWS__SEND_COUNTED && !end_borrowing(stream)) {
        rws__cause cause =
            rws__cause_abnormal(-ENOMEM, RWS_CLOSED_BY_US, "no memory for what is to be sent");
        rws__stream_end(stream, &cause);
        return;
    }
    if (submit(stream, mode, data, &len) != 0) {
        rws__stream_mark_dirty(stream);
        return;
    }
    stream->send_mode = (uint8_t)mode;
    stream->send_len = (uint32_t)len;
    stream->ops++;
    if (mode == RWS__SEND_QUIET) {
        rws__quiet_list *quiet = &stream->streams->quiet;
        RWS_ASSERT(quiet->count < quiet->capacity);
        quiet->streams[quiet->count++] = stream;
        return;
    }
    rws__stream_watch(stream);
}

static void sent(rws__stream *stream, size_t len)
{
    rws__streams *streams = stream->streams;
    rws__count(&streams->loop->counters.bytes_sent, len);
    stream->taken += (uint32_t)len;
    if (stream->taken > FIRST_WINDOW_BYTES) stream->sent_much = true;
    if (stream->wired)
        rws__filters_sent(stream, len);
    else
        rws__sendq_advance(&stream->sendq, &streams->send_slab, len);
    bool all =
        stream->sendq.bytes == 0 && (!stream->wired || rws__filters_wire(stream)->bytes == 0);
    if (!all || stream->phase != RWS__STREAM_UP) rws__stream_mark_dirty(stream);
    /* Draining waits for the notification of what the kernel was lent, too. */
    if (all && !rws__stream_lends_to_kernel(stream))
        rws__stream_unwatch(stream);
    else
        rws__stream_bound_mark(stream);
    if (stream->report_sent) stream->events->on_sent(stream);
}

void rws__stream_quiet_done(rws__stream *stream)
{
    stream->send_mode = RWS__SEND_IDLE;
    stream->ops--;
    sent(stream, stream->send_len);
}

void rws__stream_on_send(rws__stream *stream, int32_t res, bool more)
{
    bool quiet = stream->send_mode == RWS__SEND_QUIET;
    if (stream->send_mode == RWS__SEND_ZERO_COPY)
        res = rws__stream_end_zero_copy(stream, res, more);
    stream->send_mode = RWS__SEND_IDLE;
    stream->ops--;
    rws__stream_mark_dirty(stream);
    if (res >= 0) {
        /* All that was asked for went: the next one may be quiet again. */
        stream->send_blocked = quiet || (uint32_t)res < stream->send_len;
        sent(stream, (size_t)res);
        return;
    }
    switch (-res) {
    case EAGAIN:
    case EINTR:
    case ENOBUFS:
    case ENOMEM:
    case ECANCELED: /* taken back to be looked at, or the file is being closed */
        stream->send_blocked = true;
        return;
    default: rws__stream_broken(stream, res);
    }
}
