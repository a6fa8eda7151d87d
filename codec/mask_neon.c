/*
 * Masking and UTF-8 with NEON, which every aarch64 has: vectors of 16 bytes.
 */
#include "codec/mask_impl.h"

#if defined(__aarch64__)

#include <arm_neon.h>

#include "codec/mask_small.h"
#include "codec/utf8_scalar.h"

#define FN static inline __attribute__((always_inline))

#define MASK_VEC_BYTES 16
#define MASK_TARGET
#include "codec/mask_vectors.inc"

#define UTF8_TARGET
#define VEC_BYTES 16
typedef uint8x16_t vec;

FN vec vec_load(const uint8_t *data)
{
    return vld1q_u8(data);
}

FN void vec_store(uint8_t *out, vec bytes)
{
    vst1q_u8(out, bytes);
}

FN vec vec_key(uint32_t key)
{
    return vreinterpretq_u8_u32(vdupq_n_u32(key));
}

FN vec vec_splat(uint8_t byte)
{
    return vdupq_n_u8(byte);
}

FN vec vec_table(const uint8_t table[16])
{
    return vld1q_u8(table);
}

FN vec vec_lookup(vec table, vec nibbles)
{
    return vqtbl1q_u8(table, nibbles);
}

FN vec vec_high(vec bytes)
{
    return vshrq_n_u8(bytes, 4);
}

FN vec vec_subs(vec a, vec b)
{
    return vqsubq_u8(a, b);
}

#define vec_before(bytes, last, n) vextq_u8(last, bytes, 16 - (n))

/* The greatest of 4-byte lanes: fewer steps than that of bytes. */
FN bool vec_any(vec bits)
{
    return vmaxvq_u32(vreinterpretq_u32_u8(bits)) != 0;
}

FN bool vec_any_sign(vec bytes)
{
    return vmaxvq_u8(bytes) >= 0x80;
}

/* There is no movemask: give each byte of a half its own bit, and add. */
FN uint32_t vec_nonzero(vec bytes)
{
    static const uint8_t bit[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t set = vandq_u8(vtstq_u8(bytes, bytes), vld1q_u8(bit));
    return (uint32_t)vaddv_u8(vget_low_u8(set)) | (uint32_t)vaddv_u8(vget_high_u8(set)) << 8;
}

#include "codec/utf8_lookup.inc"
#include "codec/utf8_blocks.inc"

const rws__mask_impl rws__mask_neon = {
    .name = "neon",
    .mask = mask_vectors,
    .unmask_utf8 = simd_unmask_utf8,
    .unmask_text = simd_unmask_text,
    .utf8 = simd_utf8,
};

#endif
