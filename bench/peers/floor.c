/*
 * The floor: what an echo costs on io_uring when nothing is done to the data.   floor [PORT]
 *
 * The ring settings of an engine's shard: SINGLE_ISSUER | DEFER_TASKRUN, multishot accept into
 * direct descriptors, multishot receive from incremental buffers (Linux 6.12), and sends that post
 * no completion when they succeed: with MSG_WAITALL | MSG_DONTWAIT such a send is over when the
 * enter that submitted it returns, so its buffer goes back then, and sends keep their order.
 *
 * So that the same load generator can drive it and check the answers, it answers the upgrade and
 * drops the masking key out of each frame as bytes stream by. No limit, timer, UTF-8 or unmasking:
 * use `ringws load --zero-mask`. A full socket buffer ends a connection.
 */
#include <liburing.h>
#include <stdbool.h>

#include "setup.h"

#define BUF_MORE (1u << 4) /* IORING_CQE_F_BUF_MORE */
enum { ACCEPT = 1, RECV, SEND, END };
enum { BUFFERS = 8, BUFFER_BYTES = 128 << 10 };

typedef struct conn {
    uint64_t payload_left;         /* of the frame that streams by */
    uint8_t header_at, header_len; /* of a header that came in part */
    bool upgraded, closing;        /* closing: the peer's close frame came */
} conn;

static struct io_uring ring;
static struct io_uring_buf_ring *pool;
static uint8_t memory[BUFFERS + 1][BUFFER_BYTES] __attribute__((aligned(4096)));
static uint32_t used[BUFFERS]; /* what was received into each */
/* Full buffers: they go back when what is in them was sent; and at the start all are given. */
static uint16_t spent[BUFFERS] = {0, 1, 2, 3, 4, 5, 6, 7};
static conn conns[CONNS];
static int spent_count = BUFFERS, listener;

static struct io_uring_sqe *next_sqe(void)
{
    struct io_uring_sqe *sqe;
    while (!(sqe = io_uring_get_sqe(&ring)))
        io_uring_submit(&ring);
    return sqe;
}

#define PUSH(kind, slot, bits, prepare, ...)                                                       \
    do {                                                                                           \
        struct io_uring_sqe *sqe = next_sqe();                                                     \
        prepare(sqe, __VA_ARGS__);                                                                 \
        sqe->flags = bits, sqe->user_data = (uint64_t)(kind) << 32 | (slot);                       \
    } while (0)

static void arm_recv(uint32_t slot)
{
    uint8_t flags = IOSQE_FIXED_FILE | IOSQE_BUFFER_SELECT;
    PUSH(RECV, slot, flags, io_uring_prep_recv_multishot, (int)slot, NULL, 0, 0);
}

static void send_bytes(uint32_t slot, const uint8_t *data, uint32_t len)
{
    uint8_t flags = IOSQE_FIXED_FILE | IOSQE_CQE_SKIP_SUCCESS;
    int how = MSG_WAITALL | MSG_DONTWAIT | MSG_NOSIGNAL;
    PUSH(SEND, slot, flags, io_uring_prep_send, (int)slot, data, len, how);
}

static void shut_down(uint32_t slot, int how)
{
    PUSH(END, slot, IOSQE_FIXED_FILE, io_uring_prep_shutdown, (int)slot, how);
}

/* One byte of a header. Returns how many are kept of it: none of the key. */
static uint32_t header_byte(conn *c, uint8_t byte, uint8_t *out)
{
    uint8_t at = c->header_at++;
    if (at == 0) c->closing |= byte == 0x88;
    if (at == 1) {
        byte &= 0x7F;
        c->header_len = byte < 126 ? 6 : byte == 126 ? 8 : 14;
        c->payload_left = byte < 126 ? byte : 0;
    }
    if (at > 1 && c->header_at == c->header_len) c->header_at = 0;
    if (at > 1 && at + 4 >= c->header_len) return 0;
    if (at > 1) c->payload_left = c->payload_left << 8 | byte;
    *out = byte;
    return 1;
}

/* Drop mask bits and keys in place. Returns the end of what is left, and in `start` its start: the
 * first header moves up over its key, so that its payload stays where it is. */
static uint32_t unframe(conn *c, uint8_t *data, uint32_t len, uint32_t *start)
{
    uint32_t in = 0, out = 0;
    while (in < len) {
        uint8_t head[14], at = 0; /* copied: what is written may lie over it */
        uint32_t there = len - in < 14 ? len - in : 14;
        bool begins = c->header_at == 0 && c->payload_left == 0;
        memcpy(head, data + in, 14);
        if (begins && in == 0 && there == 14) *start = out = 4;
        if (begins && there == 14 && head[1] < 0x80 + 126) { /* the short way */
            c->closing |= head[0] == 0x88;
            c->payload_left = head[1] & 0x7F, at = 6;
            data[out++] = head[0], data[out++] = head[1] & 0x7F;
        } else if (begins || c->header_at) {
            do
                out += header_byte(c, head[at++], data + out);
            while (at < there && c->header_at);
        }
        in += at;
        if (c->header_at) continue;
        uint32_t take = c->payload_left < len - in ? (uint32_t)c->payload_left : len - in;
        uint8_t *to = data + out, *from = data + in; /* 64 bytes are moved inline */
        if (out != in) take == 64 ? memmove(to, from, 64) : memmove(to, from, take);
        in += take, out += take, c->payload_left -= take;
    }
    return out;
}

static void received(uint32_t slot, const struct io_uring_cqe *cqe)
{
    conn *c = &conns[slot];
    if (cqe->flags & IORING_CQE_F_BUFFER) {
        uint16_t id = (uint16_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
        uint32_t len = cqe->res > 0 ? (uint32_t)cqe->res : 0, start = 0;
        uint8_t *data = memory[id] + used[id];
        used[id] += len;
        if (!(cqe->flags & BUF_MORE)) spent[spent_count++] = id;
        if (c->upgraded) {
            len = unframe(c, data, len, &start);
        } else {
            len = upgrade(&handshakes[slot], data, len);
            data = handshakes[slot].text;
            c->upgraded = len > 0;
        }
        if (len > start) send_bytes(slot, data + start, len - start);
        if (c->closing) shut_down(slot, SHUT_WR); /* the rest when the peer has closed its half */
        c->closing = false;
    }
    if (cqe->flags & IORING_CQE_F_MORE) return;
    if (cqe->res > 0 || cqe->res == -ENOBUFS)
        arm_recv(slot);
    else
        PUSH(END, slot, 0, io_uring_prep_close_direct, slot);
}

static void dispatch(const struct io_uring_cqe *cqe)
{
    uint64_t kind = cqe->user_data >> 32;
    uint32_t slot = (uint32_t)cqe->user_data;
    if (kind == RECV) received(slot, cqe);
    if (kind == SEND) shut_down(slot, SHUT_RDWR); /* it was short or failed */
    if (kind == ACCEPT && cqe->res >= 0) {
        conns[cqe->res] = (conn){0};
        handshakes[cqe->res].len = 0;
        arm_recv((uint32_t)cqe->res);
    }
    if (kind == ACCEPT && !(cqe->flags & IORING_CQE_F_MORE))
        PUSH(ACCEPT, 0, 0, io_uring_prep_multishot_accept_direct, listener, NULL, NULL, 0);
}

static void recycle(void)
{
    for (int i = 0; i < spent_count; i++) {
        used[spent[i]] = 0;
        io_uring_buf_ring_add(pool, memory[spent[i]], BUFFER_BYTES, spent[i], BUFFERS - 1, i);
    }
    if (spent_count) io_uring_buf_ring_advance(pool, spent_count);
    spent_count = 0;
}

static int start(void)
{
    struct io_uring_params params = {.cq_entries = 16384, .flags = IORING_SETUP_CQSIZE};
    params.flags |= IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
    int status = io_uring_queue_init_params(256, &ring, &params);
    if (status >= 0) status = io_uring_register_files_sparse(&ring, CONNS);
    pool = aligned_alloc(4096, 4096);
    struct io_uring_buf_reg reg = {
        .ring_addr = (uintptr_t)pool, .ring_entries = BUFFERS, .pad = 2 /* IOU_PBUF_RING_INC */};
    if (status >= 0) status = io_uring_register_buf_ring(&ring, &reg, 0);
    if (status < 0) return status;
    io_uring_buf_ring_init(pool);
    PUSH(ACCEPT, 0, 0, io_uring_prep_multishot_accept_direct, listener, NULL, NULL, 0);
    return 0;
}

int main(int argc, char **argv)
{
    int status = listener = listen_loopback(argc > 1 ? argv[1] : "0");
    if (status >= 0) status = start();
    while (status >= 0) {
        struct io_uring_cqe *cqes[256];
        recycle();
        status = io_uring_submit_and_wait(&ring, 1);
        unsigned count = io_uring_peek_batch_cqe(&ring, cqes, 256);
        for (unsigned i = 0; i < count; i++)
            dispatch(cqes[i]);
        io_uring_cq_advance(&ring, count);
    }
    fprintf(stderr, "floor: %s\n", strerror(-status));
    return 1;
}
