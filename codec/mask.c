/*
 * Masking: the choice of an implementation, and the entry points.
 *
 * The choice is made by a constructor: before main(), or before dlopen() returns, and so before
 * there is a thread that could see it half made. A call then costs no check of whether it was made.
 */
#include "codec/mask.h"

#include "codec/mask_impl.h"
#include "codec/mask_small.h"

/* Filled once by mask_choose(); best first. */
static const rws__mask_impl *mask_impls[6];
static size_t mask_impl_count;
rws__mask_impl rws__mask_best;

static void add(const rws__mask_impl *impl, bool runs_here)
{
    if (runs_here) mask_impls[mask_impl_count++] = impl;
}

/* 101 is the first priority that is not reserved: other constructors may already call us. */
__attribute__((constructor(101))) static void mask_choose(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    /* Byte permutation (VBMI) is what makes 512 bits worth it. Its processors (from Ice Lake and
     * Zen 4 on) also do not lower their clock for wide vectors, as the first ones with AVX-512 did.
     */
    add(&rws__mask_avx512,
        __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("bmi2"));
    add(&rws__mask_avx2, __builtin_cpu_supports("avx2"));
    add(&rws__mask_ssse3, __builtin_cpu_supports("ssse3"));
    add(&rws__mask_sse2, true);
#elif defined(__aarch64__)
    add(&rws__mask_neon, true);
#endif
    add(&rws__mask_scalar64, true);
    add(&rws__mask_bytewise, true);
    rws__mask_best = *mask_impls[0];
}

uint32_t rws__mask_rotate(uint32_t key, size_t len)
{
    return rws__mask_rotated(key, len);
}

uint32_t rws__mask(uint8_t *dst, const uint8_t *src, size_t len, uint32_t key)
{
    if (len <= RWS__MASK_SMALL_MAX) return rws__mask_small(dst, src, len, key);
    return rws__mask_best.mask(dst, src, len, key);
}

size_t rws__unmask_utf8(rws__utf8 *utf8, uint8_t *data, size_t len, uint32_t *key)
{
    return rws__mask_best.unmask_utf8(utf8, data, len, key);
}

bool rws__unmask_text(uint8_t *data, size_t len, uint32_t key)
{
    return rws__mask_best.unmask_text(data, len, key);
}

const rws__mask_impl *const *rws__mask_impls(size_t *count)
{
    *count = mask_impl_count;
    return mask_impls;
}
