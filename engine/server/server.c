/*
 * The public server: a runtime with listeners.
 */
#include "engine/server/runtime.h"

#include <assert.h>

struct rws_server {
    rws_runtime runtime;
};

static_assert(sizeof(rws_server) == sizeof(rws_runtime), "made and freed as a runtime");

int rws_server_create(rws_server **out, const rws_runtime_options *options, rws_error *error)
{
    rws_error ignored;
    rws_runtime *runtime;
    int res = rws__runtime_make(&runtime, options, RWS_SERVER, error != NULL ? error : &ignored);
    *out = (rws_server *)runtime;
    return res;
}

int rws_server_add_endpoint(rws_server *server, const rws_endpoint_options *options,
                            rws_endpoint **out, rws_error *error)
{
    rws_error ignored;
    return rws__runtime_add_endpoint(&server->runtime, options, NULL, out,
                                     error != NULL ? error : &ignored);
}

int rws_server_listen(rws_server *server, const rws_listener_options *options, rws_error *error)
{
    rws_error ignored;
    return rws__runtime_listen(&server->runtime, options, error != NULL ? error : &ignored);
}

int rws_server_run(rws_server *server, rws_error *error)
{
    return rws__runtime_run(&server->runtime, error);
}

int rws_server_start(rws_server *server, rws_error *error)
{
    return rws__runtime_start(&server->runtime, error);
}

void rws_server_stop(rws_server *server)
{
    rws__runtime_stop(&server->runtime);
}

int rws_server_wait(rws_server *server)
{
    return rws__runtime_wait(&server->runtime);
}

void rws_server_destroy(rws_server *server)
{
    rws__runtime_end(server != NULL ? &server->runtime : NULL);
}

uint16_t rws_server_port(const rws_server *server, uint32_t listener)
{
    const rws_runtime *runtime = &server->runtime;
    return listener < runtime->listeners_count ? runtime->listeners[listener].port : 0;
}

uint32_t rws_server_shards(const rws_server *server)
{
    return server->runtime.config.shards;
}

rws_runtime *rws_server_runtime(rws_server *server)
{
    return &server->runtime;
}

int rws_server_dial(rws_server *server, const rws_endpoint *endpoint, const char *url,
                    const rws_dial_options *options, uint64_t *dial_id, rws_error *error)
{
    rws_error ignored;
    return rws__runtime_dial(&server->runtime, endpoint, url, options, dial_id,
                             error != NULL ? error : &ignored);
}

int rws_server_cancel(rws_server *server, uint64_t dial_id)
{
    return rws__runtime_cancel(&server->runtime, dial_id);
}

void rws_server_stats(const rws_server *server, rws_stats *stats)
{
    rws__runtime_stats(&server->runtime, stats);
}
