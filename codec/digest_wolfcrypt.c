/*
 * SHA-1 and Base64 of wolfCrypt, which a build with TLS has anyway.
 *
 * wolfCrypt's calls can report a failure that can't happen here (bad arguments, no memory for an
 * accelerator). Should one happen all the same, the output is zeros: an accept value that no peer
 * takes, so that the handshake fails instead of passing unchecked.
 */
#if RINGWS_TLS

#include "codec/digest.h"

#include <assert.h>
#include <string.h>

#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/coding.h>
#include <wolfssl/wolfcrypt/sha.h>

static_assert(RWS__SHA1_BYTES == WC_SHA_DIGEST_SIZE, "the digest is written in place");

void rws__sha1(const void *data, size_t len, uint8_t out[RWS__SHA1_BYTES])
{
    wc_Sha sha;
    int status = wc_InitSha(&sha);
    if (status == 0) {
        status = wc_ShaUpdate(&sha, data, (word32)len);
        if (status == 0) status = wc_ShaFinal(&sha, out);
        wc_ShaFree(&sha);
    }
    if (status != 0) memset(out, 0, RWS__SHA1_BYTES);
}

void rws__base64(const void *data, size_t len, char *out)
{
    word32 room = (word32)RWS__BASE64_BYTES(len);
    int status = Base64_Encode_NoNl(data, (word32)len, (byte *)out, &room);
    if (status != 0 || room != RWS__BASE64_BYTES(len)) memset(out, 0, RWS__BASE64_BYTES(len));
}

#endif
