/*
 * The ring: everything that ringws asks of io_uring, in its own words. uring.c alone names
 * liburing, so that another backend, or a scripted one in tests, can stand in its place.
 *
 * Invariants:
 * - One thread makes, uses and destroys a ring (IORING_SETUP_SINGLE_ISSUER).
 * - A call that queues an operation returns 0, or -EAGAIN with nothing queued when the submission
 *   queue is full and the kernel takes no more just now; the caller tries again in the next turn.
 * - Files are direct descriptors (indices of the ring's table), but for listeners and the wake-up
 *   descriptor.
 *
 * What another ring has to keep, beyond what stands at the functions. It brings sockets.h, event.h,
 * clock.h and random.h with it; buffers.h it can have as it is.
 *
 * Turns
 * - A turn that waits may return without a completion, at any time. Its errors end the loop.
 * - When a turn has returned and rws__ring_pending() is 0, the completion of each quiet send that
 *   was not done in full is there to be reaped: one without a completion was sent.
 * - Completions of one operation come in the order in which they happened: those of a multishot
 *   operation, and the result of a zero-copy send before its notification. Those of different
 *   operations come in any order, also of one file.
 * - A multishot operation may end at any time, with or without an error: its last completion lacks
 *   RWS__CQE_MORE. Other operations have one completion, a zero-copy send one more if the first
 *   has RWS__CQE_MORE.
 * - Operations of one file start in the order of the calls (cancel, disconnect, close), also where
 *   a turn submits a part of them. Only a shutdown may start late, so a file is not closed before
 *   the completion of its shutdown.
 * - Memory of operations is not touched when a turn has failed, nor by rws__ring_destroy(): it may
 *   be gone by then. Completions that were not reaped are dropped with the ring.
 *
 * Results
 * - Accepts into the table: the index. rws__ring_accept_fd(): the descriptor. Install: 1, with the
 *   index in `*fd`; 0 is taken for -ENFILE. Sends and receives: bytes; a receive of 0 is the end of
 *   the stream. Shutdown, close, read of an event, timeout: any, it is not looked at.
 * - A receive that finds no provided buffer ends with -ENOBUFS, also a multishot one.
 * - What was cancelled ends with -ECANCELED, or with its own result if the cancel lost the race; a
 *   send that was partly done ends with its short count. A cancel meets what was called before it,
 *   and not a zero-copy send that only waits for its notification. An install can't be cancelled.
 * - Cancels, a disconnect, a moved timeout and the question for a peer complete only if they fail,
 *   and then with user_data 0: an operation that somebody waits for has another one (RWS__OP_NONE
 *   in engine/loop/op.h is 0).
 *
 * The table
 * - At most `files` indices are in use. One is free as soon as its close has started, before that
 *   operation's completion: another file may have it then, and its accept or install may be reaped
 *   first. What is in flight on the old file is not the new one's.
 *
 * Addresses
 * - Of an accept, `address` and `*len` are written at any time up to the completion. Of a connect,
 *   `address` is read when a turn submits it; callers keep it until the completion. Of
 *   rws__ring_peer() it is written before the end of the next turn.
 *
 * Provided buffers
 * - For each completion with RWS__CQE_BUFFER rws__ring_buffer() is called once, in the order in
 *   which they were reaped, whoever it is for; rws__ring_continues() is asked about a completion
 *   after the calls of rws__ring_buffer() for those before it, and before its own.
 * - The bytes may be written to until the last reader is gone: they are unmasked where they lie,
 *   and sent on from there.
 * - rws__ring_lend() is called for bytes of completions after their rws__ring_buffer() and before
 *   their rws__ring_recycle(); the loan may be released later than that. A ring may always return
 *   false for rws__ring_continues() and NULL for rws__ring_lend(): then bytes are copied.
 */
#ifndef RINGWS_RING_RING_H
#define RINGWS_RING_RING_H

#include "engine/base/features.h"
#include "engine/base/lender.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

typedef struct rws__ring rws__ring;

typedef struct rws__cqe {
    uint64_t user_data;
    int32_t res;
    uint32_t flags; /* RWS__CQE_…; the buffer's index in the upper 16 bits */
} rws__cqe;

/* The kernel's values; uring.c asserts them. */
#define RWS__CQE_BUFFER       1u  /* a provided buffer was used */
#define RWS__CQE_MORE         2u  /* the multishot operation goes on */
#define RWS__CQE_NOTIFICATION 8u  /* the memory of a zero-copy send is ours again */
#define RWS__CQE_BUFFER_MORE  16u /* incremental: the buffer has room left and stays in the ring */
#define RWS__CQE_BUFFER_SHIFT 16

/* In the result of a notification: the kernel copied all the same. */
#define RWS__NOTIFICATION_COPIED (1u << 31)

typedef struct rws__ring_options {
    uint32_t sq_entries;
    uint32_t cq_entries;
    uint32_t files; /* size of the direct descriptor table */
    /* Provided buffers: their number (a power of two) and size where the kernel fills them bit by
     * bit (incremental), and where each receive takes a whole one. */
    uint32_t incremental_buffers;
    size_t incremental_bytes;
    uint32_t plain_buffers;
    size_t plain_bytes;
    uint32_t registered_max; /* size of the table of registered memory; 0: none */
    uint32_t features_off;   /* RWS__FEATURE_… bits (features.h) */
    uint64_t busy_wait_us;   /* a turn that waits polls for so long before it sleeps */
} rws__ring_options;

/* Make a ring with its file table and its provided buffers. Errors: -ENOMEM, -EPERM, -ENOSYS,
 * -EINVAL …; `*what` names the step that failed. */
int rws__ring_create(rws__ring **out, const rws__ring_options *options, const char **what);
void rws__ring_destroy(rws__ring *ring);

/* The RWS__FEATURE_… bits in use. */
uint32_t rws__ring_features(const rws__ring *ring);

/* Submit what is queued and wait for a completion; returns 0 or -errno (-EINTR is 0). */
int rws__ring_turn(rws__ring *ring, bool wait);

/* Take up to `max` completions; returns their number. Flushes and counts an overflowed queue. 0:
 * there are no more. */
uint32_t rws__ring_reap(rws__ring *ring, rws__cqe *out, uint32_t max);

/* Operations that are queued and not submitted: 0 after a turn, unless the kernel could not take
 * them. */
uint32_t rws__ring_pending(const rws__ring *ring);

/* Counters. */
uint64_t rws__ring_overflows(const rws__ring *ring);
uint64_t rws__ring_enters(const rws__ring *ring);

/* The bytes of a receive completion that used a provided buffer. Each such completion is followed
 * by exactly one rws__ring_recycle() of it, when nobody reads the bytes any more. */
uint8_t *rws__ring_buffer(rws__ring *ring, const rws__cqe *cqe);
void rws__ring_recycle(rws__ring *ring, const rws__cqe *cqe);
/* Whether `cqe` is a receive whose bytes begin at `end`: behind it in the same buffer, or at the
 * start of the next one. */
bool rws__ring_continues(const rws__ring *ring, const uint8_t *end, const rws__cqe *cqe);
/* Lend bytes in buffers that are not recycled yet to a send queue for this turn: one more reader
 * until the lender's release(). NULL: they lie in more than two. */
rws__lender *rws__ring_lend(rws__ring *ring, const uint8_t *data, size_t len);

int rws__ring_accept_multishot(rws__ring *ring, int listener, uint64_t user_data);
/* One accept; `address` and `*len` must live until the completion. */
int rws__ring_accept_direct(rws__ring *ring, int listener, struct sockaddr *address, socklen_t *len,
                            uint64_t user_data);
/* One accept that gives an ordinary descriptor. */
int rws__ring_accept_fd(rws__ring *ring, int listener, uint64_t user_data);
/* Move the ordinary descriptor `*fd` into the table; with the completion `*fd` is its index there.
 * The descriptor itself stays open. `*fd` must live until the completion (kernel 6.0:
 * IORING_FILE_INDEX_ALLOC). */
int rws__ring_install(rws__ring *ring, int32_t *fd, uint64_t user_data);

/* Write the peer's address of `file` to `address` (`len` bytes, the family's own size) and submit,
 * so that it is there when the call returns 0 — if the kernel knows it. If it took no more, it is
 * written by the next turn. Needs RWS__FEATURE_SOCKET_COMMANDS. */
int rws__ring_peer(rws__ring *ring, uint32_t file, void *address, socklen_t len);

int rws__ring_recv_multishot(rws__ring *ring, uint32_t file, uint64_t user_data);
/* One receive of at most `len` bytes (0: the buffer's size) into a provided buffer. */
int rws__ring_recv_provided(rws__ring *ring, uint32_t file, size_t len, uint64_t user_data);
int rws__ring_recv(rws__ring *ring, uint32_t file, void *data, size_t len, uint64_t user_data);

/* Send all of `len` bytes, waiting for room. */
int rws__ring_send(rws__ring *ring, uint32_t file, const void *data, size_t len,
                   uint64_t user_data);
/* Send at least one byte and as many as fit, waiting for room; the completion has their number. */
int rws__ring_send_some(rws__ring *ring, uint32_t file, const void *data, size_t len,
                        uint64_t user_data);
/* Ask how many bytes that were sent the peer has not acknowledged (SIOCOUTQ); the completion has
 * their number. TCP only. Needs RWS__FEATURE_SOCKET_COMMANDS. */
int rws__ring_unacknowledged(rws__ring *ring, uint32_t file, uint64_t user_data);
/* Send without waiting and without a completion on success: it is done when the turn that submitted
 * it has been reaped without a completion. Otherwise the completion has -EAGAIN or the short
 * count. */
int rws__ring_send_quiet(rws__ring *ring, uint32_t file, const void *data, size_t len,
                         uint64_t user_data);

/*
 * Send all of `len` bytes, waiting for room, from where they lie: they may not change before the
 * notification, which comes when the peer has them. First comes the completion with the result, and
 * RWS__CQE_MORE if a notification follows; -ENOMEM (limit of locked memory), -EOPNOTSUPP, -EINVAL …
 * if it can't be done here. Needs RWS__FEATURE_SEND_ZC.
 */
int rws__ring_send_zero_copy(rws__ring *ring, uint32_t file, const void *data, size_t len,
                             uint64_t user_data);

/*
 * Registered memory: the `len` bytes at `memory` become entry `index` of a table, which was empty.
 * All of their pages become resident and stay in memory, and count to RLIMIT_MEMLOCK. Until the
 * entry is emptied, a registered send reads *these pages*: if the addresses get others meanwhile
 * (MADV_DONTNEED), it sends what the old ones hold. The call enters the kernel and is done when it
 * returns. Errors: -ENOMEM (limit of locked memory), another -errno. Needs
 * RWS__FEATURE_REGISTERED_BUFFERS.
 */
int rws__ring_register(rws__ring *ring, uint32_t index, void *memory, size_t len);
/* Empty the entry. A send that is in flight keeps its pages. Returns 0 or -errno. */
int rws__ring_unregister(rws__ring *ring, uint32_t index);
/* As rws__ring_send_zero_copy(), for bytes that lie in entry `index`: no page is pinned for it. */
int rws__ring_send_registered(rws__ring *ring, uint32_t file, const void *data, size_t len,
                              uint32_t index, uint64_t user_data);

int rws__ring_connect(rws__ring *ring, uint32_t file, const struct sockaddr *address, socklen_t len,
                      uint64_t user_data);
/* Reset a TCP connection at once: what the peer has not got yet is thrown away. No completion of
 * its own on success. */
int rws__ring_disconnect(rws__ring *ring, uint32_t file);
int rws__ring_shutdown_write(rws__ring *ring, uint32_t file, uint64_t user_data);
int rws__ring_close(rws__ring *ring, uint32_t file, uint64_t user_data);

/* Cancel one operation, or all of a file. No completion of its own on success. */
int rws__ring_cancel(rws__ring *ring, uint64_t user_data);
int rws__ring_cancel_file(rws__ring *ring, uint32_t file);

/* Wait for a signal of an event (event.h); the 8 bytes of its counter are written to `*value`. */
int rws__ring_read_event(rws__ring *ring, int event, uint64_t *value, uint64_t user_data);
/* One completion (-ETIME) after `ms` milliseconds; at most one call of this and the next function
 * per turn. */
int rws__ring_timeout(rws__ring *ring, uint64_t ms, uint64_t user_data);
/* Move a timeout that is armed to `ms` from now. Nothing happens if it has fired. */
int rws__ring_timeout_update(rws__ring *ring, uint64_t ms, uint64_t user_data);

#endif
