/*
 * UTF-8 one byte at a time: the reference that every SIMD implementation is held to, and the means
 * by which they start in the middle of a character, end in one, and find the exact byte that is
 * wrong.
 */
#ifndef RINGWS_CODEC_UTF8_SCALAR_H
#define RINGWS_CODEC_UTF8_SCALAR_H

#include <stddef.h>
#include <stdint.h>

#include "codec/utf8.h"

/* What rws__utf8.state holds: what the next byte has to be. RFC 3629, section 4. */
enum {
    RWS__UTF8_START, /* the first byte of a character; the text may end here */
    RWS__UTF8_TAIL1, /* the last byte of a character */
    RWS__UTF8_TAIL2,
    RWS__UTF8_TAIL3,
    RWS__UTF8_AFTER_E0, /* no overlong form of three bytes */
    RWS__UTF8_AFTER_ED, /* no surrogate */
    RWS__UTF8_AFTER_F0, /* no overlong form of four bytes */
    RWS__UTF8_AFTER_F4, /* nothing above U+10FFFF */
    RWS__UTF8_REJECTED,
};

/* rws__utf8_check(), byte by byte. */
size_t rws__utf8_bytewise(rws__utf8 *utf8, const uint8_t *data, size_t len);

/* The same, with ASCII taken eight bytes at a time. */
size_t rws__utf8_scalar64(rws__utf8 *utf8, const uint8_t *data, size_t len);

/*
 * How many of the next `len` bytes are needed to finish the character that was begun, if they are
 * what they have to be. 1 once rejected, so that there is a byte to reject.
 */
size_t rws__utf8_tails(const rws__utf8 *utf8, size_t len);

/*
 * rws__utf8_check(), byte by byte, of a text of which the bytes before `at` are known to be good,
 * but for a last character that may be unfinished or may turn out wrong with the byte at `at`.
 */
size_t rws__utf8_from_lead(rws__utf8 *utf8, const uint8_t *data, size_t at, size_t len);

#endif
