/*
 * What the tests of a server's endpoints and listeners have in common: endpoints that say their
 * name, and clients that ask for them.
 */
#ifndef RINGWS_TESTS_SUPPORT_ENGINE_PLACES_H
#define RINGWS_TESTS_SUPPORT_ENGINE_PLACES_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "support/engine_checks.h"
#include "support/engine_server.h"
#include "support/raw_client.h"

/* ---- programs ---- */

/* What one endpoint's callbacks get as `user`. */
typedef struct place {
    const char *name;
    _Atomic uint64_t opened, closed, shards_seen, unknown_peers;
    _Atomic uint64_t peer_families; /* a bit for each */
} place;

static inline void on_open(rws_conn *conn, void *user)
{
    place *own = user;
    struct sockaddr_storage peer;
    socklen_t len = sizeof peer;
    atomic_fetch_or(&own->shards_seen, 1u << rws_conn_shard(conn));
    if (rws_conn_peer(conn, &peer, &len) == 0)
        atomic_fetch_or(&own->peer_families, (uint64_t)1 << peer.ss_family);
    else
        atomic_fetch_add(&own->unknown_peers, 1);
    atomic_fetch_add(&own->opened, 1);
}

/* The endpoint's name, and what came. */
static inline int on_message(rws_conn *conn, const rws_message *message, void *user)
{
    const place *own = user;
    char text[200];
    int len = snprintf(text, sizeof text, "%s:%.*s", own->name,
                       (int)(rws_message_len(message) < 100 ? rws_message_len(message) : 100),
                       (const char *)rws_message_data(message));
    return rws_conn_send_text(conn, text, (size_t)len);
}

static inline void on_close(rws_conn *conn, const rws_close_info *info, void *user)
{
    place *own = user;
    (void)conn;
    cr_expect_eq(info->size, sizeof *info);
    atomic_fetch_add(&own->closed, 1);
}

static const rws_handler naming = {
    .size = sizeof(rws_handler),
    .on_open = on_open,
    .on_message = on_message,
    .on_close = on_close,
};

static inline rws_server *make(uint32_t shards, uint32_t off)
{
    rws_server *server;
    rws_error error;
    char features[TEST_FEATURES_BYTES];
    rws_runtime_options options = RWS_RUNTIME_OPTIONS_DEFAULT;
    rws__features_write(off, features, sizeof features);
    options.features_off = features;
    options.shards = shards;
    options.connections_max = 256;
    options.drain_timeout_ms = 2000;
    options.linger_timeout_ms = 500;
    cr_assert_eq(rws_server_create(&server, &options, &error), 0, "%s", error.text);
    return server;
}

static inline rws_endpoint_options endpoint_options(const char *path, place *user)
{
    rws_endpoint_options options = RWS_ENDPOINT_OPTIONS_DEFAULT;
    options.handler = &naming;
    options.user = user;
    options.path = path;
    options.close_timeout_ms = 500;
    return options;
}

static inline rws_endpoint *add(rws_server *server, const rws_endpoint_options *options)
{
    rws_endpoint *endpoint = NULL;
    rws_error error;
    cr_assert_eq(rws_server_add_endpoint(server, options, &endpoint, &error), 0, "%s", error.text);
    cr_assert_not_null(endpoint);
    return endpoint;
}

static inline rws_endpoint *add_place(rws_server *server, const char *path, place *user)
{
    rws_endpoint_options options = endpoint_options(path, user);
    return add(server, &options);
}

static inline void listen_with(rws_server *server, const rws_listener_options *options)
{
    rws_error error;
    cr_assert_eq(rws_server_listen(server, options, &error), 0, "%s", error.text);
}

static inline void listen_on_loopback(rws_server *server)
{
    rws_listener_options options = RWS_LISTENER_OPTIONS_DEFAULT;
    options.port = 0;
    listen_with(server, &options);
}

static inline void start(rws_server *server)
{
    rws_error error;
    cr_assert_eq(rws_server_start(server, &error), 0, "%s", error.text);
}

static inline void stop(rws_server *server)
{
    rws_server_stop(server);
    cr_expect_eq(rws_server_wait(server), 0);
    rws_server_destroy(server);
}

/* ---- clients ---- */

/* Ask for `target`, with `lines` as more headers. Returns the status; the head is in `head`. */
static inline int ask(raw_client *client, const char *target, const char *lines, char head[1024])
{
    char request[4096];
    snprintf(request, sizeof request,
             "GET %s HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s\r\n",
             target, lines);
    if (!raw_send_text(client, request)) return -1;
    return raw_read_head(client, head, 1024);
}

static inline int ask_port(raw_client *client, uint16_t port, const char *target, const char *lines)
{
    char head[1024];
    cr_assert(raw_connect(client, "127.0.0.1", port, 0));
    return ask(client, target, lines, head);
}

static inline void expect_text(raw_client *client, const char *text)
{
    raw_frame frame;
    cr_assert_eq(raw_read_frame(client, &frame), 1, "instead of \"%s\"", text);
    cr_expect(frame.first == RAW_TEXT && frame.len == strlen(text) &&
                  memcmp(frame.payload, text, frame.len) == 0,
              "%02x \"%.*s\" instead of \"%s\"", frame.first, (int)frame.len,
              (const char *)frame.payload, text);
}

/* The endpoint that serves it says its name. */
static inline void expect_name(raw_client *client, const char *name)
{
    char wanted[64];
    cr_assert(raw_send_frame(client, RAW_TEXT, "who", 3));
    snprintf(wanted, sizeof wanted, "%s:who", name);
    expect_text(client, wanted);
}

static inline void expect_served(raw_client *client, const char *target, const char *name)
{
    char head[1024];
    cr_assert_eq(ask(client, target, "", head), 101, "%s", target);
    expect_name(client, name);
    raw_close(client);
}

#endif
