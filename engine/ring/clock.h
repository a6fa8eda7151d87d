/*
 * The clock of the engine, a part of the ring seam: a program that links another ring links another
 * clock with it. There is one per process, which all loops read: two worlds with clocks of their
 * own need two processes.
 */
#ifndef RINGWS_RING_CLOCK_H
#define RINGWS_RING_CLOCK_H

#include <stdint.h>

/* Monotonic milliseconds. Any thread. */
uint64_t rws__clock_ms(void);

#endif
