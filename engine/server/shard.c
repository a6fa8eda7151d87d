#include "engine/server/shard.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

/* So much of a wide broadcast is submitted together. To 1,000 and 5,000 connections, in
 * uWebSockets' time: 256 entries 0.68 and 0.57, 512 0.64 and 0.60, 1,024 0.56 and 0.76. */
#define SQ_ENTRIES 512
#define CQ_ENTRIES 4096

static_assert(offsetof(rws__shard, loop) == 0, "a loop leads to its shard");
static_assert(RWS__LISTENERS_MAX <= RWS__RESERVE - RWS__RESERVE_FREE, "each has an accept");

static rws__shard *shard_of(const rws__loop *loop)
{
    return (rws__shard *)loop;
}

/* ---- what the loop tells ---- */

/* The accepts in flight, as their user_data names them: the listener's index and its own slot. */
static rws__listener *listener_of(rws__shard *shard, const rws__cqe *cqe)
{
    uint32_t index = rws__op_slot(cqe->user_data) >> RWS__ACCEPT_SLOT_BITS;
    RWS_ASSERT(index < shard->listeners_count);
    return &shard->listeners[index];
}

/* In a drain, what has no accept in flight any more stops listening. */
static void finish_listeners(rws__shard *shard)
{
    for (uint32_t i = 0; i < shard->listeners_count; i++)
        if (rws__listener_is_quiet(&shard->listeners[i]))
            rws__listener_finish(&shard->listeners[i]);
}

/* Whether a drain has nothing more to wait for. */
static bool is_drained(const rws__shard *shard)
{
    if (shard->conns.streams.slots_used > 0) return false;
    for (uint32_t i = 0; i < shard->listeners_count; i++)
        if (shard->listeners[i].fd >= 0) return false;
    return true;
}

/* All of them accept, and may go on until so many slots are in use that the backlog of one might
 * not find room. */
static void pump_listeners(rws__shard *shard)
{
    uint32_t slots = shard->conns.streams.options.slots_max;
    shard->listeners_rest = slots;
    for (uint32_t i = 0; i < shard->listeners_count; i++) {
        rws__listener *listener = &shard->listeners[i];
        rws__listener_pump(listener);
        uint32_t room = rws__listener_room(listener);
        uint32_t rest = room < slots ? slots - room : 0;
        if (rest < shard->listeners_rest) shard->listeners_rest = rest;
    }
}

static bool on_flush(rws__loop *loop)
{
    rws__shard *shard = shard_of(loop);
    /* Quiet sends that are left over, because not all could be submitted, may end without a
     * completion to wait for. */
    if (shard->conns.streams.quiet.count > 0) loop->refused = true;
    rws__streams_flush(&shard->conns.streams);
    if (shard->conns.streams.slots_used >= shard->listeners_rest || shard->conns.draining)
        pump_listeners(shard);
    /* After the flush, in which a message may have ended with nothing else to come. */
    rws__conns_check_budget(&shard->conns);
    /* Flushing may have given the last slot back, and then no completion will come. */
    return rws__streams_are_busy(&shard->conns.streams) ||
           (shard->conns.draining && is_drained(shard));
}

static uint32_t on_completions(rws__loop *loop, const rws__cqe *cqes, uint32_t left)
{
    rws__shard *shard = shard_of(loop);
    if (rws__op_kind_of(cqes->user_data) != RWS__OP_ACCEPT)
        return rws__streams_on_completions(&shard->conns.streams, cqes, left);
    shard->listeners_rest = 0;
    rws__listener_on_accept(listener_of(shard, cqes), cqes);
    return 1;
}

static void on_settled(rws__loop *loop, bool all_submitted)
{
    rws__streams_settle(&shard_of(loop)->conns.streams, all_submitted);
}

static uint64_t discarded(const rws__shard *shard)
{
    return atomic_load_explicit(&shard->loop.counters.bytes_discarded, memory_order_relaxed);
}

static void on_stop(rws__loop *loop)
{
    rws__shard *shard = shard_of(loop);
    uint32_t timeout_ms = shard->config->drain_timeout_ms;
    if (timeout_ms != RWS_NEVER)
        rws__loop_set(loop, RWS__DEADLINE_SHARD, &shard->drain_timer, timeout_ms);
    rws__conns_drain(&shard->conns);
    /* Behind that: the request of a dial that was given up is no loss. */
    shard->discarded_before = discarded(shard);
}

static void on_deadline(rws__timer *timer, void *context)
{
    rws__shard *shard = shard_of(context);
    if (timer == &shard->drain_timer) {
        rws__conns_cut(&shard->conns);
        return;
    }
    shard->listeners_rest = 0;
    for (uint32_t i = 0; i < shard->listeners_count; i++)
        if (timer == &shard->listeners[i].timer) rws__listener_on_deadline(&shard->listeners[i]);
}

static const rws__loop_owner owner = {
    .on_flush = on_flush,
    .on_completions = on_completions,
    .on_settled = on_settled,
    .on_stop = on_stop,
};

/* ---- life ---- */

int rws__shard_init(rws__shard *shard, const rws__runtime_config *config, uint32_t index,
                    rws_error *error)
{
    shard->config = config;
    int res = rws__loop_init(&shard->loop, &config->env, &owner);
    if (res != 0)
        return rws__fail(error, res, "can't make an eventfd for shard %u: %s", index,
                         rws_strerror(res));
    shard->loop.on_deadline[RWS__DEADLINE_SENDING] = rws__streams_on_sending_deadline;
    shard->loop.on_deadline[RWS__DEADLINE_LINGER] = rws__streams_on_linger_deadline;
    shard->loop.on_deadline[RWS__DEADLINE_SHARD] = on_deadline;
    res = rws__conns_init(&shard->conns, &shard->loop, index, config->connections_max,
                          RWS__HEADERS_MAX, &config->streams);
    if (res != 0) return rws__fail(error, res, "no memory for the pools of shard %u", index);
    return 0;
}

void rws__shard_deinit(rws__shard *shard)
{
    if (shard->config == NULL) return;
    rws__loop_deinit(&shard->loop);
    for (uint32_t i = 0; i < shard->listeners_count; i++)
        if (shard->listeners[i].fd >= 0) rws__socket_close(shard->listeners[i].fd);
    rws__conns_deinit(&shard->conns);
}

rws__listener *rws__shard_add_listener(rws__shard *shard, int fd,
                                       const rws__listener_config *config,
                                       const rws__http_rules *http)
{
    RWS_ASSERT(shard->listeners_count < RWS__LISTENERS_MAX);
    uint32_t index = shard->listeners_count++;
    rws__listener *listener = &shard->listeners[index];
    rws__listener_init(listener, index, fd, &shard->accepting, &shard->conns, config, http);
    return listener;
}

int rws__shard_open(rws__shard *shard, rws_error *error)
{
    const rws__runtime_config *config = shard->config;
    rws__ring_options options = {
        .sq_entries = SQ_ENTRIES,
        .cq_entries = CQ_ENTRIES,
        .files = shard->conns.streams.options.slots_max,
        .incremental_buffers = config->recv_buffers,
        .incremental_bytes = config->recv_buffer_bytes,
        .plain_buffers = config->plain_buffers,
        .plain_bytes = config->plain_buffer_bytes,
        .registered_max = RWS__REGISTERED_MAX,
        .features_off = config->features_off,
        .busy_wait_us = config->busy_wait_us,
    };
    const char *what;
    int res = rws__loop_open(&shard->loop, &options, &what);
    if (res == 0) {
        rws__streams_open(&shard->conns.streams, config->shards);
        return 0;
    }
    return rws__fail(error, res, "shard %u can't start: %s failed: %s%s", shard->conns.index, what,
                     rws_strerror(res),
                     res == -ENOMEM ? " (raise the limit of locked memory, ulimit -l, or lower "
                                      "recv_buffers)"
                                    : "");
}

/* A turn had the result `res`, or the shard drains. */
static void look_at_end(rws__shard *shard, int res)
{
    if (res == 0) finish_listeners(shard);
    if (res < 0) shard->error = res;
    shard->ended = res < 0 || (res == 0 && is_drained(shard));
}

int rws__shard_turn(rws__shard *shard, bool may_wait)
{
    int res = rws__loop_turn(&shard->loop, may_wait);
    if (res != 0 || shard->conns.draining) look_at_end(shard, res);
    return res;
}

bool rws__shard_has_ended(const rws__shard *shard)
{
    return shard->ended;
}

int rws__shard_result(const rws__shard *shard)
{
    if (shard->error != 0) return shard->error;
    bool lost = shard->conns.cut_off_some || discarded(shard) != shard->discarded_before;
    return lost ? RWS_E_TIMEOUT : 0;
}

int rws__shard_run(rws__shard *shard)
{
    while (!shard->ended)
        (void)rws__shard_turn(shard, true);
    return rws__shard_result(shard);
}

void rws__shard_close(rws__shard *shard)
{
    rws__loop_close_mailbox(&shard->loop);
    /* If the loop ended with an error, on_close is owed all the same; and no dial goes on. */
    shard->conns.draining = true;
    rws__streams_abandon(&shard->conns.streams);
    rws__registered_deinit(&shard->conns.streams.registered);
    rws__loop_close_ring(&shard->loop);
}
