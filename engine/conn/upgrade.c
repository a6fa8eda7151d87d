/*
 * The opening handshake on a connection, both roles. It is received like everything else, from
 * provided buffers: a head that comes whole is parsed where it lies, one that comes in pieces is
 * collected in the assembly up to the listener's bound. What follows the head in the same bytes is
 * the first frames, and goes on to the decoder.
 *
 * While the program decides on a request (request.h), the connection goes on receiving, so that a
 * client which leaves is noticed. What it sends meanwhile is kept (`early`); beyond a bound the
 * connection is paused.
 */
#include "engine/conn/request.h"

#include "codec/handshake.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* A head that comes in pieces is expected to end within this. */
#define HEAD_USUAL 1024u

static const char no_memory[] = "The server is out of memory for connections. Try again later.";
static const char too_many[] = "The server has too many requests to decide on. Try again later.";

const rws__endpoint *rws__http_route(const rws__http_rules *rules, rws_span path)
{
    const rws__endpoint *any = NULL;
    for (uint32_t i = 0; i < rules->endpoints_count; i++) {
        const rws__endpoint *endpoint = rules->endpoints[i];
        if (endpoint->path == NULL)
            any = endpoint;
        else if (strlen(endpoint->path) == path.len &&
                 memcmp(endpoint->path, path.data, path.len) == 0)
            return endpoint;
    }
    return any;
}

/* ---- refusing ---- */

/* Answer with `status`, which is not 101, and end for `cause_status`. */
static void refuse(rws_conn *conn, int cause_status, int status, rws_span extra, rws_span body)
{
    rws__cause cause = rws__cause_abnormal(cause_status, RWS_CLOSED_BY_US, NULL);
    size_t room = extra.len + body.len + RWS__WRITE_REFUSAL_BYTES;
    uint8_t *out = rws__stream_reserve(&conn->stream, room, RWS__SHARE_ONCE);
    const uint8_t *lines = (const uint8_t *)extra.data;
    int len = 0;
    if (out != NULL) len = rws__handshake_write_refusal(out, room, status, lines, extra.len, body);
    if (len > 0) rws__stream_commit(&conn->stream, (size_t)len);
    rws__conn_end(conn, &cause, RWS__FINISH_LINGER);
}

static void refuse_for(rws_conn *conn, int cause_status, int status, const char *text)
{
    char body[256];
    int len = snprintf(body, sizeof body, "%s\n", text);
    refuse(conn, cause_status, status, (rws_span){NULL, 0}, (rws_span){body, (size_t)len});
}

static void refuse_text(rws_conn *conn, int status, const char *text)
{
    refuse_for(conn, RWS_E_UPGRADE, status, text);
}

static void refuse_request(rws_conn *conn, const rws_request *request)
{
    bool said = request->status != 0;
    rws_span body = {"Refused.\n", 9};
    if (said) body = rws__payload_span(request->body);
    refuse(conn, RWS_E_UPGRADE, said ? request->status : 403, rws__payload_span(request->extra),
           body);
}

/* ---- accepting ---- */

static const char *why_full(const rws__conns *conns)
{
    if (conns->draining) return "The server is going away.";
    if (rws__conns_are_full(conns)) return "The server has no room for more connections.";
    return NULL;
}

/* Keep the agreed subprotocol with the connection. */
static int keep_subprotocol(rws_conn *conn, rws_span name)
{
    if (name.len == 0) return 0;
    char *copy = rws__pool_take(conn->stream.streams->partial, name.len + 1);
    if (copy == NULL) return -ENOMEM;
    memcpy(copy, name.data, name.len);
    copy[name.len] = '\0';
    rws__conn_cold_part(conn)->subprotocol = copy;
    return 0;
}

static void open_conn(rws_conn *conn)
{
    const rws__endpoint *endpoint = conn->endpoint;
    /* A drain ends dials, and requests get a 503. */
    RWS_ASSERT(!rws__conn_table(conn)->draining);
    rws__conn_enter(conn, RWS__CONN_OPEN);
    memset(&conn->decoder, 0, sizeof conn->decoder);
    rws__count(&rws__conn_counters(conn)->upgraded, 1);
    if (endpoint->handler.on_open != NULL) endpoint->handler.on_open(conn, endpoint->user);
}

/* The first subprotocol of the endpoint that the client offers. */
static rws_span choose_subprotocol(const rws__endpoint *endpoint, const rws__http_head *head)
{
    for (uint32_t i = 0; i < endpoint->subprotocols_count; i++) {
        rws_span name = {endpoint->subprotocols[i], strlen(endpoint->subprotocols[i])};
        if (rws__handshake_find_subprotocol(head, name).data != NULL) return name;
    }
    return (rws_span){NULL, 0};
}

/* `request` is NULL where no program had anything to say. False: it was refused. */
static bool accept_request(rws_conn *conn, const rws__http_head *head, const rws_request *request)
{
    rws_span subprotocol = {NULL, 0}, extra = {NULL, 0};
    if (request != NULL) {
        subprotocol = request->subprotocol;
        extra = rws__payload_span(request->extra);
    }
    if (subprotocol.len == 0) subprotocol = choose_subprotocol(conn->endpoint, head);
    /* Meanwhile there may be no room any more. */
    if (why_full(rws__conn_table(conn)) != NULL) {
        refuse_text(conn, 503, why_full(rws__conn_table(conn)));
        return false;
    }
    size_t room = extra.len + subprotocol.len + RWS__WRITE_ACCEPT_BYTES;
    uint8_t *out = rws__stream_reserve(&conn->stream, room, RWS__SHARE_ONCE);
    if (out == NULL || keep_subprotocol(conn, subprotocol) != 0) {
        refuse_text(conn, 503, no_memory);
        return false;
    }
    int len = rws__handshake_write_accept(out, room, head->known.ws_key.data, subprotocol,
                                          (const uint8_t *)extra.data, extra.len);
    if (len < 0) {
        refuse_text(conn, 500, "The answer could not be written.");
        return false;
    }
    rws__stream_commit(&conn->stream, (size_t)len);
    return true;
}

/* ---- the request, while the program decides ---- */

static rws_request *request_of(rws_conn *conn)
{
    return conn->stream.has_cold ? rws__conn_cold_part(conn)->request : NULL;
}

static void free_request(rws_conn *conn)
{
    rws_request *request = rws__conn_cold_part(conn)->request;
    rws__pool *pool = conn->stream.streams->partial;
    rws__conn_cold_part(conn)->request = NULL;
    rws__conn_table(conn)->request_bytes -= request->counted_bytes;
    if (request->headers != NULL) rws__pool_give(pool, request->headers);
    rws__payload_release(request->bytes);
    rws__payload_release(request->extra);
    rws__payload_release(request->body);
    rws__payload_release(request->early);
    rws__pool_give(pool, request);
}

void rws__conn_drop_request(rws_conn *conn)
{
    const rws_request *request = request_of(conn);
    if (request == NULL) return;
    void (*release)(void *user) = request->release_user;
    void *user = request->user;
    free_request(conn);
    if (release != NULL) release(user);
}

bool rws__conn_give_up_request(rws_conn *conn, int status, const char *text)
{
    const rws_request *request = request_of(conn);
    if (request == NULL) return false;
    /* What is decided is answered at the end of the turn. */
    if (request->step == RWS__REQUEST_DECIDING) refuse_for(conn, status, 503, text);
    return true;
}

/* What the program decided. The request is gone after it: a refusal ends the connection. */
static void answer(rws_conn *conn, const rws_request *request)
{
    RWS_ASSERT(request->step == RWS__REQUEST_ANSWERING);
    if (request->decision < 0) {
        refuse_request(conn, request);
    } else if (accept_request(conn, &request->head, request)) {
        conn->user = request->user;
        free_request(conn);
        open_conn(conn);
    }
}

/* ---- what comes while the program decides ---- */

/* The stream gives it to the connection again when it takes input, before what comes then. */
static void wait_in_stream(rws_conn *conn, rws_request *request)
{
    if (request->early == NULL) return;
    rws__stream_return_input(&conn->stream, request->early);
    request->early = NULL;
}

/* Beyond the bound the stream is paused, and beyond the share of all requests it is refused. */
static void keep_early(rws_conn *conn, const uint8_t *data, size_t len)
{
    rws_request *request = request_of(conn);
    if (rws__payload_append(&request->early, conn->stream.streams->partial, data, len, 0) != 0) {
        refuse_text(conn, 503, no_memory);
        return;
    }
    if (request->early->len > RWS__EARLY_MAX) {
        wait_in_stream(conn, request);
        rws__conn_set_pause(conn, RWS__PAUSE_REQUEST);
    }
    if (!rws__request_count(request)) refuse_text(conn, 503, too_many);
}

void rws__conn_answer_request(rws_conn *conn)
{
    rws_request *request = rws__conn_cold_part(conn)->request;
    wait_in_stream(conn, request);
    rws__conn_clear_pause(conn, RWS__PAUSE_REQUEST);
    answer(conn, request);
}

/* on_upgrade returned what no decision is. */
static void refuse_reserved(rws_conn *conn, int res)
{
    rws__log(rws__conn_loop(conn)->env, RWS_LOG_ERROR,
             "on_upgrade returned %d, and positive values are reserved: the request is refused",
             res);
    refuse_text(conn, 500, "The server made a mistake.");
}

/* The head moves to memory of the request's own. Returns 0 or -ENOMEM. */
static int keep_head(rws_request *request, const uint8_t *data, size_t len)
{
    rws__pool *pool = request->conn->stream.streams->partial;
    const rws__http_head *old = &request->head;
    uint32_t count = old->headers_count;
    request->headers = rws__pool_take(pool, count * sizeof(rws__http_header));
    if (request->headers == NULL) return -ENOMEM;
    if (rws__payload_append(&request->bytes, pool, data, len, len) != 0) return -ENOMEM;
    rws__http_head head = {.headers = request->headers, .headers_capacity = count};
    /* Names are lower-cased already: it parses as before. */
    int res = rws__http_parse_request(&head, request->bytes->data, len);
    RWS_ASSERT(res == 0);
    if (request->subprotocol.len > 0) {
        ptrdiff_t at = request->subprotocol.data - (const char *)data;
        request->subprotocol.data = (const char *)request->bytes->data + at;
    }
    request->head = head;
    return 0;
}

/* on_upgrade has not decided. */
static void leave_for_later(rws_conn *conn, rws_request *request, const uint8_t *data, size_t len)
{
    if (keep_head(request, data, len) != 0)
        refuse_text(conn, 503, no_memory);
    else if (!rws__request_count(request))
        refuse_text(conn, 503, too_many);
    else
        rws__request_enter(request, RWS__REQUEST_DECIDING);
}

/* Ask the program. `data` is the head. */
static void decide(rws_conn *conn, const rws__http_head *head, const uint8_t *data, size_t len)
{
    const rws__endpoint *endpoint = conn->endpoint;
    rws_request *request = rws__pool_take(conn->stream.streams->partial, sizeof(rws_request));
    if (request == NULL) {
        refuse_text(conn, 503, no_memory);
        return;
    }
    memset(request, 0, sizeof *request);
    request->conn = conn;
    request->head = *head;
    rws__conn_cold_part(conn)->request = request;
    int res = endpoint->handler.on_upgrade(request, endpoint->user);
    RWS_ASSERT(conn->state == RWS__CONN_UPGRADING);
    if (res == RWS__REQUEST_DEFERRED) {
        leave_for_later(conn, request, data, len);
        return;
    }
    if (res > 0) {
        refuse_reserved(conn, res);
        return;
    }
    rws__request_enter(request, RWS__REQUEST_ANSWERING);
    request->decision = res;
    answer(conn, request);
}

static void on_request(rws_conn *conn, const rws__http_head *head, const uint8_t *data, size_t len)
{
    const char *why = "";
    int status = rws__handshake_check_request(head, &why);
    if (status != 101) {
        refuse_text(conn, status, why);
        return;
    }
    why = why_full(rws__conn_table(conn));
    if (why != NULL) {
        refuse_text(conn, 503, why);
        return;
    }
    const rws__endpoint *endpoint = rws__http_route(conn->upgrade.http, rws__http_path(head));
    if (endpoint == NULL) {
        refuse_text(conn, 404, "There is no WebSocket endpoint of this path.");
        return;
    }
    if (endpoint->origins_count > 0 &&
        !rws__handshake_origin_is_allowed(
            head->known.origin, (const char *const *)endpoint->origins, endpoint->origins_count)) {
        refuse_text(conn, 403, "This origin is not allowed.");
        return;
    }
    conn->endpoint = endpoint;
    if (endpoint->handler.on_upgrade != NULL)
        decide(conn, head, data, len);
    else if (accept_request(conn, head, NULL))
        open_conn(conn);
}

/* ---- the client's side ---- */

static void fail_dial(rws_conn *conn, int status, const char *text)
{
    rws__cause cause = rws__cause_abnormal(status, RWS_CLOSED_BY_US, text);
    rws__conn_end(conn, &cause, RWS__FINISH_CUT);
}

void rws__conn_start_handshake(rws_conn *conn)
{
    const rws__dial *dial = rws__conn_dial(conn);
    rws__handshake_request request = rws__dial_request(dial);
    size_t room = request.host.len + request.target.len + request.subprotocols.len +
                  request.origin.len + request.extra_len + RWS__WRITE_REQUEST_BYTES;
    uint8_t *out = rws__stream_reserve(&conn->stream, room, RWS__SHARE_ONCE);
    int len = out != NULL ? rws__handshake_write_request(out, room, &request, dial->key) : -ENOMEM;
    if (len < 0)
        fail_dial(conn, len, "the request could not be written");
    else
        rws__stream_commit(&conn->stream, (size_t)len);
}

static void on_response(rws_conn *conn, const rws__http_head *head)
{
    rws__dial *dial = rws__conn_dial(conn);
    rws_span subprotocol = {NULL, 0};
    const char *why = "";
    if (head->status != 101) {
        char text[128];
        snprintf(text, sizeof text, "the server answered %d instead of 101", head->status);
        fail_dial(conn, RWS_E_UPGRADE, text);
    } else if (rws__handshake_check_response(head, dial->key, dial->subprotocols, &subprotocol,
                                             &why) != 0) {
        fail_dial(conn, RWS_E_UPGRADE, why);
    } else if (keep_subprotocol(conn, subprotocol) != 0) {
        fail_dial(conn, -ENOMEM, "no memory for the connection");
    } else {
        rws__dial_free(rws__conn_loop(conn)->env, dial);
        rws__conn_cold_part(conn)->dial = NULL;
        rws__conn_table(conn)->dials_count--;
        open_conn(conn);
    }
}

/* ---- reading the head ---- */

static void on_bad_head(rws_conn *conn, int status)
{
    if (rws__conn_dial(conn) != NULL)
        fail_dial(conn, status,
                  status == RWS_E_HTTP_TOO_BIG
                      ? "the server's answer is larger than handshake_bytes_max"
                  : status == -ENOMEM ? "no memory for the server's answer"
                                      : "the server's answer is not HTTP");
    else if (status == -ENOMEM)
        refuse_text(conn, 503, no_memory);
    else if (status == RWS_E_HTTP_TOO_BIG)
        refuse_text(conn, 431, "The request header is too large.");
    else
        refuse_text(conn, 400, "The request is not valid HTTP/1.1.");
}

/* A head of `len` bytes is complete. */
static void on_head(rws_conn *conn, uint8_t *data, size_t len)
{
    const rws__conns *conns = rws__conn_table(conn);
    bool dialled = rws__conn_dial(conn) != NULL;
    rws__http_head head;
    memset(&head, 0, sizeof head);
    head.headers = conns->headers;
    head.headers_capacity = dialled ? conns->headers_max : conn->upgrade.http->headers_max;
    int res = dialled ? rws__http_parse_response(&head, data, len)
                      : rws__http_parse_request(&head, data, len);
    if (res != 0)
        on_bad_head(conn, res);
    else if (dialled)
        on_response(conn, &head);
    else
        on_request(conn, &head, data, len);
}

static size_t head_bytes_max(rws_conn *conn)
{
    const rws__dial *dial = rws__conn_dial(conn);
    return dial != NULL ? dial->head_bytes_max : conn->upgrade.http->head_bytes_max;
}

/* Returns how many bytes the head has, or 0: more are needed, or it is bad. */
static size_t scan(rws_conn *conn, const uint8_t *data, size_t len, size_t bytes_max, bool is_cut)
{
    int res = rws__http_scan(&conn->upgrade.scanner, data, len, bytes_max);
    if (res == 0 && is_cut) res = RWS_E_HTTP_TOO_BIG;
    if (res < 0) on_bad_head(conn, res);
    return res > 0 ? (size_t)res : 0;
}

/* A head that begins in `data`. */
static size_t first_input(rws_conn *conn, uint8_t *data, size_t len)
{
    size_t head = scan(conn, data, len, head_bytes_max(conn), false);
    if (conn->state != RWS__CONN_UPGRADING) return len;
    if (head == 0) {
        if (rws__payload_append(&conn->assembly, conn->stream.streams->partial, data, len,
                                HEAD_USUAL) != 0)
            on_bad_head(conn, -ENOMEM);
        return len;
    }
    on_head(conn, data, head);
    return head;
}

/* A head that has begun before. */
static size_t more_input(rws_conn *conn, const uint8_t *data, size_t len)
{
    size_t bytes_max = head_bytes_max(conn), had = conn->assembly->len;
    size_t taken = bytes_max - had < len ? bytes_max - had : len;
    if (rws__payload_append(&conn->assembly, conn->stream.streams->partial, data, taken,
                            bytes_max) != 0) {
        on_bad_head(conn, -ENOMEM);
        return len;
    }
    size_t head = scan(conn, conn->assembly->data, conn->assembly->len, bytes_max, taken < len);
    if (conn->state != RWS__CONN_UPGRADING || head == 0) return len;
    /* The assembly is the decoder's from here on. */
    rws__payload *carried = conn->assembly;
    conn->assembly = NULL;
    on_head(conn, carried->data, head);
    rws__payload_release(carried);
    return head - had;
}

size_t rws__conn_upgrade_input(rws_conn *conn, uint8_t *data, size_t len)
{
    if (request_of(conn) != NULL) {
        keep_early(conn, data, len);
        return len;
    }
    size_t taken =
        conn->assembly == NULL ? first_input(conn, data, len) : more_input(conn, data, len);
    if (taken == len) return taken;
    /* What follows the head in the same bytes is frames. */
    if (conn->state == RWS__CONN_OPEN)
        return taken + rws__conn_frames(conn, data + taken, len - taken);
    if (conn->state == RWS__CONN_UPGRADING) keep_early(conn, data + taken, len - taken);
    return len;
}
