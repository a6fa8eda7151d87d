/*
 * The messages of the load tester: made once, all different, checked in full.
 *
 * A message is a window into one prepared buffer of pattern bytes (text: 90 % ASCII and 10 %
 * multi-byte characters; binary: all byte values). Its first 8 bytes are a counter that no other
 * message of the run has, written as 8 ASCII characters so that it fits text too. The window starts
 * at a place that goes with the number, so bytes of another message at the same offset — a
 * swapped, repeated or torn echo — differ from the ones that are expected.
 *
 * Nothing is generated per message: sending writes the 8 bytes and puts the pattern's own back,
 * checking is one memcmp.
 */
#ifndef RINGWS_TOOLS_PAYLOAD_H
#define RINGWS_TOOLS_PAYLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PAYLOAD_COUNTER_BYTES = 8,
    PAYLOAD_WINDOWS = 256, /* different places where a message may start; a power of two */
};

/* One per thread: a message in the making changes the buffer for a moment. */
typedef struct payload {
    uint8_t *bytes;
    size_t size;                       /* of one message */
    uint32_t windows[PAYLOAD_WINDOWS]; /* offsets into `bytes` */
    uint8_t saved[PAYLOAD_COUNTER_BYTES];
} payload;

/** Fill the buffer from `seed`. Returns 0 or -ENOMEM. */
int payload_init(payload *p, size_t size, bool text, uint64_t seed);
void payload_free(payload *p);

/**
 * Message `number` of connection `connection`: `p->size` bytes, valid until payload_end(), which
 * must come before the next call.
 */
const uint8_t *payload_begin(payload *p, uint32_t connection, uint32_t number);
void payload_end(payload *p, uint32_t connection, uint32_t number);

/** Whether `data` is that message, byte for byte. */
bool payload_equal(const payload *p, uint32_t connection, uint32_t number, const void *data,
                   size_t len);

/** The offset of the first byte that is wrong, or the shorter length if only the lengths differ. */
size_t payload_mismatch(payload *p, uint32_t connection, uint32_t number, const void *data,
                        size_t len);

#endif
