/*
 * What both sides of the handshake share: a bounded writer, and the checks of strings that go
 * into a head. Internal to the handshake.
 */
#ifndef RINGWS_CODEC_HANDSHAKE_WRITE_H
#define RINGWS_CODEC_HANDSHAKE_WRITE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "ringws/types.h"

/* Text that grows in the caller's memory. Once something did not fit, `used` stays and `full`
 * says so: only the end of a writer has to look. */
typedef struct rws__text {
    uint8_t *out;
    size_t size;
    size_t used;
    bool full;
} rws__text;

static inline void rws__text_put(rws__text *text, const void *data, size_t len)
{
    if (text->full || len > text->size - text->used) {
        text->full = true;
        return;
    }
    if (len > 0) memcpy(text->out + text->used, data, len);
    text->used += len;
}

static inline void rws__text_puts(rws__text *text, const char *string)
{
    rws__text_put(text, string, strlen(string));
}

/* "name: value\r\n"; nothing if the value is empty. */
static inline void rws__text_put_header(rws__text *text, const char *name, rws_span value)
{
    if (value.len == 0) return;
    rws__text_puts(text, name);
    rws__text_put(text, ": ", 2);
    rws__text_put(text, value.data, value.len);
    rws__text_put(text, "\r\n", 2);
}

/* What a writer returns: the length, or RWS_E_HTTP_TOO_BIG. */
static inline int rws__text_finish(const rws__text *text)
{
    return text->full || text->used > INT_MAX ? RWS_E_HTTP_TOO_BIG : (int)text->used;
}

/* Whether `lines` is nothing but complete header lines "name: value\r\n" that
 * rws__handshake_append_header() could have made. */
bool rws__handshake_lines_are_valid(const uint8_t *lines, size_t len);

/* Whether `text` is host [":" port], RFC 9110 section 7.2, and not empty. */
bool rws__handshake_host_is_valid(rws_span text);

/* The element of the comma-separated `list` that equals `name`, also in case, or data NULL. */
rws_span rws__handshake_list_find(rws_span list, rws_span name);

#endif
