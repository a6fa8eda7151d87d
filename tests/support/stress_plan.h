/*
 * What the stress test sends: message `number` of connection `connection` has a size, a type, a
 * number of frames and a content that follow from the seed alone, so that the sender, the reader
 * and a second run agree on every byte without keeping any.
 */
#ifndef RINGWS_TESTS_SUPPORT_STRESS_PLAN_H
#define RINGWS_TESTS_SUPPORT_STRESS_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STRESS_MESSAGE_MAX 1048576u

typedef struct stress_plan {
    uint64_t seed;
    uint32_t connections;
    uint64_t messages; /* at least, over all connections */
    uint64_t bytes;    /* of payload; likewise */
    uint32_t threads;
} stress_plan;

typedef struct stress_message {
    uint64_t seed;
    uint32_t connection, number;
    uint32_t size;
    uint32_t frames;
    bool text;
} stress_message;

/* A generator of random numbers. */
typedef struct stress_random {
    uint64_t state;
} stress_random;

uint64_t stress_next(stress_random *random);
/* 0 … bound - 1 */
uint32_t stress_below(stress_random *random, uint32_t bound);

/* The `index`th number that follows from a seed. */
uint64_t stress_mix(uint64_t seed, uint64_t index);

stress_message stress_message_of(const stress_plan *plan, uint32_t connection, uint32_t number);

/* Write bytes `at` … `at + len` of the content. Binary content of 8 bytes or more begins with the
 * connection and the number; text is valid UTF-8 with characters of one, two and three bytes. */
void stress_content(const stress_message *message, size_t at, uint8_t *out, size_t len);

#endif
