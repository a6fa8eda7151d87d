#include "race.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    ROUNDS = 101,
    ROUNDS_QUICK = 25,
    SAMPLE_NS = 30000, /* long against the clock's 20 ns, short against a time slice */
};

static uint64_t now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void race_add(race_setup *race, race_contestant contestant)
{
    if (race->count == RACE_CONTESTANTS_MAX) abort();
    race->contestants[race->count++] = contestant;
}

/* One sample: ns per call, or below 0: the result is wrong. */
static double sample(const race_contestant *contestant, size_t calls)
{
    const uint64_t start = now_ns();
    const uint64_t sum = contestant->run(contestant->context, calls);
    const uint64_t end = now_ns();
    if (sum != contestant->result * calls) return -1;
    if (contestant->check != NULL && !contestant->check(contestant->context)) return -1;
    return (double)(end - start) / (double)calls;
}

/* So many calls that a sample is long enough; 0: the result is wrong. */
static size_t calibrate(const race_contestant *contestant)
{
    for (size_t calls = 1;; calls *= 2) {
        const double ns = sample(contestant, calls);
        if (ns < 0) return 0;
        if (ns * (double)calls >= SAMPLE_NS) return calls;
    }
}

static int compare(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

typedef struct spread {
    double low, median, high;
} spread;

static spread spread_of(double *values, size_t count)
{
    qsort(values, count, sizeof *values, compare);
    return (spread){values[count / 4], values[count / 2], values[count - 1 - count / 4]};
}

static void print_head(void)
{
    printf("%-14s %-10s %9s  %-13s %10s %9s  %-22s %-13s %s\n", "benchmark", "input", "bytes",
           "implementation", "ns", "GB/s", "speed to the floor", "floor", "bar");
}

static const char *verdict(double bar, double ratio)
{
    return ratio >= bar ? "met" : "missed";
}

static void print_row(const race_setup *race, size_t at, spread ns, spread ratio, size_t rounds,
                      const race_options *options)
{
    const double item_ns = ns.median / (double)race->items;
    const double rate = (double)race->size_bytes / item_ns;
    const char *floor = race->contestants[0].name;
    const double bar = at == 1 ? race->bar : 0;
    if (options->json) {
        printf("{\"benchmark\": \"%s\", \"input\": \"%s\", \"size_bytes\": %zu, "
               "\"implementation\": \"%s\", \"floor\": \"%s\", \"time_per_%s_ns\": %.3f, "
               "\"throughput_gb_per_s\": %.3f, \"speed_to_floor_ratio\": %.4f, "
               "\"speed_to_floor_q1_ratio\": %.4f, \"speed_to_floor_q3_ratio\": %.4f, "
               "\"rounds_count\": %zu",
               race->benchmark, race->input, race->size_bytes, race->contestants[at].name, floor,
               race->item, item_ns, rate, ratio.median, ratio.low, ratio.high, rounds);
        if (bar > 0)
            printf(", \"bar_ratio\": %.2f, \"bar\": \"%s\"", bar, verdict(bar, ratio.median));
        printf("}\n");
        return;
    }
    char text[64] = "";
    if (at > 0)
        (void)snprintf(text, sizeof text, "%.3f [%.3f, %.3f]", ratio.median, ratio.low, ratio.high);
    printf("%-14s %-10s %9zu  %-13s %10.2f %9.2f  %-22s %-13s", race->benchmark, race->input,
           race->size_bytes, race->contestants[at].name, item_ns, rate, text, at > 0 ? floor : "");
    if (bar > 0) printf(" >= %.1f: %s", bar, verdict(bar, ratio.median));
    printf("\n");
}

/* Take all samples. False, with `*wrong` set, if a contestant's result is wrong. */
static bool take_samples(const race_setup *race, size_t rounds, double *ns, size_t *wrong)
{
    size_t calls[RACE_CONTESTANTS_MAX];
    for (size_t i = 0; i < race->count; i++) {
        *wrong = i;
        calls[i] = calibrate(&race->contestants[i]);
        if (calls[i] == 0) return false;
    }
    for (size_t round = 0; round < rounds; round++) {
        for (size_t i = 0; i < race->count; i++) {
            *wrong = i;
            ns[i * rounds + round] = sample(&race->contestants[i], calls[i]);
            if (ns[i * rounds + round] < 0) return false;
        }
    }
    return true;
}

void race_start(const race_setup *race, const race_options *options, race_totals *totals)
{
    if (options->filter != NULL && strstr(race->benchmark, options->filter) == NULL) return;
    if (totals->run++ == 0 && !options->json) print_head();

    const size_t rounds = options->quick ? ROUNDS_QUICK : ROUNDS;
    double *ns = calloc(race->count * rounds, sizeof *ns);
    double *ratios = calloc(race->count * rounds, sizeof *ratios);
    size_t wrong = 0;
    if (ns == NULL || ratios == NULL) {
        (void)fprintf(stderr, "micro: out of memory\n");
        totals->wrong++;
    } else if (!take_samples(race, rounds, ns, &wrong)) {
        (void)fprintf(stderr, "micro: %s, %s, %zu bytes: the result of %s is wrong\n",
                      race->benchmark, race->input, race->size_bytes,
                      race->contestants[wrong].name);
        totals->wrong++;
    } else {
        for (size_t i = 0; i < race->count * rounds; i++)
            ratios[i] = ns[i % rounds] / ns[i];
        for (size_t i = 0; i < race->count; i++) {
            const spread ratio = spread_of(ratios + i * rounds, rounds);
            print_row(race, i, spread_of(ns + i * rounds, rounds), ratio, rounds, options);
            if (i != 1 || race->bar <= 0) continue;
            if (ratio.median >= race->bar)
                totals->bars_met++;
            else
                totals->bars_missed++;
        }
        (void)fflush(stdout);
    }
    free(ratios);
    free(ns);
}
