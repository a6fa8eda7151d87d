/*
 * A stream: bytes both ways over a file on a ring. Everything about the file is here — its way into
 * the table, connect, the modes of receiving and sending, the send queue, zero copy, input that
 * waits, shutdown, cancel, close, and the deadlines of the transport. It knows no protocol: what is
 * above it gives it a table of functions and memory that begins with a rws__stream.
 *
 * Life: taken from rws__streams, then accepted, adopted or dialled; on_up when bytes can be
 * transferred; rws__stream_finish() or an end of the transport (on_ended); on_released with the
 * last completion.
 *
 * Invariants:
 * - `phase` changes only through one setter, by the table of legal moves in stream.c.
 * - `ops` counts the operations in flight that use the stream's file or memory, and the
 *   notification of a zero-copy send. The slot is freed when the file is closed and `ops` is 0, and
 *   not before: a submitted receive or send still owns our memory after a close. The generation
 *   changes when the slot is freed.
 * - Nothing is submitted from a function that what is above calls: it changes what the stream
 *   wants, and rws__streams_flush() submits it once per turn. What the ring does not take is tried
 *   again in the next turn.
 * - At most one receive and one send are in flight, beside one zero-copy notification, one shutdown
 *   and one question for unacknowledged bytes.
 * - Memory beyond the slot (queue, waiting input) exists only while something is queued or waits.
 */
#ifndef RINGWS_STREAM_STREAM_H
#define RINGWS_STREAM_STREAM_H

#include "engine/base/cause.h"
#include "engine/base/payload.h"
#include "engine/base/wheel.h"
#include "engine/loop/loop.h"
#include "engine/stream/sendq.h"

#include <netinet/in.h>

typedef struct rws__stream rws__stream;
typedef struct rws__streams rws__streams;
typedef struct rws__filter rws__filter;
typedef struct rws__filters rws__filters;
typedef struct rws__filter_maker rws__filter_maker;
typedef struct rws__filter_target rws__filter_target;

typedef enum rws__stream_phase {
    RWS__STREAM_FREE = 0,
    RWS__STREAM_INSTALLING, /* the descriptor is on its way into the table */
    RWS__STREAM_CONNECTING,
    RWS__STREAM_UP,        /* bytes are transferred, a filter's handshake included */
    RWS__STREAM_FLUSHING,  /* what is queued is sent, and acknowledged; then `finish` */
    RWS__STREAM_SHUTTING,  /* our half is to be shut down */
    RWS__STREAM_LINGERING, /* input is discarded until the peer's end of stream, or the deadline */
    RWS__STREAM_CLOSING,   /* take back what is in flight, close the file */
    RWS__STREAM_CLOSED,    /* wait for the completions */
    RWS__STREAM_PHASES
} rws__stream_phase;

/* How a stream ends once its queue is sent. */
typedef enum rws__finish {
    RWS__FINISH_CLOSE,  /* close; if the peer has not acknowledged everything, as LINGER, so that
                           what it still sends can't reset the connection; so, too, if a filter
                           has an end record (filter.h) */
    RWS__FINISH_LINGER, /* shut our half down, wait for the peer's end of stream, close */
    RWS__FINISH_AWAIT,  /* wait for the peer's end of stream, close */
    RWS__FINISH_CUT, /* close at once; the queue, and what the kernel has of it, is thrown away */
} rws__finish;

typedef enum rws__send_mode {
    RWS__SEND_IDLE = 0,
    RWS__SEND_QUIET,     /* in flight; no completion means success */
    RWS__SEND_COUNTED,   /* in flight; a completion will come */
    RWS__SEND_ZERO_COPY, /* likewise; what is lent, is lent to the kernel too */
} rws__send_mode;

/* What a question for unacknowledged bytes is for. */
typedef enum rws__asking {
    RWS__ASKING_NOTHING = 0,
    RWS__ASKING_ABOVE,   /* rws__stream_ask() */
    RWS__ASKING_SENDING, /* the deadline of sending */
    RWS__ASKING_FLUSHED, /* whether a close can lose anything */
    RWS__ASKING_LINGER,  /* the deadline of lingering */
} rws__asking;

typedef enum rws__recv_mode {
    RWS__RECV_IDLE = 0,
    RWS__RECV_MULTISHOT, /* into provided buffers */
    RWS__RECV_SINGLE,    /* into one provided buffer */
    RWS__RECV_DIRECT,    /* into memory of what is above */
} rws__recv_mode;

/* What direct() answers beside a number of bytes. */
#define RWS__DIRECT_NONE   ((size_t)0) /* into provided buffers */
#define RWS__DIRECT_PAUSED SIZE_MAX    /* not now: it has paused the stream */

/* What is above a stream. All on the loop's thread; none is NULL but the last three. */
typedef struct rws__stream_events {
    /* Bytes can be transferred: accepted, connected, and through the handshakes of the filters.
     * Once. */
    void (*on_up)(rws__stream *stream);
    /* `len` bytes were received. They may be changed in place and are borrowed until it returns.
     * Returns how many were taken: less than `len` only if it has paused or finished the stream;
     * the rest comes again after the pause. */
    size_t (*on_input)(rws__stream *stream, uint8_t *data, size_t len);
    /* The peer ended its half, and all input before that was taken. Once. */
    void (*on_eof)(rws__stream *stream);
    /* Queued bytes were sent; only while `report_sent` is set. */
    void (*on_sent)(rws__stream *stream);
    /* The answer to rws__stream_ask(): whether the peer made progress since the last one, or since
     * rws__stream_mark(). */
    void (*on_asked)(rws__stream *stream, bool moved);
    /* The transport or a filter ended it: an error, the peer, or a deadline of the transport. It is
     * closing already, or sends what a filter has queued. Not once rws__stream_finish() was called.
     */
    void (*on_ended)(rws__stream *stream, const rws__cause *cause);
    /* There is no memory for input that waits for the end of a pause: finish it. */
    void (*on_input_overflow)(rws__stream *stream);
    /* At the end of a turn, after rws__stream_want_turn(): for what may not happen in the middle of
     * a callback. */
    void (*on_turn)(rws__stream *stream);
    /* The slot is freed when this returns: give all memory back. */
    void (*on_released)(rws__stream *stream);
    /* Assert its own invariants: after every turn, in builds with RINGWS_CHECK_INVARIANTS. Or NULL.
     */
    void (*check)(rws__stream *stream);
    /* How many bytes are to be received straight into memory of its own, RWS__DIRECT_NONE or
     * RWS__DIRECT_PAUSED. NULL: none, ever. */
    size_t (*direct)(rws__stream *stream);
    /* Memory for `bytes` of them, which lives until they are received (on_input gets this pointer)
     * or the stream is released. NULL: there is none, and it has finished the stream. */
    uint8_t *(*direct_memory)(rws__stream *stream, size_t bytes);
} rws__stream_events;

/* A place in a rws__slot_queue (streams.h): the neighbours' slots + 1; 0: none. */
typedef struct rws__slot_link {
    uint32_t next, prev;
} rws__slot_link;

/* What few streams have, in an array of its own whose pages cost nothing before they are used. What
 * is above extends it. */
typedef struct rws__stream_cold {
    rws__lender *kernel_loan;    /* what a zero-copy send reads, until its notification; or NULL */
    uint8_t *direct;             /* where a direct receive in flight goes */
    const struct sockaddr *dial; /* where it is to be connected to; borrowed until on_up */
    socklen_t dial_len;
    int32_t install_fd;                      /* while `installing` */
    uint32_t ask_interval_ms;                /* of rws__stream_ask() */
    const rws__filter_maker *filter_maker;   /* until it has made the filters; or NULL */
    const rws__filter_target *filter_target; /* for it */
    rws__filters *filters;                   /* while `wired` */
    union {
        struct sockaddr generic;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } peer;                /* AF_UNSPEC: not known, or not asked for yet */
    int32_t kernel_entry;  /* of registered memory (registered.h) that it reads */
    bool zero_copy_sent;   /* some of it left: its notification's report counts */
    bool zero_copy_off;    /* given up */
    rws__slot_link linger; /* LINGERING */
    rws__slot_link starved;
} rws__stream_cold;

/* The bulk of what an idle connection costs. What every message touches comes first. */
struct rws__stream {
    rws__streams *streams;
    const rws__stream_events *events;
    uint32_t slot;
    uint32_t generation;
    uint32_t next_dirty; /* its slot + 1; 0: none */
    int32_t file;        /* index in the ring's table; -1: none */
    uint32_t send_len;   /* bytes in flight */
    uint16_t ops;
    uint8_t phase;
    uint8_t finish; /* a rws__finish */
    uint8_t recv_mode;
    uint8_t send_mode;
    uint8_t small_recvs; /* receives in a row without a large piece */
    bool dirty;
    bool want_turn;      /* on_turn is wanted */
    bool paused;         /* what is above takes no input */
    bool report_sent;    /* on_sent is wanted */
    bool recv_cancelled; /* the cancel of the receive in flight was submitted */
    bool eof;            /* the peer ended its half */
    bool eof_told;
    bool send_blocked;      /* the last send met a full socket */
    bool more_expected;     /* the last receive brought so much that more follows */
    bool bulk;              /* large pieces come here: one receive at a time */
    bool has_cold;          /* it has an entry in the cold array */
    bool installing : 1;    /* a descriptor is, or will be, on its way into the table */
    bool reset : 1;         /* what the peer has not got is thrown away with the file */
    bool shutting_down : 1; /* the shutdown was submitted and has not completed */
    bool half_ended : 1;    /* the shutdown was submitted */
    bool sent_much : 1;     /* more than what leaves at once in the first window of a connection */
    bool end_asked : 1;     /* whether the peer has all was asked when its end had come */
    bool ask_waits : 1;     /* rws__stream_ask() was called and is not answered yet */
    bool wired;             /* what is sent comes from the wire queue of filters (filter.h) */
    bool no_card;        /* a unix socket or loopback: no network card is on the way to the peer */
    uint8_t family;      /* AF_INET, AF_INET6 or AF_UNIX */
    uint8_t asking;      /* a rws__asking: what for the question in flight is */
    uint8_t asking_next; /* likewise: one that the ring did not take */
    uint32_t credit;     /* bytes that the peer may stay behind (stream_progress.c) */
    uint32_t taken;      /* bytes that the kernel took, modulo 2^32 */
    uint32_t taken_mark; /* how many of them were the peer's when that was last looked at */
    uint32_t sealed;     /* plain bytes in the wire queue, or in flight from it */
    rws__timer timer;    /* SENDING; in the phase LINGERING that kind */
    rws__sendq sendq;    /* plain bytes */
    rws__payload *stalled; /* input that waits, or NULL */
    rws__filter *filter;   /* the innermost of what transforms the bytes, or NULL */
};

/* ---- its way up ---- */

/* A file that was accepted into the table. `peer` may be NULL. */
void rws__stream_accepted(rws__stream *stream, int32_t file, const struct sockaddr *peer);
/* An ordinary descriptor (*taken*) is put into the table; then it is up. */
void rws__stream_adopt(rws__stream *stream, int fd);
/* The same, and then connected to `address` (*borrowed* until on_up or on_ended). */
void rws__stream_dial(rws__stream *stream, int fd, const struct sockaddr *address, socklen_t len);

/* ---- sending ---- */

/* rws__stream_reserve() and rws__stream_commit() are in streams.h, inline. */
/* Queue what `lender` lends (*taken* if true is returned). False: copy instead. */
bool rws__stream_lend(rws__stream *stream, const uint8_t *data, size_t bytes, rws__lender *lender);
/* One more reader of `len` bytes at `data` in the provided buffer that is being read, for this turn
 * only; NULL: they lie elsewhere, or the next send would not be this one. */
rws__lender *rws__stream_lend_buffer(rws__stream *stream, const uint8_t *data, size_t len);
/* Bytes that are queued or in flight, as what is above counts them. */
static inline size_t rws__stream_queued(const rws__stream *stream)
{
    return stream->sendq.bytes + stream->sealed;
}

/* ---- receiving ---- */

/* Take no more input, and cancel what is armed; take it again. What was received before the cancel
 * took effect waits, and comes first. */
void rws__stream_pause(rws__stream *stream);
void rws__stream_resume(rws__stream *stream);
/* Input (*taken*) that was kept above for a while: it waits, as if it had come while the stream was
 * paused. Nothing waits yet. */
void rws__stream_return_input(rws__stream *stream, rws__payload *input);
/* Large pieces come here: receive them one at a time, into memory of what is above. */
void rws__stream_expect_bulk(rws__stream *stream);
/* Whether a piece of `bytes` would be received directly. */
bool rws__stream_is_bulk(const rws__stream *stream, uint64_t bytes);

/* ---- ending ---- */

/* Nothing more will be queued: end it as `finish` says. on_input is not called any more. Again with
 * RWS__FINISH_CUT: cut it off now. */
void rws__stream_finish(rws__stream *stream, rws__finish finish);
/* The transport is over (`cause` is borrowed): cut it, and tell what is above. */
void rws__stream_end(rws__stream *stream, const rws__cause *cause);
/* From here on everything that is queued counts as not acknowledged yet. */
void rws__stream_mark(rws__stream *stream);
/* Ask whether the peer acknowledges what was sent: on_asked, once, when other questions are
 * answered. Less than progress_bytes_per_s_min over `interval_ms`, the time since the last question
 * or mark, is no progress, unless it was the rest. Where the kernel can't tell (before 6.7), what
 * it took counts. */
void rws__stream_ask(rws__stream *stream, uint32_t interval_ms);

/* ---- the rest ---- */

/* To be looked at, at the end of the turn. */
void rws__stream_mark_dirty(rws__stream *stream);
/* The same, and on_turn is called then. */
void rws__stream_want_turn(rws__stream *stream);
/* The cold part; cleared when the slot is given back. */
rws__stream_cold *rws__stream_cold_part(rws__stream *stream);
/* The peer's address, asked of the kernel if need be and it can (6.7); NULL: not known. */
const struct sockaddr *rws__stream_peer(rws__stream *stream);

static inline bool rws__stream_is_finishing(const rws__stream *stream)
{
    return stream->phase >= RWS__STREAM_FLUSHING;
}

#endif
