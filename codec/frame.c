/*
 * The frame header, RFC 6455 section 5.2:
 *
 *   byte 0   FIN | RSV1 | RSV2 | RSV3 | opcode (4 bits)
 *   byte 1   MASK | length (7 bits): 0–125, or 126: 2 more bytes, or 127: 8 more bytes
 *   then     the extended length in network byte order, then the key if MASK is set
 *
 * Most frames of most programs have a short length and arrive whole, so that case is a straight
 * line with two rarely taken exits; the long forms and the cut headers are off to the side.
 */
#include "codec/frame.h"

#include <string.h>

#define FIN        0x80u
#define MASK       0x80u
#define OPCODE     0x0Fu
#define RSV        (RWS__RSV1 | RWS__RSV2 | RWS__RSV3)
#define CONTROL    0x08u /* section 5.5: control frames have the top bit of the opcode set */
#define LEN        0x7Fu
#define LEN_16     126u
#define LEN_64     127u
#define KEY_BYTES  4u
#define LEN_16_MAX 0xFFFFu

/*
 * Section 5.2: opcodes 0–2 and 8–10 are defined; section 5.5: a control frame must have FIN set.
 * One bit for each pair of FIN (the upper half) and opcode.
 */
static bool first_byte_is_valid(uint8_t first)
{
    const uint32_t valid = 0x07070007u;
    return valid >> ((first & FIN) >> 3 | (first & OPCODE)) & 1u;
}

static uint64_t read_big_endian(const uint8_t *data, size_t len)
{
    uint64_t value = 0;
    for (size_t i = 0; i < len; i++)
        value = value << 8 | data[i];
    return value;
}

/*
 * The length forms 126 and 127 of a header that has its first two bytes. Returns the offset behind
 * the length, 0 or RWS_E_PROTOCOL; section 5.2: the minimal number of bytes must be used, and the
 * most significant bit of a 64-bit length must be 0.
 */
static int parse_long_length(uint64_t *payload_len, const uint8_t *data, size_t len)
{
    if (data[0] & CONTROL) return RWS_E_PROTOCOL; /* section 5.5: 125 bytes or less */

    if ((data[1] & LEN) == LEN_16) {
        if (len < 4) return 0;
        *payload_len = read_big_endian(data + 2, 2);
        return *payload_len < LEN_16 ? RWS_E_PROTOCOL : 4;
    }

    if (len > 2 && (data[2] & 0x80u)) return RWS_E_PROTOCOL;
    /* Six zero bytes at the top leave what the 16-bit form could have said. */
    if (len >= 8 && read_big_endian(data + 2, 6) == 0) return RWS_E_PROTOCOL;
    if (len < 10) return 0;
    *payload_len = read_big_endian(data + 2, 8);
    return 10;
}

int rws__frame_parse(rws__frame *frame, const uint8_t *data, size_t len)
{
    if (len == 0) return 0;
    if (!first_byte_is_valid(data[0])) return RWS_E_PROTOCOL;
    if (len < 2) return 0;

    size_t offset = 2;
    frame->payload_len = data[1] & LEN;
    if (frame->payload_len >= LEN_16) {
        int result = parse_long_length(&frame->payload_len, data, len);
        if (result <= 0) return result;
        offset = (size_t)result;
    }

    frame->masked = (data[1] & MASK) != 0;
    frame->mask_key = 0;
    if (frame->masked) {
        if (len < offset + KEY_BYTES) return 0;
        memcpy(&frame->mask_key, data + offset, KEY_BYTES);
        offset += KEY_BYTES;
    }
    frame->opcode = data[0] & OPCODE;
    frame->rsv = data[0] & RSV;
    frame->fin = (data[0] & FIN) != 0;
    return (int)offset;
}

static void write_big_endian(uint8_t *out, uint64_t value, size_t len)
{
    for (size_t i = len; i-- > 0; value >>= 8)
        out[i] = (uint8_t)value;
}

size_t rws__frame_write(uint8_t *out, const rws__frame *frame)
{
    const uint8_t mask = frame->masked ? MASK : 0;
    size_t offset = 2;

    out[0] = (uint8_t)((frame->fin ? FIN : 0) | (frame->rsv & RSV) | (frame->opcode & OPCODE));
    if (frame->payload_len < LEN_16) {
        out[1] = (uint8_t)(mask | frame->payload_len);
    } else if (frame->payload_len <= LEN_16_MAX) {
        out[1] = (uint8_t)(mask | LEN_16);
        write_big_endian(out + 2, frame->payload_len, 2);
        offset = 4;
    } else {
        out[1] = (uint8_t)(mask | LEN_64);
        write_big_endian(out + 2, frame->payload_len, 8);
        offset = 10;
    }
    if (frame->masked) {
        memcpy(out + offset, &frame->mask_key, KEY_BYTES);
        offset += KEY_BYTES;
    }
    return offset;
}

size_t rws__frame_header_len(uint64_t payload_len, bool masked)
{
    const size_t key = masked ? KEY_BYTES : 0;
    if (payload_len < LEN_16) return 2 + key;
    return (payload_len <= LEN_16_MAX ? 4 : 10) + key;
}
