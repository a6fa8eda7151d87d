/*
 * The opening handshake of a server: scan the request, parse it, check it, write the 101. The floor
 * is the part that RFC 6455 asks for by name, the SHA-1 and the Base64 of the key; so the ratio is
 * its share of the whole.
 */
#include "micro.h"

#include <stdlib.h>
#include <string.h>

#include "codec/handshake.h"

enum { HEADERS_MAX = 64, REQUEST_MAX = 1024 };

static const char shortest[] = "GET / HTTP/1.1\r\n"
                               "Host: example.org\r\n"
                               "Upgrade: websocket\r\n"
                               "Connection: Upgrade\r\n"
                               "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                               "Sec-WebSocket-Version: 13\r\n"
                               "\r\n";

/* As a browser sends it. */
static const char browser[] =
    "GET /chat?room=7 HTTP/1.1\r\n"
    "Host: example.org:8080\r\n"
    "Connection: Upgrade\r\n"
    "Pragma: no-cache\r\n"
    "Cache-Control: no-cache\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)"
    " Chrome/126.0.0.0 Safari/537.36\r\n"
    "Upgrade: websocket\r\n"
    "Origin: https://example.org\r\n"
    "Sec-WebSocket-Version: 13\r\n"
    "Accept-Encoding: gzip, deflate, br, zstd\r\n"
    "Accept-Language: en-GB,en;q=0.9\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    "\r\n";

/* Both from RFC 6455, section 1.3. */
static const char key[] = "dGhlIHNhbXBsZSBub25jZQ==";
static const char accept_value[] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

typedef struct upgrade {
    const char *request;
    size_t len;
    char accept[RWS__ACCEPT_BYTES + 1];
    uint8_t answer[RWS__WRITE_ACCEPT_BYTES];
    int answer_len;
} upgrade;

static uint64_t run_digest(void *context, size_t calls)
{
    upgrade *u = context;
    for (size_t i = 0; i < calls; i++) {
        rws__handshake_accept(key, u->accept);
        race_touch(u);
    }
    return 0;
}

static bool digest_right(void *context)
{
    return memcmp(((upgrade *)context)->accept, accept_value, RWS__ACCEPT_BYTES) == 0;
}

static uint64_t run_upgrade(void *context, size_t calls)
{
    upgrade *u = context;
    uint8_t request[REQUEST_MAX];
    rws__http_header headers[HEADERS_MAX];
    uint64_t failed = 0;
    for (size_t i = 0; i < calls; i++) {
        memcpy(request, u->request, u->len); /* parsing changes it */
        rws__http_scanner scanner = {0};
        const int head_len = rws__http_scan(&scanner, request, u->len, REQUEST_MAX);
        rws__http_head head = {.headers = headers, .headers_capacity = HEADERS_MAX};
        const char *why;
        if (head_len <= 0 || rws__http_parse_request(&head, request, (size_t)head_len) != 0 ||
            rws__handshake_check_request(&head, &why) != 101) {
            failed++;
            continue;
        }
        u->answer_len = rws__handshake_write_accept(
            u->answer, sizeof u->answer, head.known.ws_key.data, (rws_span){NULL, 0}, NULL, 0);
        race_touch(u);
    }
    return failed;
}

static bool answer_right(void *context)
{
    const upgrade *u = context;
    const size_t len = u->answer_len > 0 ? (size_t)u->answer_len : 0;
    return memmem(u->answer, len, accept_value, RWS__ACCEPT_BYTES) != NULL;
}

static void race_request(const race_options *options, race_totals *totals, const char *name,
                         const char *request)
{
    upgrade u = {.request = request, .len = strlen(request)};
    race_setup race = {
        .benchmark = "upgrade", .input = name, .size_bytes = u.len, .item = "request", .items = 1};
    race_add(&race,
             (race_contestant){
                 .name = "sha1_base64", .run = run_digest, .context = &u, .check = digest_right});
    race_add(&race,
             (race_contestant){
                 .name = "ringws", .run = run_upgrade, .context = &u, .check = answer_right});
    race_start(&race, options, totals);
}

void micro_upgrade(const race_options *options, race_totals *totals)
{
    race_request(options, totals, "shortest", shortest);
    race_request(options, totals, "browser", browser);
}
