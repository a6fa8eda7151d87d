/*
 * A timer wheel, of which a shard has one for each kind of deadline: 512 buckets of 16 ms. A timer
 * sits in the bucket of its deadline; a deadline more than one turn of the wheel (8.2 s) away stays
 * in its bucket until its turn. Setting and clearing are O(1) and take no memory. `next_tick` is
 * never later than the earliest timer; it is exact after timers fired, and may be early when one
 * was cleared, so that a loop that sleeps until then wakes up at most once for nothing.
 *
 * A timer fires once, never early, and at most one tick plus one loop turn late (three ticks where
 * the lower half of the tick count, which timers keep, is a value that is reserved).
 */
#ifndef RINGWS_BASE_WHEEL_H
#define RINGWS_BASE_WHEEL_H

#include <stdbool.h>
#include <stdint.h>

#define RWS__WHEEL_BUCKETS 512u
#define RWS__TICK_MS       16u

/* Embedded in what it belongs to, as there are many: without a hole of 4 bytes. Zero-initialised
 * memory is a timer that is not set. */
typedef struct __attribute__((packed, aligned(4))) rws__timer {
    uint32_t tick; /* the deadline, its lower 32 bits; 0: not set */
    struct rws__timer *next, *prev;
} rws__timer;

typedef struct rws__wheel {
    rws__timer *buckets[RWS__WHEEL_BUCKETS + 1]; /* the last: due, being fired */
    uint64_t occupied[RWS__WHEEL_BUCKETS / 64];
    uint64_t now_tick;  /* nothing is due up to here */
    uint64_t next_tick; /* no timer is due before it */
    uint32_t count;
} rws__wheel;

typedef void (*rws__timer_fn)(rws__timer *timer, void *context);

void rws__wheel_init(rws__wheel *wheel, uint64_t now_ms);

/* Set (or move) a timer to fire `delay_ms` after `now_ms`. */
void rws__timer_set(rws__wheel *wheel, rws__timer *timer, uint64_t now_ms, uint64_t delay_ms);
void rws__timer_clear(rws__wheel *wheel, rws__timer *timer);
static inline bool rws__timer_is_set(const rws__timer *timer)
{
    return timer->tick != 0;
}

/* Fire what is due. A callback may set and clear any timer of the wheel. */
void rws__wheel_advance(rws__wheel *wheel, uint64_t now_ms, rws__timer_fn fire, void *context);

/* When rws__wheel_advance() has to be called next, in ms on the clock of `now_ms`; UINT64_MAX: not
 * before a timer is set. */
uint64_t rws__wheel_next_ms(const rws__wheel *wheel);

#endif
