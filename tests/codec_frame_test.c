/* The frame header: every length form and its boundaries, every first byte, cut at every byte. */
#include <criterion/criterion.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "codec/frame.h"
#include "support/feed.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

#define LEN_63_MAX 0x7FFFFFFFFFFFFFFFu

/* Parse in a block of exactly `len` bytes, so that a byte read behind it is caught. */
static int parse(rws__frame *frame, const uint8_t *data, size_t len)
{
    uint8_t *block = malloc(len > 0 ? len : 1);
    cr_assert_not_null(block);
    if (len > 0) memcpy(block, data, len);
    const int result = rws__frame_parse(frame, block, len);
    free(block);
    return result;
}

typedef struct length_case {
    const char *name;
    feed_form form;
    uint64_t len;
    size_t fails_at; /* the byte of the header that shows the error, from 1; 0: it is valid */
} length_case;

static const length_case length_cases[] = {
    {"7 bits, 0", FEED_LEN_7, 0, 0},
    {"7 bits, 1", FEED_LEN_7, 1, 0},
    {"7 bits, 125", FEED_LEN_7, 125, 0},
    {"16 bits, 126", FEED_LEN_16, 126, 0},
    {"16 bits, 127", FEED_LEN_16, 127, 0},
    {"16 bits, 255", FEED_LEN_16, 255, 0},
    {"16 bits, 256", FEED_LEN_16, 256, 0},
    {"16 bits, 65535", FEED_LEN_16, 65535, 0},
    {"64 bits, 65536", FEED_LEN_64, 65536, 0},
    {"64 bits, 65537", FEED_LEN_64, 65537, 0},
    {"64 bits, 2^32 - 1", FEED_LEN_64, UINT32_MAX, 0},
    {"64 bits, 2^32", FEED_LEN_64, (uint64_t)1 << 32, 0},
    {"64 bits, 2^62", FEED_LEN_64, (uint64_t)1 << 62, 0},
    {"64 bits, 2^63 - 1", FEED_LEN_64, LEN_63_MAX, 0},
    {"64 bits, 2^63", FEED_LEN_64, (uint64_t)1 << 63, 3},
    {"64 bits, 2^63 + 1", FEED_LEN_64, ((uint64_t)1 << 63) + 1, 3},
    {"64 bits, 2^64 - 1", FEED_LEN_64, UINT64_MAX, 3},
    {"16 bits, 0: not minimal", FEED_LEN_16, 0, 4},
    {"16 bits, 1: not minimal", FEED_LEN_16, 1, 4},
    {"16 bits, 125: not minimal", FEED_LEN_16, 125, 4},
    {"64 bits, 0: not minimal", FEED_LEN_64, 0, 8},
    {"64 bits, 125: not minimal", FEED_LEN_64, 125, 8},
    {"64 bits, 126: not minimal", FEED_LEN_64, 126, 8},
    {"64 bits, 65535: not minimal", FEED_LEN_64, 65535, 8},
};

static void check_length(const length_case *row, bool masked)
{
    feed_bytes bytes = {0};
    feed_append_header(&bytes, 0x82, masked, row->form, row->len);
    const size_t header_len = bytes.len;
    feed_bytes_append(&bytes, "behind", 6);

    for (size_t len = 0; len <= bytes.len; len++) {
        rws__frame frame;
        const int result = parse(&frame, bytes.data, len);
        if (row->fails_at != 0 && len >= row->fails_at) {
            cr_assert_eq(result, RWS_E_PROTOCOL, "%s, %zu bytes: %d", row->name, len, result);
        } else if (len < header_len) {
            cr_assert_eq(result, 0, "%s, %zu bytes: %d", row->name, len, result);
        } else {
            cr_assert_eq(result, (int)header_len, "%s, %zu bytes: %d", row->name, len, result);
            cr_assert_eq(frame.payload_len, row->len, "%s", row->name);
            cr_assert_eq(frame.masked, masked, "%s", row->name);
            cr_assert_eq(frame.opcode, RWS_BINARY);
            cr_assert_eq(frame.rsv, 0);
            cr_assert(frame.fin);
            if (masked)
                cr_assert_arr_eq(&frame.mask_key, feed_key, 4);
            else
                cr_assert_eq(frame.mask_key, 0);
        }
    }
    feed_bytes_free(&bytes);
}

Test(codec_frame, parses_every_length_form_cut_at_every_byte)
{
    for (size_t i = 0; i < COUNT(length_cases); i++) {
        check_length(&length_cases[i], false);
        check_length(&length_cases[i], true);
    }
}

Test(codec_frame, judges_every_first_byte)
{
    for (unsigned first = 0; first < 256; first++) {
        const unsigned opcode = first & 0x0F;
        const bool fin = first & 0x80;
        const bool is_data = opcode <= RWS_BINARY;
        const bool is_control = opcode == RWS_CLOSE || opcode == RWS_PING || opcode == RWS_PONG;
        const bool is_valid = is_data || (is_control && fin);
        const uint8_t bytes[2] = {(uint8_t)first, 0};
        rws__frame frame;

        cr_assert_eq(parse(&frame, bytes, 1), is_valid ? 0 : RWS_E_PROTOCOL, "first byte %02X",
                     first);
        cr_assert_eq(parse(&frame, bytes, 2), is_valid ? 2 : RWS_E_PROTOCOL, "first byte %02X",
                     first);
        if (!is_valid) continue;
        cr_assert_eq(frame.opcode, opcode);
        cr_assert_eq(frame.fin, fin);
        cr_assert_eq(frame.rsv, first & 0x70, "RSV bits are for the message decoder to judge");
    }
}

Test(codec_frame, a_control_frame_has_125_bytes_or_less)
{
    static const uint8_t controls[] = {0x88, 0x89, 0x8A};
    for (size_t i = 0; i < COUNT(controls); i++) {
        for (unsigned second = 0; second < 256; second++) {
            const uint8_t bytes[2] = {controls[i], (uint8_t)second};
            const bool is_long = (second & 0x7F) > RWS__FRAME_CONTROL_MAX;
            const int complete = second & 0x80 ? 0 : 2;
            rws__frame frame;
            cr_assert_eq(parse(&frame, bytes, 2), is_long ? RWS_E_PROTOCOL : complete,
                         "second byte %02X", second);
        }
    }
}

Test(codec_frame, writes_what_it_parses)
{
    static const uint8_t opcodes[] = {RWS_CONTINUATION, RWS_TEXT, RWS_BINARY,
                                      RWS_CLOSE,        RWS_PING, RWS_PONG};
    for (size_t i = 0; i < COUNT(length_cases); i++) {
        const length_case *row = &length_cases[i];
        if (row->fails_at != 0) continue;
        for (unsigned bits = 0; bits < 32; bits++) {
            for (size_t o = 0; o < COUNT(opcodes); o++) {
                const rws__frame frame = {
                    .payload_len = row->len,
                    .opcode = opcodes[o],
                    .rsv = (uint8_t)(bits << 4 & 0x70),
                    .fin = bits & 8,
                    .masked = bits & 16,
                    .mask_key = bits & 16 ? 0xDEADBEEF : 0,
                };
                if (frame.opcode >= RWS_CLOSE && (!frame.fin || frame.payload_len > 125)) continue;

                uint8_t out[RWS__FRAME_HEADER_MAX];
                const size_t len = rws__frame_write(out, &frame);
                cr_assert_eq(len, rws__frame_header_len(frame.payload_len, frame.masked));
                rws__frame back;
                cr_assert_eq(parse(&back, out, len), (int)len, "%s", row->name);
                cr_assert_eq(back.payload_len, frame.payload_len);
                cr_assert_eq(back.mask_key, frame.mask_key);
                cr_assert_eq(back.opcode, frame.opcode);
                cr_assert_eq(back.rsv, frame.rsv);
                cr_assert_eq(back.fin, frame.fin);
                cr_assert_eq(back.masked, frame.masked);
            }
        }
    }
}

Test(codec_frame, writes_the_bytes_of_the_wire)
{
    for (size_t i = 0; i < COUNT(length_cases); i++) {
        const length_case *row = &length_cases[i];
        if (row->fails_at != 0) continue;
        for (int masked = 0; masked < 2; masked++) {
            rws__frame frame = {
                .payload_len = row->len, .opcode = RWS_TEXT, .fin = true, .masked = masked};
            if (masked) memcpy(&frame.mask_key, feed_key, sizeof feed_key);
            feed_bytes expected = {0};
            feed_append_header(&expected, 0x81, masked, FEED_AUTO, row->len);

            uint8_t out[RWS__FRAME_HEADER_MAX];
            cr_assert_eq(rws__frame_write(out, &frame), expected.len, "%s", row->name);
            cr_assert_arr_eq(out, expected.data, expected.len);
            feed_bytes_free(&expected);
        }
    }
}

/* RFC 6455 section 5.7, the examples. */
Test(codec_frame, reads_the_examples_of_the_rfc)
{
    static const struct {
        uint8_t bytes[10];
        size_t len;
        int header_len;
        rws__frame frame;
    } examples[] = {
        {{0x81, 0x05}, 2, 2, {.fin = true, .opcode = RWS_TEXT, .payload_len = 5}},
        {{0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D},
         6,
         6,
         {.fin = true, .opcode = RWS_TEXT, .payload_len = 5, .masked = true}},
        {{0x01, 0x03}, 2, 2, {.opcode = RWS_TEXT, .payload_len = 3}},
        {{0x80, 0x02}, 2, 2, {.fin = true, .opcode = RWS_CONTINUATION, .payload_len = 2}},
        {{0x89, 0x05}, 2, 2, {.fin = true, .opcode = RWS_PING, .payload_len = 5}},
        {{0x82, 0x7E, 0x01, 0x00}, 4, 4, {.fin = true, .opcode = RWS_BINARY, .payload_len = 256}},
        {{0x82, 0x7F, 0, 0, 0, 0, 0, 1, 0, 0},
         10,
         10,
         {.fin = true, .opcode = RWS_BINARY, .payload_len = 65536}},
    };
    for (size_t i = 0; i < COUNT(examples); i++) {
        rws__frame frame;
        cr_assert_eq(parse(&frame, examples[i].bytes, examples[i].len), examples[i].header_len);
        cr_assert_eq(frame.fin, examples[i].frame.fin);
        cr_assert_eq(frame.opcode, examples[i].frame.opcode);
        cr_assert_eq(frame.payload_len, examples[i].frame.payload_len);
        cr_assert_eq(frame.masked, examples[i].frame.masked);
    }
}

Test(codec_frame, random_bytes_give_one_verdict_at_every_length)
{
    const unsigned seed = (unsigned)time(NULL);
    cr_log_info("seed %u", seed);
    srandom(seed);
    for (int round = 0; round < 20000; round++) {
        uint8_t bytes[RWS__FRAME_HEADER_MAX];
        for (size_t i = 0; i < sizeof bytes; i++) /* many zeros: non-minimal lengths */
            bytes[i] = random() % 3 != 0 ? (uint8_t)random() : 0;

        rws__frame frame, again;
        const int whole = parse(&frame, bytes, sizeof bytes);
        cr_assert_neq(whole, 0, "seed %u: 14 bytes are always enough", seed);
        bool decided = false;
        for (size_t len = 0; len <= sizeof bytes; len++) {
            const int result = parse(&again, bytes, len);
            cr_assert(result == whole || (result == 0 && !decided), "seed %u", seed);
            decided = result != 0;
            if (whole > 0) cr_assert_eq(decided, len >= (size_t)whole, "seed %u", seed);
        }
        if (whole < 0) continue;
        uint8_t out[RWS__FRAME_HEADER_MAX];
        cr_assert_eq(rws__frame_write(out, &frame), (size_t)whole, "seed %u", seed);
        cr_assert_arr_eq(out, bytes, (size_t)whole, "seed %u", seed);
    }
}
