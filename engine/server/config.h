/*
 * The options of a server or a client after defaults and checks: what the engine works with.
 * options.c is the only place that knows a default or a bound.
 */
#ifndef RINGWS_SERVER_CONFIG_H
#define RINGWS_SERVER_CONFIG_H

#include "engine/conn/conn.h"
#include "engine/server/sockets.h"

typedef struct rws__config {
    rws_role role;
    uint32_t shards;
    uint32_t connections_max; /* per shard */
    uint32_t headers_max;
    size_t handshake_bytes_max;
    rws__message_rules rules;
    size_t recv_buffer_bytes; /* where the kernel fills buffers bit by bit */
    uint32_t recv_buffers;
    size_t plain_buffer_bytes; /* where each receive takes a whole buffer */
    uint32_t plain_buffers;
    size_t partial_bytes_max;
    size_t retained_bytes_max;
    size_t send_queue_bytes_max;
    size_t send_pool_bytes_max;
    size_t high_watermark_bytes;
    size_t low_watermark_bytes;
    uint64_t busy_wait_us;
    int socket_send_buffer_bytes;
    uint32_t handshake_timeout_ms;
    uint32_t message_timeout_ms;
    uint32_t close_timeout_ms;
    uint32_t drain_timeout_ms;
    bool handle_ping, handle_pong, handle_close;
    bool peer_address;
    bool fixed_mask_key;
    uint32_t features_off;
    rws__env env;
    void *user;
    rws_handler handler;

    uint32_t send_timeout_ms;
    uint32_t keepalive_s; /* 0: none */
    uint32_t user_timeout_ms;

    /* servers */
    char *address; /* owned; NULL for a unix socket */
    uint16_t port;
    char *unix_path; /* owned or NULL */
    uint32_t backlog;
    char **origins; /* owned, `origins_count` of them */
    uint32_t origins_count;

    /* What the parts of the engine are given; set by rws__config_arrange(). */
    rws__streams_options streams;
    rws__endpoint endpoint;
    rws__route route;
    rws__http_rules http;
    rws__listener_config listener;
} rws__config;

/* Fill what the parts of the engine are given, where `config` lies for good. */
void rws__config_arrange(rws__config *config);

/* Overlay what the caller passed on the defaults, check, copy the strings. On failure `error`
 * (never NULL) names the field and nothing is left allocated. */
int rws__config_for_server(rws__config *config, const rws_server_options *options,
                           const rws_handler *handler, rws_error *error);
int rws__config_for_client(rws__config *config, const rws_client_options *options,
                           const rws_handler *handler, rws_error *error);
void rws__config_free(rws__config *config);

#endif
