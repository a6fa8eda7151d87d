/*
 * zero_copy [ROUNDS [MESSAGES [BYTES]]]: the CPU time of a sender per message over loopback, where
 * the kernel copies in any case: sent plainly, without a copy, and without a copy from registered
 * memory. The difference of the last two is what pinning pages for each send costs.
 *
 * The three take turns in each round, in an order that rotates; a ratio is of two figures of one
 * round. The reader is a process of its own, on the second CPU if there is one. Prints a JSON line
 * per way: the median over the rounds with its 95 % interval.
 */
#include "engine/stream/registered.h"

#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SKIPPED    77
#define IN_FLIGHT  4u /* messages, each with a block of its own */
#define ROUNDS_MAX 1000u

typedef enum way { PLAIN, ZERO_COPY, REGISTERED, WAYS } way;

static const char *const names[WAYS] = {"plain", "zero_copy", "registered"};

typedef struct sender {
    rws__ring *ring;
    rws__slab slab;
    rws__registered registered;
    int32_t file;
    size_t bytes;
    uint8_t *blocks[IN_FLIGHT];
    int32_t entries[IN_FLIGHT];
    uint32_t waits[IN_FLIGHT]; /* completions that are expected */
    uint32_t next;
} sender;

static void die(const char *what)
{
    fprintf(stderr, "zero_copy: %s: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE);
}

static void run_on(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    (void)sched_setaffinity(0, sizeof set, &set); /* there may be one CPU */
}

/* Read until the end; whether `bytes` came. */
static void read_all(int fd, uint64_t bytes)
{
    static char in[1 << 18];
    run_on(1);
    uint64_t sum = 0;
    for (ssize_t got; (got = recv(fd, in, sizeof in, 0)) > 0;)
        sum += (uint64_t)got;
    _exit(sum == bytes ? EXIT_SUCCESS : EXIT_FAILURE);
}

/* A connection whose other end is read by a process of its own. */
static int connect_reader(uint64_t bytes)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t len = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listener, (struct sockaddr *)&address, len) != 0 || listen(listener, 1) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &len) != 0 ||
        connect(fd, (struct sockaddr *)&address, len) != 0)
        die("connecting over loopback");
    int peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    close(listener);
    pid_t pid = fork();
    if (peer < 0 || pid < 0) die("starting the reader");
    if (pid == 0) {
        close(fd);
        read_all(peer, bytes);
    }
    close(peer);
    return fd;
}

static void take_completions(sender *s, bool wait)
{
    rws__cqe cqes[16];
    if (rws__ring_turn(s->ring, wait) != 0) die("the ring");
    for (uint32_t count; (count = rws__ring_reap(s->ring, cqes, 16)) > 0;) {
        for (uint32_t i = 0; i < count; i++) {
            const rws__cqe *cqe = &cqes[i];
            uint32_t n = (uint32_t)cqe->user_data;
            bool is_result = !(cqe->flags & RWS__CQE_NOTIFICATION);
            if (is_result && cqe->res <= 0) die("a send");
            if (n >= IN_FLIGHT) continue;
            if (is_result && (size_t)cqe->res != s->bytes) die("a short send");
            if (cqe->flags & RWS__CQE_MORE) continue;
            s->waits[n] = 0;
            rws__registered_end(&s->registered, s->entries[n]);
        }
    }
}

static int submit(sender *s, way how, uint32_t n)
{
    uint32_t file = (uint32_t)s->file;
    const uint8_t *data = s->blocks[n];
    s->entries[n] = RWS__NOT_REGISTERED;
    if (how == PLAIN) return rws__ring_send(s->ring, file, data, s->bytes, n);
    if (how == REGISTERED) s->entries[n] = rws__registered_begin(&s->registered, data, s->bytes);
    if (s->entries[n] == RWS__NOT_REGISTERED)
        return rws__ring_send_zero_copy(s->ring, file, data, s->bytes, n);
    return rws__ring_send_registered(s->ring, file, data, s->bytes, (uint32_t)s->entries[n], n);
}

/* One send at a time, as a connection does; a block waits for its notification. */
static void send_messages(sender *s, way how, uint32_t count)
{
    while (count-- > 0) {
        uint32_t n = s->next++ % IN_FLIGHT;
        while (s->waits[n] > 0)
            take_completions(s, true);
        if (submit(s, how, n) != 0) die("submitting");
        if (how == REGISTERED && s->entries[n] == RWS__NOT_REGISTERED) die("registering");
        s->waits[n] = 1;
        take_completions(s, false);
    }
    for (uint32_t n = 0; n < IN_FLIGHT; n++)
        while (s->waits[n] > 0)
            take_completions(s, true);
}

static double cpu_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

/* False: the kernel or its limits have no registered memory. */
static bool open_sender(sender *s, int *fd, uint64_t total)
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
    };
    const char *what;
    *fd = connect_reader(total);
    if (rws__ring_create(&s->ring, &options, &what) != 0) die(what);
    if (!(rws__ring_features(s->ring) & RWS__FEATURE_REGISTERED_BUFFERS)) return false;
    if (rws__slab_init(&s->slab, (size_t)1 << 30) != 0) die("the slab");
    s->file = *fd;
    if (rws__ring_install(s->ring, &s->file, IN_FLIGHT) != 0) die("installing the file");
    take_completions(s, true);
    rws__registered_init(&s->registered, &s->slab, s->ring, RWS__REGISTERED_MAX,
                         RWS__REGISTERED_BYTES);
    rws__registered_start(&s->registered);
    for (uint32_t n = 0; n < IN_FLIGHT; n++) {
        s->blocks[n] = rws__slab_take(&s->slab, s->bytes + 64); /* a payload has a head */
        if (s->blocks[n] == NULL) die("a block");
        memset(s->blocks[n], 'x', s->bytes);
    }
    return true;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Print the median of `values` and its 95 % interval, by ranks. */
static void print_median(const char *name, const double *values, uint32_t count)
{
    double sorted[ROUNDS_MAX];
    memcpy(sorted, values, count * sizeof *values);
    qsort(sorted, count, sizeof *sorted, compare);
    double below = floor(((double)count - 1.96 * sqrt((double)count)) / 2);
    uint32_t low = below > 1 ? (uint32_t)below - 1 : 0;
    printf(", \"%s\": %.3f, \"%s_low\": %.3f, \"%s_high\": %.3f", name, sorted[count / 2], name,
           sorted[low], name, sorted[count - 1 - low]);
}

static void report(double times_us[WAYS][ROUNDS_MAX], uint32_t rounds, size_t bytes)
{
    for (int how = 0; how < WAYS; how++) {
        double ratios[ROUNDS_MAX] = {0};
        for (uint32_t round = 0; round < rounds; round++)
            ratios[round] = times_us[how][round] / times_us[ZERO_COPY][round];
        printf("{\"benchmark\": \"zero_copy\", \"way\": \"%s\", \"message_bytes\": %zu, "
               "\"rounds\": %u",
               names[how], bytes, rounds);
        print_median("cpu_us", times_us[how], rounds);
        print_median("zero_copy_ratio", ratios, rounds);
        printf("}\n");
    }
}

static uint32_t number(int argc, char **argv, int at, uint32_t fallback, uint32_t max)
{
    if (argc <= at) return fallback;
    unsigned long value = strtoul(argv[at], NULL, 10);
    if (value > 0 && value <= max) return (uint32_t)value;
    fprintf(stderr, "usage: zero_copy [ROUNDS [MESSAGES [BYTES]]]\n");
    exit(2);
}

int main(int argc, char **argv)
{
    static double times_us[WAYS][ROUNDS_MAX];
    uint32_t rounds = number(argc, argv, 1, 21, ROUNDS_MAX);
    uint32_t messages = number(argc, argv, 2, 1000, UINT32_MAX);
    sender s = {.bytes = number(argc, argv, 3, 1u << 20, 2097000)};
    int fd;
    if (!open_sender(&s, &fd, (uint64_t)WAYS * (rounds + 1) * messages * s.bytes)) return SKIPPED;
    run_on(0);
    for (uint32_t round = 0; round <= rounds; round++) {
        for (uint32_t n = 0; n < WAYS; n++) {
            way how = (way)((round + n) % WAYS);
            double before = cpu_us();
            send_messages(&s, how, messages);
            /* The first round warms up. */
            if (round > 0) times_us[how][round - 1] = (cpu_us() - before) / messages;
        }
    }
    (void)shutdown(fd, SHUT_WR);
    int status;
    if (wait(&status) < 0 || status != 0) die("the reader did not get all");
    report(times_us, rounds, s.bytes);
    rws__registered_deinit(&s.registered);
    rws__ring_destroy(s.ring);
    rws__slab_deinit(&s.slab);
    return EXIT_SUCCESS;
}
