/* The CPU quota of a control group, and the affinity of this process. */
#include <criterion/criterion.h>

#include <sched.h>

#include "engine/base/cpus.h"

Test(engine_cpus, reads_a_quota)
{
    static const struct {
        const char *line;
        uint32_t cpus;
    } rows[] = {
        {"max 100000\n", 0},    {"max 100000", 0},      {"", 0},
        {"garbage", 0},         {"100000", 0},          {"100000 0", 0},
        {"100000 100000\n", 1}, {"200000 100000\n", 2}, {"150000 100000", 2},
        {"100001 100000", 2},   {"50000 100000", 1},    {"1 100000", 1},
        {"0 100000", 1},        {"6400000 100000", 64}, {"18446744073709551615 1", UINT32_MAX},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        cr_expect_eq(rws__cpus_from_quota(rows[i].line), rows[i].cpus, "\"%s\": %u", rows[i].line,
                     rws__cpus_from_quota(rows[i].line));
}

Test(engine_cpus, never_counts_more_than_the_affinity)
{
    cpu_set_t set;
    cr_assert_eq(sched_getaffinity(0, sizeof set, &set), 0);
    uint32_t cpus = rws__cpus_available();
    cr_assert_geq(cpus, 1);
    cr_assert_leq(cpus, (uint32_t)CPU_COUNT(&set));
    for (size_t i = 0; i < (size_t)CPU_SETSIZE; i++) {
        if (!CPU_ISSET(i, &set)) continue;
        CPU_ZERO(&set);
        CPU_SET(i, &set);
    }
    cr_assert_eq(sched_setaffinity(0, sizeof set, &set), 0);
    cr_assert_eq(rws__cpus_available(), 1);
}
