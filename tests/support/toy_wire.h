/*
 * The wire of the toy filter, shared by the filter (toy_filter.c), by raw clients that speak it,
 * and by tests that build records of their own.
 *
 * A record: a header of five bytes — its type, the length of its payload (2, big endian), a check
 * (2) of both — and the payload of at most 16 KiB. A connection begins with a hello of each side,
 * the client's first: eight bytes. From both follows a stream of key bytes for each direction,
 * which the payload of data records is combined with (XOR). The end record has no payload.
 */
#ifndef RINGWS_TESTS_SUPPORT_TOY_WIRE_H
#define RINGWS_TESTS_SUPPORT_TOY_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define TOY_HEADER      5u
#define TOY_PAYLOAD_MAX 16384u
#define TOY_HELLO       8u
#define TOY_RECORD_MAX  (TOY_HEADER + TOY_PAYLOAD_MAX)

typedef enum toy_type {
    TOY_CLIENT_HELLO = 0xC1,
    TOY_SERVER_HELLO = 0xC2,
    TOY_DATA = 0xC3,
    TOY_END = 0xC4,
} toy_type;

/* The key bytes of one direction: each record begins with a new word of them. */
typedef struct toy_key {
    uint64_t seed, word;
} toy_key;

/* What the header of a record says; `type` 0: it is not one. */
typedef struct toy_record {
    uint8_t type;
    uint16_t len;
} toy_record;

static inline uint16_t toy_check(uint8_t type, uint16_t len)
{
    return (uint16_t)(0x7019u ^ len ^ type * 0x0101u);
}

static inline void toy_write_header(uint8_t out[TOY_HEADER], uint8_t type, uint16_t len)
{
    uint16_t check = toy_check(type, len);
    out[0] = type;
    out[1] = (uint8_t)(len >> 8);
    out[2] = (uint8_t)len;
    out[3] = (uint8_t)(check >> 8);
    out[4] = (uint8_t)check;
}

static inline toy_record toy_read_header(const uint8_t in[TOY_HEADER])
{
    toy_record record = {in[0], (uint16_t)(in[1] << 8 | in[2])};
    bool good = (in[3] << 8 | in[4]) == toy_check(record.type, record.len);
    switch (record.type) {
    case TOY_CLIENT_HELLO:
    case TOY_SERVER_HELLO: good = good && record.len == TOY_HELLO; break;
    case TOY_DATA: good = good && record.len > 0 && record.len <= TOY_PAYLOAD_MAX; break;
    case TOY_END: good = good && record.len == 0; break;
    default: good = false;
    }
    if (!good) record.type = 0;
    return record;
}

static inline size_t toy_write_hello(uint8_t *out, uint8_t type, uint64_t half)
{
    toy_write_header(out, type, TOY_HELLO);
    memcpy(out + TOY_HEADER, &half, TOY_HELLO);
    return TOY_HEADER + TOY_HELLO;
}

static inline uint64_t toy_mix(uint64_t value)
{
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9u;
    value = (value ^ (value >> 27)) * 0x94D049BB133111EBu;
    return value ^ (value >> 31);
}

/* The key of what the client (or the server) sends. */
static inline toy_key toy_make_key(uint64_t client_half, uint64_t server_half, bool of_client)
{
    return (toy_key){toy_mix(client_half + 3 * server_half + of_client), 0};
}

/* Seal or open one record's payload; `out` may be `in`. */
static inline void toy_xor(toy_key *key, uint8_t *out, const uint8_t *in, size_t len)
{
    size_t at = 0;
    for (; at + 8 <= len; at += 8) {
        uint64_t word;
        memcpy(&word, in + at, 8);
        word ^= toy_mix(key->seed + key->word++);
        memcpy(out + at, &word, 8);
    }
    if (at == len) return;
    uint64_t word = toy_mix(key->seed + key->word++);
    for (; at < len; at++, word >>= 8)
        out[at] = (uint8_t)(in[at] ^ word);
}

/* A data record of `len` bytes; returns its length. */
static inline size_t toy_write_data(toy_key *key, uint8_t *out, const uint8_t *in, size_t len)
{
    toy_write_header(out, TOY_DATA, (uint16_t)len);
    toy_xor(key, out + TOY_HEADER, in, len);
    return TOY_HEADER + len;
}

#endif
