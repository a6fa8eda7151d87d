/*
 * The life cycle of a connection: its states, what it wants submitted, and its end.
 */
#include "engine/conn.h"

#include "engine/base/assert.h"
#include "engine/dialer.h"
#include "engine/op.h"
#include "engine/shard.h"
#include "codec/close.h"

#include <errno.h>
#include <string.h>

#define TO(state) (1u << (state))

/* The only legal moves. No way back to OPEN: RFC 6455, section 5.5.1. */
static const uint8_t conn_moves[RWS__CONN_STATE_COUNT] = {
    [RWS__CONN_FREE] = TO(RWS__CONN_CONNECTING) | TO(RWS__CONN_UPGRADING),
    [RWS__CONN_CONNECTING] = TO(RWS__CONN_UPGRADING) | TO(RWS__CONN_DRAINING),
    [RWS__CONN_UPGRADING] = TO(RWS__CONN_OPEN) | TO(RWS__CONN_DRAINING),
    [RWS__CONN_OPEN] =
        TO(RWS__CONN_CLOSE_SENT) | TO(RWS__CONN_CLOSE_RECEIVED) | TO(RWS__CONN_DRAINING),
    [RWS__CONN_CLOSE_SENT] = TO(RWS__CONN_DRAINING),
    [RWS__CONN_CLOSE_RECEIVED] = TO(RWS__CONN_DRAINING),
    [RWS__CONN_DRAINING] = TO(RWS__CONN_FREE),
};

void rws__conn_enter(rws_conn *conn, rws__conn_state state)
{
    RWS_ASSERT(conn_moves[conn->state] & TO(state));
    conn->state = (uint8_t)state;
}

void rws__conn_mark_dirty(rws_conn *conn)
{
    if (conn->dirty) return;
    conn->dirty = true;
    conn->next_dirty = conn->shard->dirty;
    conn->shard->dirty = conn->slot + 1;
}

rws__conn_cold *rws__conn_cold_part(rws_conn *conn)
{
    conn->has_cold = true;
    return &conn->shard->cold[conn->slot];
}

rws__dial *rws__conn_dial(const rws_conn *conn)
{
    return conn->has_cold ? conn->shard->cold[conn->slot].dial : NULL;
}

void rws__conn_defer(rws_conn *conn)
{
    rws__shard *shard = conn->shard;
    if (conn->dirty) return;
    conn->dirty = true;
    conn->next_dirty = 0;
    if (shard->deferred == 0)
        shard->deferred = conn->slot + 1;
    else
        shard->conns[shard->deferred_last - 1].next_dirty = conn->slot + 1;
    shard->deferred_last = conn->slot + 1;
}

/* ---- what a connection wants submitted ---- */

static bool wants_recv(const rws_conn *conn)
{
    if (conn->eof || conn->file < 0) return false;
    switch ((rws__conn_state)conn->state) {
    case RWS__CONN_UPGRADING:
    case RWS__CONN_CLOSE_SENT:
    case RWS__CONN_CLOSE_RECEIVED: return true;
    case RWS__CONN_OPEN: return conn->pauses == 0;
    case RWS__CONN_DRAINING: return conn->drain < RWS__DRAIN_CANCEL;
    case RWS__CONN_FREE:
    case RWS__CONN_CONNECTING:
    case RWS__CONN_STATE_COUNT: break;
    }
    return false;
}

static void pump_recv(rws_conn *conn)
{
    if (wants_recv(conn)) {
        if (conn->recv_mode == RWS__RECV_IDLE) rws__conn_arm_recv(conn);
        /* A large message began: what is armed gives way to receives into its own memory. */
        if (conn->recv_mode != RWS__RECV_MULTISHOT || !conn->bulk) return;
    }
    if (conn->recv_mode == RWS__RECV_IDLE || conn->recv_cancelled) return;
    if (conn->drain >= RWS__DRAIN_CANCEL) return; /* the whole file is cancelled */
    uint64_t target = rws__op_pack(RWS__OP_RECV, conn->slot, conn->generation);
    if (rws__ring_cancel(conn->shard->ring, target) == 0)
        conn->recv_cancelled = true;
    else
        rws__conn_mark_dirty(conn);
}

static void pump_send(rws_conn *conn)
{
    if (conn->send_mode != RWS__SEND_IDLE || conn->sendq.bytes == 0 || conn->file < 0) return;
    if (conn->state == RWS__CONN_CONNECTING || conn->drain >= RWS__DRAIN_CANCEL) return;
    if (rws__conn_submit_send(conn) != 0) rws__conn_mark_dirty(conn);
}

static int submit_shutdown(rws_conn *conn)
{
    int res =
        rws__ring_shutdown_write(conn->shard->ring, (uint32_t)conn->file,
                                 rws__op_pack(RWS__OP_SHUTDOWN, conn->slot, conn->generation));
    if (res != 0) return res;
    conn->shutting_down = true;
    conn->ops++;
    return 0;
}

/* Take back what is in flight: in the usual case the receive alone, by its name. To find what
 * belongs to a file the kernel goes through all operations of the ring, idle connections' too. */
static int submit_cancel(rws_conn *conn)
{
    rws__ring *ring = conn->shard->ring;
    bool receives = conn->recv_mode != RWS__RECV_IDLE;
    if (conn->ops == 0) return 0;
    if (conn->ops > 1 || !receives || conn->recv_cancelled)
        return rws__ring_cancel_file(ring, (uint32_t)conn->file);
    int res = rws__ring_cancel(ring, rws__op_pack(RWS__OP_RECV, conn->slot, conn->generation));
    conn->recv_cancelled = res == 0;
    return res;
}

static int submit_close(rws_conn *conn)
{
    rws__ring *ring = conn->shard->ring;
    uint32_t file = (uint32_t)conn->file;
    if (submit_cancel(conn) != 0) return -EAGAIN;
    /* After a mere close the kernel would offer the rest to a peer that takes nothing for minutes
     * more, and keep the memory as long. */
    if (rws__conn_lends_to_kernel(conn) && rws__ring_disconnect(ring, file) != 0) return -EAGAIN;
    int res =
        rws__ring_close(ring, file, rws__op_pack(RWS__OP_CLOSE, conn->slot, conn->generation));
    if (res == 0) conn->ops++;
    return res;
}

/* Go on with draining as far as nothing has to be waited for. */
static void pump_drain(rws_conn *conn)
{
    if (conn->drain == RWS__DRAIN_FLUSH) {
        /* What is lent to the kernel was not taken by the peer yet: the deadline is for that too.
         */
        if (conn->sendq.bytes > 0 || conn->send_mode != RWS__SEND_IDLE ||
            rws__conn_lends_to_kernel(conn))
            return;
        conn->drain = conn->eof ? RWS__DRAIN_CANCEL : conn->after_flush;
    }
    if (conn->drain == RWS__DRAIN_SHUTDOWN || conn->drain == RWS__DRAIN_END) {
        if (submit_shutdown(conn) != 0) {
            rws__conn_mark_dirty(conn);
            return;
        }
        conn->drain = conn->drain == RWS__DRAIN_END ? RWS__DRAIN_CANCEL : RWS__DRAIN_LINGER;
    }
    if (conn->drain == RWS__DRAIN_LINGER && conn->eof) conn->drain = RWS__DRAIN_CANCEL;
    if (conn->drain == RWS__DRAIN_CANCEL) {
        /* A file that is still on its way into the table is closed when it is there. */
        if (conn->install_fd >= 0) return;
        /* The kernel shuts down on a worker thread, which may look the index up late: closed before
         * that, the index could be another connection's already. */
        if (conn->shutting_down) return;
        if (conn->file >= 0 && submit_close(conn) != 0) {
            rws__conn_mark_dirty(conn);
            return;
        }
        conn->drain = RWS__DRAIN_CLOSED;
    }
}

void rws__conn_pump(rws_conn *conn)
{
    if (conn->state == RWS__CONN_FREE) return;
    if (conn->stalled != NULL && conn->pauses == 0) {
        /* Input that came during a pause goes first. It is taken out, because it may be stalled
         * again. */
        rws__payload *input = conn->stalled;
        conn->stalled = NULL;
        rws__conn_frames(conn, input->data, input->len);
        rws__payload_release(input);
    }
    if (conn->eof && conn->stalled == NULL) rws__conn_on_eof(conn);
    pump_send(conn);
    if (conn->state == RWS__CONN_DRAINING) pump_drain(conn);
    pump_recv(conn);
    rws__conn_try_release(conn);
}

/* ---- the end ---- */

void rws__conn_finish(rws_conn *conn, uint16_t code, rws_span reason, rws_closer closer,
                      rws__drain after_flush)
{
    if (conn->state == RWS__CONN_DRAINING) return;
    rws__shard *shard = conn->shard;
    const rws__config *config = shard->config;
    /* on_open was called, so on_close has to be. */
    bool was_open = conn->state == RWS__CONN_OPEN || conn->state == RWS__CONN_CLOSE_SENT ||
                    conn->state == RWS__CONN_CLOSE_RECEIVED;
    rws__conn_enter(conn, RWS__CONN_DRAINING);
    conn->drain = RWS__DRAIN_FLUSH;
    conn->after_flush = (uint8_t)after_flush;
    rws__timer_set(&shard->wheel, &conn->timer, shard->now_ms, config->close_timeout_ms);
    rws__conn_mark_dirty(conn);
    if (was_open && config->handler.on_close != NULL)
        config->handler.on_close(conn, code, reason, closer, config->user);
    rws__conn_clear_pause(conn, conn->pauses);
}

void rws__conn_cut(rws_conn *conn, rws_closer closer)
{
    rws_span none = {NULL, 0};
    /* The peer has said how it ends, even if nobody answered. */
    if (conn->state == RWS__CONN_CLOSE_RECEIVED)
        rws__conn_finish(conn, conn->close_code, none, RWS_CLOSED_BY_PEER, RWS__DRAIN_CANCEL);
    else
        rws__conn_finish(conn, RWS_CLOSE_ABNORMAL, none, closer, RWS__DRAIN_CANCEL);
    if (conn->drain < RWS__DRAIN_CANCEL) conn->drain = RWS__DRAIN_CANCEL;
    rws__conn_mark_dirty(conn);
}

void rws__conn_fail(rws_conn *conn, int status, uint16_t code)
{
    if (conn->state == RWS__CONN_DRAINING) return;
    rws__counters *counters = &conn->shard->counters;
    if (status == RWS_E_TIMEOUT)
        rws__count(&counters->timeouts, 1);
    else if (status != RWS_E_INTERNAL)
        rws__count(&counters->protocol_errors, 1);
    uint8_t payload[RWS__FRAME_CONTROL_MAX];
    const char *text = rws_strerror(status);
    rws_span reason = {text, strlen(text)};
    int len = rws__close_write(payload, code, reason);
    RWS_ASSERT(len >= 0);
    /* After our own close frame nothing may be sent any more (section 5.5.1). */
    if (conn->state != RWS__CONN_CLOSE_SENT)
        rws__conn_queue_frame(conn, RWS_CLOSE, true, payload, (size_t)len);
    rws__conn_finish(conn, code, reason, RWS_CLOSED_BY_US, RWS__DRAIN_SHUTDOWN);
}

static void release_cold(rws_conn *conn)
{
    rws__shard *shard = conn->shard;
    rws__conn_cold *cold = &shard->cold[conn->slot];
    RWS_ASSERT(cold->kernel_loan == NULL);
    if (cold->subprotocol != NULL) rws__pool_give(shard->partial, cold->subprotocol);
    if (cold->dial != NULL) rws__dial_free(shard->config, cold->dial);
    memset(cold, 0, sizeof *cold);
    conn->has_cold = false;
}

void rws__conn_try_release(rws_conn *conn)
{
    if (conn->drain != RWS__DRAIN_CLOSED || conn->ops > 0 || conn->dirty) return;
    rws__shard *shard = conn->shard;
    rws__sendq_clear(&conn->sendq, &shard->send_slab);
    rws__payload_release(conn->assembly);
    rws__payload_release(conn->stalled);
    if (conn->decoder.stash != NULL) rws__pool_give(shard->partial, conn->decoder.stash);
    if (conn->has_cold) release_cold(conn);
    rws__timer_clear(&shard->wheel, &conn->timer);
    rws__conn_enter(conn, RWS__CONN_FREE);
    rws__shard_give_conn(shard, conn);
}

void rws__conn_timer_fired(rws_conn *conn)
{
    switch ((rws__conn_state)conn->state) {
    case RWS__CONN_OPEN:                    /* the deadline of a message */
        if (conn->pauses & RWS__PAUSE_USER) /* the peer can't help it: look again later */
            rws__timer_set(&conn->shard->wheel, &conn->timer, conn->shard->now_ms,
                           conn->shard->config->message_timeout_ms);
        else if (conn->pauses & RWS__PAUSE_BUDGET)
            rws__conn_fail(conn, RWS_E_POLICY, RWS_CLOSE_TRY_AGAIN_LATER);
        else
            rws__conn_fail(conn, RWS_E_TIMEOUT, RWS_CLOSE_POLICY_VIOLATION);
        return;
    case RWS__CONN_CONNECTING:
    case RWS__CONN_UPGRADING: /* the handshake's */
        rws__count(&conn->shard->counters.timeouts, 1);
        if (rws__conn_dial(conn) != NULL)
            rws__dial_failed(conn, RWS_E_TIMEOUT, "the handshake did not end in time");
        else
            rws__count(&conn->shard->counters.refused, 1);
        rws__conn_cut(conn, RWS_CLOSED_BY_US);
        return;
    case RWS__CONN_CLOSE_SENT:
    case RWS__CONN_CLOSE_RECEIVED: /* the closing handshake's */
        rws__count(&conn->shard->counters.timeouts, 1);
        rws__conn_cut(conn, RWS_CLOSED_BY_US);
        return;
    case RWS__CONN_DRAINING: /* the peer does not read or does not end its half */
        if (conn->drain < RWS__DRAIN_CANCEL) conn->drain = RWS__DRAIN_CANCEL;
        rws__conn_mark_dirty(conn);
        return;
    case RWS__CONN_FREE:
    case RWS__CONN_STATE_COUNT: break;
    }
    RWS_UNREACHABLE("a timer fired in a free slot");
}

/* ---- pausing ---- */

void rws__conn_set_pause(rws_conn *conn, uint8_t reason)
{
    if (conn->pauses & reason) return;
    if (reason == RWS__PAUSE_BUDGET) conn->shard->budget_waiters++;
    conn->pauses |= reason;
    rws__conn_mark_dirty(conn);
}

void rws__conn_clear_pause(rws_conn *conn, uint8_t reason)
{
    if ((conn->pauses & reason) == 0) return;
    if (conn->pauses & reason & RWS__PAUSE_BUDGET) conn->shard->budget_waiters--;
    conn->pauses &= (uint8_t)~reason;
    rws__conn_mark_dirty(conn);
}

/* ---- the public functions that only read or set ---- */

void rws_conn_pause(rws_conn *conn)
{
    /* Nothing is delivered any more once it closes, but the peer's close frame has to be read. */
    if (conn->state > RWS__CONN_OPEN) return;
    rws__conn_set_pause(conn, RWS__PAUSE_USER);
}

void rws_conn_resume(rws_conn *conn)
{
    rws__conn_clear_pause(conn, RWS__PAUSE_USER);
}

void rws_conn_abort(rws_conn *conn)
{
    rws__conn_cut(conn, RWS_CLOSED_BY_US);
}

/* Ask for the peer of an accepted connection when the program does: most never do. */
static void ask_peer(rws_conn *conn)
{
    rws__shard *shard = conn->shard;
    const rws__config *config = shard->config;
    if (config->role != RWS_SERVER || !config->peer_address || conn->file < 0) return;
    if (config->unix_path != NULL) {
        rws__conn_cold_part(conn)->peer.generic.sa_family = AF_UNIX;
    } else if (shard->features & RWS_FEATURE_SOCKET_COMMANDS) {
        rws__conn_cold *cold = rws__conn_cold_part(conn);
        /* SO_PEERNAME wants the family's exact size. */
        socklen_t len =
            shard->listener.family == AF_INET ? sizeof cold->peer.in : sizeof cold->peer.in6;
        (void)rws__ring_peer(shard->ring, (uint32_t)conn->file, &cold->peer, len);
    }
}

int rws_conn_peer(const rws_conn *conn, struct sockaddr_storage *address, socklen_t *len)
{
    const rws__conn_cold *cold = &conn->shard->cold[conn->slot];
    if (!conn->has_cold || cold->peer.generic.sa_family == AF_UNSPEC)
        ask_peer(&conn->shard->conns[conn->slot]);
    socklen_t have;
    switch (cold->peer.generic.sa_family) {
    case AF_INET: have = sizeof cold->peer.in; break;
    case AF_INET6: have = sizeof cold->peer.in6; break;
    case AF_UNIX: have = sizeof(sa_family_t); break;
    default: return RWS_E_STATE;
    }
    memcpy(address, &cold->peer, have < *len ? have : *len);
    *len = have;
    return 0;
}

void *rws_conn_user(const rws_conn *conn)
{
    return conn->user;
}

void rws_conn_set_user(rws_conn *conn, void *conn_user)
{
    conn->user = conn_user;
}

uint32_t rws_conn_shard(const rws_conn *conn)
{
    return conn->shard->index;
}

rws_span rws_conn_subprotocol(const rws_conn *conn)
{
    const char *name = conn->has_cold ? conn->shard->cold[conn->slot].subprotocol : NULL;
    rws_span span = {name, name != NULL ? strlen(name) : 0};
    return span;
}
