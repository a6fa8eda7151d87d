/*
 * Masking and UTF-8 with AVX2: vectors of 32 bytes.
 */
#include "codec/mask_impl.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include "codec/mask_small.h"
#include "codec/utf8_scalar.h"

#define TARGET __attribute__((target("avx2")))
#define FN     static inline __attribute__((always_inline)) TARGET

#define MASK_VEC_BYTES 32
#define MASK_TARGET    TARGET
#include "codec/mask_vectors.inc"

#define UTF8_TARGET TARGET
#define VEC_BYTES   32
typedef __m256i vec;

FN vec vec_load(const uint8_t *data)
{
    return _mm256_loadu_si256((const __m256i *)data);
}

FN void vec_store(uint8_t *out, vec bytes)
{
    _mm256_storeu_si256((__m256i *)out, bytes);
}

FN vec vec_key(uint32_t key)
{
    return _mm256_set1_epi32((int)key);
}

FN vec vec_splat(uint8_t byte)
{
    return _mm256_set1_epi8((char)byte);
}

/* In both halves, because a lookup stays in its half. */
FN vec vec_table(const uint8_t table[16])
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table));
}

FN vec vec_lookup(vec table, vec nibbles)
{
    return _mm256_shuffle_epi8(table, nibbles);
}

FN vec vec_high(vec bytes)
{
    return _mm256_and_si256(_mm256_srli_epi16(bytes, 4), _mm256_set1_epi8(0x0F));
}

FN vec vec_subs(vec a, vec b)
{
    return _mm256_subs_epu8(a, b);
}

/* alignr stays in its half, too: beside each half, put the one before it. */
#define vec_before(bytes, last, n)                                                                 \
    _mm256_alignr_epi8(bytes, _mm256_permute2x128_si256(last, bytes, 0x21), 16 - (n))

FN bool vec_any(vec bits)
{
    return !_mm256_testz_si256(bits, bits);
}

FN bool vec_any_sign(vec bytes)
{
    return _mm256_movemask_epi8(bytes) != 0;
}

FN uint32_t vec_nonzero(vec bytes)
{
    return ~(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, _mm256_setzero_si256()));
}

#include "codec/utf8_lookup.inc"
#include "codec/utf8_blocks.inc"

const rws__mask_impl rws__mask_avx2 = {
    .name = "avx2",
    .mask = mask_vectors,
    .unmask_utf8 = simd_unmask_utf8,
    .unmask_text = simd_unmask_text,
    .utf8 = simd_utf8,
};

#endif
