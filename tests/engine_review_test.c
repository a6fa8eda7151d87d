/*
 * What reading the engine with an attacker's eyes found (ctest: scripted ring).
 */
#include <criterion/criterion.h>

#include <string.h>

#include "support/scripted_shard.h"

static world w;

/* A closing connection can't be paused: the peer's close frame is what it waits for. */
Test(engine_review, a_pause_after_the_close_does_not_hold_up_the_closing_handshake)
{
    test_options options = world_server_options();
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

static void close_in_message(world *self, rws_conn *conn, const char *what)
{
    (void)self;
    if (strcmp(what, "message") == 0) cr_assert_eq(rws_conn_close(conn, 4000, NULL), 0);
}

/* The code of the first close frame counts, and it is the one that went out. */
Test(engine_review, a_callback_that_closed_and_then_failed_has_closed)
{
    test_options options = world_server_options();
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
