/*
 * Nothing is lost: numbered messages of 0 bytes to 1 MiB over connections whose writes are cut at
 * random places and whose readers stall at random times, against a receive ring of only 8 buffers
 * and small socket buffers. Every byte of every echo is compared with what was sent, in order.
 *
 * Without arguments a small form runs, with all kernel features on and with all off; `--full` is
 * the one that counts. ctest: timeout=600 ctest: filtered
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "support/engine_stress_server.h"
#include "support/stress_client.h"

/* Without any progress for so long it hangs. */
#define STILL_MS 60000u

typedef struct stress_options {
    stress_plan plan;
    uint64_t features_off;
    uint64_t recv_buffers, recv_buffer_bytes, shards, deadline_s;
    bool has_seed, has_features_off;
} stress_options;

static const uint64_t seeds[] = {20250301, 424242, 7};

static uint64_t clock_now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void usage(FILE *out)
{
    fputs("usage: engine_stress_plain [--quick | --full] [OPTION N]...\n\n"
          "  --quick              16 connections, 3,000 messages, 48 MiB; one seed (the default)\n"
          "  --full               64 connections, 200,000 messages, 2 GiB; three seeds\n"
          "  --connections N      \n"
          "  --messages N         at least, in all\n"
          "  --bytes N            of payload, at least, in all\n"
          "  --seed N             only this one\n"
          "  --features-off HEX   only with these features off, instead of none and all\n"
          "  --recv-buffers N     8\n"
          "  --recv-buffer-bytes N  4096\n"
          "  --shards N           1\n"
          "  --threads N          of clients; 4\n"
          "  --deadline S         of one run; 240\n",
          out);
}

static void set_size(stress_options *options, bool full)
{
    options->plan.connections = full ? 64 : 16;
    options->plan.messages = full ? 200000 : 3000;
    options->plan.bytes = full ? 2ull << 30 : 48ull << 20;
}

static bool number_option(stress_options *options, const char *name, uint64_t value)
{
    if (strcmp(name, "--connections") == 0)
        options->plan.connections = (uint32_t)value;
    else if (strcmp(name, "--messages") == 0)
        options->plan.messages = value;
    else if (strcmp(name, "--bytes") == 0)
        options->plan.bytes = value;
    else if (strcmp(name, "--recv-buffers") == 0)
        options->recv_buffers = value;
    else if (strcmp(name, "--recv-buffer-bytes") == 0)
        options->recv_buffer_bytes = value;
    else if (strcmp(name, "--shards") == 0)
        options->shards = value;
    else if (strcmp(name, "--threads") == 0)
        options->plan.threads = (uint32_t)value;
    else if (strcmp(name, "--deadline") == 0)
        options->deadline_s = value;
    else if (strcmp(name, "--seed") == 0)
        options->plan.seed = value, options->has_seed = true;
    else if (strcmp(name, "--features-off") == 0)
        options->features_off = value, options->has_features_off = true;
    else
        return false;
    return true;
}

/* 0, or the exit status + 1. */
static int parse(stress_options *options, int argc, char **argv, bool *full)
{
    *options = (stress_options){.recv_buffers = 8,
                                .recv_buffer_bytes = 4096,
                                .shards = 1,
                                .deadline_s = 240,
                                .plan = {.threads = 4}};
    *full = false;
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--full") == 0) *full = true;
    set_size(options, *full);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--full") == 0 || strcmp(argv[i], "--quick") == 0) continue;
        if (strcmp(argv[i], "--help") == 0) {
            usage(stdout);
            return 1;
        }
        char *end = NULL;
        int base = strcmp(argv[i], "--features-off") == 0 ? 16 : 10;
        uint64_t value = i + 1 < argc ? strtoull(argv[i + 1], &end, base) : 0;
        if (end == NULL || end == argv[i + 1] || *end != '\0' ||
            !number_option(options, argv[i], value)) {
            fprintf(stderr, "engine_stress_plain: bad option or value: %s\n", argv[i]);
            usage(stderr);
            return 3;
        }
        i++;
    }
    return 0;
}

static test_options server_options(const stress_options *options)
{
    test_options server = {0};
    server.port = 0;
    server.shards = (uint32_t)options->shards;
    server.connections_max = options->plan.connections + 16;
    server.recv_buffers = (uint32_t)options->recv_buffers;
    server.recv_buffer_bytes = (size_t)options->recv_buffer_bytes;
    server.message_bytes_max = STRESS_MESSAGE_MAX;
    server.socket_send_buffer_bytes = 16384;
    server.high_watermark_bytes = 65536;
    server.low_watermark_bytes = 16384;
    server.features_off = (uint32_t)options->features_off;
    server.message_timeout_ms = 600000; /* stalls of the whole machine are not what is tested */
    /* With every other seed the queue has room for little more than its high watermark, so that
     * RWS_E_BACKLOG occurs. */
    if (options->plan.seed % 2 == 0) server.send_queue_bytes_max = 69632;
    return server;
}

/* Wait for the end; false with a dump if nothing moves, or the deadline passes. */
static bool await_end(const stress_options *options, stress_clients *clients, stress_server *server)
{
    uint64_t begin = clock_now_ms(), last_move = begin, progress = 0;
    while (!stress_clients_are_done(clients)) {
        struct timespec pause = {.tv_nsec = 10000000};
        nanosleep(&pause, NULL);
        uint64_t now = clock_now_ms(), moved = stress_clients_progress(clients);
        if (moved != progress) {
            progress = moved;
            last_move = now;
        }
        bool late = now - begin > options->deadline_s * 1000;
        if (!late && now - last_move < STILL_MS) continue;
        rws_stats stats;
        stress_server_stats(server, &stats);
        fprintf(stderr, "%s; who waits for what:\n",
                late ? "the deadline passed" : "nothing moves any more");
        stress_clients_dump(clients, stderr);
        stress_server_dump(server, stderr);
        fprintf(stderr,
                "  server: %" PRIu64 " connections, %" PRIu64 " messages in, %" PRIu64
                " out, %" PRIu64 " bytes in, %" PRIu64 " out, %" PRIu64 " times no buffer\n",
                stats.connections, stats.messages_received, stats.messages_sent,
                stats.bytes_received, stats.bytes_sent, stats.no_buffers);
        return false;
    }
    return true;
}

static bool check(bool good, const char *what)
{
    if (!good) fprintf(stderr, "FAILED: %s\n", what);
    return good;
}

/* What both sides counted. */
static bool check_counts(const stress_options *options, const stress_totals *totals,
                         const stress_server_counts *counts, const rws_stats *stats)
{
    const stress_plan *plan = &options->plan;
    bool good = check(totals->messages >= plan->messages && totals->bytes >= plan->bytes,
                      "less was sent than was asked for");
    good &= check(stats->messages_received == totals->messages, "the server got other messages");
    good &= check(stats->messages_sent == totals->messages, "the server sent other messages");
    good &= check(counts->clean_closes == plan->connections, "some connections closed otherwise");
    good &= check(counts->opened == counts->closed, "on_close did not follow every on_open");
    good &= check(stats->connections == 0, "connections are left");
    good &= check(stats->protocol_errors == 0 && stats->timeouts == 0, "connections were failed");
    return good;
}

/* What shows that the test tested what it says, summed over the runs: one short run alone may be
 * lucky and meet no full socket. */
typedef struct stress_evidence {
    uint64_t cut_writes, stalls, drains, blocked, no_buffers, backlogs;
} stress_evidence;

static void gather(stress_evidence *evidence, const stress_totals *totals,
                   const stress_server_counts *counts, const rws_stats *stats)
{
    evidence->cut_writes += totals->cut_writes;
    evidence->stalls += totals->stalls;
    evidence->drains += counts->drains;
    evidence->blocked += counts->blocked;
    evidence->no_buffers += stats->no_buffers;
    evidence->backlogs += counts->backlogs;
}

static bool check_evidence(const stress_options *options, const stress_evidence *evidence)
{
    bool good = check(evidence->cut_writes > 0 && evidence->stalls > 0,
                      "no write was cut, or no reader stalled");
    good &= check(evidence->drains > 0, "no queue ever rose above its high watermark");
    if (options->shards == 1)
        good &= check(evidence->blocked > 0, "no send ever met a full socket");
    if (options->plan.connections > options->recv_buffers && options->recv_buffer_bytes <= 4096)
        good &= check(evidence->no_buffers > 0, "the receive ring never ran out of buffers");
    /* The odd seeds run with a queue that never refuses. */
    if (!options->has_seed || options->plan.seed % 2 == 0)
        good &= check(evidence->backlogs > 0, "the send queue never refused a message");
    return good;
}

/* Wait until the server has seen the last end. */
static void await_closes(const stress_server *server, uint64_t count)
{
    struct timespec pause = {.tv_nsec = 5000000};
    for (int i = 0; i < 2000 && stress_server_counted(server).closed < count; i++)
        nanosleep(&pause, NULL);
}

static bool run_once(const stress_options *options, stress_evidence *evidence)
{
    printf("seed %" PRIu64 ", features off %" PRIx64 ": ", options->plan.seed,
           options->features_off);
    fflush(stdout);
    uint64_t begin = clock_now_ms();
    test_options server_settings = server_options(options);
    stress_server *server = stress_server_start(&server_settings);
    if (server == NULL) return false;
    stress_clients *clients = stress_clients_start(&options->plan, stress_server_port(server));
    /* A loop that hangs can't be joined: leave it to the end of the process. */
    if (clients == NULL || !await_end(options, clients, server)) return false;

    stress_totals totals;
    const char *why = stress_clients_finish(clients, &totals);
    if (why != NULL) fprintf(stderr, "FAILED: %s\n", why);
    if (why == NULL) await_closes(server, options->plan.connections);
    stress_server_counts counts = stress_server_counted(server);
    rws_stats stats;
    int res = stress_server_finish(server, &stats);
    uint64_t took = clock_now_ms() - begin;
    printf("%" PRIu64 " messages, %" PRIu64 " MiB, %" PRIu64 " frames and %" PRIu64
           " pings in %" PRIu64 ".%" PRIu64 " s; %" PRIu64 " cut writes, %" PRIu64
           " stalls; %" PRIu64 " times no buffer, %" PRIu64 " drains, %" PRIu64 " refused, %" PRIu64
           " blocked; %" PRIu64 " enters, %" PRIu64 " overflows\n",
           totals.messages, totals.bytes >> 20, totals.frames, totals.pings, took / 1000,
           took % 1000 / 100, totals.cut_writes, totals.stalls, stats.no_buffers, counts.drains,
           counts.backlogs, counts.blocked, stats.ring_enters, stats.cq_overflows);
    fflush(stdout);
    if (why != NULL) return false;
    gather(evidence, &totals, &counts, &stats);
    bool ended = check(res == 0, "the server's end");
    return check_counts(options, &totals, &counts, &stats) && ended;
}

int main(int argc, char **argv)
{
    stress_options options;
    bool full;
    int res = parse(&options, argc, argv, &full);
    if (res != 0) return res - 1;
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    printf("%u connections, %" PRIu64 " messages, %" PRIu64 " MiB, %" PRIu64
           " receive buffers of %" PRIu64 " bytes, %" PRIu64 " shards\n",
           options.plan.connections, options.plan.messages, options.plan.bytes >> 20,
           options.recv_buffers, options.recv_buffer_bytes, options.shards);
    size_t seeds_count = options.has_seed ? 1 : full ? sizeof seeds / sizeof seeds[0] : 2;
    bool good = true;
    stress_evidence evidence = {0};
    for (size_t i = 0; i < seeds_count && good; i++) {
        if (!options.has_seed) options.plan.seed = seeds[i];
        for (int off = 0; off < (options.has_features_off ? 1 : 2) && good; off++) {
            if (!options.has_features_off) options.features_off = off ? RWS__FEATURE_ALL : 0;
            good = run_once(&options, &evidence);
        }
    }
    good = good && check_evidence(&options, &evidence);
    puts(good ? "nothing was lost" : "FAILED");
    return good ? 0 : 1;
}
