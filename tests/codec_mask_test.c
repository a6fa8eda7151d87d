/*
 * Masking: every implementation that this machine can run, against the byte-by-byte one.
 */
#include <criterion/criterion.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "codec/mask.h"
#include "support/seed.h"

enum { ALIGN_MAX = 64, LEN_MAX = 300, GUARD = 64, AREA = GUARD + ALIGN_MAX + LEN_MAX + GUARD };

static void fill_random(uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)next_random();
}

static const rws__mask_impl *reference(void)
{
    size_t count;
    const rws__mask_impl *const *impls = rws__mask_impls(&count);
    return impls[count - 1];
}

Test(mask, test_mask_example_of_the_rfc)
{
    /* RFC 6455, section 5.7. */
    const uint8_t octets[4] = {0x37, 0xfa, 0x21, 0x3d};
    const uint8_t masked[5] = {0x7f, 0x9f, 0x4d, 0x51, 0x58};
    uint32_t key;
    memcpy(&key, octets, sizeof key);
    size_t count;
    const rws__mask_impl *const *impls = rws__mask_impls(&count);
    for (size_t i = 0; i < count; i++) {
        uint8_t out[5];
        const uint32_t after = impls[i]->mask(out, (const uint8_t *)"Hello", 5, key);
        cr_assert_arr_eq(out, masked, 5, "%s", impls[i]->name);
        const uint8_t rotated[4] = {0xfa, 0x21, 0x3d, 0x37};
        cr_assert_arr_eq(&after, rotated, 4, "%s", impls[i]->name);
    }
}

Test(mask, test_mask_impls_end_with_the_reference)
{
    size_t count;
    const rws__mask_impl *const *impls = rws__mask_impls(&count);
    cr_assert_geq(count, 2);
    cr_assert_str_eq(impls[count - 1]->name, "bytewise");
    cr_assert_str_eq(impls[count - 2]->name, "scalar64");
#if defined(__x86_64__)
    cr_assert_str_eq(impls[count - 3]->name, "sse2");
    cr_assert_eq(__builtin_cpu_supports("avx2") != 0 && count < 5, false);
#elif defined(__aarch64__)
    cr_assert_str_eq(impls[0]->name, "neon");
#endif
    for (size_t i = 0; i < count; i++)
        fprintf(stderr, "%s ", impls[i]->name);
    fputc('\n', stderr);
}

Test(mask, test_mask_rotate_is_the_place_in_the_key)
{
    const uint8_t octets[4] = {1, 2, 3, 4};
    uint32_t key;
    memcpy(&key, octets, sizeof key);
    for (size_t len = 0; len < 9; len++) {
        uint8_t rotated[4];
        const uint32_t after = rws__mask_rotate(key, len);
        memcpy(rotated, &after, sizeof rotated);
        for (size_t i = 0; i < 4; i++)
            cr_assert_eq(rotated[i], octets[(i + len) % 4]);
    }
}

/* One call, in an area whose every other byte has to stay as it is. */
static void check_one(const rws__mask_impl *impl, const uint8_t *noise, size_t align, size_t len,
                      uint32_t key, bool in_place)
{
    static uint8_t area[AREA] __attribute__((aligned(64)));
    static uint8_t expected[AREA] __attribute__((aligned(64)));
    static uint8_t source[AREA] __attribute__((aligned(64)));
    const size_t start = GUARD + align;
    /* The source of a copy lies at another alignment. */
    uint8_t *src = source + GUARD + (align * 7 + len) % ALIGN_MAX;
    memcpy(area, noise, AREA);
    memcpy(expected, noise, AREA);
    memcpy(src, noise + start, len);
    const uint32_t after_expected = reference()->mask(expected + start, src, len, key);
    const uint32_t after = impl->mask(area + start, in_place ? area + start : src, len, key);
    if (after == after_expected && memcmp(area, expected, AREA) == 0) return;
    cr_assert_fail("%s, align %zu, len %zu, key %08x, %s", impl->name, align, len, key,
                   in_place ? "in place" : "copy");
}

Test(mask, test_mask_every_alignment_and_length)
{
    seed_random();
    uint8_t noise[AREA];
    fill_random(noise, sizeof noise);
    const uint32_t key = (uint32_t)next_random();
    const rws__mask_impl entry = {.name = "rws__mask", .mask = rws__mask};
    size_t count;
    const rws__mask_impl *const *impls = rws__mask_impls(&count);
    for (size_t i = 0; i < count; i++) {
        const rws__mask_impl *impl = i == count - 1 ? &entry : impls[i];
        for (size_t align = 0; align < ALIGN_MAX; align++) {
            for (size_t len = 0; len <= LEN_MAX; len++) {
                for (size_t turn = 0; turn < 4; turn++) {
                    check_one(impl, noise, align, len, rws__mask_rotate(key, turn), true);
                    check_one(impl, noise, align, len, rws__mask_rotate(key, turn), false);
                }
            }
        }
    }
}

/* Between two pages that must not be touched. */
static uint8_t *guarded_page(size_t *page)
{
    *page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *all = mmap(NULL, 3 * *page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(all, MAP_FAILED);
    cr_assert_eq(mprotect(all + *page, *page, PROT_READ | PROT_WRITE), 0);
    return all + *page;
}

Test(mask, test_mask_touches_nothing_beyond_a_page)
{
    size_t page;
    uint8_t *data = guarded_page(&page);
    uint8_t copy[LEN_MAX];
    size_t count;
    const rws__mask_impl *const *impls = rws__mask_impls(&count);
    for (size_t i = 0; i < count; i++) {
        for (size_t len = 0; len <= LEN_MAX; len++) {
            uint8_t *places[] = {data, data + page - len};
            for (size_t j = 0; j < 2; j++) {
                memset(places[j], 'a', len);
                uint32_t key = 0;
                rws__utf8 utf8 = {0};
                impls[i]->mask(places[j], places[j], len, key);
                impls[i]->mask(copy, places[j], len, key);
                impls[i]->mask(places[j], copy, len, key);
                cr_assert_eq(impls[i]->utf8(&utf8, places[j], len), len);
                cr_assert_eq(impls[i]->unmask_utf8(&utf8, places[j], len, &key), len);
                cr_assert(impls[i]->unmask_text(places[j], len, key));
                /* The slow paths: a cut character, and an error. */
                if (len > 0) places[j][len - 1] = 0xC3;
                cr_assert_eq(impls[i]->unmask_text(places[j], len, key), len == 0);
                cr_assert_eq(impls[i]->utf8(&utf8, places[j], len), len);
                cr_assert_eq(impls[i]->unmask_utf8(&utf8, places[j], len, &key), 0);
            }
        }
    }
}

Test(mask, test_mask_long_payloads)
{
    seed_random();
    const size_t max = 300000;
    uint8_t *src = malloc(max), *dst = malloc(max), *expected = malloc(max);
    cr_assert(src && dst && expected);
    fill_random(src, max);
    size_t count;
    const rws__mask_impl *const *impls = rws__mask_impls(&count);
    for (size_t round = 0; round < 40; round++) {
        const uint32_t key = (uint32_t)next_random();
        const size_t at = next_random() % 100;
        const size_t len = next_random() % (max - at);
        reference()->mask(expected + at, src + at, len, key);
        for (size_t i = 0; i < count; i++) {
            memset(dst, 0, max);
            impls[i]->mask(dst + at, src + at, len, key);
            cr_assert_eq(memcmp(dst + at, expected + at, len), 0, "%s, at %zu, len %zu",
                         impls[i]->name, at, len);
        }
    }
    free(src), free(dst), free(expected);
}

Test(mask, test_mask_in_pieces_is_as_whole)
{
    seed_random();
    enum { LEN = 1000 };
    uint8_t src[LEN], whole[LEN], pieces[LEN];
    fill_random(src, LEN);
    const uint32_t key = (uint32_t)next_random();
    reference()->mask(whole, src, LEN, key);
    size_t count;
    const rws__mask_impl *const *impls = rws__mask_impls(&count);
    for (size_t i = 0; i < count; i++) {
        for (size_t round = 0; round < 300; round++) {
            memcpy(pieces, src, LEN);
            const size_t piece_max = 1 + next_random() % 200;
            uint32_t turned = key;
            for (size_t at = 0; at < LEN;) {
                size_t len = next_random() % (piece_max + 1);
                if (len > LEN - at) len = LEN - at;
                turned = impls[i]->mask(pieces + at, pieces + at, len, turned);
                at += len;
            }
            cr_assert_arr_eq(pieces, whole, LEN, "%s", impls[i]->name);
            cr_assert_eq(turned, rws__mask_rotate(key, LEN));
        }
    }
}
