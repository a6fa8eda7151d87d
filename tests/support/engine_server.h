/*
 * A server in the test's own process, on a port of its own, that echoes and counts; and what the
 * tests measure of the process.
 */
#ifndef RINGWS_TESTS_SUPPORT_ENGINE_SERVER_H
#define RINGWS_TESTS_SUPPORT_ENGINE_SERVER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "support/options.h"

/* What the memory of a process says under AddressSanitizer or ThreadSanitizer is not the server's.
 */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MEMORY_IS_MEASURABLE false
#else
#define MEMORY_IS_MEASURABLE true
#endif

/* ThreadSanitizer takes some ten times as long, and a loaded machine more. */
#if defined(__SANITIZE_THREAD__)
#define TEST_IS_SLOW          true
#define ENGINE_SERVER_WAIT_MS 60000
#else
#define TEST_IS_SLOW          false
#define ENGINE_SERVER_WAIT_MS 15000
#endif

typedef struct engine_server {
    rws_server *server;
    uint16_t port;
    rws_error error; /* of a start that failed */
    void *context;   /* the test's own */
    _Atomic uint64_t opened, closed, messages, bytes, drains;
    _Atomic uint64_t shards_seen; /* a bit for each shard that had an on_open */
    _Atomic uint32_t last_code, last_closer;
} engine_server;

/* Defaults for tests: a port of the kernel's choice, one shard, few connections, short deadlines
 * for what the peer does after the end. */
test_options engine_server_options(void);

/* Count all, and echo. `user` is the engine_server in every callback; a test may put its own
 * callbacks in place of these. */
rws_handler engine_server_handler(void);

/* NULL: the defaults. Returns what test_server_create() or rws_server_start() said. */
int engine_server_start(engine_server *server, const test_options *options,
                        const rws_handler *handler);
/* Stop, wait, destroy; what rws_server_wait() said. */
int engine_server_stop(engine_server *server);

rws_stats engine_server_stats(const engine_server *server);

/* Wait until so many connections are open, or `*counter` is at least `count`. */
bool engine_server_await_connections(const engine_server *server, uint64_t count);
bool engine_server_await(const _Atomic uint64_t *counter, uint64_t count);

/* Whether a fresh connection is served: an echo of a few bytes. */
bool engine_server_serves(const engine_server *server);

/* rws_post() on a shard of a server. */
int test_post(rws_server *server, uint32_t shard, void (*fn)(void *arg, bool cancelled), void *arg);

uint64_t test_now_ms(void);
void test_sleep_ms(uint32_t ms);
size_t test_resident_bytes(void);
size_t test_open_files(void);
/* Raise the limit of open files as far as allowed; returns it. */
uint64_t test_raise_files(void);

#endif
