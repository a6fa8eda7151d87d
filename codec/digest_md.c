/*
 * SHA-1 of libmd and a Base64 encoder, for builds without wolfSSL.
 */
#if !RINGWS_TLS

#include "codec/digest.h"

#include <assert.h>
#include <sha1.h>

static_assert(RWS__SHA1_BYTES == SHA1_DIGEST_LENGTH, "the digest is written in place");

void rws__sha1(const void *data, size_t len, uint8_t out[RWS__SHA1_BYTES])
{
    SHA1_CTX sha;
    SHA1Init(&sha);
    SHA1Update(&sha, data, len);
    SHA1Final(out, &sha);
}

void rws__base64(const void *data, size_t len, char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *in = data;

    for (; len > 0; out += 4) {
        size_t taken = len < 3 ? len : 3;
        uint32_t group = (uint32_t)in[0] << 16;
        if (taken > 1) group |= (uint32_t)in[1] << 8;
        if (taken > 2) group |= in[2];
        out[0] = digits[group >> 18];
        out[1] = digits[group >> 12 & 63];
        out[2] = taken > 1 ? digits[group >> 6 & 63] : '=';
        out[3] = taken > 2 ? digits[group & 63] : '=';
        in += taken;
        len -= taken;
    }
}

#endif
