#include "simulator/world.h"

#include "support/toy_filter.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Turns of a shard in a row, that do not sleep and get nothing done. */
#define IDLE_TURNS_MAX 2000u
/* What a turn takes at least. */
#define TURN_US 2u
/* What the programs' allocator may have given at once. */
#define MEMORY_MAX (96u << 20)
/* Deadlines are met by ticks, and what they wait for may be late. */
#define SLACK_US 1500000u

struct world world;

void fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "simulate: seed %" PRIu64 ", step %" PRIu64 ", %.6f s: ", world.plan->seed,
            world.step, (double)rws__sim_now_us() / 1e6);
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    abort();
}

void trace(const char *format, ...)
{
    if (!world.trace) return;
    va_list args;
    va_start(args, format);
    printf("%6" PRIu64 " %12.6f ", world.step, (double)rws__sim_now_us() / 1e6);
    vprintf(format, args);
    printf("\n");
    va_end(args);
}

void note(uint64_t what)
{
    world.hash = (world.hash ^ what) * 0x9FB21C651E98DF25u;
    world.hash ^= world.hash >> 29;
}

static bool may(rws__sim_fault fault)
{
    return world.plan->kernel.chance[fault] > 0 || world.plan->kernel.fail_at[fault] > 0;
}

bool world_is_rough(void)
{
    return may(RWS__SIM_RESET) || may(RWS__SIM_NO_FILE) || may(RWS__SIM_NO_DESCRIPTOR) ||
           may(RWS__SIM_ACCEPT_ABORTED) || may(RWS__SIM_CONNECT_REFUSED) ||
           may(RWS__SIM_CONNECT_SILENT);
}

bool world_is_short_of_memory(void)
{
    return world.plan->small_pools || may(RWS__SIM_NO_MEMORY);
}

bool world_is_swift(void)
{
    const rws__sim_options *kernel = &world.plan->kernel;
    return !may(RWS__SIM_RESET) && !world_is_short_of_memory() &&
           (!may(RWS__SIM_DELAY) || kernel->delay_us_max <= 1000) &&
           (!may(RWS__SIM_LATE) || kernel->late_us_max <= 1000) &&
           (!may(RWS__SIM_SLOW_TURN) || kernel->slow_us_max <= 1000) &&
           world.server.config.drain_timeout_ms >= 5000;
}

bool world_kernel_tells(void)
{
    uint32_t features = rws__ring_features(world.shards[0].shard->loop.ring);
    return (features & RWS__FEATURE_SOCKET_COMMANDS) && !world.plan->over_unix;
}

uint64_t world_slack_us(void)
{
    const rws__sim_options *kernel = &world.plan->kernel;
    return SLACK_US + (kernel->late_us_max + kernel->slow_us_max + kernel->delay_us_max) * 50;
}

/* ---- pairs ---- */

pair *world_new_pair(void)
{
    pair *own = calloc(1, sizeof *own);
    if (own == NULL) abort();
    own->key = ++world.keys;
    own->next = world.pairs;
    own->honest = true;
    world.pairs = own;
    return own;
}

uint64_t pair_name(const pair *own)
{
    return own->key << 24 | ((own->key * 0x9E3779B97F4A7C15u) >> 40);
}

pair *world_find_pair(uint64_t name)
{
    pair *own = world.pairs;
    while (own != NULL && pair_name(own) != name)
        own = own->next;
    return own;
}

static void free_pairs(void)
{
    while (world.pairs != NULL) {
        pair *own = world.pairs;
        world.pairs = own->next;
        for (uint32_t i = 0; i < own->waits_count; i++)
            rws_message_release(own->waits[i]);
        free(own);
    }
}

/* ---- memory ---- */

static void *take_memory(size_t size, void *user)
{
    if (rws__sim_fails(RWS__SIM_NO_MEMORY)) return NULL;
    return test_allocator_alloc(size, user);
}

static void check_memory(void)
{
    size_t bytes = atomic_load(&world.memory.bytes);
    if (bytes > MEMORY_MAX) fail("%zu bytes are allocated", bytes);
}

static void trace_plan(void)
{
    const plan *own = world.plan;
    trace("%u steps, %u clients, %u raws, %u and %u shards, messages up to %u%s%s%s%s", own->steps,
          own->clients, own->raws, own->server.shards, own->client.shards, own->message_max,
          own->over_unix ? ", a unix socket" : "", own->small_pools ? ", small pools" : "",
          own->filtered ? ", a filter" : "", own->controls ? ", control callbacks" : "");
    trace("server: %u connections, %u receive buffers of %zu, high watermark %zu, off: %s",
          own->server.connections_max, own->server.recv_buffers, own->server.recv_buffer_bytes,
          own->server_endpoint.high_watermark_bytes, own->features_off);
    trace("sockets: %zu and %zu bytes; times up to %" PRIu64 ", %" PRIu64 ", %" PRIu64 " us",
          own->kernel.send_buffer_bytes, own->kernel.recv_buffer_bytes, own->kernel.delay_us_max,
          own->kernel.late_us_max, own->kernel.slow_us_max);
    for (int fault = 0; fault < RWS__SIM_FAULTS; fault++)
        if (own->kernel.chance[fault] > 0)
            trace("fault %s: %u of 65536", rws__sim_fault_name((rws__sim_fault)fault),
                  own->kernel.chance[fault]);
}

/* ---- life of the runtimes ---- */

/* Only for want of what the run has refused. */
static void check_start(const char *what, const char *text)
{
    trace("the %s does not start: %s", what, text);
    if (rws__sim_strikes(RWS__SIM_NO_MEMORY) + rws__sim_strikes(RWS__SIM_NO_DESCRIPTOR) == 0)
        fail("the %s does not start: %s", what, text);
}

/* With faults in the way a start may be refused; whatever was taken has to be given back. */
static bool make_runtime(rws_runtime *runtime, rws_runtime_options *options)
{
    rws__runtime_config config;
    rws_error error;
    options->allocator = &world.allocator;
    int res = rws__runtime_config_make(&config, options, 1, &error);
    if (res != 0) fail("options: %s", error.text);
    res = rws__runtime_init(runtime, &config, &error);
    if (res != 0) check_start("runtime", error.text);
    return res == 0;
}

static bool open_server(void)
{
    plan own = *world.plan;
    rws_error error;
    if (!make_runtime(&world.server, &own.server)) return false;
    own.server_endpoint.handler = own.controls ? &server_handler_of_controls : &server_handler;
    own.listener.address = own.listens_on_all ? "0.0.0.0" : own.host;
    if (own.over_unix) own.listener.unix_path = "/tmp/simulated";
    int res = rws__runtime_add_endpoint(&world.server, &own.server_endpoint, NULL, NULL, &error);
    if (res == 0) res = rws__runtime_listen(&world.server, &own.listener, &error);
    if (res == 0 && own.filtered) world.server.listeners[0].config.filters = &toy_server.maker;
    if (res == 0) res = rws__runtime_open(&world.server, &error);
    if (res != 0) {
        trace("the server does not start: %s", error.text);
        rws__runtime_deinit(&world.server);
    }
    world.server_is_up = res == 0;
    if (res != 0) check_start("server", error.text);
    return res == 0;
}

static bool open_client(void)
{
    plan own = *world.plan;
    const rws_role role = RWS_CLIENT;
    rws_error error;
    if (!make_runtime(&world.client, &own.client)) return false;
    own.client_endpoint.handler = &client_handler;
    int res = rws__runtime_add_endpoint(&world.client, &own.client_endpoint, &role,
                                        &world.client_endpoint, &error);
    if (own.filtered) world.client.dial_filters = &toy_client.maker;
    if (res == 0) res = rws__runtime_open(&world.client, &error);
    if (res != 0) {
        trace("the client does not start: %s", error.text);
        rws__runtime_deinit(&world.client);
    }
    world.client_is_up = res == 0;
    if (res != 0) check_start("client", error.text);
    return res == 0;
}

static void list_shards(rws_runtime *runtime)
{
    for (uint32_t i = 0; i < runtime->config.shards; i++)
        world.shards[world.shards_count++] = (shard_turns){.shard = &runtime->workers[i].shard};
}

/* ---- the scheduler ---- */

static bool wants_turn(const shard_turns *own)
{
    const rws__ring *ring = own->shard->loop.ring;
    if (rws__shard_has_ended(own->shard)) return false;
    return !rws__sim_ring_sleeps(ring) || rws__sim_ring_is_ready(ring);
}

static uint64_t work_done(const rws__counters *counters)
{
    return atomic_load(&counters->bytes_received) + atomic_load(&counters->bytes_sent) +
           atomic_load(&counters->accepted) * 64 + atomic_load(&counters->connections) +
           atomic_load(&counters->messages_sent);
}

static void check_shard(shard_turns *own)
{
    const rws__streams *streams = &own->shard->conns.streams;
    const rws__counters *counters = &own->shard->loop.counters;
    if (streams->slots_used > streams->options.slots_max)
        fail("%u slots are in use", streams->slots_used);
    if (atomic_load(&counters->connections) != streams->slots_used)
        fail("%u slots are in use, and the counter says %" PRIu64, streams->slots_used,
             (uint64_t)atomic_load(&counters->connections));
    if (own->shard->conns.open_count > own->shard->conns.connections_max)
        fail("%u connections are open", own->shard->conns.open_count);
    check_memory();
    uint64_t work = work_done(counters);
    bool sleeps = rws__sim_ring_sleeps(own->shard->loop.ring);
    own->idle_turns = sleeps || work != own->work ? 0 : own->idle_turns + 1;
    own->work = work;
    if (own->idle_turns > IDLE_TURNS_MAX) fail("a shard does not sleep, and gets nothing done");
}

static void take_turn(shard_turns *own)
{
    int res = rws__shard_turn(own->shard, true);
    if (res != 0) fail("a turn failed: %d", res);
    world.turns++;
    note(rws__sim_now_us());
    check_shard(own);
    rws__sim_advance_to(rws__sim_now_us() + TURN_US);
}

/* One turn of some shard that wants one. Now and then also of one that sleeps: the kernel may wake
 * it for nothing. */
static bool turn_some(void)
{
    uint32_t first = (uint32_t)below(world.shards_count);
    for (uint32_t i = 0; i < world.shards_count; i++) {
        shard_turns *own = &world.shards[(first + i) % world.shards_count];
        bool spurious = !world.plan->busy && !rws__shard_has_ended(own->shard) && one_in(200);
        if (!wants_turn(own) && !spurious) continue;
        take_turn(own);
        return true;
    }
    return false;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Nobody has something to do now: time passes. Returns false if nothing will ever happen. */
static bool pass_time(uint64_t most_us)
{
    uint64_t next = earlier(rws__sim_next_us(), earlier(raws_next_us(), app_next_us()));
    next = earlier(next, most_us);
    if (next == UINT64_MAX) return false;
    rws__sim_advance_to(next);
    return true;
}

/* Everything that is due. Returns whether there was something. */
static bool go_on(void)
{
    app_resume(false);
    if (turn_some()) return true;
    return raws_act();
}

static void one_step(uint64_t *next_act_us)
{
    world.step++;
    uint64_t now = rws__sim_now_us();
    bool due = now >= *next_act_us || (world.plan->busy ? one_in(4) : one_in(12));
    if (due && !world.over) {
        app_act();
        /* Mostly much at once, and sometimes nothing for minutes. */
        uint64_t pause = world.plan->busy ? 100
                         : one_in(60)     ? 120000000
                         : one_in(4)      ? 2000000
                                          : 20000;
        *next_act_us = rws__sim_now_us() + below(pause);
        return;
    }
    if (!go_on()) pass_time(*next_act_us);
}

/* Let everything happen for so long. */
static void run_for(uint64_t us, bool (*is_done)(void))
{
    uint64_t end = rws__sim_now_us() + us;
    while (rws__sim_now_us() < end && !(is_done != NULL && is_done())) {
        world.step++;
        if (!go_on() && !pass_time(end)) break;
    }
}

/* ---- the end ---- */

static bool all_have_ended(const rws_runtime *runtime)
{
    for (uint32_t i = 0; i < runtime->config.shards; i++)
        if (!rws__shard_has_ended(&runtime->workers[i].shard)) return false;
    return true;
}

static bool server_has_ended(void)
{
    return all_have_ended(&world.server);
}

static bool client_has_ended(void)
{
    return all_have_ended(&world.client);
}

/* A drain ends in time, whatever the peers do. */
static void drain(rws_runtime *runtime, const char *who, bool (*has_ended)(void))
{
    uint64_t began = rws__sim_now_us();
    uint64_t most = (uint64_t)runtime->config.drain_timeout_ms * 1000 + SLACK_US;
    most += (world.plan->kernel.late_us_max + world.plan->kernel.slow_us_max) * 50;
    trace("the %s is stopped", who);
    rws__runtime_stop(runtime);
    /* Some come while it stops. */
    for (uint32_t i = 0; i < 10 && runtime == &world.server; i++) {
        if (one_in(3)) raws_spawn_proper(false);
        world.step++;
        (void)go_on();
    }
    run_for(most, has_ended);
    if (!has_ended())
        fail("the %s has not ended %.1f s after it was stopped", who,
             (double)(rws__sim_now_us() - began) / 1e6);
}

static void settle(void)
{
    world.over = true;
    raws_finish(false);
    app_resume(true);
    run_for(60000000, app_is_settled);
    app_check_settled();
}

/* When no fault happens any more the server answers whoever comes: with 101, or with 503. */
static void check_newcomers(void)
{
    rws__sim_options *settings = rws__sim_settings();
    memset(settings->chance, 0, sizeof settings->chance);
    memset(settings->fail_at, 0, sizeof settings->fail_at);
    trace("no more faults, and newcomers");
    for (uint32_t i = 0; i < 3 * world.server.config.shards; i++)
        raws_spawn_proper(true);
    run_for(60000000, app_is_settled);
    app_check_settled();
}

static void check_nothing_is_left(void)
{
    if (world.server_open > 0 || world.client_open > 0)
        fail("%u and %u connections had on_open, and no on_close", world.server_open,
             world.client_open);
    if (world.calls > 0) fail("%u calls that were posted were never run", world.calls);
    if (world.users > 0) fail("%" PRIu64 " contexts of requests were not released", world.users);
    for (const pair *own = world.pairs; own != NULL; own = own->next)
        if (own->dial_id != 0 && !own->client.closed && !own->client.failed)
            fail("dial %" PRIu64 " has no outcome", own->key);
}

/* A shard that has ended holds nothing, and every count says so. */
static void check_pools(const rws_runtime *runtime)
{
    for (uint32_t i = 0; i < runtime->config.shards; i++) {
        const rws__conns *conns = &runtime->workers[i].shard.conns;
        const rws__streams *streams = &conns->streams;
        if (streams->partial->charged_bytes > 0 || streams->stalled_bytes > 0 ||
            streams->send_slab.used_bytes > 0 || conns->request_bytes > 0)
            fail("a shard that has ended holds %zu bytes of messages, %zu of input that waits, "
                 "%zu of what is to be sent, %zu of requests",
                 streams->partial->charged_bytes, streams->stalled_bytes,
                 streams->send_slab.used_bytes, conns->request_bytes);
    }
}

static void end_world(void)
{
    if (world.server_is_up) {
        app_post_late();
        (void)rws__runtime_close(&world.server);
        app_post_late();
        rws__runtime_deinit(&world.server);
    }
    if (world.client_is_up) {
        (void)rws__runtime_close(&world.client);
        rws__runtime_deinit(&world.client);
    }
    check_nothing_is_left();
    free_pairs();
    if (atomic_load(&world.memory.live) > 0)
        fail("%zu blocks were not given back", (size_t)atomic_load(&world.memory.live));
    if (rws__sim_descriptors() > 0) fail("%u descriptors are open", rws__sim_descriptors());
    if (rws__sim_sockets() > 0) fail("%u sockets are left", rws__sim_sockets());
    note(rws__sim_now_us());
    note(rws__sim_digest());
    world_before_end();
    rws__sim_end();
}

static void run_to_the_end(void)
{
    uint64_t next_act_us = 0;
    raws_begin();
    for (uint32_t i = 0; i < world.plan->steps; i++)
        one_step(&next_act_us);
    if (!world.plan->stops_early) {
        settle();
        check_newcomers();
    }
    world.over = world.server_stopping = true;
    drain(&world.server, "server", server_has_ended);
    drain(&world.client, "client", client_has_ended);
    check_pools(&world.server);
    check_pools(&world.client);
    raws_finish(true);
}

void world_run(const plan *own, bool traced)
{
    memset(&world, 0, sizeof world);
    world.plan = own;
    world.trace = traced;
    world.random = own->seed ^ 0xA0761D6478BD642Fu;
    world.allocator = (rws_allocator){take_memory, test_allocator_release, &world.memory};
    rws__sim_start(&own->kernel);
    trace_plan();
    if (open_server() && open_client()) {
        list_shards(&world.server);
        list_shards(&world.client);
        run_to_the_end();
    }
    end_world();
}
