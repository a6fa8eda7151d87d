/*
 * The contract of the ring (engine/ring/ring.h), and what the engine relies on of TCP: sends of all
 * kinds, the end of the sending half, disconnects (ctest: both rings).
 */
#include "support/contract.h"

#define SEND  0x5E4Du
#define RECV  0x4ECFu
#define OTHER 0x07E4u
/* More than all socket buffers between the two. */
#define LARGE (64u << 20)

static uint8_t *large;

/* The bytes are their own numbers. */
static void make_large(void)
{
    if (large != NULL) return;
    large = malloc(LARGE);
    cr_assert_not_null(large);
    for (size_t i = 0; i < LARGE; i++)
        large[i] = (uint8_t)(i * 5 / 3);
}

static void peer_reads_large(int peer, size_t from, size_t to)
{
    static uint8_t data[65536];
    while (from < to) {
        size_t len = to - from < sizeof data ? to - from : sizeof data;
        int end = 1;
        cr_assert_eq(read_up_to(peer, data, len, &end), len, "%d behind %zu bytes", end, from);
        cr_assert_arr_eq(data, large + from, len);
        from += len;
    }
}

/* Sends of some bytes until one waits; returns the number of those that were sent. */
static size_t fill(pair on)
{
    make_large();
    for (size_t had = 0;;) {
        cr_assert_lt(had, LARGE / 2);
        cr_assert_eq(rws__ring_send_some(it.ring, on.file, large + had, LARGE - had, SEND), 0);
        settle();
        const done *one = find(SEND);
        if (one == NULL) return had;
        int32_t res = await(SEND)->cqe.res;
        cr_assert_gt(res, 0);
        had += (size_t)res;
    }
}

/* ---- in full, in part ---- */

Test(contract_send, a_send_sends_all)
{
    EACH_RING
    {
        pair on = accept_pair();
        make_large();
        cr_assert_eq(rws__ring_send(it.ring, on.file, "hello", 5, SEND), 0);
        expect(SEND, 5);
        peer_reads(on.peer, "hello");
        size_t len = 3u << 20;
        cr_assert_eq(rws__ring_send(it.ring, on.file, large, len, SEND), 0);
        expect_nothing(SEND);
        peer_reads_large(on.peer, 0, len);
        expect(SEND, (int32_t)len);
        close_pair(on);
    }
}

Test(contract_send, some_is_sent_or_it_waits_for_room)
{
    EACH_RING
    {
        pair on = accept_pair();
        size_t had = fill(on);
        cr_assert_geq(had, (size_t)SEND_BUFFER);
        /* Half of it makes room (a third has to be free). */
        peer_reads_large(on.peer, 0, had);
        int32_t res = await(SEND)->cqe.res;
        cr_assert_gt(res, 0);
        peer_reads_large(on.peer, had, had + (size_t)res);
        close_pair(on);
    }
}

Test(contract_send, a_quiet_one_is_silent_in_full_and_tells_a_short_count)
{
    EACH_RING
    {
        pair on = accept_pair();
        make_large();
        for (int i = 0; i < 3; i++) {
            cr_assert_eq(rws__ring_send_quiet(it.ring, on.file, "quiet", 5, SEND), 0);
            turn();
            cr_assert_eq(rws__ring_pending(it.ring), 0);
            peer_reads(on.peer, "quiet");
        }
        expect_nothing(SEND);

        /* The completion is there when the turn is over. */
        size_t had = 0;
        bool full = false;
        for (int i = 0; i < 1000 && !full; i++) {
            cr_assert_eq(rws__ring_send_quiet(it.ring, on.file, large + had, LARGE / 2, SEND), 0);
            turn();
            cr_assert_eq(rws__ring_pending(it.ring), 0);
            cr_assert_not_null(find(SEND), "no short count");
            int32_t res = await(SEND)->cqe.res;
            full = res == -EAGAIN;
            if (full) break;
            cr_assert(res > 0 && res < (int32_t)(LARGE / 2), "%d", res);
            had += (size_t)res;
        }
        cr_assert(full);
        peer_reads_large(on.peer, 0, had);
        peer_gets_nothing(on.peer);
        close_pair(on);
    }
}

Test(contract_send, sends_of_a_file_leave_in_the_order_of_the_calls)
{
    EACH_RING
    {
        pair on = accept_pair();
        for (int i = 0; i < 20; i++) {
            cr_assert_eq(rws__ring_send_quiet(it.ring, on.file, "ab", 2, SEND), 0);
            cr_assert_eq(rws__ring_send(it.ring, on.file, "cd", 2, SEND), 0);
            cr_assert_eq(rws__ring_send_some(it.ring, on.file, "ef", 2, SEND), 0);
            turn();
            peer_reads(on.peer, "abcdef");
            expect(SEND, 2);
            expect(SEND, 2);
        }
        expect_nothing(SEND);
        close_pair(on);
    }
}

/* ---- to nobody ---- */

typedef enum send_kind { WHOLE, SOME, QUIET, ZERO_COPY, REGISTERED, SEND_KINDS } send_kind;

static bool is_there(send_kind kind)
{
    if (kind == ZERO_COPY) return it.features & RWS__FEATURE_SEND_ZC;
    if (kind == REGISTERED) return it.features & RWS__FEATURE_REGISTERED_BUFFERS;
    return true;
}

static void *page;
#define PAGE_BYTES 65536u

static void send_as(send_kind kind, pair on, const void *data, size_t len)
{
    int res = -1;
    switch (kind) {
    case WHOLE: res = rws__ring_send(it.ring, on.file, data, len, SEND); break;
    case SOME: res = rws__ring_send_some(it.ring, on.file, data, len, SEND); break;
    case QUIET: res = rws__ring_send_quiet(it.ring, on.file, data, len, SEND); break;
    case ZERO_COPY: res = rws__ring_send_zero_copy(it.ring, on.file, data, len, SEND); break;
    case REGISTERED:
        if (page == NULL) cr_assert_eq(posix_memalign(&page, 4096, PAGE_BYTES), 0);
        cr_assert_eq(rws__ring_register(it.ring, 0, page, PAGE_BYTES), 0);
        memcpy(page, data, len);
        res = rws__ring_send_registered(it.ring, on.file, page, len, 0, SEND);
        turn(); /* in flight it keeps its pages */
        cr_assert_eq(rws__ring_unregister(it.ring, 0), 0);
        break;
    case SEND_KINDS: break;
    }
    cr_assert_eq(res, 0);
}

/* The result; with the notification, if one follows. */
static int32_t result_of_send(void)
{
    const done *one = await(SEND);
    int32_t res = one->cqe.res;
    if (!(one->cqe.flags & RWS__CQE_MORE)) return res;
    one = await(SEND);
    cr_assert(one->cqe.flags & RWS__CQE_NOTIFICATION);
    cr_assert_not(one->cqe.flags & RWS__CQE_MORE);
    cr_assert_eq(one->cqe.res & ~(int32_t)RWS__NOTIFICATION_COPIED, 0);
    return res;
}

Test(contract_send, behind_a_reset_or_an_own_end_is_an_error)
{
    EACH_RING
    for (send_kind kind = 0; kind < SEND_KINDS; kind++) {
        if (!is_there(kind)) continue;
        pair on = accept_pair();
        outside_reset(on.peer);
        settle();
        send_as(kind, on, "x", 1);
        cr_assert_eq(result_of_send(), -ECONNRESET, "kind %d", (int)kind);
        send_as(kind, on, "x", 1);
        cr_assert_eq(result_of_send(), -EPIPE, "kind %d", (int)kind);
        close_file(on.file);

        on = accept_pair();
        cr_assert_eq(rws__ring_shutdown_write(it.ring, on.file, OTHER), 0);
        (void)await(OTHER);
        send_as(kind, on, "x", 1);
        cr_assert_eq(result_of_send(), -EPIPE, "kind %d", (int)kind);
        close_pair(on);
    }
}

/* What waits for room is told too: a short count if a part was sent (io_send()). */
Test(contract_send, a_reset_ends_what_waits_for_room)
{
    EACH_RING
    {
        pair on = accept_pair();
        (void)fill(on);
        outside_reset(on.peer);
        (void)expect_one_of(SEND, EITHER(-ECONNRESET, -EPIPE));
        close_file(on.file);

        on = accept_pair();
        cr_assert_eq(rws__ring_send(it.ring, on.file, large, LARGE, SEND), 0);
        settle();
        outside_reset(on.peer);
        int32_t res = await(SEND)->cqe.res;
        cr_assert(res > 0 && res < (int32_t)LARGE, "%d", res);
        close_file(on.file);
    }
}

/* A peer that closes and is sent to answers with a reset (tcp_rcv_state_process()). */
Test(contract_send, to_a_closed_peer_leads_to_a_reset)
{
    EACH_RING
    {
        pair on = accept_pair();
        uint8_t byte;
        outside_close(on.peer);
        settle();
        cr_assert_eq(rws__ring_recv(it.ring, on.file, &byte, 1, RECV), 0);
        expect(RECV, 0);
        cr_assert_eq(rws__ring_send(it.ring, on.file, "x", 1, SEND), 0);
        expect(SEND, 1);
        settle();
        cr_assert_eq(rws__ring_send(it.ring, on.file, "x", 1, SEND), 0);
        expect(SEND, -EPIPE);
        close_file(on.file);
    }
}

/* ---- without a copy ---- */

Test(contract_send, without_a_copy_a_notification_follows_the_result)
{
    EACH_RING
    for (send_kind kind = ZERO_COPY; kind <= REGISTERED; kind++) {
        if (!is_there(kind)) continue;
        pair on = accept_pair();
        for (int i = 0; i < 3; i++) {
            send_as(kind, on, "hello", 5);
            const done *one = await(SEND);
            cr_assert_eq(one->cqe.res, 5);
            cr_assert_eq(one->cqe.flags & RWS__CQE_NOTIFICATION, 0);
            cr_assert(one->cqe.flags & RWS__CQE_MORE);
            peer_reads(on.peer, "hello");
            one = await(SEND);
            cr_assert(one->cqe.flags & RWS__CQE_NOTIFICATION);
            cr_assert_eq(one->cqe.flags & RWS__CQE_MORE, 0);
            expect_nothing(SEND);
        }
        close_pair(on);
    }
}

Test(contract_send, without_a_copy_all_is_sent)
{
    EACH_RING
    {
        if (!is_there(ZERO_COPY)) continue;
        pair on = accept_pair();
        make_large();
        size_t len = 2u << 20;
        cr_assert_eq(rws__ring_send_zero_copy(it.ring, on.file, large, len, SEND), 0);
        peer_reads_large(on.peer, 0, len);
        cr_assert_eq(result_of_send(), (int32_t)len);
        close_pair(on);
    }
}

/* The table takes an entry again when it was emptied. */
Test(contract_send, entries_of_memory_are_taken_and_emptied)
{
    EACH_RING
    {
        if (!is_there(REGISTERED)) continue;
        static uint8_t memory[2][4096] __attribute__((aligned(4096)));
        for (int i = 0; i < 3; i++) {
            cr_assert_eq(rws__ring_register(it.ring, 0, memory[0], 4096), 0);
            cr_assert_eq(rws__ring_register(it.ring, 1, memory[1], 4096), 0);
            cr_assert_eq(rws__ring_unregister(it.ring, 0), 0);
            cr_assert_eq(rws__ring_unregister(it.ring, 1), 0);
        }
    }
}

/* ---- what is not acknowledged ---- */

Test(contract_send, bytes_that_the_peer_has_not_acknowledged_can_be_asked_for)
{
    EACH_RING
    {
        if (!(it.features & RWS__FEATURE_SOCKET_COMMANDS)) continue;
        pair on = accept_pair();
        cr_assert_eq(rws__ring_unacknowledged(it.ring, on.file, OTHER), 0);
        expect(OTHER, 0);
        size_t had = fill(on);
        cr_assert_eq(rws__ring_unacknowledged(it.ring, on.file, OTHER), 0);
        int32_t res = await(OTHER)->cqe.res;
        cr_assert(res > 0 && res <= (int32_t)had, "%d of %zu", res, had);
        peer_reads_large(on.peer, 0, had);
        had = (size_t)await(SEND)->cqe.res;
        peer_reads_large(on.peer, 0, 0);
        uint8_t *rest = malloc(had);
        int end;
        cr_assert_eq(read_up_to(on.peer, rest, had, &end), had);
        free(rest);
        /* An acknowledgement may be delayed (40 ms). */
        res = -1;
        for (int i = 0; i < 1000 && res != 0; i++) {
            cr_assert_eq(rws__ring_unacknowledged(it.ring, on.file, OTHER), 0);
            res = await(OTHER)->cqe.res;
            cr_assert_geq(res, 0);
            if (res != 0) outside_pass_us(1000);
        }
        cr_assert_eq(res, 0);
        close_pair(on);
    }
}

/* ---- ends ---- */

Test(contract_send, an_end_goes_behind_what_is_queued_and_ends_one_half)
{
    EACH_RING
    {
        pair on = accept_pair();
        make_large();
        int end;
        uint8_t data[8];
        cr_assert_eq(rws__ring_send_quiet(it.ring, on.file, large, LARGE, SEND), 0);
        size_t had = (size_t)await(SEND)->cqe.res;
        cr_assert_eq(rws__ring_shutdown_write(it.ring, on.file, OTHER), 0);
        (void)await(OTHER);
        peer_reads_large(on.peer, 0, had);
        cr_assert_eq(peer_ends(on.peer, &end), 0);
        cr_assert_eq(end, 0);
        write_text(on.peer, "more");
        cr_assert_eq(rws__ring_recv(it.ring, on.file, data, sizeof data, RECV), 0);
        expect(RECV, 4);
        close_pair(on);
    }
}

/* A receive and a send wait for one socket, and the whole of it is reset. What the peer has got, it
 * can read. */
Test(contract_send, a_disconnect_resets_and_throws_away_what_is_queued)
{
    EACH_RING
    {
        pair on = accept_pair();
        int end;
        size_t had = fill(on);
        uint8_t data[8];
        cr_assert_eq(rws__ring_recv(it.ring, on.file, data, sizeof data, RECV), 0);
        turn();
        cr_assert_eq(rws__ring_disconnect(it.ring, on.file), 0);
        /* Whoever is woken first gets the error, who comes later that there is no connection:
         * the one that sends finds no way (EPIPE), the one that receives nobody (ENOTCONN). */
        int32_t received = expect_one_of(RECV, EITHER(-ECONNRESET, -ENOTCONN));
        int32_t sent = expect_one_of(SEND, EITHER(-ECONNRESET, -EPIPE));
        cr_assert((received == -ECONNRESET) != (sent == -ECONNRESET), "%d, %d", received, sent);
        size_t got = peer_ends(on.peer, &end);
        cr_assert_eq(end, -ECONNRESET);
        cr_assert_lt(got, had, "nothing was thrown away");
        outside_close(on.peer);
        /* The error was reported, and there is no connection that could have ended. */
        cr_assert_eq(rws__ring_recv(it.ring, on.file, data, sizeof data, RECV), 0);
        expect(RECV, -ENOTCONN);
        cr_assert_eq(rws__ring_send(it.ring, on.file, "x", 1, SEND), 0);
        expect(SEND, -EPIPE);
        expect_nothing(NOBODY);
        close_file(on.file);
    }
}

/* Also of bytes that were received and not read, and behind the peer's end. */
Test(contract_send, a_disconnect_throws_away_what_was_received)
{
    EACH_RING
    for (int ended = 0; ended < 2; ended++) {
        pair on = accept_pair();
        int end;
        uint8_t data[8];
        write_text(on.peer, "unread");
        if (ended) outside_shutdown(on.peer);
        settle();
        cr_assert_eq(rws__ring_disconnect(it.ring, on.file), 0);
        settle();
        for (int i = 0; i < 2; i++) {
            cr_assert_eq(rws__ring_recv(it.ring, on.file, data, sizeof data, RECV), 0);
            int32_t res = await(RECV)->cqe.res;
            cr_assert_eq(res, i == 0 ? -ECONNRESET : -ENOTCONN, "%d: %d", i, res);
        }
        cr_assert_eq(peer_ends(on.peer, &end), 0);
        cr_assert_eq(end, -ECONNRESET);
        outside_close(on.peer);
        close_file(on.file);
    }
}

Test(contract_send, a_disconnect_of_what_is_gone_fails_or_not_but_harms_nobody)
{
    EACH_RING
    {
        pair on = accept_pair();
        outside_reset(on.peer);
        settle();
        cr_assert_eq(rws__ring_disconnect(it.ring, on.file), 0);
        settle();
        close_file(on.file);
    }
}
