/*
 * Options: every bound and one beyond it, for servers and clients; the sentence names the field;
 * shorter structs of older headers; the copies of strings.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "engine/server/config.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static const rws_handler handler = RWS_HANDLER_DEFAULT;

/* Both structs at once, so that one table serves both. */
typedef struct both {
    rws_server_options server;
    rws_client_options client;
} both;

typedef struct option_field {
    size_t offset;
    size_t width;
} option_field;

#define FIELD(type, name)                                                                          \
    {                                                                                              \
        offsetof(type, name), sizeof(((type *)NULL)->name)                                         \
    }
#define BOTH(name) FIELD(rws_server_options, name), FIELD(rws_client_options, name)
#define SERVER_ONLY(name)                                                                          \
    FIELD(rws_server_options, name),                                                               \
    {                                                                                              \
        0, 0                                                                                       \
    }

static void put(void *options, option_field field, uint64_t value)
{
    char *at = (char *)options + field.offset;
    if (field.width == 4)
        memcpy(at, &(uint32_t){(uint32_t)value}, 4);
    else
        memcpy(at, &value, 8);
}

typedef struct bound_case {
    const char *name;
    option_field server, client;
    uint64_t min, max;
} bound_case;

#define ROW(name, min, max)                                                                        \
    {                                                                                              \
#name, BOTH(name), min, max                                                                \
    }
#define SERVER_ROW(name, min, max)                                                                 \
    {                                                                                              \
#name, SERVER_ONLY(name), min, max                                                         \
    }
#define DAY_MS 86400000u

static const bound_case bound_cases[] = {
    SERVER_ROW(backlog, 1, 65535),
    SERVER_ROW(headers_max, 0, 1024),
    ROW(shards, 1, 256),
    ROW(handshake_bytes_max, 256, 1048576),
    ROW(message_bytes_max, 1, (1ull << 31) - (1u << 20)),
    ROW(fragments_max, 1, UINT32_MAX),
    ROW(recv_buffer_bytes, 512, 1u << 26),
    ROW(recv_buffers, 1, 32768),
    ROW(partial_bytes_max, 1000, 1ull << 38),
    ROW(send_queue_bytes_max, 1024, 1ull << 33),
    ROW(send_pool_bytes_max, 65536, 1ull << 39),
    ROW(retained_bytes_max, 1, 1ull << 38),
    ROW(high_watermark_bytes, 1, 1ull << 31),
    ROW(low_watermark_bytes, 1, 1ull << 31),
    ROW(handshake_timeout_ms, 1, DAY_MS),
    ROW(message_timeout_ms, 1, DAY_MS),
    ROW(close_timeout_ms, 1, DAY_MS),
    ROW(drain_timeout_ms, 1, DAY_MS),
    ROW(busy_wait_us, 0, UINT64_MAX),
    ROW(connections_max, 1, 2000 - 128), /* with 2,000 open files */
};

static void start(both *options)
{
    struct rlimit limit;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = 2000;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    *options = (both){RWS_SERVER_OPTIONS_DEFAULT, RWS_CLIENT_OPTIONS_DEFAULT};
}

/* What other fields must be, so that this one's own bounds count. */
static void prepare(both *options, const char *name)
{
    if (strcmp(name, "low_watermark_bytes") == 0)
        options->server.high_watermark_bytes = options->client.high_watermark_bytes = 1u << 31;
    if (strcmp(name, "high_watermark_bytes") == 0)
        options->server.low_watermark_bytes = options->client.low_watermark_bytes = 1;
    if (strcmp(name, "partial_bytes_max") == 0)
        options->server.message_bytes_max = options->client.message_bytes_max = 1000;
}

static void check_value(const bound_case *row, uint64_t value, bool good)
{
    both options;
    start(&options);
    prepare(&options, row->name);
    put(&options.server, row->server, value);
    if (row->client.width != 0) put(&options.client, row->client, value);
    for (int client = 0; client <= (row->client.width != 0); client++) {
        rws__config config;
        rws_error error = {0};
        int res = client ? rws__config_for_client(&config, &options.client, &handler, &error)
                         : rws__config_for_server(&config, &options.server, &handler, &error);
        cr_expect_eq(res, good ? 0 : RWS_E_OPTION, "%s = %llu: %d %s", row->name,
                     (unsigned long long)value, res, error.text);
        if (res == 0) rws__config_free(&config);
        if (good) continue;
        cr_expect_eq(error.status, RWS_E_OPTION);
        cr_expect_eq(strncmp(error.text, row->name, strlen(row->name)), 0, "%s: \"%s\"", row->name,
                     error.text);
    }
}

Test(engine_options, checks_every_bound_and_names_the_field)
{
    for (size_t i = 0; i < COUNT(bound_cases); i++) {
        const bound_case *row = &bound_cases[i];
        check_value(row, 0, true);
        check_value(row, row->min, true);
        if (row->min > 1) check_value(row, row->min - 1, false);
        check_value(row, row->max, true);
        if (row->max == UINT32_MAX || row->max == UINT64_MAX) continue;
        check_value(row, row->max + 1, false);
        check_value(row, UINT32_MAX, row->max > UINT32_MAX);
        if (row->server.width == 8) check_value(row, UINT64_MAX, false);
    }
}

Test(engine_options, wants_a_power_of_two_of_buffers)
{
    static const bound_case row = ROW(recv_buffers, 1, 32768);
    for (uint64_t count = 1; count <= 1024; count++)
        check_value(&row, count, (count & (count - 1)) == 0);
}

Test(engine_options, has_defaults_that_agree_with_themselves)
{
    both options;
    start(&options);
    for (int client = 0; client < 2; client++) {
        rws__config config;
        rws_error error = {0};
        int res = client ? rws__config_for_client(&config, NULL, &handler, &error)
                         : rws__config_for_server(&config, NULL, &handler, &error);
        cr_assert_eq(res, 0, "%s", error.text);
        cr_expect_eq(config.role, client ? RWS_CLIENT : RWS_SERVER);
        cr_expect_eq(config.rules.role, config.role);
        cr_expect(config.rules.validate_utf8);
        cr_expect_eq(config.rules.message_bytes_max, 65536);
        cr_expect_eq(config.rules.fragments_max, 131072);
        cr_expect_eq(config.rules.empty_fragments_max, 1024);
        cr_expect_not(config.rules.allow_rsv1);
        cr_expect_eq(config.connections_max, 2000 - 128);
        cr_expect_leq(config.low_watermark_bytes, config.high_watermark_bytes);
        cr_expect_geq(config.send_queue_bytes_max,
                      config.high_watermark_bytes + config.rules.message_bytes_max);
        cr_expect_geq(config.partial_bytes_max, config.rules.message_bytes_max);
        cr_expect_not(config.fixed_mask_key);
        cr_expect_eq(config.peer_address, !client);
        cr_expect_eq(config.headers_max, 64);
        cr_expect_eq(config.busy_wait_us, 0);
        if (!client) cr_expect_str_eq(config.address, "127.0.0.1");
        if (!client) cr_expect_eq(config.port, 9223);
        rws__config_free(&config);
    }
}

/* An echo of the largest message is never refused by the default bound. */
Test(engine_options, lets_the_queue_follow_the_largest_message)
{
    both options;
    start(&options);
    options.server.message_bytes_max = 16u << 20;
    rws__config config;
    rws_error error = {0};
    cr_assert_eq(rws__config_for_server(&config, &options.server, &handler, &error), 0);
    cr_expect_geq(config.send_queue_bytes_max, config.high_watermark_bytes + (16u << 20));
    cr_expect_geq(config.partial_bytes_max, 16u << 20);
    rws__config_free(&config);
}

Test(engine_options, refuses_watermarks_that_cross)
{
    both options;
    start(&options);
    options.server.high_watermark_bytes = 1000;
    options.server.low_watermark_bytes = 1001;
    rws__config config;
    rws_error error = {0};
    cr_assert_eq(rws__config_for_server(&config, &options.server, &handler, &error), RWS_E_OPTION);
    cr_expect_not_null(strstr(error.text, "low_watermark_bytes"));
    cr_expect_not_null(strstr(error.text, "high_watermark_bytes"));
    options.server.low_watermark_bytes = 1000;
    cr_assert_eq(rws__config_for_server(&config, &options.server, &handler, &error), 0);
    rws__config_free(&config);
    options.server.low_watermark_bytes = 0; /* the default gives way */
    cr_assert_eq(rws__config_for_server(&config, &options.server, &handler, &error), 0);
    cr_expect_eq(config.low_watermark_bytes, 1000);
    rws__config_free(&config);
}

Test(engine_options, says_how_many_connections_the_descriptor_limit_allows)
{
    both options;
    start(&options);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = 100; /* nothing is left beside what is spare */
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    rws__config config;
    rws_error error = {0};
    cr_assert_eq(rws__config_for_server(&config, NULL, &handler, &error), RWS_E_OPTION);
    cr_expect_not_null(strstr(error.text, "ulimit -n"), "%s", error.text);
}

/* ---- sizes of structs ---- */

Test(engine_options, takes_shorter_structs_and_refuses_longer_ones)
{
    both options;
    start(&options);
    options.server.backlog = 77;
    options.server.user = &options;
    rws__config config;
    rws_error error = {0};
    static const size_t bad[] = {
        0, 1, 7, sizeof(rws_server_options) + 1, sizeof(rws_server_options) + 8, SIZE_MAX};
    for (size_t i = 0; i < COUNT(bad); i++) {
        options.server.size = bad[i];
        error = (rws_error){0};
        cr_expect_eq(rws__config_for_server(&config, &options.server, &handler, &error),
                     RWS_E_OPTION, "%zu", bad[i]);
        cr_expect_not_null(strstr(error.text, "options.size"), "%zu: %s", bad[i], error.text);
    }
    options.server.size = offsetof(rws_server_options, busy_wait_us);
    options.server.busy_wait_us = 1;
    cr_assert_eq(rws__config_for_server(&config, &options.server, &handler, &error), 0);
    cr_expect_eq(config.busy_wait_us, 0);
    rws__config_free(&config);
    options.server.size = sizeof options.server;
    cr_assert_eq(rws__config_for_server(&config, &options.server, &handler, &error), 0);
    cr_expect_eq(config.busy_wait_us, 1);
    rws__config_free(&config);
    options.server.size = offsetof(rws_server_options, user);
    cr_assert_eq(rws__config_for_server(&config, &options.server, &handler, &error), 0);
    cr_expect_eq(config.backlog, 77);
    cr_expect_null(config.user, "the field is not there yet");
    rws__config_free(&config);
    options.server.size = offsetof(rws_server_options, backlog);
    cr_assert_eq(rws__config_for_server(&config, &options.server, &handler, &error), 0);
    cr_expect_eq(config.backlog, 4096);
    rws__config_free(&config);
    options.client.size = sizeof(rws_client_options) + 8;
    cr_expect_eq(rws__config_for_client(&config, &options.client, &handler, &error), RWS_E_OPTION);
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
    both options;
    start(&options);
    rws__config config;
    rws_error error = {0};
    rws_handler mine = RWS_HANDLER_DEFAULT;
    mine.on_open = on_open;
    mine.on_pong = on_pong;
    mine.size = offsetof(rws_handler, on_pong);
    cr_assert_eq(rws__config_for_server(&config, NULL, &mine, &error), 0);
    cr_expect_eq(config.handler.on_open, on_open);
    cr_expect_null(config.handler.on_pong);
    rws__config_free(&config);
    mine.size = 0;
    cr_expect_eq(rws__config_for_server(&config, NULL, &mine, &error), RWS_E_OPTION);
    cr_expect_eq(rws__config_for_server(&config, NULL, NULL, &error), RWS_E_OPTION);
    cr_expect_not_null(strstr(error.text, "handler"));
}

/* ---- strings ---- */

Test(engine_options, copies_the_strings)
{
    both options;
    start(&options);
    char address[] = "::1", one[] = "https://example.org", two[] = "null", path[] = "/tmp/x.sock";
    const char *origins[] = {one, two};
    options.server.address = address;
    options.server.origins = origins;
    options.server.origins_count = 2;
    rws__config config;
    rws_error error = {0};
    cr_assert_eq(rws__config_for_server(&config, &options.server, &handler, &error), 0);
    memset(address, 'x', 3);
    memset(one, 'x', 5);
    origins[1] = NULL;
    cr_expect_str_eq(config.address, "::1");
    cr_expect_str_eq(config.origins[0], "https://example.org");
    cr_expect_str_eq(config.origins[1], "null");
    rws__config_free(&config);
    rws__config_free(&config); /* again does nothing */
    options.server.origins_count = 0;
    options.server.origins = NULL;
    options.server.unix_path = path;
    cr_assert_eq(rws__config_for_server(&config, &options.server, &handler, &error), 0);
    memset(path, 'x', 4);
    cr_expect_str_eq(config.unix_path, "/tmp/x.sock");
    rws__config_free(&config);
}

/* A list that is there by half allows nobody rather than everybody. */
Test(engine_options, refuses_a_list_of_origins_that_is_there_by_half)
{
    static const char *const list[] = {"https://example.org", NULL};
    static const struct {
        const char *const *origins;
        uint32_t count;
    } rows[] = {{NULL, 1}, {list, 2}, {list, 0}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        both options;
        start(&options);
        options.server.origins = rows[i].origins;
        options.server.origins_count = rows[i].count;
        rws__config config;
        rws_error error = {0};
        cr_expect_eq(rws__config_for_server(&config, &options.server, &handler, &error),
                     RWS_E_OPTION, "row %zu", i);
        cr_expect_not_null(strstr(error.text, "origins"), "%s", error.text);
    }
}
