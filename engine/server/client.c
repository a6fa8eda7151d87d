/*
 * The public client, first part: a group of shards that only dial.
 */
#include "engine/server/dialer.h"
#include "engine/server/group.h"
#include "engine/server/probe.h"

#include <errno.h>

struct rws_client {
    rws__group group;
};

int rws_client_create(rws_client **out, const rws_client_options *options,
                      const rws_handler *handler, rws_error *error)
{
    rws_error ignored;
    if (error == NULL) error = &ignored;
    *out = NULL;
    rws__config config;
    int res = rws__config_for_client(&config, options, handler, error);
    if (res != 0) return res;
    res = rws__probe_check(error);
    rws_client *client = res == 0 ? rws__alloc(&config.env, sizeof *client) : NULL;
    if (client == NULL) {
        if (res == 0) res = rws__fail(error, -ENOMEM, "no memory for the client");
        rws__config_free(&config);
        return res;
    }
    rws__config kept = config;
    res = rws__group_init(&client->group, &config, NULL, error);
    if (res != 0) {
        rws__free(&kept.env, client, sizeof *client);
        return res;
    }
    *out = client;
    return 0;
}

static void free_post(const rws__env *env, rws__dial_post *post)
{
    rws__dial_free(env, post->dial);
    rws__free(env, post, sizeof *post);
}

int rws_client_dial(rws_client *client, const char *url, const char *subprotocols, void *dial_user)
{
    rws__group *group = &client->group;
    const rws__config *config = &group->config;
    rws__dial *dial;
    int res = rws__dial_create(&dial, &config->env, url, subprotocols, dial_user);
    if (res != 0) return res;
    dial->endpoint = &config->endpoint;
    dial->filters = config->listener.filters;
    dial->timeout_ms = config->handshake_timeout_ms;
    dial->head_bytes_max = config->handshake_bytes_max;
    rws__dial_post *post = rws__alloc(&config->env, sizeof *post);
    if (post == NULL) {
        rws__dial_free(&config->env, dial);
        return -ENOMEM;
    }
    /* Relaxed: only the turn matters. */
    uint32_t turn = atomic_fetch_add_explicit(&group->next_shard, 1, memory_order_relaxed);
    rws__shard *shard = &group->workers[turn % config->shards].shard;
    *post = (rws__dial_post){dial, &shard->conns, config->listener.socket};
    res = rws__mailbox_post(&shard->loop.mailbox, rws__dial_start, post);
    if (res != 0) free_post(&config->env, post);
    return res;
}

int rws_client_start(rws_client *client, rws_error *error)
{
    return rws__group_start(&client->group, error);
}

void rws_client_stop(rws_client *client)
{
    rws__group_stop(&client->group);
}

int rws_client_wait(rws_client *client)
{
    return rws__group_wait(&client->group);
}

void rws_client_destroy(rws_client *client)
{
    if (client == NULL) return;
    rws__group_stop(&client->group);
    rws__group_wait(&client->group);
    rws__config config = client->group.config;
    rws__group_deinit(&client->group);
    rws__free(&config.env, client, sizeof *client);
}

void rws_client_stats(const rws_client *client, rws_stats *stats)
{
    rws__group_stats(&client->group, stats);
}
