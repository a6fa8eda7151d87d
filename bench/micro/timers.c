/*
 * The timer wheel against the least that could keep a timer: one doubly linked list, into which it
 * is pushed and from which it is taken. Times are for one timer.
 *
 *   timer_clear    set and cleared before it is due, as of a message that came in time
 *   timer_fire     set, and fired by the clock; the delays are spread over four seconds, and the
 *                  clock moves by the time of the next bucket, as the loop does
 */
#include "micro.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/wheel.h"

enum { TIMERS = 1024, SPREAD_MS = 4000 };

typedef struct list_node {
    struct list_node *next, *prev;
    uint64_t tick;
} list_node;

typedef struct timers {
    rws__wheel wheel;
    uint64_t now_ms;
    rws__timer timers[TIMERS];
    uint64_t delays_ms[TIMERS];
    list_node head;
    list_node nodes[TIMERS];
    uint64_t fired;
} timers;

static void push(timers *t, list_node *node, uint64_t tick)
{
    node->tick = tick;
    node->prev = &t->head;
    node->next = t->head.next;
    node->next->prev = node;
    t->head.next = node;
}

static void unlink_node(list_node *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    node->tick = 0;
}

static uint64_t run_list(void *context, size_t calls)
{
    timers *t = context;
    uint64_t done = 0;
    for (size_t i = 0; i < calls; i++) {
        for (size_t j = 0; j < TIMERS; j++)
            push(t, &t->nodes[j], t->delays_ms[j]);
        for (size_t j = 0; j < TIMERS; j++) {
            unlink_node(&t->nodes[j]);
            done++;
        }
        race_touch(t);
    }
    return done;
}

static uint64_t run_clear(void *context, size_t calls)
{
    timers *t = context;
    uint64_t done = 0;
    for (size_t i = 0; i < calls; i++) {
        for (size_t j = 0; j < TIMERS; j++)
            rws__timer_set(&t->wheel, &t->timers[j], t->now_ms, t->delays_ms[j]);
        for (size_t j = 0; j < TIMERS; j++) {
            done += rws__timer_is_set(&t->timers[j]);
            rws__timer_clear(&t->wheel, &t->timers[j]);
        }
        race_touch(t);
    }
    return t->wheel.count == 0 ? done : 0;
}

static void fire(rws__timer *timer, void *context)
{
    (void)timer;
    timers *t = context;
    t->fired++;
}

static uint64_t run_fire(void *context, size_t calls)
{
    timers *t = context;
    t->fired = 0;
    for (size_t i = 0; i < calls; i++) {
        for (size_t j = 0; j < TIMERS; j++)
            rws__timer_set(&t->wheel, &t->timers[j], t->now_ms, t->delays_ms[j]);
        for (uint64_t next; (next = rws__wheel_next_ms(&t->wheel)) != UINT64_MAX;) {
            t->now_ms = next;
            rws__wheel_advance(&t->wheel, t->now_ms, fire, t);
        }
        race_touch(t);
    }
    return t->fired;
}

void micro_timers(const race_options *options, race_totals *totals)
{
    timers *t = calloc(1, sizeof *t);
    if (t == NULL) abort();
    rws__wheel_init(&t->wheel, t->now_ms);
    t->head.next = t->head.prev = &t->head;
    uint32_t random = 1;
    for (size_t i = 0; i < TIMERS; i++) {
        random = random * 1664525u + 1013904223u; /* Numerical Recipes; any spread will do */
        t->delays_ms[i] = random % SPREAD_MS;
    }
    static const struct {
        const char *benchmark;
        race_run *run;
    } runs[] = {{"timer_clear", run_clear}, {"timer_fire", run_fire}};
    for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++) {
        race_setup race = {.benchmark = runs[i].benchmark,
                           .input = "4s",
                           .size_bytes = sizeof(rws__timer),
                           .item = "timer",
                           .items = TIMERS};
        race_add(&race, (race_contestant){
                            .name = "list", .run = run_list, .context = t, .result = TIMERS});
        race_add(&race, (race_contestant){
                            .name = "ringws", .run = runs[i].run, .context = t, .result = TIMERS});
        race_start(&race, options, totals);
    }
    free(t);
}
