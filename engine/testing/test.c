/*
 * A test from its options to its end.
 */
#include "engine/testing/kit.h"

#include "engine/simulated/kernel.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Enough for what a test looks at; making and freeing a test is then mostly the pools' addresses.
 */
#define CONNECTIONS_MAX   64u
#define CONNECTIONS_LIMIT 65536u
#define RECV_BUFFERS      4u
#define RECV_BUFFER_BYTES 16384u
#define BACKLOG           32u

/* Those of this thread, which share its kernel. */
static _Thread_local rws_test *tests;

rws_test *rws__test_first(void)
{
    return tests;
}

static void forget(const rws_test *test)
{
    rws_test **link = &tests;
    while (*link != test)
        link = &(*link)->next;
    *link = test->next;
}

bool rws__test_overlay(void *out, size_t out_size, const void *caller, const char *initializer)
{
    size_t size;
    if (caller == NULL) return true;
    memcpy(&size, caller, sizeof size);
    if (size < sizeof size || size > out_size || size % _Alignof(void *) != 0)
        return rws__test_fail("the struct's size is %zu: start from %s", size, initializer);
    memcpy(out, caller, size);
    return true;
}

/* ---- making ---- */

static int make_runtime(rws_test *test, const rws_runtime_options *options, rws_error *error)
{
    rws_runtime_options own = *options;
    rws__runtime_config config;
    own.shards = 1;
    own.busy_wait_us = 0;
    own.allocator = &test->memory->allocator;
    /* Any number that the engine has room for: the limit of open files is not the simulated
     * kernel's. */
    uint32_t connections_max = own.connections_max > 0 ? own.connections_max : CONNECTIONS_MAX;
    if (connections_max > CONNECTIONS_LIMIT)
        return rws__fail(error, RWS_E_OPTION, "connections_max is %u; in a test it is at most %u",
                         connections_max, CONNECTIONS_LIMIT);
    own.connections_max = 1;
    if (own.recv_buffers == 0) own.recv_buffers = RECV_BUFFERS;
    if (own.recv_buffer_bytes == 0) own.recv_buffer_bytes = RECV_BUFFER_BYTES;
    /* Messages that the program retains are copied with the allocator, which may fail, and knows
     * who does not release them. */
    if (own.retained_bytes_max == 0) own.retained_bytes_max = 1;
    int res = rws__runtime_config_make(&config, &own, 1, error);
    config.connections_max = connections_max;
    return res == 0 ? rws__runtime_init(&test->runtime, &config, error) : res;
}

static int add_endpoints(rws_test *test, const rws_test_options *options,
                         const rws_endpoint_options *first, rws_error *error)
{
    int res = rws__runtime_add_endpoint(&test->runtime, first, NULL, &test->endpoint, error);
    if (res != 0 || options->endpoints_count == 0) return res;
    if (options->endpoints == NULL)
        return rws__fail(error, RWS_E_OPTION, "endpoints is NULL, but endpoints_count is %u",
                         options->endpoints_count);
    test->endpoints = rws__test_memory(options->endpoints_count * sizeof(rws__endpoint *));
    for (uint32_t i = 0; i < options->endpoints_count && res == 0; i++) {
        res = rws__runtime_add_endpoint(&test->runtime, options->endpoints[i], NULL,
                                        &test->endpoints[i], error);
        if (res == 0) test->endpoints_count++;
    }
    return res;
}

rws_endpoint *rws__test_endpoint(const rws_test *test, uint32_t index)
{
    if (index == 0) return test->endpoint;
    return index <= test->endpoints_count ? test->endpoints[index - 1] : NULL;
}

static bool has_server(const rws_test *test)
{
    for (uint32_t i = 0; i <= test->endpoints_count; i++)
        if (rws__test_endpoint(test, i)->rules.role == RWS_SERVER) return true;
    return false;
}

static int listen_for_peers(rws_test *test, const rws_listener_options *options, rws_error *error)
{
    if (!has_server(test)) return 0;
    rws_listener_options own = *options;
    own.address = "127.0.0.1";
    own.port = 0;
    own.unix_path = NULL;
    own.fd = -1;
    own.no_peer_address = false; /* a peer's connection is found by it */
    own.endpoints = NULL;
    own.endpoints_count = 0;
    if (own.backlog == 0) own.backlog = BACKLOG;
    return rws__runtime_listen(&test->runtime, &own, error);
}

/* Where the engine dials. */
static int listen_outside(rws_test *test, rws_error *error)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const rws__socket_options none = {0};
    struct sockaddr_storage local;
    int fd = rws__socket_listen((struct sockaddr *)&address, sizeof address, true, BACKLOG, &none);
    if (fd < 0) return rws__fail(error, fd, "the test can't listen: %s", rws_strerror(fd));
    test->listener = fd;
    (void)rws__socket_stop_waiting(fd);
    (void)rws__socket_local(fd, &local);
    memcpy(&address, &local, sizeof address);
    (void)snprintf(test->url, sizeof test->url, "ws://127.0.0.1:%u/", ntohs(address.sin_port));
    return 0;
}

/* The caller's options on the defaults. */
typedef struct own_options {
    rws_test_options test;
    rws_endpoint_options endpoint;
    rws_runtime_options runtime;
    rws_listener_options listener;
} own_options;

static bool overlay_all(own_options *own, const rws_test_options *options)
{
    *own = (own_options){
        .test = RWS_TEST_OPTIONS_DEFAULT,
        .endpoint = RWS_ENDPOINT_OPTIONS_DEFAULT,
        .runtime = RWS_RUNTIME_OPTIONS_DEFAULT,
        .listener = RWS_LISTENER_OPTIONS_DEFAULT,
    };
    if (!rws__test_overlay(&own->test, sizeof own->test, options, "RWS_TEST_OPTIONS_DEFAULT") ||
        !rws__test_overlay(&own->endpoint, sizeof own->endpoint, own->test.endpoint,
                           "RWS_ENDPOINT_OPTIONS_DEFAULT") ||
        !rws__test_overlay(&own->runtime, sizeof own->runtime, own->test.runtime,
                           "RWS_RUNTIME_OPTIONS_DEFAULT") ||
        !rws__test_overlay(&own->listener, sizeof own->listener, own->test.listener,
                           "RWS_LISTENER_OPTIONS_DEFAULT"))
        return false;
    own->endpoint.size = sizeof own->endpoint;
    own->runtime.size = sizeof own->runtime;
    own->listener.size = sizeof own->listener;
    if (own->test.handler != NULL) own->endpoint.handler = own->test.handler;
    return true;
}

/* On failure there is no runtime. */
static int make_all(rws_test *test, const own_options *own, rws_error *error)
{
    int res = make_runtime(test, &own->runtime, error);
    if (res != 0) return res;
    res = add_endpoints(test, &own->test, &own->endpoint, error);
    if (res == 0) res = listen_for_peers(test, &own->listener, error);
    if (res == 0) res = rws__runtime_open(&test->runtime, error);
    if (res != 0) rws__runtime_deinit(&test->runtime);
    return res;
}

/* ---- freeing ---- */

/* What was not given back, after all of it should have been; `held` messages are in the pool. */
static bool check_memory(rws__memory_counts *memory, size_t held)
{
    size_t blocks = atomic_load(&memory->holders) - 1, bytes = atomic_load(&memory->bytes);
    rws__memory_release(memory);
    if (blocks == 0 && held == 0) return true;
    if (blocks == 0)
        return rws__test_fail("%zu message%s retained and not released", held,
                              held == 1 ? " was" : "s were");
    return rws__test_fail("%zu block%s of memory (%zu bytes) from the allocator of the test were "
                          "not given back: a message that was retained or made, and not released?",
                          blocks, blocks == 1 ? "" : "s", bytes);
}

/* Messages of the pool that the program holds. The shard is a user as well. */
static size_t count_held(rws_test *test)
{
    rws__pool *pool = rws__test_shard(test)->conns.streams.partial;
    rws__pool_take_returned(pool);
    return atomic_load(&pool->users) - 1;
}

/* All but the runtime. */
static bool free_test(rws_test *test, size_t held)
{
    rws_test_peer *peer;
    while ((peer = test->peers) != NULL) {
        test->peers = peer->next;
        rws__peer_free(peer);
    }
    if (test->listener >= 0) rws__socket_close(test->listener);
    rws__memory_counts *memory = test->memory;
    free(test->endpoints);
    forget(test);
    free(test);
    if (tests == NULL) rws__sim_end();
    return check_memory(memory, held);
}

/* The end of the runtime, also of one that is not at rest, and of the test. */
static bool end_runtime(rws_test *test)
{
    (void)rws__runtime_close(&test->runtime);
    size_t held = count_held(test);
    rws__runtime_deinit(&test->runtime);
    return free_test(test, held);
}

rws_test *rws_test_open_with(const rws_test_options *options)
{
    own_options own;
    rws_error error = {0};
    if (!rws__test_is_alone() || !overlay_all(&own, options)) return NULL;
    if (tests == NULL) rws__sim_start(&rws__sim_defaults);
    rws_test *test = rws__test_memory(sizeof *test);
    test->next = tests;
    tests = test;
    test->listener = -1;
    test->memory = rws__memory_make(own.runtime.allocator);
    rws_test_fail_alloc(test, own.test.fail_alloc);
    int res = listen_outside(test, &error);
    if (res == 0) res = make_all(test, &own, &error);
    if (res == 0 && rws__test_run(test)) return test;
    if (res == 0) {
        (void)end_runtime(test);
        return NULL;
    }
    bool was_asked_for = rws_test_alloc_failed(test);
    if (free_test(test, 0) && !was_asked_for)
        rws__test_fail("the test can't be opened: %s", error.text);
    return NULL;
}

rws_test *rws_test_open(const rws_handler *handler, const rws_endpoint_options *endpoint)
{
    rws_test_options options = RWS_TEST_OPTIONS_DEFAULT;
    options.handler = handler;
    options.endpoint = endpoint;
    return rws_test_open_with(&options);
}

/* ---- the end ---- */

/* A peer that behaves: it reads, answers a close frame, and ends its half. */
static void close_peer_properly(rws_test_peer *peer)
{
    if (peer->fd < 0) return;
    peer->reads = true;
    if (!rws__test_run(peer->test)) return;
    if (peer->end_wanted) return;
    if (peer->close_received && !peer->close_sent)
        rws_test_feed_close(peer, RWS_CLOSE_GOING_AWAY, NULL);
    rws_test_feed_end(peer);
}

/* Let it drain. Whoever holds it up is cut off when the drain's deadline has passed. False after a
 * failure. */
static bool drain(rws_test *test)
{
    rws__runtime_stop(&test->runtime);
    if (!rws__test_run(test)) return false;
    for (rws_test_peer *peer = test->peers; peer != NULL; peer = peer->next)
        close_peer_properly(peer);
    while (!rws__shard_has_ended(rws__test_shard(test))) {
        uint64_t next = rws__sim_next_us();
        if (next == UINT64_MAX) return true;
        rws__sim_advance_to(next);
        if (!rws__test_run(test)) return false;
    }
    return true;
}

bool rws_test_close(rws_test *test)
{
    if (test == NULL) return true;
    if (!rws__test_is_open(test)) return false;
    if (!rws__test_is_at_rest(test)) return false;
    bool came_to_rest = drain(test);
    return end_runtime(test) && came_to_rest;
}

/* ---- what the program under test may need ---- */

rws_runtime *rws_test_runtime(rws_test *test)
{
    return rws__test_is_open(test) ? &test->runtime : NULL;
}

/* Servers and clients are views of a runtime, and nothing else (server.c, client.c). */
rws_server *rws_test_server(rws_test *test)
{
    return (rws_server *)rws_test_runtime(test);
}

rws_client *rws_test_client(rws_test *test)
{
    return (rws_client *)rws_test_runtime(test);
}

rws_endpoint *rws_test_endpoint(rws_test *test, uint32_t index)
{
    return rws__test_is_open(test) ? rws__test_endpoint(test, index) : NULL;
}
