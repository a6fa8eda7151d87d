/*
 * The public client, first part: a runtime that dials with one endpoint.
 */
#include "engine/server/probe.h"
#include "engine/server/runtime.h"

#include <errno.h>
#include <string.h>

struct rws_client {
    rws_runtime runtime;
    rws__endpoint *endpoint;
};

/* The caller's endpoint, in a client's role. */
static int add_endpoint(rws_client *client, const rws_endpoint_options *options, rws_error *error)
{
    rws_endpoint_options own = RWS_ENDPOINT_OPTIONS_DEFAULT;
    int res =
        rws__options_overlay(&own, sizeof own, options, "RWS_ENDPOINT_OPTIONS_DEFAULT", error);
    if (res != 0) return res;
    own.size = sizeof own;
    own.role = RWS_CLIENT;
    return rws__runtime_add_endpoint(&client->runtime, &own, &client->endpoint, error);
}

int rws_client_create(rws_client **out, const rws_runtime_options *options,
                      const rws_endpoint_options *endpoint, rws_error *error)
{
    rws_error ignored;
    if (error == NULL) error = &ignored;
    *out = NULL;
    rws__runtime_config config;
    int res = rws__runtime_config_make(&config, options, 1, error);
    if (res == 0) res = rws__probe_check(error);
    if (res != 0) return res;
    rws_client *client = rws__alloc(&config.env, sizeof *client);
    if (client == NULL) return rws__fail(error, -ENOMEM, "no memory for the client");
    res = rws__runtime_init(&client->runtime, &config, error);
    if (res == 0) {
        res = add_endpoint(client, endpoint, error);
        if (res != 0) rws__runtime_deinit(&client->runtime);
    }
    if (res != 0) {
        rws__free(&config.env, client, sizeof *client);
        return res;
    }
    *out = client;
    return 0;
}

int rws_client_dial(rws_client *client, const char *url, const rws_dial_options *options,
                    uint64_t *dial_id, rws_error *error)
{
    rws_error ignored;
    return rws__runtime_dial(&client->runtime, client->endpoint, url, options, dial_id,
                             error != NULL ? error : &ignored);
}

int rws_client_cancel(rws_client *client, uint64_t dial_id)
{
    return rws__runtime_cancel(&client->runtime, dial_id);
}

int rws_client_start(rws_client *client, rws_error *error)
{
    return rws__runtime_start(&client->runtime, error);
}

void rws_client_stop(rws_client *client)
{
    rws__runtime_stop(&client->runtime);
}

int rws_client_wait(rws_client *client)
{
    return rws__runtime_wait(&client->runtime);
}

void rws_client_destroy(rws_client *client)
{
    if (client == NULL) return;
    rws__runtime_stop(&client->runtime);
    rws__runtime_wait(&client->runtime);
    rws__env env = client->runtime.config.env;
    rws__runtime_deinit(&client->runtime);
    rws__free(&env, client, sizeof *client);
}

rws_runtime *rws_client_runtime(rws_client *client)
{
    return &client->runtime;
}

void rws_client_stats(const rws_client *client, rws_stats *stats)
{
    rws__runtime_stats(&client->runtime, stats);
}
