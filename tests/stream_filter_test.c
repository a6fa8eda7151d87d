/*
 * Filters on a bare stream (ctest: scripted ring): the chain, whatever way the bytes come and go.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/scripted_shard.h"
#include "support/scripted_stream.h"

TestSuite(stream_filter, .timeout = 120);

static const toy_maker server = {.maker = {toy_make}, .toys = 1};
static const toy_maker client = {.maker = {toy_make}, .client = true, .toys = 1};
static const toy_maker prefixed = {.maker = {toy_make}, .prefix = 1, .toys = 1};
static const toy_maker prefix_only = {.maker = {toy_make}, .prefix = 1};
static const toy_maker deep_server = {.maker = {toy_make}, .prefix = 2, .toys = 3};
static const toy_maker deep_client = {.maker = {toy_make}, .client = true, .prefix = 2, .toys = 3};

/* Bytes that differ by their place. */
static feed_bytes numbered(size_t len)
{
    feed_bytes bytes = {0};
    for (size_t i = 0; i < len; i++)
        feed_bytes_append(&bytes, &(uint8_t){(uint8_t)(i * 7 + i / 251)}, 1);
    return bytes;
}

static void expect_received(const line *l, const feed_bytes *plain, const char *how)
{
    cr_assert_eq(l->received.len, plain->len, "%s: %zu bytes of %zu", how, l->received.len,
                 plain->len);
    cr_assert(memcmp(l->received.data, plain->data, plain->len) == 0, "%s", how);
}

static void expect_sent(const line_peer *peer, const feed_bytes *plain)
{
    cr_assert_eq(peer->plain.len, plain->len, "%zu bytes of %zu", peer->plain.len, plain->len);
    cr_assert(plain->len == 0 || memcmp(peer->plain.data, plain->data, plain->len) == 0);
}

/* Records of all kinds of sizes, `total` plain bytes; and the end record. */
static void write_records(line_peer *peer, feed_bytes *wire, const feed_bytes *plain)
{
    static const size_t sizes[] = {5, 1, 300, 7, TOY_PAYLOAD_MAX, 8};
    size_t at = 0;
    for (size_t i = 0; at < plain->len; i++) {
        size_t len = sizes[i % (sizeof sizes / sizeof sizes[0])];
        if (len > plain->len - at) len = plain->len - at;
        line_peer_data(peer, wire, plain->data + at, len);
        at += len;
    }
    line_peer_end(wire);
}

/* ---- input, cut in every way ---- */

/* A client: the server's hello and its first records may come together. */
static void dialled_receives(size_t split, size_t step, const feed_bytes *plain)
{
    line l;
    line_peer peer = {0};
    feed_bytes wire = {0};
    char how[64];
    snprintf(how, sizeof how, "split at %zu, steps of %zu", split, step);
    line_start(&l, &client);
    line_peer_read(&peer, &l);
    cr_assert(peer.greeted);
    line_peer_hello(&peer, &wire);
    /* Its own half is known to it only now. */
    uint64_t client_half;
    memcpy(&client_half, l.ring->wire[LINE_FILE].data + TOY_HEADER, sizeof client_half);
    peer.in = toy_make_key(client_half, peer.half, true);
    peer.out = toy_make_key(client_half, peer.half, false);
    write_records(&peer, &wire, plain);
    if (split > wire.len) split = wire.len;
    line_feed(&l, wire.data, split, step);
    line_feed(&l, wire.data + split, wire.len - split, step);
    line_turns(&l, 2);
    expect_received(&l, plain, how);
    cr_assert_str_eq(line_log(&l), "up eof ", "%s: %s", how, line_log(&l));
    line_end(&l);
    line_peer_free(&peer);
    feed_bytes_free(&wire);
}

Test(stream_filter, records_are_opened_at_every_split)
{
    feed_bytes plain = numbered(330);
    size_t wire = TOY_HEADER + TOY_HELLO + plain.len + 6 * TOY_HEADER;
    for (size_t split = 0; split <= wire; split++)
        dialled_receives(split, SIZE_MAX, &plain);
    feed_bytes_free(&plain);
}

Test(stream_filter, records_are_opened_in_pieces_of_any_size)
{
    static const size_t steps[] = {1, 2, 3, 4, 5, 6, 13, 100, 4096, 16389, SIZE_MAX};
    feed_bytes plain = numbered(40000);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++)
        dialled_receives(0, steps[i], &plain);
    feed_bytes_free(&plain);
}

Test(stream_filter, a_servers_hello_answers_the_clients_at_every_split)
{
    for (size_t split = 0; split <= TOY_HEADER + TOY_HELLO; split++) {
        line l;
        line_peer peer = {.is_client = true};
        feed_bytes wire = {0};
        line_start(&l, &server);
        line_peer_hello(&peer, &wire);
        line_feed(&l, wire.data, split, SIZE_MAX);
        cr_assert_str_eq(line_log(&l), split == wire.len ? "up " : "");
        line_feed(&l, wire.data + split, wire.len - split, SIZE_MAX);
        line_turn(&l);
        line_peer_read(&peer, &l);
        cr_assert(peer.greeted);
        cr_assert_str_eq(line_log(&l), "up ");
        line_end(&l);
        feed_bytes_free(&wire);
    }
}

/* ---- stacked filters: two ends that speak to each other ---- */

/* Carry what one sent to the other. */
static bool carry(line *from, size_t *at, line *to, size_t step)
{
    feed_bytes *wire = &from->ring->wire[LINE_FILE];
    size_t len = wire->len - *at;
    if (len == 0) return false;
    line_feed(to, wire->data + *at, len, step);
    *at += len;
    return true;
}

static void exchange(line *a, line *b, size_t at[2], size_t step)
{
    for (bool moved = true; moved;) {
        line_turns(a, 2);
        line_turns(b, 2);
        moved = carry(a, &at[0], b, step);
        moved |= carry(b, &at[1], a, step);
    }
}

Test(stream_filter, filters_stack_and_leave)
{
    static const size_t steps[] = {1, 7, SIZE_MAX};
    feed_bytes plain = numbered(50000);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        line *a = malloc(sizeof *a), *b = malloc(sizeof *b);
        size_t at[2] = {0, 0};
        line_start(a, &deep_client);
        line_start(b, &deep_server);
        b->echo = b->finish_at_eof = true;
        a->finish_at_eof = true;
        exchange(a, b, at, steps[i]);
        cr_assert_str_eq(line_log(a), "up ");
        cr_assert_str_eq(line_log(b), "up ");
        line_send(a, plain.data, plain.len);
        exchange(a, b, at, steps[i]);
        expect_received(a, &plain, "the echo");
        cr_assert_eq(rws__stream_queued(a->stream), 0);
        /* The end goes through all of them, both ways. */
        rws__stream_finish(a->stream, RWS__FINISH_AWAIT);
        exchange(a, b, at, steps[i]);
        cr_assert_str_eq(line_log(b), "up eof released ");
        line_end(a);
        line_end(b);
        free(a);
        free(b);
    }
    feed_bytes_free(&plain);
}

Test(stream_filter, a_prefix_goes_before_the_handshake)
{
    feed_bytes plain = numbered(20);
    size_t prefix = sizeof TOY_PREFIX - 1;
    for (size_t split = 0; split <= prefix + TOY_HEADER + TOY_HELLO; split++) {
        line l;
        line_peer peer = {.is_client = true};
        feed_bytes wire = {0};
        line_start(&l, &prefixed);
        feed_bytes_append(&wire, TOY_PREFIX, prefix);
        line_peer_hello(&peer, &wire);
        line_feed(&l, wire.data, split, SIZE_MAX);
        line_feed(&l, wire.data + split, wire.len - split, SIZE_MAX);
        line_turn(&l);
        line_peer_read(&peer, &l);
        cr_assert_str_eq(line_log(&l), "up ");
        wire.len = 0;
        line_peer_data(&peer, &wire, plain.data, plain.len);
        line_feed(&l, wire.data, wire.len, SIZE_MAX);
        expect_received(&l, &plain, "behind a prefix");
        line_end(&l);
        feed_bytes_free(&wire);
    }
    feed_bytes_free(&plain);
}

typedef struct loan {
    rws__lender lender;
    int holders;
} loan;

static void release_loan(rws__lender *lender)
{
    ((loan *)lender)->holders--;
}

static void retain_loan(rws__lender *lender)
{
    ((loan *)lender)->holders++;
}

/* Whether a loan is taken, and what is sent then lies where it was lent. */
static bool lends(line *l, const feed_bytes *plain)
{
    static const rws__lender_ops ops = {.release = release_loan, .retain = retain_loan};
    loan own = {.lender = {.ops = &ops}, .holders = 1};
    if (!rws__stream_lend(l->stream, plain->data, plain->len, &own.lender)) return false;
    line_pump(l);
    script_op *op = script_find(l->ring, SCRIPT_SEND_ZERO_COPY, LINE_FILE);
    bool lent = op != NULL && op->memory == plain->data && op->len == plain->len;
    line_turns(l, 2);
    cr_expect_eq(own.holders, 0);
    return lent;
}

Test(stream_filter, direct_receives_and_loans_come_back_with_the_last_one_gone)
{
    feed_bytes plain = numbered(100000);
    line *l = malloc(sizeof *l);
    line_start(l, &prefix_only);
    cr_expect_not(rws__stream_is_bulk(l->stream, plain.len));
    cr_expect_not(lends(l, &plain));
    line_feed(l, TOY_PREFIX "more", sizeof TOY_PREFIX - 1 + 4, SIZE_MAX);
    cr_assert_str_eq(line_log(l), "up ");
    cr_assert_eq(l->received.len, 4);
    cr_expect_null(l->stream->filter);
    cr_expect_not(l->stream->wired);
    cr_expect_eq(l->streams.partial->slab.used_bytes, 0);
    cr_expect(lends(l, &plain));
    cr_expect(rws__stream_is_bulk(l->stream, plain.len));
    l->direct_bytes = plain.len;
    rws__stream_expect_bulk(l->stream);
    line_turns(l, 3);
    script_op *op = script_find_recv(l->ring, LINE_FILE);
    cr_assert(op != NULL && op->kind == SCRIPT_RECV && op->memory == l->direct);
    script_recv(l->ring, LINE_FILE, plain.data, plain.len, true);
    line_turn(l);
    cr_expect_eq(l->received.len, 4 + plain.len);
    line_end(l);

    /* With a toy filter there is neither, ever. */
    line_peer peer;
    line_greet(l, &peer, &server);
    cr_expect_not(rws__stream_is_bulk(l->stream, plain.len));
    cr_expect_not(lends(l, &plain));
    l->direct_bytes = plain.len;
    rws__stream_expect_bulk(l->stream);
    line_turns(l, 3);
    op = script_find_recv(l->ring, LINE_FILE);
    cr_expect(op != NULL && op->kind != SCRIPT_RECV);
    line_end(l);
    free(l);
    feed_bytes_free(&plain);
}

/* ---- pausing ---- */

Test(stream_filter, a_pause_takes_effect_in_the_middle_of_a_record)
{
    static const size_t pauses[] = {1, 4, 5, 6, 305, 306, 307, 314, 16000, 39999, 40000};
    feed_bytes plain = numbered(40000);
    for (size_t i = 0; i < sizeof pauses / sizeof pauses[0]; i++) {
        line l;
        line_peer peer;
        feed_bytes wire = {0};
        line_greet(&l, &peer, &server);
        write_records(&peer, &wire, &plain);
        l.pause_at = pauses[i];
        script_recv(l.ring, LINE_FILE, wire.data, wire.len, false);
        line_turns(&l, 3);
        /* Not a byte more; the end of stream waits behind the rest. */
        cr_assert_eq(l.received.len, pauses[i]);
        if (pauses[i] < plain.len) {
            cr_assert_not_null(l.stream->stalled);
            cr_assert_str_eq(line_log(&l), "up ");
        }
        rws__stream_resume(l.stream);
        line_turns(&l, 3);
        expect_received(&l, &plain, "after the pause");
        cr_assert_str_eq(line_log(&l), "up eof ");
        line_end(&l);
        feed_bytes_free(&wire);
    }
    feed_bytes_free(&plain);
}

/* ---- output ---- */

Test(stream_filter, what_is_sealed_is_bounded_and_counted_as_plain_bytes)
{
    feed_bytes plain = numbered(1000000);
    line l;
    line_peer peer;
    line_greet(&l, &peer, &server);
    l.ring->manual = SCRIPT_BIT(SCRIPT_SEND);
    l.stream->report_sent = true;
    line_send(&l, plain.data, plain.len);
    size_t before = plain.len, wire = 0;
    uint32_t taken = l.stream->taken;
    for (int i = 0; rws__stream_queued(l.stream) > 0; i++) {
        line_turn(&l);
        script_op *op = script_find(l.ring, SCRIPT_SEND, LINE_FILE);
        cr_assert_not_null(op, "at %zu", before);
        size_t part = op->len < 5000 ? op->len : i % 3 == 0 ? 5000 : op->len;
        cr_assert_leq(op->len, 65536 + TOY_RECORD_MAX);
        script_complete(l.ring, op, (int32_t)part, 0);
        line_turn(&l);
        wire += part;
        /* What was taken, but for the headers and what a record's share is not known of. */
        size_t queued = rws__stream_queued(l.stream), gone = plain.len - queued;
        cr_assert_lt(queued, before);
        cr_assert_leq(gone, wire);
        cr_assert_geq(gone + 128 + wire / 1000, wire, "%zu of %zu", gone, wire);
        before = queued;
    }
    cr_expect_eq(l.stream->taken - taken, wire, "progress is of wire bytes");
    cr_expect_eq(l.stream->sealed, 0);
    const char *log = line_log(&l);
    cr_expect_str_eq(log + strlen(log) - 7, "sent:0 ");
    line_peer_read(&peer, &l);
    expect_sent(&peer, &plain);
    line_end(&l);
    line_peer_free(&peer);
    feed_bytes_free(&plain);
}

Test(stream_filter, small_sends_are_quiet_and_blocked_ones_go_on)
{
    feed_bytes plain = numbered(500);
    line l;
    line_peer peer;
    line_greet(&l, &peer, &server);
    l.ring->manual = SCRIPT_BIT(SCRIPT_SEND_QUIET) | SCRIPT_BIT(SCRIPT_SEND);
    line_send(&l, plain.data, 200);
    line_pump(&l);
    script_op *op = script_find(l.ring, SCRIPT_SEND_QUIET, LINE_FILE);
    cr_assert_not_null(op);
    cr_expect_eq(rws__stream_queued(l.stream), 200);
    cr_expect_not(rws__streams_are_busy(&l.streams), "the turn may wait");
    script_complete(l.ring, op, 3, 0); /* in the middle of a header */
    line_send(&l, plain.data + 200, 300);
    line_turn(&l);
    cr_expect_geq(rws__stream_queued(l.stream), 300 + 196);
    /* The full socket takes a byte at a time. */
    for (int i = 0; i < 2000 && rws__stream_queued(l.stream) > 0; i++) {
        line_pump(&l);
        op = script_find(l.ring, SCRIPT_SEND, LINE_FILE);
        if (op == NULL) op = script_find(l.ring, SCRIPT_SEND_QUIET, LINE_FILE);
        if (op == NULL) continue;
        script_complete(l.ring, op, i % 5 == 4 ? -EAGAIN : 1, 0);
        line_turn(&l);
    }
    line_peer_read(&peer, &l);
    expect_sent(&peer, &plain);
    line_end(&l);
    line_peer_free(&peer);
    feed_bytes_free(&plain);
}

/* ---- the end ---- */

Test(stream_filter, the_end_record_goes_before_the_end)
{
    static const rws__finish ways[] = {RWS__FINISH_CLOSE, RWS__FINISH_LINGER, RWS__FINISH_AWAIT};
    static const size_t sizes[] = {0, 100, 200000};
    for (size_t i = 0; i < 9; i++) {
        feed_bytes plain = numbered(sizes[i / 3]);
        line l;
        line_peer peer;
        line_greet(&l, &peer, &server);
        if (plain.len > 0) line_send(&l, plain.data, plain.len);
        l.ring->manual = SCRIPT_BIT(SCRIPT_SEND);
        rws__stream_finish(l.stream, ways[i % 3]);
        for (int turns = 0; turns < 20; turns++) {
            line_turn(&l);
            script_op *op = script_find(l.ring, SCRIPT_SEND, LINE_FILE);
            if (op == NULL) continue;
            cr_expect_eq(l.ring->calls_of[SCRIPT_SHUTDOWN] + l.ring->calls_of[SCRIPT_CLOSE], 0);
            script_complete(l.ring, op, (int32_t)op->len, 0);
        }
        line_peer_read(&peer, &l);
        expect_sent(&peer, &plain);
        cr_expect(peer.ended, "way %zu", i % 3);
        line_turns(&l, 4);
        if (l.stream != NULL) line_eof(&l);
        line_turns(&l, 4);
        cr_expect_str_eq(line_log(&l), "up released ");
        line_end(&l);
        line_peer_free(&peer);
        feed_bytes_free(&plain);
    }
}

Test(stream_filter, an_end_without_an_end_record_is_an_error_after_the_rest)
{
    char expected[64];
    feed_bytes plain = numbered(3000);
    snprintf(expected, sizeof expected, "up ended:%d released ", RWS_E_CLOSED);
    for (int paused = 0; paused < 2; paused++) {
        line l;
        line_peer peer;
        feed_bytes wire = {0};
        line_greet(&l, &peer, &server);
        line_peer_data(&peer, &wire, plain.data, plain.len);
        if (paused) l.pause_at = 10;
        script_recv(l.ring, LINE_FILE, wire.data, wire.len, false);
        script_complete(l.ring, script_find_recv(l.ring, LINE_FILE), 0, 0);
        line_turns(&l, 3);
        if (paused) {
            cr_expect_str_eq(line_log(&l), "up ");
            rws__stream_resume(l.stream);
            line_turns(&l, 4);
        }
        line_turns(&l, 3);
        expect_received(&l, &plain, "before the error");
        cr_expect_str_eq(line_log(&l), expected);
        line_end(&l);
        feed_bytes_free(&wire);
    }
    feed_bytes_free(&plain);
}

Test(stream_filter, an_end_during_the_handshake_is_an_error)
{
    char expected[64];
    snprintf(expected, sizeof expected, "ended:%d released ", RWS_E_CLOSED);
    const toy_maker *makers[] = {&server, &client, &prefixed, &prefix_only};
    for (size_t i = 0; i < sizeof makers / sizeof makers[0]; i++) {
        line l;
        line_start(&l, makers[i]);
        line_eof(&l);
        line_turns(&l, 3);
        cr_expect_str_eq(line_log(&l), expected, "%zu: %s", i, line_log(&l));
        line_end(&l);
    }
}

/* ---- what is wrong ---- */

Test(stream_filter, garbage_ends_the_stream_with_a_cause)
{
    static const struct {
        const char *name;
        uint8_t bytes[8];
        size_t len;
    } rows[] = {
        {"an unknown type", {0x16, 0x03, 0x01, 0x02, 0x00}, 5},
        {"a wrong check", {TOY_DATA, 0, 1, 0, 0, 7}, 6},
        {"an empty record", {TOY_DATA, 0, 0, 0xb3, 0xda}, 5},
        {"a hello again", {TOY_CLIENT_HELLO, 0, 8, 0xb1, 0xd0}, 5},
    };
    char expected[64];
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (size_t step = 1; step <= 8; step += 7)
            for (int greeted = 0; greeted < 2; greeted++) {
                line l;
                line_peer peer;
                if (greeted)
                    line_greet(&l, &peer, &server);
                else
                    line_start(&l, &server);
                line_feed(&l, rows[i].bytes, rows[i].len, step);
                /* The start of a hello, where it is one, is no error before the hello is known. */
                line_feed(&l, rows[i].bytes, 8, step);
                line_turns(&l, 4);
                snprintf(expected, sizeof expected, "%sended:%d released ", greeted ? "up " : "",
                         RWS_E_ARGUMENT);
                if (!greeted && i == 3)
                    cr_expect_str_eq(line_log(&l), "up ");
                else
                    cr_expect_str_eq(line_log(&l), expected, "%s: %s", rows[i].name, line_log(&l));
                cr_expect_eq(l.received.len, 0);
                line_end(&l);
            }
}

Test(stream_filter, a_wrong_prefix_ends_the_stream)
{
    line l;
    line_start(&l, &prefixed);
    line_feed(&l, "TOYPROXX", 8, SIZE_MAX);
    line_turns(&l, 3);
    cr_expect_null(l.stream);
    line_end(&l);
}

Test(stream_filter, what_a_failing_filter_has_queued_is_still_sent)
{
    feed_bytes plain = numbered(1000);
    line l;
    line_peer peer;
    line_greet(&l, &peer, &server);
    l.ring->manual = SCRIPT_BIT(SCRIPT_SEND);
    l.stream->report_sent = true; /* so that it is no quiet send */
    line_send(&l, plain.data, plain.len);
    line_turn(&l); /* sealed and in flight */
    line_send(&l, plain.data, plain.len);
    line_feed(&l, "garbage", 7, SIZE_MAX);
    l.stream->report_sent = false;
    cr_assert_eq(l.stream->phase, RWS__STREAM_FLUSHING);
    l.ring->manual = 0;
    script_complete(l.ring, script_find(l.ring, SCRIPT_SEND, LINE_FILE), 100, 0);
    line_turns(&l, 4);
    line_peer_read(&peer, &l);
    expect_sent(&peer, &plain);
    cr_expect_not(peer.ended);
    cr_expect_eq(l.ring->calls_of[SCRIPT_SHUTDOWN], 1);
    line_eof(&l);
    line_turns(&l, 3);
    cr_expect_null(l.stream);
    line_end(&l);
    line_peer_free(&peer);
    feed_bytes_free(&plain);
}

/* ---- memory that runs out, submissions that are refused, rings that go away ---- */

/* A short life of both roles; `step` of it has been reached when it returns. */
static void live(line *l, line_peer *peer, const toy_maker *maker, const feed_bytes *plain,
                 int steps)
{
    feed_bytes wire = {0};
    *peer = (line_peer){.is_client = !maker->client};
    if (steps > 0) line_accept(l, maker);
    line_peer_hello(peer, &wire);
    if (maker->client) line_peer_read(peer, l);
    if (steps > 1 && l->stream != NULL) line_feed(l, wire.data, 9, SIZE_MAX);
    if (steps > 2 && l->stream != NULL) line_feed(l, wire.data + 9, wire.len - 9, SIZE_MAX);
    if (steps > 2) line_turns(l, 2);
    line_peer_read(peer, l);
    wire.len = 0;
    line_peer_data(peer, &wire, plain->data, plain->len);
    l->echo = true;
    l->pause_at = 100;
    if (steps > 3 && l->stream != NULL) line_feed(l, wire.data, 500, SIZE_MAX);
    if (steps > 4 && l->stream != NULL) line_feed(l, wire.data + 500, wire.len - 500, SIZE_MAX);
    if (steps > 5 && l->stream != NULL) rws__stream_resume(l->stream);
    line_turns(l, 2);
    if (steps > 6 && l->stream != NULL) rws__stream_finish(l->stream, RWS__FINISH_LINGER);
    line_turns(l, 2);
    feed_bytes_free(&wire);
}

Test(stream_filter, memory_that_runs_out_ends_it_cleanly)
{
    feed_bytes plain = numbered(2000);
    line *l = malloc(sizeof *l);
    for (int slab = 0; slab < 2; slab++)
        for (int role = 0; role < 2; role++)
            for (int steps = 0; steps < 7; steps++) {
                line_peer peer;
                const toy_maker *maker = role == 0 ? &server : &client;
                line_init(l);
                live(l, &peer, maker, &plain, steps);
                rws__slab *used_up = slab == 0 ? &l->streams.partial->slab : &l->streams.send_slab;
                world_use_up(used_up);
                if (steps == 0) line_accept(l, maker);
                feed_bytes wire = {0};
                line_peer_hello(&peer, &wire);
                if (steps >= 3) {
                    wire.len = 0;
                    line_peer_data(&peer, &wire, plain.data, plain.len);
                }
                uint8_t *out = l->stream != NULL && peer.greeted
                                   ? rws__stream_reserve(l->stream, 9, RWS__SHARE_MESSAGE)
                                   : NULL;
                if (out != NULL) {
                    memset(out, 1, 9);
                    rws__stream_commit(l->stream, 9);
                }
                /* From the middle of a record, or of none. */
                l->echo = false;
                if (l->stream != NULL) line_feed(l, wire.data, wire.len - 1, SIZE_MAX);
                if (l->stream != NULL) rws__stream_finish(l->stream, RWS__FINISH_LINGER);
                line_turns(l, 4);
                world_give_back(used_up);
                line_end(l);
                line_peer_free(&peer);
                feed_bytes_free(&wire);
            }
    free(l);
    feed_bytes_free(&plain);
}

Test(stream_filter, no_memory_for_the_filters_is_told)
{
    char expected[64];
    line l;
    snprintf(expected, sizeof expected, "ended:%d released ", -ENOMEM);
    line_init(&l);
    world_use_up(&l.streams.partial->slab);
    line_accept(&l, &server);
    line_turns(&l, 3);
    cr_expect_str_eq(line_log(&l), expected);
    world_give_back(&l.streams.partial->slab);
    line_end(&l);
}

Test(stream_filter, a_ring_that_goes_away_leaves_nothing)
{
    feed_bytes plain = numbered(2000);
    line *l = malloc(sizeof *l);
    for (int role = 0; role < 2; role++)
        for (int steps = 0; steps < 8; steps++) {
            line_peer peer;
            line_init(l);
            live(l, &peer, role == 0 ? &server : &client, &plain, steps);
            line_abandon(l);
            line_peer_free(&peer);
        }
    free(l);
    feed_bytes_free(&plain);
}

Test(stream_filter, any_submission_may_be_refused)
{
    feed_bytes plain = numbered(2000);
    line *l = malloc(sizeof *l);
    for (int role = 0; role < 2; role++)
        for (uint64_t call = 1; call < 24; call++) {
            line_peer peer;
            line_init(l);
            l->ring->refuse_call = call;
            live(l, &peer, role == 0 ? &server : &client, &plain, 7);
            line_turns(l, 4);
            line_peer_read(&peer, l);
            expect_received(l, &plain, "after a refusal");
            expect_sent(&peer, &plain);
            cr_expect(peer.ended, "call %u", (unsigned)call);
            line_end(l);
            line_peer_free(&peer);
        }
    free(l);
    feed_bytes_free(&plain);
}

/* ---- under a connection ---- */

/* A server with filters: before its first connection. */
static void start_filtered(world *w, const toy_maker *maker)
{
    test_options options = world_server_options();
    options.handshake_timeout_ms = 3000;
    options.message_bytes_max = 1u << 20;
    world_start(w, &options);
    w->runtime.listeners[0].config.filters = &maker->maker;
}

Test(stream_filter, the_handshakes_deadline_is_for_the_filters_too)
{
    world w;
    start_filtered(&w, &server);
    uint32_t file = world_accept(&w);
    world_feed(&w, file, "\xC1", 1);
    world_advance(&w, 2000);
    cr_expect_not(w.ring->closed[file]);
    world_advance(&w, 1500);
    cr_expect(w.ring->closed[file]);
    cr_expect_eq(w.shard->loop.counters.timeouts, 1);
    world_log_is(&w, "", "nothing was open");
    world_end(&w);
}

Test(stream_filter, a_drain_waits_for_no_handshake)
{
    world w;
    start_filtered(&w, &prefixed);
    world_accept(&w);
    world_end(&w);
}

Test(stream_filter, a_connection_behind_a_prefix_is_like_any_other)
{
    world w;
    start_filtered(&w, &prefix_only);
    uint32_t file = world_accept(&w);
    world_feed(&w, file, TOY_PREFIX, sizeof TOY_PREFIX - 1);
    world_feed(&w, file, world_request, strlen(world_request));
    world_turns(&w, 2);
    char log[32];
    snprintf(log, sizeof log, "open%u ", file);
    world_log_is(&w, log, "behind a prefix");
    /* A large message is received into its own memory. */
    feed_bytes frame = world_long_frame(200000);
    world_feed_pieces(&w, file, &frame, 70000);
    cr_expect_gt(w.ring->calls_of[SCRIPT_RECV], 0);
    cr_expect_not_null(strstr(world_log(&w), ":200000:"));
    feed_bytes_free(&frame);
    world_end(&w);
}
