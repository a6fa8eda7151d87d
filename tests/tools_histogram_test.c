/* The latency histogram: its promised precision, its bounds, merging. */
#include <criterion/criterion.h>

#include <stdlib.h>

#include "tools/histogram.h"

static histogram h;

static void check_near(uint64_t got, uint64_t wanted)
{
    uint64_t off = got > wanted ? got - wanted : wanted - got;
    cr_assert(off <= wanted / 100, "%lu is not within 1 %% of %lu", got, wanted);
}

Test(histogram, test_empty)
{
    histogram_reset(&h);
    cr_assert_eq(histogram_percentile(&h, 50), 0);
    cr_assert_eq(histogram_percentile(&h, 100), 0);
    cr_assert(histogram_mean(&h) == 0);
}

Test(histogram, test_every_value_falls_into_a_bucket_of_its_size)
{
    size_t last = 0;
    for (uint64_t value = 0; value < 100000; value++) {
        size_t bucket = histogram_bucket(value);
        cr_assert(bucket == last || bucket == last + 1, "a bucket is skipped at %lu", value);
        last = bucket;
    }
    for (unsigned bit = 10; bit < HISTOGRAM_VALUE_BITS; bit++) {
        uint64_t power = UINT64_C(1) << bit;
        cr_assert_eq(histogram_bucket(power), histogram_bucket(power - 1) + 1);
    }
    cr_assert_eq(histogram_bucket((UINT64_C(1) << HISTOGRAM_VALUE_BITS) - 1),
                 HISTOGRAM_BUCKETS - 1);
}

Test(histogram, test_small_values_are_exact)
{
    for (uint64_t value = 0; value < 256; value++) {
        histogram_reset(&h);
        histogram_record(&h, value);
        histogram_record(&h, 1000000);
        cr_assert_eq(histogram_percentile(&h, 50), value);
    }
}

Test(histogram, test_one_value_of_every_size_is_within_one_percent)
{
    for (uint64_t value = 1; value < UINT64_C(1) << 47; value += value / 7 + 1) {
        histogram_reset(&h);
        histogram_record(&h, value / 3); /* so that min and max do not give it away */
        histogram_record(&h, value);
        histogram_record(&h, value);
        histogram_record(&h, 3 * value);
        check_near(histogram_percentile(&h, 50), value);
        check_near(histogram_percentile(&h, 75), value);
    }
}

Test(histogram, test_percentiles_of_an_even_spread)
{
    histogram_reset(&h);
    for (uint64_t value = 1; value <= 1000000; value++)
        histogram_record(&h, value);
    check_near(histogram_percentile(&h, 50), 500000);
    check_near(histogram_percentile(&h, 90), 900000);
    check_near(histogram_percentile(&h, 99), 990000);
    check_near(histogram_percentile(&h, 99.9), 999000);
    cr_assert_eq(histogram_percentile(&h, 100), 1000000);
    cr_assert_eq(histogram_percentile(&h, 0), 1);
    cr_assert(histogram_mean(&h) == 500000.5);
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

Test(histogram, test_against_sorted_values)
{
    enum { COUNT = 20000 };
    static uint64_t values[COUNT];
    unsigned seed = 7;
    histogram_reset(&h);
    for (size_t i = 0; i < COUNT; i++) {
        /* From nanoseconds to minutes, most of them small. */
        values[i] = (uint64_t)rand_r(&seed) << (rand_r(&seed) % 9);
        histogram_record(&h, values[i]);
    }
    qsort(values, COUNT, sizeof(values[0]), by_value);
    for (unsigned permille = 1; permille < 1000; permille++) {
        size_t rank = (size_t)permille * COUNT / 1000;
        check_near(histogram_percentile(&h, permille / 10.0), values[rank - 1]);
    }
}

Test(histogram, test_values_over_the_range_keep_the_exact_maximum)
{
    histogram_reset(&h);
    histogram_record(&h, 5);
    histogram_record(&h, UINT64_MAX);
    cr_assert_eq(histogram_percentile(&h, 100), UINT64_MAX);
    cr_assert_eq(histogram_percentile(&h, 99), UINT64_MAX);
    cr_assert_eq(histogram_percentile(&h, 50), 5);
}

Test(histogram, test_percentiles_stay_between_the_smallest_and_the_largest)
{
    histogram_reset(&h);
    for (int i = 0; i < 1000; i++)
        histogram_record(&h, 1000003);
    cr_assert_eq(histogram_percentile(&h, 1), 1000003);
    cr_assert_eq(histogram_percentile(&h, 99.9), 1000003);
}

Test(histogram, test_merged_is_the_same_as_recorded_together)
{
    static histogram parts[3], merged, whole;
    histogram_reset(&merged);
    histogram_reset(&whole);
    for (int part = 0; part < 3; part++)
        histogram_reset(&parts[part]);
    unsigned seed = 11;
    for (int i = 0; i < 10000; i++) {
        uint64_t value = (uint64_t)rand_r(&seed) % 5000000;
        histogram_record(&parts[i % 2], value); /* the third stays empty */
        histogram_record(&whole, value);
    }
    for (int part = 0; part < 3; part++)
        histogram_merge(&merged, &parts[part]);
    cr_assert_eq(merged.count, whole.count);
    cr_assert_eq(merged.min, whole.min);
    cr_assert_eq(merged.max, whole.max);
    cr_assert(merged.sum == whole.sum);
    cr_assert_arr_eq(merged.buckets, whole.buckets, sizeof(whole.buckets));
}
