/*
 * Lingering: our half is shut down, and input is discarded until the peer ends its half, so that
 * what it still sends does not make the kernel reset the connection and throw away what is on its
 * way. It is waited for while it acknowledges, and for linger_timeout_ms after that.
 *
 * Those that linger stand in a queue, oldest first: when slots run low, the oldest goes at once.
 * What lingers has a slot that others need, and its peer has had the time to read.
 */
#include "engine/stream/internal.h"

/* When all are to end soon: so often it is looked whether the peer has acknowledged everything, and
 * so long it has where the kernel can't tell. */
#define HURRIED_LOOK_MS    100u
#define HURRIED_TIMEOUT_MS 500u

void rws__stream_set_linger(rws__stream *stream)
{
    uint32_t delay_ms = stream->streams->options.linger_timeout_ms;
    /* A client waits for the server's end, which mostly comes by itself. */
    bool looks = rws__stream_can_ask(stream) && stream->finish != RWS__FINISH_AWAIT;
    uint32_t hurried_ms = looks ? HURRIED_LOOK_MS : HURRIED_TIMEOUT_MS;
    if (stream->streams->hurried && delay_ms > hurried_ms) delay_ms = hurried_ms;
    rws__loop_set(stream->streams->loop, RWS__DEADLINE_LINGER, &stream->timer, delay_ms);
}

void rws__stream_look_soon(rws__stream *stream)
{
    uint32_t delay_ms = stream->streams->options.linger_timeout_ms;
    rws__loop_set(stream->streams->loop, RWS__DEADLINE_LINGER, &stream->timer,
                  delay_ms < HURRIED_LOOK_MS ? delay_ms : HURRIED_LOOK_MS);
}

void rws__stream_begin_linger(rws__stream *stream)
{
    rws__slot_queue_append(&stream->streams->linger, stream);
    stream->taken_mark = stream->taken;
    if (stream->eof)
        rws__stream_look_soon(stream);
    else
        rws__stream_set_linger(stream);
}

void rws__stream_end_linger(rws__stream *stream)
{
    rws__slot_queue_remove(&stream->streams->linger, stream);
    rws__loop_clear(stream->streams->loop, RWS__DEADLINE_LINGER, &stream->timer);
}

void rws__streams_make_room(rws__streams *streams, uint32_t slots)
{
    if (streams->options.slots_max - streams->slots_used >= slots) return;
    rws__stream *oldest = rws__slot_queue_first(streams, &streams->linger);
    if (oldest == NULL) return;
    RWS_ASSERT(oldest->phase == RWS__STREAM_LINGERING);
    rws__stream_finish(oldest, RWS__FINISH_CUT);
}

void rws__streams_hurry(rws__streams *streams)
{
    streams->hurried = true;
    rws__stream *stream = rws__slot_queue_first(streams, &streams->linger);
    for (; stream != NULL; stream = rws__slot_queue_next(&streams->linger, stream))
        rws__stream_set_linger(stream);
}

static bool is_waited_for(const rws__stream *stream, int32_t more, uint32_t unacknowledged)
{
    if (stream->streams->hurried) return unacknowledged > 0;
    return rws__stream_goes_on(stream, more, unacknowledged,
                               stream->streams->options.linger_timeout_ms);
}

static void wait_on(rws__stream *stream)
{
    rws__stream_set_linger(stream);
    if (stream->eof) rws__stream_ask_for_reset(stream);
}

/* The peer has not ended its half, or not acknowledged everything. */
void rws__stream_judge_linger(rws__stream *stream, uint32_t unacknowledged)
{
    if (stream->phase != RWS__STREAM_LINGERING) return;
    int32_t more = rws__stream_progress(stream, unacknowledged);
    if (stream->eof && unacknowledged == 0)
        rws__stream_enter(stream, RWS__STREAM_CLOSING);
    else if (is_waited_for(stream, more, unacknowledged))
        wait_on(stream);
    else
        rws__stream_cut_off(stream, unacknowledged);
}

void rws__streams_on_linger_deadline(rws__timer *timer, void *loop)
{
    (void)loop;
    rws__stream *stream = (void *)((char *)timer - offsetof(rws__stream, timer));
    /* Tried again after the same time if the ring takes no question now. */
    rws__stream_set_linger(stream);
    rws__stream_ask_for(stream, RWS__ASKING_LINGER);
}
