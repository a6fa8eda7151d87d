/*
 * The opening handshake as the client sees it, RFC 6455 section 4.1.
 */
#include "codec/handshake.h"

#include <string.h>

#include "codec/handshake_write.h"

/* What the parser of requests takes, in origin form. */
static bool target_is_valid(rws_span target)
{
    if (target.len == 0 || target.data[0] != '/') return false;
    for (size_t i = 0; i < target.len; i++) {
        char byte = target.data[i];
        if (byte <= ' ' || byte >= 0x7F || byte == '#') return false;
    }
    return true;
}

/* Tokens, and none of them twice: section 4.1, item 10. */
static bool subprotocols_are_valid(rws_span list)
{
    rws_span rest = list;
    rws_span element;
    size_t count = 0;
    while (rws__http_list_next(&rest, &element)) {
        if (!rws__http_name_is_valid(element) ||
            rws__handshake_list_find(rest, element).data != NULL) {
            return false;
        }
        count++;
    }
    return count > 0 || list.len == 0;
}

/* A serialised origin or "null": visible ASCII without spaces. */
static bool origin_is_valid(rws_span origin)
{
    for (size_t i = 0; i < origin.len; i++) {
        if (origin.data[i] <= ' ' || origin.data[i] >= 0x7F) return false;
    }
    return true;
}

int rws__handshake_write_request(uint8_t *out, size_t out_size,
                                 const rws__handshake_request *request,
                                 const char key[RWS__KEY_BYTES])
{
    if (!rws__handshake_host_is_valid(request->host)) return RWS_E_ARGUMENT;
    if (!target_is_valid(request->target)) return RWS_E_ARGUMENT;
    if (!subprotocols_are_valid(request->subprotocols)) return RWS_E_ARGUMENT;
    if (!origin_is_valid(request->origin)) return RWS_E_ARGUMENT;
    if (!rws__handshake_lines_are_valid(request->extra, request->extra_len)) return RWS_E_ARGUMENT;

    rws__text text = {.out = out, .size = out_size};
    rws__text_puts(&text, "GET ");
    rws__text_put(&text, request->target.data, request->target.len);
    rws__text_puts(&text, " HTTP/1.1\r\n");
    rws__text_put_header(&text, "Host", request->host);
    rws__text_puts(&text, "Upgrade: websocket\r\n"
                          "Connection: Upgrade\r\n");
    rws__text_put_header(&text, "Sec-WebSocket-Key", (rws_span){key, RWS__KEY_BYTES});
    rws__text_puts(&text, "Sec-WebSocket-Version: 13\r\n");
    rws__text_put_header(&text, "Sec-WebSocket-Protocol", request->subprotocols);
    rws__text_put_header(&text, "Origin", request->origin);
    rws__text_put(&text, request->extra, request->extra_len);
    rws__text_puts(&text, "\r\n");
    return rws__text_finish(&text);
}

static int fail(const char **why, const char *sentence)
{
    *why = sentence;
    return RWS_E_UPGRADE;
}

/* Section 4.1, the list of what the client must validate. */
int rws__handshake_check_response(const rws__http_head *head, const char key[RWS__KEY_BYTES],
                                  rws_span subprotocols, rws_span *subprotocol, const char **why)
{
    const struct rws__http_known *known = &head->known;
    char accept[RWS__ACCEPT_BYTES];

    *why = "";
    *subprotocol = (rws_span){NULL, 0};
    if (head->status != 101) return fail(why, "the server refused the upgrade");
    if (head->version_minor != 1) return fail(why, "the answer is not HTTP/1.1");
    if (known->upgrade_count != 1 || !rws__http_equal_nocase(known->upgrade, "websocket")) {
        return fail(why, "the answer must have one Upgrade header that says \"websocket\"");
    }
    if (known->connection_count != 1 || !known->connection_has_upgrade) {
        return fail(why, "the answer must have one Connection header that says \"Upgrade\"");
    }
    rws__handshake_accept(key, accept);
    if (known->ws_accept_count != 1) {
        return fail(why, "the answer must have one Sec-WebSocket-Accept header");
    }
    if (known->ws_accept.len != sizeof(accept) ||
        memcmp(known->ws_accept.data, accept, sizeof(accept)) != 0) {
        return fail(why, "Sec-WebSocket-Accept does not belong to the key that was sent");
    }
    if (known->ws_extensions_count > 0) {
        return fail(why, "the server chose an extension that was not offered");
    }
    if (known->ws_protocol_count > 1) {
        return fail(why, "there is more than one Sec-WebSocket-Protocol header");
    }
    if (known->ws_protocol_count == 1) {
        if (rws__handshake_list_find(subprotocols, known->ws_protocol[0]).data == NULL) {
            return fail(why, "the server chose a subprotocol that was not offered");
        }
        *subprotocol = known->ws_protocol[0];
    }
    return 0;
}
