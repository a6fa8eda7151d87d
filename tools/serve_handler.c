/*
 * The callbacks of `ringws serve`.
 *
 * Echo needs no memory of its own. Broadcast keeps, per shard, an array of the open connections;
 * a message goes to the own shard's at once and to the others by one post each, all of which share
 * one copy of it. A receiver whose queue is full is closed with 1013 and counted: nothing is
 * dropped in silence.
 */
#include "tools/serve.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { CONNS_FIRST = 64 };

/* A message on its way to the other shards. */
typedef struct broadcast broadcast;

typedef struct delivery {
    broadcast *message;
    uint32_t shard;
} delivery;

struct broadcast {
    serve_context *context;
    atomic_uint holders;
    rws_opcode opcode;
    size_t len;
    uint8_t *data;         /* behind the deliveries, in the same allocation */
    delivery deliveries[]; /* one per shard: the argument of its post */
};

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
        free(context->shards[i].other);
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

static int on_message_echo(rws_conn *conn, rws_opcode opcode, const void *data, size_t len,
                           void *user)
{
    int status = rws_conn_send(conn, opcode, data, len);
    if (status < 0) refuse(user, conn, status);
    return 0;
}

static int on_message_other(rws_conn *conn, rws_opcode opcode, const void *data, size_t len,
                            void *user)
{
    (void)data;
    serve_context *context = user;
    serve_shard *shard = &context->shards[rws_conn_shard(conn)];
    if (len > shard->other_len) {
        uint8_t *other = realloc(shard->other, len);
        if (!other) return -ENOMEM;
        memset(other, SERVE_OTHER_BYTE, len);
        shard->other = other;
        shard->other_len = len;
    }
    int status = rws_conn_send(conn, opcode, shard->other, len);
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

static void on_close_broadcast(rws_conn *conn, uint16_t code, rws_span reason, rws_closer closer,
                               void *user)
{
    (void)code, (void)reason, (void)closer;
    serve_context *context = user;
    serve_shard *shard = &context->shards[rws_conn_shard(conn)];
    uintptr_t index = (uintptr_t)rws_conn_user(conn);
    if (index >= shard->conns_count) return;

    rws_conn *last = shard->conns[--shard->conns_count];
    shard->conns[index] = last;
    rws_conn_set_user(last, (void *)index);
}

static void send_to_shard(serve_context *context, uint32_t index, rws_opcode opcode,
                          const void *data, size_t len)
{
    serve_shard *shard = &context->shards[index];
    /* From the end: should a connection leave the array, the one that takes its place was served.
     */
    for (uint32_t i = shard->conns_count; i-- > 0;) {
        int status = rws_conn_send(shard->conns[i], opcode, data, len);
        if (status < 0) refuse(context, shard->conns[i], status);
    }
}

static void broadcast_release(broadcast *message, uint32_t holders)
{
    /* Release, then acquire by the last holder: its free() comes after everybody's reads. */
    if (atomic_fetch_sub_explicit(&message->holders, holders, memory_order_acq_rel) == holders)
        free(message);
}

static void deliver(void *arg, bool cancelled)
{
    const delivery *to = arg;
    broadcast *message = to->message;
    if (!cancelled)
        send_to_shard(message->context, to->shard, message->opcode, message->data, message->len);
    broadcast_release(message, 1);
}

static int post_to_others(serve_context *context, uint32_t own, rws_opcode opcode, const void *data,
                          size_t len)
{
    size_t head = sizeof(broadcast) + context->shards_count * sizeof(delivery);
    broadcast *message = malloc(head + len);
    if (!message) return -ENOMEM;

    message->context = context;
    message->opcode = opcode;
    message->len = len;
    message->data = (uint8_t *)message + head;
    memcpy(message->data, data, len);
    atomic_init(&message->holders, context->shards_count);

    int worst = 0;
    uint32_t done_here = 1; /* holders that no post will release: this shard, and failed posts */
    for (uint32_t i = 0; i < context->shards_count; i++) {
        if (i == own) continue;
        message->deliveries[i] = (delivery){message, i};
        int status = rws_server_post(context->server, i, deliver, &message->deliveries[i]);
        if (status < 0) {
            done_here++;
            /* A shard that has drained has nobody left to miss the message. */
            if (status != RWS_E_STATE) worst = status;
        }
    }
    broadcast_release(message, done_here);
    return worst;
}

static int on_message_broadcast(rws_conn *conn, rws_opcode opcode, const void *data, size_t len,
                                void *user)
{
    serve_context *context = user;
    uint32_t own = rws_conn_shard(conn);
    int status = 0;
    if (context->shards_count > 1) status = post_to_others(context, own, opcode, data, len);
    send_to_shard(context, own, opcode, data, len);
    /* A whole shard missed the message: the sender must hear of it. */
    if (status < 0) refuse(context, conn, status == -ENOMEM ? status : RWS_E_BACKLOG);
    return 0;
}

rws_handler serve_handler(serve_mode mode)
{
    rws_handler handler = RWS_HANDLER_DEFAULT;
    switch (mode) {
    case SERVE_ECHO: handler.on_message = on_message_echo; break;
    case SERVE_OTHER: handler.on_message = on_message_other; break;
    case SERVE_BROADCAST:
        handler.on_open = on_open_broadcast;
        handler.on_message = on_message_broadcast;
        handler.on_close = on_close_broadcast;
        break;
    }
    return handler;
}
