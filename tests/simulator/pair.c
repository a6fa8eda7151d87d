#include "simulator/pair.h"

#include "simulator/world.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Visible ASCII, so that it can be text. */
static uint64_t letters(uint64_t stream, uint32_t number, size_t word)
{
    uint64_t z = (stream << 32 ^ number) + (word + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    return ((z ^ z >> 31) & 0x0F0F0F0F0F0F0F0Fu) | 0x4040404040404040u;
}

static const char digits_of_hex[] = "0123456789abcdef";

static void put_hex(char *out, uint64_t value, int digits)
{
    for (int i = digits; i-- > 0; value >>= 4)
        out[i] = digits_of_hex[value & 15];
}

static bool get_hex(const char *data, int digits, uint64_t *out)
{
    *out = 0;
    for (int i = 0; i < digits; i++) {
        const char *digit = data[i] != '\0' ? strchr(digits_of_hex, data[i]) : NULL;
        if (digit == NULL) return false;
        *out = *out << 4 | (uint64_t)(digit - digits_of_hex);
    }
    return true;
}

void message_write(char *out, uint64_t stream, uint32_t number, size_t len, rws_opcode opcode)
{
    put_hex(out, stream, 16);
    put_hex(out + 16, number, 8);
    put_hex(out + 24, len, 8);
    out[32] = opcode == RWS_TEXT ? 't' : 'b';
    size_t word = 0;
    for (size_t at = MESSAGE_HEAD; at < len; at += 8, word++) {
        uint64_t value = letters(stream, number, word);
        memcpy(out + at, &value, len - at < 8 ? len - at : 8);
    }
}

bool message_check(const char *data, size_t len, rws_opcode opcode, uint64_t *stream,
                   uint32_t *number)
{
    uint64_t value, length;
    if (len < MESSAGE_HEAD || data[32] != (opcode == RWS_TEXT ? 't' : 'b')) return false;
    if (!get_hex(data, 16, stream) || !get_hex(data + 16, 8, &value) ||
        !get_hex(data + 24, 8, &length) || length != len)
        return false;
    *number = (uint32_t)value;
    size_t word = 0;
    for (size_t at = MESSAGE_HEAD; at < len; at += 8, word++) {
        uint64_t expected = letters(*stream, *number, word);
        if (memcmp(data + at, &expected, len - at < 8 ? len - at : 8) != 0) return false;
    }
    return true;
}

static void count_in_order(const pair *own, const char *what, uint32_t number, uint32_t *count)
{
    if (number != *count)
        fail("connection %" PRIu64 ": %s %u came where %u was expected", own->key, what, number,
             *count);
    ++*count;
    world.messages++;
}

static void count_with_gaps(const pair *own, const char *what, uint32_t number, uint32_t *next)
{
    if (number < *next)
        fail("connection %" PRIu64 ": %s %u came again or late", own->key, what, number);
    *next = number + 1;
    world.messages++;
}

void pair_heard(pair *own, const char *data, size_t len, rws_opcode opcode)
{
    uint64_t stream;
    uint32_t number;
    if (!own->honest) return;
    if (!message_check(data, len, opcode, &stream, &number))
        fail("connection %" PRIu64 ": the server got a damaged message", own->key);
    note(stream << 32 ^ number);
    if (stream != pair_stream_asked(own))
        fail("connection %" PRIu64 ": the server got a message of stream %" PRIu64, own->key,
             stream);
    count_in_order(own, "message", number, &own->heard);
}

void pair_client_received(pair *own, const char *data, size_t len, rws_opcode opcode)
{
    uint64_t stream;
    uint32_t number;
    if (!message_check(data, len, opcode, &stream, &number))
        fail("connection %" PRIu64 ": the client got a damaged message", own->key);
    note(stream << 32 ^ number);
    if (stream == pair_stream_asked(own)) {
        count_in_order(own, "echo", number, &own->echoes);
    } else if (stream == pair_stream_told(own)) {
        count_in_order(own, "the server's message", number, &own->listened);
    } else if (stream == STREAM_BROADCAST) {
        count_with_gaps(own, "broadcast", number, &own->broadcast_next);
        own->broadcasts++;
    } else if (stream == pair_stream_posted(own)) {
        count_with_gaps(own, "post", number, &own->posted_next);
        own->posts_received++;
    } else {
        fail("connection %" PRIu64 ": the client got a message of stream %" PRIu64, own->key,
             stream);
    }
}

void pair_pong(pair *own, const char *data, size_t len)
{
    uint64_t number;
    if (len != PING_BYTES || !get_hex(data, PING_BYTES, &number) || number >= own->pings)
        fail("connection %" PRIu64 ": a pong is none of its pings", own->key);
    count_with_gaps(own, "pong", (uint32_t)number, &own->ping_next);
    own->pongs++;
}

void ping_write(char *out, uint32_t number)
{
    put_hex(out, number, PING_BYTES);
}
