#include "support/raw_client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

static const uint8_t test_key[4] = {0x37, 0xfa, 0x21, 0x3d};

bool raw_is_filtered(void)
{
    const char *name = getenv("RINGWS_TEST_FILTER");
    return name != NULL && strcmp(name, "toy") == 0;
}

static bool send_plainly(int fd, const void *data, size_t len);

static void take_over(raw_client *client, int fd, bool accepted)
{
    *client = (raw_client){.fd = fd, .filtered = raw_is_filtered(), .accepts = accepted};
    struct timeval limit = {.tv_sec = RAW_TIMEOUT_MS / 1000};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (!client->filtered) return;
    static _Atomic uint64_t connections;
    client->half = toy_mix(++connections);
    uint8_t hello[TOY_HEADER + TOY_HELLO];
    if (!accepted)
        (void)send_plainly(fd, hello, toy_write_hello(hello, TOY_CLIENT_HELLO, client->half));
}

void raw_adopt(raw_client *client, int fd)
{
    take_over(client, fd, true);
}

bool raw_connect(raw_client *client, const char *address, uint16_t port, int recv_buffer_bytes)
{
    union {
        struct sockaddr generic;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } to = {0};
    socklen_t len = sizeof to.in;
    if (inet_pton(AF_INET, address, &to.in.sin_addr) == 1) {
        to.in.sin_family = AF_INET;
        to.in.sin_port = htons(port);
    } else if (inet_pton(AF_INET6, address, &to.in6.sin6_addr) == 1) {
        to.in6.sin6_family = AF_INET6;
        to.in6.sin6_port = htons(port);
        len = sizeof to.in6;
    } else {
        errno = EINVAL;
        return false;
    }
    *client = (raw_client){.fd = -1};
    int fd = socket(to.generic.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (recv_buffer_bytes > 0) {
        int segment = 1460;
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &recv_buffer_bytes, sizeof recv_buffer_bytes);
        (void)setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
    }
    if (connect(fd, &to.generic, len) != 0) {
        int error = errno;
        close(fd);
        errno = error;
        return false;
    }
    take_over(client, fd, false);
    return true;
}

bool raw_connect_unix(raw_client *client, const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    *client = (raw_client){.fd = -1};
    size_t len = strlen(path);
    if (len >= sizeof to.sun_path) return false;
    memcpy(to.sun_path, path, len + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    if (connect(fd, (const struct sockaddr *)&to, sizeof to) != 0) {
        close(fd);
        return false;
    }
    take_over(client, fd, false);
    return true;
}

bool raw_upgrade(raw_client *client)
{
    char head[2048];
    return raw_send_text(client, "GET / HTTP/1.1\r\n"
                                 "Host: localhost\r\n"
                                 "Upgrade: websocket\r\n"
                                 "Connection: Upgrade\r\n"
                                 "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                                 "Sec-WebSocket-Version: 13\r\n\r\n") &&
           raw_read_head(client, head, sizeof head) == 101 &&
           /* RFC 6455, section 1.3: the answer to this key. */
           strstr(head, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") != NULL;
}

bool raw_open(raw_client *client, uint16_t port)
{
    if (!raw_connect(client, "127.0.0.1", port, 0)) return false;
    if (raw_upgrade(client)) return true;
    raw_close(client);
    return false;
}

/* ---- sending ---- */

static bool send_plainly(int fd, const void *data, size_t len)
{
    const uint8_t *at = data;
    while (len > 0) {
        ssize_t sent = send(fd, at, len, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) return false;
        at += sent;
        len -= (size_t)sent;
    }
    return true;
}

static int fill(raw_client *client);

/* With a filter nothing can be sent before the peer's hello is there. */
static bool await_hello(raw_client *client)
{
    while (client->filtered && !client->greeted && !client->ended)
        if (fill(client) == -1) return false;
    return !client->ended;
}

size_t raw_seal(raw_client *client, uint8_t *out, const uint8_t *data, size_t len)
{
    size_t wire = 0;
    while (len > 0) {
        size_t part = len < TOY_PAYLOAD_MAX ? len : TOY_PAYLOAD_MAX;
        wire += toy_write_data(&client->key_out, out + wire, data, part);
        data += part;
        len -= part;
    }
    return wire;
}

bool raw_send(raw_client *client, const void *data, size_t len)
{
    if (!client->filtered) return send_plainly(client->fd, data, len);
    if (len == 0) return true;
    if (!await_hello(client)) return false;
    uint8_t *out = malloc(RAW_SEALED(len));
    if (out == NULL) return false;
    bool sent = send_plainly(client->fd, out, raw_seal(client, out, data, len));
    free(out);
    return sent;
}

bool raw_send_text(raw_client *client, const char *text)
{
    return raw_send(client, text, strlen(text));
}

size_t raw_frame_header(uint8_t *out, uint8_t first, uint64_t payload_len, const uint8_t *key)
{
    size_t len_bytes = payload_len < 126 ? 0 : payload_len < 65536 ? 2 : 8;
    uint8_t short_len = len_bytes == 0   ? (uint8_t)payload_len
                        : len_bytes == 2 ? (uint8_t)126
                                         : (uint8_t)127;
    out[0] = first;
    out[1] = (uint8_t)(short_len | (key != NULL ? 0x80u : 0));
    for (size_t i = 0; i < len_bytes; i++)
        out[2 + i] = (uint8_t)(payload_len >> (8 * (len_bytes - 1 - i)));
    if (key == NULL) return 2 + len_bytes;
    memcpy(out + 2 + len_bytes, key, 4);
    return 2 + len_bytes + 4;
}

void raw_mask(uint8_t *data, size_t len, const uint8_t key[4], uint64_t at)
{
    uint8_t turned[8];
    for (size_t i = 0; i < sizeof turned; i++)
        turned[i] = key[(at + i) & 3];
    uint64_t wide;
    memcpy(&wide, turned, sizeof wide);
    size_t i = 0;
    for (; i + sizeof wide <= len; i += sizeof wide) {
        uint64_t word;
        memcpy(&word, data + i, sizeof word);
        word ^= wide;
        memcpy(data + i, &word, sizeof word);
    }
    for (; i < len; i++)
        data[i] ^= turned[i & 7];
}

bool raw_send_frame(raw_client *client, uint8_t first, const void *payload, size_t len)
{
    uint8_t *out = malloc(RAW_HEADER_MAX + len);
    if (out == NULL) return false;
    size_t header = raw_frame_header(out, first, len, test_key);
    if (len > 0) memcpy(out + header, payload, len);
    raw_mask(out + header, len, test_key, 0);
    bool sent = raw_send(client, out, header + len);
    free(out);
    return sent;
}

/* ---- receiving ---- */

static bool grow(raw_client *client, size_t bytes)
{
    if (client->in_capacity - client->in_len >= bytes) return true;
    size_t capacity = client->in_capacity * 2 + bytes;
    uint8_t *grown = realloc(client->in, capacity);
    if (grown == NULL) return false;
    client->in = grown;
    client->in_capacity = capacity;
    return true;
}

/* ---- with the toy filter ---- */

static bool on_hello(raw_client *client, const uint8_t *payload)
{
    uint64_t theirs;
    memcpy(&theirs, payload, sizeof theirs);
    uint64_t client_half = client->accepts ? theirs : client->half;
    uint64_t server_half = client->accepts ? client->half : theirs;
    client->key_in = toy_make_key(client_half, server_half, client->accepts);
    client->key_out = toy_make_key(client_half, server_half, !client->accepts);
    client->greeted = true;
    uint8_t hello[TOY_HEADER + TOY_HELLO];
    return !client->accepts ||
           send_plainly(client->fd, hello, toy_write_hello(hello, TOY_SERVER_HELLO, client->half));
}

/* The record in `wire` is whole. */
static bool on_record(raw_client *client, toy_record record)
{
    const uint8_t *payload = client->wire + TOY_HEADER;
    toy_type hello = client->accepts ? TOY_CLIENT_HELLO : TOY_SERVER_HELLO;
    if (!client->greeted) return record.type == hello && on_hello(client, payload);
    if (record.type == TOY_END) client->ended = true;
    if (record.type != TOY_DATA) return record.type == TOY_END;
    if (!grow(client, record.len)) return false;
    toy_xor(&client->key_in, client->in + client->in_len, payload, record.len);
    client->in_len += record.len;
    return true;
}

int raw_unseal(raw_client *client, const uint8_t *wire, size_t len)
{
    while (len > 0 && !client->ended) {
        toy_record record = {0, 0};
        if (client->wire_len >= TOY_HEADER) record = toy_read_header(client->wire);
        size_t whole = client->wire_len < TOY_HEADER ? TOY_HEADER : TOY_HEADER + record.len;
        size_t part = whole - client->wire_len < len ? whole - client->wire_len : len;
        memcpy(client->wire + client->wire_len, wire, part);
        client->wire_len += part;
        wire += part;
        len -= part;
        if (client->wire_len < TOY_HEADER) break;
        record = toy_read_header(client->wire);
        if (record.type == 0) return -1;
        if (client->wire_len < TOY_HEADER + record.len) continue;
        client->wire_len = 0;
        if (!on_record(client, record)) return -1;
    }
    return client->ended ? 0 : 1;
}

/* ---- the socket ---- */

/* Receive some more: 1, 0 or -1 as raw_read_frame(). */
static int fill(raw_client *client)
{
    uint8_t wire[32768];
    if (client->ended) return 0;
    if (!client->filtered && !grow(client, 65536)) return -1;
    for (;;) {
        ssize_t got = client->filtered ? recv(client->fd, wire, sizeof wire, 0)
                                       : recv(client->fd, client->in + client->in_len,
                                              client->in_capacity - client->in_len, 0);
        if (got > 0 && client->filtered) {
            size_t had = client->in_len;
            int res = raw_unseal(client, wire, (size_t)got);
            return res == 0 && client->in_len > had ? 1 : res;
        }
        if (got > 0) {
            client->in_len += (size_t)got;
            return 1;
        }
        if (got == 0 || errno == ECONNRESET || errno == EPIPE) {
            client->ended = true;
            return 0;
        }
        if (errno != EINTR) return -1;
    }
}

static void take(raw_client *client, size_t len)
{
    client->in_len -= len;
    memmove(client->in, client->in + len, client->in_len);
}

/* The length of the frame at the start of `in` with its header, or 0 if its header is not there. */
static uint64_t parse_header(const raw_client *client, raw_frame *frame, size_t *header)
{
    const uint8_t *in = client->in;
    if (client->in_len < 2) return 0;
    uint8_t len_bytes = (in[1] & 0x7F) == 126 ? 2 : (in[1] & 0x7F) == 127 ? 8 : 0;
    frame->first = in[0];
    frame->masked = in[1] & 0x80;
    *header = 2u + len_bytes + (frame->masked ? 4u : 0);
    if (client->in_len < *header) return 0;
    uint64_t len = len_bytes == 0 ? in[1] & 0x7F : 0;
    for (size_t i = 0; i < len_bytes; i++)
        len = len << 8 | in[2 + i];
    if (frame->masked) memcpy(frame->key, in + 2 + len_bytes, 4);
    frame->len = (size_t)len;
    return *header + len;
}

int raw_read_frame(raw_client *client, raw_frame *frame)
{
    for (;;) {
        size_t header = 0;
        uint64_t whole = parse_header(client, frame, &header);
        if (whole != 0 && client->in_len >= whole) {
            uint8_t *payload = malloc(frame->len + 1);
            if (payload == NULL) return -1;
            memcpy(payload, client->in + header, frame->len);
            payload[frame->len] = '\0';
            if (frame->masked) raw_mask(payload, frame->len, frame->key, 0);
            take(client, (size_t)whole);
            free(client->last);
            client->last = frame->payload = payload;
            return 1;
        }
        int res = fill(client);
        if (res != 1) return res;
    }
}

int raw_read_close(raw_client *client)
{
    raw_frame frame;
    while (raw_read_frame(client, &frame) == 1) {
        if (frame.first != RAW_CLOSE) continue;
        return frame.len >= 2 ? frame.payload[0] << 8 | frame.payload[1] : 0;
    }
    return -1;
}

bool raw_read_end(raw_client *client)
{
    int res;
    while ((res = fill(client)) == 1)
        client->in_len = 0;
    return res == 0;
}

int raw_read_head(raw_client *client, char *out, size_t size)
{
    for (;;) {
        const uint8_t *end =
            client->in_len > 0 ? memmem(client->in, client->in_len, "\r\n\r\n", 4) : NULL;
        if (end != NULL) {
            size_t len = (size_t)(end - client->in) + 4;
            size_t kept = len < size ? len : size - 1;
            memcpy(out, client->in, kept);
            out[kept] = '\0';
            take(client, len);
            if (strncmp(out, "HTTP/1.1 ", 9) != 0) return -1;
            return (int)strtol(out + 9, NULL, 10);
        }
        if (fill(client) != 1) return -1;
    }
}

bool raw_is_silent(raw_client *client, int ms)
{
    struct pollfd poll_fd = {.fd = client->fd, .events = POLLIN};
    (void)await_hello(client);
    return client->in_len == 0 && poll(&poll_fd, 1, ms) == 0;
}

/* ---- ending ---- */

void raw_end(raw_client *client)
{
    uint8_t end[TOY_HEADER];
    toy_write_header(end, TOY_END, 0);
    if (client->filtered && await_hello(client)) (void)send_plainly(client->fd, end, sizeof end);
    (void)shutdown(client->fd, SHUT_WR);
}

void raw_close(raw_client *client)
{
    if (client->fd >= 0) close(client->fd);
    free(client->in);
    free(client->last);
    *client = (raw_client){.fd = -1};
}

void raw_reset(raw_client *client)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(client->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    raw_close(client);
}
