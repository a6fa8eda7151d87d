/* Numbers for people. */
#include <criterion/criterion.h>

#include "tools/format.h"

static format_text text;

Test(format, test_counts)
{
    cr_assert_str_eq(format_count(&text, 0), "0");
    cr_assert_str_eq(format_count(&text, 999), "999");
    cr_assert_str_eq(format_count(&text, 1000), "1,000");
    cr_assert_str_eq(format_count(&text, 5123456), "5,123,456");
    cr_assert_str_eq(format_count(&text, UINT64_MAX), "18,446,744,073,709,551,615");
}

Test(format, test_rates_have_three_digits)
{
    cr_assert_str_eq(format_rate(&text, 0, "B/s"), "0 B/s");
    cr_assert_str_eq(format_rate(&text, 0.5, "B/s"), "0.50 B/s");
    cr_assert_str_eq(format_rate(&text, 999.4, "B/s"), "999 B/s");
    cr_assert_str_eq(format_rate(&text, 999.6, "B/s"), "1.00 kB/s");
    cr_assert_str_eq(format_rate(&text, 99949, "B/s"), "99.9 kB/s");
    cr_assert_str_eq(format_rate(&text, 99951, "B/s"), "100 kB/s");
    cr_assert_str_eq(format_rate(&text, 9.5e20, "B/s"), "950000000 TB/s");
    cr_assert_str_eq(format_rate(&text, 1023456, "msg/s"), "1.02 M msg/s");
    cr_assert_str_eq(format_rate(&text, 331, "msg/s"), "331 msg/s");
}

Test(format, test_sizes_are_binary)
{
    cr_assert_str_eq(format_bytes(&text, 0), "0 B");
    cr_assert_str_eq(format_bytes(&text, 1023), "1023 B");
    cr_assert_str_eq(format_bytes(&text, 65536), "64 KiB");
    cr_assert_str_eq(format_bytes(&text, 1536), "1.50 KiB");
    cr_assert_str_eq(format_bytes(&text, (UINT64_C(1) << 31) - (1 << 20)), "2.00 GiB");
    cr_assert_str_eq(format_bytes(&text, UINT64_MAX), "16 EiB");
}

Test(format, test_times_take_the_unit_that_fits)
{
    cr_assert_str_eq(format_time(&text, 0), "0 ns");
    cr_assert_str_eq(format_time(&text, 812), "812 ns");
    cr_assert_str_eq(format_time(&text, 999.7), "1.00 µs");
    cr_assert_str_eq(format_time(&text, 12345), "12.3 µs");
    cr_assert_str_eq(format_time(&text, 999600), "1.00 ms");
    cr_assert_str_eq(format_time(&text, 5e9), "5.00 s");
    cr_assert_str_eq(format_time(&text, 3600e9), "3600 s");
}

Test(format, test_columns_count_characters)
{
    cr_assert_eq(format_columns(""), 0);
    cr_assert_eq(format_columns("12.3 ms"), 7);
    cr_assert_eq(format_columns("12.3 µs"), 7);
}
