/*
 * Progress of sending on the scripted ring and its clock (ctest: scripted ring): who is ended by
 * send_timeout_ms, when, and who is not; how a close waits for what the peer has not acknowledged.
 *
 * A look comes every LOOK_MS, ten ticks. The floor is 1024 bytes per second: LOOK_BYTES in a look.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/scripted_shard.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define LOOK_MS      160u
#define LOOKS        8u
#define TIMEOUT_MS   (LOOKS * LOOK_MS)
#define LOOK_BYTES   164u
#define IN_KERNEL    200000u

static world w;

static test_options options_for_send(void)
{
    test_options options = world_server_options();
    options.message_bytes_max = 1u << 20;
    options.send_timeout_ms = TIMEOUT_MS;
    options.close_timeout_ms = 480;
    options.high_watermark_bytes = 1u << 21;
    return options;
}

static void start(uint32_t features_off)
{
    test_options options = options_for_send();
    options.features_off = features_off;
    /* Between two ticks each look would come a tick later. */
    script_now_ms += RWS__TICK_MS - script_now_ms % RWS__TICK_MS;
    world_start(&w, &options);
}

static void send_bytes(uint32_t file, size_t len)
{
    char *data = calloc(1, len);
    cr_assert_not_null(data);
    cr_assert_eq(rws_conn_send_binary(world_conn(&w, file), data, len), 0);
    free(data);
    world_turn(&w);
}

static void complete(script_kind kind, uint32_t file, int32_t res)
{
    script_op *op = script_find(w.ring, kind, file);
    cr_assert_not_null(op, "no such operation (%d) is in flight", (int)kind);
    script_complete(w.ring, op, res, 0);
    world_turns(&w, 3);
}

/* A connection whose socket is full: a send of some of what is queued waits. */
static uint32_t open_blocked(void)
{
    uint32_t file = world_open(&w);
    w.ring->manual |= SCRIPT_BIT(SCRIPT_SEND);
    static const char data[250000];
    cr_assert_eq(rws_conn_send_binary(world_conn(&w, file), data, sizeof data), 0);
    world_pump(&w);
    complete(SCRIPT_SEND_QUIET, file, -EAGAIN);
    send_bytes(file, 600000);
    cr_assert(script_find(w.ring, SCRIPT_SEND, file)->some);
    return file;
}

/* ---- who is ended, and when ---- */

/* More than 2 GiB from one look to the next are not less than nothing. */
Test(engine_progress, a_peer_that_takes_gigabytes_in_a_look_goes_on)
{
    for (int can_ask = 0; can_ask < 2; can_ask++) {
        start(can_ask ? 0 : RWS__FEATURE_SOCKET_COMMANDS);
        uint32_t file = open_blocked();
        for (uint32_t look = 0; look < 4 * LOOKS; look++) {
            for (int i = 0; i < 3; i++) {
                world_conn(&w, file)->stream.taken += 768u << 20; /* as if they had been sent */
                const script_op *op = script_find(w.ring, SCRIPT_SEND, file);
                complete(SCRIPT_SEND, file, op->len < 5000 ? (int32_t)op->len : 5000);
                send_bytes(file, 5000);
            }
            world_pass(&w, LOOK_MS);
            cr_assert(w.open[file], "%s: it ended with look %u", can_ask ? "asked" : "not asked",
                      look + 1);
        }
        world_end(&w);
    }
}

static const struct reader {
    const char *name;
    uint32_t acknowledges[16]; /* in each look; after the last from `again` on */
    uint32_t count, again;
    uint32_t ends; /* with this look; 0: never */
} readers[] = {
    {"nothing", {0}, 1, 0, 10},
    {"nothing after a fast start", {50000, 50000, 0}, 3, 2, 10},
    {"nothing after a fast look", {0, 0, 0, 0, 0, 50000, 0}, 7, 6, 14},
    {"a byte in each look", {1}, 1, 0, 11},
    {"less than the floor", {100}, 1, 0, 23},
    {"the floor", {LOOK_BYTES}, 1, 0, 0},
    {"lumps as the kernel's, below the floor", {0, 0, 0, 0, 0, 800}, 6, 0, 29},
    {"lumps above it", {0, 0, 0, 0, 990}, 5, 0, 0},
    {"all of a timeout at its end", {0, 0, 0, 0, 0, 0, 0, LOOKS *LOOK_BYTES}, 8, 0, 0},
};

/* The peer acknowledges, or what fits is sent where the kernel can't tell. */
static void acknowledge(uint32_t file, bool can_ask, uint32_t bytes)
{
    if (bytes == 0) return;
    if (can_ask)
        w.ring->unacknowledged[file] -= bytes;
    else
        complete(SCRIPT_SEND, file, (int32_t)bytes);
}

static void take_reader(const struct reader *reader, bool can_ask)
{
    char name[128];
    snprintf(name, sizeof name, "%s, %s", reader->name, can_ask ? "asked" : "not asked");
    start(can_ask ? 0 : RWS__FEATURE_SOCKET_COMMANDS);
    uint32_t file = open_blocked();
    w.ring->unacknowledged[file] = IN_KERNEL;
    for (uint32_t look = 0, at = 0; look < 200; look++, at++) {
        if (at == reader->count) at = reader->again;
        acknowledge(file, can_ask, reader->acknowledges[at]);
        world_pass(&w, LOOK_MS - RWS__TICK_MS);
        cr_assert(w.open[file], "%s: it ended before look %u", name, look + 1);
        /* The time of day does not move a deadline: what was acknowledged in the last look is
         * missing there. */
        world_pass(&w, RWS__TICK_MS);
        if (w.ring->unacknowledged[file] < 60000) w.ring->unacknowledged[file] += 60000;
        if (!w.open[file] || look + 1 == reader->ends) {
            cr_assert_eq(look + 1, reader->ends, "%s: it ended with look %u", name, look + 1);
            cr_assert_not(w.open[file], "%s: it did not end", name);
            break;
        }
    }
    if (reader->ends > 0) {
        world_log_is(&w, "open0 close0:1006::us ", name);
        cr_assert_eq(world_stats(&w).timeouts, 1);
        cr_assert_eq(w.ring->calls_of[SCRIPT_DISCONNECT], 1, "%s: the kernel has it still", name);
        world_turns(&w, 2);
        cr_assert(w.ring->closed[file]);
    }
    world_end(&w);
}

Test(engine_progress, ends_those_who_fall_behind_and_nobody_else)
{
    for (size_t i = 0; i < COUNT(readers); i++)
        take_reader(&readers[i], true);
}

/* Before 6.7 what the kernel takes counts, which is known from the start. */
Test(engine_progress, judges_by_what_the_kernel_takes_where_it_can_not_tell)
{
    for (size_t i = 0; i < COUNT(readers); i++)
        take_reader(&readers[i], false);
}

Test(engine_progress, counts_what_the_kernel_had_and_what_was_queued_as_discarded)
{
    start(0);
    uint32_t file = open_blocked();
    w.ring->unacknowledged[file] = 500;
    size_t queued = rws_conn_buffered(world_conn(&w, file));
    world_pass(&w, 10 * LOOK_MS);
    cr_assert_not(w.open[file]);
    cr_assert_eq(world_stats(&w).bytes_discarded, queued + 500);
    world_end(&w);
}

/* What the peer's own reset destroys is not of this side's doing. */
Test(engine_progress, does_not_count_what_a_peer_that_vanished_did_not_take)
{
    start(0);
    uint32_t file = open_blocked();
    complete(SCRIPT_SEND, file, -ECONNRESET);
    world_log_is(&w, "open0 close0:1006::peer ", "reset");
    cr_assert_eq(world_stats(&w).bytes_discarded, 0);
    world_end(&w);
}

Test(engine_progress, is_not_looked_at_while_nothing_waits)
{
    start(0);
    uint32_t file = world_open(&w);
    w.ring->unacknowledged[file] = 100000;
    for (int i = 0; i < 5; i++) {
        send_bytes(file, 300000);
        world_pass(&w, 2 * TIMEOUT_MS);
    }
    cr_assert(w.open[file]);
    cr_assert_eq(w.ring->calls_of[SCRIPT_UNACKNOWLEDGED], 0);
    world_end(&w);
}

/* A send of the whole message says only at its end how much of it went: it is taken back at the
 * first look, and goes on with what fits. */
Test(engine_progress, takes_a_send_back_that_waits_and_goes_on_behind_it)
{
    static const int32_t results[] = {70000, -ECANCELED, 300010};
    for (size_t i = 0; i < COUNT(results); i++) {
        start(0);
        uint32_t file = world_open(&w);
        w.ring->manual = SCRIPT_BIT(SCRIPT_SEND) | SCRIPT_BIT(SCRIPT_CANCEL);
        uint64_t cancels = w.ring->calls_of[SCRIPT_CANCEL];
        send_bytes(file, 300000);
        cr_assert_not(script_find(w.ring, SCRIPT_SEND, file)->some);
        world_pass(&w, LOOK_MS - RWS__TICK_MS);
        cr_assert_eq(w.ring->calls_of[SCRIPT_CANCEL], cancels);
        world_pass(&w, RWS__TICK_MS);
        cr_assert_eq(w.ring->calls_of[SCRIPT_CANCEL], cancels + 1);
        cr_assert_eq(w.ring->calls_of[SCRIPT_UNACKNOWLEDGED], 0, "it would be wrong now");
        complete(SCRIPT_SEND, file, results[i]);
        script_op *op = script_find(w.ring, SCRIPT_SEND, file);
        cr_assert_eq(op == NULL, results[i] == 300010);
        if (op != NULL) cr_assert(op->some);
        w.ring->manual = 0;
        if (op != NULL) complete(SCRIPT_SEND, file, (int32_t)op->len);
        world_turns(&w, 4);
        cr_assert_str_eq(world_sent(&w, file), "binary:300000 ");
        world_pass(&w, 3 * TIMEOUT_MS);
        cr_assert(w.open[file]);
        world_end(&w);
    }
}

/* The ring takes neither the cancel nor the question: nobody is judged by that. */
Test(engine_progress, judges_nobody_while_the_ring_takes_no_question)
{
    start(0);
    uint32_t file = open_blocked();
    w.ring->refuse[SCRIPT_UNACKNOWLEDGED] = 100000;
    w.ring->unacknowledged[file] = 100;
    world_pass(&w, 30 * LOOK_MS);
    cr_assert(w.open[file]);
    w.ring->refuse[SCRIPT_UNACKNOWLEDGED] = 0;
    world_pass(&w, 10 * LOOK_MS);
    cr_assert_not(w.open[file]);
    world_end(&w);
}

/* Two who wait have a deadline each. */
Test(engine_progress, ends_the_silent_one_beside_one_that_reads)
{
    start(0);
    uint32_t silent = open_blocked();
    uint32_t reads = open_blocked();
    w.ring->unacknowledged[silent] = w.ring->unacknowledged[reads] = 1u << 30;
    for (int look = 0; look < 20; look++) {
        w.ring->unacknowledged[reads] -= 1000;
        world_pass(&w, LOOK_MS);
    }
    cr_assert_not(w.open[silent]);
    cr_assert(w.open[reads]);
    world_end(&w);
}

/* ---- the end waits for what is not acknowledged ---- */

static const struct after_close {
    const char *name;
    size_t sent; /* before the close frames */
    uint32_t unacknowledged;
    uint32_t features_off;
    bool asks, shuts, lingers;
} after_closes[] = {
    {"little was sent", 1000, 500, 0, false, false, false},
    {"much was sent, and is there", 70000, 0, 0, true, false, false},
    {"much was sent, and some is on its way", 70000, 1, 0, true, true, true},
    {"little was sent, and the kernel can't tell", 1000, 0, RWS__FEATURE_SOCKET_COMMANDS, false,
     true, false},
    {"much was sent, and the kernel can't tell", 70000, 0, RWS__FEATURE_SOCKET_COMMANDS, false,
     true, true},
};

Test(engine_progress, lingers_after_the_closing_handshake_exactly_when_something_may_be_lost)
{
    for (size_t i = 0; i < COUNT(after_closes); i++) {
        const struct after_close *row = &after_closes[i];
        start(row->features_off);
        uint32_t file = world_open(&w);
        send_bytes(file, row->sent);
        world_turns(&w, 3);
        w.ring->unacknowledged[file] = row->unacknowledged;
        world_frame(&w, file, RWS_CLOSE, "\x03\xe8");
        world_turns(&w, 5);
        cr_expect_eq(w.ring->calls_of[SCRIPT_UNACKNOWLEDGED], row->asks, "%s", row->name);
        cr_expect_eq(w.ring->calls_of[SCRIPT_SHUTDOWN], row->shuts, "%s", row->name);
        cr_expect_eq(w.ring->closed[file], !row->lingers, "%s", row->name);
        if (row->lingers) {
            /* What it still sends does no harm. */
            world_feed(&w, file, "stray", 5);
            w.ring->unacknowledged[file] = 0;
            world_eof(&w, file);
            world_turns(&w, 2);
        }
        cr_expect(w.ring->closed[file], "%s", row->name);
        cr_expect_eq(w.ring->calls_of[SCRIPT_DISCONNECT], 0, "%s", row->name);
        world_end(&w);
    }
}

/* A peer that ends its half and does not read leaves nothing with the kernel. */
static const struct half_close {
    const char *name;
    uint32_t unacknowledged;
    uint32_t reads; /* of it in each half of a second */
    uint32_t ends_ms;
    bool is_reset;
} half_closes[] = {
    {"it has all", 0, 0, 0, false},
    {"it takes nothing", 50000, 0, 5000, true},
    {"it reads all, slowly", 50000, 5000, 5000, false},
    {"it stops", 200000, 1000, 10000, true},
};

Test(engine_progress, a_half_closed_connection_is_waited_for_while_the_peer_takes_something)
{
    for (size_t i = 0; i < COUNT(half_closes); i++) {
        const struct half_close *row = &half_closes[i];
        test_options options = options_for_send();
        options.linger_timeout_ms = 5000;
        world_start(&w, &options);
        uint32_t file = world_open(&w);
        send_bytes(file, 70000);
        world_turns(&w, 3);
        w.ring->unacknowledged[file] = row->unacknowledged;
        world_eof(&w, file);
        world_turns(&w, 4);
        world_log_is(&w, "open0 close0:1006::peer ", row->name);
        uint32_t ms = 0;
        for (; ms < 60000 && !w.ring->closed[file]; ms += 500) {
            uint32_t left = w.ring->unacknowledged[file];
            w.ring->unacknowledged[file] -= left < row->reads ? left : row->reads;
            if (ms >= 5000 && row->is_reset) w.ring->unacknowledged[file] = left; /* no more */
            world_pass(&w, 500);
        }
        cr_expect(w.ring->closed[file], "%s", row->name);
        cr_expect(ms >= row->ends_ms && ms <= row->ends_ms + 1000, "%s: after %u ms", row->name,
                  ms);
        cr_expect_eq(w.ring->calls_of[SCRIPT_DISCONNECT], row->is_reset, "%s", row->name);
        cr_expect_eq(world_stats(&w).bytes_discarded > 0, row->is_reset, "%s", row->name);
        world_end(&w);
    }
}

/* No receive tells of a reset any more, and its bytes are never acknowledged. A shutdown does, at
 * once or at the look that follows. */
Test(engine_progress, a_reset_behind_the_end_of_the_peers_half_is_noticed)
{
    for (int at_once = 0; at_once < 2; at_once++) {
        start(0);
        uint32_t file = world_open(&w);
        send_bytes(file, 70000);
        world_turns(&w, 3);
        w.ring->unacknowledged[file] = 50000;
        w.ring->manual = SCRIPT_BIT(SCRIPT_SHUTDOWN);
        world_eof(&w, file);
        world_turns(&w, 4);
        complete(SCRIPT_SHUTDOWN, file, at_once ? -ENOTCONN : 0);
        cr_assert_eq(w.ring->closed[file], at_once);
        if (!at_once) {
            world_pass(&w, 150);
            complete(SCRIPT_SHUTDOWN, file, -ENOTCONN);
        }
        world_turns(&w, 3);
        cr_assert(w.ring->closed[file]);
        cr_assert_eq(world_stats(&w).bytes_discarded, 0, "it was the peer's doing");
        world_end(&w);
    }
}

/* What the kernel still has of it goes, too. */
Test(engine_progress, an_abort_resets_what_may_not_be_there_yet)
{
    static const struct {
        size_t sent;
        bool resets;
    } rows[] = {{100, false}, {3000, false}, {5000, true}, {70000, true}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        start(0);
        uint32_t file = world_open(&w);
        send_bytes(file, rows[i].sent);
        world_turns(&w, 3);
        rws_conn_abort(world_conn(&w, file));
        world_turns(&w, 3);
        cr_expect(w.ring->closed[file]);
        cr_expect_eq(w.ring->calls_of[SCRIPT_DISCONNECT], rows[i].resets, "%zu bytes",
                     rows[i].sent);
        world_end(&w);
    }
}

/* After 4 GiB the count of bytes is small again. */
Test(engine_progress, knows_that_much_was_sent_after_the_count_has_wrapped)
{
    start(0);
    uint32_t file = world_open(&w);
    send_bytes(file, 70000);
    world_turns(&w, 3);
    world_conn(&w, file)->stream.taken = UINT32_MAX - 500;
    send_bytes(file, 2000);
    world_turns(&w, 3);
    w.ring->unacknowledged[file] = 5;
    world_frame(&w, file, RWS_CLOSE, "\x03\xe8");
    world_turns(&w, 5);
    cr_assert_not(w.ring->closed[file], "something is on its way");
    world_end(&w);
}

/* The peer takes what was sent, slowly, and does not end its half. */
Test(engine_progress, lingers_while_the_peer_acknowledges)
{
    start(0);
    uint32_t file = world_open(&w);
    send_bytes(file, 70000);
    world_turns(&w, 3);
    w.ring->unacknowledged[file] = 20000;
    world_frame(&w, file, RWS_CLOSE, "\x03\xe8");
    for (int i = 0; i < 10; i++) {
        world_pass(&w, 480);
        cr_assert_not(w.ring->closed[file], "period %d", i);
        w.ring->unacknowledged[file] -= 1000;
    }
    world_pass(&w, 960 + RWS__TICK_MS);
    cr_assert(w.ring->closed[file], "it takes no more");
    cr_assert_eq(w.ring->calls_of[SCRIPT_DISCONNECT], 1);
    cr_assert_eq(world_stats(&w).bytes_discarded, 10000);
    world_end(&w);
}

/* The last send ends while the look's question is in flight: the end asks one of its own. */
Test(engine_progress, ends_although_a_look_was_under_way_when_all_was_sent)
{
    for (uint32_t left = 0; left < 2; left++) {
        start(0);
        uint32_t file = open_blocked();
        world_frame(&w, file, RWS_CLOSE, "\x03\xe8");
        world_log_is(&w, "open0 close0:1000::peer ", "closed");
        w.ring->manual |= SCRIPT_BIT(SCRIPT_UNACKNOWLEDGED);
        world_pass(&w, LOOK_MS);
        cr_assert_not_null(script_find(w.ring, SCRIPT_UNACKNOWLEDGED, file));
        w.ring->manual &= ~SCRIPT_BIT(SCRIPT_SEND);
        while (rws_conn_buffered(world_conn(&w, file)) > 0)
            complete(SCRIPT_SEND, file, (int32_t)script_find(w.ring, SCRIPT_SEND, file)->len);
        cr_assert_not(w.ring->closed[file]);
        complete(SCRIPT_UNACKNOWLEDGED, file, 4242);
        cr_assert_not(w.ring->closed[file]);
        complete(SCRIPT_UNACKNOWLEDGED, file, (int32_t)left);
        world_turns(&w, 2);
        cr_assert_eq(w.ring->closed[file], left == 0);
        cr_assert_eq(w.ring->calls_of[SCRIPT_SHUTDOWN], left);
        world_end(&w);
    }
}

/* ---- the close's deadline ---- */

/* It counts from when the close frame was acknowledged, and starts again with progress. */
Test(engine_progress, waits_for_the_peers_close_frame_while_it_acknowledges)
{
    start(0);
    uint32_t file = world_open(&w);
    send_bytes(file, 70000);
    rws_conn_close(world_conn(&w, file), 1000, NULL);
    world_turns(&w, 3);
    w.ring->unacknowledged[file] = 20000;
    for (int i = 0; i < 10; i++) {
        world_pass(&w, 480);
        cr_assert(w.open[file], "period %d", i);
        w.ring->unacknowledged[file] -= 2000;
    }
    world_pass(&w, 480);
    cr_assert(w.open[file], "the last of it was acknowledged just now");
    world_pass(&w, 480 + RWS__TICK_MS);
    world_log_is(&w, "open0 close0:1006::us ", "no close frame");
    cr_assert_eq(world_stats(&w).timeouts, 1);
    world_end(&w);
}

/* One that drips could make a close last for days. */
Test(engine_progress, waits_for_the_peers_close_frame_no_longer_if_it_takes_little_or_nothing)
{
    static const struct {
        const char *name;
        uint32_t acknowledged; /* in the period of the deadline */
    } rows[] = {{"nothing", 0}, {"drips", 400}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        start(0);
        uint32_t file = world_open(&w);
        send_bytes(file, 70000);
        world_turns(&w, 3);
        rws_conn_close(world_conn(&w, file), 1000, NULL);
        w.ring->unacknowledged[file] = 20000;
        world_pass(&w, 480); /* how much is acknowledged is known from here on */
        w.ring->unacknowledged[file] -= rows[i].acknowledged;
        world_pass(&w, 480 - RWS__TICK_MS);
        cr_assert(w.open[file], "%s", rows[i].name);
        world_pass(&w, 2 * RWS__TICK_MS);
        cr_assert_not(w.open[file], "%s", rows[i].name);
        world_log_is(&w, "open0 close0:1006::us ", rows[i].name);
        cr_assert_eq(w.ring->calls_of[SCRIPT_DISCONNECT], 1, "%s", rows[i].name);
        cr_assert_eq(world_stats(&w).bytes_discarded, 20000 - rows[i].acknowledged, "%s",
                     rows[i].name);
        world_end(&w);
    }
}

Test(engine_progress, keeps_the_close_deadline_although_the_ring_takes_no_question)
{
    start(0);
    uint32_t file = world_open(&w);
    rws_conn_close(world_conn(&w, file), 1000, NULL);
    world_turns(&w, 3);
    w.ring->refuse[SCRIPT_UNACKNOWLEDGED] = 2;
    world_pass(&w, 480 - RWS__TICK_MS);
    cr_assert(w.open[file]);
    world_pass(&w, 2 * RWS__TICK_MS);
    cr_assert_not(w.open[file]);
    world_end(&w);
}

/* Its answer finds the file closed. */
Test(engine_progress, closes_with_a_question_in_flight)
{
    for (int cancelled = 0; cancelled < 2; cancelled++) {
        start(0);
        uint32_t file = open_blocked();
        w.ring->manual |= SCRIPT_BIT(SCRIPT_UNACKNOWLEDGED);
        world_pass(&w, LOOK_MS);
        rws_conn_abort(world_conn(&w, file));
        world_turns(&w, 3);
        cr_assert(w.ring->closed[file]);
        cr_assert_eq(w.shard->conns.streams.slots_used, 1, "its answer is in flight");
        complete(SCRIPT_UNACKNOWLEDGED, file, cancelled ? -ECANCELED : 100000);
        cr_assert_eq(w.shard->conns.streams.slots_used, 0);
        world_log_is(&w, "open0 close0:1006::us ", "aborted");
        cr_assert_eq(world_stats(&w).timeouts, 0);
        world_end(&w);
    }
}
