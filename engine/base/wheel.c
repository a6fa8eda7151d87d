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
    wheel->next_tick = UINT64_MAX;
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
    if (wheel->count == 0 || tick < wheel->next_tick) wheel->next_tick = tick;
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

/* The earliest timer of a bucket. */
static uint64_t earliest_in(const rws__wheel *wheel, unsigned bucket)
{
    uint64_t earliest = UINT64_MAX;
    for (const rws__timer *timer = wheel->buckets[bucket]; timer != NULL; timer = timer->next) {
        int32_t ahead = (int32_t)(timer->tick - (uint32_t)wheel->now_tick);
        uint64_t tick = wheel->now_tick + (uint64_t)(int64_t)ahead;
        if (tick < earliest) earliest = tick;
    }
    return earliest;
}

/* The first bucket whose timer is due in this turn of the wheel has the earliest of all. */
static uint64_t earliest(const rws__wheel *wheel)
{
    uint64_t far = UINT64_MAX;
    for (unsigned step = 1; step <= RWS__WHEEL_BUCKETS; step++) {
        unsigned bucket = (unsigned)((wheel->now_tick + step) % RWS__WHEEL_BUCKETS);
        if (!(wheel->occupied[bucket / 64] >> bucket % 64 & 1)) continue;
        uint64_t tick = earliest_in(wheel, bucket);
        if (tick == wheel->now_tick + step) return tick;
        if (tick < far) far = tick;
    }
    return far;
}

void rws__wheel_advance(rws__wheel *wheel, uint64_t now_ms, rws__timer_fn fire, void *context)
{
    uint64_t end = now_ms / RWS__TICK_MS;
    if (end <= wheel->now_tick) return;
    uint64_t begin = wheel->now_tick + 1;
    if (end - begin >= RWS__WHEEL_BUCKETS) begin = end - RWS__WHEEL_BUCKETS + 1;
    /* What the callbacks set goes behind `end`. */
    wheel->now_tick = end;
    if (wheel->count == 0 || end < wheel->next_tick) return;
    for (uint64_t tick = begin; tick <= end; tick++) {
        unsigned bucket = (unsigned)(tick % RWS__WHEEL_BUCKETS);
        if (wheel->occupied[bucket / 64] >> bucket % 64 & 1) collect(wheel, bucket, (uint32_t)end);
    }
    while (wheel->buckets[DUE_BUCKET] != NULL) {
        rws__timer *timer = wheel->buckets[DUE_BUCKET];
        rws__timer_clear(wheel, timer);
        fire(timer, context);
    }
    wheel->next_tick = earliest(wheel);
}

uint64_t rws__wheel_next_ms(const rws__wheel *wheel)
{
    return wheel->count == 0 ? UINT64_MAX : wheel->next_tick * RWS__TICK_MS;
}
