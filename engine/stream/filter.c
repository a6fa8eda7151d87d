/*
 * The chain of filters of a stream: its handshakes, bytes up, bytes down, and its end.
 *
 * What the chain needs beyond the filters is a block of the partial pool, which the cold part of
 * the stream points to from the first push until the last filter is out and its bytes are sent.
 */
#include "engine/stream/filter.h"

#include "engine/stream/internal.h"

#include <errno.h>
#include <string.h>

/* So much is sealed before it is sent: what a socket takes at once, and a stream that takes nothing
 * holds no more beside its queue. */
#define WIRE_BYTES 65536u
/* Plain bytes that are sealed with one call: a TLS record has no more. */
#define SEAL_BYTES 16384u
/* The same, and for one send, where the send pool is scarce. */
#define SCARCE_BYTES 2048u
/* A filter may add to the wire queue beyond WIRE_BYTES: what one seal makes, answers in between. */
#define WIRE_BYTES_MAX (4 * WIRE_BYTES)

struct rws__filters {
    rws__filter *outermost;
    rws__sendq wire;
    rws__cause cause;
    bool is_up;      /* on_up was called */
    bool sealing;    /* a send of what is written now follows at once */
    bool ended;      /* the peer's end record came */
    bool end_sealed; /* ours was written */
    bool failed;
};

static rws__filters *chain(const rws__stream *stream)
{
    return rws__stream_cold_of(stream)->filters;
}

rws__sendq *rws__filters_wire(rws__stream *stream)
{
    return &chain(stream)->wire;
}

bool rws__filters_have_ended(const rws__stream *stream)
{
    return stream->wired && chain(stream)->ended;
}

/* ---- putting in and taking out ---- */

void rws__stream_set_filters(rws__stream *stream, const rws__filter_maker *maker)
{
    RWS_ASSERT(stream->phase == RWS__STREAM_FREE);
    if (maker != NULL) rws__stream_cold_part(stream)->filter_maker = maker;
}

int rws__stream_push_filter(rws__stream *stream, rws__filter *filter)
{
    rws__stream_cold *cold = rws__stream_cold_part(stream);
    /* Bytes that are queued or in flight already would not be this chain's. */
    RWS_ASSERT(stream->phase < RWS__STREAM_UP || cold->filter_maker != NULL);
    if (cold->filters == NULL) {
        cold->filters = rws__pool_take(stream->streams->partial, sizeof(rws__filters));
        if (cold->filters == NULL) return -ENOMEM;
        memset(cold->filters, 0, sizeof(rws__filters));
        stream->wired = true;
    }
    filter->stream = stream;
    filter->above = NULL;
    filter->below = stream->filter;
    filter->out = NULL;
    filter->status = RWS__FILTER_HANDSHAKING;
    if (filter->below != NULL)
        filter->below->above = filter;
    else
        cold->filters->outermost = filter;
    stream->filter = filter;
    return 0;
}

static void take_out(rws__stream *stream, rws__filter *filter)
{
    if (filter->above != NULL)
        filter->above->below = filter->below;
    else
        stream->filter = filter->below;
    if (filter->below != NULL)
        filter->below->above = filter->above;
    else
        chain(stream)->outermost = filter->above;
    if (filter->out != NULL) rws__slab_give(&stream->streams->send_slab, filter->out);
    filter->type->free(filter);
}

static void drop_chain(rws__stream *stream)
{
    rws__stream_cold *cold = rws__stream_cold_part(stream);
    rws__sendq_clear(&cold->filters->wire, &stream->streams->send_slab);
    rws__pool_give(stream->streams->partial, cold->filters);
    cold->filters = NULL;
    stream->wired = false;
}

/* All are out and nothing of theirs waits: from here on it is a stream without filters. */
static void settle(rws__stream *stream)
{
    if (!stream->wired || stream->filter != NULL || chain(stream)->wire.bytes > 0) return;
    drop_chain(stream);
    rws__stream_mark_dirty(stream);
}

void rws__filters_free(rws__stream *stream)
{
    if (!stream->wired) return;
    while (stream->filter != NULL)
        take_out(stream, stream->filter);
    drop_chain(stream);
}

/* ---- failing ---- */

rws__filter_status rws__filter_fail(rws__filter *filter, int status, rws_closer who,
                                    const char *text)
{
    rws__cause *cause = &chain(filter->stream)->cause;
    /* The first one is the reason of those that follow. */
    if (cause->status == 0) *cause = rws__cause_abnormal(status, who, text);
    return RWS__FILTER_FAILED;
}

rws__filter_status rws__filter_fail_no_memory(rws__filter *filter)
{
    return rws__filter_fail(filter, -ENOMEM, RWS_CLOSED_BY_US, "no memory for what a filter sends");
}

/* End the stream. Plain bytes can't be sealed any more; what is sealed already is sent. */
static void fail(rws__stream *stream)
{
    rws__filters *filters = chain(stream);
    if (filters->failed || stream->phase >= RWS__STREAM_CLOSING) return;
    filters->failed = true;
    bool tell = !rws__stream_is_finishing(stream);
    /* What the peer's own end destroys does not count. */
    if (filters->cause.who == RWS_CLOSED_BY_US)
        rws__count(&stream->streams->loop->counters.bytes_discarded, stream->sendq.bytes);
    rws__sendq_clear(&stream->sendq, &stream->streams->send_slab);
    rws__cause cause = filters->cause;
    /* Whoever did not come through the handshake is not waited for. */
    if (filters->wire.bytes == 0)
        rws__stream_finish(stream, RWS__FINISH_CUT);
    else
        rws__stream_finish(stream, filters->is_up ? RWS__FINISH_LINGER : RWS__FINISH_CLOSE);
    if (tell) stream->events->on_ended(stream, &cause);
}

/* ---- handshakes ---- */

/* What a filter returned. True: it is out, or its handshake has ended just now. */
static bool take_status(rws__stream *stream, rws__filter *filter, rws__filter_status status)
{
    bool was_open = filter->status != RWS__FILTER_HANDSHAKING;
    switch (status) {
    case RWS__FILTER_HANDSHAKING: RWS_ASSERT(!was_open); return false;
    case RWS__FILTER_OPEN:
        if (!was_open) filter->status = RWS__FILTER_OPEN;
        return !was_open;
    case RWS__FILTER_DONE: take_out(stream, filter); return !was_open;
    case RWS__FILTER_ENDED:
        RWS_ASSERT(was_open);
        filter->status = RWS__FILTER_ENDED;
        chain(stream)->ended = true;
        rws__stream_mark_dirty(stream); /* on_eof, when what came before was taken */
        return false;
    case RWS__FILTER_FAILED: fail(stream); return false;
    }
    RWS_UNREACHABLE("not a status of a filter");
}

/* Everything below `filter` is open: start it, and what is above it as far as that goes. */
static void start_from(rws__stream *stream, rws__filter *filter)
{
    while (filter != NULL) {
        rws__filter *above = filter->above;
        if (!take_status(stream, filter, filter->type->start(filter))) return;
        filter = above;
    }
    if (chain(stream)->is_up) return;
    chain(stream)->is_up = true;
    stream->events->on_up(stream);
}

void rws__filters_start(rws__stream *stream)
{
    rws__stream_cold *cold = rws__stream_cold_part(stream);
    const rws__filter_maker *maker = cold->filter_maker;
    int res = maker != NULL ? maker->make(maker, stream) : 0;
    cold->filter_maker = NULL;
    if (res < 0) {
        rws__cause cause = rws__cause_abnormal(res, RWS_CLOSED_BY_US,
                                               "the filters of the connection could not be made");
        rws__stream_end(stream, &cause);
        return;
    }
    if (!stream->wired) {
        stream->events->on_up(stream);
        return;
    }
    start_from(stream, chain(stream)->outermost);
    settle(stream);
}

/* ---- up: wire to plain ---- */

static void pass_up(rws__stream *stream, rws__filter *filter, uint8_t *data, size_t len)
{
    rws__filter_input input = {data, len};
    while (filter != NULL && input.len > 0) {
        if (stream->phase != RWS__STREAM_UP) return;
        rws__filter *above = filter->above;
        bool was_open = filter->status != RWS__FILTER_HANDSHAKING;
        rws__filter_status status = filter->type->open(filter, &input);
        if (take_status(stream, filter, status)) start_from(stream, above);
        if (status == RWS__FILTER_DONE)
            filter = above;
        else
            RWS_ASSERT(input.len == 0 || status == RWS__FILTER_FAILED ||
                       stream->phase != RWS__STREAM_UP ||
                       (status == RWS__FILTER_OPEN && !was_open));
    }
    /* No filter is left above: the rest is plain. */
    if (input.len > 0) rws__stream_deliver(stream, input.data, input.len);
}

bool rws__filter_pass_on(rws__filter *filter, uint8_t *data, size_t len)
{
    rws__stream *stream = filter->stream;
    RWS_ASSERT(filter->status == RWS__FILTER_OPEN);
    pass_up(stream, filter->above, data, len);
    return stream->phase == RWS__STREAM_UP;
}

void rws__filters_input(rws__stream *stream, uint8_t *data, size_t len)
{
    pass_up(stream, chain(stream)->outermost, data, len);
    settle(stream);
}

bool rws__filters_on_eof(rws__stream *stream)
{
    rws__filters *filters = chain(stream);
    for (rws__filter *filter = stream->filter; filter != NULL; filter = filter->below) {
        /* What is below it has not ended, or this says enough. */
        if (filter->status == RWS__FILTER_ENDED) break;
        if (filter->type->on_eof(filter) != RWS__FILTER_FAILED) continue;
        fail(stream);
        return false;
    }
    if (filters->is_up) return true;
    filters->cause =
        rws__cause_abnormal(RWS_E_CLOSED, RWS_CLOSED_BY_PEER,
                            "the peer closed the connection before its handshake ended");
    fail(stream);
    return false;
}

/* ---- down: plain to wire ---- */

/* Whether the send pool is so full that streams have shares of it. */
static bool is_scarce(const rws__stream *stream)
{
    const rws__slab *slab = &stream->streams->send_slab;
    return slab->used_bytes > slab->bytes / 2;
}

/* What was queued may be sent: where this stream's share does not allow for the wire queue too, it
 * is taken from the reserve. */
static uint8_t *wire_room(rws__stream *stream, size_t bytes)
{
    rws__sendq *wire = rws__filters_wire(stream);
    rws__slab *slab = &stream->streams->send_slab;
    const rws__share *share = &stream->streams->send_share;
    rws__chunk *chunk = wire->tail;
    if (chunk != NULL && chunk->capacity - chunk->end >= bytes) return chunk->own + chunk->end;
    uint8_t *room = rws__sendq_grow(wire, slab, share, bytes, RWS__SHARE_MESSAGE);
    return room != NULL ? room : rws__sendq_grow(wire, slab, share, bytes, RWS__SHARE_ONCE);
}

uint8_t *rws__filter_reserve(rws__filter *filter, size_t bytes)
{
    rws__stream *stream = filter->stream;
    rws__filters *filters = chain(stream);
    rws__slab *slab = &stream->streams->send_slab;
    if (filters->wire.bytes + bytes > WIRE_BYTES_MAX) return NULL;
    if (filter->below == NULL) return wire_room(stream, bytes);
    RWS_ASSERT(filter->out == NULL);
    return filter->out = rws__slab_take(slab, bytes);
}

rws__filter_status rws__filter_commit(rws__filter *filter, size_t bytes)
{
    rws__stream *stream = filter->stream;
    if (filter->below == NULL) {
        rws__sendq_commit(&chain(stream)->wire, bytes);
        if (stream->send_mode == RWS__SEND_IDLE && !chain(stream)->sealing)
            rws__stream_mark_dirty(stream);
        return RWS__FILTER_OPEN;
    }
    rws__filter_status status = RWS__FILTER_OPEN;
    /* A record of this filter may be more than the one below takes at once. */
    for (size_t at = 0; at < bytes && status != RWS__FILTER_FAILED; at += SEAL_BYTES) {
        size_t len = bytes - at < SEAL_BYTES ? bytes - at : SEAL_BYTES;
        status = filter->below->type->seal(filter->below, filter->out + at, len);
    }
    rws__slab_give(&stream->streams->send_slab, filter->out);
    filter->out = NULL;
    return status;
}

/* The end records, the innermost first: each is wire for the filter below. */
static void seal_end(rws__stream *stream)
{
    chain(stream)->end_sealed = true;
    for (rws__filter *filter = stream->filter; filter != NULL; filter = filter->below) {
        if (filter->status == RWS__FILTER_HANDSHAKING) continue;
        if (filter->type->end(filter) != RWS__FILTER_FAILED) continue;
        fail(stream);
        return;
    }
}

/* Where sealing stops. */
static size_t wire_bytes(const rws__stream *stream)
{
    return is_scarce(stream) ? SCARCE_BYTES : WIRE_BYTES;
}

static void seal(rws__stream *stream)
{
    rws__filters *filters = chain(stream);
    if (stream->filter == NULL || filters->failed || stream->phase < RWS__STREAM_UP ||
        stream->phase > RWS__STREAM_FLUSHING)
        return;
    while (filters->is_up && stream->sendq.bytes > 0 && filters->wire.bytes < wire_bytes(stream)) {
        const uint8_t *data;
        size_t len = rws__sendq_front(&stream->sendq, &data);
        size_t most = is_scarce(stream) ? SCARCE_BYTES : SEAL_BYTES;
        if (len > most) len = most;
        if (stream->filter->type->seal(stream->filter, data, len) == RWS__FILTER_FAILED) {
            fail(stream);
            return;
        }
        stream->sealed += (uint32_t)len;
        rws__sendq_advance(&stream->sendq, &stream->streams->send_slab, len);
    }
    if (stream->phase == RWS__STREAM_FLUSHING && stream->sendq.bytes == 0 && !filters->end_sealed)
        seal_end(stream);
}

void rws__filters_seal(rws__stream *stream)
{
    rws__filters *filters = chain(stream);
    filters->sealing = true;
    seal(stream);
    filters->sealing = false;
}

void rws__filters_sent(rws__stream *stream, size_t len)
{
    rws__filters *filters = chain(stream);
    RWS_ASSERT(filters->wire.bytes > 0 && len <= filters->wire.bytes);
    /* Which plain bytes these were is known when the last one is gone; until then it is their share
     * of what was sealed. */
    uint64_t plain = (uint64_t)stream->sealed * len / filters->wire.bytes;
    stream->sealed -= (uint32_t)plain;
    rws__sendq_advance(&filters->wire, &stream->streams->send_slab, len);
    settle(stream);
}
