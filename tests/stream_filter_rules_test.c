/*
 * What filter.h asks of filters and of who puts them on a stream, and what it leaves to them
 * (ctest: scripted ring): filters of this file, which do one thing each.
 */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "support/scripted_shard.h"
#include "support/scripted_stream.h"

TestSuite(stream_filter_rules, .timeout = 60);

/* ---- a filter that passes everything on; the functions that a test is about are replaced ---- */

static rws__filter_status pass_start(rws__filter *filter)
{
    (void)filter;
    return RWS__FILTER_OPEN;
}

static rws__filter_status pass_open(rws__filter *filter, rws__filter_input *input)
{
    rws__filter_pass_on(filter, input->data, input->len);
    input->data += input->len;
    input->len = 0;
    return RWS__FILTER_OPEN;
}

static rws__filter_status pass_seal(rws__filter *filter, const uint8_t *data, size_t len)
{
    uint8_t *out = rws__filter_reserve(filter, len);
    if (out == NULL) return rws__filter_fail_no_memory(filter);
    memcpy(out, data, len);
    return rws__filter_commit(filter, len);
}

static rws__filter_status pass_nothing(rws__filter *filter)
{
    (void)filter;
    return RWS__FILTER_OPEN;
}

static void pass_free(rws__filter *filter)
{
    memset(filter, 0xFF, sizeof *filter);
    free(filter);
}

#define PASS .name = "pass", .start = pass_start, .on_eof = pass_nothing, .free = pass_free

static const rws__filter_type pass_type = {PASS, .open = pass_open, .seal = pass_seal,
                                           .end = pass_nothing};

static int push(rws__stream *stream, const rws__filter_type *type)
{
    rws__filter *filter = calloc(1, sizeof *filter);
    cr_assert_not_null(filter);
    filter->type = type;
    return rws__stream_push_filter(stream, filter);
}

/* ---- putting filters on a stream ---- */

static void expect_abort(void)
{
    const struct rlimit none = {0, 0};
    (void)setrlimit(RLIMIT_CORE, &none);
}

#ifndef RINGWS_COVERAGE /* asserts are assumed there */
Test(stream_filter_rules, none_is_put_on_a_stream_that_is_up, .signal = SIGABRT)
{
    line l;
    expect_abort();
    line_start(&l, NULL);
    l.ring->manual = SCRIPT_BIT(SCRIPT_SEND) | SCRIPT_BIT(SCRIPT_SEND_QUIET);
    line_send(&l, "plain", 5);
    line_pump(&l);
    push(l.stream, &pass_type);
}
#endif

static char dialled[64]; /* for whom filters were made */

static int make_for(const rws__filter_maker *maker, rws__stream *stream,
                    const rws__filter_target *target)
{
    (void)maker;
    if (target == NULL)
        snprintf(dialled, sizeof dialled, "accepted");
    else
        snprintf(dialled, sizeof dialled, "%.*s %u", (int)target->host.len, target->host.data,
                 target->port);
    return push(stream, &pass_type);
}

static const toy_maker for_whom = {.maker = {make_for}};

Test(stream_filter_rules, a_maker_is_told_who_is_dialled)
{
    static const struct {
        const char *url, *expected;
    } rows[] = {
        {"ws://127.0.0.1:81/path", "127.0.0.1 81"},
        {"ws://127.0.0.1/", "127.0.0.1 80"},
        {"ws://[::1]:8080", "::1 8080"},
        {"ws+unix:///tmp/socket", "localhost 0"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        world w;
        test_options options = world_server_options();
        world_start_client(&w, &options);
        w.runtime.dial_filters = &for_whom.maker;
        dialled[0] = '\0';
        cr_assert_eq(world_dial(&w, rows[i].url, NULL, NULL), 0);
        world_turns(&w, 4);
        cr_expect_str_eq(dialled, rows[i].expected);
        world_end(&w);
    }
}

Test(stream_filter_rules, a_maker_is_told_that_it_was_accepted)
{
    line l;
    line_start(&l, &for_whom);
    cr_expect_str_eq(dialled, "accepted");
    line_end(&l);
}

/* ---- input ---- */

/* Passes on a byte at a time, for as long as more is wanted. */
static rws__filter_status byte_open(rws__filter *filter, rws__filter_input *input)
{
    bool more = true;
    while (more && input->len > 0) {
        more = rws__filter_pass_on(filter, input->data, 1);
        input->data++;
        input->len--;
    }
    return RWS__FILTER_OPEN;
}

static const rws__filter_type byte_type = {PASS, .open = byte_open, .seal = pass_seal,
                                           .end = pass_nothing};

static int make_bytes(const rws__filter_maker *maker, rws__stream *stream,
                      const rws__filter_target *target)
{
    (void)target;
    (void)maker;
    int res = push(stream, &byte_type);
    return res == 0 ? push(stream, &byte_type) : res;
}

static const toy_maker bytes_filter = {.maker = {make_bytes}};

Test(stream_filter_rules, a_filter_may_stop_when_no_more_is_wanted)
{
    static const rws__finish ways[] = {RWS__FINISH_CUT, RWS__FINISH_CLOSE, RWS__FINISH_LINGER};
    for (size_t i = 0; i < 3; i++) {
        line l;
        line_start(&l, &bytes_filter);
        l.finish_at = 3;
        l.finish_as = ways[i];
        line_feed(&l, "abcdefgh", 8, SIZE_MAX);
        line_turns(&l, 3);
        cr_expect_eq(l.received.len, 3);
        line_end(&l);
    }
}

/* Passes half on, and takes itself out. */
static rws__filter_status half_open(rws__filter *filter, rws__filter_input *input)
{
    size_t half = input->len / 2;
    rws__filter_pass_on(filter, input->data, half);
    input->data += half;
    input->len -= half;
    return RWS__FILTER_DONE;
}

static rws__filter_status leaving_open(rws__filter *filter, rws__filter_input *input)
{
    (void)filter;
    (void)input;
    return RWS__FILTER_DONE;
}

static const rws__filter_type leaving_types[] = {
    {PASS, .open = half_open, .seal = pass_seal, .end = pass_nothing},
    {PASS, .open = leaving_open, .seal = pass_seal, .end = pass_nothing}};

static int make_leaving(const rws__filter_maker *maker, rws__stream *stream,
                        const rws__filter_target *target)
{
    (void)maker;
    (void)target;
    int res = push(stream, &leaving_types[0]);
    return res == 0 ? push(stream, &leaving_types[1]) : res;
}

static const toy_maker leaving = {.maker = {make_leaving}};

Test(stream_filter_rules, a_filter_may_leave_while_the_one_below_passes_on_and_leaves)
{
    line l;
    line_start(&l, &leaving);
    line_feed(&l, "abcdefgh", 8, SIZE_MAX);
    line_turns(&l, 2);
    cr_expect_eq(l.received.len, 8);
    cr_expect_not(l.stream->wired);
    line_end(&l);
}

/* ---- output ---- */

static size_t largest; /* that was sealed at once */

static rws__filter_status noting_seal(rws__filter *filter, const uint8_t *data, size_t len)
{
    if (len > largest) largest = len;
    return pass_seal(filter, data, len);
}

static const rws__filter_type noting_type = {PASS, .open = pass_open, .seal = noting_seal,
                                             .end = pass_nothing};

/* What is above it are toys, the lower of which make records of the records of the upper. */
static int make_noting(const rws__filter_maker *maker, rws__stream *stream,
                       const rws__filter_target *target)
{
    (void)target;
    int res = push(stream, &noting_type);
    return res == 0 ? toy_make(maker, stream, target) : res;
}

static const toy_maker noting = {.maker = {make_noting}, .toys = 1};
static const toy_maker noting_deep = {.maker = {make_noting}, .toys = 2};
static const toy_maker deep_client = {.maker = {toy_make}, .client = true, .toys = 2};

Test(stream_filter_rules, no_more_than_16_kib_is_sealed_at_once)
{
    size_t len = 100000;
    uint8_t *plain = calloc(1, len);
    line l;
    line_peer peer;
    largest = 0;
    line_greet(&l, &peer, &noting);
    line_send(&l, plain, len);
    line_turns(&l, 6);
    line_peer_read(&peer, &l);
    cr_expect_eq(peer.plain.len, len);
    cr_expect_eq(largest, 16384);
    line_end(&l);
    line_peer_free(&peer);
    free(plain);
}

/* Carry what one sent to the other. */
static void carry(line *from, size_t *at, line *to)
{
    line_turns(from, 2);
    feed_bytes *wire = &from->ring->wire[LINE_FILE];
    line_feed(to, wire->data + *at, wire->len - *at, SIZE_MAX);
    *at = wire->len;
}

Test(stream_filter_rules, no_more_than_16_kib_is_sealed_at_once_by_stacked_filters)
{
    size_t len = 100000, at[2] = {0, 0};
    uint8_t *plain = calloc(1, len);
    line *a = malloc(sizeof *a), *b = malloc(sizeof *b);
    largest = 0;
    line_start(a, &deep_client);
    line_start(b, &noting_deep);
    for (int rounds = 0; rounds < 4; rounds++) {
        carry(a, &at[0], b);
        carry(b, &at[1], a);
    }
    cr_assert_str_eq(line_log(b), "up ");
    line_send(b, plain, len);
    line_turns(b, 6);
    carry(b, &at[1], a);
    cr_expect_eq(a->received.len, len);
    cr_expect_eq(largest, 16384);
    line_end(a);
    line_end(b);
    free(a);
    free(b);
    free(plain);
}

/* ---- when its functions are called ---- */

/* Writes a letter for each call of its functions: capitals are the upper one's. Its handshake is
 * one byte from the peer; a 'p' that comes later is answered with an 'a'. */
typedef struct watching {
    rws__filter filter;
    bool upper, opening, passing;
} watching;

static char calls[256];

static void note(rws__filter *filter, char letter)
{
    size_t len = strlen(calls);
    bool upper = ((watching *)filter)->upper;
    cr_assert_lt(len + 1, sizeof calls);
    calls[len] = (char)(upper ? letter - 'a' + 'A' : letter);
    calls[len + 1] = '\0';
}

static rws__filter_status watching_start(rws__filter *filter)
{
    note(filter, 's');
    return RWS__FILTER_HANDSHAKING;
}

static rws__filter_status watching_open(rws__filter *filter, rws__filter_input *input)
{
    watching *own = (watching *)filter;
    note(filter, 'o');
    cr_assert_gt(input->len, 0);
    if (filter->status == RWS__FILTER_HANDSHAKING) {
        input->data++;
        input->len--;
        return RWS__FILTER_OPEN;
    }
    own->opening = true;
    if (own->upper && *input->data == 'p') {
        uint8_t *out = rws__filter_reserve(filter, 1);
        cr_assert_not_null(out);
        *out = 'a';
        cr_assert_eq(rws__filter_commit(filter, 1), RWS__FILTER_OPEN);
    }
    own->passing = true;
    rws__filter_pass_on(filter, input->data, input->len);
    own->opening = own->passing = false;
    input->data += input->len;
    input->len = 0;
    return RWS__FILTER_OPEN;
}

static rws__filter_status watching_seal(rws__filter *filter, const uint8_t *data, size_t len)
{
    watching *own = (watching *)filter;
    note(filter, 'w');
    cr_assert_gt(len, 0);
    cr_assert(!own->opening || own->passing);
    return pass_seal(filter, data, len);
}

static rws__filter_status watching_end(rws__filter *filter)
{
    note(filter, 'e');
    cr_assert_not(((watching *)filter)->opening);
    cr_assert_neq(filter->status, RWS__FILTER_HANDSHAKING);
    return RWS__FILTER_OPEN;
}

static rws__filter_status watching_on_eof(rws__filter *filter)
{
    note(filter, 'f');
    return RWS__FILTER_OPEN;
}

static void watching_free(rws__filter *filter)
{
    note(filter, 'x');
    cr_assert_not(((watching *)filter)->opening);
    free(filter);
}

static const rws__filter_type watching_type = {
    .name = "watching",
    .start = watching_start,
    .open = watching_open,
    .seal = watching_seal,
    .end = watching_end,
    .on_eof = watching_on_eof,
    .free = watching_free,
};

static int make_watching(const rws__filter_maker *maker, rws__stream *stream,
                         const rws__filter_target *target)
{
    (void)maker;
    (void)target;
    for (int upper = 0; upper < 2; upper++) {
        watching *own = calloc(1, sizeof *own);
        cr_assert_not_null(own);
        own->filter.type = &watching_type;
        own->upper = upper;
        cr_assert_eq(rws__stream_push_filter(stream, &own->filter), 0);
    }
    return 0;
}

static const toy_maker watched = {.maker = {make_watching}};

Test(stream_filter_rules, its_functions_are_called_in_the_order_that_is_promised)
{
    static const struct {
        const char *name, *input; /* a byte after the other */
        bool eof, finish;
        const char *expected;
    } rows[] = {
        {"an end before the upper one starts", "", true, false, "sFfXx"},
        {"an end in the upper one's handshake", "h", true, false, "soSFfXx"},
        {"it is finished in the first handshake", "", false, true, "sXx"},
        {"it is finished in the second handshake", "h", false, true, "soSeXx"},
        {"it is finished", "hh", false, true, "soSoOEeXx"},
        {"it is finished, and then the peer ends", "hh", true, true, "soSoOEeXx"},
        {"the peer ends", "hh", true, false, "soSoOFfXx"},
        {"an answer from within", "hhp", false, false, "soSoOoOwXx"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        line l;
        calls[0] = '\0';
        line_start(&l, &watched);
        line_feed(&l, rows[i].input, strlen(rows[i].input), 1);
        if (rows[i].finish) {
            rws__stream_finish(l.stream, RWS__FINISH_LINGER);
            line_turns(&l, 3);
        }
        if (rows[i].eof) line_eof(&l);
        line_end(&l);
        cr_expect_str_eq(calls, rows[i].expected, "%s: %s", rows[i].name, calls);
    }
}

/* ---- failing ---- */

static char logged[1024]; /* all lines, a newline after each */

static void keep_line(rws_log_level level, const char *text, void *user)
{
    (void)user;
    cr_expect_eq(level, RWS_LOG_INFO);
    strncat(logged, text, sizeof logged - strlen(logged) - 2);
    strcat(logged, "\n");
}

static const rws__env logging = {.log = keep_line};

/* With a sentence that is gone when it returns, and a second one. */
static rws__filter_status failing_open(rws__filter *filter, rws__filter_input *input)
{
    char text[300];
    memset(text, 'x', sizeof text);
    memcpy(text, "it said ", 8);
    if (input->len < 200) text[8 + input->len] = '\0';
    memcpy(text + 8, input->data, input->len < 200 ? input->len : 200);
    text[sizeof text - 1] = '\0';
    (void)rws__filter_fail(filter, RWS_E_ARGUMENT, RWS_CLOSED_BY_PEER, text);
    memset(text, 'y', sizeof text - 1);
    return rws__filter_fail(filter, RWS_E_INTERNAL, RWS_CLOSED_BY_US, text);
}

static rws__filter_status wait_for_more(rws__filter *filter)
{
    (void)filter;
    return RWS__FILTER_HANDSHAKING;
}

static const rws__filter_type failing_types[] = {
    {PASS, .open = failing_open, .seal = pass_seal, .end = pass_nothing},
    {.name = "handshake",
     .start = wait_for_more,
     .open = failing_open,
     .seal = pass_seal,
     .end = pass_nothing,
     .on_eof = pass_nothing,
     .free = pass_free},
};

static int make_failing(const rws__filter_maker *maker, rws__stream *stream,
                        const rws__filter_target *target)
{
    (void)target;
    return push(stream, &failing_types[((const toy_maker *)maker)->client]);
}

static const toy_maker failing[] = {{.maker = {make_failing}},
                                    {.maker = {make_failing}, .client = true}};

Test(stream_filter_rules, why_a_filter_failed_is_kept_and_logged)
{
    static const char *const names[] = {"pass", "handshake"};
    for (int i = 0; i < 2; i++) {
        line l;
        char expected[256];
        logged[0] = '\0';
        line_init(&l);
        l.loop.env = &logging;
        line_accept(&l, &failing[i]);
        line_feed(&l, "no\n", 3, SIZE_MAX);
        line_turns(&l, 3);
        snprintf(expected, sizeof expected, "a connection ended, by its filter '%s': it said no?\n",
                 names[i]);
        cr_expect_str_eq(logged, expected);
        cr_expect_str_eq(l.ended_text, "it said no?");
        line_end(&l);
    }
}

Test(stream_filter_rules, of_a_long_sentence_the_start_is_kept)
{
    char input[256];
    line l;
    line_start(&l, &failing[0]);
    memset(input, 'n', sizeof input);
    line_feed(&l, input, sizeof input, SIZE_MAX);
    line_turns(&l, 3);
    cr_expect_eq(strlen(l.ended_text), 127);
    line_end(&l);
}

/* While sealing: the bytes "no", and its end record. */
static rws__filter_status failing_seal(rws__filter *filter, const uint8_t *data, size_t len)
{
    if (len < 2 || memcmp(data, "no", 2) != 0) return pass_seal(filter, data, len);
    return rws__filter_fail(filter, RWS_E_INTERNAL, RWS_CLOSED_BY_US, "it can't seal\x7f");
}

static rws__filter_status failing_end(rws__filter *filter)
{
    return rws__filter_fail(filter, RWS_E_INTERNAL, RWS_CLOSED_BY_US, "it can't end");
}

static const rws__filter_type sealing_types[] = {
    {PASS, .open = pass_open, .seal = failing_seal, .end = pass_nothing},
    {PASS, .open = pass_open, .seal = pass_seal, .end = failing_end},
};

/* The failing one, with as many above it that pass all as there are toys. */
static int make_sealing(const rws__filter_maker *maker, rws__stream *stream,
                        const rws__filter_target *target)
{
    const toy_maker *own = (const toy_maker *)maker;
    (void)target;
    int res = push(stream, &sealing_types[own->client]);
    for (uint32_t i = 0; i < own->toys && res == 0; i++)
        res = push(stream, &pass_type);
    return res;
}

Test(stream_filter_rules, one_that_fails_while_it_seals_ends_the_stream)
{
    for (uint8_t above = 0; above < 3; above++) {
        const toy_maker maker = {.maker = {make_sealing}, .toys = above};
        line l;
        logged[0] = '\0';
        line_init(&l);
        l.loop.env = &logging;
        line_accept(&l, &maker);
        line_send(&l, "yes", 3);
        line_turns(&l, 3);
        cr_assert_eq(l.ring->wire[LINE_FILE].len, 3, "%u above", above);
        line_send(&l, "no, and nothing of this", 23);
        line_turns(&l, 3);
        cr_expect_str_eq(l.ended_text, "it can't seal?", "%u above: %s", above, l.ended_text);
        cr_expect_eq(l.ring->wire[LINE_FILE].len, 3, "%u above: plain bytes were sent", above);
        cr_expect_str_eq(logged, "a connection ended, by its filter 'pass': it can't seal?\n");
        line_end(&l);
    }
}

Test(stream_filter_rules, one_that_fails_at_its_end_ends_the_stream_all_the_same)
{
    for (uint8_t above = 0; above < 3; above++) {
        const toy_maker maker = {.maker = {make_sealing}, .client = true, .toys = above};
        line l;
        line_start(&l, &maker);
        line_send(&l, "last words", 10);
        rws__stream_finish(l.stream, RWS__FINISH_CLOSE);
        line_turns(&l, 4);
        cr_expect_eq(l.ring->wire[LINE_FILE].len, 10, "%u above: what was queued is sent", above);
        line_end(&l);
    }
}

Test(stream_filter_rules, an_end_in_a_handshake_is_logged)
{
    line l;
    logged[0] = '\0';
    line_init(&l);
    l.loop.env = &logging;
    line_accept(&l, &failing[1]);
    line_eof(&l);
    line_turns(&l, 3);
    cr_expect_str_eq(logged, "a connection ended, by its filter 'handshake': the peer closed the "
                             "connection before its handshake ended\n");
    line_end(&l);
}

/* ---- what is asserted after every turn, in builds that do so ---- */

#ifdef RINGWS_CHECK_INVARIANTS

Test(stream_filter_rules, a_chain_without_its_mark_is_noticed, .signal = SIGABRT)
{
    line l;
    expect_abort();
    line_start(&l, &bytes_filter);
    l.stream->wired = false;
    l.stream->filter = NULL;
    line_turn(&l);
}

Test(stream_filter_rules, a_direct_receive_under_a_filter_is_noticed, .signal = SIGABRT)
{
    line l;
    expect_abort();
    line_start(&l, &bytes_filter);
    l.stream->recv_mode = RWS__RECV_DIRECT;
    line_turn(&l);
}

static void keep(rws__lender *lender)
{
    (void)lender;
}

Test(stream_filter_rules, a_loan_under_a_filter_is_noticed, .signal = SIGABRT)
{
    static const rws__lender_ops ops = {.release = keep, .retain = keep};
    rws__lender lender = {.ops = &ops};
    line l;
    expect_abort();
    line_start(&l, &failing[1]);
    cr_assert(
        rws__sendq_lend(&l.stream->sendq, &l.streams.send_slab, (const uint8_t *)"x", 1, &lender));
    line_turn(&l);
}

#endif
