#include "support/scripted_stream.h"

#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static line *line_of(const rws__stream *stream)
{
    return (line *)stream->streams->loop;
}

__attribute__((format(printf, 2, 3))) static void note(line *l, const char *format, ...)
{
    char word[64];
    va_list args;
    va_start(args, format);
    vsnprintf(word, sizeof word, format, args);
    va_end(args);
    feed_bytes_append(&l->log, word, strlen(word));
}

/* ---- what is above the stream ---- */

static void on_up(rws__stream *stream)
{
    note(line_of(stream), "up ");
}

static size_t on_input(rws__stream *stream, uint8_t *data, size_t len)
{
    line *l = line_of(stream);
    size_t had = l->received.len;
    bool pauses = l->pause_at > 0 && had + len >= l->pause_at;
    if (pauses) len = l->pause_at - had;
    feed_bytes_append(&l->received, data, len);
    if (l->echo) line_send(l, data, len);
    if (l->finish_at > 0 && had + len >= l->finish_at) rws__stream_finish(stream, l->finish_as);
    if (!pauses) return len;
    l->pause_at = 0;
    rws__stream_pause(stream);
    return len;
}

static void on_eof(rws__stream *stream)
{
    note(line_of(stream), "eof ");
    if (line_of(stream)->finish_at_eof) rws__stream_finish(stream, RWS__FINISH_CLOSE);
}

static void on_sent(rws__stream *stream)
{
    note(line_of(stream), "sent:%zu ", rws__stream_queued(stream));
}

static void on_asked(rws__stream *stream, bool moved)
{
    note(line_of(stream), "asked:%d ", moved);
}

static void on_ended(rws__stream *stream, const rws__cause *cause)
{
    line *l = line_of(stream);
    note(l, "ended:%d ", cause->status);
    if (cause->text.len > 0 && cause->text.len < sizeof l->ended_text)
        memcpy(l->ended_text, cause->text.data, cause->text.len);
}

static void on_input_overflow(rws__stream *stream)
{
    note(line_of(stream), "overflow ");
    rws__stream_finish(stream, RWS__FINISH_CUT);
}

static void on_turn(rws__stream *stream)
{
    note(line_of(stream), "turn ");
}

static void on_released(rws__stream *stream)
{
    note(line_of(stream), "released ");
    line_of(stream)->stream = NULL;
}

static size_t direct(rws__stream *stream)
{
    return line_of(stream)->direct_bytes;
}

static uint8_t *direct_memory(rws__stream *stream, size_t bytes)
{
    (void)bytes;
    return line_of(stream)->direct;
}

static const rws__stream_events events = {
    .on_up = on_up,
    .on_input = on_input,
    .on_eof = on_eof,
    .on_sent = on_sent,
    .on_asked = on_asked,
    .on_ended = on_ended,
    .on_input_overflow = on_input_overflow,
    .on_turn = on_turn,
    .on_released = on_released,
    .direct = direct,
    .direct_memory = direct_memory,
};

/* ---- the owner of the loop ---- */

static bool on_flush(rws__loop *loop)
{
    rws__streams *streams = &((line *)loop)->streams;
    rws__streams_flush(streams);
    return rws__streams_are_busy(streams);
}

static uint32_t on_completions(rws__loop *loop, const rws__cqe *cqes, uint32_t left)
{
    return rws__streams_on_completions(&((line *)loop)->streams, cqes, left);
}

static void on_settled(rws__loop *loop, bool all_submitted)
{
    rws__streams_settle(&((line *)loop)->streams, all_submitted);
}

static void on_stop(rws__loop *loop)
{
    (void)loop;
}

static const rws__loop_owner owner = {
    .on_flush = on_flush,
    .on_completions = on_completions,
    .on_settled = on_settled,
    .on_stop = on_stop,
};

void line_init(line *l)
{
    static const rws__env env;
    memset(l, 0, sizeof *l);
    rws__streams_options options = {
        .slots_max = 4,
        .slot_bytes = sizeof(rws__stream),
        .cold_bytes = sizeof(rws__stream_cold),
        .send_pool_bytes_max = 4u << 20,
        .partial_bytes_max = 1u << 20,
        .retained_bytes_max = 1u << 16,
        .send_timeout_ms = 4000,
        .linger_timeout_ms = 1000,
        .progress_bytes_per_s_min = 128,
    };
    const char *what;
    cr_assert_eq(rws__loop_init(&l->loop, &env, &owner), 0);
    l->loop.on_deadline[RWS__DEADLINE_SENDING] = rws__streams_on_sending_deadline;
    l->loop.on_deadline[RWS__DEADLINE_LINGER] = rws__streams_on_linger_deadline;
    cr_assert_eq(rws__streams_init(&l->streams, &l->loop, &options), 0);
    cr_assert_eq(rws__loop_open(&l->loop, &(rws__ring_options){.sq_entries = 64}, &what), 0);
    rws__streams_open(&l->streams, 1);
    l->ring = l->loop.ring;
}

void line_accept(line *l, const toy_maker *maker)
{
    l->stream = rws__streams_take(&l->streams, &events);
    cr_assert_not_null(l->stream);
    l->stream->family = AF_INET;
    rws__stream_set_filters(l->stream, maker != NULL ? &maker->maker : NULL, NULL);
    rws__stream_accepted(l->stream, (int32_t)LINE_FILE, NULL);
    line_turns(l, 2);
}

void line_start(line *l, const toy_maker *maker)
{
    line_init(l);
    line_accept(l, maker);
}

static void check_nothing_is_left(line *l)
{
    cr_expect_null(l->ring->broken, "%s", l->ring->broken);
    cr_expect_null(l->stream);
    cr_expect_eq(l->streams.slots_used, 0);
    cr_expect_eq(l->streams.send_slab.used_bytes, 0, "%zu bytes of the send slab are in use",
                 l->streams.send_slab.used_bytes);
    cr_expect_eq(l->streams.partial->slab.used_bytes, 0, "%zu bytes of the pool are in use",
                 l->streams.partial->slab.used_bytes);
    cr_expect_eq(l->streams.partial->charged_bytes, 0);
    cr_expect_eq(l->ring->buffers_out, 0);
    cr_expect_eq(l->ring->slept, 0, "it waited and nobody would have woken it");
}

static void free_all(line *l)
{
    check_nothing_is_left(l);
    rws__loop_close_mailbox(&l->loop);
    rws__loop_close_ring(&l->loop);
    rws__registered_deinit(&l->streams.registered);
    rws__streams_deinit(&l->streams);
    rws__loop_deinit(&l->loop);
    feed_bytes_free(&l->log);
    feed_bytes_free(&l->received);
}

void line_end(line *l)
{
    l->ring->manual = 0;
    if (l->stream != NULL) rws__stream_finish(l->stream, RWS__FINISH_CUT);
    for (int i = 0; i < 20 && l->stream != NULL; i++) {
        script_cancel_closed(l->ring);
        line_turn(l);
    }
    free_all(l);
}

void line_abandon(line *l)
{
    rws__streams_abandon(&l->streams);
    l->ring->buffers_out = 0; /* what is in the ring goes with it */
    free_all(l);
}

/* ---- turns and bytes ---- */

void line_pump(line *l)
{
    l->ring->turns_left = 0;
    cr_assert_eq(rws__loop_turn(&l->loop, true), SCRIPT_STOP);
}

void line_turn(line *l)
{
    l->ring->turns_left = 1;
    cr_assert_eq(rws__loop_turn(&l->loop, true), 0);
}

void line_turns(line *l, uint32_t count)
{
    while (count-- > 0)
        line_turn(l);
}

void line_feed(line *l, const void *data, size_t len, size_t step)
{
    const uint8_t *at = data;
    for (int idle = 0; len > 0 && idle < 5;) {
        size_t taken = script_recv(l->ring, LINE_FILE, at, len < step ? len : step, false);
        at += taken;
        len -= taken;
        idle = taken == 0 ? idle + 1 : 0;
        line_turn(l);
    }
}

void line_eof(line *l)
{
    script_op *op = script_find_recv(l->ring, LINE_FILE);
    cr_assert_not_null(op, "it does not receive");
    script_complete(l->ring, op, 0, 0);
    line_turns(l, 3);
}

void line_send(line *l, const void *data, size_t len)
{
    uint8_t *out = rws__stream_reserve(l->stream, len, RWS__SHARE_ONCE);
    cr_assert_not_null(out);
    memcpy(out, data, len);
    rws__stream_commit(l->stream, len);
}

const char *line_log(line *l)
{
    feed_bytes_append(&l->log, "", 1);
    l->log.len--;
    return (const char *)l->log.data;
}

/* ---- the peer ---- */

void line_peer_hello(line_peer *peer, feed_bytes *out)
{
    uint8_t hello[TOY_HEADER + TOY_HELLO];
    peer->half = 0x1234567;
    size_t len =
        toy_write_hello(hello, peer->is_client ? TOY_CLIENT_HELLO : TOY_SERVER_HELLO, peer->half);
    feed_bytes_append(out, hello, len);
}

void line_peer_data(line_peer *peer, feed_bytes *out, const void *data, size_t len)
{
    uint8_t record[TOY_RECORD_MAX];
    feed_bytes_append(out, record, toy_write_data(&peer->out, record, data, len));
}

void line_peer_end(feed_bytes *out)
{
    uint8_t record[TOY_HEADER];
    toy_write_header(record, TOY_END, 0);
    feed_bytes_append(out, record, sizeof record);
}

static void peer_record(line_peer *peer, toy_record record, const uint8_t *payload)
{
    toy_type hello = peer->is_client ? TOY_SERVER_HELLO : TOY_CLIENT_HELLO;
    if (!peer->greeted) {
        uint64_t theirs;
        memcpy(&theirs, payload, sizeof theirs);
        if (record.type != hello) peer->broken = "not a hello";
        uint64_t client = peer->is_client ? peer->half : theirs;
        uint64_t server = peer->is_client ? theirs : peer->half;
        peer->in = toy_make_key(client, server, !peer->is_client);
        peer->out = toy_make_key(client, server, peer->is_client);
        peer->greeted = true;
    } else if (record.type == TOY_END) {
        peer->ended = true;
    } else if (record.type == TOY_DATA) {
        uint8_t plain[TOY_PAYLOAD_MAX];
        toy_xor(&peer->in, plain, payload, record.len);
        feed_bytes_append(&peer->plain, plain, record.len);
    } else {
        peer->broken = "another hello";
    }
}

void line_peer_read(line_peer *peer, line *l)
{
    const feed_bytes *wire = &l->ring->wire[LINE_FILE];
    while (wire->len - peer->read >= TOY_HEADER && peer->broken == NULL) {
        const uint8_t *at = wire->data + peer->read;
        toy_record record = toy_read_header(at);
        if (record.type == 0) peer->broken = "not a record";
        if (peer->ended) peer->broken = "something behind the end record";
        if (wire->len - peer->read < TOY_HEADER + record.len) break;
        peer_record(peer, record, at + TOY_HEADER);
        peer->read += TOY_HEADER + record.len;
    }
    cr_expect_null(peer->broken, "%s", peer->broken);
}

void line_greet(line *l, line_peer *peer, const toy_maker *maker)
{
    line_start(l, maker);
    *peer = (line_peer){.is_client = !maker->client};
    feed_bytes hello = {0};
    if (maker->client) line_peer_read(peer, l);
    line_peer_hello(peer, &hello);
    line_feed(l, hello.data, hello.len, SIZE_MAX);
    line_turns(l, 2);
    feed_bytes_free(&hello);
    line_peer_read(peer, l);
    cr_assert(peer->greeted);
    cr_assert_str_eq(line_log(l), "up ");
}

void line_peer_free(line_peer *peer)
{
    feed_bytes_free(&peer->plain);
}
