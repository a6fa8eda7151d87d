/* The messages of the load tester: whole, all different, valid text, and every change is noticed.
 */
#include <criterion/criterion.h>

#include <stdlib.h>
#include <string.h>

#include "tools/payload.h"

static const size_t sizes[] = {0, 1, 2, 7, 8, 9, 10, 11, 12, 16, 63, 64, 125, 126, 1000, 65536};

enum { SIZES = sizeof(sizes) / sizeof(sizes[0]) };

/* A copy of one message; the caller frees it. */
static uint8_t *message(payload *p, uint32_t connection, uint32_t number)
{
    uint8_t *copy = malloc(p->size + 1);
    memcpy(copy, payload_begin(p, connection, number), p->size);
    payload_end(p, connection, number);
    return copy;
}

/* A strict check by the table of RFC 3629, section 4. Counts the characters. */
static bool is_utf8(const uint8_t *s, size_t len, size_t *ascii, size_t *wide)
{
    size_t i = 0;
    while (i < len) {
        uint8_t lead = s[i];
        size_t more = lead < 0x80                    ? 0
                      : lead >= 0xC2 && lead <= 0xDF ? 1
                      : lead >= 0xE0 && lead <= 0xEF ? 2
                      : lead >= 0xF0 && lead <= 0xF4 ? 3
                                                     : SIZE_MAX;
        if (more == SIZE_MAX || more >= len - i) return false;
        for (size_t k = 1; k <= more; k++) {
            uint8_t low = 0x80, high = 0xBF;
            if (k == 1 && lead == 0xE0) low = 0xA0;
            if (k == 1 && lead == 0xED) high = 0x9F;
            if (k == 1 && lead == 0xF0) low = 0x90;
            if (k == 1 && lead == 0xF4) high = 0x8F;
            if (s[i + k] < low || s[i + k] > high) return false;
        }
        if (more)
            ++*wide;
        else
            ++*ascii;
        i += more + 1;
    }
    return true;
}

Test(payload, test_a_message_equals_itself)
{
    for (int text = 0; text < 2; text++) {
        for (size_t s = 0; s < SIZES; s++) {
            payload p;
            cr_assert_eq(payload_init(&p, sizes[s], text, 1), 0);
            for (uint32_t number = 0; number < 300; number++) {
                uint8_t *copy = message(&p, number % 5, number);
                cr_assert(payload_equal(&p, number % 5, number, copy, p.size));
                free(copy);
            }
            payload_free(&p);
        }
    }
}

Test(payload, test_text_is_valid_and_one_tenth_of_it_is_wide)
{
    for (uint64_t seed = 0; seed < 20; seed++) {
        size_t ascii = 0, wide = 0;
        for (size_t s = 0; s < SIZES; s++) {
            payload p;
            cr_assert_eq(payload_init(&p, sizes[s], true, seed), 0);
            for (uint32_t number = 0; number<600; number += p.size> 1000 ? 97 : 1) {
                uint8_t *copy = message(&p, 3, number);
                ascii = wide = 0;
                cr_assert(is_utf8(copy, p.size, &ascii, &wide), "seed %lu, size %zu, number %u",
                          seed, p.size, number);
                free(copy);
            }
            payload_free(&p);
        }
        /* Of the last and largest: the 8 characters of the counter do not matter there. */
        double share = (double)wide / (double)(wide + ascii);
        cr_assert(share > 0.09 && share < 0.11, "%f of the characters are wide", share);
    }
}

Test(payload, test_binary_has_every_byte_value)
{
    payload p;
    cr_assert_eq(payload_init(&p, 65536, false, 1), 0);
    bool seen[256] = {false};
    for (size_t i = 0; i < 65536; i++)
        seen[p.bytes[i]] = true;
    for (int value = 0; value < 256; value++)
        cr_assert(seen[value]);
    payload_free(&p);
}

Test(payload, test_every_changed_byte_is_noticed_and_named)
{
    payload p;
    cr_assert_eq(payload_init(&p, 200, false, 9), 0);
    for (uint32_t number = 0; number < 3; number++) {
        uint8_t *copy = message(&p, 1, number);
        for (size_t at = 0; at < p.size; at++) {
            copy[at] ^= 1;
            cr_assert_not(payload_equal(&p, 1, number, copy, p.size));
            cr_assert_eq(payload_mismatch(&p, 1, number, copy, p.size), at);
            copy[at] ^= 1;
        }
        cr_assert(payload_equal(&p, 1, number, copy, p.size));
        free(copy);
    }
    payload_free(&p);
}

Test(payload, test_another_length_is_noticed)
{
    payload p;
    cr_assert_eq(payload_init(&p, 20, false, 9), 0);
    uint8_t longer[21] = {0};
    memcpy(longer, payload_begin(&p, 0, 0), 20);
    payload_end(&p, 0, 0);
    cr_assert(payload_equal(&p, 0, 0, longer, 20));
    cr_assert_not(payload_equal(&p, 0, 0, longer, 19));
    cr_assert_not(payload_equal(&p, 0, 0, longer, 21));
    cr_assert_not(payload_equal(&p, 0, 0, longer, 0));
    cr_assert_eq(payload_mismatch(&p, 0, 0, longer, 19), 19);
    payload_free(&p);
}

Test(payload, test_swapped_and_repeated_messages_are_noticed)
{
    payload p;
    cr_assert_eq(payload_init(&p, 64, true, 1), 0);
    for (uint32_t number = 0; number < 1000; number++) {
        uint8_t *copy = message(&p, 7, number);
        cr_assert_not(payload_equal(&p, 7, number + 1, copy, 64)); /* repeated */
        cr_assert_not(payload_equal(&p, 8, number, copy, 64));     /* another connection's */
        cr_assert_not(payload_equal(&p, 7, number + PAYLOAD_WINDOWS, copy, 64));
        free(copy);
    }
    payload_free(&p);
}

/* An echo that is made of two messages, each part at its right place: the counter is right, and
 * only the start of the window gives it away. */
Test(payload, test_a_torn_message_is_noticed)
{
    payload p;
    cr_assert_eq(payload_init(&p, 4096, false, 1), 0);
    for (uint32_t number = 0; number < 100; number++) {
        uint8_t *copy = message(&p, 0, number);
        uint8_t *next = message(&p, 0, number + 1);
        memcpy(copy + 2048, next + 2048, 2048);
        cr_assert_not(payload_equal(&p, 0, number, copy, 4096));
        free(copy);
        free(next);
    }
    payload_free(&p);
}

Test(payload, test_one_byte_messages_tell_64_neighbours_apart)
{
    payload p;
    cr_assert_eq(payload_init(&p, 1, true, 1), 0);
    uint8_t *first = message(&p, 0, 0);
    for (uint32_t number = 1; number < 64; number++)
        cr_assert_not(payload_equal(&p, 0, number, first, 1));
    free(first);
    payload_free(&p);
}

Test(payload, test_making_a_message_leaves_no_trace)
{
    payload p;
    cr_assert_eq(payload_init(&p, 100, true, 1), 0);
    uint8_t before[1000];
    memcpy(before, p.bytes, sizeof(before));
    for (uint32_t number = 0; number < 1000; number++) {
        payload_begin(&p, number, number);
        payload_end(&p, number, number);
    }
    cr_assert_arr_eq(p.bytes, before, sizeof(before));
    payload_free(&p);
}
