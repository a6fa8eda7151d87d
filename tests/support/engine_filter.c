#include "support/engine_filter.h"

#include "engine/server/runtime.h"
#include "support/raw_client.h"
#include "support/toy_filter.h"

/* Both begin with their runtime. */
void engine_filter_server(rws_server *server)
{
    rws_runtime *runtime = (rws_runtime *)server;
    if (!raw_is_filtered()) return;
    for (uint32_t i = 0; i < runtime->listeners_count; i++)
        runtime->listeners[i].config.filters = &toy_server.maker;
}

void engine_filter_client(rws_client *client)
{
    if (raw_is_filtered()) ((rws_runtime *)client)->dial_filters = &toy_client.maker;
}
