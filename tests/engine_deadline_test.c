/*
 * Deadlines on the scripted ring and its clock (ctest: scripted ring): the handshake, a message,
 * the closing handshake. Nothing ends early, and nothing later than a tick and a turn.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "support/scripted_shard.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define LATE_MS      (2 * RWS__TICK_MS)

static world w;

static void start(void)
{
    test_options options = world_server_options();
    options.handshake_timeout_ms = 1000;
    options.message_timeout_ms = 2000;
    options.close_timeout_ms = 500;
    options.send_timeout_ms = 384; /* a look each three ticks */
    options.message_bytes_max = 1u << 20;
    world_start(&w, &options);
}

static void feed_part(uint32_t file, uint8_t first, size_t len, size_t begin, size_t end)
{
    static char text[100000];
    memset(text, 'x', sizeof text);
    feed_bytes frame = {0};
    feed_append_frame(&frame, first, true, text, len);
    world_feed(&w, file, frame.data + begin, (end < frame.len ? end : frame.len) - begin);
    feed_bytes_free(&frame);
}

/* ---- the handshake ---- */

Test(engine_deadline, ends_a_handshake_that_never_comes)
{
    start();
    uint32_t file = world_accept(&w);
    world_advance(&w, 999);
    cr_assert_not(w.ring->closed[file], "not early");
    world_advance(&w, 1 + LATE_MS);
    cr_assert(w.ring->closed[file]);
    world_log_is(&w, "", "no callback");
    cr_assert_eq(world_stats(&w).timeouts, 1);
    cr_assert_eq(world_stats(&w).refused, 0, "it counts once");
    world_end(&w);
}

/* One byte now and then moves no deadline. */
Test(engine_deadline, ends_a_handshake_that_trickles_in)
{
    start();
    uint32_t file = world_accept(&w);
    for (size_t i = 0; i < 20 && !w.ring->closed[file]; i++) {
        cr_assert_lt(i, 11, "%zu bytes were waited for", i);
        world_feed(&w, file, world_request + i, 1);
        world_advance(&w, 100);
    }
    cr_assert(w.ring->closed[file]);
    world_end(&w);
}

Test(engine_deadline, leaves_an_open_connection_alone)
{
    start();
    uint32_t file = world_open(&w);
    for (int i = 0; i < 200; i++)
        world_advance(&w, 1000);
    world_frame(&w, file, RWS_TEXT, "still here");
    world_log_is(&w, "open0 text0:still here ", "after a while");
    world_end(&w);
}

Test(engine_deadline, gives_up_on_a_refusal_that_is_not_read)
{
    start();
    w.upgrade_result = -1;
    w.ring->manual = SCRIPT_BIT(SCRIPT_SEND);
    uint32_t file = world_accept(&w);
    world_feed(&w, file, world_request, strlen(world_request));
    world_pass(&w, 384);
    cr_assert_not(w.ring->closed[file]);
    world_pass(&w, 384 / 4 + RWS__TICK_MS);
    cr_assert(w.ring->closed[file]);
    world_log_is(&w, "", "no callback");
    world_end(&w);
}

/* ---- messages ---- */

static const struct cut_case {
    const char *name;
    uint8_t first;
    size_t len, cut;
} cut_cases[] = {
    {"a byte of a header", 0x81, 10, 1},
    {"a header", 0x81, 10, 6},
    {"some payload", 0x81, 10, 10},
    {"a first frame", 0x01, 10, 100},
    {"a byte of a ping", 0x89, 10, 1},
    {"half a ping", 0x89, 10, 10},
    {"some of a large message", 0x82, 90000, 5000},
};

Test(engine_deadline, ends_a_message_that_is_never_finished)
{
    for (size_t i = 0; i < COUNT(cut_cases); i++) {
        const struct cut_case *row = &cut_cases[i];
        start();
        uint32_t file = world_open(&w);
        feed_part(file, row->first, row->len, 0, row->cut);
        world_advance(&w, 1990);
        world_log_is(&w, "open0 ", row->name);
        world_advance(&w, 10 + LATE_MS);
        world_log_is(&w, "close0:1008:a deadline passed:us ", row->name);
        cr_assert_eq(world_stats(&w).timeouts, 1);
        world_end(&w);
    }
}

Test(engine_deadline, is_not_moved_by_more_of_the_same_message)
{
    start();
    uint32_t file = world_open(&w);
    feed_part(file, 0x01, 10, 0, 100);
    for (int i = 0; i < 30 && w.open[file]; i++) {
        cr_assert_lt(i, 21);
        feed_part(file, 0x00, 10, 0, 100);
        feed_part(file, 0x89, 4, 0, 100);
        world_advance(&w, 100);
    }
    world_log_is(&w, "open0 close0:1008:a deadline passed:us ", "fragments and pings");
    world_end(&w);
}

/* Every message is quick, but the bytes that come never end with one. */
Test(engine_deadline, starts_again_with_every_message)
{
    static const uint8_t firsts[] = {0x81, 0x89};
    for (size_t i = 0; i < COUNT(firsts); i++) {
        for (size_t cut = 1; cut < 16; cut++) {
            start();
            uint32_t file = world_open(&w);
            feed_part(file, firsts[i], 10, 0, cut);
            for (int n = 0; n < 50; n++) {
                world_advance(&w, 100);
                cr_assert(w.open[file], "%02x, cut at %zu, message %d: %s", firsts[i], cut, n,
                          world_log(&w));
                feed_bytes bytes = {0};
                feed_append_frame(&bytes, firsts[i], true, "xxxxxxxxxx", 10);
                feed_append_frame(&bytes, firsts[i], true, "xxxxxxxxxx", 10);
                world_feed(&w, file, bytes.data + cut, 16);
                feed_bytes_free(&bytes);
            }
            world_end(&w);
        }
    }
}

/* The same for messages in frames, each received in its own memory. */
Test(engine_deadline, starts_again_with_every_assembled_message)
{
    start();
    uint32_t file = world_open(&w);
    feed_part(file, 0x01, 10, 0, 100);
    for (int n = 0; n < 50; n++) {
        world_advance(&w, 100);
        feed_bytes bytes = {0};
        feed_append_frame(&bytes, 0x80, true, "end", 3);
        feed_append_frame(&bytes, 0x01, true, "begin", 5);
        world_feed(&w, file, bytes.data, bytes.len);
        feed_bytes_free(&bytes);
        cr_assert(w.open[file], "message %d", n);
    }
    world_advance(&w, 2000 + LATE_MS);
    cr_assert_not(w.open[file], "the last one is not finished");
    world_end(&w);
}

/* ---- closing ---- */

Test(engine_deadline, gives_up_on_a_peer_that_never_closes)
{
    start();
    uint32_t file = world_open(&w);
    rws_conn_close(world_conn(&w, file), 1000, "bye");
    world_advance(&w, 490);
    world_log_is(&w, "open0 ", "in time");
    world_frame(&w, file, RWS_TEXT, "talks on");
    world_advance(&w, 10 + LATE_MS);
    world_log_is(&w, "close0:1006::us ", "late");
    cr_assert(w.ring->closed[file]);
    world_end(&w);
}

Test(engine_deadline, gives_up_on_a_program_that_never_answers_a_close_frame)
{
    test_options options = world_server_options();
    options.close_timeout_ms = 500;
    options.handle_close = true;
    world_start(&w, &options);
    uint32_t file = world_open(&w);
    world_frame(&w, file, RWS_CLOSE, "\x03\xe9");
    world_advance(&w, 490);
    world_log_is(&w, "open0 close_frame0:1001: ", "in time");
    world_advance(&w, 10 + LATE_MS);
    cr_assert_not_null(strstr(world_log(&w), "close0:1001::peer "), "late");
    cr_assert(w.ring->closed[file]);
    world_end(&w);
}

/* Our close frame is sent, our half is shut down, and then the peer has the time to end its. */
Test(engine_deadline, lingers_after_a_failure_for_the_peer_to_read_why)
{
    for (int end = 0; end < 2; end++) {
        start();
        uint32_t file = world_open(&w);
        world_feed(&w, file, "\xff\xff", 2);
        world_turns(&w, 3);
        cr_assert_eq(w.ring->calls_of[SCRIPT_SHUTDOWN], 1);
        cr_assert_not(w.ring->closed[file]);
        cr_assert_not(w.open[file]);
        if (end == 1) {
            world_eof(&w, file);
        } else {
            world_advance(&w, 490);
            world_feed(&w, file, "what it had sent before", 23);
            cr_assert_not(w.ring->closed[file]);
            world_advance(&w, 10 + LATE_MS);
        }
        world_turns(&w, 2);
        cr_assert(w.ring->closed[file]);
        world_end(&w);
    }
}

Test(engine_deadline, is_told_apart_from_a_paused_program)
{
    start();
    uint32_t file = world_open(&w);
    feed_part(file, 0x81, 10, 0, 8);
    rws_conn_pause(world_conn(&w, file));
    world_advance(&w, 10000);
    world_log_is(&w, "open0 ", "the peer can't help it");
    rws_conn_resume(world_conn(&w, file));
    world_turns(&w, 3);
    feed_part(file, 0x81, 10, 8, 100);
    world_log_is(&w, "text0:xxxxxxxxxx ", "resumed");
    world_end(&w);
}
