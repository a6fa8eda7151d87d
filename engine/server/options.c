/*
 * Defaults and bounds of every option, in one place.
 */
#include "engine/server/config.h"
#include "engine/base/cpus.h"
#include "engine/loop/op.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* Receive buffers: few and large where a buffer is filled bit by bit, so that the pool stays in the
 * cache and a pipelined burst fits one; more and smaller where each receive takes a whole one. */
#define INCREMENTAL_BYTES 131072u
#define INCREMENTAL_COUNT 8u
#define PLAIN_BYTES       32768u
#define PLAIN_COUNT       128u

/* A peer that sends less of a message, or takes less of what is queued, makes no progress. The
 * second is larger because the kernel opens a closed window in lumps: a peer that reads a byte now
 * and then looks like one that reads some hundred bytes a second. */
#define RECEIVING_BYTES_PER_S_MIN 128u
#define SENDING_BYTES_PER_S_MIN   1024u

#define CONNECTIONS_DEFAULT 16384u
#define DESCRIPTORS_SPARE   64u /* listeners, rings, the program's own */
#define TIMEOUT_MAX_MS      86400000u
/* In the queue beside the messages: frame headers and the answers to pings. */
#define QUEUE_SPARE_BYTES 65536u
/* In a row: each costs the peer 6 bytes and us a step of the decoder, and says nothing. */
#define EMPTY_FRAGMENTS_MAX 1024u

/* ---- checks ---- */

/* A value of 0 takes the default; then it has to lie in min … max. */
static int number(uint64_t value, uint64_t standard, uint64_t min, uint64_t max, const char *name,
                  uint64_t *out, rws_error *error)
{
    *out = value == 0 ? standard : value;
    if (*out >= min && *out <= max) return 0;
    return rws__fail(error, RWS_E_OPTION, "%s is %llu; it must be between %llu and %llu", name,
                     (unsigned long long)*out, (unsigned long long)min, (unsigned long long)max);
}

#define NUMBER(field, standard, min, max)                                                          \
    do {                                                                                           \
        uint64_t checked;                                                                          \
        int res = number(options->field, standard, min, max, #field, &checked, error);             \
        if (res != 0) return res;                                                                  \
        config->field = (__typeof__(config->field))checked;                                        \
    } while (0)

#define TRY(call)                                                                                  \
    do {                                                                                           \
        int tried = (call);                                                                        \
        if (tried != 0) return tried;                                                              \
    } while (0)

/* A caller who sets the high watermark alone is not told about one that was never set. */
static uint64_t low_standard(const rws__config *config)
{
    return config->high_watermark_bytes < 65536 ? config->high_watermark_bytes : 65536;
}

static int check_watermarks(const rws__config *config, rws_error *error)
{
    if (config->low_watermark_bytes <= config->high_watermark_bytes) return 0;
    return rws__fail(error, RWS_E_OPTION,
                     "low_watermark_bytes (%zu) is above high_watermark_bytes (%zu)",
                     config->low_watermark_bytes, config->high_watermark_bytes);
}

/*
 * Reading stops above the high watermark, so a queue that holds that much and one more message
 * never refuses the answer of a server that answers each message with one of at most the same size.
 */
static int set_queue_bound(rws__config *config, size_t value, rws_error *error)
{
    uint64_t need =
        config->high_watermark_bytes + config->rules.message_bytes_max + QUEUE_SPARE_BYTES;
    uint64_t checked;
    int res = number(value, need > 1u << 20 ? need : 1u << 20, 1024, 1ull << 33,
                     "send_queue_bytes_max", &checked, error);
    if (res == 0) config->send_queue_bytes_max = (size_t)checked;
    return res;
}

/* The message limit, and the budget that has to hold a message of that size as it grows. */
static int set_message_limits(rws__config *config, uint64_t message_bytes_max,
                              uint32_t fragments_max, size_t partial_bytes_max, rws_error *error)
{
    uint64_t bytes, budget, fragments;
    int res = number(message_bytes_max, 65536, 1, (1ull << 31) - (1u << 20), "message_bytes_max",
                     &bytes, error);
    if (res == 0)
        res = number(fragments_max, 131072, 1, UINT32_MAX, "fragments_max", &fragments, error);
    uint64_t standard = bytes * 4 > 64u << 20 ? bytes * 4 : 64u << 20;
    if (res == 0)
        res = number(partial_bytes_max, standard, bytes, 1ull << 38, "partial_bytes_max", &budget,
                     error);
    if (res != 0) return res;
    config->rules.message_bytes_max = bytes;
    config->rules.fragments_max = (uint32_t)fragments;
    config->rules.empty_fragments_max = EMPTY_FRAGMENTS_MAX;
    config->partial_bytes_max = (size_t)budget;
    return 0;
}

static int set_buffers(rws__config *config, size_t bytes, uint32_t count, rws_error *error)
{
    uint64_t checked;
    int res = number(bytes, INCREMENTAL_BYTES, 512, 1u << 26, "recv_buffer_bytes", &checked, error);
    if (res != 0) return res;
    config->recv_buffer_bytes = (size_t)checked;
    config->plain_buffer_bytes = bytes == 0 ? PLAIN_BYTES : bytes;
    res = number(count, INCREMENTAL_COUNT, 1, 32768, "recv_buffers", &checked, error);
    if (res != 0) return res;
    if ((checked & (checked - 1)) != 0)
        return rws__fail(error, RWS_E_OPTION, "recv_buffers is %u; it must be a power of two",
                         count);
    config->recv_buffers = (uint32_t)checked;
    config->plain_buffers = count == 0 ? PLAIN_COUNT : count;
    return 0;
}

/* Direct descriptors are not counted by the kernel as open files, but the table that holds them is
 * capped by RLIMIT_NOFILE. */
static int set_connections(rws__config *config, uint32_t value, rws_error *error)
{
    struct rlimit limit = {.rlim_cur = 1024};
    getrlimit(RLIMIT_NOFILE, &limit);
    uint64_t spare = RWS__RESERVE + DESCRIPTORS_SPARE;
    uint64_t allowed = limit.rlim_cur > spare ? limit.rlim_cur - spare : 0;
    if (allowed > RWS__SLOTS_MAX - spare) allowed = RWS__SLOTS_MAX - spare;
    uint64_t standard = allowed < CONNECTIONS_DEFAULT ? allowed : CONNECTIONS_DEFAULT;
    uint64_t wanted = value == 0 ? standard : value;
    if (wanted == 0 || wanted > allowed)
        return rws__fail(
            error, RWS_E_OPTION,
            "connections_max is %llu, but the limit of open files (ulimit -n, %llu) allows "
            "%llu: raise the limit or lower connections_max",
            (unsigned long long)wanted, (unsigned long long)limit.rlim_cur,
            (unsigned long long)allowed);
    config->connections_max = (uint32_t)wanted;
    return 0;
}

/* A shorter struct is an older header's: what it lacks keeps its default. A longer one has fields
 * that this library would ignore in silence. `size` is the first field of each of them. */
static int overlay(void *out, size_t out_size, const void *caller, const char *name,
                   const char *initializer, rws_error *error)
{
    size_t size;
    memcpy(&size, caller, sizeof size);
    if (size < sizeof size || size > out_size)
        return rws__fail(error, RWS_E_OPTION,
                         "%s.size is %zu: start from %s, and link the library that the header "
                         "belongs to",
                         name, size, initializer);
    memcpy(out, caller, size);
    return 0;
}

static int overlay_options(void *out, size_t out_size, const void *caller, const char *initializer,
                           rws_error *error)
{
    return caller == NULL ? 0 : overlay(out, out_size, caller, "options", initializer, error);
}

static int set_handler(rws__config *config, const rws_handler *handler, rws_error *error)
{
    if (handler == NULL) return rws__fail(error, RWS_E_OPTION, "the handler is missing");
    return overlay(&config->handler, sizeof config->handler, handler, "handler",
                   "RWS_HANDLER_DEFAULT", error);
}

static int set_allocator(rws__config *config, const rws_allocator *allocator, rws_error *error)
{
    if (allocator == NULL) return 0;
    if (allocator->alloc == NULL || allocator->release == NULL)
        return rws__fail(error, RWS_E_OPTION, "allocator lacks alloc or release");
    config->env.allocator = *allocator;
    return 0;
}

static int set_send_buffer(rws__config *config, int bytes, rws_error *error)
{
    if (bytes < 0)
        return rws__fail(error, RWS_E_OPTION,
                         "socket_send_buffer_bytes is %d; it must not be negative", bytes);
    config->socket_send_buffer_bytes = bytes;
    return 0;
}

/* It must not end a peer that merely reads slowly before send_timeout_ms does. */
static int set_user_timeout(rws__config *config, uint32_t ms, rws_error *error)
{
    if (config->keepalive_s == RWS_NEVER) config->keepalive_s = 0;
    if (ms != 0 && ms < config->send_timeout_ms)
        return rws__fail(
            error, RWS_E_OPTION,
            "user_timeout_ms is %u; it must be 0 (off) or at least send_timeout_ms, %u", ms,
            config->send_timeout_ms);
    config->user_timeout_ms = ms;
    return 0;
}

/* The options that servers and clients have in common, whose structs are two types. */
#define COMMON_OPTIONS()                                                                           \
    do {                                                                                           \
        NUMBER(handshake_bytes_max, 8192, 256, 1048576);                                           \
        NUMBER(retained_bytes_max, 16u << 20, 1, 1ull << 38);                                      \
        NUMBER(send_pool_bytes_max, 1ull << 30, 65536, 1ull << 39);                                \
        NUMBER(high_watermark_bytes, 262144, 1, 1ull << 31);                                       \
        NUMBER(low_watermark_bytes, low_standard(config), 1, 1ull << 31);                          \
        NUMBER(handshake_timeout_ms, 10000, 1, TIMEOUT_MAX_MS);                                    \
        NUMBER(message_timeout_ms, 60000, 1, TIMEOUT_MAX_MS);                                      \
        NUMBER(close_timeout_ms, 5000, 1, TIMEOUT_MAX_MS);                                         \
        NUMBER(drain_timeout_ms, 5000, 1, TIMEOUT_MAX_MS);                                         \
        NUMBER(send_timeout_ms, 30000, 1, TIMEOUT_MAX_MS);                                         \
        NUMBER(keepalive_s, 60, 1, RWS_NEVER);                                                     \
        TRY(set_user_timeout(config, options->user_timeout_ms, error));                            \
        config->busy_wait_us = options->busy_wait_us;                                              \
        config->handle_ping = options->handle_ping;                                                \
        config->handle_pong = options->handle_pong;                                                \
        config->handle_close = options->handle_close;                                              \
        config->features_off = options->features_off;                                              \
        config->env.log = options->log;                                                            \
        config->env.log_user = options->log_user;                                                  \
        config->user = options->user;                                                              \
        config->rules.role = config->role;                                                         \
        config->rules.validate_utf8 = options->validate_utf8;                                      \
        TRY(set_allocator(config, options->allocator, error));                                     \
        TRY(set_send_buffer(config, options->socket_send_buffer_bytes, error));                    \
        TRY(check_watermarks(config, error));                                                      \
        TRY(set_message_limits(config, options->message_bytes_max, options->fragments_max,         \
                               options->partial_bytes_max, error));                                \
        TRY(set_queue_bound(config, options->send_queue_bytes_max, error));                        \
        TRY(set_buffers(config, options->recv_buffer_bytes, options->recv_buffers, error));        \
        TRY(set_connections(config, options->connections_max, error));                             \
        TRY(set_handler(config, handler, error));                                                  \
    } while (0)

/* ---- servers ---- */

static int copy_server_strings(rws__config *config, const rws_server_options *options,
                               rws_error *error)
{
    if (options->unix_path != NULL) {
        config->unix_path = rws__copy_string(&config->env, options->unix_path);
        if (config->unix_path == NULL) goto no_memory;
    } else {
        config->address = rws__copy_string(&config->env, options->address != NULL ? options->address
                                                                                  : "127.0.0.1");
        if (config->address == NULL) goto no_memory;
    }
    if (options->origins == NULL && options->origins_count == 0) return 0;
    /* Not "all": a list that got lost must not let everyone in. */
    if (options->origins == NULL || options->origins_count == 0)
        return rws__fail(error, RWS_E_OPTION, "origins is %s, and origins_count is %u",
                         options->origins == NULL ? "NULL" : "a list", options->origins_count);
    config->origins = rws__alloc(&config->env, options->origins_count * sizeof(char *));
    if (config->origins == NULL) goto no_memory;
    config->origins_count = options->origins_count;
    for (uint32_t i = 0; i < options->origins_count; i++) {
        if (options->origins[i] == NULL)
            return rws__fail(error, RWS_E_OPTION, "origins[%u] is NULL", i);
        config->origins[i] = rws__copy_string(&config->env, options->origins[i]);
        if (config->origins[i] == NULL) goto no_memory;
    }
    return 0;

no_memory:
    return rws__fail(error, -ENOMEM, "no memory for the options");
}

static int server_config(rws__config *config, const rws_server_options *options,
                         const rws_handler *handler, rws_error *error)
{
    NUMBER(shards, rws__cpus_available(), 1, RWS__SHARDS_MAX);
    NUMBER(backlog, 4096, 1, 65535);
    if (options->headers_max > 1024)
        return rws__fail(error, RWS_E_OPTION, "headers_max is %u; it must be at most 1024",
                         options->headers_max);
    config->headers_max = options->headers_max;
    config->port = options->port;
    config->peer_address = !options->no_peer_address;
    COMMON_OPTIONS();
    return copy_server_strings(config, options, error);
}

int rws__config_for_server(rws__config *config, const rws_server_options *caller,
                           const rws_handler *handler, rws_error *error)
{
    memset(config, 0, sizeof *config);
    config->role = RWS_SERVER;
    rws_server_options options = RWS_SERVER_OPTIONS_DEFAULT;
    int res =
        overlay_options(&options, sizeof options, caller, "RWS_SERVER_OPTIONS_DEFAULT", error);
    if (res == 0) res = server_config(config, &options, handler, error);
    if (res != 0) rws__config_free(config);
    return res;
}

/* ---- clients ---- */

static int client_config(rws__config *config, const rws_client_options *options,
                         const rws_handler *handler, rws_error *error)
{
    NUMBER(shards, 1, 1, RWS__SHARDS_MAX);
    config->headers_max = 64;
    config->fixed_mask_key = options->fixed_mask_key;
    COMMON_OPTIONS();
    return 0;
}

int rws__config_for_client(rws__config *config, const rws_client_options *caller,
                           const rws_handler *handler, rws_error *error)
{
    memset(config, 0, sizeof *config);
    config->role = RWS_CLIENT;
    rws_client_options options = RWS_CLIENT_OPTIONS_DEFAULT;
    int res =
        overlay_options(&options, sizeof options, caller, "RWS_CLIENT_OPTIONS_DEFAULT", error);
    if (res == 0) res = client_config(config, &options, handler, error);
    if (res != 0) rws__config_free(config);
    return res;
}

void rws__config_free(rws__config *config)
{
    for (uint32_t i = 0; config->origins != NULL && i < config->origins_count; i++)
        rws__free_string(&config->env, config->origins[i]);
    rws__free(&config->env, config->origins, config->origins_count * sizeof(char *));
    rws__free_string(&config->env, config->address);
    rws__free_string(&config->env, config->unix_path);
    config->origins = NULL;
    config->address = config->unix_path = NULL;
}

/* ---- what the parts are given ---- */

void rws__config_arrange(rws__config *config)
{
    config->streams = (rws__streams_options){
        .send_pool_bytes_max = config->send_pool_bytes_max,
        .partial_bytes_max = config->partial_bytes_max,
        .retained_bytes_max = config->retained_bytes_max,
        .send_timeout_ms = config->send_timeout_ms,
        .linger_timeout_ms = config->close_timeout_ms,
        .progress_bytes_per_s_min = SENDING_BYTES_PER_S_MIN,
    };
    config->endpoint = (rws__endpoint){
        .handler = config->handler,
        .user = config->user,
        .rules = config->rules,
        .send_queue_bytes_max = config->send_queue_bytes_max,
        .high_watermark_bytes = config->high_watermark_bytes,
        .low_watermark_bytes = config->low_watermark_bytes,
        .message_timeout_ms = config->message_timeout_ms,
        .close_timeout_ms = config->close_timeout_ms,
        .progress_bytes_per_s_min = RECEIVING_BYTES_PER_S_MIN,
        .handle_ping = config->handle_ping,
        .handle_pong = config->handle_pong,
        .handle_close = config->handle_close,
        .fixed_mask_key = config->fixed_mask_key,
        .origins = (const char *const *)config->origins,
        .origins_count = config->origins_count,
    };
    config->route = (rws__route){.endpoint = &config->endpoint};
    config->http = (rws__http_rules){
        .head_bytes_max = config->handshake_bytes_max,
        .timeout_ms = config->handshake_timeout_ms,
        .headers_max = config->headers_max,
        .routes = &config->route,
        .routes_count = 1,
    };
    config->listener = (rws__listener_config){
        .address = config->address,
        .port = config->port,
        .unix_path = config->unix_path,
        .backlog = config->backlog,
        .peer_address = config->peer_address,
        .socket = {config->socket_send_buffer_bytes, config->keepalive_s, config->user_timeout_ms},
    };
}
