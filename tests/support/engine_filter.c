#include "support/engine_filter.h"

#include "engine/server/group.h"
#include "support/raw_client.h"
#include "support/toy_filter.h"

/* Both begin with their group. */
static void set_filters(rws__group *group, const rws__filter_maker *filters)
{
    if (raw_is_filtered()) group->config.listener.filters = filters;
}

void engine_filter_server(rws_server *server)
{
    set_filters((rws__group *)server, &toy_server.maker);
}

void engine_filter_client(rws_client *client)
{
    set_filters((rws__group *)client, &toy_client.maker);
}
