/*
 * Peers without the engine: proper ones that check every answer, and those that misbehave. What the
 * server sends them has to be well-formed whatever they do.
 */
#include "simulator/world.h"

#include "codec/frame.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#define RAWS_MAX     16u
#define MESSAGES_MAX 40u
#define IN_MAX       (2u << 20)
/* A proper one that was not let in by then goes. */
#define PATIENCE_US 25000000u

typedef enum raw_kind {
    RAW_CLOSES, /* sends, has its echoes, closes */
    RAW_HALF,   /* sends, ends its half, has its echoes */
    RAW_SLOW,   /* as the first, and takes what it gets slowly, but fast enough */
    RAW_LAST_HONEST = RAW_SLOW,
    RAW_MUTE,        /* says nothing */
    RAW_CUT_REQUEST, /* stops within the request */
    RAW_STALL,       /* stops within a message */
    RAW_DRIP,        /* a byte now and then */
    RAW_NOT_READING,
    RAW_SIPS,      /* takes what it gets too slowly */
    RAW_NO_ANSWER, /* to a close */
    RAW_RESETS,    /* at any byte, as the next three */
    RAW_GOES,      /* closes the socket */
    RAW_HALVES,    /* ends its half, and reads on */
    RAW_VANISHES,
    RAW_GARBAGE,  /* some bytes are wrong */
    RAW_LIAR,     /* a header of a length that is too large */
    RAW_BAD_TEXT, /* text that is not UTF-8 */
    RAW_UNMASKED, /* a frame without a mask */
    RAW_KINDS
} raw_kind;

typedef struct raw {
    pair *pair;
    uint8_t *out;
    size_t out_len, at, end_at;
    size_t chunk;
    uint64_t pause_us, next_us, began_us, limit_us; /* its connection has ended by then */
    uint64_t left_us;                               /* since when it stays; 0: it does not yet */
    size_t sip;                                     /* what it reads at once; 0: what is there */
    uint64_t sip_us;                                /* when it reads again */
    uint8_t *in;
    size_t in_len;
    char *message; /* of several frames */
    size_t message_len;
    size_t ends[MESSAGES_MAX]; /* where each message ends in `out` */
    raw_kind kind;
    int fd; /* -1: none */
    uint32_t messages;
    rws_opcode opcode; /* of `message` */
    uint16_t code;     /* of the server's close frame */
    bool connected, upgraded, refused, ended_half, closing;
    bool newcomer; /* when nothing goes wrong any more: it is answered */
    bool hasty;    /* its end is right behind its last byte */
    bool stays;    /* when the server has ended its half it does not end its own */
    bool knocked;
} raw;

static raw raws[RAWS_MAX];
static uint32_t raws_count;
static bool hurry;

static bool is_honest(const raw *own)
{
    return own->kind <= RAW_LAST_HONEST;
}

static bool wants_much(const raw *own)
{
    return own->kind == RAW_NOT_READING || own->kind == RAW_SIPS;
}

/* Whether it reads now. */
static bool is_thirsty(const raw *own)
{
    if (own->kind == RAW_NOT_READING || own->in_len == IN_MAX || own->left_us > 0) return false;
    return own->sip == 0 || rws__sim_now_us() >= own->sip_us || (hurry && is_honest(own));
}

/* ---- what it sends ---- */

static void put(raw *own, const void *data, size_t len)
{
    own->out = realloc(own->out, own->out_len + len + 1);
    if (own->out == NULL) abort();
    memcpy(own->out + own->out_len, data, len);
    own->out_len += len;
}

static void put_request(raw *own)
{
    char request[512];
    int len = snprintf(request, sizeof request,
                       "GET /?k=%" PRIu64 " HTTP/1.1\r\nHost: simulated\r\nUpgrade: websocket\r\n"
                       "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                       "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                       pair_name(own->pair));
    put(own, request, (size_t)len);
}

static void put_frame(raw *own, uint8_t opcode, bool fin, bool masked, const void *data, size_t len)
{
    uint8_t header[RWS__FRAME_HEADER_MAX], key[4];
    rws__frame frame = {.payload_len = len, .opcode = opcode, .fin = fin, .masked = masked};
    frame.mask_key = masked ? (uint32_t)plan_random(&world.random) : 0;
    memcpy(key, &frame.mask_key, sizeof key);
    size_t head = rws__frame_write(header, &frame);
    put(own, header, head);
    put(own, data, len);
    for (size_t i = 0; i < len; i++)
        own->out[own->out_len - len + i] ^= key[i % 4];
}

/* In some frames, pings between them. */
static void put_message(raw *own, rws_opcode type, const char *data, size_t len)
{
    uint8_t opcode = (uint8_t)type;
    while (one_in(4) && len > 1) {
        size_t part = below(len);
        put_frame(own, opcode, false, true, data, part);
        opcode = RWS_CONTINUATION;
        data += part;
        len -= part;
        if (!one_in(2)) continue;
        char number[PING_BYTES];
        ping_write(number, own->pair->pings++);
        put_frame(own, RWS_PING, true, true, number, sizeof number);
    }
    put_frame(own, opcode, true, true, data, len);
}

static void put_messages(raw *own)
{
    uint32_t most = world.plan->message_max;
    if (own->kind == RAW_SLOW && most > 30000) most = 30000;
    char *text = malloc(most);
    if (text == NULL) abort();
    own->messages = (uint32_t)below(wants_much(own) ? MESSAGES_MAX : 12);
    for (uint32_t i = 0; i < own->messages; i++) {
        bool large = one_in(6) || wants_much(own) || own->kind == RAW_SLOW;
        size_t len = MESSAGE_HEAD + below(large ? most - MESSAGE_HEAD + 1 : 100);
        rws_opcode opcode = one_in(2) ? RWS_TEXT : RWS_BINARY;
        message_write(text, pair_stream_asked(own->pair), i, len, opcode);
        put_message(own, opcode, text, len);
        own->ends[i] = own->out_len;
    }
    free(text);
}

/* What the misbehaving ones say last. */
static void put_end(raw *own)
{
    static const uint8_t liar[] = {0x82, 0xFF, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4, 'x'};
    switch (own->kind) {
    case RAW_LIAR: put(own, liar, sizeof liar); break;
    case RAW_BAD_TEXT: put_frame(own, RWS_TEXT, true, true, "caf\xE9 \xC0\x80", 7); break;
    case RAW_UNMASKED: put_frame(own, RWS_TEXT, true, false, "bare", 4); break;
    case RAW_STALL: {
        size_t len = 30 + below(world.plan->message_max);
        char *bytes = calloc(1, len);
        if (bytes == NULL) abort();
        put_frame(own, RWS_BINARY, true, true, bytes, len);
        free(bytes);
        own->out_len -= 1 + below(len - 1);
        break;
    }
    case RAW_GARBAGE:
        for (uint32_t i = 0; i < 3; i++)
            own->out[below(own->out_len)] ^= (uint8_t)(1 + below(255));
        break;
    default: break;
    }
}

static void draw_end(raw *own)
{
    own->end_at = own->out_len;
    switch (own->kind) {
    case RAW_MUTE: own->end_at = 0; break;
    case RAW_CUT_REQUEST: own->end_at = 1 + below(100); break;
    case RAW_RESETS:
    case RAW_GOES:
    case RAW_HALVES:
    case RAW_VANISHES: own->end_at = below(own->out_len + 1); break;
    default: break;
    }
}

static void dial_raw(raw *own)
{
    struct sockaddr_in in = {.sin_family = AF_INET,
                             .sin_port = htons(world.server.listeners[0].port),
                             .sin_addr.s_addr = inet_addr(world.plan->host)};
    struct sockaddr_un un = {.sun_family = AF_UNIX, .sun_path = "/tmp/simulated"};
    if (world.plan->over_unix)
        own->fd = rws__sim_connect((struct sockaddr *)&un, sizeof un);
    else
        own->fd = rws__sim_connect((struct sockaddr *)&in, sizeof in);
}

static void free_raw(raw *own)
{
    if (own->fd >= 0) rws__socket_close(own->fd);
    free(own->out);
    free(own->in);
    free(own->message);
    *own = raws[--raws_count];
}

static raw *spawn(raw_kind kind)
{
    raw *own = &raws[raws_count];
    /* Where the kernel does not tell what is acknowledged, a slow one may be cut. */
    if (kind == RAW_SLOW && !world_kernel_tells()) kind = RAW_CLOSES;
    memset(own, 0, sizeof *own);
    own->kind = kind;
    own->hasty = one_in(2);
    own->stays = kind >= RAW_LIAR && one_in(2);
    if (kind == RAW_SLOW) own->sip = 1000 + below(4000);
    if (kind == RAW_SIPS) own->sip = 1 + below(50);
    dial_raw(own);
    if (own->fd < 0) return NULL;
    raws_count++;
    own->pair = world_new_pair();
    own->pair->raw = true;
    /* What fills a large buffer is acknowledged before it is read. */
    own->pair->takes = own->kind == RAW_SLOW && world.plan->kernel.recv_buffer_bytes <= 1000;
    own->pair->excused = own->kind > RAW_LAST_HONEST;
    own->pair->honest = own->kind < RAW_GARBAGE;
    own->in = malloc(IN_MAX);
    own->message = malloc(IN_MAX);
    if (own->in == NULL || own->message == NULL) abort();
    put_request(own);
    put_messages(own);
    put_end(own);
    draw_end(own);
    own->chunk = own->kind == RAW_DRIP ? 1 : one_in(3) ? 1 + below(50) : 1 + below(100000);
    own->pause_us = own->kind == RAW_DRIP ? 2000000 : one_in(2) ? below(50000) : 0;
    /* A proper one is not so slow that it misses a deadline. */
    uint64_t pauses = own->out_len / own->chunk + 1;
    if (is_honest(own) && own->pause_us > 1000000 / pauses) own->pause_us = 1000000 / pauses;
    own->began_us = own->next_us = rws__sim_now_us();
    own->limit_us = UINT64_MAX;
    trace("raw %" PRIu64 ": kind %d, %u messages", own->pair->key, own->kind, own->messages);
    return own;
}

void raws_spawn(void)
{
    if (raws_count >= world.plan->raws || raws_count == RAWS_MAX) return;
    /* Many that do not read, where the pools are small. */
    if (world.plan->small_pools && one_in(3))
        (void)spawn(RAW_NOT_READING);
    else
        (void)spawn(one_in(2) ? (raw_kind)below(RAW_LAST_HONEST + 1) : (raw_kind)below(RAW_KINDS));
}

void raws_spawn_proper(bool newcomer)
{
    /* None of them speaks through a filter. */
    if (raws_count == RAWS_MAX || world.plan->filtered) return;
    raw *own = spawn(RAW_CLOSES);
    if (own != NULL) own->newcomer = newcomer;
}

/* ---- when the server has to end it ---- */

static uint64_t timeouts_us(const raw *own)
{
    const rws__endpoint *endpoint = world.server.endpoints[0];
    const rws__streams_options *streams = &world.server.config.streams;
    /* The close's deadline counts from when everything before it was taken, which is found out by
     * looking once per deadline. */
    uint64_t linger = streams->linger_timeout_ms, close = endpoint->close_timeout_ms * 2;
    uint64_t handshake = world.server.listeners[0].http.timeout_ms, ms = 0;
    switch (own->kind) {
    case RAW_MUTE:
    case RAW_CUT_REQUEST: ms = handshake + linger; break;
    case RAW_DRIP: ms = handshake + endpoint->message_timeout_ms + close + linger; break;
    case RAW_STALL: ms = endpoint->message_timeout_ms + close + linger; break;
    /* Once more, if it has acknowledged something since the close was queued. */
    case RAW_NO_ANSWER: ms = 2 * close + linger; break;
    case RAW_SIPS: ms = streams->send_timeout_ms * 3 + close + linger; break;
    case RAW_NOT_READING: ms = streams->send_timeout_ms * 2 + close + linger; break;
    case RAW_LIAR:
    case RAW_BAD_TEXT:
    case RAW_UNMASKED: ms = handshake + close + linger + streams->send_timeout_ms; break;
    default: return UINT64_MAX;
    }
    const rws__sim_options *kernel = &world.plan->kernel;
    return ms * 1000 + 2000000 +
           (kernel->late_us_max + kernel->slow_us_max + kernel->delay_us_max) * 20;
}

/* From now on the server has to end it in time. Where the server may be full, the time does not
 * begin before it is accepted, and nobody knows when that is. */
static void expect_end(raw *own)
{
    bool has_room = world.plan->server.connections_max >= 64 && !world.plan->over_unix;
    uint64_t most = timeouts_us(own);
    if (own->limit_us != UINT64_MAX || most == UINT64_MAX || !has_room || world_is_rough() ||
        world_is_short_of_memory())
        return;
    own->limit_us = rws__sim_now_us() + most;
}

/* ---- what it gets ---- */

static void answer_close(raw *own)
{
    const uint8_t payload[2] = {(uint8_t)(own->code >> 8), (uint8_t)own->code};
    own->closing = true;
    put_frame(own, RWS_CLOSE, true, true, payload, own->code == RWS_CLOSE_NO_STATUS ? 0 : 2);
    own->end_at = own->out_len;
}

static void answer_control(raw *own, const rws__frame *frame, const char *data)
{
    if (frame->opcode == RWS_PONG && own->pair->honest)
        pair_pong(own->pair, data, (size_t)frame->payload_len);
    if (frame->opcode != RWS_CLOSE) return;
    own->code = RWS_CLOSE_NO_STATUS;
    if (frame->payload_len >= 2) own->code = (uint16_t)((uint8_t)data[0] << 8 | (uint8_t)data[1]);
    own->pair->takes = false;
    if (own->kind == RAW_NO_ANSWER) expect_end(own);
    if (own->closing || own->ended_half || own->at < own->end_at || own->kind == RAW_NO_ANSWER)
        return;
    /* A proper one answers; behind what it has still to say (end_it()). */
    answer_close(own);
}

static void take_frame(raw *own, const rws__frame *frame, const char *data)
{
    size_t len = (size_t)frame->payload_len;
    if (frame->masked || frame->rsv != 0)
        fail("raw %" PRIu64 ": a frame is masked or has RSV bits", own->pair->key);
    if (own->code != 0) fail("raw %" PRIu64 ": a frame came behind the close", own->pair->key);
    if (frame->opcode >= RWS_CLOSE) {
        answer_control(own, frame, data);
        return;
    }
    if ((frame->opcode == RWS_CONTINUATION) != (own->message_len > 0))
        fail("raw %" PRIu64 ": frames are out of order", own->pair->key);
    /* One more, so that an empty first frame counts as begun. */
    if (own->message_len == 0) {
        own->message_len = 1;
        own->opcode = (rws_opcode)frame->opcode;
    }
    if (own->message_len + len > IN_MAX)
        fail("raw %" PRIu64 ": a message is too long", own->pair->key);
    memcpy(own->message + own->message_len, data, len);
    own->message_len += len;
    if (!frame->fin) return;
    if (own->pair->honest)
        pair_client_received(own->pair, own->message + 1, own->message_len - 1, own->opcode);
    own->message_len = 0;
}

/* The head of the answer. Returns its length, or 0: it is not there yet. */
static size_t take_head(raw *own)
{
    const char *end = memmem(own->in, own->in_len, "\r\n\r\n", 4);
    if (end == NULL) return 0;
    if (own->in_len < 13 || memcmp(own->in, "HTTP/1.1 ", 9) != 0)
        fail("raw %" PRIu64 ": the answer is not HTTP", own->pair->key);
    own->upgraded = memcmp(own->in + 9, "101", 3) == 0;
    own->refused = !own->upgraded;
    if (own->refused) {
        trace("raw %" PRIu64 ": refused with %.3s", own->pair->key, own->in + 9);
        bool expected = own->pair->excused || world.over || memcmp(own->in + 9, "503", 3) == 0;
        if (!expected && !world_is_short_of_memory())
            fail("raw %" PRIu64 ": refused with %.3s", own->pair->key, own->in + 9);
        own->pair->excused = true;
    }
    return (size_t)(end + 4 - (char *)own->in);
}

static size_t take_one(raw *own, size_t at)
{
    rws__frame frame;
    int head = rws__frame_parse(&frame, own->in + at, own->in_len - at);
    if (head < 0) fail("raw %" PRIu64 ": a frame is malformed", own->pair->key);
    if (head == 0 || frame.payload_len > own->in_len - at - (size_t)head) return 0;
    take_frame(own, &frame, (const char *)own->in + at + head);
    return (size_t)head + (size_t)frame.payload_len;
}

static void take(raw *own)
{
    size_t at = 0;
    if (!own->upgraded && !own->refused) at = take_head(own);
    if (own->refused) {
        own->in_len = 0;
        return;
    }
    for (size_t used = own->upgraded; used > 0; at += used)
        used = take_one(own, at);
    memmove(own->in, own->in + at, own->in_len - at);
    own->in_len -= at;
}

/* ---- its end ---- */

static bool may_miss(const raw *own)
{
    return own->pair->excused || world.server_stopping || world_is_rough();
}

/* All that was accepted for it before the server's close has come, and all of its own unless the
 * server's close was first. */
static void check_echoes(const raw *own, ssize_t res)
{
    const pair *other = own->pair;
    uint32_t due = other->server.closes ? other->echoed : own->messages;
    if (other->echoes != due || other->listened != other->told ||
        other->broadcasts != other->broadcast)
        fail("raw %" PRIu64 ": %u of %u echoes, %u of %u messages and %u of %u broadcasts came "
             "before the end (%zd)",
             other->key, other->echoes, due, other->listened, other->told, other->broadcasts,
             other->broadcast, res);
    if (res != 0) fail("raw %" PRIu64 ": its end was a reset: %zd", other->key, res);
}

/* The server has ended the connection. */
static void on_gone(raw *own, ssize_t res)
{
    static const uint16_t codes[RAW_KINDS] = {
        [RAW_LIAR] = 1009, [RAW_BAD_TEXT] = 1007, [RAW_UNMASKED] = 1002};
    const pair *other = own->pair;
    trace("raw %" PRIu64 ": the server is gone (%zd), code %u", other->key, res, own->code);
    if (is_honest(own) && !may_miss(own)) check_echoes(own, res);
    /* What was let in before a drain closed the listener is answered. */
    if (res < 0 && is_honest(own) && !own->upgraded && !own->refused && own->pause_us == 0 &&
        world.server_stopping && !other->excused && world_is_swift() && !world_is_rough() &&
        world.plan->server.connections_max >= 64)
        fail("raw %" PRIu64 ": a drain has reset it before it was answered", other->key);
    bool all_said = own->at == own->end_at && own->upgraded && !other->server.closes;
    if (codes[own->kind] != 0 && all_said && own->code != 0 && own->code != codes[own->kind] &&
        own->code != RWS_CLOSE_INTERNAL_ERROR && own->code < 4000 && !world.over &&
        !world_is_short_of_memory())
        fail("raw %" PRIu64 ": it was closed with %u", other->key, own->code);
}

/* Returns false if it has ended. */
static bool read_some(raw *own)
{
    if (!is_thirsty(own)) return true;
    size_t room = IN_MAX - own->in_len, most = one_in(4) ? 1 + below(1000) : room;
    if (own->sip > 0 && !(hurry && is_honest(own))) {
        most = own->sip;
        own->sip_us = rws__sim_now_us() + 500000;
    }
    ssize_t res = rws__sim_read(own->fd, own->in + own->in_len, most < room ? most : room);
    if (res == -EAGAIN) return true;
    if (res <= 0) {
        if (own->left_us == 0) on_gone(own, res);
        if (res < 0 || !own->stays) return false;
        own->left_us = rws__sim_now_us();
        return true;
    }
    own->in_len += (size_t)res;
    take(own);
    return true;
}

static void count_sent(raw *own)
{
    uint32_t *asked = &own->pair->asked;
    while (*asked < own->messages && own->ends[*asked] <= own->at)
        ++*asked;
}

static void end_half(raw *own)
{
    if (!own->ended_half) rws__sim_shutdown(own->fd);
    own->ended_half = true;
}

/* Everything was said. Returns false if it has ended. */
static bool end_it(raw *own)
{
    if (own->kind != RAW_NO_ANSWER && own->kind != RAW_NOT_READING) expect_end(own);
    if (is_honest(own) && own->code != 0 && !own->closing && !own->ended_half) {
        answer_close(own);
        return true;
    }
    switch (own->kind) {
    case RAW_CLOSES:
    case RAW_SLOW:
        if (own->closing || !own->upgraded || own->pair->echoes < own->messages) return true;
        own->closing = true;
        put_frame(own, RWS_CLOSE, true, true, "\x03\xe8", 2);
        own->end_at = own->out_len;
        return true;
    case RAW_HALF:
        if (own->upgraded) end_half(own);
        return true;
    case RAW_HALVES: end_half(own); return true;
    case RAW_RESETS: rws__sim_reset(own->fd); break;
    case RAW_VANISHES: rws__sim_vanish(own->fd); break;
    case RAW_GARBAGE:
    case RAW_GOES: rws__socket_close(own->fd); break;
    default: return true;
    }
    trace("raw %" PRIu64 ": goes at byte %zu of %zu", own->pair->key, own->at, own->out_len);
    own->fd = -1;
    return false;
}

/* Whether the server has something for it that the kernel does not take. */
static bool is_owed(const raw *own)
{
    const rws_conn *conn = own->pair->server.conn;
    return conn != NULL && rws_conn_buffered(conn) > 0;
}

/* Returns false if it has ended. */
static bool write_some(raw *own)
{
    if (own->at >= own->end_at) return end_it(own);
    size_t most = own->end_at - own->at, chunk = hurry ? most : own->chunk;
    ssize_t res = rws__sim_write(own->fd, own->out + own->at, most < chunk ? most : chunk);
    if (res == -EAGAIN) {
        if ((own->kind == RAW_NOT_READING || own->kind == RAW_SIPS) && is_owed(own))
            expect_end(own);
        own->next_us = rws__sim_now_us() + (hurry ? 20000 : 500000);
        return true;
    }
    if (own->kind == RAW_DRIP) expect_end(own);
    if (res < 0) {
        /* What the server said before is still to be read, if it is. */
        if (is_honest(own) && !may_miss(own) && rws__sim_readable(own->fd) == 0)
            fail("raw %" PRIu64 ": a write failed: %zd", own->pair->key, res);
        own->at = own->end_at;
        return rws__sim_readable(own->fd) > 0 && own->kind != RAW_NOT_READING;
    }
    own->at += (size_t)res;
    count_sent(own);
    if (own->at == own->end_at && own->kind == RAW_HALF && own->hasty) end_half(own);
    return true;
}

static bool is_connected(raw *own)
{
    int res = rws__sim_connected(own->fd);
    if (res == 0) own->connected = true;
    if (res == -EINPROGRESS) {
        own->next_us = rws__sim_now_us() + 50000;
    } else if (res != 0) {
        trace("raw %" PRIu64 ": not connected: %d", own->pair->key, res);
        if (!world_is_rough() && !world.server_stopping)
            fail("raw %" PRIu64 ": its connect failed: %d", own->pair->key, res);
        own->pair->excused = true;
        rws__socket_close(own->fd);
        own->fd = -1;
    }
    return res == 0;
}

static bool has_lost_patience(raw *own)
{
    uint64_t now = rws__sim_now_us();
    /* In a drain the drain's deadline counts. */
    if (now > own->limit_us && !own->pair->server.closed && !world.server_stopping)
        fail("raw %" PRIu64 " of kind %d: the server has not ended it in time", own->pair->key,
             own->kind);
    if (own->upgraded || now < own->began_us + PATIENCE_US || own->kind == RAW_MUTE ||
        own->kind == RAW_CUT_REQUEST || own->kind == RAW_DRIP)
        return own->pair->server.closed && own->kind == RAW_NOT_READING;
    if (own->newcomer && !world_is_short_of_memory())
        fail("raw %" PRIu64 ": nothing goes wrong any more, and it was not answered",
             own->pair->key);
    own->pair->excused = true;
    return true;
}

/* While the server has nothing for it, it is waited for. */
static void look_at_debts(raw *own)
{
    if ((own->kind == RAW_NOT_READING || own->kind == RAW_SIPS) && !is_owed(own))
        own->limit_us = UINT64_MAX;
}

/* The server has ended its half, and this one does not: what it still sends is answered with a
 * reset soon. Returns false if it is over. */
static bool stay(raw *own)
{
    const rws__sim_options *kernel = &world.plan->kernel;
    uint64_t now = rws__sim_now_us(), slack = 2000000 + 20 * kernel->late_us_max +
                                              20 * kernel->slow_us_max + 4 * kernel->delay_us_max;
    uint64_t linger = (uint64_t)world.server.config.streams.linger_timeout_ms * 1000;
    own->next_us = own->left_us + linger + slack * (own->knocked ? 2 : 1);
    if (now < own->next_us) return true;
    ssize_t res = rws__sim_write(own->fd, "x", 1);
    if (own->knocked && res > 0 && !world.server_stopping)
        fail("raw %" PRIu64 ": the server lingers without end", own->pair->key);
    if (own->knocked || res <= 0) return false;
    own->knocked = true;
    own->next_us = now + slack;
    return true;
}

/* Returns false if it is over. */
static bool act(raw *own)
{
    uint64_t now = rws__sim_now_us();
    if (own->left_us > 0) return stay(own);
    own->next_us = now + (hurry ? 1000 : own->pause_us) + 1;
    if (!own->connected && !is_connected(own)) return own->fd >= 0 && !has_lost_patience(own);
    if (!read_some(own)) return false;
    if (!write_some(own)) return false;
    if (own->at >= own->end_at) own->next_us = now + 1000000;
    if (own->sip > 0 && own->sip_us > now && own->sip_us < own->next_us) own->next_us = own->sip_us;
    look_at_debts(own);
    return !has_lost_patience(own);
}

static bool is_due(const raw *own)
{
    if (rws__sim_now_us() >= own->next_us) return true;
    return own->connected && is_thirsty(own) && rws__sim_is_readable(own->fd);
}

bool raws_act(void)
{
    for (uint32_t i = 0; i < raws_count; i++) {
        if (!is_due(&raws[i])) continue;
        if (!act(&raws[i])) free_raw(&raws[i]);
        return true;
    }
    return false;
}

uint64_t raws_next_us(void)
{
    uint64_t next = UINT64_MAX;
    for (uint32_t i = 0; i < raws_count; i++)
        if (raws[i].next_us < next) next = raws[i].next_us;
    return next;
}

void raws_begin(void)
{
    raws_count = 0;
    hurry = false;
}

void raws_finish(bool all)
{
    hurry = true;
    while (all && raws_count > 0)
        free_raw(&raws[0]);
}

uint32_t raws_alive(bool honest_only)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < raws_count; i++)
        count += !honest_only || (is_honest(&raws[i]) && !raws[i].pair->excused);
    return count;
}
