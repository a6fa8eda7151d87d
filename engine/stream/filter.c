/*
 * The chain of filters of a stream: its handshakes, bytes up, bytes down, and its end.
 *
 * What the chain needs beyond the filters is a block of the partial pool, which the cold part of
 * the stream points to from the first push until the last filter is out and its bytes are sent.
 */
#include "engine/stream/filter.h"

#include "engine/base/env.h"
#include "engine/stream/internal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/* So much is sealed before it is sent: what a socket takes at once, and a stream that takes nothing
 * holds no more beside its queue. */
#define WIRE_BYTES 65536u
/* Plain bytes that are sealed with one call: a TLS record has no more. */
#define SEAL_BYTES 16384u
/* The same, and for one send, where the send pool is scarce. */
#define SCARCE_BYTES 2048u
/* And no fewer, unless there are no more. */
#define LEAST_BYTES 64u
/* A filter may add to the wire queue beyond WIRE_BYTES: what one seal makes, answers in between. */
#define WIRE_BYTES_MAX (4 * WIRE_BYTES)
/* Of the sentence that says why a filter failed. */
#define TEXT_BYTES 128u

struct rws__filters {
    rws__filter *outermost;
    rws__sendq wire;
    size_t out_bytes;     /* of the filters' blocks */
    size_t charged_bytes; /* in the `held_bytes` of the stream's queue */
    rws__cause cause;     /* its text is `text` */
    const char *name;     /* of the filter that failed */
    char text[TEXT_BYTES];
    bool is_up;      /* on_up was called */
    bool sealing;    /* a send of what is written now follows at once */
    bool has_room;   /* what is written now has its room already */
    bool starved;    /* on the list */
    bool ended;      /* the peer's end record was received */
    bool end_sealed; /* ours was written */
    bool failed;
    bool deaf; /* some input was left: what follows can't be understood */
};

static_assert(sizeof(rws__filters) <= 256, "it is the smallest block of the pool");

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

/* ---- its share of the send pool ---- */

/* All that a stream has of the pool counts as its queue's: so what is above asks for its share of
 * it as it does without filters. Of what the chain may always have, all counts. */
static void charge(rws__stream *stream)
{
    rws__filters *filters = chain(stream);
    size_t promised = stream->streams->send_share.wire_bytes;
    size_t now = filters->wire.held_bytes + filters->out_bytes;
    if (now < promised) now = promised;
    stream->sendq.held_bytes += now - filters->charged_bytes;
    filters->charged_bytes = now;
}

/* Whether the chain may take a block of `bytes`; `once`: of a handshake, which has nothing else. */
static bool may_take(const rws__stream *stream, size_t bytes, bool once)
{
    const rws__filters *filters = chain(stream);
    const rws__share *share = &stream->streams->send_share;
    size_t used = stream->streams->send_slab.used_bytes;
    size_t own = filters->wire.held_bytes + filters->out_bytes;
    size_t all = own + stream->sendq.held_bytes - filters->charged_bytes;
    return rws__share_allows(share, used, own, bytes, RWS__SHARE_WIRE) ||
           rws__share_allows(share, used, all, bytes, RWS__SHARE_MESSAGE) ||
           (once && own == 0 && rws__share_allows(share, used, all, bytes, RWS__SHARE_ONCE));
}

static void starve(rws__stream *stream)
{
    chain(stream)->starved = true;
    rws__slot_queue_append(&stream->streams->starved, stream);
    /* It is not waited for longer than for the peer. */
    rws__stream_watch(stream);
}

static void end_starving(rws__stream *stream)
{
    if (!chain(stream)->starved) return;
    chain(stream)->starved = false;
    rws__slot_queue_remove(&stream->streams->starved, stream);
}

void rws__filters_retry(rws__streams *streams)
{
    uint32_t last = streams->starved.last, slot;
    do {
        rws__stream *stream = rws__slot_queue_first(streams, &streams->starved);
        slot = stream->slot + 1;
        end_starving(stream);
        rws__stream_pump(stream);
    } while (slot != last);
    /* What quiet sends have is given back when the next turn begins. */
    rws__stream *first = rws__slot_queue_first(streams, &streams->starved);
    if (first != NULL && streams->quiet.count > 0) rws__stream_mark_dirty(first);
}

bool rws__filters_are_starved(const rws__stream *stream)
{
    return chain(stream)->starved;
}

bool rws__filters_hold_back(const rws__stream *stream)
{
    const rws__filters *filters = chain(stream);
    return filters->starved || filters->failed || !filters->is_up;
}

/* ---- putting in and taking out ---- */

void rws__stream_set_filters(rws__stream *stream, const rws__filter_maker *maker,
                             const rws__filter_target *target)
{
    RWS_ASSERT(stream->phase == RWS__STREAM_FREE);
    if (maker == NULL) return;
    rws__stream_cold_part(stream)->filter_maker = maker;
    rws__stream_cold_part(stream)->filter_target = target;
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
        charge(stream);
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

static void give_out(rws__stream *stream, rws__filter *filter)
{
    if (filter->out == NULL) return;
    rws__slab *slab = &stream->streams->send_slab;
    chain(stream)->out_bytes -= rws__slab_block_bytes(slab, filter->out);
    rws__slab_give(slab, filter->out);
    filter->out = NULL;
    charge(stream);
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
    give_out(stream, filter);
    filter->type->free(filter);
}

static void drop_chain(rws__stream *stream)
{
    rws__stream_cold *cold = rws__stream_cold_part(stream);
    end_starving(stream);
    rws__sendq_clear(&cold->filters->wire, &stream->streams->send_slab);
    stream->sendq.held_bytes -= cold->filters->charged_bytes;
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
    rws__filters *filters = chain(filter->stream);
    /* The first one is the reason of those that follow. */
    if (filters->cause.status != 0) return RWS__FILTER_FAILED;
    size_t len = strnlen(text, TEXT_BYTES - 1);
    for (size_t i = 0; i < len; i++)
        filters->text[i] = (unsigned char)text[i] < ' ' || text[i] == 0x7F ? '?' : text[i];
    filters->name = filter->type->name;
    filters->cause = rws__cause_abnormal(status, who, filters->text);
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
    RWS_ASSERT(filters->cause.status < 0);
    filters->failed = true;
    bool tell = !rws__stream_is_finishing(stream);
    /* Only the peer's end is waited for, and what comes until then is discarded. */
    if (!tell && rws__stream_unsent(stream) == 0) return;
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
    if (!tell) return;
    rws__log(stream->streams->loop->env, RWS_LOG_INFO, "a connection ended, by its filter '%s': %s",
             filters->name, filters->text);
    stream->events->on_ended(stream, &cause);
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
        rws__stream_mark_dirty(stream); /* on_eof, when what was received before was taken */
        if (rws__stream_is_finishing(stream)) stream->eof = true;
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
    int res = maker != NULL ? maker->make(maker, stream, cold->filter_target) : 0;
    cold->filter_maker = NULL;
    cold->filter_target = NULL;
    if (res < 0) {
        rws__cause cause = rws__cause_abnormal(res, RWS_CLOSED_BY_US,
                                               "the filters of the connection could not be made");
        rws__log(stream->streams->loop->env, RWS_LOG_INFO, "a connection ended: %s (status %d)",
                 cause.text.data, res);
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

static bool has_end_record(const rws__stream *stream)
{
    const rws__filter *filter = stream->filter;
    while (filter != NULL && !filter->type->has_end_record)
        filter = filter->below;
    return filter != NULL;
}

/* Whether input is opened: for what is above, or, when that is finished, for the end record. */
static bool wants_input(const rws__stream *stream)
{
    const rws__filters *filters = chain(stream);
    if (stream->phase == RWS__STREAM_UP) return true;
    return stream->phase >= RWS__STREAM_FLUSHING && stream->phase < RWS__STREAM_CLOSING &&
           filters->is_up && !filters->ended && !filters->failed && !filters->deaf &&
           has_end_record(stream);
}

static void pass_up(rws__stream *stream, rws__filter *filter, uint8_t *data, size_t len)
{
    rws__filter_input input = {data, len};
    while (filter != NULL && input.len > 0) {
        if (!wants_input(stream)) return;
        bool was_open = filter->status != RWS__FILTER_HANDSHAKING;
        rws__filter_status status = filter->type->open(filter, &input);
        rws__filter *above = filter->above; /* another one may have left meanwhile */
        if (take_status(stream, filter, status)) start_from(stream, above);
        if (status == RWS__FILTER_DONE) {
            filter = above;
        } else if (input.len > 0 && !(status == RWS__FILTER_OPEN && !was_open)) {
            RWS_ASSERT(status == RWS__FILTER_FAILED || stream->phase != RWS__STREAM_UP);
            chain(stream)->deaf = true;
        }
    }
    /* No filter is left above: the rest is plain. */
    if (input.len > 0) rws__stream_deliver(stream, input.data, input.len);
}

bool rws__filter_pass_on(rws__filter *filter, uint8_t *data, size_t len)
{
    rws__stream *stream = filter->stream;
    RWS_ASSERT(filter->status == RWS__FILTER_OPEN);
    pass_up(stream, filter->above, data, len);
    return wants_input(stream);
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
    rws__filter *filter = filters->outermost;
    while (filter->status != RWS__FILTER_HANDSHAKING)
        filter = filter->above;
    (void)rws__filter_fail(filter, RWS_E_CLOSED, RWS_CLOSED_BY_PEER,
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

/* Room in the wire queue, in one piece. */
static uint8_t *wire_room(rws__stream *stream, size_t bytes, bool once)
{
    rws__sendq *wire = rws__filters_wire(stream);
    const rws__chunk *last = wire->tail;
    if (last != NULL && last->capacity - last->end >= bytes) return wire->tail->own + last->end;
    size_t least = rws__slab_block_for(sizeof(rws__chunk) + bytes);
    size_t usual = is_scarce(stream) ? 0 : rws__sendq_usual_bytes(wire);
    size_t block = usual > least && may_take(stream, usual, false) ? usual : least;
    if (!may_take(stream, block, once)) return NULL;
    uint8_t *room = rws__sendq_add(wire, &stream->streams->send_slab, block);
    charge(stream);
    return room;
}

/* A block for what `filter` writes to the one below. */
static uint8_t *take_block(rws__stream *stream, rws__filter *filter, size_t bytes, bool once)
{
    rws__slab *slab = &stream->streams->send_slab;
    RWS_ASSERT(filter->out == NULL);
    if (!may_take(stream, rws__slab_block_for(bytes), once)) return NULL;
    filter->out = rws__slab_take(slab, bytes);
    if (filter->out == NULL) return NULL;
    chain(stream)->out_bytes += rws__slab_block_bytes(slab, filter->out);
    charge(stream);
    return filter->out;
}

/* Room for `len` bytes that the innermost filter seals, or for all end records, on the whole way
 * down: or some of it, and false. */
static bool take_way(rws__stream *stream, size_t len, bool end)
{
    size_t bytes = len, calls = 1;
    for (rws__filter *filter = stream->filter; filter != NULL; filter = filter->below) {
        bytes += calls * filter->type->growth_max;
        if (bytes == 0) continue;
        if (filter->below == NULL) return wire_room(stream, bytes, false) != NULL;
        if (take_block(stream, filter, bytes, false) == NULL) return false;
        /* One for each piece of 16 KiB that this one writes, and one for its rest. */
        calls += bytes / SEAL_BYTES + end;
    }
    return true;
}

static void give_way(rws__stream *stream)
{
    for (rws__filter *filter = stream->filter; filter != NULL; filter = filter->below)
        give_out(stream, filter);
    chain(stream)->has_room = false;
}

/* Room for `len` bytes, or as many of them as there is room for; 0: none. */
static size_t take_room(rws__stream *stream, size_t len)
{
    while (!take_way(stream, len, false)) {
        give_way(stream);
        if (len <= LEAST_BYTES) return 0;
        len = len / 2 > LEAST_BYTES ? len / 2 : LEAST_BYTES;
    }
    chain(stream)->has_room = true;
    return len;
}

uint8_t *rws__filter_reserve(rws__filter *filter, size_t bytes)
{
    rws__stream *stream = filter->stream;
    rws__filters *filters = chain(stream);
    /* What begins a connection can't wait for room. */
    bool once = !filters->is_up;
    if (filters->wire.bytes + bytes > WIRE_BYTES_MAX) return NULL;
    if (filter->below == NULL) return wire_room(stream, bytes, once);
    if (!filters->has_room) return take_block(stream, filter, bytes, once);
    RWS_ASSERT(filter->out != NULL); /* growth_max is true */
    RWS_ASSERT(bytes <= rws__slab_block_bytes(&stream->streams->send_slab, filter->out));
    return filter->out;
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
    if (!chain(stream)->has_room) give_out(stream, filter);
    return status;
}

/* The end records, the innermost first: each is wire for the filter below. False: no room. */
static bool seal_end(rws__stream *stream)
{
    rws__filter_status status = RWS__FILTER_OPEN;
    chain(stream)->has_room = take_way(stream, 0, true);
    if (chain(stream)->has_room) {
        chain(stream)->end_sealed = true;
        rws__filter *filter = stream->filter;
        for (; filter != NULL && status != RWS__FILTER_FAILED; filter = filter->below)
            if (filter->status != RWS__FILTER_HANDSHAKING) status = filter->type->end(filter);
    }
    give_way(stream);
    if (status == RWS__FILTER_FAILED) fail(stream);
    if (chain(stream)->ended)
        stream->eof = true; /* both ends were told */
    else if (stream->finish == RWS__FINISH_CLOSE && chain(stream)->is_up && has_end_record(stream))
        stream->finish = RWS__FINISH_LINGER;
    return chain(stream)->end_sealed;
}

/* Where sealing stops. */
static size_t wire_bytes(const rws__stream *stream)
{
    return is_scarce(stream) ? SCARCE_BYTES : WIRE_BYTES;
}

/* The front of the queue, or a part of it. False: no room. */
static bool seal_some(rws__stream *stream)
{
    const uint8_t *data;
    size_t len = rws__sendq_front(&stream->sendq, &data);
    size_t most = is_scarce(stream) ? SCARCE_BYTES : SEAL_BYTES;
    len = take_room(stream, len < most ? len : most);
    if (len == 0) return false;
    rws__filter_status status = stream->filter->type->seal(stream->filter, data, len);
    give_way(stream);
    if (status == RWS__FILTER_FAILED) {
        fail(stream);
        return true;
    }
    stream->sealed += (uint32_t)len;
    rws__sendq_advance(&stream->sendq, &stream->streams->send_slab, len);
    return true;
}

/* False: there is no room for all that could be sealed now. */
static bool seal(rws__stream *stream)
{
    rws__filters *filters = chain(stream);
    if (stream->filter == NULL || stream->phase < RWS__STREAM_UP ||
        stream->phase > RWS__STREAM_FLUSHING)
        return true;
    while (filters->is_up && !filters->failed && stream->sendq.bytes > 0 &&
           filters->wire.bytes < wire_bytes(stream))
        if (!seal_some(stream)) return false;
    if (stream->phase == RWS__STREAM_FLUSHING && stream->sendq.bytes == 0 && !filters->failed &&
        !filters->end_sealed)
        return seal_end(stream);
    return true;
}

void rws__filters_seal(rws__stream *stream)
{
    rws__filters *filters = chain(stream);
    filters->sealing = true;
    end_starving(stream);
    /* While something is on its way, it is tried again when that was sent. */
    if (!seal(stream) && filters->wire.bytes == 0) starve(stream);
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
    charge(stream);
    settle(stream);
}
