/*
 * The parser of HTTP/1.1 message heads, RFC 9112.
 *
 * rws__http_scan() is the gate: it sees every byte once, in the order of arrival, and lets no
 * control byte but tab pass, CR and LF only as a pair, and a line only if it starts with a byte
 * that a method, "HTTP/" or a field name can start with. So a TLS ClientHello, an empty first
 * line, obs-fold (RFC 9112, section 5.2) and an empty field name end at their first byte.
 * rws__http_parse_…() relies on that for the bytes of values, and on nothing for its own safety:
 * whatever it is given, it stays within `len` bytes.
 */
#include "codec/http.h"

#include <endian.h>
#include <limits.h>
#include <string.h>

/* RFC 9110, section 5.6.2: 0 is no token byte; otherwise `byte | (entry & 0x20)` is its lower
 * case. */
#define TOKEN 0x01
#define UPPER 0x21
static const uint8_t token_bytes[256] = {
    ['!'] = TOKEN,         ['#'] = TOKEN,         ['$'] = TOKEN, ['%'] = TOKEN,
    ['&'] = TOKEN,         ['\''] = TOKEN,        ['*'] = TOKEN, ['+'] = TOKEN,
    ['-'] = TOKEN,         ['.'] = TOKEN,         ['^'] = TOKEN, ['_'] = TOKEN,
    ['`'] = TOKEN,         ['|'] = TOKEN,         ['~'] = TOKEN, ['0' ... '9'] = TOKEN,
    ['A' ... 'Z'] = UPPER, ['a' ... 'z'] = TOKEN,
};

typedef enum scan_state {
    SCAN_MESSAGE_START = 0,
    SCAN_LINE_START, /* of a field line, or the CR of the empty line */
    SCAN_LINE,
    SCAN_CR,
    SCAN_LAST_CR,
    SCAN_DONE,
    SCAN_FAILED,
} scan_state;

#define EACH_BYTE(byte) (0x0101010101010101u * (uint64_t)(byte))

/* The index of the first control byte in data[at … end), or `end`. Eight bytes at a time: a head
 * is a few long runs of text, and this is the only pass that looks at all of them. */
static size_t find_control(const uint8_t *data, size_t at, size_t end)
{
    for (; end - at >= 8; at += 8) {
        uint64_t word;
        memcpy(&word, data + at, 8);
        word = le64toh(word); /* the first byte in memory is the lowest */
        uint64_t below_space = (word - EACH_BYTE(0x20)) & ~word;
        uint64_t del = word ^ EACH_BYTE(0x7F);
        del = (del - EACH_BYTE(1)) & ~del;
        uint64_t found = (below_space | del) & EACH_BYTE(0x80);
        /* A borrow can flag a byte wrongly, but only above one that is flagged rightly. */
        if (found != 0) return at + (size_t)__builtin_ctzll(found) / 8;
    }
    while (at < end && data[at] >= 0x20 && data[at] != 0x7F) {
        at++;
    }
    return at;
}

static scan_state scan_byte(scan_state state, uint8_t byte)
{
    switch (state) {
    case SCAN_MESSAGE_START: return token_bytes[byte] ? SCAN_LINE : SCAN_FAILED;
    case SCAN_LINE_START:
        if (byte == '\r') return SCAN_LAST_CR;
        return token_bytes[byte] ? SCAN_LINE : SCAN_FAILED;
    case SCAN_CR: return byte == '\n' ? SCAN_LINE_START : SCAN_FAILED;
    case SCAN_LAST_CR: return byte == '\n' ? SCAN_DONE : SCAN_FAILED;
    default: return SCAN_FAILED;
    }
}

int rws__http_scan(rws__http_scanner *scanner, const uint8_t *data, size_t len, size_t bytes_max)
{
    size_t bound = bytes_max < INT_MAX ? bytes_max : INT_MAX;
    size_t end = len < bound ? len : bound;
    size_t at = scanner->scanned;
    scan_state state = (scan_state)scanner->state;

    while (at < end && state < SCAN_DONE) {
        if (state == SCAN_LINE) {
            at = find_control(data, at, end);
            if (at == end) break;
            if (data[at] == '\r') {
                state = SCAN_CR;
            } else if (data[at] != '\t') {
                state = SCAN_FAILED;
            }
        } else {
            state = scan_byte(state, data[at]);
        }
        at++;
    }
    scanner->scanned = (uint32_t)at;
    scanner->state = (uint8_t)state;

    if (state == SCAN_DONE) return (int)at;
    if (state == SCAN_FAILED) return RWS_E_HTTP;
    /* A head that is not complete with its bytes_max'th byte can only be longer. */
    return at >= bound ? RWS_E_HTTP_TOO_BIG : 0;
}

static rws_span span_of(const uint8_t *data, size_t len)
{
    return (rws_span){(const char *)data, len};
}

static bool span_is(rws_span span, const char *text, size_t len)
{
    return span.len == len && memcmp(span.data, text, len) == 0;
}
#define SPAN_IS(span, literal) span_is(span, literal, sizeof(literal) - 1)

static uint8_t ascii_lower(uint8_t byte)
{
    return byte >= 'A' && byte <= 'Z' ? (uint8_t)(byte | 0x20) : byte;
}

bool rws__http_same_nocase(rws_span a, rws_span b)
{
    if (a.len != b.len) return false;
    for (size_t i = 0; i < a.len; i++) {
        if (ascii_lower((uint8_t)a.data[i]) != ascii_lower((uint8_t)b.data[i])) return false;
    }
    return true;
}

bool rws__http_equal_nocase(rws_span a, const char *b)
{
    return rws__http_same_nocase(a, (rws_span){b, strlen(b)});
}

static bool is_white(char byte)
{
    return byte == ' ' || byte == '\t';
}

static rws_span trim(rws_span span)
{
    while (span.len > 0 && is_white(span.data[0])) {
        span.data++;
        span.len--;
    }
    while (span.len > 0 && is_white(span.data[span.len - 1])) {
        span.len--;
    }
    return span;
}

/* The length of the list's first element, up to a comma that is not inside a quoted-string (RFC
 * 9110, section 5.6.4): what a client quotes is never taken for an element of its own. */
static size_t list_element_len(rws_span list)
{
    bool quoted = false;
    for (size_t i = 0; i < list.len; i++) {
        char byte = list.data[i];
        if (byte == '"') {
            quoted = !quoted;
        } else if (quoted && byte == '\\') {
            i++;
        } else if (!quoted && byte == ',') {
            return i;
        }
    }
    return list.len;
}

bool rws__http_list_next(rws_span *list, rws_span *element)
{
    while (list->len > 0) {
        size_t len = list_element_len(*list);
        size_t taken = len < list->len ? len + 1 : len;
        rws_span found = trim((rws_span){list->data, len});
        list->data += taken;
        list->len -= taken;
        /* Empty elements are passed over: RFC 9110, section 5.6.1.2. */
        if (found.len > 0) {
            *element = found;
            return true;
        }
    }
    return false;
}

static bool list_has_nocase(rws_span list, const char *token)
{
    rws_span element;
    while (rws__http_list_next(&list, &element)) {
        if (rws__http_equal_nocase(element, token)) return true;
    }
    return false;
}

bool rws__http_name_is_valid(rws_span text)
{
    for (size_t i = 0; i < text.len; i++) {
        if (!token_bytes[(uint8_t)text.data[i]]) return false;
    }
    return text.len > 0;
}

bool rws__http_value_is_valid(rws_span text)
{
    const uint8_t *data = (const uint8_t *)text.data;
    size_t at = 0;
    while ((at = find_control(data, at, text.len)) < text.len) {
        if (data[at] != '\t') return false;
        at++;
    }
    return true;
}

rws_span rws__http_path(const rws__http_head *head)
{
    rws_span target = head->target;
    const char *mark = memchr(target.data, '?', target.len);
    return (rws_span){target.data, mark != NULL ? (size_t)(mark - target.data) : target.len};
}

rws_span rws__http_get(const rws__http_head *head, const char *name)
{
    size_t len = strlen(name);
    for (uint32_t i = 0; i < head->headers_count; i++) {
        if (span_is(head->headers[i].name, name, len)) return head->headers[i].value;
    }
    return (rws_span){NULL, 0};
}

/* Counts stay at their maximum: one that came round to 1 would let 65,537 Host headers pass as
 * one. */
static void count_up(uint16_t *count)
{
    if (*count < UINT16_MAX) (*count)++;
}

static void note(rws_span *first, uint16_t *count, rws_span value)
{
    if (*count == 0) *first = value;
    count_up(count);
}

static void note_list(rws_span lists[4], uint16_t *count, rws_span value)
{
    if (*count < 4) lists[*count] = value;
    count_up(count);
}

/* Evaluate a header that the upgrade depends on. */
static void note_known(struct rws__http_known *known, rws_span name, rws_span value)
{
    switch (name.len) {
    case 4:
        if (SPAN_IS(name, "host")) note(&known->host, &known->host_count, value);
        break;
    case 6:
        if (SPAN_IS(name, "origin")) note(&known->origin, &known->origin_count, value);
        break;
    case 7:
        if (!SPAN_IS(name, "upgrade")) break;
        note(&known->upgrade, &known->upgrade_count, value);
        known->upgrade_has_websocket |= list_has_nocase(value, "websocket");
        break;
    case 10:
        if (!SPAN_IS(name, "connection")) break;
        note(&known->connection, &known->connection_count, value);
        known->connection_has_upgrade |= list_has_nocase(value, "upgrade");
        break;
    case 14:
        if (!SPAN_IS(name, "content-length")) break;
        known->content_length_is_zero = SPAN_IS(value, "0") && (known->content_length_count == 0 ||
                                                                known->content_length_is_zero);
        count_up(&known->content_length_count);
        break;
    case 17:
        if (SPAN_IS(name, "sec-websocket-key")) {
            note(&known->ws_key, &known->ws_key_count, value);
        } else if (SPAN_IS(name, "transfer-encoding")) {
            count_up(&known->transfer_encoding_count);
        }
        break;
    case 20:
        if (SPAN_IS(name, "sec-websocket-accept")) {
            note(&known->ws_accept, &known->ws_accept_count, value);
        }
        break;
    case 21:
        if (SPAN_IS(name, "sec-websocket-version")) {
            note(&known->ws_version, &known->ws_version_count, value);
        }
        break;
    case 22:
        if (SPAN_IS(name, "sec-websocket-protocol")) {
            note_list(known->ws_protocol, &known->ws_protocol_count, value);
        }
        break;
    case 24:
        if (SPAN_IS(name, "sec-websocket-extensions")) {
            note_list(known->ws_extensions, &known->ws_extensions_count, value);
        }
        break;
    }
}

/* The CR of the CRLF that ends the line at data[at], as an index, or 0 if there is none. */
static size_t line_end(const uint8_t *data, size_t at, size_t len)
{
    const uint8_t *cr = memchr(data + at, '\r', len - at);
    if (!cr) return 0;
    size_t end = (size_t)(cr - data);
    return len - end >= 2 && data[end + 1] == '\n' ? end : 0;
}

/* Parse the field lines from data[at] to the empty line, which must end the head. */
static int parse_headers(rws__http_head *head, uint8_t *data, size_t at, size_t len)
{
    while (len - at > 2) {
        size_t name = at;
        uint8_t kind;
        while (at < len && (kind = token_bytes[data[at]]) != 0) {
            data[at] = (uint8_t)(data[at] | (kind & 0x20));
            at++;
        }
        /* Also a space before the colon: RFC 9112, section 5.1. */
        if (at == name || at == len || data[at] != ':') return RWS_E_HTTP;
        size_t end = line_end(data, at, len);
        if (end == 0) return RWS_E_HTTP;

        rws__http_header header = {
            .name = span_of(data + name, at - name),
            .value = trim(span_of(data + at + 1, end - at - 1)),
        };
        if (head->headers_count < head->headers_capacity) {
            head->headers[head->headers_count++] = header;
        }
        head->headers_seen++;
        note_known(&head->known, header.name, header.value);
        at = end + 2;
    }
    return len - at == 2 && data[at] == '\r' && data[at + 1] == '\n' ? 0 : RWS_E_HTTP;
}

/* "HTTP/1.x", RFC 9112, section 2.3. */
static bool parse_version(rws__http_head *head, const uint8_t *data, size_t len)
{
    if (len != 8 || memcmp(data, "HTTP/1.", 7) != 0) return false;
    if (data[7] < '0' || data[7] > '9') return false;
    head->version_minor = (uint8_t)(data[7] - '0');
    return true;
}

/* Visible ASCII; no fragment, which a request target does not have. */
static bool is_target_byte(uint8_t byte)
{
    return byte > ' ' && byte < 0x7F && byte != '#';
}

/* RFC 9112, section 3: method SP request-target SP HTTP-version, with single spaces. */
static int parse_request_line(rws__http_head *head, const uint8_t *line, size_t len)
{
    size_t at = 0;
    while (at < len && token_bytes[line[at]]) {
        at++;
    }
    if (at == 0 || at == len || line[at] != ' ') return RWS_E_HTTP;
    head->method = span_of(line, at);

    size_t target = ++at;
    while (at < len && is_target_byte(line[at])) {
        at++;
    }
    if (at == target || at == len || line[at] != ' ') return RWS_E_HTTP;
    head->target = span_of(line + target, at - target);
    at++;
    return parse_version(head, line + at, len - at) ? 0 : RWS_E_HTTP;
}

/*
 * A server must take the absolute form too (RFC 9112, section 3.2.2). It is cut down to path and
 * query, so that nobody behind this parser decides about a path in two spellings; an authority
 * that is not the Host's is refused, where the RFC would ignore Host, because two parties that
 * read different ones is how requests are smuggled.
 */
static int cut_absolute_target(rws__http_head *head)
{
    static const char *const schemes[] = {"http://", "https://", "ws://", "wss://"};
    rws_span target = head->target;

    if (target.data[0] == '/') return 0;
    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        size_t skip = strlen(schemes[i]);
        if (target.len < skip) continue;
        if (!rws__http_equal_nocase((rws_span){target.data, skip}, schemes[i])) continue;

        rws_span authority = {target.data + skip, target.len - skip};
        const char *path = memchr(authority.data, '/', authority.len);
        if (!path) return RWS_E_HTTP;
        authority.len = (size_t)(path - authority.data);
        if (!rws__http_same_nocase(authority, head->known.host)) return RWS_E_HTTP;
        head->target = (rws_span){path, target.len - skip - authority.len};
        return 0;
    }
    return 0;
}

/* RFC 9112, section 4. The space before an empty reason is often left out; nothing depends on
 * it. */
static int parse_status_line(rws__http_head *head, const uint8_t *line, size_t len)
{
    if (len < 12 || !parse_version(head, line, 8) || line[8] != ' ') return RWS_E_HTTP;
    int status = 0;
    for (size_t i = 9; i < 12; i++) {
        if (line[i] < '0' || line[i] > '9') return RWS_E_HTTP;
        status = status * 10 + (line[i] - '0');
    }
    if (status < 100 || (len > 12 && line[12] != ' ')) return RWS_E_HTTP;
    head->status = status;
    size_t reason = len > 12 ? 13 : 12;
    head->reason = span_of(line + reason, len - reason);
    return 0;
}

static void clear_head(rws__http_head *head)
{
    rws__http_head empty = {
        .headers = head->headers,
        .headers_capacity = head->headers_capacity,
    };
    *head = empty;
}

int rws__http_parse_request(rws__http_head *head, uint8_t *data, size_t len)
{
    clear_head(head);
    size_t end = line_end(data, 0, len);
    int status = parse_request_line(head, data, end);
    if (status == 0) status = parse_headers(head, data, end + 2, len);
    if (status == 0) status = cut_absolute_target(head);
    return status;
}

int rws__http_parse_response(rws__http_head *head, uint8_t *data, size_t len)
{
    clear_head(head);
    size_t end = line_end(data, 0, len);
    int status = parse_status_line(head, data, end);
    if (status == 0) status = parse_headers(head, data, end + 2, len);
    return status;
}
