/*
 * A raw echo on a stream: what is above it is ten lines, and the program links base, ring, loop and
 * stream alone (ctest: stream alone), so a stream needs no protocol. On the real ring, with all
 * kernel features and with none: short exchanges, a large transfer, a reader that stalls,
 * half-closed and reset peers. At the end all memory has come back.
 */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "engine/stream/streams.h"

#define SLOTS            16u
#define HIGH_WATER       65536u
#define LARGE_BYTES      (24u << 20)
#define PATIENCE_S       20
#define RECV_BUFFER_SLOW 16384

typedef struct echo {
    rws__loop loop; /* first: the loop leads to it */
    rws__streams streams;
    int listener;
    bool accepting, stopping;
    atomic_uint ended; /* by an error */
} echo;

static atomic_int failures;

static bool check_at(bool good, const char *what, int line)
{
    if (!good) fprintf(stderr, "%s:%d: FAILED: %s\n", __FILE__, line, what);
    if (!good) atomic_fetch_add(&failures, 1);
    return good;
}
#define CHECK(condition) check_at(condition, #condition, __LINE__)

/* ---- the echo ---- */

static void ignore(rws__stream *stream)
{
    (void)stream;
}

static size_t on_input(rws__stream *stream, uint8_t *data, size_t len)
{
    uint8_t *out = rws__stream_reserve(stream, len, RWS__SHARE_MESSAGE);
    if (out == NULL) {
        rws__stream_finish(stream, RWS__FINISH_CUT);
        return len;
    }
    memcpy(out, data, len);
    rws__stream_commit(stream, len);
    stream->report_sent = rws__stream_queued(stream) > HIGH_WATER;
    if (stream->report_sent) rws__stream_pause(stream);
    return len;
}

static void on_sent(rws__stream *stream)
{
    if (rws__stream_queued(stream) > HIGH_WATER) return;
    stream->report_sent = false;
    rws__stream_resume(stream);
}

static void on_eof(rws__stream *stream)
{
    rws__stream_finish(stream, RWS__FINISH_CLOSE);
}

static void on_overflow(rws__stream *stream)
{
    rws__stream_finish(stream, RWS__FINISH_CUT);
}

static void on_asked(rws__stream *stream, bool moved)
{
    (void)stream;
    (void)moved;
}

static void on_ended(rws__stream *stream, const rws__cause *cause)
{
    (void)cause;
    atomic_fetch_add(&((echo *)stream->streams->loop)->ended, 1);
}

static const rws__stream_events events = {
    .on_up = ignore,
    .on_input = on_input,
    .on_eof = on_eof,
    .on_sent = on_sent,
    .on_asked = on_asked,
    .on_ended = on_ended,
    .on_input_overflow = on_overflow,
    .on_turn = ignore,
    .on_released = ignore,
};

/* ---- its loop ---- */

/* One accept at a time, while a slot is free. */
static bool on_flush(rws__loop *loop)
{
    echo *own = (echo *)loop;
    rws__streams_flush(&own->streams);
    bool wants = !own->accepting && !own->stopping && own->streams.slots_used < SLOTS;
    if (wants) {
        own->accepting = rws__ring_accept_direct(loop->ring, own->listener, NULL, NULL,
                                                 rws__op_pack(RWS__OP_ACCEPT, 0, 0)) == 0;
        loop->refused |= !own->accepting;
    }
    return rws__streams_are_busy(&own->streams);
}

static uint32_t on_completions(rws__loop *loop, const rws__cqe *cqes, uint32_t left)
{
    echo *own = (echo *)loop;
    if (rws__op_kind_of(cqes->user_data) != RWS__OP_ACCEPT)
        return rws__streams_on_completions(&own->streams, cqes, left);
    own->accepting = false;
    if (cqes->res < 0) return 1;
    rws__stream *stream = rws__streams_take(&own->streams, &events);
    stream->family = AF_INET;
    rws__stream_accepted(stream, cqes->res, NULL);
    return 1;
}

static void on_settled(rws__loop *loop, bool all_submitted)
{
    rws__streams_settle(&((echo *)loop)->streams, all_submitted);
}

static void on_stop(rws__loop *loop)
{
    echo *own = (echo *)loop;
    own->stopping = true;
    if (own->accepting) (void)rws__ring_cancel(loop->ring, rws__op_pack(RWS__OP_ACCEPT, 0, 0));
}

static const rws__loop_owner owner = {
    .on_flush = on_flush,
    .on_completions = on_completions,
    .on_settled = on_settled,
    .on_stop = on_stop,
};

static void nothing_is_left(const echo *own)
{
    CHECK(own->streams.slots_used == 0);
    CHECK(own->streams.send_slab.used_bytes == 0);
    CHECK(own->streams.partial->slab.used_bytes == 0);
    CHECK(own->streams.partial->charged_bytes == 0);
}

static void *run(void *arg)
{
    echo *own = arg;
    while (!own->stopping || own->accepting || own->streams.slots_used > 0)
        if (!CHECK(rws__loop_turn(&own->loop, true) == 0)) break;
    nothing_is_left(own);
    rws__loop_close_mailbox(&own->loop);
    rws__streams_abandon(&own->streams);
    rws__registered_deinit(&own->streams.registered);
    rws__loop_close_ring(&own->loop);
    return NULL;
}

typedef struct start_up {
    echo *own;
    uint32_t features_off;
    int result;
    pthread_barrier_t ready;
} start_up;

/* The thread that runs a loop makes its ring. */
static void *open_and_run(void *arg)
{
    start_up *start = arg;
    echo *own = start->own;
    const rws__ring_options options = {
        .sq_entries = 64,
        .cq_entries = 1024,
        .files = SLOTS,
        .incremental_buffers = 8,
        .incremental_bytes = 16384,
        .plain_buffers = 8,
        .plain_bytes = 4096,
        .features_off = start->features_off,
    };
    const char *what = "";
    int res = rws__loop_open(&own->loop, &options, &what);
    start->result = res;
    if (res == 0) rws__streams_open(&own->streams, 1);
    if (res != 0) fprintf(stderr, "%s: %s\n", what, strerror(-res));
    pthread_barrier_wait(&start->ready);
    return res == 0 ? run(own) : NULL;
}

static const rws__env env;

static bool make(echo *own)
{
    static const rws__streams_options options = {
        .slots_max = SLOTS,
        .slot_bytes = sizeof(rws__stream),
        .cold_bytes = sizeof(rws__stream_cold),
        .send_pool_bytes_max = 8u << 20,
        .partial_bytes_max = 4u << 20,
        .retained_bytes_max = 1u << 20,
        .send_timeout_ms = 10000,
        .linger_timeout_ms = 1000,
        .progress_bytes_per_s_min = 128,
    };
    memset(own, 0, sizeof *own);
    if (!CHECK(rws__loop_init(&own->loop, &env, &owner) == 0)) return false;
    own->loop.on_deadline[RWS__DEADLINE_SENDING] = rws__streams_on_sending_deadline;
    own->loop.on_deadline[RWS__DEADLINE_LINGER] = rws__streams_on_linger_deadline;
    return CHECK(rws__streams_init(&own->streams, &own->loop, &options) == 0);
}

/* ---- its peers ---- */

static uint16_t listen_on_loopback(int *listener)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    *listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(*listener, (struct sockaddr *)&address, len) == 0 && listen(*listener, 64) == 0);
    CHECK(getsockname(*listener, (struct sockaddr *)&address, &len) == 0);
    return ntohs(address.sin_port);
}

static int dial(uint16_t port, int recv_buffer_bytes)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    address.sin_port = htons(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval limit = {.tv_sec = PATIENCE_S};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (recv_buffer_bytes > 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &recv_buffer_bytes, sizeof recv_buffer_bytes);
    CHECK(connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    return fd;
}

static uint8_t byte_at(size_t i)
{
    return (uint8_t)(i * 7 + i / 251);
}

/* Read `len` bytes that begin with number `at`; 0 at the end of the stream. */
static size_t read_some(int fd, size_t at, size_t len)
{
    uint8_t in[65536];
    ssize_t got = recv(fd, in, len < sizeof in ? len : sizeof in, 0);
    if (got <= 0) return 0;
    bool same = true;
    for (size_t i = 0; i < (size_t)got; i++)
        same = same && in[i] == byte_at(at + i);
    CHECK(same);
    return (size_t)got;
}

static void write_all(int fd, size_t len)
{
    uint8_t out[65536];
    for (size_t at = 0; at < len;) {
        size_t part = len - at < sizeof out ? len - at : sizeof out;
        for (size_t i = 0; i < part; i++)
            out[i] = byte_at(at + i);
        ssize_t sent = send(fd, out, part, MSG_NOSIGNAL);
        if (!CHECK(sent > 0)) return;
        at += (size_t)sent;
    }
}

static void small_exchanges(uint16_t port)
{
    int fd = dial(port, 0);
    for (size_t len = 1; len < 3000; len += 37) {
        write_all(fd, len);
        for (size_t at = 0, got = 1; at < len && got > 0; at += got)
            CHECK((got = read_some(fd, at, len - at)) > 0);
    }
    close(fd);
}

/* Everything that was written before the end of stream comes back, then the echo's own end. */
static void half_close(uint16_t port)
{
    for (size_t len = 0; len < 400000; len = len * 3 + 1) {
        int fd = dial(port, 0);
        write_all(fd, len);
        CHECK(shutdown(fd, SHUT_WR) == 0);
        size_t at = 0, got;
        while ((got = read_some(fd, at, len + 1)) > 0)
            at += got;
        CHECK(at == len);
        close(fd);
    }
}

typedef struct transfer {
    int fd;
    size_t bytes;
} transfer;

static void *write_transfer(void *arg)
{
    transfer *own = arg;
    write_all(own->fd, own->bytes);
    (void)shutdown(own->fd, SHUT_WR);
    return NULL;
}

/* `stall`: the reader takes nothing now and then, and little at once. */
static void large_transfer(uint16_t port, size_t bytes, bool stall)
{
    transfer own = {dial(port, stall ? RECV_BUFFER_SLOW : 0), bytes};
    pthread_t writer;
    if (!CHECK(pthread_create(&writer, NULL, write_transfer, &own) == 0)) return;
    size_t at = 0, got, reads = 0;
    while ((got = read_some(own.fd, at, stall ? 8192 : 65536)) > 0) {
        at += got;
        struct timespec pause = {.tv_nsec = 3000000};
        if (stall && ++reads % 64 == 0) nanosleep(&pause, NULL);
    }
    CHECK(at == bytes);
    pthread_join(writer, NULL);
    close(own.fd);
}

static void reset_peers(uint16_t port)
{
    for (size_t len = 0; len < 300000; len = len * 5 + 1) {
        int fd = dial(port, RECV_BUFFER_SLOW);
        if (len <= 65536) write_all(fd, len);
        struct linger linger = {.l_onoff = 1};
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
        close(fd);
    }
}

static void run_with(uint32_t features_off)
{
    echo *own = malloc(sizeof *own);
    start_up start = {.own = own, .features_off = features_off};
    pthread_t thread;
    if (own == NULL || !make(own)) exit(1);
    uint16_t port = listen_on_loopback(&own->listener);
    pthread_barrier_init(&start.ready, NULL, 2);
    if (!CHECK(pthread_create(&thread, NULL, open_and_run, &start) == 0)) exit(1);
    pthread_barrier_wait(&start.ready);
    if (start.result == -EPERM || start.result == -ENOSYS) {
        fprintf(stderr, "skipped: no io_uring here: %s\n", strerror(-start.result));
        exit(77);
    }
    if (CHECK(start.result == 0)) {
        small_exchanges(port);
        half_close(port);
        large_transfer(port, LARGE_BYTES, false);
        large_transfer(port, LARGE_BYTES / 8, true);
        reset_peers(port);
        small_exchanges(port);
        rws__loop_stop(&own->loop);
    }
    pthread_join(thread, NULL);
    printf("features off %x: %llu bytes received, %llu sent, %u ended by an error\n", features_off,
           (unsigned long long)own->loop.counters.bytes_received,
           (unsigned long long)own->loop.counters.bytes_sent, atomic_load(&own->ended));
    close(own->listener);
    rws__streams_deinit(&own->streams);
    rws__loop_deinit(&own->loop);
    pthread_barrier_destroy(&start.ready);
    free(own);
}

int main(void)
{
    run_with(0);
    run_with(RWS__FEATURE_ALL);
    printf("%d checks failed\n", failures);
    return failures == 0 ? 0 : 1;
}
