/*
 * Progress of sending is what the peer acknowledged, not what the kernel took: that is megabytes
 * for a peer that reads nothing. Linux 6.7 and later tell how many bytes are not acknowledged
 * (SIOCOUTQ as a command on the ring). Before, and on unix sockets, what the kernel took counts, in
 * pieces of at most 64 KiB: progress is seen later there, by what fits the socket's buffer.
 *
 * While something is queued that the socket does not take, it is looked at LOOKS times in
 * send_timeout_ms. The stream has a credit of bytes, which falls at each look by what
 * progress_bytes_per_s_min asks for, rises by what was acknowledged, and is never more than the
 * bytes of one send_timeout_ms, so that a fast start earns nothing. Without credit it ends: a peer
 * that reads nothing after send_timeout_ms, one that reads less than the floor later, one that
 * reads in bursts not. (A floor by look would not do: the kernel reopens a closed window by some
 * 800 bytes at once.) Two looks are free at the start: one that takes back a send whose share of
 * the bytes is not known, and one that finds out how many are not acknowledged. So the end comes at
 * most a quarter of send_timeout_ms late, and never early.
 */
#include "engine/stream/internal.h"

#include <errno.h>

#define LOOKS      8u
#define FREE_LOOKS 2u
/* The mark is at most so far from `taken`, so that a difference modulo 2^32 has a sign. */
#define MARK_BYTES (1u << 30)

bool rws__stream_can_ask(const rws__stream *stream)
{
    return (stream->streams->loop->features & RWS__FEATURE_SOCKET_COMMANDS) &&
           stream->family != AF_UNIX;
}

static uint32_t look_interval_ms(const rws__stream *stream)
{
    return (stream->streams->options.send_timeout_ms + LOOKS - 1) / LOOKS;
}

/* What the peer has to acknowledge from one look to the next. */
static uint32_t look_bytes(const rws__stream *stream)
{
    uint64_t floor = stream->streams->options.progress_bytes_per_s_min;
    return (uint32_t)((floor * look_interval_ms(stream) + 999) / 1000);
}

static void set_look(rws__stream *stream)
{
    rws__loop_set(stream->streams->loop, RWS__DEADLINE_SENDING, &stream->timer,
                  look_interval_ms(stream));
}

void rws__stream_watch(rws__stream *stream)
{
    if (rws__timer_is_set(&stream->timer) || stream->phase >= RWS__STREAM_LINGERING) return;
    stream->credit = (LOOKS + FREE_LOOKS) * look_bytes(stream);
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
    size_t unsent = rws__stream_unsent(stream);
    stream->taken_mark = stream->taken + (uint32_t)(unsent < MARK_BYTES ? unsent : MARK_BYTES);
}

/* No socket holds as much, so what was taken before that is acknowledged. */
void rws__stream_bound_mark(rws__stream *stream)
{
    if ((int32_t)(stream->taken - stream->taken_mark) > (int32_t)MARK_BYTES)
        stream->taken_mark = stream->taken - MARK_BYTES;
}

/* How many bytes more than at the last mark are acknowledged; negative if the mark was a guess. */
int32_t rws__stream_progress(rws__stream *stream, uint32_t unacknowledged)
{
    uint32_t acknowledged = stream->taken - unacknowledged;
    int32_t more = (int32_t)(acknowledged - stream->taken_mark);
    stream->taken_mark = acknowledged;
    return more;
}

bool rws__stream_goes_on(const rws__stream *stream, int32_t more, uint32_t unacknowledged,
                         uint32_t interval_ms)
{
    /* Below the mark, which was a guess at first: from now on it is known. */
    if (more < 0 || (more > 0 && unacknowledged == 0)) return true;
    uint64_t floor = (uint64_t)stream->streams->options.progress_bytes_per_s_min * interval_ms;
    return more > 0 && (uint64_t)(uint32_t)more * 1000 >= floor;
}

/* A look costs credit; what the peer acknowledged earns it, up to that of a whole timeout. */
static void settle_credit(rws__stream *stream, int32_t more)
{
    uint32_t cost = look_bytes(stream), most = LOOKS * cost;
    uint32_t without = stream->credit > cost ? stream->credit - cost : 0;
    uint64_t with = (uint64_t)stream->credit + (more > 0 ? (uint32_t)more : 0);
    with = with > cost ? with - cost : 0;
    if (most < without) most = without; /* of the free looks */
    stream->credit = with < most ? (uint32_t)with : most;
}

void rws__stream_cut_off(rws__stream *stream, uint32_t unacknowledged)
{
    rws__stream_finish(stream, RWS__FINISH_CUT);
    rws__count(&stream->streams->loop->counters.bytes_discarded, unacknowledged);
    if (unacknowledged > 0) stream->reset = true;
}

static void judge_sending(rws__stream *stream, uint32_t unacknowledged)
{
    if (stream->phase >= RWS__STREAM_SHUTTING || !rws__stream_owes(stream)) return;
    settle_credit(stream, rws__stream_progress(stream, unacknowledged));
    if (stream->credit > 0) return;
    rws__cause cause = rws__cause_abnormal(RWS_E_TIMEOUT, RWS_CLOSED_BY_US,
                                           "the peer took nothing for send_timeout_ms");
    rws__count(&stream->streams->loop->counters.timeouts, 1);
    bool tell = !rws__stream_is_finishing(stream);
    rws__stream_cut_off(stream, unacknowledged);
    if (tell) stream->events->on_ended(stream, &cause);
}

static void judge_for_above(rws__stream *stream, uint32_t unacknowledged)
{
    stream->ask_waits = false;
    if (rws__stream_is_finishing(stream)) return;
    uint32_t interval_ms = rws__stream_cold_part(stream)->ask_interval_ms;
    int32_t more = rws__stream_progress(stream, unacknowledged);
    stream->events->on_asked(stream,
                             rws__stream_goes_on(stream, more, unacknowledged, interval_ms));
    if (stream->phase != RWS__STREAM_CLOSING || unacknowledged == 0) return;
    rws__count(&stream->streams->loop->counters.bytes_discarded, unacknowledged);
    stream->reset = true;
}

static void judge(rws__stream *stream, rws__asking what, uint32_t unacknowledged)
{
    switch (what) {
    case RWS__ASKING_ABOVE: judge_for_above(stream, unacknowledged); break;
    case RWS__ASKING_SENDING: judge_sending(stream, unacknowledged); break;
    case RWS__ASKING_FLUSHED:
        stream->end_asked = stream->eof;
        if (stream->phase != RWS__STREAM_FLUSHING && stream->phase != RWS__STREAM_LINGERING) break;
        if (unacknowledged == 0)
            rws__stream_enter(stream, RWS__STREAM_CLOSING);
        else if (stream->phase == RWS__STREAM_FLUSHING)
            rws__stream_enter(stream, RWS__STREAM_SHUTTING);
        else
            rws__stream_look_soon(stream);
        break;
    case RWS__ASKING_LINGER: rws__stream_judge_linger(stream, unacknowledged); break;
    case RWS__ASKING_NOTHING: break;
    }
    /* Another question may have been due meanwhile. */
    bool ends = rws__stream_is_finishing(stream) && stream->phase < RWS__STREAM_CLOSED;
    if (stream->ask_waits || ends) rws__stream_mark_dirty(stream);
}

void rws__stream_ask_for(rws__stream *stream, rws__asking what)
{
    if (stream->asking != RWS__ASKING_NOTHING) return;
    if (!rws__stream_can_ask(stream) || stream->file < 0 || stream->phase >= RWS__STREAM_CLOSING) {
        judge(stream, what, 0);
        return;
    }
    if (rws__ring_unacknowledged(stream->streams->loop->ring, (uint32_t)stream->file,
                                 rws__stream_op(stream, RWS__OP_ASK)) != 0) {
        if (what != RWS__ASKING_ABOVE) stream->asking_next = (uint8_t)what;
        rws__stream_mark_dirty(stream);
        return;
    }
    stream->asking = (uint8_t)what;
    stream->ops++;
}

void rws__stream_ask_again(rws__stream *stream)
{
    rws__asking what = stream->asking_next;
    stream->asking_next = RWS__ASKING_NOTHING;
    if (what != RWS__ASKING_NOTHING) rws__stream_ask_for(stream, what);
}

void rws__stream_ask(rws__stream *stream, uint32_t interval_ms)
{
    rws__stream_cold_part(stream)->ask_interval_ms = interval_ms;
    stream->ask_waits = true;
    rws__stream_mark_dirty(stream);
}

void rws__stream_on_answer(rws__stream *stream, int32_t res)
{
    rws__asking what = stream->asking;
    stream->asking = RWS__ASKING_NOTHING;
    if (res == -ECANCELED) return; /* the file is being closed */
    judge(stream, what, res > 0 ? (uint32_t)res : 0);
}

/* How much of a send is done is known when it ends: take it back, and go on with what fits. Returns
 * whether one waits whose share is not known. */
static bool interrupt_send(rws__stream *stream)
{
    bool waits = stream->send_mode == RWS__SEND_COUNTED || stream->send_mode == RWS__SEND_ZERO_COPY;
    if (!waits || stream->send_blocked) return false;
    const rws__loop *loop = stream->streams->loop;
    stream->send_blocked = rws__ring_cancel(loop->ring, rws__stream_op(stream, RWS__OP_SEND)) == 0;
    if (stream->send_blocked) settle_credit(stream, 0);
    return true;
}

void rws__streams_on_sending_deadline(rws__timer *timer, void *loop)
{
    (void)loop;
    rws__stream *stream = (void *)((char *)timer - offsetof(rws__stream, timer));
    if (!rws__stream_owes(stream)) return;
    set_look(stream);
    if (!interrupt_send(stream)) rws__stream_ask_for(stream, RWS__ASKING_SENDING);
}
