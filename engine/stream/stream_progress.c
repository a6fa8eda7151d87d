/*
 * Progress of sending is what the peer acknowledged, not what the kernel took: that is megabytes
 * for a peer that reads nothing. Linux 6.7 and later tell how many bytes are not acknowledged
 * (SIOCOUTQ as a command on the ring). Before, and on unix sockets, what the kernel took counts, in
 * pieces of at most 64 KiB: progress is seen later there, by what fits the socket's buffer.
 *
 * While something is queued that the socket does not take, it is looked at LOOKS times in
 * send_timeout_ms. So many looks in a row that find less than progress_bytes_per_s_min end the
 * stream. A peer that reads slowly is not cut, one that reads a byte a second is.
 */
#include "engine/stream/internal.h"

#include <errno.h>
#include <string.h>

#define LOOKS 4u

static bool can_ask(const rws__stream *stream)
{
    return (stream->streams->loop->features & RWS__FEATURE_SOCKET_COMMANDS) &&
           stream->family != AF_UNIX;
}

static uint32_t look_interval_ms(const rws__stream *stream)
{
    return stream->streams->options.send_timeout_ms / LOOKS + 1;
}

static void set_look(rws__stream *stream)
{
    rws__loop_set(stream->streams->loop, RWS__DEADLINE_SENDING, &stream->timer,
                  look_interval_ms(stream));
}

void rws__stream_watch(rws__stream *stream)
{
    if (rws__timer_is_set(&stream->timer) || stream->phase >= RWS__STREAM_LINGERING) return;
    stream->slow_looks = 0;
    stream->taken_mark = stream->taken;
    set_look(stream);
}

void rws__stream_unwatch(rws__stream *stream)
{
    if (stream->phase != RWS__STREAM_LINGERING)
        rws__loop_clear(stream->streams->loop, RWS__DEADLINE_SENDING, &stream->timer);
}

void rws__stream_mark(rws__stream *stream)
{
    stream->taken_mark = stream->taken + (uint32_t)stream->sendq.bytes;
    if (stream->wired) stream->taken_mark += (uint32_t)rws__filters_wire(stream)->bytes;
}

/* How many bytes more than at the last mark are acknowledged; negative if the mark was a guess. */
static int32_t progress(rws__stream *stream, uint32_t unacknowledged)
{
    uint32_t acknowledged = stream->taken - unacknowledged;
    int32_t more = (int32_t)(acknowledged - stream->taken_mark);
    stream->taken_mark = acknowledged;
    return more;
}

static bool is_enough(const rws__stream *stream, int32_t bytes, uint32_t interval_ms)
{
    uint64_t floor = (uint64_t)stream->streams->options.progress_bytes_per_s_min * interval_ms;
    return bytes > 0 && (uint64_t)bytes * 1000 >= floor;
}

static void judge_sending(rws__stream *stream, uint32_t unacknowledged)
{
    bool all_taken = stream->sendq.bytes == 0 && rws__stream_out(stream)->bytes == 0;
    if (all_taken && stream->phase != RWS__STREAM_FLUSHING) return;
    int32_t more = progress(stream, unacknowledged);
    if (is_enough(stream, more, look_interval_ms(stream)))
        stream->slow_looks = 0;
    else
        stream->slow_looks++;
    if (stream->slow_looks < LOOKS) return;
    static const char text[] = "the peer took nothing for send_timeout_ms";
    rws__cause cause = {RWS_E_TIMEOUT, RWS_CLOSE_ABNORMAL, RWS_CLOSED_BY_US, {text, strlen(text)}};
    rws__count(&stream->streams->loop->counters.timeouts, 1);
    rws__stream_end(stream, &cause);
}

/* The peer has not ended its half. It is waited for while it takes what was sent. */
static void judge_linger(rws__stream *stream, uint32_t unacknowledged)
{
    rws__streams *streams = stream->streams;
    int32_t more = progress(stream, unacknowledged);
    if (stream->phase != RWS__STREAM_LINGERING) return;
    /* Below the mark, which was a guess: from now on it is known. */
    if (is_enough(stream, more, streams->options.linger_timeout_ms) || more < 0 ||
        (more > 0 && unacknowledged == 0)) {
        rws__loop_set(streams->loop, RWS__DEADLINE_LINGER, &stream->timer,
                      streams->options.linger_timeout_ms);
        return;
    }
    rws__count(&streams->loop->counters.bytes_discarded, unacknowledged);
    rws__stream_finish(stream, RWS__FINISH_CUT);
    stream->reset = unacknowledged > 0;
}

static void judge(rws__stream *stream, rws__asking what, uint32_t unacknowledged)
{
    switch (what) {
    case RWS__ASKING_ABOVE:
        stream->ask_waits = false;
        /* Above the mark, or below it where that was a guess: something is going on. */
        if (!rws__stream_is_finishing(stream))
            stream->events->on_asked(stream, progress(stream, unacknowledged) != 0);
        break;
    case RWS__ASKING_SENDING: judge_sending(stream, unacknowledged); break;
    case RWS__ASKING_FLUSHED:
        if (stream->phase != RWS__STREAM_FLUSHING) break;
        rws__stream_enter(stream, unacknowledged == 0 ? RWS__STREAM_CLOSING : RWS__STREAM_SHUTTING);
        rws__stream_mark_dirty(stream);
        break;
    case RWS__ASKING_LINGER: judge_linger(stream, unacknowledged); break;
    case RWS__ASKING_NOTHING: break;
    }
}

void rws__stream_ask_for(rws__stream *stream, rws__asking what)
{
    if (stream->asking != RWS__ASKING_NOTHING) return;
    if (!can_ask(stream) || stream->file < 0 || stream->phase >= RWS__STREAM_CLOSING) {
        judge(stream, what, 0);
        return;
    }
    if (rws__ring_unacknowledged(stream->streams->loop->ring, (uint32_t)stream->file,
                                 rws__stream_op(stream, RWS__OP_ASK)) != 0) {
        rws__stream_mark_dirty(stream);
        return;
    }
    stream->asking = (uint8_t)what;
    stream->ops++;
}

void rws__stream_ask(rws__stream *stream)
{
    stream->ask_waits = true;
    rws__stream_mark_dirty(stream);
}

void rws__stream_on_answer(rws__stream *stream, int32_t res)
{
    rws__asking what = stream->asking;
    stream->asking = RWS__ASKING_NOTHING;
    if (res == -ECANCELED) return; /* the file is being closed */
    judge(stream, what, res > 0 ? (uint32_t)res : 0);
    /* Another question may have been due meanwhile. */
    if (stream->ask_waits || stream->phase == RWS__STREAM_FLUSHING) rws__stream_mark_dirty(stream);
}

/* How much of a send is done is known when it ends: take it back, and go on with what fits. */
static void interrupt_send(rws__stream *stream)
{
    bool waits = stream->send_mode == RWS__SEND_COUNTED || stream->send_mode == RWS__SEND_ZERO_COPY;
    if (!waits || stream->send_blocked) return;
    const rws__loop *loop = stream->streams->loop;
    stream->send_blocked = rws__ring_cancel(loop->ring, rws__stream_op(stream, RWS__OP_SEND)) == 0;
}

void rws__streams_on_sending_deadline(rws__timer *timer, void *loop)
{
    (void)loop;
    rws__stream *stream = (void *)((char *)timer - offsetof(rws__stream, timer));
    if (rws__stream_is_sent(stream) && !rws__stream_lends_to_kernel(stream)) return;
    interrupt_send(stream);
    set_look(stream);
    rws__stream_ask_for(stream, RWS__ASKING_SENDING);
}

void rws__streams_on_linger_deadline(rws__timer *timer, void *loop)
{
    (void)loop;
    rws__stream *stream = (void *)((char *)timer - offsetof(rws__stream, timer));
    /* Tried again after the same time if the ring takes no question now. */
    rws__loop_set(stream->streams->loop, RWS__DEADLINE_LINGER, &stream->timer,
                  stream->streams->options.linger_timeout_ms);
    rws__stream_ask_for(stream, RWS__ASKING_LINGER);
}
