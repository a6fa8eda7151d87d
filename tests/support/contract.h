/*
 * What the tests of the ring's contract have in common: a ring with few entries of everything, a
 * listener, pairs of a file and a peer, and what completed so far. Each test runs on the newest
 * features and without them (EACH_RING).
 *
 * Where kernels may differ, or one may choose, a test names the set that is allowed and why.
 */
#ifndef RINGWS_TESTS_SUPPORT_CONTRACT_H
#define RINGWS_TESTS_SUPPORT_CONTRACT_H

#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "engine/ring/clock.h"
#include "engine/ring/ring.h"
#include "engine/ring/sockets.h"
#include "support/outside.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* Against what hangs; and how long nothing must happen before it is taken for never. */
#define PATIENCE_MS 10000
#define NEVER_MS    20
#define STEP_US     200

#define FILES        8u
#define SEND_BUFFER  65536
#define DONE_MAX     4096
#define DONE_BYTES   65536u
#define ACCEPT_DATA  0xACu
#define NOBODY       0u /* of calls without a completion of their own */
#define EITHER(a, b) ((const int32_t[]){(a), (b)}), 2

/* A completion. */
typedef struct done {
    rws__cqe cqe;
    uint8_t *data;  /* where its bytes were, if it used a provided buffer */
    uint8_t *bytes; /* a copy */
    bool taken;     /* by an expectation */
} done;

typedef struct contract {
    rws__ring *ring;
    uint32_t features;
    rws__ring_options options;
    int listener;
    rws__socket_address address; /* of the listener */
    done done[DONE_MAX];
    uint32_t done_count;
    bool hold; /* keep provided buffers */
    rws__cqe held[64];
    uint32_t held_count;
    uint8_t *end; /* of the last bytes in a provided buffer */
} contract;

static contract it;

/* A file of the ring and its peer. */
typedef struct pair {
    uint32_t file;
    int peer;
} pair;

/* ---- completions ---- */

static inline void note(const rws__cqe *cqe)
{
    cr_assert_lt(it.done_count, DONE_MAX);
    done *one = &it.done[it.done_count++];
    *one = (done){.cqe = *cqe};
    if (!(cqe->flags & RWS__CQE_BUFFER)) return;
    bool continues = rws__ring_continues(it.ring, it.end, cqe);
    one->data = rws__ring_buffer(it.ring, cqe);
    if (continues) cr_assert_eq(one->data, it.end, "it continues, but not there");
    size_t len = cqe->res > 0 ? (size_t)cqe->res : 0;
    it.end = one->data + len;
    one->bytes = malloc(len + 1);
    memcpy(one->bytes, one->data, len);
    if (it.hold)
        it.held[it.held_count++] = *cqe;
    else
        rws__ring_recycle(it.ring, cqe);
}

/* One turn that does not wait; returns the number of completions. */
static inline uint32_t turn(void)
{
    rws__cqe cqes[32];
    uint32_t count, sum = 0;
    cr_assert_eq(rws__ring_turn(it.ring, false), 0);
    while ((count = rws__ring_reap(it.ring, cqes, COUNT(cqes))) > 0) {
        for (uint32_t i = 0; i < count; i++)
            note(&cqes[i]);
        sum += count;
    }
    return sum;
}

static inline void settle(void)
{
    uint64_t end = rws__clock_ms() + NEVER_MS;
    do {
        if (turn() > 0) end = rws__clock_ms() + NEVER_MS;
        outside_pass_us(STEP_US);
    } while (rws__clock_ms() <= end);
}

static inline done *find(uint64_t user_data)
{
    for (uint32_t i = 0; i < it.done_count; i++)
        if (it.done[i].cqe.user_data == user_data && !it.done[i].taken) return &it.done[i];
    return NULL;
}

/* The next completion of `user_data`. */
static inline const done *await(uint64_t user_data)
{
    uint64_t end = rws__clock_ms() + PATIENCE_MS;
    for (;;) {
        done *one = find(user_data);
        if (one != NULL) {
            one->taken = true;
            return one;
        }
        cr_assert_leq(rws__clock_ms(), end, "no completion of %#llx",
                      (unsigned long long)user_data);
        if (turn() == 0) outside_pass_us(STEP_US);
    }
}

static inline void expect(uint64_t user_data, int32_t res)
{
    const done *one = await(user_data);
    cr_assert_eq(one->cqe.res, res, "%#llx: %d instead of %d", (unsigned long long)user_data,
                 one->cqe.res, res);
}

static inline int32_t expect_one_of(uint64_t user_data, const int32_t *allowed, size_t count)
{
    int32_t res = await(user_data)->cqe.res;
    for (size_t i = 0; i < count; i++)
        if (res == allowed[i]) return res;
    cr_assert_fail("%#llx: %d is not allowed", (unsigned long long)user_data, res);
    return res;
}

/* Nothing of it completes any more. */
static inline void expect_nothing(uint64_t user_data)
{
    settle();
    const done *one = find(user_data);
    cr_assert_null(one, "%#llx: %d is not expected", (unsigned long long)user_data,
                   one != NULL ? one->cqe.res : 0);
}

static inline void give_back(void)
{
    for (uint32_t i = 0; i < it.held_count; i++)
        rws__ring_recycle(it.ring, &it.held[i]);
    it.held_count = 0;
}

static inline void forget_completions(void)
{
    for (uint32_t i = 0; i < it.done_count; i++)
        free(it.done[i].bytes);
    it.done_count = 0;
}

/* ---- peers ---- */

static inline int connect_to(const rws__socket_address *address)
{
    int fd = outside_connect((const struct sockaddr *)&address->storage, address->len, 0);
    cr_assert_geq(fd, 0, "connecting: %d", fd);
    return fd;
}

static inline void await_connected(int fd)
{
    for (int i = 0; i < PATIENCE_MS; i++) {
        int res = outside_connected(fd);
        if (res == 0) return;
        cr_assert_eq(res, -EINPROGRESS);
        outside_pass_us(1000);
    }
    cr_assert_fail("it is not connected");
}

static inline void write_all(int peer, const void *data, size_t len)
{
    const uint8_t *at = data;
    for (uint64_t end = rws__clock_ms() + PATIENCE_MS; len > 0;) {
        ssize_t sent = outside_write(peer, at, len);
        if (sent > 0) {
            at += sent;
            len -= (size_t)sent;
            continue;
        }
        cr_assert_eq(sent, -EAGAIN);
        cr_assert_leq(rws__clock_ms(), end);
        turn();
        outside_pass_us(STEP_US);
    }
}

static inline void write_text(int peer, const char *text)
{
    write_all(peer, text, strlen(text));
}

/* Up to `len` bytes, with turns until they are there: their number, which is less at an end: that
 * is 0 or -errno in `*end`. */
static inline size_t read_up_to(int peer, uint8_t *data, size_t len, int *end)
{
    size_t had = 0;
    for (uint64_t limit = rws__clock_ms() + PATIENCE_MS; had < len;) {
        ssize_t got = outside_read(peer, data + had, len - had);
        if (got > 0) {
            had += (size_t)got;
            continue;
        }
        *end = (int)got;
        if (got != -EAGAIN) return had;
        cr_assert_leq(rws__clock_ms(), limit, "%zu of %zu bytes", had, len);
        turn();
        outside_pass_us(STEP_US);
    }
    return had;
}

static inline void peer_reads(int peer, const char *text)
{
    uint8_t data[256];
    int end = 1;
    size_t len = strlen(text), had = read_up_to(peer, data, len, &end);
    cr_assert_eq(had, len, "%zu bytes, then %d, instead of \"%s\"", had, end, text);
    cr_assert_arr_eq(data, text, len);
}

/* The peer reads whatever is there and then the end: 0 or -errno. Returns the bytes. */
static inline size_t peer_ends(int peer, int *end)
{
    static uint8_t data[65536];
    size_t sum = 0, had;
    *end = 1;
    do
        sum += had = read_up_to(peer, data, sizeof data, end);
    while (had == sizeof data);
    return sum;
}

static inline void peer_gets_nothing(int peer)
{
    uint8_t byte;
    settle();
    cr_assert_eq(outside_read(peer, &byte, 1), -EAGAIN);
}

/* ---- files ---- */

static inline int accept_direct(int listener, uint64_t user_data)
{
    static struct sockaddr_storage address;
    static socklen_t len;
    len = sizeof address;
    return rws__ring_accept_direct(it.ring, listener, (struct sockaddr *)&address, &len, user_data);
}

static inline pair accept_pair(void)
{
    pair made = {.peer = connect_to(&it.address)};
    cr_assert_eq(accept_direct(it.listener, ACCEPT_DATA), 0);
    int32_t res = await(ACCEPT_DATA)->cqe.res;
    cr_assert(res >= 0 && res < (int32_t)it.options.files, "%d", res);
    made.file = (uint32_t)res;
    return made;
}

static inline void close_file(uint32_t file)
{
    cr_assert_eq(rws__ring_close(it.ring, file, 0xC105E), 0);
    (void)await(0xC105E);
}

static inline void close_pair(pair made)
{
    close_file(made.file);
    outside_close(made.peer);
}

/* The socket of a dial, in the table. */
static inline uint32_t install_socket(void)
{
    static const rws__socket_options options = {.send_buffer_bytes = SEND_BUFFER};
    int fd = rws__socket_make(AF_INET, &options);
    cr_assert_geq(fd, 0);
    int32_t index = fd;
    cr_assert_eq(rws__ring_install(it.ring, &index, 0x1257), 0);
    expect(0x1257, 1);
    rws__socket_close(fd);
    cr_assert_neq(index, fd, "nothing was written there");
    return (uint32_t)index;
}

/* ---- worlds ---- */

static inline rws__socket_address loopback(void)
{
    rws__socket_address address = {.len = sizeof(struct sockaddr_in)};
    struct sockaddr_in in = {.sin_family = AF_INET};
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    memcpy(&address.storage, &in, sizeof in);
    return address;
}

/* A listener on a port of its own. */
static inline int listen_somewhere(uint32_t backlog, rws__socket_address *address)
{
    static const rws__socket_options options = {.send_buffer_bytes = SEND_BUFFER};
    *address = loopback();
    int fd = rws__socket_listen((const struct sockaddr *)&address->storage, address->len, true,
                                backlog, &options);
    cr_assert_geq(fd, 0, "listening: %d", fd);
    cr_assert_eq(rws__socket_local(fd, &address->storage), 0);
    return fd;
}

static inline void open_ring(const rws__ring_options *options)
{
    const char *what;
    it.options = *options;
    int res = rws__ring_create(&it.ring, options, &what);
    cr_assert_eq(res, 0, "%s: %d", what, res);
    it.features = rws__ring_features(it.ring);
}

static inline rws__ring_options small_ring(uint32_t features_off)
{
    return (rws__ring_options){
        .sq_entries = 64,
        .cq_entries = 256,
        .files = FILES,
        .incremental_buffers = 4,
        .incremental_bytes = 8192,
        .plain_buffers = 8,
        .plain_bytes = 1024,
        .registered_max = 2,
        .features_off = features_off,
    };
}

static const uint32_t features_off[] = {0, RWS__FEATURE_ALL};

static inline bool begin(size_t variant)
{
    if (variant >= COUNT(features_off)) return false;
    memset(&it, 0, sizeof it);
    outside_start(RWS__FEATURE_ALL, 1, false);
    it.listener = listen_somewhere(16, &it.address);
    rws__ring_options options = small_ring(features_off[variant]);
    open_ring(&options);
    return true;
}

static inline void finish(void)
{
    forget_completions();
    rws__ring_destroy(it.ring);
    rws__socket_close(it.listener);
    outside_end();
}

/* Another one in place of the ring that there is. */
static inline void replace_ring(const rws__ring_options *options)
{
    rws__ring_destroy(it.ring);
    open_ring(options);
}

#define EACH_RING for (size_t variant = 0; begin(variant); finish(), variant++)

#endif
