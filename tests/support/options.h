/*
 * The options of a runtime, its one endpoint and its one listener in one struct: most tests have
 * one of each. Zeroes are the library's defaults.
 */
#ifndef RINGWS_TESTS_SUPPORT_OPTIONS_H
#define RINGWS_TESTS_SUPPORT_OPTIONS_H

#include "engine/base/features.h"
#include "ringws/ringws.h"

typedef struct test_options {
    /* runtime */
    uint32_t shards;
    uint32_t connections_max;
    size_t recv_buffer_bytes;
    uint32_t recv_buffers;
    size_t partial_bytes_max;
    size_t retained_bytes_max;
    size_t send_pool_bytes_max;
    uint32_t send_timeout_ms;
    uint32_t linger_timeout_ms; /* 0: close_timeout_ms */
    uint32_t drain_timeout_ms;
    uint64_t busy_wait_us;
    uint32_t features_off; /* bits */
    const rws_allocator *allocator;
    rws_log_fn log;
    void *log_user;
    /* endpoint */
    void *user;
    uint64_t message_bytes_max;
    uint32_t fragments_max;
    size_t send_queue_bytes_max;
    size_t high_watermark_bytes;
    size_t low_watermark_bytes;
    uint32_t message_timeout_ms;
    uint32_t close_timeout_ms;
    const char *const *origins;
    uint32_t origins_count;
    bool no_utf8; /* text is not validated */
    bool fixed_mask_key;
    bool handle_ping, handle_pong, handle_close; /* false: the handler's callback is left out */
    /* listeners */
    uint32_t listeners; /* on the scripted ring: so many alike; 0: one */
    const char *address;
    uint16_t port;
    const char *unix_path;
    uint32_t backlog;
    uint32_t headers_max; /* 0: 64 */
    size_t handshake_bytes_max;
    uint32_t handshake_timeout_ms;
    int socket_send_buffer_bytes;
    bool no_peer_address;
} test_options;

#define TEST_FEATURES_BYTES 256

/* `features` (TEST_FEATURES_BYTES) is borrowed by the result. */
static inline rws_runtime_options test_runtime_options(const test_options *own, char *features)
{
    rws_runtime_options options = RWS_RUNTIME_OPTIONS_DEFAULT;
    rws__features_write(own->features_off, features, TEST_FEATURES_BYTES);
    options.features_off = features;
    options.shards = own->shards;
    options.connections_max = own->connections_max;
    options.recv_buffer_bytes = own->recv_buffer_bytes;
    options.recv_buffers = own->recv_buffers;
    options.partial_bytes_max = own->partial_bytes_max;
    /* Four messages of the largest size. */
    if (own->partial_bytes_max == 0 && own->message_bytes_max > 16u << 20)
        options.partial_bytes_max = 4 * own->message_bytes_max;
    options.retained_bytes_max = own->retained_bytes_max;
    options.send_pool_bytes_max = own->send_pool_bytes_max;
    options.send_timeout_ms = own->send_timeout_ms;
    options.linger_timeout_ms =
        own->linger_timeout_ms != 0 ? own->linger_timeout_ms : own->close_timeout_ms;
    options.drain_timeout_ms = own->drain_timeout_ms;
    options.busy_wait_us = own->busy_wait_us;
    options.allocator = own->allocator;
    options.log = own->log;
    options.log_user = own->log_user;
    return options;
}

/* `handler` receives those callbacks of `all` that the options want. */
static inline rws_endpoint_options test_endpoint_options(const test_options *own,
                                                         const rws_handler *all,
                                                         rws_handler *handler, rws_role role)
{
    rws_endpoint_options options = RWS_ENDPOINT_OPTIONS_DEFAULT;
    *handler = *all;
    if (!own->handle_ping) handler->on_ping = NULL;
    if (!own->handle_pong) handler->on_pong = NULL;
    if (!own->handle_close) handler->on_close_frame = NULL;
    options.handler = handler;
    options.user = own->user;
    options.role = role;
    options.message_bytes_max = own->message_bytes_max;
    options.fragments_max = own->fragments_max;
    options.send_queue_bytes_max = own->send_queue_bytes_max;
    options.high_watermark_bytes = own->high_watermark_bytes;
    options.low_watermark_bytes = own->low_watermark_bytes;
    options.message_timeout_ms = own->message_timeout_ms;
    options.close_timeout_ms = own->close_timeout_ms;
    options.origins = own->origins;
    options.origins_count = own->origins_count;
    options.validate_utf8 = !own->no_utf8;
    options.fixed_mask_key = own->fixed_mask_key;
    return options;
}

static inline rws_listener_options test_listener_options(const test_options *own)
{
    rws_listener_options options = RWS_LISTENER_OPTIONS_DEFAULT;
    if (own->address != NULL) options.address = own->address;
    options.port = own->port;
    options.unix_path = own->unix_path;
    options.backlog = own->backlog;
    if (own->headers_max != 0) options.headers_max = own->headers_max;
    options.handshake_bytes_max = own->handshake_bytes_max;
    options.handshake_timeout_ms = own->handshake_timeout_ms;
    options.socket_send_buffer_bytes = own->socket_send_buffer_bytes;
    options.no_peer_address = own->no_peer_address;
    return options;
}

/* A server that listens; errors of each of the calls that it takes. */
static inline int test_server_create(rws_server **out, const test_options *own,
                                     const rws_handler *handler, rws_error *error)
{
    char features[TEST_FEATURES_BYTES];
    rws_handler wanted;
    rws_runtime_options runtime = test_runtime_options(own, features);
    rws_endpoint_options endpoint = test_endpoint_options(own, handler, &wanted, RWS_SERVER);
    rws_listener_options listener = test_listener_options(own);
    int res = rws_server_create(out, &runtime, error);
    if (res == 0) res = rws_server_add_endpoint(*out, &endpoint, NULL, error);
    if (res == 0) res = rws_server_listen(*out, &listener, error);
    if (res == 0) return 0;
    rws_server_destroy(*out);
    *out = NULL;
    return res;
}

static inline int test_client_create(rws_client **out, const test_options *own,
                                     const rws_handler *handler, rws_error *error)
{
    char features[TEST_FEATURES_BYTES];
    rws_handler wanted;
    rws_runtime_options runtime = test_runtime_options(own, features);
    rws_endpoint_options endpoint = test_endpoint_options(own, handler, &wanted, RWS_CLIENT);
    return rws_client_create(out, &runtime, &endpoint, error);
}

static inline int test_dial(rws_client *client, const test_options *own, const char *url,
                            const char *subprotocols, void *user)
{
    rws_dial_options options = RWS_DIAL_OPTIONS_DEFAULT;
    options.user = user;
    options.subprotocols = subprotocols;
    options.timeout_ms = own->handshake_timeout_ms;
    options.handshake_bytes_max = own->handshake_bytes_max;
    options.socket_send_buffer_bytes = own->socket_send_buffer_bytes;
    return rws_client_dial(client, url, &options, NULL, NULL);
}

#endif
