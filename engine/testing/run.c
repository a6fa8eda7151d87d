/*
 * The engine runs until it sleeps, and time goes from event to event.
 */
#include "engine/testing/kit.h"

#include "engine/simulated/kernel.h"

/* More turns without time are no work any more, but something that makes itself anew. A message of
 * 1 GiB takes some ten thousand. */
#define TURNS_MAX 200000u

rws__shard *rws__test_shard(rws_test *test)
{
    return &test->runtime.workers[0].shard;
}

/* Deliver what is due now: with no delay that is everything that was written. */
static bool deliver(void)
{
    uint64_t now = rws__sim_now_us();
    if (rws__sim_next_us() > now) return false;
    rws__sim_advance_to(now);
    return true;
}

static bool pump_peers(rws_test *test)
{
    bool moved = false;
    for (rws_test_peer *peer = test->peers; peer != NULL; peer = peer->next)
        if (rws__peer_pump(peer)) moved = true;
    return moved;
}

/* One turn. `*rests`: the engine sleeps, or has ended. Returns 0, or why the turn failed, with
 * which the engine has ended. */
static int take_turn(rws__shard *shard, bool *rests)
{
    *rests = true;
    if (rws__shard_has_ended(shard)) return 0;
    int res = rws__shard_turn(shard, true);
    if (res < 0 || rws__shard_has_ended(shard)) return res < 0 ? res : 0;
    *rests = rws__sim_ring_sleeps(shard->loop.ring) && !rws__sim_ring_is_ready(shard->loop.ring);
    return 0;
}

bool rws__test_is_at_rest(const rws_test *test)
{
    if (!test->runs) return true;
    return rws__test_fail("it was called inside a callback, which is a part of what the test looks "
                          "at: call it when the feeding call has returned");
}

static bool run(rws_test *test)
{
    rws__shard *shard = rws__test_shard(test);
    for (uint32_t turns = 0; turns < TURNS_MAX; turns++) {
        bool rests;
        int res = take_turn(shard, &rests);
        if (res != 0) return rws__test_fail("a turn of the engine failed: %s", rws_strerror(res));
        bool delivered = deliver();
        bool moved = pump_peers(test);
        if (rests && !delivered && !moved) return true;
    }
    return rws__test_fail("the engine does not come to rest: after %u turns there is still "
                          "something to do (a post that posts itself again?)",
                          TURNS_MAX);
}

bool rws__test_run(rws_test *test)
{
    if (!rws__test_is_at_rest(test)) return false;
    test->runs = true;
    bool rested = run(test);
    test->runs = false;
    return rested;
}

void rws_test_advance(rws_test *test, uint64_t ms)
{
    if (!rws__test_is_open(test)) return;
    uint64_t now = rws__sim_now_us();
    uint64_t end = ms < (UINT64_MAX - now) / 1000 ? now + ms * 1000 : UINT64_MAX - 1;
    if (!rws__test_run(test)) return;
    while (rws__sim_now_us() < end) {
        uint64_t next = rws__sim_next_us();
        rws__sim_advance_to(next < end ? next : end);
        if (!rws__test_run(test)) return;
    }
}

uint64_t rws_test_now_ms(const rws_test *test)
{
    if (!rws__test_is_open(test)) return 0;
    return rws__sim_now_us() / 1000;
}

void rws_test_stop(rws_test *test)
{
    if (!rws__test_is_open(test)) return;
    rws__runtime_stop(&test->runtime);
    rws__test_run(test);
}

bool rws_test_has_ended(const rws_test *test)
{
    return rws__test_is_open(test) && rws__shard_has_ended(&test->runtime.workers[0].shard);
}
