/*
 * Masking up to 64 bytes without a call or a loop. Most frames are that short, and every x86-64 and
 * aarch64 has 16-byte vectors, so that nothing need be looked up.
 */
#ifndef RINGWS_CODEC_MASK_SMALL_H
#define RINGWS_CODEC_MASK_SMALL_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "codec/mask.h"

#define RWS__MASK_SMALL_MAX 64

typedef uint32_t rws__mask_vec16 __attribute__((vector_size(16)));

/* The key as it has to be used after `len` more payload bytes. */
static inline uint32_t rws__mask_rotated(uint32_t key, size_t len)
{
    const unsigned bits = 8 * (unsigned)(len % 4);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return key >> bits | key << ((32 - bits) % 32);
#else
    return key << bits | key >> ((32 - bits) % 32);
#endif
}

/* From 16 to 64 bytes. */
static inline void rws__mask_small16(uint8_t *dst, const uint8_t *src, size_t len, uint32_t first,
                                     uint32_t last)
{
    const rws__mask_vec16 from_start = {first, first, first, first};
    const rws__mask_vec16 from_end = {last, last, last, last};
    rws__mask_vec16 head, tail;
    memcpy(&head, src, sizeof head);
    memcpy(&tail, src + len - sizeof tail, sizeof tail);
    if (len > 32) {
        rws__mask_vec16 head2, tail2;
        memcpy(&head2, src + 16, sizeof head2);
        memcpy(&tail2, src + len - 32, sizeof tail2);
        head2 ^= from_start;
        tail2 ^= from_end;
        memcpy(dst + 16, &head2, sizeof head2);
        memcpy(dst + len - 32, &tail2, sizeof tail2);
    }
    head ^= from_start;
    tail ^= from_end;
    memcpy(dst, &head, sizeof head);
    memcpy(dst + len - sizeof tail, &tail, sizeof tail);
}

/*
 * rws__mask() for `len` of at most RWS__MASK_SMALL_MAX. Every length is covered by two vectors (or
 * two pairs), one from the start and one to the end. Where they overlap, both write the same bytes:
 * all are loaded before one is stored. The one to the end starts a multiple of 4 bytes before it,
 * so its key is the rotated one that is returned.
 */
static inline uint32_t rws__mask_small(uint8_t *dst, const uint8_t *src, size_t len, uint32_t key)
{
    const uint32_t last = rws__mask_rotated(key, len);
    if (len >= 16) {
        rws__mask_small16(dst, src, len, key, last);
    } else if (len >= 8) {
        uint64_t head, tail;
        memcpy(&head, src, sizeof head);
        memcpy(&tail, src + len - sizeof tail, sizeof tail);
        head ^= (uint64_t)key << 32 | key;
        tail ^= (uint64_t)last << 32 | last;
        memcpy(dst, &head, sizeof head);
        memcpy(dst + len - sizeof tail, &tail, sizeof tail);
    } else if (len >= 4) {
        uint32_t head, tail;
        memcpy(&head, src, sizeof head);
        memcpy(&tail, src + len - sizeof tail, sizeof tail);
        head ^= key;
        tail ^= last;
        memcpy(dst, &head, sizeof head);
        memcpy(dst + len - sizeof tail, &tail, sizeof tail);
    } else {
        uint8_t octets[4];
        memcpy(octets, &key, sizeof octets);
        for (size_t i = 0; i < len; i++)
            dst[i] = src[i] ^ octets[i];
    }
    return last;
}

#endif
