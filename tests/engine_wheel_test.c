/* The timer wheel against a plain list of deadlines: never early, at most a tick late, once. */
#include <criterion/criterion.h>

#include <stddef.h>
#include <stdlib.h>
#include <time.h>

#include "engine/base/wheel.h"

#define TURN_MS  (RWS__WHEEL_BUCKETS * RWS__TICK_MS)
#define START_MS 5000003u

typedef struct alarm_clock {
    uint64_t due_ms; /* 0: not set */
    rws__timer timer;
    unsigned fired;
} alarm_clock;

typedef struct wheel_bench {
    rws__wheel wheel;
    uint64_t now_ms;
    unsigned fired;
    void (*also)(struct wheel_bench *bench, alarm_clock *clock);
    alarm_clock *others;
} wheel_bench;

static void set(wheel_bench *bench, alarm_clock *clock, uint64_t delay_ms)
{
    rws__timer_set(&bench->wheel, &clock->timer, bench->now_ms, delay_ms);
    clock->due_ms = bench->now_ms + delay_ms;
}

static void clear(wheel_bench *bench, alarm_clock *clock)
{
    rws__timer_clear(&bench->wheel, &clock->timer);
    clock->due_ms = 0;
}

static void fire(rws__timer *timer, void *context)
{
    wheel_bench *bench = context;
    alarm_clock *clock = (void *)((char *)timer - offsetof(alarm_clock, timer));
    cr_assert_neq(clock->due_ms, 0, "it fired although it was not set");
    cr_assert_geq(bench->now_ms, clock->due_ms, "early");
    cr_assert_not(rws__timer_is_set(timer));
    clock->due_ms = 0;
    clock->fired++;
    bench->fired++;
    if (bench->also != NULL) bench->also(bench, clock);
}

static void advance(wheel_bench *bench, uint64_t ms)
{
    bench->now_ms += ms;
    rws__wheel_advance(&bench->wheel, bench->now_ms, fire, bench);
}

static void start_at(wheel_bench *bench, uint64_t now_ms)
{
    *bench = (struct wheel_bench){.now_ms = now_ms};
    rws__wheel_init(&bench->wheel, now_ms);
}

static void start(wheel_bench *bench)
{
    start_at(bench, START_MS);
}

Test(engine_wheel, fires_in_time_for_every_delay)
{
    static const uint64_t delays[] = {
        0,           1,       15,          16,           17,    100,     TURN_MS - 17,
        TURN_MS - 1, TURN_MS, TURN_MS + 1, TURN_MS + 16, 60000, 86400000};
    for (size_t i = 0; i < sizeof delays / sizeof delays[0]; i++) {
        wheel_bench bench;
        alarm_clock clock = {0};
        start(&bench);
        set(&bench, &clock, delays[i]);
        uint64_t limit = clock.due_ms + 2 * RWS__TICK_MS;
        while (clock.fired == 0) {
            uint64_t next = rws__wheel_next_ms(&bench.wheel);
            cr_assert_neq(next, UINT64_MAX);
            cr_assert_gt(next, bench.now_ms, "nothing to wait for");
            cr_assert_leq(next, limit, "delay %llu: it would wake up late",
                          (unsigned long long)delays[i]);
            advance(&bench, next - bench.now_ms);
        }
        cr_assert_leq(bench.now_ms, limit);
        cr_assert_eq(rws__wheel_next_ms(&bench.wheel), UINT64_MAX);
    }
}

Test(engine_wheel, fires_everything_after_a_long_sleep)
{
    wheel_bench bench;
    static alarm_clock clocks[2000];
    start(&bench);
    for (size_t i = 0; i < 2000; i++)
        set(&bench, &clocks[i], i * 13);
    advance(&bench, 1000000);
    cr_assert_eq(bench.fired, 2000);
    for (size_t i = 0; i < 2000; i++)
        cr_assert_eq(clocks[i].fired, 1);
}

Test(engine_wheel, can_be_moved_and_cleared)
{
    wheel_bench bench;
    alarm_clock a = {0}, b = {0};
    start(&bench);
    set(&bench, &a, 100);
    set(&bench, &a, 10000);
    set(&bench, &b, 100);
    clear(&bench, &b);
    clear(&bench, &b);
    advance(&bench, 5000);
    cr_assert_eq(bench.fired, 0);
    set(&bench, &a, 50);
    advance(&bench, 100);
    cr_assert_eq(a.fired, 1);
    cr_assert_eq(bench.wheel.count, 0);
}

/* Callbacks that set and clear each other. */

static void clear_the_others(wheel_bench *bench, alarm_clock *clock)
{
    for (int i = 0; i < 10; i++)
        if (&bench->others[i] != clock) clear(bench, &bench->others[i]);
}

static void set_it_again(wheel_bench *bench, alarm_clock *clock)
{
    if (clock->fired < 5) set(bench, clock, 0);
}

static void move_the_others(wheel_bench *bench, alarm_clock *clock)
{
    for (int i = 0; i < 10; i++)
        if (&bench->others[i] != clock && bench->others[i].due_ms != 0)
            set(bench, &bench->others[i], 1000);
}

static void run_ten(wheel_bench *bench, alarm_clock *clocks,
                    void (*also)(struct wheel_bench *bench, alarm_clock *clock))
{
    start(bench);
    bench->also = also;
    bench->others = clocks;
    for (uint64_t i = 0; i < 10; i++)
        set(bench, &clocks[i], 20 + i % 3 * 16);
    advance(bench, 200);
}

Test(engine_wheel, can_be_set_and_cleared_by_the_timers_that_fire)
{
    wheel_bench bench;
    alarm_clock cleared[10] = {0}, again[10] = {0}, moved[10] = {0};
    run_ten(&bench, cleared, clear_the_others);
    cr_assert_eq(bench.fired, 1, "the first clears the rest, which is due too");
    run_ten(&bench, again, set_it_again);
    cr_assert_eq(bench.fired, 10, "set again is for the next turn");
    for (int i = 0; i < 4; i++)
        advance(&bench, 32);
    cr_assert_eq(bench.fired, 50);
    run_ten(&bench, moved, move_the_others);
    cr_assert_eq(bench.fired, 1);
    bench.also = NULL;
    advance(&bench, 1100);
    cr_assert_eq(bench.fired, 10);
}

Test(engine_wheel, agrees_with_a_list_of_deadlines)
{
    unsigned seed = (unsigned)time(NULL);
    cr_log_info("seed %u", seed);
    srand(seed);
    enum { CLOCKS = 300 };
    static alarm_clock clocks[CLOCKS];
    wheel_bench bench;
    start(&bench);
    for (int step = 0; step < 20000; step++) {
        alarm_clock *clock = &clocks[rand() % CLOCKS];
        if (rand() % 4 == 0)
            clear(&bench, clock);
        else
            set(&bench, clock, (uint64_t)rand() % ((uint64_t)1 << (rand() % 16)));
        if (rand() % 3 == 0) advance(&bench, (uint64_t)rand() % ((uint64_t)1 << (rand() % 12)));
        uint64_t earliest = UINT64_MAX;
        unsigned count = 0;
        for (int i = 0; i < CLOCKS; i++) {
            cr_assert_eq(clocks[i].due_ms != 0, rws__timer_is_set(&clocks[i].timer));
            if (clocks[i].due_ms == 0) continue;
            count++;
            if (clocks[i].due_ms < earliest) earliest = clocks[i].due_ms;
            cr_assert_lt(bench.now_ms, clocks[i].due_ms + 2 * RWS__TICK_MS, "late, seed %u", seed);
        }
        cr_assert_eq(bench.wheel.count, count);
        if (count > 0)
            cr_assert_leq(rws__wheel_next_ms(&bench.wheel), earliest + 2 * RWS__TICK_MS,
                          "it would wake up late, seed %u", seed);
    }
}

/* After 795 days the lower half of the tick count, which is what a timer keeps, starts again. */
Test(engine_wheel, goes_on_where_its_count_starts_again)
{
    static const uint64_t delays[] = {16, 1600, TURN_MS, 3 * TURN_MS, 60000, 86400000};
    const uint64_t wrap_ms = ((uint64_t)1 << 32) * RWS__TICK_MS;
    for (size_t i = 0; i < sizeof delays / sizeof delays[0]; i++) {
        for (uint64_t before = 0; before <= delays[i] + 64;
             before += before < 64 ? 16 : delays[i]) {
            wheel_bench bench;
            alarm_clock clock = {0};
            start_at(&bench, wrap_ms - before);
            set(&bench, &clock, delays[i]);
            uint64_t limit = clock.due_ms + 4 * RWS__TICK_MS;
            while (clock.fired == 0) {
                uint64_t next = rws__wheel_next_ms(&bench.wheel);
                cr_assert_leq(next, limit, "delay %llu, %llu before", (unsigned long long)delays[i],
                              (unsigned long long)before);
                advance(&bench, next - bench.now_ms);
            }
        }
    }
}
