/*
 * Hosts that have several addresses, on the scripted ring (ctest: scripted ring): where one can't
 * be connected to the next has its turn, within one deadline, and the program hears of the dial
 * once.
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "support/scripted_shard.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static world w;

static void start(uint32_t connections_max)
{
    test_options options = {0};
    options.connections_max = connections_max;
    options.handshake_timeout_ms = 1000;
    world_start_client(&w, &options);
    w.ring->manual = SCRIPT_BIT(SCRIPT_CONNECT);
}

static void resolve_to(const char *const *addresses, size_t count)
{
    memset(script_net.addresses, 0, sizeof script_net.addresses);
    for (size_t i = 0; i < count; i++)
        script_net.addresses[i] = addresses[i];
}

#define RESOLVE_TO(...)                                                                            \
    resolve_to((const char *const[]){__VA_ARGS__},                                                 \
               sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *))

static void dial(void)
{
    cr_assert_eq(world_dial(&w, "ws://several.test:9/", NULL, (void *)7), 0);
    world_turns(&w, 4);
}

static bool is_connecting(uint32_t file)
{
    return script_find(w.ring, SCRIPT_CONNECT, file) != NULL;
}

static void connect_gives(uint32_t file, int32_t res)
{
    script_op *op = script_find(w.ring, SCRIPT_CONNECT, file);
    cr_assert_not_null(op, "file %u does not connect", file);
    script_complete(w.ring, op, res, 0);
    world_turns(&w, 6);
}

static void check_peer(uint32_t file, const char *address)
{
    struct sockaddr_storage peer;
    socklen_t len = sizeof peer;
    char text[INET6_ADDRSTRLEN];
    cr_assert_eq(rws_conn_peer(world_conn(&w, file), &peer, &len), 0);
    const void *bytes = peer.ss_family == AF_INET6
                            ? (const void *)&((struct sockaddr_in6 *)&peer)->sin6_addr
                            : (const void *)&((struct sockaddr_in *)&peer)->sin_addr;
    cr_assert_not_null(inet_ntop(peer.ss_family, bytes, text, sizeof text));
    cr_expect_str_eq(text, address);
}

static void expect_error(int status, const char *text)
{
    char expected[32];
    snprintf(expected, sizeof expected, "dial_error7:%d ", status);
    world_log_is(&w, expected, text);
    cr_expect_str_eq(w.dial_error, text);
    cr_expect_eq(w.shard->conns.dials_count, 0);
}

Test(engine_dialer_addresses, the_next_one_has_its_turn)
{
    static const int32_t results[] = {-ECONNREFUSED, -ENETUNREACH, -EHOSTUNREACH, -ETIMEDOUT,
                                      -EADDRNOTAVAIL};
    for (size_t i = 0; i < COUNT(results); i++) {
        start(4);
        RESOLVE_TO("::1", "192.0.2.1", "127.0.0.1");
        dial();
        connect_gives(100, results[i]);
        cr_assert(w.ring->closed[100]);
        cr_assert_eq(w.shard->conns.streams.slots_used, 1, "one slot at a time");
        connect_gives(101, results[i]);
        connect_gives(102, 0);
        world_log_is(&w, "", "nothing was told");
        world_answer(&w, 102, "101 Switching Protocols", "", "");
        world_log_is(&w, "open102 ", "dialled");
        check_peer(102, "127.0.0.1");
        rws_stats stats = world_stats(&w);
        cr_expect_eq(stats.refused, 0, "%llu", (unsigned long long)stats.refused);
        cr_expect_eq(stats.accepted, 1);
        cr_expect_eq(stats.upgraded, 1);
        world_end(&w);
    }
}

/* All have failed: once, with what the preferred one says, and the names of all. */
Test(engine_dialer_addresses, the_error_names_what_was_tried)
{
    start(4);
    RESOLVE_TO("::1", "127.0.0.1");
    dial();
    connect_gives(100, -ECONNREFUSED);
    world_log_is(&w, "", "there is another one");
    connect_gives(101, -ENETUNREACH);
    expect_error(-ECONNREFUSED, "connection refused: nobody listens there (tried ::1, 127.0.0.1)");
    cr_expect_eq(world_stats(&w).refused, 1);
    cr_expect_eq(world_stats(&w).accepted, 0);
    world_end(&w);
    /* One alone is in the URL. */
    start(4);
    RESOLVE_TO("127.0.0.1");
    dial();
    connect_gives(100, -ECONNREFUSED);
    expect_error(-ECONNREFUSED, "connection refused: nobody listens there");
    world_end(&w);
}

Test(engine_dialer_addresses, at_most_eight_are_tried)
{
    char texts[12][INET6_ADDRSTRLEN];
    const char *list[COUNT(texts)];
    for (size_t i = 0; i < COUNT(texts); i++) {
        snprintf(texts[i], sizeof texts[i], "2001:db8:1111:2222:3333:4444:5555:%zx", 0x6660 + i);
        list[i] = texts[i];
    }
    start(4);
    resolve_to(list, COUNT(list));
    dial();
    for (uint32_t i = 0; i < 8; i++)
        connect_gives(100 + i, -EHOSTUNREACH);
    cr_assert_not(is_connecting(108));
    cr_expect_eq(
        strncmp(w.dial_error, rws_strerror(-EHOSTUNREACH), strlen(rws_strerror(-EHOSTUNREACH))), 0,
        "%s", w.dial_error);
    cr_expect_not_null(strstr(w.dial_error, "5555:6660, "), "%s", w.dial_error);
    cr_expect_not_null(strstr(w.dial_error, ", ...)"), "%s", w.dial_error);
    cr_expect_eq(world_stats(&w).refused, 1);
    world_end(&w);
}

/* The deadline is the dial's: a second attempt has what the first one left. */
Test(engine_dialer_addresses, all_have_one_deadline)
{
    start(4);
    RESOLVE_TO("::1", "127.0.0.1");
    dial();
    world_pass(&w, 700);
    connect_gives(100, -ECONNREFUSED);
    world_pass(&w, 200);
    cr_assert(is_connecting(101));
    world_log_is(&w, "", "not early");
    world_pass(&w, 100 + 3 * RWS__TICK_MS);
    expect_error(RWS_E_TIMEOUT, "the handshake did not end in time");
    cr_expect_eq(world_stats(&w).timeouts, 1);
    cr_expect_eq(world_stats(&w).refused, 0);
    script_cancel_closed(w.ring);
    world_end(&w);
}

/* What comes after the connect is the server's answer: no other address is asked for another. */
Test(engine_dialer_addresses, a_server_that_answers_is_the_last_one)
{
    for (int closes = 0; closes < 2; closes++) {
        start(4);
        RESOLVE_TO("::1", "127.0.0.1");
        dial();
        connect_gives(100, 0);
        if (closes)
            world_eof(&w, 100);
        else
            world_answer(&w, 100, "404 Not Found", "", "");
        world_turns(&w, 6);
        if (closes)
            expect_error(RWS_E_CLOSED, "the server closed the connection before it answered");
        else
            expect_error(RWS_E_UPGRADE, "the server answered 404 instead of 101");
        cr_expect_not(is_connecting(101));
        world_end(&w);
    }
}

/* The table does not take it: that is no address's fault. */
Test(engine_dialer_addresses, what_fails_here_is_not_tried_elsewhere)
{
    start(4);
    RESOLVE_TO("::1", "127.0.0.1");
    w.ring->manual |= SCRIPT_BIT(SCRIPT_INSTALL);
    dial();
    script_complete(w.ring, script_find(w.ring, SCRIPT_INSTALL, UINT32_MAX), -ENOMEM, 0);
    world_turns(&w, 6);
    expect_error(-ENOMEM, "the connection broke");
    cr_expect_null(script_find(w.ring, SCRIPT_INSTALL, UINT32_MAX));
    world_end(&w);
    start(4);
    script_net.make_result = -EMFILE;
    dial();
    expect_error(-EMFILE, "no descriptor for a socket is left: raise the limit (ulimit -n)");
    script_net.make_result = 0;
    world_end(&w);
}

Test(engine_dialer_addresses, a_family_that_the_system_lacks_is_passed_over)
{
    script_net.family_missing = AF_INET6;
    start(4);
    RESOLVE_TO("::1", "127.0.0.1");
    dial();
    connect_gives(100, 0);
    world_answer(&w, 100, "101 Switching Protocols", "", "");
    world_log_is(&w, "open100 ", "dialled");
    check_peer(100, "127.0.0.1");
    world_end(&w);
    start(4);
    RESOLVE_TO("::1", "::2");
    dial();
    char expected[256];
    snprintf(expected, sizeof expected, "%s (tried ::1, ::2)", rws_strerror(-EAFNOSUPPORT));
    expect_error(-EAFNOSUPPORT, expected);
    world_end(&w);
    script_net.family_missing = AF_UNSPEC;
}

/* ---- while the file of the one before is being closed ---- */

/* The first address was refused, and its file is on its way out of the table. */
static void be_between(void)
{
    start(4);
    RESOLVE_TO("::1", "127.0.0.1");
    w.ring->manual |= SCRIPT_BIT(SCRIPT_CLOSE);
    dial();
    connect_gives(100, -ECONNREFUSED);
    cr_assert_not_null(script_find(w.ring, SCRIPT_CLOSE, 100));
    cr_assert_eq(w.shard->conns.dials_count, 1, "it keeps its place");
}

static void let_close(void)
{
    script_complete(w.ring, script_find(w.ring, SCRIPT_CLOSE, 100), 0, 0);
    w.ring->manual &= ~SCRIPT_BIT(SCRIPT_CLOSE);
    world_turns(&w, 6);
    cr_expect_not(is_connecting(101), "it was given up");
    cr_expect_eq(w.shard->conns.streams.slots_used, 0);
}

Test(engine_dialer_addresses, may_be_cancelled_between_two)
{
    be_between();
    rws__conns_cancel_dial(&w.shard->conns, 0); /* the id that these have */
    expect_error(RWS_E_ABORTED, "the dial was cancelled");
    let_close();
    world_log_is(&w, "", "it was told once");
    world_end(&w);
}

Test(engine_dialer_addresses, meets_its_deadline_between_two)
{
    be_between();
    world_pass(&w, 1100);
    expect_error(RWS_E_TIMEOUT, "the handshake did not end in time");
    let_close();
    world_log_is(&w, "", "it was told once");
    world_end(&w);
}

Test(engine_dialer_addresses, a_drain_between_two_ends_it)
{
    be_between();
    rws__loop_stop(&w.shard->loop);
    world_turns(&w, 2);
    expect_error(RWS_E_STATE, "the runtime is stopping");
    let_close();
    world_log_is(&w, "", "it was told once");
    world_end(&w);
}

Test(engine_dialer_addresses, a_loop_that_breaks_between_two_ends_it)
{
    be_between();
    w.ring->turn_result = -EBADF;
    world_turn(&w);
    cr_assert(w.ended);
    rws__shard_close(w.shard);
    expect_error(RWS_E_STATE, "the runtime is stopping");
    cr_expect_eq(w.shard->conns.streams.slots_used, 0);
    rws__runtime_deinit(&w.runtime);
    feed_bytes_free(&w.log);
}

/* As many as there may be go on in the same turn: each takes the place that it had. */
Test(engine_dialer_addresses, many_go_on_at_once)
{
    enum { DIALS = 78 }; /* more than the reserve has slots */
    start(DIALS);
    RESOLVE_TO("::1", "127.0.0.1");
    for (int i = 0; i < DIALS; i++)
        cr_assert_eq(world_dial(&w, "ws://several.test:9/", NULL, (void *)7), 0);
    world_turns(&w, 4);
    for (uint32_t file = 100; file < 100 + DIALS; file++)
        script_complete(w.ring, script_find(w.ring, SCRIPT_CONNECT, file), -ECONNREFUSED, 0);
    world_turns(&w, 8);
    world_log_is(&w, "", "all go on");
    for (uint32_t file = 100 + DIALS; file < 100 + 2 * DIALS; file++)
        cr_expect(is_connecting(file), "%u", file);
    cr_expect_eq(w.shard->conns.dials_count, DIALS);
    rws__loop_stop(&w.shard->loop);
    world_turns(&w, 4);
    script_cancel_closed(w.ring);
    world_end(&w);
}
