/*
 * The clock of the engine, a part of the ring seam: a program that links another ring links another
 * clock with it.
 */
#ifndef RINGWS_RING_CLOCK_H
#define RINGWS_RING_CLOCK_H

#include <stdint.h>

/* Monotonic milliseconds. Any thread. */
uint64_t rws__clock_ms(void);

#endif
