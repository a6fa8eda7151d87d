#include "support/outside_run.h"

#include "engine/server/runtime.h"
#include "support/outside_peer.h"

#include <netinet/in.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define PEERS           5u
#define CONNECTIONS_MAX 128u
#define STEPS           60u
#define STEP_US         100u
#define LAST_RESTS      500u
#define ENDING_US_MAX   1000000u
#define REST_MAX        200000 /* rounds: it never rests */
#define SOCKET_BUFFER   65536
#define MESSAGE_MAX     (256u << 10)
/* What both kernels keep for a peer that does not read; and what none does. */
#define LITTLE 2000u
#define MUCH   (1u << 20)
#define NEVER  3600000u

/* A connection that was, or is: what its peer got and what was called. */
typedef struct talk {
    rws_conn *conn; /* NULL: not open */
    bool loose;     /* reset while the server does not read: what it meets first is not said */
    FILE *peer_log, *call_log;
    char *peer_text, *call_text;
    size_t peer_len, call_len;
} talk;

typedef struct actor {
    outside_peer peer;
    uint32_t number; /* of its talk */
    bool asked;      /* its request is written */
    bool talks;      /* it may send frames: not after an end of any kind */
    bool paused;     /* the server does not read from it */
    bool filled;     /* much is queued for it, and it does not read */
    size_t waiting;  /* bytes sent to a server that does not read, or unread by it */
} actor;

static struct {
    rws_runtime runtime;
    rws__shard *shard;
    struct sockaddr_in address;
    talk talks[CONNECTIONS_MAX];
    uint32_t talks_count;
    actor actors[PEERS];
    uint32_t step;
    uint64_t moved; /* by callbacks */
    uint64_t random;
    uint64_t rest_us;
    bool planted;
    char *sum;
    size_t sum_len;
} run;

static uint8_t *noise; /* of MUCH bytes and some */
#define NOISE (2u * MUCH)

static void need(bool good, const char *what)
{
    if (good) return;
    fprintf(stderr, "step %u: %s\n", run.step, what);
    exit(1);
}

/* ---- random numbers ---- */

static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static uint32_t below(uint32_t bound)
{
    return (uint32_t)(mix(run.random += 0x9E3779B97F4A7C15u) >> 33) % bound;
}

static bool chance(uint32_t percent)
{
    return below(100) < percent;
}

/* ---- the server's program: the first letter of a message decides ---- */

static talk *talk_of(const rws_conn *conn)
{
    return &run.talks[(uintptr_t)rws_conn_user(conn) - 1];
}

#define CALLED(conn, ...) called(talk_of(conn), __VA_ARGS__)
__attribute__((format(printf, 2, 3))) static void called(talk *of, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(of->call_log, "    step %u: ", run.step);
    vfprintf(of->call_log, format, args);
    fputc('\n', of->call_log);
    va_end(args);
    run.moved++;
}

static int on_upgrade(rws_request *request, void *user)
{
    (void)user;
    rws_span number = rws_request_query(request, "n"), path = rws_request_path(request);
    uintptr_t n = 0;
    for (size_t i = 0; i < number.len; i++)
        n = n * 10 + (uintptr_t)(number.data[i] - '0');
    need(n < CONNECTIONS_MAX, "no such connection");
    called(&run.talks[n], "upgrade %.*s", (int)path.len, (const char *)path.data);
    rws_request_set_user(request, (void *)(n + 1), NULL);
    if (path.len == 3) return -1;
    if (path.len == 5) {
        (void)rws_request_respond(request, 200, "an answer", 9);
        return -1;
    }
    (void)rws_request_add_header(request, "X-Number", "1");
    return 0;
}

static void on_open(rws_conn *conn, void *user)
{
    (void)user;
    CALLED(conn, "open");
    talk_of(conn)->conn = conn;
}

static void send_many(rws_conn *conn, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        int res = rws_conn_send_binary(conn, noise + i, i * i * 3 % 2500);
        if (res != 0) CALLED(conn, "send: %d", res);
    }
}

static int send_in_frames(rws_conn *conn)
{
    int res = rws_conn_send_frame(conn, RWS_TEXT, false, "first", 5);
    if (res == 0) res = rws_conn_send_frame(conn, RWS_PING, true, "between", 7);
    if (res == 0) res = rws_conn_send_frame(conn, RWS_CONTINUATION, true, "last", 4);
    return res;
}

static void send_to_others(rws_conn *conn, const rws_message *message)
{
    for (uint32_t i = 0; i < run.talks_count; i++) {
        rws_conn *other = run.talks[i].conn;
        if (other != NULL && other != conn) (void)rws_conn_send_message(other, message);
    }
}

static int on_message(rws_conn *conn, const rws_message *message, void *user)
{
    (void)user;
    const uint8_t *data = rws_message_data(message);
    size_t len = rws_message_len(message);
    CALLED(conn, "message %d, %zu bytes %016llx", (int)rws_message_opcode(message), len,
           (unsigned long long)outside_hash(0, data, len));
    uint32_t number = len > 1 ? data[1] : 0;
    switch (len > 0 ? data[0] : 'e') {
    case 'a': rws_conn_abort(conn); return 0;
    case 'b': send_to_others(conn, message); return 0;
    case 'c': return rws_conn_close(conn, 4000, "as asked");
    case 'f': return -1;
    case 'g': return send_in_frames(conn);
    case 'l': return rws_conn_send_binary(conn, noise, MUCH + number * 1000);
    case 'm': send_many(conn, number % 40); return 0;
    case 'p': rws_conn_pause(conn); return 0;
    case 'r':
        if (run.talks[number].conn != NULL) rws_conn_resume(run.talks[number].conn);
        return 0;
    case 's': (void)rws_conn_send_text(conn, "last", 4); return rws_conn_close(conn, 1000, NULL);
    default: return rws_conn_send_message(conn, message);
    }
}

static void on_drain(rws_conn *conn, void *user)
{
    (void)user;
    CALLED(conn, "drain");
}

static void on_close(rws_conn *conn, const rws_close_info *info, void *user)
{
    (void)user;
    talk *own = talk_of(conn);
    if (own->loose)
        called(own, "close of one that was reset");
    else
        called(own, "close %u by %s: %d", info->code, info->who == RWS_CLOSED_BY_US ? "us" : "peer",
               info->status);
    own->conn = NULL;
}

static int on_pong(rws_conn *conn, const void *data, size_t len, void *user)
{
    (void)user;
    CALLED(conn, "pong, %zu bytes %016llx", len, (unsigned long long)outside_hash(0, data, len));
    return 0;
}

static const rws_handler handler = {
    .size = sizeof handler,
    .on_upgrade = on_upgrade,
    .on_open = on_open,
    .on_message = on_message,
    .on_drain = on_drain,
    .on_close = on_close,
    .on_pong = on_pong,
};

/* ---- life of the server ---- */

static uint32_t open_server(uint32_t features_off)
{
    char off[256];
    rws_error error;
    rws__runtime_config config;
    rws_runtime_options options = RWS_RUNTIME_OPTIONS_DEFAULT;
    rws_endpoint_options endpoint = RWS_ENDPOINT_OPTIONS_DEFAULT;
    rws_listener_options listener = RWS_LISTENER_OPTIONS_DEFAULT;
    rws__features_write(features_off, off, sizeof off);
    options.shards = 1;
    options.connections_max = 64;
    options.send_timeout_ms = options.linger_timeout_ms = options.drain_timeout_ms = NEVER;
    options.features_off = off;
    endpoint.handler = &handler;
    endpoint.message_bytes_max = MESSAGE_MAX;
    /* Below what is much, and above all that is sent otherwise at once. */
    endpoint.high_watermark_bytes = 3u * MUCH / 4;
    endpoint.send_queue_bytes_max = 8u * MUCH;
    endpoint.message_timeout_ms = endpoint.close_timeout_ms = NEVER;
    listener.port = 0;
    listener.handshake_timeout_ms = NEVER;
    listener.socket_send_buffer_bytes = SOCKET_BUFFER;
    int res = rws__runtime_config_make(&config, &options, 1, &error);
    if (res == 0) res = rws__runtime_init(&run.runtime, &config, &error);
    if (res == 0) res = rws__runtime_add_endpoint(&run.runtime, &endpoint, NULL, NULL, &error);
    if (res == 0) res = rws__runtime_listen(&run.runtime, &listener, &error);
    if (res == 0) res = rws__runtime_open(&run.runtime, &error);
    need(res == 0, error.text);
    run.shard = &run.runtime.workers[0].shard;
    run.address = (struct sockaddr_in){.sin_family = AF_INET,
                                       .sin_port = htons(run.runtime.listeners[0].port),
                                       .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    return rws__ring_features(run.shard->loop.ring);
}

static rws_stats stats_now(void)
{
    rws_stats stats = {.size = sizeof stats};
    rws__runtime_stats(&run.runtime, &stats);
    return stats;
}

static void turn(void)
{
    if (!rws__shard_has_ended(run.shard))
        need(rws__shard_turn(run.shard, false) == 0, "a turn failed");
}

static uint64_t movement(void)
{
    rws_stats stats = stats_now();
    return run.moved + stats.bytes_received + stats.bytes_sent + stats.accepted +
           stats.connections + stats.refused;
}

/* Whether a connection is on its way to an end that nobody holds up: a worker of the kernel, or an
 * acknowledgement that is delayed, may take longer than a rest. */
static bool is_ending(void)
{
    const rws__streams *streams = &run.shard->conns.streams;
    bool all_read = true;
    for (uint32_t i = 0; i < PEERS; i++)
        if (run.actors[i].peer.fd >= 0 && run.actors[i].peer.stopped) all_read = false;
    for (uint32_t slot = 0; slot < streams->slots_touched; slot++) {
        const rws__stream *stream = rws__streams_at(streams, slot);
        bool held_up = stream->phase == RWS__STREAM_LINGERING ||
                       (stream->phase == RWS__STREAM_FLUSHING && !all_read);
        if (stream->phase > RWS__STREAM_UP && !held_up) return true;
        if (stream->phase != RWS__STREAM_FREE && stream->shutting_down) return true;
    }
    return false;
}

/* Turns until nothing happens. */
static void rest(void)
{
    uint64_t before = movement(), ending_us = 0;
    uint32_t rounds = 0;
    for (uint64_t quiet_us = 0; quiet_us < run.rest_us;) {
        turn();
        bool moved = false;
        for (uint32_t i = 0; i < PEERS; i++)
            if (run.actors[i].peer.fd >= 0) moved |= outside_peer_move(&run.actors[i].peer);
        uint64_t now = movement();
        if (moved || now != before) {
            quiet_us = 0;
        } else {
            outside_pass_us(STEP_US);
            if (ending_us < ENDING_US_MAX && is_ending())
                ending_us += STEP_US;
            else
                quiet_us += STEP_US;
        }
        before = now;
        need(++rounds < REST_MAX, "it does not come to rest");
    }
}

/* ---- what peers do ---- */

static bool is_up(const actor *who)
{
    return who->peer.fd >= 0;
}

/* Write what is queued, in pieces, with a turn now and then. How many random numbers it takes does
 * not depend on what happens. */
static void write_out(actor *who)
{
    uint32_t turns = below(1u << 12);
    who->peer.piece = chance(40) ? 0 : 1 + below(chance(50) ? 8 : 4000);
    for (uint32_t i = 0; i < 12 && is_up(who) && who->peer.out.len > 0; i++) {
        outside_peer_write(&who->peer);
        if (turns & 1u << i) turn();
    }
    who->peer.piece = 0;
}

static void ask(actor *who, const char *path, const char *version)
{
    char request[512];
    int len = snprintf(request, sizeof request,
                       "GET %s?n=%u HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n"
                       "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                       "Sec-WebSocket-Version: %s\r\n\r\n",
                       path, who->number, version);
    outside_peer_queue(&who->peer, request, (size_t)len);
}

static void come(actor *who)
{
    if (run.talks_count == CONNECTIONS_MAX) return;
    *who = (actor){.number = run.talks_count++};
    talk *own = &run.talks[who->number];
    own->peer_log = open_memstream(&own->peer_text, &own->peer_len);
    own->call_log = open_memstream(&own->call_text, &own->call_len);
    int res = outside_peer_open(&who->peer, (struct sockaddr *)&run.address, sizeof run.address,
                                own->peer_log, &run.step);
    need(res == 0, "connecting");
    if (chance(20)) return; /* it asks later */
    who->asked = true;
    if (chance(80)) {
        ask(who, "/", "13");
        who->talks = true;
    } else {
        static const char *const paths[] = {"/no", "/text", "/"};
        uint32_t which = below(3);
        ask(who, paths[which], which == 2 ? "12" : "13");
        if (which == 2 && chance(50)) outside_peer_queue(&who->peer, "more", 4);
    }
    write_out(who);
}

static size_t some_size(const actor *who)
{
    if (who->peer.stopped || who->paused) return below(200);
    switch (below(6)) {
    case 0: return below(3);
    case 1: return 124 + below(4);
    case 2: return 65530 + below(12);
    case 3: return below(150000);
    default: return below(3000);
    }
}

/* A message of ASCII, also where it is not text. */
static void send_message(actor *who, char letter, uint8_t number, size_t len)
{
    static char payload[MESSAGE_MAX];
    for (size_t i = 0; i < len; i++)
        payload[i] = (char)('A' + (i * 7 + len + number) % 26);
    if (len < 2) len = 2;
    payload[0] = letter;
    payload[1] = (char)number;
    uint8_t opcode = number < 128 && chance(50) ? 1 : 2;
    for (size_t at = 0; at < len;) {
        size_t part = len;
        if (chance(25)) part = 1 + below((uint32_t)len);
        if (part > len - at) part = len - at;
        outside_peer_queue_frame(
            &who->peer, (uint8_t)((at == 0 ? opcode : 0) | (at + part == len ? PEER_FIN : 0)),
            payload + at, part);
        at += part;
        /* A pong would be thrown away, or not, by an abort. */
        if (at < len && chance(30) && letter != 'a')
            outside_peer_queue_frame(&who->peer, PEER_PING, "ping", 4);
    }
    who->waiting += len;
}

static void say(actor *who)
{
    for (uint32_t count = 1 + below(4); count > 0; count--) {
        if (chance(15))
            outside_peer_queue_frame(&who->peer, (uint8_t)(PEER_PING + below(2)), "ping", below(5));
        else
            send_message(who, 'e', (uint8_t)('a' + below(20)), some_size(who));
    }
}

/* What no proper peer sends. */
static void say_nonsense(actor *who)
{
    static const struct {
        size_t len;
        const char *bytes;
    } rows[] = {
        {6, "\xC1\x80\0\0\0\0"},                    /* a reserved bit */
        {3, "\x81\x01x"},                           /* no mask */
        {6, "\x83\x80\0\0\0\0"},                    /* an opcode that there is not */
        {6, "\x80\x80\0\0\0\0"},                    /* goes on, and nothing has begun */
        {8, "\x89\xFE\x00\x7E\0\0\0\0"},            /* a long ping */
        {6, "\x09\x80\0\0\0\0"},                    /* a ping in parts */
        {8, "\x81\x82\0\0\0\0\xC3\x28"},            /* not UTF-8 */
        {14, "\x82\xFF\0\0\0\0\x7F\0\0\0\0\0\0\0"}, /* too big */
        {9, "\x82\xFE\x00\x01\0\0\0\0x"},           /* a length that is not the shortest */
        {8, "\x88\x82\0\0\0\0\x03\xED"},            /* a code that may not be sent */
        {7, "\x88\x81\0\0\0\0x"},                   /* half a code */
    };
    uint32_t which = below(sizeof rows / sizeof rows[0]);
    if (chance(50)) say(who);
    outside_peer_queue(&who->peer, rows[which].bytes, rows[which].len);
    if (chance(30)) say(who); /* nobody listens */
    who->talks = false;
}

static void say_goodbye(actor *who)
{
    static const char *const payloads[] = {"", "\x03\xE8", "\x0F\xA0", "\x03\xE9 and why"};
    static const size_t lens[] = {0, 2, 2, 10};
    uint32_t which = below(4);
    if (chance(30)) say(who);
    outside_peer_queue_frame(&who->peer, PEER_CLOSE, payloads[which], lens[which]);
    who->talks = false;
}

/* A message that does something; those that throw away what is queued come alone. */
static void command(actor *who)
{
    static const char letters[] = "acfglmmps";
    char letter = letters[below(sizeof letters - 1)];
    uint8_t number = (uint8_t)below(100);
    /* Who does not read gets little or much. */
    if (who->peer.stopped && strchr("ml", letter) != NULL) letter = 'l';
    if (letter == 'p') who->paused = true;
    if (letter == 'l') who->filled = who->peer.stopped;
    if (strchr("acfs", letter) != NULL) who->talks = false;
    send_message(who, letter, number, 2 + below(50));
    if (letter == 'l' && !who->peer.stopped && chance(30)) say(who);
}

static void leave(actor *who)
{
    if (who->peer.out.len > 0 || who->waiting > LITTLE) return;
    run.talks[who->number].loose = who->paused || who->filled;
    outside_peer_close(&who->peer, true);
}

/* One that still talks; nothing of it is under way. */
static void talk_on(actor *who)
{
    if (who->peer.stopped && chance(40)) {
        who->peer.stopped = who->filled = false;
        return;
    }
    /* What is sent now may wait for a long time. */
    if ((who->peer.stopped || who->paused) && who->waiting > LITTLE) return;
    if (!who->peer.stopped && !who->paused) who->waiting = 0;
    if (who->filled) {
        send_message(who, 'e', 'x', below(100));
        write_out(who);
        return;
    }
    uint32_t dice = below(100);
    if (dice < 45)
        say(who);
    else if (dice < 70)
        command(who);
    else if (dice < 75)
        say_nonsense(who);
    else if (dice < 80)
        say_goodbye(who);
    else if (dice < 84)
        who->peer.ends = true;
    else if (dice < 90)
        who->peer.stopped = true;
    if (who->peer.ends) who->talks = false;
    write_out(who);
}

static void act(actor *who)
{
    if (!is_up(who)) {
        come(who);
    } else if (!who->asked) {
        who->asked = who->talks = true;
        if (chance(30)) {
            who->peer.ends = true;
            who->talks = false;
            if (chance(50)) return;
        }
        ask(who, "/", "13");
        write_out(who);
    } else if (chance(5)) {
        leave(who);
    } else if (who->talks) {
        talk_on(who);
    } else if (who->peer.stopped) {
        who->peer.stopped = who->filled = false;
    }
}

/* What concerns other connections happens alone. */
static void act_alone(actor *who)
{
    if (!is_up(who) || !who->talks || who->peer.stopped || who->paused) return;
    who->waiting = 0;
    if (chance(40)) {
        bool others_read = true;
        for (uint32_t i = 0; i < PEERS; i++)
            if (run.actors[i].peer.stopped) others_read = false;
        if (!others_read) return;
        send_message(who, 'b', 'x', below(3000));
    } else {
        actor *other = &run.actors[below(PEERS)];
        send_message(who, 'r', (uint8_t)other->number, 2);
        other->paused = false;
    }
    write_out(who);
}

static void take_step(uint64_t seed)
{
    run.random = mix(seed * 1000003u + ++run.step);
    if (chance(20)) {
        act_alone(&run.actors[below(PEERS)]);
    } else {
        uint32_t first = below(PEERS), count = 1 + below(3);
        for (uint32_t i = 0; i < count; i++)
            act(&run.actors[(first + i) % PEERS]);
    }
    rest();
}

/* ---- a run ---- */

static void wind_up(FILE *transcript)
{
    bool loose = false;
    for (uint32_t i = 0; i < PEERS; i++)
        run.actors[i].peer.stopped = false;
    run.step++;
    rest();
    run.step++;
    rws__runtime_stop(&run.runtime);
    rest();
    for (uint32_t i = 0; i < PEERS; i++)
        if (is_up(&run.actors[i])) outside_peer_close(&run.actors[i].peer, false);
    for (uint32_t i = 0; i < LAST_RESTS && !rws__shard_has_ended(run.shard); i++)
        rest();
    for (uint32_t i = 0; i < run.talks_count; i++)
        loose |= run.talks[i].loose;
    rws_stats stats = stats_now();
    if (loose) stats.protocol_errors = 0;
    fprintf(transcript, "the shard has%s ended: %d\n",
            rws__shard_has_ended(run.shard) ? "" : " not", rws__shard_result(run.shard));
    fprintf(transcript,
            "accepted %llu, upgraded %llu, refused %llu, received %llu, sent %llu, errors %llu, "
            "timeouts %llu, cut off %llu, out of memory %llu\n",
            (unsigned long long)stats.accepted, (unsigned long long)stats.upgraded,
            (unsigned long long)stats.refused, (unsigned long long)stats.messages_received,
            (unsigned long long)stats.messages_sent, (unsigned long long)stats.protocol_errors,
            (unsigned long long)stats.timeouts, (unsigned long long)stats.cut_off,
            (unsigned long long)stats.out_of_memory);
    rws__runtime_close(&run.runtime);
    rws__runtime_deinit(&run.runtime);
}

static void write_talks(FILE *transcript)
{
    for (uint32_t i = 0; i < run.talks_count; i++) {
        talk *own = &run.talks[i];
        fclose(own->peer_log);
        fclose(own->call_log);
        if (run.planted && i == run.talks_count / 2 && own->peer_len > 20)
            own->peer_text[own->peer_len - 10] ^= 1;
        fprintf(transcript, "connection %u\n%s  calls\n%s", i, own->peer_text, own->call_text);
        free(own->peer_text);
        free(own->call_text);
    }
}

uint32_t outside_run(const outside_script *script, FILE *transcript)
{
    memset(&run, 0, sizeof run);
    run.rest_us = script->rest_us;
    run.planted = script->planted;
    noise = malloc(NOISE);
    need(noise != NULL, "no memory");
    for (uint32_t i = 0; i < NOISE; i++)
        noise[i] = (uint8_t)mix(i);
    for (uint32_t i = 0; i < PEERS; i++)
        run.actors[i].peer.fd = -1;
    outside_start(script->features, script->seed, script->faults);
    uint32_t features = open_server(script->features_off);
    rest();
    while (run.step < STEPS)
        take_step(script->seed);
    FILE *sum = open_memstream(&run.sum, &run.sum_len);
    wind_up(sum);
    fclose(sum);
    write_talks(transcript);
    fprintf(transcript, "in sum\n%s", run.sum);
    free(run.sum);
    outside_end();
    free(noise);
    return features;
}
