#include "support/outside_peer.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define READ_BYTES 65536u

static const uint8_t key[4] = {0x37, 0xfa, 0x21, 0x3d};

uint64_t outside_hash(uint64_t hash, const void *data, size_t len)
{
    const uint8_t *at = data;
    if (hash == 0) hash = 0xCBF29CE484222325u;
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ at[i]) * 0x100000001B3u;
    return hash;
}

static uint8_t *make_room(peer_bytes *bytes, size_t len)
{
    if (bytes->len + len > bytes->max) {
        bytes->max = 2 * bytes->max + len;
        bytes->data = realloc(bytes->data, bytes->max);
        if (bytes->data == NULL) abort();
    }
    return bytes->data + bytes->len;
}

static void take(peer_bytes *bytes, size_t len)
{
    bytes->len -= len;
    memmove(bytes->data, bytes->data + len, bytes->len);
}

__attribute__((format(printf, 2, 3))) static void note(outside_peer *peer, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(peer->log, "    step %u: peer: ", *peer->step);
    vfprintf(peer->log, format, args);
    fputc('\n', peer->log);
    va_end(args);
}

int outside_peer_open(outside_peer *peer, const struct sockaddr *address, socklen_t len, FILE *log,
                      const uint32_t *step)
{
    /* Both worlds have the same room, and a window that stays as it is. */
    int fd = outside_connect(address, len, 65536);
    *peer = (outside_peer){.fd = fd, .log = log, .step = step};
    return fd < 0 ? fd : 0;
}

/* Asked once: it takes the socket's error. */
static bool is_connected(outside_peer *peer)
{
    if (!peer->connected) peer->connected = outside_connected(peer->fd) != -EINPROGRESS;
    return peer->connected;
}

/* ---- writing ---- */

void outside_peer_queue(outside_peer *peer, const void *data, size_t len)
{
    if (len > 0) memcpy(make_room(&peer->out, len), data, len);
    peer->out.len += len;
}

void outside_peer_queue_frame(outside_peer *peer, uint8_t first, const void *data, size_t len)
{
    const uint8_t *from = data;
    uint8_t head[10] = {first};
    size_t len_bytes = len < 126 ? 0 : len < 65536 ? 2 : 8;
    head[1] = (uint8_t)(0x80u | (len_bytes == 0 ? len : len_bytes == 2 ? 126u : 127u));
    for (size_t i = 0; i < len_bytes; i++)
        head[2 + i] = (uint8_t)(len >> 8 * (len_bytes - 1 - i));
    outside_peer_queue(peer, head, 2 + len_bytes);
    outside_peer_queue(peer, key, sizeof key);
    uint8_t *to = make_room(&peer->out, len);
    for (size_t i = 0; i < len; i++)
        to[i] = from[i] ^ key[i & 3];
    peer->out.len += len;
    if (first == PEER_CLOSE) peer->closing = true;
}

void outside_peer_write(outside_peer *peer)
{
    if (peer->fd < 0) return;
    if (peer->out.len > 0 && is_connected(peer)) {
        size_t len = peer->out.len;
        if (peer->piece > 0 && peer->piece < len) len = peer->piece;
        ssize_t sent = outside_write(peer->fd, peer->out.data, len);
        if (sent == -EAGAIN) return;
        /* To nobody any more: that is seen when reading. */
        if (sent < 0) sent = (ssize_t)peer->out.len;
        take(&peer->out, (size_t)sent);
        peer->moved++;
    }
    if (peer->out.len > 0 || !peer->ends || peer->ended) return;
    outside_shutdown(peer->fd);
    peer->ended = true;
    peer->moved++;
}

/* ---- reading ---- */

static size_t decode_head(outside_peer *peer)
{
    const uint8_t *end =
        peer->in.len > 0 ? memmem(peer->in.data, peer->in.len, "\r\n\r\n", 4) : NULL;
    if (end == NULL) return 0;
    size_t len = (size_t)(end - peer->in.data) + 4;
    peer->headed = true;
    peer->upgraded = len > 12 && memcmp(peer->in.data + 9, "101", 3) == 0;
    note(peer, "head %.3s, %zu bytes %016llx", peer->in.data + 9, len,
         (unsigned long long)outside_hash(0, peer->in.data, len));
    return len;
}

static void answer_close(outside_peer *peer, const uint8_t *payload, size_t len)
{
    if (!peer->closing && !peer->ends)
        outside_peer_queue_frame(peer, PEER_CLOSE, payload, len < 2 ? 0 : 2);
}

static size_t decode_frame(outside_peer *peer)
{
    const uint8_t *in = peer->in.data;
    if (peer->in.len < 2) return 0;
    size_t len_bytes = (in[1] & 127) == 126 ? 2 : (in[1] & 127) == 127 ? 8 : 0;
    size_t head = 2 + len_bytes, len = len_bytes == 0 ? in[1] & 127 : 0;
    if (peer->in.len < head) return 0;
    for (size_t i = 0; i < len_bytes; i++)
        len = len << 8 | in[2 + i];
    if (peer->in.len < head + len) return 0;
    note(peer, "frame %02x, %zu bytes %016llx", in[0], len,
         (unsigned long long)outside_hash(0, in + head, len));
    if (in[0] == PEER_CLOSE) answer_close(peer, in + head, len);
    return head + len;
}

static void decode(outside_peer *peer)
{
    for (;;) {
        size_t len = 0;
        if (!peer->headed)
            len = decode_head(peer);
        else if (peer->upgraded)
            len = decode_frame(peer);
        if (len == 0) return;
        take(&peer->in, len);
    }
}

static void read_some(outside_peer *peer)
{
    while (peer->fd >= 0 && !peer->stopped && is_connected(peer)) {
        uint8_t *to = make_room(&peer->in, READ_BYTES);
        ssize_t got = outside_read(peer->fd, to, READ_BYTES);
        if (got == -EAGAIN) return;
        peer->moved++;
        if (got <= 0) {
            const char *how = got == 0 ? "the end" : got == -ECONNRESET ? "a reset" : "an error";
            note(peer, "%s", how);
            outside_peer_close(peer, false);
            return;
        }
        peer->hash = outside_hash(peer->hash, to, (size_t)got);
        peer->got += (uint64_t)got;
        peer->in.len += (size_t)got;
        decode(peer);
    }
}

bool outside_peer_move(outside_peer *peer)
{
    uint64_t before = peer->moved;
    outside_peer_write(peer);
    read_some(peer);
    return peer->moved != before;
}

void outside_peer_close(outside_peer *peer, bool resets)
{
    if (peer->fd < 0) return;
    note(peer, "%s; %llu bytes %016llx, %zu of them not whole", resets ? "resets" : "closes",
         (unsigned long long)peer->got, (unsigned long long)peer->hash, peer->in.len);
    if (resets)
        outside_reset(peer->fd);
    else
        outside_close(peer->fd);
    peer->fd = -1;
    free(peer->out.data);
    free(peer->in.data);
    peer->out = peer->in = (peer_bytes){0};
}
