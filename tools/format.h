/*
 * Numbers for people: counts with separators, rates with SI prefixes, sizes with binary ones,
 * times with the unit that fits. Each function fills a format_text and returns its string, so that
 * several can stand in one printf.
 */
#ifndef RINGWS_TOOLS_FORMAT_H
#define RINGWS_TOOLS_FORMAT_H

#include <stdint.h>

typedef struct format_text {
    char text[48];
} format_text;

/* 5123456 → "5,123,456". */
const char *format_count(format_text *out, uint64_t value);

/* Three significant digits and an SI prefix, which a symbol takes on and a word does not:
 * 1023456.0 with "B/s" → "1.02 MB/s", with "msg/s" → "1.02 M msg/s". */
const char *format_rate(format_text *out, double per_second, const char *unit);

/* 65536 → "64 KiB". */
const char *format_bytes(format_text *out, uint64_t bytes);

/* 12345.0 (nanoseconds) → "12.3 µs". */
const char *format_time(format_text *out, double ns);

/* Columns that `text` takes on a terminal: printf's widths count the bytes of a "µ" twice. */
int format_columns(const char *text);

#endif
