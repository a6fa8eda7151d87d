/*
 * The ring: everything that ringws asks of io_uring, in its own words. uring.c alone names
 * liburing, so that another backend, or a scripted one in tests, can stand in its place.
 *
 * Invariants:
 * - One thread makes, uses and destroys a ring (IORING_SETUP_SINGLE_ISSUER).
 * - A call that queues an operation returns 0, or -EAGAIN with nothing queued when the submission
 * queue is full and the kernel takes no more just now; the caller tries again in the next turn.
 * - Files are direct descriptors (indices of the ring's table), but for listeners and the wake-up
 * descriptor.
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
 * it has been reaped and no completion came. Otherwise the completion has -EAGAIN or the short
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

/* Read the 8 bytes of an eventfd. */
int rws__ring_read_event(rws__ring *ring, int fd, uint64_t *value, uint64_t user_data);
/* One completion (-ETIME) after `ms` milliseconds; at most one call of this and the next function
 * per turn. */
int rws__ring_timeout(rws__ring *ring, uint64_t ms, uint64_t user_data);
/* Move a timeout that is armed to `ms` from now. Nothing happens if it has fired. */
int rws__ring_timeout_update(rws__ring *ring, uint64_t ms, uint64_t user_data);

#endif
