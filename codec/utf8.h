/*
 * Incremental UTF-8 validation, RFC 3629: no surrogates, no overlong forms,
 * nothing above U+10FFFF. It fails at the first byte that can't be valid, also
 * when the text arrives in pieces that cut a character.
 */
#ifndef RINGWS_CODEC_UTF8_H
#define RINGWS_CODEC_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The state between two pieces. Zero is the start: between two characters. */
typedef struct rws__utf8 {
    uint8_t state;
} rws__utf8;

/*
 * Check the next `len` bytes. Returns `len`, or the index of the first byte that
 * can't be valid; the state is then rejected for good.
 */
size_t rws__utf8_check(rws__utf8 *utf8, const uint8_t *data, size_t len);

/* Whether the text may end here: no character is cut and nothing was rejected. */
bool rws__utf8_is_complete(const rws__utf8 *utf8);

/* Check a whole text. */
bool rws__utf8_is_valid(const uint8_t *data, size_t len);

#endif
