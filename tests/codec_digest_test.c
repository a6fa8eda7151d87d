/*
 * SHA-1 and Base64, whichever library they come from.
 */
#include "codec/digest.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

Test(digest, sha1_of_known_texts)
{
    static const struct {
        const char *text;
        const char *hex;
    } rows[] = {
        {"", "da39a3ee5e6b4b0d3255bfef95601890afd80709"},
        {"abc", "a9993e364706816aba3e25717850c26c9cd0d89d"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "84983e441c3bd26ebaae4aa1f95129e5e54670f1"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        uint8_t digest[RWS__SHA1_BYTES];
        char hex[2 * RWS__SHA1_BYTES + 1];
        rws__sha1(rows[i].text, strlen(rows[i].text), digest);
        for (size_t k = 0; k < sizeof(digest); k++) {
            snprintf(hex + 2 * k, 3, "%02x", digest[k]);
        }
        cr_assert_str_eq(hex, rows[i].hex);
    }
}

/* The vectors of RFC 4648, section 10, and both digits outside of letters and numbers. */
Test(digest, base64_of_known_texts)
{
    static const struct {
        const char *data;
        size_t len;
        const char *text;
    } rows[] = {
        {"", 0, ""},
        {"f", 1, "Zg=="},
        {"fo", 2, "Zm8="},
        {"foo", 3, "Zm9v"},
        {"foob", 4, "Zm9vYg=="},
        {"fooba", 5, "Zm9vYmE="},
        {"foobar", 6, "Zm9vYmFy"},
        {"\xfb\xff\xbe", 3, "+/++"},
        {"\0\0\0\0", 4, "AAAAAA=="},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        char out[16];
        memset(out, '#', sizeof(out));
        size_t len = RWS__BASE64_BYTES(rows[i].len);
        rws__base64(rows[i].data, rows[i].len, out);
        cr_assert_eq(memcmp(out, rows[i].text, len), 0, "%s: %.*s", rows[i].text, (int)len, out);
        cr_assert_eq(out[len], '#', "%s: wrote behind its end", rows[i].text);
    }
}
