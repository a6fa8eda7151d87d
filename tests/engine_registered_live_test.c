/*
 * Registered memory on the real kernel: what a registered send brings is what lies in memory when
 * it is submitted, also after memory was freed, given back and filled anew; and the limits. Zero
 * copy is forced: on loopback the kernel copies, but from the registered pages.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <grp.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/stream/registered.h"

TestSuite(engine_registered_live, .timeout = 60);

#define SKIPPED 77
#define REGION  ((size_t)1 << 18)
#define BYTES   ((size_t)64 * REGION)

/* A ring, a slab, and a connection whose one end is a file of the ring. */
typedef struct bench {
    rws__ring *ring;
    rws__slab slab;
    rws__registered registered;
    int32_t file; /* its index in the ring's table */
    int peer;
    int sending;       /* the descriptor of `file` */
    uint32_t notified; /* notifications that came */
    int32_t last_res;  /* of the last send */
} bench;

static bool connect_pair(bench *b, int recv_buffer)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t len = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    b->peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (recv_buffer > 0)
        setsockopt(b->peer, SOL_SOCKET, SO_RCVBUF, &recv_buffer, sizeof recv_buffer);
    bool connected = bind(listener, (struct sockaddr *)&address, len) == 0 &&
                     listen(listener, 1) == 0 &&
                     getsockname(listener, (struct sockaddr *)&address, &len) == 0 &&
                     connect(b->peer, (struct sockaddr *)&address, len) == 0;
    b->sending = connected ? accept4(listener, NULL, NULL, SOCK_CLOEXEC) : -1;
    close(listener);
    return b->sending >= 0;
}

/* One turn; completions of sends and notifications are counted. */
static bool turn(bench *b, bool wait)
{
    rws__cqe cqes[16];
    if (rws__ring_turn(b->ring, wait) != 0) return false;
    for (uint32_t count; (count = rws__ring_reap(b->ring, cqes, 16)) > 0;) {
        for (uint32_t i = 0; i < count; i++) {
            if (cqes[i].flags & RWS__CQE_NOTIFICATION)
                b->notified++;
            else
                b->last_res = cqes[i].res;
        }
    }
    return true;
}

static int make_ring(bench *b, uint32_t off)
{
    rws__ring_options options = {
        .sq_entries = 16,
        .cq_entries = 64,
        .files = 4,
        .incremental_buffers = 1,
        .incremental_bytes = 4096,
        .plain_buffers = 1,
        .plain_bytes = 4096,
        .registered_max = RWS__REGISTERED_MAX,
        .features_off = off,
    };
    const char *what;
    return rws__ring_create(&b->ring, &options, &what);
}

/* Returns 0, or SKIPPED where the kernel or the limit has no registered memory. */
static int open_bench(bench *b, uint32_t entries_max, int recv_buffer)
{
    memset(b, 0, sizeof *b);
    if (make_ring(b, 0) != 0) return SKIPPED;
    if (!(rws__ring_features(b->ring) & RWS__FEATURE_REGISTERED_BUFFERS)) {
        rws__ring_destroy(b->ring);
        return SKIPPED;
    }
    if (rws__slab_init(&b->slab, BYTES) != 0 || !connect_pair(b, recv_buffer)) return 1;
    b->file = b->sending;
    if (rws__ring_install(b->ring, &b->file, 1) != 0 || !turn(b, true)) return 1;
    rws__registered_init(&b->registered, &b->slab, b->ring, entries_max, REGION);
    rws__registered_start(&b->registered);
    return 0;
}

static void close_bench(bench *b)
{
    rws__registered_deinit(&b->registered);
    rws__ring_destroy(b->ring);
    rws__slab_deinit(&b->slab);
    close(b->sending);
    close(b->peer);
}

static void start(bench *b, uint32_t entries_max, int recv_buffer)
{
    int res = open_bench(b, entries_max, recv_buffer);
    if (res == SKIPPED) cr_skip_test("this kernel or its limits have no registered memory");
    cr_assert_eq(res, 0);
}

/* An eighth of the range is in use: nothing that is freed is kept. */
static void make_scarce(bench *b)
{
    cr_assert_not_null(rws__slab_take(&b->slab, BYTES / 4));
}

static uint8_t byte_at(unsigned seed, size_t i)
{
    return (uint8_t)(seed * 37 + i * 7 + i / 256);
}

static void fill(uint8_t *data, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++)
        data[i] = byte_at(seed, i);
}

/* Submit a send, registered if it may be. Returns its entry. */
static int32_t submit(bench *b, const uint8_t *data, size_t len)
{
    int32_t entry = rws__registered_begin(&b->registered, data, len);
    uint32_t file = (uint32_t)b->file;
    if (entry == RWS__NOT_REGISTERED)
        (void)rws__ring_send_zero_copy(b->ring, file, data, len, 2);
    else
        (void)rws__ring_send_registered(b->ring, file, data, len, (uint32_t)entry, 2);
    (void)rws__ring_turn(b->ring, false);
    return entry;
}

/* Whether the peer gets the `len` bytes of `seed`. The send goes on in turns. */
static bool arrives(bench *b, size_t len, unsigned seed)
{
    static uint8_t in[BYTES];
    struct pollfd readable = {.fd = b->peer, .events = POLLIN};
    for (size_t at = 0; at < len;) {
        ssize_t got = recv(b->peer, in + at, len - at, MSG_DONTWAIT);
        if (got > 0) at += (size_t)got;
        if (got == 0 || (got < 0 && errno != EAGAIN)) return false;
        if (got < 0 && (!turn(b, false) || poll(&readable, 1, 1) < 0)) return false;
    }
    for (size_t i = 0; i < len; i++)
        if (in[i] != byte_at(seed, i)) return false;
    return true;
}

static bool await_notification(bench *b, uint32_t count)
{
    while (b->notified < count)
        if (!turn(b, true)) return false;
    return true;
}

/* Send what is at `data`, read it, wait for the notification. */
static bool passes(bench *b, const uint8_t *data, size_t len, unsigned seed, bool *is_registered)
{
    uint32_t before = b->notified;
    int32_t entry = submit(b, data, len);
    *is_registered = entry != RWS__NOT_REGISTERED;
    bool right = arrives(b, len, seed) && await_notification(b, before + 1);
    rws__registered_end(&b->registered, entry);
    return right && b->last_res == (int32_t)len;
}

/* ---- tests ---- */

/* Both ways; the feature rests on zero copy. */
Test(engine_registered_live, is_found_at_run_time_and_can_be_switched_off)
{
    static const uint32_t off[] = {0, RWS__FEATURE_REGISTERED_BUFFERS, RWS__FEATURE_SEND_ZC,
                                   RWS__FEATURE_ALL};
    for (size_t i = 0; i < sizeof off / sizeof off[0]; i++) {
        bench b;
        cr_assert_eq(make_ring(&b, off[i]), 0);
        uint32_t features = rws__ring_features(b.ring);
        bool has = features & RWS__FEATURE_REGISTERED_BUFFERS;
        if (i > 0) cr_expect_not(has, "%x", off[i]);
        if (has) cr_expect(features & RWS__FEATURE_SEND_ZC);
        rws__ring_destroy(b.ring);
    }
}

/*
 * The trap. Memory is freed, given back and filled anew, and a send of it has to bring what was
 * filled in last: had the region been left registered, it would bring what was sent before.
 */
Test(engine_registered_live, sends_what_is_in_memory_after_free_and_refill)
{
    bench b;
    start(&b, 4, 0);
    make_scarce(&b);
    unsigned registered = 0;
    for (unsigned round = 0; round < 24; round++) {
        size_t len = REGION >> (round % 3), region;
        uint8_t *block = rws__slab_take(&b.slab, len);
        cr_assert_not_null(block);
        fill(block, len, round);
        bool is_registered;
        cr_assert(passes(&b, block, len, round, &is_registered), "round %u", round);
        registered += is_registered;
        rws__slab_give(&b.slab, block);
        if (round % 2) rws__registered_settle(&b.registered); /* or it is taken again before */
        region = (size_t)(block - b.slab.base) / REGION;
        if (round % 4 != 0) b.registered.regions[region].rest = 0;
    }
    cr_expect_gt(registered, 4, "%u sends were registered", registered);
    close_bench(&b);
}

/* A send that the peer does not take yet: part of its region is freed, given to another owner and
 * filled. Both send what is theirs. */
Test(engine_registered_live, keeps_its_pages_while_a_send_is_in_flight)
{
    bench b;
    start(&b, 4, 4096);
    make_scarce(&b);
    int small = 65536;
    setsockopt(b.sending, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    size_t len = REGION / 2;
    uint8_t *block = rws__slab_take(&b.slab, len), *other = rws__slab_take(&b.slab, len);
    cr_assert_eq((block - b.slab.base) / (ptrdiff_t)REGION,
                 (other - b.slab.base) / (ptrdiff_t)REGION);
    fill(block, len, 1);
    fill(other, len, 2);
    int32_t entry = submit(&b, block, len);
    cr_assert_neq(entry, RWS__NOT_REGISTERED);
    rws__slab_give(&b.slab, other);
    rws__registered_settle(&b.registered);
    cr_expect_eq(b.registered.entries_used, 1, "it is read");
    cr_assert_eq(rws__slab_take(&b.slab, len), other);
    fill(other, len, 3);
    cr_assert_eq(b.notified, 0);
    cr_assert(arrives(&b, len, 1));
    cr_assert(await_notification(&b, 1));
    bool is_registered;
    cr_assert(passes(&b, other, len, 3, &is_registered));
    cr_expect_not(is_registered, "the region is leaving");
    rws__registered_end(&b.registered, entry);
    rws__registered_settle(&b.registered);
    cr_expect_eq(b.registered.entries_used, 0);
    cr_assert(passes(&b, other, len, 3, &is_registered), "it is in use, and as it was");
    close_bench(&b);
}

/* The kernel's table has an end, and its entries are used again. */
Test(engine_registered_live, sends_plainly_when_the_table_is_full)
{
    bench b;
    start(&b, 3, 0);
    bool is_registered;
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned n = 0; n < 6; n++) {
            uint8_t *block = b.slab.base + n * REGION;
            fill(block, REGION, n + round);
            cr_assert(passes(&b, block, REGION, n + round, &is_registered));
            cr_assert_eq(is_registered, n < 3, "region %u", n);
        }
    }
    close_bench(&b);
}

/* ---- the limit of locked memory ---- */

/* As a user of its own, because what other processes of a user have locked counts too. */
static bool become_a_user(void)
{
    uid_t user = 60000 + (uid_t)getpid() % 5000;
    return geteuid() != 0 || (setgroups(0, NULL) == 0 && setuid(user) == 0);
}

static bool limit_locked_memory(rlim_t bytes)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0) return false;
    if (limit.rlim_max != RLIM_INFINITY && bytes > limit.rlim_max) return false;
    limit.rlim_cur = bytes;
    return setrlimit(RLIMIT_MEMLOCK, &limit) == 0;
}

/* The limit holds three regions and some, less what the ring itself takes: then sends go on, each
 * with its pages pinned for its time. */
static int send_with_little_locked_memory(void)
{
    bench b;
    if (!become_a_user() || !limit_locked_memory(3 * REGION + 65536)) return SKIPPED;
    int res = open_bench(&b, RWS__REGISTERED_MAX, 0);
    if (res != 0) return res;
    unsigned registered = 0;
    uint32_t entries_max = 0;
    for (unsigned n = 0; n < 3 * 16; n++) {
        uint8_t *data = b.slab.base + n % 16 * REGION;
        bool is_registered;
        fill(data, 4096, n);
        if (!passes(&b, data, 4096, n, &is_registered)) return 2;
        registered += is_registered;
        if (n == 16) entries_max = b.registered.entries_max;
    }
    if (b.registered.entries_used == 0 || b.registered.entries_used > 3) return 3;
    if (entries_max != b.registered.entries_used) return 4; /* it asked once too often, not again */
    if (registered != 3 * b.registered.entries_used) return 5;
    close_bench(&b);
    return 0;
}

static int in_a_child(int (*run)(void))
{
    (void)fflush(NULL);
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) _exit(run());
    int status;
    while (waitpid(pid, &status, 0) < 0)
        cr_assert_eq(errno, EINTR);
    cr_assert(WIFEXITED(status), "it crashed");
    if (WEXITSTATUS(status) == SKIPPED)
        cr_skip_test("the limit or the user can't be set here, or the kernel has no such memory");
    return WEXITSTATUS(status);
}

Test(engine_registered_live, sends_plainly_over_the_limit_of_locked_memory)
{
    /* Locked memory counts for the user: rings of its processes that ended just now may still hold
     * some, and then there is room for no region. */
    int res = 3;
    for (int tries = 0; tries < 50 && res == 3; tries++) {
        if (tries > 0) (void)poll(NULL, 0, 100);
        res = in_a_child(send_with_little_locked_memory);
    }
    cr_expect_eq(res, 0, "%d", res);
}

/* Half of the limit, shared by the shards. */
static int count_regions(void)
{
    static const struct {
        rlim_t bytes;
        uint32_t shards, regions;
    } rows[] = {
        {RWS__REGISTERED_BYTES * 2, 1, 1},
        {RWS__REGISTERED_BYTES * 2 - 1, 1, 0},
        {RWS__REGISTERED_BYTES * 2, 2, 0},
        {RWS__REGISTERED_BYTES, 1, 0},
        {65536, 1, 0},
        {0, 1, 0},
    };
    if (!become_a_user()) return SKIPPED;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (!limit_locked_memory(rows[i].bytes)) return SKIPPED;
        if (rws__registered_regions_max(rows[i].shards) != rows[i].regions) return 1 + (int)i;
    }
    return 0;
}

Test(engine_registered_live, leaves_half_of_the_locked_memory_to_others)
{
    int res = in_a_child(count_regions);
    cr_expect_eq(res, 0, "row %d", res - 1);
    cr_expect_leq(rws__registered_regions_max(1), RWS__REGISTERED_MAX);
}
