/*
 * The opening handshake, RFC 6455 section 4, on top of http.h: what a request must have, the
 * answer to it, and the same from the client's side. Writers write into the caller's memory and
 * report RWS_E_HTTP_TOO_BIG if it does not fit; every string that comes from a caller is checked
 * against header injection (RWS_E_ARGUMENT).
 */
#ifndef RINGWS_CODEC_HANDSHAKE_H
#define RINGWS_CODEC_HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "codec/http.h"
#include "ringws/types.h"

#define RWS__KEY_BYTES    24 /* Base64 of 16 random bytes */
#define RWS__ACCEPT_BYTES 28 /* Base64 of a SHA-1 */

/* What the writers add at most to the strings that they are given. */
#define RWS__WRITE_ACCEPT_BYTES  256u
#define RWS__WRITE_REFUSAL_BYTES 1024u
#define RWS__WRITE_REQUEST_BYTES 512u

/* Sec-WebSocket-Accept for the Sec-WebSocket-Key `key`, section 4.2.2 item 5.4. */
void rws__handshake_accept(const char key[RWS__KEY_BYTES], char out[RWS__ACCEPT_BYTES]);

/* Sec-WebSocket-Key from 16 random bytes. */
void rws__handshake_key(const uint8_t random[16], char out[RWS__KEY_BYTES]);

/*
 * Check a request. Returns 101 if it can be upgraded, or the HTTP status that refuses it, with
 * `*why` a constant sentence: 400 malformed (also a body, Content-Length or Transfer-Encoding on
 * an upgrade, repeated key, version, host or origin), 405 not GET, 426 no upgrade to websocket
 * asked for or a version other than 13, 505 not HTTP/1.1.
 */
int rws__handshake_check_request(const rws__http_head *head, const char **why);

/*
 * Whether `origin` (the header's value; data NULL: there was none) is one of the `count` allowed
 * origins. Both are compared as serialised origins, RFC 6454: scheme and host without regard to
 * case, the default port equal to none, nothing else ignored. "*" in the list allows everything, no
 * Origin header is allowed (not a browser), "null" only if listed.
 */
bool rws__handshake_origin_is_allowed(rws_span origin, const char *const *allowed, size_t count);

/* The subprotocol `name` (a token, case-sensitive, section 4.1) where the client offers it, or data
 * NULL. Borrowed from the head. */
rws_span rws__handshake_find_subprotocol(const rws__http_head *head, rws_span name);

/*
 * Write the 101 answer. `subprotocol` may be empty. `extra` is `extra_len` bytes of complete header
 * lines ("name: value\r\n") that rws__handshake_append_header() made. Returns the length,
 * RWS_E_ARGUMENT or RWS_E_HTTP_TOO_BIG.
 */
int rws__handshake_write_accept(uint8_t *out, size_t out_size, const char key[RWS__KEY_BYTES],
                                rws_span subprotocol, const uint8_t *extra, size_t extra_len);

/*
 * Write a refusal: status line, Connection: close, Content-Length, Content-Type: text/plain (unless
 * `extra` has one), for 426 Sec-WebSocket-Version: 13 and Upgrade: websocket, for 405 Allow: GET,
 * then `body`. Statuses that have no body (204, 304) get neither it nor its headers. Returns the
 * length, RWS_E_ARGUMENT (`status` is not 200 … 599, `extra` is not complete header lines) or
 * RWS_E_HTTP_TOO_BIG.
 */
int rws__handshake_write_refusal(uint8_t *out, size_t out_size, int status, const uint8_t *extra,
                                 size_t extra_len, rws_span body);

/* Append "name: value\r\n" at `*used`. Returns 0, RWS_E_ARGUMENT (not a name or value that may be
 * sent; a header that the handshake itself writes) or RWS_E_HTTP_TOO_BIG. */
int rws__handshake_append_header(uint8_t *out, size_t out_size, size_t *used, rws_span name,
                                 rws_span value);

/* What the client asks for. */
typedef struct rws__handshake_request {
    rws_span host;         /* Host header: "example.org:8080" */
    rws_span target;       /* "/chat?x=1"; must start with '/' and have no space or control byte */
    rws_span subprotocols; /* a comma-separated list or empty */
    rws_span origin;       /* or empty */
    const uint8_t *extra;  /* complete header lines */
    size_t extra_len;
} rws__handshake_request;

/* Write the request. Returns the length, RWS_E_ARGUMENT or RWS_E_HTTP_TOO_BIG. */
int rws__handshake_write_request(uint8_t *out, size_t out_size,
                                 const rws__handshake_request *request,
                                 const char key[RWS__KEY_BYTES]);

/*
 * Check the answer to a request that was sent with `key` and offered `subprotocols`. `*subprotocol`
 * receives the chosen one or an empty span. Returns 0, or RWS_E_UPGRADE with `*why` a constant
 * sentence: another status than 101, a missing or wrong Upgrade, Connection or
 * Sec-WebSocket-Accept, a subprotocol or extension that was not offered.
 */
int rws__handshake_check_response(const rws__http_head *head, const char key[RWS__KEY_BYTES],
                                  rws_span subprotocols, rws_span *subprotocol, const char **why);

#endif
