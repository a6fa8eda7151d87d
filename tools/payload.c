#include "tools/payload.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    SLACK_BYTES = 1024, /* room for PAYLOAD_WINDOWS places, also in text of 4-byte characters */
};

static uint64_t next_random(uint64_t *state)
{
    /* splitmix64: good enough for a pattern, and the same everywhere for one seed. */
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* Whole characters only; what is left at the end is ASCII. */
static void fill_text(uint8_t *bytes, size_t len, uint64_t seed)
{
    static const struct {
        char bytes[5];
        uint8_t len;
    } wide[] = {{"é", 2}, {"ß", 2}, {"я", 2}, {"ж", 2}, {"€", 3}, {"漢", 3}, {"字", 3}, {"😀", 4}};
    enum { WIDE = sizeof(wide) / sizeof(wide[0]) };

    size_t at = 0;
    while (at < len) {
        uint64_t random = next_random(&seed);
        if (random % 10 == 0) {
            size_t which = (random >> 8) % WIDE;
            if (wide[which].len <= len - at) {
                memcpy(bytes + at, wide[which].bytes, wide[which].len);
                at += wide[which].len;
                continue;
            }
        }
        bytes[at++] = (uint8_t)(' ' + (random >> 16) % 95);
    }
}

static void fill_binary(uint8_t *bytes, size_t len, uint64_t seed)
{
    for (size_t at = 0; at < len; at++)
        bytes[at] = (uint8_t)(next_random(&seed) >> 32);
}

/* Whether a message may start at `start`: as text it must not cut a character, neither behind the
 * counter nor at its end. */
static bool window_fits(const payload *p, size_t start, bool text)
{
    if (!text) return true;
    size_t body = start + PAYLOAD_COUNTER_BYTES;
    size_t end = start + p->size;
    bool body_whole = p->size <= PAYLOAD_COUNTER_BYTES || (p->bytes[body] & 0xC0) != 0x80;
    bool end_whole = p->size <= PAYLOAD_COUNTER_BYTES || (p->bytes[end] & 0xC0) != 0x80;
    return body_whole && end_whole;
}

int payload_init(payload *p, size_t size, bool text, uint64_t seed)
{
    size_t len = size + SLACK_BYTES + PAYLOAD_COUNTER_BYTES;
    p->size = size;
    p->bytes = calloc(1, len);
    if (!p->bytes) return -ENOMEM;

    if (text)
        fill_text(p->bytes, len, seed);
    else
        fill_binary(p->bytes, len, seed);

    size_t count = 0;
    for (size_t start = 0; start < SLACK_BYTES && count < PAYLOAD_WINDOWS; start++)
        if (window_fits(p, start, text)) p->windows[count++] = (uint32_t)start;
    /* Nine characters of ten are ASCII, so far more than 256 of 1,024 places fit; this is for a
     * seed that nobody will meet. */
    for (size_t i = count; i < PAYLOAD_WINDOWS; i++)
        p->windows[i] = p->windows[i - count];
    return 0;
}

void payload_free(payload *p)
{
    free(p->bytes);
    p->bytes = NULL;
}

/* Odd steps visit every window; neighbouring connections start far apart. */
static size_t window_of(const payload *p, uint32_t connection, uint32_t number)
{
    return p->windows[(number + connection * 37u) % PAYLOAD_WINDOWS];
}

/* 6 bits per character from '0' (0x30) to 'o' (0x6f), the quickest changing first, so that even a
 * 1-byte message tells 64 neighbours apart. */
static void write_counter(uint8_t *out, uint32_t connection, uint32_t number)
{
    uint64_t counter = (uint64_t)connection << 32 | number;
    for (size_t i = 0; i < PAYLOAD_COUNTER_BYTES; i++)
        out[i] = (uint8_t)('0' + (counter >> (6 * i) & 0x3F));
}

const uint8_t *payload_begin(payload *p, uint32_t connection, uint32_t number)
{
    uint8_t *start = p->bytes + window_of(p, connection, number);
    memcpy(p->saved, start, sizeof(p->saved));
    write_counter(start, connection, number);
    return start;
}

void payload_end(payload *p, uint32_t connection, uint32_t number)
{
    memcpy(p->bytes + window_of(p, connection, number), p->saved, sizeof(p->saved));
}

bool payload_equal(const payload *p, uint32_t connection, uint32_t number, const void *data,
                   size_t len)
{
    if (len != p->size) return false;

    uint8_t counter[PAYLOAD_COUNTER_BYTES];
    write_counter(counter, connection, number);
    if (len <= PAYLOAD_COUNTER_BYTES) return len == 0 || memcmp(data, counter, len) == 0;

    const uint8_t *bytes = data;
    const uint8_t *body = p->bytes + window_of(p, connection, number) + PAYLOAD_COUNTER_BYTES;
    return memcmp(bytes, counter, PAYLOAD_COUNTER_BYTES) == 0 &&
           memcmp(bytes + PAYLOAD_COUNTER_BYTES, body, len - PAYLOAD_COUNTER_BYTES) == 0;
}

size_t payload_mismatch(payload *p, uint32_t connection, uint32_t number, const void *data,
                        size_t len)
{
    const uint8_t *bytes = data;
    const uint8_t *wanted = payload_begin(p, connection, number);
    size_t shorter = len < p->size ? len : p->size;
    size_t at = 0;
    while (at < shorter && bytes[at] == wanted[at])
        at++;
    payload_end(p, connection, number);
    return at;
}
