/*
 * What is copied of the options of runtimes, endpoints, listeners and dials: structs of older and
 * newer headers; strings and lists.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "support/made_options.h"
#include "support/test_allocator.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

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

Test(engine_options_copies, refuses_structs_that_are_longer_or_end_within_a_field)
{
    for (size_t i = 0; i < COUNT(structs); i++) {
        const size_t bad[] = {
            0,       1, 7, 9, 12, 20, structs[i].size - 1, structs[i].size + 1, structs[i].size + 8,
            SIZE_MAX};
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

Test(engine_options_copies, gives_defaults_to_what_older_structs_lack)
{
    passed options = start();
    made out;
    rws_error error;
    options.runtime.shards = 9;
    options.runtime.recv_buffers = 16;
    void *shorter = shorten(&options.runtime, offsetof(rws_runtime_options, recv_buffer_bytes));
    cr_assert_eq(rws__runtime_config_make(&out.config, shorter, 1, &error), 0, "%s", error.text);
    cr_expect_eq(out.config.shards, 9);
    cr_expect_eq(out.config.recv_buffers, 8);
    free(shorter);
    options.endpoint.user = &options;
    options.endpoint.validate_utf8 = false;
    shorter = shorten(&options.endpoint, offsetof(rws_endpoint_options, subprotocols_count));
    cr_assert_eq(rws__endpoint_make(&out.endpoint, &out.config, shorter, NULL, &error), 0);
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

Test(engine_options_copies, takes_a_shorter_handler)
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
    const size_t bad[] = {0, 7, 19, sizeof mine - 1, sizeof mine + 1, SIZE_MAX};
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

Test(engine_options_copies, copies_the_strings)
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

Test(engine_options_copies, leaves_nothing_behind_whichever_copy_fails)
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
Test(engine_options_copies, refuses_a_list_that_is_there_by_half)
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

Test(engine_options_copies, wants_subprotocols_that_are_tokens)
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
