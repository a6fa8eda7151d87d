/*
 * Options of runtimes, endpoints, listeners and dials: every default, every bound and one beyond
 * it, and fields that belong together; the sentence names the field.
 */
#include <criterion/criterion.h>

#include <stddef.h>
#include <string.h>

#include "engine/base/features.h"
#include "support/made_options.h"
#include "support/test_allocator.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define DAY_MS       86400000u

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
        /* UINT32_MAX is RWS_NEVER, and good for a drain. */
        check_value(row, UINT32_MAX - 1, row->max > UINT32_MAX);
        if (strcmp(row->name, "drain_timeout_ms") != 0)
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

Test(engine_options, knows_a_drain_without_an_end)
{
    passed options = start();
    made out;
    rws_error error;
    options.runtime.drain_timeout_ms = RWS_NEVER;
    cr_assert_eq(make(&out, RUNTIME, &options, &error), 0, "%s", error.text);
    cr_expect_eq(out.config.drain_timeout_ms, RWS_NEVER);
    cr_expect_eq(out.config.streams.linger_timeout_ms, 5000, "the others have their defaults");
    options.runtime.drain_timeout_ms = RWS_NEVER - 1;
    expect_failure(RUNTIME, &options, "drain_timeout_ms");
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
    options.endpoint.role = (rws_role)2;
    const rws_role given = RWS_CLIENT;
    rws_error error;
    cr_assert_eq(make(&out, RUNTIME, &options, &error), 0);
    cr_assert_eq(rws__endpoint_make(&out.endpoint, &out.config, &options.endpoint, &given, &error),
                 0, "the options' role is not looked at: %s", error.text);
    cr_expect_eq(out.endpoint->rules.role, RWS_CLIENT);
    drop(&out);
    options.endpoint.role = RWS_CLIENT;
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
    } rows[] = {
        {"/", true},      {"/a/b", true},   {"/a%20b", true},      {"/~a;b='c'", true},
        {"", false},      {"a", false},     {"/a?b", false},       {"/?", false},
        {"/a b", false},  {"/ ", false},    {"/a#b", false},       {"/caf\xc3\xa9", false},
        {"/a\tb", false}, {"/\x7f", false}, {"/a\r\nX: y", false},
    };
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

Test(engine_options, wants_origins_that_can_match)
{
    static const struct {
        const char *list[2]; /* the second may be missing */
        const char *wrong;   /* which is named; NULL: good */
    } rows[] = {
        {{"*"}, NULL},
        {{"null"}, NULL},
        {{"https://example.org", "http://[::1]:3000"}, NULL},
        {{"HTTP://A", "null"}, NULL},
        {{"app://ui", "file://"}, NULL},
        {{"*", "https://a"}, "origins[0] is \"*\""},
        {{"https://a", "*"}, "origins[1] is \"*\""},
        {{"http://A/"}, "origins[0] is \"http://A/\""},
        {{"https://a", "https://a/x"}, "origins[1]"},
        {{"https://*.b"}, "origins[0]"},
        {{"example.org"}, "origins[0]"},
        {{"https://a:70000"}, "origins[0]"},
        {{"https://a "}, "origins[0]"},
        {{"NULL"}, "origins[0]"},
        {{""}, "origins[0]"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        passed options = start();
        made out;
        options.endpoint.origins = rows[i].list;
        options.endpoint.origins_count = rows[i].list[1] != NULL ? 2 : 1;
        if (rows[i].wrong != NULL) {
            expect_failure(ENDPOINT, &options, rows[i].wrong);
            continue;
        }
        expect_success(ENDPOINT, &options, &out);
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
