/*
 * The callbacks of `ringws serve`.
 *
 * Echo needs no memory of its own. Broadcast keeps, per shard, an array of the open connections;
 * a message is held, and goes to the own shard's at once and to the others by one post each. A
 * receiver whose queue is full is closed with 1013 and counted: nothing is dropped in silence.
 */
#include "tools/serve.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { CONNS_FIRST = 64 };

/* A message on its way to another shard. */
typedef struct delivery {
    serve_context *context;
    rws_message *message;
    uint32_t shard;
} delivery;

int serve_context_init(serve_context *context, rws_server *server)
{
    context->server = server;
    context->shards_count = rws_server_shards(server);
    size_t bytes = context->shards_count * sizeof(serve_shard);
    context->shards = aligned_alloc(_Alignof(serve_shard), bytes);
    if (!context->shards) return -ENOMEM;
    memset(context->shards, 0, bytes);
    return 0;
}

void serve_context_free(serve_context *context)
{
    for (uint32_t i = 0; context->shards && i < context->shards_count; i++) {
        free(context->shards[i].conns);
        rws_message_release(context->shards[i].other);
        free(context->shards[i].bytes);
    }
    free(context->shards);
}

/* A send that the engine did not take. The message is lost for this receiver, so the connection
 * ends and the loss is counted; RWS_E_STATE is none, the receiver is going anyway. */
static void refuse(serve_context *context, rws_conn *conn, int status)
{
    if (status != RWS_E_BACKLOG && status != -ENOMEM) return;
    atomic_fetch_add_explicit(&context->refused, 1, memory_order_relaxed);
    /* The close frame may find no memory either. */
    if (rws_conn_close(conn, RWS_CLOSE_TRY_AGAIN_LATER, "the send queue is full") == -ENOMEM)
        rws_conn_abort(conn);
}

static int on_message_echo(rws_conn *conn, const rws_message *message, void *user)
{
    int status = rws_conn_send_message(conn, message);
    if (status < 0) refuse(user, conn, status);
    return 0;
}

/* At least `len` of the other bytes, or NULL. */
static const uint8_t *other_bytes(serve_shard *shard, size_t len)
{
    if (len <= shard->bytes_len && shard->bytes) return shard->bytes;
    uint8_t *bytes = realloc(shard->bytes, len + 1);
    if (!bytes) return NULL;
    memset(bytes, SERVE_OTHER_BYTE, len);
    shard->bytes = bytes;
    shard->bytes_len = len;
    return bytes;
}

static int create_other(serve_shard *shard, rws_opcode opcode, size_t len)
{
    rws_message_release(shard->other);
    shard->other = NULL;
    const uint8_t *bytes = other_bytes(shard, len);
    if (!bytes) return -ENOMEM;
    return rws_message_create(&shard->other, NULL, opcode, bytes, len);
}

static int on_message_other(rws_conn *conn, const rws_message *message, void *user)
{
    size_t len = rws_message_len(message);
    rws_opcode opcode = rws_message_opcode(message);
    serve_context *context = user;
    serve_shard *shard = &context->shards[rws_conn_shard(conn)];
    int status = 0;
    if (!shard->other || len != rws_message_len(shard->other) ||
        opcode != rws_message_opcode(shard->other))
        status = create_other(shard, opcode, len);
    if (status < 0) return status;
    status = rws_conn_send_message(conn, shard->other);
    if (status < 0) refuse(context, conn, status);
    return 0;
}

/* The same with an ordinary send, which copies. */
static int on_message_copied(rws_conn *conn, const rws_message *message, void *user)
{
    size_t len = rws_message_len(message);
    rws_opcode opcode = rws_message_opcode(message);
    serve_context *context = user;
    serve_shard *shard = &context->shards[rws_conn_shard(conn)];
    const uint8_t *bytes = other_bytes(shard, len);
    if (!bytes) return -ENOMEM;
    int status = rws_conn_send(conn, opcode, bytes, len);
    if (status < 0) refuse(context, conn, status);
    return 0;
}

static void on_open_broadcast(rws_conn *conn, void *user)
{
    serve_context *context = user;
    serve_shard *shard = &context->shards[rws_conn_shard(conn)];
    rws_conn_set_user(conn, (void *)(uintptr_t)UINT32_MAX); /* not in the array */
    if (shard->conns_count == shard->conns_capacity) {
        uint32_t capacity = shard->conns_capacity ? 2 * shard->conns_capacity : CONNS_FIRST;
        rws_conn **conns = realloc(shard->conns, capacity * sizeof(rws_conn *));
        if (!conns) {
            rws_conn_close(conn, RWS_CLOSE_TRY_AGAIN_LATER, "out of memory");
            return;
        }
        shard->conns = conns;
        shard->conns_capacity = capacity;
    }
    rws_conn_set_user(conn, (void *)(uintptr_t)shard->conns_count);
    shard->conns[shard->conns_count++] = conn;
}

static void on_close_broadcast(rws_conn *conn, const rws_close_info *info, void *user)
{
    (void)info;
    serve_context *context = user;
    serve_shard *shard = &context->shards[rws_conn_shard(conn)];
    uintptr_t index = (uintptr_t)rws_conn_user(conn);
    if (index >= shard->conns_count) return;

    rws_conn *last = shard->conns[--shard->conns_count];
    shard->conns[index] = last;
    rws_conn_set_user(last, (void *)index);
}

static void send_to_shard(serve_context *context, uint32_t index, const rws_message *message)
{
    serve_shard *shard = &context->shards[index];
    /* From the end: should a connection leave the array, the one that takes its place was served.
     */
    for (uint32_t i = shard->conns_count; i-- > 0;) {
        int status = rws_conn_send_message(shard->conns[i], message);
        if (status < 0) refuse(context, shard->conns[i], status);
    }
}

static void deliver(void *arg, bool cancelled)
{
    delivery *to = arg;
    if (!cancelled) send_to_shard(to->context, to->shard, to->message);
    rws_message_release(to->message);
    free(to);
}

static int post_to(serve_context *context, uint32_t shard, const rws_message *held)
{
    delivery *to = malloc(sizeof *to);
    if (!to) return -ENOMEM;
    *to = (delivery){context, rws_message_retain(held), shard};
    int status = rws_post(rws_server_runtime(context->server), shard, deliver, to);
    if (status < 0) {
        rws_message_release(to->message);
        free(to);
    }
    /* A shard that has drained has nobody left to miss the message. */
    return status == RWS_E_STATE ? 0 : status;
}

static int on_message_broadcast(rws_conn *conn, const rws_message *message, void *user)
{
    serve_context *context = user;
    uint32_t own = rws_conn_shard(conn);
    rws_message *held = rws_message_retain(message);
    int worst = held ? 0 : -ENOMEM;
    for (uint32_t i = 0; held && i < context->shards_count; i++) {
        int status = i == own ? 0 : post_to(context, i, held);
        if (status < 0) worst = status;
    }
    if (held) send_to_shard(context, own, held);
    rws_message_release(held);
    /* Somebody missed the message: the sender must hear of it. */
    if (worst < 0) refuse(context, conn, worst == -ENOMEM ? worst : RWS_E_BACKLOG);
    return 0;
}

rws_handler serve_handler(serve_mode mode)
{
    rws_handler handler = RWS_HANDLER_DEFAULT;
    switch (mode) {
    case SERVE_ECHO: handler.on_message = on_message_echo; break;
    case SERVE_OTHER: handler.on_message = on_message_other; break;
    case SERVE_COPIED: handler.on_message = on_message_copied; break;
    case SERVE_BROADCAST:
        handler.on_open = on_open_broadcast;
        handler.on_message = on_message_broadcast;
        handler.on_close = on_close_broadcast;
        break;
    }
    return handler;
}
