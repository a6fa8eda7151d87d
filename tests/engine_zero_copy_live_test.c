/*
 * Zero-copy sends against the real kernel. There is only loopback here, where the kernel copies all
 * the same, and says so; but what a peer has not taken is lent to it as with a network card.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/engine_checks.h"
#include "support/engine_server.h"
#include "support/raw_client.h"

TestSuite(engine_zero_copy_live, .timeout = 60);

#define SKIPPED 77
#define LARGE   300000u

/* 1 if the kernel has it and it is not switched off. */
static uint64_t tries(uint32_t off)
{
    rws_probe probe = {.size = sizeof probe};
    cr_assert_eq(rws_probe_kernel(&probe), 0, "%s", probe.text);
    return strstr(probe.features, "send_zc") != NULL && !(off & RWS__FEATURE_SEND_ZC) ? 1 : 0;
}

static test_options options_for(const char *address, uint32_t off)
{
    test_options options = engine_server_options();
    options.address = address;
    options.features_off = off;
    options.message_bytes_max = 1u << 20;
    return options;
}

/* ---- a program that answers with a message of its own, which is lent in any case ---- */

static uint8_t byte_at(size_t i)
{
    return (uint8_t)(i * 7 + i / 256);
}

static rws_message *create(size_t len)
{
    rws_message *created;
    uint8_t *bytes = malloc(len);
    if (bytes == NULL) abort();
    for (size_t i = 0; i < len; i++)
        bytes[i] = byte_at(i);
    if (rws_message_create(&created, NULL, RWS_BINARY, bytes, len) != 0) abort();
    free(bytes);
    return created;
}

static rws_message *the_answer; /* set before the shard's thread starts */

static int answer(rws_conn *conn, const rws_message *message, void *user)
{
    (void)message;
    engine_server *server = user;
    atomic_fetch_add(&server->messages, 1);
    return rws_conn_send_message(conn, the_answer);
}

static int start(engine_server *server, const test_options *options, rws_handler *handler,
                 rws_message *created)
{
    handler->on_message = answer;
    the_answer = created;
    return engine_server_start(server, options, handler);
}

static bool read_answer(raw_client *client, size_t len)
{
    raw_frame frame;
    if (raw_read_frame(client, &frame) != 1 || frame.len != len) return false;
    for (size_t i = 0; i < len; i++)
        if (frame.payload[i] != byte_at(i)) return false;
    return true;
}

/* Ask in turn for large messages; whether each came as it is. */
static bool answers(raw_client *client, int count)
{
    for (int i = 0; i < count; i++)
        if (!raw_send_frame(client, RAW_TEXT, "send", 4) || !read_answer(client, LARGE))
            return false;
    return true;
}

static void expect_stats(const engine_server *server, uint64_t sends, uint64_t given_up,
                         const char *what)
{
    rws_stats stats = engine_server_stats(server);
    cr_expect_eq(stats.sends_zero_copy, sends, "%s: %llu sends", what,
                 (unsigned long long)stats.sends_zero_copy);
    cr_expect_eq(stats.zero_copy_given_up, given_up, "%s: given up on %llu", what,
                 (unsigned long long)stats.zero_copy_given_up);
}

/* Nobody knows the peer's address; the report of the first send says that it was copied. */
Test(engine_zero_copy_live, is_tried_once_on_each_connection_and_given_up)
{
    EACH_FEATURES(off)
    {
        engine_server server;
        test_options options = options_for("0.0.0.0", *off);
        options.no_peer_address = true;
        rws_message *created = create(LARGE);
        rws_handler handler = engine_server_handler();
        cr_assert_eq(start(&server, &options, &handler, created), 0, "%s", server.error.text);
        uint64_t tried = tries(*off);
        for (uint64_t n = 1; n <= 3; n++) {
            raw_client client;
            cr_assert(raw_open(&client, server.port));
            cr_assert(answers(&client, 6));
            expect_stats(&server, n * tried, n * tried, "six messages");
            raw_close(&client);
            cr_expect(engine_server_await_connections(&server, 0));
        }
        cr_expect_eq(engine_server_stop(&server), 0);
        rws_message_release(created);
    }
}

static void ask_for_peer(rws_conn *conn, void *user)
{
    struct sockaddr_storage peer;
    socklen_t len = sizeof peer;
    (void)user;
    (void)rws_conn_peer(conn, &peer, &len);
}

Test(engine_zero_copy_live, is_not_tried_where_a_loopback_address_is_known)
{
    static const struct {
        const char *listen, *connect;
        bool asks; /* else the listener's own address is one */
    } rows[] = {
        {"127.0.0.1", "127.0.0.1", false}, {"::1", "::1", false}, {"0.0.0.0", "127.0.0.1", true},
        {"::", "127.0.0.1", true},         {"::", "::1", true},
    };
    bool no_ipv6 = false;
    rws_message *created = create(LARGE);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        engine_server server;
        raw_client client;
        test_options options = options_for(rows[i].listen, 0);
        rws_handler handler = engine_server_handler();
        if (rows[i].asks) handler.on_open = ask_for_peer;
        int res = start(&server, &options, &handler, created);
        if (res == -EADDRNOTAVAIL || res == -EAFNOSUPPORT) {
            no_ipv6 = true;
            continue;
        }
        cr_assert_eq(res, 0, "%s", server.error.text);
        cr_assert(raw_connect(&client, rows[i].connect, server.port, 0));
        cr_assert(raw_upgrade(&client));
        cr_assert(answers(&client, 2));
        expect_stats(&server, 0, 0, rows[i].listen);
        raw_close(&client);
        cr_expect(engine_server_await_connections(&server, 0));
        cr_expect_eq(engine_server_stop(&server), 0);
    }
    rws_message_release(created);
    if (no_ipv6) cr_skip_test("there is no IPv6 here; IPv4 is right");
}

Test(engine_zero_copy_live, is_not_tried_on_a_unix_socket)
{
    char path[64];
    engine_server server;
    raw_client client;
    test_options options = options_for("", 0);
    snprintf(path, sizeof path, "/tmp/ringws-zero-copy-%d.sock", (int)getpid());
    options.unix_path = path;
    options.shards = 2;
    rws_handler handler = engine_server_handler();
    rws_message *created = create(LARGE);
    cr_assert_eq(start(&server, &options, &handler, created), 0, "%s", server.error.text);
    for (int n = 0; n < 2; n++) { /* on either shard */
        cr_assert(raw_connect_unix(&client, path));
        cr_assert(raw_upgrade(&client));
        cr_assert(answers(&client, 2));
        expect_stats(&server, 0, 0, "unix");
        raw_close(&client);
    }
    cr_expect(engine_server_await_connections(&server, 0));
    cr_expect_eq(engine_server_stop(&server), 0);
    rws_message_release(created);
}

/* ---- peers that take nothing ---- */

/* The kernel has the memory of a message that the peer does not take. The connection is cut off,
 * or the server stops: it does not wait for the kernel, which would try for minutes. With 100 KB
 * the send itself has completed, with 20 MB it has not. */
Test(engine_zero_copy_live, a_peer_that_takes_nothing_does_not_keep_the_server)
{
    static const size_t sizes[] = {100000, 20u << 20};
    for (size_t i = 0; i < 2; i++) {
        engine_server server;
        raw_client client;
        test_options options = options_for("0.0.0.0", 0);
        options.no_peer_address = true;
        options.drain_timeout_ms = 300;
        options.send_queue_bytes_max = 32u << 20;
        options.socket_send_buffer_bytes = 1 << 20;
        rws_handler handler = engine_server_handler();
        rws_message *created = create(sizes[i]);
        cr_assert_eq(start(&server, &options, &handler, created), 0, "%s", server.error.text);
        cr_assert(raw_connect(&client, "127.0.0.1", server.port, 4096));
        cr_assert(raw_upgrade(&client));
        cr_assert(raw_send_frame(&client, RAW_TEXT, "send", 4));
        cr_assert(engine_server_await(&server.messages, 1));
        test_sleep_ms(100);
        rws_stats stats = engine_server_stats(&server);
        cr_expect_eq(stats.sends_zero_copy, tries(0), "%zu bytes: %llu", sizes[i],
                     (unsigned long long)stats.sends_zero_copy);
        uint64_t begin = test_now_ms();
        cr_expect_eq(engine_server_stop(&server), RWS_E_TIMEOUT, "%zu bytes", sizes[i]);
        cr_expect_lt(test_now_ms() - begin, 5000, "%zu bytes", sizes[i]);
        rws_message_release(created);
        raw_close(&client);
    }
}

/* It takes its time, and closes before it has read all: nothing is lost. */
Test(engine_zero_copy_live, a_slow_peer_gets_everything_before_the_end)
{
    EACH_FEATURES(off)
    {
        engine_server server;
        raw_client client;
        static const uint8_t close_frame[] = {0x03, 0xe8};
        test_options options = options_for("0.0.0.0", *off);
        options.no_peer_address = true;
        options.close_timeout_ms = 10000;
        options.high_watermark_bytes = 4u << 20; /* it goes on reading meanwhile */
        rws_handler handler = engine_server_handler();
        rws_message *created = create(LARGE);
        cr_assert_eq(start(&server, &options, &handler, created), 0, "%s", server.error.text);
        cr_assert(raw_connect(&client, "127.0.0.1", server.port, 4096));
        cr_assert(raw_upgrade(&client));
        for (int n = 0; n < 3; n++)
            cr_assert(raw_send_frame(&client, RAW_TEXT, "send", 4));
        cr_assert(raw_send_frame(&client, RAW_CLOSE, close_frame, sizeof close_frame));
        raw_end(&client);
        cr_assert(engine_server_await(&server.messages, 3));
        test_sleep_ms(300);
        for (int n = 0; n < 3; n++)
            cr_assert(read_answer(&client, LARGE), "message %d", n);
        cr_expect_eq(raw_read_close(&client), 1000);
        raw_close(&client);
        cr_expect(engine_server_await_connections(&server, 0));
        rws_message_release(created);
        cr_expect_eq(engine_server_stop(&server), 0);
    }
}

/* ---- locked memory ---- */

#define LOCKED_STEP 65536u
#define LOCKED_MAX  (8u << 20)

/* Serve as a user who may lock just what a ring needs, and no large message. */
static int serve_with_little_locked_memory(void)
{
    /* A user of its own: what other processes of a user have locked counts too. */
    uid_t user = 60000 + (uid_t)getpid() % 5000;
    if (geteuid() == 0 && (setgroups(0, NULL) != 0 || setuid(user) != 0)) return SKIPPED;
    engine_server server;
    raw_client client;
    test_options options = options_for("0.0.0.0", 0);
    options.no_peer_address = true;
    rws_message *created = create(LARGE);
    rws_handler handler = engine_server_handler();
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0) return SKIPPED;
    int res = -ENOMEM;
    for (rlim_t bytes = 0; res == -ENOMEM && bytes <= LOCKED_MAX; bytes += LOCKED_STEP) {
        limit.rlim_cur = bytes;
        if (setrlimit(RLIMIT_MEMLOCK, &limit) != 0) return SKIPPED;
        res = start(&server, &options, &handler, created);
    }
    if (res != 0) return SKIPPED;
    if (!raw_open(&client, server.port) || !answers(&client, 3)) return 1;
    rws_stats stats = engine_server_stats(&server);
    if (stats.sends_zero_copy > 1 || stats.zero_copy_given_up != stats.sends_zero_copy) return 2;
    raw_close(&client);
    if (!engine_server_await_connections(&server, 0) || engine_server_stop(&server) != 0) return 3;
    rws_message_release(created);
    return 0;
}

Test(engine_zero_copy_live, goes_on_plainly_over_the_limit_of_locked_memory)
{
    (void)fflush(NULL);
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) _exit(serve_with_little_locked_memory());
    int status;
    while (waitpid(pid, &status, 0) < 0)
        cr_assert_eq(errno, EINTR);
    cr_assert(WIFEXITED(status));
    if (WEXITSTATUS(status) == SKIPPED) cr_skip_test("the limit or the user can't be set here");
    cr_expect_eq(WEXITSTATUS(status), 0, "%d", WEXITSTATUS(status));
}
