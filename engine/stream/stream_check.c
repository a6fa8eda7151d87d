/*
 * The invariants of streams, as they are after every flush: what stream.h and streams.h say, and
 * that whatever is wanted is in flight, or will be looked at again. Compiled into debug and
 * sanitizer builds (RINGWS_CHECK_INVARIANTS).
 */
#include "engine/stream/internal.h"

#ifdef RINGWS_CHECK_INVARIANTS

/* All slots are checked each turn if there are no more than these; else so many, in turn. */
#define SLOTS_PER_TURN 256u

/* The operations that the modes and flags account for. */
static uint32_t known_ops(const rws__stream *stream)
{
    uint32_t known = stream->recv_mode != RWS__RECV_IDLE;
    known += stream->send_mode != RWS__SEND_IDLE;
    known += stream->asking != RWS__ASKING_NOTHING;
    known += stream->shutting_down;
    known += rws__stream_lends_to_kernel(stream);
    return known;
}

/* Whether bytes are transferred, or may still be. */
static bool has_file(const rws__stream *stream)
{
    return stream->phase >= RWS__STREAM_UP && stream->phase < RWS__STREAM_CLOSING;
}

/* Those that they don't: install or connect, and close. */
static uint32_t more_ops_max(const rws__stream *stream)
{
    if (has_file(stream)) return 0;
    return stream->phase == RWS__STREAM_CLOSED ? 2 : 1;
}

static void check_operations(const rws__stream *stream)
{
    uint32_t known = known_ops(stream);
    RWS_ASSERT(stream->ops >= known);
    RWS_ASSERT(stream->ops - known <= more_ops_max(stream));
    if (stream->phase == RWS__STREAM_CLOSED) RWS_ASSERT(stream->ops > 0 || stream->dirty);
    if (has_file(stream)) RWS_ASSERT(stream->file >= 0 && !stream->installing);
    if (stream->recv_cancelled) RWS_ASSERT(stream->recv_mode != RWS__RECV_IDLE);
}

static void check_sending(rws__stream *stream)
{
    const rws__sendq *out = rws__stream_out(stream);
    bool sends = stream->phase == RWS__STREAM_UP || stream->phase == RWS__STREAM_FLUSHING;
    bool timed = rws__timer_is_set(&stream->timer);
    if (stream->send_mode == RWS__SEND_IDLE) {
        if (sends && out->bytes > 0) RWS_ASSERT(stream->dirty);
        if (sends && stream->wired && stream->sendq.bytes > 0)
            RWS_ASSERT(stream->dirty || rws__filters_hold_back(stream));
    } else {
        RWS_ASSERT(stream->send_len > 0 && stream->send_len <= out->bytes);
        /* Whoever waits for the peer has a deadline. */
        if (sends && stream->send_mode != RWS__SEND_QUIET) RWS_ASSERT(timed);
    }
    if (stream->phase == RWS__STREAM_FLUSHING && rws__stream_owes(stream))
        RWS_ASSERT(timed || stream->dirty);
    if (stream->phase == RWS__STREAM_SHUTTING || stream->phase == RWS__STREAM_LINGERING)
        RWS_ASSERT(rws__stream_is_sent(stream));
    if (stream->phase == RWS__STREAM_LINGERING) RWS_ASSERT(timed);
    if (!has_file(stream)) RWS_ASSERT(!timed);
}

static void check_receiving(const rws__stream *stream)
{
    bool is_up = stream->phase == RWS__STREAM_UP;
    bool discards = stream->phase > RWS__STREAM_UP && stream->phase < RWS__STREAM_CLOSING;
    bool armed = stream->recv_mode != RWS__RECV_IDLE;
    if (((is_up && !stream->paused) || discards) && !stream->eof)
        RWS_ASSERT(armed || stream->dirty);
    if (is_up && stream->paused && armed) RWS_ASSERT(stream->recv_cancelled || stream->dirty);
    if (stream->stalled != NULL) RWS_ASSERT(is_up && (stream->paused || stream->dirty));
    if (is_up && stream->eof && !stream->eof_told)
        RWS_ASSERT(stream->stalled != NULL || stream->dirty);
}

/* filter.h: the chain exists exactly while `wired`; with a filter nothing is lent, and no receive
 * is direct. */
static void check_filters(const rws__stream *stream)
{
    bool has_chain = stream->has_cold && rws__stream_cold_of(stream)->filters != NULL;
    RWS_ASSERT(stream->wired == has_chain);
    if (stream->filter == NULL) return;
    RWS_ASSERT(stream->wired && stream->recv_mode != RWS__RECV_DIRECT);
    RWS_ASSERT(rws__sendq_lender(&stream->sendq) == NULL && !rws__stream_lends_to_kernel(stream));
}

/* Its end goes on by itself. */
static void check_end(rws__stream *stream)
{
    switch ((rws__stream_phase)stream->phase) {
    case RWS__STREAM_FLUSHING:
        if (!rws__stream_owes(stream))
            RWS_ASSERT(stream->asking != RWS__ASKING_NOTHING || stream->dirty);
        break;
    case RWS__STREAM_SHUTTING: RWS_ASSERT(stream->dirty); break;
    case RWS__STREAM_LINGERING:
        RWS_ASSERT(!stream->eof || stream->dirty || stream->end_asked ||
                   stream->asking != RWS__ASKING_NOTHING);
        break;
    case RWS__STREAM_CLOSING:
        RWS_ASSERT(stream->installing || stream->shutting_down || stream->dirty);
        break;
    default: break;
    }
}

void rws__stream_check(rws__stream *stream)
{
    RWS_ASSERT(stream->phase < RWS__STREAM_PHASES);
    if (stream->phase == RWS__STREAM_FREE) return;
    check_operations(stream);
    check_sending(stream);
    check_receiving(stream);
    check_filters(stream);
    check_end(stream);
    if (stream->want_turn || stream->asking_next != RWS__ASKING_NOTHING) RWS_ASSERT(stream->dirty);
    if (stream->ask_waits) RWS_ASSERT(stream->asking != RWS__ASKING_NOTHING || stream->dirty);
    if (stream->events->check != NULL) stream->events->check(stream);
}

/* The queue holds those that linger, and no others. */
static void check_linger(const rws__streams *streams, uint32_t lingering)
{
    const rws__slot_queue *queue = &streams->linger;
    uint32_t prev = 0, count = 0;
    const rws__stream *stream = rws__slot_queue_first(streams, queue);
    for (; stream != NULL; stream = rws__slot_queue_next(queue, stream), count++) {
        RWS_ASSERT(count < lingering);
        RWS_ASSERT(stream->phase == RWS__STREAM_LINGERING);
        RWS_ASSERT(rws__stream_cold_of(stream)->linger.prev == prev);
        prev = stream->slot + 1;
    }
    RWS_ASSERT(count == lingering && queue->last == prev);
}

void rws__streams_check(rws__streams *streams)
{
    uint32_t all = streams->slots_touched, used = 0, lingering = 0, quiet = 0;
    size_t stalled = 0;
    if (all > SLOTS_PER_TURN) {
        for (uint32_t i = 0; i < SLOTS_PER_TURN; i++)
            rws__stream_check(rws__streams_at(streams, streams->check_next++ % all));
        return;
    }
    for (uint32_t slot = 0; slot < all; slot++) {
        rws__stream *stream = rws__streams_at(streams, slot);
        rws__stream_check(stream);
        used += stream->phase != RWS__STREAM_FREE;
        lingering += stream->phase == RWS__STREAM_LINGERING;
        if (stream->stalled != NULL) stalled += stream->stalled->len;
        quiet += stream->send_mode == RWS__SEND_QUIET;
    }
    check_linger(streams, lingering);
    RWS_ASSERT(stalled == streams->stalled_bytes);
    RWS_ASSERT(quiet <= streams->quiet.count);
    RWS_ASSERT(streams->slots_used == used);
    RWS_ASSERT(streams->slots_used + streams->free_count == streams->slots_touched);
}

#else

void rws__streams_check(rws__streams *streams)
{
    (void)streams;
}

#endif
