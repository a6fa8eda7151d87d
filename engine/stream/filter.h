/*
 * A filter: a transform of bytes between a stream's file and what is above the stream, such as TLS,
 * PROXY or a proxy's CONNECT. It may change lengths in both directions, and may exchange bytes of
 * its own (a handshake) before it passes any on. "Plain" bytes are those above a filter, "wire"
 * bytes those below it.
 *
 * A filter is a table of functions and an instance: a rws__filter inside of the filter's own
 * memory. The filters of a stream are a chain; the outermost reads what the file brings, the
 * innermost reads what the program's side queues. They are put on a stream before it is up, by a
 * rws__filter_maker, which a listener's configuration and a dial have a field for.
 *
 * Life: start() once all filters below have finished their handshakes; open() and seal(); end()
 * when the stream was finished and every plain byte is sealed, if its handshake was over; free()
 * when it takes itself out, or when the stream is released, and never while one of its functions
 * runs. free() may not use the ring. Of a stream that ends early, on_eof() and free() may be all
 * that a filter sees.
 *
 * seal() and end() are not called within open() of the same filter, but for one case: what open()
 * passes on makes a filter above write something of its own, which seal() gets.
 *
 * Invariants:
 * - on_up is called when every filter has finished its handshake or is out. No plain byte passes a
 *   filter before its own handshake is finished.
 * - The send queue of the stream holds plain bytes. They are sealed when no send is in flight,
 *   until the wire queue has 64 KiB; where the send pool is scarce, 2 KiB or less. The wire queue
 *   exists only with filters, and never has more than 256 KiB.
 * - A stream with filters is one holder of the send pool: its queue, its wire queue and what is on
 *   its way between filters count together. Part of its share is its wire queue's (share.h), and
 *   counts as held even if it is not. Where there is no room to seal anything, it is deferred.
 * - rws__stream_queued() counts plain bytes until the kernel took what they became;
 *   rws__stream.taken, and with it the progress of sending, counts wire bytes.
 * - The chain of a stream exists exactly while `wired`: from the first push until the last filter
 *   is out and what it wrote was sent.
 * - With a filter nothing is lent to the send queue and no receive is direct. When the last filter
 *   is out, both are possible again.
 * - While the stream is paused, wire bytes received still go through the filters; the plain ones
 *   wait in `stalled`.
 * - A filter keeps no pointer to what it was given after its function has returned.
 */
#ifndef RINGWS_STREAM_FILTER_H
#define RINGWS_STREAM_FILTER_H

#include "engine/stream/streams.h"

/* What a filter's functions return. */
typedef enum rws__filter_status {
    RWS__FILTER_HANDSHAKING = 0, /* it needs more wire bytes before plain ones pass */
    RWS__FILTER_OPEN,            /* plain bytes pass */
    RWS__FILTER_DONE,   /* take it out; wire bytes that it did not use go to the next one above */
    RWS__FILTER_ENDED,  /* the peer's end record was received: no plain byte follows */
    RWS__FILTER_FAILED, /* rws__filter_fail() was called: the stream ends */
} rws__filter_status;

/* Wire bytes received. A filter moves `data` and `len` behind what it used. */
typedef struct rws__filter_input {
    uint8_t *data;
    size_t len;
} rws__filter_input;

typedef struct rws__filter_type {
    const char *name;
    /* end() writes a record which says that nothing follows, and peers answer it with theirs. So a
     * stream that is finished does not close before the peer's end record or end of stream: what
     * comes to a closed socket makes the kernel reset the connection. Until then open() is called,
     * and what it passes on is discarded. */
    bool has_end_record;
    /* Everything below is open: send what begins the handshake, if it is this side that begins.
     * HANDSHAKING, OPEN, DONE or FAILED. */
    rws__filter_status (*start)(rws__filter *filter);
    /* Wire to plain. `input` may be changed in place, and is used as a whole, with three
     * exceptions: when it is DONE, when no more is wanted (rws__filter_pass_on() says so), and
     * in the call in which the handshake ends. That call passes nothing on and returns OPEN; it is
     * called again with the rest when what is above was started, if there is one: it is never
     * called with nothing. So what is not the handshake's is left in the input. What is incomplete
     * is kept in the filter's own memory, which it bounds. Any status. */
    rws__filter_status (*open)(rws__filter *filter, rws__filter_input *input);
    /* So many bytes seal() or end() adds at most to what it is given. When the chain calls one,
     * there is room for them, and for what filters below add: else it waits until there is. */
    size_t growth_max;
    /* Plain to wire, all of `len` bytes (1 to 16384), with one commit. OPEN or FAILED. */
    rws__filter_status (*seal)(rws__filter *filter, const uint8_t *data, size_t len);
    /* Nothing of what is above is sealed any more: write the end record, if there is one. Once, and
     * not while it is HANDSHAKING. OPEN or FAILED. */
    rws__filter_status (*end)(rws__filter *filter);
    /* The peer ended its half without an end record, after everything before that was passed on.
     * OPEN: that is an end like any other; or FAILED, if it may have been cut off. It may come in
     * the handshake, even before start(), and does not once the stream was finished. */
    rws__filter_status (*on_eof)(rws__filter *filter);
    void (*free)(rws__filter *filter);
} rws__filter_type;

struct rws__filter {
    const rws__filter_type *type; /* set by who pushes it, with all else zero */
    /* What follows is the chain's. */
    rws__stream *stream;
    rws__filter *above, *below; /* NULL: the program's side; the file */
    uint8_t *out;               /* where it writes if a filter is below: in a block of the slab */
    rws__filter_status status;
};

/* Who is dialled. */
struct rws__filter_target {
    rws_span host; /* of the URL, without brackets; of a unix socket "localhost" */
    uint16_t port; /* of a unix socket 0 */
};

/* Puts the filters on a stream that is about to come up. It outlives every filter that it made. */
struct rws__filter_maker {
    /* Make them, and push them: the outermost first. Returns 0 or a negative status, which ends the
     * stream. `maker` is the start of what the owner keeps for it (a certificate, …); `target` is
     * borrowed until this returns, and NULL if the stream was accepted. */
    int (*make)(const rws__filter_maker *maker, rws__stream *stream,
                const rws__filter_target *target);
};

/* ---- for who puts filters on streams ---- */

/* The stream's filters are made by `maker` (NULL: none) when bytes can be transferred; `target`
 * (borrowed until then) is who is dialled, or NULL. Before it is accepted, adopted or dialled. */
void rws__stream_set_filters(rws__stream *stream, const rws__filter_maker *maker,
                             const rws__filter_target *target);
/* Put `filter` (*taken* if 0 is returned) above those that are there: before bytes can be
 * transferred, or in make(). Returns 0 or -ENOMEM. */
int rws__stream_push_filter(rws__stream *stream, rws__filter *filter);

/* ---- for filters ---- */

/* Pass plain bytes on, in open(). They may be changed in place. Returns whether more is wanted:
 * false when the stream is ending, but for an end record that is waited for. Whoever leaves input
 * then is not called for more. */
bool rws__filter_pass_on(rws__filter *filter, uint8_t *data, size_t len);
/* Room for `bytes` on their way to the wire, or NULL: there is no memory, or the peer takes nothing
 * of what this side answers, and the wire queue would have more than its 256 KiB. What the chain
 * seals or ends has its room, within growth_max; NULL is for what a filter writes of its own, in
 * start() and open(), and for seal() of a filter below it. Followed by rws__filter_commit() in the
 * same call of the filter, with no rws__filter_pass_on() in between. */
uint8_t *rws__filter_reserve(rws__filter *filter, size_t bytes);
/* So many of them were written. OPEN, or FAILED: the filter returns that too. */
rws__filter_status rws__filter_commit(rws__filter *filter, size_t bytes);
/* What went wrong: for what is above, and for the log (RWS_LOG_INFO). Of `text` at most 127 bytes
 * are copied, control characters as '?'. Of several calls the first counts. What waits in the wire
 * queue, such as an alert, is still sent. Returns FAILED. */
rws__filter_status rws__filter_fail(rws__filter *filter, int status, rws_closer who,
                                    const char *text);
/* The same where rws__filter_reserve() returned NULL. */
rws__filter_status rws__filter_fail_no_memory(rws__filter *filter);

#endif
