/*
 * One run of a random script: a server of one shard without threads, and peers on sockets of the
 * outside. What each connection's peer got, and the order of its callbacks, becomes a transcript
 * that is the same on every ring (engine_differential_plain.c).
 *
 * What time could decide is designed out: each step begins when all is at rest; a step's random
 * numbers are its own; a peer resets only when all that it wrote has arrived; who does not read is
 * sent little, which every socket takes, or much, which none takes; and no deadline is near.
 */
#ifndef RINGWS_TESTS_SUPPORT_OUTSIDE_RUN_H
#define RINGWS_TESTS_SUPPORT_OUTSIDE_RUN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct outside_script {
    uint64_t seed;
    uint32_t features; /* that the simulated kernel has */
    uint32_t features_off;
    bool faults;      /* of the simulated kernel */
    bool planted;     /* make a difference, to see that it is found */
    uint64_t rest_us; /* without anything that happens: at rest */
} outside_script;

/* Write the transcript. Returns the features of the ring, before some were switched off. */
uint32_t outside_run(const outside_script *script, FILE *transcript);

#endif
