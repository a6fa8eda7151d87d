/*
 * The opening handshake as the server sees it, RFC 6455 section 4.2, and what both sides share.
 */
#include "codec/handshake.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "codec/digest.h"
#include "codec/handshake_write.h"

/* Subprotocol and extension lists that http.h keeps of one head. */
#define LISTS_KEPT 4

void rws__handshake_accept(const char key[RWS__KEY_BYTES], char out[RWS__ACCEPT_BYTES])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; /* RFC 6455, section 1.3 */
    char text[RWS__KEY_BYTES + sizeof(guid) - 1];
    uint8_t digest[RWS__SHA1_BYTES];

    memcpy(text, key, RWS__KEY_BYTES);
    memcpy(text + RWS__KEY_BYTES, guid, sizeof(guid) - 1);
    rws__sha1(text, sizeof(text), digest);
    static_assert(RWS__BASE64_BYTES(sizeof(digest)) == RWS__ACCEPT_BYTES, "section 4.2.2");
    rws__base64(digest, sizeof(digest), out);
}

void rws__handshake_key(const uint8_t random[16], char out[RWS__KEY_BYTES])
{
    static_assert(RWS__BASE64_BYTES(16) == RWS__KEY_BYTES, "section 4.1");
    rws__base64(random, 16, out);
}

static bool is_alnum(char byte)
{
    return (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') ||
           (byte >= 'a' && byte <= 'z');
}

/* Base64 of 16 bytes: 22 digits and "==". Of the last digit only two bits are data; were the
 * other four not zero, two texts would stand for one nonce. */
static bool key_is_valid(rws_span key)
{
    if (key.len != RWS__KEY_BYTES) return false;
    for (size_t i = 0; i < 22; i++) {
        if (!is_alnum(key.data[i]) && key.data[i] != '+' && key.data[i] != '/') return false;
    }
    char last = key.data[21];
    bool canonical = last == 'A' || last == 'Q' || last == 'g' || last == 'w';
    return canonical && key.data[22] == '=' && key.data[23] == '=';
}

bool rws__handshake_host_is_valid(rws_span text)
{
    /* reg-name of RFC 3986, section 3.2.2, without the comma: a proxy that joins two Host headers
     * makes one of them. */
    static const char marks[] = "-._~%!$&'()*+;=";
    size_t at = 0;

    if (text.len > 0 && text.data[0] == '[') {
        const char *end = memchr(text.data, ']', text.len);
        if (!end || end == text.data + 1) return false;
        for (at = 1; text.data + at < end; at++) {
            char byte = text.data[at];
            if (!is_alnum(byte) && byte != ':' && byte != '.' && byte != '%') return false;
        }
        at++;
    } else {
        while (at < text.len && text.data[at] != ':') {
            char byte = text.data[at];
            if (!is_alnum(byte) && (byte == '\0' || !strchr(marks, byte))) return false;
            at++;
        }
        if (at == 0) return false;
    }
    if (at == text.len) return true;
    if (text.data[at] != ':' || text.len - at > 6) return false;
    for (at++; at < text.len; at++) {
        if (text.data[at] < '0' || text.data[at] > '9') return false;
    }
    return true;
}

static int refuse(int status, const char **why, const char *sentence)
{
    *why = sentence;
    return status;
}

/* The rules of HTTP. A body is refused because a proxy may believe that another request follows
 * it, where this server would read frames. */
static int check_http(const rws__http_head *head, const char **why)
{
    const struct rws__http_known *known = &head->known;

    if (head->version_minor != 1) return refuse(505, why, "The HTTP version must be 1.1.");
    if (head->method.len != 3 || memcmp(head->method.data, "GET", 3) != 0) {
        return refuse(405, why, "A WebSocket handshake is a GET request.");
    }
    if (head->target.len == 0 || head->target.data[0] != '/') {
        return refuse(400, why, "The request target must be a path.");
    }
    if (known->host_count != 1) return refuse(400, why, "There must be one Host header.");
    if (!rws__handshake_host_is_valid(known->host)) {
        return refuse(400, why, "The Host header is not a host with an optional port.");
    }
    if (known->transfer_encoding_count > 0) {
        return refuse(400, why, "A WebSocket handshake has no Transfer-Encoding.");
    }
    if (known->content_length_count > 1) {
        return refuse(400, why, "There is more than one Content-Length header.");
    }
    if (known->content_length_count == 1 && !known->content_length_is_zero) {
        return refuse(400, why, "A WebSocket handshake has no body.");
    }
    if (known->origin_count > 1) return refuse(400, why, "There is more than one Origin header.");
    return 101;
}

/* The rules of RFC 6455, section 4.2.1. */
static int check_websocket(const rws__http_head *head, const char **why)
{
    const struct rws__http_known *known = &head->known;

    if (!known->upgrade_has_websocket) {
        return refuse(426, why,
                      "This is a WebSocket endpoint: the Upgrade header must ask for it.");
    }
    /* Without the connection option the Upgrade header is to be ignored: RFC 9110, section 7.8. */
    if (!known->connection_has_upgrade) {
        return refuse(426, why,
                      "This is a WebSocket endpoint: the Connection header must have "
                      "\"Upgrade\".");
    }
    if (known->ws_version_count > 1) {
        return refuse(400, why, "There is more than one Sec-WebSocket-Version header.");
    }
    if (known->ws_version_count == 0 || known->ws_version.len != 2 ||
        memcmp(known->ws_version.data, "13", 2) != 0) {
        return refuse(426, why, "The WebSocket version must be 13.");
    }
    if (known->ws_key_count != 1) {
        return refuse(400, why, "There must be one Sec-WebSocket-Key header.");
    }
    if (!key_is_valid(known->ws_key)) {
        return refuse(400, why, "Sec-WebSocket-Key must be the Base64 of 16 bytes.");
    }
    return 101;
}

int rws__handshake_check_request(const rws__http_head *head, const char **why)
{
    *why = "";
    int status = check_http(head, why);
    return status == 101 ? check_websocket(head, why) : status;
}

rws_span rws__handshake_list_find(rws_span list, rws_span name)
{
    rws_span element;
    while (name.len > 0 && rws__http_list_next(&list, &element)) {
        if (element.len == name.len && memcmp(element.data, name.data, name.len) == 0)
            return element;
    }
    return (rws_span){NULL, 0};
}

rws_span rws__handshake_find_subprotocol(const rws__http_head *head, rws_span name)
{
    rws_span found = {NULL, 0};
    /* What is no token can't be in the answer, so it was not offered in earnest. */
    if (!rws__http_name_is_valid(name)) return found;
    for (size_t i = 0; i < LISTS_KEPT && i < head->known.ws_protocol_count; i++) {
        found = rws__handshake_list_find(head->known.ws_protocol[i], name);
        if (found.data != NULL) break;
    }
    return found;
}

/* Headers that the handshake writes itself, or that would change what its message is. */
static bool is_reserved(rws_span name)
{
    static const char *const reserved[] = {
        "connection", "content-length", "host",    "keep-alive",        "origin",
        "te",         "trailer",        "upgrade", "transfer-encoding",
    };
    static const char prefix[] = "sec-websocket-";
    size_t prefix_len = sizeof(prefix) - 1;

    if (name.len >= prefix_len && rws__http_equal_nocase((rws_span){name.data, prefix_len}, prefix))
        return true;
    for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++) {
        if (rws__http_equal_nocase(name, reserved[i])) return true;
    }
    return false;
}

int rws__handshake_append_header(uint8_t *out, size_t out_size, size_t *used, rws_span name,
                                 rws_span value)
{
    if (!rws__http_name_is_valid(name) || is_reserved(name)) return RWS_E_ARGUMENT;
    if (!rws__http_value_is_valid(value)) return RWS_E_ARGUMENT;

    rws__text text = {.out = out, .size = out_size, .used = *used};
    rws__text_put(&text, name.data, name.len);
    rws__text_puts(&text, ": ");
    rws__text_put(&text, value.data, value.len);
    rws__text_puts(&text, "\r\n");
    if (text.full) return RWS_E_HTTP_TOO_BIG;
    *used = text.used;
    return 0;
}

/* Take the first header line of `*lines`; false at the end, and for anything but a complete
 * line (then `*lines` is not empty). */
static bool take_line(rws_span *lines, rws_span *name, rws_span *value)
{
    const char *end = lines->len > 0 ? memchr(lines->data, '\r', lines->len) : NULL;
    if (!end) return false;
    size_t len = (size_t)(end - lines->data);
    const char *colon = memchr(lines->data, ':', len);
    if (!colon || lines->len - len < 2 || end[1] != '\n') return false;

    *name = (rws_span){lines->data, (size_t)(colon - lines->data)};
    *value = (rws_span){colon + 1, len - name->len - 1};
    lines->data += len + 2;
    lines->len -= len + 2;
    return true;
}

bool rws__handshake_lines_are_valid(const uint8_t *lines, size_t len)
{
    rws_span left = {(const char *)lines, len};
    rws_span name, value;
    while (take_line(&left, &name, &value)) {
        if (!rws__http_name_is_valid(name) || is_reserved(name)) return false;
        if (!rws__http_value_is_valid(value)) return false;
    }
    return left.len == 0;
}

static bool lines_have(const uint8_t *lines, size_t len, const char *wanted)
{
    rws_span left = {(const char *)lines, len};
    rws_span name, value;
    while (take_line(&left, &name, &value)) {
        if (rws__http_equal_nocase(name, wanted)) return true;
    }
    return false;
}

int rws__handshake_write_accept(uint8_t *out, size_t out_size, const char key[RWS__KEY_BYTES],
                                rws_span subprotocol, const uint8_t *extra, size_t extra_len)
{
    if (subprotocol.len > 0 && !rws__http_name_is_valid(subprotocol)) return RWS_E_ARGUMENT;
    if (!rws__handshake_lines_are_valid(extra, extra_len)) return RWS_E_ARGUMENT;

    char accept[RWS__ACCEPT_BYTES];
    rws__handshake_accept(key, accept);
    rws__text text = {.out = out, .size = out_size};
    rws__text_puts(&text, "HTTP/1.1 101 Switching Protocols\r\n"
                          "Upgrade: websocket\r\n"
                          "Connection: Upgrade\r\n");
    rws__text_put_header(&text, "Sec-WebSocket-Accept", (rws_span){accept, sizeof(accept)});
    rws__text_put_header(&text, "Sec-WebSocket-Protocol", subprotocol);
    rws__text_put(&text, extra, extra_len);
    rws__text_puts(&text, "\r\n");
    return rws__text_finish(&text);
}

/* RFC 9110, section 15, and RFC 6585. Another status gets an empty reason, which is allowed. */
static const char *reason_of(int status)
{
    switch (status) {
    case 200: return "OK";
    case 204: return "No Content";
    case 300: return "Multiple Choices";
    case 301: return "Moved Permanently";
    case 302: return "Found";
    case 303: return "See Other";
    case 304: return "Not Modified";
    case 307: return "Temporary Redirect";
    case 308: return "Permanent Redirect";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 402: return "Payment Required";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 406: return "Not Acceptable";
    case 407: return "Proxy Authentication Required";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 410: return "Gone";
    case 411: return "Length Required";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 415: return "Unsupported Media Type";
    case 421: return "Misdirected Request";
    case 422: return "Unprocessable Content";
    case 425: return "Too Early";
    case 426: return "Upgrade Required";
    case 428: return "Precondition Required";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 451: return "Unavailable For Legal Reasons";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 502: return "Bad Gateway";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    case 505: return "HTTP Version Not Supported";
    case 511: return "Network Authentication Required";
    default: return "";
    }
}

int rws__handshake_write_refusal(uint8_t *out, size_t out_size, int status, const uint8_t *extra,
                                 size_t extra_len, rws_span body)
{
    /* These two end with their head, whatever they say about a length (RFC 9112, section 6.3):
     * the body is left out. */
    bool bodiless = status == 204 || status == 304;
    if (status < 200 || status > 599) return RWS_E_ARGUMENT;
    if (!rws__handshake_lines_are_valid(extra, extra_len)) return RWS_E_ARGUMENT;

    rws__text text = {.out = out, .size = out_size};
    char line[64];
    snprintf(line, sizeof(line), "HTTP/1.1 %d %s\r\n", status, reason_of(status));
    rws__text_puts(&text, line);
    if (status == 426) {
        /* Upgrade asks for the connection option: RFC 9110, section 7.8. The version: RFC 6455,
         * section 4.4. */
        rws__text_puts(&text, "Connection: close, Upgrade\r\n"
                              "Upgrade: websocket\r\n"
                              "Sec-WebSocket-Version: 13\r\n");
    } else {
        rws__text_puts(&text, "Connection: close\r\n");
    }
    /* RFC 9110, section 15.5.6. */
    if (status == 405 && !lines_have(extra, extra_len, "allow")) {
        rws__text_puts(&text, "Allow: GET\r\n");
    }
    if (!bodiless) {
        snprintf(line, sizeof(line), "Content-Length: %zu\r\n", body.len);
        rws__text_puts(&text, line);
        if (!lines_have(extra, extra_len, "content-type")) {
            rws__text_puts(&text, "Content-Type: text/plain; charset=utf-8\r\n");
        }
    }
    rws__text_put(&text, extra, extra_len);
    rws__text_puts(&text, "\r\n");
    if (!bodiless) rws__text_put(&text, body.data, body.len);
    return rws__text_finish(&text);
}
