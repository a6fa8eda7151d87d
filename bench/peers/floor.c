/*
 * The floor: what an echo costs on io_uring when nothing is done to the data.   floor [PORT]
 *
 * The ring settings of an engine's shard: SINGLE_ISSUER | DEFER_TASKRUN, multishot accept into
 * direct descriptors, multishot receive from provided buffers, one send in flight per connection.
 * So that the same load generator can drive it and check the answers, it answers the upgrade (a
 * request must come in one piece) and drops the masking key out of each frame as bytes stream by.
 * No limit, timer, UTF-8 or unmasking: use `ringws load --zero-mask`.
 */
#include <liburing.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "setup.h"

#define RING_FLAGS (IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE)
enum { ACCEPT = 1, RECV, SEND, END };
enum { CONNS = 16384, BUFFERS = 1024, BUFFER_BYTES = 4096, NONE = -1 };

typedef struct conn {
    uint64_t payload_left;         /* of the frame that streams by */
    int32_t send_first, send_last; /* buffers to send, in order; the first one is in flight */
    uint8_t header_at, header_len, mask_left;
    bool open, upgraded, closing, ended; /* closing: a close frame came; ended: nothing more will */
} conn;

static struct io_uring ring;
static struct io_uring_buf_ring *pool;
static uint8_t memory[BUFFERS][BUFFER_BYTES] __attribute__((aligned(4096)));
static int32_t next_piece[BUFFERS];
static uint32_t piece_len[BUFFERS];
static conn conns[CONNS];
static int recycled, listener;

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

static void send_first(uint32_t slot)
{
    struct io_uring_sqe sqe;
    int32_t id = conns[slot].send_first;
    io_uring_prep_send(&sqe, (int)slot, memory[id], piece_len[id], MSG_WAITALL | MSG_NOSIGNAL);
    sqe.flags = IOSQE_FIXED_FILE;
    push(SEND, slot, sqe);
}

static void close_if_done(uint32_t slot)
{
    struct io_uring_sqe sqe;
    conn *c = &conns[slot];
    if (!c->open || c->send_first != NONE) return;
    if (c->closing && !c->ended) { /* our half; the rest when the peer has closed its own */
        io_uring_prep_shutdown(&sqe, (int)slot, SHUT_WR);
        sqe.flags = IOSQE_FIXED_FILE;
        push(END, slot, sqe);
    }
    c->closing = false;
    if (!c->ended) return;
    c->open = false;
    io_uring_prep_close_direct(&sqe, slot);
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
        next_piece[id] = NONE, piece_len[id] = len;
        if (len == 0)
            recycle(id);
        else if (c->send_first != NONE)
            c->send_last = next_piece[c->send_last] = id;
        else
            c->send_first = c->send_last = id, send_first(slot);
    }
    if (cqe->flags & IORING_CQE_F_MORE) return;
    c->ended = cqe->res <= 0 && cqe->res != -ENOBUFS;
    if (!c->ended) arm_recv(slot);
    close_if_done(slot);
}

static void sent(uint32_t slot, int res)
{
    conn *c = &conns[slot];
    bool whole = res == (int)piece_len[c->send_first];
    do { /* after an error the others are dropped too, and the receive ends by itself */
        int32_t id = c->send_first;
        c->send_first = next_piece[id];
        recycle(id);
    } while (!whole && c->send_first != NONE);
    if (c->send_first != NONE) send_first(slot);
    close_if_done(slot);
}

static void dispatch(const struct io_uring_cqe *cqe)
{
    uint64_t kind = cqe->user_data >> 32;
    if (kind == RECV) received((uint32_t)cqe->user_data, cqe);
    if (kind == SEND) sent((uint32_t)cqe->user_data, cqe->res);
    if (kind == ACCEPT && cqe->res >= 0) {
        conns[cqe->res] = (conn){.send_first = NONE, .open = true};
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
        struct io_uring_cqe *cqes[256];
        unsigned count = io_uring_peek_batch_cqe(&ring, cqes, 256);
        for (unsigned i = 0; i < count; i++)
            dispatch(cqes[i]);
        io_uring_cq_advance(&ring, count);
    }
    fprintf(stderr, "floor: %s\n", strerror(-status));
    return 1;
}
