#include "engine/base/wheel.h"

#include <stddef.h>
#include <string.h>

#define DUE_TICK   UINT32_MAX
#define DUE_BUCKET RWS__WHEEL_BUCKETS

static unsigned bucket_of(uint32_t tick)
{
    return tick == DUE_TICK ? DUE_BUCKET : tick % RWS__WHEEL_BUCKETS;
}

void rws__wheel_init(rws__wheel *wheel, uint64_t now_ms)
{
    memset(wheel, 0, sizeof *wheel);
    wheel->now_tick = now_ms / RWS__TICK_MS;
}

void rws__timer_clear(rws__wheel *wheel, rws__timer *timer)
{
    if (!rws__timer_is_set(timer)) return;
    unsigned bucket = bucket_of(timer->tick);
    if (timer->prev != NULL)
        timer->prev->next = timer->next;
    else
        wheel->buckets[bucket] = timer->next;
    if (timer->next != NULL) timer->next->prev = timer->prev;
    if (bucket != DUE_BUCKET && wheel->buckets[bucket] == NULL)
        wheel->occupied[bucket / 64] &= ~(1ull << bucket % 64);
    memset(timer, 0, sizeof *timer);
    wheel->count--;
}

static void insert(rws__wheel *wheel, rws__timer *timer, uint32_t tick)
{
    unsigned bucket = bucket_of(tick);
    timer->tick = tick;
    timer->prev = NULL;
    timer->next = wheel->buckets[bucket];
    if (timer->next != NULL) timer->next->prev = timer;
    wheel->buckets[bucket] = timer;
    if (bucket != DUE_BUCKET) wheel->occupied[bucket / 64] |= 1ull << bucket % 64;
    wheel->count++;
}

void rws__timer_set(rws__wheel *wheel, rws__timer *timer, uint64_t now_ms, uint64_t delay_ms)
{
    rws__timer_clear(wheel, timer);
    /* Rounded up, so that it is never early; never a bucket that was visited already. */
    uint64_t tick = (now_ms + delay_ms + RWS__TICK_MS - 1) / RWS__TICK_MS;
    if (tick <= wheel->now_tick) tick = wheel->now_tick + 1;
    while ((uint32_t)tick == 0 || (uint32_t)tick == DUE_TICK)
        tick++;
    insert(wheel, timer, (uint32_t)tick);
}

/* Move the due timers of a bucket to the bucket of what is being fired: a callback may set and
 * clear any timer, also one that is due itself, and no timer is looked at twice. */
static void collect(rws__wheel *wheel, unsigned bucket, uint32_t end)
{
    for (rws__timer *timer = wheel->buckets[bucket], *next; timer != NULL; timer = next) {
        next = timer->next;
        /* No deadline is half the range (a year) away: a difference tells the order. */
        if ((int32_t)(timer->tick - end) > 0) continue;
        rws__timer_clear(wheel, timer);
        insert(wheel, timer, DUE_TICK);
    }
}

void rws__wheel_advance(rws__wheel *wheel, uint64_t now_ms, rws__timer_fn fire, void *context)
{
    uint64_t end = now_ms / RWS__TICK_MS;
    if (end <= wheel->now_tick) return;
    uint64_t begin = wheel->now_tick + 1;
    if (end - begin >= RWS__WHEEL_BUCKETS) begin = end - RWS__WHEEL_BUCKETS + 1;
    /* What the callbacks set goes behind `end`. */
    wheel->now_tick = end;
    if (wheel->count == 0) return;
    for (uint64_t tick = begin; tick <= end; tick++) {
        unsigned bucket = (unsigned)(tick % RWS__WHEEL_BUCKETS);
        if (wheel->occupied[bucket / 64] >> bucket % 64 & 1) collect(wheel, bucket, (uint32_t)end);
    }
    while (wheel->buckets[DUE_BUCKET] != NULL) {
        rws__timer *timer = wheel->buckets[DUE_BUCKET];
        rws__timer_clear(wheel, timer);
        fire(timer, context);
    }
}

uint64_t rws__wheel_next_ms(const rws__wheel *wheel)
{
    if (wheel->count == 0) return UINT64_MAX;
    unsigned bucket = (unsigned)((wheel->now_tick + 1) % RWS__WHEEL_BUCKETS);
    for (unsigned step = 0; step < RWS__WHEEL_BUCKETS; step++) {
        unsigned at = (bucket + step) % RWS__WHEEL_BUCKETS;
        if (wheel->occupied[at / 64] >> at % 64 & 1)
            return (wheel->now_tick + 1 + step) * RWS__TICK_MS;
    }
    return UINT64_MAX;
}
