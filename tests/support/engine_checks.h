/*
 * What the Criterion tests against a server in their own process have in common.
 */
#ifndef RINGWS_TESTS_SUPPORT_ENGINE_CHECKS_H
#define RINGWS_TESTS_SUPPORT_ENGINE_CHECKS_H

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "support/engine_server.h"
#include "support/raw_client.h"

/* A loop over the kernel features to switch off: none, and all. `off` points to the bits. */
static const uint32_t features_off[] = {0, RWS__FEATURE_ALL};
#define EACH_FEATURES(off)                                                                         \
    for (const uint32_t *off = features_off;                                                       \
         off < features_off + sizeof features_off / sizeof features_off[0]; off++)

/* A text comes back. */
static inline void echo_works(raw_client *client)
{
    raw_frame echo;
    cr_assert(raw_send_frame(client, RAW_TEXT, "hello", 5));
    cr_assert_eq(raw_read_frame(client, &echo), 1);
    cr_expect_eq(echo.first, RAW_TEXT);
    cr_expect(echo.len == 5 && memcmp(echo.payload, "hello", 5) == 0);
}

/* After whatever was done to it the server still serves, holds no connection, and ends well. */
static inline void stop_serving(engine_server *server)
{
    cr_assert(engine_server_serves(server));
    cr_assert(engine_server_await_connections(server, 0));
    cr_assert_eq(engine_server_stop(server), 0);
}

/* Open connections that keep no buffer of their own, because only the server's memory counts. */
static inline raw_client *open_many(const engine_server *server, uint32_t count)
{
    raw_client *clients = calloc(count, sizeof *clients);
    cr_assert_not_null(clients);
    for (uint32_t i = 0; i < count; i++) {
        cr_assert(raw_open(&clients[i], server->port), "connection %u", i);
        free(clients[i].in);
        clients[i].in = NULL;
        clients[i].in_capacity = 0;
    }
    return clients;
}

static inline void close_many(raw_client *clients, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        raw_close(&clients[i]);
    free(clients);
}

#endif
