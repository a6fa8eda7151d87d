/*
 * `ringws serve`: an echo or broadcast server, on public functions only.
 *
 * The server runs on its own threads (rws_server_start), so that the one line on stdout comes when
 * every shard is really up; this thread waits for them. SIGINT and SIGTERM start the drain; a
 * second SIGINT ends the process at once, in the usual way.
 */
#include "tools/serve.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/args.h"
#include "tools/commands.h"
#include "tools/format.h"
#include "tools/host.h"

enum {
    KIB = 1024,
    MIB = 1024 * KIB,
    AUTOBAHN_MESSAGE_BYTES = 64 * MIB, /* the suite's largest are 16 MiB */
    PARTIAL_BYTES = 64 * MIB,          /* the library's default for messages under way */
};

#define MILLISECOND_NS UINT64_C(1000000)
#define SECOND_NS      (1000 * MILLISECOND_NS)
#define HOUR_NS        (3600 * SECOND_NS)

static const char command_name[] = "ringws serve";

typedef struct serve_arguments {
    bool broadcast, autobahn, stats, reply_other, reply_copied, verbose, busy_wait;
    const char *address, *unix_path;
    args_list origins;
    const char *features_off;
    uint64_t port, shards, message_bytes_max, connections_max, recv_buffers, recv_buffer_bytes,
        send_buffer, send_pool_bytes, drain_timeout_ns, send_timeout_ns, message_timeout_ns,
        close_timeout_ns, keepalive_ns;
} serve_arguments;

/* For the signal handlers: set before they are installed; they are gone before it is freed. */
static rws_server *signal_server;

static void on_signal(int number)
{
    (void)number;
    int saved = errno;
    rws_server_stop(signal_server);
    errno = saved;
}

static void set_signals(void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler};
    sigemptyset(&action.sa_mask);
    action.sa_flags = SA_RESTART;
    sigaction(SIGTERM, &action, NULL);
    action.sa_flags |= (int)SA_RESETHAND; /* a second ^C means now */
    sigaction(SIGINT, &action, NULL);
}

static void write_log(rws_log_level level, const char *line, void *user)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    const serve_arguments *arguments = user;
    if (level > RWS_LOG_WARNING && !arguments->verbose) return;
    args_complain(command_name, "%s: %s", names[level], line);
}

static const char summary[] =
    "Serve WebSocket connections and send every message back to its sender.\n"
    "Prints 'listening on ws://…' when it is ready. SIGINT and SIGTERM close all\n"
    "connections with 1001 and end it: exit status 0 if all went well, 1 if messages\n"
    "were lost or connections had to be cut off, 2 if it could not start.";
static const char examples[] =
    "  ringws serve                        echo on ws://127.0.0.1:9223\n"
    "  ringws serve -a :: -p 80 --stats    on every address, with figures\n"
    "  ringws serve --broadcast -m 1M      a chat room for messages up to 1 MiB\n"
    "  ringws serve --unix /run/echo.sock  ws+unix:///run/echo.sock\n";

/* Options that exclude each other. */
static args_outcome check(const serve_arguments *a)
{
    if (a->broadcast + a->autobahn + a->reply_other + a->reply_copied > 1) {
        args_complain(
            command_name,
            "--broadcast, --autobahn, --reply-other and --reply-copied exclude each other");
        return ARGS_BAD;
    }
    if (a->recv_buffers & (a->recv_buffers - 1)) {
        args_complain(command_name, "--recv-buffers must be a power of two, not '%" PRIu64 "'",
                      a->recv_buffers);
        return ARGS_BAD;
    }
    return ARGS_RUN;
}

static args_outcome parse(int argc, char **argv, serve_arguments *a)
{
    const args_option options[] = {
        {"broadcast", 'b', ARGS_FLAG, &a->broadcast, 0, 0, NULL,
         "send every message to every connection,\ninstead of back to its sender"},
        {"port", 'p', ARGS_NUMBER, &a->port, 0, UINT16_MAX, "PORT",
         "TCP port, 9223 by default; 0 picks a free one"},
        {"address", 'a', ARGS_STRING, &a->address, 0, 0, "ADDRESS",
         "127.0.0.1 by default; '::' serves IPv6 and IPv4"},
        {"unix", 'u', ARGS_STRING, &a->unix_path, 0, 0, "PATH",
         "serve a unix socket instead of a TCP port"},
        {"shards", 's', ARGS_NUMBER, &a->shards, 1, 256, "N",
         "threads, each with a ring; by default one per CPU"},
        {"message-bytes-max", 'm', ARGS_BYTES, &a->message_bytes_max, 1, (UINT64_C(1) << 31) - MIB,
         "BYTES", "largest message that is taken, 64K by default"},
        {"connections-max", 'c', ARGS_NUMBER, &a->connections_max, 1, 1u << 20, "N",
         "per shard; 16384 by default, or what the\ndescriptor limit allows"},
        {"origin", 'o', ARGS_STRINGS, &a->origins, 0, 0, "ORIGIN",
         "let in pages of this origin only (repeatable)"},
        {"stats", 0, ARGS_FLAG, &a->stats, 0, 0, NULL, "print a line every second"},
        {"autobahn", 0, ARGS_FLAG, &a->autobahn, 0, 0, NULL,
         "limits wide enough for Autobahn|Testsuite"},
        {"drain-timeout", 0, ARGS_DURATION, &a->drain_timeout_ns, MILLISECOND_NS, HOUR_NS, "TIME",
         "for open connections after SIGINT or SIGTERM,\n5s by default; then they are cut off"},
        {"send-timeout", 0, ARGS_DURATION, &a->send_timeout_ns, MILLISECOND_NS, HOUR_NS, "TIME",
         "end a connection whose peer takes nothing of what\nis queued for so long, 30s by "
         "default"},
        {"message-timeout", 0, ARGS_DURATION, &a->message_timeout_ns, MILLISECOND_NS, HOUR_NS,
         "TIME", "end one whose message has begun and does not go\non, 60s by default"},
        {"close-timeout", 0, ARGS_DURATION, &a->close_timeout_ns, MILLISECOND_NS, HOUR_NS, "TIME",
         "for the peer's part of the closing handshake,\n5s by default"},
        {"keepalive", 0, ARGS_DURATION_OR_OFF, &a->keepalive_ns, SECOND_NS, 9 * HOUR_NS, "TIME",
         "idle time after which TCP asks whether the peer is\nstill there, 60s by default; or "
         "'off'"},
        {"busy-wait", 0, ARGS_FLAG, &a->busy_wait, 0, 0, NULL,
         "poll instead of sleeping: answers come a few µs\nearlier, and each shard keeps a CPU 100 "
         "% busy"},
        {"features-off", 0, ARGS_FEATURES, &a->features_off, 0, 0, "LIST",
         "kernel features not to use ('ringws doctor' lists\nthem), or 'all'"},
        {"recv-buffers", 0, ARGS_NUMBER, &a->recv_buffers, 1, 32768, "N",
         "receive buffers per shard, a power of two"},
        {"recv-buffer-bytes", 0, ARGS_BYTES, &a->recv_buffer_bytes, 512, 64 * MIB, "BYTES",
         "size of each"},
        {"send-buffer", 0, ARGS_BYTES, &a->send_buffer, 1, 1u << 30, "BYTES",
         "the connections' SO_SNDBUF"},
        {"send-pool-bytes", 0, ARGS_BYTES, &a->send_pool_bytes, 64 * KIB, UINT64_C(1) << 39,
         "BYTES", "for what is queued, per shard; 1G by default"},
        {"verbose", 'v', ARGS_FLAG, &a->verbose, 0, 0, NULL, "print the library's log in full"},
        {"reply-other", 0, ARGS_FLAG, &a->reply_other, 0, 0, NULL, NULL},
        {"reply-copied", 0, ARGS_FLAG, &a->reply_copied, 0, 0, NULL, NULL},
    };
    const args_command command = {
        .name = command_name,
        .summary = summary,
        .examples = examples,
        .options = options,
        .options_count = sizeof(options) / sizeof(options[0]),
    };
    args_outcome outcome = args_parse(&command, argc, argv, NULL);
    return outcome == ARGS_RUN ? check(a) : outcome;
}

/* Whole seconds, rounded up; 0 is the library's default. */
static uint32_t keepalive_s(uint64_t ns)
{
    return ns == UINT64_MAX ? RWS_NEVER : (uint32_t)((ns + SECOND_NS - 1) / SECOND_NS);
}

static uint32_t milliseconds(uint64_t ns)
{
    return (uint32_t)(ns / MILLISECOND_NS);
}

static uint64_t message_bytes_max(const serve_arguments *a)
{
    return a->autobahn && !a->message_bytes_max ? AUTOBAHN_MESSAGE_BYTES : a->message_bytes_max;
}

static rws_runtime_options runtime_options(serve_arguments *a)
{
    rws_runtime_options options = RWS_RUNTIME_OPTIONS_DEFAULT;
    options.shards = (uint32_t)a->shards;
    options.connections_max = (uint32_t)a->connections_max;
    options.recv_buffers = (uint32_t)a->recv_buffers;
    options.recv_buffer_bytes = a->recv_buffer_bytes;
    /* Several messages of the largest size may be under way at once. */
    if (message_bytes_max(a) > PARTIAL_BYTES / 4)
        options.partial_bytes_max = 4 * message_bytes_max(a);
    options.features_off = a->features_off;
    options.busy_wait_us = a->busy_wait ? UINT64_MAX : 0;
    options.send_pool_bytes_max = a->send_pool_bytes;
    options.drain_timeout_ms = milliseconds(a->drain_timeout_ns);
    options.send_timeout_ms = milliseconds(a->send_timeout_ns);
    options.linger_timeout_ms = milliseconds(a->close_timeout_ns);
    options.log = write_log;
    options.log_user = a;
    return options;
}

static int add_endpoint(rws_server *server, const serve_arguments *a, serve_context *context,
                        rws_error *error)
{
    rws_handler handler = serve_handler(context->mode);
    rws_endpoint_options options = RWS_ENDPOINT_OPTIONS_DEFAULT;
    options.handler = &handler;
    options.user = context;
    options.message_bytes_max = message_bytes_max(a);
    options.message_timeout_ms = milliseconds(a->message_timeout_ns);
    options.close_timeout_ms = milliseconds(a->close_timeout_ns);
    if (a->origins.count) {
        options.origins = a->origins.items;
        options.origins_count = a->origins.count;
    }
    return rws_server_add_endpoint(server, &options, NULL, error);
}

static int listen_on(rws_server *server, const serve_arguments *a, rws_error *error)
{
    rws_listener_options options = RWS_LISTENER_OPTIONS_DEFAULT;
    options.address = a->address;
    options.unix_path = a->unix_path;
    options.port = (uint16_t)a->port;
    options.socket_send_buffer_bytes = (int)a->send_buffer;
    options.keepalive_s = keepalive_s(a->keepalive_ns);
    return rws_server_listen(server, &options, error);
}

static void print_listening(const serve_arguments *a, const rws_server *server)
{
    if (a->unix_path)
        printf("listening on ws+unix://%s\n", a->unix_path);
    else if (strchr(a->address, ':'))
        printf("listening on ws://[%s]:%u\n", a->address, rws_server_port(server, 0));
    else
        printf("listening on ws://%s:%u\n", a->address, rws_server_port(server, 0));
    fflush(stdout);
}

/* The thread of --stats. */
typedef struct stats_printer {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stop;
    const rws_server *server;
} stats_printer;

static void print_stats(const rws_stats *now, const rws_stats *before, double seconds)
{
    format_text text[5];
    printf("%7s connections   in %12s %10s   out %12s %10s\n",
           format_count(&text[0], now->connections),
           format_rate(&text[1],
                       (double)(now->messages_received - before->messages_received) / seconds,
                       "msg/s"),
           format_rate(&text[2], (double)(now->bytes_received - before->bytes_received) / seconds,
                       "B/s"),
           format_rate(&text[3], (double)(now->messages_sent - before->messages_sent) / seconds,
                       "msg/s"),
           format_rate(&text[4], (double)(now->bytes_sent - before->bytes_sent) / seconds, "B/s"));
    fflush(stdout);
}

static void *stats_main(void *arg)
{
    stats_printer *printer = arg;
    rws_stats before = {.size = sizeof(before)};
    rws_server_stats(printer->server, &before);
    uint64_t before_ns = host_now_ns();
    struct timespec next;
    (void)clock_gettime(CLOCK_MONOTONIC, &next);

    pthread_mutex_lock(&printer->lock);
    while (true) {
        next.tv_sec++;
        int status = 0;
        while (!printer->stop && status != ETIMEDOUT)
            status = pthread_cond_timedwait(&printer->wake, &printer->lock, &next);
        if (printer->stop) break;

        rws_stats now = {.size = sizeof(now)};
        rws_server_stats(printer->server, &now);
        uint64_t now_ns = host_now_ns();
        print_stats(&now, &before, (double)(now_ns - before_ns) / 1e9);
        before = now;
        before_ns = now_ns;
    }
    pthread_mutex_unlock(&printer->lock);
    return NULL;
}

static int stats_start(stats_printer *printer, const rws_server *server)
{
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&printer->wake, &clock);
    pthread_condattr_destroy(&clock);
    pthread_mutex_init(&printer->lock, NULL);
    printer->stop = false;
    printer->server = server;
    return -pthread_create(&printer->thread, NULL, stats_main, printer);
}

static void stats_stop(stats_printer *printer)
{
    pthread_mutex_lock(&printer->lock);
    printer->stop = true;
    pthread_cond_signal(&printer->wake);
    pthread_mutex_unlock(&printer->lock);
    pthread_join(printer->thread, NULL);
    pthread_cond_destroy(&printer->wake);
    pthread_mutex_destroy(&printer->lock);
}

/* The last line, and what it means for the exit status. */
static int summarize(const rws_server *server, const serve_context *context, int status)
{
    rws_stats stats = {.size = sizeof(stats)};
    rws_server_stats(server, &stats);
    uint64_t refused = atomic_load(&context->refused);
    uint64_t errors =
        stats.refused + stats.protocol_errors + stats.timeouts + stats.out_of_memory + refused;

    format_text text[8];
    printf("served %s connections, %s messages in (%s), %s out (%s), %s errors",
           format_count(&text[0], stats.upgraded), format_count(&text[1], stats.messages_received),
           format_bytes(&text[2], stats.bytes_received),
           format_count(&text[3], stats.messages_sent), format_bytes(&text[4], stats.bytes_sent),
           format_count(&text[5], errors));
    if (errors)
        printf(" (handshakes %" PRIu64 ", protocol %" PRIu64 ", timeouts %" PRIu64
               ", out of memory %" PRIu64 ", refused sends %" PRIu64 ")",
               stats.refused, stats.protocol_errors, stats.timeouts, stats.out_of_memory, refused);
    printf(", %s cut off", format_count(&text[6], stats.cut_off));
    if (stats.bytes_discarded)
        printf(", %s not delivered", format_bytes(&text[7], stats.bytes_discarded));
    putchar('\n');
    fflush(stdout);

    if (status < 0 && status != RWS_E_TIMEOUT) {
        args_complain(command_name, "stopped early: %s", rws_strerror(status));
        return EXIT_WRONG;
    }
    return status < 0 || stats.cut_off || refused ? EXIT_WRONG : EXIT_SUCCESS;
}

static int serve(serve_arguments *arguments, rws_server *server, serve_context *context)
{
    rws_error error = {0};
    if (serve_context_init(context, server) < 0) {
        args_complain(command_name, "out of memory");
        return EXIT_USAGE;
    }
    /* From here on a signal asks for a drain, even before the shards are up. */
    signal_server = server;
    set_signals(on_signal);
    if (rws_server_start(server, &error) < 0) {
        args_complain(command_name, "%s", error.text);
        return EXIT_USAGE;
    }
    print_listening(arguments, server);

    stats_printer printer;
    bool stats = arguments->stats && stats_start(&printer, server) == 0;
    int status = rws_server_wait(server);
    if (stats) stats_stop(&printer);
    return summarize(server, context, status);
}

int serve_main(int argc, char **argv)
{
    serve_arguments arguments = {.port = 9223, .address = "127.0.0.1"};
    args_outcome outcome = parse(argc, argv, &arguments);
    if (outcome != ARGS_RUN) return outcome == ARGS_DONE ? EXIT_SUCCESS : EXIT_USAGE;

    /* A reader of our output that goes away must not end the server. */
    (void)signal(SIGPIPE, SIG_IGN);
    char why[160];
    if (!host_descriptors_suffice(host_raise_descriptors(), why, sizeof(why))) {
        args_complain(command_name, "%s", why);
        return EXIT_USAGE;
    }

    serve_context context = {.mode = arguments.broadcast      ? SERVE_BROADCAST
                                     : arguments.reply_other  ? SERVE_OTHER
                                     : arguments.reply_copied ? SERVE_COPIED
                                                              : SERVE_ECHO};
    rws_runtime_options options = runtime_options(&arguments);
    rws_server *server = NULL;
    rws_error error = {0};
    if (rws_server_create(&server, &options, &error) < 0 ||
        add_endpoint(server, &arguments, &context, &error) < 0 ||
        listen_on(server, &arguments, &error) < 0) {
        args_complain(command_name, "%s", error.text);
        rws_server_destroy(server);
        return EXIT_USAGE;
    }
    int status = serve(&arguments, server, &context);
    set_signals(SIG_IGN); /* the server is about to go; only the exit is left */
    rws_server_destroy(server);
    serve_context_free(&context);
    return status;
}
