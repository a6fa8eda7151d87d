#include "engine/loop/loop.h"

#include "engine/base/assert.h"
#include "engine/ring/clock.h"

#define REAP_BATCH 64

int rws__loop_init(rws__loop *loop, const rws__env *env, const rws__loop_owner *owner)
{
    loop->env = env;
    loop->owner = owner;
    return rws__mailbox_init(&loop->mailbox, env);
}

void rws__loop_deinit(rws__loop *loop)
{
    RWS_ASSERT(loop->ring == NULL);
    rws__mailbox_deinit(&loop->mailbox);
}

int rws__loop_open(rws__loop *loop, const rws__ring_options *options, const char **what)
{
    int res = rws__ring_create(&loop->ring, options, what);
    if (res != 0) {
        loop->ring = NULL;
        return res;
    }
    loop->features = rws__ring_features(loop->ring);
    loop->now_ms = rws__clock_ms();
    loop->next_ms = UINT64_MAX;
    for (int kind = 0; kind < RWS__DEADLINE_KINDS; kind++)
        rws__wheel_init(&loop->wheels[kind], loop->now_ms);
    return 0;
}

void rws__loop_close_mailbox(rws__loop *loop)
{
    rws__mailbox_close(&loop->mailbox);
}

void rws__loop_close_ring(rws__loop *loop)
{
    if (loop->ring != NULL) rws__ring_destroy(loop->ring);
    loop->ring = NULL;
}

void rws__loop_stop(rws__loop *loop)
{
    /* Release: what the caller wrote before is seen by on_stop. */
    atomic_store_explicit(&loop->stop, true, memory_order_release);
    rws__mailbox_wake(&loop->mailbox);
}

/* ---- what the loop itself has in the ring ---- */

static uint64_t tick_data(uint32_t number)
{
    return rws__op_pack(RWS__OP_TICK, 0, number);
}

/* Have the kernel wake the loop for the earliest deadline. A timeout that would come too late is
 * moved; one that comes too early finds nothing to do, once. */
static void arm_tick(rws__loop *loop)
{
    uint64_t next = loop->next_ms;
    if (next == UINT64_MAX) return;
    if (loop->tick_armed_ms != 0 && loop->tick_armed_ms <= next) return;
    uint64_t delay = next > loop->now_ms ? next - loop->now_ms : 1;
    int res;
    if (loop->tick_armed_ms != 0)
        res = rws__ring_timeout_update(loop->ring, delay, tick_data(loop->tick));
    else
        res = rws__ring_timeout(loop->ring, delay, tick_data(++loop->tick));
    if (res == 0)
        loop->tick_armed_ms = next;
    else
        loop->refused = true;
}

static void arm_wake(rws__loop *loop)
{
    if (loop->wake_armed) return;
    if (rws__ring_read_event(loop->ring, loop->mailbox.event, &loop->wake_value,
                             rws__op_pack(RWS__OP_WAKE, 0, 0)) == 0)
        loop->wake_armed = true;
    else
        loop->refused = true;
}

/* ---- one turn ---- */

static void reap(rws__loop *loop)
{
    rws__cqe batch[REAP_BATCH];
    uint32_t count;
    while ((count = rws__ring_reap(loop->ring, batch, REAP_BATCH)) > 0)
        for (uint32_t i = 0; i < count;) {
            switch (rws__op_kind_of(batch[i].user_data)) {
            case RWS__OP_NONE: i++; break;
            case RWS__OP_WAKE:
                loop->wake_armed = false;
                i++;
                break;
            case RWS__OP_TICK:
                if (rws__op_generation(batch[i].user_data) == loop->tick) loop->tick_armed_ms = 0;
                i++;
                break;
            default: i += loop->owner->on_completions(loop, &batch[i], count - i);
            }
        }
}

/* Deadlines pass in ticks: what has looked at one need not look again before the next. */
static void advance_wheels(rws__loop *loop)
{
    if (loop->now_ms < loop->wheels_ms) return;
    loop->wheels_ms = (loop->now_ms / RWS__TICK_MS + 1) * RWS__TICK_MS;
    for (int kind = 0; kind < RWS__DEADLINE_KINDS; kind++)
        rws__wheel_advance(&loop->wheels[kind], loop->now_ms, loop->on_deadline[kind], loop);
    loop->next_ms = UINT64_MAX;
    for (int kind = 0; kind < RWS__DEADLINE_KINDS; kind++) {
        uint64_t next = rws__wheel_next_ms(&loop->wheels[kind]);
        if (next < loop->next_ms) loop->next_ms = next;
    }
}

static void run_mailbox(rws__loop *loop)
{
    rws__mailbox_run(&loop->mailbox);
    /* Acquire: pairs with the release in rws__loop_stop(). */
    if (loop->stopping || !atomic_load_explicit(&loop->stop, memory_order_acquire)) return;
    loop->stopping = true;
    loop->owner->on_stop(loop);
}

static void update_ring_counters(rws__loop *loop)
{
    atomic_store_explicit(&loop->counters.ring_enters, rws__ring_enters(loop->ring),
                          memory_order_relaxed);
    atomic_store_explicit(&loop->counters.cq_overflows, rws__ring_overflows(loop->ring),
                          memory_order_relaxed);
}

int rws__loop_turn(rws__loop *loop, bool may_wait)
{
    loop->refused = false;
    bool busy = loop->owner->on_flush(loop);
    arm_tick(loop);
    arm_wake(loop);
    bool wait = may_wait && !loop->refused && !busy;
    int res = rws__ring_turn(loop->ring, wait);
    if (res != 0) return res;
    loop->now_ms = rws__clock_ms();
    /* Seen before completions are handled, because an accept queues operations again. */
    bool all_submitted = rws__ring_pending(loop->ring) == 0;
    reap(loop);
    loop->owner->on_settled(loop, all_submitted);
    advance_wheels(loop);
    if (!loop->wake_armed) run_mailbox(loop);
    update_ring_counters(loop);
    return 0;
}
