#include "engine/conn/request.h"

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
    return rws__handshake_append_header(request->extra, sizeof request->extra, &request->extra_len,
                                        name_span, value_span);
}

int rws_request_respond(rws_request *request, int status, const void *body, size_t len)
{
    if (status < 200 || status > 599) return RWS_E_ARGUMENT;
    if (len > sizeof request->body || (body == NULL && len > 0)) return RWS_E_ARGUMENT;
    if (len > 0) memcpy(request->body, body, len);
    request->status = status;
    request->body_len = len;
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
