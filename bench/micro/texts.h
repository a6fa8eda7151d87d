/*
 * Payloads one behind the other, each behind six bytes for a header with a key, as a receive brings
 * them: short ones start at every alignment, and no call waits for the stores of the one before it,
 * as it would if one payload was unmasked in place again and again. From 16 KiB on there is one.
 */
#ifndef RINGWS_BENCH_MICRO_TEXTS_H
#define RINGWS_BENCH_MICRO_TEXTS_H

#include <stddef.h>
#include <stdint.h>

enum { TEXTS_HEADER_BYTES = 6 };

typedef struct texts {
    uint8_t *first; /* the first payload */
    size_t len;     /* of each */
    size_t count;
} texts;

/* Copies of the `len` bytes at `payload`. */
texts texts_make(const uint8_t *payload, size_t len);
void texts_free(texts *texts);

static inline uint8_t *texts_at(const texts *all, size_t i)
{
    return all->first + i * (TEXTS_HEADER_BYTES + all->len);
}

#endif
