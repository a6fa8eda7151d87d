/* Random numbers of a test whose run can be repeated: the seed is printed, and RINGWS_TEST_SEED
 * sets it. */
#ifndef RINGWS_TESTS_SUPPORT_SEED_H
#define RINGWS_TESTS_SUPPORT_SEED_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static uint64_t random_state;

static inline uint64_t next_random(void)
{
    /* splitmix64 */
    uint64_t z = random_state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static inline void seed_random(void)
{
    const char *given = getenv("RINGWS_TEST_SEED");
    random_state = (uint64_t)time(NULL) << 20 ^ (uint64_t)getpid();
    if (given) random_state = strtoull(given, NULL, 0);
    fprintf(stderr, "RINGWS_TEST_SEED=%llu\n", (unsigned long long)random_state);
}

#endif
