/*
 * The end of a stream whose filter has an end record, as TLS has (ctest: scripted ring): both ends
 * say that nothing follows, in either order.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "support/scripted_stream.h"

TestSuite(stream_filter_end, .timeout = 60);

static const toy_maker server = {.maker = {toy_make}, .toys = 1};
static const rws__finish ways[] = {RWS__FINISH_CLOSE, RWS__FINISH_LINGER, RWS__FINISH_AWAIT};

#define PLAIN_BYTES 6000u /* more than what fits the first window of a connection */

static void expect_sent(line_peer *peer, line *l, const uint8_t *plain)
{
    line_peer_read(peer, l);
    cr_assert_eq(peer->plain.len, PLAIN_BYTES);
    cr_assert(memcmp(peer->plain.data, plain, PLAIN_BYTES) == 0);
    cr_assert(peer->ended);
}

static bool is_closed(const line *l)
{
    return l->ring->calls_of[SCRIPT_CLOSE] > 0;
}

/* Ours first: what the peer still sends, and its end record, must not meet a closed socket. */
Test(stream_filter_end, the_peers_end_record_or_end_of_stream_is_waited_for)
{
    static const size_t steps[] = {1, 7, SIZE_MAX};
    uint8_t plain[PLAIN_BYTES] = "the answer";
    for (size_t i = 0; i < 18; i++) {
        bool by_record = i / 9 == 0;
        line l;
        line_peer peer;
        feed_bytes wire = {0};
        line_greet(&l, &peer, &server);
        line_peer_data(&peer, &wire, plain, 400);
        /* In the middle of a record. */
        line_feed(&l, wire.data, 100, SIZE_MAX);
        line_send(&l, plain, sizeof plain);
        rws__stream_finish(l.stream, ways[i % 3]);
        line_turns(&l, 4);
        expect_sent(&peer, &l, plain);
        cr_assert_not(is_closed(&l), "way %zu", i % 3);
        line_feed(&l, wire.data + 100, wire.len - 100, steps[i / 3 % 3]);
        line_turns(&l, 2);
        cr_assert_not(is_closed(&l));
        wire.len = 0;
        line_peer_end(&wire);
        if (by_record)
            line_feed(&l, wire.data, wire.len, steps[i / 3 % 3]);
        else
            line_eof(&l);
        line_turns(&l, 4);
        cr_expect_str_eq(line_log(&l), "up released ", "%zu: %s", i, line_log(&l));
        cr_expect_eq(l.received.len, 0);
        line_end(&l);
        line_peer_free(&peer);
        feed_bytes_free(&wire);
    }
}

/* The peer's first: there is nothing to wait for. */
Test(stream_filter_end, the_answer_to_the_peers_end_record_is_the_last_thing)
{
    uint8_t plain[PLAIN_BYTES] = "the answer";
    for (size_t i = 0; i < 3; i++) {
        line l;
        line_peer peer;
        feed_bytes wire = {0};
        line_greet(&l, &peer, &server);
        line_send(&l, plain, sizeof plain);
        line_turns(&l, 2);
        line_peer_end(&wire);
        line_feed(&l, wire.data, wire.len, SIZE_MAX);
        line_turns(&l, 2);
        cr_assert_str_eq(line_log(&l), "up eof ");
        rws__stream_finish(l.stream, ways[i]);
        line_turns(&l, 4);
        expect_sent(&peer, &l, plain);
        cr_expect_str_eq(line_log(&l), "up eof released ", "way %zu", i);
        line_end(&l);
        line_peer_free(&peer);
        feed_bytes_free(&wire);
    }
}

Test(stream_filter_end, garbage_behind_our_end_record_is_discarded)
{
    line l;
    line_peer peer;
    line_greet(&l, &peer, &server);
    rws__stream_finish(l.stream, RWS__FINISH_CLOSE);
    line_turns(&l, 4);
    line_feed(&l, "garbage and more", 16, 8);
    cr_expect_not(is_closed(&l));
    line_eof(&l);
    line_turns(&l, 3);
    cr_expect_str_eq(line_log(&l), "up released ");
    line_end(&l);
    line_peer_free(&peer);
}

/* A handshake that is not over has no end record, and waits for none. */
Test(stream_filter_end, the_end_of_a_handshake_that_is_not_over_waits_for_nothing)
{
    line l;
    line_start(&l, &server);
    rws__stream_finish(l.stream, RWS__FINISH_CLOSE);
    line_turns(&l, 4);
    cr_expect_null(l.stream);
    line_end(&l);
}
