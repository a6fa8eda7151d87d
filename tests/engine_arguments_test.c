/*
 * Arguments and options at their edges: what is refused leaves no trace, and what an option says is
 * what is done.
 */
/* ctest: testing kit */
#include "support/kit_log.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

TestSuite(engine_arguments, .timeout = 60);

static kit_failures failures;
static kit_log events;
static rws_handler handler;

static rws_test *open_with(const rws_runtime_options *runtime, const rws_listener_options *listener)
{
    static rws_endpoint_options endpoint;
    rws_test_options options = RWS_TEST_OPTIONS_DEFAULT;
    handler = kit_handler();
    endpoint = kit_endpoint(&handler, &events);
    options.endpoint = &endpoint;
    options.runtime = runtime;
    options.listener = listener;
    rws_test_on_failure(kit_on_failure, &failures);
    return rws_test_open_with(&options);
}

/* ---- sending ---- */

Test(engine_arguments, what_is_no_message_is_not_sent)
{
    rws_test *test = open_with(NULL, NULL);
    rws_test_peer *peer = rws_test_connect(test);
    rws_conn *conn = rws_test_conn(peer);
    static const rws_message newer = {.layout = RWS_MESSAGE_LAYOUT + 1, .opcode = RWS_TEXT};
    cr_expect_eq(rws_conn_send_message(conn, NULL), RWS_E_ARGUMENT);
    cr_expect_eq(rws_conn_send_message(conn, &newer), RWS_E_ARGUMENT);

    static const struct {
        rws_opcode opcode;
        const void *data;
        size_t len;
        int status;
    } rows[] = {
        {RWS_TEXT, NULL, 1, RWS_E_ARGUMENT},
        {RWS_TEXT, "", SIZE_MAX, RWS_E_ARGUMENT},
        {RWS_BINARY, "", (size_t)1 << 62, RWS_E_ARGUMENT},
        {RWS_PING, "a", 1, RWS_E_ARGUMENT},
        {RWS_CLOSE, "a", 1, RWS_E_ARGUMENT},
        {RWS_CONTINUATION, "a", 1, RWS_E_ARGUMENT},
        {RWS_TEXT, NULL, 0, 0},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        int status = rws_conn_send(conn, rows[i].opcode, rows[i].data, rows[i].len);
        cr_expect_eq(status, rows[i].status, "send, row %zu: %d", i, status);
    }
    rws_test_expect_text(peer, "");
    static const struct {
        rws_opcode opcode;
        const void *data;
        size_t len;
    } frames[] = {
        {RWS_TEXT, NULL, 1},        {RWS_TEXT, "", SIZE_MAX},       {RWS_PING, "", SIZE_MAX},
        {RWS_CLOSE, "\x03\xe8", 2}, {(rws_opcode)7, "reserved", 8},
    };
    for (size_t i = 0; i < COUNT(frames); i++)
        cr_expect_eq(
            rws_conn_send_frame(conn, frames[i].opcode, true, frames[i].data, frames[i].len),
            RWS_E_ARGUMENT, "frame, row %zu", i);
    cr_expect(rws_test_expect_nothing(peer), "%s", failures.text);
    cr_expect(rws_test_close(test));
}

static void *take(size_t size, void *user)
{
    (void)user;
    return malloc(size);
}

static void give(void *memory, size_t size, void *user)
{
    (void)size;
    (void)user;
    free(memory);
}

Test(engine_arguments, half_an_allocator_is_none)
{
    static const rws_allocator rows[] = {{0}, {.alloc = take}, {.release = give}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        rws_message *message = (void *)1;
        cr_expect_eq(rws_message_create(&message, &rows[i], RWS_TEXT, "a", 1), RWS_E_ARGUMENT,
                     "row %zu", i);
        cr_expect_null(message);
    }
    static const rws_allocator whole = {.alloc = take, .release = give};
    rws_message *message;
    cr_assert_eq(rws_message_create(&message, &whole, RWS_TEXT, "a", 1), 0);
    rws_message_release(message);
}

/* ---- options ---- */

Test(engine_arguments, features_that_there_are_not)
{
    static const struct {
        const char *list, *says;
    } rows[] = {
        {"abc", "features_off has \"abc\""},
        {"ALL", "features_off has \"ALL\""},
        {",", "features_off has \"\""},
        {"all,,all", "features_off has \"\""},
        /* Of a long one the beginning is shown. */
        {"0123456789012345678901234567890123456789012345678901234567890123456789",
         "features_off has \"0123456789012345678901234567890123456789012345678901234567890123\":"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        rws_runtime_options runtime = RWS_RUNTIME_OPTIONS_DEFAULT;
        runtime.features_off = rows[i].list;
        failures.count = 0;
        cr_expect_null(open_with(&runtime, NULL), "%s", rows[i].list);
        cr_expect_not_null(strstr(failures.text, rows[i].says), "%s", failures.text);
    }
    rws_runtime_options runtime = RWS_RUNTIME_OPTIONS_DEFAULT;
    runtime.features_off = "all";
    rws_test *test = open_with(&runtime, NULL);
    cr_assert_not_null(test, "%s", failures.text);
    cr_expect(rws_test_close(test));
}

/* The kit has defaults of its own, and keeps what a test sets. */
Test(engine_arguments, sizes_that_a_test_sets)
{
    rws_runtime_options runtime = RWS_RUNTIME_OPTIONS_DEFAULT;
    rws_listener_options listener = RWS_LISTENER_OPTIONS_DEFAULT;
    runtime.connections_max = 2;
    runtime.recv_buffers = 4;
    runtime.recv_buffer_bytes = 2048;
    runtime.retained_bytes_max = 1 << 20;
    listener.backlog = 4;
    rws_test *test = open_with(&runtime, &listener);
    rws_test_peer *peers[3];
    for (size_t i = 0; i < COUNT(peers); i++) {
        peers[i] = rws_test_connect_with(test, NULL);
        if (i < 2) cr_expect(rws_test_expect_upgraded(peers[i], NULL), "%s", failures.text);
    }
    cr_expect(rws_test_expect_refused(peers[2], 503), "%s", failures.text);
    static char large[20000];
    memset(large, 'x', sizeof large - 1);
    rws_test_feed_text(peers[0], large);
    cr_expect(rws_test_expect_text(peers[0], large), "%s", failures.text);
    cr_expect(rws_test_close(test));
}

/* Of endpoints that can't be made all the others go. */
Test(engine_arguments, an_endpoint_among_others_that_is_wrong)
{
    for (uint32_t wrong = 0; wrong < 4; wrong++) {
        handler = kit_handler();
        rws_endpoint_options endpoints[3];
        const rws_endpoint_options *pointers[3];
        rws_test_options options = RWS_TEST_OPTIONS_DEFAULT;
        static const char *const paths[] = {"/a", "/b", "/c"};
        for (uint32_t i = 0; i < 3; i++) {
            endpoints[i] = kit_endpoint(&handler, &events);
            endpoints[i].path = i == wrong ? "no slash" : paths[i];
            pointers[i] = &endpoints[i];
        }
        options.handler = &handler;
        options.endpoints = pointers;
        options.endpoints_count = 3;
        rws_test_on_failure(kit_on_failure, &failures);
        failures.count = 0;
        rws_test *test = rws_test_open_with(&options);
        cr_expect_eq(test != NULL, wrong == 3, "%u", wrong);
        if (test == NULL)
            cr_expect_not_null(strstr(failures.text, "path is \"no slash\""), "%s", failures.text);
        cr_expect(rws_test_close(test));
    }
}

/* A program that was compiled with another version's struct. */
Test(engine_arguments, counters_of_another_size)
{
    rws_test *test = open_with(NULL, NULL);
    rws_test_feed_text(rws_test_connect(test), "counted");
    rws_stats all = {.size = sizeof all};
    rws_server_stats(rws_test_server(test), &all);
    union {
        rws_stats stats;
        unsigned char bytes[sizeof(rws_stats) + 32];
    } out;
    static const size_t sizes[] = {sizeof(size_t), sizeof(size_t) + 8, sizeof all, sizeof out};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        memset(&out, 0xEE, sizeof out);
        out.stats.size = sizes[i];
        rws_server_stats(rws_test_server(test), &out.stats);
        size_t known = sizes[i] < sizeof all ? sizes[i] : sizeof all;
        cr_expect_eq(memcmp(out.bytes + sizeof(size_t), (unsigned char *)&all + sizeof(size_t),
                            known - sizeof(size_t)),
                     0, "%zu", sizes[i]);
        for (size_t at = known; at < sizeof out; at++)
            cr_assert_eq(out.bytes[at], 0xEE, "size %zu: byte %zu", sizes[i], at);
    }
    cr_expect(rws_test_close(test));
}

/* ---- messages that are held ---- */

static rws_message *held[2];
static size_t held_count;

static int hold(rws_conn *conn, const rws_message *message, void *user)
{
    (void)conn;
    (void)user;
    held[held_count++] = rws_message_retain(message);
    return 0;
}

Test(engine_arguments, messages_that_are_not_released)
{
    static const char large[30000] = "large";
    for (int in_pool = 0; in_pool < 2; in_pool++) {
        rws_runtime_options runtime = RWS_RUNTIME_OPTIONS_DEFAULT;
        rws_test_options options = RWS_TEST_OPTIONS_DEFAULT;
        runtime.retained_bytes_max = in_pool ? 1 << 20 : 0;
        handler = (rws_handler)RWS_HANDLER_DEFAULT;
        handler.on_message = hold;
        options.handler = &handler;
        options.runtime = &runtime;
        rws_test_on_failure(kit_on_failure, &failures);
        held_count = 0;
        rws_test *test = rws_test_open_with(&options);
        rws_test_peer *peer = rws_test_connect(test);
        for (int i = 0; i < 2; i++)
            rws_test_feed_binary(peer, large, sizeof large);
        cr_assert_eq(held_count, 2);
        cr_expect_not(rws_test_close(test));
        cr_expect_not_null(strstr(failures.text, in_pool
                                                     ? "2 messages were retained and not released"
                                                     : "2 blocks of memory"),
                           "%s", failures.text);
        for (size_t i = 0; i < 2; i++)
            rws_message_release(held[i]);
    }
}
