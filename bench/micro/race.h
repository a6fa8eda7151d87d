/*
 * A race: several implementations of one thing, measured beside each other. The first contestant is
 * the floor, something that is hard to be faster than or that everybody knows; the others are given
 * as ratios to it. Samples are taken in turns (floor, a, b, floor, a, b, …), each ratio is of two
 * samples of one round, and what is reported is the median over all rounds with its quartiles: what
 * else runs on the machine hits both or is an outlier.
 *
 * Every sample is checked, so that nothing is optimised away and nothing wrong is measured.
 */
#ifndef RINGWS_BENCH_MICRO_RACE_H
#define RINGWS_BENCH_MICRO_RACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RACE_CONTESTANTS_MAX = 8 };

/* Do the work `calls` times. Returns the sum of what the calls returned. */
typedef uint64_t race_run(void *context, size_t calls);

typedef struct race_contestant {
    const char *name;
    race_run *run;
    void *context;
    uint64_t result; /* of one call, if it is right */
    /* Whether the output in memory is right; called after each sample. NULL: `result` tells all. */
    bool (*check)(void *context);
} race_contestant;

typedef struct race_setup {
    const char *benchmark;
    const char *input;
    size_t size_bytes; /* of an item */
    const char *item;  /* what the time is for: "call", "frame" … */
    size_t items;      /* in one call */
    double bar;        /* speed of the first contestant after the floor, to the floor's; 0: none */
    race_contestant contestants[RACE_CONTESTANTS_MAX];
    size_t count;
} race_setup;

typedef struct race_options {
    bool json; /* JSON lines, not a table */
    bool quick;
    const char *filter; /* only benchmarks whose name has this in it; NULL: all */
} race_options;

/* What all races came to. */
typedef struct race_totals {
    unsigned run, wrong, bars_met, bars_missed;
} race_totals;

/* Run a race that the filter lets by, and print its rows. */
void race_start(const race_setup *race, const race_options *options, race_totals *totals);

void race_add(race_setup *race, race_contestant contestant);

/* The compiler has to assume that `memory` is read and written here. */
static inline void race_touch(void *memory)
{
    __asm__ volatile("" : : "r"(memory) : "memory");
}

#endif
