/*
 * A bounded HTTP/1.1 message-head parser (RFC 9112) for upgrades. Strict where leniency has
 * been an attack: a bare LF, a NUL or another control byte, obs-fold, a space before the colon,
 * an empty field name and an invalid method or target are errors.
 *
 * Parsing has two steps, so that a head which arrives byte by byte costs linear time:
 * rws__http_scan() looks only at bytes that it has not seen and finds the end of the head or the
 * first forbidden byte; rws__http_parse_…() then parses the whole head once.
 */
#ifndef RINGWS_CODEC_HTTP_H
#define RINGWS_CODEC_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ringws/types.h"

/* Progress of the scan; zero-initialised memory is the start of a message. */
typedef struct rws__http_scanner {
    uint32_t scanned; /* bytes looked at so far */
    uint8_t state;
} rws__http_scanner;

/*
 * Go on scanning. `data` is the message from its first byte, `len` all bytes so far. Returns
 *   > 0                  the length of the head, its empty line included;
 *   0                    more bytes are needed;
 *   RWS_E_HTTP           a byte that no head may contain, or a bare CR or LF;
 *   RWS_E_HTTP_TOO_BIG   the head is longer than `bytes_max`.
 */
int rws__http_scan(rws__http_scanner *scanner, const uint8_t *data, size_t len, size_t bytes_max);

typedef struct rws__http_header {
    rws_span name;  /* lower-cased in place */
    rws_span value; /* without the white space around it */
} rws__http_header;

typedef struct rws__http_head {
    rws_span method;           /* request */
    rws_span target;           /* request: as sent; an absolute form is cut to path and query */
    int status;                /* response: 100–999 */
    rws_span reason;           /* response */
    uint8_t version_minor;     /* HTTP/1.x */
    rws__http_header *headers; /* the caller's memory */
    uint32_t headers_capacity; /* set by the caller */
    uint32_t headers_count;    /* stored: the first headers_capacity */
    uint32_t headers_seen;     /* all of them */
    /* What the upgrade needs, found among all headers, stored or not. */
    struct rws__http_known {
        rws_span host, upgrade, connection, origin;
        rws_span ws_key, ws_version, ws_accept;
        uint16_t host_count, upgrade_count, connection_count, origin_count;
        uint16_t ws_key_count, ws_version_count, ws_accept_count;
        uint16_t ws_protocol_count, ws_extensions_count;
        uint16_t content_length_count, transfer_encoding_count;
        bool content_length_is_zero;
        bool upgrade_has_websocket;  /* a token of any Upgrade header, case-insensitive */
        bool connection_has_upgrade; /* a token of any Connection header */
        rws_span ws_protocol[4];     /* the first four header fields with lists of subprotocols */
        rws_span ws_extensions[4];
    } known;
} rws__http_head;

/*
 * Parse the request head of `len` bytes that rws__http_scan() delimited. `data` is changed (names
 * are lower-cased); all spans point into it. `head->headers` and `headers_capacity` are set by the
 * caller. Returns 0 or RWS_E_HTTP.
 */
int rws__http_parse_request(rws__http_head *head, uint8_t *data, size_t len);

/* The same for a response head. */
int rws__http_parse_response(rws__http_head *head, uint8_t *data, size_t len);

/* The target up to its first '?'. */
rws_span rws__http_path(const rws__http_head *head);

/* The value of the first stored header `name` (lower-case, NUL-terminated); data NULL if there is
 * none. */
rws_span rws__http_get(const rws__http_head *head, const char *name);

/* Take the next element of a comma-separated list, without white space around it; false at the end.
 * Empty elements are passed over, and a comma in a quoted-string does not part elements. */
bool rws__http_list_next(rws_span *list, rws_span *element);

/* Whether `text` can be a header's name (a token), or its value (no CR, LF, NUL or other control
 * byte but tab). */
bool rws__http_name_is_valid(rws_span text);
bool rws__http_value_is_valid(rws_span text);

/* Compare ASCII without regard to case. */
bool rws__http_equal_nocase(rws_span a, const char *b);
bool rws__http_same_nocase(rws_span a, rws_span b);

#endif
