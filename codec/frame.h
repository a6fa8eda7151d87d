/*
 * The frame header, RFC 6455 section 5.2: bytes to fields and back. Only what one
 * header by itself can show is checked here; the rules between frames are in
 * message.h.
 */
#ifndef RINGWS_CODEC_FRAME_H
#define RINGWS_CODEC_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ringws/types.h"

#define RWS__FRAME_HEADER_MAX  14  /* 2 + 8 length bytes + 4 key bytes */
#define RWS__FRAME_CONTROL_MAX 125 /* section 5.5 */

#define RWS__RSV1 0x40u
#define RWS__RSV2 0x20u
#define RWS__RSV3 0x10u

typedef struct rws__frame {
    uint64_t payload_len;
    uint32_t mask_key; /* bytes in memory order as on the wire; 0 if not masked */
    uint8_t opcode;    /* a rws_opcode */
    uint8_t rsv;       /* RWS__RSV1 | RWS__RSV2 | RWS__RSV3, as on the wire */
    bool fin;
    bool masked;
} rws__frame;

/*
 * Parse the header that starts at `data` (`len` bytes). Returns
 *   > 0              its length; `*frame` is filled;
 *   0                more bytes are needed (at most RWS__FRAME_HEADER_MAX in all);
 *   RWS_E_PROTOCOL   a reserved opcode, a control frame that is fragmented or over
 *                    125 bytes, a length that is not in its shortest form or has
 *                    its top bit set. Found at the earliest byte that shows it.
 * `*frame` is unspecified unless the result is > 0.
 */
int rws__frame_parse(rws__frame *frame, const uint8_t *data, size_t len);

/*
 * Write the header of `frame` to `out`, which has room for RWS__FRAME_HEADER_MAX bytes.
 * Returns its length.
 */
size_t rws__frame_write(uint8_t *out, const rws__frame *frame);

/* The same for an unmasked frame of less than 126 bytes: two bytes. */
static inline size_t rws__frame_write_small(uint8_t *out, uint8_t opcode, bool fin, size_t len)
{
    out[0] = (uint8_t)((fin ? 0x80u : 0) | opcode);
    out[1] = (uint8_t)len;
    return 2;
}

/* The length of the header that rws__frame_write() would write. */
size_t rws__frame_header_len(uint64_t payload_len, bool masked);

#endif
