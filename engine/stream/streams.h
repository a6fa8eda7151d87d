/*
 * The streams of one loop: their slots, the memory that they share, and the lists of what is to be
 * done at the end of the turn.
 *
 * Invariants:
 * - A slot is `slot_bytes` long and begins with a rws__stream; likewise the cold array.
 * - A stream is on at most one of the lists `dirty` and `deferred`.
 * - Every quiet send in flight has an entry in `quiet`, until it was settled or completed.
 * - The streams in the phase LINGERING, and no others, are on the list `linger`, oldest first.
 * - The streams whose filters wait for room in the send pool, with nothing in flight, are on the
 *   list `starved`, and tried again each turn.
 * - A file that no stream has is on the list of files to close until the ring took its close.
 */
#ifndef RINGWS_STREAM_STREAMS_H
#define RINGWS_STREAM_STREAMS_H

#include "engine/base/share.h"
#include "engine/stream/registered.h"
#include "engine/stream/stream.h"

/* Settled once per turn: at most one quiet send of a stream is in flight. */
typedef struct rws__quiet_list {
    rws__stream **streams;
    uint32_t count, capacity;
} rws__quiet_list;

/* Streams in the order in which they were appended. Their links stand in their cold parts. */
typedef struct rws__slot_queue {
    uint32_t first, last; /* slots + 1; 0: none */
    uint32_t link_offset; /* of the rws__slot_link in a cold part */
} rws__slot_queue;

typedef struct rws__streams_options {
    uint32_t slots_max;
    size_t slot_bytes, cold_bytes; /* at least a rws__stream and a rws__stream_cold */
    size_t send_pool_bytes_max;
    size_t partial_bytes_max; /* waiting input, and what is above puts there */
    size_t retained_bytes_max;
    uint32_t send_timeout_ms;
    uint32_t linger_timeout_ms;
    uint32_t progress_bytes_per_s_min; /* less is no progress */
} rws__streams_options;

struct rws__streams {
    rws__loop *loop;
    rws__streams_options options;
    uint8_t *slots; /* mapped, so that a slot never used costs nothing */
    uint8_t *cold;
    uint32_t slots_touched; /* slots that were ever used */
    uint32_t slots_used;
    uint32_t generation_first; /* of each slot */
    uint32_t *free_slots;      /* first in, first out */
    uint32_t free_first, free_count;
    /* Streams, by slot + 1 (0: none): to be looked at, at the end of the turn, and before those,
     * first come, first served. */
    uint32_t dirty;
    uint32_t deferred, deferred_last;
    rws__slot_queue linger;
    rws__slot_queue starved;
    bool hurried;        /* nobody lingers for longer than it must */
    size_t direct_bytes; /* asked for by direct receives of this turn */
    rws__quiet_list quiet;
    uint32_t *files_to_close;
    uint32_t files_to_close_count;
    uint32_t check_next; /* of stream_check.c */
    /* The bytes in provided buffers that are being read; NULL: none. */
    const uint8_t *buffer, *buffer_end;
    rws__slab send_slab;
    rws__share send_share;      /* who may take how much of it */
    rws__pool *partial;         /* messages, heads and waiting input */
    rws__share stall_share;     /* who may have how much of it as waiting input */
    size_t stalled_bytes;       /* waiting input of all */
    rws__registered registered; /* parts of its slab */
};

/* Zeroed memory in, which rws__streams_deinit() takes also after a failure. Returns 0 or -ENOMEM.
 * Any thread. */
int rws__streams_init(rws__streams *streams, rws__loop *loop, const rws__streams_options *options);
void rws__streams_deinit(rws__streams *streams);
/* The loop ended with an error: everything that is still there is cut off and released, without the
 * ring's help; what the kernel was lent comes back with it. Loop thread. */
void rws__streams_abandon(rws__streams *streams);

/* On the loop's thread, when it has its ring. `loops` is the number of loops that
 * share RLIMIT_MEMLOCK: those of one runtime. */
void rws__streams_open(rws__streams *streams, uint32_t loops);

/* Take a free slot, or NULL. */
rws__stream *rws__streams_take(rws__streams *streams, const rws__stream_events *events);
static inline rws__stream *rws__streams_at(const rws__streams *streams, uint32_t slot)
{
    return (rws__stream *)(void *)(streams->slots + slot * streams->options.slot_bytes);
}
/* The cold part of a stream that has one. */
static inline const rws__stream_cold *rws__stream_cold_of(const rws__stream *stream)
{
    const rws__streams *streams = stream->streams;
    return (const void *)(streams->cold + stream->slot * streams->options.cold_bytes);
}
/* The stream that has stood in `queue` longest, or NULL; and the one behind `stream`. */
rws__stream *rws__slot_queue_first(const rws__streams *streams, const rws__slot_queue *queue);
rws__stream *rws__slot_queue_next(const rws__slot_queue *queue, const rws__stream *stream);
/* `stream` stands in no queue with these links; and it stands in this one. */
void rws__slot_queue_append(rws__slot_queue *queue, rws__stream *stream);
void rws__slot_queue_remove(rws__slot_queue *queue, rws__stream *stream);
/* Call before a slot is taken: with fewer than `slots` free ones, the stream that lingers longest
 * is closed. */
void rws__streams_make_room(rws__streams *streams, uint32_t slots);
/* All will end soon: from now on streams linger only until the peer has acknowledged everything. */
void rws__streams_hurry(rws__streams *streams);
/* Close a file that no stream has, with the next flush. */
void rws__streams_close_file(rws__streams *streams, int32_t file);

/* ---- the turn (see loop.h) ---- */

void rws__streams_flush(rws__streams *streams);
bool rws__streams_are_busy(const rws__streams *streams);
uint32_t rws__streams_on_completions(rws__streams *streams, const rws__cqe *cqes, uint32_t left);
void rws__streams_settle(rws__streams *streams, bool all_submitted);
/* A timer of the kinds SENDING and LINGER fired. */
void rws__streams_on_sending_deadline(rws__timer *timer, void *loop);
void rws__streams_on_linger_deadline(rws__timer *timer, void *loop);

/* Whether a stream may queue one more message of `bytes`, by its share of the send pool. */
static inline bool rws__stream_has_share(const rws__stream *stream, size_t bytes)
{
    const rws__streams *streams = stream->streams;
    const rws__slab *slab = &streams->send_slab;
    /* A block is less than twice what was asked for, and the first half is anybody's. */
    return slab->used_bytes + 2 * bytes <= slab->bytes / 2 ||
           rws__share_allows(&streams->send_share, slab->used_bytes, stream->sendq.held_bytes,
                             rws__slab_block_for(bytes), RWS__SHARE_MESSAGE);
}

/* Room for `bytes` in one piece at the end of the queue, or NULL: the pool, or this stream's share
 * of it for that `use`, is taken. They count with rws__stream_commit(). */
static inline uint8_t *rws__stream_reserve(rws__stream *stream, size_t bytes, rws__share_use use)
{
    rws__chunk *chunk = stream->sendq.tail;
    if (chunk != NULL && chunk->capacity - chunk->end >= bytes) return chunk->own + chunk->end;
    return rws__sendq_grow(&stream->sendq, &stream->streams->send_slab,
                           &stream->streams->send_share, bytes, use);
}

static inline void rws__stream_commit(rws__stream *stream, size_t bytes)
{
    rws__sendq_commit(&stream->sendq, bytes);
    if (stream->send_mode == RWS__SEND_IDLE) rws__stream_mark_dirty(stream);
}

#endif
