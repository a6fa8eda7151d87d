/*
 * Masking, RFC 6455 section 5.3: octet i of the payload is XORed with octet
 * i mod 4 of the key.
 *
 * A key is held as the uint32_t whose bytes in memory are the key's bytes on the
 * wire. A payload that arrives in pieces is masked with a rotated key: the key
 * that a call returns has its first byte aligned with the next payload byte, so no
 * caller counts positions.
 */
#ifndef RINGWS_CODEC_MASK_H
#define RINGWS_CODEC_MASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "codec/utf8.h"

/* The key as it has to be used after `len` more payload bytes. */
uint32_t rws__mask_rotate(uint32_t key, size_t len);

/*
 * Write `len` bytes of `src`, masked, to `dst`. `dst` is `src` itself or does not
 * overlap it. Returns the rotated key.
 */
uint32_t rws__mask(uint8_t *dst, const uint8_t *src, size_t len, uint32_t key);

/*
 * Unmask `data` in place and check it as the next bytes of a UTF-8 text. All
 * `len` bytes are unmasked, whatever they hold. `*key` is rotated. Returns `len`,
 * or the index of the first byte that can't be valid (`utf8` is then rejected).
 */
size_t rws__unmask_utf8(rws__utf8 *utf8, uint8_t *data, size_t len, uint32_t *key);

/*
 * Unmask `data`, a whole text, in place. Returns whether it is valid UTF-8; if it is not, what is
 * unmasked of it is unspecified. Made for short texts, whose cost is what surrounds the work.
 */
bool rws__unmask_text(uint8_t *data, size_t len, uint32_t key);

/* One implementation; the table below lists the ones that this machine can run. */
typedef struct rws__mask_impl {
    const char *name; /* "avx512", "avx2", "ssse3", "sse2", "neon", "scalar64", "bytewise" */
    uint32_t (*mask)(uint8_t *dst, const uint8_t *src, size_t len, uint32_t key);
    size_t (*unmask_utf8)(rws__utf8 *utf8, uint8_t *data, size_t len, uint32_t *key);
    bool (*unmask_text)(uint8_t *data, size_t len, uint32_t key);
    size_t (*utf8)(rws__utf8 *utf8, const uint8_t *data, size_t len);
} rws__mask_impl;

/*
 * The implementations that this machine can run, best first; the last one is the
 * byte-by-byte reference. `*count` receives their number. For tests and benchmarks:
 * rws__mask() and the others use the first.
 */
const rws__mask_impl *const *rws__mask_impls(size_t *count);

#endif
