#include "engine/base/pages.h"
#include "engine/ring/random.h"
#include "engine/ring/sockets.h"
#include "engine/stream/internal.h"

#include <errno.h>
#include <string.h>

/* ---- memory ---- */

int rws__streams_init(rws__streams *streams, rws__loop *loop, const rws__streams_options *options)
{
    streams->loop = loop;
    streams->options = *options;
    /* Another runtime's ids are found here only with a chance of 2^-32. */
    rws__random(&streams->generation_first, sizeof streams->generation_first);
    if (streams->generation_first == 0) streams->generation_first = 1;
    streams->linger.link_offset = offsetof(rws__stream_cold, linger);
    streams->starved.link_offset = offsetof(rws__stream_cold, starved);
    size_t slots = options->slots_max;
    RWS_ASSERT(slots > 0 && slots <= RWS__SLOTS_MAX);
    RWS_ASSERT(options->slot_bytes >= sizeof(rws__stream));
    RWS_ASSERT(options->cold_bytes >= sizeof(rws__stream_cold));
    streams->quiet.capacity = options->slots_max;
    streams->slots = rws__pages_reserve(slots * options->slot_bytes);
    streams->cold = rws__pages_reserve(slots * options->cold_bytes);
    streams->free_slots = rws__pages_reserve(slots * sizeof(uint32_t));
    streams->files_to_close = rws__pages_reserve(slots * sizeof(uint32_t));
    streams->quiet.streams = rws__pages_reserve(slots * sizeof(rws__stream *));
    if (streams->slots == NULL || streams->cold == NULL || streams->free_slots == NULL ||
        streams->files_to_close == NULL || streams->quiet.streams == NULL ||
        rws__pool_create(&streams->partial, loop->env, options->partial_bytes_max,
                         options->retained_bytes_max) != 0 ||
        rws__slab_init(&streams->send_slab, options->send_pool_bytes_max) != 0)
        return -ENOMEM;
    rws__share_init(&streams->send_share, streams->send_slab.bytes, options->slots_max);
    rws__share_init(&streams->stall_share, options->partial_bytes_max / 2, options->slots_max);
    return 0;
}

/* ---- queues of slots ---- */

static rws__slot_link *link_of(const rws__slot_queue *queue, rws__stream *stream)
{
    return (void *)((uint8_t *)rws__stream_cold_part(stream) + queue->link_offset);
}

static rws__stream *stream_of(const rws__streams *streams, uint32_t own)
{
    return own != 0 ? rws__streams_at(streams, own - 1) : NULL;
}

rws__stream *rws__slot_queue_first(const rws__streams *streams, const rws__slot_queue *queue)
{
    return stream_of(streams, queue->first);
}

rws__stream *rws__slot_queue_next(const rws__slot_queue *queue, const rws__stream *stream)
{
    const void *link = (const uint8_t *)rws__stream_cold_of(stream) + queue->link_offset;
    return stream_of(stream->streams, ((const rws__slot_link *)link)->next);
}

void rws__slot_queue_append(rws__slot_queue *queue, rws__stream *stream)
{
    rws__stream *last = stream_of(stream->streams, queue->last);
    uint32_t *next = last != NULL ? &link_of(queue, last)->next : &queue->first;
    *link_of(queue, stream) = (rws__slot_link){.prev = queue->last};
    *next = queue->last = stream->slot + 1;
}

void rws__slot_queue_remove(rws__slot_queue *queue, rws__stream *stream)
{
    rws__slot_link *own = link_of(queue, stream);
    rws__stream *after = stream_of(stream->streams, own->next);
    rws__stream *before = stream_of(stream->streams, own->prev);
    *(before != NULL ? &link_of(queue, before)->next : &queue->first) = own->next;
    *(after != NULL ? &link_of(queue, after)->prev : &queue->last) = own->prev;
    *own = (rws__slot_link){0};
}

/* ---- the loop's memory ---- */

void rws__streams_open(rws__streams *streams, uint32_t loops)
{
    rws__registered_init(&streams->registered, &streams->partial->slab, streams->loop->ring,
                         rws__registered_regions_max(loops), RWS__REGISTERED_BYTES);
}

void rws__streams_deinit(rws__streams *streams)
{
    size_t slots = streams->options.slots_max;
    rws__pool_close(streams->partial);
    rws__slab_deinit(&streams->send_slab);
    rws__pages_release(streams->slots, slots * streams->options.slot_bytes);
    rws__pages_release(streams->cold, slots * streams->options.cold_bytes);
    rws__pages_release(streams->free_slots, slots * sizeof(uint32_t));
    rws__pages_release(streams->files_to_close, slots * sizeof(uint32_t));
    rws__pages_release(streams->quiet.streams, slots * sizeof(rws__stream *));
}

/* ---- slots ---- */

rws__stream *rws__streams_take(rws__streams *streams, const rws__stream_events *events)
{
    uint32_t slot;
    if (streams->free_count > 0) {
        slot = streams->free_slots[streams->free_first];
        streams->free_first = (streams->free_first + 1) % streams->options.slots_max;
        streams->free_count--;
    } else if (streams->slots_touched < streams->options.slots_max) {
        slot = streams->slots_touched++;
    } else {
        return NULL;
    }
    streams->slots_used++;
    rws__count(&streams->loop->counters.connections, 1);
    rws__stream *stream = rws__streams_at(streams, slot);
    uint32_t generation = stream->generation;
    memset(stream, 0, streams->options.slot_bytes);
    stream->streams = streams;
    stream->events = events;
    stream->slot = slot;
    /* 0 is no generation, so that no id is 0. */
    stream->generation = generation != 0 ? generation : streams->generation_first;
    stream->file = -1;
    return stream;
}

static void give(rws__stream *stream)
{
    rws__streams *streams = stream->streams;
    uint32_t slots_max = streams->options.slots_max;
    if (++stream->generation == 0) stream->generation = 1;
    streams->free_slots[(streams->free_first + streams->free_count++) % slots_max] = stream->slot;
    streams->slots_used--;
    rws__count(&streams->loop->counters.connections, (uint64_t)-1);
}

rws__stream_cold *rws__stream_cold_part(rws__stream *stream)
{
    stream->has_cold = true;
    const rws__streams *streams = stream->streams;
    return (void *)(streams->cold + stream->slot * streams->options.cold_bytes);
}

static void release(rws__stream *stream)
{
    rws__streams *streams = stream->streams;
    RWS_ASSERT(!rws__timer_is_set(&stream->timer));
    stream->events->on_released(stream);
    rws__filters_free(stream);
    rws__sendq_clear(&stream->sendq, &streams->send_slab);
    rws__stream_drop_stalled(stream);
    if (stream->has_cold) {
        rws__stream_cold *cold = rws__stream_cold_part(stream);
        RWS_ASSERT(cold->kernel_loan == NULL);
        memset(cold, 0, streams->options.cold_bytes);
    }
    rws__stream_enter(stream, RWS__STREAM_FREE);
    give(stream);
}

void rws__stream_try_release(rws__stream *stream)
{
    if (stream->phase != RWS__STREAM_CLOSED || stream->ops > 0 || stream->dirty) return;
    release(stream);
}

void rws__streams_abandon(rws__streams *streams)
{
    rws__cause cause = rws__cause_abnormal(RWS_E_STATE, RWS_CLOSED_BY_US, NULL);
    for (uint32_t slot = 0; slot < streams->slots_touched; slot++) {
        rws__stream *stream = rws__streams_at(streams, slot);
        if (stream->phase == RWS__STREAM_FREE) continue;
        rws__stream_end(stream, &cause);
        if (stream->installing) rws__socket_close(rws__stream_cold_part(stream)->install_fd);
        if (stream->want_turn) stream->events->on_turn(stream);
        /* What lends (buffers, messages) outlives neither the ring nor the queue. No send goes on:
         * with DEFER_TASKRUN that needs this thread in the kernel. */
        rws__stream_abandon_loan(stream);
        if (stream->phase == RWS__STREAM_CLOSING) rws__stream_enter(stream, RWS__STREAM_CLOSED);
        release(stream);
    }
}

/* ---- the lists of the turn ---- */

void rws__stream_mark_dirty(rws__stream *stream)
{
    if (stream->dirty) return;
    stream->dirty = true;
    stream->next_dirty = stream->streams->dirty;
    stream->streams->dirty = stream->slot + 1;
}

void rws__stream_want_turn(rws__stream *stream)
{
    stream->want_turn = true;
    rws__stream_mark_dirty(stream);
}

void rws__stream_defer(rws__stream *stream)
{
    rws__streams *streams = stream->streams;
    if (stream->dirty) return;
    stream->dirty = true;
    stream->next_dirty = 0;
    if (streams->deferred == 0)
        streams->deferred = stream->slot + 1;
    else
        rws__streams_at(streams, streams->deferred_last - 1)->next_dirty = stream->slot + 1;
    streams->deferred_last = stream->slot + 1;
}

static void pump_list(rws__streams *streams, uint32_t next)
{
    while (next != 0) {
        rws__stream *stream = rws__streams_at(streams, next - 1);
        next = stream->next_dirty;
        stream->dirty = false;
        rws__stream_pump(stream);
    }
}

void rws__streams_close_file(rws__streams *streams, int32_t file)
{
    /* Each has an entry of the table, which is as large. */
    RWS_ASSERT(streams->files_to_close_count < streams->options.slots_max);
    streams->files_to_close[streams->files_to_close_count++] = (uint32_t)file;
}

static void close_files(rws__streams *streams)
{
    while (streams->files_to_close_count > 0) {
        uint32_t file = streams->files_to_close[streams->files_to_close_count - 1];
        if (rws__ring_close(streams->loop->ring, file, 0) != 0) {
            streams->loop->refused = true;
            return;
        }
        streams->files_to_close_count--;
    }
}

void rws__streams_flush(rws__streams *streams)
{
    /* What gets dirty while this runs is for the next turn. */
    uint32_t deferred = streams->deferred, dirty = streams->dirty;
    streams->deferred = streams->deferred_last = streams->dirty = 0;
    streams->direct_bytes = 0;
    rws__pool_collect(streams->partial);
    close_files(streams);
    pump_list(streams, deferred);
    pump_list(streams, dirty);
    /* What the others gave back is theirs. */
    if (streams->starved.first != 0) rws__filters_retry(streams);
    rws__registered_settle(&streams->registered);
    rws__streams_check(streams);
}

bool rws__streams_are_busy(const rws__streams *streams)
{
    return streams->dirty != 0 || streams->deferred != 0;
}

void rws__streams_settle(rws__streams *streams, bool all_submitted)
{
    /* Not while submissions are left over: one of these may not have been tried yet. */
    rws__quiet_list *quiet = &streams->quiet;
    if (!all_submitted) return;
    for (uint32_t i = 0; i < quiet->count; i++) {
        rws__stream *stream = quiet->streams[i];
        if (stream->send_mode != RWS__SEND_QUIET) continue;
        rws__stream_quiet_done(stream);
        rws__stream_try_release(stream);
    }
    quiet->count = 0;
}

/* ---- completions ---- */

/* A receive, and what follows it if it goes on in the next buffer; `cqes`: all that are left of the
 * batch. Returns how many were used. */
static uint32_t on_recv(rws__streams *streams, rws__stream *stream, const rws__cqe *cqes,
                        uint32_t left)
{
    rws__ring *ring = streams->loop->ring;
    bool more = cqes->flags & RWS__CQE_MORE;
    if (!(cqes->flags & RWS__CQE_BUFFER)) {
        if (stream != NULL) rws__stream_on_recv(stream, cqes->res, NULL, more);
        return 1;
    }
    uint8_t *data = rws__ring_buffer(ring, cqes);
    int32_t len = cqes->res;
    uint32_t used = 1;
    while (more && used < left && cqes[used].user_data == cqes->user_data &&
           rws__ring_continues(ring, data + len, &cqes[used])) {
        (void)rws__ring_buffer(ring, &cqes[used]);
        len += cqes[used].res;
        more = cqes[used].flags & RWS__CQE_MORE;
        used++;
    }
    streams->buffer = data;
    streams->buffer_end = data + len;
    if (stream != NULL) rws__stream_on_recv(stream, len, data, more);
    streams->buffer = NULL;
    for (uint32_t i = 0; i < used; i++)
        rws__ring_recycle(ring, &cqes[i]);
    return used;
}

/* An operation that has one completion and is counted. */
static void on_operation(rws__stream *stream, const rws__cqe *cqe)
{
    stream->ops--;
    switch (rws__op_kind_of(cqe->user_data)) {
    case RWS__OP_SHUTDOWN: rws__stream_on_shut_down(stream, cqe->res); break;
    case RWS__OP_CLOSE: stream->file = -1; break;
    case RWS__OP_INSTALL: rws__stream_on_installed(stream, cqe->res); break;
    case RWS__OP_CONNECT: rws__stream_on_connected(stream, cqe->res); break;
    case RWS__OP_ASK: rws__stream_on_answer(stream, cqe->res); break;
    default: RWS_UNREACHABLE("not an operation of a stream");
    }
}

uint32_t rws__streams_on_completions(rws__streams *streams, const rws__cqe *cqes, uint32_t left)
{
    uint32_t slot = rws__op_slot(cqes->user_data);
    RWS_ASSERT(slot < streams->slots_touched);
    rws__stream *stream = rws__streams_at(streams, slot);
    rws__op_kind kind = rws__op_kind_of(cqes->user_data);
    uint32_t used = 1;
    if (stream->generation != rws__op_generation(cqes->user_data)) stream = NULL;
    if (kind == RWS__OP_RECV)
        used = on_recv(streams, stream, cqes, left);
    else if (stream == NULL)
        return used;
    else if (kind != RWS__OP_SEND)
        on_operation(stream, cqes);
    else if (cqes->flags & RWS__CQE_NOTIFICATION)
        rws__stream_on_notification(stream, (uint32_t)cqes->res & RWS__NOTIFICATION_COPIED);
    else
        rws__stream_on_send(stream, cqes->res, cqes->flags & RWS__CQE_MORE);
    if (stream != NULL) rws__stream_try_release(stream);
    return used;
}
