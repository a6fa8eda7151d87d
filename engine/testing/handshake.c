/*
 * The opening handshake of a peer: as the client of a server under test, or as the server of a
 * client.
 */
#include "engine/testing/kit.h"

#include "engine/ring/sockets.h"
#include "engine/simulated/kernel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HEAD_BYTES_MAX  1048576u
#define WRITE_BYTES_MAX 65536u

static rws_span span_of(const char *text)
{
    return text != NULL ? (rws_span){text, strlen(text)} : (rws_span){NULL, 0};
}

/* ---- the head of the other side ---- */

static void refuse(rws_test_peer *peer, rws__peer_state state, const char *why)
{
    peer->state = state;
    peer->why = why;
}

/* Of a request that the program wrote: its key, and what it offers. */
static void read_own_request(rws_test_peer *peer)
{
    rws__http_header headers[sizeof peer->headers / sizeof peer->headers[0]];
    rws__http_head head = {.headers = headers,
                           .headers_capacity = sizeof headers / sizeof *headers};
    rws__http_scanner scanner = {0};
    int len = rws__http_scan(&scanner, peer->request.data, peer->request.len, HEAD_BYTES_MAX);
    if (len <= 0 || rws__http_parse_request(&head, peer->request.data, (size_t)len) != 0) return;
    rws_span key = head.known.ws_key, offered = head.known.ws_protocol[0];
    if (key.len == RWS__KEY_BYTES) memcpy(peer->key, key.data, RWS__KEY_BYTES);
    if (offered.len > 0) peer->offered = rws__test_copy(offered.data, offered.len);
}

/* An answer to the request that was sent. */
static void judge_answer(rws_test_peer *peer)
{
    const char *why = "";
    if (peer->key[0] == '\0') read_own_request(peer);
    if (rws__http_parse_response(&peer->head, peer->head_bytes, peer->head_len) != 0)
        refuse(peer, RWS__PEER_NOT_HTTP, "an answer that is not valid HTTP");
    else if (peer->head.status != 101)
        refuse(peer, RWS__PEER_REFUSED, "");
    else if (rws__handshake_check_response(&peer->head, peer->key, span_of(peer->offered),
                                           &peer->subprotocol, &why) != 0)
        refuse(peer, RWS__PEER_NOT_HTTP, why);
    else
        peer->state = RWS__PEER_OPEN;
}

/* A request: it is up to the program to answer it, and frames come behind that. */
static void judge_request(rws_test_peer *peer)
{
    const char *why = "a request that is not valid HTTP";
    if (rws__http_parse_request(&peer->head, peer->head_bytes, peer->head_len) != 0 ||
        rws__handshake_check_request(&peer->head, &why) != 101)
        refuse(peer, RWS__PEER_NOT_HTTP, why);
    else
        peer->state = RWS__PEER_OPEN;
}

void rws__peer_read_head(rws_test_peer *peer)
{
    int len = rws__http_scan(&peer->scanner, peer->in.data, peer->in.len, HEAD_BYTES_MAX);
    if (len == 0) return;
    if (len < 0) {
        refuse(peer, RWS__PEER_NOT_HTTP, "bytes that are no head of HTTP");
        return;
    }
    peer->head_len = (size_t)len;
    peer->head_bytes = rws__test_memory(peer->head_len);
    memcpy(peer->head_bytes, peer->in.data, peer->head_len);
    rws__bytes_drop(&peer->in, peer->head_len);
    if (peer->serves)
        judge_request(peer);
    else
        judge_answer(peer);
}

/* ---- writing ---- */

/* The lines of `headers`, into `out`. Returns their length or a negative status. */
static int write_headers(uint8_t *out, size_t size, const rws_header *headers, uint32_t count)
{
    size_t used = 0;
    if (headers == NULL && count > 0) return RWS_E_ARGUMENT;
    for (uint32_t i = 0; i < count; i++) {
        int res = rws__handshake_append_header(out, size, &used, span_of(headers[i].name),
                                               span_of(headers[i].value));
        if (res != 0) return res;
    }
    return (int)used;
}

/* Append the request to what the peer sends. Returns 0 or why it can't be. */
static int add_request(rws_test_peer *peer, const rws_test_request *request)
{
    static const uint8_t random[16] = "ringws_testing";
    uint8_t *lines = rws__test_memory(2 * (size_t)WRITE_BYTES_MAX);
    int len = write_headers(lines, WRITE_BYTES_MAX, request->headers, request->headers_count);
    rws__handshake_key(random, peer->key);
    if (len >= 0) {
        const rws__handshake_request own = {
            .host = span_of("localhost"),
            .target = span_of(request->path),
            .subprotocols = span_of(request->subprotocols),
            .origin = span_of(request->origin),
            .extra = lines,
            .extra_len = (size_t)len,
        };
        len =
            rws__handshake_write_request(lines + WRITE_BYTES_MAX, WRITE_BYTES_MAX, &own, peer->key);
    }
    if (len >= 0) rws__bytes_append(&peer->out, lines + WRITE_BYTES_MAX, (size_t)len);
    free(lines);
    return len < 0 ? len : 0;
}

/* ---- connecting ---- */

static rws_test_peer *connect_peer(rws_test *test)
{
    struct sockaddr_storage address;
    if (!rws__test_is_open(test) || !rws__test_run(test)) return NULL;
    if (test->runtime.listeners_count == 0) {
        rws__test_fail("there is nobody to connect to: the test's endpoint is a client's");
        return NULL;
    }
    int listener = rws__test_shard(test)->listeners[0].fd;
    int fd = listener >= 0 ? rws__socket_local(listener, &address) : -ECONNREFUSED;
    if (fd == 0) fd = rws__sim_connect((struct sockaddr *)&address, sizeof(struct sockaddr_in));
    if (fd < 0) {
        rws__test_fail("the engine does not listen any more: it was stopped");
        return NULL;
    }
    return rws__peer_make(test, fd, false);
}

rws_test_peer *rws_test_connect_raw(rws_test *test, const void *data, size_t len)
{
    if (!rws__test_has_bytes(data, len)) return NULL;
    rws_test_peer *peer = connect_peer(test);
    if (peer == NULL) return NULL;
    rws_test_feed_raw(peer, data, len);
    return peer;
}

rws_test_peer *rws_test_connect_with(rws_test *test, const rws_test_request *request)
{
    rws_test_request own = RWS_TEST_REQUEST_DEFAULT;
    if (!rws__test_overlay(&own, sizeof own, request, "RWS_TEST_REQUEST_DEFAULT")) return NULL;
    rws_test_peer *peer = connect_peer(test);
    if (peer == NULL) return NULL;
    peer->masks = !own.no_masks;
    if (own.subprotocols != NULL)
        peer->offered = rws__test_copy(own.subprotocols, strlen(own.subprotocols));
    int res = add_request(peer, &own);
    if (res != 0) {
        rws__test_fail("the upgrade request can't be written: %s", rws_strerror(res));
        return NULL;
    }
    return rws__test_run(test) ? peer : NULL;
}

rws_test_peer *rws_test_connect(rws_test *test)
{
    rws_test_peer *peer = rws_test_connect_with(test, NULL);
    return peer != NULL && rws_test_expect_upgraded(peer, NULL) ? peer : NULL;
}

/* ---- accepting ---- */

const char *rws_test_url(const rws_test *test)
{
    return rws__test_is_open(test) ? test->url : NULL;
}

static rws__endpoint *find_dialling(rws_test *test)
{
    for (uint32_t i = 0; i <= test->endpoints_count; i++) {
        rws_endpoint *endpoint = rws__test_endpoint(test, i);
        if (endpoint->rules.role == RWS_CLIENT) return endpoint;
    }
    return NULL;
}

int rws_test_dial(rws_test *test, const rws_dial_options *options)
{
    rws_error error;
    if (!rws__test_is_open(test)) return RWS_E_ARGUMENT;
    rws__endpoint *endpoint = find_dialling(test);
    if (endpoint == NULL) return RWS_E_STATE;
    int res = rws__runtime_dial(&test->runtime, endpoint, test->url, options, NULL, &error);
    rws__test_run(test);
    return res;
}

rws_test_peer *rws_test_accept_raw(rws_test *test)
{
    if (!rws__test_is_open(test) || !rws__test_run(test)) return NULL;
    int fd = rws__socket_accept(test->listener);
    if (fd < 0) {
        rws__test_fail("nobody has dialled %s", test->url);
        return NULL;
    }
    rws_test_peer *peer = rws__peer_make(test, fd, true);
    return rws__test_run(test) ? peer : NULL;
}

/* Append the answer to what the peer sends. Returns 0 or why it can't be. */
static int add_answer(rws_test_peer *peer, const rws_test_answer *answer)
{
    uint8_t *lines = rws__test_memory(2 * (size_t)WRITE_BYTES_MAX), *out = lines + WRITE_BYTES_MAX;
    int len = write_headers(lines, WRITE_BYTES_MAX, answer->headers, answer->headers_count);
    if (len >= 0 && (answer->status == 0 || answer->status == 101))
        len = rws__handshake_write_accept(out, WRITE_BYTES_MAX, peer->head.known.ws_key.data,
                                          span_of(answer->subprotocol), lines, (size_t)len);
    else if (len >= 0)
        len = rws__handshake_write_refusal(out, WRITE_BYTES_MAX, answer->status, lines, (size_t)len,
                                           span_of(NULL));
    if (len >= 0) rws__bytes_append(&peer->out, out, (size_t)len);
    free(lines);
    return len < 0 ? len : 0;
}

rws_test_peer *rws_test_accept(rws_test *test, const rws_test_answer *answer)
{
    rws_test_answer own = RWS_TEST_ANSWER_DEFAULT;
    if (!rws__test_overlay(&own, sizeof own, answer, "RWS_TEST_ANSWER_DEFAULT")) return NULL;
    rws_test_peer *peer = rws_test_accept_raw(test);
    if (peer == NULL) return NULL;
    if (peer->state != RWS__PEER_OPEN) {
        rws__test_fail("peer %u received no valid upgrade request%s%s", peer->number,
                       peer->why != NULL ? ": " : "", peer->why != NULL ? peer->why : "");
        return NULL;
    }
    int res = add_answer(peer, &own);
    if (res != 0) {
        rws__test_fail("the answer can't be written: %s", rws_strerror(res));
        return NULL;
    }
    if (!rws__test_run(test)) return NULL;
    (void)rws__peer_conn(peer);
    return peer;
}
