/*
 * The contract of the ring (engine/ring/ring.h), and what the engine relies on of TCP: receives,
 * provided buffers and resets (ctest: both rings).
 */
#include "support/contract.h"

#define DATA 0xDA7Au

/* ---- each kind of receive, before and after each thing that can happen ---- */

typedef enum recv_kind { MULTISHOT, PROVIDED, PROVIDED_THREE, PLAIN, RECV_KINDS } recv_kind;
static const char *const recv_names[RECV_KINDS] = {"multishot", "provided", "provided, 3 bytes",
                                                   "plain"};
static uint8_t plain[4096];

static void arm(pair on, recv_kind kind)
{
    int res = -1;
    switch (kind) {
    case MULTISHOT: res = rws__ring_recv_multishot(it.ring, on.file, DATA); break;
    case PROVIDED: res = rws__ring_recv_provided(it.ring, on.file, 0, DATA); break;
    case PROVIDED_THREE: res = rws__ring_recv_provided(it.ring, on.file, 3, DATA); break;
    case PLAIN: res = rws__ring_recv(it.ring, on.file, plain, sizeof plain, DATA); break;
    case RECV_KINDS: break;
    }
    cr_assert_eq(res, 0);
}

/* The results of receives until `text` is read; armed again as often as needed. `armed` says
 * whether one is, and is then. */
static void receive(pair on, recv_kind kind, const char *text, bool *armed)
{
    for (size_t had = 0, len = strlen(text); had < len;) {
        if (!*armed) arm(on, kind);
        const done *one = await(DATA);
        int32_t res = one->cqe.res;
        cr_assert_gt(res, 0, "%s: %d behind %zu bytes", recv_names[kind], res, had);
        cr_assert_leq((size_t)res, len - had);
        if (kind == PROVIDED_THREE) cr_assert_leq(res, 3);
        cr_assert_eq((one->cqe.flags & RWS__CQE_BUFFER) != 0, kind != PLAIN);
        cr_assert_arr_eq(kind != PLAIN ? one->bytes : plain, text + had, (size_t)res);
        had += (size_t)res;
        *armed = one->cqe.flags & RWS__CQE_MORE;
        if (kind != MULTISHOT) cr_assert_not(*armed);
    }
}

static void expect_end(pair on, recv_kind kind, int32_t wanted, bool *armed)
{
    if (!*armed) arm(on, kind);
    const done *one = await(DATA);
    cr_assert_eq(one->cqe.res, wanted, "%s: %d instead of %d", recv_names[kind], one->cqe.res,
                 wanted);
    cr_assert_not(one->cqe.flags & RWS__CQE_MORE, "%s goes on behind an end", recv_names[kind]);
    *armed = false;
}

/* What the peer does, in this order, and what the receives get. */
typedef struct happening {
    const char *name, *text;
    bool ends, resets;
    int32_t results[3]; /* behind the text */
    size_t results_count;
} happening;

static const happening happenings[] = {
    {"data", "hello", false, false, {0}, 0},
    {"end", "", true, false, {0, 0, 0}, 3},
    {"data, end", "hello", true, false, {0, 0, 0}, 3},
    /* tcp_reset() leaves what was received; the error is reported once (sock_error()). */
    {"reset", "", false, true, {-ECONNRESET, 0, 0}, 3},
    {"data, reset", "hello", false, true, {-ECONNRESET, 0, 0}, 3},
    /* Behind a FIN nothing more is looked at (SOCK_DONE). */
    {"data, end, reset", "hello", true, true, {0, 0, 0}, 3},
};

static void happen(const happening *what, pair on)
{
    write_text(on.peer, what->text);
    if (what->ends) outside_shutdown(on.peer);
    if (what->resets) outside_reset(on.peer);
}

Test(contract_recv, each_kind_gets_what_happened_in_its_order)
{
    EACH_RING
    for (recv_kind kind = 0; kind < RECV_KINDS; kind++)
        for (size_t i = 0; i < COUNT(happenings); i++)
            for (int before = 0; before < 2; before++) {
                const happening *what = &happenings[i];
                pair on = accept_pair();
                bool armed = before;
                if (before) {
                    arm(on, kind);
                    settle();
                }
                happen(what, on);
                if (!before) settle();
                receive(on, kind, what->text, &armed);
                for (size_t n = 0; n < what->results_count; n++)
                    expect_end(on, kind, what->results[n], &armed);
                if (armed) {
                    cr_assert_eq(rws__ring_cancel(it.ring, DATA), 0);
                    expect(DATA, -ECANCELED);
                }
                close_file(on.file);
                if (!what->resets) outside_close(on.peer);
            }
}

Test(contract_recv, a_multishot_one_goes_on)
{
    EACH_RING
    {
        pair on = accept_pair();
        bool armed = false;
        for (int i = 0; i < 50; i++) {
            write_text(on.peer, "abc");
            receive(on, MULTISHOT, "abc", &armed);
            cr_assert(armed, "it ended after %d", i);
        }
        close_pair(on);
        cr_assert_eq(rws__ring_cancel(it.ring, DATA), 0);
        settle();
    }
}

/* ---- a reset is reported once, to whoever is first ---- */

/* The letters: r receive, s send; before the reset: e the peer ended its half, x we ours. */
static const struct {
    const char *calls;
    int32_t results[4];
} after_reset[] = {
    {"rsrs", {-ECONNRESET, -EPIPE, 0, -EPIPE}},
    {"srrs", {-ECONNRESET, 0, 0, -EPIPE}},
    {"ssrr", {-ECONNRESET, -EPIPE, 0, 0}},
    /* In CLOSE_WAIT the error is EPIPE (tcp_reset()). */
    {"ersr", {0, -EPIPE, 0}},
    {"essr", {-EPIPE, -EPIPE, 0}},
    /* An own end before it changes nothing. */
    {"xrrs", {-ECONNRESET, 0, -EPIPE}},
    {"xsrr", {-ECONNRESET, 0, 0}},
};

Test(contract_recv, a_reset_is_reported_once)
{
    EACH_RING
    for (size_t i = 0; i < COUNT(after_reset); i++) {
        const char *calls = after_reset[i].calls;
        const int32_t *wanted = after_reset[i].results;
        pair on = accept_pair();
        if (*calls == 'e') {
            outside_shutdown(on.peer);
            settle();
            calls++;
        } else if (*calls == 'x') {
            cr_assert_eq(rws__ring_shutdown_write(it.ring, on.file, DATA), 0);
            (void)await(DATA);
            settle();
            calls++;
        }
        outside_reset(on.peer);
        settle();
        for (; *calls != '\0'; calls++, wanted++) {
            int res = *calls == 'r' ? rws__ring_recv(it.ring, on.file, plain, 8, DATA)
                                    : rws__ring_send(it.ring, on.file, "x", 1, DATA);
            cr_assert_eq(res, 0);
            int32_t got = await(DATA)->cqe.res;
            cr_assert_eq(got, *wanted, "%s at %s: %d instead of %d", after_reset[i].calls, calls,
                         got, *wanted);
        }
        close_file(on.file);
    }
}

/* ---- provided buffers ---- */

/* What is sent is the number of each byte, so that it is seen whether all are in order. */
static void write_numbers(pair on, size_t from, size_t to)
{
    uint8_t numbers[1000];
    for (; from < to;) {
        size_t len = to - from < sizeof numbers ? to - from : sizeof numbers;
        for (size_t i = 0; i < len; i++)
            numbers[i] = (uint8_t)((from + i) * 7 / 3);
        write_all(on.peer, numbers, len);
        from += len;
    }
}

/* The completion of a receive; returns the number of bytes so far. */
static size_t check_numbers(const done *one, size_t had)
{
    for (int32_t i = 0; i < one->cqe.res; i++, had++)
        cr_assert_eq(one->bytes[i], (uint8_t)(had * 7 / 3), "byte %zu", had);
    return had;
}

static size_t all_buffers(void)
{
    const rws__ring_options *options = &it.options;
    bool incremental = it.features & RWS__FEATURE_INCREMENTAL_BUFFERS;
    return incremental ? options->incremental_buffers * options->incremental_bytes
                       : options->plain_buffers * options->plain_bytes;
}

/* Hold all buffers until none is found twice in a row: incremental ones grow after the first. */
static size_t use_up(pair on, bool multishot, size_t had)
{
    for (int dry = 0; dry < 2;) {
        arm(on, multishot ? MULTISHOT : PROVIDED);
        for (;;) {
            const done *one = await(DATA);
            bool more = one->cqe.flags & RWS__CQE_MORE;
            if (one->cqe.res > 0) {
                had = check_numbers(one, had);
                dry = 0;
            } else {
                cr_assert_eq(one->cqe.res, -ENOBUFS);
                cr_assert_not(more);
                dry++;
            }
            if (!more) break;
        }
    }
    return had;
}

Test(contract_recv, without_a_buffer_it_ends_and_goes_on_when_one_is_back)
{
    EACH_RING
    for (int multishot = 0; multishot < 2; multishot++) {
        pair on = accept_pair();
        size_t total = all_buffers() * 5 / 4, had;
        write_numbers(on, 0, total);
        settle();
        it.hold = true;
        had = use_up(on, multishot, 0);
        cr_assert_leq(had, all_buffers());
        cr_assert_geq(had, all_buffers() / 2);
        for (uint32_t i = 0; i < it.held_count; i++) {
            /* Nothing was written over what is held. */
            const done *one = NULL;
            for (uint32_t n = 0; n < it.done_count; n++)
                if (memcmp(&it.done[n].cqe, &it.held[i], sizeof it.held[i]) == 0) one = &it.done[n];
            cr_assert_not_null(one);
            cr_assert_arr_eq(one->data, one->bytes, (size_t)one->cqe.res);
        }
        it.hold = false;
        give_back();
        bool more = false;
        while (had < total) {
            if (!more) arm(on, multishot ? MULTISHOT : PROVIDED);
            const done *one = await(DATA);
            had = check_numbers(one, had);
            more = one->cqe.flags & RWS__CQE_MORE;
        }
        cr_assert_eq(had, total);
        close_pair(on);
        (void)rws__ring_cancel(it.ring, DATA);
        settle();
        forget_completions();
    }
}

/* Bytes of a round trip after another go through all buffers, many times. */
Test(contract_recv, buffers_go_round)
{
    EACH_RING
    {
        pair on = accept_pair();
        size_t total = 6 * all_buffers(), had = 0;
        bool more = false;
        for (size_t sent = 0; sent < total; sent += 700) {
            write_numbers(on, sent, sent + 700);
            while (had < sent + 700) {
                if (!more) arm(on, MULTISHOT);
                const done *one = await(DATA);
                cr_assert_gt(one->cqe.res, 0);
                had = check_numbers(one, had);
                more = one->cqe.flags & RWS__CQE_MORE;
            }
        }
        close_pair(on);
        (void)rws__ring_cancel(it.ring, DATA);
        settle();
    }
}

/* A lent piece stays as it is until it is released, also when its completions are recycled. */
Test(contract_recv, lent_bytes_stay)
{
    EACH_RING
    {
        pair on = accept_pair();
        size_t had = 0, sent = 0, first = 0;
        uint8_t *begin = NULL;
        it.hold = true;
        arm(on, MULTISHOT);
        for (int i = 0; i < 2; i++) {
            write_numbers(on, sent, sent + 100);
            sent += 100;
            const done *one = await(DATA);
            had = check_numbers(one, had);
            if (i == 0) {
                begin = one->data;
                first = (size_t)one->cqe.res;
            }
        }
        bool one_piece = it.end == begin + had;
        rws__lender *lender = rws__ring_lend(it.ring, begin, one_piece ? had : first);
        give_back();
        it.hold = false;
        /* Those behind it wait for it (buffers.h), so there is room for a few. */
        for (int i = 0; i < 5; i++) {
            write_numbers(on, sent, sent + 500);
            sent += 500;
            bool more = true;
            while (had < sent) {
                if (!more) arm(on, MULTISHOT);
                const done *one = await(DATA);
                if (one->cqe.res > 0) had = check_numbers(one, had);
                more = one->cqe.flags & RWS__CQE_MORE;
            }
            if (!more) arm(on, MULTISHOT);
        }
        if (lender != NULL) {
            for (size_t i = 0; i < (one_piece ? 200 : first); i++)
                cr_assert_eq(begin[i], (uint8_t)(i * 7 / 3));
            rws__lender_release(lender);
        }
        close_pair(on);
        (void)rws__ring_cancel(it.ring, DATA);
        settle();
    }
}
