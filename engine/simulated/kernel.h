/*
 * A kernel made of memory: the ring seam (engine/ring/ring.h, sockets.h, event.h, clock.h,
 * random.h) on simulated sockets, in virtual time. The engine above it is the very same.
 *
 * Each thread has a kernel of its own: its clock, its sockets, its rings. Nothing here starts a
 * thread, waits, or asks the real kernel for anything but memory. Events (event.h) alone can be
 * signalled by other threads.
 *
 * What is simulated, and after which kernel
 *
 * Time. The clock stands still until rws__sim_advance_to() moves it, or a turn takes time
 * (RWS__SIM_SLOW_TURN). Whatever happens later is an event in one queue, ordered by time and then
 * by when it was made: a run is a function of its seed and of the calls.
 *
 * TCP (net/ipv4, the same from 6.1 to 6.18 as far as it is described here).
 * - Each direction is a pipe: what was written, what has arrived at the other side, what was read.
 *   The sender's buffer holds what has not arrived, the receiver's what was not read; a full
 *   receiver lets nothing more arrive. What arrived is acknowledged: SIOCOUTQ is what has not, and
 *   one for a FIN that has not.
 * - A FIN arrives behind the bytes before it. A receive behind it gets 0, again and again, also
 *   after a reset.
 * - A reset arrives at once in the sender's order of calls, and overtakes bytes that are under way.
 *   Bytes that had arrived can still be read; then ECONNRESET is reported once, to a receive or to
 *   a send, whichever is first; after that receives get 0 and sends EPIPE (tcp_reset(),
 *   sock_error()).
 * - A close with unread bytes resets (tcp_close()). Bytes that arrive at a closed socket are
 *   answered with a reset. After a shutdown of its own, or a reset, a send gets EPIPE.
 * - connect() with AF_UNSPEC resets and throws away what is queued in both directions. ECONNRESET
 *   is reported once; after that receives get ENOTCONN and sends EPIPE (tcp_disconnect()).
 * - A connect to nobody gets ECONNREFUSED. A listener whose backlog is full (one more than it was
 *   told, sk_acceptq_is_full()) drops the SYN, which is sent again a second later. One that is
 *   never answered fails after 127 seconds with ETIMEDOUT (tcp_syn_retries 6).
 * - Listeners of a SO_REUSEPORT group get connections at random. Closing one resets what waits in
 *   its backlog.
 * - A sender is woken when a third of its buffer is free (sk_stream_is_writable()).
 * Unix sockets are taken for TCP, but that a connect with AF_UNSPEC does nothing.
 *
 * io_uring (the folder io_uring of the kernel)
 * - An operation is tried when a turn submits it, and otherwise when its socket is ready and the
 *   ring is entered (IORING_SETUP_DEFER_TASKRUN, 6.1): between turns nothing is written anywhere.
 * - A send with MSG_WAITALL goes on until all is sent; an error behind a part is a short count
 *   (io_send()). A quiet send (MSG_DONTWAIT, CQE_SKIP_SUCCESS) completes only if it was not done in
 *   full.
 * - Multishot receives and accepts are retried until they would block, 32 times in a row at most
 *   (6.10: MULTISHOT_MAX_RETRY), and end when the completion queue is full, with an error, at the
 *   end of the stream, or when there is no buffer (-ENOBUFS).
 * - Accepts, receives and sends hold their socket: a close in the table lets it go with the last of
 *   them. A freed index of the table is the next that is given (io_fixed_fd_install()).
 * - A file that is removed from the table is put at once, as from 6.7 on. (On 6.1 it is when the
 *   operations that were in flight on other files have ended.)
 * - An accept that finds no entry in the table loses the connection (-ENFILE).
 * - Incremental buffers (6.12) are filled one receive behind the other; a receive that ends a
 *   buffer goes on in the next with a completion of its own.
 * - Zero-copy sends: the result, with IORING_CQE_F_MORE, and a notification when the bytes were
 *   acknowledged or the connection is gone. An error may come with or without a notification.
 * - A cancel meets what was submitted before it; what is ready may complete with its own result all
 *   the same.
 * - Completions that find the queue full overflow into a list (IORING_FEAT_NODROP).
 * - The shutdown is run by a worker: it may complete later, other operations before it.
 *
 * Not simulated: packets, congestion, urgent data, SO_LINGER, rights of memory, keep-alive and
 * TCP_USER_TIMEOUT, abstract unix addresses.
 *
 * A breach of ring.h by the engine (memory of a send that changes in flight, a buffer that is given
 * back twice, an index that is not in use …) prints a line and aborts.
 */
#ifndef RINGWS_SIMULATED_KERNEL_H
#define RINGWS_SIMULATED_KERNEL_H

#include "engine/ring/ring.h"
#include "engine/ring/sockets.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* What can go wrong, by class: name, text. Each time that it could, it is decided anew. */
#define RWS__SIM_FAULT_MAP(X)                                                                      \
    X(DELAY, delay, "bytes, ends and connects take up to `delay_us_max`")                          \
    X(SHORT_SEND, short_send, "a send takes fewer bytes than there is room for")                   \
    X(SHORT_RECV, short_recv, "a receive gets fewer bytes than are there")                         \
    X(NO_BUFFER, no_buffer, "a receive finds no provided buffer")                                  \
    X(MULTISHOT_END, multishot_end, "a multishot operation ends with a completion")                \
    X(REORDER, reorder, "completions of different operations change places")                       \
    X(LATE, late, "an operation completes up to `late_us_max` later than it could")                \
    X(SQ_FULL, sq_full, "the submission queue is full and takes nothing until the next turn")      \
    X(SUBMIT_PART, submit_part, "a turn submits a part of what is queued")                         \
    X(CQ_FULL, cq_full, "a completion finds the queue full and overflows")                         \
    X(CANCEL_LOSES, cancel_loses, "what is cancelled completes with its own result if it can")     \
    X(ZC_REFUSED, zc_refused, "a zero-copy send fails (-ENOMEM, -EOPNOTSUPP, -EINVAL)")            \
    X(ZC_COPIED, zc_copied, "a notification reports that the kernel copied")                       \
    X(ZC_LATE, zc_late, "a notification comes up to `late_us_max` later than it could")            \
    X(REGISTER, register, "memory can't be registered")                                            \
    X(CONNECT_REFUSED, connect_refused, "a connect is refused")                                    \
    X(CONNECT_SILENT, connect_silent, "a connect is never answered")                               \
    X(RESET, reset, "a connection is reset when bytes are written to it")                          \
    X(NO_FILE, no_file, "the table of direct descriptors is full")                                 \
    X(NO_DESCRIPTOR, no_descriptor, "the process has no descriptor left")                          \
    X(ACCEPT_ABORTED, accept_aborted, "a connection is gone before it is accepted")                \
    X(SLOW_TURN, slow_turn, "a turn takes up to `slow_us_max`")                                    \
    X(NO_MEMORY, no_memory, "the program's allocator has nothing left (asked by the driver)")

typedef enum rws__sim_fault {
#define RWS__SIM_FAULT_ENUM(name, word, text) RWS__SIM_##name,
    RWS__SIM_FAULT_MAP(RWS__SIM_FAULT_ENUM)
#undef RWS__SIM_FAULT_ENUM
        RWS__SIM_FAULTS
} rws__sim_fault;

typedef struct rws__sim_options {
    uint64_t seed;            /* of random bytes and of all decisions */
    uint32_t features;        /* RWS__FEATURE_… bits that this kernel has */
    size_t send_buffer_bytes; /* of a socket, where SO_SNDBUF is not set */
    size_t recv_buffer_bytes; /* of a socket */
    uint32_t descriptors_max; /* of the process */
    uint64_t delay_us_max, late_us_max, slow_us_max;
    bool poison; /* fill what a receive may write to and what is not received yet */
    uint32_t chance[RWS__SIM_FAULTS];  /* of 65536 */
    uint64_t fail_at[RWS__SIM_FAULTS]; /* it happens at this one, counted from 1; 0: none */
} rws__sim_options;

/* All features, 256 KiB and 128 KiB of buffers, no faults. */
extern const rws__sim_options rws__sim_defaults;

/* Make the thread's kernel anew. Its rings and sockets are gone before, or it is a breach. */
void rws__sim_start(const rws__sim_options *options);
/* Free it. Without it the first call that needs a kernel makes one of rws__sim_defaults. */
void rws__sim_end(void);
/* What can be changed at any time: chances, times, sizes of new sockets. */
rws__sim_options *rws__sim_settings(void);
/* How often a fault happened. */
uint64_t rws__sim_strikes(rws__sim_fault fault);
const char *rws__sim_fault_name(rws__sim_fault fault);
const char *rws__sim_fault_text(rws__sim_fault fault);
/* Whether the fault happens this time. */
bool rws__sim_fails(rws__sim_fault fault);

/* Random numbers of the world's decisions, below `bound` (not 0). */
uint64_t rws__sim_random(uint64_t bound);

/* Of all bytes that were sent so far, in their order. */
uint64_t rws__sim_digest(void);

/* ---- time ---- */

uint64_t rws__sim_now_us(void);
/* When the next thing happens by itself; UINT64_MAX: nothing will. */
uint64_t rws__sim_next_us(void);
/* Let time pass up to `us`, and everything happen that is due until then. */
void rws__sim_advance_to(uint64_t us);

/* ---- rings ---- */

/* Whether a turn of it finds something to do: completions, ready operations, submissions that are
 * left over, a signalled event. Not before: the ring sleeps. */
bool rws__sim_ring_is_ready(const rws__ring *ring);
/* Whether its last turn waited, and found nothing. */
bool rws__sim_ring_sleeps(const rws__ring *ring);

/* ---- the outside world: sockets without a ring ---- */

/* Descriptors as in sockets.h. Nothing waits: -EAGAIN. */
/* One end of a TCP connection that is being made. */
int rws__sim_connect(const struct sockaddr *address, socklen_t len);
/* 0: it stands; -EINPROGRESS; or why not. */
int rws__sim_connected(int fd);
ssize_t rws__sim_read(int fd, void *data, size_t len);
ssize_t rws__sim_write(int fd, const void *data, size_t len);
/* Bytes that could be read now. */
size_t rws__sim_readable(int fd);
/* Whether a read would not wait: bytes, the end, or an error. */
bool rws__sim_is_readable(int fd);
void rws__sim_shutdown(int fd);
/* Reset and close. */
void rws__sim_reset(int fd);
/* As when the peer's machine is gone: nothing arrives any more, in neither direction, and nobody is
 * told. The descriptor is closed. */
void rws__sim_vanish(int fd);
/* Sockets that are held by something; descriptors that are in use. */
uint32_t rws__sim_sockets(void);
uint32_t rws__sim_descriptors(void);

/* Say what is wrong, with the time, and abort. */
_Noreturn void rws__sim_breach(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
