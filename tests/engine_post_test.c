/*
 * Posts to connections by id, on the scripted ring (ctest: scripted ring): an id names one
 * connection and never another one, also when the generations of a slot begin again; what is posted
 * is done, in order, or counted.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ringws/ringws.h"
#include "support/scripted_shard.h"
#include "support/test_allocator.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

RWS_MESSAGE_TEXT_DEFINE(constant, "constant");

static world w;

static void start(void)
{
    test_options options = world_server_options();
    world_start(&w, &options);
}

static uint64_t dropped(void)
{
    return world_stats(&w).posts_dropped;
}

/* The peer is gone without a word, and its slot is free. */
static void lose(uint32_t file)
{
    world_eof(&w, file);
    world_turns(&w, 4);
    cr_assert_null(world_conn(&w, file));
}

static uint64_t id_of(uint32_t file)
{
    return rws_conn_id(world_conn(&w, file));
}

static uint32_t slot_of(uint64_t id)
{
    return (uint32_t)(id >> 32) & 0xFFFFFF;
}

/* ---- calls ---- */

typedef struct call {
    uint32_t runs;
    rws_conn *conn; /* of the last one */
    uint64_t id;    /* of `conn` */
} call;

static void note_call(rws_conn *conn, void *arg)
{
    call *own = arg;
    own->runs++;
    own->conn = conn;
    own->id = conn != NULL ? rws_conn_id(conn) : 0;
}

/* ---- ids ---- */

Test(engine_post, an_id_is_never_zero_and_never_another_connections)
{
    /* The first generation of the slots: from the start, and about to begin again. */
    static const uint32_t generations[] = {0, UINT32_MAX - 20};
    for (size_t i = 0; i < COUNT(generations); i++) {
        uint64_t ids[200];
        start();
        for (uint32_t slot = 0; slot < 4; slot++)
            rws__streams_at(&w.shard->conns.streams, slot)->generation = generations[i];
        for (uint32_t n = 0; n < COUNT(ids); n += 2) {
            /* Two at a time, so that the slots change hands. */
            uint32_t first = world_open(&w), second = world_open(&w);
            ids[n] = id_of(first);
            ids[n + 1] = id_of(second);
            for (uint32_t at = n; at < n + 2; at++) {
                cr_assert_neq(ids[at], 0);
                cr_assert_neq((uint32_t)ids[at], 0, "a generation is 0");
                cr_assert_lt(slot_of(ids[at]), 4);
                for (uint32_t before = 0; before < at; before++)
                    cr_assert_neq(ids[at], ids[before], "%u and %u", before, at);
            }
            lose(first);
            lose(second);
        }
        world_end(&w);
    }
}

typedef enum post_kind { SEND, CLOSE, CALL, KINDS } post_kind;

static int post(post_kind kind, uint64_t id, call *noted)
{
    switch (kind) {
    case SEND: return rws_post_send(&w.runtime, id, constant);
    case CLOSE: return rws_post_close(&w.runtime, id, 4000, "posted");
    case CALL: return rws_post_call(&w.runtime, id, note_call, noted);
    case KINDS: break;
    }
    return -1;
}

/* Its slot has another connection now, or none. */
Test(engine_post, a_stale_id_reaches_nobody_and_is_counted)
{
    static const uint32_t generations[] = {0, 7, UINT32_MAX - 1, UINT32_MAX};
    for (size_t i = 0; i < COUNT(generations) * 2; i++) {
        bool reused = i % 2;
        start();
        rws__streams_at(&w.shard->conns.streams, 0)->generation = generations[i / 2];
        uint32_t old = world_open(&w), file = old;
        uint64_t stale = id_of(old);
        lose(old);
        if (reused) {
            file = world_open(&w);
            cr_assert_eq(slot_of(id_of(file)), slot_of(stale));
            cr_assert_neq(id_of(file), stale);
        }
        w.log.len = 0;
        call noted = {0};
        for (int kind = 0; kind < KINDS; kind++) {
            cr_assert_eq(post((post_kind)kind, stale, &noted), 0);
            world_turns(&w, 2);
            cr_assert_eq(dropped(), (uint64_t)kind + 1);
        }
        cr_assert_eq(noted.runs, 1);
        cr_assert_null(noted.conn);
        world_log_is(&w, "", "nobody was told");
        if (reused) cr_assert_str_eq(world_sent(&w, file), "");
        if (reused) cr_assert_eq(world_conn(&w, file)->state, RWS__CONN_OPEN);
        world_end(&w);
    }
}

/* Posted while it was there, and executed when another one has its slot. */
Test(engine_post, a_post_that_waits_does_not_reach_who_comes_next)
{
    for (int kind = 0; kind < KINDS; kind++) {
        call noted = {0};
        start();
        uint32_t old = world_open(&w);
        uint64_t id = id_of(old);
        w.ring->manual = SCRIPT_BIT(SCRIPT_READ_EVENT); /* the mailbox is not looked at */
        cr_assert_eq(post((post_kind)kind, id, &noted), 0);
        lose(old);
        uint32_t file = world_open(&w);
        cr_assert_eq(slot_of(id_of(file)), slot_of(id));
        w.log.len = 0;
        w.ring->manual = 0;
        world_turns(&w, 3);
        cr_assert_eq(dropped(), 1);
        cr_assert_eq(noted.runs, kind == CALL);
        cr_assert_null(noted.conn);
        cr_assert_str_eq(world_sent(&w, file), "");
        world_log_is(&w, "", "nobody was told");
        world_end(&w);
    }
}

Test(engine_post, ids_that_can_not_be_are_refused_or_dropped)
{
    call noted = {0};
    start();
    lose(world_open(&w)); /* slot 0, whose id is 1 */
    uint32_t gone = world_open(&w), file = world_open(&w);
    lose(gone);
    uint64_t id = id_of(file);
    cr_assert_eq(slot_of(id), 1);
    w.log.len = 0;
    const struct {
        uint64_t id;
        int status;
    } rows[] = {
        {0, RWS_E_ARGUMENT},
        {id | 1ull << 56, RWS_E_ARGUMENT}, /* there is one shard */
        {UINT64_MAX, RWS_E_ARGUMENT},
        {id + (1ull << 32), 0}, /* a slot that was never used */
        {id | 0xFFFFFFull << 32, 0},
        {id & ~0xFFFFFFFFull, 0}, /* the generation 0 */
        {id + 1, 0},
        {id - 1, 0},
        {1, 0},
    };
    uint64_t drops = 0;
    for (size_t i = 0; i < COUNT(rows) * KINDS; i++) {
        int expected = rows[i / KINDS].status, kind = (int)(i % KINDS);
        cr_expect_eq(post((post_kind)kind, rows[i / KINDS].id, &noted), expected, "row %zu", i);
        if (expected == 0) drops++;
        world_turns(&w, 2);
        cr_expect_eq(dropped(), drops, "row %zu", i);
    }
    cr_expect_eq(rws_post_send(&w.runtime, id, NULL), RWS_E_ARGUMENT);
    cr_expect_eq(rws_post_call(&w.runtime, id, NULL, &noted), RWS_E_ARGUMENT);
    world_turns(&w, 2);
    cr_expect_eq(dropped(), drops);
    cr_assert_str_eq(world_sent(&w, file), "");
    world_log_is(&w, "", "nobody was told");
    world_end(&w);
}

/* ---- what a connection takes ---- */

static void close_it(void)
{
    cr_assert_eq(rws_conn_close(world_conn(&w, 0), 1000, NULL), 0);
}

static void abort_it(void)
{
    rws_conn_abort(world_conn(&w, 0));
}

static void close_from_the_peer(void)
{
    world_frame(&w, 0, RWS_CLOSE, "\x03\xe8");
}

static void nothing(void) {}

Test(engine_post, a_connection_that_ends_takes_no_more)
{
    /* What is done before; which posts are dropped; whether a call finds the connection. */
    static const struct {
        void (*before)(void);
        bool drops[KINDS];
    } rows[] = {
        {nothing, {false, false, false}},
        {close_it, {true, true, false}},
        {abort_it, {true, true, true}},
        {close_from_the_peer, {true, false, false}}, /* on_close_frame has not answered */
    };
    for (size_t i = 0; i < COUNT(rows) * KINDS; i++) {
        test_options options = world_server_options();
        options.handle_close = true;
        world_start(&w, &options);
        call noted = {0};
        post_kind kind = (post_kind)(i % KINDS);
        uint32_t file = world_open(&w);
        uint64_t id = id_of(file);
        rws_conn *conn = world_conn(&w, file);
        rows[i / KINDS].before();
        cr_assert_eq(post(kind, id, &noted), 0);
        world_turns(&w, 3);
        bool drops = rows[i / KINDS].drops[kind];
        cr_expect_eq(dropped(), drops ? 1 : 0, "row %zu", i);
        cr_expect_eq(noted.runs, kind == CALL, "row %zu", i);
        cr_expect_eq(noted.conn, kind == CALL && !drops ? conn : NULL, "row %zu", i);
        if (!drops && kind == SEND) cr_expect_str_eq(world_sent(&w, file), "text:constant ");
        if (!drops && kind == CLOSE) cr_expect_str_eq(world_sent(&w, file), "close:4000:posted ");
        world_end(&w);
    }
}

/* Of a request that is not decided nobody knows the id; of a wrong one it is none. */
Test(engine_post, a_handshake_is_no_connection_yet)
{
    call noted = {0};
    start();
    uint32_t file = world_accept(&w);
    for (int kind = 0; kind < KINDS; kind++)
        cr_assert_eq(post((post_kind)kind, id_of(file), &noted), 0);
    world_turns(&w, 2);
    cr_assert_eq(dropped(), KINDS);
    cr_assert_null(noted.conn);
    cr_assert_eq(world_conn(&w, file)->state, RWS__CONN_UPGRADING);
    world_end(&w);
}

Test(engine_post, a_queue_that_is_full_drops_and_says_when_it_drained)
{
    test_options options = world_server_options();
    options.send_queue_bytes_max = 1024;
    options.high_watermark_bytes = 512;
    world_start(&w, &options);
    uint32_t file = world_open(&w);
    char text[600];
    memset(text, 'x', sizeof text);
    rws_message *message;
    cr_assert_eq(rws_message_create(&message, NULL, RWS_TEXT, text, sizeof text), 0);
    w.log.len = 0;
    for (int i = 0; i < 3; i++)
        cr_assert_eq(rws_post_send(&w.runtime, id_of(file), message), 0);
    rws_message_release(message);
    world_turns(&w, 4);
    cr_assert_eq(dropped(), 2);
    cr_assert_str_eq(world_sent(&w, file), "text:600 ");
    world_log_is(&w, "drain0 ", "the program hears of it");
    world_end(&w);
}

/* ---- messages ---- */

static rws_message *kept;
static uint32_t forward_to;

/* Keep what came, and pass it on while it is only borrowed. */
static void keep_and_forward(world *own, rws_conn *conn, const char *what)
{
    (void)conn;
    if (strcmp(what, "message") != 0) return;
    cr_assert_eq(rws_post_send(&own->runtime, id_of(forward_to), own->message), 0);
    kept = rws_message_retain(own->message);
    cr_assert_not_null(kept);
}

Test(engine_post, sends_every_kind_of_message_whole)
{
    static const size_t sizes[] = {1, 125, 126, 5000, 40000, 65536};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        start();
        forward_to = world_open(&w);
        uint32_t from = world_open(&w);
        w.hook = keep_and_forward;
        feed_bytes frame = world_long_frame(sizes[i]);
        world_feed_pieces(&w, from, &frame, 30000);
        world_turns(&w, 3);
        /* Held, after the connection that it came from is gone; created; constant. */
        lose(from);
        rws_message *created;
        cr_assert_eq(rws_message_create(&created, NULL, RWS_BINARY, rws_message_data(kept),
                                        rws_message_len(kept)),
                     0);
        cr_assert_eq(rws_post_send(&w.runtime, id_of(forward_to), kept), 0);
        cr_assert_eq(rws_post_send(&w.runtime, id_of(forward_to), created), 0);
        cr_assert_eq(rws_post_send(&w.runtime, id_of(forward_to), constant), 0);
        cr_assert_eq(rws_post_send(&w.runtime, id_of(forward_to), RWS_MESSAGE_TEXT("inline")), 0);
        /* The post holds it by itself. */
        rws_message_release(kept);
        rws_message_release(created);
        world_turns(&w, 6);
        const feed_bytes *wire = &w.ring->wire[forward_to];
        size_t at = 0;
        for (int copy = 0; copy < 3; copy++) {
            size_t header = sizes[i] < 126 ? 2 : sizes[i] < 65536 ? 4 : 10;
            cr_assert_geq(wire->len, at + header + sizes[i], "%zu bytes, %d", sizes[i], copy);
            cr_assert_eq(wire->data[at], 0x82);
            at += header;
            for (size_t n = 0; n < sizes[i]; n++)
                cr_assert_eq(wire->data[at + n], world_byte(n), "%zu bytes, %d", sizes[i], copy);
            at += sizes[i];
        }
        cr_assert_eq(wire->len - at, 10 + 8);
        cr_assert_eq(memcmp(wire->data + at,
                            "\x81\x08"
                            "constant\x81\x06"
                            "inline",
                            18),
                     0);
        cr_assert_eq(dropped(), 0);
        feed_bytes_free(&frame);
        world_end(&w);
    }
}

/* A message that nobody takes is given back all the same: world_end() sees what is left. */
Test(engine_post, gives_back_what_it_can_not_send)
{
    start();
    forward_to = world_open(&w);
    uint32_t from = world_open(&w);
    uint64_t gone = id_of(forward_to);
    w.hook = keep_and_forward;
    feed_bytes frame = world_long_frame(40000);
    world_feed_pieces(&w, from, &frame, 30000);
    lose(forward_to);
    uint64_t before = dropped();
    for (int i = 0; i < 3; i++)
        cr_assert_eq(rws_post_send(&w.runtime, gone, kept), 0);
    rws_message_release(kept);
    world_turns(&w, 3);
    cr_assert_eq(dropped(), before + 3);
    feed_bytes_free(&frame);
    world_end(&w);
}

/* ---- closing, and the order ---- */

Test(engine_post, checks_the_code_and_the_reason_where_it_is_called)
{
    static char long_reason[125];
    memset(long_reason, 'r', 124);
    static const struct {
        uint16_t code;
        const char *reason;
        int status;
    } rows[] = {
        {1000, NULL, 0},
        {1003, "", 0},
        {1004, NULL, -1},
        {1005, NULL, 0},
        {1005, "why", -1},
        {1006, NULL, -1},
        {1014, "bad gateway", 0},
        {1015, NULL, -1},
        {1016, NULL, -1},
        {2999, NULL, -1},
        {3000, NULL, 0},
        {4999, "the end", 0},
        {5000, NULL, -1},
        {0, NULL, -1},
        {999, NULL, -1},
        {UINT16_MAX, NULL, -1},
        {1000, "\xff", -1},
        {1000, long_reason, -1},
        {1000, long_reason + 1, 0},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        start();
        uint32_t file = world_open(&w);
        char *reason = rows[i].reason != NULL ? strdup(rows[i].reason) : NULL;
        int res = rws_post_close(&w.runtime, id_of(file), rows[i].code, reason);
        cr_expect_eq(res, rows[i].status == 0 ? 0 : RWS_E_ARGUMENT, "row %zu: %d", i, res);
        if (reason != NULL) memset(reason, 'z', strlen(reason)); /* it is copied */
        free(reason);
        world_turns(&w, 3);
        char wanted[160] = "";
        if (rows[i].status == 0 && rows[i].code == 1005)
            snprintf(wanted, sizeof wanted, "close: ");
        else if (rows[i].status == 0)
            snprintf(wanted, sizeof wanted, "close:%u:%s ", rows[i].code,
                     rows[i].reason != NULL ? rows[i].reason : "");
        cr_expect_str_eq(world_sent(&w, file), wanted, "row %zu: %s", i, world_sent(&w, file));
        cr_expect_eq(dropped(), 0);
        world_end(&w);
    }
}

Test(engine_post, closes_once)
{
    start();
    uint32_t file = world_open(&w);
    uint64_t id = id_of(file);
    cr_assert_eq(rws_post_close(&w.runtime, id, 4001, "one"), 0);
    cr_assert_eq(rws_post_close(&w.runtime, id, 4002, "two"), 0);
    world_turns(&w, 2);
    cr_assert_eq(rws_post_close(&w.runtime, id, 4003, "three"), 0);
    world_turns(&w, 2);
    cr_assert_str_eq(world_sent(&w, file), "close:4001:one ");
    cr_assert_eq(dropped(), 2);
    world_frame(&w, file, RWS_CLOSE,
                "\x0f\xa1"
                "one");
    world_turns(&w, 3);
    world_log_is(&w, "open0 close0:4001:one:us ", "closed");
    cr_assert_eq(rws_post_close(&w.runtime, id, 4004, NULL), 0);
    world_turns(&w, 2);
    cr_assert_eq(dropped(), 3);
    world_end(&w);
}

Test(engine_post, runs_in_the_order_of_the_calls)
{
    call noted = {0};
    start();
    uint32_t file = world_open(&w);
    uint64_t id = id_of(file);
    for (int i = 0; i < 3; i++) {
        char text[16];
        rws_message *message;
        snprintf(text, sizeof text, "m%d", i);
        cr_assert_eq(rws_message_create(&message, NULL, RWS_TEXT, text, strlen(text)), 0);
        cr_assert_eq(rws_post_send(&w.runtime, id, message), 0);
        rws_message_release(message);
    }
    cr_assert_eq(rws_post_call(&w.runtime, id, note_call, &noted), 0);
    cr_assert_eq(rws_post_close(&w.runtime, id, 1000, "end"), 0);
    cr_assert_eq(rws_post_send(&w.runtime, id, constant), 0);
    world_turns(&w, 3);
    cr_assert_str_eq(world_sent(&w, file), "text:m0 text:m1 text:m2 close:1000:end ");
    cr_assert_eq(noted.id, id);
    cr_assert_eq(dropped(), 1);
    world_end(&w);
}

/* ---- clients ---- */

Test(engine_post, works_on_a_clients_connection)
{
    call noted = {0};
    test_options options = {0};
    options.connections_max = 4;
    world_start_client(&w, &options);
    uint32_t file = world_open_client(&w);
    uint64_t id = id_of(file);
    cr_assert_neq(id, 0);
    cr_assert_eq(rws_post_send(&w.runtime, id, constant), 0);
    cr_assert_eq(rws_post_call(&w.runtime, id, note_call, &noted), 0);
    cr_assert_eq(rws_post_close(&w.runtime, id, 1000, "bye"), 0);
    world_turns(&w, 3);
    cr_assert_eq(w.ring->wire[file].data[1], 0x80 | 8, "it is masked");
    cr_assert_str_eq(world_sent(&w, file), "text:constant close:1000:bye ");
    cr_assert_eq(noted.conn, world_conn(&w, file));
    world_frame(&w, file, RWS_CLOSE,
                "\x03\xe8"
                "bye");
    world_eof(&w, file);
    world_turns(&w, 4);
    cr_assert_null(world_conn(&w, file));
    cr_assert_eq(post(CALL, id, &noted), 0);
    world_turns(&w, 2);
    cr_assert_eq(noted.runs, 2);
    cr_assert_null(noted.conn);
    cr_assert_eq(dropped(), 1);
    world_end(&w);
}

/* ---- the end, and memory ---- */

/* What a shard did not come to is cancelled when it ends; after that nothing is taken. */
Test(engine_post, the_end_of_a_shard_cancels_what_waits)
{
    call noted = {0};
    rws_message *message;
    start();
    uint64_t id = id_of(world_open(&w));
    cr_assert_eq(rws_message_create(&message, NULL, RWS_TEXT, "late", 4), 0);
    w.ring->manual = SCRIPT_BIT(SCRIPT_READ_EVENT); /* it never comes to them */
    cr_assert_eq(rws_post_send(&w.runtime, id, message), 0);
    cr_assert_eq(rws_post_close(&w.runtime, id, 1000, NULL), 0);
    cr_assert_eq(rws_post_call(&w.runtime, id, note_call, &noted), 0);
    rws_message_release(message);
    rws__loop_close_mailbox(&w.shard->loop);
    cr_assert_eq(noted.runs, 1);
    cr_assert_null(noted.conn, "the shard ends: no connection is given out");
    cr_assert_eq(dropped(), 3);
    for (int kind = 0; kind < KINDS; kind++)
        cr_assert_eq(post((post_kind)kind, id, &noted), RWS_E_STATE);
    cr_assert_eq(noted.runs, 1);
    cr_assert_eq(dropped(), 3);
    world_end(&w);
}

Test(engine_post, nothing_is_posted_without_memory)
{
    test_allocator memory = {0};
    rws_allocator allocator = TEST_ALLOCATOR(&memory);
    test_options options = world_server_options();
    options.allocator = &allocator;
    world_start(&w, &options);
    uint32_t file = world_open(&w);
    uint64_t id = id_of(file);
    for (int kind = 0; kind < KINDS; kind++) {
        call noted = {0};
        size_t live = memory.live;
        memory.fail_at = memory.calls + 1;
        cr_assert_eq(post((post_kind)kind, id, &noted), -ENOMEM);
        world_turns(&w, 2);
        cr_assert_eq(noted.runs, 0);
        cr_assert_eq(memory.live, live);
    }
    /* The mailbox grows: what does not fit is not posted either. */
    uint32_t posted = 0;
    w.ring->manual = SCRIPT_BIT(SCRIPT_READ_EVENT);
    memory.fail_at = 0;
    while (w.shard->loop.mailbox.count < w.shard->loop.mailbox.capacity) {
        cr_assert_eq(post(SEND, id, NULL), 0);
        posted++;
    }
    memory.fail_at = memory.calls + 2;
    cr_assert_eq(post(SEND, id, NULL), -ENOMEM);
    w.ring->manual = 0;
    world_turns(&w, 3);
    cr_assert_eq(w.ring->wire[file].len, posted * 10);
    cr_assert_eq(dropped(), 0);
    world_end(&w);
    cr_assert_eq(memory.live, 0);
}
