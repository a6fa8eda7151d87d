/*
 * Dials to a host with several addresses, against real sockets. This program is its own resolver:
 * "several.test" has the addresses that the test says.
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/engine_server.h"

TestSuite(engine_dial_addresses, .timeout = 60);

#define ADDRESSES 4

/* ---- the resolver, in place of the C library's ---- */

static const char *addresses[ADDRESSES + 1];

typedef struct resolved {
    struct addrinfo info;
    union {
        struct sockaddr generic;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } address;
} resolved;

static struct addrinfo *make_info(const char *text, uint16_t port)
{
    resolved *made = calloc(1, sizeof *made);
    if (made == NULL) abort();
    made->info.ai_socktype = SOCK_STREAM;
    made->info.ai_addr = &made->address.generic;
    if (inet_pton(AF_INET, text, &made->address.in.sin_addr) == 1) {
        made->info.ai_addrlen = sizeof made->address.in;
        made->address.in.sin_family = AF_INET;
        made->address.in.sin_port = htons(port);
    } else {
        cr_assert_eq(inet_pton(AF_INET6, text, &made->address.in6.sin6_addr), 1);
        made->info.ai_addrlen = sizeof made->address.in6;
        made->address.in6.sin6_family = AF_INET6;
        made->address.in6.sin6_port = htons(port);
    }
    made->info.ai_family = made->address.generic.sa_family;
    return &made->info;
}

int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
                struct addrinfo **out)
{
    (void)hints;
    if (host == NULL || port == NULL || strcmp(host, "several.test") != 0) return EAI_NONAME;
    for (const char *const *text = addresses; *text != NULL; text++) {
        *out = make_info(*text, (uint16_t)strtoul(port, NULL, 10));
        out = &(*out)->ai_next;
    }
    *out = NULL;
    return 0;
}

void freeaddrinfo(struct addrinfo *list)
{
    for (struct addrinfo *next; list != NULL; list = next) {
        next = list->ai_next;
        free((resolved *)list);
    }
}

/* ---- the program that dials ---- */

typedef struct outcome {
    _Atomic uint64_t opened, failed;
    sa_family_t family;
    int status;
    char text[256];
} outcome;

static void on_open(rws_conn *conn, void *user)
{
    outcome *own = user;
    struct sockaddr_storage peer;
    socklen_t len = sizeof peer;
    if (rws_conn_peer(conn, &peer, &len) == 0) own->family = peer.ss_family;
    atomic_fetch_add(&own->opened, 1);
}

static void on_dial_error(const rws_error *error, void *dial_user, void *user)
{
    outcome *own = user;
    (void)dial_user;
    own->status = error->status;
    snprintf(own->text, sizeof own->text, "%s", error->text);
    atomic_fetch_add(&own->failed, 1);
}

static rws_client *start_client(outcome *own)
{
    rws_client *client;
    rws_error error;
    rws_runtime_options options = RWS_RUNTIME_OPTIONS_DEFAULT;
    options.shards = 1;
    options.connections_max = 16;
    options.linger_timeout_ms = 300;
    rws_handler handler = RWS_HANDLER_DEFAULT;
    handler.on_open = on_open;
    handler.on_dial_error = on_dial_error;
    rws_endpoint_options endpoint = RWS_ENDPOINT_OPTIONS_DEFAULT;
    endpoint.handler = &handler;
    endpoint.user = own;
    endpoint.close_timeout_ms = 300;
    cr_assert_eq(rws_client_create(&client, &options, &endpoint, &error), 0, "%s", error.text);
    cr_assert_eq(rws_client_start(client, &error), 0, "%s", error.text);
    return client;
}

static void dial(rws_client *client, uint16_t port)
{
    char url[64];
    rws_error error;
    snprintf(url, sizeof url, "ws://several.test:%u/", port);
    cr_assert_eq(rws_client_dial(client, url, NULL, NULL, &error), 0, "%s", error.text);
}

static void stop_client(rws_client *client)
{
    rws_client_stop(client);
    cr_expect_eq(rws_client_wait(client), 0);
    rws_client_destroy(client);
}

/* A server on `address` alone is found, and is the only one that was told of anything. */
static void check_reaches(const char *address, sa_family_t family)
{
    engine_server server;
    outcome own = {0};
    test_options options = engine_server_options();
    options.address = address;
    cr_assert_eq(engine_server_start(&server, &options, NULL), 0, "%s", server.error.text);
    rws_client *client = start_client(&own);
    dial(client, server.port);
    cr_assert(engine_server_await(&own.opened, 1), "%s: %s", address, own.text);
    cr_expect_eq(own.family, family, "%s", address);
    cr_expect_eq(own.failed, 0);
    rws_stats stats = {.size = sizeof stats};
    rws_client_stats(client, &stats);
    cr_expect_eq(stats.refused, 0);
    cr_expect_eq(engine_server_stats(&server).accepted, 1);
    stop_client(client);
    cr_expect_eq(engine_server_stop(&server), 0);
}

static bool ipv6_is_here(void)
{
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    bool good = bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
    close(fd);
    return good;
}

Test(engine_dial_addresses, a_server_on_ipv4_alone_is_found_behind_ipv6)
{
    addresses[0] = "::1";
    addresses[1] = "127.0.0.2";
    addresses[2] = "127.0.0.1";
    addresses[3] = NULL;
    check_reaches("127.0.0.1", AF_INET);
}

Test(engine_dial_addresses, a_server_on_ipv6_alone_is_found_behind_ipv4)
{
    if (!ipv6_is_here()) cr_skip_test("there is no IPv6 loopback");
    addresses[0] = "127.0.0.1";
    addresses[1] = "::1";
    addresses[2] = NULL;
    check_reaches("::1", AF_INET6);
}

Test(engine_dial_addresses, the_error_names_all_that_were_tried)
{
    addresses[0] = "127.0.0.1";
    addresses[1] = "127.0.0.2";
    addresses[2] = NULL;
    /* A port that nobody listens on, because it is bound and does not. */
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, len), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    outcome own = {0};
    rws_client *client = start_client(&own);
    dial(client, ntohs(address.sin_port));
    cr_assert(engine_server_await(&own.failed, 1));
    cr_expect_eq(own.status, -ECONNREFUSED);
    cr_expect_str_eq(own.text, "connection refused: nobody listens there (tried 127.0.0.1, "
                               "127.0.0.2)");
    stop_client(client);
    cr_expect_eq(own.failed, 1);
    cr_expect_eq(own.opened, 0);
    close(fd);
}
