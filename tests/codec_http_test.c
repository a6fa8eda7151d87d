/*
 * The parser of HTTP heads. Every text is scanned whole, one byte at a time and in every split in
 * two, out of memory that ends where the text ends, so that a sanitizer sees a byte read too many.
 */
#include "codec/http.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define TEXT(literal)   literal, sizeof(literal) - 1

static uint8_t *copy_of(const void *data, size_t len)
{
    uint8_t *copy = malloc(len > 0 ? len : 1);
    cr_assert_not_null(copy);
    if (len > 0) memcpy(copy, data, len);
    return copy;
}

/* Scan the first `len` bytes out of memory that has no more. */
static int scan_exact(rws__http_scanner *scanner, const char *text, size_t len, size_t bytes_max)
{
    uint8_t *copy = copy_of(text, len);
    int result = rws__http_scan(scanner, copy, len, bytes_max);
    free(copy);
    return result;
}

/* The result of a scan in all ways, which must be one; `*scanned` receives the bytes looked at,
 * which must be those that show the result, and no more. */
static int scan_all_ways(const char *name, const char *text, size_t len, size_t bytes_max,
                         size_t *scanned)
{
    rws__http_scanner whole = {0};
    int result = scan_exact(&whole, text, len, bytes_max);
    cr_assert_eq(scan_exact(&whole, text, len, bytes_max), result, "%s: asked again", name);

    rws__http_scanner bytewise = {0};
    int last = 0;
    size_t at = 0;
    while (last == 0 && at < len) {
        last = scan_exact(&bytewise, text, ++at, bytes_max);
    }
    cr_assert_eq(last, result, "%s: %d by bytes, %d whole", name, last, result);
    cr_assert_eq(at, whole.scanned, "%s: known after %zu bytes, scanned %u", name, at,
                 whole.scanned);

    for (size_t split = 0; split <= len; split++) {
        rws__http_scanner halves = {0};
        int status = scan_exact(&halves, text, split, bytes_max);
        if (split < at) {
            cr_assert_eq(status, 0, "%s: %d after %zu bytes", name, status, split);
            status = scan_exact(&halves, text, len, bytes_max);
        }
        cr_assert_eq(status, result, "%s: split at %zu", name, split);
        cr_assert_eq(halves.scanned, whole.scanned, "%s: split at %zu", name, split);
    }
    *scanned = whole.scanned;
    return result;
}

static const char small_request[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

Test(http_scan, finds_the_end_of_the_head_and_nothing_behind_it)
{
    static const struct {
        const char *name, *text;
        size_t len, head;
    } rows[] = {
        {"only a request line", TEXT("GET / HTTP/1.1\r\n\r\n"), 18},
        {"one header", TEXT("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), 27},
        {"a status line", TEXT("HTTP/1.1 101 Switching Protocols\r\nA:b\r\n\r\n"), 41},
        {"a frame behind it", TEXT("GET / HTTP/1.1\r\n\r\n\x81\x85\x00\x00\x00\x00hello"), 18},
        {"a second head behind it", TEXT("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n"), 18},
        {"tab in a value", TEXT("GET / HTTP/1.1\r\nA:\tb\tc\t\r\n\r\n"), 27},
        {"bytes above ASCII", TEXT("GET / HTTP/1.1\r\nA: \x80\xff\xc3\xa4\r\n\r\n"), 27},
        {"an empty value", TEXT("GET / HTTP/1.1\r\nA:\r\n\r\n"), 22},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        size_t scanned;
        int result = scan_all_ways(rows[i].name, rows[i].text, rows[i].len, 8192, &scanned);
        cr_assert_eq(result, (int)rows[i].head, "%s: %d", rows[i].name, result);
        cr_assert_eq(scanned, rows[i].head, "%s", rows[i].name);
    }
}

Test(http_scan, asks_for_more_at_every_cut)
{
    for (size_t len = 0; len < sizeof(small_request) - 1; len++) {
        size_t scanned;
        cr_assert_eq(scan_all_ways("cut", small_request, len, 8192, &scanned), 0, "%zu", len);
        cr_assert_eq(scanned, len);
    }
}

Test(http_scan, rejects_at_the_first_byte_that_shows_it)
{
    static const struct {
        const char *name, *text;
        size_t len, scanned;
    } rows[] = {
        {"bare LF ends the request line", TEXT("GET / HTTP/1.1\nHost: a\r\n\r\n"), 15},
        {"bare LF ends a header", TEXT("GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n"), 21},
        {"bare LF ends the head", TEXT("GET / HTTP/1.1\r\nA: b\r\n\n"), 23},
        {"bare CR in a value", TEXT("GET / HTTP/1.1\r\nA: b\rC: d\r\n\r\n"), 22},
        {"bare CR in the request line", TEXT("GET /\r HTTP/1.1\r\n\r\n"), 7},
        {"CR CR LF", TEXT("GET / HTTP/1.1\r\r\n\r\n"), 16},
        {"CR CR at the end", TEXT("GET / HTTP/1.1\r\n\r\r\n"), 18},
        {"NUL in the target", TEXT("GET /\0 HTTP/1.1\r\n\r\n"), 6},
        {"NUL in a name", TEXT("GET / HTTP/1.1\r\nHo\0st: a\r\n\r\n"), 19},
        {"NUL in a value", TEXT("GET / HTTP/1.1\r\nA: b\0\r\n\r\n"), 21},
        {"DEL in a value", TEXT("GET / HTTP/1.1\r\nA: \x7f\r\n\r\n"), 20},
        {"obs-fold with a space", TEXT("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n"), 23},
        {"obs-fold with a tab", TEXT("GET / HTTP/1.1\r\nA: b\r\n\tc\r\n\r\n"), 23},
        {"a space before the first header", TEXT("GET / HTTP/1.1\r\n A: b\r\n\r\n"), 17},
        {"an empty name", TEXT("GET / HTTP/1.1\r\n: b\r\n\r\n"), 17},
        {"a name above ASCII", TEXT("GET / HTTP/1.1\r\n\xc3\xa4: b\r\n\r\n"), 17},
        {"an empty first line", TEXT("\r\nGET / HTTP/1.1\r\n\r\n"), 1},
        {"a space first", TEXT(" GET / HTTP/1.1\r\n\r\n"), 1},
        {"a byte order mark", TEXT("\xef\xbb\xbfGET / HTTP/1.1\r\n\r\n"), 1},
        {"a TLS ClientHello", TEXT("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), 1},
        {"PROXY protocol version 2", TEXT("\r\n\r\n\0\r\nQUIT\n"), 1},
        {"a masked frame", TEXT("\x81\x85\x00\x00\x00\x00hello"), 1},
        {"an SSH banner with a bare LF", TEXT("SSH-2.0-x\nabc"), 10},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        size_t scanned;
        int result = scan_all_ways(rows[i].name, rows[i].text, rows[i].len, 8192, &scanned);
        cr_assert_eq(result, RWS_E_HTTP, "%s: %d", rows[i].name, result);
        cr_assert_eq(scanned, rows[i].scanned, "%s: after %zu", rows[i].name, scanned);
    }
}

Test(http_scan, rejects_each_control_byte_at_each_offset)
{
    /* Long enough that a byte falls into each place of a word and into the bytes after the last
     * whole word. */
    static const char start[] = "GET / HTTP/1.1\r\nA: ";
    char text[64];
    for (unsigned byte = 0; byte < 256; byte++) {
        bool forbidden = (byte < 0x20 && byte != '\t' && byte != '\r') || byte == 0x7F;
        for (size_t at = sizeof(start) - 1; at < 50; at++) {
            memset(text, 'x', sizeof(text));
            memcpy(text, start, sizeof(start) - 1);
            text[at] = (char)byte;
            rws__http_scanner scanner = {0};
            int result = scan_exact(&scanner, text, 50, 8192);
            if (forbidden) {
                cr_assert_eq(result, RWS_E_HTTP, "0x%02x at %zu", byte, at);
                cr_assert_eq(scanner.scanned, at + 1, "0x%02x at %zu", byte, at);
            } else if (byte != '\r' || at == 49) {
                cr_assert_eq(result, 0, "0x%02x at %zu", byte, at);
            } else {
                cr_assert_eq(result, RWS_E_HTTP, "0x%02x at %zu", byte, at);
            }
        }
    }
}

Test(http_scan, accepts_exactly_bytes_max_and_not_one_more)
{
    size_t len = sizeof(small_request) - 1;
    size_t scanned;
    cr_assert_eq(scan_all_ways("limit", small_request, len, len, &scanned), (int)len);
    cr_assert_eq(scan_all_ways("limit + 1", small_request, len, len + 1, &scanned), (int)len);
    cr_assert_eq(scan_all_ways("limit - 1", small_request, len, len - 1, &scanned),
                 RWS_E_HTTP_TOO_BIG);
    cr_assert_eq(scanned, len - 1);
    rws__http_scanner scanner = {0};
    cr_assert_eq(scan_exact(&scanner, "", 0, 0), RWS_E_HTTP_TOO_BIG);
}

Test(http_scan, is_too_big_with_the_last_byte_that_could_have_ended_it)
{
    char text[200];
    memset(text, 'a', sizeof(text));
    size_t scanned;
    cr_assert_eq(scan_all_ways("no end", text, 99, 100, &scanned), 0);
    cr_assert_eq(scan_all_ways("no end", text, 100, 100, &scanned), RWS_E_HTTP_TOO_BIG);
    cr_assert_eq(scan_all_ways("no end", text, 200, 100, &scanned), RWS_E_HTTP_TOO_BIG);
    cr_assert_eq(scanned, 100, "a byte over the limit was looked at");
    text[100] = '\n'; /* behind the limit: does not matter any more */
    cr_assert_eq(scan_all_ways("no end", text, 200, 100, &scanned), RWS_E_HTTP_TOO_BIG);
    text[99] = '\n'; /* the last byte in front of it does */
    cr_assert_eq(scan_all_ways("no end", text, 200, 100, &scanned), RWS_E_HTTP);
}

/* What was scanned is made a forbidden byte before the next call: had it been looked at again, the
 * scan would fail. So a head of n bytes costs n steps, however it arrives. */
Test(http_scan, never_looks_at_a_byte_twice)
{
    size_t len = 100000;
    uint8_t *text = malloc(len);
    cr_assert_not_null(text);
    memset(text, 'x', len);
    memcpy(text, "GET / HTTP/1.1\r\n", 16);
    for (size_t at = 16; at + 40 < len; at += 40) {
        memcpy(text + at, "Name: ", 6);
        memcpy(text + at + 38, "\r\n", 2);
    }
    memcpy(text + len - 4, "\r\n\r\n", 4);

    rws__http_scanner scanner = {0};
    for (size_t got = 1; got < len; got++) {
        cr_assert_eq(rws__http_scan(&scanner, text, got, len), 0, "%zu", got);
        cr_assert_eq(scanner.scanned, got);
        memset(text + (got < 8 ? 0 : got - 8), '\0', got < 8 ? got : 8);
    }
    cr_assert_eq(rws__http_scan(&scanner, text, len, len), (int)len);
    free(text);
}

/* Parse a copy; the spans of `*head` point into `*memory`, which the caller frees. */
static int parse(rws__http_head *head, uint8_t **memory, bool response, const char *text,
                 size_t len)
{
    *memory = copy_of(text, len);
    rws__http_scanner scanner = {0};
    int scanned = rws__http_scan(&scanner, *memory, len, len);
    if (scanned < 0) return scanned;
    cr_assert_eq(scanned, (int)len, "a row must be one head");
    return response ? rws__http_parse_response(head, *memory, len)
                    : rws__http_parse_request(head, *memory, len);
}

static bool span_eq(rws_span span, const char *text)
{
    return span.len == strlen(text) && span.data && memcmp(span.data, text, span.len) == 0;
}

#define ASSERT_SPAN(span, text)                                                                    \
    cr_assert(span_eq(span, text), "is \"%.*s\", not \"%s\"", (int)(span).len,                     \
              (span).data ? (span).data : "(none)", text)

Test(http_parse, splits_a_request)
{
    rws__http_header headers[8];
    rws__http_head head = {.headers = headers, .headers_capacity = 8};
    uint8_t *memory;
    int status = parse(&head, &memory, false,
                       TEXT("GET /chat?room=a%20b&x={y}|z HTTP/1.1\r\n"
                            "HOST: Example.org:80\r\n"
                            "X-Empty:\r\n"
                            "X-Blank:  \t \r\n"
                            "X-Trim: \t  In Side\tTab  \t\r\n"
                            "X-Tight:v\r\n"
                            "!#$%&'*+-.^_`|~09AZaz: token\r\n"
                            "X-Colon: a:b: c\r\n"
                            "\r\n"));
    cr_assert_eq(status, 0);
    ASSERT_SPAN(head.method, "GET");
    ASSERT_SPAN(head.target, "/chat?room=a%20b&x={y}|z");
    cr_assert_eq(head.version_minor, 1);
    cr_assert_eq(head.headers_count, 7);
    cr_assert_eq(head.headers_seen, 7);
    ASSERT_SPAN(head.headers[0].name, "host");
    ASSERT_SPAN(head.headers[0].value, "Example.org:80");
    ASSERT_SPAN(head.headers[1].value, "");
    ASSERT_SPAN(head.headers[2].value, "");
    ASSERT_SPAN(head.headers[3].value, "In Side\tTab");
    ASSERT_SPAN(head.headers[4].value, "v");
    ASSERT_SPAN(head.headers[5].name, "!#$%&'*+-.^_`|~09azaz");
    ASSERT_SPAN(rws__http_get(&head, "x-colon"), "a:b: c");
    cr_assert_null(rws__http_get(&head, "x-none").data);
    cr_assert_null(rws__http_get(&head, "X-Colon").data, "names are asked for in lower case");
    free(memory);
}

Test(http_parse, refuses_malformed_requests)
{
    static const struct {
        const char *name, *text;
        size_t len;
    } rows[] = {
        {"two spaces before the target", TEXT("GET  / HTTP/1.1\r\n\r\n")},
        {"two spaces after the target", TEXT("GET /  HTTP/1.1\r\n\r\n")},
        {"a space at the end", TEXT("GET / HTTP/1.1 \r\n\r\n")},
        {"a tab for a space", TEXT("GET\t/ HTTP/1.1\r\n\r\n")},
        {"a tab in the target", TEXT("GET /a\tb HTTP/1.1\r\n\r\n")},
        {"a space in the target", TEXT("GET /a b HTTP/1.1\r\n\r\n")},
        {"a fragment", TEXT("GET /a#b HTTP/1.1\r\n\r\n")},
        {"a target above ASCII", TEXT("GET /\xc3\xa4 HTTP/1.1\r\n\r\n")},
        {"no target", TEXT("GET HTTP/1.1\r\n\r\n")},
        {"an empty target", TEXT("GET  HTTP/1.1\r\n\r\n")},
        {"no version: HTTP/0.9", TEXT("GET /\r\n\r\n")},
        {"only a method", TEXT("GET\r\n\r\n")},
        {"a method that is no token", TEXT("G(T / HTTP/1.1\r\n\r\n")},
        {"a version in lower case", TEXT("GET / http/1.1\r\n\r\n")},
        {"HTTP/2.0", TEXT("GET / HTTP/2.0\r\n\r\n")},
        {"the preface of HTTP/2", TEXT("PRI * HTTP/2.0\r\n\r\n")},
        {"HTTP/1.", TEXT("GET / HTTP/1.\r\n\r\n")},
        {"HTTP/1.10", TEXT("GET / HTTP/1.10\r\n\r\n")},
        {"HTTP/1.x", TEXT("GET / HTTP/1.x\r\n\r\n")},
        {"HTTP/1./", TEXT("GET / HTTP/1./\r\n\r\n")},
        {"HTTP/11", TEXT("GET / HTTP/11\r\n\r\n")},
        {"RTSP", TEXT("GET / RTSP/1.0\r\n\r\n")},
        {"a status line", TEXT("HTTP/1.1 101 Switching Protocols\r\n\r\n")},
        {"a space before the colon", TEXT("GET / HTTP/1.1\r\nHost : a\r\n\r\n")},
        {"a tab before the colon", TEXT("GET / HTTP/1.1\r\nHost\t: a\r\n\r\n")},
        {"a space in a name", TEXT("GET / HTTP/1.1\r\nHo st: a\r\n\r\n")},
        {"no colon", TEXT("GET / HTTP/1.1\r\nHost\r\n\r\n")},
        {"no colon in the last of two", TEXT("GET / HTTP/1.1\r\nHost: a\r\nb\r\n\r\n")},
        {"a name with a slash", TEXT("GET / HTTP/1.1\r\na/b: c\r\n\r\n")},
        {"a quoted name", TEXT("GET / HTTP/1.1\r\na\"b\": c\r\n\r\n")},
        {"a name above ASCII", TEXT("GET / HTTP/1.1\r\na\xc3\xa4: c\r\n\r\n")},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        rws__http_header headers[4];
        rws__http_head head = {.headers = headers, .headers_capacity = 4};
        uint8_t *memory;
        int status = parse(&head, &memory, false, rows[i].text, rows[i].len);
        cr_assert_eq(status, RWS_E_HTTP, "%s: %d", rows[i].name, status);
        free(memory);
    }
}

/* The scan delimits what is parsed; should it not have, the parser still stays inside. */
Test(http_parse, stays_inside_of_what_was_never_scanned)
{
    static const char text[] = "GET / HTTP/1.1\r\nHost: a\r\nB: c\r\n\r\n";
    for (size_t len = 0; len < sizeof(text) - 1; len++) {
        rws__http_head head = {0};
        uint8_t *copy = copy_of(text, len);
        cr_assert_eq(rws__http_parse_request(&head, copy, len), RWS_E_HTTP, "%zu", len);
        cr_assert_eq(rws__http_parse_response(&head, copy, len), RWS_E_HTTP, "%zu", len);
        free(copy);
    }
    static const char *const rows[] = {
        "GET / HTTP/1.1\r\n\r\nmore", "GET / HTTP/1.1\r\n: b\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", "GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", "\r\n\r\n"};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        rws__http_head head = {0};
        uint8_t *copy = copy_of(rows[i], strlen(rows[i]));
        cr_assert_eq(rws__http_parse_request(&head, copy, strlen(rows[i])), RWS_E_HTTP, "%zu", i);
        free(copy);
    }
}

Test(http_parse, refuses_a_request_with_any_target_byte_that_is_not_visible_ascii)
{
    for (unsigned byte = 1; byte < 256; byte++) {
        if (byte == '\r' || byte == '\n') continue;
        char text[] = "GET /ab HTTP/1.1\r\n\r\n";
        text[6] = (char)byte;
        rws__http_head head = {0};
        uint8_t *memory;
        int status = parse(&head, &memory, false, text, sizeof(text) - 1);
        bool allowed = byte > 0x20 && byte < 0x7F && byte != '#';
        cr_assert_eq(status, allowed ? 0 : RWS_E_HTTP, "0x%02x: %d", byte, status);
        free(memory);
    }
}

Test(http_parse, cuts_an_absolute_target_down_to_its_path)
{
    static const struct {
        const char *text;
        size_t len;
        const char *target; /* NULL: refused */
    } rows[] = {
        {TEXT("GET http://a.b:8/c?d HTTP/1.1\r\nHost: a.b:8\r\n\r\n"), "/c?d"},
        {TEXT("GET HTTPS://A.b/ HTTP/1.1\r\nHost: a.B\r\n\r\n"), "/"},
        {TEXT("GET ws://a.b/x HTTP/1.1\r\nhost:a.b\r\n\r\n"), "/x"},
        {TEXT("GET wss://a.b//x HTTP/1.1\r\nhost:a.b\r\n\r\n"), "//x"},
        {TEXT("GET http://evil/x HTTP/1.1\r\nHost: a.b\r\n\r\n"), NULL},
        {TEXT("GET http://a.b@evil/x HTTP/1.1\r\nHost: a.b\r\n\r\n"), NULL},
        {TEXT("GET http://a.b/x HTTP/1.1\r\n\r\n"), NULL},
        {TEXT("GET http://a.b HTTP/1.1\r\nHost: a.b\r\n\r\n"), NULL},
        {TEXT("GET http://a.b?x HTTP/1.1\r\nHost: a.b\r\n\r\n"), NULL},
        {TEXT("GET ftp://a.b/x HTTP/1.1\r\nHost: a.b\r\n\r\n"), "ftp://a.b/x"},
        {TEXT("OPTIONS * HTTP/1.1\r\nHost: a.b\r\n\r\n"), "*"},
        {TEXT("CONNECT a.b:80 HTTP/1.1\r\nHost: a.b:80\r\n\r\n"), "a.b:80"},
        {TEXT("GET http:/ HTTP/1.1\r\nHost: a.b\r\n\r\n"), "http:/"},
        {TEXT("GET http:///x HTTP/1.1\r\nHost:\r\n\r\n"),
         "/x"}, /* the empty Host is refused later */
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        rws__http_head head = {0};
        uint8_t *memory;
        int status = parse(&head, &memory, false, rows[i].text, rows[i].len);
        cr_assert_eq(status, rows[i].target ? 0 : RWS_E_HTTP, "%s", rows[i].text);
        if (rows[i].target) ASSERT_SPAN(head.target, rows[i].target);
        free(memory);
    }
}

Test(http_parse, splits_a_response)
{
    static const struct {
        const char *text;
        size_t len;
        int status, minor;
        const char *reason;
    } rows[] = {
        {TEXT("HTTP/1.1 101 Switching Protocols\r\na: b\r\n\r\n"), 101, 1, "Switching Protocols"},
        {TEXT("HTTP/1.0 999 \r\na: b\r\n\r\n"), 999, 0, ""},
        {TEXT("HTTP/1.1 100\r\na: b\r\n\r\n"), 100, 1, ""},
        {TEXT("HTTP/1.1 404 N\tot f\xc3\xbcnd \r\na: b\r\n\r\n"), 404, 1, "N\tot f\xc3\xbcnd "},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        rws__http_header headers[4];
        rws__http_head head = {.headers = headers, .headers_capacity = 4};
        uint8_t *memory;
        cr_assert_eq(parse(&head, &memory, true, rows[i].text, rows[i].len), 0, "row %zu", i);
        cr_assert_eq(head.status, rows[i].status);
        cr_assert_eq(head.version_minor, rows[i].minor);
        ASSERT_SPAN(head.reason, rows[i].reason);
        ASSERT_SPAN(rws__http_get(&head, "a"), "b");
        free(memory);
    }
}

Test(http_parse, refuses_malformed_responses)
{
    static const struct {
        const char *text;
        size_t len;
    } rows[] = {
        {TEXT("HTTP/1.1  101 x\r\n\r\n")},     {TEXT("HTTP/1.1\t101 x\r\n\r\n")},
        {TEXT("HTTP/1.1 99 x\r\n\r\n")},       {TEXT("HTTP/1.1 099 x\r\n\r\n")},
        {TEXT("HTTP/1.1 1011 x\r\n\r\n")},     {TEXT("HTTP/1.1 1x1 x\r\n\r\n")},
        {TEXT("HTTP/1.1 +10 x\r\n\r\n")},      {TEXT("HTTP/1.1 101\tx\r\n\r\n")},
        {TEXT("HTTP/1.1 \r\n\r\n")},           {TEXT("HTTP/1.1\r\n\r\n")},
        {TEXT("HTTP/2 101 x\r\n\r\n")},        {TEXT("HTTP/2.0 101 x\r\n\r\n")},
        {TEXT("http/1.1 101 x\r\n\r\n")},      {TEXT("ICY 200 OK\r\n\r\n")},
        {TEXT("GET / HTTP/1.1\r\n\r\n")},      {TEXT("HTTP/1.1 101 x\r\na : b\r\n\r\n")},
        {TEXT("HTTP/1.1 101 x\r\na\r\n\r\n")},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        rws__http_head head = {0};
        uint8_t *memory;
        cr_assert_eq(parse(&head, &memory, true, rows[i].text, rows[i].len), RWS_E_HTTP, "%s",
                     rows[i].text);
        free(memory);
    }
}

Test(http_parse, evaluates_what_it_has_no_room_to_store)
{
    static const char text[] = "GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\nHost: h\r\nOrigin: o\r\n"
                               "Upgrade: x, WebSocket\r\nConnection: keep-alive\r\n"
                               "Connection: , UPGRADE ,\r\nSec-WebSocket-Key: k\r\n"
                               "Sec-WebSocket-Version: 13\r\nContent-Length: 0\r\n"
                               "Transfer-Encoding: chunked\r\nSec-WebSocket-Accept: c\r\n"
                               "Sec-WebSocket-Protocol: p1\r\nSec-WebSocket-Extensions: e1\r\n"
                               "\r\n";
    for (uint32_t capacity = 0; capacity <= 20; capacity++) {
        rws__http_header *headers = malloc((capacity + 1) * sizeof(*headers));
        rws__http_head head = {.headers = headers, .headers_capacity = capacity};
        uint8_t *memory;
        cr_assert_eq(parse(&head, &memory, false, TEXT(text)), 0);
        cr_assert_eq(head.headers_count, capacity < 14 ? capacity : 14);
        cr_assert_eq(head.headers_seen, 14);
        const struct rws__http_known *known = &head.known;
        ASSERT_SPAN(known->host, "h");
        ASSERT_SPAN(known->origin, "o");
        ASSERT_SPAN(known->upgrade, "x, WebSocket");
        ASSERT_SPAN(known->connection, "keep-alive");
        ASSERT_SPAN(known->ws_key, "k");
        ASSERT_SPAN(known->ws_version, "13");
        ASSERT_SPAN(known->ws_accept, "c");
        ASSERT_SPAN(known->ws_protocol[0], "p1");
        ASSERT_SPAN(known->ws_extensions[0], "e1");
        cr_assert(known->upgrade_has_websocket && known->connection_has_upgrade);
        cr_assert(known->content_length_is_zero);
        cr_assert_eq(known->host_count, 1);
        cr_assert_eq(known->connection_count, 2);
        cr_assert_eq(known->content_length_count, 1);
        cr_assert_eq(known->transfer_encoding_count, 1);
        free(memory);
        free(headers);
    }
}

Test(http_parse, takes_only_whole_tokens_for_websocket_and_upgrade)
{
    static const struct {
        const char *value;
        bool found;
    } rows[] = {
        {"upgrade", true},
        {"keep-alive, Upgrade", true},
        {"Upgrade,close", true},
        {",,UPGRADE", true},
        {"upgraded", false},
        {"no-upgrade", false},
        {"up grade", false},
        {"", false},
        {",", false},
        {"upgrade/1", false},
        {"upgrade;q=1", false},
        {"\"upgrade\"", false},
        {"\"a, upgrade", false},
        {"\"a, upgrade, b\"", false},
        {"a\\, upgrade", true},
        {"keep-alive;upgrade", false},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        char text[128];
        int len =
            snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nConnection: %s\r\n\r\n", rows[i].value);
        rws__http_head head = {0};
        uint8_t *memory;
        cr_assert_eq(parse(&head, &memory, false, text, (size_t)len), 0);
        cr_assert_eq(head.known.connection_has_upgrade, rows[i].found, "%s", rows[i].value);
        free(memory);
    }
}

Test(http_parse, knows_a_content_length_of_zero_only_by_its_one_spelling)
{
    static const struct {
        const char *lines;
        bool zero;
        int count;
    } rows[] = {
        {"Content-Length: 0\r\n", true, 1},
        {"Content-Length: 00\r\n", false, 1},
        {"Content-Length: +0\r\n", false, 1},
        {"Content-Length: 0, 0\r\n", false, 1},
        {"Content-Length: 0x0\r\n", false, 1},
        {"Content-Length:\r\n", false, 1},
        {"Content-Length: 1\r\n", false, 1},
        {"Content-Length: 0\r\nContent-Length: 0\r\n", true, 2},
        {"Content-Length: 0\r\nContent-Length: 5\r\n", false, 2},
        {"Content-Length: 5\r\nContent-Length: 0\r\n", false, 2},
        {"", false, 0},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        char text[128];
        int len = snprintf(text, sizeof(text), "GET / HTTP/1.1\r\n%s\r\n", rows[i].lines);
        rws__http_head head = {0};
        uint8_t *memory;
        cr_assert_eq(parse(&head, &memory, false, text, (size_t)len), 0);
        cr_assert_eq(head.known.content_length_is_zero, rows[i].zero, "%s", rows[i].lines);
        cr_assert_eq(head.known.content_length_count, rows[i].count, "%s", rows[i].lines);
        free(memory);
    }
}

Test(http_parse, keeps_the_first_four_lists_and_counts_the_others)
{
    rws__http_head head = {0};
    uint8_t *memory;
    cr_assert_eq(parse(&head, &memory, false,
                       TEXT("GET / HTTP/1.1\r\n"
                            "Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: b\r\n"
                            "Sec-WebSocket-Protocol: c\r\nSec-WebSocket-Protocol: d\r\n"
                            "Sec-WebSocket-Protocol: e\r\nSec-WebSocket-Protocol: f\r\n\r\n")),
                 0);
    cr_assert_eq(head.known.ws_protocol_count, 6);
    ASSERT_SPAN(head.known.ws_protocol[0], "a");
    ASSERT_SPAN(head.known.ws_protocol[3], "d");
    free(memory);
}

/* A count that came round to 1 would let this pass for a request with one Host. */
Test(http_parse, counts_do_not_wrap)
{
    enum { HOSTS = 65537, LINE = 9 };
    size_t len = 16 + HOSTS * LINE + 2;
    char *text = malloc(len);
    cr_assert_not_null(text);
    memcpy(text, "GET / HTTP/1.1\r\n", 16);
    for (size_t i = 0; i < HOSTS; i++) {
        memcpy(text + 16 + i * LINE, "Host: a\r\n", LINE);
    }
    memcpy(text + len - 2, "\r\n", 2);
    rws__http_header headers[2];
    rws__http_head head = {.headers = headers, .headers_capacity = 2};
    uint8_t *memory;
    cr_assert_eq(parse(&head, &memory, false, text, len), 0);
    cr_assert_eq(head.known.host_count, UINT16_MAX);
    cr_assert_eq(head.headers_seen, HOSTS);
    cr_assert_eq(head.headers_count, 2);
    free(memory);
    free(text);
}

/* Nothing of an earlier use of `head` may be left: heads are reused with their slots. */
Test(http_parse, forgets_the_head_before)
{
    rws__http_header headers[4];
    rws__http_head head = {.headers = headers, .headers_capacity = 4};
    uint8_t *first, *second;
    cr_assert_eq(parse(&head, &first, false,
                       TEXT("GET /a HTTP/1.1\r\nHost: a\r\nUpgrade: websocket"
                            "\r\nSec-WebSocket-Key: k\r\n\r\n")),
                 0);
    cr_assert_eq(parse(&head, &second, false, TEXT("PUT /b HTTP/1.0\r\n\r\n")), 0);
    cr_assert_eq(head.headers_count, 0);
    cr_assert_eq(head.headers_seen, 0);
    cr_assert_eq(head.known.host_count, 0);
    cr_assert_null(head.known.ws_key.data);
    cr_assert_not(head.known.upgrade_has_websocket);
    cr_assert_eq(head.headers_capacity, 4);
    free(first);
    free(second);
}

Test(http_list, takes_elements_without_white_space)
{
    static const struct {
        const char *list;
        const char *elements[5];
    } rows[] = {
        {"a", {"a"}},
        {"a,b", {"a", "b"}},
        {" a ,\tb\t, c d ", {"a", "b", "c d"}},
        {",,a,, ,b,", {"a", "b"}},
        {"", {NULL}},
        {" , \t,", {NULL}},
        {"x; y=\"1, 2\", z", {"x; y=\"1, 2\"", "z"}},
        {"\"a\\\", b\", c", {"\"a\\\", b\"", "c"}},
        {"\"open, a, b", {"\"open, a, b"}},
        {"\"end\\", {"\"end\\"}},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        size_t len = strlen(rows[i].list);
        char *copy = (char *)copy_of(rows[i].list, len);
        rws_span list = {copy, len}, element;
        size_t count = 0;
        while (rws__http_list_next(&list, &element)) {
            cr_assert(count < 5 && rows[i].elements[count], "%s: one too many", rows[i].list);
            ASSERT_SPAN(element, rows[i].elements[count]);
            count++;
        }
        cr_assert(count == 5 || !rows[i].elements[count], "%s: one missing", rows[i].list);
        cr_assert_eq(list.len, 0);
        free(copy);
    }
    rws_span none = {NULL, 0}, element;
    cr_assert_not(rws__http_list_next(&none, &element));
}

/* Each call takes what it looked at off the list, so the calls together look at each byte once. */
Test(http_list, shrinks_by_what_it_looked_at)
{
    enum { LEN = 300000 };
    char *text = malloc(LEN);
    cr_assert_not_null(text);
    for (size_t i = 0; i < LEN; i += 3) {
        memcpy(text + i, i / 3 % 2 ? ", ," : "ab,", 3);
    }
    rws_span list = {text, LEN}, element;
    size_t count = 0;
    while (rws__http_list_next(&list, &element)) {
        count++;
        const char *end = element.data + element.len;
        cr_assert_leq((size_t)(list.data - end), 1, "looked further than the comma");
    }
    cr_assert_eq(count, LEN / 6);
    free(text);
}

Test(http_text, tells_names_and_values_that_may_be_sent)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[24];
        memset(text, 'a', sizeof(text));
        bool token = byte && byte < 0x80 &&
                     strchr("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqr"
                            "stuvwxyz",
                            (int)byte);
        bool value = byte == '\t' || (byte >= 0x20 && byte != 0x7F);
        for (size_t at = 0; at < sizeof(text); at++) {
            text[at] = (char)byte;
            rws_span span = {text, sizeof(text)};
            cr_assert_eq(rws__http_name_is_valid(span), token, "0x%02x at %zu", byte, at);
            cr_assert_eq(rws__http_value_is_valid(span), value, "0x%02x at %zu", byte, at);
            text[at] = 'a';
        }
    }
    cr_assert_not(rws__http_name_is_valid((rws_span){NULL, 0}));
    cr_assert(rws__http_value_is_valid((rws_span){NULL, 0}));
}

Test(http_text, compares_ascii_without_regard_to_case)
{
    cr_assert(rws__http_equal_nocase((rws_span){"WebSocket", 9}, "wEBsOCKET"));
    cr_assert_not(rws__http_equal_nocase((rws_span){"websocket", 9}, "websocke"));
    cr_assert_not(rws__http_equal_nocase((rws_span){"websocke", 8}, "websocket"));
    cr_assert_not(rws__http_equal_nocase((rws_span){"[", 1}, "{"), "differ in the case bit only");
    cr_assert_not(rws__http_equal_nocase((rws_span){"\xc4", 1}, "\xe4"), "not ASCII");
    cr_assert(rws__http_equal_nocase((rws_span){NULL, 0}, ""));
}
