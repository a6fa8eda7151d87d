/*
 * Masking without SIMD: byte by byte, the reference, and 64 bits at a time.
 */
#include <string.h>

#include "codec/mask_impl.h"
#include "codec/utf8_scalar.h"

static uint32_t bytewise_mask(uint8_t *dst, const uint8_t *src, size_t len, uint32_t key)
{
    uint8_t octets[4];
    memcpy(octets, &key, sizeof octets);
    for (size_t i = 0; i < len; i++)
        dst[i] = src[i] ^ octets[i % 4];
    return rws__mask_rotate(key, len);
}

static size_t bytewise_unmask_utf8(rws__utf8 *utf8, uint8_t *data, size_t len, uint32_t *key)
{
    *key = bytewise_mask(data, data, len, *key);
    return rws__utf8_bytewise(utf8, data, len);
}

static bool bytewise_unmask_text(uint8_t *data, size_t len, uint32_t key)
{
    rws__utf8 utf8 = {0};
    bytewise_unmask_utf8(&utf8, data, len, &key);
    return rws__utf8_is_complete(&utf8);
}

const rws__mask_impl rws__mask_bytewise = {
    .name = "bytewise",
    .mask = bytewise_mask,
    .unmask_utf8 = bytewise_unmask_utf8,
    .unmask_text = bytewise_unmask_text,
    .utf8 = rws__utf8_bytewise,
};

static uint32_t scalar64_mask(uint8_t *dst, const uint8_t *src, size_t len, uint32_t key)
{
    const uint64_t twice = (uint64_t)key << 32 | key;
    size_t i = 0;
    for (; len - i >= sizeof twice; i += sizeof twice) {
        uint64_t word;
        memcpy(&word, src + i, sizeof word);
        word ^= twice;
        memcpy(dst + i, &word, sizeof word);
    }
    if (i == len)
        return rws__mask_rotate(key, len); /* also without bytes, where there may be NULL */
    return bytewise_mask(dst + i, src + i, len - i, key);
}

static size_t scalar64_unmask_utf8(rws__utf8 *utf8, uint8_t *data, size_t len, uint32_t *key)
{
    *key = scalar64_mask(data, data, len, *key);
    return rws__utf8_scalar64(utf8, data, len);
}

static bool scalar64_unmask_text(uint8_t *data, size_t len, uint32_t key)
{
    rws__utf8 utf8 = {0};
    scalar64_unmask_utf8(&utf8, data, len, &key);
    return rws__utf8_is_complete(&utf8);
}

const rws__mask_impl rws__mask_scalar64 = {
    .name = "scalar64",
    .mask = scalar64_mask,
    .unmask_utf8 = scalar64_unmask_utf8,
    .unmask_text = scalar64_unmask_text,
    .utf8 = rws__utf8_scalar64,
};
