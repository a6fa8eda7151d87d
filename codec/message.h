/*
 * The message decoder: bytes of a connection in, events out. It applies every rule of
 * RFC 6455 section 5 that concerns more than one header — masking by role, RSV bits,
 * fragments, interleaved control frames, text validity, limits — at every split of its
 * input, and it takes no memory of its own.
 *
 * Invariants:
 * - Input is consumed front to back; a byte is unmasked exactly once, in place.
 * - The events of a data message are one or more RWS__EVENT_DATA, the first with
 *   `message_first`, the last with `message_last`; only these two also mark a whole message
 *   in one event. Every frame gives at least one (an empty frame gives an empty one).
 * - A control frame gives one RWS__EVENT_CONTROL, whole, possibly between the data events.
 * - A cut header or cut control frame is kept in the stash: memory of the caller that exists
 *   only while it is needed. An idle decoder has none.
 * - After RWS__EVENT_ERROR the decoder stays failed.
 */
#ifndef RINGWS_CODEC_MESSAGE_H
#define RINGWS_CODEC_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "codec/frame.h"
#include "codec/utf8.h"
#include "ringws/types.h"

/* A cut header, and behind it a cut control payload. */
#define RWS__STASH_BYTES (RWS__FRAME_HEADER_MAX + RWS__FRAME_CONTROL_MAX)

/* What does not change while connections live; shared by all connections of a shard. */
typedef struct rws__message_rules {
    uint64_t message_bytes_max; /* the sum of a message's frames; one byte more is RWS_E_TOO_BIG */
    uint32_t fragments_max;     /* frames of one message; one more is RWS_E_POLICY; 0: no bound */
    uint32_t empty_fragments_max; /* empty non-final frames in a row; one more is RWS_E_POLICY; 0:
                                     no bound */
    rws_role role;                /* a server wants masked frames, a client unmasked ones */
    bool validate_utf8;
    bool allow_rsv1; /* permessage-deflate was negotiated */
} rws__message_rules;

typedef enum rws__event_kind {
    RWS__EVENT_NEED,    /* the input is used up */
    RWS__EVENT_STASH,   /* set decoder->stash to RWS__STASH_BYTES bytes and call again */
    RWS__EVENT_DATA,    /* payload of a data message */
    RWS__EVENT_CONTROL, /* a whole close, ping or pong */
    RWS__EVENT_ERROR,   /* `status` says why; rws__close_code_for() gives the code */
} rws__event_kind;

typedef struct rws__event {
    rws__event_kind kind;
    uint8_t opcode;     /* DATA: RWS_TEXT or RWS_BINARY of the message; CONTROL: the frame's */
    bool rsv1;          /* DATA: the message is compressed */
    bool frame_first;   /* DATA: the first payload of its frame */
    bool frame_last;    /* DATA: the last payload of its frame */
    bool message_first; /* DATA: the first payload of the message */
    bool message_last;  /* DATA: the last payload of the message; the message was valid */
    int status;         /* ERROR */
    uint8_t *data; /* unmasked payload, borrowed from the input or the stash until the next call */
    size_t len;
} rws__event;

typedef enum rws__decoder_state {
    RWS__DECODER_HEADER = 0, /* zero-initialised memory is a fresh decoder */
    RWS__DECODER_DATA,
    RWS__DECODER_CONTROL,
    RWS__DECODER_FAILED,
} rws__decoder_state;

typedef struct rws__decoder {
    uint8_t *stash;         /* the caller's; NULL while not needed */
    uint64_t frame_left;    /* payload bytes of the current frame that are still to come */
    uint64_t message_bytes; /* payload bytes that the message's frames declared so far */
    uint32_t mask_key;      /* aligned with the next payload byte */
    uint32_t fragments;     /* frames of the current message so far */
    uint32_t empty_run;     /* empty frames in a row, up to now */
    uint8_t state;          /* a rws__decoder_state */
    uint8_t stash_len;      /* bytes of a cut header or control payload in the stash */
    uint8_t frame_opcode;   /* of the current frame */
    uint8_t message_opcode; /* RWS_TEXT or RWS_BINARY while a message is open, else 0 */
    bool frame_fin;
    bool frame_started; /* a DATA event of the current frame was given */
    bool message_started;
    bool message_rsv1;
    rws__utf8 utf8;
    int16_t status; /* why it failed: every later RWS__EVENT_ERROR says the same */
} rws__decoder;

/* Input that is still to be decoded; the decoder moves `data` and `len` forward. */
typedef struct rws__input {
    uint8_t *data; /* writable: payload is unmasked in place */
    size_t len;
} rws__input;

/*
 * Decode up to the next event. In a connection that was idle and gets whole frames this is
 * one header parse and one pass over the payload per call.
 */
void rws__decoder_next(rws__decoder *decoder, const rws__message_rules *rules, rws__input *input,
                       rws__event *event);

/*
 * Whether the decoder holds nothing in its stash: the caller may take the memory back
 * (and set `stash` to NULL) between two calls.
 */
bool rws__decoder_stash_is_free(const rws__decoder *decoder);

/* Whether nothing of a frame or message is pending: an end of stream here cuts nothing. */
bool rws__decoder_is_idle(const rws__decoder *decoder);

#endif
