/*
 * The opening handshake on a connection, both roles. It is received like everything else, from
 * provided buffers: a head that comes whole is parsed where it lies, one that comes in pieces is
 * collected in the assembly up to handshake_bytes_max. What follows the head in the same bytes is
 * the first frames, and goes on to the decoder.
 */
#include "engine/conn.h"
#include "engine/dialer.h"
#include "engine/request.h"
#include "engine/shard.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* A head that comes in pieces is expected to end within this. */
#define HEAD_USUAL 1024u

static void refuse(rws_conn *conn, int status, const uint8_t *extra, size_t extra_len,
                   const char *body, size_t body_len)
{
    rws__shard *shard = conn->shard;
    rws__count(&shard->counters.refused, 1);
    rws_span text = {body, body_len}, none = {NULL, 0};
    size_t room = extra_len + body_len + RWS__WRITE_REFUSAL_BYTES;
    uint8_t *out = rws__sendq_reserve(&conn->sendq, &shard->send_slab, room);
    if (out != NULL) {
        int len = rws__handshake_write_refusal(out, room, status, extra, extra_len, text);
        if (len > 0) rws__sendq_commit(&conn->sendq, (size_t)len);
    }
    rws__conn_finish(conn, RWS_CLOSE_ABNORMAL, none, RWS_CLOSED_BY_US, RWS__DRAIN_SHUTDOWN);
}

static void refuse_text(rws_conn *conn, int status, const char *text)
{
    char body[256];
    int len = snprintf(body, sizeof body, "%s\n", text);
    refuse(conn, status, NULL, 0, body, (size_t)len);
}

/* Keep the agreed subprotocol with the connection. */
static int keep_subprotocol(rws_conn *conn, rws_span name)
{
    if (name.len == 0) return 0;
    char *copy = rws__pool_take(conn->shard->partial, name.len + 1);
    if (copy == NULL) return -ENOMEM;
    memcpy(copy, name.data, name.len);
    copy[name.len] = '\0';
    rws__conn_cold_part(conn)->subprotocol = copy;
    return 0;
}

static void open_conn(rws_conn *conn)
{
    rws__shard *shard = conn->shard;
    rws__conn_enter(conn, RWS__CONN_OPEN);
    memset(&conn->decoder, 0, sizeof conn->decoder);
    rws__timer_clear(&shard->wheel, &conn->timer);
    rws__count(&shard->counters.upgraded, 1);
    if (shard->config->handler.on_open != NULL)
        shard->config->handler.on_open(conn, shard->config->user);
    /* A drain began while the handshake was on its way. */
    if (shard->draining && conn->state == RWS__CONN_OPEN)
        rws_conn_close(conn, RWS_CLOSE_GOING_AWAY, NULL);
}

static void accept_request(rws_conn *conn, const rws__http_head *head, const rws_request *request)
{
    size_t room = request->extra_len + request->subprotocol.len + RWS__WRITE_ACCEPT_BYTES;
    uint8_t *out = rws__sendq_reserve(&conn->sendq, &conn->shard->send_slab, room);
    if (out == NULL || keep_subprotocol(conn, request->subprotocol) != 0) {
        refuse_text(conn, 503, "The server is out of memory for connections. Try again later.");
        return;
    }
    int len = rws__handshake_write_accept(out, room, head->known.ws_key.data, request->subprotocol,
                                          request->extra, request->extra_len);
    if (len < 0) {
        refuse_text(conn, 500, "The answer could not be written.");
        return;
    }
    rws__sendq_commit(&conn->sendq, (size_t)len);
    rws__conn_mark_dirty(conn);
    open_conn(conn);
}

static void on_request(rws_conn *conn, const rws__http_head *head)
{
    const rws__shard *shard = conn->shard;
    const rws__config *config = shard->config;
    const char *why = "";
    int status = rws__handshake_check_request(head, &why);
    if (status != 101) {
        refuse_text(conn, status, why);
        return;
    }
    if (shard->slots_used > config->connections_max || shard->draining) {
        refuse_text(conn, 503,
                    shard->draining ? "The server is going away."
                                    : "The server has no room for more connections.");
        return;
    }
    if (config->origins_count > 0 &&
        !rws__handshake_origin_is_allowed(head->known.origin, (const char *const *)config->origins,
                                          config->origins_count)) {
        refuse_text(conn, 403, "This origin is not allowed.");
        return;
    }
    rws_request request;
    request.conn = conn;
    request.head = head;
    request.subprotocol = (rws_span){NULL, 0};
    request.refuse_status = 403;
    request.extra_len = request.body_len = 0;
    request.has_body = false;
    int res = 0;
    if (config->handler.on_upgrade != NULL)
        res = config->handler.on_upgrade(&request, config->user);
    if (conn->state != RWS__CONN_UPGRADING) return;
    if (res >= 0)
        accept_request(conn, head, &request);
    else if (request.has_body)
        refuse(conn, request.refuse_status, request.extra, request.extra_len, request.body,
               request.body_len);
    else
        refuse(conn, request.refuse_status, request.extra, request.extra_len, "Refused.\n", 9);
}

static void on_response(rws_conn *conn, const rws__http_head *head)
{
    rws__dial *dial = rws__conn_dial(conn);
    rws_span none = {NULL, 0}, subprotocol = none;
    const char *why = "";
    if (head->status != 101) {
        char text[128];
        snprintf(text, sizeof text, "the server answered %d instead of 101", head->status);
        rws__dial_failed(conn, RWS_E_UPGRADE, text);
    } else if (rws__handshake_check_response(head, dial->key, dial->subprotocols, &subprotocol,
                                             &why) != 0) {
        rws__dial_failed(conn, RWS_E_UPGRADE, why);
    } else if (keep_subprotocol(conn, subprotocol) != 0) {
        rws__dial_failed(conn, -ENOMEM, "no memory for the connection");
    } else {
        rws__dial_free(conn->shard->config, dial);
        rws__conn_cold_part(conn)->dial = NULL;
        open_conn(conn);
        return;
    }
    rws__conn_finish(conn, RWS_CLOSE_ABNORMAL, none, RWS_CLOSED_BY_US, RWS__DRAIN_CANCEL);
}

static void on_bad_head(rws_conn *conn, int status)
{
    rws_span none = {NULL, 0};
    if (rws__conn_dial(conn) != NULL) {
        rws__dial_failed(conn, status,
                         status == RWS_E_HTTP_TOO_BIG
                             ? "the server's answer is larger than handshake_bytes_max"
                         : status == -ENOMEM ? "no memory for the server's answer"
                                             : "the server's answer is not HTTP");
        rws__conn_finish(conn, RWS_CLOSE_ABNORMAL, none, RWS_CLOSED_BY_US, RWS__DRAIN_CANCEL);
    } else if (status == -ENOMEM) {
        refuse_text(conn, 503, "The server is out of memory for connections. Try again later.");
    } else if (status == RWS_E_HTTP_TOO_BIG) {
        refuse_text(conn, 431, "The request header is too large.");
    } else {
        refuse_text(conn, 400, "The request is not valid HTTP/1.1.");
    }
}

/* A head of `len` bytes is complete. */
static void on_head(rws_conn *conn, uint8_t *data, size_t len)
{
    const rws__shard *shard = conn->shard;
    rws__http_head head;
    memset(&head, 0, sizeof head);
    head.headers = shard->headers;
    head.headers_capacity = shard->config->headers_max;
    bool dialled = rws__conn_dial(conn) != NULL;
    int res = dialled ? rws__http_parse_response(&head, data, len)
                      : rws__http_parse_request(&head, data, len);
    if (res != 0)
        on_bad_head(conn, res);
    else if (dialled)
        on_response(conn, &head);
    else
        on_request(conn, &head);
}

void rws__conn_upgrade_input(rws_conn *conn, uint8_t *data, size_t len)
{
    size_t bytes_max = conn->shard->config->handshake_bytes_max;
    rws__pool *pool = conn->shard->partial;
    uint8_t *head = data;
    size_t have = len, taken = 0;
    if (conn->assembly != NULL) {
        taken = bytes_max - conn->assembly->len;
        if (taken > len) taken = len;
        if (rws__payload_append(&conn->assembly, pool, data, taken, bytes_max) != 0) {
            on_bad_head(conn, -ENOMEM);
            return;
        }
        head = conn->assembly->data;
        have = conn->assembly->len;
    }
    int res = rws__http_scan(&conn->upgrade.scanner, head, have, bytes_max);
    if (res == 0 && conn->assembly != NULL && taken < len) res = RWS_E_HTTP_TOO_BIG;
    if (res < 0) {
        on_bad_head(conn, res);
        return;
    }
    if (res == 0) {
        if (conn->assembly == NULL &&
            rws__payload_append(&conn->assembly, pool, data, len, HEAD_USUAL) != 0)
            on_bad_head(conn, -ENOMEM);
        return;
    }
    /* The assembly is the decoder's from here on; the head and what follows it are kept apart until
     * they are handled. */
    rws__payload *carried = conn->assembly;
    conn->assembly = NULL;
    on_head(conn, head, (size_t)res);
    if (have > (size_t)res) rws__conn_frames(conn, head + res, have - (size_t)res);
    if (carried != NULL && taken < len) rws__conn_frames(conn, data + taken, len - taken);
    rws__payload_release(carried);
}
