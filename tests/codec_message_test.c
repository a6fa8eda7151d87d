/*
 * The message decoder: its rules as a table of streams that run in both roles and at every split,
 * then what a table can't show (the stash, idleness, where payload lies), then random streams
 * against a second, plain implementation.
 */
#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "codec/message.h"
#include "support/feed.h"
#include "support/reference_decoder.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define LEN_63_MAX   0x7FFFFFFFFFFFFFFFu
#define BYTES_MAX    1000 /* message_bytes_max of a row that does not say another */

/* A piece of a stream: a whole frame, a header alone, or a frame masked as the other role would. */
typedef enum shot_kind { SHOT_END, SHOT_FRAME, SHOT_HEADER, SHOT_WRONG_ROLE } shot_kind;

typedef struct shot_spec {
    shot_kind kind;
    uint8_t first;
    const char *data;
    size_t len; /* of `data`, or bytes of a payload of 'x' if `data` is NULL */
    feed_form form;
    uint64_t declared;
} shot_spec;

#define FRAME(byte, text)                                                                          \
    {                                                                                              \
        .kind = SHOT_FRAME, .first = (byte), .data = (text), .len = sizeof(text) - 1               \
    }
#define FILLED(byte, n)                                                                            \
    {                                                                                              \
        .kind = SHOT_FRAME, .first = (byte), .len = (n)                                            \
    }
#define HEADER(byte, n)                                                                            \
    {                                                                                              \
        .kind = SHOT_HEADER, .first = (byte), .declared = (n)                                      \
    }
#define FORM(byte, form_, n)                                                                       \
    {                                                                                              \
        .kind = SHOT_HEADER, .first = (byte), .form = (form_), .declared = (n)                     \
    }
#define WRONG_ROLE(byte)                                                                           \
    {                                                                                              \
        .kind = SHOT_WRONG_ROLE, .first = (byte), .data = "", .len = 0                             \
    }
#define WRONG_ROLE_LEN(byte, n)                                                                    \
    {                                                                                              \
        .kind = SHOT_WRONG_ROLE, .first = (byte), .len = (n)                                       \
    }
#define STREAM(...) .stream = {__VA_ARGS__}

#define SIXTY "012345678901234567890123456789012345678901234567890123456789"

/* The first byte of a header. */
#define TEXT        0x81
#define BINARY      0x82
#define TEXT_PART   0x01
#define BINARY_PART 0x02
#define MORE        0x00
#define END         0x80
#define CLOSE       0x88
#define PING        0x89
#define PONG        0x8A
#define RSV1        0x40
#define RSV2        0x20

/*
 * `outcome` is what summarise() makes of the recorded items: "T2:ab" a text message of two frames,
 * "B" binary, "T*" with RSV1, "ping:", "pong:", "close:", "!utf8" and so on for an error. A payload
 * of more than 24 bytes is given as "<length>".
 */
typedef struct rule_case {
    const char *name;
    shot_spec stream[10];
    const char *outcome;
    /* The error shows with this byte: so many whole headers with 7-bit lengths, so many bytes more.
     */
    size_t fails_headers, fails_bytes;
    uint64_t bytes_max; /* 0: BYTES_MAX */
    uint32_t fragments_max, empty_fragments_max;
    bool takes_nothing; /* message_bytes_max is 0 */
    bool allow_rsv1, any_text;
} rule_case;

static const rule_case rule_cases[] = {
    /* Messages. */
    {"a text", STREAM(FRAME(TEXT, "Hello")), "T1:Hello"},
    {"a binary message", STREAM(FRAME(BINARY, "\xFF\x01")), "B1:\xFF\x01"},
    {"an empty text", STREAM(FRAME(TEXT, "")), "T1:"},
    {"an empty binary message", STREAM(FRAME(BINARY, "")), "B1:"},
    {"one after the other", STREAM(FRAME(TEXT, "a"), FRAME(BINARY, "b"), FRAME(TEXT, "c")),
     "T1:a B1:b T1:c"},
    {"three fragments", STREAM(FRAME(TEXT_PART, "a"), FRAME(MORE, "bc"), FRAME(END, "d")),
     "T3:abcd"},
    {"a fragmented message between two whole ones",
     STREAM(FRAME(BINARY, "1"), FRAME(TEXT_PART, "a"), FRAME(END, "b"), FRAME(BINARY, "2")),
     "B1:1 T2:ab B1:2"},
    {"empty fragments", STREAM(FRAME(BINARY_PART, ""), FRAME(MORE, ""), FRAME(END, "")), "B3:"},
    {"a 16-bit length", STREAM(FILLED(TEXT, 126)), "T1:<126>"},
    {"every form of a header, one behind the other",
     STREAM(FILLED(TEXT, 63), FILLED(BINARY, 64), FILLED(TEXT, 65), FILLED(BINARY, 125),
            FILLED(TEXT, 125), FILLED(BINARY, 126), FRAME(TEXT, ""), FILLED(TEXT, 64),
            FRAME(BINARY, "")),
     "T1:<63> B1:<64> T1:<65> B1:<125> T1:<125> B1:<126> T1: T1:<64> B1:"},
    {"a message that is not complete", STREAM(FRAME(TEXT_PART, "a"), FRAME(MORE, "b")), ""},

    /* Control frames, section 5.5. */
    {"a ping, a pong, a close", STREAM(FRAME(PING, "a"), FRAME(PONG, ""), FRAME(CLOSE, "\x03\xE8")),
     "ping:a pong: close:\x03\xE8"},
    {"control frames of 125 bytes", STREAM(FILLED(PING, 125), FILLED(PONG, 125)),
     "ping:<125> pong:<125>"},
    {"control frames between fragments",
     STREAM(FRAME(TEXT_PART, "a"), FRAME(PING, "1"), FRAME(MORE, "b"), FRAME(PONG, "2"),
            FRAME(PING, ""), FRAME(END, "c")),
     "ping:1 pong:2 ping: T3:abc"},
    {"control payloads are not text", STREAM(FRAME(PING, "\xFF\xC0"), FRAME(CLOSE, "\x03\xE8\xFF")),
     "ping:\xFF\xC0 close:\x03\xE8\xFF"},
    {"126 bytes in a ping", STREAM(HEADER(PING, 126)), "!protocol", 0, 2},
    {"65536 bytes in a close", STREAM(HEADER(CLOSE, 65536)), "!protocol", 0, 2},
    {"a fragmented ping", STREAM(FRAME(0x09, "a")), "!protocol", 0, 1},
    {"a fragmented close between fragments", STREAM(FRAME(TEXT_PART, "a"), FRAME(0x08, "")),
     "!protocol", 1, 2},

    /* Fragments, section 5.4. */
    {"a continuation of nothing", STREAM(FRAME(END, "a")), "!protocol", 0, 1},
    {"a continuation after a whole message", STREAM(FRAME(TEXT, "a"), FRAME(MORE, "b")),
     "T1:a !protocol", 1, 2},
    {"a continuation after the last one",
     STREAM(FRAME(TEXT_PART, "a"), FRAME(END, "b"), FRAME(END, "c")), "T2:ab !protocol", 2, 3},
    {"a message in a message", STREAM(FRAME(TEXT_PART, "a"), FRAME(TEXT, "b")), "!protocol", 1, 2},
    {"a binary message in a text", STREAM(FRAME(TEXT_PART, "a"), FRAME(BINARY_PART, "b")),
     "!protocol", 1, 2},

    /* Masking, section 5.1. */
    {"masked by the wrong role", STREAM(WRONG_ROLE(TEXT)), "!protocol", 0, 2},
    {"masked by the wrong role behind a message",
     STREAM(FRAME(TEXT, "a"), WRONG_ROLE_LEN(BINARY, 125)), "T1:a !protocol", 1, 3},
    {"masked by the wrong role, a 16-bit length", STREAM(WRONG_ROLE_LEN(TEXT, 126)), "!protocol", 0,
     2},
    {"a ping masked by the wrong role", STREAM(FRAME(TEXT, "a"), WRONG_ROLE(PING)),
     "T1:a !protocol", 1, 3},
    {"a fragment masked by the wrong role", STREAM(FRAME(TEXT_PART, "a"), WRONG_ROLE(END)),
     "!protocol", 1, 3},

    /* Opcodes and lengths, section 5.2. */
    {"a reserved opcode", STREAM(FRAME(0x83, "")), "!protocol", 0, 1},
    {"a reserved control opcode", STREAM(FRAME(PING, ""), FRAME(0x8B, "")), "ping: !protocol", 1,
     1},
    {"16 bits that are not minimal", STREAM(FORM(TEXT, FEED_LEN_16, 125)), "!protocol", 0, 4},
    {"64 bits that are not minimal", STREAM(FORM(TEXT, FEED_LEN_64, 65535)), "!protocol", 0, 8,
     .bytes_max = UINT64_MAX},
    {"2^63", STREAM(FORM(TEXT, FEED_LEN_64, (uint64_t)1 << 63)), "!protocol", 0, 3,
     .bytes_max = UINT64_MAX},
    {"2^64 - 1", STREAM(FORM(TEXT, FEED_LEN_64, UINT64_MAX)), "!protocol", 0, 3,
     .bytes_max = UINT64_MAX},

    /* RSV bits, section 5.2; RSV1 of RFC 7692. */
    {"rsv1 without an extension", STREAM(FRAME(TEXT | RSV1, "a")), "!protocol", 0, 1},
    {"rsv2 without an extension", STREAM(FRAME(TEXT | RSV2, "a")), "!protocol", 0, 1},
    {"rsv1 that was negotiated", STREAM(FRAME(TEXT | RSV1, "a"), FRAME(TEXT, "b")), "T*1:a T1:b",
     .allow_rsv1 = true},
    {"rsv1 on the first of three fragments",
     STREAM(FRAME(BINARY_PART | RSV1, "a"), FRAME(MORE, "b"), FRAME(END, "c"), FRAME(BINARY, "d")),
     "B*3:abc B1:d", .allow_rsv1 = true},
    {"rsv1 on a continuation", STREAM(FRAME(TEXT_PART | RSV1, "a"), FRAME(END | RSV1, "b")),
     "!protocol", 1, 2, .allow_rsv1 = true},
    {"rsv1 on a ping", STREAM(FRAME(PING | RSV1, "")), "!protocol", 0, 1, .allow_rsv1 = true},
    {"rsv1 on a close between fragments",
     STREAM(FRAME(TEXT_PART | RSV1, "a"), FRAME(CLOSE | RSV1, "")), "!protocol", 1, 2,
     .allow_rsv1 = true},
    {"rsv2 beside rsv1", STREAM(FRAME(TEXT | RSV1 | RSV2, "a")), "!protocol", 0, 1,
     .allow_rsv1 = true},
    {"rsv2 is nobody's", STREAM(FRAME(TEXT | RSV2, "a")), "!protocol", 0, 1, .allow_rsv1 = true},

    /* UTF-8, section 8.1. */
    {"a character cut by a fragment", STREAM(FRAME(TEXT_PART, "\xE2\x82"), FRAME(END, "\xAC")),
     "T2:\xE2\x82\xAC"},
    {"a character cut by a fragment and a ping",
     STREAM(FRAME(TEXT_PART, "\xF0\x9F"), FRAME(PING, "\xFF"), FRAME(MORE, ""),
            FRAME(END, "\x98\x80")),
     "ping:\xFF T3:\xF0\x9F\x98\x80"},
    {"an invalid byte in the middle",
     STREAM(FRAME(TEXT, "abc\xFF"
                        "def")),
     "!utf8", 1, 4},
    {"an invalid byte behind a valid message", STREAM(FRAME(TEXT, "ok"), FRAME(TEXT, "\x80")),
     "T1:ok !utf8", 2, 3},
    {"a cut character at the end of 64 bytes",
     STREAM(FRAME(TEXT, SIXTY "abc\xC3"), FRAME(TEXT, "\xA4")), "!utf8", 1, 64},
    {"a character that ends 64 bytes",
     STREAM(FRAME(TEXT, SIXTY "\xF0\x9F\x98\x80"), FRAME(TEXT, "\x80")), "T1:<64> !utf8", 2, 65},
    {"a cut character at the end", STREAM(FRAME(TEXT, "a\xE2\x82")), "!utf8", 1, 3},
    {"a cut character, then an empty last fragment",
     STREAM(FRAME(TEXT_PART, "\xE2\x82"), FRAME(END, "")), "!utf8", 2, 2},
    {"a cut character, then another message", STREAM(FRAME(TEXT, "\xE2"), FRAME(TEXT, "\x82\xAC")),
     "!utf8", 1, 1},
    {"an invalid fragment",
     STREAM(FRAME(TEXT_PART, "a"), FRAME(END, "b\xC0"
                                              "c")),
     "!utf8", 2, 3},
    {"bytes that would not be text between two texts",
     STREAM(FRAME(TEXT, "\xC3\xA4"), FRAME(BINARY, "\xC3"), FRAME(TEXT, "\xC3\xB6")),
     "T1:\xC3\xA4 B1:\xC3 T1:\xC3\xB6"},
    {"no validation asked for",
     STREAM(FRAME(TEXT, "\xFF\xE2"), FRAME(TEXT_PART, "\xE2"), FRAME(END, "")),
     "T1:\xFF\xE2 T2:\xE2", .any_text = true},
    {"compressed text is not text, the next message is",
     STREAM(FRAME(TEXT | RSV1, "\xFF"), FRAME(TEXT_PART | RSV1, "\xE2"), FRAME(END, "\xFE"),
            FRAME(TEXT, "\xFF")),
     "T*1:\xFF T*2:\xE2\xFE !utf8", 4, 4, .allow_rsv1 = true},

    /* message_bytes_max: from the declared length, exact, over all fragments. */
    {"exactly the limit", STREAM(FILLED(BINARY, 100)), "B1:<100>", .bytes_max = 100},
    {"one byte over the limit", STREAM(HEADER(BINARY, 101)), "!too big", 0, 2, .bytes_max = 100},
    {"exactly the limit in 16 bits", STREAM(FILLED(BINARY, 126)), "B1:<126>", .bytes_max = 126},
    {"over the limit by the low byte", STREAM(HEADER(BINARY, 301)), "!too big", 0, 4,
     .bytes_max = 300},
    {"over the limit by the high byte", STREAM(HEADER(BINARY, 600)), "!too big", 0, 3,
     .bytes_max = 300},
    {"over the limit in 64 bits", STREAM(HEADER(BINARY, 65537)), "!too big", 0, 10,
     .bytes_max = 65536},
    {"over the limit in the first of 64 bits", STREAM(HEADER(BINARY, LEN_63_MAX)), "!too big", 0, 3,
     .bytes_max = 65536},
    {"exactly the limit over fragments",
     STREAM(FILLED(BINARY_PART, 40), FILLED(MORE, 40), FILLED(END, 20)), "B3:<100>",
     .bytes_max = 100},
    {"one byte over the limit over fragments",
     STREAM(FILLED(BINARY_PART, 40), FILLED(MORE, 40), HEADER(END, 21)), "!too big", 2, 82,
     .bytes_max = 100},
    {"the limit is for each message",
     STREAM(FILLED(BINARY, 100), FILLED(BINARY_PART, 60), FILLED(END, 40), FILLED(BINARY, 100)),
     "B1:<100> B2:<100> B1:<100>", .bytes_max = 100},
    {"control frames do not count",
     STREAM(FILLED(BINARY_PART, 60), FILLED(PING, 125), FILLED(END, 40)), "ping:<125> B2:<100>",
     .bytes_max = 100},
    {"a limit of 0 lets empty messages and pings by",
     STREAM(FRAME(TEXT, ""), FRAME(PING, "a"), HEADER(TEXT, 1)), "T1: ping:a !too big", 2, 3,
     .takes_nothing = true},
    {"2^63 - 1 with no limit", STREAM(HEADER(BINARY, LEN_63_MAX)), "", .bytes_max = UINT64_MAX},
    {"2^63 - 1 at the limit", STREAM(HEADER(BINARY, LEN_63_MAX)), "", .bytes_max = LEN_63_MAX},
    {"2^63 - 1 over the limit", STREAM(HEADER(BINARY, LEN_63_MAX)), "!too big", 0, 10,
     .bytes_max = LEN_63_MAX - 1},
    {"2^63 - 1 behind a fragment", STREAM(FRAME(BINARY_PART, "a"), HEADER(END, LEN_63_MAX)),
     "!too big", 1, 11, .bytes_max = LEN_63_MAX},
    {"2^63 - 1 behind a fragment with no limit",
     STREAM(FRAME(BINARY_PART, "a"), HEADER(END, LEN_63_MAX)), "", .bytes_max = UINT64_MAX},

    /* fragments_max. */
    {"exactly as many fragments", STREAM(FRAME(TEXT_PART, "a"), FRAME(MORE, "b"), FRAME(END, "c")),
     "T3:abc", .fragments_max = 3},
    {"one fragment more",
     STREAM(FRAME(TEXT_PART, "a"), FRAME(MORE, "b"), FRAME(MORE, "c"), FRAME(END, "d")), "!policy",
     3, 4, .fragments_max = 3},
    {"one frame to a message", STREAM(FRAME(TEXT, "a"), FRAME(TEXT_PART, "b"), FRAME(END, "c")),
     "T1:a !policy", 2, 3, .fragments_max = 1},
    {"control frames are not fragments",
     STREAM(FRAME(TEXT_PART, "a"), FRAME(PING, ""), FRAME(PING, ""), FRAME(END, "b")),
     "ping: ping: T2:ab", .fragments_max = 2},
    {"fragments are counted for each message",
     STREAM(FRAME(TEXT_PART, "a"), FRAME(END, "b"), FRAME(TEXT_PART, "c"), FRAME(END, "d")),
     "T2:ab T2:cd", .fragments_max = 2},
    {"one fragment more, and not minimal: the first byte decides",
     STREAM(FRAME(TEXT_PART, "a"), FORM(END, FEED_LEN_16, 1)), "!policy", 1, 2, .fragments_max = 1},
    {"one fragment more, and masked wrongly: the first byte decides",
     STREAM(FRAME(TEXT_PART, "a"), WRONG_ROLE(END)), "!policy", 1, 2, .fragments_max = 1},
    {"one fragment more, and rsv1: the bits decide",
     STREAM(FRAME(TEXT_PART, "a"), FRAME(END | RSV1, "")), "!protocol", 1, 2, .fragments_max = 1},

    /* empty_fragments_max: empty non-final frames in a row. */
    {"exactly as many empty ones", STREAM(FRAME(TEXT_PART, ""), FRAME(MORE, ""), FRAME(END, "a")),
     "T3:a", .empty_fragments_max = 2},
    {"one empty one more", STREAM(FRAME(TEXT_PART, ""), FRAME(MORE, ""), FRAME(MORE, "")),
     "!policy", 2, 2, .empty_fragments_max = 2},
    {"an empty last one does not count",
     STREAM(FRAME(TEXT_PART, ""), FRAME(MORE, ""), FRAME(END, "")),
     "T3:", .empty_fragments_max = 2},
    {"payload ends the row",
     STREAM(FRAME(TEXT_PART, ""), FRAME(MORE, ""), FRAME(MORE, "a"), FRAME(MORE, ""),
            FRAME(MORE, ""), FRAME(END, "")),
     "T6:a", .empty_fragments_max = 2},
    {"a ping does not end the row",
     STREAM(FRAME(TEXT_PART, ""), FRAME(PING, "a"), FRAME(MORE, ""), FRAME(PING, ""),
            FRAME(MORE, "")),
     "ping:a ping: !policy", 4, 3, .empty_fragments_max = 2},
    {"a message ends the row",
     STREAM(FRAME(TEXT_PART, ""), FRAME(MORE, ""), FRAME(END, ""), FRAME(TEXT_PART, ""),
            FRAME(MORE, ""), FRAME(END, "")),
     "T3: T3:", .empty_fragments_max = 2},
    {"empty messages are no fragments", STREAM(FRAME(TEXT, ""), FRAME(TEXT, ""), FRAME(TEXT, "")),
     "T1: T1: T1:", .empty_fragments_max = 1},
    {"one empty one more with a reserved opcode: the first byte decides",
     STREAM(FRAME(TEXT_PART, ""), FRAME(0x03, "")), "!protocol", 1, 1, .empty_fragments_max = 1},
    {"one empty one more, masked wrongly: the mask decides",
     STREAM(FRAME(TEXT_PART, ""), WRONG_ROLE(MORE)), "!protocol", 1, 2, .empty_fragments_max = 1},

    /* What is before an error comes first. */
    {"messages and pings before an error",
     STREAM(FRAME(TEXT, "a"), FRAME(PING, "b"), FRAME(BINARY_PART, "c"), FRAME(END, "d"),
            FRAME(0xFF, "")),
     "T1:a ping:b B2:cd !protocol", 4, 5},
};

static const char *error_name(int status)
{
    switch (status) {
    case RWS_E_PROTOCOL: return "protocol";
    case RWS_E_UTF8: return "utf8";
    case RWS_E_TOO_BIG: return "too big";
    case RWS_E_POLICY: return "policy";
    default: return "another status";
    }
}

static void append_text(feed_bytes *out, const char *text)
{
    feed_bytes_append(out, text, strlen(text));
}

static void summarise(feed_bytes *out, const feed_run *feed)
{
    for (size_t i = 0; i < feed->items_count; i++) {
        const feed_item *item = &feed->items[i];
        char text[40] = "";
        if (i > 0) append_text(out, " ");
        if (item->kind == FEED_ERROR) {
            append_text(out, "!");
            append_text(out, error_name(item->status));
            continue;
        }
        if (item->kind == FEED_MESSAGE)
            snprintf(text, sizeof text, "%c%s%u:", item->opcode == RWS_TEXT ? 'T' : 'B',
                     item->rsv1 ? "*" : "", item->frames);
        else
            snprintf(text, sizeof text, "%s:",
                     item->opcode == RWS_PING   ? "ping"
                     : item->opcode == RWS_PONG ? "pong"
                                                : "close");
        append_text(out, text);
        if (item->payload.len > 24) {
            snprintf(text, sizeof text, "<%zu>", item->payload.len);
            append_text(out, text);
        } else {
            feed_bytes_append(out, item->payload.data, item->payload.len);
        }
    }
}

typedef struct expectation {
    const rule_case *row;
    rws_role role;
    size_t fails_at;
} expectation;

static void check_outcome(const feed_run *feed, const char *how, void *user)
{
    const expectation *expected = user;
    const rule_case *row = expected->row;
    const char *role = expected->role == RWS_SERVER ? "server" : "client";
    feed_bytes outcome = {0};

    cr_assert_null(feed->broken, "%s, %s, %s: %s", row->name, role, how, feed->broken);
    summarise(&outcome, feed);
    feed_bytes_append(&outcome, "", 1);
    cr_assert_str_eq((const char *)outcome.data, row->outcome, "%s, %s, %s: %s", row->name, role,
                     how, (const char *)outcome.data);
    feed_bytes_free(&outcome);

    cr_assert_eq(feed->failed, expected->fails_at != 0, "%s: say where it fails", row->name);
    if (feed->failed && strcmp(how, "one byte at a time") == 0) {
        const size_t failed_at = feed->items[feed->items_count - 1].fed;
        cr_assert_eq(failed_at, expected->fails_at, "%s, %s: failed at byte %zu, not %zu",
                     row->name, role, failed_at, expected->fails_at);
    }
}

static void append_shot(feed_bytes *stream, const shot_spec *shot, bool masked)
{
    if (shot->kind == SHOT_HEADER) {
        feed_append_header(stream, shot->first, masked, shot->form, shot->declared);
        return;
    }
    if (shot->kind == SHOT_WRONG_ROLE) masked = !masked;
    char filler[256];
    memset(filler, 'x', sizeof filler);
    feed_append_frame(stream, shot->first, masked, shot->data != NULL ? shot->data : filler,
                      shot->len);
}

static rws__message_rules rules_of(const rule_case *row, rws_role role)
{
    const uint64_t bytes_max = row->bytes_max != 0 ? row->bytes_max : BYTES_MAX;
    return (rws__message_rules){
        .message_bytes_max = row->takes_nothing ? 0 : bytes_max,
        .fragments_max = row->fragments_max,
        .empty_fragments_max = row->empty_fragments_max,
        .role = role,
        .validate_utf8 = !row->any_text,
        .allow_rsv1 = row->allow_rsv1,
    };
}

static void run_rule(const rule_case *row, rws_role role)
{
    const bool masked = role == RWS_SERVER;
    const rws__message_rules rules = rules_of(row, role);
    feed_bytes stream = {0};
    expectation expected = {
        .row = row,
        .role = role,
        .fails_at = row->fails_headers * (masked ? 6 : 2) + row->fails_bytes,
    };
    for (const shot_spec *shot = row->stream; shot->kind != SHOT_END; shot++)
        append_shot(&stream, shot, masked);
    feed_every_way(&rules, &stream, check_outcome, &expected);
    feed_bytes_free(&stream);
}

Test(codec_message, keeps_the_rules_at_every_split)
{
    for (size_t i = 0; i < COUNT(rule_cases); i++) {
        run_rule(&rule_cases[i], RWS_SERVER);
        run_rule(&rule_cases[i], RWS_CLIENT);
    }
}

/* --- where payload lies and when the stash exists --- */

static const rws__message_rules server_rules = {
    .message_bytes_max = BYTES_MAX, .role = RWS_SERVER, .validate_utf8 = true};

static rws__event next(rws__decoder *decoder, rws__input *input)
{
    rws__event event;
    rws__decoder_next(decoder, &server_rules, input, &event);
    return event;
}

Test(codec_message, a_whole_frame_is_unmasked_where_it_lies)
{
    feed_bytes stream = {0};
    feed_append_frame(&stream, TEXT, true, "Hello", 5);
    rws__decoder decoder = {0};
    rws__input input = {.data = stream.data, .len = stream.len};

    const rws__event event = next(&decoder, &input);
    cr_assert_eq(event.kind, RWS__EVENT_DATA);
    cr_assert_eq(event.data, stream.data + 6);
    cr_assert_eq(event.len, 5);
    cr_assert(event.message_first && event.message_last && event.frame_first && event.frame_last);
    cr_assert_arr_eq(event.data, "Hello", 5);
    cr_assert_eq(input.len, 0);
    cr_assert_eq(next(&decoder, &input).kind, RWS__EVENT_NEED);
    cr_assert_null(decoder.stash);
    feed_bytes_free(&stream);
}

Test(codec_message, a_cut_frame_is_handed_out_in_pieces)
{
    feed_bytes stream = {0};
    feed_append_frame(&stream, BINARY, true, "abcdefgh", 8);
    rws__decoder decoder = {0};

    rws__input input = {.data = stream.data, .len = 6 + 3};
    rws__event event = next(&decoder, &input);
    cr_assert_eq(event.len, 3);
    cr_assert(event.frame_first && event.message_first && !event.frame_last && !event.message_last);
    cr_assert_eq(next(&decoder, &input).kind, RWS__EVENT_NEED);
    cr_assert(rws__decoder_stash_is_free(&decoder), "payload needs no stash");
    cr_assert_not(rws__decoder_is_idle(&decoder));

    input = (rws__input){.data = stream.data + 9, .len = 2};
    event = next(&decoder, &input);
    cr_assert_eq(event.data, stream.data + 9);
    cr_assert(!event.frame_first && !event.message_first && !event.frame_last &&
              !event.message_last);

    input = (rws__input){.data = stream.data + 11, .len = 3};
    event = next(&decoder, &input);
    cr_assert(!event.frame_first && !event.message_first && event.frame_last && event.message_last);
    cr_assert_arr_eq(stream.data + 6, "abcdefgh", 8);
    cr_assert(rws__decoder_is_idle(&decoder));
    feed_bytes_free(&stream);
}

Test(codec_message, an_invalid_byte_fails_before_its_frame_is_whole)
{
    char text[300];
    memset(text, 'x', sizeof text);
    text[99] = '\xFF';
    feed_bytes stream = {0};
    feed_append_frame(&stream, TEXT, true, text, sizeof text);
    stream.len = 8 + 100; /* up to the invalid byte */

    feed_run whole, bytes, cut;
    feed_whole(&whole, &server_rules, &stream);
    feed_one_by_one(&bytes, &server_rules, &stream);
    feed_split(&cut, &server_rules, &stream, stream.len - 1);
    cr_assert_eq(feed_status(&whole), RWS_E_UTF8);
    cr_assert_eq(feed_status(&bytes), RWS_E_UTF8);
    cr_assert_eq(feed_status(&cut), RWS_E_UTF8);
    cr_assert_eq(whole.events, 0, "no part of the piece that is invalid");
    feed_free(&whole);
    feed_free(&bytes);
    feed_free(&cut);
    feed_bytes_free(&stream);
}

typedef struct stash_case {
    const char *name;
    uint8_t first;
    size_t payload_len;
    size_t cut;   /* the first piece ends here */
    size_t asked; /* how often the stash is needed */
    bool held;    /* whether it is in use between the pieces */
} stash_case;

static const stash_case stash_cases[] = {
    {"a whole frame, nothing cut", TEXT, 20, 26, 0, false},
    {"a header cut behind its first byte", TEXT, 20, 1, 1, true},
    {"a header cut in its key", TEXT, 20, 5, 1, true},
    {"a long header cut behind its length", BINARY, 300, 4, 1, true},
    {"a header that ends the piece", TEXT, 20, 6, 0, false},
    {"payload of a message cut", TEXT, 20, 13, 0, false},
    {"the header of a ping cut", PING, 20, 5, 1, true},
    {"a ping's header that ends the piece", PING, 20, 6, 0, false},
    {"payload of a ping cut", PING, 20, 7, 1, true},
    {"payload of a long ping cut before its last byte", PING, 125, 130, 1, true},
};

Test(codec_message, the_stash_exists_only_while_something_is_cut)
{
    const uint8_t payload[300] = {'x'};
    for (size_t i = 0; i < COUNT(stash_cases); i++) {
        const stash_case *row = &stash_cases[i];
        feed_bytes stream = {0};
        feed_run feed;
        feed_append_frame(&stream, row->first, true, payload, row->payload_len);

        feed_init(&feed, &server_rules);
        feed_piece(&feed, stream.data, row->cut);
        cr_assert_eq(feed.stash_asked, row->asked, "%s", row->name);
        cr_assert_eq(feed.decoder.stash != NULL, row->held, "%s", row->name);
        feed_piece(&feed, stream.data + row->cut, stream.len - row->cut);
        cr_assert_null(feed.broken, "%s: %s", row->name, feed.broken);
        cr_assert_eq(feed.stash_asked, row->asked, "%s", row->name);
        cr_assert_null(feed.decoder.stash, "%s: it is given back", row->name);
        cr_assert_eq(feed.items_count, 1, "%s", row->name);
        cr_assert_eq(feed.items[0].payload.len, row->payload_len, "%s", row->name);
        feed_free(&feed);
        feed_bytes_free(&stream);
    }
}

Test(codec_message, a_ping_one_byte_at_a_time_asks_once_for_its_header_and_once_for_its_payload)
{
    feed_bytes stream = {0};
    feed_run feed;
    feed_append_frame(&stream, PING, true, "ping", 4);
    feed_one_by_one(&feed, &server_rules, &stream);
    cr_assert_null(feed.broken);
    cr_assert_eq(feed.stash_asked, 2);
    feed_free(&feed);
    feed_bytes_free(&stream);
}

Test(codec_message, asking_for_the_stash_takes_nothing)
{
    uint8_t bytes[] = {PING, 0x84, 1, 2, 3};
    uint8_t stash[RWS__STASH_BYTES];
    rws__decoder decoder = {0};
    rws__input input = {.data = bytes, .len = sizeof bytes};

    for (int i = 0; i < 3; i++) {
        cr_assert_eq(next(&decoder, &input).kind, RWS__EVENT_STASH);
        cr_assert_eq(input.len, sizeof bytes);
        cr_assert(rws__decoder_stash_is_free(&decoder));
    }
    decoder.stash = stash;
    cr_assert_eq(next(&decoder, &input).kind, RWS__EVENT_NEED);
    cr_assert_eq(input.len, 0);
    cr_assert_not(rws__decoder_stash_is_free(&decoder));
}

Test(codec_message, an_error_needs_no_stash)
{
    uint8_t bytes[] = {TEXT, 0x05};
    rws__decoder decoder = {0};
    rws__input input = {.data = bytes, .len = sizeof bytes};
    const rws__event event = next(&decoder, &input);
    cr_assert_eq(event.kind, RWS__EVENT_ERROR);
    cr_assert_eq(event.status, RWS_E_PROTOCOL);
    cr_assert(rws__decoder_stash_is_free(&decoder));
    cr_assert_not(rws__decoder_is_idle(&decoder));
}

Test(codec_message, an_error_gives_the_stash_back)
{
    uint8_t stash[RWS__STASH_BYTES];
    uint8_t bytes[] = {TEXT, 0x05};
    rws__decoder decoder = {.stash = stash};
    rws__input input = {.data = bytes, .len = 1};
    cr_assert_eq(next(&decoder, &input).kind, RWS__EVENT_NEED);
    cr_assert_not(rws__decoder_stash_is_free(&decoder));
    input = (rws__input){.data = bytes + 1, .len = 1};
    cr_assert_eq(next(&decoder, &input).kind, RWS__EVENT_ERROR);
    cr_assert(rws__decoder_stash_is_free(&decoder));
}

/* The decoder looks at what is behind a header that the stash completes, but leaves it in the
 * input. */
Test(codec_message, a_glued_header_takes_only_its_own_bytes)
{
    feed_bytes stream = {0};
    uint8_t stash[RWS__STASH_BYTES];
    feed_append_frame(&stream, TEXT, true, "a", 1);
    feed_append_frame(&stream, TEXT, true, "b", 1);
    feed_append_frame(&stream, TEXT, true, "c", 1);

    for (size_t cut = 1; cut < 6; cut++) {
        feed_bytes copy = {0};
        feed_bytes_append(&copy, stream.data, stream.len);
        rws__decoder decoder = {.stash = stash};
        rws__input input = {.data = copy.data, .len = cut};
        cr_assert_eq(next(&decoder, &input).kind, RWS__EVENT_NEED);
        input = (rws__input){.data = copy.data + cut, .len = copy.len - cut};
        for (const char *expected = "abc"; *expected != '\0'; expected++) {
            const rws__event event = next(&decoder, &input);
            cr_assert_eq(event.kind, RWS__EVENT_DATA);
            cr_assert_eq(*event.data, *expected, "cut after %zu bytes", cut);
        }
        cr_assert_eq(next(&decoder, &input).kind, RWS__EVENT_NEED);
        feed_bytes_free(&copy);
    }
    feed_bytes_free(&stream);
}

Test(codec_message, is_idle_only_between_messages)
{
    feed_bytes stream = {0};
    feed_append_frame(&stream, TEXT_PART, true, "a", 1);
    feed_append_frame(&stream, PING, true, "b", 1);
    feed_append_frame(&stream, END, true, "", 0);

    rws__decoder fresh = {0};
    cr_assert(rws__decoder_is_idle(&fresh));
    cr_assert(rws__decoder_stash_is_free(&fresh));

    feed_run feed;
    feed_init(&feed, &server_rules);
    for (size_t i = 0; i < stream.len; i++) {
        feed_piece(&feed, stream.data + i, 1);
        cr_assert_eq(rws__decoder_is_idle(&feed.decoder), i + 1 == stream.len, "byte %zu", i);
    }
    feed_free(&feed);
    feed_bytes_free(&stream);
}

Test(codec_message, nothing_is_not_an_end)
{
    rws__decoder decoder = {0};
    rws__input input = {0};
    cr_assert_eq(next(&decoder, &input).kind, RWS__EVENT_NEED);
    cr_assert(rws__decoder_is_idle(&decoder));

    uint8_t ping[] = {PING, 0x81, 0, 0, 0, 0};
    input = (rws__input){.data = ping, .len = sizeof ping};
    cr_assert_eq(next(&decoder, &input).kind, RWS__EVENT_NEED);
    input = (rws__input){0};
    cr_assert_eq(next(&decoder, &input).kind, RWS__EVENT_NEED);
}

/* Frames of 2^63-1 bytes can't be sent here, so their sum is put into the decoder. */
Test(codec_message, the_sum_of_the_frames_can_not_wrap)
{
    const rws__message_rules rules = {.message_bytes_max = UINT64_MAX, .role = RWS_CLIENT};
    for (uint8_t len = 4; len <= 6; len++) {
        uint8_t bytes[8] = {END, len};
        rws__decoder decoder = {
            .message_opcode = RWS_BINARY, .message_started = true, .message_bytes = UINT64_MAX - 5};
        rws__input input = {.data = bytes, .len = 2u + len};
        rws__event event;
        rws__decoder_next(&decoder, &rules, &input, &event);
        cr_assert_eq(event.kind, len <= 5 ? RWS__EVENT_DATA : RWS__EVENT_ERROR);
        if (len > 5) cr_assert_eq(event.status, RWS_E_TOO_BIG);
    }
}

/* --- random streams against the plain implementation --- */

/* RINGWS_TEST_SEED repeats a run. */
static unsigned random_seed(void)
{
    const char *given = getenv("RINGWS_TEST_SEED");
    return given != NULL ? (unsigned)strtoul(given, NULL, 10) : (unsigned)time(NULL);
}

static size_t pick(size_t bound)
{
    return (size_t)random() % bound;
}

static void append_random_payload(feed_bytes *payload, bool text)
{
    static const char *const pieces[] = {
        "a",   "\xC3\xA4", "\xE2\x82\xAC",    "\xF0\x9F\x98\x80", "\xED\x9F\xBF",
        "xyz", "\x7F",     "\xF4\x8F\xBF\xBF"};
    const size_t count = pick(4) == 0 ? 0 : pick(pick(16) == 0 ? 60 : 6);
    for (size_t i = 0; i < count; i++) {
        const char *piece = pieces[pick(COUNT(pieces))];
        feed_bytes_append(payload, piece, strlen(piece));
    }
    if (text && pick(40) != 0) return;
    const uint8_t byte = (uint8_t)random();
    feed_bytes_append(payload, &byte, 1);
}

/* A data message in one to five fragments, cut anywhere, with control frames between them. */
static void append_random_message(feed_bytes *stream, const rws__message_rules *rules)
{
    const bool masked = rules->role == RWS_SERVER, text = pick(2) == 0;
    const size_t frames = pick(3) != 0 ? 1 : 1 + pick(5);
    feed_bytes payload = {0};
    append_random_payload(&payload, text);

    size_t at = 0;
    for (size_t i = 0; i < frames; i++) {
        const bool last = i + 1 == frames;
        const size_t len = last ? payload.len - at : pick(payload.len - at + 1);
        uint8_t first = i == 0 ? (text ? 1 : 2) : 0;
        if (i == 0 && rules->allow_rsv1 && pick(3) == 0) first |= RSV1;
        if (last) first |= 0x80;
        feed_append_frame(stream, first, masked, payload.data == NULL ? NULL : payload.data + at,
                          len);
        at += len;
        if (pick(4) == 0)
            feed_append_frame(stream, (uint8_t)(PING + pick(2)), masked, "control", pick(8));
    }
    feed_bytes_free(&payload);
}

static void make_random_stream(feed_bytes *stream, rws__message_rules *rules)
{
    static const uint32_t counts[] = {0, 1, 2, 3, 100};
    *rules = (rws__message_rules){
        .message_bytes_max = pick(4) != 0 ? 1 << 20 : pick(40),
        .fragments_max = counts[pick(COUNT(counts))],
        .empty_fragments_max = counts[pick(COUNT(counts))],
        .role = pick(2) != 0 ? RWS_SERVER : RWS_CLIENT,
        .validate_utf8 = pick(4) != 0,
        .allow_rsv1 = pick(2) != 0,
    };
    const size_t messages = 1 + pick(5);
    for (size_t i = 0; i < messages; i++)
        append_random_message(stream, rules);
    if (pick(3) == 0) stream->data[pick(stream->len)] ^= (uint8_t)(1u << pick(8));
    if (pick(4) == 0) stream->len = pick(stream->len + 1);
}

static void check_against(const feed_run *expected, feed_run *got, unsigned seed, int round)
{
    const char *why;
    cr_assert(feed_is_same(expected, got, &why), "seed %u, round %d: %s", seed, round, why);
    feed_free(got);
}

Test(codec_message, random_streams_decode_as_the_plain_decoder_says)
{
    const unsigned seed = random_seed();
    size_t errors = 0;
    srandom(seed);
    for (int round = 0; round < 6000; round++) {
        rws__message_rules rules;
        feed_bytes stream = {0};
        feed_run expected, got;
        make_random_stream(&stream, &rules);
        reference_decode(&expected, &rules, &stream);
        errors += expected.failed;

        feed_whole(&got, &rules, &stream);
        check_against(&expected, &got, seed, round);

        feed_one_by_one(&got, &rules, &stream);
        if (expected.failed && got.failed)
            cr_assert_eq(got.items[got.items_count - 1].fed,
                         expected.items[expected.items_count - 1].fed,
                         "seed %u, round %d: the error came late", seed, round);
        check_against(&expected, &got, seed, round);

        feed_init(&got, &rules);
        for (size_t at = 0; at < stream.len;) {
            const size_t left = stream.len - at, want = pick(12);
            const size_t len = want < left ? want : left; /* an empty piece now and then */
            feed_piece(&got, stream.data + at, len);
            at += len;
        }
        check_against(&expected, &got, seed, round);
        feed_free(&expected);
        feed_bytes_free(&stream);
    }
    cr_assert_gt(errors, 600, "seed %u: the streams are too tame", seed);
    cr_assert_lt(errors, 5400, "seed %u: the streams are too wild", seed);
}
