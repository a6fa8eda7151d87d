/*
 * The forms of a message, and what they have in common: `head`, which is public (ringws/message.h).
 *
 *   CONSTANT  read-only data of the program; nobody counts
 *   CREATED   a block of the allocator; every holder on any thread is one atomic count
 *   PAYLOAD   a block of a shard's pool (base/payload.h); holders on the loop are a plain count
 *   RECEIVED  in a provided buffer, or other memory that is the engine's again when on_message
 *             returns; it is always copied out to be held, so that a thread that is not the loop
 *             never meets one
 *
 * In all but RECEIVED the head is followed by room for a frame's header, which is written when the
 * message is made, and by the payload. A compressed or masked form of the frame would be a second
 * one that a CREATED or PAYLOAD message leads to, found and made where rws__message_lend() is asked
 * for the plain one.
 */
#ifndef RINGWS_CONN_MESSAGE_H
#define RINGWS_CONN_MESSAGE_H

#include "engine/base/payload.h"
#include "ringws/message.h"

#include <assert.h>
#include <stddef.h>

enum {
    RWS__MESSAGE_CONSTANT = RWS_MESSAGE_CONSTANT,
    RWS__MESSAGE_CREATED,
    RWS__MESSAGE_PAYLOAD,
    RWS__MESSAGE_RECEIVED,
};

/* From the head to the payload. */
#define RWS__MESSAGE_DATA 24u

static_assert(sizeof(rws_message) == 8 && RWS__MESSAGE_DATA == 8 + RWS__PAYLOAD_ROOM,
              "constants of programs are laid out so");
static_assert(offsetof(rws__payload, data) - offsetof(rws__payload, head) == RWS__MESSAGE_DATA,
              "a payload is a message");

/* Keeps a frame within a chunk's 32-bit counts. */
#define RWS__MESSAGE_BYTES_MAX 0x7FF00000u

typedef struct rws__received {
    rws_message head; /* header_len 0: no header was written before the data yet */
    uint8_t *data;
    rws__pool *pool; /* of the loop */
} rws__received;

static inline rws_message rws__message_head(uint8_t form, uint8_t opcode, size_t len)
{
    return (rws_message){
        .layout = RWS_MESSAGE_LAYOUT, .form = form, .opcode = opcode, .len = (uint32_t)len};
}

/* Whether a program may send this as a message. */
static inline bool rws__may_send(rws_opcode opcode, const void *data, size_t len)
{
    return (opcode == RWS_TEXT || opcode == RWS_BINARY) && (data != NULL || len == 0) &&
           len <= RWS__MESSAGE_BYTES_MAX;
}

static inline const uint8_t *rws__message_data(const rws_message *message)
{
    if (message->form == RWS__MESSAGE_RECEIVED) return ((const rws__received *)message)->data;
    return (const uint8_t *)message + RWS__MESSAGE_DATA;
}

/* The frame as a server sends it; not of a RECEIVED one. */
static inline size_t rws__message_frame(const rws_message *message, const uint8_t **frame)
{
    *frame = (const uint8_t *)message + RWS__MESSAGE_DATA - message->header_len;
    return (size_t)message->header_len + message->len;
}

/* A whole payload becomes a message. */
void rws__message_from_payload(rws__payload *payload, uint8_t opcode);

/* Whether it lies where it is for longer than a turn; not for RECEIVED ones, nor for a payload that
 * is in on_message and was not retained. */
bool rws__message_is_held(const rws_message *message);

/* The lender for one more loan of its frame to a queue of the loop that `pool` belongs to; NULL: it
 * has to be copied. Not of a RECEIVED one. */
rws__lender *rws__message_lend(const rws_message *message, const rws__pool *pool);

#endif
