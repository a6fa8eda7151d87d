/*
 * Memory that runs out on the scripted ring (ctest: scripted ring): the budget for partial
 * messages, and a pool that is used up at every step of a connection.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/scripted_shard.h"

static world w;

/* Feed the first `len` bytes of a frame that declares `declared`. */
static void feed_cut(uint32_t file, size_t declared, size_t len)
{
    feed_bytes frame = {0};
    feed_append_header(&frame, 0x82, true, FEED_AUTO, declared);
    char *payload = calloc(1, len);
    cr_assert_not_null(payload);
    feed_bytes_append(&frame, payload, len);
    free(payload);
    for (size_t at = 0; at < len;) {
        size_t taken = script_recv(w.ring, file, frame.data + at, len - at, false);
        world_turn(&w);
        if (taken == 0 && script_find_recv(w.ring, file) == NULL) break;
        at += taken;
    }
    feed_bytes_free(&frame);
}

static void start_with_budget(void)
{
    test_options options = world_server_options();
    options.message_bytes_max = 65536;
    options.partial_bytes_max = 262144;
    options.message_timeout_ms = 2000;
    world_start(&w, &options);
}

/* Those that stand in the queue for the budget. */
static uint32_t waiters(void)
{
    const rws__conns *conns = &w.shard->conns;
    const rws__stream *stream = rws__slot_queue_first(&conns->streams, &conns->budget);
    uint32_t count = 0;
    for (; stream != NULL; count++)
        stream = rws__slot_queue_next(&conns->budget, stream);
    return count;
}

Test(engine_budget, stops_reading_when_the_budget_is_used_up)
{
    start_with_budget();
    uint32_t paused = 0;
    for (int n = 0; n < 8; n++) {
        uint32_t file = world_open(&w);
        feed_cut(file, 65536, 60000);
        world_turns(&w, 3);
        if (script_find_recv(w.ring, file) == NULL) paused++;
    }
    cr_assert_leq(w.shard->conns.streams.partial->charged_bytes,
                  w.shard->conns.streams.partial->charged_bytes_max);
    cr_assert_gt(paused, 0);
    cr_assert_eq(waiters(), paused);
    w.log.len = 0;
    world_advance(&w, 2100);
    world_turns(&w, 3);
    cr_assert_not_null(strstr(world_log(&w), ":1013:"), "%s", world_log(&w));
    cr_assert_not_null(strstr(world_log(&w), ":1008:"), "%s", world_log(&w));
    world_end(&w);
    cr_assert_eq(w.closes, 8);
}

Test(engine_budget, goes_on_when_others_are_done)
{
    start_with_budget();
    uint32_t first[8];
    int count = 0;
    for (; count < 8; count++) {
        first[count] = world_open(&w);
        feed_cut(first[count], 65536, 50000);
        world_turns(&w, 3);
        if (w.shard->conns.budget.first > 0) break;
    }
    cr_assert_lt(count, 8);
    uint32_t waiting = first[count];
    cr_assert_null(script_find_recv(w.ring, waiting));
    for (int n = 0; n < count; n++) {
        rws_conn_abort(world_conn(&w, first[n]));
        world_turns(&w, 3);
    }
    cr_assert_eq(w.shard->conns.budget.first, 0);
    cr_assert_not_null(script_find_recv(w.ring, waiting), "it reads again");
    world_end(&w);
}

/* Whoever waits longest is the first to go on, whatever slot it has. */
Test(engine_budget, goes_on_first_come_first_served)
{
    start_with_budget();
    uint32_t files[8], waiting[8], count = 0;
    /* From the last to the first, so that the order is not that of the slots. */
    for (int n = 0; n < 8; n++)
        files[n] = world_open(&w);
    for (int n = 7; n >= 0; n--) {
        feed_cut(files[n], 65536, 60000);
        world_turns(&w, 3);
        if (script_find_recv(w.ring, files[n]) == NULL) waiting[count++] = files[n];
    }
    cr_assert_geq(count, 3);
    /* The one that may go past the budget gives up: the next one may. */
    uint32_t rounds = 0;
    for (; rounds < count; rounds++) {
        rws_conn_abort(w.shard->conns.budget_holder);
        world_turns(&w, 4);
        if (w.shard->conns.budget_holder == NULL) break; /* there is enough for all */
        cr_assert_eq(w.shard->conns.budget_holder, world_conn(&w, waiting[rounds]), "round %u",
                     rounds);
        cr_assert_not_null(script_find_recv(w.ring, waiting[rounds]));
    }
    cr_assert_geq(rounds, 2);
    world_end(&w);
}

/* What was merely declared takes addresses, at most half of them and half of the budget; then as
 * much as a step needs. That it takes no memory is shown by engine_security_memory. */
Test(engine_budget, leaves_half_to_what_came)
{
    test_options options = world_server_options();
    options.message_bytes_max = 64u << 20;
    options.connections_max = 128;
    world_start(&w, &options);
    for (int n = 0; n < 64; n++)
        feed_cut(world_open(&w), 64u << 20, 20);
    world_turns(&w, 3);
    const rws__pool *pool = w.shard->conns.streams.partial;
    cr_assert_leq(pool->charged_bytes, 64 * 1024,
                  "an announced length alone costs its peer nothing");
    for (int n = 0; n < 64; n++)
        feed_cut(world_open(&w), 64u << 20, 4096);
    world_turns(&w, 3);
    cr_assert_leq(pool->charged_bytes, pool->budget_bytes / 2 + 64 * (1024 + 16384 + 8192));
    cr_assert_leq(pool->slab.used_bytes, pool->slab.bytes / 2 + 128 * 32768);
    cr_assert_eq(w.shard->conns.budget.first, 0, "and the budget is not used up by it");
    world_end(&w);
}

/* What it asked for and did not get is not held by a connection that waits: else the one that may
 * go past the budget finds no room, and all wait for each other. */
Test(engine_budget, a_connection_that_waits_holds_what_it_has_and_no_more)
{
    test_options options = world_server_options();
    options.partial_bytes_max = 1u << 20;
    options.message_bytes_max = 1u << 20;
    world_start(&w, &options);
    feed_bytes long_one = world_long_frame(450000);
    uint32_t files[6];
    size_t at[6] = {0};
    uint32_t checked = 0;
    for (size_t i = 0; i < 6; i++)
        files[i] = world_open(&w);
    for (size_t round = 0; round < 20; round++) {
        for (size_t i = 0; i < 6; i++) {
            size_t len = long_one.len - at[i] < 30000 ? long_one.len - at[i] : 30000;
            if (len > 0 && script_find_recv(w.ring, files[i]) != NULL)
                at[i] += script_recv(w.ring, files[i], long_one.data + at[i], len, false);
            world_turns(&w, 2);
            for (size_t n = 0; n < 6; n++) {
                const rws_conn *conn = world_conn(&w, files[n]);
                cr_assert_not_null(conn, "%s", world_log(&w));
                if (!(conn->pauses & RWS__PAUSE_BUDGET) || conn->assembly == NULL) continue;
                checked++;
                cr_assert_leq(conn->assembly->charged, conn->assembly->len + 8192);
            }
        }
    }
    cr_assert_gt(checked, 0);
    feed_bytes_free(&long_one);
    world_end(&w);
}

/* ---- input that waits ---- */

/* Those who leave input waiting, because they read nothing or are paused, take none of what the
 * messages of others need; each may have some. */
Test(engine_budget, input_that_waits_leaves_room_for_messages)
{
    test_options options = world_server_options();
    options.partial_bytes_max = 1u << 20;
    options.message_bytes_max = 1u << 19;
    world_start(&w, &options);
    uint32_t files[7];
    for (size_t i = 0; i < 7; i++)
        files[i] = world_open(&w);
    w.log.len = 0;
    static const uint8_t zeros[32768];
    for (size_t i = 0; i < 6; i++) {
        rws_conn_pause(world_conn(&w, files[i]));
        /* All of it is on its way before the receive is taken back. */
        for (int part = 0; part < 8; part++)
            script_recv(w.ring, files[i], zeros, sizeof zeros, false);
        world_turns(&w, 3);
    }
    size_t waits = w.shard->conns.streams.stalled_bytes;
    cr_assert_geq(waits, (1u << 20) / 4);
    cr_assert_leq(waits, (1u << 20) / 2);
    cr_assert_gt(world_stats(&w).out_of_memory, 0, "the others are ended");
    feed_bytes half = {0};
    feed_bytes long_one = world_long_frame(400000);
    feed_bytes_append(&half, long_one.data, 300000);
    world_feed_pieces(&w, files[6], &half, 20000);
    cr_assert(w.open[files[6]]);
    world_feed(&w, files[6], long_one.data + 300000, long_one.len - 300000);
    world_turns(&w, 3);
    cr_assert_not_null(strstr(world_log(&w), "6:400000:"), "%s", world_log(&w));
    feed_bytes_free(&half);
    feed_bytes_free(&long_one);
    world_end(&w);
}

/* ---- nothing is left at all ---- */

typedef struct budget_step {
    const char *name;
    bool open; /* the connection is open before the memory is used up */
    uint8_t first;
    const char *text;
    size_t cut;
    const char *log;
} budget_step;

static const budget_step steps[] = {
    {"a request in pieces", false, 0, world_request, 40, ""},
    {"a request with a subprotocol", false, 0, world_request, 1000, ""},
    {"a cut header", true, 0x81, "hello", 3, "close0:1013:"},
    {"a cut message", true, 0x81, "hello", 8, "close0:1013:"},
    {"a cut ping", true, 0x89, "hello", 8, "close0:1013:"},
    {"a fragment", true, 0x01, "hello", 100, "close0:1013:"},
    {"a whole message", true, 0x81, "hello", 100, "text0:hello "},
    {"a whole ping", true, 0x89, "hello", 100, ""},
    {"a whole close", true, 0x88, "\x03\xe8", 100, "close0:1000:"},
};

/* The peer's code stays, but nobody may believe that it had the answer. */
Test(engine_budget, a_close_frame_that_can_not_be_answered_is_no_closing_handshake)
{
    for (int scarce = 0; scarce < 2; scarce++) {
        test_options options = world_server_options();
        options.send_pool_bytes_max = 1u << 20;
        world_start(&w, &options);
        uint32_t file = world_open(&w);
        w.log.len = 0;
        w.close_status = 1;
        if (scarce) world_use_up(&w.shard->conns.streams.send_slab);
        world_frame(&w, file, RWS_CLOSE, "\x0f\xa0");
        world_turns(&w, 3);
        cr_assert_not_null(strstr(world_log(&w), "close0:4000:"), "%s", world_log(&w));
        cr_assert_eq(w.close_status, scarce ? -ENOMEM : 0);
        cr_assert_str_eq(world_sent(&w, file), scarce ? "" : "close:4000: ");
        if (scarce) world_give_back(&w.shard->conns.streams.send_slab);
        world_end(&w);
    }
}

/* Not RWS_E_INTERNAL: the program's callbacks have not failed. */
Test(engine_budget, a_pong_without_memory_is_told_from_a_callback_that_fails)
{
    test_options options = world_server_options();
    options.send_pool_bytes_max = 1u << 20;
    world_start(&w, &options);
    uint32_t file = world_open(&w);
    w.log.len = 0;
    world_use_up(&w.shard->conns.streams.send_slab);
    world_frame(&w, file, RWS_PING, "hello");
    world_turns(&w, 3);
    cr_assert_not_null(strstr(world_log(&w), "close0:1006::us"), "%s", world_log(&w));
    cr_assert_eq(world_stats(&w).out_of_memory, 1);
    cr_assert_eq(world_stats(&w).protocol_errors, 0);
    cr_assert_eq(w.close_status, -ENOMEM);
    world_give_back(&w.shard->conns.streams.send_slab);
    world_end(&w);
}

static void take_step(const budget_step *step, bool send_slab)
{
    test_options options = world_server_options();
    options.partial_bytes_max = 1u << 20;
    options.send_pool_bytes_max = 1u << 20;
    world_start(&w, &options);
    w.subprotocol = "superchat";
    uint32_t file = step->open ? world_open(&w) : world_accept(&w);
    w.log.len = 0;
    rws__slab *slab =
        send_slab ? &w.shard->conns.streams.send_slab : &w.shard->conns.streams.partial->slab;
    world_use_up(slab);
    feed_bytes bytes = {0};
    if (step->first != 0)
        feed_append_frame(&bytes, step->first, true, step->text, strlen(step->text));
    else
        feed_bytes_append(&bytes, step->text, strlen(step->text));
    world_feed(&w, file, bytes.data, step->cut < bytes.len ? step->cut : bytes.len);
    feed_bytes_free(&bytes);
    world_turns(&w, 3);
    if (!send_slab)
        cr_expect_eq(strncmp(world_log(&w), step->log, strlen(step->log)), 0, "%s: \"%s\"",
                     step->name, world_log(&w));
    rws_conn *conn = world_conn(&w, file);
    if (conn != NULL) rws_conn_abort(conn);
    script_cancel_closed(w.ring);
    world_turns(&w, 4);
    world_give_back(slab);
    world_end(&w);
}

Test(engine_budget, ends_connections_cleanly_when_no_partial_memory_is_left)
{
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++)
        take_step(&steps[i], false);
}

Test(engine_budget, ends_connections_cleanly_when_no_memory_to_send_is_left)
{
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++)
        take_step(&steps[i], true);
}

/* The refusal's memory comes behind room that was reserved for the answer. */
Test(engine_budget, refuses_a_subprotocol_that_it_can_not_keep)
{
    test_options options = world_server_options();
    world_start(&w, &options);
    w.subprotocol = "superchat";
    uint32_t file = world_accept(&w);
    world_use_up(&w.shard->conns.streams.partial->slab);
    world_feed(&w, file, world_request, strlen(world_request));
    world_turns(&w, 3);
    feed_bytes_append(&w.ring->wire[file], "", 1);
    cr_assert_not_null(strstr((char *)w.ring->wire[file].data, "HTTP/1.1 503 "));
    world_log_is(&w, "", "refused");
    world_give_back(&w.shard->conns.streams.partial->slab);
    world_eof(&w, file);
    world_turns(&w, 3);
    world_open(&w);
    world_end(&w);
}
