/*
 * A connection as both of its ends see it, and the numbered messages on it. Everything that was
 * accepted for sending is counted at one end and checked at the other: once, in order, with every
 * byte.
 *
 * A message names its stream and its number, and its bytes follow from them. A pair has three
 * streams: what the client says, which the server sends back as it is, what the server says by
 * itself, and what is posted to it. Broadcasts are one stream for all.
 */
#ifndef RINGWS_TESTS_SIMULATOR_PAIR_H
#define RINGWS_TESTS_SIMULATOR_PAIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ringws/ringws.h"

#define STREAM_BROADCAST 2u
/* 16 digits of the stream, 8 of the number, 8 of the length, and a letter for the opcode. */
#define MESSAGE_HEAD 33u

typedef struct pair_end {
    bool open, closed, failed; /* on_open, on_close, on_dial_error came */
    bool closes;               /* it called rws_conn_close(), with */
    uint16_t code;
    const char *reason;
    bool paused;
    rws_conn *conn; /* between on_open and on_close */
    uint64_t id;
} pair_end;

typedef struct pair {
    uint64_t key;
    pair_end client, server;
    uint64_t dial_id;
    bool raw;                     /* the client is one without the engine */
    bool honest;                  /* nothing but what a proper peer does */
    bool excused;                 /* it may end in any way: it was cut, reset, or had no memory */
    uint32_t asked, heard;        /* the client's messages: sent, received by the server */
    uint32_t echoed, echoes;      /* sent back by the server, received by the client */
    uint32_t told, listened;      /* the server's own */
    uint32_t posted, posted_next; /* numbers below have been seen */
    uint32_t posts_taken, posts_received; /* accepted, and received by the client */
    uint32_t pings, pongs;                /* sent by the client, answered */
    uint32_t ping_next;                   /* numbers below have been answered, or never will be */
    uint64_t dial_limit_us;               /* its outcome is known by then; 0: not a dial */
    uint32_t broadcast, broadcasts;       /* accepted for it, received by it */
    uint32_t broadcast_next;              /* numbers below have been seen */
    rws_message *waits[64];               /* echoes that found no room */
    uint32_t waits_count;
    uint64_t resume_us; /* paused until then */
    bool rested;        /* for long */
    bool takes;         /* the client takes what is sent, slowly, and waits for more */
    struct pair *next;
} pair;

static inline uint64_t pair_stream_asked(const pair *own)
{
    return own->key * 4;
}
static inline uint64_t pair_stream_told(const pair *own)
{
    return own->key * 4 + 1;
}
static inline uint64_t pair_stream_posted(const pair *own)
{
    return own->key * 4 + 3;
}

/* Write a message of `len` bytes (at least MESSAGE_HEAD). */
void message_write(char *out, uint64_t stream, uint32_t number, size_t len, rws_opcode opcode);
/* Read its head and check every byte. False: it is none. */
bool message_check(const char *data, size_t len, rws_opcode opcode, uint64_t *stream,
                   uint32_t *number);

/* The server has received a message; the client has. `fail()` if it should not have. */
void pair_heard(pair *own, const char *data, size_t len, rws_opcode opcode);
void pair_client_received(pair *own, const char *data, size_t len, rws_opcode opcode);
/* A pong has come; pings carry their number. */
void pair_pong(pair *own, const char *data, size_t len);
#define PING_BYTES 8u
void ping_write(char *out, uint32_t number);

#endif
