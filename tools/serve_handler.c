/*
 * The callbacks of `ringws serve`.
 *
 * Echo needs no memory of its own. Broadcast keeps, per shard, an array of the open connections;
 * a message is prepared once, and goes to the own shard's at once and to the others by one post
 * each. A receiver whose queue is full is closed with 1013 and counted: nothing is
 * dropped in silence.
 */
#include "tools/serve.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { CONNS_FIRST = 64 };

/* A message on its way to another shard. */
typedef struct delivery {
    serve_context *context;
    rws_prepared *message;
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
        rws_prepared_release(context->shards[i].other);
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

static int on_message_echo(rws_conn *conn, rws_opcode opcode, const void *data, size_t len,
                           void *user)
{
    int status = rws_conn_send(conn, opcode, data, len);
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

static int prepare_other(serve_shard *shard, rws_opcode opcode, size_t len)
{
    rws_prepared_release(shard->other);
    shard->other = NULL;
    const uint8_t *bytes = other_bytes(shard, len);
    if (!bytes) return -ENOMEM;
    int status = rws_prepared_create(&shard->other, NULL, opcode, bytes, len);
    shard->other_opcode = opcode;
    shard->other_len = len;
    return status;
}

static int on_message_other(rws_conn *conn, rws_opcode opcode, const void *data, size_t len,
                            void *user)
{
    (void)data;
    serve_context *context = user;
    serve_shard *shard = &context->shards[rws_conn_shard(conn)];
    int status = 0;
    if (!shard->other || len != shard->other_len || opcode != shard->other_opcode)
        status = prepare_other(shard, opcode, len);
    if (status < 0) return status;
    status = rws_conn_send_prepared(conn, shard->other);
    if (status < 0) refuse(context, conn, status);
    return 0;
}

/* The same with an ordinary send, which copies. */
static int on_message_copied(rws_conn *conn, rws_opcode opcode, const void *data, size_t len,
                             void *user)
{
    (void)data;
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

static void send_to_shard(serve_context *context, uint32_t index, rws_prepared *message)
{
    serve_shard *shard = &context->shards[index];
    /* From the end: should a connection leave the array, the one that takes its place was served.
     */
    for (uint32_t i = shard->conns_count; i-- > 0;) {
        int status = rws_conn_send_prepared(shard->conns[i], message);
        if (status < 0) refuse(context, shard->conns[i], status);
    }
}

static void deliver(void *arg, bool cancelled)
{
    delivery *to = arg;
    if (!cancelled) send_to_shard(to->context, to->shard, to->message);
    rws_prepared_release(to->message);
    free(to);
}

static int post_to(serve_context *context, uint32_t shard, rws_prepared *message)
{
    delivery *to = malloc(sizeof *to);
    if (!to) return -ENOMEM;
    *to = (delivery){context, rws_prepared_retain(message), shard};
    int status = rws_server_post(context->server, shard, deliver, to);
    if (status < 0) {
        rws_prepared_release(message);
        free(to);
    }
    /* A shard that has drained has nobody left to miss the message. */
    return status == RWS_E_STATE ? 0 : status;
}

static int on_message_broadcast(rws_conn *conn, rws_opcode opcode, const void *data, size_t len,
                                void *user)
{
    serve_context *context = user;
    uint32_t own = rws_conn_shard(conn);
    rws_prepared *message;
    int worst = rws_prepared_create(&message, NULL, opcode, data, len);
    for (uint32_t i = 0; message && i < context->shards_count; i++) {
        int status = i == own ? 0 : post_to(context, i, message);
        if (status < 0) worst = status;
    }
    if (message) send_to_shard(context, own, message);
    rws_prepared_release(message);
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
