/*
 * The provided buffers of a real ring: the kernel gets more of them when it ran out, up to all, and
 * what it receives is whole all the same.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/ring/ring.h"

#define BUFFER_BYTES 4096u
#define BUFFERS      8u

static rws__ring *ring;

static void make_ring(void)
{
    rws__ring_options options = {
        .sq_entries = 8,
        .cq_entries = 64,
        .files = 8,
        .incremental_buffers = BUFFERS,
        .incremental_bytes = BUFFER_BYTES,
        .plain_buffers = BUFFERS,
        .plain_bytes = BUFFER_BYTES,
    };
    const char *what;
    int res = rws__ring_create(&ring, &options, &what);
    if (res == -EPERM || res == -ENOSYS || res == -EACCES) cr_skip_test("%s: %d", what, res);
    cr_assert_eq(res, 0, "%s: %d", what, res);
    if (!(rws__ring_features(ring) & RWS__FEATURE_INCREMENTAL_BUFFERS)) {
        rws__ring_destroy(ring);
        cr_skip_test("this kernel has no incremental buffers");
    }
}

/* One end of a socket pair in the table, the other as a descriptor. */
static int32_t install_pair(int *other)
{
    int pair[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    int32_t file = pair[0];
    cr_assert_eq(rws__ring_install(ring, &file, 1), 0);
    cr_assert_eq(rws__ring_turn(ring, true), 0);
    rws__cqe cqe;
    cr_assert_eq(rws__ring_reap(ring, &cqe, 1), 1);
    cr_assert_eq(cqe.res, 1);
    close(pair[0]);
    *other = pair[1];
    return file;
}

/* Receive until the kernel finds no buffer; only then they are recycled. Returns the bytes. */
static size_t receive_until_dry(int32_t file, uint8_t *next)
{
    rws__cqe cqes[64];
    uint32_t kept = 0;
    size_t bytes = 0;
    cr_assert_eq(rws__ring_recv_multishot(ring, (uint32_t)file, 2), 0);
    for (bool dry = false; !dry;) {
        cr_assert_eq(rws__ring_turn(ring, true), 0);
        uint32_t count = rws__ring_reap(ring, cqes + kept, 64 - kept);
        uint32_t end = kept + count;
        for (uint32_t i = kept; i < end; i++) {
            if (cqes[i].res == -ENOBUFS) {
                dry = true;
                break;
            }
            cr_assert_gt(cqes[i].res, 0);
            const uint8_t *data = rws__ring_buffer(ring, &cqes[i]);
            for (int32_t at = 0; at < cqes[i].res; at++)
                cr_assert_eq(data[at], (*next)++, "byte %zu", bytes + (size_t)at);
            bytes += (size_t)cqes[i].res;
            kept++;
        }
    }
    for (uint32_t i = 0; i < kept; i++)
        rws__ring_recycle(ring, &cqes[i]);
    return bytes;
}

Test(engine_buffers, grow_when_the_kernel_ran_dry)
{
    static uint8_t sent[128 * 1024];
    /* Two by half; these and two more; all. */
    static const size_t buffers[] = {1, 3, 8, 8};
    make_ring();
    int other;
    int32_t file = install_pair(&other);
    for (size_t i = 0; i < sizeof sent; i++)
        sent[i] = (uint8_t)i;
    size_t all = 0;
    uint8_t next = 0;
    cr_assert_eq(send(other, sent, sizeof sent, MSG_NOSIGNAL), sizeof sent);
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) {
        size_t bytes = receive_until_dry(file, &next);
        cr_expect_eq(bytes, buffers[i] * BUFFER_BYTES, "time %zu: %zu bytes", i, bytes);
        all += bytes;
    }
    cr_expect_leq(all, sizeof sent);
    close(other);
    rws__ring_destroy(ring);
}

/* Run the ring dry until the kernel has all of its buffers. */
static void use_all(void)
{
    static uint8_t sent[128 * 1024];
    for (size_t i = 0; i < sizeof sent; i++)
        sent[i] = (uint8_t)i;
    int other;
    int32_t file = install_pair(&other);
    cr_assert_eq(send(other, sent, sizeof sent, MSG_NOSIGNAL), sizeof sent);
    uint8_t next = 0;
    for (int i = 0; i < 3; i++)
        (void)receive_until_dry(file, &next);
    close(other);
}

/* The buffers lie in a row and are filled in that order, however late each of them is recycled: but
 * for the last one, what goes on in the next buffer is in one piece, and can be lent as one. */
Test(engine_buffers, are_filled_in_the_order_in_which_they_lie)
{
    static uint8_t sent[BUFFER_BYTES + 100];
    make_ring();
    use_all();
    int other;
    int32_t file = install_pair(&other);
    cr_assert_eq(rws__ring_recv_multishot(ring, (uint32_t)file, 2), 0);
    size_t joined = 0, cut = 0;
    rws__lender *loans[4];
    for (size_t round = 0; round < 64; round++) {
        for (size_t n = 0; n < sizeof sent; n++)
            sent[n] = (uint8_t)(round * 3 + n);
        cr_assert_eq(send(other, sent, sizeof sent, MSG_NOSIGNAL), sizeof sent);
        cr_assert_eq(rws__ring_turn(ring, true), 0);
        rws__cqe cqes[8];
        uint32_t count = rws__ring_reap(ring, cqes, 8);
        cr_assert(count == 1 || count == 2, "%u completions", count);
        const uint8_t *data = rws__ring_buffer(ring, &cqes[0]);
        if (count == 1) {
            cr_assert_eq(cqes[0].res, sizeof sent);
        } else if (rws__ring_continues(ring, data + cqes[0].res, &cqes[1])) {
            cr_assert_eq(rws__ring_buffer(ring, &cqes[1]), data + cqes[0].res);
            cr_assert_arr_eq(data, sent, sizeof sent);
            joined++;
        } else {
            (void)rws__ring_buffer(ring, &cqes[1]);
            cut++;
        }
        loans[round % 4] = rws__ring_lend(ring, data, cut > 0 ? 1 : sizeof sent);
        cr_assert_not_null(loans[round % 4]);
        for (uint32_t i = count; i-- > 0;)
            rws__ring_recycle(ring, &cqes[i]);
        cr_assert_arr_eq(data, sent, count == 1 ? sizeof sent : (size_t)cqes[0].res);
        /* Four loans at a time, given back in another order than they were taken. */
        if (round % 4 == 3)
            for (int i = 3; i >= 0; i--)
                rws__lender_release(loans[i]);
        if (cut == 1) break;
    }
    cr_assert_eq(cut, 1, "the row has an end");
    cr_assert_geq(joined, 3, "%zu pieces went on in the next buffer", joined);
    close(other);
    rws__ring_destroy(ring);
}

Test(engine_buffers, lend_what_lies_in_two_of_them_at_most)
{
    static uint8_t sent[3 * BUFFER_BYTES];
    make_ring();
    int other;
    int32_t file = install_pair(&other);
    cr_assert_eq(send(other, sent, sizeof sent, MSG_NOSIGNAL), sizeof sent);
    cr_assert_eq(rws__ring_recv_multishot(ring, (uint32_t)file, 2), 0);
    cr_assert_eq(rws__ring_turn(ring, true), 0);
    rws__cqe cqe;
    cr_assert_eq(rws__ring_reap(ring, &cqe, 1), 1);
    const uint8_t *data = rws__ring_buffer(ring, &cqe);
    cr_expect_null(rws__ring_lend(ring, data, 2 * BUFFER_BYTES + 1));
    rws__ring_recycle(ring, &cqe);
    close(other);
    rws__ring_destroy(ring);
}
