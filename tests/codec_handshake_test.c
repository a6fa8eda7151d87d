/*
 * The opening handshake. A request or answer goes through scan, parse and check whole, byte by
 * byte and in every split in two; each way must have the same outcome.
 */
#include "codec/handshake.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The rows of the tables leave out what is as usual. */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define SPAN(literal)   ((rws_span){"" literal, sizeof(literal) - 1})

#define RFC_KEY    "dGhlIHNhbXBsZSBub25jZQ=="
#define RFC_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

static rws_span span_of(const char *text)
{
    return (rws_span){text, text ? strlen(text) : 0};
}

static bool span_eq(rws_span span, const char *text)
{
    return span.len == strlen(text) && (span.len == 0 || memcmp(span.data, text, span.len) == 0);
}

Test(handshake, accept_of_the_example_in_the_rfc)
{
    char accept[RWS__ACCEPT_BYTES];
    rws__handshake_accept(RFC_KEY, accept);
    cr_assert(span_eq((rws_span){accept, sizeof(accept)}, RFC_ACCEPT));
}

Test(handshake, key_of_the_example_in_the_rfc)
{
    char key[RWS__KEY_BYTES];
    rws__handshake_key((const uint8_t *)"the sample nonce", key);
    cr_assert(span_eq((rws_span){key, sizeof(key)}, RFC_KEY));
}

/* Requests. */

typedef struct outcome {
    int status; /* of the check, or the negative status of scan or parse */
    const char *why;
} outcome;

/* Scan with a first look after `first` bytes and a further one every `step` bytes (the last one at
 * `len`), then parse and check. */
static outcome run_request(const char *text, size_t len, size_t first, size_t step)
{
    uint8_t *data = malloc(len);
    cr_assert_not_null(data);
    rws__http_scanner scanner = {0};
    outcome result = {0, ""};
    for (size_t got = 0; got < len && result.status == 0;) {
        size_t next = got + (got == 0 ? first : step);
        if (next > len) next = len;
        memcpy(data + got, text + got, next - got);
        got = next;
        result.status = rws__http_scan(&scanner, data, got, 8192);
    }
    if (result.status > 0) {
        rws__http_header headers[4];
        rws__http_head head = {.headers = headers, .headers_capacity = COUNT_OF(headers)};
        int status = rws__http_parse_request(&head, data, (size_t)result.status);
        result.status = status < 0 ? status : rws__handshake_check_request(&head, &result.why);
    }
    free(data);
    return result;
}

/* Whole (split == len), in every split in two, and one byte at a time (split == 0). */
static void expect_request(const char *name, const char *text, size_t len, int status)
{
    for (size_t split = 0; split <= len; split++) {
        outcome result =
            split == 0 ? run_request(text, len, 1, 1) : run_request(text, len, split, len);
        cr_assert_eq(result.status, status, "%s: %d (%s), split at %zu", name, result.status,
                     result.why, split);
        cr_assert_eq(result.status > 101, result.why[0] != '\0', "%s: \"%s\"", name, result.why);
    }
}

/* The handshake of a row: `line` in place of one of the usual lines, or more lines. */
typedef struct request_row {
    const char *name;
    int status;
    const char *start; /* NULL: "GET /chat HTTP/1.1" */
    const char *host;  /* each: NULL for the usual line, else lines with CRLF, or "" */
    const char *upgrade;
    const char *connection;
    const char *key;
    const char *version;
    const char *more;
} request_row;

static const char *or_usual(const char *text, const char *usual)
{
    return text ? text : usual;
}

static const request_row request_rows[] = {
    {"the usual request", 101},
    {"names and tokens in any case", 101, .host = "hOST: a\r\n",
     .upgrade = "UPGRADE: WEBSOCKET\r\n", .connection = "connection: UPGRADE\r\n",
     .key = "SEC-WEBSOCKET-KEY: " RFC_KEY "\r\n"},
    {"no white space after the colon", 101, .host = "Host:a\r\n",
     .upgrade = "Upgrade:websocket\r\n"},
    {"much white space around values", 101, .version = "Sec-WebSocket-Version: \t 13 \t \r\n",
     .key = "Sec-WebSocket-Key: \t" RFC_KEY " \r\n"},
    {"Connection in a list", 101, .connection = "Connection: keep-alive, Upgrade\r\n"},
    {"Connection on two lines", 101,
     .connection = "Connection: keep-alive\r\nConnection: Upgrade\r\n"},
    {"Connection on two lines, the other way round", 101,
     .connection = "Connection: Upgrade\r\nConnection: keep-alive\r\n"},
    {"Upgrade on two lines", 101, .upgrade = "Upgrade: websocket\r\nUpgrade: h2c\r\n"},
    {"Upgrade in a list", 101, .upgrade = "Upgrade: h2c, websocket\r\n"},
    {"Content-Length: 0", 101, .more = "Content-Length: 0\r\n"},
    {"one origin", 101, .more = "Origin: https://example.org\r\n"},
    {"an IPv6 host", 101, .host = "Host: [2001:db8::1]:9223\r\n"},
    {"an IPv6 host with IPv4 in it and a zone", 101, .host = "Host: [::ffff:1.2.3.4%1]\r\n"},
    {"a host with a port", 101, .host = "Host: example.org:65535\r\n"},
    {"a host with an underscore", 101, .host = "Host: my_service.local\r\n"},
    {"an absolute target", 101, .start = "GET http://example.org/chat HTTP/1.1"},

    {"HTTP/1.0", 505, .start = "GET /chat HTTP/1.0"},
    {"HTTP/1.2", 505, .start = "GET /chat HTTP/1.2"},
    {"HTTP/2.0", RWS_E_HTTP, .start = "GET /chat HTTP/2.0"},
    {"POST", 405, .start = "POST /chat HTTP/1.1"},
    {"HEAD", 405, .start = "HEAD /chat HTTP/1.1"},
    {"get", 405, .start = "get /chat HTTP/1.1"},
    {"GETT", 405, .start = "GETT /chat HTTP/1.1"},
    {"target *", 400, .start = "GET * HTTP/1.1"},
    {"target without a slash", 400, .start = "GET chat HTTP/1.1"},
    {"an absolute target for another host", RWS_E_HTTP, .start = "GET http://evil/chat HTTP/1.1"},

    {"no Host", 400, .host = ""},
    {"an empty Host", 400, .host = "Host:\r\n"},
    {"two Hosts", 400, .host = "Host: a\r\nHost: b\r\n"},
    {"the same Host twice", 400, .host = "Host: example.org\r\nHost: example.org\r\n"},
    {"two Hosts in one", 400, .host = "Host: a, b\r\n"},
    {"two Hosts in one without a space", 400, .host = "Host: a,b\r\n"},
    {"userinfo in Host", 400, .host = "Host: a@b\r\n"},
    {"a path in Host", 400, .host = "Host: a/b\r\n"},
    {"a backslash in Host", 400, .host = "Host: a\\b\r\n"},
    {"a Host above ASCII", 400, .host = "Host: \xc3\xa4\r\n"},
    {"a Host that is only a port", 400, .host = "Host: :80\r\n"},
    {"a port of letters", 400, .host = "Host: a:b\r\n"},
    {"a port of six digits", 400, .host = "Host: a:123456\r\n"},
    {"two ports", 400, .host = "Host: a:1:2\r\n"},
    {"an open bracket in Host", 400, .host = "Host: [::1\r\n"},
    {"empty brackets in Host", 400, .host = "Host: []\r\n"},
    {"a slash in brackets in Host", 400, .host = "Host: [::1/]\r\n"},
    {"a brace in Host", 400, .host = "Host: a{b\r\n"},
    {"a sign in a port", 400, .host = "Host: a:-1\r\n"},
    {"text behind the brackets in Host", 400, .host = "Host: [::1]a\r\n"},

    {"no Upgrade", 426, .upgrade = ""},
    {"an empty Upgrade", 426, .upgrade = "Upgrade:\r\n"},
    {"Upgrade to h2c", 426, .upgrade = "Upgrade: h2c\r\n"},
    {"Upgrade to websockets", 426, .upgrade = "Upgrade: websockets\r\n"},
    {"Upgrade to websocket/13", 426, .upgrade = "Upgrade: websocket/13\r\n"},
    {"websocket in quotes", 426, .upgrade = "Upgrade: \"websocket\"\r\n"},
    {"no Connection", 426, .connection = ""},
    {"Connection: keep-alive", 426, .connection = "Connection: keep-alive\r\n"},
    {"Connection: no-upgrade", 426, .connection = "Connection: no-upgrade\r\n"},
    {"Connection: Upgraded", 426, .connection = "Connection: Upgraded\r\n"},

    {"no version", 426, .version = ""},
    {"an empty version", 426, .version = "Sec-WebSocket-Version:\r\n"},
    {"version 8", 426, .version = "Sec-WebSocket-Version: 8\r\n"},
    {"version 12", 426, .version = "Sec-WebSocket-Version: 12\r\n"},
    {"version 14", 426, .version = "Sec-WebSocket-Version: 14\r\n"},
    {"version 013", 426, .version = "Sec-WebSocket-Version: 013\r\n"},
    {"version 130", 426, .version = "Sec-WebSocket-Version: 130\r\n"},
    {"version 13, 8", 426, .version = "Sec-WebSocket-Version: 13, 8\r\n"},
    {"version 13 twice", 400,
     .version = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13\r\n"},
    {"versions 8 and 13", 400,
     .version = "Sec-WebSocket-Version: 8\r\nSec-WebSocket-Version: 13\r\n"},

    {"no key", 400, .key = ""},
    {"an empty key", 400, .key = "Sec-WebSocket-Key:\r\n"},
    {"two keys", 400,
     .key = "Sec-WebSocket-Key: " RFC_KEY "\r\nSec-WebSocket-Key: " RFC_KEY "\r\n"},
    {"two keys in one header", 400, .key = "Sec-WebSocket-Key: " RFC_KEY ", " RFC_KEY "\r\n"},
    {"a key of 15 bytes", 400, .key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j\r\n"},
    {"a key of 17 bytes", 400, .key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZWE=\r\n"},
    {"a key one short", 400, .key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=\r\n"},
    {"a key one long", 400, .key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ===\r\n"},
    {"a key with half its padding", 400, .key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=A\r\n"},
    {"a key with its padding in front", 400,
     .key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQA=\r\n"},
    {"a key with a brace", 400, .key = "Sec-WebSocket-Key: {GhlIHNhbXBsZSBub25jZQ==\r\n"},
    {"a key without padding", 400, .key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ\r\n"},
    {"a key of 18 bytes", 400, .key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZWFh\r\n"},
    {"a key with stray bits", 400, .key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR==\r\n"},
    {"a key with stray bits all over", 400,
     .key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZf==\r\n"},
    {"padding inside a key", 400, .key = "Sec-WebSocket-Key: dGhlIHNhbXBs=SBub25jZQ==\r\n"},
    {"a space in a key", 400, .key = "Sec-WebSocket-Key: dGhlIHNhbXBs SBub25jZQ==\r\n"},
    {"a key in URL-safe Base64", 400, .key = "Sec-WebSocket-Key: dGhlIHNhbX_-ZSBub25jZQ==\r\n"},
    {"a key above ASCII", 400, .key = "Sec-WebSocket-Key: dGhlIHNhbX\xc3\xa4ZSBub25jZQ==\r\n"},
    {"a key with + and /", 101, .key = "Sec-WebSocket-Key: +/hlIHNhbXBsZSBub25+/w==\r\n"},

    /* Smuggling. */
    {"a body", 400, .more = "Content-Length: 5\r\n"},
    {"a negative length", 400, .more = "Content-Length: -1\r\n"},
    {"an empty length", 400, .more = "Content-Length:\r\n"},
    {"a length of 00", 400, .more = "Content-Length: 00\r\n"},
    {"two lengths of 0", 400, .more = "Content-Length: 0\r\nContent-Length: 0\r\n"},
    {"lengths of 0 and 5", 400, .more = "Content-Length: 0\r\nContent-Length: 5\r\n"},
    {"chunked", 400, .more = "Transfer-Encoding: chunked\r\n"},
    {"identity", 400, .more = "Transfer-Encoding: identity\r\n"},
    {"an empty Transfer-Encoding", 400, .more = "Transfer-Encoding:\r\n"},
    {"chunked and a length of 0", 400,
     .more = "Content-Length: 0\r\ntransfer-ENCODING: xchunked\r\n"},
    {"two origins", 400, .more = "Origin: https://a\r\nOrigin: https://b\r\n"},
    {"obs-fold", RWS_E_HTTP, .more = "X: a\r\n b\r\n"},
    {"obs-fold with a tab", RWS_E_HTTP, .more = "X: a\r\n\tb\r\n"},
    {"a folded Transfer-Encoding", RWS_E_HTTP, .more = "Transfer-Encoding:\r\n chunked\r\n"},
    {"a bare LF", RWS_E_HTTP, .more = "X: a\nTransfer-Encoding: chunked\r\n"},
    {"a bare CR", RWS_E_HTTP, .more = "X: a\rTransfer-Encoding: chunked\r\n"},
    {"LF LF", RWS_E_HTTP, .more = "X: a\n\nGET / HTTP/1.1\r\n"},
    {"space before the colon", RWS_E_HTTP, .more = "Transfer-Encoding : chunked\r\n"},
    {"an empty name", RWS_E_HTTP, .more = ": a\r\n"},
    {"no colon", RWS_E_HTTP, .more = "X\r\n"},
    {"a vertical tab in front of chunked", RWS_E_HTTP, .more = "Transfer-Encoding: \vchunked\r\n"},
    {"two spaces in the request line", RWS_E_HTTP, .start = "GET  /chat HTTP/1.1"},
    {"a space in the target", RWS_E_HTTP, .start = "GET /chat HTTP/1.1 x HTTP/1.1"},
    {"a tab in the target", RWS_E_HTTP, .start = "GET /a\tb HTTP/1.1"},
};

static size_t write_row(char *out, size_t size, const request_row *row)
{
    int len =
        snprintf(out, size, "%s\r\n%s%s%s%s%s%s\r\n", or_usual(row->start, "GET /chat HTTP/1.1"),
                 or_usual(row->host, "Host: example.org\r\n"),
                 or_usual(row->upgrade, "Upgrade: websocket\r\n"),
                 or_usual(row->connection, "Connection: Upgrade\r\n"),
                 or_usual(row->key, "Sec-WebSocket-Key: " RFC_KEY "\r\n"),
                 or_usual(row->version, "Sec-WebSocket-Version: 13\r\n"), or_usual(row->more, ""));
    cr_assert(len > 0 && (size_t)len < size);
    return (size_t)len;
}

Test(handshake, requests_are_accepted_or_refused_at_every_split)
{
    for (size_t i = 0; i < COUNT_OF(request_rows); i++) {
        char text[1024];
        size_t len = write_row(text, sizeof(text), &request_rows[i]);
        expect_request(request_rows[i].name, text, len, request_rows[i].status);
    }
}

Test(handshake, refuses_nul_in_every_place)
{
    char text[1024];
    size_t len = write_row(text, sizeof(text), &request_rows[0]);
    for (size_t at = 0; at < len; at++) {
        char kept = text[at];
        text[at] = '\0';
        cr_assert_eq(run_request(text, len, len, len).status, RWS_E_HTTP, "at %zu", at);
        text[at] = kept;
    }
}

Test(handshake, accepts_what_browsers_send)
{
    static const char *const heads[] = {
        "GET /ws?EIO=4&transport=websocket&sid=AbC_d-1 HTTP/1.1\r\n"
        "Host: localhost:9223\r\n"
        "Connection: Upgrade\r\n"
        "Pragma: no-cache\r\n"
        "Cache-Control: no-cache\r\n"
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
        "Chrome/126.0.0.0 Safari/537.36\r\n"
        "Upgrade: websocket\r\n"
        "Origin: http://localhost:9223\r\n"
        "Sec-WebSocket-Version: 13\r\n"
        "Accept-Encoding: gzip, deflate, br, zstd\r\n"
        "Accept-Language: de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7\r\n"
        "%s"
        "Sec-WebSocket-Key: " RFC_KEY "\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
        "Sec-WebSocket-Protocol: chat, superchat\r\n\r\n",

        "GET / HTTP/1.1\r\n"
        "Host: example.org\r\n"
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
        "Accept: */*\r\n"
        "Accept-Language: en-US,en;q=0.5\r\n"
        "Accept-Encoding: gzip, deflate, br, zstd\r\n"
        "Sec-WebSocket-Version: 13\r\n"
        "Origin: https://example.org\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate\r\n"
        "Sec-WebSocket-Key: " RFC_KEY "\r\n"
        "DNT: 1\r\n"
        "Connection: keep-alive, Upgrade\r\n"
        "%s"
        "Sec-Fetch-Dest: empty\r\n"
        "Sec-Fetch-Mode: websocket\r\n"
        "Sec-Fetch-Site: same-origin\r\n"
        "Pragma: no-cache\r\n"
        "Cache-Control: no-cache\r\n"
        "Upgrade: websocket\r\n\r\n",
    };
    static char cookies[4096], text[8192];
    size_t used = (size_t)snprintf(cookies, sizeof(cookies), "Cookie: first=1");
    for (int i = 0; used < 3000; i++) {
        used += (size_t)snprintf(
            cookies + used, sizeof(cookies) - used,
            "; _ga_%d=GS1.1.17189.%d.1.\"q\"; tok%%20en=eyJhbGciOiJIUzI1NiJ9.%d=", i, i * 7,
            i * 13);
    }
    snprintf(cookies + used, sizeof(cookies) - used, "\r\n");
    for (size_t i = 0; i < COUNT_OF(heads); i++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        int len = snprintf(text, sizeof(text), heads[i], cookies);
#pragma GCC diagnostic pop
        cr_assert(len > 3000 && (size_t)len < sizeof(text));
        for (size_t step = 1; step < 5000; step = step * 2 + 1) {
            outcome result = run_request(text, (size_t)len, step, step);
            cr_assert_eq(result.status, 101, "%zu: %d (%s)", i, result.status, result.why);
        }
    }
}

static rws__http_head *parse_text(char *text, size_t len)
{
    static rws__http_head head;
    static rws__http_header headers[8];
    head = (rws__http_head){.headers = headers, .headers_capacity = COUNT_OF(headers)};
    cr_assert_eq(rws__http_parse_request(&head, (uint8_t *)text, len), 0);
    return &head;
}

Test(handshake, finds_a_subprotocol_that_was_offered)
{
    request_row row = {.more = "Sec-WebSocket-Protocol: chat,  superChat ,,v2.chat\r\n"
                               "Sec-WebSocket-Protocol: mqtt, no token\r\n"};
    char text[1024];
    rws__http_head *head = parse_text(text, write_row(text, sizeof(text), &row));
    static const struct {
        const char *name;
        bool offered;
    } rows[] = {
        {"chat", true},      {"superChat", true},
        {"v2.chat", true},   {"mqtt", true},
        {"Chat", false},     {"MQTT", false},
        {"cha", false},      {"chats", false},
        {"v2", false},       {"", false},
        {",", false},        {"chat,", false},
        {" ", false},        {"chat, superChat", false},
        {"no token", false},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        bool offered = rws__handshake_find_subprotocol(head, span_of(rows[i].name)).data != NULL;
        cr_assert_eq(offered, rows[i].offered, "%s", rows[i].name);
    }
    rws__http_head none = {0};
    cr_assert_null(rws__handshake_find_subprotocol(&none, SPAN("chat")).data);
}

Test(handshake, looks_for_subprotocols_in_four_headers_and_no_further)
{
    request_row row = {.more = "Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: b\r\n"
                               "Sec-WebSocket-Protocol: c\r\nSec-WebSocket-Protocol: d\r\n"
                               "Sec-WebSocket-Protocol: e\r\n"};
    char text[1024];
    rws__http_head *head = parse_text(text, write_row(text, sizeof(text), &row));
    cr_assert_not_null(rws__handshake_find_subprotocol(head, SPAN("d")).data);
    cr_assert_null(rws__handshake_find_subprotocol(head, SPAN("e")).data);
}

/* Writers. Each text must come out whole if it fits exactly, and be refused, with nothing written
 * behind the end, in every smaller buffer. */

typedef int write_fn(uint8_t *out, size_t out_size, const void *arg);

static void expect_written(const char *name, write_fn *write, const void *arg, const char *text)
{
    size_t len = strlen(text);
    for (size_t size = 0; size <= len + 1; size++) {
        uint8_t *out = malloc(size + 1); /* malloc(0) may be NULL */
        cr_assert_not_null(out);
        out[size] = '#';
        int result = write(out, size, arg);
        cr_assert_eq(out[size], '#', "%s: wrote behind a buffer of %zu", name, size);
        if (size < len) {
            cr_assert_eq(result, RWS_E_HTTP_TOO_BIG, "%s: %d in %zu of %zu", name, result, size,
                         len);
        } else {
            cr_assert(result > 0 && span_eq((rws_span){(char *)out, (size_t)result}, text),
                      "%s: %d\n%.*s\n", name, result, result > 0 ? result : 0, (char *)out);
        }
        free(out);
    }
}

typedef struct accept_args {
    const char *subprotocol, *extra;
} accept_args;

static int write_accept(uint8_t *out, size_t out_size, const void *arg)
{
    const accept_args *args = arg;
    return rws__handshake_write_accept(out, out_size, RFC_KEY, span_of(args->subprotocol),
                                       (const uint8_t *)args->extra, span_of(args->extra).len);
}

#define ACCEPT_START                                                                               \
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"            \
    "Sec-WebSocket-Accept: " RFC_ACCEPT "\r\n"

Test(handshake, writes_the_answer)
{
    expect_written("plain", write_accept, &(accept_args){0}, ACCEPT_START "\r\n");
    expect_written("subprotocol and headers", write_accept,
                   &(accept_args){"chat", "X-A: b\r\nSet-Cookie: c=d\r\n"},
                   ACCEPT_START
                   "Sec-WebSocket-Protocol: chat\r\nX-A: b\r\nSet-Cookie: c=d\r\n\r\n");
}

Test(handshake, refuses_to_write_an_answer_with_injected_text)
{
    static const accept_args rows[] = {
        {"a b", NULL},
        {"a,b", NULL},
        {"a\r\nX: y", NULL},
        {"a\n", NULL},
        {"", "X: y"},
        {"", "X: y\r"},
        {"", "X: y\n"},
        {"", "\r\n"},
        {"", "X: y\r\n\r\n"},
        {"", "X y\r\n"},
        {"", ": y\r\n"},
        {"", "X : y\r\n"},
        {"", " X: y\r\n"},
        {"", "X: a\nb\r\n"},
        {"", "X: a\r\n b\r\n"},
        {"", "Upgrade: h2c\r\n"},
        {"", "X: y\r\nSec-WebSocket-Accept: z\r\n"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        uint8_t out[512];
        cr_assert_eq(write_accept(out, sizeof(out), &rows[i]), RWS_E_ARGUMENT, "row %zu", i);
    }
}

typedef struct refusal_args {
    int status;
    const char *extra, *body;
} refusal_args;

static int write_refusal(uint8_t *out, size_t out_size, const void *arg)
{
    const refusal_args *args = arg;
    return rws__handshake_write_refusal(out, out_size, args->status, (const uint8_t *)args->extra,
                                        span_of(args->extra).len, span_of(args->body));
}

Test(handshake, writes_refusals)
{
    static const struct {
        refusal_args args;
        const char *text;
    } rows[] = {
        {{400, NULL, "no\n"},
         "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 3\r\n"
         "Content-Type: text/plain; charset=utf-8\r\n\r\nno\n"},
        {{426, NULL, NULL},
         "HTTP/1.1 426 Upgrade Required\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\n"
         "Sec-WebSocket-Version: 13\r\nContent-Length: 0\r\n"
         "Content-Type: text/plain; charset=utf-8\r\n\r\n"},
        {{405, NULL, "x"},
         "HTTP/1.1 405 Method Not Allowed\r\nConnection: close\r\nAllow: GET\r\n"
         "Content-Length: 1\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nx"},
        {{405, "allow: GET, PUT\r\n", "x"},
         "HTTP/1.1 405 Method Not Allowed\r\nConnection: close\r\n"
         "Content-Length: 1\r\nContent-Type: text/plain; charset=utf-8\r\nallow: GET, "
         "PUT\r\n\r\nx"},
        {{401, "WWW-Authenticate: Basic\r\nCONTENT-TYPE: application/json\r\n", "{\"a\":\"b\"}"},
         "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 9\r\n"
         "WWW-Authenticate: Basic\r\nCONTENT-TYPE: application/json\r\n\r\n{\"a\":\"b\"}"},
        {{302, "Location: /x\r\n", NULL},
         "HTTP/1.1 302 Found\r\nConnection: close\r\nContent-Length: 0\r\n"
         "Content-Type: text/plain; charset=utf-8\r\nLocation: /x\r\n\r\n"},
        {{304, "ETag: \"a\"\r\n", NULL},
         "HTTP/1.1 304 Not Modified\r\nConnection: close\r\nETag: \"a\"\r\n\r\n"},
        {{304, NULL, "a body"}, "HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n"},
        {{204, NULL, "a body"}, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"},
        {{599, NULL, NULL},
         "HTTP/1.1 599 \r\nConnection: close\r\nContent-Length: 0\r\n"
         "Content-Type: text/plain; charset=utf-8\r\n\r\n"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        expect_written("refusal", write_refusal, &rows[i].args, rows[i].text);
    }
}

Test(handshake, every_refusal_is_a_response_that_parses_and_closes)
{
    static const int usual[] = {300, 301, 302, 303, 304, 307, 308, 400, 401, 402, 403, 404,
                                405, 406, 408, 409, 410, 411, 413, 414, 415, 421, 422, 425,
                                426, 428, 429, 431, 451, 500, 501, 502, 503, 504, 505};
    size_t with_reason = 0;
    for (int status = 200; status <= 599; status++) {
        uint8_t out[512];
        bool bodiless = status == 204 || status == 304;
        int len = rws__handshake_write_refusal(out, sizeof(out), status, NULL, 0,
                                               bodiless ? SPAN("") : SPAN("why"));
        cr_assert_gt(len, 0, "%d: %d", status, len);
        rws__http_scanner scanner = {0};
        int head_len = rws__http_scan(&scanner, out, (size_t)len, sizeof(out));
        cr_assert_eq(head_len, bodiless ? len : len - 3, "%d", status);
        rws__http_header headers[16];
        rws__http_head head = {.headers = headers, .headers_capacity = 16};
        cr_assert_eq(rws__http_parse_response(&head, out, (size_t)head_len), 0);
        cr_assert_eq(head.status, status);
        cr_assert_eq(strncmp(rws__http_get(&head, "connection").data, "close", 5), 0);
        cr_assert_eq(head.known.content_length_count, bodiless ? 0 : 1, "%d", status);
        for (size_t i = 0; i < COUNT_OF(usual); i++) {
            if (usual[i] == status && head.reason.len > 0) with_reason++;
        }
    }
    cr_assert_eq(with_reason, COUNT_OF(usual), "a usual status has no reason phrase");
}

Test(handshake, refuses_to_write_what_is_no_refusal)
{
    static const refusal_args rows[] = {
        {101, NULL, NULL},
        {199, NULL, NULL},
        {600, NULL, NULL},
        {0, NULL, NULL},
        {-1, NULL, NULL},
        {400, "X: y", NULL},
        {400, "\r\n", NULL},
        {400, "X: y\r\n\r\n", NULL},
        {400, "Connection: keep-alive\r\n", NULL},
        {400, "Content-Length: 9\r\n", NULL},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        uint8_t out[512];
        cr_assert_eq(write_refusal(out, sizeof(out), &rows[i]), RWS_E_ARGUMENT, "row %zu", i);
    }
}

Test(handshake, appends_headers_until_they_do_not_fit)
{
    static const char line[] = "X-Name: a value\r\n";
    uint8_t out[2 * (sizeof(line) - 1)];
    size_t used = 0;
    cr_assert_eq(
        rws__handshake_append_header(out, sizeof(out), &used, SPAN("X-Name"), SPAN("a value")), 0);
    cr_assert_eq(used, sizeof(line) - 1);
    cr_assert_eq(
        rws__handshake_append_header(out, sizeof(out) - 1, &used, SPAN("X-Name"), SPAN("a value")),
        RWS_E_HTTP_TOO_BIG);
    cr_assert_eq(used, sizeof(line) - 1, "a header that does not fit leaves nothing");
    cr_assert_eq(
        rws__handshake_append_header(out, sizeof(out), &used, SPAN("X-Name"), SPAN("a value")), 0);
    cr_assert(span_eq((rws_span){(char *)out, used}, "X-Name: a value\r\nX-Name: a value\r\n"));
    cr_assert_eq(rws__handshake_append_header(out, sizeof(out), &used, SPAN("X"), SPAN("")),
                 RWS_E_HTTP_TOO_BIG);
}

Test(handshake, appends_no_header_that_injects_or_is_its_own)
{
    static const struct {
        rws_span name, value;
    } rows[] = {
        {SPAN("X"), SPAN("a\r\nb: c")},
        {SPAN("X"), SPAN("a\rb")},
        {SPAN("X"), SPAN("a\nb")},
        {SPAN("X"), SPAN("a\0b")},
        {SPAN("X"), SPAN("\r\n")},
        {SPAN("X"), SPAN("\x7f")},
        {SPAN("X"), SPAN("\x1b[0m")},
        {SPAN("X\r\nY"), SPAN("a")},
        {SPAN("X\0"), SPAN("a")},
        {SPAN("X\n"), SPAN("a")},
        {SPAN("X:"), SPAN("a")},
        {SPAN("X Y"), SPAN("a")},
        {SPAN("X "), SPAN("a")},
        {SPAN(" X"), SPAN("a")},
        {SPAN(""), SPAN("a")},
        {SPAN("\xc3\xa4"), SPAN("a")},
        {SPAN("Upgrade"), SPAN("websocket")},
        {SPAN("CONNECTION"), SPAN("keep-alive")},
        {SPAN("content-length"), SPAN("0")},
        {SPAN("Transfer-Encoding"), SPAN("chunked")},
        {SPAN("Trailer"), SPAN("X")},
        {SPAN("TE"), SPAN("trailers")},
        {SPAN("Keep-Alive"), SPAN("timeout=5")},
        {SPAN("Host"), SPAN("a")},
        {SPAN("Origin"), SPAN("https://a")},
        {SPAN("Sec-WebSocket-Accept"), SPAN("a")},
        {SPAN("sec-websocket-protocol"), SPAN("a")},
        {SPAN("Sec-WebSocket-Extensions"), SPAN("permessage-deflate")},
        {SPAN("Sec-WebSocket-Version"), SPAN("13")},
        {SPAN("Sec-WebSocket-Key"), SPAN("a")},
        {SPAN("Sec-WebSocket-"), SPAN("a")},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        uint8_t out[128];
        size_t used = 0;
        int status =
            rws__handshake_append_header(out, sizeof(out), &used, rows[i].name, rows[i].value);
        cr_assert_eq(status, RWS_E_ARGUMENT, "%s: %d", rows[i].name.data, status);
        cr_assert_eq(used, 0);
    }
}

/* Client. */

static int write_request(uint8_t *out, size_t out_size, const void *arg)
{
    return rws__handshake_write_request(out, out_size, arg, RFC_KEY);
}

Test(handshake, writes_requests_that_a_server_accepts)
{
    static const struct {
        rws__handshake_request request;
        const char *text;
    } rows[] = {
        {{.host = {"example.org", 11}, .target = {"/", 1}},
         "GET / HTTP/1.1\r\nHost: example.org\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
         "Sec-WebSocket-Key: " RFC_KEY "\r\nSec-WebSocket-Version: 13\r\n\r\n"},
        {{.host = {"[::1]:9223", 10},
          .target = {"/chat?a=b", 9},
          .subprotocols = {"chat, v2.chat", 13},
          .origin = {"https://a.b", 11},
          .extra = (const uint8_t *)"Cookie: c=d; e=f\r\n",
          .extra_len = 18},
         "GET /chat?a=b HTTP/1.1\r\nHost: [::1]:9223\r\nUpgrade: websocket\r\n"
         "Connection: Upgrade\r\nSec-WebSocket-Key: " RFC_KEY "\r\nSec-WebSocket-Version: 13\r\n"
         "Sec-WebSocket-Protocol: chat, v2.chat\r\nOrigin: https://a.b\r\n"
         "Cookie: c=d; e=f\r\n\r\n"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        expect_written("request", write_request, &rows[i].request, rows[i].text);
        expect_request("own request", rows[i].text, strlen(rows[i].text), 101);
    }
}

Test(handshake, refuses_to_write_a_request_with_injected_text)
{
    static const struct {
        const char *name;
        rws_span host, target, subprotocols, origin, extra;
    } rows[] = {
        {"CRLF in the host", SPAN("a\r\nX: y"), SPAN("/")},
        {"CR in the host", SPAN("a\r"), SPAN("/")},
        {"LF in the host", SPAN("a\n"), SPAN("/")},
        {"NUL in the host", SPAN("a\0b"), SPAN("/")},
        {"a space in the host", SPAN("a b"), SPAN("/")},
        {"userinfo in the host", SPAN("u:p@a"), SPAN("/")},
        {"no host", SPAN(""), SPAN("/")},
        {"CRLF in the target", SPAN("a"), SPAN("/\r\nX: y")},
        {"CR in the target", SPAN("a"), SPAN("/\rx")},
        {"LF in the target", SPAN("a"), SPAN("/\nx")},
        {"NUL in the target", SPAN("a"), SPAN("/\0")},
        {"DEL in the target", SPAN("a"), SPAN("/\x7f")},
        {"a space in the target", SPAN("a"), SPAN("/ HTTP/1.1")},
        {"a tab in the target", SPAN("a"), SPAN("/\t")},
        {"a target above ASCII", SPAN("a"), SPAN("/\xc3\xa4")},
        {"a fragment", SPAN("a"), SPAN("/#x")},
        {"a target without a slash", SPAN("a"), SPAN("x")},
        {"no target", SPAN("a"), SPAN("")},
        {"CRLF in the subprotocols", SPAN("a"), SPAN("/"), SPAN("p\r\nX: y")},
        {"LF behind the subprotocols", SPAN("a"), SPAN("/"), SPAN("p,\n")},
        {"NUL in the subprotocols", SPAN("a"), SPAN("/"), SPAN("p,\0q")},
        {"a space in a subprotocol", SPAN("a"), SPAN("/"), SPAN("p q")},
        {"a subprotocol in quotes", SPAN("a"), SPAN("/"), SPAN("\"p\"")},
        {"a subprotocol twice", SPAN("a"), SPAN("/"), SPAN("p, q, p")},
        {"only commas", SPAN("a"), SPAN("/"), SPAN(" , ,")},
        {"CRLF in the origin", SPAN("a"), SPAN("/"), SPAN(""), SPAN("https://a\r\nX: y")},
        {"LF in the origin", SPAN("a"), SPAN("/"), SPAN(""), SPAN("https://a\n")},
        {"NUL in the origin", SPAN("a"), SPAN("/"), SPAN(""), SPAN("https://a\0")},
        {"a space in the origin", SPAN("a"), SPAN("/"), SPAN(""), SPAN("https://a https://b")},
        {"DEL in the origin", SPAN("a"), SPAN("/"), SPAN(""), SPAN("https://a\x7f")},
        {"an origin above ASCII", SPAN("a"), SPAN("/"), SPAN(""), SPAN("https://\xc3\xa4")},
        {"CR without LF in a header", SPAN("a"), SPAN("/"), SPAN(""), SPAN(""), SPAN("X: y\rZ")},
        {"a header cut off", SPAN("a"), SPAN("/"), SPAN(""), SPAN(""), SPAN("X: y")},
        {"the end of the head", SPAN("a"), SPAN("/"), SPAN(""), SPAN(""), SPAN("\r\n")},
        {"the end and a request", SPAN("a"), SPAN("/"), SPAN(""), SPAN(""),
         SPAN("X: y\r\n\r\nGET / HTTP/1.1\r\n")},
        {"a second Host", SPAN("a"), SPAN("/"), SPAN(""), SPAN(""), SPAN("Host: b\r\n")},
        {"a second key", SPAN("a"), SPAN("/"), SPAN(""), SPAN(""),
         SPAN("X: y\r\nSec-WebSocket-Key: z\r\n")},
        {"a body", SPAN("a"), SPAN("/"), SPAN(""), SPAN(""), SPAN("Content-Length: 5\r\n")},
        {"NUL in a header", SPAN("a"), SPAN("/"), SPAN(""), SPAN(""), SPAN("X: \0\r\n")},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        rws__handshake_request request = {
            .host = rows[i].host,
            .target = rows[i].target,
            .subprotocols = rows[i].subprotocols,
            .origin = rows[i].origin,
            .extra = (const uint8_t *)rows[i].extra.data,
            .extra_len = rows[i].extra.len,
        };
        uint8_t out[1024];
        int status = write_request(out, sizeof(out), &request);
        cr_assert_eq(status, RWS_E_ARGUMENT, "%s: %d", rows[i].name, status);
    }
}

typedef struct response_row {
    const char *name;
    const char *chosen; /* the subprotocol; NULL: the answer is refused */
    const char *start;  /* as in request_row */
    const char *upgrade;
    const char *connection;
    const char *accept;
    const char *more;
} response_row;

/* "chat, superchat" was offered. */
static const response_row response_rows[] = {
    {"the usual answer", ""},
    {"another reason", "", .start = "HTTP/1.1 101 Web Socket Protocol Handshake"},
    {"no reason", "", .start = "HTTP/1.1 101"},
    {"names and tokens in any case", "", .upgrade = "upgrade: WebSocket\r\n",
     .connection = "CONNECTION: uPGRADE\r\n", .accept = "sec-websocket-accept:" RFC_ACCEPT "\r\n"},
    {"Connection in a list", "", .connection = "Connection: keep-alive, Upgrade\r\n"},
    {"a subprotocol", "superchat", .more = "Sec-WebSocket-Protocol: superchat\r\n"},
    {"other headers", "", .more = "Server: x\r\nDate: y\r\nContent-Length: 0\r\n"},

    {"status 200", NULL, .start = "HTTP/1.1 200 OK"},
    {"status 100", NULL, .start = "HTTP/1.1 100 Continue"},
    {"status 302", NULL, .start = "HTTP/1.1 302 Found"},
    {"status 403", NULL, .start = "HTTP/1.1 403 Forbidden"},
    {"status 426", NULL, .start = "HTTP/1.1 426 Upgrade Required"},
    {"HTTP/1.0", NULL, .start = "HTTP/1.0 101 Switching Protocols"},
    {"no Upgrade", NULL, .upgrade = ""},
    {"another Upgrade", NULL, .upgrade = "Upgrade: h2c\r\n"},
    {"Upgrade in a list", NULL, .upgrade = "Upgrade: websocket, h2c\r\n"},
    {"Upgrade twice", NULL, .upgrade = "Upgrade: websocket\r\nUpgrade: websocket\r\n"},
    {"no Connection", NULL, .connection = ""},
    {"Connection: close", NULL, .connection = "Connection: close\r\n"},
    {"Connection twice", NULL, .connection = "Connection: Upgrade\r\nConnection: close\r\n"},
    {"no accept", NULL, .accept = ""},
    {"an empty accept", NULL, .accept = "Sec-WebSocket-Accept:\r\n"},
    {"the key for accept", NULL, .accept = "Sec-WebSocket-Accept: " RFC_KEY "\r\n"},
    {"accept of another key", NULL,
     .accept = "Sec-WebSocket-Accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk=\r\n"},
    {"accept in another case", NULL,
     .accept = "Sec-WebSocket-Accept: S3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"},
    {"accept cut by one", NULL, .accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo\r\n"},
    {"accept with one more", NULL, .accept = "Sec-WebSocket-Accept: " RFC_ACCEPT "=\r\n"},
    {"accept twice", NULL,
     .accept = "Sec-WebSocket-Accept: " RFC_ACCEPT "\r\nSec-WebSocket-Accept: " RFC_ACCEPT "\r\n"},
    {"a subprotocol that was not offered", NULL, .more = "Sec-WebSocket-Protocol: mqtt\r\n"},
    {"a subprotocol in another case", NULL, .more = "Sec-WebSocket-Protocol: Chat\r\n"},
    {"two subprotocols", NULL, .more = "Sec-WebSocket-Protocol: chat, superchat\r\n"},
    {"an empty subprotocol", NULL, .more = "Sec-WebSocket-Protocol:\r\n"},
    {"two headers of subprotocols", NULL,
     .more = "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: chat\r\n"},
    {"an extension", NULL, .more = "Sec-WebSocket-Extensions: permessage-deflate\r\n"},
    {"an empty extension", NULL, .more = "Sec-WebSocket-Extensions:\r\n"},
};

static int run_response(const char *text, size_t len, const char *offered, char *chosen,
                        const char **why)
{
    uint8_t *data = malloc(len);
    cr_assert_not_null(data);
    memcpy(data, text, len);
    rws__http_scanner scanner = {0};
    for (size_t got = 0; got < len; got++) {
        cr_assert_eq(rws__http_scan(&scanner, data, got, 8192), 0);
    }
    cr_assert_eq(rws__http_scan(&scanner, data, len, 8192), (int)len);
    rws__http_head head = {0};
    cr_assert_eq(rws__http_parse_response(&head, data, len), 0);
    rws_span subprotocol = SPAN("unset");
    int status = rws__handshake_check_response(&head, RFC_KEY, span_of(offered), &subprotocol, why);
    snprintf(chosen, 32, "%.*s", (int)subprotocol.len, subprotocol.len ? subprotocol.data : "");
    free(data);
    return status;
}

Test(handshake, answers_are_accepted_or_refused)
{
    for (size_t i = 0; i < COUNT_OF(response_rows); i++) {
        const response_row *row = &response_rows[i];
        char text[512], chosen[32];
        const char *why = NULL;
        int len = snprintf(text, sizeof(text), "%s\r\n%s%s%s%s\r\n",
                           or_usual(row->start, "HTTP/1.1 101 Switching Protocols"),
                           or_usual(row->upgrade, "Upgrade: websocket\r\n"),
                           or_usual(row->connection, "Connection: Upgrade\r\n"),
                           or_usual(row->accept, "Sec-WebSocket-Accept: " RFC_ACCEPT "\r\n"),
                           or_usual(row->more, ""));
        int status = run_response(text, (size_t)len, "chat, superchat", chosen, &why);
        cr_assert_eq(status, row->chosen ? 0 : RWS_E_UPGRADE, "%s: %d", row->name, status);
        cr_assert_not_null(why);
        cr_assert_eq(why[0] == '\0', row->chosen != NULL, "%s: \"%s\"", row->name, why);
        cr_assert_str_eq(chosen, row->chosen ? row->chosen : "", "%s", row->name);
    }
}

Test(handshake, a_subprotocol_is_refused_if_none_was_offered)
{
    char chosen[32];
    const char *why;
    static const char text[] = ACCEPT_START "Sec-WebSocket-Protocol: chat\r\n\r\n";
    cr_assert_eq(run_response(text, sizeof(text) - 1, "", chosen, &why), RWS_E_UPGRADE);
    cr_assert_eq(run_response(text, sizeof(text) - 1, NULL, chosen, &why), RWS_E_UPGRADE);
    cr_assert_eq(run_response(text, sizeof(text) - 1, "chat", chosen, &why), 0);
}
