/*
 * Pausing on the scripted ring (ctest: scripted ring): nothing is delivered in between, nothing is
 * lost, and everything stays in order.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "support/scripted_shard.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static world w;

static void start(void)
{
    test_options options = world_server_options();
    options.message_bytes_max = 1u << 20;
    world_start(&w, &options);
}

/* A frame for the receive in flight, without a turn. */
static void arrives(uint32_t file, const char *text)
{
    feed_bytes frame = {0};
    feed_append_frame(&frame, 0x81, true, text, strlen(text));
    cr_assert_eq(script_recv(w.ring, file, frame.data, frame.len, false), frame.len);
    feed_bytes_free(&frame);
}

/* What the hook does when a message comes: by its first letter, on the connection `hook_data`. */
static void on_letter(world *self, rws_conn *conn, const char *what)
{
    if (strcmp(what, "message") != 0) return;
    rws_conn *target = self->hook_data != NULL ? self->hook_data : conn;
    const char *log = world_log(self);
    const char *letter = strrchr(log, ':') + 1;
    if (*letter == 'P') rws_conn_pause(target);
    if (*letter == 'R') rws_conn_resume(target);
    if (*letter == 'B') { /* both */
        rws_conn_pause(target);
        rws_conn_resume(target);
    }
    if (*letter == 'T') { /* the other way round */
        rws_conn_resume(target);
        rws_conn_pause(target);
    }
}

Test(engine_conn_pause, keeps_what_arrives_after_a_pause_in_order)
{
    start();
    uint32_t file = world_open(&w);
    w.hook = on_letter;
    world_frame(&w, file, RWS_TEXT, "a");
    arrives(file, "Pause");
    arrives(file, "b");
    arrives(file, "c");
    world_turn(&w);
    world_log_is(&w, "open0 text0:a text0:Pause ", "paused");
    world_turns(&w, 3);
    cr_assert_null(script_find_recv(w.ring, file), "the receive is taken back");
    world_log_is(&w, "", "paused");
    rws_conn_resume(world_conn(&w, file));
    world_log_is(&w, "", "not in the call");
    world_turn(&w);
    world_log_is(&w, "text0:b text0:c ", "resumed");
    world_frame(&w, file, RWS_TEXT, "d");
    world_log_is(&w, "text0:d ", "reading again");
    world_end(&w);
}

Test(engine_conn_pause, keeps_what_the_cancelled_receive_brings_late)
{
    start();
    uint32_t file = world_open(&w);
    w.log.len = 0;
    w.ring->manual = SCRIPT_BIT(SCRIPT_CANCEL);
    rws_conn_pause(world_conn(&w, file));
    for (int i = 0; i < 3; i++) {
        char text[32];
        snprintf(text, sizeof text, "late%d", i);
        arrives(file, text);
        world_turn(&w);
    }
    script_complete(w.ring, script_find_recv(w.ring, file), -ECANCELED, 0);
    world_turns(&w, 2);
    world_log_is(&w, "", "paused");
    rws_conn_resume(world_conn(&w, file));
    world_turns(&w, 2);
    world_log_is(&w, "text0:late0 text0:late1 text0:late2 ", "resumed");
    cr_assert_not_null(script_find_recv(w.ring, file));
    world_end(&w);
}

/* Resumed by another connection's callback, in the middle of a batch of completions. */
Test(engine_conn_pause, stays_in_order_when_data_comes_between_resume_and_delivery)
{
    start();
    uint32_t file = world_open(&w), other = world_open(&w);
    w.log.len = 0;
    w.hook = on_letter;
    w.hook_data = world_conn(&w, file);
    arrives(other, "Pause it");
    arrives(file, "1");
    arrives(file, "2");
    arrives(other, "Resume it");
    arrives(file, "3");
    world_turns(&w, 2);
    world_log_is(&w, "text1:Pause it text1:Resume it text0:1 text0:2 text0:3 ", "one batch");
    world_end(&w);
}

Test(engine_conn_pause, takes_the_last_word_of_a_callback)
{
    start();
    uint32_t file = world_open(&w);
    w.hook = on_letter;
    w.log.len = 0;
    arrives(file, "Both");
    arrives(file, "x");
    world_turn(&w);
    world_log_is(&w, "text0:Both text0:x ", "paused and resumed");
    arrives(file, "Turn");
    arrives(file, "y");
    world_turns(&w, 3);
    world_log_is(&w, "text0:Turn ", "resumed and paused");
    rws_conn_resume(world_conn(&w, file));
    world_turns(&w, 2);
    world_log_is(&w, "text0:y ", "resumed");
    world_end(&w);
}

/* Paused again and again by what is delivered, also in the middle of one buffer. */
Test(engine_conn_pause, can_pause_again_while_the_kept_data_is_delivered)
{
    start();
    uint32_t file = world_open(&w);
    w.log.len = 0;
    w.hook = on_letter;
    feed_bytes bytes = {0};
    for (int i = 0; i < 4; i++) {
        char text[32];
        int len = snprintf(text, sizeof text, "P%d", i);
        feed_append_frame(&bytes, 0x81, true, text, (size_t)len);
    }
    script_recv(w.ring, file, bytes.data, bytes.len - 3, false);
    script_recv(w.ring, file, bytes.data + bytes.len - 3, 3, false);
    feed_bytes_free(&bytes);
    for (int i = 0; i < 4; i++) {
        world_turns(&w, 3);
        char expected[32];
        snprintf(expected, sizeof expected, "text0:P%d ", i);
        world_log_is(&w, expected, "one at a time");
        rws_conn_resume(world_conn(&w, file));
        rws_conn_resume(world_conn(&w, file)); /* again does nothing */
    }
    world_turns(&w, 2);
    world_log_is(&w, "", "no more");
    world_end(&w);
}

static void pause_on_open(world *self, rws_conn *conn, const char *what)
{
    (void)self;
    if (strcmp(what, "open") == 0) rws_conn_pause(conn);
}

Test(engine_conn_pause, holds_in_on_open_what_came_with_the_request)
{
    start();
    feed_bytes bytes = {0};
    feed_bytes_append(&bytes, world_request, strlen(world_request));
    feed_append_frame(&bytes, 0x81, true, "early", 5);
    feed_append_frame(&bytes, 0x81, true, "bird", 4);
    for (size_t cut = bytes.len - 40; cut <= bytes.len; cut++) {
        uint32_t file = world_accept(&w);
        w.hook = pause_on_open;
        script_recv(w.ring, file, bytes.data, cut, false);
        if (cut < bytes.len) script_recv(w.ring, file, bytes.data + cut, bytes.len - cut, false);
        world_turns(&w, 2);
        char expected[64];
        snprintf(expected, sizeof expected, "open%u ", file);
        world_log_is(&w, expected, "paused");
        rws_conn_resume(world_conn(&w, file));
        world_turns(&w, 2);
        snprintf(expected, sizeof expected, "text%u:early text%u:bird ", file, file);
        world_log_is(&w, expected, "resumed");
        rws_conn_abort(world_conn(&w, file));
        world_turns(&w, 3);
        w.log.len = 0;
    }
    feed_bytes_free(&bytes);
    world_end(&w);
}

/* A message that is cut by the pause, at every byte, small and large. */
static void check_cut(size_t len, size_t cut)
{
    start();
    uint32_t file = world_open(&w);
    w.log.len = 0;
    static char text[100000];
    memset(text, 'x', len);
    text[len] = '\0';
    feed_bytes frame = {0};
    feed_append_frame(&frame, 0x81, true, text, len);
    world_feed(&w, file, frame.data, cut);
    world_turns(&w, 2);
    rws_conn_pause(world_conn(&w, file));
    size_t at = cut + script_recv(w.ring, file, frame.data + cut, frame.len - cut, false);
    world_turns(&w, 3);
    world_log_is(&w, "", "paused");
    rws_conn_resume(world_conn(&w, file));
    for (int i = 0; i < 20; i++) {
        world_turn(&w);
        if (at < frame.len) at += script_recv(w.ring, file, frame.data + at, frame.len - at, false);
    }
    cr_assert_eq(at, frame.len, "%zu of %zu: stopped at %zu", cut, len, at);
    world_frame(&w, file, RWS_TEXT, "after");
    cr_assert_not_null(strstr(world_log(&w), "text0:after "), "%zu of %zu", cut, len);
    cr_assert_neq(strstr(world_log(&w), "text0:after "), world_log(&w), "%zu of %zu", cut, len);
    feed_bytes_free(&frame);
    world_end(&w);
}

Test(engine_conn_pause, may_cut_a_message_anywhere)
{
    for (size_t cut = 1; cut < 26; cut++)
        check_cut(20, cut);
    static const size_t cuts[] = {1, 2, 5, 10, 13, 14, 15, 100, 5000, 40000, 99999};
    for (size_t i = 0; i < COUNT(cuts); i++)
        check_cut(99999, cuts[i]);
}

/* ---- the peer ends while paused ---- */

Test(engine_conn_pause, delivers_before_it_reports_that_the_peer_left)
{
    start();
    uint32_t file = world_open(&w);
    w.hook = on_letter;
    arrives(file, "Pause");
    arrives(file, "last words");
    script_complete(w.ring, script_find_recv(w.ring, file), 0, 0);
    world_turns(&w, 3);
    world_log_is(&w, "open0 text0:Pause ", "paused");
    rws_conn_resume(world_conn(&w, file));
    world_turns(&w, 3);
    world_log_is(&w, "text0:last words close0:1006::peer ", "resumed");
    cr_assert_eq(w.shard->conns.streams.slots_used, 0);
    world_end(&w);
}

Test(engine_conn_pause, gives_the_close_frame_that_came_before_the_end)
{
    start();
    uint32_t file = world_open(&w);
    w.hook = on_letter;
    arrives(file, "Pause");
    feed_bytes frame = {0};
    feed_append_frame(&frame, 0x88, true, "\x03\xe9out", 5);
    script_recv(w.ring, file, frame.data, frame.len, false);
    feed_bytes_free(&frame);
    script_complete(w.ring, script_find_recv(w.ring, file), 0, 0);
    world_turns(&w, 3);
    world_log_is(&w, "open0 text0:Pause ", "paused");
    rws_conn_resume(world_conn(&w, file));
    world_turns(&w, 3);
    world_log_is(&w, "close0:1001:out:peer ", "resumed");
    world_end(&w);
}

Test(engine_conn_pause, reports_a_peer_that_left_at_once_if_nothing_is_kept)
{
    start();
    uint32_t file = world_open(&w);
    rws_conn_pause(world_conn(&w, file));
    script_complete(w.ring, script_find_recv(w.ring, file), 0, 0);
    world_turns(&w, 3);
    world_log_is(&w, "open0 close0:1006::peer ", "paused");
    world_end(&w);
}

Test(engine_conn_pause, is_undone_by_closing)
{
    start();
    uint32_t file = world_open(&w);
    w.hook = on_letter;
    arrives(file, "Pause");
    arrives(file, "not delivered");
    world_turns(&w, 2);
    cr_assert_eq(rws_conn_close(world_conn(&w, file), 1000, "bye"), 0);
    world_turns(&w, 2);
    world_frame(&w, file, RWS_CLOSE,
                "\x03\xe8"
                "bye");
    world_turns(&w, 3);
    world_log_is(&w, "open0 text0:Pause close0:1000:bye:us ", "closed");
    cr_assert_eq(w.shard->conns.streams.slots_used, 0);
    world_end(&w);
}

Test(engine_conn_pause, may_be_called_at_any_time)
{
    start();
    uint32_t file = world_open(&w);
    rws_conn *conn = world_conn(&w, file);
    rws_conn_close(conn, 1000, NULL);
    rws_conn_pause(conn);
    world_turns(&w, 2);
    cr_assert_not_null(script_find_recv(w.ring, file), "the peer's close frame is waited for");
    world_frame(&w, file, RWS_CLOSE, "");
    rws_conn_pause(conn);
    rws_conn_resume(conn);
    world_turns(&w, 3);
    world_log_is(&w, "open0 close0:1005::us ", "closed");
    world_end(&w);
}
