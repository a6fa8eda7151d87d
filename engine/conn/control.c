/*
 * Control frames and the closing handshake, RFC 6455 sections 5.5 and 7.
 */
#include "engine/conn/conn.h"

#include "codec/close.h"

#include <errno.h>
#include <string.h>

/* Both close frames are there, or as good as: the server ends the transport first (section 7.1.1),
 * so that the TIME_WAIT is its own; a client waits for that. */
static rws__finish after_close(const rws_conn *conn)
{
    return conn->endpoint->rules.role == RWS_CLIENT ? RWS__FINISH_AWAIT : RWS__FINISH_CLOSE;
}

static void on_close_frame(rws_conn *conn, const uint8_t *data, size_t len)
{
    const rws__endpoint *endpoint = conn->endpoint;
    rws__cause cause = {0, 0, RWS_CLOSED_BY_PEER, {NULL, 0}};
    int status = rws__close_parse(data, len, &cause.code, &cause.text);
    if (status != 0) {
        rws__conn_fail(conn, status, rws__close_code_for(status));
        return;
    }
    if (conn->state == RWS__CONN_CLOSE_SENT) {
        cause.who = RWS_CLOSED_BY_US;
        rws__conn_end(conn, &cause, after_close(conn));
        return;
    }
    rws__conn_enter(conn, RWS__CONN_CLOSE_RECEIVED);
    conn->close_code = cause.code;
    if (endpoint->handler.on_close_frame != NULL) {
        rws__conn_set_deadline(conn, endpoint->close_timeout_ms);
        rws__conn_clear_pause(conn, conn->pauses);
        int res = endpoint->handler.on_close_frame(conn, cause.code, cause.text, endpoint->user);
        if (res >= 0 || conn->state != RWS__CONN_CLOSE_RECEIVED) return;
    }
    /* The answer is what was received: the code, and its reason. */
    if (rws__conn_queue_frame(conn, RWS_CLOSE, true, data, len, RWS__SHARE_ONCE) != 0)
        cause.status = -ENOMEM;
    rws__conn_end(conn, &cause, after_close(conn));
}

static int on_ping(rws_conn *conn, const uint8_t *data, size_t len)
{
    const rws__endpoint *endpoint = conn->endpoint;
    if (endpoint->handler.on_ping != NULL)
        return endpoint->handler.on_ping(conn, data, len, endpoint->user);
    int res = rws_conn_send_frame(conn, RWS_PONG, true, data, len);
    if (res == -ENOMEM)
        rws__conn_fail(conn, res, RWS_CLOSE_TRY_AGAIN_LATER);
    else if (res == RWS_E_BACKLOG) /* it sends pings and does not read */
        rws__conn_fail(conn, RWS_E_POLICY, RWS_CLOSE_POLICY_VIOLATION);
    return 0;
}

void rws__conn_on_control(rws_conn *conn, uint8_t opcode, const uint8_t *data, size_t len)
{
    const rws__endpoint *endpoint = conn->endpoint;
    int res = 0;
    if (opcode == RWS_CLOSE) {
        on_close_frame(conn, data, len);
        return;
    }
    if (conn->state != RWS__CONN_OPEN) return;
    if (opcode == RWS_PING)
        res = on_ping(conn, data, len);
    else if (endpoint->handler.on_pong != NULL)
        res = endpoint->handler.on_pong(conn, data, len, endpoint->user);
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
    int res = rws__conn_queue_frame(conn, RWS_CLOSE, true, payload, (size_t)len, RWS__SHARE_ONCE);
    if (res != 0) return res;
    if (conn->state == RWS__CONN_CLOSE_RECEIVED) {
        rws__conn_end_later(conn, 0, conn->close_code, RWS_CLOSED_BY_PEER, after_close(conn));
        return 0;
    }
    rws__conn_enter(conn, RWS__CONN_CLOSE_SENT);
    rws__conn_clear_pause(conn, conn->pauses);
    rws__stream_mark(&conn->stream);
    rws__conn_set_deadline(conn, conn->endpoint->close_timeout_ms);
    return 0;
}
