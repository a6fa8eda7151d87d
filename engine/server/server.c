/*
 * The public server: a group of shards and its listeners.
 */
#include "engine/server/group.h"
#include "engine/server/probe.h"

#include <errno.h>

struct rws_server {
    rws__group group;
};

static int open_listeners(rws__config *config, int *fds, uint16_t *port, rws_error *error)
{
    rws__config_arrange(config);
    return rws__listeners_open(&config->listener, fds, config->shards, port, error);
}

int rws_server_create(rws_server **out, const rws_server_options *options,
                      const rws_handler *handler, rws_error *error)
{
    rws_error ignored;
    if (error == NULL) error = &ignored;
    *out = NULL;
    rws__config config;
    int res = rws__config_for_server(&config, options, handler, error);
    if (res != 0) return res;
    res = rws__probe_check(error);
    if (res != 0) goto free_config;
    res = -ENOMEM;
    rws_server *server = rws__alloc(&config.env, sizeof *server);
    int *fds = rws__alloc(&config.env, config.shards * sizeof(int));
    uint16_t port = 0;
    if (server == NULL || fds == NULL)
        rws__fail(error, res, "no memory for the server");
    else
        res = open_listeners(&config, fds, &port, error);
    if (res != 0) {
        rws__free(&config.env, fds, config.shards * sizeof(int));
        rws__free(&config.env, server, sizeof *server);
        goto free_config;
    }
    res = rws__group_init(&server->group, &config, fds, error);
    if (res != 0) {
        rws__free(&config.env, server, sizeof *server);
        return res;
    }
    server->group.port = port;
    *out = server;
    return 0;

free_config:
    rws__config_free(&config);
    return res;
}

int rws_server_run(rws_server *server, rws_error *error)
{
    return rws__group_run(&server->group, error);
}

int rws_server_start(rws_server *server, rws_error *error)
{
    return rws__group_start(&server->group, error);
}

void rws_server_stop(rws_server *server)
{
    rws__group_stop(&server->group);
}

int rws_server_wait(rws_server *server)
{
    return rws__group_wait(&server->group);
}

void rws_server_destroy(rws_server *server)
{
    if (server == NULL) return;
    rws__group_stop(&server->group);
    rws__group_wait(&server->group);
    rws__config config = server->group.config;
    rws__group_deinit(&server->group);
    rws__free(&config.env, server, sizeof *server);
}

uint16_t rws_server_port(const rws_server *server)
{
    return server->group.port;
}

uint32_t rws_server_shards(const rws_server *server)
{
    return server->group.config.shards;
}

int rws_server_post(rws_server *server, uint32_t shard, void (*fn)(void *arg, bool cancelled),
                    void *arg)
{
    return rws__group_post(&server->group, shard, fn, arg);
}

void rws_server_stats(const rws_server *server, rws_stats *stats)
{
    rws__group_stats(&server->group, stats);
}
