#include "texts.h"

#include <stdlib.h>
#include <string.h>

enum { LINE = 64, BURST_BYTES = 16384 };

texts texts_make(const uint8_t *payload, size_t len)
{
    texts made = {.len = len, .count = len < BURST_BYTES ? BURST_BYTES / len : 1};
    const size_t bytes = made.count * (TEXTS_HEADER_BYTES + len);
    uint8_t *all = aligned_alloc(LINE, (bytes + LINE - 1) / LINE * LINE);
    if (all == NULL) abort();
    memset(all, 0, bytes);
    made.first = all + TEXTS_HEADER_BYTES;
    for (size_t i = 0; i < made.count; i++)
        memcpy(texts_at(&made, i), payload, len);
    return made;
}

void texts_free(texts *all)
{
    free(all->first - TEXTS_HEADER_BYTES);
}
