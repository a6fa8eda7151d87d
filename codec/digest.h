/*
 * The two functions that the handshake needs from a cryptographic library: SHA-1 and Base64.
 * digest_wolfcrypt.c has them with RINGWS_TLS, digest_md.c without. SHA-1 is what RFC 6455 asks
 * for; nothing here depends on its strength.
 */
#ifndef RINGWS_CODEC_DIGEST_H
#define RINGWS_CODEC_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#define RWS__SHA1_BYTES 20

/* The length of the Base64 of `len` bytes, padding included. */
#define RWS__BASE64_BYTES(len) (((size_t)(len) + 2) / 3 * 4)

/* The SHA-1 of `len` bytes at `data`. */
void rws__sha1(const void *data, size_t len, uint8_t out[RWS__SHA1_BYTES]);

/*
 * Write the Base64 (RFC 4648, section 4) of `len` bytes at `data` to `out`, which has room for
 * RWS__BASE64_BYTES(len); no NUL is added.
 */
void rws__base64(const void *data, size_t len, char *out);

#endif
