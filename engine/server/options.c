/*
 * Defaults and bounds of every option, in one place.
 */
#include "engine/server/options.h"

#include "codec/handshake.h"
#include "engine/base/cpus.h"
#include "engine/base/features.h"
#include "engine/conn/message.h"
#include "engine/loop/op.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/resource.h>

/* Receive buffers: few and large where a buffer is filled bit by bit, so that the pool stays in the
 * cache and a pipelined burst fits one; more and smaller where each receive takes a whole one. */
#define INCREMENTAL_BYTES 131072u
#define INCREMENTAL_COUNT 8u
#define PLAIN_BYTES       32768u
#define PLAIN_COUNT       128u

/* A peer that sends less of a message, or takes less of what is queued, makes no progress. The
 * second is larger because the kernel opens a closed window by some hundred bytes at once: a peer
 * that reads a byte now and then looks like one that reads some hundred bytes a second. */
#define RECEIVING_BYTES_PER_S_MIN 128u
#define SENDING_BYTES_PER_S_MIN   1024u

#define CONNECTIONS_DEFAULT 16384u
#define DESCRIPTORS_SPARE   56u /* listeners, rings, the program's own */
#define TIMEOUT_MAX_MS      86400000u
/* In the queue beside the messages: frame headers and the answers to pings. */
#define QUEUE_SPARE_BYTES 65536u
/* In a row: each costs the peer 6 bytes and us a step of the decoder, and says nothing. */
#define EMPTY_FRAGMENTS_MAX 1024u
#define STRINGS_MAX         65536u

static_assert(RWS__SHARDS_MAX <= 256, "8 bits of an id, of a connection or a dial, name the shard");

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

/* One row of a struct's numbers: the option's value, where it goes (of which size), its bounds. */
typedef struct number_row {
    const char *name;
    uint64_t value, standard, min, max;
    void *out;
    size_t out_size;
} number_row;

/* All rows, up to the first that is out of its range. */
static int numbers(const number_row *rows, size_t count, rws_error *error)
{
    for (size_t i = 0; i < count; i++) {
        const number_row *row = &rows[i];
        uint64_t checked;
        int res = number(row->value, row->standard, row->min, row->max, row->name, &checked, error);
        if (res != 0) return res;
        uint32_t small = (uint32_t)checked;
        memcpy(row->out, row->out_size == sizeof small ? (void *)&small : (void *)&checked,
               row->out_size);
    }
    return 0;
}

#define ROW(field, standard, min, max, place)                                                      \
    {                                                                                              \
#field, own.field, (standard), (min), (max), &(place), sizeof(place)                       \
    }
#define COUNT(rows) (sizeof(rows) / sizeof(rows)[0])

/* The first `size` bytes of a caller's options struct, over the defaults in `out`. */
static int overlay(void *out, size_t out_size, const void *caller, const char *initializer,
                   rws_error *error)
{
    size_t size;
    if (caller == NULL) return 0;
    /* `size` is the first field of each of them. A shorter struct is an older header's: what it
     * lacks keeps its default. A longer one has fields that this library would ignore in silence.
     * No struct has a size that would end within a field. */
    memcpy(&size, caller, sizeof size);
    if (size < sizeof size || size > out_size || size % _Alignof(void *) != 0)
        return rws__fail(error, RWS_E_OPTION,
                         "the struct's size is %zu: start from %s, and link the library that the "
                         "header belongs to",
                         size, initializer);
    memcpy(out, caller, size);
    return 0;
}

/* ---- runtimes ---- */

static int set_buffers(rws__runtime_config *config, size_t bytes, uint32_t count, rws_error *error)
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
static int set_connections(rws__runtime_config *config, uint32_t value, rws_error *error)
{
    struct rlimit limit = {.rlim_cur = 1024};
    getrlimit(RLIMIT_NOFILE, &limit);
    uint64_t spare = RWS__RESERVE + RWS__RESERVE_DIALS + DESCRIPTORS_SPARE;
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

static int set_features(rws__runtime_config *config, const char *list, rws_error *error)
{
    const char *unknown = NULL;
    size_t len = 0;
    int res = rws__features_parse(&config->features_off, list, &unknown, &len);
    if (res == 0) return 0;
    return rws__fail(
        error, res,
        "features_off has \"%.*s\": the names are those of rws_feature_at(), and \"all\"",
        (int)(len < 64 ? len : 64), unknown);
}

static int set_env(rws__env *env, const rws_runtime_options *options, rws_error *error)
{
    const rws_allocator *allocator = options->allocator;
    env->log = options->log;
    env->log_user = options->log_user;
    if (allocator == NULL) return 0;
    if (allocator->alloc == NULL || allocator->release == NULL)
        return rws__fail(error, RWS_E_OPTION, "allocator lacks alloc or release");
    env->allocator = *allocator;
    return 0;
}

int rws__runtime_config_make(rws__runtime_config *config, const rws_runtime_options *options,
                             uint32_t shards, rws_error *error)
{
    memset(config, 0, sizeof *config);
    rws_runtime_options own = RWS_RUNTIME_OPTIONS_DEFAULT;
    int res = overlay(&own, sizeof own, options, "RWS_RUNTIME_OPTIONS_DEFAULT", error);
    if (res != 0) return res;
    rws__streams_options *streams = &config->streams;
    const number_row rows[] = {
        ROW(shards, shards, 1, RWS__SHARDS_MAX, config->shards),
        ROW(partial_bytes_max, 64u << 20, 1, 1ull << 38, streams->partial_bytes_max),
        ROW(retained_bytes_max, 16u << 20, 1, 1ull << 38, streams->retained_bytes_max),
        ROW(send_pool_bytes_max, 1ull << 30, 65536, 1ull << 39, streams->send_pool_bytes_max),
        ROW(send_timeout_ms, 30000, 1, TIMEOUT_MAX_MS, streams->send_timeout_ms),
        ROW(linger_timeout_ms, 5000, 1, TIMEOUT_MAX_MS, streams->linger_timeout_ms),
        ROW(drain_timeout_ms, 5000, 1, TIMEOUT_MAX_MS, config->drain_timeout_ms),
    };
    bool drain_ends = own.drain_timeout_ms != RWS_NEVER;
    res = numbers(rows, COUNT(rows) - !drain_ends, error);
    if (!drain_ends) config->drain_timeout_ms = RWS_NEVER;
    if (res == 0) res = set_buffers(config, own.recv_buffer_bytes, own.recv_buffers, error);
    if (res == 0) res = set_connections(config, own.connections_max, error);
    if (res == 0) res = set_features(config, own.features_off, error);
    if (res == 0) res = set_env(&config->env, &own, error);
    streams->progress_bytes_per_s_min = SENDING_BYTES_PER_S_MIN;
    config->busy_wait_us = own.busy_wait_us;
    return res;
}

/* ---- lists of strings ---- */

static void free_strings(const rws__env *env, char **strings, uint32_t count)
{
    for (uint32_t i = 0; strings != NULL && i < count; i++)
        rws__free_string(env, strings[i]);
    rws__free(env, strings, count * sizeof(char *));
}

/* Copy a list; on failure what was copied stays in `*out`. */
static int copy_strings(const rws__env *env, char ***out, uint32_t *out_count,
                        const char *const *list, uint32_t count, const char *name, rws_error *error)
{
    if (list == NULL && count == 0) return 0;
    /* Not "none": a list that got lost must not let everyone in. */
    if (list == NULL || count == 0 || count > STRINGS_MAX)
        return rws__fail(error, RWS_E_OPTION, "%s is %s, and %s_count is %u", name,
                         list == NULL ? "NULL" : "a list", name, count);
    char **strings = rws__alloc(env, count * sizeof(char *));
    if (strings == NULL) return rws__fail(error, -ENOMEM, "no memory for %s", name);
    *out = strings;
    *out_count = count;
    for (uint32_t i = 0; i < count; i++) {
        if (list[i] == NULL) return rws__fail(error, RWS_E_OPTION, "%s[%u] is NULL", name, i);
        strings[i] = rws__copy_string(env, list[i]);
        if (strings[i] == NULL) return rws__fail(error, -ENOMEM, "no memory for %s", name);
    }
    return 0;
}

/* One that is none (RFC 6455 section 4.1) could not be asked for, or never be agreed on. */
static int check_tokens(char *const *names, uint32_t count, rws_error *error)
{
    for (uint32_t i = 0; i < count; i++)
        if (!rws__http_name_is_valid((rws_span){names[i], strlen(names[i])}))
            return rws__fail(error, RWS_E_OPTION, "subprotocols[%u] is \"%.64s\", not a token", i,
                             names[i]);
    return 0;
}

/* An entry that is neither "*" nor "null" nor a serialised origin would let nobody in. */
static int check_origins(char *const *origins, uint32_t count, rws_error *error)
{
    for (uint32_t i = 0; i < count; i++) {
        const char *const origin = origins[i];
        if (strcmp(origin, "*") == 0 && count > 1)
            return rws__fail(error, RWS_E_OPTION,
                             "origins[%u] is \"*\", which allows every origin: it has to be the "
                             "only one",
                             i);
        if (!rws__handshake_origin_is_allowed((rws_span){origin, strlen(origin)}, &origin, 1))
            return rws__fail(error, RWS_E_OPTION,
                             "origins[%u] is \"%.64s\", which no browser sends: an origin is "
                             "scheme://host[:port] with nothing behind it, not even a '/', or null",
                             i, origin);
    }
    return 0;
}

/* ---- endpoints ---- */

/* A caller who sets the high watermark alone is not told about one that was never set. */
static int set_watermarks(rws__endpoint *endpoint, const rws_endpoint_options *options,
                          rws_error *error)
{
    rws_endpoint_options own = *options;
    const number_row high[] = {
        ROW(high_watermark_bytes, 262144, 1, 1ull << 31, endpoint->high_watermark_bytes)};
    int res = numbers(high, 1, error);
    if (res != 0) return res;
    size_t standard =
        endpoint->high_watermark_bytes < 65536 ? endpoint->high_watermark_bytes : 65536;
    const number_row low[] = {
        ROW(low_watermark_bytes, standard, 1, 1ull << 31, endpoint->low_watermark_bytes)};
    res = numbers(low, 1, error);
    if (res != 0 || endpoint->low_watermark_bytes <= endpoint->high_watermark_bytes) return res;
    return rws__fail(error, RWS_E_OPTION,
                     "low_watermark_bytes (%zu) is above high_watermark_bytes (%zu)",
                     endpoint->low_watermark_bytes, endpoint->high_watermark_bytes);
}

/*
 * Reading stops above the high watermark, so a queue that holds that much and one more message
 * never refuses the answer of a server that answers each message with one of at most the same size.
 */
static int set_limits(rws__endpoint *endpoint, const rws__runtime_config *config,
                      const rws_endpoint_options *options, rws_error *error)
{
    rws_endpoint_options own = *options;
    uint64_t budget = config->streams.partial_bytes_max;
    const number_row rows[] = {
        ROW(message_bytes_max, budget < 65536 ? budget : 65536, 1, RWS__MESSAGE_BYTES_MAX,
            endpoint->rules.message_bytes_max),
        ROW(fragments_max, 131072, 1, UINT32_MAX, endpoint->rules.fragments_max),
        ROW(message_timeout_ms, 60000, 1, TIMEOUT_MAX_MS, endpoint->message_timeout_ms),
        ROW(close_timeout_ms, 5000, 1, TIMEOUT_MAX_MS, endpoint->close_timeout_ms),
    };
    int res = numbers(rows, COUNT(rows), error);
    if (res != 0) return res;
    if (endpoint->rules.message_bytes_max > budget)
        return rws__fail(error, RWS_E_OPTION,
                         "message_bytes_max is %llu, and partial_bytes_max of the runtime %llu: a "
                         "message has to fit into it",
                         (unsigned long long)endpoint->rules.message_bytes_max,
                         (unsigned long long)budget);
    uint64_t need =
        endpoint->high_watermark_bytes + endpoint->rules.message_bytes_max + QUEUE_SPARE_BYTES;
    const number_row queue[] = {ROW(send_queue_bytes_max, need > 1u << 20 ? need : 1u << 20, 1024,
                                    1ull << 33, endpoint->send_queue_bytes_max)};
    return numbers(queue, 1, error);
}

static int set_handler(rws__endpoint *endpoint, const rws_handler *handler, rws_error *error)
{
    if (handler == NULL) return rws__fail(error, RWS_E_OPTION, "the handler is missing");
    return overlay(&endpoint->handler, sizeof endpoint->handler, handler, "RWS_HANDLER_DEFAULT",
                   error);
}

/* One that no request line can carry (RFC 9112 section 3.2) would never be found. */
static int set_path(rws__endpoint *endpoint, const rws__env *env, const char *path,
                    rws_error *error)
{
    if (path[0] != '/')
        return rws__fail(error, RWS_E_OPTION, "path is \"%.64s\"; it must begin with '/'", path);
    if (strchr(path, '?') != NULL)
        return rws__fail(error, RWS_E_OPTION,
                         "path is \"%.64s\"; a path ends before the '?' of a target", path);
    for (const char *at = path; *at != '\0'; at++)
        if (*at <= ' ' || *at >= 0x7F || *at == '#')
            return rws__fail(error, RWS_E_OPTION,
                             "path is \"%.64s\"; in a request a space, a '#', and what is not "
                             "visible ASCII, are written as %%20 or alike",
                             path);
    endpoint->path = rws__copy_string(env, path);
    return endpoint->path != NULL ? 0 : rws__fail(error, -ENOMEM, "no memory for the path");
}

static int set_strings(rws__endpoint *endpoint, const rws__env *env,
                       const rws_endpoint_options *own, rws_error *error)
{
    if (own->role == RWS_CLIENT && (own->path != NULL || own->origins != NULL))
        return rws__fail(error, RWS_E_OPTION, "path and origins are for servers, not for dials");
    int res = own->path != NULL ? set_path(endpoint, env, own->path, error) : 0;
    if (res != 0) return res;
    res = copy_strings(env, &endpoint->origins, &endpoint->origins_count, own->origins,
                       own->origins_count, "origins", error);
    if (res == 0) res = check_origins(endpoint->origins, endpoint->origins_count, error);
    if (res != 0) return res;
    res = copy_strings(env, &endpoint->subprotocols, &endpoint->subprotocols_count,
                       own->subprotocols, own->subprotocols_count, "subprotocols", error);
    if (res != 0) return res;
    return check_tokens(endpoint->subprotocols, endpoint->subprotocols_count, error);
}

void rws__endpoint_free(const rws__env *env, rws__endpoint *endpoint)
{
    if (endpoint == NULL) return;
    free_strings(env, endpoint->origins, endpoint->origins_count);
    free_strings(env, endpoint->subprotocols, endpoint->subprotocols_count);
    rws__free_string(env, endpoint->path);
    rws__free(env, endpoint, sizeof *endpoint);
}

static int set_role(rws__endpoint *endpoint, rws_role role, rws_error *error)
{
    if (role != RWS_SERVER && role != RWS_CLIENT)
        return rws__fail(error, RWS_E_OPTION, "role is %d; it must be RWS_SERVER or RWS_CLIENT",
                         (int)role);
    endpoint->rules.role = role;
    return 0;
}

int rws__endpoint_make(rws__endpoint **out, const rws__runtime_config *config,
                       const rws_endpoint_options *options, const rws_role *role, rws_error *error)
{
    *out = NULL;
    rws_endpoint_options own = RWS_ENDPOINT_OPTIONS_DEFAULT;
    int res = overlay(&own, sizeof own, options, "RWS_ENDPOINT_OPTIONS_DEFAULT", error);
    if (res != 0) return res;
    if (role != NULL) own.role = *role;
    rws__endpoint *endpoint = rws__alloc(&config->env, sizeof *endpoint);
    if (endpoint == NULL) return rws__fail(error, -ENOMEM, "no memory for the endpoint");
    endpoint->user = own.user;
    endpoint->rules.validate_utf8 = own.validate_utf8;
    endpoint->rules.empty_fragments_max = EMPTY_FRAGMENTS_MAX;
    endpoint->progress_bytes_per_s_min = RECEIVING_BYTES_PER_S_MIN;
    endpoint->fixed_mask_key = own.fixed_mask_key;
    res = set_role(endpoint, own.role, error);
    if (res == 0) res = set_handler(endpoint, own.handler, error);
    if (res == 0) res = set_watermarks(endpoint, &own, error);
    if (res == 0) res = set_limits(endpoint, config, &own, error);
    if (res == 0) res = set_strings(endpoint, &config->env, &own, error);
    if (res != 0) {
        rws__endpoint_free(&config->env, endpoint);
        return res;
    }
    *out = endpoint;
    return 0;
}

/* ---- sockets ---- */

/* TCP_USER_TIMEOUT must not end a peer that merely reads slowly before send_timeout_ms does. */
static int set_socket(rws__socket_options *socket, int send_buffer_bytes, uint32_t keepalive_s,
                      uint32_t user_timeout_ms, uint32_t send_timeout_ms, rws_error *error)
{
    if (send_buffer_bytes < 0)
        return rws__fail(error, RWS_E_OPTION,
                         "socket_send_buffer_bytes is %d; it must not be negative",
                         send_buffer_bytes);
    if (user_timeout_ms != 0 &&
        (user_timeout_ms < send_timeout_ms || user_timeout_ms > TIMEOUT_MAX_MS))
        return rws__fail(error, RWS_E_OPTION,
                         "user_timeout_ms is %u; it must be 0 (off), or between send_timeout_ms, "
                         "%u, and %u",
                         user_timeout_ms, send_timeout_ms, TIMEOUT_MAX_MS);
    uint64_t keepalive = 0;
    /* The kernel takes at most 32,767 seconds. */
    if (keepalive_s != RWS_NEVER) {
        int res = number(keepalive_s, 60, 1, 32767, "keepalive_s", &keepalive, error);
        if (res != 0) return res;
    }
    *socket = (rws__socket_options){send_buffer_bytes, (uint32_t)keepalive, user_timeout_ms};
    return 0;
}

/* ---- listeners ---- */

static int copy_place(rws__listener_config *config, const rws__env *env,
                      const rws_listener_options *own, rws_error *error)
{
    const char *address = own->address != NULL ? own->address : "127.0.0.1";
    config->inherited = own->fd >= 0;
    if (config->inherited) return 0;
    if (own->unix_path != NULL)
        config->unix_path = rws__copy_string(env, own->unix_path);
    else
        config->address = rws__copy_string(env, address);
    if (config->unix_path == NULL && config->address == NULL)
        return rws__fail(error, -ENOMEM, "no memory for the listener");
    return 0;
}

int rws__listener_config_make(rws__listener_config *config, rws__http_rules *http,
                              rws_listener_options *out, const rws__runtime_config *runtime,
                              const rws_listener_options *options, rws_error *error)
{
    memset(config, 0, sizeof *config);
    memset(http, 0, sizeof *http);
    rws_listener_options own = RWS_LISTENER_OPTIONS_DEFAULT;
    int res = overlay(&own, sizeof own, options, "RWS_LISTENER_OPTIONS_DEFAULT", error);
    if (res != 0) return res;
    *out = own;
    const number_row rows[] = {
        ROW(backlog, 4096, 1, 65535, config->backlog),
        ROW(handshake_bytes_max, 16384, 256, 1048576, http->head_bytes_max),
        ROW(handshake_timeout_ms, 10000, 1, TIMEOUT_MAX_MS, http->timeout_ms),
    };
    res = numbers(rows, COUNT(rows), error);
    if (res != 0) return res;
    if (own.headers_max > RWS__HEADERS_MAX)
        return rws__fail(error, RWS_E_OPTION, "headers_max is %u; it must be at most %u",
                         own.headers_max, RWS__HEADERS_MAX);
    http->headers_max = own.headers_max;
    config->port = own.port;
    config->peer_address = !own.no_peer_address;
    res = set_socket(&config->socket, own.socket_send_buffer_bytes, own.keepalive_s,
                     own.user_timeout_ms, runtime->streams.send_timeout_ms, error);
    return res != 0 ? res : copy_place(config, &runtime->env, &own, error);
}

void rws__listener_config_free(const rws__env *env, rws__listener_config *config)
{
    rws__free_string(env, config->address);
    rws__free_string(env, config->unix_path);
    config->address = config->unix_path = NULL;
}

/* ---- dials ---- */

int rws__dial_options_check(rws_dial_options *out, const rws_dial_options *options,
                            const rws__runtime_config *runtime, rws__socket_options *socket,
                            rws_error *error)
{
    rws_dial_options own = RWS_DIAL_OPTIONS_DEFAULT;
    int res = overlay(&own, sizeof own, options, "RWS_DIAL_OPTIONS_DEFAULT", error);
    if (res != 0) return res;
    *out = own;
    const number_row rows[] = {
        ROW(timeout_ms, 10000, 1, TIMEOUT_MAX_MS, out->timeout_ms),
        ROW(handshake_bytes_max, 16384, 256, 1048576, out->handshake_bytes_max),
    };
    res = numbers(rows, COUNT(rows), error);
    if (res != 0) return res;
    if (own.shard != RWS_ANY_SHARD && own.shard >= runtime->shards)
        return rws__fail(error, RWS_E_OPTION, "shard is %u, and there are %u", own.shard,
                         runtime->shards);
    if (own.headers == NULL && own.headers_count > 0)
        return rws__fail(error, RWS_E_OPTION, "headers is NULL, and headers_count is %u",
                         own.headers_count);
    return set_socket(socket, own.socket_send_buffer_bytes, own.keepalive_s, own.user_timeout_ms,
                      runtime->streams.send_timeout_ms, error);
}
