/*
 * UTF-8: an oracle that decodes to code points holds the byte-by-byte implementation to the
 * definition, and that one holds all others, alone and fused with unmasking.
 */
#include <criterion/criterion.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "codec/mask.h"
#include "codec/utf8.h"
#include "support/seed.h"

enum { TEXT_MAX = 4096 };

/* ---- The oracle: what RFC 3629 says in words, not by its grammar. ---- */

/* Whether the `len` bytes at `data` start a character, or are one (`*whole`). */
static bool starts_character(const uint8_t *data, size_t len, bool *whole)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const uint8_t first = data[0];
    size_t size = 1;
    if (first >= 0x80) {
        size = first >> 5 == 6 ? 2 : first >> 4 == 14 ? 3 : first >> 3 == 30 ? 4 : 0;
        if (size == 0) return false;
    }
    uint32_t low = size == 1 ? first : first & (0x7Fu >> size);
    uint32_t high = low;
    for (size_t i = 1; i < size; i++) {
        if (i < len && data[i] >> 6 != 2) return false;
        low = low << 6 | (i < len ? data[i] & 0x3Fu : 0);
        high = high << 6 | (i < len ? data[i] & 0x3Fu : 0x3Fu);
    }
    /* The bytes that are still to come can make any code point from `low` to `high`. */
    *whole = len == size;
    if (high < least[size] || low > 0x10FFFF) return false;
    return low < 0xD800 || high > 0xDFFF;
}

static size_t oracle(const uint8_t *data, size_t len, bool *complete)
{
    size_t start = 0;
    bool whole = true;
    for (size_t i = 0; i < len; i++) {
        if (!starts_character(data + start, i + 1 - start, &whole)) {
            *complete = false;
            return i;
        }
        if (whole) start = i + 1;
    }
    *complete = whole;
    return len;
}

/* ---- Comparing. ---- */

static const rws__mask_impl *const *impls;
static size_t impl_count;

static void setup(void)
{
    impls = rws__mask_impls(&impl_count);
}

static void fail(const rws__mask_impl *impl, const char *how, const uint8_t *data, size_t len,
                 size_t got, size_t expected)
{
    char hex[2 * 256 + 1] = "";
    for (size_t i = 0; i < len && i < 256; i++)
        snprintf(hex + 2 * i, 3, "%02x", data[i]);
    cr_assert_fail("%s, %s: %zu, expected %zu, of %zu: %s", impl->name, how, got, expected, len,
                   hex);
}

/* Feed pieces that end at `cuts` (the last one is `len`), alone and fused; all must end as
 * `expected`, and in the state `state`. */
static void check_pieces(const rws__mask_impl *impl, const uint8_t *data, const size_t *cuts,
                         size_t expected, uint8_t state)
{
    static uint8_t copy[TEXT_MAX];
    rws__utf8 alone = {0}, fused = {0};
    size_t len = 0, got_alone = SIZE_MAX, got_fused = SIZE_MAX;
    uint32_t key = 0x8F3C71E5;
    for (size_t i = 0, at = 0;; i++) {
        const size_t piece = cuts[i] - at;
        if (got_alone == SIZE_MAX) {
            const size_t good = impl->utf8(&alone, data + at, piece);
            if (good < piece) got_alone = at + good;
        } else if (piece > 0 && impl->utf8(&alone, data + at, piece) != 0) {
            fail(impl, "rejected and then accepted", data, cuts[i], at, expected);
        }
        const uint32_t key_after = rws__mask_rotate(key, piece);
        rws__mask(copy + at, data + at, piece, key);
        const size_t good = impl->unmask_utf8(&fused, copy + at, piece, &key);
        if (good < piece && got_fused == SIZE_MAX) got_fused = at + good;
        if (key != key_after) fail(impl, "key not rotated", data, cuts[i], key, key_after);
        at = len = cuts[i];
        if (cuts[i + 1] == 0) break;
    }
    if (got_alone == SIZE_MAX) got_alone = len;
    if (got_fused == SIZE_MAX) got_fused = len;
    if (got_alone != expected) fail(impl, "alone", data, len, got_alone, expected);
    if (got_fused != expected) fail(impl, "fused", data, len, got_fused, expected);
    if (alone.state != state) fail(impl, "state alone", data, len, alone.state, state);
    if (fused.state != state) fail(impl, "state fused", data, len, fused.state, state);
    if (memcmp(copy, data, len) != 0) fail(impl, "not all unmasked", data, len, 0, 0);
}

/* As a whole text; what lies around it stays. */
static void check_whole(const rws__mask_impl *impl, const uint8_t *data, size_t len, bool valid)
{
    enum { AROUND = 64 };
    static uint8_t copy[AROUND + TEXT_MAX + AROUND];
    const uint32_t key = 0x8F3C71E5;
    memset(copy, 0x5A, AROUND);
    memset(copy + AROUND + len, 0x5A, AROUND);
    rws__mask(copy + AROUND, data, len, key);
    if (impl->unmask_text(copy + AROUND, len, key) != valid)
        fail(impl, "whole", data, len, !valid, valid);
    if (valid && memcmp(copy + AROUND, data, len) != 0)
        fail(impl, "whole, not all unmasked", data, len, 0, 0);
    for (size_t i = 0; i < AROUND; i++)
        if (copy[i] != 0x5A || copy[AROUND + len + i] != 0x5A)
            fail(impl, "whole, wrote beyond", data, len, i, 0);
}

/* The reference against the oracle, then every implementation, in one piece, against the reference.
 * Returns the index. */
static size_t check_all(const uint8_t *data, size_t len, uint8_t *state)
{
    const rws__mask_impl *reference = impls[impl_count - 1];
    rws__utf8 utf8 = {0};
    bool complete;
    const size_t expected = oracle(data, len, &complete);
    const size_t got = reference->utf8(&utf8, data, len);
    if (got != expected) fail(reference, "oracle", data, len, got, expected);
    if (rws__utf8_is_complete(&utf8) != complete)
        fail(reference, "complete", data, len, utf8.state, complete);
    const size_t cuts[] = {len, 0};
    for (size_t i = 0; i < impl_count; i++) {
        check_pieces(impls[i], data, cuts, expected, utf8.state);
        check_whole(impls[i], data, len, expected == len && complete);
    }
    if (state) *state = utf8.state;
    return expected;
}

/* A sequence alone, and across the edges of vectors of 16, 32 and 64 bytes in ASCII. */
static void check_in_places(const uint8_t *bytes, size_t len)
{
    static const uint8_t before[] = {0, 15, 31, 61, 62, 63, 64, 94};
    uint8_t text[128];
    for (size_t i = 0; i < sizeof before; i++) {
        memset(text, 'a', sizeof text);
        memcpy(text + before[i], bytes, len);
        check_all(text, before[i] + len, NULL);
        check_all(text, before[i] + len + 17, NULL);
    }
}

static size_t encode(uint8_t *out, uint32_t code, size_t size)
{
    static const uint8_t first[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = size - 1; i > 0; i--, code >>= 6)
        out[i] = (uint8_t)(0x80 | (code & 0x3F));
    out[0] = (uint8_t)(first[size] | code);
    return size;
}

static size_t encoded_size(uint32_t code)
{
    return code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
}

TestSuite(utf8, .init = setup);

Test(utf8, test_utf8_every_code_point)
{
    /* 60 different ones are one text, so that they pass all places of a block. */
    static uint8_t text[TEXT_MAX];
    size_t len = 0, in_text = 0;
    for (uint32_t code = 0; code <= 0x10FFFF; code++) {
        if (code >= 0xD800 && code <= 0xDFFF) continue;
        len += encode(text + len, code, encoded_size(code));
        if (++in_text < 60 && code < 0x10FFFF) continue;
        uint8_t state;
        cr_assert_eq(check_all(text, len, &state), len, "up to U+%04X", code);
        cr_assert_eq(state, 0);
        len = in_text = 0;
    }
}

Test(utf8, test_utf8_every_surrogate_and_overlong_and_too_large)
{
    uint8_t bytes[4];
    for (uint32_t code = 0xD800; code <= 0xDFFF; code++)
        cr_assert_eq(check_all(bytes, encode(bytes, code, 3), NULL), 1);
    for (uint32_t code = 0; code < 0x80; code++)
        cr_assert_eq(check_all(bytes, encode(bytes, code, 2), NULL), 0);
    for (uint32_t code = 0; code < 0x800; code++)
        cr_assert_eq(check_all(bytes, encode(bytes, code, 3), NULL), 1);
    for (uint32_t code = 0; code < 0x10000; code += 7)
        cr_assert_eq(check_all(bytes, encode(bytes, code, 4), NULL), 1);
    for (uint32_t code = 0x110000; code < 0x200000; code += 37)
        cr_assert_eq(check_all(bytes, encode(bytes, code, 4), NULL), code < 0x140000 ? 1 : 0);
}

Test(utf8, test_utf8_every_pair_of_bytes)
{
    for (uint32_t pair = 0; pair < 0x10000; pair++) {
        const uint8_t bytes[2] = {(uint8_t)(pair >> 8), (uint8_t)pair};
        check_all(bytes, 1, NULL);
        check_all(bytes, 2, NULL);
        uint8_t text[80];
        memset(text, 'a', sizeof text);
        memcpy(text + 63, bytes, 2);
        check_all(text, sizeof text, NULL);
    }
}

Test(utf8, test_utf8_every_sequence_of_four_classes)
{
    /* Both ends of every range that the grammar of RFC 3629 tells apart. */
    static const uint8_t classes[] = {0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF,
                                      0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED,
                                      0xEE, 0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF};
    const size_t n = sizeof classes;
    for (size_t i = 0; i < n * n * n * n; i++) {
        const uint8_t bytes[4] = {classes[i % n], classes[i / n % n], classes[i / n / n % n],
                                  classes[i / n / n / n]};
        check_all(bytes, sizeof bytes, NULL);
        /* In longer texts, those that have something to tell. */
        if (bytes[0] >= 0xE0 && i % 5 == 0) check_in_places(bytes, sizeof bytes);
    }
}

Test(utf8, test_utf8_fails_at_the_first_byte_that_cant_be_valid)
{
    static const struct {
        const char *what;
        const char *bytes;
        size_t len;
        size_t index;
        bool complete;
    } cases[] = {
        {"nothing", "", 0, 0, true},
        {"ASCII", "\x00\x7F", 2, 2, true},
        {"two, three and four bytes", "\xC2\x80\xE0\xA0\x80\xF0\x90\x80\x80", 9, 9, true},
        {"the last code point", "\xF4\x8F\xBF\xBF", 4, 4, true},
        {"around the surrogates", "\xED\x9F\xBF\xEE\x80\x80", 6, 6, true},
        {"a lone tail", "a\x80", 2, 1, false},
        {"a tail too many", "\xC2\x80\x80", 3, 2, false},
        {"overlong, two bytes", "\xC0\x80", 2, 0, false},
        {"overlong, two bytes", "\xC1\xBF", 2, 0, false},
        {"overlong, three bytes", "\xE0\x9F\xBF", 3, 1, false},
        {"overlong, four bytes", "\xF0\x8F\xBF\xBF", 4, 1, false},
        {"the first surrogate", "\xED\xA0\x80", 3, 1, false},
        {"the last surrogate", "\xED\xBF\xBF", 3, 1, false},
        {"U+110000", "\xF4\x90\x80\x80", 4, 1, false},
        {"above", "\xF5\x80\x80\x80", 4, 0, false},
        {"five bytes", "\xF8\x88\x80\x80\x80", 5, 0, false},
        {"no byte of UTF-8", "\xFF", 1, 0, false},
        {"cut after one of two", "\xC2", 1, 1, false},
        {"cut after one of three", "\xE1", 1, 1, false},
        {"cut after two of three", "\xE1\x80", 2, 2, false},
        {"cut after three of four", "\xF1\x80\x80", 3, 3, false},
        {"one of two, then ASCII",
         "\xC2"
         "a",
         2, 1, false},
        {"two of three, then ASCII",
         "\xE1\x80"
         "a",
         3, 2, false},
        {"three of four, then ASCII",
         "\xF1\x80\x80"
         "a",
         4, 3, false},
        {"two of three, then a first byte", "\xE1\x80\xC2\x80", 4, 2, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const uint8_t *bytes = (const uint8_t *)cases[i].bytes;
        uint8_t state;
        const size_t index = check_all(bytes, cases[i].len, &state);
        cr_assert_eq(index, cases[i].index, "%s", cases[i].what);
        cr_assert_eq(state == 0, cases[i].complete, "%s", cases[i].what);
        cr_assert_eq(rws__utf8_is_valid(bytes, cases[i].len), cases[i].complete, "%s",
                     cases[i].what);
        check_in_places(bytes, cases[i].len);
    }
}

/* `percent` of the characters are of more than one byte. Cut at `len` wherever that is. */
static void fill_text(uint8_t *text, size_t len, unsigned percent)
{
    size_t i = 0;
    while (i < len) {
        uint8_t bytes[4];
        size_t size = 1 + (next_random() % 100 < percent ? 1 + next_random() % 3 : 0);
        static const uint32_t limit[] = {0, 0x80, 0x800, 0x10000, 0x110000};
        static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
        uint32_t code = least[size] + (uint32_t)(next_random() % (limit[size] - least[size]));
        if (code >= 0xD800 && code <= 0xDFFF) code -= 0x1000;
        encode(bytes, code, size);
        if (size > len - i) size = len - i;
        memcpy(text + i, bytes, size);
        i += size;
    }
}

Test(utf8, test_utf8_index_at_every_place)
{
    seed_random();
    static const uint8_t wrong[] = {'a', 0x80, 0xBF, 0xC0, 0xC3, 0xE0, 0xED, 0xF0, 0xF4, 0xFF};
    for (unsigned percent = 0; percent <= 100; percent += 50) {
        uint8_t text[130];
        fill_text(text, sizeof text, percent);
        for (size_t len = 0; len <= sizeof text; len++) {
            check_all(text, len, NULL);
            for (size_t at = 0; at < len; at++) {
                const uint8_t right = text[at];
                text[at] = wrong[(at + len) % sizeof wrong];
                check_all(text, len, NULL);
                text[at] = 0xFF;
                cr_assert_leq(check_all(text, len, NULL), at);
                text[at] = right;
            }
        }
    }
}

Test(utf8, test_utf8_every_split_in_two_and_one_byte_at_a_time)
{
    seed_random();
    for (size_t round = 0; round < 60; round++) {
        enum { LEN = 150 };
        uint8_t text[LEN];
        fill_text(text, LEN, (unsigned)(round % 6 * 20));
        if (round % 2 == 1) text[next_random() % LEN] = (uint8_t)next_random();
        uint8_t state;
        const size_t expected = check_all(text, LEN, &state);
        for (size_t i = 0; i < impl_count; i++) {
            for (size_t split = 1; split < LEN; split++) {
                const size_t cuts[] = {split, LEN, 0};
                check_pieces(impls[i], text, cuts, expected, state);
            }
            size_t each[LEN + 1];
            for (size_t j = 0; j < LEN; j++)
                each[j] = j + 1;
            each[LEN] = 0;
            check_pieces(impls[i], text, each, expected, state);
        }
    }
}

Test(utf8, test_utf8_random_texts_in_random_pieces)
{
    seed_random();
    static uint8_t text[TEXT_MAX];
    static size_t cuts[TEXT_MAX + 1];
    for (size_t round = 0; round < 20000; round++) {
        const size_t len = 1 + next_random() % (round % 8 == 0 ? TEXT_MAX : 300);
        static const unsigned percents[] = {0, 1, 10, 50, 100};
        fill_text(text, len, percents[next_random() % 5]);
        for (size_t wrong = next_random() % 3; wrong > 0; wrong--)
            text[next_random() % len] = (uint8_t)next_random();
        uint8_t state;
        const size_t expected = check_all(text, len, &state);
        const size_t piece_max = 1 + next_random() % len;
        size_t count = 0;
        for (size_t at = 0; at < len; cuts[count++] = at) {
            at += 1 + next_random() % piece_max;
            if (at > len) at = len;
        }
        cuts[count] = 0;
        for (size_t i = 0; i < impl_count; i++)
            check_pieces(impls[i], text, cuts, expected, state);
    }
}

Test(utf8, test_utf8_stays_rejected)
{
    for (size_t i = 0; i < impl_count; i++) {
        rws__utf8 utf8 = {0};
        uint32_t key = 0;
        uint8_t text[100];
        memset(text, 'a', sizeof text);
        cr_assert_eq(impls[i]->utf8(&utf8, (const uint8_t *)"\xFF", 1), 0);
        cr_assert_not(rws__utf8_is_complete(&utf8));
        cr_assert_eq(impls[i]->utf8(&utf8, text, 0), 0);
        cr_assert_eq(impls[i]->utf8(&utf8, text, sizeof text), 0, "%s", impls[i]->name);
        cr_assert_eq(impls[i]->unmask_utf8(&utf8, text, sizeof text, &key), 0, "%s",
                     impls[i]->name);
        cr_assert_not(rws__utf8_is_complete(&utf8));
    }
}

Test(utf8, test_utf8_nothing_may_be_null)
{
    for (size_t i = 0; i < impl_count; i++) {
        for (uint8_t start = 0x00; start < 0xFF; start += 0x33) {
            rws__utf8 utf8 = {0};
            const size_t good = impls[i]->utf8(&utf8, &start, 1);
            const uint8_t state = utf8.state;
            uint32_t key = 7;
            cr_assert_eq(impls[i]->utf8(&utf8, NULL, 0), 0);
            cr_assert_eq(impls[i]->unmask_utf8(&utf8, NULL, 0, &key), 0);
            cr_assert(impls[i]->unmask_text(NULL, 0, key));
            cr_assert_eq(impls[i]->mask(NULL, NULL, 0, key), 7);
            cr_assert_eq(key, 7);
            cr_assert_eq(utf8.state, state, "%s, %zu", impls[i]->name, good);
        }
    }
}

Test(utf8, test_utf8_entry_points_are_the_best_implementation)
{
    uint8_t text[] = "gr\xC3\xBC\xC3\x9F dich";
    const size_t len = sizeof text - 1;
    rws__utf8 utf8 = {0};
    cr_assert_eq(rws__utf8_check(&utf8, text, len), len);
    cr_assert(rws__utf8_is_complete(&utf8));
    cr_assert(rws__utf8_is_valid(text, len));
    cr_assert_not(rws__utf8_is_valid(text, 3));
    cr_assert(rws__utf8_is_valid(NULL, 0));
    uint32_t key = 0x01020304;
    rws__mask(text, text, len, key);
    cr_assert_eq(rws__unmask_utf8(&utf8, text, len, &key), len);
    cr_assert_str_eq((const char *)text, "gr\xC3\xBC\xC3\x9F dich");
    rws__mask(text, text, len, 0x01020304);
    cr_assert(rws__unmask_text(text, len, 0x01020304));
    cr_assert_str_eq((const char *)text, "gr\xC3\xBC\xC3\x9F dich");
    rws__mask(text, text, 3, 0x01020304);
    cr_assert_not(rws__unmask_text(text, 3, 0x01020304));
}
