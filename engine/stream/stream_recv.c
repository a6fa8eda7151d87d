/*
 * Receiving.
 *
 * In the usual case a multishot receive brings bytes in a provided buffer, and what is above reads
 * them there: nothing is copied. A large piece is received straight into memory of what is above
 * ("direct"). While such pieces come (`bulk`) no multishot receive is armed, because taking one
 * back costs more than it gives.
 */
#include "engine/stream/internal.h"

#include <errno.h>

/* With at least this much of a piece missing, the rest is received into its own memory. */
#define DIRECT_MIN 65536u
/* A stream with large pieces takes at most this much into a provided buffer: the next header and
 * some. */
#define BULK_PEEK 4096u
/* After so many receives without a large piece the stream is an ordinary one again. */
#define BULK_RECVS 16u
/* A receive that brought this much is followed by more: the next one may ask for all that is left.
 */
#define FLOW_BYTES_MIN 2048u
/* Direct receives that are submitted in one turn ask for at most this much, or are one: one message
 * after the other is received, unmasked and sent while it is in the cache (1 MiB from 16
 * connections: 0.81 to 0.73 of uWebSockets' time), and small ones in between wait less. */
#define DIRECT_TURN_BYTES 524288u

/* ---- pausing ---- */

void rws__stream_pause(rws__stream *stream)
{
    if (stream->paused) return;
    stream->paused = true;
    rws__stream_mark_dirty(stream);
}

void rws__stream_resume(rws__stream *stream)
{
    if (!stream->paused) return;
    stream->paused = false;
    rws__stream_mark_dirty(stream);
}

void rws__stream_expect_bulk(rws__stream *stream)
{
    stream->small_recvs = 0;
    if (stream->bulk) return;
    stream->bulk = true;
    rws__stream_mark_dirty(stream);
}

bool rws__stream_is_bulk(const rws__stream *stream, uint64_t bytes)
{
    return bytes >= DIRECT_MIN && stream->filter == NULL &&
           (stream->streams->loop->features & RWS__FEATURE_DIRECT_LARGE);
}

/* ---- arming ---- */

static bool wants_recv(const rws__stream *stream)
{
    if (stream->eof || stream->file < 0) return false;
    if (stream->phase == RWS__STREAM_UP) return !stream->paused;
    return stream->phase >= RWS__STREAM_FLUSHING && stream->phase < RWS__STREAM_CLOSING;
}

/* How much to receive directly, which may be the last piece. */
static size_t wants_direct(rws__stream *stream)
{
    if (!stream->bulk || stream->phase != RWS__STREAM_UP || stream->stalled != NULL ||
        stream->filter != NULL || stream->events->direct == NULL)
        return RWS__DIRECT_NONE;
    return stream->events->direct(stream);
}

/* Returns 0, -EAGAIN (not in this turn), -EBUSY (not now), or what the ring says. */
static int arm_direct(rws__stream *stream, size_t bytes, uint64_t user_data)
{
    rws__streams *streams = stream->streams;
    if (bytes == RWS__DIRECT_PAUSED) return -EBUSY;
    if (streams->direct_bytes > 0 && streams->direct_bytes + bytes > DIRECT_TURN_BYTES) {
        rws__stream_defer(stream);
        return -EBUSY;
    }
    uint8_t *memory = stream->events->direct_memory(stream, bytes);
    if (memory == NULL) return -EBUSY;
    streams->direct_bytes += bytes;
    rws__stream_cold_part(stream)->direct = memory;
    return rws__ring_recv(streams->loop->ring, (uint32_t)stream->file, memory, bytes, user_data);
}

static void arm(rws__stream *stream)
{
    const rws__loop *loop = stream->streams->loop;
    uint64_t user_data = rws__stream_op(stream, RWS__OP_RECV);
    uint32_t file = (uint32_t)stream->file;
    size_t direct = wants_direct(stream);
    rws__recv_mode mode;
    int res;
    if (direct != RWS__DIRECT_NONE) {
        mode = RWS__RECV_DIRECT;
        res = arm_direct(stream, direct, user_data);
        if (res == -EBUSY) return;
    } else if (stream->bulk || !(loop->features & RWS__FEATURE_MULTISHOT_RECV)) {
        mode = RWS__RECV_SINGLE;
        res = rws__ring_recv_provided(loop->ring, file, stream->bulk ? BULK_PEEK : 0, user_data);
    } else {
        mode = RWS__RECV_MULTISHOT;
        res = rws__ring_recv_multishot(loop->ring, file, user_data);
    }
    if (res != 0) {
        rws__stream_mark_dirty(stream);
        return;
    }
    stream->recv_mode = (uint8_t)mode;
    stream->ops++;
}

void rws__stream_pump_recv(rws__stream *stream)
{
    if (wants_recv(stream)) {
        if (stream->recv_mode == RWS__RECV_IDLE) arm(stream);
        /* A large piece began: what is armed makes room for receives into its own memory. */
        if (stream->recv_mode != RWS__RECV_MULTISHOT || !stream->bulk) return;
    }
    if (stream->recv_mode == RWS__RECV_IDLE || stream->recv_cancelled) return;
    if (stream->phase >= RWS__STREAM_CLOSING) return; /* the whole file is cancelled */
    if (rws__ring_cancel(stream->streams->loop->ring, rws__stream_op(stream, RWS__OP_RECV)) == 0)
        stream->recv_cancelled = true;
    else
        rws__stream_mark_dirty(stream);
}

/* ---- completions ---- */

/* Waiting input has at most half of the budget for messages, in fair shares: who does not read what
 * is sent may have much waiting, and must not take what the messages of others need. */
static bool may_stall(const rws__stream *stream, size_t had, size_t len)
{
    const rws__streams *streams = stream->streams;
    size_t used = streams->stalled_bytes, most = streams->stall_share.bytes;
    /* It may be more than that by what waits again. */
    return used <= most &&
           rws__share_allows(&streams->stall_share, used, had, len, RWS__SHARE_MESSAGE);
}

/* `again`: it waited before. */
static void stall(rws__stream *stream, const uint8_t *data, size_t len, bool again)
{
    rws__streams *streams = stream->streams;
    size_t had = stream->stalled != NULL ? stream->stalled->len : 0;
    if ((!again && !may_stall(stream, had, len)) ||
        rws__payload_append(&stream->stalled, streams->partial, data, len, 2 * had) != 0) {
        stream->events->on_input_overflow(stream);
        return;
    }
    streams->stalled_bytes += len;
}

/* What waits is no longer the stream's. */
static rws__payload *take_stalled(rws__stream *stream)
{
    rws__payload *input = stream->stalled;
    stream->stalled = NULL;
    if (input != NULL) stream->streams->stalled_bytes -= input->len;
    return input;
}

void rws__stream_drop_stalled(rws__stream *stream)
{
    rws__payload_release(take_stalled(stream));
}

void rws__stream_return_input(rws__stream *stream, rws__payload *input)
{
    RWS_ASSERT(stream->stalled == NULL);
    stream->stalled = input;
    stream->streams->stalled_bytes += input->len;
    rws__stream_mark_dirty(stream);
}

/* Whether input may be passed on now: what was received before goes first. */
static bool may_deliver(const rws__stream *stream)
{
    return stream->phase == RWS__STREAM_UP && stream->stalled == NULL && !stream->paused;
}

/* To what is above; what it does not take waits. */
static inline void pass_input(rws__stream *stream, uint8_t *data, size_t len, bool again)
{
    size_t taken = 0;
    if (may_deliver(stream)) taken = stream->events->on_input(stream, data, len);
    if (taken < len && stream->phase == RWS__STREAM_UP)
        stall(stream, data + taken, len - taken, again);
}

void rws__stream_deliver(rws__stream *stream, uint8_t *data, size_t len)
{
    pass_input(stream, data, len, false);
}

void rws__stream_deliver_stalled(rws__stream *stream)
{
    /* Taken out, because it may have to wait again. */
    rws__payload *input = take_stalled(stream);
    pass_input(stream, input->data, input->len, true);
    rws__payload_release(input);
}

/* The receive ended with `res` < 0. */
static void on_error(rws__stream *stream, int32_t res)
{
    switch (-res) {
    case ENOBUFS: /* flow control: the buffers are back at the end of the turn */
        rws__count(&stream->streams->loop->counters.no_buffers, 1);
        return;
    case ECANCELED:
    case EINTR:
    case EAGAIN: return; /* armed again if it is still wanted */
    default: rws__stream_broken(stream, res);
    }
}

void rws__stream_on_recv(rws__stream *stream, int32_t res, uint8_t *data, bool more)
{
    if (!more) {
        if (stream->recv_mode == RWS__RECV_DIRECT) data = rws__stream_cold_part(stream)->direct;
        stream->recv_mode = RWS__RECV_IDLE;
        stream->recv_cancelled = false;
        stream->ops--;
        rws__stream_mark_dirty(stream);
    }
    if (res < 0) {
        on_error(stream, res);
        return;
    }
    if (res == 0) {
        stream->eof = true;
        rws__stream_mark_dirty(stream);
        return;
    }
    rws__count(&stream->streams->loop->counters.bytes_received, (uint64_t)res);
    stream->more_expected = (uint32_t)res >= FLOW_BYTES_MIN;
    if (stream->bulk && ++stream->small_recvs > BULK_RECVS) stream->bulk = false;
    if (stream->filter != NULL)
        rws__filters_input(stream, data, (size_t)res);
    else
        pass_input(stream, data, (size_t)res, false);
}
