#include "support/scripted_shard.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/close.h"
#include "codec/frame.h"
#include "codec/handshake.h"
#include "codec/mask.h"
#include "engine/server/dialer.h"

const char world_request[] = "GET /chat?room=7 HTTP/1.1\r\n"
                             "Host: localhost\r\n"
                             "Upgrade: websocket\r\n"
                             "Connection: Upgrade\r\n"
                             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                             "Sec-WebSocket-Version: 13\r\n"
                             "Sec-WebSocket-Protocol: chat, superchat\r\n\r\n";

/* ---- the program: it writes down what it is told ---- */

__attribute__((format(printf, 2, 3))) static void note(world *w, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    feed_bytes_append(&w->log, line, strlen(line));
}

/* The file is kept in the user pointer, because a connection forgets its own when it is closed. */
uint32_t world_file(const rws_conn *conn)
{
    return (uint32_t)(uintptr_t)rws_conn_user(conn);
}

static uint32_t told(world *w, rws_conn *conn, const char *what)
{
    uint32_t file = world_file(conn);
    if (!w->open[file] && w->broken == NULL) w->broken = what;
    if (strcmp(what, "close") == 0) {
        w->open[file] = false;
        w->closes++;
    }
    return file;
}

static void hook(world *w, rws_conn *conn, const char *what)
{
    if (w->hook != NULL) w->hook(w, conn, what);
}

static int on_upgrade(rws_request *request, void *user)
{
    world *w = user;
    if (w->subprotocol != NULL) rws_request_choose_subprotocol(request, w->subprotocol);
    if (w->release_user != NULL) rws_request_set_user(request, w->hook_data, w->release_user);
    return w->upgrade_result;
}

static void on_open(rws_conn *conn, void *user)
{
    world *w = user;
    uint32_t file = (uint32_t)conn->stream.file;
    rws_conn_set_user(conn, (void *)(uintptr_t)file);
    if (w->open[file] && w->broken == NULL) w->broken = "open twice";
    w->open[file] = true;
    note(w, "open%u ", file);
    hook(w, conn, "open");
}

/* Long data is named by its length and a sum. */
static void note_data(world *w, const char *what, uint32_t file, const void *data, size_t len)
{
    const uint8_t *bytes = data;
    if (len <= 64) {
        note(w, "%s%u:%.*s ", what, file, (int)len, (const char *)data);
        return;
    }
    uint32_t sum = 0;
    for (size_t i = 0; i < len; i++)
        sum = sum * 31 + bytes[i];
    note(w, "%s%u:%zu:%08x ", what, file, len, sum);
}

static int on_message(rws_conn *conn, const rws_message *message, void *user)
{
    world *w = user;
    note_data(w, rws_message_opcode(message) == RWS_TEXT ? "text" : "binary",
              told(w, conn, "message"), rws_message_data(message), rws_message_len(message));
    w->message = message;
    hook(w, conn, "message");
    return w->message_result;
}

static void on_drain(rws_conn *conn, void *user)
{
    world *w = user;
    note(w, "drain%u ", told(w, conn, "drain"));
    hook(w, conn, "drain");
}

static void on_close(rws_conn *conn, const rws_close_info *info, void *user)
{
    world *w = user;
    uint32_t file = told(w, conn, "close");
    w->close_status = info->status;
    note(w, "close%u:%u:%.*s:%s ", file, info->code, (int)info->reason.len, info->reason.data,
         info->who == RWS_CLOSED_BY_PEER ? "peer" : "us");
    hook(w, conn, "close");
}

static int on_ping(rws_conn *conn, const void *data, size_t len, void *user)
{
    world *w = user;
    note_data(w, "ping", told(w, conn, "ping"), data, len);
    hook(w, conn, "ping");
    return w->control_result;
}

static int on_pong(rws_conn *conn, const void *data, size_t len, void *user)
{
    world *w = user;
    note_data(w, "pong", told(w, conn, "pong"), data, len);
    hook(w, conn, "pong");
    return w->control_result;
}

static int on_close_frame(rws_conn *conn, uint16_t code, rws_span reason, void *user)
{
    world *w = user;
    note(w, "close_frame%u:%u:%.*s ", told(w, conn, "close_frame"), code, (int)reason.len,
         reason.data);
    hook(w, conn, "close_frame");
    return w->control_result;
}

static void on_dial_error(const rws_error *error, void *dial_user, void *user)
{
    world *w = user;
    note(w, "dial_error%u:%d ", (uint32_t)(uintptr_t)dial_user, error->status);
    snprintf(w->dial_error, sizeof w->dial_error, "%s", error->text);
}

static const rws_handler handler = {
    .size = sizeof(rws_handler),
    .on_upgrade = on_upgrade,
    .on_open = on_open,
    .on_message = on_message,
    .on_drain = on_drain,
    .on_close = on_close,
    .on_ping = on_ping,
    .on_pong = on_pong,
    .on_close_frame = on_close_frame,
    .on_dial_error = on_dial_error,
};

/* ---- life ---- */

test_options world_server_options(void)
{
    test_options options = {0};
    options.port = 0;
    options.shards = 1;
    options.connections_max = 8;
    options.backlog = 16; /* small enough for a multishot accept */
    return options;
}

static void start(world *w, const test_options *options)
{
    test_options mine = *options;
    char features[TEST_FEATURES_BYTES];
    rws_handler wanted;
    mine.user = w;
    rws_runtime_options runtime = test_runtime_options(&mine, features);
    rws_endpoint_options endpoint = test_endpoint_options(&mine, &handler, &wanted, w->role);
    rws_listener_options listener = test_listener_options(&mine);
    rws__runtime_config config;
    rws_error error = {0};
    int res = rws__runtime_config_make(&config, &runtime, 1, &error);
    if (res == 0) res = rws__runtime_init(&w->runtime, &config, &error);
    if (res == 0)
        res = rws__runtime_add_endpoint(&w->runtime, &endpoint, NULL, &w->endpoint, &error);
    uint32_t listeners = mine.listeners != 0 ? mine.listeners : 1;
    for (uint32_t i = 0; res == 0 && w->role == RWS_SERVER && i < listeners; i++)
        res = rws__runtime_listen(&w->runtime, &listener, &error);
    if (res == 0) res = rws__runtime_open(&w->runtime, &error);
    cr_assert_eq(res, 0, "%s", error.text);
    w->shard = &w->runtime.workers[0].shard;
    w->ring = w->shard->loop.ring;
    w->options = *options;
    world_turn(w);
}

void world_start(world *w, const test_options *options)
{
    memset(w, 0, sizeof *w);
    start(w, options);
}

void world_start_client(world *w, const test_options *options)
{
    memset(w, 0, sizeof *w);
    w->role = RWS_CLIENT;
    start(w, options);
}

static void check_nothing_is_left(const world *w)
{
    cr_expect_null(w->broken, "the callback %s came out of order", w->broken);
    cr_expect_null(w->ring->broken, "%s", w->ring->broken);
    cr_expect_eq(w->shard->conns.streams.slots_used, 0, "%u slots are in use",
                 w->shard->conns.streams.slots_used);
    cr_expect_eq(w->shard->conns.streams.send_slab.used_bytes, 0,
                 "%zu bytes of the send slab are in use",
                 w->shard->conns.streams.send_slab.used_bytes);
    cr_expect_eq(w->shard->conns.streams.partial->slab.used_bytes, 0,
                 "%zu bytes of the partial pool are in use",
                 w->shard->conns.streams.partial->slab.used_bytes);
    cr_expect_eq(w->shard->conns.streams.partial->charged_bytes, 0,
                 "%zu bytes are charged to the budget",
                 w->shard->conns.streams.partial->charged_bytes);
    cr_expect_eq(w->ring->buffers_out, 0, "%u buffers were not recycled", w->ring->buffers_out);
    cr_expect_eq(w->shard->conns.budget.first, 0);
    cr_expect_null(w->shard->conns.budget_holder);
    cr_expect_eq(w->shard->conns.open_count, 0, "%u connections count as open",
                 w->shard->conns.open_count);
    cr_expect_eq(w->shard->conns.streams.linger.first, 0, "somebody lingers");
    cr_expect_eq(w->shard->conns.streams.files_to_close_count, 0, "a file was not closed");
    for (uint32_t i = 0; i < RWS__REGISTERED_MAX; i++)
        cr_expect_eq(w->shard->conns.streams.registered.entries[i].sends, 0,
                     "registered memory is being read");
    cr_expect_eq(w->ring->slept, 0, "it waited and nobody would have woken it");
    for (uint32_t file = 0; file < SCRIPT_FILES; file++) {
        cr_expect_not(w->open[file], "on_close is missing for %u", file);
        cr_expect_eq(script_count(w->ring, file), 0, "an operation on %u is in flight", file);
    }
}

void world_end(world *w)
{
    w->ring->manual = 0;
    w->ring->submit_max = UINT32_MAX;
    w->hook = NULL;
    rws__loop_stop(&w->shard->loop);
    for (int i = 0; i < 100 && !w->ended; i++) {
        script_cancel_closed(w->ring);
        world_advance(w, 1000);
    }
    cr_expect(w->ended, "the drain does not end");
    check_nothing_is_left(w);
    cr_expect_eq(rws__runtime_close(&w->runtime), w->result);
    rws__runtime_deinit(&w->runtime);
    feed_bytes_free(&w->log);
}

/* ---- turns ---- */

static void run(world *w, int turns)
{
    if (w->ended) return;
    w->ring->turns_left = turns;
    while (!rws__shard_has_ended(w->shard))
        if (rws__shard_turn(w->shard, true) == SCRIPT_STOP) return;
    w->ended = true;
    w->result = rws__shard_result(w->shard);
}

void world_pump(world *w)
{
    run(w, 0);
}

void world_turn(world *w)
{
    run(w, 1);
}

void world_turns(world *w, uint32_t count)
{
    while (count-- > 0)
        world_turn(w);
}

void world_advance(world *w, uint64_t ms)
{
    script_now_ms += ms;
    world_turns(w, 4);
}

void world_pass(world *w, uint64_t ms)
{
    for (uint64_t step; ms > 0; ms -= step) {
        step = ms < RWS__TICK_MS ? ms : RWS__TICK_MS;
        script_now_ms += step;
        world_turns(w, 3);
    }
}

/* ---- the peer ---- */

uint32_t world_accept(world *w)
{
    uint32_t file = w->next_file++;
    script_op *op = script_find(w->ring, SCRIPT_ACCEPT_MULTISHOT, UINT32_MAX);
    uint32_t flags = op != NULL ? RWS__CQE_MORE : 0;
    if (op == NULL) op = script_find(w->ring, SCRIPT_ACCEPT_DIRECT, UINT32_MAX);
    cr_assert_not_null(op, "no accept is armed");
    script_complete(w->ring, op, (int32_t)file, flags);
    world_turns(w, 2);
    return file;
}

uint32_t world_open(world *w)
{
    uint32_t file = world_accept(w);
    world_feed(w, file, world_request, sizeof world_request - 1);
    world_turn(w);
    cr_assert(w->open[file], "not open: %s", world_log(w));
    w->ring->wire[file].len = 0;
    return file;
}

int world_dial(world *w, const char *url, const char *subprotocols, void *dial_user)
{
    const rws__runtime_config *config = &w->runtime.config;
    rws_dial_options options = RWS_DIAL_OPTIONS_DEFAULT, checked;
    options.user = dial_user;
    options.subprotocols = subprotocols;
    options.timeout_ms = w->options.handshake_timeout_ms;
    options.handshake_bytes_max = w->options.handshake_bytes_max;
    rws__socket_options socket;
    rws_error error;
    cr_assert_eq(rws__dial_options_check(&checked, &options, config, &socket, &error), 0);
    rws__dial *dial;
    int res = rws__dial_create(&dial, &config->env, w->endpoint, url, &checked);
    if (res != 0) return res;
    dial->filters = w->runtime.dial_filters;
    dial->socket = socket;
    rws__dial_post *post = rws__alloc(&config->env, sizeof *post);
    cr_assert_not_null(post);
    *post = (rws__dial_post){dial, &w->shard->conns};
    rws__dial_start(post, false);
    return 0;
}

void world_answer(world *w, uint32_t file, const char *status, const char *lines,
                  const char *behind)
{
    feed_bytes *wire = &w->ring->wire[file];
    feed_bytes_append(wire, "", 1);
    char *at = strstr((char *)wire->data, "Sec-WebSocket-Key: ");
    if (at == NULL) at = strstr((char *)wire->data, "sec-websocket-key: ");
    cr_assert_not_null(at, "%s", (char *)wire->data);
    char accept[RWS__ACCEPT_BYTES];
    rws__handshake_accept(at + strlen("Sec-WebSocket-Key: "), accept);
    wire->len = 0;
    char text[1024];
    int len = snprintf(text, sizeof text,
                       "HTTP/1.1 %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                       "Sec-WebSocket-Accept: %.*s\r\n%s\r\n%s",
                       status, RWS__ACCEPT_BYTES, accept, lines, behind);
    world_feed(w, file, text, (size_t)len);
    world_turns(w, 2);
}

uint32_t world_open_client(world *w)
{
    cr_assert_eq(world_dial(w, "ws://127.0.0.1:9/", NULL, NULL), 0);
    world_turns(w, 5);
    world_answer(w, WORLD_DIALLED, "101 Switching Protocols", "", "");
    cr_assert(w->open[WORLD_DIALLED], "not open: %s", world_log(w));
    return WORLD_DIALLED;
}

rws_stats world_stats(const world *w)
{
    rws_stats stats = {.size = sizeof stats};
    rws__runtime_stats(&w->runtime, &stats);
    return stats;
}

rws_conn *world_conn(world *w, uint32_t file)
{
    for (uint32_t i = 0; i < w->shard->conns.streams.slots_touched; i++) {
        rws_conn *conn = (rws_conn *)rws__streams_at(&w->shard->conns.streams, i);
        if (conn->state != RWS__CONN_FREE && conn->stream.file == (int32_t)file) return conn;
    }
    return NULL;
}

void world_feed(world *w, uint32_t file, const void *data, size_t len)
{
    size_t taken = script_recv(w->ring, file, data, len, false);
    cr_assert_eq(taken, len, "file %u took %zu bytes of %zu", file, taken, len);
    world_turn(w);
}

void world_frame(world *w, uint32_t file, uint8_t opcode, const char *text)
{
    feed_bytes frame = {0};
    feed_append_frame(&frame, 0x80 | opcode, w->role == RWS_SERVER, text, strlen(text));
    world_feed(w, file, frame.data, frame.len);
    feed_bytes_free(&frame);
}

feed_bytes world_long_frame(size_t len)
{
    feed_bytes frame = {0};
    uint8_t *payload = malloc(len);
    if (payload == NULL) abort();
    for (size_t i = 0; i < len; i++)
        payload[i] = world_byte(i);
    feed_append_frame(&frame, 0x82, true, payload, len);
    free(payload);
    return frame;
}

void world_feed_pieces(world *w, uint32_t file, const feed_bytes *bytes, size_t step)
{
    size_t at = 0;
    for (int idle = 0; at < bytes->len && idle < 5;) {
        size_t len = bytes->len - at < step ? bytes->len - at : step;
        size_t taken = script_recv(w->ring, file, bytes->data + at, len, false);
        at += taken;
        idle = taken == 0 ? idle + 1 : 0;
        world_turn(w);
    }
    cr_assert_eq(at, bytes->len, "file %u stopped reading after %zu bytes", file, at);
}

void world_eof(world *w, uint32_t file)
{
    script_op *op = script_find_recv(w->ring, file);
    cr_assert_not_null(op, "file %u does not receive", file);
    script_complete(w->ring, op, 0, 0);
    world_turn(w);
}

/* ---- memory that is used up ---- */

static void *held[16384];
static size_t held_count;

void world_use_up(rws__slab *slab)
{
    cr_assert_eq(held_count, 0, "another one is used up");
    for (size_t bytes = slab->bytes; bytes >= 256; bytes /= 2) {
        void *block;
        while ((block = rws__slab_take(slab, bytes)) != NULL) {
            cr_assert_lt(held_count, sizeof held / sizeof held[0]);
            held[held_count++] = block;
        }
    }
}

void world_give_back(rws__slab *slab)
{
    while (held_count > 0)
        rws__slab_give(slab, held[--held_count]);
}

void world_give_some_back(rws__slab *slab, uint32_t blocks)
{
    for (; blocks > 0 && held_count > 0; blocks--) {
        rws__slab_give(slab, held[0]);
        held[0] = held[--held_count];
    }
}

/* ---- what the test sees ---- */

static void describe(feed_bytes *out, const rws__frame *frame, uint8_t *payload)
{
    static const char *const names[16] = {"more", "text", "binary", "",     "",    "",
                                          "",     "",     "close",  "ping", "pong"};
    char word[256];
    size_t len = (size_t)frame->payload_len;
    if (frame->masked) rws__mask(payload, payload, len, frame->mask_key);
    const char *name = names[frame->opcode];
    if (frame->opcode == RWS_CLOSE && len >= 2)
        snprintf(word, sizeof word, "close:%u:%.*s ", (unsigned)payload[0] << 8 | payload[1],
                 (int)len - 2, (const char *)payload + 2);
    else if (len > 64)
        snprintf(word, sizeof word, "%s:%zu ", name, len);
    else
        snprintf(word, sizeof word, "%s:%.*s ", name, (int)len, (const char *)payload);
    feed_bytes_append(out, word, strlen(word));
}

const char *world_sent(world *w, uint32_t file)
{
    static feed_bytes words;
    feed_bytes copy = {0};
    words.len = 0;
    feed_bytes_append(&copy, w->ring->wire[file].data, w->ring->wire[file].len);
    size_t at = 0;
    while (at < copy.len) {
        rws__frame frame;
        int header = rws__frame_parse(&frame, copy.data + at, copy.len - at);
        if (header <= 0 || frame.payload_len > copy.len - at - (size_t)header) {
            feed_bytes_append(&words, header < 0 ? "garbage " : "cut ", header < 0 ? 8 : 4);
            break;
        }
        describe(&words, &frame, copy.data + at + header);
        at += (size_t)header + (size_t)frame.payload_len;
    }
    feed_bytes_append(&words, "", 1);
    feed_bytes_free(&copy);
    return (const char *)words.data;
}

const char *world_log(world *w)
{
    feed_bytes_append(&w->log, "", 1);
    w->log.len--;
    return (const char *)w->log.data;
}

void world_log_is(world *w, const char *expected, const char *context)
{
    cr_assert_str_eq(world_log(w), expected, "%s: \"%s\" instead of \"%s\"", context, world_log(w),
                     expected);
    w->log.len = 0;
}
