/*
 * The command line of `ringws load`.
 */
#include <string.h>

#include "tools/args.h"
#include "tools/load.h"

#define SECOND_NS UINT64_C(1000000000)

enum { GIB = 1024 * 1024 * 1024 };

static const char command_name[] = "ringws load";

/* What was typed, where the default depends on other options or does not fit them. */
typedef struct typed {
    bool broadcast, reconnect;
    uint64_t pipeline, size, duration, warmup; /* NOT_TYPED, or the value */
} typed;

#define NOT_TYPED UINT64_MAX

static bool refuse(const char *sentence)
{
    args_complain(command_name, "%s", sentence);
    return false;
}

static bool check_broadcast(const load_arguments *a, const typed *t)
{
    if (t->reconnect) return refuse("--broadcast and --reconnect exclude each other");
    if (a->pipeline == 0) return refuse("--broadcast needs a --pipeline of 1 or more");
    if (a->threads > 1)
        return refuse("--broadcast runs on one thread: every connection counts what the first one "
                      "sent");
    if (a->expect_other) return refuse("--broadcast and --expect-other exclude each other");
    return true;
}

static bool check_reconnect(const load_arguments *a, const typed *t)
{
    if (t->pipeline != NOT_TYPED)
        return refuse("--reconnect sends no messages, so there is nothing to --pipeline");
    if (t->size != NOT_TYPED || a->text || a->binary || a->expect_other)
        return refuse("--reconnect sends no messages: leave out their size and type");
    if (a->messages && a->messages < a->connections)
        return refuse("--reconnect with --messages needs at least one for each connection");
    return true;
}

static bool check(load_arguments *a, const typed *t)
{
    if (a->text && a->binary) return refuse("--text and --binary exclude each other");
    if (a->messages && t->duration != NOT_TYPED)
        return refuse("--messages and --duration exclude each other");
    if (a->messages && a->pipeline == 0)
        return refuse("--messages needs a --pipeline of 1 or more");
    if (a->pipeline * a->size > GIB)
        return refuse("--pipeline times --size is more than the 1 GiB per connection that may be "
                      "in flight");
    if (t->broadcast && !check_broadcast(a, t)) return false;
    if (t->reconnect && !check_reconnect(a, t)) return false;
    if (a->threads > a->connections) a->threads = a->connections;
    return true;
}

static args_outcome parse(int argc, char **argv, load_arguments *a, typed *t)
{
    const uint64_t day = 86400 * SECOND_NS;
    const args_option options[] = {
        {"connections", 'c', ARGS_NUMBER, &a->connections, 1, 1u << 20, "N",
         "kept open, 1 by default"},
        {"pipeline", 'p', ARGS_NUMBER, &t->pipeline, 0, 65536, "N",
         "messages in flight per connection, 1 by default;\n0: connections that stay idle"},
        {"size", 's', ARGS_BYTES, &t->size, 0, GIB, "BYTES",
         "of each message, 64 by default; 16K, 1M and so on"},
        {"text", 0, ARGS_FLAG, &a->text, 0, 0, NULL,
         "text messages: 90 % ASCII, 10 % multi-byte characters"},
        {"binary", 0, ARGS_FLAG, &a->binary, 0, 0, NULL, "binary messages, the default"},
        {"broadcast", 'b', ARGS_FLAG, &t->broadcast, 0, 0, NULL,
         "for a server that sends every message to all:\none connection sends, and each has to "
         "get it;\n'messages' are then deliveries"},
        {"reconnect", 'r', ARGS_FLAG, &t->reconnect, 0, 0, NULL,
         "no messages: each connection is opened, closed\nand opened again, all the time"},
        {"duration", 'd', ARGS_DURATION, &t->duration, 1000000, day, "TIME",
         "to measure, 5s by default"},
        {"warmup", 'w', ARGS_DURATION, &t->warmup, 0, day, "TIME",
         "before it, 500ms by default (none with --messages)"},
        {"messages", 'n', ARGS_NUMBER, &a->messages, 1, UINT32_MAX, "N",
         "stop after N messages sent in all instead (after N\ncycles with --reconnect)"},
        {"threads", 't', ARGS_NUMBER, &a->threads, 1, 64, "N", "of the load tester, 1 by default"},
        {"server-pid", 0, ARGS_NUMBER, &a->server_pid, 1, INT32_MAX, "PID",
         "add the CPU time per message of that process"},
        {"seed", 0, ARGS_NUMBER, &a->seed, 0, UINT64_MAX, "N",
         "of the message bytes, 1 by default"},
        {"json", 'j', ARGS_FLAG, &a->json, 0, 0, NULL, "print one JSON object"},
        {"quiet", 'q', ARGS_FLAG, &a->quiet, 0, 0, NULL, "no progress on the terminal"},
        {"features-off", 0, ARGS_FEATURES, &a->features_off, 0, 0, "LIST",
         "kernel features not to use ('ringws doctor' lists\nthem), or 'all'"},
        {"zero-mask", 0, ARGS_FLAG, &a->zero_mask, 0, 0, NULL,
         "mask with zeros instead of random keys:\ncheaper, and for measuring only"},
        {"expect-other", 0, ARGS_FLAG, &a->expect_other, 0, 0, NULL, NULL},
    };
    const args_command command = {
        .name = command_name,
        .operand = "URL",
        .summary =
            "Send messages to a server that echoes them and compare every reply in full.\n"
            "Each connection keeps --pipeline messages in flight and sends the next one when a\n"
            "reply came; with --broadcast one connection does, and the next one is sent when the\n"
            "oldest has reached all. Exit status: 0 if every message came back right, 1 if\n"
            "anything was lost, wrong or could not connect, 2 for a mistake on the command line.",
        .examples =
            "  ringws load ws://127.0.0.1:9223\n"
            "  ringws load ws://127.0.0.1:9223 -c 64 -p 16 -d 5 --server-pid $(pidof ringws)\n"
            "  ringws load ws+unix:///run/echo.sock -c 16 -s 1M --json\n"
            "  ringws load ws://127.0.0.1:9223 --broadcast -c 1000 -s 128 --text\n"
            "  ringws load ws://127.0.0.1:9223 --reconnect -c 64 -d 2\n",
        .options = options,
        .options_count = sizeof(options) / sizeof(options[0]),
    };
    return args_parse(&command, argc, argv, &a->url);
}

static uint64_t value_or(uint64_t value, uint64_t otherwise)
{
    return value != NOT_TYPED ? value : otherwise;
}

args_outcome load_parse(int argc, char **argv, load_arguments *a)
{
    *a = (load_arguments){.connections = 1, .threads = 1, .seed = 1};
    typed t = {
        .pipeline = NOT_TYPED, .size = NOT_TYPED, .duration = NOT_TYPED, .warmup = NOT_TYPED};
    args_outcome outcome = parse(argc, argv, a, &t);
    if (outcome != ARGS_RUN) return outcome;

    a->mode = t.broadcast ? LOAD_BROADCAST : t.reconnect ? LOAD_RECONNECT : LOAD_ECHO;
    a->pipeline = value_or(t.pipeline, 1);
    a->size = value_or(t.size, 64);
    a->duration_ns = value_or(t.duration, 5 * SECOND_NS);
    a->warmup_ns = value_or(t.warmup, a->messages ? 0 : SECOND_NS / 2);
    return check(a, &t) ? ARGS_RUN : ARGS_BAD;
}
