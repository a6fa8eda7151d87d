/*
 * The life of a stream: its phases, its way up, and its end.
 */
#include "engine/ring/sockets.h"
#include "engine/stream/internal.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#define TO(phase) (1u << (phase))

/* The only legal moves. */
static const uint16_t phase_moves[RWS__STREAM_PHASES] = {
    [RWS__STREAM_FREE] = TO(RWS__STREAM_INSTALLING) | TO(RWS__STREAM_UP),
    [RWS__STREAM_INSTALLING] =
        TO(RWS__STREAM_CONNECTING) | TO(RWS__STREAM_UP) | TO(RWS__STREAM_CLOSING),
    [RWS__STREAM_CONNECTING] = TO(RWS__STREAM_UP) | TO(RWS__STREAM_CLOSING),
    [RWS__STREAM_UP] = TO(RWS__STREAM_FLUSHING) | TO(RWS__STREAM_CLOSING),
    [RWS__STREAM_FLUSHING] =
        TO(RWS__STREAM_SHUTTING) | TO(RWS__STREAM_LINGERING) | TO(RWS__STREAM_CLOSING),
    [RWS__STREAM_SHUTTING] = TO(RWS__STREAM_LINGERING) | TO(RWS__STREAM_CLOSING),
    [RWS__STREAM_LINGERING] = TO(RWS__STREAM_CLOSING),
    [RWS__STREAM_CLOSING] = TO(RWS__STREAM_CLOSED),
    [RWS__STREAM_CLOSED] = TO(RWS__STREAM_FREE),
};

void rws__stream_enter(rws__stream *stream, rws__stream_phase phase)
{
    RWS_ASSERT(phase_moves[stream->phase] & TO(phase));
    if (stream->phase == RWS__STREAM_LINGERING)
        rws__stream_end_linger(stream);
    else if (phase >= RWS__STREAM_LINGERING)
        rws__stream_unwatch(stream);
    stream->phase = (uint8_t)phase;
    if (phase == RWS__STREAM_LINGERING) rws__stream_begin_linger(stream);
}

/* ---- its way up ---- */

static void come_up(rws__stream *stream)
{
    rws__stream_enter(stream, RWS__STREAM_UP);
    rws__count(&stream->streams->loop->counters.accepted, 1);
    rws__stream_mark_dirty(stream);
    if (stream->filter != NULL ||
        (stream->has_cold && rws__stream_cold_of(stream)->filter_maker != NULL))
        rws__filters_start(stream);
    else
        stream->events->on_up(stream);
}

void rws__stream_accepted(rws__stream *stream, int32_t file, const struct sockaddr *peer)
{
    stream->file = file;
    if (peer != NULL)
        memcpy(&rws__stream_cold_part(stream)->peer, peer, sizeof(struct sockaddr_in6));
    come_up(stream);
}

void rws__stream_adopt(rws__stream *stream, int fd)
{
    rws__stream_cold_part(stream)->install_fd = fd;
    stream->installing = true;
    rws__stream_enter(stream, RWS__STREAM_INSTALLING);
    rws__stream_mark_dirty(stream);
}

void rws__stream_dial(rws__stream *stream, int fd, const struct sockaddr *address, socklen_t len)
{
    rws__stream_cold *cold = rws__stream_cold_part(stream);
    cold->dial = address;
    cold->dial_len = len;
    rws__stream_adopt(stream, fd);
}

/* What brings it up and is not submitted yet. */
static void pump_up(rws__stream *stream)
{
    if (stream->ops > 0) return;
    rws__stream_cold *cold = rws__stream_cold_part(stream);
    rws__ring *ring = stream->streams->loop->ring;
    int res;
    if (stream->phase == RWS__STREAM_INSTALLING) {
        stream->file = cold->install_fd; /* read by the kernel, which writes the index here */
        res = rws__ring_install(ring, &stream->file, rws__stream_op(stream, RWS__OP_INSTALL));
    } else {
        res = rws__ring_connect(ring, (uint32_t)stream->file, cold->dial, cold->dial_len,
                                rws__stream_op(stream, RWS__OP_CONNECT));
    }
    if (res == 0)
        stream->ops++;
    else
        rws__stream_mark_dirty(stream);
}

void rws__stream_on_installed(rws__stream *stream, int32_t res)
{
    rws__stream_cold *cold = rws__stream_cold_part(stream);
    rws__socket_close(cold->install_fd);
    stream->installing = false;
    if (res < 1) stream->file = -1;
    rws__stream_mark_dirty(stream);
    if (stream->phase != RWS__STREAM_INSTALLING) return;
    if (res < 1)
        rws__stream_broken(stream, res == 0 ? -ENFILE : res);
    else if (cold->dial != NULL)
        rws__stream_enter(stream, RWS__STREAM_CONNECTING);
    else
        come_up(stream);
}

void rws__stream_on_connected(rws__stream *stream, int32_t res)
{
    if (stream->phase != RWS__STREAM_CONNECTING) return;
    if (res < 0) {
        rws__stream_broken(stream, res);
        return;
    }
    rws__stream_cold *cold = rws__stream_cold_part(stream);
    size_t len = cold->dial_len < sizeof cold->peer ? cold->dial_len : sizeof cold->peer;
    if (stream->family != AF_UNIX) memcpy(&cold->peer, cold->dial, len);
    cold->dial = NULL;
    come_up(stream);
}

/* ---- its end ---- */

/* It was never given to the ring. */
static void drop_descriptor(rws__stream *stream)
{
    rws__socket_close(rws__stream_cold_part(stream)->install_fd);
    stream->installing = false;
    stream->file = -1;
}

/* Close at once, without the rest of the queue. */
static void cut(rws__stream *stream)
{
    rws__stream_mark_dirty(stream);
    rws__stream_drop_stalled(stream);
    if (stream->installing && stream->ops == 0) drop_descriptor(stream);
    stream->reset = rws__stream_owes(stream) || stream->sent_much;
    rws__stream_enter(stream, RWS__STREAM_CLOSING);
}

void rws__stream_finish(rws__stream *stream, rws__finish finish)
{
    if (stream->phase >= RWS__STREAM_CLOSING) return;
    if (finish == RWS__FINISH_CUT || stream->phase < RWS__STREAM_UP) {
        rws__count(&stream->streams->loop->counters.bytes_discarded, rws__stream_queued(stream));
        cut(stream);
    } else if (stream->phase == RWS__STREAM_UP) {
        rws__stream_mark_dirty(stream);
        rws__stream_drop_stalled(stream);
        stream->finish = (uint8_t)finish;
        rws__stream_enter(stream, RWS__STREAM_FLUSHING);
        if (rws__stream_owes(stream)) rws__stream_watch(stream);
    }
}

void rws__stream_end(rws__stream *stream, const rws__cause *cause)
{
    if (stream->phase >= RWS__STREAM_CLOSING) return;
    bool tell = !rws__stream_is_finishing(stream);
    rws__stream_finish(stream, RWS__FINISH_CUT);
    if (tell) stream->events->on_ended(stream, cause);
}

/* A sentence of ours; NULL: the system's for `res` says as much. */
static const char *explain(const rws__stream *stream, int32_t res)
{
    bool connecting = stream->phase == RWS__STREAM_CONNECTING;
    switch (-res) {
    case ECONNREFUSED: return "connection refused: nobody listens there";
    case ENOENT: return "there is no such unix socket";
    case EADDRNOTAVAIL: return "no local port is left: too many connections to one address";
    case ENFILE: return "no direct descriptor for the socket is left";
    default: return connecting ? NULL : "the connection broke";
    }
}

void rws__stream_broken(rws__stream *stream, int32_t res)
{
    if (stream->phase >= RWS__STREAM_CLOSING) return;
    const char *text = explain(stream, res);
    rws__cause cause = rws__cause_abnormal(res, RWS_CLOSED_BY_PEER, text);
    bool tell = !rws__stream_is_finishing(stream);
    if (stream->phase >= RWS__STREAM_UP) stream->eof = true;
    /* What is queued was lost by the peer's doing: it does not count as discarded. */
    cut(stream);
    if (tell) stream->events->on_ended(stream, &cause);
}

static int submit_shutdown(rws__stream *stream)
{
    int res = rws__ring_shutdown_write(stream->streams->loop->ring, (uint32_t)stream->file,
                                       rws__stream_op(stream, RWS__OP_SHUTDOWN));
    if (res != 0) return res;
    stream->shutting_down = stream->half_ended = true;
    stream->ops++;
    return 0;
}

/* Take back what is in flight: in the usual case the receive alone, by its name. To find what
 * belongs to a file the kernel goes through all operations of the ring, idle streams' too. */
static int submit_cancel(rws__stream *stream)
{
    rws__ring *ring = stream->streams->loop->ring;
    bool receives = stream->recv_mode != RWS__RECV_IDLE;
    if (stream->ops == 0) return 0;
    if (stream->ops > 1 || !receives || stream->recv_cancelled)
        return rws__ring_cancel_file(ring, (uint32_t)stream->file);
    int res = rws__ring_cancel(ring, rws__stream_op(stream, RWS__OP_RECV));
    stream->recv_cancelled = res == 0;
    return res;
}

static int submit_close(rws__stream *stream)
{
    rws__ring *ring = stream->streams->loop->ring;
    uint32_t file = (uint32_t)stream->file;
    if (submit_cancel(stream) != 0) return -EAGAIN;
    /* After a mere close the kernel would offer the rest to a peer that takes nothing for minutes
     * more, and keep the memory as long. */
    if (stream->reset && stream->family != AF_UNIX && rws__ring_disconnect(ring, file) != 0)
        return -EAGAIN;
    int res = rws__ring_close(ring, file, rws__stream_op(stream, RWS__OP_CLOSE));
    if (res == 0) stream->ops++;
    return res;
}

/* Early kernels put a removed direct descriptor when the operations that were in flight on others
 * have ended (seen on 6.1: a second later, or when an idle connection receives), so the peer would
 * wait that long for the end of stream. Those that have the socket commands (6.7) do it at once. */
static bool closes_at_once(const rws__stream *stream)
{
    return stream->streams->loop->features & RWS__FEATURE_SOCKET_COMMANDS;
}

/* Whether the kernel may still have something that the peer has not acknowledged. */
static bool may_owe(const rws__stream *stream)
{
    return stream->sent_much && rws__stream_can_ask(stream);
}

/* Everything was sent: how to go on. A close while the peer may still send something, and has not
 * acknowledged everything, would be answered by a reset that throws the rest away. */
static rws__stream_phase after_flush(rws__stream *stream)
{
    if (stream->eof) return may_owe(stream) ? RWS__STREAM_FLUSHING : RWS__STREAM_CLOSING;
    switch ((rws__finish)stream->finish) {
    case RWS__FINISH_CLOSE:
        if (!closes_at_once(stream)) return RWS__STREAM_SHUTTING;
        if (stream->family == AF_UNIX || !stream->sent_much) return RWS__STREAM_CLOSING;
        return RWS__STREAM_FLUSHING; /* ask */
    case RWS__FINISH_LINGER: return RWS__STREAM_SHUTTING;
    case RWS__FINISH_AWAIT: return RWS__STREAM_LINGERING;
    case RWS__FINISH_CUT: break;
    }
    return RWS__STREAM_CLOSING;
}

static void pump_flushing(rws__stream *stream)
{
    /* What is lent to the kernel was not taken by the peer yet: the deadline is for that too. */
    if (rws__stream_owes(stream)) return;
    rws__stream_phase next = after_flush(stream);
    if (next != RWS__STREAM_FLUSHING)
        rws__stream_enter(stream, next);
    else
        rws__stream_ask_for(stream, RWS__ASKING_FLUSHED);
}

static void pump_shutting(rws__stream *stream)
{
    if (submit_shutdown(stream) != 0) {
        rws__stream_mark_dirty(stream);
        return;
    }
    bool waits = stream->finish == RWS__FINISH_LINGER || stream->sent_much;
    rws__stream_enter(stream, waits ? RWS__STREAM_LINGERING : RWS__STREAM_CLOSING);
}

void rws__stream_on_shut_down(rws__stream *stream, int32_t res)
{
    stream->shutting_down = false;
    rws__stream_mark_dirty(stream);
    /* -ENOTCONN: the peer has reset it. */
    if (res < 0 && stream->phase == RWS__STREAM_LINGERING)
        rws__stream_enter(stream, RWS__STREAM_CLOSING);
}

void rws__stream_ask_for_reset(rws__stream *stream)
{
    /* If the ring does not take it now, the next look tries again. */
    if (!stream->shutting_down) (void)submit_shutdown(stream);
}

/* The peer ended its half. One that does not read must not leave the kernel with what it did not
 * take: it is waited for while it acknowledges. */
static void pump_lingering(rws__stream *stream)
{
    if (!may_owe(stream))
        rws__stream_enter(stream, RWS__STREAM_CLOSING);
    else if (!stream->end_asked)
        rws__stream_ask_for(stream, RWS__ASKING_FLUSHED);
}

static void pump_closing(rws__stream *stream)
{
    if (stream->installing) return; /* closed when it is there */
    /* The kernel shuts down on a worker thread, which may look the index up late: closed before
     * that, the index could be another connection's already. */
    if (stream->shutting_down) return;
    if (stream->file >= 0 && !closes_at_once(stream) && !stream->half_ended && !stream->reset) {
        if (submit_shutdown(stream) != 0) rws__stream_mark_dirty(stream);
        return;
    }
    if (stream->file >= 0 && submit_close(stream) != 0)
        rws__stream_mark_dirty(stream);
    else
        rws__stream_enter(stream, RWS__STREAM_CLOSED);
}

/* Go on with the end as far as nothing has to be waited for. */
static void pump_end(rws__stream *stream)
{
    if (stream->phase == RWS__STREAM_FLUSHING) pump_flushing(stream);
    if (stream->phase == RWS__STREAM_SHUTTING) pump_shutting(stream);
    if (stream->phase == RWS__STREAM_LINGERING && stream->eof) pump_lingering(stream);
    if (stream->phase == RWS__STREAM_CLOSING) pump_closing(stream);
}

/* ---- once per turn ---- */

/* The peer ended its half: what is above is told when it has all input. */
static void tell_eof(rws__stream *stream)
{
    bool ended = stream->eof || rws__filters_have_ended(stream);
    if (!ended || stream->eof_told || stream->stalled != NULL) return;
    stream->eof_told = true;
    if (stream->phase != RWS__STREAM_UP) return;
    if (stream->filter != NULL && !rws__filters_on_eof(stream)) return;
    stream->events->on_eof(stream);
}

void rws__stream_pump(rws__stream *stream)
{
    if (stream->phase == RWS__STREAM_FREE) return;
    rws__stream_ask_again(stream);
    if (stream->want_turn) {
        stream->want_turn = false;
        stream->events->on_turn(stream);
    }
    if (stream->phase == RWS__STREAM_UP) {
        if (stream->stalled != NULL && !stream->paused) rws__stream_deliver_stalled(stream);
        if (stream->eof || stream->wired) tell_eof(stream);
    } else if (stream->phase < RWS__STREAM_UP) {
        pump_up(stream);
    }
    rws__stream_pump_send(stream);
    if (stream->ask_waits) rws__stream_ask_for(stream, RWS__ASKING_ABOVE);
    if (rws__stream_is_finishing(stream)) pump_end(stream);
    rws__stream_pump_recv(stream);
    rws__stream_try_release(stream);
}

/* ---- the peer ---- */

const struct sockaddr *rws__stream_peer(rws__stream *stream)
{
    rws__stream_cold *cold = rws__stream_cold_part(stream);
    const rws__loop *loop = stream->streams->loop;
    if (stream->family == AF_UNIX) cold->peer.generic.sa_family = AF_UNIX;
    if (cold->peer.generic.sa_family == AF_UNSPEC && stream->file >= 0 &&
        stream->phase >= RWS__STREAM_UP && (loop->features & RWS__FEATURE_SOCKET_COMMANDS)) {
        /* SO_PEERNAME wants the family's exact size. */
        socklen_t len = stream->family == AF_INET ? sizeof cold->peer.in : sizeof cold->peer.in6;
        (void)rws__ring_peer(loop->ring, (uint32_t)stream->file, &cold->peer, len);
    }
    return cold->peer.generic.sa_family != AF_UNSPEC ? &cold->peer.generic : NULL;
}
