/*
 * Feeds byte streams to a message decoder in every way they can arrive, and records what comes out
 * in a form that does not depend on the way: whole messages, control frames, the error.
 *
 * Every piece is decoded in a block of its own exact size, and the stash is a block that exists
 * only while the decoder holds something in it, so that the address sanitizer sees a byte too far.
 * The contract of the events (codec/message.h) is checked at every step; `broken` names the first
 * breach.
 */
#ifndef RINGWS_TESTS_SUPPORT_FEED_H
#define RINGWS_TESTS_SUPPORT_FEED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "codec/message.h"

/* Bytes that grow; zero-initialised memory is an empty one. */
typedef struct feed_bytes {
    uint8_t *data;
    size_t len, capacity;
} feed_bytes;

void feed_bytes_append(feed_bytes *bytes, const void *data, size_t len);
void feed_bytes_free(feed_bytes *bytes);

/* How the length of a frame is written; AUTO is the shortest form. */
typedef enum feed_form { FEED_AUTO, FEED_LEN_7, FEED_LEN_16, FEED_LEN_64 } feed_form;

/* The key of every masked frame that is built here. */
extern const uint8_t feed_key[4];

/* A header as the wire has it, written without the codec. `first` is the whole first byte. */
void feed_append_header(feed_bytes *bytes, uint8_t first, bool masked, feed_form form,
                        uint64_t payload_len);

/* A whole frame; its payload is masked if `masked`. */
void feed_append_frame(feed_bytes *bytes, uint8_t first, bool masked, const void *payload,
                       size_t len);

typedef enum feed_kind { FEED_MESSAGE, FEED_CONTROL, FEED_ERROR } feed_kind;

typedef struct feed_item {
    feed_kind kind;
    uint8_t opcode;  /* MESSAGE: RWS_TEXT or RWS_BINARY */
    bool rsv1;       /* MESSAGE */
    uint32_t frames; /* MESSAGE */
    int status;      /* ERROR */
    feed_bytes payload;
    size_t fed; /* bytes of the stream that had been fed when it came */
} feed_item;

typedef struct feed_run {
    rws__decoder decoder;
    const rws__message_rules *rules;
    feed_item *items;
    size_t items_count, items_capacity;
    feed_item open; /* the message that is not complete yet */
    bool in_message;
    bool in_frame;
    bool failed;
    size_t fed;         /* bytes so far */
    size_t frame_end;   /* where the last whole frame ended */
    size_t events;      /* DATA and CONTROL events */
    size_t stash_asked; /* how often the decoder asked for its stash */
    const char *broken; /* a breach of the events' contract, or NULL */
} feed_run;

void feed_init(feed_run *feed, const rws__message_rules *rules);
void feed_free(feed_run *feed);

/* The next `len` bytes of the stream, in one piece; `bytes` is copied. */
void feed_piece(feed_run *feed, const uint8_t *bytes, size_t len);

/* The whole stream: at once, one byte at a time, or cut after `at` bytes. */
void feed_whole(feed_run *feed, const rws__message_rules *rules, const feed_bytes *stream);
void feed_one_by_one(feed_run *feed, const rws__message_rules *rules, const feed_bytes *stream);
void feed_split(feed_run *feed, const rws__message_rules *rules, const feed_bytes *stream,
                size_t at);

/*
 * All of these, `check` after each; `how` names the way. Of a stream that is long, the splits in
 * the first and last bytes and some in between are tried.
 */
typedef void feed_check(const feed_run *feed, const char *how, void *user);
void feed_every_way(const rws__message_rules *rules, const feed_bytes *stream, feed_check *check,
                    void *user);

/* Append an item to what was recorded; its payload is taken. */
void feed_record(feed_run *feed, feed_item item);

/* Whether both recorded the same; else `*why` says what differs. */
bool feed_is_same(const feed_run *a, const feed_run *b, const char **why);

/* The status of the error, or 0 if there was none. */
int feed_status(const feed_run *feed);

#endif
