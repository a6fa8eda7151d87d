/*
 * Control frames and the closing handshake, RFC 6455 sections 5.5 and 7.
 */
#include "engine/base/assert.h"
#include "engine/conn.h"
#include "engine/shard.h"
#include "codec/close.h"

#include <string.h>

/* Both close frames are there, or as good as: the server ends the transport first (section 7.1.1),
 * so that the TIME_WAIT is its own; a client waits for that. */
static rws__drain after_close(const rws_conn *conn)
{
    if (conn->shard->config->role == RWS_CLIENT) return RWS__DRAIN_LINGER;
    /* Early kernels put a removed direct descriptor a second later (seen on 6.1), so the peer would
     * wait that long for the end of stream. Those that have the socket commands (6.7) do it at
     * once. */
    bool closes_at_once = conn->shard->features & RWS_FEATURE_SOCKET_COMMANDS;
    return closes_at_once ? RWS__DRAIN_CANCEL : RWS__DRAIN_END;
}

static void on_close_frame(rws_conn *conn, const uint8_t *data, size_t len)
{
    const rws__config *config = conn->shard->config;
    uint16_t code;
    rws_span reason;
    int status = rws__close_parse(data, len, &code, &reason);
    if (status != 0) {
        rws__conn_fail(conn, status, rws__close_code_for(status));
        return;
    }
    if (conn->state == RWS__CONN_CLOSE_SENT) {
        rws__conn_finish(conn, code, reason, RWS_CLOSED_BY_US, after_close(conn));
        return;
    }
    rws__conn_enter(conn, RWS__CONN_CLOSE_RECEIVED);
    conn->close_code = code;
    if (config->handle_close && config->handler.on_close_frame != NULL) {
        rws__timer_set(&conn->shard->wheel, &conn->timer, conn->shard->now_ms,
                       config->close_timeout_ms);
        rws__conn_clear_pause(conn, conn->pauses);
        if (config->handler.on_close_frame(conn, code, reason, config->user) >= 0) return;
        if (conn->state != RWS__CONN_CLOSE_RECEIVED) return;
    }
    /* The answer is what came: the code, and its reason. */
    rws__conn_queue_frame(conn, RWS_CLOSE, true, data, len);
    rws__conn_finish(conn, code, reason, RWS_CLOSED_BY_PEER, after_close(conn));
}

void rws__conn_on_control(rws_conn *conn, uint8_t opcode, const uint8_t *data, size_t len)
{
    const rws__config *config = conn->shard->config;
    int res = 0;
    switch (opcode) {
    case RWS_CLOSE: on_close_frame(conn, data, len); return;
    case RWS_PING:
        if (conn->state != RWS__CONN_OPEN) return;
        if (config->handle_ping && config->handler.on_ping != NULL)
            res = config->handler.on_ping(conn, data, len, config->user);
        else
            res = rws_conn_send_frame(conn, RWS_PONG, true, data, len);
        break;
    case RWS_PONG:
        if (conn->state != RWS__CONN_OPEN) return;
        if (config->handle_pong && config->handler.on_pong != NULL)
            res = config->handler.on_pong(conn, data, len, config->user);
        break;
    default: RWS_UNREACHABLE("the decoder gives no other control frame");
    }
    if (res < 0 && conn->state == RWS__CONN_OPEN)
        rws__conn_fail(conn, RWS_E_INTERNAL, RWS_CLOSE_INTERNAL_ERROR);
}

int rws_conn_close(rws_conn *conn, uint16_t code, const char *reason)
{
    uint8_t payload[RWS__FRAME_CONTROL_MAX];
    rws_span text = {reason, reason != NULL ? strlen(reason) : 0};
    int len = rws__close_write(payload, code, text);
    if (len < 0) return RWS_E_ARGUMENT;
    if (conn->state != RWS__CONN_OPEN && conn->state != RWS__CONN_CLOSE_RECEIVED)
        return RWS_E_STATE;
    int res = rws__conn_queue_frame(conn, RWS_CLOSE, true, payload, (size_t)len);
    if (res != 0) return res;
    if (conn->state == RWS__CONN_CLOSE_RECEIVED) {
        rws_span none = {NULL, 0};
        rws__conn_finish(conn, conn->close_code, none, RWS_CLOSED_BY_PEER, after_close(conn));
        return 0;
    }
    rws__conn_enter(conn, RWS__CONN_CLOSE_SENT);
    rws__conn_clear_pause(conn, conn->pauses);
    rws__timer_set(&conn->shard->wheel, &conn->timer, conn->shard->now_ms,
                   conn->shard->config->close_timeout_ms);
    rws__conn_mark_dirty(conn);
    return 0;
}
