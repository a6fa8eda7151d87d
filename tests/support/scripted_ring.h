/*
 * A stand-in for engine/ring/uring.c: the functions of engine/ring/ring.h without a kernel. It
 * records what the engine submits; a test completes each operation with the result that it wants,
 * or lets the usual ones complete by themselves (`manual` names the others).
 *
 * What is checked at every step, because the kernel would make it a corrupted memory: the memory of
 * a send does not change before its completion (or its notification), nobody writes to the memory
 * of a receive in flight, registered memory keeps its pages and is not unregistered while a send
 * reads it, each completion with a buffer is looked at once and recycled once.
 * `broken` names the first breach. A provided buffer is a block of its own of the exact size, freed
 * when it is recycled, so that the address sanitizer sees whoever reads it later; script_join()
 * puts several into one block.
 *
 * The clock (clock.h) stands still unless a test moves it, `script_now_ms`; random bytes (random.h)
 * are the same in every run.
 */
#ifndef RINGWS_TESTS_SUPPORT_SCRIPTED_RING_H
#define RINGWS_TESTS_SUPPORT_SCRIPTED_RING_H

#include "engine/ring/ring.h"
#include "support/feed.h"

typedef enum script_kind {
    SCRIPT_ACCEPT_MULTISHOT,
    SCRIPT_ACCEPT_DIRECT,
    SCRIPT_ACCEPT_FD,
    SCRIPT_INSTALL,
    SCRIPT_PEER,
    SCRIPT_RECV_MULTISHOT,
    SCRIPT_RECV_PROVIDED,
    SCRIPT_RECV,
    SCRIPT_SEND,
    SCRIPT_SEND_QUIET,
    SCRIPT_SEND_ZERO_COPY,
    SCRIPT_CONNECT,
    SCRIPT_DISCONNECT,
    SCRIPT_SHUTDOWN,
    SCRIPT_CLOSE,
    SCRIPT_CANCEL,
    SCRIPT_CANCEL_FILE,
    SCRIPT_UNACKNOWLEDGED,
    SCRIPT_READ_EVENT,
    SCRIPT_TIMEOUT,
    SCRIPT_TIMEOUT_UPDATE,
    SCRIPT_KINDS
} script_kind;

#define SCRIPT_BIT(kind) (1u << (kind))

/* rws__ring_turn() returns this when the turns that were allowed are used up. */
#define SCRIPT_STOP 1

#define SCRIPT_FILES      256u
#define SCRIPT_BUFFERS    4096u
#define SCRIPT_REGISTERED 64u

/* An operation that was queued and has no last completion yet. */
typedef struct script_op {
    script_kind kind;
    uint64_t user_data;
    uint32_t file;   /* or the descriptor of a listener or event */
    uint8_t *memory; /* lent to the kernel */
    size_t len;
    uint8_t *copy;       /* what `memory` held when it was lent */
    uint64_t target;     /* CANCEL: user_data; TIMEOUT: when it is due */
    bool submitted;      /* a turn has passed */
    bool some;           /* SEND: a short count is not tried again by the kernel */
    bool notifies;       /* SEND_ZERO_COPY: its result was posted, its notification was not */
    uint32_t registered; /* SEND_ZERO_COPY: the entry that it reads + 1, or 0 */
    struct script_op *next;
} script_op;

/* The memory of one provided buffer, or of several that lie one behind the other. */
typedef struct script_block {
    uint8_t *bytes;
    size_t len, filled;
    uint32_t holders; /* buffers in it; and script_join(), until it is full */
} script_block;

/* A provided buffer that was given to the engine and not recycled. */
typedef struct script_buffer {
    rws__lender lender; /* of bytes in it */
    rws__lender across; /* of bytes in it and in `next` */
    rws__ring *ring;
    script_block *block; /* NULL: the index is free */
    uint8_t *data;
    size_t len;
    uint32_t next;
    uint32_t readers; /* a buffer that was looked at and not recycled, and loans */
    bool seen;
} script_buffer;

struct rws__ring {
    script_op *ops; /* in the order of the calls */
    uint32_t features;
    uint32_t manual;               /* SCRIPT_BITs of what does not complete by itself */
    uint32_t refuse[SCRIPT_KINDS]; /* so many of the next calls get -EAGAIN */
    uint64_t refuse_call;          /* the call with this number, from 1, gets -EAGAIN; 0: none */
    uint64_t calls;
    uint64_t calls_of[SCRIPT_KINDS]; /* those that were queued */
    uint32_t submit_max;             /* so many operations per turn */
    int turns_left;
    int turn_result; /* of the next turn, if it is not 0: the kernel refuses to be entered */
    bool refused;    /* since the last turn */
    uint32_t slept;  /* turns that waited although a call had been refused */
    rws__cqe *cqes;  /* scripted, not reaped */
    size_t cqes_first, cqes_count, cqes_capacity;
    script_buffer buffers[SCRIPT_BUFFERS];
    script_block *joined; /* where the next buffers are, or NULL */
    uint32_t buffers_out;
    bool copies;     /* notifications say so */
    bool lends_none; /* no bytes are lent, and no receive continues another */
    struct {
        uint8_t *memory; /* NULL: the entry is empty */
        size_t len;
    } registered[SCRIPT_REGISTERED];
    uint32_t registered_max;                /* entries of the table */
    int register_result, unregister_result; /* of the next calls */
    uint64_t registers, unregisters;        /* calls, failed ones too */
    uint64_t sends_registered;              /* SEND_ZERO_COPY that read an entry */
    uint32_t unacknowledged[SCRIPT_FILES];  /* what UNACKNOWLEDGED answers */
    feed_bytes wire[SCRIPT_FILES];          /* what was sent */
    bool closed[SCRIPT_FILES];
    int32_t next_install; /* the index that the next descriptor gets in the table */
    const char *broken;
};

extern uint64_t script_now_ms;

/* The first operation of a kind on a file (any file: UINT32_MAX), or NULL. */
script_op *script_find(rws__ring *ring, script_kind kind, uint32_t file);
/* The receive of a file, of whatever kind, or NULL. */
script_op *script_find_recv(rws__ring *ring, uint32_t file);
/* Operations on a file that are in flight or queued. */
uint32_t script_count(const rws__ring *ring, uint32_t file);

/* A completion for the next turn. The operation is over unless `flags` has RWS__CQE_MORE. */
void script_complete(rws__ring *ring, script_op *op, int32_t res, uint32_t flags);
/* Bytes for the receive of a file. Returns how many it took; a multishot goes on unless `last`. */
size_t script_recv(rws__ring *ring, uint32_t file, const void *data, size_t len, bool last);
/* The next `len` bytes that come into provided buffers, of whichever files, lie one behind the
 * other in one block, as where the kernel filled one buffer and went on in the next. They have to
 * come in receives that end with the last of them. */
void script_join(rws__ring *ring, size_t len);
/* The notification of a zero-copy send whose result was posted with RWS__CQE_MORE. */
void script_notify(rws__ring *ring, script_op *op, bool copied);
/* Cancel what is in flight on files that were closed: where the cancel itself was manual. */
void script_cancel_closed(rws__ring *ring);
/* A completion out of nowhere; with data, in a provided buffer. */
void script_forge(rws__ring *ring, uint64_t user_data, int32_t res, uint32_t flags,
                  const void *data);

#endif
