/*
 * Masking: the choice of an implementation, and the entry points.
 */
#include "codec/mask.h"

#include "codec/mask_impl.h"

/* Best first. */
static const rws__mask_impl *mask_impls[] = {&rws__mask_scalar64, &rws__mask_bytewise};

const rws__mask_impl *rws__mask_best = &rws__mask_scalar64;

uint32_t rws__mask_rotate(uint32_t key, size_t len)
{
    const unsigned bits = 8 * (unsigned)(len % 4);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return key >> bits | key << ((32 - bits) % 32);
#else
    return key << bits | key >> ((32 - bits) % 32);
#endif
}

uint32_t rws__mask(uint8_t *dst, const uint8_t *src, size_t len, uint32_t key)
{
    return rws__mask_best->mask(dst, src, len, key);
}

size_t rws__unmask_utf8(rws__utf8 *utf8, uint8_t *data, size_t len, uint32_t *key)
{
    return rws__mask_best->unmask_utf8(utf8, data, len, key);
}

const rws__mask_impl *const *rws__mask_impls(size_t *count)
{
    *count = sizeof mask_impls / sizeof mask_impls[0];
    return mask_impls;
}
