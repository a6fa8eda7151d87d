/*
 * The floor: what an echo costs on io_uring when nothing is done to the data.   floor [PORT]
 *
 * The ring settings of an engine's shard: SINGLE_ISSUER | DEFER_TASKRUN, multishot accept into
 * direct descriptors, multishot receive from provided buffers, and sends that post no completion
 * when they succeed: with MSG_WAITALL | MSG_DONTWAIT such a send is over when the enter that
 * submitted it returns, so its buffer goes back then, and sends of one connection keep their order.
 *
 * So that the same load generator can drive it and check the answers, it answers the upgrade (a
 * request must come in one piece) and drops the masking key out of each frame as bytes stream by.
 * No limit, timer, UTF-8 or unmasking: use `ringws load --zero-mask`. A full socket buffer ends a
 * connection: this is for small messages.
 */
#include <liburing.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "setup.h"

#define RING_FLAGS (IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE)
enum { ACCEPT = 1, RECV, SEND, END };
enum { CONNS = 16384, BUFFERS = 1024, BUFFER_BYTES = 4096 };

typedef struct conn {
    uint64_t payload_left; /* of the frame that streams by */
    uint8_t header_at, header_len, mask_left;
    bool upgraded, closing; /* closing: the peer's close frame came */
} conn;

static struct io_uring ring;
static struct io_uring_buf_ring *pool;
static uint8_t memory[BUFFERS][BUFFER_BYTES] __attribute__((aligned(4096)));
static int32_t sending[BUFFERS]; /* the buffers of the sends that are submitted next */
static conn conns[CONNS];
static int sending_count, recycled, listener;

static void push(uint64_t kind, uint32_t slot, struct io_uring_sqe operation)
{
    struct io_uring_sqe *sqe;
    while (!(sqe = io_uring_get_sqe(&ring)))
        io_uring_submit(&ring);
    *sqe = operation;
    sqe->user_data = kind << 32 | slot;
}

static void arm_accept(void)
{
    struct io_uring_sqe sqe;
    io_uring_prep_multishot_accept_direct(&sqe, listener, NULL, NULL, 0);
    push(ACCEPT, 0, sqe);
}

static void arm_recv(uint32_t slot)
{
    struct io_uring_sqe sqe;
    io_uring_prep_recv_multishot(&sqe, (int)slot, NULL, 0, 0);
    sqe.flags = IOSQE_FIXED_FILE | IOSQE_BUFFER_SELECT;
    push(RECV, slot, sqe);
}

static void send_buffer(uint32_t slot, int32_t id, uint32_t len)
{
    struct io_uring_sqe sqe;
    io_uring_prep_send(&sqe, (int)slot, memory[id], len, MSG_WAITALL | MSG_DONTWAIT | MSG_NOSIGNAL);
    sqe.flags = IOSQE_FIXED_FILE | IOSQE_CQE_SKIP_SUCCESS;
    push(SEND, slot, sqe);
    sending[sending_count++] = id;
}

static void shut_down(uint32_t slot, int how)
{
    struct io_uring_sqe sqe;
    io_uring_prep_shutdown(&sqe, (int)slot, how);
    sqe.flags = IOSQE_FIXED_FILE;
    push(END, slot, sqe);
}

static void recycle(int32_t id)
{
    io_uring_buf_ring_add(pool, memory[id], BUFFER_BYTES, (uint16_t)id, BUFFERS - 1, recycled++);
}

/* Drop mask bits and keys. A byte in is at most one out, so frames may be cut anywhere. */
static uint32_t unframe(conn *c, uint8_t *data, uint32_t len)
{
    uint32_t out = 0;
    for (uint32_t in = 0; in < len;) {
        if (c->payload_left && c->header_at == 0) {
            uint32_t take = c->payload_left < len - in ? (uint32_t)c->payload_left : len - in;
            if (out != in) memmove(data + out, data + in, take);
            in += take, out += take, c->payload_left -= take;
        } else if (c->header_at >= 2 && c->header_at == c->header_len) { /* the masking key */
            in++;
            if (--c->mask_left == 0) c->header_at = 0;
        } else {
            uint8_t byte = data[in++];
            if (c->header_at == 0) {
                c->closing |= byte == 0x88;
            } else if (c->header_at == 1) {
                byte &= 0x7F;
                c->header_len = byte == 126 ? 4 : byte == 127 ? 10 : 2;
                c->payload_left = byte < 126 ? byte : 0;
                c->mask_left = 4;
            } else {
                c->payload_left = c->payload_left << 8 | byte;
            }
            data[out++] = byte;
            c->header_at++;
        }
    }
    return out;
}

static void received(uint32_t slot, const struct io_uring_cqe *cqe)
{
    conn *c = &conns[slot];
    if (cqe->flags & IORING_CQE_F_BUFFER) {
        int32_t id = (int32_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
        uint32_t len = cqe->res > 0 ? (uint32_t)cqe->res : 0;
        if (len) len = c->upgraded ? unframe(c, memory[id], len) : upgrade(memory[id], len);
        c->upgraded = true;
        if (len)
            send_buffer(slot, id, len);
        else
            recycle(id);
        if (c->closing) shut_down(slot, SHUT_WR); /* the rest when the peer has closed its half */
        c->closing = false;
    }
    if (cqe->flags & IORING_CQE_F_MORE) return;
    if (cqe->res > 0 || cqe->res == -ENOBUFS) {
        arm_recv(slot);
    } else {
        struct io_uring_sqe sqe;
        io_uring_prep_close_direct(&sqe, slot);
        push(END, slot, sqe);
    }
}

static void dispatch(const struct io_uring_cqe *cqe)
{
    uint64_t kind = cqe->user_data >> 32;
    uint32_t slot = (uint32_t)cqe->user_data;
    if (kind == RECV) received(slot, cqe);
    if (kind == SEND) shut_down(slot, SHUT_RDWR); /* it was short or failed */
    if (kind == ACCEPT && cqe->res >= 0) {
        conns[cqe->res] = (conn){0};
        arm_recv((uint32_t)cqe->res);
    }
    if (kind == ACCEPT && !(cqe->flags & IORING_CQE_F_MORE)) arm_accept();
}

static int start(void)
{
    struct io_uring_params params = {.flags = RING_FLAGS, .cq_entries = 16384};
    int status = io_uring_queue_init_params(256, &ring, &params);
    if (status < 0 || (status = io_uring_register_files_sparse(&ring, CONNS)) < 0) return status;
    pool = aligned_alloc(4096, BUFFERS * sizeof(struct io_uring_buf));
    struct io_uring_buf_reg reg = {.ring_addr = (uintptr_t)pool, .ring_entries = BUFFERS};
    if ((status = io_uring_register_buf_ring(&ring, &reg, 0)) < 0) return status;
    io_uring_buf_ring_init(pool);
    for (int32_t id = 0; id < BUFFERS; id++)
        recycle(id);
    arm_accept();
    return 0;
}

int main(int argc, char **argv)
{
    int status = listener = listen_loopback(argc > 1 ? argv[1] : "0");
    if (status >= 0) status = start();
    while (status >= 0) {
        io_uring_buf_ring_advance(pool, recycled), recycled = 0;
        status = io_uring_submit_and_wait(&ring, 1);
        while (sending_count)
            recycle(sending[--sending_count]);
        struct io_uring_cqe *cqes[256];
        unsigned count = io_uring_peek_batch_cqe(&ring, cqes, 256);
        for (unsigned i = 0; i < count; i++)
            dispatch(cqes[i]);
        io_uring_cq_advance(&ring, count);
    }
    fprintf(stderr, "floor: %s\n", strerror(-status));
    return 1;
}
