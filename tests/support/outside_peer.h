/*
 * A WebSocket peer on a socket of the outside (outside.h), with a framing of its own: it writes
 * what a script queued, piece by piece, reads unless it was told to stop, and writes what it got in
 * words.
 *
 * A peer answers a close frame, unless it has sent one, and closes at the end of the stream.
 */
#ifndef RINGWS_TESTS_SUPPORT_OUTSIDE_PEER_H
#define RINGWS_TESTS_SUPPORT_OUTSIDE_PEER_H

#include <stdio.h>

#include "support/outside.h"

#define PEER_FIN   0x80u
#define PEER_CLOSE 0x88u
#define PEER_PING  0x89u

typedef struct peer_bytes {
    uint8_t *data;
    size_t len, max;
} peer_bytes;

typedef struct outside_peer {
    int fd;    /* -1: it has none */
    FILE *log; /* a line for each thing that it got */
    const uint32_t *step;
    uint64_t moved;     /* bytes read and written, and ends */
    peer_bytes out, in; /* not written, not decoded */
    size_t piece;       /* it writes at most so much at once; 0: all */
    bool connected;
    bool stopped;       /* it does not read */
    bool ends;          /* its half, when all is written */
    bool ended;         /* it has */
    bool closing;       /* it has sent a close frame */
    bool upgraded;      /* it got a 101 */
    bool headed;        /* it got a head */
    uint64_t got, hash; /* all bytes */
} outside_peer;

/* FNV-1a, from 0 on. */
uint64_t outside_hash(uint64_t hash, const void *data, size_t len);

/* Connect. `log` is borrowed. Returns 0 or -errno. */
int outside_peer_open(outside_peer *peer, const struct sockaddr *address, socklen_t len, FILE *log,
                      const uint32_t *step);
/* Queue bytes, or a masked frame: `first` is FIN and the opcode. */
void outside_peer_queue(outside_peer *peer, const void *data, size_t len);
void outside_peer_queue_frame(outside_peer *peer, uint8_t first, const void *data, size_t len);
/* Write and read what can be. Returns whether anything moved. */
bool outside_peer_move(outside_peer *peer);
/* Write one piece. */
void outside_peer_write(outside_peer *peer);
/* Close or reset, and log what the peer got in sum. */
void outside_peer_close(outside_peer *peer, bool resets);

#endif
