/*
 * io_uring through liburing 2.3, with newer features by number (compat.h) where the running kernel
 * has them.
 *
 * SINGLE_ISSUER and DEFER_TASKRUN were measured to give 15 % at 512 connections: completions are
 * run when the loop asks for them, not by interrupting it. The sizes of the queues are shard.c's.
 */
#include "engine/ring/ring.h"

#include "engine/base/assert.h"
#include "engine/base/pages.h"
#include "engine/ring/buffers.h"
#include "engine/ring/compat.h"

#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* A program has this or the testing kit (engine/testing/alone.c), which has the symbol as well: two
 * static libraries are refused by the linker, with the name for a reason. */
extern const char ringws_and_ringws_testing_cannot_be_linked_together[];
const char ringws_and_ringws_testing_cannot_be_linked_together[] = "ringws";

static_assert(RWS__CQE_BUFFER == IORING_CQE_F_BUFFER, "kernel's value");
static_assert(RWS__CQE_MORE == IORING_CQE_F_MORE, "kernel's value");
static_assert(RWS__CQE_NOTIFICATION == IORING_CQE_F_NOTIF, "kernel's value");
static_assert(RWS__CQE_BUFFER_MORE == RWS__CQE_F_BUF_MORE, "kernel's value");
#ifdef IORING_CQE_F_BUF_MORE
static_assert(RWS__CQE_BUFFER_MORE == IORING_CQE_F_BUF_MORE, "kernel's value");
#endif
static_assert(RWS__NOTIFICATION_COPIED == RWS__NOTIF_USAGE_ZC_COPIED, "kernel's value");
static_assert(RWS__CQE_BUFFER_SHIFT == IORING_CQE_BUFFER_SHIFT, "kernel's value");

#define BUFFER_GROUP   0
#define SUBMIT_RETRIES 3
/* A busy wait reads the clock after so many looks, about a microsecond. */
#define LOOKS_PER_CLOCK 64
/* A packet filter may hold what we send to ourselves; a completion that comes later is nobody's. */
#define PROBE_WAIT_MS 100

struct rws__ring {
    struct io_uring uring;
    uint32_t features;
    uint64_t busy_wait_us;
    rws__buffers buffers;
    bool ran_dry; /* of buffers, since the last turn */
    struct io_uring_buf_ring *buffer_ring;
    size_t buffer_ring_bytes;
    struct __kernel_timespec timeout; /* read by the kernel when the turn submits it */
    uint64_t overflows;
    uint64_t enters;
};

/* ---- making and destroying ---- */

static int register_buffer_ring(rws__ring *ring, uint16_t flags)
{
    struct rws__buf_reg reg = {
        .ring_addr = (uint64_t)(uintptr_t)ring->buffer_ring,
        .ring_entries = ring->buffers.count,
        .bgid = BUFFER_GROUP,
        .flags = flags,
    };
    long res =
        syscall(__NR_io_uring_register, ring->uring.ring_fd, RWS__REGISTER_PBUF_RING, &reg, 1);
    return res < 0 ? -errno : 0;
}

static void provide(rws__ring *ring, uint32_t index, uint8_t *memory, size_t bytes)
{
    io_uring_buf_ring_add(ring->buffer_ring, memory, (unsigned)bytes, (unsigned short)index,
                          io_uring_buf_ring_mask(ring->buffers.count), 0);
    io_uring_buf_ring_advance(ring->buffer_ring, 1);
}

static void free_buffers(rws__ring *ring)
{
    rws__pages_release(ring->buffer_ring, ring->buffer_ring_bytes);
    ring->buffer_ring = NULL;
    rws__buffers_deinit(&ring->buffers);
}

/* Make `count` buffers of `bytes` and hand them to the kernel. */
static int make_buffers(rws__ring *ring, uint32_t count, size_t bytes, uint16_t flags)
{
    int res = rws__buffers_init(&ring->buffers, count, bytes, provide, ring);
    if (res != 0) return res;
    ring->buffer_ring_bytes = count * sizeof(struct io_uring_buf);
    ring->buffer_ring = rws__pages_reserve(ring->buffer_ring_bytes);
    res = ring->buffer_ring != NULL ? register_buffer_ring(ring, flags) : -ENOMEM;
    if (res != 0) {
        free_buffers(ring);
        return res;
    }
    io_uring_buf_ring_init(ring->buffer_ring);
    rws__buffers_start(&ring->buffers, flags & RWS__PBUF_RING_INC);
    return 0;
}

static int make_best_buffers(rws__ring *ring, const rws__ring_options *options)
{
    if (!(options->features_off & RWS__FEATURE_INCREMENTAL_BUFFERS) &&
        make_buffers(ring, options->incremental_buffers, options->incremental_bytes,
                     RWS__PBUF_RING_INC) == 0) {
        ring->features |= RWS__FEATURE_INCREMENTAL_BUFFERS;
        return 0;
    }
    return make_buffers(ring, options->plain_buffers, options->plain_bytes, 0);
}

static struct io_uring_sqe *take_sqe(rws__ring *ring)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);
    for (int i = 0; sqe == NULL && i < SUBMIT_RETRIES; i++) {
        ring->enters++;
        io_uring_submit(&ring->uring);
        sqe = io_uring_get_sqe(&ring->uring);
    }
    return sqe;
}

static void prepare(struct io_uring_sqe *sqe, uint8_t opcode, int fd, const void *address,
                    size_t len, uint64_t user_data)
{
    io_uring_prep_rw(opcode, sqe, fd, address, (unsigned)len, 0);
    sqe->user_data = user_data;
}

static void prepare_peer(struct io_uring_sqe *sqe, int fd, void *address, socklen_t len)
{
    prepare(sqe, IORING_OP_URING_CMD, fd, NULL, 0, 0);
    sqe->off = RWS__SOCKET_GETSOCKOPT;
    sqe->addr = (uint64_t)SO_PEERNAME << 32 | SOL_SOCKET;
    sqe->splice_fd_in = (int32_t)len;
    sqe->addr3 = (uint64_t)(uintptr_t)address;
}

/* Ask for the peer of a socket pair: 6.7 knows the command and gives a bare AF_UNIX. */
static bool probe_socket_commands(rws__ring *ring)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return false;
    sa_family_t family = AF_UNSPEC;
    bool works = false;
    struct io_uring_sqe *sqe = take_sqe(ring);
    if (sqe != NULL) {
        prepare_peer(sqe, pair[0], &family, sizeof family);
        struct io_uring_cqe *cqe = NULL;
        if (io_uring_submit_and_wait(&ring->uring, 1) >= 0 &&
            io_uring_peek_cqe(&ring->uring, &cqe) == 0) {
            works = cqe->res >= 0 && family == AF_UNIX;
            io_uring_cqe_seen(&ring->uring, cqe);
        }
    }
    close(pair[0]);
    close(pair[1]);
    return works;
}

static void prepare_zero_copy(struct io_uring_sqe *sqe, int fd, const void *data, size_t len,
                              uint64_t user_data)
{
    prepare(sqe, IORING_OP_SEND_ZC, fd, data, len, user_data);
    sqe->ioprio = RWS__SEND_ZC_REPORT_USAGE;
    sqe->msg_flags = MSG_NOSIGNAL | MSG_WAITALL;
}

/* A datagram socket that sends to itself, or -1. */
static int make_mirror(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    if (bind(fd, (struct sockaddr *)&address, len) == 0 &&
        getsockname(fd, (struct sockaddr *)&address, &len) == 0 &&
        connect(fd, (struct sockaddr *)&address, len) == 0)
        return fd;
    close(fd);
    return -1;
}

static void use_registered(struct io_uring_sqe *sqe, uint32_t index)
{
    sqe->ioprio |= IORING_RECVSEND_FIXED_BUF;
    sqe->buf_index = (uint16_t)index;
}

/* Send a byte to ourselves: the kernel knows the report (6.2, later 6.1), posts two completions,
 * and the limit of locked memory has room for a page. */
static bool probe_zero_copy(rws__ring *ring, const void *byte, bool is_registered)
{
    int fd = make_mirror();
    struct io_uring_sqe *sqe = fd >= 0 ? take_sqe(ring) : NULL;
    bool sent = false, works = false;
    if (sqe != NULL) {
        prepare_zero_copy(sqe, fd, byte, 1, 0);
        if (is_registered) use_registered(sqe, 0);
        for (bool more = io_uring_submit(&ring->uring) >= 0; more;) {
            struct __kernel_timespec limit = {.tv_nsec = PROBE_WAIT_MS * 1000000};
            struct io_uring_cqe *cqe;
            if (io_uring_wait_cqe_timeout(&ring->uring, &cqe, &limit) != 0) break;
            more = cqe->flags & IORING_CQE_F_MORE;
            if (cqe->flags & IORING_CQE_F_NOTIF)
                works = sent;
            else
                sent = cqe->res == 1;
            io_uring_cqe_seen(&ring->uring, cqe);
        }
    }
    if (fd >= 0) close(fd);
    return works;
}

/* Make the table and send from it. */
static bool make_registered(rws__ring *ring, uint32_t count)
{
    if (count == 0 || io_uring_register_buffers_sparse(&ring->uring, count) != 0) return false;
    size_t bytes = rws__page_bytes();
    void *page = rws__pages_reserve(bytes);
    bool works = page != NULL && rws__ring_register(ring, 0, page, bytes) == 0 &&
                 probe_zero_copy(ring, page, true) && rws__ring_unregister(ring, 0) == 0;
    rws__pages_release(page, bytes);
    if (!works) (void)io_uring_unregister_buffers(&ring->uring);
    return works;
}

static void probe_features(rws__ring *ring, const rws__ring_options *options)
{
    static const char byte[1];
    uint32_t off = options->features_off;
    ring->features |= RWS__FEATURE_MULTISHOT_ACCEPT | RWS__FEATURE_SKIP_SUCCESS |
                      RWS__FEATURE_DIRECT_LARGE | RWS__FEATURE_MULTISHOT_RECV;
    if (probe_socket_commands(ring)) ring->features |= RWS__FEATURE_SOCKET_COMMANDS;
    if (!(off & RWS__FEATURE_SEND_ZC) && probe_zero_copy(ring, byte, false))
        ring->features |= RWS__FEATURE_SEND_ZC;
    if ((ring->features & RWS__FEATURE_SEND_ZC) && !(off & RWS__FEATURE_REGISTERED_BUFFERS) &&
        make_registered(ring, options->registered_max))
        ring->features |= RWS__FEATURE_REGISTERED_BUFFERS;
    ring->features &= ~off;
}

int rws__ring_create(rws__ring **out, const rws__ring_options *options, const char **what)
{
    *what = "allocating the ring";
    rws__ring *ring = calloc(1, sizeof *ring);
    if (ring == NULL) return -ENOMEM;

    struct io_uring_params params = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE |
                 IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL,
        .cq_entries = options->cq_entries,
    };
    if (options->busy_wait_us > 0) params.flags |= IORING_SETUP_TASKRUN_FLAG;
    ring->busy_wait_us = options->busy_wait_us;
    *what = "io_uring_setup";
    int res = io_uring_queue_init_params(options->sq_entries, &ring->uring, &params);
    if (res != 0) {
        free(ring);
        return res;
    }
    *what = "registering the table of direct descriptors";
    res = io_uring_register_files_sparse(&ring->uring, options->files);
    if (res != 0) goto destroy_ring;
    *what = "registering the provided buffers";
    res = make_best_buffers(ring, options);
    if (res != 0) goto destroy_ring;

    probe_features(ring, options);
    *out = ring;
    return 0;

destroy_ring:
    rws__ring_destroy(ring);
    return res;
}

void rws__ring_destroy(rws__ring *ring)
{
    io_uring_queue_exit(&ring->uring);
    free_buffers(ring);
    free(ring);
}

uint32_t rws__ring_features(const rws__ring *ring)
{
    return ring->features;
}

uint32_t rws__ring_pending(const rws__ring *ring)
{
    return io_uring_sq_ready(&ring->uring);
}

uint64_t rws__ring_overflows(const rws__ring *ring)
{
    return ring->overflows;
}

uint64_t rws__ring_enters(const rws__ring *ring)
{
    return ring->enters;
}

/* ---- submission and completion ---- */

static uint64_t clock_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void pause_cpu(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

/*
 * Poll until a completion is there, or for busy_wait_us; returns which. With DEFER_TASKRUN
 * completions are made inside io_uring_enter alone, and with TASKRUN_FLAG (5.19) the kernel says
 * when there are some to make, those of timeouts and of the eventfd included. Relaxed: the flag
 * only leads to an enter, and completions are read with an acquire of their own.
 */
static bool poll_completions(rws__ring *ring)
{
    const unsigned *flags = ring->uring.sq.kflags;
    uint64_t start = 0;
    for (;;) {
        for (uint32_t i = 0; i < LOOKS_PER_CLOCK; i++) {
            if (io_uring_cq_ready(&ring->uring) > 0) return true;
            unsigned seen = __atomic_load_n(flags, __ATOMIC_RELAXED);
            if (seen & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) {
                ring->enters++;
                /* An error is met again by the turn's own enter, which says so. */
                if (io_uring_get_events(&ring->uring) < 0) return false;
            } else {
                pause_cpu();
            }
        }
        uint64_t now = clock_us();
        if (start == 0) start = now;
        if (now - start >= ring->busy_wait_us) return false;
    }
}

int rws__ring_turn(rws__ring *ring, bool wait)
{
    if (ring->ran_dry) rws__buffers_grow(&ring->buffers);
    ring->ran_dry = false;
    if (wait && ring->busy_wait_us > 0) {
        if (io_uring_sq_ready(&ring->uring) > 0) {
            int res = rws__ring_turn(ring, false);
            /* What is left over needs completions to be reaped first. */
            if (res != 0 || io_uring_sq_ready(&ring->uring) > 0) return res;
        }
        if (poll_completions(ring)) return 0;
    }
    ring->enters++;
    int res = wait ? io_uring_submit_and_wait(&ring->uring, 1)
                   : io_uring_submit_and_get_events(&ring->uring);
    /* -EAGAIN and -EBUSY: the kernel takes no more before completions are reaped, which comes next.
     */
    if (res >= 0 || res == -EINTR || res == -EAGAIN || res == -EBUSY) return 0;
    return res;
}

uint32_t rws__ring_reap(rws__ring *ring, rws__cqe *out, uint32_t max)
{
    for (;;) {
        uint32_t count = 0;
        unsigned head;
        struct io_uring_cqe *cqe;
        io_uring_for_each_cqe(&ring->uring, head, cqe)
        {
            if (count == max) break;
            out[count++] = (rws__cqe){cqe->user_data, cqe->res, cqe->flags};
            if (cqe->res == -ENOBUFS) ring->ran_dry = true;
        }
        io_uring_cq_advance(&ring->uring, count);
        if (count > 0 || !io_uring_cq_has_overflow(&ring->uring)) return count;
        ring->overflows++;
        ring->enters++;
        if (io_uring_get_events(&ring->uring) < 0) return 0;
    }
}

uint8_t *rws__ring_buffer(rws__ring *ring, const rws__cqe *cqe)
{
    return rws__buffers_look(&ring->buffers, cqe);
}

void rws__ring_recycle(rws__ring *ring, const rws__cqe *cqe)
{
    rws__buffers_recycle(&ring->buffers, cqe);
}

bool rws__ring_continues(const rws__ring *ring, const uint8_t *end, const rws__cqe *cqe)
{
    return rws__buffers_continue(&ring->buffers, end, cqe);
}

rws__lender *rws__ring_lend(rws__ring *ring, const uint8_t *data, size_t len)
{
    return rws__buffers_lend(&ring->buffers, data, len);
}

/* ---- operations ---- */

int rws__ring_accept_multishot(rws__ring *ring, int listener, uint64_t user_data)
{
    struct io_uring_sqe *sqe = take_sqe(ring);
    if (sqe == NULL) return -EAGAIN;
    io_uring_prep_multishot_accept_direct(sqe, listener, NULL, NULL, 0);
    sqe->user_data = user_data;
    return 0;
}

int rws__ring_accept_direct(rws__ring *ring, int listener, struct sockaddr *address, socklen_t *len,
                            uint64_t user_data)
{
    struct io_uring_sqe *sqe = take_sqe(ring);
    if (sqe == NULL) return -EAGAIN;
    io_uring_prep_accept_direct(sqe, listener, address, len, 0, IORING_FILE_INDEX_ALLOC);
    /* liburing 2.3 adds one to the index also here, which turns "allocate" into 0. */
    sqe->file_index = IORING_FILE_INDEX_ALLOC;
    sqe->user_data = user_data;
    return 0;
}

int rws__ring_accept_fd(rws__ring *ring, int listener, uint64_t user_data)
{
    struct io_uring_sqe *sqe = take_sqe(ring);
    if (sqe == NULL) return -EAGAIN;
    io_uring_prep_accept(sqe, listener, NULL, NULL, SOCK_CLOEXEC);
    sqe->user_data = user_data;
    return 0;
}

int rws__ring_install(rws__ring *ring, int32_t *fd, uint64_t user_data)
{
    struct io_uring_sqe *sqe = take_sqe(ring);
    if (sqe == NULL) return -EAGAIN;
    prepare(sqe, IORING_OP_FILES_UPDATE, -1, fd, 1, user_data);
    sqe->off = IORING_FILE_INDEX_ALLOC;
    return 0;
}

int rws__ring_peer(rws__ring *ring, uint32_t file, void *address, socklen_t len)
{
    struct io_uring_sqe *sqe = take_sqe(ring);
    if (sqe == NULL) return -EAGAIN;
    prepare_peer(sqe, (int)file, address, len);
    sqe->flags |= IOSQE_FIXED_FILE | IOSQE_CQE_SKIP_SUCCESS;
    ring->enters++;
    io_uring_submit(&ring->uring);
    return io_uring_sq_ready(&ring->uring) == 0 ? 0 : -EAGAIN;
}

static int recv_selected(rws__ring *ring, uint32_t file, size_t len, uint16_t ioprio,
                         uint64_t user_data)
{
    struct io_uring_sqe *sqe = take_sqe(ring);
    if (sqe == NULL) return -EAGAIN;
    prepare(sqe, IORING_OP_RECV, (int)file, NULL, len, user_data);
    sqe->ioprio = ioprio;
    sqe->flags |= IOSQE_FIXED_FILE | IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUFFER_GROUP;
    return 0;
}

int rws__ring_recv_multishot(rws__ring *ring, uint32_t file, uint64_t user_data)
{
    return recv_selected(ring, file, 0, IORING_RECV_MULTISHOT, user_data);
}

int rws__ring_recv_provided(rws__ring *ring, uint32_t file, size_t len, uint64_t user_data)
{
    return recv_selected(ring, file, len, 0, user_data);
}

int rws__ring_recv(rws__ring *ring, uint32_t file, void *data, size_t len, uint64_t user_data)
{
    struct io_uring_sqe *sqe = take_sqe(ring);
    if (sqe == NULL) return -EAGAIN;
    prepare(sqe, IORING_OP_RECV, (int)file, data, len, user_data);
    sqe->flags |= IOSQE_FIXED_FILE;
    return 0;
}

static int send_flags(rws__ring *ring, uint32_t file, const void *data, size_t len,
                      unsigned msg_flags, uint64_t user_data)
{
    struct io_uring_sqe *sqe = take_sqe(ring);
    if (sqe == NULL) return -EAGAIN;
    prepare(sqe, IORING_OP_SEND, (int)file, data, len, user_data);
    sqe->msg_flags = MSG_NOSIGNAL | msg_flags;
    sqe->flags |= IOSQE_FIXED_FILE;
    return 0;
}

int rws__ring_send(rws__ring *ring, uint32_t file, const void *data, size_t len, uint64_t user_data)
{
    return send_flags(ring, file, data, len, MSG_WAITALL, user_data);
}

int rws__ring_send_some(rws__ring *ring, uint32_t file, const void *data, size_t len,
                        uint64_t user_data)
{
    return send_flags(ring, file, data, len, 0, user_data);
}

int rws__ring_unacknowledged(rws__ring *ring, uint32_t file, uint64_t user_data)
{
    struct io_uring_sqe *sqe = take_sqe(ring);
    if (sqe == NULL) return -EAGAIN;
    prepare(sqe, IORING_OP_URING_CMD, (int)file, NULL, 0, user_data);
    sqe->off = RWS__SOCKET_SIOCOUTQ;
    sqe->flags |= IOSQE_FIXED_FILE;
    return 0;
}

int rws__ring_send_quiet(rws__ring *ring, uint32_t file, const void *data, size_t len,
                         uint64_t user_data)
{
    struct io_uring_sqe *sqe = take_sqe(ring);
    if (sqe == NULL) return -EAGAIN;
    prepare(sqe, IORING_OP_SEND, (int)file, data, len, user_data);
    /* Without both flags a short send counts as a success, posts nothing, and bytes are lost. */
    sqe->msg_flags = MSG_NOSIGNAL | MSG_WAITALL | MSG_DONTWAIT;
    sqe->flags |= IOSQE_FIXED_FILE | IOSQE_CQE_SKIP_SUCCESS;
    return 0;
}

int rws__ring_send_zero_copy(rws__ring *ring, uint32_t file, const void *data, size_t len,
                             uint64_t user_data)
{
    struct io_uring_sqe *sqe = take_sqe(ring);
    if (sqe == NULL) return -EAGAIN;
    prepare_zero_copy(sqe, (int)file, data, len, user_data);
    sqe->flags |= IOSQE_FIXED_FILE;
    return 0;
}

static int update_registered(rws__ring *ring, uint32_t index, void *memory, size_t len)
{
    const struct iovec bytes = {.iov_base = memory, .iov_len = len};
    const __u64 tag = 0;
    ring->enters++;
    int res = io_uring_register_buffers_update_tag(&ring->uring, index, &bytes, &tag, 1);
    return res == 1 ? 0 : res < 0 ? res : -EINVAL;
}

int rws__ring_register(rws__ring *ring, uint32_t index, void *memory, size_t len)
{
    return update_registered(ring, index, memory, len);
}

int rws__ring_unregister(rws__ring *ring, uint32_t index)
{
    return update_registered(ring, index, NULL, 0);
}

int rws__ring_send_registered(rws__ring *ring, uint32_t file, const void *data, size_t len,
                              uint32_t index, uint64_t user_data)
{
    struct io_uring_sqe *sqe = take_sqe(ring);
    if (sqe == NULL) return -EAGAIN;
    prepare_zero_copy(sqe, (int)file, data, len, user_data);
    use_registered(sqe, index);
    sqe->flags |= IOSQE_FIXED_FILE;
    return 0;
}

int rws__ring_connect(rws__ring *ring, uint32_t file, const struct sockaddr *address, socklen_t len,
                      uint64_t user_data)
{
    struct io_uring_sqe *sqe = take_sqe(ring);
    if (sqe == NULL) return -EAGAIN;
    io_uring_prep_connect(sqe, (int)file, address, len);
    sqe->flags |= IOSQE_FIXED_FILE;
    sqe->user_data = user_data;
    return 0;
}

int rws__ring_disconnect(rws__ring *ring, uint32_t file)
{
    static const struct sockaddr nobody = {.sa_family = AF_UNSPEC};
    struct io_uring_sqe *sqe = take_sqe(ring);
    if (sqe == NULL) return -EAGAIN;
    io_uring_prep_connect(sqe, (int)file, &nobody, sizeof nobody);
    sqe->flags |= IOSQE_FIXED_FILE | IOSQE_CQE_SKIP_SUCCESS;
    sqe->user_data = 0; /* liburing leaves that of the entry's last operation */
    return 0;
}

int rws__ring_shutdown_write(rws__ring *ring, uint32_t file, uint64_t user_data)
{
    struct io_uring_sqe *sqe = take_sqe(ring);
    if (sqe == NULL) return -EAGAIN;
    io_uring_prep_shutdown(sqe, (int)file, SHUT_WR);
    sqe->flags |= IOSQE_FIXED_FILE;
    sqe->user_data = user_data;
    return 0;
}

int rws__ring_close(rws__ring *ring, uint32_t file, uint64_t user_data)
{
    struct io_uring_sqe *sqe = take_sqe(ring);
    if (sqe == NULL) return -EAGAIN;
    io_uring_prep_close_direct(sqe, file);
    sqe->user_data = user_data;
    return 0;
}

static int cancel(rws__ring *ring, int fd, uint64_t target, unsigned flags)
{
    struct io_uring_sqe *sqe = take_sqe(ring);
    if (sqe == NULL) return -EAGAIN;
    prepare(sqe, IORING_OP_ASYNC_CANCEL, fd, NULL, 0, 0);
    sqe->addr = target;
    sqe->cancel_flags = flags;
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    return 0;
}

int rws__ring_cancel(rws__ring *ring, uint64_t user_data)
{
    return cancel(ring, -1, user_data, 0);
}

int rws__ring_cancel_file(rws__ring *ring, uint32_t file)
{
    return cancel(ring, (int)file, 0,
                  IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_FD_FIXED | IORING_ASYNC_CANCEL_ALL);
}

int rws__ring_read_event(rws__ring *ring, int fd, uint64_t *value, uint64_t user_data)
{
    struct io_uring_sqe *sqe = take_sqe(ring);
    if (sqe == NULL) return -EAGAIN;
    prepare(sqe, IORING_OP_READ, fd, value, sizeof *value, user_data);
    return 0;
}

static void set_timeout(rws__ring *ring, uint64_t ms)
{
    ring->timeout.tv_sec = (long long)(ms / 1000);
    ring->timeout.tv_nsec = (long long)(ms % 1000) * 1000000;
}

int rws__ring_timeout(rws__ring *ring, uint64_t ms, uint64_t user_data)
{
    struct io_uring_sqe *sqe = take_sqe(ring);
    if (sqe == NULL) return -EAGAIN;
    set_timeout(ring, ms);
    io_uring_prep_timeout(sqe, &ring->timeout, 0, 0);
    sqe->user_data = user_data;
    return 0;
}

int rws__ring_timeout_update(rws__ring *ring, uint64_t ms, uint64_t user_data)
{
    struct io_uring_sqe *sqe = take_sqe(ring);
    if (sqe == NULL) return -EAGAIN;
    set_timeout(ring, ms);
    io_uring_prep_timeout_update(sqe, &ring->timeout, user_data, 0);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    sqe->user_data = 0;
    return 0;
}
