/*
 * One stream on the scripted ring, without connections: what is above it writes down what it is
 * told, a word per call ("up eof released "), and collects the input. The peer speaks the toy
 * filter (toy_wire.h), or plain bytes.
 */
#ifndef RINGWS_TESTS_SUPPORT_SCRIPTED_STREAM_H
#define RINGWS_TESTS_SUPPORT_SCRIPTED_STREAM_H

#include "support/scripted_ring.h"
#include "support/toy_filter.h"

#define LINE_FILE 7u /* the stream's */

typedef struct line {
    rws__loop loop; /* first: a stream leads to its line */
    rws__streams streams;
    rws__ring *ring;
    rws__stream *stream; /* NULL: released */
    feed_bytes log;
    feed_bytes received;
    char ended_text[256];   /* of the cause */
    bool echo;              /* queue what came */
    bool finish_at_eof;     /* with RWS__FINISH_CLOSE */
    size_t pause_at;        /* pause when so many bytes came in all; 0: never */
    size_t finish_at;       /* finish when so many bytes came in all; 0: never */
    rws__finish finish_as;  /* how */
    size_t direct_bytes;    /* to be received directly; 0: none */
    uint8_t direct[131072]; /* where they go */
} line;

/* The peer's end of the toy filter. */
typedef struct line_peer {
    bool is_client;
    bool greeted, ended;
    uint64_t half;
    toy_key in, out;
    size_t read; /* bytes of the ring's wire */
    feed_bytes plain;
    const char *broken;
} line_peer;

/* A loop, and on it a stream that has just been accepted; `maker` NULL: no filter. */
void line_start(line *l, const toy_maker *maker);
/* The same in two steps, for what happens in between. */
void line_init(line *l);
void line_accept(line *l, const toy_maker *maker);
/* Cut what is still there, and check that all memory came back. */
void line_end(line *l);
/* The ring goes away as it is. */
void line_abandon(line *l);

/* Submit what the stream wants, up to the kernel's turn: quiet sends can be seen only now. */
void line_pump(line *l);
void line_turn(line *l);
void line_turns(line *l, uint32_t count);
/* Bytes from the peer, in pieces of at most `step`, with a turn after each. */
void line_feed(line *l, const void *data, size_t len, size_t step);
void line_eof(line *l);
/* Queue a copy. */
void line_send(line *l, const void *data, size_t len);
/* The log as a string. */
const char *line_log(line *l);

/* The peer's hello, appended to `out`. */
void line_peer_hello(line_peer *peer, feed_bytes *out);
/* A data record; an end record. */
void line_peer_data(line_peer *peer, feed_bytes *out, const void *data, size_t len);
void line_peer_end(feed_bytes *out);
/* Read what was sent to it. */
void line_peer_read(line_peer *peer, line *l);
/* A stream with the toy filter (`maker` has it last) whose handshake is over; `prefix` goes first.
 */
void line_greet(line *l, line_peer *peer, const toy_maker *maker);
void line_peer_free(line_peer *peer);

#endif
