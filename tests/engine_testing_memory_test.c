/*
 * The testing kit: the n-th allocation fails, and what is not given back is found.
 * ctest: testing kit
 */
#include "support/kit_log.h"

#include "engine/simulated/kernel.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static kit_failures failures;

/* A handler with memory of its own: the last message of each connection. */
typedef struct session {
    rws_message *last;
} session;

static const rws_allocator *allocator;

static void on_open(rws_conn *conn, void *user)
{
    (void)user;
    session *own = allocator->alloc(sizeof *own, allocator->user);
    if (own != NULL) own->last = NULL;
    rws_conn_set_user(conn, own);
    if (own == NULL) rws_conn_close(conn, RWS_CLOSE_TRY_AGAIN_LATER, "no memory");
}

static int on_message(rws_conn *conn, const rws_message *message, void *user)
{
    (void)user;
    session *own = rws_conn_user(conn);
    rws_message_release(own->last);
    own->last = rws_message_retain(message);
    if (own->last == NULL) return -ENOMEM;
    return rws_conn_send_message(conn, own->last);
}

static void on_close(rws_conn *conn, const rws_close_info *info, void *user)
{
    (void)info;
    (void)user;
    session *own = rws_conn_user(conn);
    if (own == NULL) return;
    rws_message_release(own->last);
    allocator->release(own, sizeof *own, allocator->user);
}

static rws_handler make_handler(void)
{
    rws_handler handler = RWS_HANDLER_DEFAULT;
    handler.on_open = on_open;
    handler.on_message = on_message;
    handler.on_close = on_close;
    return handler;
}

/* One run, in which the allocation `n` fails. Returns whether it did. */
static bool run_with_failure(uint64_t n)
{
    rws_handler handler = make_handler();
    rws_test *test = rws_test_open(&handler, NULL);
    allocator = rws_test_allocator(test);
    rws_test_fail_alloc(test, n);
    rws_test_peer *peer = rws_test_connect(test);
    rws_test_feed_text(peer, "one");
    rws_test_feed_text(peer, "two");
    bool failed = rws_test_alloc_failed(test);
    if (!failed) {
        rws_test_expect_text(peer, "one");
        rws_test_expect_text(peer, "two");
    }
    cr_assert(rws_test_close(test));
    return failed;
}

Test(engine_testing_memory, each_allocation_of_a_handler_fails_in_turn)
{
    uint64_t n = 1;
    while (run_with_failure(n))
        n++;
    cr_assert(n > 2, "only %d allocations failed", (int)n - 1);
}

Test(engine_testing_memory, each_allocation_of_opening_fails_in_turn)
{
    rws_handler handler = make_handler();
    rws_test_options options = RWS_TEST_OPTIONS_DEFAULT;
    rws_endpoint_options endpoint = RWS_ENDPOINT_OPTIONS_DEFAULT;
    static const char *const names[] = {"a", "b"};
    endpoint.path = "/path";
    endpoint.subprotocols = names;
    endpoint.subprotocols_count = 2;
    options.handler = &handler;
    options.endpoint = &endpoint;
    rws_test_on_failure(kit_on_failure, &failures);
    rws_test *test = NULL;
    for (options.fail_alloc = 1; test == NULL; options.fail_alloc++) {
        test = rws_test_open_with(&options);
        cr_assert_eq(failures.count, 0, "%s", failures.text);
    }
    cr_assert(options.fail_alloc > 10);
    rws_test_fail_alloc(test, 0);
    cr_assert(rws_test_close(test));
}

/* Where a start does not come to rest nothing is left behind either. */
Test(engine_testing_memory, a_start_that_does_not_come_to_rest)
{
    rws_handler handler = RWS_HANDLER_DEFAULT;
    rws_test_on_failure(kit_on_failure, &failures);
    rws_test *first = rws_test_open(&handler, NULL);
    uint32_t descriptors = rws__sim_descriptors(), sockets = rws__sim_sockets();
    uint32_t *chance = &rws__sim_settings()->chance[RWS__SIM_SQ_FULL];
    *chance = 65536;
    cr_assert_null(rws_test_open(&handler, NULL));
    *chance = 0;
    cr_assert_eq(failures.count, 1, "%s", failures.text);
    cr_assert_eq(strncmp(failures.text, "the engine does not come to rest", 32), 0);
    cr_assert_eq(rws__sim_descriptors(), descriptors);
    cr_assert_eq(rws__sim_sockets(), sockets);
    cr_assert(rws_test_close(first));
    /* The last one has ended the kernel. */
    first = rws_test_open(&handler, NULL);
    rws_test_feed_text(rws_test_connect(first), "again");
    cr_assert(rws_test_close(first));
}

static rws_message *kept;

static int keep(rws_conn *conn, const rws_message *message, void *user)
{
    (void)conn;
    (void)user;
    kept = rws_message_retain(message);
    return 0;
}

Test(engine_testing_memory, a_message_that_is_not_released)
{
    rws_handler handler = RWS_HANDLER_DEFAULT;
    handler.on_message = keep;
    rws_test_on_failure(kit_on_failure, &failures);
    rws_test *test = rws_test_open(&handler, NULL);
    rws_test_feed_text(rws_test_connect(test), "kept");
    cr_assert_not(rws_test_close(test));
    cr_assert_eq(failures.line, __LINE__ - 1);
    cr_assert_eq(failures.count, 1);
    unsigned blocks, bytes;
    cr_assert_eq(
        sscanf(failures.text, "%u block of memory (%u bytes) from the allocator", &blocks, &bytes),
        2, "%s", failures.text);
    cr_assert_eq(blocks, 1);
    /* It is there until it is released. */
    cr_assert_eq(memcmp(rws_message_data(kept), "kept", 4), 0);
    rws_message_release(kept);
}

/* With a budget for them they lie in the pool, which lives as long. */
Test(engine_testing_memory, a_message_in_the_pool_that_is_not_released)
{
    static const char large[30000] = "large";
    rws_handler handler = RWS_HANDLER_DEFAULT;
    handler.on_message = keep;
    rws_runtime_options runtime = RWS_RUNTIME_OPTIONS_DEFAULT;
    runtime.retained_bytes_max = 1 << 20;
    rws_test_options options = RWS_TEST_OPTIONS_DEFAULT;
    options.handler = &handler;
    options.runtime = &runtime;
    rws_test_on_failure(kit_on_failure, &failures);
    rws_test *test = rws_test_open_with(&options);
    rws_test_feed_binary(rws_test_connect(test), large, sizeof large);
    cr_assert_not(rws_test_close(test));
    cr_assert_str_eq(failures.text, "1 message was retained and not released");
    cr_assert_eq(memcmp(rws_message_data(kept), large, sizeof large), 0);
    rws_message_release(kept);
}

static size_t asked;

static void *below_alloc(size_t size, void *user)
{
    (void)user;
    asked++;
    return malloc(size);
}

static void below_release(void *memory, size_t size, void *user)
{
    (void)size;
    (void)user;
    free(memory);
}

Test(engine_testing_memory, an_allocator_of_the_program)
{
    static const rws_allocator below = {.alloc = below_alloc, .release = below_release};
    rws_handler handler = RWS_HANDLER_DEFAULT;
    rws_runtime_options runtime = RWS_RUNTIME_OPTIONS_DEFAULT;
    runtime.allocator = &below;
    rws_test_options options = RWS_TEST_OPTIONS_DEFAULT;
    options.handler = &handler;
    options.runtime = &runtime;
    rws_test *test = rws_test_open_with(&options);
    cr_assert(asked > 0);
    cr_assert(rws_test_close(test));
}
