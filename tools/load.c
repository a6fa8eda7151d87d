/*
 * `ringws load`: a load test that tells the truth.
 *
 * Time line: dial every connection → warm-up → the measured time → stop sending, wait for what is
 * in flight → close. With --messages each connection sends its share and closes, and everything
 * from the first dial on is measured unless there is a warm-up.
 */
#include "tools/load.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "tools/commands.h"
#include "tools/host.h"
#include "tools/serve.h"

#define SECOND_NS UINT64_C(1000000000)

enum {
    KIB = 1024,
    MIB = 1024 * KIB,
    GIB = 1024 * MIB,
    DIALS_MAX = 256, /* handshakes under way at once: far below any server's backlog */
    FRAME_BYTES = 64,
    TICK_NS = 50 * 1000 * 1000, /* how often the main thread looks */
    DESCRIPTORS_OWN = 128,      /* what the library keeps for itself */
    CLOSE_TIMEOUT_MS = 5000,    /* and a millisecond more for every connection */
    RECONNECT_SLOTS = 64, /* per connection: the one that opens, and those that end: where server
                             and load share a loaded CPU they end late */
    RECONNECT_SLOTS_MORE = 256,
};

/* A run in which nothing at all arrives for this long is over. */
static const uint64_t stall_ns = 10 * SECOND_NS;

static const char command_name[] = "ringws load";

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

static void write_log(rws_log_level level, const char *line, void *user)
{
    (void)user;
    if (level <= RWS_LOG_WARNING) args_complain(command_name, "%s", line);
}

static int run_init(load_run *run)
{
    load_arguments *a = &run->arguments;
    run->opcode = a->text ? RWS_TEXT : RWS_BINARY;
    pthread_mutex_init(&run->errors_lock, NULL);
    sem_init(&run->dial_slots, 0, DIALS_MAX);

    /* Whole cache lines per connection: neighbours live on different threads. */
    size_t slots = (a->pipeline + 7) / 8 * 8;
    bool broadcast = a->mode == LOAD_BROADCAST;
    uint64_t senders = broadcast ? 1 : a->connections;
    run->conns = aligned_alloc(_Alignof(load_conn), a->connections * sizeof(load_conn));
    run->threads = aligned_alloc(_Alignof(load_thread), a->threads * sizeof(load_thread));
    if (slots) run->sent_at = aligned_alloc(64, senders * slots * sizeof(uint64_t));
    if (slots && broadcast) run->broadcast.missing = calloc(slots, sizeof(uint32_t));
    if (!run->conns || !run->threads || (slots && !run->sent_at) ||
        (slots && broadcast && !run->broadcast.missing))
        return -ENOMEM;

    memset(run->threads, 0, a->threads * sizeof(load_thread));
    for (uint64_t i = 0; i < a->threads; i++) {
        load_thread *thread = &run->threads[i];
        thread->index = (uint32_t)i;
        histogram_reset(&thread->latency);
        if (payload_init(&thread->payload, a->size, a->text, a->seed) < 0) return -ENOMEM;
    }
    for (uint64_t i = 0, turn = 0; i < a->connections; i++) {
        load_thread *thread = &run->threads[turn];
        thread->share++;
        turn = turn + 1 < a->threads ? turn + 1 : 0;
        uint64_t quota = a->messages / senders + (i < a->messages % senders);
        run->conns[i] = (load_conn){
            .thread = thread,
            .index = (uint32_t)i,
            .endless = a->messages == 0,
            .quota = (uint32_t)quota,
            .sent_at = slots && i < senders ? run->sent_at + i * slots : NULL,
        };
    }
    if (!a->expect_other) return 0;
    run->other = malloc(a->size ? a->size : 1);
    if (!run->other) return -ENOMEM;
    memset(run->other, SERVE_OTHER_BYTE, a->size);
    return 0;
}

static void run_free(load_run *run)
{
    for (uint64_t i = 0; run->threads && i < run->arguments.threads; i++)
        payload_free(&run->threads[i].payload);
    free(run->threads);
    free(run->conns);
    free(run->sent_at);
    free(run->broadcast.missing);
    free(run->other);
    sem_destroy(&run->dial_slots);
    pthread_mutex_destroy(&run->errors_lock);
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t connections_per_thread(const load_arguments *a)
{
    assert(a->threads > 0); /* its bounds say so */
    return (a->connections + a->threads - 1) / a->threads;
}

/* Slots per thread. A connection is dialled again as soon as the server's close frame came, and the
 * old one keeps its slot until the server has closed the transport too. */
static uint64_t slots_per_thread(const load_run *run)
{
    uint64_t connections = connections_per_thread(&run->arguments);
    if (run->arguments.mode != LOAD_RECONNECT) return connections;
    uint64_t wanted = RECONNECT_SLOTS * connections + RECONNECT_SLOTS_MORE;
    uint64_t room = run->descriptors - DESCRIPTORS_OWN;
    return wanted < room ? wanted : room;
}

/* The loop is closed, so no more than twice this is ever queued of a connection: what is in flight,
 * and as much again whose replies came before the queue heard that it was sent. */
static uint64_t bytes_in_flight(const load_arguments *a)
{
    return a->pipeline * (a->size + FRAME_BYTES);
}

/* All close at once at the end, and a server may need a while for that. */
static uint32_t close_timeout_ms(const load_arguments *a)
{
    return CLOSE_TIMEOUT_MS + (uint32_t)connections_per_thread(a);
}

static rws_runtime_options runtime_options(const load_run *run)
{
    const load_arguments *a = &run->arguments;
    uint64_t per_thread = connections_per_thread(a);
    rws_runtime_options options = RWS_RUNTIME_OPTIONS_DEFAULT;
    options.shards = (uint32_t)a->threads;
    options.connections_max = (uint32_t)slots_per_thread(run);
    options.send_pool_bytes_max = larger(4 * per_thread * bytes_in_flight(a), GIB);
    options.partial_bytes_max = larger(2 * per_thread * a->size, 64 * (uint64_t)MIB);
    options.drain_timeout_ms = close_timeout_ms(a);
    options.features_off = a->features_off;
    options.log = write_log;
    return options;
}

static int create_client(load_run *run, rws_client **client, rws_error *error)
{
    const load_arguments *a = &run->arguments;
    rws_handler handler = load_handler(a->mode);
    rws_runtime_options runtime = runtime_options(run);
    rws_endpoint_options endpoint = RWS_ENDPOINT_OPTIONS_DEFAULT;
    endpoint.handler = &handler;
    endpoint.user = run;
    endpoint.message_bytes_max = larger(a->size, 64 * KIB);
    endpoint.send_queue_bytes_max = larger(2 * bytes_in_flight(a), MIB);
    endpoint.high_watermark_bytes = larger(2 * bytes_in_flight(a), 256 * KIB);
    endpoint.close_timeout_ms = close_timeout_ms(a);
    endpoint.fixed_mask_key = a->zero_mask;
    return rws_client_create(client, &runtime, &endpoint, error);
}

int load_dial(load_run *run, rws_client *client, load_conn *conn)
{
    rws_dial_options options = RWS_DIAL_OPTIONS_DEFAULT;
    options.user = conn;
    return rws_client_dial(client, run->arguments.url, &options, NULL, NULL);
}

/* All connections that were dialled have opened or failed, and those that opened have closed. */
static bool all_closed(const load_run *run, uint32_t dialled)
{
    uint32_t closed = atomic_load(&run->closed), failed = atomic_load(&run->dial_failed);
    return closed + failed == dialled;
}

/* ^C ends the measuring; what is in flight is still awaited. */
static bool cut_short(const load_run *run)
{
    return interrupted && atomic_load(&run->phase) != LOAD_STOP;
}

static void sleep_until(uint64_t deadline_ns)
{
    uint64_t now = host_now_ns();
    if (now >= deadline_ns) return;
    uint64_t left = deadline_ns - now < TICK_NS ? deadline_ns - now : TICK_NS;
    nanosleep(&(struct timespec){.tv_nsec = (long)left}, NULL);
}

/* Dial with a bounded number of handshakes under way. Returns how many were dialled; `status` is
 * the reason if one could not be. */
static uint32_t dial_all(load_run *run, rws_client *client, uint64_t started, int *status)
{
    uint32_t dialled = 0;
    *status = 0;
    while (dialled < run->arguments.connections && !cut_short(run)) {
        struct timespec soon;
        (void)clock_gettime(CLOCK_REALTIME, &soon);
        soon.tv_nsec += TICK_NS;
        soon.tv_sec += soon.tv_nsec / (long)SECOND_NS;
        soon.tv_nsec %= (long)SECOND_NS;
        bool slot = sem_timedwait(&run->dial_slots, &soon) == 0;
        if (!slot || dialled % DIALS_MAX == 0) load_progress(run, host_now_ns() - started, false);
        if (!slot) continue;

        run->conns[dialled].dialled_ns = host_now_ns();
        *status = load_dial(run, client, &run->conns[dialled]);
        if (*status < 0) break;
        dialled++;
    }
    return dialled;
}

/* Wait until every dialled connection has opened or failed. */
static void wait_for_open(load_run *run, uint32_t dialled, uint64_t started)
{
    while (atomic_load(&run->opened) + atomic_load(&run->dial_failed) < dialled &&
           !cut_short(run)) {
        sleep_until(host_now_ns() + TICK_NS / 50);
        load_progress(run, host_now_ns() - started, false);
    }
}

/* Let traffic flow until `deadline_ns` (0: none), or until all is over or nothing moves. */
static void wait_for_traffic(load_run *run, uint32_t dialled, uint64_t started,
                             uint64_t deadline_ns)
{
    uint64_t moved_ns = host_now_ns(), seen = 0;
    while (!all_closed(run, dialled) && !cut_short(run)) {
        uint64_t now = host_now_ns();
        load_totals totals = load_sum(run);
        if (totals.verified + totals.wrong != seen) {
            seen = totals.verified + totals.wrong;
            moved_ns = now;
        }
        if (deadline_ns ? now >= deadline_ns : now - moved_ns >= stall_ns) return;
        sleep_until(deadline_ns ? deadline_ns : now + TICK_NS / 10);
        load_progress(run, host_now_ns() - started, false);
    }
}

static void read_cpu(load_run *run, cpu_time *sample)
{
    if (!run->cpu_known) return;
    int status = cpu_time_read((pid_t)run->arguments.server_pid, sample);
    if (status == 0) return;
    run->cpu_known = false;
    load_note_error(run, LOAD_MESSAGE, "cpu", "no CPU time of process %" PRIu64 ": %s",
                    run->arguments.server_pid, rws_strerror(status));
}

/* Dial, warm up, measure. Returns how many connections were dialled, or a negative status. */
static int64_t run_traffic(load_run *run, rws_client *client)
{
    static cpu_time cpu_start, cpu_end; /* static: 32 KiB */
    load_arguments *a = &run->arguments;
    uint64_t started = host_now_ns(), window = started;
    bool from_first_dial = a->messages && a->warmup_ns == 0;
    run->dial_ns = started;
    run->cpu_known = a->server_pid != 0;
    if (from_first_dial) {
        read_cpu(run, &cpu_start);
        atomic_store(&run->phase, LOAD_MEASURE);
    }

    int status;
    uint32_t dialled = dial_all(run, client, started, &status);
    if (status < 0 && dialled == 0) return status;
    if (status < 0)
        load_note_error(run, LOAD_CONNECT, "dial", "connection %u: %s", dialled,
                        rws_strerror(status));
    wait_for_open(run, dialled, started);
    if (!from_first_dial) {
        if (a->warmup_ns) wait_for_traffic(run, dialled, started, host_now_ns() + a->warmup_ns);
        read_cpu(run, &cpu_start);
        window = host_now_ns();
        atomic_store(&run->phase, LOAD_MEASURE);
    }
    if (atomic_load(&run->opened) > 0 && dialled == a->connections)
        wait_for_traffic(run, dialled, started, a->messages ? 0 : window + a->duration_ns);

    run->interrupted = cut_short(run);
    atomic_store(&run->phase, LOAD_STOP);
    uint64_t end = host_now_ns();
    read_cpu(run, &cpu_end);
    /* A run by count, or one whose server went away, ended with its last reply. */
    load_totals totals = load_sum(run);
    if (from_first_dial && totals.first_resolved_ns) window = totals.first_resolved_ns;
    if ((a->messages || all_closed(run, dialled)) && totals.last_reply_ns > window)
        end = totals.last_reply_ns;
    run->window_ns = end - window;
    if (run->cpu_known) run->cpu_ns = cpu_time_between(&cpu_start, &cpu_end);
    return dialled;
}

/* Whether each connection closes by itself when what is in flight has come; idle ones don't. */
static bool ends_by_itself(const load_run *run)
{
    if (run->arguments.mode == LOAD_RECONNECT) return true;
    return run->arguments.pipeline > 0 &&
           atomic_load(&run->threads_started) == run->arguments.threads;
}

static int run_client(load_run *run)
{
    rws_client *client = NULL;
    rws_error error = {0};
    if (create_client(run, &client, &error) < 0 || rws_client_start(client, &error) < 0) {
        args_complain(command_name, "%s", error.text);
        rws_client_destroy(client);
        return EXIT_USAGE;
    }

    run->client = client;
    uint64_t started = host_now_ns();
    int64_t dialled = run_traffic(run, client);
    if (dialled < 0) {
        args_complain(command_name, "%s: %s", run->arguments.url, rws_strerror((int)dialled));
        rws_client_destroy(client);
        return dialled == RWS_E_ADDRESS ? EXIT_WRONG : EXIT_USAGE;
    }
    if (ends_by_itself(run)) wait_for_traffic(run, (uint32_t)dialled, started, 0);
    atomic_store(&run->giving_up, true);
    rws_client_stop(client);
    rws_client_wait(client);
    load_progress(run, 0, true);

    bool right = load_report(run);
    rws_client_destroy(client);
    return right ? EXIT_SUCCESS : EXIT_WRONG;
}

int load_main(int argc, char **argv)
{
    static load_run run; /* static: too large for a stack */
    args_outcome outcome = load_parse(argc, argv, &run.arguments);
    if (outcome != ARGS_RUN) return outcome == ARGS_DONE ? EXIT_SUCCESS : EXIT_USAGE;

    run.descriptors = host_raise_descriptors();
    uint64_t connections = connections_per_thread(&run.arguments);
    uint64_t wanted =
        connections * (run.arguments.mode == LOAD_RECONNECT ? 2 : 1) + DESCRIPTORS_OWN;
    if (run.descriptors < wanted) {
        args_complain(command_name,
                      "%" PRIu64 " connections per thread need %" PRIu64
                      " descriptors and the limit is %" PRIu64 ": raise it with 'ulimit -n', or "
                      "use fewer connections or more --threads",
                      connections, wanted, run.descriptors);
        return EXIT_USAGE;
    }
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);

    int status = EXIT_USAGE;
    if (run_init(&run) < 0)
        args_complain(command_name, "not enough memory for that many or such large messages");
    else
        status = run_client(&run);
    run_free(&run);
    if (run.interrupted && status == EXIT_SUCCESS) return 128 + SIGINT;
    return status;
}
