/*
 * A WebSocket client, or a scripted server, of blocking socket calls and a framing of its own: for
 * sending what no proper endpoint would, and for judging what comes back independently of codec/.
 *
 * With RINGWS_TEST_FILTER=toy in the environment it speaks through the toy filter's records
 * (toy_wire.h): so the same tests run with a filter on both sides (engine_filter.h).
 *
 * Every wait has a deadline of RAW_TIMEOUT_MS. Nothing here asserts: a call says whether it worked.
 */
#ifndef RINGWS_TESTS_SUPPORT_RAW_CLIENT_H
#define RINGWS_TESTS_SUPPORT_RAW_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "support/toy_wire.h"

#define RAW_TIMEOUT_MS 20000

/* First bytes of frames: fin and opcode. */
#define RAW_FIN    0x80u
#define RAW_TEXT   (RAW_FIN | 0x1u)
#define RAW_BINARY (RAW_FIN | 0x2u)
#define RAW_CLOSE  (RAW_FIN | 0x8u)
#define RAW_PING   (RAW_FIN | 0x9u)
#define RAW_PONG   (RAW_FIN | 0xAu)

/* The longest header: 2 bytes, a 64-bit length, a key. */
#define RAW_HEADER_MAX 14

typedef struct raw_client {
    int fd;
    uint8_t *in; /* received and not taken yet */
    size_t in_len, in_capacity;
    uint8_t *last; /* the payload that was read last */

    /* With the toy filter. */
    bool filtered, accepts; /* it is the side that accepted */
    bool greeted;           /* both hellos are there */
    bool ended;             /* the peer's end record came */
    uint64_t half;
    toy_key key_in, key_out;
    uint8_t wire[TOY_RECORD_MAX]; /* a record that has not come whole */
    size_t wire_len;
} raw_client;

typedef struct raw_frame {
    uint8_t first;
    bool masked;
    uint8_t key[4];
    uint8_t *payload; /* unmasked; in the client's memory until the next read */
    size_t len;
} raw_frame;

/* Connect over loopback. With `recv_buffer_bytes` (0: the kernel's) the window follows it, and
 * segments are of the size of Ethernet's: loopback's 64 KiB do not fit a small window, and wait for
 * timers. `raw_connect` takes "127.0.0.1", "::1" …; a unix socket has its path. False: errno.
 */
bool raw_connect(raw_client *client, const char *address, uint16_t port, int recv_buffer_bytes);
bool raw_connect_unix(raw_client *client, const char *path);
/* Take over a connected socket. */
void raw_adopt(raw_client *client, int fd);

/* A request for "/", and the 101 to it. What follows the answer is kept for the next read. */
bool raw_upgrade(raw_client *client);
/* raw_connect() to 127.0.0.1 and raw_upgrade(). */
bool raw_open(raw_client *client, uint16_t port);

/* Whether the toy filter is on both sides. */
bool raw_is_filtered(void);
/* For who does the socket calls itself, with a filter: records of `len` bytes, into room for
 * RAW_SEALED(len); and records that came, into `in`. 1, 0 behind the end record, or -1: malformed.
 */
#define RAW_SEALED(len) ((len) + TOY_HEADER * ((len) / TOY_PAYLOAD_MAX + 1))
size_t raw_seal(raw_client *client, uint8_t *out, const uint8_t *data, size_t len);
int raw_unseal(raw_client *client, const uint8_t *wire, size_t len);

/* Send all; SIGPIPE never comes. */
bool raw_send(raw_client *client, const void *data, size_t len);
bool raw_send_text(raw_client *client, const char *text);
/* A masked frame in one piece. */
bool raw_send_frame(raw_client *client, uint8_t first, const void *payload, size_t len);
/* The header of a frame of `payload_len` bytes, in the shortest form; returns its length. `key`
 * NULL: not masked. */
size_t raw_frame_header(uint8_t *out, uint8_t first, uint64_t payload_len, const uint8_t *key);
/* XOR with `key`, `at` bytes after the start of the payload. */
void raw_mask(uint8_t *data, size_t len, const uint8_t key[4], uint64_t at);

/* Read what follows: 1, 0 at the end of the stream (also by a reset), -1 if nothing came in time.
 */
int raw_read_frame(raw_client *client, raw_frame *frame);
/* Skip what comes before. The close frame's code (0: none in it), -1 if there was none before the
 * end of the stream. */
int raw_read_close(raw_client *client);
/* True if the stream ends (or is reset) in time, whatever comes before. */
bool raw_read_end(raw_client *client);
/* A head up to and with the empty line; NUL-terminated, cut at `size`. Its status, or -1. */
int raw_read_head(raw_client *client, char *out, size_t size);
/* Whether nothing comes for so long. */
bool raw_is_silent(raw_client *client, int ms);

/* Half-close, close, and close with a reset. */
void raw_end(raw_client *client);
void raw_close(raw_client *client);
void raw_reset(raw_client *client);

#endif
