/*
 * Posts to connections by id, from any thread.
 */
#include "engine/server/runtime.h"

#include "codec/close.h"

#include <errno.h>
#include <string.h>

typedef enum post_kind { POST_SEND, POST_CLOSE, POST_CALL } post_kind;

typedef struct conn_post {
    rws__conns *conns;
    uint64_t id;
    post_kind kind;
    rws_message *message;
    void (*fn)(rws_conn *conn, void *arg);
    void *arg;
    uint16_t code;
    char reason[RWS__FRAME_CONTROL_MAX - 1];
} conn_post;

static void drop_post(const rws__env *env, conn_post *post)
{
    rws_message_release(post->message);
    rws__free(env, post, sizeof *post);
}

/* Returns whether it was done. */
static bool execute(const conn_post *post, rws_conn *conn)
{
    switch (post->kind) {
    case POST_SEND: return conn != NULL && rws_conn_send_message(conn, post->message) == 0;
    case POST_CLOSE: return conn != NULL && rws_conn_close(conn, post->code, post->reason) == 0;
    case POST_CALL: post->fn(conn, post->arg); return conn != NULL;
    }
    return false;
}

static void run_post(void *arg, bool cancelled)
{
    conn_post *post = arg;
    rws__loop *loop = post->conns->streams.loop;
    rws_conn *conn = cancelled ? NULL : rws__conns_find(post->conns, post->id);
    if (!execute(post, conn)) rws__count(&loop->counters.posts_dropped, 1);
    drop_post(loop->env, post);
}

/* A post for the shard of `id`, or a status in `*res`. */
static conn_post *make_post(rws_runtime *runtime, uint64_t id, post_kind kind, int *res)
{
    uint32_t shard = rws__id_shard(id);
    *res = RWS_E_ARGUMENT;
    if (id == 0 || shard >= runtime->config.shards) return NULL;
    conn_post *post = rws__alloc(&runtime->config.env, sizeof *post);
    *res = post != NULL ? 0 : -ENOMEM;
    if (post == NULL) return NULL;
    post->conns = &runtime->workers[shard].shard.conns;
    post->id = id;
    post->kind = kind;
    return post;
}

static int send_off(rws_runtime *runtime, conn_post *post)
{
    rws__loop *loop = post->conns->streams.loop;
    int res = rws__mailbox_post(&loop->mailbox, run_post, post);
    if (res != 0) drop_post(&runtime->config.env, post);
    return res;
}

int rws_post_send(rws_runtime *runtime, uint64_t id, const rws_message *message)
{
    int res;
    if (message == NULL) return RWS_E_ARGUMENT;
    conn_post *post = make_post(runtime, id, POST_SEND, &res);
    if (post == NULL) return res;
    post->message = rws_message_retain(message);
    if (post->message != NULL) return send_off(runtime, post);
    drop_post(&runtime->config.env, post);
    return -ENOMEM;
}

int rws_post_close(rws_runtime *runtime, uint64_t id, uint16_t code, const char *reason)
{
    uint8_t payload[RWS__FRAME_CONTROL_MAX];
    rws_span text = {reason, reason != NULL ? strlen(reason) : 0};
    int res;
    if (rws__close_write(payload, code, text) < 0) return RWS_E_ARGUMENT;
    conn_post *post = make_post(runtime, id, POST_CLOSE, &res);
    if (post == NULL) return res;
    post->code = code;
    if (text.len > 0) memcpy(post->reason, text.data, text.len);
    return send_off(runtime, post);
}

int rws_post_call(rws_runtime *runtime, uint64_t id, void (*fn)(rws_conn *conn, void *arg),
                  void *arg)
{
    int res;
    if (fn == NULL) return RWS_E_ARGUMENT;
    conn_post *post = make_post(runtime, id, POST_CALL, &res);
    if (post == NULL) return res;
    post->fn = fn;
    post->arg = arg;
    return send_off(runtime, post);
}
