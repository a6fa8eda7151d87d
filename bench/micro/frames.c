/*
 * Frames: what the protocol costs beside its payload. A call is a burst of frames as one receive
 * brings it; times are for one frame.
 *
 *   frame_parse   headers alone, rws__frame_parse() against a loop over the bytes
 *   frame_write   header and payload, against memcpy of a frame that is ready
 *   decode        the message decoder over masked frames: parse, unmask and, of text, validate;
 *                 against the same by loops over the bytes
 *
 * The masking key of the decoded frames is 0, so that the burst can be decoded again (see utf8.c).
 */
#include "micro.h"

#include <stdlib.h>
#include <string.h>

#include "codec/message.h"
#include "codec/mask.h"
#include "dfa.h"
#include "tools/payload.h"

enum { BURST_BYTES = 16384, FRAMES_MAX = 256 };

typedef struct burst {
    uint8_t *bytes;
    size_t len;
    size_t frames;
    size_t payload_len;
    uint8_t *ready;
    bool text;
} burst;

/* ---- the floors ---- */

/* The header at `at`: the plainest reading of the RFC's picture. Returns where the payload is. */
static size_t scalar_header(const uint8_t *bytes, size_t at, uint64_t *len)
{
    const uint8_t masked = bytes[at + 1] >> 7;
    *len = bytes[at + 1] & 0x7F;
    at += 2;
    const size_t more = *len == 126 ? 2 : *len == 127 ? 8 : 0;
    if (more > 0) *len = 0;
    for (size_t i = 0; i < more; i++)
        *len = *len << 8 | bytes[at++];
    return at + (masked ? 4 : 0);
}

static uint64_t run_scalar_parse(void *context, size_t calls)
{
    const burst *b = context;
    uint64_t sum = 0;
    for (size_t i = 0; i < calls; i++) {
        race_touch(b->bytes);
        for (size_t at = 0; at < b->len;) {
            uint64_t len;
            at = scalar_header(b->bytes, at, &len) + len;
            sum += len;
        }
    }
    return sum;
}

static uint64_t run_scalar_decode(void *context, size_t calls)
{
    const burst *b = context;
    uint64_t sum = 0;
    for (size_t i = 0; i < calls; i++) {
        race_touch(b->bytes);
        for (size_t at = 0; at < b->len;) {
            uint64_t len;
            at = scalar_header(b->bytes, at, &len);
            uint8_t *body = b->bytes + at;
            const uint8_t *key = body - 4;
            for (size_t j = 0; j < len; j++)
                body[j] ^= key[j % 4];
            if (!b->text || dfa_is_utf8(body, len)) sum += len;
            at += len;
        }
    }
    return sum;
}

static uint64_t run_copy_ready(void *context, size_t calls)
{
    const burst *b = context;
    const size_t each = b->len / b->frames;
    for (size_t i = 0; i < calls; i++) {
        for (size_t j = 0; j < b->frames; j++) {
            memcpy(b->bytes + j * each, b->ready + j * each, each);
            race_touch(b->bytes);
        }
    }
    return b->len * calls;
}

/* ---- ringws ---- */

static uint64_t run_parse(void *context, size_t calls)
{
    const burst *b = context;
    uint64_t sum = 0;
    for (size_t i = 0; i < calls; i++) {
        race_touch(b->bytes);
        for (size_t at = 0; at < b->len;) {
            rws__frame frame;
            const int header_len = rws__frame_parse(&frame, b->bytes + at, b->len - at);
            if (header_len <= 0) return 0;
            at += (size_t)header_len + frame.payload_len;
            sum += frame.payload_len;
        }
    }
    return sum;
}

static uint64_t run_decode(void *context, size_t calls)
{
    const burst *b = context;
    const rws__message_rules rules = {
        .message_bytes_max = 1u << 20, .role = RWS_SERVER, .validate_utf8 = true};
    rws__decoder decoder = {0};
    uint64_t sum = 0;
    for (size_t i = 0; i < calls; i++) {
        rws__input input = {b->bytes, b->len};
        rws__event event;
        race_touch(b->bytes);
        for (;;) {
            rws__decoder_next(&decoder, &rules, &input, &event);
            if (event.kind != RWS__EVENT_DATA) break;
            sum += event.len;
        }
        if (event.kind != RWS__EVENT_NEED) return 0;
    }
    return sum;
}

static uint64_t run_write(void *context, size_t calls)
{
    const burst *b = context;
    const size_t each = b->len / b->frames, header = each - b->payload_len;
    uint64_t sum = 0;
    for (size_t i = 0; i < calls; i++) {
        for (size_t j = 0; j < b->frames; j++) {
            const rws__frame frame = {
                .payload_len = b->payload_len, .opcode = RWS_TEXT, .fin = true};
            uint8_t *out = b->bytes + j * each;
            const size_t len = rws__frame_write(out, &frame);
            memcpy(out + len, b->ready + j * each + header, b->payload_len);
            sum += len + b->payload_len;
            race_touch(b->bytes);
        }
    }
    return sum;
}

static bool written_right(void *context)
{
    const burst *b = context;
    const bool right = memcmp(b->bytes, b->ready, b->len) == 0;
    memset(b->bytes, 0, b->len);
    return right;
}

/* ---- bursts ---- */

/* Frames of `payload_len` bytes, at most BURST_BYTES in all, but one at least. */
static void make_burst(burst *b, size_t payload_len, bool masked, const char *input)
{
    const size_t each = rws__frame_header_len(payload_len, masked) + payload_len;
    *b = (burst){.payload_len = payload_len, .text = strcmp(input, "binary") != 0};
    b->frames = BURST_BYTES / each;
    if (b->frames == 0) b->frames = 1;
    if (b->frames > FRAMES_MAX) b->frames = FRAMES_MAX;
    b->len = b->frames * each;
    b->bytes = calloc(1, b->len);
    b->ready = calloc(1, b->len);
    payload made;
    if (b->bytes == NULL || b->ready == NULL ||
        payload_init(&made, payload_len, strcmp(input, "mixed") == 0, 1) != 0)
        abort();

    const rws__frame frame = {.payload_len = payload_len,
                              .opcode = b->text ? RWS_TEXT : RWS_BINARY,
                              .fin = true,
                              .masked = masked};
    size_t at = 0;
    for (uint32_t i = 0; i < b->frames; i++) {
        at += rws__frame_write(b->ready + at, &frame);
        memcpy(b->ready + at, payload_begin(&made, 0, i), payload_len);
        payload_end(&made, 0, i);
        for (size_t j = 0; strcmp(input, "ascii") == 0 && j < payload_len; j++)
            b->ready[at + j] = (uint8_t)(' ' + (i + j) % 95);
        at += payload_len;
    }
    memcpy(b->bytes, b->ready, b->len);
    payload_free(&made);
}

static void race_burst(const race_options *options, race_totals *totals, const char *benchmark,
                       const char *input, size_t payload_len)
{
    burst b;
    race_setup race = {
        .benchmark = benchmark, .input = input, .size_bytes = payload_len, .item = "frame"};
    const bool writes = strcmp(benchmark, "frame_write") == 0;
    make_burst(&b, payload_len, !writes, input);
    race.items = b.frames;
    const uint64_t payloads = b.frames * payload_len;
    race_contestant floor = {.context = &b, .result = payloads}, ours = floor;
    if (writes) {
        floor.name = "memcpy";
        floor.run = run_copy_ready;
        ours.name = "ringws";
        ours.run = run_write;
        floor.result = ours.result = b.len;
        floor.check = ours.check = written_right;
    } else if (strcmp(benchmark, "frame_parse") == 0) {
        floor.name = "scalar_loop";
        floor.run = run_scalar_parse;
        ours.name = "ringws";
        ours.run = run_parse;
    } else {
        floor.name = "scalar_loops";
        floor.run = run_scalar_decode;
        ours.name = "ringws";
        ours.run = run_decode;
    }
    race_add(&race, floor);
    race_add(&race, ours);
    race_start(&race, options, totals);
    free(b.bytes);
    free(b.ready);
}

void micro_frames(const race_options *options, race_totals *totals)
{
    static const size_t sizes[] = {16, 64, 125, 1024, 16384};
    static const char *const inputs[] = {"ascii", "mixed", "binary"};
    const size_t count = sizeof sizes / sizeof sizes[0];
    for (size_t i = 0; i < count; i++)
        race_burst(options, totals, "frame_parse", "binary", sizes[i]);
    for (size_t i = 0; i < count; i++)
        race_burst(options, totals, "frame_write", "ascii", sizes[i]);
    for (size_t j = 0; j < sizeof inputs / sizeof inputs[0]; j++) {
        for (size_t i = 0; i < count; i++)
            race_burst(options, totals, "decode", inputs[j], sizes[i]);
    }
}
