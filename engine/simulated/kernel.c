#include "engine/simulated/internal.h"

#include "engine/ring/clock.h"
#include "engine/ring/event.h"
#include "engine/ring/random.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Not 0, because a time of 0 means "none" in places. */
#define START_US 1000000000u

const rws__sim_options rws__sim_defaults = {
    .seed = 1,
    .features = RWS__FEATURE_ALL,
    .send_buffer_bytes = 256 << 10,
    .recv_buffer_bytes = 128 << 10,
    .descriptors_max = 1u << 16,
    .delay_us_max = 1000,
    .late_us_max = 1000,
    .slow_us_max = 1000,
};

static _Thread_local rws__sim_kernel *kernel;

/* ---- random numbers ---- */

/* splitmix64 */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

uint64_t rws__sim_random(uint64_t bound)
{
    return next_random(&rws__sim()->random) % bound;
}

void rws__random(void *out, size_t len)
{
    uint8_t *at = out;
    for (size_t i = 0; i < len; i += 8) {
        uint64_t value = next_random(&rws__sim()->bytes);
        memcpy(at + i, &value, len - i < 8 ? len - i : 8);
    }
}

bool rws__sim_fails(rws__sim_fault fault)
{
    rws__sim_kernel *own = rws__sim();
    uint64_t number = ++own->chances[fault];
    bool fails = number == own->options.fail_at[fault];
    uint32_t chance = own->options.chance[fault];
    if (chance > 0 && (next_random(&own->random) & 0xFFFF) < chance) fails = true;
    own->strikes[fault] += fails;
    return fails;
}

uint64_t rws__sim_time_of(rws__sim_fault fault, uint64_t max_us)
{
    if (max_us == 0 || !rws__sim_fails(fault)) return 0;
    return 1 + rws__sim_random(max_us);
}

/* ---- life ---- */

void *rws__sim_memory(size_t bytes)
{
    void *memory = calloc(1, bytes > 0 ? bytes : 1);
    if (memory == NULL) {
        fprintf(stderr, "ringws: no memory for the simulated kernel\n");
        abort();
    }
    return memory;
}

void rws__sim_start(const rws__sim_options *options)
{
    rws__sim_end();
    kernel = rws__sim_memory(sizeof *kernel);
    kernel->options = *options;
    kernel->now_us = START_US;
    uint64_t seed = options->seed;
    kernel->random = next_random(&seed);
    kernel->bytes = next_random(&seed);
    kernel->next_port = 32768;
}

void rws__sim_end(void)
{
    if (kernel == NULL) return;
    if (kernel->rings > 0 || kernel->descriptors_used > 0)
        rws__sim_breach("the kernel ends with %u rings and %u descriptors", kernel->rings,
                        kernel->descriptors_used);
    free(kernel->descriptors);
    free(kernel->queue);
    free(kernel);
    kernel = NULL;
}

rws__sim_kernel *rws__sim(void)
{
    if (kernel == NULL) rws__sim_start(&rws__sim_defaults);
    return kernel;
}

rws__sim_options *rws__sim_settings(void)
{
    return &rws__sim()->options;
}

uint64_t rws__sim_strikes(rws__sim_fault fault)
{
    return rws__sim()->strikes[fault];
}

uint64_t rws__sim_digest(void)
{
    return rws__sim()->digest;
}

const char *rws__sim_fault_name(rws__sim_fault fault)
{
    static const char *const names[] = {
#define NAME(name, word, text) #word,
        RWS__SIM_FAULT_MAP(NAME)
#undef NAME
    };
    return names[fault];
}

const char *rws__sim_fault_text(rws__sim_fault fault)
{
    static const char *const texts[] = {
#define TEXT(name, word, text) text,
        RWS__SIM_FAULT_MAP(TEXT)
#undef TEXT
    };
    return texts[fault];
}

void rws__sim_breach(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "ringws: breach of the ring's contract at %llu us: ",
            (unsigned long long)(kernel != NULL ? kernel->now_us : 0));
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    abort();
}

/* ---- time: a binary heap of events ---- */

static bool is_before(const rws__sim_event *a, const rws__sim_event *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

static void put(rws__sim_event *event, uint32_t place)
{
    kernel->queue[place - 1] = event;
    event->place = place;
}

static void move_up(rws__sim_event *event)
{
    uint32_t place = event->place;
    for (; place > 1 && is_before(event, kernel->queue[place / 2 - 1]); place /= 2)
        put(kernel->queue[place / 2 - 1], place);
    put(event, place);
}

static void move_down(rws__sim_event *event)
{
    uint32_t place = event->place;
    for (;;) {
        uint32_t child = place * 2;
        if (child > kernel->events) break;
        if (child < kernel->events && is_before(kernel->queue[child], kernel->queue[child - 1]))
            child++;
        if (!is_before(kernel->queue[child - 1], event)) break;
        put(kernel->queue[child - 1], place);
        place = child;
    }
    put(event, place);
}

void rws__sim_event_set(rws__sim_event *event, uint64_t at_us)
{
    rws__sim_event_clear(event);
    if (kernel->events == kernel->events_max) {
        kernel->events_max = kernel->events_max > 0 ? kernel->events_max * 2 : 64;
        kernel->queue = realloc(kernel->queue, kernel->events_max * sizeof(rws__sim_event *));
        if (kernel->queue == NULL) abort();
    }
    event->at_us = at_us > kernel->now_us ? at_us : kernel->now_us;
    event->order = kernel->order++;
    put(event, ++kernel->events);
    move_up(event);
}

void rws__sim_event_clear(rws__sim_event *event)
{
    uint32_t place = event->place;
    if (place == 0) return;
    event->place = 0;
    rws__sim_event *last = kernel->queue[--kernel->events];
    if (last == event) return;
    put(last, place);
    move_up(last);
    move_down(last);
}

uint64_t rws__sim_now_us(void)
{
    return rws__sim()->now_us;
}

uint64_t rws__clock_ms(void)
{
    return rws__sim()->now_us / 1000;
}

uint64_t rws__sim_next_us(void)
{
    const rws__sim_kernel *own = rws__sim();
    return own->events > 0 ? own->queue[0]->at_us : UINT64_MAX;
}

void rws__sim_advance_to(uint64_t us)
{
    rws__sim_kernel *own = rws__sim();
    while (own->events > 0 && own->queue[0]->at_us <= us) {
        rws__sim_event *event = own->queue[0];
        if (event->at_us > own->now_us) own->now_us = event->at_us;
        rws__sim_event_clear(event);
        event->happen(event);
    }
    if (us > own->now_us) own->now_us = us;
}

/* ---- events that wake a loop: of the process, because other threads signal them ---- */

#define EVENTS_MAX 4096

enum { EVENT_CLOSED = 0, EVENT_OPEN, EVENT_SIGNALLED };

static atomic_int wakeups[EVENTS_MAX];

static bool change(int event, int from, int to)
{
    return atomic_compare_exchange_strong(&wakeups[event], &from, to);
}

int rws__event_open(void)
{
    if (rws__sim_fails(RWS__SIM_NO_DESCRIPTOR)) return -EMFILE;
    for (int i = 0; i < EVENTS_MAX; i++)
        if (change(i, EVENT_CLOSED, EVENT_OPEN)) return i;
    return -EMFILE;
}

void rws__event_signal(int event)
{
    (void)change(event, EVENT_OPEN, EVENT_SIGNALLED);
}

void rws__event_close(int event)
{
    if (atomic_exchange(&wakeups[event], EVENT_CLOSED) == EVENT_CLOSED)
        rws__sim_breach("event %d is closed twice", event);
}

bool rws__sim_event_is_signalled(int event)
{
    return atomic_load(&wakeups[event]) == EVENT_SIGNALLED;
}

bool rws__sim_event_take(int event)
{
    return change(event, EVENT_SIGNALLED, EVENT_OPEN);
}
