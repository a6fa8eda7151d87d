/*
 * A latency histogram: log-linear buckets in bounded memory.
 *
 * Every power of two is cut into 128 equal buckets, so a value is known to within 1/128 (0.8 %) of
 * itself, and the midpoint that percentiles report to within 0.4 %. Values below 256 are exact.
 * The smallest, the largest and the mean are kept exactly. One writer; merge copies for a total.
 */
#ifndef RINGWS_TOOLS_HISTOGRAM_H
#define RINGWS_TOOLS_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

enum {
    HISTOGRAM_SUB_BITS = 7,
    HISTOGRAM_SUB = 1 << HISTOGRAM_SUB_BITS,
    HISTOGRAM_VALUE_BITS = 48, /* 2^48 ns are 78 hours: longer than any run */
    HISTOGRAM_BUCKETS = (HISTOGRAM_VALUE_BITS - HISTOGRAM_SUB_BITS + 1) * HISTOGRAM_SUB,
};

typedef struct histogram {
    uint64_t count;
    uint64_t min; /* UINT64_MAX while empty */
    uint64_t max;
    double sum;
    uint64_t buckets[HISTOGRAM_BUCKETS];
} histogram;

/* The bucket of `value`; what is over the range shares the last one. */
static inline size_t histogram_bucket(uint64_t value)
{
    if (value < HISTOGRAM_SUB) return (size_t)value;
    if (value >> HISTOGRAM_VALUE_BITS) return HISTOGRAM_BUCKETS - 1;

    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - HISTOGRAM_SUB_BITS;
    return (size_t)(shift * HISTOGRAM_SUB + (value >> shift));
}

static inline void histogram_record(histogram *h, uint64_t value)
{
    h->count++;
    h->sum += (double)value;
    if (value < h->min) h->min = value;
    if (value > h->max) h->max = value;
    h->buckets[histogram_bucket(value)]++;
}

void histogram_reset(histogram *h);

/** Add everything that was recorded in `from` to `into`. */
void histogram_merge(histogram *into, const histogram *from);

/** The value that `percent` (0 … 100) of the recorded ones do not exceed; 0 if there are none. */
uint64_t histogram_percentile(const histogram *h, double percent);

/** 0 if nothing was recorded. */
double histogram_mean(const histogram *h);

#endif
