/*
 * Options of runtimes, endpoints, listeners and dials: every default, every bound and one beyond
 * it; the sentence names the field; structs of older and newer headers; the copies of strings and
 * lists.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "engine/base/features.h"
#include "engine/server/options.h"
#include "support/test_allocator.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define DAY_MS       86400000u
/* What a runtime has where it is not told. */
#define SHARDS 5u
/* Open files in these tests, and what they leave for connections. */
#define FILES       2000u
#define CONNECTIONS (FILES - 128u)

typedef enum kind { RUNTIME, ENDPOINT, LISTENER, DIAL, KINDS } kind;

static const rws_handler handler = RWS_HANDLER_DEFAULT;

/* What a program passes: all of them, so that one table serves all. */
typedef struct passed {
    rws_runtime_options runtime;
    rws_endpoint_options endpoint;
    rws_listener_options listener;
    rws_dial_options dial;
} passed;

/* What the engine makes of one of them. */
typedef struct made {
    rws__runtime_config config; /* always */
    rws__endpoint *endpoint;
    rws__listener_config listener;
    rws__http_rules http;
    rws_listener_options own;
    rws_dial_options dial;
    rws__socket_options socket;
} made;

static void limit_files(rlim_t files)
{
    struct rlimit limit;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = files;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static passed start(void)
{
    passed options = {
        RWS_RUNTIME_OPTIONS_DEFAULT,
        RWS_ENDPOINT_OPTIONS_DEFAULT,
        RWS_LISTENER_OPTIONS_DEFAULT,
        RWS_DIAL_OPTIONS_DEFAULT,
    };
    limit_files(FILES);
    options.endpoint.handler = &handler;
    return options;
}

static int make(made *out, kind what, const passed *options, rws_error *error)
{
    memset(out, 0, sizeof *out);
    memset(error, 0, sizeof *error);
    int res = rws__runtime_config_make(&out->config, &options->runtime, SHARDS, error);
    if (what == RUNTIME) return res;
    cr_assert_eq(res, 0, "%s", error->text);
    switch (what) {
    case ENDPOINT:
        return rws__endpoint_make(&out->endpoint, &out->config, &options->endpoint, error);
    case LISTENER:
        return rws__listener_config_make(&out->listener, &out->http, &out->own, &out->config,
                                         &options->listener, error);
    case DIAL:
        return rws__dial_options_check(&out->dial, &options->dial, &out->config, &out->socket,
                                       error);
    case RUNTIME:
    case KINDS: break;
    }
    cr_assert_fail("no such options");
    return -1;
}

/* Also after a failure, and twice. */
static void drop(made *out)
{
    rws__endpoint_free(&out->config.env, out->endpoint);
    out->endpoint = NULL;
    rws__listener_config_free(&out->config.env, &out->listener);
    rws__listener_config_free(&out->config.env, &out->listener);
}

static void expect_failure(kind what, const passed *options, const char *name)
{
    made out;
    rws_error error;
    int res = make(&out, what, options, &error);
    cr_expect_eq(res, RWS_E_OPTION, "%s: %d", name, res);
    cr_expect_eq(error.status, RWS_E_OPTION, "%s", name);
    cr_expect_not_null(strstr(error.text, name), "\"%s\" does not name %s", error.text, name);
    drop(&out);
}

static void expect_success(kind what, const passed *options, made *out)
{
    rws_error error;
    cr_assert_eq(make(out, what, options, &error), 0, "%s", error.text);
}

/* ---- numbers ---- */

typedef struct field {
    size_t offset, width;
} field;

#define FIELD(type, path)                                                                          \
    {                                                                                              \
        offsetof(type, path), sizeof(((type *)NULL)->path)                                         \
    }

typedef struct bound_case {
    kind what;
    const char *name;
    field in;  /* of what is passed */
    field out; /* of what is made, or of the endpoint */
    uint64_t standard, min, max;
} bound_case;

#define ROW(kind, part, name, out_type, out_path, standard, min, max)                              \
    {                                                                                              \
        kind, #name, FIELD(passed, part.name), FIELD(out_type, out_path), standard, min, max       \
    }
#define RUNTIME_ROW(name, path, standard, min, max)                                                \
    ROW(RUNTIME, runtime, name, made, config.path, standard, min, max)
#define ENDPOINT_ROW(name, path, standard, min, max)                                               \
    ROW(ENDPOINT, endpoint, name, rws__endpoint, path, standard, min, max)
#define LISTENER_ROW(name, path, standard, min, max)                                               \
    ROW(LISTENER, listener, name, made, path, standard, min, max)
#define DIAL_ROW(name, path, standard, min, max)                                                   \
    ROW(DIAL, dial, name, made, path, standard, min, max)

static const bound_case bound_cases[] = {
    RUNTIME_ROW(shards, shards, SHARDS, 1, 256),
    RUNTIME_ROW(connections_max, connections_max, CONNECTIONS, 1, CONNECTIONS),
    RUNTIME_ROW(recv_buffer_bytes, recv_buffer_bytes, 131072, 512, 1u << 26),
    RUNTIME_ROW(recv_buffers, recv_buffers, 8, 1, 32768),
    RUNTIME_ROW(partial_bytes_max, streams.partial_bytes_max, 64u << 20, 1, 1ull << 38),
    RUNTIME_ROW(retained_bytes_max, streams.retained_bytes_max, 16u << 20, 1, 1ull << 38),
    RUNTIME_ROW(send_pool_bytes_max, streams.send_pool_bytes_max, 1u << 30, 65536, 1ull << 39),
    RUNTIME_ROW(send_timeout_ms, streams.send_timeout_ms, 30000, 1, DAY_MS),
    RUNTIME_ROW(linger_timeout_ms, streams.linger_timeout_ms, 5000, 1, DAY_MS),
    RUNTIME_ROW(drain_timeout_ms, drain_timeout_ms, 5000, 1, DAY_MS),
    RUNTIME_ROW(busy_wait_us, busy_wait_us, 0, 0, UINT64_MAX),
    ENDPOINT_ROW(message_bytes_max, rules.message_bytes_max, 65536, 1, (1ull << 31) - (1u << 20)),
    ENDPOINT_ROW(fragments_max, rules.fragments_max, 131072, 1, UINT32_MAX),
    ENDPOINT_ROW(send_queue_bytes_max, send_queue_bytes_max, 1u << 20, 1024, 1ull << 33),
    ENDPOINT_ROW(high_watermark_bytes, high_watermark_bytes, 262144, 1, 1ull << 31),
    ENDPOINT_ROW(low_watermark_bytes, low_watermark_bytes, 65536, 1, 1ull << 31),
    ENDPOINT_ROW(message_timeout_ms, message_timeout_ms, 60000, 1, DAY_MS),
    ENDPOINT_ROW(close_timeout_ms, close_timeout_ms, 5000, 1, DAY_MS),
    LISTENER_ROW(backlog, listener.backlog, 4096, 1, 65535),
    LISTENER_ROW(headers_max, http.headers_max, 0, 0, 1024),
    LISTENER_ROW(handshake_bytes_max, http.head_bytes_max, 16384, 256, 1048576),
    LISTENER_ROW(handshake_timeout_ms, http.timeout_ms, 10000, 1, DAY_MS),
    LISTENER_ROW(socket_send_buffer_bytes, listener.socket.send_buffer_bytes, 0, 0, INT32_MAX),
    LISTENER_ROW(user_timeout_ms, listener.socket.user_timeout_ms, 0, 30000, DAY_MS),
    DIAL_ROW(timeout_ms, dial.timeout_ms, 10000, 1, DAY_MS),
    DIAL_ROW(handshake_bytes_max, dial.handshake_bytes_max, 16384, 256, 1048576),
    DIAL_ROW(socket_send_buffer_bytes, socket.send_buffer_bytes, 0, 0, INT32_MAX),
    DIAL_ROW(user_timeout_ms, socket.user_timeout_ms, 0, 30000, DAY_MS),
};

static void put(passed *options, field at, uint64_t value)
{
    char *place = (char *)options + at.offset;
    if (at.width == 4)
        memcpy(place, &(uint32_t){(uint32_t)value}, 4);
    else
        memcpy(place, &value, 8);
}

static uint64_t get(const made *out, const bound_case *row)
{
    const char *base = row->what == ENDPOINT ? (const char *)out->endpoint : (const char *)out;
    uint64_t large = 0;
    uint32_t small = 0;
    if (row->out.width == 8) {
        memcpy(&large, base + row->out.offset, 8);
        return large;
    }
    memcpy(&small, base + row->out.offset, 4);
    return small;
}

/* What other fields must be, so that this one's own bounds count. */
static void prepare(passed *options, const char *name)
{
    if (strcmp(name, "low_watermark_bytes") == 0) options->endpoint.high_watermark_bytes = 1u << 31;
    if (strcmp(name, "high_watermark_bytes") == 0) options->endpoint.low_watermark_bytes = 1;
    if (strcmp(name, "message_bytes_max") == 0) options->runtime.partial_bytes_max = 1ull << 38;
}

static void check_value(const bound_case *row, uint64_t value, bool good)
{
    passed options = start();
    prepare(&options, row->name);
    put(&options, row->in, value);
    if (!good) {
        expect_failure(row->what, &options, row->name);
        return;
    }
    made out;
    rws_error error;
    int res = make(&out, row->what, &options, &error);
    cr_expect_eq(res, 0, "%s = %llu: %d %s", row->name, (unsigned long long)value, res, error.text);
    uint64_t expected = value == 0 ? row->standard : value;
    if (res == 0)
        cr_expect_eq(get(&out, row), expected, "%s: %llu instead of %llu", row->name,
                     (unsigned long long)get(&out, row), (unsigned long long)expected);
    drop(&out);
}

Test(engine_options, checks_every_bound_and_names_the_field)
{
    for (size_t i = 0; i < COUNT(bound_cases); i++) {
        const bound_case *row = &bound_cases[i];
        check_value(row, 0, true);
        if (row->min > 0) check_value(row, row->min, true);
        if (row->min > 1) check_value(row, row->min - 1, false);
        check_value(row, row->max, true);
        if (row->max == UINT32_MAX || row->max == UINT64_MAX) continue;
        check_value(row, row->max + 1, false);
        check_value(row, UINT32_MAX, row->max > UINT32_MAX);
        if (row->in.width == 8) check_value(row, UINT64_MAX, false);
    }
}

Test(engine_options, wants_a_power_of_two_of_buffers)
{
    static const bound_case row = RUNTIME_ROW(recv_buffers, recv_buffers, 8, 1, 32768);
    for (uint64_t count = 1; count <= 1024; count++)
        check_value(&row, count, (count & (count - 1)) == 0);
}

/* Where each receive takes a whole buffer, the defaults are others. */
Test(engine_options, has_buffers_for_both_ways_of_receiving)
{
    static const struct {
        size_t bytes;
        uint32_t count;
        size_t plain_bytes;
        uint32_t plain_count;
    } rows[] = {{0, 0, 32768, 128}, {1000, 0, 1000, 128}, {0, 16, 32768, 16}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        passed options = start();
        made out;
        options.runtime.recv_buffer_bytes = rows[i].bytes;
        options.runtime.recv_buffers = rows[i].count;
        expect_success(RUNTIME, &options, &out);
        cr_expect_eq(out.config.plain_buffer_bytes, rows[i].plain_bytes, "row %zu", i);
        cr_expect_eq(out.config.plain_buffers, rows[i].plain_count, "row %zu", i);
    }
}

Test(engine_options, knows_no_keep_alive_beside_the_default_one)
{
    static const struct {
        uint32_t given, expected;
        bool good;
    } rows[] = {
        {0, 60, true},        {1, 1, true},      {32767, 32767, true},
        {RWS_NEVER, 0, true}, {32768, 0, false}, {RWS_NEVER - 1, 0, false},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        passed options = start();
        made out;
        options.listener.keepalive_s = options.dial.keepalive_s = rows[i].given;
        if (!rows[i].good) {
            expect_failure(LISTENER, &options, "keepalive_s");
            expect_failure(DIAL, &options, "keepalive_s");
            continue;
        }
        expect_success(LISTENER, &options, &out);
        cr_expect_eq(out.listener.socket.keepalive_s, rows[i].expected, "%u", rows[i].given);
        drop(&out);
        expect_success(DIAL, &options, &out);
        cr_expect_eq(out.socket.keepalive_s, rows[i].expected, "%u", rows[i].given);
    }
}

/* TCP_USER_TIMEOUT would end a peer that merely reads slowly before send_timeout_ms does. */
Test(engine_options, keeps_the_user_timeout_above_the_send_timeout)
{
    static const struct {
        uint32_t send, user;
        bool good;
    } rows[] = {
        {0, 29999, false},      {0, 30000, true}, {1000, 999, false},
        {1000, 1000, true},     {1000, 0, true},  {DAY_MS, DAY_MS - 1, false},
        {DAY_MS, DAY_MS, true},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        passed options = start();
        made out;
        options.runtime.send_timeout_ms = rows[i].send;
        options.listener.user_timeout_ms = options.dial.user_timeout_ms = rows[i].user;
        if (!rows[i].good) {
            expect_failure(LISTENER, &options, "user_timeout_ms");
            expect_failure(DIAL, &options, "send_timeout_ms");
            continue;
        }
        expect_success(LISTENER, &options, &out);
        drop(&out);
        expect_success(DIAL, &options, &out);
    }
}

Test(engine_options, refuses_a_negative_socket_buffer)
{
    passed options = start();
    options.listener.socket_send_buffer_bytes = options.dial.socket_send_buffer_bytes = -1;
    expect_failure(LISTENER, &options, "socket_send_buffer_bytes");
    expect_failure(DIAL, &options, "socket_send_buffer_bytes");
}

/* ---- defaults, and fields that belong together ---- */

Test(engine_options, has_defaults_that_agree_with_themselves)
{
    passed options = start();
    made out;
    rws_error error;
    expect_success(ENDPOINT, &options, &out);
    const rws__endpoint *endpoint = out.endpoint;
    cr_expect_eq(endpoint->rules.role, RWS_SERVER);
    cr_expect(endpoint->rules.validate_utf8);
    cr_expect_eq(endpoint->rules.empty_fragments_max, 1024);
    cr_expect_not(endpoint->rules.allow_rsv1);
    cr_expect_leq(endpoint->low_watermark_bytes, endpoint->high_watermark_bytes);
    cr_expect_geq(endpoint->send_queue_bytes_max,
                  endpoint->high_watermark_bytes + endpoint->rules.message_bytes_max);
    cr_expect_geq(out.config.streams.partial_bytes_max, endpoint->rules.message_bytes_max);
    cr_expect_not(endpoint->fixed_mask_key);
    cr_expect_null(endpoint->path);
    cr_expect_null(endpoint->user);
    cr_expect_eq(endpoint->origins_count, 0);
    cr_expect_eq(endpoint->subprotocols_count, 0);
    drop(&out);
    cr_assert_eq(rws__runtime_config_make(&out.config, NULL, 3, &error), 0, "%s", error.text);
    cr_expect_eq(out.config.shards, 3);
    cr_expect_eq(out.config.features_off, 0);
    cr_expect_eq(
        rws__listener_config_make(&out.listener, &out.http, &out.own, &out.config, NULL, &error),
        0);
    cr_expect_str_eq(out.listener.address, "127.0.0.1");
    cr_expect_null(out.listener.unix_path);
    cr_expect_eq(out.listener.port, 9223);
    cr_expect_eq(out.own.fd, -1);
    cr_expect_not(out.listener.inherited);
    cr_expect(out.listener.peer_address);
    cr_expect_eq(out.http.headers_max, 64);
    drop(&out);
    cr_assert_eq(rws__dial_options_check(&out.dial, NULL, &out.config, &out.socket, &error), 0);
    cr_expect_eq(out.dial.shard, RWS_ANY_SHARD);
    cr_expect_eq(out.dial.timeout_ms, 10000);
}

/* An echo of the largest message is never refused by the default bound. */
Test(engine_options, lets_the_queue_follow_the_largest_message)
{
    passed options = start();
    made out;
    options.endpoint.message_bytes_max = 16u << 20;
    expect_success(ENDPOINT, &options, &out);
    cr_expect_geq(out.endpoint->send_queue_bytes_max,
                  out.endpoint->high_watermark_bytes + (16u << 20));
    drop(&out);
}

/* The default follows a smaller budget; what was asked for does not. */
Test(engine_options, wants_messages_that_fit_the_budget)
{
    passed options = start();
    made out;
    options.runtime.partial_bytes_max = 1000;
    expect_success(ENDPOINT, &options, &out);
    cr_expect_eq(out.endpoint->rules.message_bytes_max, 1000);
    drop(&out);
    options.endpoint.message_bytes_max = 1000;
    expect_success(ENDPOINT, &options, &out);
    drop(&out);
    options.endpoint.message_bytes_max = 1001;
    expect_failure(ENDPOINT, &options, "message_bytes_max");
    expect_failure(ENDPOINT, &options, "partial_bytes_max");
}

Test(engine_options, refuses_watermarks_that_cross)
{
    passed options = start();
    made out;
    options.endpoint.high_watermark_bytes = 1000;
    options.endpoint.low_watermark_bytes = 1001;
    expect_failure(ENDPOINT, &options, "low_watermark_bytes");
    expect_failure(ENDPOINT, &options, "high_watermark_bytes");
    options.endpoint.low_watermark_bytes = 1000;
    expect_success(ENDPOINT, &options, &out);
    drop(&out);
    options.endpoint.low_watermark_bytes = 0; /* the default is lowered */
    expect_success(ENDPOINT, &options, &out);
    cr_expect_eq(out.endpoint->low_watermark_bytes, 1000);
    drop(&out);
}

Test(engine_options, says_how_many_connections_the_descriptor_limit_allows)
{
    passed options = start();
    made out;
    limit_files(100); /* nothing is left beside what is spare */
    rws_error error;
    cr_assert_eq(make(&out, RUNTIME, &options, &error), RWS_E_OPTION);
    cr_expect_not_null(strstr(error.text, "ulimit -n"), "%s", error.text);
    cr_expect_not_null(strstr(error.text, "connections_max"), "%s", error.text);
    limit_files(129);
    expect_success(RUNTIME, &options, &out);
    cr_expect_eq(out.config.connections_max, 1);
}

Test(engine_options, wants_a_role)
{
    passed options = start();
    made out;
    options.endpoint.role = (rws_role)2;
    expect_failure(ENDPOINT, &options, "role");
    options.endpoint.role = RWS_CLIENT;
    expect_success(ENDPOINT, &options, &out);
    cr_expect_eq(out.endpoint->rules.role, RWS_CLIENT);
    drop(&out);
    options.endpoint.path = "/x";
    expect_failure(ENDPOINT, &options, "path");
    static const char *const list[] = {"https://example.org"};
    options.endpoint.path = NULL;
    options.endpoint.origins = list;
    options.endpoint.origins_count = 1;
    expect_failure(ENDPOINT, &options, "origins");
}

Test(engine_options, wants_a_path_that_a_request_can_have)
{
    static const struct {
        const char *path;
        bool good;
    } rows[] = {{"/", true},  {"/a/b", true},  {"", false},
                {"a", false}, {"/a?b", false}, {"/?", false}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        passed options = start();
        made out;
        options.endpoint.path = rows[i].path;
        if (!rows[i].good) {
            expect_failure(ENDPOINT, &options, "path");
            continue;
        }
        expect_success(ENDPOINT, &options, &out);
        cr_expect_str_eq(out.endpoint->path, rows[i].path);
        drop(&out);
    }
}

Test(engine_options, wants_a_shard_that_there_is)
{
    passed options = start();
    made out;
    options.dial.shard = SHARDS - 1;
    expect_success(DIAL, &options, &out);
    options.dial.shard = SHARDS;
    expect_failure(DIAL, &options, "shard");
    options.dial.shard = RWS_ANY_SHARD - 1;
    expect_failure(DIAL, &options, "shard");
    options.dial.shard = RWS_ANY_SHARD;
    options.dial.headers_count = 1;
    expect_failure(DIAL, &options, "headers");
}

Test(engine_options, knows_features_by_their_names)
{
    passed options = start();
    made out;
    const char *name, *text;
    uint32_t seen = 0;
    size_t count = 0;
    for (; rws_feature_at(count, &name, &text); count++) {
        options.runtime.features_off = name;
        expect_success(RUNTIME, &options, &out);
        cr_expect_neq(out.config.features_off, 0, "%s", name);
        cr_expect_eq(out.config.features_off & seen, 0, "%s", name);
        seen |= out.config.features_off;
    }
    cr_expect_gt(count, 3);
    cr_expect_not(rws_feature_at(SIZE_MAX, &name, &text));
    options.runtime.features_off = "all";
    expect_success(RUNTIME, &options, &out);
    cr_expect_eq(out.config.features_off, seen);
    cr_expect_eq(seen, RWS__FEATURE_ALL);
    options.runtime.features_off = "";
    expect_success(RUNTIME, &options, &out);
    cr_expect_eq(out.config.features_off, 0);
    static const char *const unknown[] = {"warp_drive", "all,warp_drive", "warp_drive,all", "ALLE"};
    for (size_t i = 0; i < COUNT(unknown); i++) {
        options.runtime.features_off = unknown[i];
        expect_failure(RUNTIME, &options, "features_off");
        expect_failure(RUNTIME, &options, i < 3 ? "\"warp_drive\"" : "\"ALLE\"");
    }
}

Test(engine_options, wants_an_allocator_that_is_whole)
{
    passed options = start();
    rws_allocator half = {.alloc = test_allocator_alloc};
    options.runtime.allocator = &half;
    expect_failure(RUNTIME, &options, "allocator");
    half = (rws_allocator){0};
    expect_failure(RUNTIME, &options, "allocator");
}

/* ---- sizes of structs ---- */

static const struct {
    kind what;
    size_t offset, size;
    const char *initialiser;
} structs[] = {
    {RUNTIME, offsetof(passed, runtime), sizeof(rws_runtime_options),
     "RWS_RUNTIME_OPTIONS_DEFAULT"},
    {ENDPOINT, offsetof(passed, endpoint), sizeof(rws_endpoint_options),
     "RWS_ENDPOINT_OPTIONS_DEFAULT"},
    {LISTENER, offsetof(passed, listener), sizeof(rws_listener_options),
     "RWS_LISTENER_OPTIONS_DEFAULT"},
    {DIAL, offsetof(passed, dial), sizeof(rws_dial_options), "RWS_DIAL_OPTIONS_DEFAULT"},
};

Test(engine_options, refuses_structs_that_are_longer_or_have_no_size)
{
    for (size_t i = 0; i < COUNT(structs); i++) {
        const size_t bad[] = {0, 1, 7, structs[i].size + 1, structs[i].size + 8, SIZE_MAX};
        for (size_t n = 0; n < COUNT(bad); n++) {
            passed options = start();
            memcpy((char *)&options + structs[i].offset, &bad[n], sizeof bad[n]);
            expect_failure(structs[i].what, &options, "size is");
            expect_failure(structs[i].what, &options, structs[i].initialiser);
        }
    }
}

/* Memory that ends where the older header's struct does, for the address sanitizer. */
static void *shorten(const void *options, size_t size)
{
    char *copy = malloc(size);
    cr_assert_not_null(copy);
    memcpy(copy, options, size);
    memcpy(copy, &size, sizeof size);
    return copy;
}

Test(engine_options, gives_defaults_to_what_older_structs_lack)
{
    passed options = start();
    made out;
    rws_error error;
    options.runtime.shards = 9;
    options.runtime.connections_max = 77;
    void *shorter = shorten(&options.runtime, offsetof(rws_runtime_options, connections_max));
    cr_assert_eq(rws__runtime_config_make(&out.config, shorter, 1, &error), 0, "%s", error.text);
    cr_expect_eq(out.config.shards, 9);
    cr_expect_eq(out.config.connections_max, CONNECTIONS);
    free(shorter);
    options.endpoint.user = &options;
    options.endpoint.validate_utf8 = false;
    shorter = shorten(&options.endpoint, offsetof(rws_endpoint_options, validate_utf8));
    cr_assert_eq(rws__endpoint_make(&out.endpoint, &out.config, shorter, &error), 0);
    cr_expect_eq(out.endpoint->user, &options);
    cr_expect(out.endpoint->rules.validate_utf8, "a default that is not 0");
    rws__endpoint_free(&out.config.env, out.endpoint);
    free(shorter);
    options.listener.port = 1;
    options.listener.fd = 5;
    options.listener.headers_max = 3;
    shorter = shorten(&options.listener, offsetof(rws_listener_options, fd));
    cr_assert_eq(
        rws__listener_config_make(&out.listener, &out.http, &out.own, &out.config, shorter, &error),
        0);
    cr_expect_eq(out.listener.port, 1);
    cr_expect_eq(out.own.fd, -1);
    cr_expect_eq(out.http.headers_max, 64);
    rws__listener_config_free(&out.config.env, &out.listener);
    free(shorter);
    options.dial.timeout_ms = 5;
    options.dial.shard = 0;
    shorter = shorten(&options.dial, offsetof(rws_dial_options, shard));
    cr_assert_eq(rws__dial_options_check(&out.dial, shorter, &out.config, &out.socket, &error), 0);
    cr_expect_eq(out.dial.timeout_ms, 5);
    cr_expect_eq(out.dial.shard, RWS_ANY_SHARD);
    free(shorter);
    /* `size` alone. */
    shorter = shorten(&options.runtime, sizeof(size_t));
    cr_assert_eq(rws__runtime_config_make(&out.config, shorter, 2, &error), 0);
    cr_expect_eq(out.config.shards, 2);
    free(shorter);
}

static void on_open(rws_conn *conn, void *user)
{
    (void)conn;
    (void)user;
}

static int on_pong(rws_conn *conn, const void *data, size_t len, void *user)
{
    (void)conn;
    (void)data;
    (void)len;
    (void)user;
    return 0;
}

Test(engine_options, takes_a_shorter_handler)
{
    passed options = start();
    made out;
    rws_handler mine = RWS_HANDLER_DEFAULT;
    mine.on_open = on_open;
    mine.on_pong = on_pong;
    options.endpoint.handler = shorten(&mine, offsetof(rws_handler, on_pong));
    expect_success(ENDPOINT, &options, &out);
    free((void *)options.endpoint.handler);
    cr_expect_eq(out.endpoint->handler.on_open, on_open);
    cr_expect_null(out.endpoint->handler.on_pong);
    drop(&out);
    const size_t bad[] = {0, 7, sizeof mine + 1, SIZE_MAX};
    options.endpoint.handler = &mine;
    for (size_t i = 0; i < COUNT(bad); i++) {
        mine.size = bad[i];
        expect_failure(ENDPOINT, &options, "RWS_HANDLER_DEFAULT");
    }
    options.endpoint.handler = NULL;
    expect_failure(ENDPOINT, &options, "handler");
}

/* ---- strings and lists ---- */

/* All strings in memory of their own, to be changed. */
typedef struct strings {
    char path[8], one[24], two[8], chat[8], superchat[16], address[8];
    const char *origins[2], *subprotocols[2];
} strings;

static strings make_strings(void)
{
    return (strings){
        .path = "/chat",
        .one = "https://example.org",
        .two = "null",
        .chat = "chat",
        .superchat = "superchat",
        .address = "::1",
    };
}

static void pass_strings(passed *options, strings *own)
{
    own->origins[0] = own->one;
    own->origins[1] = own->two;
    own->subprotocols[0] = own->superchat;
    own->subprotocols[1] = own->chat;
    options->endpoint.path = own->path;
    options->endpoint.origins = own->origins;
    options->endpoint.subprotocols = own->subprotocols;
    options->endpoint.origins_count = options->endpoint.subprotocols_count = 2;
    options->listener.address = own->address;
}

Test(engine_options, copies_the_strings)
{
    passed options = start();
    made out;
    strings own = make_strings();
    pass_strings(&options, &own);
    expect_success(ENDPOINT, &options, &out);
    memset(&own, 'x', sizeof own);
    cr_expect_str_eq(out.endpoint->path, "/chat");
    cr_expect_str_eq(out.endpoint->origins[0], "https://example.org");
    cr_expect_str_eq(out.endpoint->origins[1], "null");
    cr_expect_str_eq(out.endpoint->subprotocols[0], "superchat");
    cr_expect_str_eq(out.endpoint->subprotocols[1], "chat");
    drop(&out);
    own = make_strings();
    expect_success(LISTENER, &options, &out);
    memset(&own, 'x', sizeof own);
    cr_expect_str_eq(out.listener.address, "::1");
    drop(&out);
    char path[] = "/tmp/x.sock";
    options.listener.unix_path = path;
    options.listener.address = "127.0.0.1";
    expect_success(LISTENER, &options, &out);
    memset(path, 'x', 4);
    cr_expect_str_eq(out.listener.unix_path, "/tmp/x.sock");
    cr_expect_null(out.listener.address);
    drop(&out);
    options.listener.fd = 7;
    expect_success(LISTENER, &options, &out);
    cr_expect(out.listener.inherited);
    cr_expect_eq(out.own.fd, 7);
    cr_expect_null(out.listener.unix_path);
    drop(&out);
    options.listener = (rws_listener_options){.size = sizeof options.listener, .fd = -1};
    expect_success(LISTENER, &options, &out);
    cr_expect_str_eq(out.listener.address, "127.0.0.1", "NULL is the default");
    drop(&out);
}

Test(engine_options, leaves_nothing_behind_whichever_copy_fails)
{
    static const kind kinds[] = {ENDPOINT, LISTENER};
    for (size_t i = 0; i < COUNT(kinds); i++) {
        int res = -1;
        size_t fail_at = 0;
        while (res != 0) {
            test_allocator memory = {.fail_at = ++fail_at};
            rws_allocator allocator = TEST_ALLOCATOR(&memory);
            passed options = start();
            made out;
            rws_error error;
            strings own = make_strings();
            pass_strings(&options, &own);
            options.runtime.allocator = &allocator;
            res = make(&out, kinds[i], &options, &error);
            if (res != 0) {
                cr_expect_eq(res, -ENOMEM, "allocation %zu: %d", fail_at, res);
                cr_expect_eq(error.status, -ENOMEM);
                cr_expect_not_null(strstr(error.text, "no memory"), "%s", error.text);
                cr_expect_null(out.endpoint);
            }
            drop(&out);
            cr_expect_eq(memory.live, 0, "allocation %zu: %zu blocks are left", fail_at,
                         memory.live);
            cr_assert_lt(fail_at, 100);
        }
        /* The endpoint, its path, two lists, four strings; the listener's address. */
        cr_expect_eq(fail_at - 1, kinds[i] == ENDPOINT ? 8 : 1);
    }
}

/* A list that is there by half allows nobody rather than everybody. */
Test(engine_options, refuses_a_list_that_is_there_by_half)
{
    static const char *const list[] = {"one", NULL};
    static const struct {
        const char *const *list;
        uint32_t count;
    } rows[] = {{NULL, 1}, {list, 2}, {list, 0}, {list, 65537}, {list, UINT32_MAX}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        passed options = start();
        options.endpoint.origins = rows[i].list;
        options.endpoint.origins_count = rows[i].count;
        expect_failure(ENDPOINT, &options, "origins");
        options = start();
        options.endpoint.subprotocols = rows[i].list;
        options.endpoint.subprotocols_count = rows[i].count;
        expect_failure(ENDPOINT, &options, "subprotocols");
    }
}

Test(engine_options, wants_subprotocols_that_are_tokens)
{
    static const struct {
        const char *name;
        bool good;
    } rows[] = {
        {"v1.chat.example", true},
        {"x", true},
        {"", false},
        {"a b", false},
        {"a,b", false},
        {"a\r\nX: y", false},
        {"caf\xe9", false},
        {"\"a\"", false},
    };
    for (size_t i = 0; i < COUNT(rows) * 2; i++) {
        passed options = start();
        made out;
        const char *list[] = {"chat", rows[i / 2].name};
        options.endpoint.role = i % 2 ? RWS_CLIENT : RWS_SERVER;
        options.endpoint.subprotocols = list;
        options.endpoint.subprotocols_count = 2;
        if (!rows[i / 2].good) {
            expect_failure(ENDPOINT, &options, "subprotocols[1]");
            continue;
        }
        expect_success(ENDPOINT, &options, &out);
        drop(&out);
    }
}
