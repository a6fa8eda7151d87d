/*
 * Memory from the program's allocator: every allocation fails in turn, everything is released with
 * its size, and connections take nothing from it while they live. ctest: filtered
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "support/engine_filter.h"
#include "support/options.h"
#include "support/raw_client.h"
#include "support/test_allocator.h"

static test_allocator memory;
static const rws_allocator allocator = TEST_ALLOCATOR(&memory);

/* A block that is released with another size does not get here. */
static void nothing_is_left(size_t fail_at)
{
    cr_assert_eq(memory.bytes, 0, "%zu bytes are left after failure %zu", memory.bytes, fail_at);
}

/* ---- every allocation fails ---- */

static void skip_without_io_uring(void)
{
    rws_probe probe = {.size = sizeof probe};
    if (rws_probe_kernel(&probe) != 0) cr_skip_test("%s", probe.text);
}

static int make_server(const char *unix_path)
{
    static const char *const origins[] = {"https://example.org", "null"};
    test_options options = {0};
    options.port = 0;
    options.shards = 3;
    options.connections_max = 16;
    options.unix_path = unix_path;
    options.origins = origins;
    options.origins_count = 2;
    options.allocator = &allocator;
    rws_handler handler = RWS_HANDLER_DEFAULT;
    rws_server *server = (void *)1;
    rws_error error = {0};
    int res = test_server_create(&server, &options, &handler, &error);
    if (res != 0) {
        cr_assert_null(server);
        cr_assert_eq(error.status, res);
        cr_assert_gt(strlen(error.text), 5, "a sentence");
    }
    rws_server_destroy(server);
    return res;
}

static int make_client(const char *dial)
{
    test_options options = {0};
    options.shards = 2;
    options.connections_max = 16;
    options.allocator = &allocator;
    rws_handler handler = RWS_HANDLER_DEFAULT;
    rws_client *client = (void *)1;
    rws_error error = {0};
    int res = test_client_create(&client, &options, &handler, &error);
    if (res != 0) cr_assert_null(client);
    if (res != 0) cr_assert_eq(error.status, res);
    if (res == 0 && dial != NULL) res = test_dial(client, &options, dial, "a, b", NULL);
    rws_client_destroy(client);
    return res;
}

static void fail_every_allocation(int (*make)(const char *), const char *argument)
{
    for (size_t fail_at = 1;; fail_at++) {
        memory.calls = 0;
        memory.fail_at = fail_at;
        int res = make(argument);
        nothing_is_left(fail_at);
        if (memory.calls < fail_at) {
            cr_assert_eq(res, 0, "no allocation failed: %d", res);
            cr_assert_gt(fail_at, 3);
            return;
        }
        cr_assert_eq(res, -ENOMEM, "allocation %zu failed: %d", fail_at, res);
    }
}

Test(engine_memory, survives_every_failed_allocation_of_a_server)
{
    skip_without_io_uring();
    fail_every_allocation(make_server, NULL);
}

Test(engine_memory, survives_every_failed_allocation_of_a_server_on_a_unix_socket)
{
    skip_without_io_uring();
    char path[64];
    snprintf(path, sizeof path, "/tmp/ringws-memory-%d.sock", (int)getpid());
    fail_every_allocation(make_server, path);
    cr_assert_neq(access(path, F_OK), 0, "the socket's file is left");
}

Test(engine_memory, survives_every_failed_allocation_of_a_client)
{
    skip_without_io_uring();
    fail_every_allocation(make_client, NULL);
}

Test(engine_memory, survives_every_failed_allocation_of_a_dial)
{
    skip_without_io_uring();
    fail_every_allocation(make_client, "ws://127.0.0.1:9/chat?x=1");
}

/* ---- nothing is allocated while connections live ---- */

static int echo(rws_conn *conn, const rws_message *message, void *user)
{
    (void)user;
    return rws_conn_send_message(conn, message);
}

static void exchange(raw_client *client, size_t len)
{
    static uint8_t payload[70000];
    memset(payload, 'x', sizeof payload);
    cr_assert(raw_send_frame(client, RAW_BINARY, payload, len));
    raw_frame frame;
    cr_assert_eq(raw_read_frame(client, &frame), 1);
    cr_assert_eq(frame.len, len);
    cr_assert(raw_send_frame(client, RAW_TEXT & ~RAW_FIN, "in ", 3));
    cr_assert(raw_send_frame(client, RAW_PING, "ping", 4));
    cr_assert(raw_send_frame(client, RAW_FIN, "frames", 6));
    cr_assert_eq(raw_read_frame(client, &frame), 1);
    cr_assert_eq(frame.first, RAW_PONG);
    cr_assert_eq(raw_read_frame(client, &frame), 1);
    cr_assert_eq(frame.len, 9);
}

Test(engine_memory, is_not_taken_while_connections_live)
{
    skip_without_io_uring();
    test_options options = {0};
    options.port = 0;
    options.shards = 1;
    options.connections_max = 64;
    options.allocator = &allocator;
    rws_handler handler = RWS_HANDLER_DEFAULT;
    handler.on_message = echo;
    rws_server *server;
    rws_error error = {0};
    cr_assert_eq(test_server_create(&server, &options, &handler, &error), 0, "%s", error.text);
    engine_filter_server(server);
    cr_assert_eq(rws_server_start(server, &error), 0, "%s", error.text);
    size_t before = memory.calls;
    raw_client clients[8];
    for (int i = 0; i < 8; i++)
        cr_assert(raw_open(&clients[i], rws_server_port(server, 0)));
    for (size_t round = 0; round < 20; round++)
        for (int i = 0; i < 8; i++)
            exchange(&clients[i], round * 3000);
    cr_assert_eq(memory.calls, before, "%zu allocations", memory.calls - before);
    for (int i = 0; i < 8; i++)
        raw_close(&clients[i]);
    rws_server_destroy(server);
    nothing_is_left(0);
}
