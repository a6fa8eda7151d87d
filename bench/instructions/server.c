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
           "\"simd\": \"%s\", \"features\": %u}\n",
           (unsigned)rws_server_port(server), COMPILER, LIBC, LIBC_VERSION(), BUILD,
           rws__mask_impls(&count)[0]->name, (unsigned)probe.features);
    (void)fflush(stdout);
}

int main(void)
{
    rws_server *server = NULL;
    rws_server_options options = RWS_SERVER_OPTIONS_DEFAULT;
    options.port = 0;
    options.shards = 1;
    options.user = (void *)&server;
    rws_handler handler = RWS_HANDLER_DEFAULT;
    handler.on_message = on_message;
    rws_error error;
    int status = rws_server_create(&server, &options, &handler, &error);
    if (status == 0) {
        print_facts(server);
        status = rws_server_run(server, &error);
    }
    if (status != 0) (void)fprintf(stderr, "%s\n", error.text);
    rws_server_destroy(server);
    return status != 0;
}
