/*
 * The contract of the ring (engine/ring/ring.h), and what the engine relies on of TCP: accepts and
 * connects, the table, cancels, timeouts, events, queues that are full (ctest: both rings).
 */
#include "support/contract.h"

#include "engine/ring/event.h"
#include "ringws/types.h"

#include <arpa/inet.h>

#define ACCEPT  0xACCu
#define DATA    0xDA7Au
#define CONNECT 0xC044u
#define EVENT   0xE4E47u
#define TIMER   0x7100u

static uint8_t bytes[8];

/* ---- accepts ---- */

static bool is_index(int32_t res)
{
    return res >= 0 && res < (int32_t)it.options.files;
}

static bool same_address(const struct sockaddr_storage *one, const struct sockaddr_storage *other)
{
    return memcmp(one, other, sizeof(struct sockaddr_in)) == 0;
}

Test(contract_ring, a_multishot_accept_goes_on_until_it_is_cancelled)
{
    EACH_RING
    {
        int peers[4];
        uint32_t seen = 0;
        peers[0] = connect_to(&it.address);
        peers[1] = connect_to(&it.address);
        settle();
        cr_assert_eq(rws__ring_accept_multishot(it.ring, it.listener, ACCEPT), 0);
        for (int i = 0; i < 4; i++) {
            if (i >= 2) peers[i] = connect_to(&it.address);
            const done *one = await(ACCEPT);
            cr_assert(is_index(one->cqe.res), "%d", one->cqe.res);
            cr_assert(one->cqe.flags & RWS__CQE_MORE);
            cr_assert_not(seen & 1u << one->cqe.res, "%d twice", one->cqe.res);
            seen |= 1u << one->cqe.res;
        }
        cr_assert_eq(rws__ring_cancel(it.ring, ACCEPT), 0);
        const done *one = await(ACCEPT);
        cr_assert_eq(one->cqe.res, -ECANCELED);
        cr_assert_not(one->cqe.flags & RWS__CQE_MORE);
        expect_nothing(NOBODY);
        for (uint32_t file = 0; file < it.options.files; file++)
            if (seen & 1u << file) close_file(file);
        for (int i = 0; i < 4; i++)
            outside_close(peers[i]);
    }
}

Test(contract_ring, an_accept_brings_the_address_of_the_peer)
{
    EACH_RING
    for (int before = 0; before < 2; before++) {
        struct sockaddr_storage address = {0}, wanted, asked;
        socklen_t len = sizeof address;
        int peer = -1;
        if (before) peer = connect_to(&it.address);
        cr_assert_eq(rws__ring_accept_direct(it.ring, it.listener, (struct sockaddr *)&address,
                                             &len, ACCEPT),
                     0);
        turn();
        if (!before) peer = connect_to(&it.address);
        int32_t file = await(ACCEPT)->cqe.res;
        cr_assert(is_index(file), "%d", file);
        cr_assert_eq(len, sizeof(struct sockaddr_in));
        cr_assert_eq(rws__socket_local(peer, &wanted), 0);
        cr_assert(same_address(&address, &wanted));
        cr_assert_eq(rws__socket_peer(peer, &asked), 0);
        cr_assert(same_address(&asked, &it.address.storage));

        if (it.features & RWS__FEATURE_SOCKET_COMMANDS) {
            memset(&address, 0, sizeof address);
            cr_assert_eq(
                rws__ring_peer(it.ring, (uint32_t)file, &address, sizeof(struct sockaddr_in)), 0);
            cr_assert(same_address(&address, &wanted));
            expect_nothing(NOBODY);
        }
        close_file((uint32_t)file);
        outside_close(peer);
    }
}

/* A descriptor goes into the table and can be closed outside of it. */
Test(contract_ring, what_is_accepted_as_a_descriptor_is_installed)
{
    EACH_RING
    {
        struct sockaddr_storage address, wanted;
        int peer = connect_to(&it.address);
        cr_assert_eq(rws__ring_accept_fd(it.ring, it.listener, ACCEPT), 0);
        int32_t fd = await(ACCEPT)->cqe.res;
        cr_assert_geq(fd, 0);
        cr_assert_eq(rws__socket_local(peer, &wanted), 0);
        cr_assert_eq(rws__socket_peer(fd, &address), 0);
        cr_assert(same_address(&address, &wanted));

        int32_t index = fd;
        cr_assert_eq(rws__ring_install(it.ring, &index, DATA), 0);
        expect(DATA, 1);
        cr_assert(is_index(index), "%d", index);
        rws__socket_close(fd);
        cr_assert_eq(rws__ring_send(it.ring, (uint32_t)index, "hello", 5, DATA), 0);
        expect(DATA, 5);
        peer_reads(peer, "hello");
        close_file((uint32_t)index);
        int end;
        cr_assert_eq(peer_ends(peer, &end), 0);
        cr_assert_eq(end, 0);
        outside_close(peer);
    }
}

/* ---- the table ---- */

Test(contract_ring, a_full_table_loses_what_is_accepted)
{
    EACH_RING
    {
        pair pairs[FILES];
        int end;
        uint8_t byte;
        for (uint32_t i = 0; i < FILES; i++)
            pairs[i] = accept_pair();
        int peer = connect_to(&it.address);
        cr_assert_eq(rws__ring_accept_multishot(it.ring, it.listener, ACCEPT), 0);
        const done *one = await(ACCEPT);
        cr_assert_eq(one->cqe.res, -ENFILE);
        cr_assert_not(one->cqe.flags & RWS__CQE_MORE, "it goes on");
        cr_assert_eq(peer_ends(peer, &end), 0);
        cr_assert_eq(end, 0);
        outside_close(peer);

        int fd = rws__socket_make(AF_INET, &(rws__socket_options){0});
        int32_t index = fd;
        cr_assert_eq(rws__ring_install(it.ring, &index, DATA), 0);
        (void)expect_one_of(DATA, EITHER(0, -ENFILE));
        rws__socket_close(fd);

        /* A free index can be used before the completion of its close. */
        cr_assert_eq(rws__ring_close(it.ring, pairs[3].file, DATA), 0);
        outside_close(pairs[3].peer);
        uint32_t was = pairs[3].file;
        pairs[3] = accept_pair();
        cr_assert_eq(pairs[3].file, was);
        (void)await(DATA);
        cr_assert_eq(rws__ring_recv(it.ring, was, &byte, 1, DATA), 0);
        write_text(pairs[3].peer, "x");
        expect(DATA, 1);
        for (uint32_t i = 0; i < FILES; i++)
            close_pair(pairs[i]);
    }
}

/* What is in flight on an old file is not the new one's: it holds the socket until it ends. */
Test(contract_ring, a_close_leaves_what_is_in_flight)
{
    EACH_RING
    {
        pair old = accept_pair();
        int end;
        cr_assert_eq(rws__ring_recv(it.ring, old.file, bytes, sizeof bytes, DATA), 0);
        turn();
        close_file(old.file);
        peer_gets_nothing(old.peer);
        pair next = accept_pair();
        cr_assert_eq(next.file, old.file);
        write_text(old.peer, "abc");
        expect(DATA, 3);
        cr_assert_arr_eq(bytes, "abc", 3);
        cr_assert_eq(peer_ends(old.peer, &end), 0);
        cr_assert_eq(end, 0);
        outside_close(old.peer);

        cr_assert_eq(rws__ring_recv(it.ring, next.file, bytes, sizeof bytes, DATA), 0);
        cr_assert_eq(rws__ring_cancel_file(it.ring, next.file), 0);
        cr_assert_eq(rws__ring_close(it.ring, next.file, CONNECT), 0);
        (void)await(CONNECT);
        expect(DATA, -ECANCELED);
        cr_assert_eq(peer_ends(next.peer, &end), 0);
        cr_assert_eq(end, 0);
        outside_close(next.peer);
    }
}

/* What waits on other files does not keep a closed one. Before 6.7 it does: on 6.1 a removed file
 * is put when the operations that were in flight at that time have ended, so the engine ends its
 * half first. */
Test(contract_ring, a_close_ends_a_connection_while_others_wait)
{
    EACH_RING
    {
        pair other = accept_pair(), on = accept_pair();
        int end;
        cr_assert_eq(rws__ring_recv(it.ring, other.file, bytes, sizeof bytes, DATA), 0);
        turn();
        if (!(it.features & RWS__FEATURE_SOCKET_COMMANDS)) {
            cr_assert_eq(rws__ring_shutdown_write(it.ring, on.file, CONNECT), 0);
            (void)await(CONNECT);
        }
        close_file(on.file);
        cr_assert_eq(peer_ends(on.peer, &end), 0);
        cr_assert_eq(end, 0);
        outside_close(on.peer);
        write_text(other.peer, "x");
        expect(DATA, 1);
        close_pair(other);
    }
}

Test(contract_ring, a_close_with_unread_bytes_resets)
{
    EACH_RING
    {
        pair on = accept_pair();
        int end;
        write_text(on.peer, "never read");
        cr_assert_eq(rws__ring_send(it.ring, on.file, "last", 4, DATA), 0);
        expect(DATA, 4);
        close_file(on.file);
        cr_assert_eq(peer_ends(on.peer, &end), 4);
        cr_assert_eq(end, -ECONNRESET);
        outside_close(on.peer);
    }
}

/* ---- connects ---- */

static void dial(uint32_t file, const rws__socket_address *to)
{
    cr_assert_eq(
        rws__ring_connect(it.ring, file, (const struct sockaddr *)&to->storage, to->len, CONNECT),
        0);
}

Test(contract_ring, a_connect_stands_or_is_refused)
{
    EACH_RING
    {
        uint32_t file = install_socket();
        dial(file, &it.address);
        expect(CONNECT, 0);
        int peer = rws__socket_accept(it.listener);
        cr_assert_geq(peer, 0);
        outside_adopt(peer);
        cr_assert_eq(rws__ring_send(it.ring, file, "hello", 5, DATA), 0);
        expect(DATA, 5);
        peer_reads(peer, "hello");
        close_pair((pair){file, peer});

        rws__socket_address nobody;
        rws__socket_close(listen_somewhere(1, &nobody));
        file = install_socket();
        dial(file, &nobody);
        expect(CONNECT, -ECONNREFUSED);
        close_file(file);
    }
}

/* The SYN is dropped, and sent again a second later. */
Test(contract_ring, a_full_backlog_is_waited_for)
{
    EACH_RING
    {
        rws__socket_address address;
        int listener = listen_somewhere(1, &address), peers[2];
        for (int i = 0; i < 2; i++) {
            peers[i] = connect_to(&address);
            await_connected(peers[i]);
        }
        uint32_t file = install_socket();
        dial(file, &address);
        expect_nothing(CONNECT);
        if (it.options.features_off == 0) {
            cr_assert_eq(rws__ring_cancel(it.ring, CONNECT), 0);
            expect(CONNECT, -ECANCELED);
        } else {
            rws__socket_close(rws__socket_accept(listener));
            uint64_t before = rws__clock_ms();
            expect(CONNECT, 0);
            cr_assert_geq(rws__clock_ms() - before, 500);
        }
        close_file(file);
        for (int i = 0; i < 2; i++)
            outside_close(peers[i]);
        rws__socket_close(listener);
    }
}

/* ---- cancels ---- */

/* Each operation that waits: its call, and what it ends with. */
typedef enum waiting {
    MULTISHOT,
    PROVIDED,
    PLAIN,
    ACCEPTS,
    ACCEPT_ONE,
    ACCEPT_FD,
    READ_EVENT,
    WAITING
} waiting;

static void call(waiting kind, pair on, int event, uint64_t *value)
{
    int res = -1;
    switch (kind) {
    case MULTISHOT: res = rws__ring_recv_multishot(it.ring, on.file, DATA); break;
    case PROVIDED: res = rws__ring_recv_provided(it.ring, on.file, 0, DATA); break;
    case PLAIN: res = rws__ring_recv(it.ring, on.file, bytes, sizeof bytes, DATA); break;
    case ACCEPTS: res = rws__ring_accept_multishot(it.ring, it.listener, DATA); break;
    case ACCEPT_ONE: res = accept_direct(it.listener, DATA); break;
    case ACCEPT_FD: res = rws__ring_accept_fd(it.ring, it.listener, DATA); break;
    case READ_EVENT: res = rws__ring_read_event(it.ring, event, value, DATA); break;
    case WAITING: break;
    }
    cr_assert_eq(res, 0);
}

Test(contract_ring, what_waits_is_cancelled)
{
    EACH_RING
    {
        pair on = accept_pair();
        int event = rws__event_open();
        uint64_t value;
        for (waiting kind = 0; kind < WAITING; kind++)
            for (int same_turn = 0; same_turn < 2; same_turn++) {
                call(kind, on, event, &value);
                if (!same_turn) turn();
                cr_assert_eq(rws__ring_cancel(it.ring, DATA), 0);
                const done *one = await(DATA);
                cr_assert_eq(one->cqe.res, -ECANCELED, "kind %d: %d", (int)kind, one->cqe.res);
                cr_assert_not(one->cqe.flags & RWS__CQE_MORE);
                expect_nothing(NOBODY);
            }
        /* It is as it was. */
        call(MULTISHOT, on, event, &value);
        write_text(on.peer, "x");
        expect(DATA, 1);
        cr_assert_eq(rws__ring_cancel(it.ring, DATA), 0);
        (void)await(DATA);
        rws__event_close(event);
        close_pair(on);
    }
}

Test(contract_ring, a_cancel_of_nothing_says_so_to_nobody)
{
    EACH_RING
    {
        cr_assert_eq(rws__ring_cancel(it.ring, 0x4057), 0);
        expect(NOBODY, -ENOENT);
        expect_nothing(NOBODY);
    }
}

Test(contract_ring, all_of_a_file_is_cancelled_and_no_other)
{
    static const uint8_t sent_bytes[65536];
    EACH_RING
    {
        pair on = accept_pair(), other = accept_pair();
        cr_assert_eq(rws__ring_recv(it.ring, other.file, bytes, sizeof bytes, CONNECT), 0);
        cr_assert_eq(rws__ring_recv_multishot(it.ring, on.file, DATA), 0);
        size_t sent = 0;
        for (;;) {
            cr_assert_eq(rws__ring_send(it.ring, on.file, sent_bytes, sizeof sent_bytes, ACCEPT),
                         0);
            settle();
            if (find(ACCEPT) == NULL) break;
            expect(ACCEPT, sizeof sent_bytes);
            sent += sizeof sent_bytes;
        }
        cr_assert_eq(rws__ring_cancel_file(it.ring, on.file), 0);
        expect(DATA, -ECANCELED);
        int32_t res = await(ACCEPT)->cqe.res;
        cr_assert(res == -ECANCELED || (res > 0 && res < (int32_t)sizeof sent_bytes), "%d", res);
        if (res > 0) sent += (size_t)res;
        expect_nothing(CONNECT);
        int end;
        cr_assert_eq(rws__ring_shutdown_write(it.ring, on.file, ACCEPT), 0);
        (void)await(ACCEPT);
        cr_assert_eq(peer_ends(on.peer, &end), sent);
        write_text(other.peer, "x");
        expect(CONNECT, 1);
        close_pair(on);
        close_pair(other);
    }
}

/* ---- time ---- */

static void set_timer(uint64_t ms, uint64_t user_data)
{
    cr_assert_eq(rws__ring_timeout(it.ring, ms, user_data), 0);
    turn();
}

static void move_timer(uint64_t ms, uint64_t user_data)
{
    cr_assert_eq(rws__ring_timeout_update(it.ring, ms, user_data), 0);
    turn();
}

Test(contract_ring, timeouts_come_in_the_order_of_their_times)
{
    EACH_RING
    {
        uint64_t before = rws__clock_ms();
        set_timer(120, TIMER);
        set_timer(40, TIMER + 1);
        expect(TIMER + 1, -ETIME);
        cr_assert_geq(rws__clock_ms() - before, 39);
        cr_assert_null(find(TIMER));
        expect(TIMER, -ETIME);
        cr_assert_geq(rws__clock_ms() - before, 119);
    }
}

Test(contract_ring, a_timeout_is_moved_both_ways_while_it_is_armed)
{
    EACH_RING
    {
        uint64_t before = rws__clock_ms();
        set_timer(60000, TIMER);
        move_timer(20, TIMER);
        expect(TIMER, -ETIME);
        cr_assert_lt(rws__clock_ms() - before, 50000);

        before = rws__clock_ms();
        set_timer(50, TIMER);
        move_timer(150, TIMER);
        expect(TIMER, -ETIME);
        cr_assert_geq(rws__clock_ms() - before, 149);
        expect_nothing(NOBODY);

        move_timer(1, TIMER);
        expect(NOBODY, -ENOENT);
        expect_nothing(TIMER);
    }
}

/* A turn that waits goes on when something completes. */
Test(contract_ring, a_turn_waits_for_a_completion)
{
    EACH_RING
    {
        if (outside_is_simulated()) continue; /* its turns wait for nobody */
        rws__cqe cqe;
        cr_assert_eq(rws__ring_timeout(it.ring, 50, TIMER), 0);
        cr_assert_eq(rws__ring_turn(it.ring, true), 0);
        cr_assert_eq(rws__ring_reap(it.ring, &cqe, 1), 1);
        cr_assert_eq(cqe.user_data, TIMER);
        cr_assert_eq(cqe.res, -ETIME);
    }
}

/* ---- events ---- */

Test(contract_ring, an_event_is_read_once_for_many_signals)
{
    EACH_RING
    {
        int event = rws__event_open();
        uint64_t value = 0;
        cr_assert_geq(event, 0);
        for (int before = 0; before < 2; before++) {
            if (before)
                for (int i = 0; i < 3; i++)
                    rws__event_signal(event);
            cr_assert_eq(rws__ring_read_event(it.ring, event, &value, EVENT), 0);
            turn();
            if (!before) {
                expect_nothing(EVENT);
                for (int i = 0; i < 3; i++)
                    rws__event_signal(event);
            }
            (void)await(EVENT);
        }
        cr_assert_eq(rws__ring_read_event(it.ring, event, &value, EVENT), 0);
        expect_nothing(EVENT);
        rws__event_signal(event);
        (void)await(EVENT);
        rws__event_close(event);
    }
}

/* ---- full queues ---- */

/* More calls than the submission queue has entries, and more completions than the completion queue:
 * each call that returned 0 completes once. */
Test(contract_ring, nothing_is_lost_when_queues_are_full)
{
    EACH_RING
    {
        rws__ring_options options = small_ring(features_off[variant]);
        options.sq_entries = 8;
        options.cq_entries = 16;
        replace_ring(&options);
        pair on = accept_pair();
        enum { CALLS = 500, FIRST = 0x10000 };
        bool called[CALLS] = {false};
        for (int round = 0; round < 3; round++)
            for (uint32_t i = 0; i < CALLS; i++) {
                if (called[i]) continue;
                int res = rws__ring_send(it.ring, on.file, "x", 1, FIRST + i);
                if (res != 0) {
                    cr_assert_eq(res, -EAGAIN);
                    turn();
                    continue;
                }
                called[i] = true;
            }
        uint32_t calls = 0;
        for (uint32_t i = 0; i < CALLS; i++) {
            calls += called[i];
            if (called[i]) expect(FIRST + i, 1);
        }
        settle();
        cr_assert_geq(calls, CALLS / 2);
        uint32_t completions = 0;
        for (uint32_t i = 0; i < it.done_count; i++)
            completions += it.done[i].cqe.user_data >= FIRST;
        cr_assert_eq(completions, calls);
        uint8_t byte;
        for (uint32_t i = 0; i < calls; i++) {
            int end;
            cr_assert_eq(read_up_to(on.peer, &byte, 1, &end), 1);
        }
        peer_gets_nothing(on.peer);
        close_pair(on);
    }
}

/* Completions that come by themselves do not fit: they are counted, and not lost. */
Test(contract_ring, an_overflowed_completion_queue_is_drained)
{
    EACH_RING
    {
        rws__ring_options options = small_ring(features_off[variant]);
        enum { PEERS = 40 };
        options.sq_entries = 8;
        options.cq_entries = 8;
        options.files = PEERS;
        replace_ring(&options);
        rws__socket_address address;
        int listener = listen_somewhere(PEERS, &address), peers[PEERS];
        /* Single ones: multishot accepts may end, and are armed again then. */
        uint32_t called = 0, done_count = 0;
        for (uint32_t i = 0; i < PEERS; i++)
            if (accept_direct(listener, ACCEPT) == 0) called++;
        turn();
        for (uint32_t i = 0; i < PEERS; i++)
            peers[i] = connect_to(&address);
        for (; called < PEERS; called++) {
            while (accept_direct(listener, ACCEPT) != 0)
                turn();
        }
        uint64_t seen = 0;
        for (; done_count < PEERS; done_count++) {
            int32_t file = await(ACCEPT)->cqe.res;
            cr_assert(file >= 0 && file < PEERS && !(seen & (uint64_t)1 << file), "%d", file);
            seen |= (uint64_t)1 << file;
        }
        cr_assert_gt(rws__ring_overflows(it.ring), 0, "there was none");
        expect_nothing(ACCEPT);
        for (uint32_t i = 0; i < PEERS; i++) {
            close_file(i);
            outside_close(peers[i]);
        }
        rws__socket_close(listener);
    }
}

/* ---- sockets.h ---- */

static int listen_at(const rws__socket_address *address, bool first)
{
    return rws__socket_listen((const struct sockaddr *)&address->storage, address->len, first, 4,
                              &(rws__socket_options){0});
}

Test(contract_ring, an_address_is_for_one_group_of_listeners)
{
    EACH_RING
    {
        rws__socket_address address;
        int listener = listen_somewhere(4, &address);
        cr_assert_eq(listen_at(&address, true), -EADDRINUSE);
        int second = listen_at(&address, false);
        cr_assert_geq(second, 0);
        cr_assert_eq(rws__socket_check_listening(second), 0);
        cr_assert_eq(rws__socket_stop_waiting(listener), 0);
        cr_assert_eq(rws__socket_stop_waiting(second), 0);
        int peer = connect_to(&address);
        await_connected(peer);
        int one = rws__socket_accept(listener), other = rws__socket_accept(second);
        cr_assert_neq(one < 0, other < 0, "%d, %d", one, other);
        cr_assert_eq(one < 0 ? one : other, -EAGAIN);
        rws__socket_close(one < 0 ? other : one);
        outside_close(peer);
        rws__socket_close(second);
        rws__socket_close(listener);
    }
}

/* What waits in the backlog of a listener that closes is reset. */
Test(contract_ring, a_closed_listener_resets_what_waits)
{
    EACH_RING
    {
        rws__socket_address address;
        int listener = listen_somewhere(4, &address), end;
        int peer = connect_to(&address);
        await_connected(peer);
        settle();
        rws__socket_close(listener);
        cr_assert_eq(peer_ends(peer, &end), 0);
        cr_assert_eq(end, -ECONNRESET);
        outside_close(peer);
    }
}

Test(contract_ring, a_connection_is_turned_away_with_a_text)
{
    EACH_RING
    {
        cr_assert_eq(rws__socket_stop_waiting(it.listener), 0);
        cr_assert_eq(rws__socket_accept(it.listener), -EAGAIN);
        for (int i = 0; i < 2; i++) {
            int peer = connect_to(&it.address), end;
            await_connected(peer);
            settle();
            int fd = rws__socket_accept(it.listener);
            cr_assert_geq(fd, 0);
            rws__socket_turn_away(fd, "sorry", i == 0 ? 5 : 0);
            cr_assert_eq(peer_ends(peer, &end), i == 0 ? 5 : 0);
            cr_assert_eq(end, 0);
            outside_close(peer);
        }
    }
}

Test(contract_ring, only_a_listener_listens)
{
    EACH_RING
    {
        int fd = rws__socket_make(AF_INET, &(rws__socket_options){0});
        cr_assert_eq(rws__socket_check_listening(it.listener), 0);
        cr_assert_eq(rws__socket_check_listening(fd), -EINVAL);
        cr_assert_eq(rws__socket_inherit(it.listener, &(rws__socket_options){0}), 0);
        rws__socket_close(fd);
    }
}

Test(contract_ring, numbers_and_localhost_are_resolved)
{
    EACH_RING
    {
        rws__socket_address found[8];
        struct sockaddr_in in;
        cr_assert_eq(rws__socket_resolve("127.0.0.1", 80, found, 8), 1);
        memcpy(&in, &found[0].storage, sizeof in);
        cr_assert_eq(found[0].len, sizeof in);
        cr_assert_eq(in.sin_family, AF_INET);
        cr_assert_eq(in.sin_port, htons(80));
        cr_assert_eq(in.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
        cr_assert_eq(rws__socket_resolve("::1", 80, found, 8), 1);
        cr_assert_eq(found[0].storage.ss_family, AF_INET6);
        cr_assert_geq(rws__socket_resolve("localhost", 80, found, 8), 1);
        cr_assert_eq(rws__socket_resolve("localhost", 80, found, 1), 1);
        cr_assert_eq(rws__socket_resolve("no such host", 80, found, 8), RWS_E_ADDRESS);
    }
}
