/*
 * What the files of stream/ have of each other.
 */
#ifndef RINGWS_STREAM_INTERNAL_H
#define RINGWS_STREAM_INTERNAL_H

#include "engine/base/assert.h"
#include "engine/stream/streams.h"

/* stream.c: phases */
void rws__stream_enter(rws__stream *stream, rws__stream_phase phase);
/* The transport failed with -errno. */
void rws__stream_broken(rws__stream *stream, int32_t res);
void rws__stream_pump(rws__stream *stream);
void rws__stream_on_installed(rws__stream *stream, int32_t res);
void rws__stream_on_connected(rws__stream *stream, int32_t res);
void rws__stream_on_shut_down(rws__stream *stream, int32_t res);
/* Once the peer's half has ended no receive tells of a reset, and its bytes are never acknowledged:
 * a shutdown does, and changes nothing otherwise. */
void rws__stream_ask_for_reset(rws__stream *stream);
static inline uint64_t rws__stream_op(const rws__stream *stream, rws__op_kind kind)
{
    return rws__op_pack(kind, stream->slot, stream->generation);
}

/* stream_check.c */
/* Assert what stream.h and streams.h state, where RINGWS_CHECK_INVARIANTS is defined. */
void rws__stream_check(rws__stream *stream);
void rws__streams_check(rws__streams *streams);

/* streams.c */
void rws__stream_try_release(rws__stream *stream);
/* Look at it in the next turn, before all that are not deferred. */
void rws__stream_defer(rws__stream *stream);

/* stream_recv.c */
void rws__stream_pump_recv(rws__stream *stream);
void rws__stream_on_recv(rws__stream *stream, int32_t res, uint8_t *data, bool more);
/* Input for what is above; what it does not take waits. */
void rws__stream_deliver(rws__stream *stream, uint8_t *data, size_t len);
void rws__stream_deliver_stalled(rws__stream *stream);
void rws__stream_drop_stalled(rws__stream *stream);

/* stream_send.c */
void rws__stream_pump_send(rws__stream *stream);
/* `more`: a notification follows. */
void rws__stream_on_send(rws__stream *stream, int32_t res, bool more);
/* The quiet send in flight got no completion: it is done. */
void rws__stream_quiet_done(rws__stream *stream);
/* Whether nothing is queued or in flight. */
bool rws__stream_is_sent(rws__stream *stream);
/* Whether the peer has to take something: what is queued or in flight, or what is lent to the
 * kernel until the peer has it. */
bool rws__stream_owes(rws__stream *stream);

/* filter.c: the chain of filters; filter.h */
/* Bytes can be transferred: make the filters and start their handshakes. on_up is called when they
 * end. */
void rws__filters_start(rws__stream *stream);
/* Wire bytes were received. */
void rws__filters_input(rws__stream *stream, uint8_t *data, size_t len);
/* The peer ended its half, and all input before that was taken. False: they ended the stream. */
bool rws__filters_on_eof(rws__stream *stream);
/* Whether the peer's end record was received: no input follows. */
bool rws__filters_have_ended(const rws__stream *stream);
/* Plain bytes to the wire queue, as far as it and the send pool have room; at last the end record.
 */
void rws__filters_seal(rws__stream *stream);
rws__sendq *rws__filters_wire(rws__stream *stream);
/* Pump those on the list `starved`. */
void rws__filters_retry(rws__streams *streams);
/* Whether it is on that list: something is still to be sealed, if only the end record. */
bool rws__filters_are_starved(const rws__stream *stream);
/* Whether what is queued can't be sealed now, with nothing in flight: a handshake is not over, the
 * pool has no room, or the chain has failed. */
bool rws__filters_hold_back(const rws__stream *stream);
/* The kernel took `len` bytes of the wire queue. */
void rws__filters_sent(rws__stream *stream, size_t len);
/* Give all their memory back. */
void rws__filters_free(rws__stream *stream);
/* The queue that is sent from. */
static inline rws__sendq *rws__stream_out(rws__stream *stream)
{
    return stream->wired ? rws__filters_wire(stream) : &stream->sendq;
}
/* Bytes that the kernel has not taken: plain ones, and those that filters made of others. */
static inline size_t rws__stream_unsent(rws__stream *stream)
{
    size_t wire = stream->wired ? rws__filters_wire(stream)->bytes : 0;
    return stream->sendq.bytes + wire;
}

/* stream_progress.c: what the peer acknowledged */
/* Something is queued that the socket does not take: from now on it has to make progress. */
void rws__stream_watch(rws__stream *stream);
void rws__stream_unwatch(rws__stream *stream);
/* While it is watched, after bytes were taken. */
void rws__stream_bound_mark(rws__stream *stream);
/* Ask how many bytes are not acknowledged; the answer is handled as `what` says. Not while another
 * question is in flight. */
void rws__stream_ask_for(rws__stream *stream, rws__asking what);
/* The ring did not take the question. */
void rws__stream_ask_again(rws__stream *stream);
void rws__stream_on_answer(rws__stream *stream, int32_t res);
bool rws__stream_can_ask(const rws__stream *stream);
/* How many bytes more than at the last mark are acknowledged; negative if the mark was a guess. */
int32_t rws__stream_progress(rws__stream *stream, uint32_t unacknowledged);
/* Whether `more` bytes, of which so many are still missing, are progress over `interval_ms`. */
bool rws__stream_goes_on(const rws__stream *stream, int32_t more, uint32_t unacknowledged,
                         uint32_t interval_ms);
/* Cut it; `unacknowledged` bytes, which the kernel still has, are lost too, and the kernel need not
 * keep them for a peer that takes nothing. */
void rws__stream_cut_off(rws__stream *stream, uint32_t unacknowledged);

/* stream_linger.c */
/* The phase LINGERING begins, and ends. */
void rws__stream_begin_linger(rws__stream *stream);
void rws__stream_end_linger(rws__stream *stream);
void rws__stream_set_linger(rws__stream *stream);
/* The peer's half has ended, and not all is acknowledged. */
void rws__stream_look_soon(rws__stream *stream);
void rws__stream_judge_linger(rws__stream *stream, uint32_t unacknowledged);

/* stream_zero_copy.c */
/* Whether the front of the queue, `len` bytes, is to be sent without a copy. */
bool rws__stream_may_zero_copy(rws__stream *stream, size_t len);
/* Submit it. Returns 0 or -EAGAIN. */
int rws__stream_send_zero_copy(rws__stream *stream, const uint8_t *data, size_t len,
                               uint64_t user_data);
/* It has completed. Returns `res`, or -EAGAIN where a plain send is to be tried instead. */
int32_t rws__stream_end_zero_copy(rws__stream *stream, int32_t res, bool more);
void rws__stream_on_notification(rws__stream *stream, bool copied);
/* Whether the kernel reads what a zero-copy send was given. */
bool rws__stream_lends_to_kernel(const rws__stream *stream);
/* The ring is gone, or will be: take the loan back without its notification. */
void rws__stream_abandon_loan(rws__stream *stream);

#endif
