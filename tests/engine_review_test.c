/*
 * What reading the engine with an attacker's eyes found (ctest: scripted ring).
 */
#include <criterion/criterion.h>

#include <stdio.h>
#include <string.h>

#include "support/scripted_shard.h"

static world w;

/* A message whose first part fills its block of the slab to the last byte, while what follows waits
 * in the block right behind it: adjacent is not the same as received in place. */
Test(engine_review, a_full_assembly_and_stalled_input_behind_it_are_two_blocks)
{
    rws_server_options options = world_server_options();
    world_start(&w, &options);
    uint32_t file = world_open(&w);
    rws_conn *conn = world_conn(&w, file);
    static char text[3009]; /* its first fragment fills a block of 1024 bytes: 64 are the head */
    for (size_t i = 0; i < sizeof text - 1; i++)
        text[i] = (char)('a' + i % 26);
    feed_bytes fragment = {0}, frame = {0};
    feed_append_frame(&fragment, 0x01, true, text, 960);
    feed_append_frame(&fragment, 0x80, true, text + 960, sizeof text - 1 - 960);
    feed_append_frame(&frame, 0x81, true, text, sizeof text - 1);
    size_t begin = fragment.len - 2048;
    world_feed(&w, file, fragment.data, begin);
    cr_assert_eq(conn->assembly->len, conn->assembly->capacity, "not what this test is about");

    rws_conn_pause(conn);
    cr_assert_eq(script_recv(w.ring, file, fragment.data + begin, 1024, false), 1024);
    world_turn(&w);
    cr_assert_not_null(conn->stalled);
    rws_conn_resume(conn);
    world_turns(&w, 2);
    world_feed(&w, file, fragment.data + begin + 1024, 1024);
    feed_bytes_free(&fragment);
    char parts[100];
    snprintf(parts, sizeof parts, "%s", world_log(&w));
    world_log_is(&w, parts, "in three parts");

    /* The log has a digest of so long a message: it is the one of the same message in one piece. */
    world_feed(&w, file, frame.data, frame.len);
    world_log_is(&w, strchr(parts, ' ') + 1, "in one piece");
    feed_bytes_free(&frame);
    world_end(&w);
}

/* A closing connection can't be paused: the peer's close frame is what it waits for. */
Test(engine_review, a_pause_after_the_close_does_not_hold_up_the_closing_handshake)
{
    rws_server_options options = world_server_options();
    world_start(&w, &options);
    uint32_t file = world_open(&w);
    rws_conn *conn = world_conn(&w, file);
    rws_conn_pause(conn);
    world_frame(&w, file, RWS_TEXT, "stalled");
    cr_assert_eq(rws_conn_close(conn, 1000, NULL), 0);
    rws_conn_pause(conn);
    world_turns(&w, 2);
    world_frame(&w, file, RWS_CLOSE, "\x03\xe8");
    world_turns(&w, 2);
    world_log_is(&w, "open0 close0:1000::us ", "closed at once");
    world_end(&w);
}

static void close_in_message(world *world, rws_conn *conn, const char *what)
{
    (void)world;
    if (strcmp(what, "message") == 0) cr_assert_eq(rws_conn_close(conn, 4000, NULL), 0);
}

/* The code of the first close frame counts, and it is the one that went out. */
Test(engine_review, a_callback_that_closed_and_then_failed_has_closed)
{
    rws_server_options options = world_server_options();
    world_start(&w, &options);
    uint32_t file = world_open(&w);
    w.hook = close_in_message;
    w.message_result = -1;
    world_frame(&w, file, RWS_TEXT, "x");
    world_turns(&w, 2);
    world_log_is(&w, "open0 text0:x ", "waits for the peer's close frame");
    cr_expect_str_eq(world_sent(&w, file), "close:4000: ");
    world_frame(&w, file, RWS_CLOSE, "\x0f\xa0");
    world_turns(&w, 2);
    world_log_is(&w, "close0:4000::us ", "closed");
    world_end(&w);
}
