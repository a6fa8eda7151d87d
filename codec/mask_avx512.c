/*
 * Masking and UTF-8 with AVX-512: 64 bytes are one vector, and what is asked of its bytes comes
 * back as the 64 bits of one integer.
 *
 * Two rules make UTF-8. How many tails follow a first byte: three compares find the first bytes of
 * at least two, three and four bytes, and shifted by one, two and three places they say where tails
 * have to be; exactly there they must be. Which tail may follow at once (E0, ED, F0 and F4 are
 * choosy; C0, C1 and F5 to FF take none): one table maps first bytes to the kinds of tail they
 * forbid, another maps tails to their kind, and with the first moved up by one byte no bit may be
 * set in both.
 */
#include "codec/mask_impl.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include "codec/mask_small.h"
#include "codec/utf8_scalar.h"

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vbmi,bmi2")))
#define FN     static inline __attribute__((always_inline)) TARGET

#define MASK_VEC_BYTES 64
#define MASK_TARGET    TARGET
#include "codec/mask_vectors.inc"

/* The kinds of tail. */
enum { T8 = 1, T9 = 2, TAB = 4 }; /* 80–8F, 90–9F, A0–BF */

/* What a first byte C0–FF, by its low six bits, forbids to follow. */
static const uint8_t utf8_forbids[64] __attribute__((aligned(64))) = {
    [0x00 ... 0x01] = T8 | T9 | TAB, /* C0, C1: overlong */
    [0x20] = T8 | T9,                /* E0: overlong */
    [0x2D] = TAB,                    /* ED: surrogates */
    [0x30] = T8,                     /* F0: overlong */
    [0x34] = T9 | TAB,               /* F4: above U+10FFFF */
    [0x35 ... 0x3F] = T8 | T9 | TAB, /* F5–FF: above it, too */
};

/* The kind of a tail 80–BF, by its low six bits. */
static const uint8_t utf8_kinds[64] __attribute__((aligned(64))) = {
    [0x00 ... 0x0F] = T8,
    [0x10 ... 0x1F] = T9,
    [0x20 ... 0x3F] = TAB,
};

typedef __m512i utf8_keys;
typedef __m512i utf8_block;

typedef struct utf8_carry {
    uint64_t tails;  /* where the next block has to have tails */
    __m512i forbids; /* only the last byte counts */
} utf8_carry;

FN utf8_keys utf8_keys_of(uint32_t key)
{
    return _mm512_set1_epi32((int)key);
}

FN utf8_block block_load(const uint8_t *data)
{
    return _mm512_loadu_si512(data);
}

FN void block_store(uint8_t *out, utf8_block block)
{
    _mm512_storeu_si512(out, block);
}

FN utf8_block block_xor(utf8_block block, utf8_keys keys)
{
    return _mm512_xor_si512(block, keys);
}

/* Bytes that are masked out are not touched: the end may be the end of a page. */
FN __mmask64 first_bytes(size_t len)
{
    return _bzhi_u64(~(uint64_t)0, (unsigned)len);
}

FN utf8_block block_part(const uint8_t *data, size_t len)
{
    return _mm512_maskz_loadu_epi8(first_bytes(len), data);
}

FN utf8_block block_part_unmask(uint8_t *data, size_t len, uint32_t key)
{
    const __m512i keys = _mm512_maskz_mov_epi8(first_bytes(len), utf8_keys_of(key));
    const __m512i block = _mm512_xor_si512(block_part(data, len), keys);
    /* Not a masked store: the next header lies in its 64 bytes, and a load there waits for it. */
    rws__mask_small(data, data, len, key);
    return block;
}

FN bool block_is_ascii(utf8_block block)
{
    return _mm512_movepi8_mask(block) == 0;
}

FN bool carry_is_cut(const utf8_carry *carry)
{
    return carry->tails != 0;
}

/* Each is used more than once. Left to itself gcc keeps it in a mask register and moves it every
 * time, which takes a third of the speed. */
FN uint64_t bits_of(__mmask64 mask)
{
    uint64_t bits = mask;
    __asm__("" : "+r"(bits));
    return bits;
}

FN uint64_t block_errors(utf8_block block, utf8_carry *carry)
{
    const __m512i c0 = _mm512_set1_epi8((char)0xC0);
    const __m512i e0 = _mm512_set1_epi8((char)0xE0);
    const __m512i f0 = _mm512_set1_epi8((char)0xF0);
    const __mmask64 lead = _mm512_cmpge_epu8_mask(block, c0);
    const uint64_t lead2 = bits_of(lead);
    const uint64_t lead3 = bits_of(_mm512_cmpge_epu8_mask(block, e0));
    const uint64_t lead4 = bits_of(_mm512_cmpge_epu8_mask(block, f0));
    const uint64_t tails = bits_of(_mm512_movepi8_mask(block)) ^ lead2;
    const uint64_t wanted = lead2 << 1 | lead3 << 2 | lead4 << 3 | carry->tails;

    /* A byte that is no tail has a kind here, too; after a first byte it is wrong anyway. */
    const __m512i kinds = _mm512_permutexvar_epi8(block, _mm512_load_si512(utf8_kinds));
    const __m512i forbids =
        _mm512_maskz_permutexvar_epi8(lead, block, _mm512_load_si512(utf8_forbids));
    /* Up by one byte over all 64: by 16 first, because alignr works on 16 bytes at a time. */
    const __m512i by16 = _mm512_alignr_epi32(forbids, carry->forbids, 12);
    const __m512i forbidden = _mm512_alignr_epi8(forbids, by16, 15);

    carry->tails = lead2 >> 63 | lead3 >> 62 | lead4 >> 61;
    carry->forbids = forbids;
    return (tails ^ wanted) | _mm512_test_epi8_mask(forbidden, kinds);
}

#define UTF8_TARGET TARGET
#include "codec/utf8_blocks.inc"

const rws__mask_impl rws__mask_avx512 = {
    .name = "avx512",
    .mask = mask_vectors,
    .unmask_utf8 = simd_unmask_utf8,
    .unmask_text = simd_unmask_text,
    .utf8 = simd_utf8,
};

#endif
