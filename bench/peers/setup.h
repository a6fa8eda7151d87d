/* What the floor does once per run or connection: listen, and answer the opening handshake. */
#ifndef RINGWS_BENCH_SETUP_H
#define RINGWS_BENCH_SETUP_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <sha1.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A listener on the loopback address; says so on stdout. */
static int listen_loopback(const char *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(port)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    int one = 1, room = 4 << 20, listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    /* Connections inherit these. A send is never short while there is room. */
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(listener, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
    if (bind(listener, (struct sockaddr *)&address, len) || listen(listener, 4096)) return -errno;
    getsockname(listener, (struct sockaddr *)&address, &len);
    printf("listening on ws://127.0.0.1:%u\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

enum { CONNS = 16384, HEAD_MAX = 1024 };

/* By the slot of the connection: what came of the request, then the answer to it. */
static struct handshake {
    uint32_t len;
    uint8_t text[HEAD_MAX + 1];
} handshakes[CONNS];

/* One more piece of the request. Returns the length of the answer when it is whole, else 0. */
static uint32_t upgrade(struct handshake *h, const uint8_t *data, uint32_t len)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char accept[29] = {0}, text[64];
    if (len > HEAD_MAX - h->len) return 0;
    memcpy(h->text + h->len, data, len);
    h->text[h->len += len] = '\0';
    const char *key = strcasestr((char *)h->text, "sec-websocket-key: ");
    if (!key || !strstr((char *)h->text, "\r\n\r\n")) return 0;
    snprintf(text, sizeof(text), "%.24s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key + 19);
    uint8_t digest[21] = {0};
    SHA1_CTX sha;
    SHA1Init(&sha);
    SHA1Update(&sha, (uint8_t *)text, strlen(text));
    SHA1Final(digest, &sha);
    for (int i = 0; i < 28; i++) { /* Base64 */
        uint32_t three = (uint32_t)(digest[i / 4 * 3] << 16 | digest[i / 4 * 3 + 1] << 8 |
                                    digest[i / 4 * 3 + 2]);
        accept[i] = i == 27 ? '=' : digits[three >> (18 - 6 * (i % 4)) & 63];
    }
    return (uint32_t)sprintf((char *)h->text,
                             "HTTP/1.1 101 Switching Protocols\r\n"
                             "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                             "Sec-WebSocket-Accept: %s\r\n\r\n",
                             accept);
}

#endif
