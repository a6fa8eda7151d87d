/*
 * Options after defaults and checks: what the engine works with. options.c is the only place that
 * knows a default or a bound.
 */
#ifndef RINGWS_SERVER_OPTIONS_H
#define RINGWS_SERVER_OPTIONS_H

#include "engine/conn/conn.h"
#include "engine/server/sockets.h"

/* What the shards of a runtime have in common. */
typedef struct rws__runtime_config {
    uint32_t shards;
    uint32_t connections_max; /* per shard */
    size_t recv_buffer_bytes; /* where the kernel fills buffers bit by bit */
    uint32_t recv_buffers;
    size_t plain_buffer_bytes; /* where each receive takes a whole buffer */
    uint32_t plain_buffers;
    rws__streams_options streams; /* but for its slots */
    uint32_t drain_timeout_ms;
    uint64_t busy_wait_us;
    uint32_t features_off;
    rws__env env;
} rws__runtime_config;

#define RWS__HEADERS_MAX 1024u /* of a request that can be stored */

/* Overlay what the caller passed (NULL: nothing) on the defaults and check. On failure `error`
 * (never NULL) names the field. `shards` is the default. */
int rws__runtime_config_make(rws__runtime_config *config, const rws_runtime_options *options,
                             uint32_t shards, rws_error *error);

/* The same; the endpoint has copies of all strings. `*out` is NULL on failure. `role` NULL: what
 * the options say. */
int rws__endpoint_make(rws__endpoint **out, const rws__runtime_config *config,
                       const rws_endpoint_options *options, const rws_role *role, rws_error *error);
void rws__endpoint_free(const rws__env *env, rws__endpoint *endpoint);

/* The same, without opening anything; rws__listener_config_free() also after a failure. The
 * endpoints are not looked at. `out` receives the caller's options on the defaults. */
int rws__listener_config_make(rws__listener_config *config, rws__http_rules *http,
                              rws_listener_options *out, const rws__runtime_config *runtime,
                              const rws_listener_options *options, rws_error *error);
void rws__listener_config_free(const rws__env *env, rws__listener_config *config);

/* The caller's options of a dial on the defaults, checked but for the strings; `socket` receives
 * those of its socket. */
int rws__dial_options_check(rws_dial_options *out, const rws_dial_options *options,
                            const rws__runtime_config *runtime, rws__socket_options *socket,
                            rws_error *error);

#endif
