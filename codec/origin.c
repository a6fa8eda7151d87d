/*
 * The Origin allow-list against cross-site WebSocket hijacking, RFC 6455 section 10.2.
 *
 * Both sides are read as serialised origins (RFC 6454, section 6.2) and compared part by part. What
 * does not read as exactly scheme "://" host [":" port] — a path, userinfo, a trailing slash, two
 * origins in one header, a port with a leading zero — is equal to nothing. There is no matching by
 * prefix, suffix or substring anywhere, so there is nothing for "https://example.org.evil.com" to
 * hook into.
 */
#include "codec/handshake.h"

#include <string.h>

typedef struct origin {
    rws_span scheme;
    rws_span host;
    uint32_t port; /* 0: none, and the scheme has no default */
} origin;

static bool is_alpha(char byte)
{
    return (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z');
}

static bool is_digit(char byte)
{
    return byte >= '0' && byte <= '9';
}

static uint32_t default_port(rws_span scheme)
{
    if (rws__http_equal_nocase(scheme, "http") || rws__http_equal_nocase(scheme, "ws")) return 80;
    if (rws__http_equal_nocase(scheme, "https") || rws__http_equal_nocase(scheme, "wss"))
        return 443;
    return 0;
}

/* The length of the host that starts `text`, brackets included; 0 if there is none. */
static size_t host_len(rws_span text)
{
    size_t at = 0;
    if (text.len > 0 && text.data[0] == '[') {
        const char *end = memchr(text.data, ']', text.len);
        for (at = 1; at < text.len; at++) {
            char byte = text.data[at];
            bool hex =
                is_digit(byte) || (byte >= 'a' && byte <= 'f') || (byte >= 'A' && byte <= 'F');
            if (!hex && byte != ':' && byte != '.') break;
        }
        return end == text.data + at && at > 1 ? at + 1 : 0;
    }
    while (at < text.len) {
        char byte = text.data[at];
        if (!is_alpha(byte) && !is_digit(byte) && (byte == '\0' || !strchr("-._~", byte))) break;
        at++;
    }
    return at;
}

/* ":" and the shortest decimal form of 1 … 65535, and nothing after it. */
static bool parse_port(rws_span text, uint32_t *port)
{
    if (text.len < 2 || text.len > 6 || text.data[0] != ':' || text.data[1] == '0') return false;
    uint32_t value = 0;
    for (size_t i = 1; i < text.len; i++) {
        if (!is_digit(text.data[i])) return false;
        value = value * 10 + (uint32_t)(text.data[i] - '0');
    }
    *port = value;
    return value <= 65535;
}

static bool parse_origin(origin *out, rws_span text)
{
    size_t at = 0;
    while (at < text.len && (is_alpha(text.data[at]) ||
                             (at > 0 && (is_digit(text.data[at]) || text.data[at] == '+' ||
                                         text.data[at] == '-' || text.data[at] == '.')))) {
        at++;
    }
    if (at == 0 || text.len - at < 3 || memcmp(text.data + at, "://", 3) != 0) return false;
    out->scheme = (rws_span){text.data, at};
    out->port = default_port(out->scheme);

    rws_span rest = {text.data + at + 3, text.len - at - 3};
    out->host = (rws_span){rest.data, host_len(rest)};
    rest.data += out->host.len;
    rest.len -= out->host.len;
    /* No host: what browsers send for pages of schemes of their own, "file://". */
    if (out->host.len == 0) return rest.len == 0 && out->port == 0;
    return rest.len == 0 || parse_port(rest, &out->port);
}

bool rws__handshake_origin_is_allowed(rws_span text, const char *const *allowed, size_t count)
{
    if (!text.data) return true;
    origin asked = {0};
    bool is_tuple = parse_origin(&asked, text);
    bool is_null = text.len == 4 && memcmp(text.data, "null", 4) == 0;

    for (size_t i = 0; i < count; i++) {
        if (strcmp(allowed[i], "*") == 0) return true;
        if (is_null && strcmp(allowed[i], "null") == 0) return true;
        origin entry;
        if (!is_tuple || !parse_origin(&entry, (rws_span){allowed[i], strlen(allowed[i])}))
            continue;
        if (asked.port == entry.port && rws__http_same_nocase(asked.scheme, entry.scheme) &&
            rws__http_same_nocase(asked.host, entry.host)) {
            return true;
        }
    }
    return false;
}
