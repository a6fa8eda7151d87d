#include "tools/histogram.h"

#include <math.h>
#include <string.h>

void histogram_reset(histogram *h)
{
    memset(h, 0, sizeof(*h));
    h->min = UINT64_MAX;
}

void histogram_merge(histogram *into, const histogram *from)
{
    into->count += from->count;
    into->sum += from->sum;
    if (from->min < into->min) into->min = from->min;
    if (from->max > into->max) into->max = from->max;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        into->buckets[i] += from->buckets[i];
}

/* The middle of bucket `index`: the inverse of histogram_bucket(). */
static uint64_t bucket_middle(size_t index)
{
    if (index < 2 * HISTOGRAM_SUB) return index;

    unsigned shift = (unsigned)(index / HISTOGRAM_SUB) - 1;
    uint64_t lowest = (uint64_t)(index - shift * HISTOGRAM_SUB) << shift;
    return lowest + ((UINT64_C(1) << shift) - 1) / 2;
}

uint64_t histogram_percentile(const histogram *h, double percent)
{
    if (h->count == 0) return 0;
    if (percent >= 100) return h->max;

    /* 0.7 % of 20,000 is 140 and not, by rounding, the next rank. */
    uint64_t rank = (uint64_t)ceil(percent / 100 * (double)h->count * (1 - 1e-12));
    if (rank == 0) return h->min;

    uint64_t seen = 0;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen < rank) continue;

        /* The last bucket has no upper end, so its middle means nothing. */
        uint64_t value = i == HISTOGRAM_BUCKETS - 1 ? h->max : bucket_middle(i);
        if (value < h->min) value = h->min;
        return value < h->max ? value : h->max;
    }
    return h->max;
}

double histogram_mean(const histogram *h)
{
    return h->count ? h->sum / (double)h->count : 0;
}
