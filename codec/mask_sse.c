/*
 * Masking and UTF-8 with vectors of 16 bytes. Every x86-64 has SSE2, which masks; UTF-8 in vectors
 * needs the byte shuffle of SSSE3.
 */
#include "codec/mask_impl.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include "codec/mask_small.h"
#include "codec/utf8_scalar.h"

#define MASK_VEC_BYTES 16
#define MASK_TARGET
#include "codec/mask_vectors.inc"

static size_t sse2_unmask_utf8(rws__utf8 *utf8, uint8_t *data, size_t len, uint32_t *key)
{
    *key = mask_vectors(data, data, len, *key);
    return rws__utf8_scalar64(utf8, data, len);
}

static bool sse2_unmask_text(uint8_t *data, size_t len, uint32_t key)
{
    rws__utf8 utf8 = {0};
    sse2_unmask_utf8(&utf8, data, len, &key);
    return rws__utf8_is_complete(&utf8);
}

const rws__mask_impl rws__mask_sse2 = {
    .name = "sse2",
    .mask = mask_vectors,
    .unmask_utf8 = sse2_unmask_utf8,
    .unmask_text = sse2_unmask_text,
    .utf8 = rws__utf8_scalar64,
};

#define TARGET __attribute__((target("ssse3")))
#define FN     static inline __attribute__((always_inline)) TARGET

#define UTF8_TARGET TARGET
#define VEC_BYTES   16
typedef __m128i vec;

FN vec vec_load(const uint8_t *data)
{
    return _mm_loadu_si128((const __m128i *)data);
}

FN void vec_store(uint8_t *out, vec bytes)
{
    _mm_storeu_si128((__m128i *)out, bytes);
}

FN vec vec_key(uint32_t key)
{
    return _mm_set1_epi32((int)key);
}

FN vec vec_splat(uint8_t byte)
{
    return _mm_set1_epi8((char)byte);
}

FN vec vec_table(const uint8_t table[16])
{
    return _mm_loadu_si128((const __m128i *)table);
}

FN vec vec_lookup(vec table, vec nibbles)
{
    return _mm_shuffle_epi8(table, nibbles);
}

FN vec vec_high(vec bytes)
{
    return _mm_and_si128(_mm_srli_epi16(bytes, 4), _mm_set1_epi8(0x0F));
}

FN vec vec_subs(vec a, vec b)
{
    return _mm_subs_epu8(a, b);
}

#define vec_before(bytes, last, n) _mm_alignr_epi8(bytes, last, 16 - (n))

FN uint32_t vec_nonzero(vec bytes)
{
    return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_setzero_si128())) ^ 0xFFFF;
}

FN bool vec_any(vec bits)
{
    return vec_nonzero(bits) != 0;
}

FN bool vec_any_sign(vec bytes)
{
    return _mm_movemask_epi8(bytes) != 0;
}

#include "codec/utf8_lookup.inc"
#include "codec/utf8_blocks.inc"

const rws__mask_impl rws__mask_ssse3 = {
    .name = "ssse3",
    .mask = mask_vectors,
    .unmask_utf8 = simd_unmask_utf8,
    .unmask_text = simd_unmask_text,
    .utf8 = simd_utf8,
};

#endif
