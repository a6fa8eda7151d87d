/*
 * Filtered streams in a send pool that runs low (ctest: scripted ring): peers that take nothing,
 * and what that leaves to one that does.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "engine/stream/filter.h"
#include "support/scripted_ring.h"

TestSuite(stream_filter_share, .timeout = 120);

#define HOLDERS_MAX  256u
#define HEADER_BYTES 22u /* of a record: as many as TLS 1.3 adds */
#define END_BYTES    24u

typedef struct crowd {
    rws__loop loop; /* first: a stream leads to its crowd */
    rws__streams streams;
    rws__ring *ring;
    rws__stream *all[HOLDERS_MAX]; /* by file; NULL: released */
    size_t queued[HOLDERS_MAX];    /* in all */
    int ended;                     /* the status of the last one that ended */
    uint32_t ended_count;
} crowd;

/* ---- a filter: records of a header of 0 and the plain bytes ---- */

static rws__filter_status on_start(rws__filter *filter)
{
    (void)filter;
    return RWS__FILTER_OPEN;
}

static rws__filter_status on_open(rws__filter *filter, rws__filter_input *input)
{
    rws__filter_pass_on(filter, input->data, input->len);
    input->data += input->len;
    input->len = 0;
    return RWS__FILTER_OPEN;
}

static rws__filter_status on_seal(rws__filter *filter, const uint8_t *data, size_t len)
{
    uint8_t *out = rws__filter_reserve(filter, HEADER_BYTES + len);
    if (out == NULL) return rws__filter_fail_no_memory(filter);
    memset(out, 0, HEADER_BYTES);
    memcpy(out + HEADER_BYTES, data, len);
    return rws__filter_commit(filter, HEADER_BYTES + len);
}

static rws__filter_status on_end(rws__filter *filter)
{
    uint8_t *out = rws__filter_reserve(filter, END_BYTES);
    if (out == NULL) return rws__filter_fail_no_memory(filter);
    memset(out, 0, END_BYTES);
    return rws__filter_commit(filter, END_BYTES);
}

static void on_free(rws__filter *filter)
{
    free(filter);
}

static const rws__filter_type type = {
    .name = "record",
    .growth_max = END_BYTES,

    .start = on_start,
    .open = on_open,
    .seal = on_seal,
    .end = on_end,
    .on_eof = on_start,
    .free = on_free,
};

static int make_one(const rws__filter_maker *maker, rws__stream *stream,
                    const rws__filter_target *target)
{
    (void)maker;
    (void)target;
    rws__filter *filter = calloc(1, sizeof *filter);
    cr_assert_not_null(filter);
    filter->type = &type;
    return rws__stream_push_filter(stream, filter);
}

static int make_two(const rws__filter_maker *maker, rws__stream *stream,
                    const rws__filter_target *target)
{
    int res = make_one(maker, stream, target);
    return res == 0 ? make_one(maker, stream, target) : res;
}

static const rws__filter_maker makers[] = {{make_one}, {make_two}};

/* ---- what is above the streams ---- */

static crowd *crowd_of(const rws__stream *stream)
{
    return (crowd *)stream->streams->loop;
}

static void nothing(rws__stream *stream)
{
    (void)stream;
}

static void on_asked(rws__stream *stream, bool moved)
{
    (void)stream;
    (void)moved;
}

static size_t on_input(rws__stream *stream, uint8_t *data, size_t len)
{
    (void)stream;
    (void)data;
    return len;
}

static void on_ended(rws__stream *stream, const rws__cause *cause)
{
    crowd_of(stream)->ended = cause->status;
    crowd_of(stream)->ended_count++;
}

static void on_released(rws__stream *stream)
{
    crowd *c = crowd_of(stream);
    for (uint32_t i = 0; i < HOLDERS_MAX; i++)
        if (c->all[i] == stream) c->all[i] = NULL;
}

static const rws__stream_events events = {
    .on_up = nothing,
    .on_input = on_input,
    .on_eof = nothing,
    .on_sent = nothing,
    .on_asked = on_asked,
    .on_ended = on_ended,
    .on_input_overflow = nothing,
    .on_turn = nothing,
    .on_released = on_released,
};

/* ---- the owner of the loop ---- */

static bool on_flush(rws__loop *loop)
{
    rws__streams *streams = &((crowd *)loop)->streams;
    rws__streams_flush(streams);
    return rws__streams_are_busy(streams);
}

static uint32_t on_completions(rws__loop *loop, const rws__cqe *cqes, uint32_t left)
{
    return rws__streams_on_completions(&((crowd *)loop)->streams, cqes, left);
}

static void on_settled(rws__loop *loop, bool all_submitted)
{
    rws__streams_settle(&((crowd *)loop)->streams, all_submitted);
}

static void on_stop(rws__loop *loop)
{
    (void)loop;
}

static const rws__loop_owner owner = {on_flush, on_completions, on_settled, on_stop};

/* ---- a crowd ---- */

static void turns(crowd *c, uint32_t count)
{
    while (count-- > 0) {
        c->ring->turns_left = 1;
        cr_assert_eq(rws__loop_turn(&c->loop, true), 0);
    }
}

/* `count` streams with `filters` each, whose sends complete when a test says so. */
static crowd *start(size_t pool_bytes, uint32_t count, uint32_t filters)
{
    static const rws__env env;
    crowd *c = calloc(1, sizeof *c);
    rws__streams_options options = {
        .slots_max = HOLDERS_MAX,
        .slot_bytes = sizeof(rws__stream),
        .cold_bytes = sizeof(rws__stream_cold),
        .send_pool_bytes_max = pool_bytes,
        .partial_bytes_max = 4u << 20,
        .retained_bytes_max = 1u << 16,
        .send_timeout_ms = 30000,
        .linger_timeout_ms = 1000,
        .progress_bytes_per_s_min = 128,
    };
    const char *what;
    cr_assert_eq(rws__loop_init(&c->loop, &env, &owner), 0);
    c->loop.on_deadline[RWS__DEADLINE_SENDING] = rws__streams_on_sending_deadline;
    c->loop.on_deadline[RWS__DEADLINE_LINGER] = rws__streams_on_linger_deadline;
    cr_assert_eq(rws__streams_init(&c->streams, &c->loop, &options), 0);
    cr_assert_eq(rws__loop_open(&c->loop, &(rws__ring_options){.sq_entries = 64}, &what), 0);
    rws__streams_open(&c->streams, 1);
    c->ring = c->loop.ring;
    c->loop.features &= ~(uint32_t)RWS__FEATURE_SKIP_SUCCESS;
    c->ring->manual = SCRIPT_BIT(SCRIPT_SEND);
    for (uint32_t i = 0; i < count; i++) {
        c->all[i] = rws__streams_take(&c->streams, &events);
        c->all[i]->family = AF_INET;
        if (filters > 0) rws__stream_set_filters(c->all[i], &makers[filters - 1], NULL);
        rws__stream_accepted(c->all[i], (int32_t)i, NULL);
    }
    turns(c, 2);
    return c;
}

static bool put(crowd *c, uint32_t i, size_t bytes, rws__share_use use)
{
    uint8_t *out = rws__stream_reserve(c->all[i], bytes, use);
    if (out == NULL) return false;
    memset(out, 1, bytes);
    rws__stream_commit(c->all[i], bytes);
    c->queued[i] += bytes;
    return true;
}

/* Everybody queues until nobody may any more. */
static void fill(crowd *c, uint32_t count, size_t bytes)
{
    for (bool any = true; any;) {
        any = false;
        for (uint32_t i = 0; i < count; i++)
            any |= put(c, i, bytes, RWS__SHARE_MESSAGE);
        turns(c, 1);
    }
}

/* The send of `i` that is in flight is done. */
static bool complete(crowd *c, uint32_t i)
{
    script_op *op = script_find(c->ring, SCRIPT_SEND, i);
    if (op == NULL) return false;
    script_complete(c->ring, op, (int32_t)op->len, 0);
    return true;
}

/* Plain bytes that `i` was sent. */
static size_t received(const crowd *c, uint32_t i)
{
    const feed_bytes *wire = &c->ring->wire[i];
    size_t plain = 0;
    for (size_t at = 0; at < wire->len; at++)
        plain += wire->data[at];
    return plain;
}

static void drain(crowd *c, uint32_t count)
{
    for (bool any = true; any;) {
        any = false;
        for (uint32_t i = 0; i < count; i++)
            any |= complete(c, i);
        turns(c, 2);
    }
    for (uint32_t i = 0; i < count; i++)
        cr_assert_eq(received(c, i), c->queued[i], "%zu bytes of %zu came to %u", received(c, i),
                     c->queued[i], i);
}

static void stop(crowd *c)
{
    c->ring->manual = 0;
    for (uint32_t i = 0; i < HOLDERS_MAX; i++)
        if (c->all[i] != NULL) rws__stream_finish(c->all[i], RWS__FINISH_CUT);
    for (int i = 0; i < 20 && c->streams.slots_used > 0; i++) {
        script_cancel_closed(c->ring);
        turns(c, 1);
    }
    cr_expect_eq(c->streams.slots_used, 0);
    cr_expect_eq(c->streams.send_slab.used_bytes, 0);
    cr_expect_eq(c->streams.partial->slab.used_bytes, 0);
    rws__loop_close_mailbox(&c->loop);
    rws__loop_close_ring(&c->loop);
    rws__registered_deinit(&c->streams.registered);
    rws__streams_deinit(&c->streams);
    rws__loop_deinit(&c->loop);
    free(c);
}

Test(stream_filter_share, peers_that_take_nothing_leave_a_share_to_the_others)
{
    static const size_t sizes[] = {100, 400, 1500, 4000, 20000};
    enum { SILENT = 240 };
    for (uint32_t filters = 0; filters <= 2; filters++)
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            crowd *c = start(4u << 20, SILENT + 1, filters);
            const rws__slab *slab = &c->streams.send_slab;
            fill(c, SILENT, sizes[i]);
            cr_expect_leq(slab->used_bytes, slab->bytes / 16 * 15, "%u filters, %zu: %zu of %zu",
                          filters, sizes[i], slab->used_bytes, slab->bytes);
            cr_expect_eq(c->ended_count, 0, "%d", c->ended);
            /* One that takes what comes. */
            for (int message = 0; message < 20; message++) {
                cr_assert(put(c, SILENT, 1000, RWS__SHARE_MESSAGE), "%u filters, %zu", filters,
                          sizes[i]);
                turns(c, 1);
                for (int sends = 0; sends < 40 && complete(c, SILENT); sends++)
                    turns(c, 2);
                cr_assert_eq(received(c, SILENT), c->queued[SILENT], "%u filters, %zu", filters,
                             sizes[i]);
            }
            /* And then all take it. */
            drain(c, SILENT);
            cr_expect_eq(c->ended_count, 0, "%d", c->ended);
            cr_expect_eq(slab->used_bytes, 0);
            stop(c);
        }
}

/* Where nothing is promised they go on one after the other. */
Test(stream_filter_share, a_pool_that_is_too_small_for_all_serves_one_after_the_other)
{
    for (uint32_t filters = 1; filters <= 2; filters++) {
        crowd *c = start(65536, HOLDERS_MAX, filters);
        fill(c, HOLDERS_MAX, 100);
        drain(c, HOLDERS_MAX);
        cr_expect_eq(c->ended_count, 0, "%d", c->ended);
        stop(c);
    }
}

/* The whole pool is in use for once: whoever has something to seal waits, and the loop sleeps. */
Test(stream_filter_share, without_room_a_stream_waits_and_is_not_ended)
{
    for (uint32_t filters = 1; filters <= 2; filters++)
        for (int finishes = 0; finishes < 2; finishes++) {
            crowd *c = start(4u << 20, 2, filters);
            rws__slab *slab = &c->streams.send_slab;
            cr_assert(put(c, 0, 3000, RWS__SHARE_ONCE));
            void *blocks[64];
            size_t count = 0;
            for (size_t bytes = slab->bytes; bytes >= 256; bytes /= 2)
                while (count < 64 && (blocks[count] = rws__slab_take(slab, bytes)) != NULL)
                    count++;
            cr_assert_eq(slab->used_bytes, slab->bytes);
            if (finishes) rws__stream_finish(c->all[0], RWS__FINISH_LINGER);
            turns(c, 3);
            cr_expect_not(rws__streams_are_busy(&c->streams), "it polls");
            cr_expect_null(script_find(c->ring, SCRIPT_SEND, 0));
            cr_expect_eq(c->ring->calls_of[SCRIPT_SHUTDOWN], 0);
            while (count > 0)
                rws__slab_give(slab, blocks[--count]);
            turns(c, 1);
            drain(c, 1);
            cr_expect_eq(c->ended_count, 0, "%d", c->ended);
            cr_expect_eq(c->ring->calls_of[SCRIPT_SHUTDOWN], finishes ? 1 : 0);
            stop(c);
        }
}

/* The end record alone. */
Test(stream_filter_share, without_room_the_end_waits_for_its_record)
{
    crowd *c = start(4u << 20, 1, 1);
    rws__slab *slab = &c->streams.send_slab;
    void *all = rws__slab_take(slab, slab->bytes);
    rws__stream_finish(c->all[0], RWS__FINISH_CLOSE);
    turns(c, 3);
    cr_expect_eq(c->ring->calls_of[SCRIPT_CLOSE] + c->ring->calls_of[SCRIPT_SHUTDOWN], 0);
    rws__slab_give(slab, all);
    turns(c, 1);
    cr_assert(complete(c, 0));
    turns(c, 3);
    cr_expect_eq(c->ring->wire[0].len, END_BYTES);
    stop(c);
}
