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
    static char text[3073];
    for (size_t i = 0; i < sizeof text - 1; i++)
        text[i] = (char)('a' + i % 26);
    feed_bytes frame = {0};
    feed_append_frame(&frame, 0x81, true, text, sizeof text - 1);
    size_t begin = frame.len - 2048;
    world_feed(&w, file, frame.data, begin);
    cr_assert_eq(conn->assembly.len, conn->assembly.capacity);

    rws_conn_pause(conn);
    cr_assert_eq(script_recv(w.ring, file, frame.data + begin, 1024, false), 1024);
    world_turn(&w);
    cr_assert_eq(conn->stalled.data, conn->assembly.data + 1024, "not what this test is about");
    rws_conn_resume(conn);
    world_turns(&w, 2);
    world_feed(&w, file, frame.data + begin + 1024, 1024);
    char parts[100];
    snprintf(parts, sizeof parts, "%s", world_log(&w));
    world_log_is(&w, parts, "in three parts");

    /* The log has a digest of so long a message: it is the one of the same message in one piece. */
    world_feed(&w, file, frame.data, frame.len);
    world_log_is(&w, strchr(parts, ' ') + 1, "in one piece");
    feed_bytes_free(&frame);
    world_end(&w);
}
