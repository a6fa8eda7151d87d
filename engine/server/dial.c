/*
 * Dials of a runtime, from any thread.
 */
#include "engine/server/dialer.h"
#include "engine/server/runtime.h"

#include <errno.h>

/* A dial's id: its shard (8 bits) and a number. */
#define DIAL_NUMBER_BITS 56

static int explain(int status, const char *url, rws_error *error)
{
    switch (status) {
    case RWS_E_URL:
        return rws__fail(error, status,
                         "'%.128s' is not a URL like ws://HOST[:PORT][/PATH] or ws+unix://PATH",
                         url);
    case RWS_E_ADDRESS:
        return rws__fail(error, status, "the host of '%.128s' can't be resolved", url);
    case RWS_E_ARGUMENT:
        return rws__fail(error, status,
                         "a string of the request has characters that may not be "
                         "sent, or the request is larger than 8192 bytes");
    case -ENOMEM: return rws__fail(error, status, "no memory for the dial");
    case RWS_E_BACKLOG: return rws__fail(error, status, "too many dials wait for their shard");
    case RWS_E_STATE: return rws__fail(error, status, "the runtime was stopped");
    default: return rws__fail(error, status, "the dial failed: %s", rws_strerror(status));
    }
}

static int post_dial(rws_runtime *runtime, rws__dial *dial, uint32_t shard)
{
    const rws__env *env = &runtime->config.env;
    rws__shard *target = &runtime->workers[shard].shard;
    rws__dial_post *post = rws__alloc(env, sizeof *post);
    if (post == NULL) return -ENOMEM;
    *post = (rws__dial_post){dial, &target->conns};
    int res = rws__mailbox_post(&target->loop.mailbox, rws__dial_start, post);
    if (res != 0) rws__free(env, post, sizeof *post);
    return res;
}

/* An id for a dial, and the shard that it is for. Relaxed: only the turn matters, and that no
 * number comes twice. */
static uint64_t next_id(rws_runtime *runtime, uint32_t *shard)
{
    if (*shard == RWS_ANY_SHARD)
        *shard = atomic_fetch_add_explicit(&runtime->next_shard, 1, memory_order_relaxed) %
                 runtime->config.shards;
    uint64_t number = atomic_fetch_add_explicit(&runtime->next_dial, 1, memory_order_relaxed) + 1;
    return (uint64_t)*shard << DIAL_NUMBER_BITS | number;
}

int rws__runtime_dial(rws_runtime *runtime, const rws__endpoint *endpoint, const char *url,
                      const rws_dial_options *options, uint64_t *dial_id, rws_error *error)
{
    rws_dial_options own;
    rws__socket_options socket;
    if (url == NULL || endpoint == NULL || endpoint->runtime != runtime ||
        endpoint->rules.role != RWS_CLIENT)
        return rws__fail(error, RWS_E_ARGUMENT,
                         "a dial needs a URL, and an endpoint of its own runtime with the role "
                         "RWS_CLIENT");
    int res = rws__dial_options_check(&own, options, &runtime->config, &socket, error);
    if (res != 0) return res;
    rws__dial *dial;
    res = rws__dial_create(&dial, &runtime->config.env, endpoint, url, &own);
    if (res != 0) return explain(res, url, error);
    uint64_t id = next_id(runtime, &own.shard);
    dial->id = id;
    dial->filters = runtime->dial_filters;
    dial->socket = socket;
    res = post_dial(runtime, dial, own.shard);
    if (res != 0) {
        rws__dial_free(&runtime->config.env, dial);
        return explain(res, url, error);
    }
    if (dial_id != NULL) *dial_id = id;
    return 0;
}

/* ---- giving up ---- */

typedef struct cancel_post {
    rws__conns *conns;
    uint64_t id;
} cancel_post;

static void run_cancel(void *arg, bool cancelled)
{
    cancel_post *post = arg;
    const rws__env *env = post->conns->streams.loop->env;
    if (!cancelled) rws__conns_cancel_dial(post->conns, post->id);
    rws__free(env, post, sizeof *post);
}

int rws__runtime_cancel(rws_runtime *runtime, uint64_t dial_id)
{
    const rws__env *env = &runtime->config.env;
    uint64_t index = dial_id >> DIAL_NUMBER_BITS;
    if (index >= runtime->config.shards) return RWS_E_ARGUMENT;
    rws__shard *shard = &runtime->workers[index].shard;
    cancel_post *post = rws__alloc(env, sizeof *post);
    if (post == NULL) return -ENOMEM;
    *post = (cancel_post){&shard->conns, dial_id};
    /* Behind the post that starts it. */
    int res = rws__mailbox_post(&shard->loop.mailbox, run_cancel, post);
    if (res != 0) rws__free(env, post, sizeof *post);
    return res;
}
