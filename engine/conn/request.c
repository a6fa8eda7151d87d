#include "engine/conn/request.h"

#include <errno.h>
#include <string.h>

#define TO(step) (1u << (step))

/* The only legal moves. */
static const uint8_t request_moves[RWS__REQUEST_STEPS] = {
    [RWS__REQUEST_READING] = TO(RWS__REQUEST_DECIDING) | TO(RWS__REQUEST_ANSWERING),
    [RWS__REQUEST_DECIDING] = TO(RWS__REQUEST_ANSWERING),
};

void rws__request_enter(rws_request *request, rws__request_step step)
{
    RWS_ASSERT(request_moves[request->step] & TO(step));
    request->step = (uint8_t)step;
}

static rws__pool *pool_of(const rws_request *request)
{
    return request->conn->stream.streams->partial;
}

static size_t charged_bytes(const rws__payload *payload)
{
    return payload != NULL ? payload->charged : 0;
}

bool rws__request_count(rws_request *request)
{
    const rws__slab *slab = &pool_of(request)->slab;
    rws__conns *conns = rws__conn_table(request->conn);
    size_t bytes = rws__slab_block_bytes(slab, request) +
                   rws__slab_block_bytes(slab, request->headers) + charged_bytes(request->bytes) +
                   charged_bytes(request->extra) + charged_bytes(request->body) +
                   charged_bytes(request->early) + charged_bytes(request->conn->stream.stalled);
    conns->request_bytes += bytes - request->counted_bytes;
    request->counted_bytes = bytes;
    return conns->request_bytes == bytes ||
           conns->request_bytes <= pool_of(request)->budget_bytes / RWS__REQUESTS_SHARE;
}

/* What it has of the pool changed. */
static void recount(rws_request *request)
{
    if (request->step != RWS__REQUEST_READING) (void)rws__request_count(request);
}

rws_span rws_request_method(const rws_request *request)
{
    return request->head.method;
}

rws_span rws_request_target(const rws_request *request)
{
    return request->head.target;
}

rws_span rws_request_path(const rws_request *request)
{
    return rws__http_path(&request->head);
}

rws_span rws_request_query(const rws_request *request, const char *name)
{
    rws_span target = request->head.target, path = rws__http_path(&request->head);
    rws_span none = {NULL, 0}, query = none;
    if (path.len < target.len)
        query = (rws_span){target.data + path.len + 1, target.len - path.len - 1};
    size_t name_len = strlen(name);
    while (query.len > 0) {
        const char *end = memchr(query.data, '&', query.len);
        size_t len = end != NULL ? (size_t)(end - query.data) : query.len;
        const char *equal = memchr(query.data, '=', len);
        size_t key_len = equal != NULL ? (size_t)(equal - query.data) : len;
        if (key_len == name_len && memcmp(query.data, name, name_len) == 0) {
            const char *value = equal != NULL ? equal + 1 : query.data + len;
            return (rws_span){value, (size_t)(query.data + len - value)};
        }
        size_t step = end != NULL ? len + 1 : len;
        query.data += step;
        query.len -= step;
    }
    return none;
}

rws_span rws_request_header(const rws_request *request, const char *name)
{
    return rws__http_get(&request->head, name);
}

size_t rws_request_header_count(const rws_request *request)
{
    return request->head.headers_count;
}

bool rws_request_header_at(const rws_request *request, size_t index, rws_span *name,
                           rws_span *value)
{
    if (index >= request->head.headers_count) return false;
    *name = request->head.headers[index].name;
    *value = request->head.headers[index].value;
    return true;
}

rws_span rws_request_origin(const rws_request *request)
{
    return request->head.known.origin;
}

int rws_request_peer(const rws_request *request, struct sockaddr_storage *address, socklen_t *len)
{
    return rws_conn_peer(request->conn, address, len);
}

int rws_request_choose_subprotocol(rws_request *request, const char *name)
{
    rws_span found =
        rws__handshake_find_subprotocol(&request->head, (rws_span){name, strlen(name)});
    if (found.data == NULL) return RWS_E_ARGUMENT;
    request->subprotocol = found;
    return 0;
}

int rws_request_add_header(rws_request *request, const char *name, const char *value)
{
    rws_span name_span = {name, strlen(name)}, value_span = {value, strlen(value)};
    uint8_t line[RWS__EXTRA_MAX];
    size_t room = sizeof line - rws__payload_span(request->extra).len, len = 0;
    int res = rws__handshake_append_header(line, room, &len, name_span, value_span);
    if (res != 0) return res;
    res = rws__payload_append(&request->extra, pool_of(request), line, len, 0);
    recount(request);
    return res;
}

int rws_request_respond(rws_request *request, int status, const void *body, size_t len)
{
    if (status < 200 || status > 599) return RWS_E_ARGUMENT;
    if (len > RWS__BODY_MAX || (body == NULL && len > 0)) return RWS_E_ARGUMENT;
    rws__payload *copy = NULL;
    if (len > 0 && rws__payload_append(&copy, pool_of(request), body, len, 0) != 0) {
        rws__payload_release(copy);
        return -ENOMEM;
    }
    rws__payload_release(request->body);
    request->body = copy;
    request->status = status;
    recount(request);
    return 0;
}

uint64_t rws__request_id(const rws_request *request)
{
    return rws__conn_id(request->conn);
}

int rws__request_answer(rws_request *request, int decision)
{
    if (decision > 0) return RWS_E_ARGUMENT;
    if (request->step != RWS__REQUEST_DECIDING) return RWS_E_STATE;
    rws__request_enter(request, RWS__REQUEST_ANSWERING);
    request->decision = decision;
    rws__conn_clear_deadline(request->conn); /* nobody else is waited for */
    rws__stream_want_turn(&request->conn->stream);
    return 0;
}

void rws_request_set_user(rws_request *request, void *conn_user, void (*release)(void *conn_user))
{
    void (*former_release)(void *user) = request->release_user;
    void *former = request->user;
    request->user = conn_user;
    request->release_user = release;
    if (former_release != NULL && former != conn_user) former_release(former);
}
