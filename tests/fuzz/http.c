/*
 * The upgrade parser. The first two bytes of the input choose what is parsed, the limit and where
 * the bytes are cut; the rest is what a peer sent.
 *
 * What must hold: whole, byte by byte and in two pieces a scan has one result; a parse stays inside
 * of the head; what a parse took apart and our writers put together parses again, to the same.
 */
#undef NDEBUG
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "codec/handshake.h"

#define OUT_BYTES 65536
#define HEADERS   32
static const char key[] = "dGhlIHNhbXBsZSBub25jZQ==";

typedef struct parsed {
    rws__http_header headers[HEADERS];
    rws__http_head head;
    uint8_t *data;
} parsed;

static bool inside(rws_span span, const uint8_t *data, size_t len)
{
    const uint8_t *start = (const uint8_t *)span.data;
    return !start || (start >= data && start + span.len <= data + len);
}

static bool equal(rws_span a, rws_span b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static int scan(const uint8_t *data, size_t len, size_t limit, size_t split)
{
    rws__http_scanner whole = {0}, bytewise = {0}, halves = {0};
    int result = rws__http_scan(&whole, data, len, limit);

    int by_bytes = 0;
    for (size_t got = 0; got <= len && by_bytes == 0; got++) {
        by_bytes = rws__http_scan(&bytewise, data, got, limit);
    }
    assert(by_bytes == result && bytewise.scanned == whole.scanned);

    int in_two = rws__http_scan(&halves, data, split, limit);
    if (in_two == 0) in_two = rws__http_scan(&halves, data, len, limit);
    assert(in_two == result && halves.scanned == whole.scanned);

    assert(result == 0 || result == RWS_E_HTTP || result == RWS_E_HTTP_TOO_BIG ||
           (result > 0 && (size_t)result <= len && (size_t)result <= limit));
    return result;
}

/* Parse an exact copy of one head. */
static int parse(parsed *out, const uint8_t *data, size_t len, bool response)
{
    memset(out, 0, sizeof(*out));
    out->data = malloc(len);
    assert(out->data);
    memcpy(out->data, data, len);
    out->head.headers = out->headers;
    out->head.headers_capacity = HEADERS;
    int status = response ? rws__http_parse_response(&out->head, out->data, len)
                          : rws__http_parse_request(&out->head, out->data, len);
    assert(status == 0 || status == RWS_E_HTTP);
    assert(out->head.headers_count <= HEADERS);
    assert(out->head.headers_count <= out->head.headers_seen);
    for (uint32_t i = 0; i < out->head.headers_count; i++) {
        rws__http_header header = out->headers[i];
        assert(inside(header.name, out->data, len) && inside(header.value, out->data, len));
        assert(rws__http_name_is_valid(header.name) && rws__http_value_is_valid(header.value));
    }
    return status;
}

/* The headers of `head` that may be appended to one of ours; `*count` receives their number. */
static size_t append_all(uint8_t *out, size_t out_size, const rws__http_head *head, size_t *count)
{
    size_t used = 0;
    *count = 0;
    for (uint32_t i = 0; i < head->headers_count; i++) {
        int status = rws__handshake_append_header(out, out_size, &used, head->headers[i].name,
                                                  head->headers[i].value);
        if (status == 0) (*count)++;
    }
    return used;
}

/* Whether the last headers of `again` are those of `head` that could be appended. */
static void check_appended(const rws__http_head *head, const rws__http_head *again, size_t count)
{
    assert(again->headers_seen >= count);
    if (again->headers_seen > HEADERS) return;
    uint32_t at = again->headers_count - (uint32_t)count;
    for (uint32_t i = 0; i < head->headers_count && at < again->headers_count; i++) {
        if (!equal(head->headers[i].name, again->headers[at].name)) continue;
        assert(equal(head->headers[i].value, again->headers[at].value));
        at++;
    }
    assert(at == again->headers_count);
}

static void write_refusal_of(const rws__http_head *head, const uint8_t *extra, size_t extra_len,
                             size_t count)
{
    static uint8_t out[OUT_BYTES];
    static parsed again;
    int status = 200 + (int)(head->headers_seen * 7 % 400);
    rws_span body = head->target;
    int len = rws__handshake_write_refusal(out, sizeof(out), status, extra, extra_len, body);
    if (status == 204 || status == 304) body.len = 0;
    if (len == RWS_E_HTTP_TOO_BIG) return;

    assert(len > 0);
    int head_len = scan(out, (size_t)len, sizeof(out), (size_t)len / 2);
    assert(head_len > 0 && (size_t)head_len + body.len == (size_t)len);
    assert(parse(&again, out, (size_t)head_len, true) == 0 && again.head.status == status);
    check_appended(head, &again.head, count);
    free(again.data);
}

static void write_accept_of(const rws__http_head *head, const uint8_t *extra, size_t extra_len,
                            size_t count)
{
    static uint8_t out[OUT_BYTES];
    static parsed again;
    rws_span list = head->known.ws_protocol[0], chosen = {NULL, 0}, taken;
    if (rws__http_list_next(&list, &chosen)) {
        rws_span found = rws__handshake_find_subprotocol(head, chosen);
        assert((found.data == chosen.data) == rws__http_name_is_valid(chosen));
    }
    int len = rws__handshake_write_accept(out, sizeof(out), key, chosen, extra, extra_len);
    if (len == RWS_E_HTTP_TOO_BIG) return;
    if (len < 0) {
        assert(len == RWS_E_ARGUMENT && !rws__http_name_is_valid(chosen));
        return;
    }
    assert(scan(out, (size_t)len, sizeof(out), (size_t)len / 3) == len);
    assert(parse(&again, out, (size_t)len, true) == 0);
    const char *why;
    assert(rws__handshake_check_response(&again.head, key, head->known.ws_protocol[0], &taken,
                                         &why) == 0);
    assert(equal(taken, chosen));
    check_appended(head, &again.head, count);
    free(again.data);
}

static void write_request_of(const rws__http_head *head, const uint8_t *extra, size_t extra_len,
                             size_t count)
{
    static uint8_t out[OUT_BYTES];
    static parsed again;
    rws__handshake_request request = {
        .host = head->known.host,
        .target = head->target,
        .subprotocols = head->known.ws_protocol[0],
        .origin = head->known.origin,
        .extra = extra,
        .extra_len = extra_len,
    };
    int len = rws__handshake_write_request(out, sizeof(out), &request, key);
    if (len < 0) return;

    assert(scan(out, (size_t)len, sizeof(out), (size_t)len / 3) == len);
    assert(parse(&again, out, (size_t)len, false) == 0);
    const char *why;
    assert(rws__handshake_check_request(&again.head, &why) == 101);
    assert(equal(again.head.target, request.target));
    assert(equal(again.head.known.host, request.host));
    assert(equal(again.head.known.origin, request.origin));
    assert(equal(again.head.known.ws_protocol[0], request.subprotocols));
    check_appended(head, &again.head, count);
    free(again.data);
}

static void use_head(const rws__http_head *head)
{
    static uint8_t extra[OUT_BYTES / 2];
    static const char *const allowed[] = {"https://example.org", "http://[::1]:80", "null"};
    rws_span subprotocol;
    const char *why;

    int status = rws__handshake_check_request(head, &why);
    assert(status == 101 ||
           ((status == 400 || status == 405 || status == 426 || status == 505) && why[0]));
    status =
        rws__handshake_check_response(head, key, head->known.ws_protocol[1], &subprotocol, &why);
    assert(status == 0 || (status == RWS_E_UPGRADE && why[0]));
    rws__handshake_origin_is_allowed(head->known.origin, allowed, 3);

    size_t count;
    size_t extra_len = append_all(extra, sizeof(extra), head, &count);
    write_refusal_of(head, extra, extra_len, count);
    write_accept_of(head, extra, extra_len, count);
    write_request_of(head, extra, extra_len, count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static parsed head;
    if (size < 2) return 0;
    bool response = data[0] & 1;
    size_t limit = data[0] & 2 ? 128 : OUT_BYTES / 4;
    size_t split = size - 2 > 0 ? data[1] * (size - 2) / 256 : 0;

    int len = scan(data + 2, size - 2, limit, split);
    if (len <= 0) return 0;
    if (parse(&head, data + 2, (size_t)len, response) == 0) use_head(&head.head);
    free(head.data);
    return 0;
}
