/*
 * Accepting on the scripted ring (ctest: scripted ring): failures, the reserve, addresses, and the
 * descriptors that come one by one.
 */
#include <criterion/criterion.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/scripted_shard.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static world w;

static void start(uint32_t features_off)
{
    test_options options = world_server_options();
    options.features_off = features_off;
    options.handshake_timeout_ms = 1000000;
    world_start(&w, &options);
}

static uint32_t accepts_in_flight(void)
{
    uint32_t count = 0;
    for (const script_op *op = w.ring->ops; op != NULL; op = op->next)
        if (op->kind <= SCRIPT_ACCEPT_FD) count++;
    return count;
}

static script_op *find_accept(void)
{
    script_op *op = script_find(w.ring, SCRIPT_ACCEPT_MULTISHOT, UINT32_MAX);
    if (op == NULL) op = script_find(w.ring, SCRIPT_ACCEPT_DIRECT, UINT32_MAX);
    if (op == NULL) op = script_find(w.ring, SCRIPT_ACCEPT_FD, UINT32_MAX);
    return op;
}

static const uint32_t ways[] = {0, RWS__FEATURE_MULTISHOT_ACCEPT, RWS__FEATURE_SOCKET_COMMANDS};

Test(engine_listener, accepts_one_after_the_other)
{
    for (size_t i = 0; i < COUNT(ways); i++) {
        start(ways[i]);
        cr_assert_eq(accepts_in_flight(), ways[i] == 0 ? 1 : RWS__ACCEPTS);
        for (uint32_t n = 0; n < 8; n++)
            cr_assert_eq(world_open(&w), n);
        cr_assert_eq(world_stats(&w).connections, 8);
        cr_assert_eq(world_stats(&w).accepted, 8);
        cr_assert_eq(world_stats(&w).upgraded, 8);
        world_end(&w);
    }
}

Test(engine_listener, arms_a_multishot_accept_again_when_it_ended)
{
    start(0);
    for (uint32_t n = 0; n < 5; n++) {
        script_complete(w.ring, find_accept(), (int32_t)n, 0);
        world_turns(&w, 2);
        cr_assert_eq(accepts_in_flight(), 1);
        cr_assert_not_null(world_conn(&w, n));
    }
    world_end(&w);
}

Test(engine_listener, goes_on_at_once_when_only_the_peer_gave_up)
{
    static const int32_t passing[] = {-ECONNABORTED, -EPROTO, -EINTR, -EAGAIN, -ECANCELED};
    for (size_t i = 0; i < COUNT(ways) * COUNT(passing); i++) {
        start(ways[i / COUNT(passing)]);
        uint32_t before = accepts_in_flight();
        script_complete(w.ring, find_accept(), passing[i % COUNT(passing)], 0);
        world_turns(&w, 2);
        cr_assert_eq(accepts_in_flight(), before);
        world_open(&w);
        world_end(&w);
    }
}

Test(engine_listener, backs_off_when_a_resource_is_missing_and_recovers)
{
    static const int32_t missing[] = {-ENFILE, -EMFILE, -ENOMEM, -ENOBUFS};
    for (size_t i = 0; i < COUNT(ways) * COUNT(missing); i++) {
        start(ways[i / COUNT(missing)]);
        uint32_t before = accepts_in_flight(), file = world_open(&w);
        for (int n = 0; n < 3; n++) {
            script_complete(w.ring, find_accept(), missing[i % COUNT(missing)], 0);
            world_turns(&w, 3);
            cr_assert_eq(accepts_in_flight(), 0, "nothing is accepted for a while");
            world_advance(&w, 50);
            cr_assert_eq(accepts_in_flight(), 0, "not yet");
            world_advance(&w, 100);
            cr_assert_eq(accepts_in_flight(), before, "and then again");
        }
        world_frame(&w, file, RWS_TEXT, "meanwhile");
        world_log_is(&w, "open0 text0:meanwhile ", "the others are served");
        world_open(&w);
        world_end(&w);
    }
}

Test(engine_listener, tries_again_when_an_accept_is_not_submitted)
{
    for (size_t i = 0; i < COUNT(ways); i++) {
        start(ways[i]);
        uint32_t before = accepts_in_flight();
        w.ring->refuse[SCRIPT_ACCEPT_MULTISHOT] = w.ring->refuse[SCRIPT_ACCEPT_DIRECT] = 3;
        script_complete(w.ring, find_accept(), -EAGAIN, 0);
        world_turns(&w, 6);
        cr_assert_eq(accepts_in_flight(), before);
        world_open(&w);
        world_end(&w);
    }
}

/* ---- no more than there is room for ---- */

Test(engine_listener, never_accepts_more_than_it_has_slots_for)
{
    for (size_t i = 0; i < COUNT(ways); i++) {
        start(ways[i]);
        uint32_t all = w.shard->conns.streams.options.slots_max - RWS__RESERVE_DIALS;
        for (uint32_t n = 0; n < all; n++) {
            world_accept(&w);
            uint32_t room = all - w.shard->conns.streams.slots_used;
            if (script_find(w.ring, SCRIPT_ACCEPT_MULTISHOT, UINT32_MAX) == NULL)
                cr_assert_leq(accepts_in_flight(), room, "%u accepted", n + 1);
        }
        cr_assert_eq(accepts_in_flight(), 0);
        cr_assert_eq(world_stats(&w).accept_pauses, 1);
        cr_assert_eq(world_stats(&w).connections, all);
        world_eof(&w, 3);
        world_turns(&w, 3);
        cr_assert_eq(accepts_in_flight(), 1, "a slot is free again");
        w.next_file = 3;
        world_accept(&w);
        cr_assert_eq(accepts_in_flight(), 0);
        cr_assert_eq(world_stats(&w).accept_pauses, 2);
        world_end(&w);
    }
}

/* Of one listener. */
static uint32_t accepts_of(uint32_t index)
{
    uint32_t count = 0;
    for (const script_op *op = w.ring->ops; op != NULL; op = op->next)
        if (op->kind <= SCRIPT_ACCEPT_FD)
            count += rws__op_slot(op->user_data) >> RWS__ACCEPT_SLOT_BITS == index;
    return count;
}

/* All together: each accept in flight may take a slot, and each listener has one. */
Test(engine_listener, several_never_accept_more_than_there_are_slots_for)
{
    static const uint32_t counts[] = {2, 5, RWS__LISTENERS_MAX};
    for (size_t i = 0; i < COUNT(ways) * COUNT(counts); i++) {
        test_options options = world_server_options();
        options.features_off = ways[i / COUNT(counts)];
        options.listeners = counts[i % COUNT(counts)];
        options.handshake_timeout_ms = 1000000;
        world_start(&w, &options);
        uint32_t all = w.shard->conns.streams.options.slots_max - RWS__RESERVE_DIALS;
        for (uint32_t n = 0; n < options.listeners; n++)
            cr_assert_geq(accepts_of(n), 1, "%u listeners: %u", options.listeners, n);
        for (uint32_t n = 0; n < all; n++) {
            world_accept(&w);
            uint32_t room = all - w.shard->conns.streams.slots_used;
            /* A multishot one brings its whole backlog. */
            for (uint32_t at = 0; at < options.listeners; at++)
                if (w.shard->listeners[at].multishot_armed && !w.shard->listeners[at].cancelled)
                    cr_assert_geq(room, options.listeners * options.backlog, "%u accepted", n + 1);
            if (script_find(w.ring, SCRIPT_ACCEPT_MULTISHOT, UINT32_MAX) == NULL)
                cr_assert_leq(accepts_in_flight(), room, "%u accepted", n + 1);
        }
        cr_assert_eq(accepts_in_flight(), 0);
        cr_assert_eq(world_stats(&w).connections, all);
        world_eof(&w, 3);
        world_turns(&w, 3);
        cr_assert_eq(accepts_in_flight(), 1, "a slot is free again");
        world_end(&w);
    }
}

Test(engine_listener, answers_503_beyond_connections_max)
{
    start(0);
    for (int n = 0; n < 8; n++)
        world_open(&w);
    w.log.len = 0;
    uint32_t file = world_accept(&w);
    world_feed(&w, file, world_request, strlen(world_request));
    world_turns(&w, 3);
    feed_bytes_append(&w.ring->wire[file], "", 1);
    cr_assert_not_null(strstr((char *)w.ring->wire[file].data, "HTTP/1.1 503 "));
    world_log_is(&w, "", "no callback");
    cr_assert_eq(world_stats(&w).refused, 1);
    rws_conn_abort(world_conn(&w, 0));
    world_eof(&w, file);
    world_turns(&w, 3);
    world_open(&w);
    world_end(&w);
}

/* Whoever does not even get a slot reads what a connection beyond the bound reads. */
Test(engine_listener, turns_away_with_the_answer_of_a_full_server)
{
    start(0);
    for (int n = 0; n < 8; n++)
        world_open(&w);
    uint32_t file = world_accept(&w);
    world_feed(&w, file, world_request, strlen(world_request));
    world_turns(&w, 3);
    int fd = script_socket();
    uint32_t before = script_net.turned_away;
    rws__listener_turn_away(&w.shard->listeners[0], fd);
    const feed_bytes *wire = &w.ring->wire[file];
    cr_assert_gt(wire->len, 0);
    cr_assert_lt(wire->len, sizeof script_net.answer);
    cr_assert_eq(script_net.turned_away, before + 1);
    cr_assert_eq(memcmp(script_net.answer, wire->data, wire->len), 0);
    cr_assert_eq(script_net.answer[wire->len], 0);
    cr_assert_not(script_socket_is_open(fd));
    world_eof(&w, file);
    world_end(&w);
}

/* ---- the peer's address ---- */

static void peer_is(uint32_t file, const char *ip, uint16_t port)
{
    struct sockaddr_storage address = {0};
    socklen_t len = sizeof address;
    cr_assert_eq(rws_conn_peer(world_conn(&w, file), &address, &len), 0);
    cr_assert_eq(len, sizeof(struct sockaddr_in));
    struct sockaddr_in in;
    memcpy(&in, &address, sizeof in);
    char text[INET_ADDRSTRLEN];
    inet_ntop(AF_INET, &in.sin_addr, text, sizeof text);
    cr_assert_str_eq(text, ip);
    cr_assert_eq(ntohs(in.sin_port), port);
}

Test(engine_listener, knows_the_peer_by_a_command_or_from_the_accept)
{
    start(0);
    peer_is(world_accept(&w), "127.0.0.1", 4242);
    struct sockaddr_storage address;
    socklen_t len = 2;
    cr_assert_eq(rws_conn_peer(world_conn(&w, 0), &address, &len), 0);
    cr_assert_eq(len, sizeof(struct sockaddr_in), "the length that is needed");
    world_end(&w);

    start(RWS__FEATURE_SOCKET_COMMANDS);
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(99)};
    in.sin_addr.s_addr = htonl(0x0a000001);
    memcpy(find_accept()->memory, &in, sizeof in);
    peer_is(world_accept(&w), "10.0.0.1", 99);
    world_end(&w);
}

Test(engine_listener, serves_without_the_address_if_it_is_not_wanted_or_not_found)
{
    for (int refused = 0; refused < 2; refused++) {
        test_options options = world_server_options();
        options.no_peer_address = !refused;
        world_start(&w, &options);
        w.ring->refuse[SCRIPT_PEER] = 1;
        uint32_t file = world_open(&w);
        struct sockaddr_storage address;
        socklen_t len = sizeof address;
        cr_assert_eq(rws_conn_peer(world_conn(&w, file), &address, &len), RWS_E_STATE);
        cr_assert_eq(w.ring->calls_of[SCRIPT_PEER], 0);
        world_end(&w);
    }
}

/* ---- descriptors that are put into the table ---- */

static const char unix_path[] = "/nowhere/listener.sock";

static void start_unix(void)
{
    test_options options = world_server_options();
    options.unix_path = unix_path;
    world_start(&w, &options);
}

Test(engine_listener, installs_the_descriptors_of_a_unix_socket)
{
    start_unix();
    int fd = script_socket();
    script_complete(w.ring, script_find(w.ring, SCRIPT_ACCEPT_FD, UINT32_MAX), fd, 0);
    world_turns(&w, 3);
    cr_assert_not(script_socket_is_open(fd), "the table has it");
    world_feed(&w, 100, world_request, strlen(world_request));
    world_turns(&w, 2);
    world_log_is(&w, "open100 ", "installed");
    struct sockaddr_storage address;
    socklen_t len = sizeof address;
    cr_assert_eq(rws_conn_peer(world_conn(&w, 100), &address, &len), 0);
    cr_assert_eq(address.ss_family, AF_UNIX);
    cr_assert_str_eq(script_net.unlinked, "");
    world_end(&w);
    cr_assert_str_eq(script_net.unlinked, unix_path, "the socket's file is removed");
    cr_assert_eq(script_net.unlinked_file.inode, script_net.unix_files, "its own, no other");
}

Test(engine_listener, closes_a_descriptor_that_the_table_does_not_take)
{
    static const int32_t results[] = {0, -ENFILE, -ENOMEM, -EBADF, -ECANCELED};
    for (size_t i = 0; i < COUNT(results); i++) {
        start_unix();
        w.ring->manual = SCRIPT_BIT(SCRIPT_INSTALL);
        int fd = script_socket();
        script_complete(w.ring, script_find(w.ring, SCRIPT_ACCEPT_FD, UINT32_MAX), fd, 0);
        world_turns(&w, 2);
        script_complete(w.ring, script_find(w.ring, SCRIPT_INSTALL, UINT32_MAX), results[i], 0);
        world_turns(&w, 3);
        cr_assert_not(script_socket_is_open(fd));
        cr_assert_eq(w.shard->conns.streams.slots_used, 0);
        cr_assert_eq(w.ring->calls_of[SCRIPT_CLOSE], 0, "there is nothing to close");
        world_end(&w);
    }
}

/* A full submission queue loses nothing: it is tried again in the next turn. */
Test(engine_listener, installs_a_descriptor_that_the_ring_took_later)
{
    start_unix();
    w.ring->refuse[SCRIPT_INSTALL] = 3;
    int fd = script_socket();
    script_complete(w.ring, script_find(w.ring, SCRIPT_ACCEPT_FD, UINT32_MAX), fd, 0);
    world_turns(&w, 6);
    cr_assert_not(script_socket_is_open(fd), "the table has it");
    world_feed(&w, 100, world_request, strlen(world_request));
    world_log_is(&w, "open100 ", "installed");
    world_end(&w);
}

Test(engine_listener, closes_a_descriptor_that_the_ring_never_took)
{
    start_unix();
    w.ring->refuse[SCRIPT_INSTALL] = UINT32_MAX;
    int fd = script_socket();
    script_complete(w.ring, script_find(w.ring, SCRIPT_ACCEPT_FD, UINT32_MAX), fd, 0);
    world_turns(&w, 2);
    cr_assert(script_socket_is_open(fd));
    world_advance(&w, 20000);
    cr_assert_not(script_socket_is_open(fd), "at the handshake's deadline");
    cr_assert_eq(w.shard->conns.streams.slots_used, 0);
    world_end(&w);
}

/* The handshake's deadline passes, or the drain ends, while the file is on its way. */
Test(engine_listener, closes_a_file_that_comes_too_late)
{
    start_unix();
    w.ring->manual = SCRIPT_BIT(SCRIPT_INSTALL);
    int fd = script_socket();
    script_complete(w.ring, script_find(w.ring, SCRIPT_ACCEPT_FD, UINT32_MAX), fd, 0);
    world_turns(&w, 2);
    world_advance(&w, 20000);
    cr_assert_eq(w.shard->conns.streams.slots_used, 1);
    script_complete(w.ring, script_find(w.ring, SCRIPT_INSTALL, UINT32_MAX), 1, 0);
    world_turns(&w, 3);
    cr_assert(w.ring->closed[100]);
    cr_assert_eq(w.shard->conns.streams.slots_used, 0);
    world_end(&w);
}
