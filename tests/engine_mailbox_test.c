/* The mailbox: posts run once and in order, are bounded, and are cancelled when it is closed. */
#include <criterion/criterion.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/loop/mailbox.h"
#include "support/test_allocator.h"

static rws__env env; /* the allocator is malloc */
static rws__mailbox mailbox;
static unsigned ran, cancelled_count;
static uintptr_t last;

static void start(void)
{
    cr_assert_eq(rws__mailbox_init(&mailbox, &env), 0);
}

static bool is_woken(void)
{
    struct pollfd event = {.fd = mailbox.event, .events = POLLIN};
    if (poll(&event, 1, 0) != 1) return false;
    uint64_t value;
    cr_assert_eq(read(mailbox.event, &value, sizeof value), sizeof value);
    return true;
}

static void in_order(void *arg, bool cancelled)
{
    cr_assert_eq((uintptr_t)arg, last + 1);
    last++;
    if (cancelled)
        cancelled_count++;
    else
        ran++;
}

static void post_numbers(uintptr_t from, uintptr_t to)
{
    for (uintptr_t i = from; i <= to; i++)
        cr_assert_eq(rws__mailbox_post(&mailbox, in_order, (void *)i), 0);
}

Test(engine_mailbox, runs_posts_in_order_while_its_ring_grows_and_wraps)
{
    start();
    uintptr_t posted = 0;
    for (unsigned round = 1; round < 40; round++) {
        post_numbers(posted + 1, posted + round * 3);
        posted += round * 3;
        rws__mailbox_run(&mailbox);
        cr_assert_eq(ran, posted);
    }
    rws__mailbox_deinit(&mailbox);
    cr_assert_eq(cancelled_count, 0);
}

Test(engine_mailbox, wakes_once_for_a_run_of_posts)
{
    start();
    cr_assert_not(is_woken());
    post_numbers(1, 1);
    cr_assert(is_woken());
    post_numbers(2, 10);
    cr_assert_not(is_woken(), "the wake-up is on its way already");
    rws__mailbox_run(&mailbox);
    cr_assert_eq(ran, 10);
    cr_assert_not(is_woken());
    post_numbers(11, 11);
    cr_assert(is_woken());
    rws__mailbox_deinit(&mailbox);
    cr_assert_eq(cancelled_count, 1);
}

Test(engine_mailbox, is_bounded_and_goes_on_when_there_is_room)
{
    start();
    post_numbers(1, RWS__MAILBOX_MAX);
    cr_assert_eq(rws__mailbox_post(&mailbox, in_order, NULL), RWS_E_BACKLOG);
    rws__mailbox_run(&mailbox);
    cr_assert_eq(ran, RWS__MAILBOX_MAX);
    post_numbers(RWS__MAILBOX_MAX + 1, RWS__MAILBOX_MAX + 5);
    rws__mailbox_deinit(&mailbox);
}

Test(engine_mailbox, cancels_what_waits_and_refuses_more_when_it_is_closed)
{
    start();
    post_numbers(1, 5);
    rws__mailbox_close(&mailbox);
    cr_assert_eq(ran, 0);
    cr_assert_eq(cancelled_count, 5);
    cr_assert_eq(rws__mailbox_post(&mailbox, in_order, NULL), RWS_E_STATE);
    rws__mailbox_close(&mailbox);
    rws__mailbox_run(&mailbox);
    rws__mailbox_deinit(&mailbox);
    rws__mailbox_deinit(&mailbox);
    cr_assert_eq(cancelled_count, 5);
}

/* A function that posts itself does not keep the loop from everything else. */
static void post_again(void *arg, bool cancelled)
{
    ran++;
    if (!cancelled) cr_assert_eq(rws__mailbox_post(&mailbox, post_again, arg), 0);
}

Test(engine_mailbox, leaves_what_the_posts_post_for_the_next_turn)
{
    start();
    cr_assert_eq(rws__mailbox_post(&mailbox, post_again, NULL), 0);
    cr_assert(is_woken());
    for (unsigned turn = 1; turn < 5; turn++) {
        rws__mailbox_run(&mailbox);
        cr_assert_eq(ran, turn);
        cr_assert(is_woken());
    }
    rws__mailbox_deinit(&mailbox);
    cr_assert_eq(ran, 5, "the last one is cancelled");
}

static void post_next(void *arg, bool cancelled)
{
    in_order(arg, cancelled);
    uintptr_t next = (uintptr_t)arg + 200;
    cr_assert_eq(rws__mailbox_post(&mailbox, in_order, (void *)next), 0);
    cr_assert_not(is_woken(), "the run's end wakes for all that was posted in it");
}

/* More than are taken out under one lock, each of which posts one: once for all of them it is
 * woken. */
Test(engine_mailbox, keeps_the_order_of_what_is_posted_while_it_runs)
{
    start();
    for (uintptr_t i = 1; i <= 200; i++)
        cr_assert_eq(rws__mailbox_post(&mailbox, post_next, (void *)i), 0);
    cr_assert(is_woken());
    rws__mailbox_run(&mailbox);
    cr_assert_eq(ran, 200);
    cr_assert(is_woken());
    rws__mailbox_run(&mailbox);
    cr_assert_eq(ran, 400);
    cr_assert_not(is_woken());
    rws__mailbox_deinit(&mailbox);
}

/* ---- many threads ---- */

enum { THREADS = 4, POSTS = 20000 };
static unsigned counts[THREADS], order_broken;
static atomic_uint posted_ok;

typedef struct numbered {
    unsigned thread, number;
} numbered;

static void count_one(void *arg, bool cancelled)
{
    (void)cancelled;
    numbered *post = arg;
    if (counts[post->thread]++ != post->number) order_broken++;
    free(post);
}

static void *post_many(void *arg)
{
    unsigned thread = (unsigned)(uintptr_t)arg;
    for (unsigned i = 0; i < POSTS; i++) {
        numbered *post = malloc(sizeof *post);
        if (post == NULL) abort();
        *post = (numbered){thread, i};
        while (rws__mailbox_post(&mailbox, count_one, post) == RWS_E_BACKLOG)
            usleep(100);
        atomic_fetch_add(&posted_ok, 1);
    }
    return NULL;
}

Test(engine_mailbox, keeps_every_post_of_every_thread_in_its_order)
{
    start();
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, post_many, (void *)i), 0);
    while (atomic_load(&posted_ok) < THREADS * POSTS) {
        struct pollfd event = {.fd = mailbox.event, .events = POLLIN};
        poll(&event, 1, 100);
        if (is_woken()) rws__mailbox_run(&mailbox);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    rws__mailbox_run(&mailbox);
    for (unsigned i = 0; i < THREADS; i++)
        cr_assert_eq(counts[i], POSTS);
    cr_assert_eq(order_broken, 0);
    rws__mailbox_deinit(&mailbox);
}

/* ---- no memory ---- */

Test(engine_mailbox, reports_that_there_is_no_memory_and_keeps_what_it_has)
{
    start();
    post_numbers(1, 16);
    rws_allocator kept = env.allocator;
    test_allocator none = {.fail_from = 1};
    env.allocator = (rws_allocator)TEST_ALLOCATOR(&none);
    cr_assert_eq(rws__mailbox_post(&mailbox, in_order, NULL), -ENOMEM);
    env.allocator = kept;
    rws__mailbox_run(&mailbox);
    cr_assert_eq(ran, 16);
    rws__mailbox_deinit(&mailbox);
}
