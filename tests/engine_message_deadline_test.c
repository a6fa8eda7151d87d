/*
 * The deadline of a message that has begun, on the scripted clock (ctest: scripted ring): it starts
 * again while at least 128 bytes a second of the message come, and not for anything else.
 */
#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/scripted_shard.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define TIMEOUT_MS   1600u /* a hundred ticks */
#define STEP_MS      160u
#define FLOOR_BYTES  205u /* of TIMEOUT_MS, rounded up */

static world w;

static void start(void)
{
    test_options options = world_server_options();
    options.message_timeout_ms = TIMEOUT_MS;
    options.message_bytes_max = 1u << 20;
    options.high_watermark_bytes = 4000;
    options.low_watermark_bytes = 1000;
    /* Between two ticks the deadline would be a tick later. */
    script_now_ms += RWS__TICK_MS - script_now_ms % RWS__TICK_MS;
    world_start(&w, &options);
}

/* What comes every STEP_MS. */
typedef enum piece {
    PAYLOAD,  /* so many bytes of one frame */
    FRAGMENT, /* a frame with so many bytes */
    NOTHING
} piece;

static const struct upload {
    const char *name;
    piece piece;
    uint32_t first;   /* bytes at once, at the start */
    uint32_t bytes;   /* of each piece */
    bool pings;       /* one behind each fragment */
    uint32_t ends_ms; /* 0: it goes on */
} uploads[] = {
    {"nothing more", NOTHING, 0, 0, false, TIMEOUT_MS},
    {"nothing more after a fast start", NOTHING, 100000, 0, false, 2 * TIMEOUT_MS},
    {"nothing more after 2,000 bytes", NOTHING, 2000, 0, false, 2 * TIMEOUT_MS},
    {"a byte at a time", PAYLOAD, 0, 1, false, TIMEOUT_MS},
    {"a byte at a time after a fast start", PAYLOAD, 100000, 1, false, 2 * TIMEOUT_MS},
    {"a little too slowly", PAYLOAD, 0, FLOOR_BYTES / 10, false, TIMEOUT_MS},
    {"just fast enough", PAYLOAD, 0, FLOOR_BYTES / 10 + 2, false, 0},
    {"fragments of a byte", FRAGMENT, 0, 1, false, TIMEOUT_MS},
    {"fragments of a byte, and pings", FRAGMENT, 0, 1, true, TIMEOUT_MS},
    {"fragments of enough bytes", FRAGMENT, 0, FLOOR_BYTES / 10 + 2, false, 0},
    {"fragments of enough bytes, and pings", FRAGMENT, 0, FLOOR_BYTES / 10 + 2, true, 0},
    {"empty fragments", FRAGMENT, 0, 0, false, TIMEOUT_MS},
};

static void bring(uint32_t file, const void *data, size_t len)
{
    const uint8_t *at = data;
    for (int idle = 0; len > 0 && idle < 5;) {
        size_t taken = script_recv(w.ring, file, at, len, false);
        at += taken;
        len -= taken;
        idle = taken == 0 ? idle + 1 : 0;
        world_turn(&w);
    }
    cr_assert_eq(len, 0, "it does not receive");
}

static void bring_frame(uint32_t file, uint8_t first, size_t len)
{
    static const char payload[1000];
    feed_bytes frame = {0};
    feed_append_frame(&frame, first, true, payload, len);
    bring(file, frame.data, frame.len);
    feed_bytes_free(&frame);
}

/* A message of 500,000 bytes begins, in one frame or in fragments. */
static void begin(uint32_t file, const struct upload *upload)
{
    static const uint8_t zeros[100000];
    if (upload->piece == FRAGMENT) {
        bring_frame(file, 0x02, 1);
        return;
    }
    feed_bytes head = {0};
    feed_append_header(&head, 0x82, true, FEED_AUTO, 500000);
    bring(file, head.data, head.len);
    feed_bytes_free(&head);
    bring(file, zeros, upload->first);
}

static void go_on(uint32_t file, const struct upload *upload)
{
    static const uint8_t zeros[1000];
    if (upload->piece == PAYLOAD) bring(file, zeros, upload->bytes);
    if (upload->piece == FRAGMENT) bring_frame(file, 0x00, upload->bytes);
    if (upload->pings) bring_frame(file, 0x89, 100);
}

static void take_upload(const struct upload *upload)
{
    start();
    uint32_t file = world_open(&w);
    uint64_t begun = script_now_ms;
    begin(file, upload);
    for (uint32_t step = 0; step < 60 && w.open[file]; step++) {
        uint64_t next = begun + (step + 1) * STEP_MS;
        world_pass(&w, next - RWS__TICK_MS - script_now_ms);
        if (upload->ends_ms > 0 && script_now_ms < begun + upload->ends_ms)
            cr_assert(w.open[file], "%s: it ended early", upload->name);
        go_on(file, upload);
        world_pass(&w, 2 * RWS__TICK_MS);
        bool due = upload->ends_ms > 0 && script_now_ms >= begun + upload->ends_ms + RWS__TICK_MS;
        cr_assert_eq(w.open[file], !due, "%s: after %u ms", upload->name,
                     (unsigned)(script_now_ms - begun));
    }
    if (upload->ends_ms > 0)
        world_log_is(&w, "open0 close0:1008:a deadline passed:us ", upload->name);
    world_end(&w);
}

Test(engine_message_deadline, starts_again_with_progress_of_the_message_alone)
{
    for (size_t i = 0; i < COUNT(uploads); i++)
        take_upload(&uploads[i]);
}

/* Pings between fragments are answered, and no progress. */
Test(engine_message_deadline, is_not_moved_by_pings_between_fragments)
{
    start();
    uint32_t file = world_open(&w);
    bring_frame(file, 0x01, 10);
    for (uint32_t ms = 0; ms < TIMEOUT_MS - STEP_MS; ms += STEP_MS) {
        world_pass(&w, STEP_MS);
        bring_frame(file, 0x89, 100);
        cr_assert(w.open[file]);
    }
    world_pass(&w, STEP_MS + RWS__TICK_MS);
    cr_assert_not(w.open[file]);
    world_end(&w);
}

/* ---- time that is not the peer's ---- */

Test(engine_message_deadline, waits_while_the_program_does_not_read)
{
    start();
    uint32_t file = world_open(&w);
    bring_frame(file, 0x01, 10);
    rws_conn_pause(world_conn(&w, file));
    world_pass(&w, 10 * TIMEOUT_MS + 16);
    cr_assert(w.open[file]);
    rws_conn_resume(world_conn(&w, file));
    world_turns(&w, 3);
    /* It has the rest of a period, and at most one more. */
    world_pass(&w, TIMEOUT_MS + RWS__TICK_MS);
    cr_assert_not(w.open[file]);
    world_end(&w);
}

/* It stops reading by itself, because the peer does not read what it asked for. */
Test(engine_message_deadline, waits_while_the_queue_is_full)
{
    static const char data[10000];
    start();
    uint32_t file = world_open(&w);
    w.ring->manual = SCRIPT_BIT(SCRIPT_SEND);
    bring_frame(file, 0x01, 10);
    cr_assert_eq(rws_conn_send_binary(world_conn(&w, file), data, sizeof data), 0);
    world_pass(&w, 5 * TIMEOUT_MS);
    cr_assert(w.open[file]);
    w.ring->manual = 0;
    world_turns(&w, 3);
    world_pass(&w, 2 * TIMEOUT_MS + RWS__TICK_MS);
    cr_assert_not(w.open[file]);
    world_end(&w);
}

/* There is none before a message and after it. */
Test(engine_message_deadline, is_only_there_for_a_message)
{
    start();
    uint32_t file = world_open(&w);
    for (int i = 0; i < 3; i++) {
        world_pass(&w, 3 * TIMEOUT_MS);
        bring_frame(file, 0x01, 10);
        world_pass(&w, TIMEOUT_MS / 2);
        bring_frame(file, 0x80, 10);
        cr_assert(w.open[file]);
    }
    world_pass(&w, 3 * TIMEOUT_MS);
    cr_assert(w.open[file]);
    world_end(&w);
}
