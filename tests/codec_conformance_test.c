/*
 * The cases of groups 1–7 of the Autobahn|Testsuite (framing, pings and pongs, reserved bits,
 * opcodes, fragmentation, UTF-8, closing), restated as tables for the codec, so that conformance
 * never depends on the suite being at hand. A row is named by the number of its case.
 *
 * The endpoint here is the smallest one: it sends messages back, answers pings and closes. Every
 * row runs in both roles, whole, one byte at a time and in splits in two, which covers the chops
 * that the suite's own cases ask for. Where the connection has to fail, the row also says at which
 * byte the failure shows: nothing later is good enough ("fail fast", cases 6.4.x).
 */
#include <criterion/criterion.h>

#include <assert.h>
#include <string.h>

#include "codec/close.h"
#include "codec/frame.h"
#include "support/feed.h"

#define CASES 246 /* of the suite, groups 1–7 */

/* A frame: the first byte of its header, and a payload that may repeat or be cut into fragments. */
typedef struct shot_spec {
    uint8_t first;
    const char *data; /* NULL ends a list */
    size_t len;
    size_t repeat;        /* 0 means 1 */
    size_t fragment_size; /* 0: one frame */
} shot_spec;

#define BYTES(text) .data = (text), .len = sizeof(text) - 1
#define FRAME(byte, text)                                                                          \
    {                                                                                              \
        .first = (byte), BYTES(text)                                                               \
    }
#define TIMES(byte, text, n)                                                                       \
    {                                                                                              \
        .first = (byte), BYTES(text), .repeat = (n)                                                \
    }
#define OCTETS(byte, text)                                                                         \
    {                                                                                              \
        .first = (byte), BYTES(text), .fragment_size = 1                                           \
    }
#define TEXT_FRAME(text) FRAME(0x81, text)
#define TEXT_START(text) FRAME(0x01, text)
#define MORE(text)       FRAME(0x00, text)
#define END(text)        FRAME(0x80, text)
#define CLOSE(text)      FRAME(0x88, text)
#define PING(text)       FRAME(0x89, text)
#define PONG(text)       FRAME(0x8A, text)

#define SENT(...)   .sent = {__VA_ARGS__}
#define ANSWER(...) .answer = {__VA_ARGS__}

#define HELLO     "Hello, world!"
#define BINARY    "\x00\xFF\xFE\xFD\xFC\xFB\x00\xFF"
#define KOSME     "\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5"
#define UMLAUT    "Hello-\xC2\xB5@\xC3\x9F\xC3\xB6\xC3\xA4\xC3\xBC\xC3\xA0\xC3\xA1-UTF-8!!"
#define C1000     "\x03\xE8"
#define STARS_41  "*****************************************"
#define STARS_123 STARS_41 STARS_41 STARS_41

typedef struct conformance_case {
    const char *name;
    shot_spec sent[12];
    shot_spec answer[12]; /* a close that answers a failure is not listed */
    bool closes;    /* `sent` has a close of its own; otherwise a close with 1000 goes behind it */
    uint16_t fails; /* the close code of the failure, or 0 */
    /* The failure shows with this byte: so many headers of short frames, so many bytes more. */
    size_t fails_headers, fails_bytes;
} conformance_case;

static const conformance_case cases[] = {
    /* 1: framing; every length form in text and binary. */
    {"1.1.1", SENT(TEXT_FRAME("")), ANSWER(TEXT_FRAME(""))},
    {"1.1.2", SENT(TIMES(0x81, "*", 125)), ANSWER(TIMES(0x81, "*", 125))},
    {"1.1.3", SENT(TIMES(0x81, "*", 126)), ANSWER(TIMES(0x81, "*", 126))},
    {"1.1.4", SENT(TIMES(0x81, "*", 127)), ANSWER(TIMES(0x81, "*", 127))},
    {"1.1.5", SENT(TIMES(0x81, "*", 128)), ANSWER(TIMES(0x81, "*", 128))},
    {"1.1.6", SENT(TIMES(0x81, "*", 65535)), ANSWER(TIMES(0x81, "*", 65535))},
    {"1.1.7", SENT(TIMES(0x81, "*", 65536)), ANSWER(TIMES(0x81, "*", 65536))},
    {"1.1.8", SENT(TIMES(0x81, "*", 65536)), ANSWER(TIMES(0x81, "*", 65536))},
    {"1.2.1", SENT(FRAME(0x82, "")), ANSWER(FRAME(0x82, ""))},
    {"1.2.2", SENT(TIMES(0x82, "\xFE", 125)), ANSWER(TIMES(0x82, "\xFE", 125))},
    {"1.2.3", SENT(TIMES(0x82, "\xFE", 126)), ANSWER(TIMES(0x82, "\xFE", 126))},
    {"1.2.4", SENT(TIMES(0x82, "\xFE", 127)), ANSWER(TIMES(0x82, "\xFE", 127))},
    {"1.2.5", SENT(TIMES(0x82, "\xFE", 128)), ANSWER(TIMES(0x82, "\xFE", 128))},
    {"1.2.6", SENT(TIMES(0x82, "\xFE", 65535)), ANSWER(TIMES(0x82, "\xFE", 65535))},
    {"1.2.7", SENT(TIMES(0x82, "\xFE", 65536)), ANSWER(TIMES(0x82, "\xFE", 65536))},
    {"1.2.8", SENT(TIMES(0x82, "\xFE", 65536)), ANSWER(TIMES(0x82, "\xFE", 65536))},

    /* 2: pings and pongs. */
    {"2.1", SENT(PING("")), ANSWER(PONG(""))},
    {"2.2", SENT(PING(HELLO)), ANSWER(PONG(HELLO))},
    {"2.3", SENT(PING(BINARY)), ANSWER(PONG(BINARY))},
    {"2.4", SENT(TIMES(0x89, "\xFE", 125)), ANSWER(TIMES(0x8A, "\xFE", 125))},
    {"2.5", SENT(TIMES(0x89, "\xFE", 126)), .fails = 1002, .fails_bytes = 2},
    {"2.6", SENT(TIMES(0x89, "\xFE", 125)), ANSWER(TIMES(0x8A, "\xFE", 125))},
    {"2.7", SENT(PONG(""))},
    {"2.8", SENT(PONG("unsolicited pong payload"))},
    {"2.9", SENT(PONG("unsolicited pong payload"), PING("ping payload")),
     ANSWER(PONG("ping payload"))},
    {"2.10",
     SENT(PING("payload-0"), PING("payload-1"), PING("payload-2"), PING("payload-3"),
          PING("payload-4"), PING("payload-5"), PING("payload-6"), PING("payload-7"),
          PING("payload-8"), PING("payload-9")),
     ANSWER(PONG("payload-0"), PONG("payload-1"), PONG("payload-2"), PONG("payload-3"),
            PONG("payload-4"), PONG("payload-5"), PONG("payload-6"), PONG("payload-7"),
            PONG("payload-8"), PONG("payload-9"))},
    {"2.11",
     SENT(PING("payload-0"), PING("payload-1"), PING("payload-2"), PING("payload-3"),
          PING("payload-4"), PING("payload-5"), PING("payload-6"), PING("payload-7"),
          PING("payload-8"), PING("payload-9")),
     ANSWER(PONG("payload-0"), PONG("payload-1"), PONG("payload-2"), PONG("payload-3"),
            PONG("payload-4"), PONG("payload-5"), PONG("payload-6"), PONG("payload-7"),
            PONG("payload-8"), PONG("payload-9"))},

    /* 3: RSV bits without an extension. What came before is echoed, what comes after is not. */
    {"3.1", SENT(FRAME(0x91, HELLO)), .fails = 1002, .fails_bytes = 1},
    {"3.2", SENT(TEXT_FRAME(HELLO), FRAME(0xA1, HELLO), PING("")), ANSWER(TEXT_FRAME(HELLO)),
     .fails = 1002, .fails_headers = 1, .fails_bytes = 14},
    {"3.3", SENT(TEXT_FRAME(HELLO), FRAME(0xB1, HELLO), PING("")), ANSWER(TEXT_FRAME(HELLO)),
     .fails = 1002, .fails_headers = 1, .fails_bytes = 14},
    {"3.4", SENT(TEXT_FRAME(HELLO), FRAME(0xC1, HELLO), PING("")), ANSWER(TEXT_FRAME(HELLO)),
     .fails = 1002, .fails_headers = 1, .fails_bytes = 14},
    {"3.5", SENT(FRAME(0xD2, BINARY)), .fails = 1002, .fails_bytes = 1},
    {"3.6", SENT(FRAME(0xE9, HELLO)), .fails = 1002, .fails_bytes = 1},
    {"3.7", SENT(FRAME(0xF8, "")), .fails = 1002, .fails_bytes = 1},

    /* 4: reserved opcodes. */
    {"4.1.1", SENT(FRAME(0x83, "")), .fails = 1002, .fails_bytes = 1},
    {"4.1.2", SENT(FRAME(0x84, "reserved opcode payload")), .fails = 1002, .fails_bytes = 1},
    {"4.1.3", SENT(TEXT_FRAME(HELLO), FRAME(0x85, ""), PING("")), ANSWER(TEXT_FRAME(HELLO)),
     .fails = 1002, .fails_headers = 1, .fails_bytes = 14},
    {"4.1.4", SENT(TEXT_FRAME(HELLO), FRAME(0x86, HELLO), PING("")), ANSWER(TEXT_FRAME(HELLO)),
     .fails = 1002, .fails_headers = 1, .fails_bytes = 14},
    {"4.1.5", SENT(TEXT_FRAME(HELLO), FRAME(0x87, HELLO), PING("")), ANSWER(TEXT_FRAME(HELLO)),
     .fails = 1002, .fails_headers = 1, .fails_bytes = 14},
    {"4.2.1", SENT(FRAME(0x8B, "")), .fails = 1002, .fails_bytes = 1},
    {"4.2.2", SENT(FRAME(0x8C, "reserved opcode payload")), .fails = 1002, .fails_bytes = 1},
    {"4.2.3", SENT(TEXT_FRAME(HELLO), FRAME(0x8D, ""), PING("")), ANSWER(TEXT_FRAME(HELLO)),
     .fails = 1002, .fails_headers = 1, .fails_bytes = 14},
    {"4.2.4", SENT(TEXT_FRAME(HELLO), FRAME(0x8E, HELLO), PING("")), ANSWER(TEXT_FRAME(HELLO)),
     .fails = 1002, .fails_headers = 1, .fails_bytes = 14},
    {"4.2.5", SENT(TEXT_FRAME(HELLO), FRAME(0x8F, HELLO), PING("")), ANSWER(TEXT_FRAME(HELLO)),
     .fails = 1002, .fails_headers = 1, .fails_bytes = 14},

    /* 5: fragmentation. */
    {"5.1", SENT(FRAME(0x09, "fragment1"), END("fragment2")), .fails = 1002, .fails_bytes = 1},
    {"5.2", SENT(FRAME(0x0A, "fragment1"), END("fragment2")), .fails = 1002, .fails_bytes = 1},
    {"5.3", SENT(TEXT_START("fragment1"), END("fragment2")),
     ANSWER(TEXT_FRAME("fragment1fragment2"))},
    {"5.4", SENT(TEXT_START("fragment1"), END("fragment2")),
     ANSWER(TEXT_FRAME("fragment1fragment2"))},
    {"5.5", SENT(TEXT_START("fragment1"), END("fragment2")),
     ANSWER(TEXT_FRAME("fragment1fragment2"))},
    {"5.6", SENT(TEXT_START("fragment1"), PING("ping payload"), END("fragment2")),
     ANSWER(PONG("ping payload"), TEXT_FRAME("fragment1fragment2"))},
    {"5.7", SENT(TEXT_START("fragment1"), PING("ping payload"), END("fragment2")),
     ANSWER(PONG("ping payload"), TEXT_FRAME("fragment1fragment2"))},
    {"5.8", SENT(TEXT_START("fragment1"), PING("ping payload"), END("fragment2")),
     ANSWER(PONG("ping payload"), TEXT_FRAME("fragment1fragment2"))},
    {"5.9", SENT(END("non-continuation payload"), TEXT_FRAME(HELLO)), .fails = 1002,
     .fails_bytes = 1},
    {"5.10", SENT(END("non-continuation payload"), TEXT_FRAME(HELLO)), .fails = 1002,
     .fails_bytes = 1},
    {"5.11", SENT(END("non-continuation payload"), TEXT_FRAME(HELLO)), .fails = 1002,
     .fails_bytes = 1},
    {"5.12", SENT(MORE("non-continuation payload"), TEXT_FRAME(HELLO)), .fails = 1002,
     .fails_bytes = 1},
    {"5.13", SENT(MORE("non-continuation payload"), TEXT_FRAME(HELLO)), .fails = 1002,
     .fails_bytes = 1},
    {"5.14", SENT(MORE("non-continuation payload"), TEXT_FRAME(HELLO)), .fails = 1002,
     .fails_bytes = 1},
    {"5.15",
     SENT(TEXT_START("fragment1"), END("fragment2"), MORE("fragment3"), TEXT_FRAME("fragment4")),
     ANSWER(TEXT_FRAME("fragment1fragment2")), .fails = 1002, .fails_headers = 2,
     .fails_bytes = 19},
    {"5.16",
     SENT(MORE("fragment1"), TEXT_START("fragment2"), END("fragment3"), MORE("fragment1"),
          TEXT_START("fragment2"), END("fragment3")),
     .fails = 1002, .fails_bytes = 1},
    {"5.17",
     SENT(END("fragment1"), TEXT_START("fragment2"), END("fragment3"), END("fragment1"),
          TEXT_START("fragment2"), END("fragment3")),
     .fails = 1002, .fails_bytes = 1},
    {"5.18", SENT(TEXT_START("fragment1"), TEXT_FRAME("fragment2")), .fails = 1002,
     .fails_headers = 1, .fails_bytes = 10},
    {"5.19",
     SENT(TEXT_START("fragment1"), MORE("fragment2"), PING("pongme 1!"), MORE("fragment3"),
          MORE("fragment4"), PING("pongme 2!"), END("fragment5")),
     ANSWER(PONG("pongme 1!"), PONG("pongme 2!"),
            TEXT_FRAME("fragment1fragment2fragment3fragment4fragment5"))},
    {"5.20",
     SENT(TEXT_START("fragment1"), MORE("fragment2"), PING("pongme 1!"), MORE("fragment3"),
          MORE("fragment4"), PING("pongme 2!"), END("fragment5")),
     ANSWER(PONG("pongme 1!"), PONG("pongme 2!"),
            TEXT_FRAME("fragment1fragment2fragment3fragment4fragment5"))},

    /* 6.1–6.4: text in fragments; fail fast. 6.5–6.23 are in the next table. */
    {"6.1.1", SENT(TEXT_FRAME("")), ANSWER(TEXT_FRAME(""))},
    {"6.1.2", SENT(TEXT_START(""), MORE(""), END("")), ANSWER(TEXT_FRAME(""))},
    {"6.1.3", SENT(TEXT_START(""), MORE("middle frame payload"), END("")),
     ANSWER(TEXT_FRAME("middle frame payload"))},
    {"6.2.1", SENT(TEXT_FRAME(UMLAUT)), ANSWER(TEXT_FRAME(UMLAUT))},
    {"6.2.2",
     SENT(TEXT_START("Hello-\xC2\xB5@\xC3\x9F\xC3\xB6\xC3\xA4"),
          END("\xC3\xBC\xC3\xA0\xC3\xA1-UTF-8!!")),
     ANSWER(TEXT_FRAME(UMLAUT))},
    {"6.2.3", SENT(OCTETS(0x81, UMLAUT)), ANSWER(TEXT_FRAME(UMLAUT))},
    {"6.2.4", SENT(OCTETS(0x81, KOSME)), ANSWER(TEXT_FRAME(KOSME))},
    {"6.3.1",
     SENT(TEXT_FRAME(KOSME "\xED\xA0\x80"
                           "edited")),
     .fails = 1007, .fails_headers = 1, .fails_bytes = 13},
    {"6.3.2",
     SENT(OCTETS(0x81, KOSME "\xED\xA0\x80"
                             "edited")),
     .fails = 1007, .fails_headers = 13, .fails_bytes = 13},
    {"6.4.1", SENT(TEXT_START(KOSME), MORE("\xF4\x90\x80\x80"), END("edited")), .fails = 1007,
     .fails_headers = 2, .fails_bytes = 13},
    {"6.4.2",
     SENT(TEXT_START(KOSME "\xF4"), MORE("\x90"),
          END("\x80\x80"
              "edited")),
     .fails = 1007, .fails_headers = 2, .fails_bytes = 13},
    {"6.4.3",
     SENT(TEXT_FRAME(KOSME "\xF4\x90\x80\x80"
                           "edited")),
     .fails = 1007, .fails_headers = 1, .fails_bytes = 13},
    {"6.4.4",
     SENT(TEXT_FRAME(KOSME "\xF4\x90\x80\x80"
                           "edited")),
     .fails = 1007, .fails_headers = 1, .fails_bytes = 13},

    /* 7: closing. Nothing that comes behind a close frame is answered. */
    {"7.1.1", SENT(TEXT_FRAME("Hello World!")), ANSWER(TEXT_FRAME("Hello World!"))},
    {"7.1.2", SENT(CLOSE(C1000), CLOSE("")), ANSWER(CLOSE(C1000)), .closes = true},
    {"7.1.3", SENT(CLOSE(C1000), PING("")), ANSWER(CLOSE(C1000)), .closes = true},
    {"7.1.4", SENT(CLOSE(C1000), TEXT_FRAME("Hello World!")), ANSWER(CLOSE(C1000)), .closes = true},
    {"7.1.5", SENT(TEXT_START("fragment1"), CLOSE(C1000), END("fragment2")), ANSWER(CLOSE(C1000)),
     .closes = true},
    {"7.1.6",
     SENT(TIMES(0x81, "BAsd7&jh", 32768), TEXT_FRAME("Hello World!"), CLOSE(C1000), PING("")),
     ANSWER(TIMES(0x81, "BAsd7&jh", 32768), TEXT_FRAME("Hello World!"), CLOSE(C1000)),
     .closes = true},
    {"7.3.1", SENT(CLOSE("")), ANSWER(CLOSE("")), .closes = true},
    {"7.3.2", SENT(CLOSE("a")), .fails = 1002, .fails_headers = 1, .fails_bytes = 1},
    {"7.3.3", SENT(CLOSE(C1000)), ANSWER(CLOSE(C1000)), .closes = true},
    {"7.3.4", SENT(CLOSE(C1000 "Hello World!")), ANSWER(CLOSE(C1000)), .closes = true},
    {"7.3.5", SENT(CLOSE(C1000 STARS_123)), ANSWER(CLOSE(C1000)), .closes = true},
    {"7.3.6", SENT(CLOSE(C1000 STARS_123 "*")), .fails = 1002, .fails_bytes = 2},
    {"7.5.1",
     SENT(CLOSE(C1000 KOSME "\xED\xA0\x80"
                            "edited")),
     .fails = 1007, .fails_headers = 1, .fails_bytes = 22},
    {"7.7.1", SENT(CLOSE("\x03\xE8")), ANSWER(CLOSE("\x03\xE8")), .closes = true},  /* 1000 */
    {"7.7.2", SENT(CLOSE("\x03\xE9")), ANSWER(CLOSE("\x03\xE9")), .closes = true},  /* 1001 */
    {"7.7.3", SENT(CLOSE("\x03\xEA")), ANSWER(CLOSE("\x03\xEA")), .closes = true},  /* 1002 */
    {"7.7.4", SENT(CLOSE("\x03\xEB")), ANSWER(CLOSE("\x03\xEB")), .closes = true},  /* 1003 */
    {"7.7.5", SENT(CLOSE("\x03\xEF")), ANSWER(CLOSE("\x03\xEF")), .closes = true},  /* 1007 */
    {"7.7.6", SENT(CLOSE("\x03\xF0")), ANSWER(CLOSE("\x03\xF0")), .closes = true},  /* 1008 */
    {"7.7.7", SENT(CLOSE("\x03\xF1")), ANSWER(CLOSE("\x03\xF1")), .closes = true},  /* 1009 */
    {"7.7.8", SENT(CLOSE("\x03\xF2")), ANSWER(CLOSE("\x03\xF2")), .closes = true},  /* 1010 */
    {"7.7.9", SENT(CLOSE("\x03\xF3")), ANSWER(CLOSE("\x03\xF3")), .closes = true},  /* 1011 */
    {"7.7.10", SENT(CLOSE("\x0B\xB8")), ANSWER(CLOSE("\x0B\xB8")), .closes = true}, /* 3000 */
    {"7.7.11", SENT(CLOSE("\x0F\x9F")), ANSWER(CLOSE("\x0F\x9F")), .closes = true}, /* 3999 */
    {"7.7.12", SENT(CLOSE("\x0F\xA0")), ANSWER(CLOSE("\x0F\xA0")), .closes = true}, /* 4000 */
    {"7.7.13", SENT(CLOSE("\x13\x87")), ANSWER(CLOSE("\x13\x87")), .closes = true}, /* 4999 */
    {"7.9.1", SENT(CLOSE("\x00\x00")), .fails = 1002, .fails_headers = 1, .fails_bytes = 2}, /* 0 */
    {"7.9.2", SENT(CLOSE("\x03\xE7")), .fails = 1002, .fails_headers = 1,
     .fails_bytes = 2}, /* 999 */
    {"7.9.3", SENT(CLOSE("\x03\xEC")), .fails = 1002, .fails_headers = 1,
     .fails_bytes = 2}, /* 1004 */
    {"7.9.4", SENT(CLOSE("\x03\xED")), .fails = 1002, .fails_headers = 1,
     .fails_bytes = 2}, /* 1005 */
    {"7.9.5", SENT(CLOSE("\x03\xEE")), .fails = 1002, .fails_headers = 1,
     .fails_bytes = 2}, /* 1006 */
    {"7.9.6", SENT(CLOSE("\x03\xF8")), .fails = 1002, .fails_headers = 1,
     .fails_bytes = 2}, /* 1016 */
    {"7.9.7", SENT(CLOSE("\x04\x4C")), .fails = 1002, .fails_headers = 1,
     .fails_bytes = 2}, /* 1100 */
    {"7.9.8", SENT(CLOSE("\x07\xD0")), .fails = 1002, .fails_headers = 1,
     .fails_bytes = 2}, /* 2000 */
    {"7.9.9", SENT(CLOSE("\x0B\xB7")), .fails = 1002, .fails_headers = 1,
     .fails_bytes = 2}, /* 2999 */
    /* The suite leaves the outcome of these two open; here they may not be sent either. */
    {"7.13.1", SENT(CLOSE("\x13\x88")), .fails = 1002, .fails_headers = 1,
     .fails_bytes = 2}, /* 5000 */
    {"7.13.2", SENT(CLOSE("\xFF\xFF")), .fails = 1002, .fails_headers = 1,
     .fails_bytes = 2}, /* 65535 */
};

/* 6.5–6.23: one text message each, echoed, or failed (1007) with the given byte of its payload: the
 * first that can't be valid, or the last if only the end is missing. */
typedef struct utf8_case {
    const char *name;
    const char *data;
    size_t len;
    size_t fails_bytes; /* 0: valid */
} utf8_case;

#define TEXT(text) (text), sizeof(text) - 1

static const utf8_case utf8_cases[] = {
    /* Valid text. */
    {"6.5.1", TEXT("hello$world"), 0},
    {"6.5.2", TEXT("hello\xC2\xA2world"), 0},
    {"6.5.3", TEXT("hello\xE2\x82\xACworld"), 0},
    {"6.5.4", TEXT("hello\xF0\xA4\xAD\xA2world"), 0},
    {"6.5.5", TEXT("\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5"), 0},
    /* Every prefix of a valid text: the cut ones fail at their end. */
    {"6.6.1", TEXT("\xCE"), 1},
    {"6.6.2", TEXT("\xCE\xBA"), 0},
    {"6.6.3", TEXT("\xCE\xBA\xE1"), 3},
    {"6.6.4", TEXT("\xCE\xBA\xE1\xBD"), 4},
    {"6.6.5", TEXT("\xCE\xBA\xE1\xBD\xB9"), 0},
    {"6.6.6", TEXT("\xCE\xBA\xE1\xBD\xB9\xCF"), 6},
    {"6.6.7", TEXT("\xCE\xBA\xE1\xBD\xB9\xCF\x83"), 0},
    {"6.6.8", TEXT("\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE"), 8},
    {"6.6.9", TEXT("\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC"), 0},
    {"6.6.10", TEXT("\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE"), 10},
    {"6.6.11", TEXT("\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5"), 0},
    /* The first sequence of each length. */
    {"6.7.1", TEXT("\x00"), 0},
    {"6.7.2", TEXT("\xC2\x80"), 0},
    {"6.7.3", TEXT("\xE0\xA0\x80"), 0},
    {"6.7.4", TEXT("\xF0\x90\x80\x80"), 0},
    /* Five and six bytes: not UTF-8 any more. */
    {"6.8.1", TEXT("\xF8\x88\x80\x80\x80"), 1},
    {"6.8.2", TEXT("\xFC\x84\x80\x80\x80\x80"), 1},
    /* The last sequence of each length. */
    {"6.9.1", TEXT("\x7F"), 0},
    {"6.9.2", TEXT("\xDF\xBF"), 0},
    {"6.9.3", TEXT("\xEF\xBF\xBF"), 0},
    {"6.9.4", TEXT("\xF4\x8F\xBF\xBF"), 0},
    /* Last sequences beyond U+10FFFF. */
    {"6.10.1", TEXT("\xF7\xBF\xBF\xBF"), 1},
    {"6.10.2", TEXT("\xFB\xBF\xBF\xBF\xBF"), 1},
    {"6.10.3", TEXT("\xFD\xBF\xBF\xBF\xBF\xBF"), 1},
    /* Other boundaries. */
    {"6.11.1", TEXT("\xED\x9F\xBF"), 0},
    {"6.11.2", TEXT("\xEE\x80\x80"), 0},
    {"6.11.3", TEXT("\xEF\xBF\xBD"), 0},
    {"6.11.4", TEXT("\xF4\x8F\xBF\xBF"), 0},
    {"6.11.5", TEXT("\xF4\x90\x80\x80"), 2},
    /* Unexpected continuation bytes. */
    {"6.12.1", TEXT("\x80"), 1},
    {"6.12.2", TEXT("\xBF"), 1},
    {"6.12.3", TEXT("\x80\xBF"), 1},
    {"6.12.4", TEXT("\x80\xBF\x80"), 1},
    {"6.12.5", TEXT("\x80\xBF\x80\xBF"), 1},
    {"6.12.6", TEXT("\x80\xBF\x80\xBF\x80"), 1},
    {"6.12.7", TEXT("\x80\xBF\x80\xBF\x80\xBF"), 1},
    {"6.12.8",
     TEXT("\x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8A\x8B\x8C\x8D\x8E\x8F\x90\x91\x92\x93\x94\x95"
          "\x96\x97\x98\x99\x9A\x9B\x9C\x9D\x9E\x9F\xA0\xA1\xA2\xA3\xA4\xA5\xA6\xA7\xA8\xA9\xAA\xAB"
          "\xAC\xAD\xAE\xAF\xB0\xB1\xB2\xB3\xB4\xB5\xB6\xB7\xB8\xB9\xBA\xBB\xBC\xBD\xBE"),
     1},
    /* Lonely start bytes, a space after each. */
    {"6.13.1",
     TEXT("\xC0 \xC1 \xC2 \xC3 \xC4 \xC5 \xC6 \xC7 \xC8 \xC9 \xCA \xCB \xCC \xCD \xCE \xCF \xD0 "
          "\xD1 \xD2 \xD3 \xD4 \xD5 \xD6 \xD7 \xD8 \xD9 \xDA \xDB \xDC \xDD \xDE "),
     1},
    {"6.13.2", TEXT("\xE0 \xE1 \xE2 \xE3 \xE4 \xE5 \xE6 \xE7 \xE8 \xE9 \xEA \xEB \xEC \xED \xEE "),
     2},
    {"6.13.3", TEXT("\xF0 \xF1 \xF2 \xF3 \xF4 \xF5 \xF6 "), 2},
    {"6.13.4", TEXT("\xF8 \xF9 \xFA "), 1},
    {"6.13.5", TEXT("\xFC "), 1},
    /* The last continuation byte is missing. */
    {"6.14.1", TEXT("\xC0"), 1},
    {"6.14.2", TEXT("\xE0\x80"), 2},
    {"6.14.3", TEXT("\xF0\x80\x80"), 2},
    {"6.14.4", TEXT("\xF8\x80\x80\x80"), 1},
    {"6.14.5", TEXT("\xFC\x80\x80\x80\x80"), 1},
    {"6.14.6", TEXT("\xDF"), 1},
    {"6.14.7", TEXT("\xEF\xBF"), 2},
    {"6.14.8", TEXT("\xF7\xBF\xBF"), 1},
    {"6.14.9", TEXT("\xFB\xBF\xBF\xBF"), 1},
    {"6.14.10", TEXT("\xFD\xBF\xBF\xBF\xBF"), 1},
    /* All of these in a row. */
    {"6.15.1",
     TEXT("\xC0\xE0\x80\xF0\x80\x80\xF8\x80\x80\x80\xFC\x80\x80\x80\x80\xDF\xEF\xBF\xF7\xBF\xBF\xFB"
          "\xBF\xBF\xBF\xFD\xBF\xBF\xBF\xBF"),
     1},
    /* Bytes that are never valid. */
    {"6.16.1", TEXT("\xFE"), 1},
    {"6.16.2", TEXT("\xFF"), 1},
    {"6.16.3", TEXT("\xFE\xFE\xFF\xFF"), 1},
    /* Overlong slash. */
    {"6.17.1", TEXT("\xC0\xAF"), 1},
    {"6.17.2", TEXT("\xE0\x80\xAF"), 2},
    {"6.17.3", TEXT("\xF0\x80\x80\xAF"), 2},
    {"6.17.4", TEXT("\xF8\x80\x80\x80\xAF"), 1},
    {"6.17.5", TEXT("\xFC\x80\x80\x80\x80\xAF"), 1},
    /* The longest overlong sequences. */
    {"6.18.1", TEXT("\xC1\xBF"), 1},
    {"6.18.2", TEXT("\xE0\x9F\xBF"), 2},
    {"6.18.3", TEXT("\xF0\x8F\xBF\xBF"), 2},
    {"6.18.4", TEXT("\xF8\x87\xBF\xBF\xBF"), 1},
    {"6.18.5", TEXT("\xFC\x83\xBF\xBF\xBF\xBF"), 1},
    /* Overlong NUL. */
    {"6.19.1", TEXT("\xC0\x80"), 1},
    {"6.19.2", TEXT("\xE0\x80\x80"), 2},
    {"6.19.3", TEXT("\xF0\x80\x80\x80"), 2},
    {"6.19.4", TEXT("\xF8\x80\x80\x80\x80"), 1},
    {"6.19.5", TEXT("\xFC\x80\x80\x80\x80\x80"), 1},
    /* Single surrogates. */
    {"6.20.1", TEXT("\xED\xA0\x80"), 2},
    {"6.20.2", TEXT("\xED\xAD\xBF"), 2},
    {"6.20.3", TEXT("\xED\xAE\x80"), 2},
    {"6.20.4", TEXT("\xED\xAF\xBF"), 2},
    {"6.20.5", TEXT("\xED\xB0\x80"), 2},
    {"6.20.6", TEXT("\xED\xBE\x80"), 2},
    {"6.20.7", TEXT("\xED\xBF\xBF"), 2},
    /* Pairs of surrogates. */
    {"6.21.1", TEXT("\xED\xA0\x80\xED\xB0\x80"), 2},
    {"6.21.2", TEXT("\xED\xA0\x80\xED\xBF\xBF"), 2},
    {"6.21.3", TEXT("\xED\xAD\xBF\xED\xB0\x80"), 2},
    {"6.21.4", TEXT("\xED\xAD\xBF\xED\xBF\xBF"), 2},
    {"6.21.5", TEXT("\xED\xAE\x80\xED\xB0\x80"), 2},
    {"6.21.6", TEXT("\xED\xAE\x80\xED\xBF\xBF"), 2},
    {"6.21.7", TEXT("\xED\xAF\xBF\xED\xB0\x80"), 2},
    {"6.21.8", TEXT("\xED\xAF\xBF\xED\xBF\xBF"), 2},
    /* Code points that are no characters are valid all the same. */
    {"6.22.1", TEXT("\xEF\xBF\xBE"), 0},
    {"6.22.2", TEXT("\xEF\xBF\xBF"), 0},
    {"6.22.3", TEXT("\xF0\x9F\xBF\xBE"), 0},
    {"6.22.4", TEXT("\xF0\x9F\xBF\xBF"), 0},
    {"6.22.5", TEXT("\xF0\xAF\xBF\xBE"), 0},
    {"6.22.6", TEXT("\xF0\xAF\xBF\xBF"), 0},
    {"6.22.7", TEXT("\xF0\xBF\xBF\xBE"), 0},
    {"6.22.8", TEXT("\xF0\xBF\xBF\xBF"), 0},
    {"6.22.9", TEXT("\xF1\x8F\xBF\xBE"), 0},
    {"6.22.10", TEXT("\xF1\x8F\xBF\xBF"), 0},
    {"6.22.11", TEXT("\xF1\x9F\xBF\xBE"), 0},
    {"6.22.12", TEXT("\xF1\x9F\xBF\xBF"), 0},
    {"6.22.13", TEXT("\xF1\xAF\xBF\xBE"), 0},
    {"6.22.14", TEXT("\xF1\xAF\xBF\xBF"), 0},
    {"6.22.15", TEXT("\xF1\xBF\xBF\xBE"), 0},
    {"6.22.16", TEXT("\xF1\xBF\xBF\xBF"), 0},
    {"6.22.17", TEXT("\xF2\x8F\xBF\xBE"), 0},
    {"6.22.18", TEXT("\xF2\x8F\xBF\xBF"), 0},
    {"6.22.19", TEXT("\xF2\x9F\xBF\xBE"), 0},
    {"6.22.20", TEXT("\xF2\x9F\xBF\xBF"), 0},
    {"6.22.21", TEXT("\xF2\xAF\xBF\xBE"), 0},
    {"6.22.22", TEXT("\xF2\xAF\xBF\xBF"), 0},
    {"6.22.23", TEXT("\xF2\xBF\xBF\xBE"), 0},
    {"6.22.24", TEXT("\xF2\xBF\xBF\xBF"), 0},
    {"6.22.25", TEXT("\xF3\x8F\xBF\xBE"), 0},
    {"6.22.26", TEXT("\xF3\x8F\xBF\xBF"), 0},
    {"6.22.27", TEXT("\xF3\x9F\xBF\xBE"), 0},
    {"6.22.28", TEXT("\xF3\x9F\xBF\xBF"), 0},
    {"6.22.29", TEXT("\xF3\xAF\xBF\xBE"), 0},
    {"6.22.30", TEXT("\xF3\xAF\xBF\xBF"), 0},
    {"6.22.31", TEXT("\xF3\xBF\xBF\xBE"), 0},
    {"6.22.32", TEXT("\xF3\xBF\xBF\xBF"), 0},
    {"6.22.33", TEXT("\xF4\x8F\xBF\xBE"), 0},
    {"6.22.34", TEXT("\xF4\x8F\xBF\xBF"), 0},
    /* The specials U+FFF9 to U+FFFF. */
    {"6.23.1", TEXT("\xEF\xBF\xB9"), 0},
    {"6.23.2", TEXT("\xEF\xBF\xBA"), 0},
    {"6.23.3", TEXT("\xEF\xBF\xBB"), 0},
    {"6.23.4", TEXT("\xEF\xBF\xBC"), 0},
    {"6.23.5", TEXT("\xEF\xBF\xBD"), 0},
    {"6.23.6", TEXT("\xEF\xBF\xBE"), 0},
    {"6.23.7", TEXT("\xEF\xBF\xBF"), 0},
};

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static_assert(COUNT(cases) + COUNT(utf8_cases) == CASES, "a case is missing");

/* What the smallest endpoint sends, given what its decoder made of the stream. */
typedef struct endpoint {
    rws_role role;
    feed_bytes sent;
    size_t decided; /* bytes of the stream that had come when it closed or failed */
} endpoint;

static void send_frame(endpoint *end, uint8_t opcode, const uint8_t *payload, size_t len)
{
    rws__frame frame = {
        .payload_len = len, .opcode = opcode, .fin = true, .masked = end->role == RWS_CLIENT};
    uint8_t header[RWS__FRAME_HEADER_MAX];
    if (frame.masked) memcpy(&frame.mask_key, feed_key, sizeof feed_key);
    feed_bytes_append(&end->sent, header, rws__frame_write(header, &frame));

    const size_t start = end->sent.len;
    feed_bytes_append(&end->sent, payload, len);
    for (size_t i = 0; frame.masked && i < len; i++)
        end->sent.data[start + i] ^= feed_key[i % 4];
}

static void send_close(endpoint *end, uint16_t code)
{
    uint8_t payload[RWS__FRAME_CONTROL_MAX];
    const int len = rws__close_write(payload, code, (rws_span){0});
    cr_assert_geq(len, 0);
    send_frame(end, RWS_CLOSE, payload, (size_t)len);
}

static void echo(endpoint *end, const feed_run *feed)
{
    for (size_t i = 0; i < feed->items_count; i++) {
        const feed_item *item = &feed->items[i];
        end->decided = item->fed;
        if (item->kind == FEED_ERROR) {
            send_close(end, rws__close_code_for(item->status));
            return;
        }
        if (item->kind == FEED_MESSAGE) {
            send_frame(end, item->opcode, item->payload.data, item->payload.len);
        } else if (item->opcode == RWS_PING) {
            send_frame(end, RWS_PONG, item->payload.data, item->payload.len);
        } else if (item->opcode == RWS_CLOSE) {
            uint16_t code;
            rws_span reason;
            const int status =
                rws__close_parse(item->payload.data, item->payload.len, &code, &reason);
            send_close(end, status == 0 ? code : rws__close_code_for(status));
            return;
        }
    }
}

static void append_shot(feed_bytes *bytes, const shot_spec *shot, bool masked)
{
    feed_bytes payload = {0};
    for (size_t i = 0; i < (shot->repeat > 0 ? shot->repeat : 1); i++)
        feed_bytes_append(&payload, shot->data, shot->len);

    if (shot->fragment_size == 0) {
        feed_append_frame(bytes, shot->first, masked, payload.data, payload.len);
    } else {
        for (size_t at = 0; at < payload.len; at += shot->fragment_size) {
            const bool last = at + shot->fragment_size >= payload.len;
            uint8_t first = at == 0 ? shot->first & 0x0F : 0;
            if (last) first |= 0x80;
            feed_append_frame(bytes, first, masked, payload.data + at, shot->fragment_size);
        }
    }
    feed_bytes_free(&payload);
}

typedef struct expectation {
    const conformance_case *row;
    rws_role role;
    feed_bytes answer;
    size_t fails_at;
} expectation;

static void check_answer(const feed_run *feed, const char *how, void *user)
{
    const expectation *expected = user;
    const char *name = expected->row->name;
    const char *role = expected->role == RWS_SERVER ? "server" : "client";
    cr_assert_null(feed->broken, "%s, %s, %s: %s", name, role, how, feed->broken);

    endpoint end = {.role = expected->role};
    echo(&end, feed);
    const bool same = end.sent.len == expected->answer.len &&
                      memcmp(end.sent.data, expected->answer.data, end.sent.len) == 0;
    cr_assert(same, "%s, %s, %s: another answer (status %d)", name, role, how, feed_status(feed));
    if (expected->row->fails != 0 && strcmp(how, "one byte at a time") == 0) {
        cr_assert_eq(end.decided, expected->fails_at, "%s, %s: failed at byte %zu, not %zu", name,
                     role, end.decided, expected->fails_at);
    }
    feed_bytes_free(&end.sent);
}

static void run_case(const conformance_case *row, rws_role role)
{
    const bool masks = role == RWS_SERVER; /* what is sent to a server is masked */
    const rws__message_rules rules = {
        .message_bytes_max = 1 << 20, .role = role, .validate_utf8 = true, .fragments_max = 131072};
    const shot_spec goodbye = CLOSE(C1000);
    feed_bytes stream = {0};
    expectation expected = {.row = row, .role = role};

    for (const shot_spec *shot = row->sent; shot->data != NULL; shot++)
        append_shot(&stream, shot, masks);
    for (const shot_spec *shot = row->answer; shot->data != NULL; shot++)
        append_shot(&expected.answer, shot, !masks);
    if (row->fails != 0) {
        const uint8_t code[2] = {(uint8_t)(row->fails >> 8), (uint8_t)row->fails};
        feed_append_frame(&expected.answer, 0x88, !masks, code, sizeof code);
        expected.fails_at = row->fails_headers * (masks ? 6 : 2) + row->fails_bytes;
    } else if (!row->closes) {
        append_shot(&stream, &goodbye, masks);
        append_shot(&expected.answer, &goodbye, !masks);
    }

    feed_every_way(&rules, &stream, check_answer, &expected);
    feed_bytes_free(&stream);
    feed_bytes_free(&expected.answer);
}

static void run_group(const char *prefix)
{
    for (size_t i = 0; i < COUNT(cases); i++) {
        if (strncmp(cases[i].name, prefix, strlen(prefix)) != 0) continue;
        run_case(&cases[i], RWS_SERVER);
        run_case(&cases[i], RWS_CLIENT);
    }
}

Test(codec_conformance, group_1_framing)
{
    run_group("1.");
}

Test(codec_conformance, group_2_pings_and_pongs)
{
    run_group("2.");
}

Test(codec_conformance, group_3_reserved_bits)
{
    run_group("3.");
}

Test(codec_conformance, group_4_reserved_opcodes)
{
    run_group("4.");
}

Test(codec_conformance, group_5_fragmentation)
{
    run_group("5.");
}

Test(codec_conformance, group_6_text_in_fragments)
{
    run_group("6.");
}

Test(codec_conformance, group_6_utf8)
{
    for (size_t i = 0; i < COUNT(utf8_cases); i++) {
        const utf8_case *text = &utf8_cases[i];
        conformance_case row = {.name = text->name,
                                .sent = {{.first = 0x81, .data = text->data, .len = text->len}}};
        if (text->fails_bytes == 0) {
            row.answer[0] = row.sent[0];
        } else {
            row.fails = 1007;
            row.fails_headers = 1;
            row.fails_bytes = text->fails_bytes;
        }
        run_case(&row, RWS_SERVER);
        run_case(&row, RWS_CLIENT);
    }
}

Test(codec_conformance, group_7_closing)
{
    run_group("7.");
}

Test(codec_conformance, every_case_has_a_name_of_its_own)
{
    const char *names[CASES];
    size_t count = 0;
    for (size_t i = 0; i < COUNT(cases); i++)
        names[count++] = cases[i].name;
    for (size_t i = 0; i < COUNT(utf8_cases); i++)
        names[count++] = utf8_cases[i].name;
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < i; j++)
            cr_assert_str_neq(names[i], names[j]);
}
