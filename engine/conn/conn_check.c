/*
 * The invariants of a connection, as they are after every flush (see stream_check.c).
 */
#include "engine/conn/request.h"

#ifdef RINGWS_CHECK_INVARIANTS

/* With more, nothing is counted. */
#define CONNS_PER_TURN 256u

#define IN(phase) (1u << (phase))
#define ENDS                                                                                       \
    (IN(RWS__STREAM_FLUSHING) | IN(RWS__STREAM_SHUTTING) | IN(RWS__STREAM_LINGERING) |             \
     IN(RWS__STREAM_CLOSING) | IN(RWS__STREAM_CLOSED))

/* The phases that its stream may have. UP also comes before on_up: a filter's handshake. CLOSING
 * and CLOSED come before the next address of a dial. */
static const uint16_t phases[RWS__CONN_STATE_COUNT] = {
    [RWS__CONN_CONNECTING] = IN(RWS__STREAM_INSTALLING) | IN(RWS__STREAM_CONNECTING) |
                             IN(RWS__STREAM_UP) | IN(RWS__STREAM_CLOSING) | IN(RWS__STREAM_CLOSED),
    [RWS__CONN_UPGRADING] = IN(RWS__STREAM_UP),
    [RWS__CONN_OPEN] = IN(RWS__STREAM_UP),
    [RWS__CONN_CLOSE_SENT] = IN(RWS__STREAM_UP),
    [RWS__CONN_CLOSE_RECEIVED] = IN(RWS__STREAM_UP),
    [RWS__CONN_ENDING] = ENDS,
    [RWS__CONN_ENDED] = ENDS,
};

static bool is_decided(const rws_conn *conn)
{
    if (!conn->stream.has_cold) return false;
    const rws__conn_cold *cold = (const rws__conn_cold *)rws__stream_cold_of(&conn->stream);
    return cold->request != NULL && cold->request->step == RWS__REQUEST_ANSWERING;
}

static bool has_deadline(const rws_conn *conn)
{
    if (conn->state == RWS__CONN_OPEN) return !rws__decoder_is_idle(&conn->decoder);
    return conn->state < RWS__CONN_ENDING && !is_decided(conn);
}

/* Between turns one is left for later, or answered in the next flush. */
static void check_request(const rws_conn *conn, const rws_request *request)
{
    RWS_ASSERT(conn->state == RWS__CONN_UPGRADING && request->conn == conn);
    RWS_ASSERT(request->bytes != NULL && request->counted_bytes > 0);
    RWS_ASSERT(request->counted_bytes <= rws__conn_table(conn)->request_bytes);
    if (conn->pauses != 0) RWS_ASSERT(conn->pauses == RWS__PAUSE_REQUEST);
    if (conn->pauses != 0) RWS_ASSERT(request->early == NULL);
    RWS_ASSERT(request->step != RWS__REQUEST_READING);
    RWS_ASSERT((request->step == RWS__REQUEST_ANSWERING) == conn->stream.want_turn);
}

static void check_cold(const rws_conn *conn)
{
    const rws__conn_cold *cold = (const rws__conn_cold *)rws__stream_cold_of(&conn->stream);
    if (conn->pauses & RWS__PAUSE_REQUEST) RWS_ASSERT(cold->request != NULL);
    if (cold->request != NULL) check_request(conn, cold->request);
    if (cold->dial != NULL)
        RWS_ASSERT(conn->state <= RWS__CONN_UPGRADING || conn->state == RWS__CONN_ENDED);
}

void rws__conn_check(rws__stream *stream)
{
    const rws_conn *conn = (const rws_conn *)stream;
    RWS_ASSERT(conn->state < RWS__CONN_STATE_COUNT);
    RWS_ASSERT(phases[conn->state] & IN(stream->phase));
    RWS_ASSERT(rws__timer_is_set(&conn->timer) == has_deadline(conn));
    if (conn->state >= RWS__CONN_OPEN && conn->state < RWS__CONN_ENDED)
        RWS_ASSERT(conn->endpoint != NULL);
    if (stream->phase == RWS__STREAM_UP) RWS_ASSERT(stream->paused == (conn->pauses != 0));
    if (conn->state > RWS__CONN_OPEN) RWS_ASSERT(conn->pauses == 0);
    if (conn->state == RWS__CONN_ENDING) RWS_ASSERT(stream->want_turn);
    if (conn->state == RWS__CONN_OPEN && rws__decoder_is_idle(&conn->decoder))
        RWS_ASSERT(conn->assembly == NULL && conn->decoder.stash == NULL);
    if (stream->has_cold) check_cold(conn);
}

/* The counts and the queue hold those whose state says so, and no others. */
void rws__conns_check(rws__conns *conns)
{
    const rws__streams *streams = &conns->streams;
    uint32_t open = 0, dials = 0, waiting = 0;
    if (streams->slots_touched > CONNS_PER_TURN) return;
    for (uint32_t slot = 0; slot < streams->slots_touched; slot++) {
        rws_conn *conn = (rws_conn *)rws__streams_at(streams, slot);
        open += conn->state >= RWS__CONN_OPEN && conn->state < RWS__CONN_ENDING;
        dials += conn->state != RWS__CONN_FREE && conn->state < RWS__CONN_OPEN &&
                 rws__conn_dial(conn) != NULL;
        waiting += (conn->pauses & RWS__PAUSE_BUDGET) != 0;
    }
    RWS_ASSERT(open == conns->open_count && dials == conns->dials_count);
    const rws__stream *stream = rws__slot_queue_first(streams, &conns->budget);
    for (; stream != NULL; stream = rws__slot_queue_next(&conns->budget, stream), waiting--) {
        RWS_ASSERT(waiting > 0);
        RWS_ASSERT(((const rws_conn *)stream)->pauses & RWS__PAUSE_BUDGET);
    }
    RWS_ASSERT(waiting == 0);
}

#else

void rws__conns_check(rws__conns *conns)
{
    (void)conns;
}

#endif
