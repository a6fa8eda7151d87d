/*
 * A unix socket's path changes hands: the next server may take it while the one before still
 * drains; and its connections are shared out among the shards. ctest: filtered
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "support/engine_server.h"
#include "support/raw_client.h"

Test(engine_review_unix, a_server_that_drained_leaves_the_next_one_its_socket)
{
    char path[64];
    snprintf(path, sizeof path, "/tmp/ringws-review-%d.sock", (int)getpid());
    test_options options = engine_server_options();
    options.unix_path = path;
    options.close_timeout_ms = 1500;
    options.drain_timeout_ms = 1500;
    engine_server first = {0}, second = {0};
    cr_assert_eq(engine_server_start(&first, &options, NULL), 0, "%s", first.error.text);
    raw_client client; /* never answers the close */
    cr_assert(raw_connect_unix(&client, path));
    cr_assert(raw_upgrade(&client));

    rws_server_stop(first.server);
    cr_expect_eq(raw_read_close(&client), 1001);
    cr_assert_eq(engine_server_start(&second, &options, NULL), 0, "%s", second.error.text);
    cr_expect_eq(rws_server_wait(first.server), RWS_E_TIMEOUT, "it was still draining");
    rws_server_destroy(first.server);
    raw_close(&client);

    cr_expect(raw_connect_unix(&client, path), "the second server's socket is there");
    cr_expect(raw_upgrade(&client));
    raw_close(&client);
    cr_expect_eq(engine_server_stop(&second), 0);
    cr_expect_neq(access(path, F_OK), 0, "the socket was left behind");
}

/* Somebody removed the path, and a second server has bound a socket of its own there: whether the
 * first one serves or was never started, what it removes at its end is its own socket alone. */
static void check_keeps_to_its_own(bool serves)
{
    char path[64];
    snprintf(path, sizeof path, "/tmp/ringws-review-%d.sock", (int)getpid());
    test_options options = engine_server_options();
    options.unix_path = path;
    engine_server first = {0}, second = {0};
    rws_handler handler = engine_server_handler();
    if (serves)
        cr_assert_eq(engine_server_start(&first, &options, NULL), 0, "%s", first.error.text);
    else
        cr_assert_eq(test_server_create(&first.server, &options, &handler, &first.error), 0);
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(engine_server_start(&second, &options, NULL), 0, "%s", second.error.text);
    if (serves)
        cr_expect_eq(engine_server_stop(&first), 0);
    else
        rws_server_destroy(first.server);

    raw_client client;
    cr_assert(raw_connect_unix(&client, path), "the second server's socket is there");
    cr_expect(raw_upgrade(&client));
    raw_close(&client);
    cr_expect_eq(engine_server_stop(&second), 0);
    cr_expect_neq(access(path, F_OK), 0, "the socket was left behind");
}

Test(engine_review_unix, a_server_removes_no_socket_but_its_own)
{
    check_keeps_to_its_own(true);
    check_keeps_to_its_own(false);
}

/* A socket that listens, whose backlog is full and whose owner accepts nothing. */
static int listen_stuck(const char *path, int *waiting)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    const struct sockaddr *generic = (const struct sockaddr *)&address;
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(listener, generic, sizeof address), 0);
    cr_assert_eq(listen(listener, 0), 0);
    for (int i = 0;; i++) {
        cr_assert_lt(i, 8, "its backlog takes no end");
        waiting[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (connect(waiting[i], generic, sizeof address) == 0) continue;
        cr_assert_eq(errno, EAGAIN);
        return listener;
    }
}

Test(engine_review_unix, an_owner_of_the_path_that_is_stuck_is_not_waited_for, .timeout = 20)
{
    char path[64];
    snprintf(path, sizeof path, "/tmp/ringws-review-%d.sock", (int)getpid());
    int waiting[8] = {0};
    int listener = listen_stuck(path, waiting);
    test_options options = engine_server_options();
    options.unix_path = path;
    engine_server server;
    cr_expect_eq(engine_server_start(&server, &options, NULL), -EADDRINUSE);
    cr_expect_not_null(strstr(server.error.text, "is in use by another process"), "%s",
                       server.error.text);
    cr_expect_eq(access(path, F_OK), 0, "the owner's socket was removed");
    for (int i = 0; i < 8; i++)
        if (waiting[i] > 0) close(waiting[i]);
    close(listener);
    unlink(path);
}

#define SHARDS    2
#define PER_SHARD 4

/* One listener for all shards: a shard that is full is passed over while another has room, and
 * when none has, the answer is 503. */
Test(engine_review_unix, shards_that_are_full_are_passed_over)
{
    char path[64];
    snprintf(path, sizeof path, "/tmp/ringws-review-%d.sock", (int)getpid());
    test_options options = engine_server_options();
    options.unix_path = path;
    options.shards = SHARDS;
    options.connections_max = PER_SHARD;
    engine_server server;
    cr_assert_eq(engine_server_start(&server, &options, NULL), 0, "%s", server.error.text);
    raw_client clients[SHARDS * PER_SHARD], one_more;
    for (int i = 0; i < SHARDS * PER_SHARD; i++) {
        cr_assert(raw_connect_unix(&clients[i], path));
        cr_assert(raw_upgrade(&clients[i]), "client %d", i);
    }
    cr_assert(raw_connect_unix(&one_more, path));
    cr_expect_not(raw_upgrade(&one_more), "there is no room");
    raw_close(&one_more);

    /* They took turns: every second one is of the same shard. */
    for (int i = 0; i < SHARDS * PER_SHARD; i += SHARDS)
        raw_close(&clients[i]);
    cr_assert(engine_server_await_connections(&server, (SHARDS - 1) * PER_SHARD));
    for (int i = 0; i < SHARDS * PER_SHARD; i += SHARDS) {
        cr_assert(raw_connect_unix(&clients[i], path));
        cr_expect(raw_upgrade(&clients[i]), "client %d, for a place that is free", i);
    }
    for (int i = 0; i < SHARDS * PER_SHARD; i++)
        raw_close(&clients[i]);
    cr_expect_eq(engine_server_stop(&server), 0);
}

Test(engine_review_unix, an_empty_path_is_refused)
{
    test_options options = engine_server_options();
    options.unix_path = "";
    engine_server server;
    cr_expect_eq(engine_server_start(&server, &options, NULL), RWS_E_ADDRESS);
    cr_expect_str_eq(server.error.text, "the unix socket path is empty");
}
