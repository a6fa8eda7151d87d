/*
 * The echo server whose instructions bench/instructions/count counts: one shard, the defaults,
 * public functions only, but for the name of the SIMD level. It says on its first line which port
 * it has and by what it was made, and ends when a client sends the text "stop".
 *
 * Why not `ringws serve`: valgrind 3.19 knows io_uring's system calls but does not take
 * io_uring_enter for one that waits, and keeps its one lock meanwhile. No other thread goes on, so
 * that neither a signal nor a main thread can end a shard that waits; only what the shard itself
 * does can.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/mask.h"
#include "ringws/ringws.h"

#ifdef TOY_FILTER
#include "engine/server/runtime.h"
#include "support/toy_filter.h"
#endif

#if defined(__GLIBC__)
#include <gnu/libc-version.h>
#define LIBC           "glibc"
#define LIBC_VERSION() gnu_get_libc_version()
#else
#define LIBC           "another"
#define LIBC_VERSION() "C library"
#endif

#if defined(__clang__)
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

static int on_message(rws_conn *conn, const rws_message *message, void *user)
{
    if (rws_message_len(message) == 4 && memcmp(rws_message_data(message), "stop", 4) == 0) {
        rws_server_stop(*(rws_server **)user);
        return 0;
    }
    return rws_conn_send_message(conn, message);
}

/* Before the start: once the shard waits, this thread does not come to print. */
static void print_facts(const rws_server *server)
{
    rws_probe probe = {.size = sizeof probe};
    rws_probe_kernel(&probe);
    size_t count;
    printf("{\"port\": %u, \"compiler\": \"%s\", \"libc\": \"%s %s\", \"build\": \"%s\", "
           "\"simd\": \"%s\", \"features\": \"%s\"}\n",
           (unsigned)rws_server_port(server, 0), COMPILER, LIBC, LIBC_VERSION(), BUILD,
           rws__mask_impls(&count)[0]->name, probe.features);
    (void)fflush(stdout);
}

int main(void)
{
    rws_server *server = NULL;
    rws_handler handler = RWS_HANDLER_DEFAULT;
    handler.on_message = on_message;
    rws_runtime_options runtime = RWS_RUNTIME_OPTIONS_DEFAULT;
    runtime.shards = 1;
    rws_endpoint_options endpoint = RWS_ENDPOINT_OPTIONS_DEFAULT;
    endpoint.handler = &handler;
    endpoint.user = (void *)&server;
    rws_listener_options listener = RWS_LISTENER_OPTIONS_DEFAULT;
    listener.port = 0;
    rws_error error;
    int status = rws_server_create(&server, &runtime, &error);
    if (status == 0) status = rws_server_add_endpoint(server, &endpoint, NULL, &error);
    if (status == 0) status = rws_server_listen(server, &listener, &error);
    if (status == 0) {
#ifdef TOY_FILTER
        /* It begins with its runtime. */
        ((rws_runtime *)server)->listeners[0].config.filters = &toy_server.maker;
#endif
        print_facts(server);
        status = rws_server_run(server, &error);
    }
    if (status != 0) (void)fprintf(stderr, "%s\n", error.text);
    rws_server_destroy(server);
    return status != 0;
}
