/*
 * Messages that the program makes, on the scripted ring (ctest: scripted ring): created ones and
 * constants, framed once, sent to many.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/frame.h"
#include "engine/conn/message.h"
#include "support/scripted_shard.h"
#include "support/test_allocator.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static world w;

static test_allocator memory = {.fail_from = 1}; /* create() allows one call */
static const rws_allocator counting = TEST_ALLOCATOR(&memory);

/* ---- constants ---- */

#define X4(text)   text text text text
#define X16(text)  X4(text) X4(text) X4(text) X4(text)
#define X15(text)  X4(text) X4(text) X4(text) text text text
#define ALPHABET16 "0123456789ab\0def" /* a NUL is a byte like others */
#define BYTES_256  X16(ALPHABET16)
#define BYTES_4096 X16(BYTES_256)

/* In all three forms of the length, up to the last byte of each. */
#define TEXT_0     ""
#define TEXT_125   X4(ALPHABET16) X4("0123456789ab\0de") "f"
#define TEXT_126   TEXT_125 "0"
#define TEXT_65535 X15(BYTES_4096) X15(BYTES_256) X15(ALPHABET16) "0123456789abcde"
#define TEXT_65536 TEXT_65535 "f"

RWS_MESSAGE_TEXT_DEFINE(text_0, TEXT_0);
RWS_MESSAGE_TEXT_DEFINE(text_125, TEXT_125);
RWS_MESSAGE_TEXT_DEFINE(text_126, TEXT_126);
RWS_MESSAGE_TEXT_DEFINE(text_65535, TEXT_65535);
RWS_MESSAGE_TEXT_DEFINE(text_65536, TEXT_65536);
RWS_MESSAGE_BINARY_DEFINE(binary_0, TEXT_0);
RWS_MESSAGE_BINARY_DEFINE(binary_126, TEXT_126);
RWS_MESSAGE_BINARY_DEFINE(binary_65536, TEXT_65536);

typedef struct constant {
    const rws_message *message;
    rws_opcode opcode;
    const char *bytes;
    size_t len;
} constant;

/* Those of the expressions too, which are in a function. */
static constant constant_at(size_t i)
{
    const constant constants[] = {
        {text_0, RWS_TEXT, TEXT_0, 0},
        {text_125, RWS_TEXT, TEXT_125, 125},
        {text_126, RWS_TEXT, TEXT_126, 126},
        {text_65535, RWS_TEXT, TEXT_65535, 65535},
        {text_65536, RWS_TEXT, TEXT_65536, 65536},
        {binary_0, RWS_BINARY, TEXT_0, 0},
        {binary_126, RWS_BINARY, TEXT_126, 126},
        {binary_65536, RWS_BINARY, TEXT_65536, 65536},
        {RWS_MESSAGE_TEXT(TEXT_0), RWS_TEXT, TEXT_0, 0},
        {RWS_MESSAGE_TEXT("hello"), RWS_TEXT, "hello", 5},
        {RWS_MESSAGE_BINARY(TEXT_125), RWS_BINARY, TEXT_125, 125},
        {RWS_MESSAGE_TEXT(TEXT_126), RWS_TEXT, TEXT_126, 126},
        {RWS_MESSAGE_BINARY(TEXT_65535), RWS_BINARY, TEXT_65535, 65535},
        {RWS_MESSAGE_TEXT(TEXT_65536), RWS_TEXT, TEXT_65536, 65536},
    };
    return i < COUNT(constants) ? constants[i] : (constant){0};
}

/* ---- helpers ---- */

static void start(void)
{
    test_options options = world_server_options();
    options.message_bytes_max = 1u << 20;
    world_start(&w, &options);
}

static rws_message *create(rws_opcode opcode, size_t len)
{
    char *bytes = malloc(len + 1);
    cr_assert_not_null(bytes);
    for (size_t i = 0; i < len; i++)
        bytes[i] = (char)('a' + i % 26);
    rws_message *message;
    memory.fail_from = memory.calls + 2;
    cr_assert_eq(rws_message_create(&message, &counting, opcode, bytes, len), 0);
    memset(bytes, 0, len);
    free(bytes); /* it was copied */
    return message;
}

static void is_sent(uint32_t file, rws_opcode opcode, size_t len, size_t count)
{
    uint8_t head[RWS__FRAME_HEADER_MAX];
    rws__frame frame = {.payload_len = len, .opcode = (uint8_t)opcode, .fin = true};
    size_t header = rws__frame_write(head, &frame);
    const feed_bytes *wire = &w.ring->wire[file];
    cr_assert_eq(wire->len, count * (header + len), "%zu bytes were sent", wire->len);
    for (size_t n = 0; n < count; n++) {
        const uint8_t *at = wire->data + n * (header + len);
        cr_assert_arr_eq(at, head, header);
        for (size_t i = 0; i < len; i++)
            cr_assert_eq(at[header + i], (uint8_t)('a' + i % 26), "byte %zu", i);
    }
}

/* The frame that lies in memory is the one that the codec writes. */
static void is_framed(const rws_message *message, rws_opcode opcode, const void *bytes, size_t len)
{
    uint8_t head[RWS__FRAME_HEADER_MAX];
    rws__frame frame = {.payload_len = len, .opcode = (uint8_t)opcode, .fin = true};
    size_t header = rws__frame_write(head, &frame);
    const uint8_t *data = rws_message_data(message);
    cr_assert_eq(rws_message_len(message), len);
    cr_assert_eq(rws_message_opcode(message), opcode);
    cr_assert_not_null(data);
    cr_assert_eq(message->layout, RWS_MESSAGE_LAYOUT);
    cr_assert_eq(message->header_len, header);
    cr_assert_eq(memcmp(data - header, head, header), 0, "the header of %zu bytes", len);
    cr_assert_eq(memcmp(data, bytes, len), 0, "the payload of %zu bytes", len);
    for (const uint8_t *at = (const uint8_t *)(message + 1); at < data - header; at++)
        cr_assert_eq(*at, 0);
    cr_assert_eq((uintptr_t)message % 8, 0);
    cr_assert_eq((uintptr_t)data % 8, 0);
}

/* What this process may do with the memory at `address`: "r--p". */
static void find_rights(const void *address, char rights[5])
{
    FILE *maps = fopen("/proc/self/maps", "re");
    cr_assert_not_null(maps);
    char line[512];
    rights[0] = '\0';
    while (fgets(line, sizeof line, maps) != NULL) {
        unsigned long begin, end;
        char found[5];
        if (sscanf(line, "%lx-%lx %4s", &begin, &end, found) != 3) continue;
        if ((uintptr_t)address >= begin && (uintptr_t)address < end) memcpy(rights, found, 5);
    }
    fclose(maps);
}

/* ---- tests: what lies in memory ---- */

Test(engine_message, constants_are_the_frames_that_are_written)
{
    size_t count = 0;
    for (constant at; (at = constant_at(count)).message != NULL; count++)
        is_framed(at.message, at.opcode, at.bytes, at.len);
    cr_assert_eq(count, 14);
}

Test(engine_message, constants_lie_in_read_only_data)
{
    char rights[5];
    for (size_t i = 0; constant_at(i).message != NULL; i++) {
        find_rights(constant_at(i).message, rights);
        cr_assert_eq(strncmp(rights, "r-", 2), 0, "%s", rights);
    }
    find_rights(&w, rights);
    cr_assert_eq(strncmp(rights, "rw", 2), 0, "the test can tell, not %s", rights);
}

Test(engine_message, constants_are_not_counted)
{
    rws_message *held = rws_message_retain(text_126);
    cr_assert_eq(held, text_126);
    for (int i = 0; i < 3; i++)
        rws_message_release(held); /* it is read-only: a write would be the end */
    is_framed(text_126, RWS_TEXT, TEXT_126, 126);
}

Test(engine_message, created_ones_are_framed)
{
    size_t i = 0;
    for (constant at; (at = constant_at(i)).message != NULL; i++) {
        rws_message *message;
        memory.fail_from = memory.calls + 2;
        cr_assert_eq(rws_message_create(&message, &counting, at.opcode, at.bytes, at.len), 0);
        is_framed(message, at.opcode, at.bytes, at.len);
        cr_assert_eq(rws_message_retain(message), message);
        rws_message_release(message);
        cr_assert_gt(memory.bytes, 0, "it is held twice");
        is_framed(message, at.opcode, at.bytes, at.len);
        rws_message_release(message);
        cr_assert_eq(memory.bytes, 0);
    }
}

Test(engine_message, nothing_is_a_message_too)
{
    start();
    uint32_t file = world_open(&w);
    cr_expect_null(rws_message_retain(NULL));
    rws_message_release(NULL);
    cr_expect_eq(rws_conn_send_message(world_conn(&w, file), NULL), RWS_E_ARGUMENT);
    world_end(&w);
}

/* A program that was compiled with a newer header, and runs with this library. */
Test(engine_message, a_layout_that_is_not_known_is_refused)
{
    start();
    uint32_t file = world_open(&w);
    rws_message newer = *RWS_MESSAGE_TEXT("x");
    newer.layout++;
    cr_expect_eq(rws_conn_send_message(world_conn(&w, file), &newer), RWS_E_ARGUMENT);
    cr_expect_eq(rws_conn_buffered(world_conn(&w, file)), 0);
    world_end(&w);
}

/* ---- tests: sending ---- */

Test(engine_message, constants_are_sent_to_many_connections)
{
    start();
    uint32_t files[3];
    for (size_t n = 0; n < COUNT(files); n++)
        files[n] = world_open(&w);
    feed_bytes expected = {0};
    size_t count = 0;
    for (constant at; (at = constant_at(count)).message != NULL; count++) {
        for (size_t n = 0; n < COUNT(files); n++)
            cr_assert_eq(rws_conn_send_message(world_conn(&w, files[n]), at.message), 0);
        feed_bytes_append(&expected, (const uint8_t *)at.message + 24 - at.message->header_len,
                          at.message->header_len + at.len);
    }
    world_turns(&w, 2 * (uint32_t)count);
    for (size_t n = 0; n < COUNT(files); n++) {
        const feed_bytes *wire = &w.ring->wire[files[n]];
        cr_assert_eq(wire->len, expected.len);
        cr_assert_eq(memcmp(wire->data, expected.data, expected.len), 0);
    }
    feed_bytes_free(&expected);
    world_end(&w);
}

/* From where it lies, if it is worth it: 252 and a header of 4 bytes. */
Test(engine_message, a_constant_is_not_copied)
{
    RWS_MESSAGE_TEXT_DEFINE(short_one, X15(ALPHABET16) "01234567890");
    RWS_MESSAGE_TEXT_DEFINE(long_one, X15(ALPHABET16) "012345678901");
    const struct {
        const rws_message *message;
        bool lent;
    } rows[] = {{short_one, false}, {long_one, true}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        start();
        uint32_t file = world_open(&w);
        cr_assert_eq(rws_conn_send_message(world_conn(&w, file), rows[i].message), 0);
        world_pump(&w);
        const script_op *op = script_find(w.ring, SCRIPT_SEND_QUIET, file);
        cr_assert_not_null(op);
        cr_assert_eq(op->len, 4 + rws_message_len(rows[i].message));
        const uint8_t *data = rws_message_data(rows[i].message);
        cr_assert_eq(op->memory == data - 4, rows[i].lent);
        world_end(&w);
    }
}

/* 252 and a header of 4 bytes: from here on it is not copied any more. */
Test(engine_message, is_sent_to_many_connections)
{
    static const size_t sizes[] = {0, 1, 125, 126, 251, 252, 253, 65535, 65536, 300000};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        start();
        uint32_t files[5];
        for (size_t n = 0; n < COUNT(files); n++)
            files[n] = world_open(&w);
        rws_opcode opcode = i % 2 == 0 ? RWS_TEXT : RWS_BINARY;
        rws_message *message = create(opcode, sizes[i]);
        for (size_t n = 0; n < COUNT(files); n++)
            for (int twice = 0; twice < 2; twice++)
                cr_assert_eq(rws_conn_send_message(world_conn(&w, files[n]), message), 0);
        rws_message_release(message);
        cr_assert_eq(memory.bytes > 0, sizes[i] >= 252, "%zu: who has it queued is a holder",
                     sizes[i]);
        world_turns(&w, 4);
        for (size_t n = 0; n < COUNT(files); n++)
            is_sent(files[n], opcode, sizes[i], 2);
        cr_assert_eq(memory.bytes, 0);
        world_end(&w);
    }
}

Test(engine_message, keeps_its_place_among_other_messages)
{
    start();
    uint32_t file = world_open(&w);
    rws_conn *conn = world_conn(&w, file);
    rws_message *message = create(RWS_TEXT, 300);
    cr_assert_eq(rws_conn_send_text(conn, "first", 5), 0);
    cr_assert_eq(rws_conn_send_message(conn, message), 0);
    cr_assert_eq(rws_conn_send_text(conn, "last", 4), 0);
    cr_assert_eq(rws_conn_buffered(conn), 7 + 304 + 6);
    rws_message_release(message);
    world_turns(&w, 5);
    cr_assert_str_eq(world_sent(&w, file), "text:first text:300 text:last ");
    cr_assert_eq(memory.bytes, 0);
    world_end(&w);
}

Test(engine_message, a_burst_leaves_with_few_sends)
{
    start();
    uint32_t file = world_open(&w);
    rws_message *message = create(RWS_TEXT, 300);
    for (int burst = 0; burst < 10; burst++) {
        for (int i = 0; i < 64; i++)
            cr_assert_eq(rws_conn_send_message(world_conn(&w, file), message), 0);
        if (burst == 9) memset(w.ring->calls_of, 0, sizeof w.ring->calls_of);
        world_turns(&w, 12);
    }
    cr_expect_leq(w.ring->calls_of[SCRIPT_SEND] + w.ring->calls_of[SCRIPT_SEND_QUIET], 3);
    is_sent(file, RWS_TEXT, 300, 640);
    rws_message_release(message);
    world_end(&w);
}

Test(engine_message, lives_until_the_last_completion)
{
    start();
    uint32_t file = world_open(&w);
    w.ring->manual = SCRIPT_BIT(SCRIPT_SEND) | SCRIPT_BIT(SCRIPT_CANCEL) |
                     SCRIPT_BIT(SCRIPT_CANCEL_FILE) | SCRIPT_BIT(SCRIPT_CLOSE);
    rws_message *message = create(RWS_BINARY, 300000);
    cr_assert_eq(rws_conn_send_message(world_conn(&w, file), message), 0);
    rws_message_release(message);
    world_turns(&w, 2);
    rws_conn_abort(world_conn(&w, file));
    world_turns(&w, 2);
    cr_assert_gt(memory.bytes, 0, "the send in flight still owns it");
    w.ring->manual = 0;
    script_complete(w.ring, script_find(w.ring, SCRIPT_CLOSE, file), 0, 0);
    script_cancel_closed(w.ring);
    world_turns(&w, 3);
    cr_assert_eq(memory.bytes, 0);
    world_end(&w);
}

Test(engine_message, is_given_back_when_the_loop_ended_with_an_error)
{
    start();
    uint32_t file = world_open(&w);
    w.ring->manual = SCRIPT_BIT(SCRIPT_SEND);
    rws_message *message = create(RWS_BINARY, 300000);
    cr_assert_eq(rws_conn_send_message(world_conn(&w, file), message), 0);
    rws_message_release(message);
    world_turns(&w, 2);
    cr_assert_gt(memory.bytes, 0);
    rws__shard_close(w.shard);
    cr_assert_eq(memory.bytes, 0);
}

Test(engine_message, refuses_what_a_send_refuses)
{
    static const char byte[1];
    rws_message *message = (rws_message *)&message;
    cr_expect_eq(rws_message_create(&message, NULL, RWS_PING, byte, 1), RWS_E_ARGUMENT);
    cr_expect_null(message);
    cr_expect_eq(rws_message_create(&message, NULL, RWS_TEXT, NULL, 1), RWS_E_ARGUMENT);
    cr_expect_eq(rws_message_create(&message, NULL, RWS_TEXT, byte, (size_t)1 << 31),
                 RWS_E_ARGUMENT);
    const rws_allocator half = {test_allocator_alloc, NULL, &memory};
    cr_expect_eq(rws_message_create(&message, &half, RWS_TEXT, byte, 1), RWS_E_ARGUMENT);
    memory.fail_from = 1;
    cr_expect_eq(rws_message_create(&message, &counting, RWS_TEXT, byte, 1), -ENOMEM);
    cr_expect_null(message);
    cr_assert_eq(rws_message_create(&message, NULL, RWS_TEXT, NULL, 0), 0);
    rws_message_release(rws_message_retain(message));
    rws_message_release(message);
    rws_message_release(NULL);
}

Test(engine_message, is_refused_in_the_wrong_state_and_over_the_bound)
{
    test_options options = world_server_options();
    options.send_queue_bytes_max = 400000;
    world_start(&w, &options);
    uint32_t file = world_open(&w);
    rws_conn *conn = world_conn(&w, file);
    rws_message *message = create(RWS_TEXT, 300);
    cr_expect_eq(rws_conn_send_frame(conn, RWS_TEXT, false, "x", 1), 0);
    cr_expect_eq(rws_conn_send_message(conn, message), RWS_E_STATE, "within a message");
    cr_expect_eq(rws_conn_send_frame(conn, RWS_CONTINUATION, true, "x", 1), 0);
    int sent = 0, status;
    while ((status = rws_conn_send_message(conn, message)) == 0)
        cr_assert_lt(++sent, 2000);
    cr_expect_eq(status, RWS_E_BACKLOG);
    cr_expect_leq(rws_conn_buffered(conn), 400000);
    cr_expect_eq(rws_conn_close(conn, 1000, NULL), 0);
    cr_expect_eq(rws_conn_send_message(conn, message), RWS_E_STATE, "closing");
    rws_message_release(message);
    world_turns(&w, 3);
    world_end(&w);
    cr_expect_eq(memory.bytes, 0);
}

Test(engine_message, is_given_back_when_the_pool_is_used_up)
{
    test_options options = world_server_options();
    options.send_pool_bytes_max = 65536;
    world_start(&w, &options);
    uint32_t file = world_open(&w);
    world_use_up(&w.shard->conns.streams.send_slab);
    rws_message *message = create(RWS_TEXT, 300);
    cr_expect_eq(rws_conn_send_message(world_conn(&w, file), message), -ENOMEM);
    rws_message_release(message);
    cr_expect_eq(memory.bytes, 0);
    world_give_back(&w.shard->conns.streams.send_slab);
    world_end(&w);
}
