/*
 * The public client, first part: a runtime that dials with one endpoint, its first and only one.
 */
#include "engine/server/runtime.h"

#include <assert.h>

struct rws_client {
    rws_runtime runtime;
};

static_assert(sizeof(rws_client) == sizeof(rws_runtime), "made and freed as a runtime");

int rws_client_create(rws_client **out, const rws_runtime_options *options,
                      const rws_endpoint_options *endpoint, rws_error *error)
{
    const rws_role role = RWS_CLIENT;
    rws_error ignored;
    if (error == NULL) error = &ignored;
    *out = NULL;
    rws_runtime *runtime;
    int res = rws__runtime_make(&runtime, options, RWS_CLIENT, error);
    if (res != 0) return res;
    res = rws__runtime_add_endpoint(runtime, endpoint, &role, NULL, error);
    if (res == 0)
        *out = (rws_client *)runtime;
    else
        rws__runtime_end(runtime);
    return res;
}

int rws_client_dial(rws_client *client, const char *url, const rws_dial_options *options,
                    uint64_t *dial_id, rws_error *error)
{
    rws_error ignored;
    return rws__runtime_dial(&client->runtime, client->runtime.endpoints[0], url, options, dial_id,
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
    rws__runtime_end(client != NULL ? &client->runtime : NULL);
}

rws_runtime *rws_client_runtime(rws_client *client)
{
    return &client->runtime;
}

void rws_client_stats(const rws_client *client, rws_stats *stats)
{
    rws__runtime_stats(&client->runtime, stats);
}
