#include "simulator/plan.h"

#include "engine/base/features.h"

#include <stdio.h>
#include <string.h>

uint64_t plan_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

uint64_t plan_below(uint64_t *state, uint64_t bound)
{
    return plan_random(state) % bound;
}

#define PICK(state, ...)                                                                           \
    ((const uint64_t[]){__VA_ARGS__})[plan_below(state, sizeof((const uint64_t[]){__VA_ARGS__}) /  \
                                                            sizeof(uint64_t))]

/* ---- faults ---- */

/* How often each class may happen at most, of 65536: those that end connections are seldom. */
static const uint32_t chance_max[RWS__SIM_FAULTS] = {
    [RWS__SIM_DELAY] = 65536,         [RWS__SIM_SHORT_SEND] = 30000,
    [RWS__SIM_SHORT_RECV] = 30000,    [RWS__SIM_NO_BUFFER] = 8000,
    [RWS__SIM_MULTISHOT_END] = 8000,  [RWS__SIM_REORDER] = 30000,
    [RWS__SIM_LATE] = 20000,          [RWS__SIM_SQ_FULL] = 3000,
    [RWS__SIM_SUBMIT_PART] = 20000,   [RWS__SIM_CQ_FULL] = 3000,
    [RWS__SIM_CANCEL_LOSES] = 65536,  [RWS__SIM_ZC_REFUSED] = 8000,
    [RWS__SIM_ZC_COPIED] = 8000,      [RWS__SIM_ZC_LATE] = 65536,
    [RWS__SIM_REGISTER] = 20000,      [RWS__SIM_CONNECT_REFUSED] = 6000,
    [RWS__SIM_CONNECT_SILENT] = 3000, [RWS__SIM_RESET] = 60,
    [RWS__SIM_NO_FILE] = 3000,        [RWS__SIM_NO_DESCRIPTOR] = 3000,
    [RWS__SIM_ACCEPT_ABORTED] = 4000, [RWS__SIM_SLOW_TURN] = 6000,
    [RWS__SIM_NO_MEMORY] = 300,
};

static void draw_faults(rws__sim_options *kernel, uint64_t *state)
{
    /* Some runs have none, most have a few classes. */
    uint64_t likely = PICK(state, 0, 10, 30, 60);
    for (int fault = 0; fault < RWS__SIM_FAULTS; fault++) {
        bool on = plan_below(state, 100) < likely;
        uint64_t chance = 1 + plan_below(state, chance_max[fault]);
        kernel->chance[fault] = on ? (uint32_t)(chance >> PICK(state, 0, 0, 2, 4)) : 0;
    }
    kernel->delay_us_max = PICK(state, 50, 1000, 20000, 200000);
    kernel->late_us_max = PICK(state, 10, 1000, 20000);
    kernel->slow_us_max = PICK(state, 10, 1000, 5000);
}

/* ---- what the program chooses ---- */

static void draw_features(plan *out, uint64_t *state)
{
    uint64_t kind = plan_below(state, 4);
    uint32_t off = 0;
    if (kind == 1) off = RWS__FEATURE_ALL;
    if (kind > 1) off = (uint32_t)plan_random(state) & (uint32_t)plan_random(state);
    rws__features_write(off & RWS__FEATURE_ALL, out->features_off, sizeof out->features_off);
}

static void draw_runtime(rws_runtime_options *options, uint64_t *state)
{
    options->connections_max = (uint32_t)PICK(state, 4, 16, 64);
    options->recv_buffer_bytes = PICK(state, 0, 512, 4096, 32768);
    options->recv_buffers = (uint32_t)PICK(state, 0, 1, 2, 8, 32);
    options->send_timeout_ms = (uint32_t)PICK(state, 0, 0, 5000);
    options->linger_timeout_ms = (uint32_t)PICK(state, 0, 1000);
    options->drain_timeout_ms = (uint32_t)PICK(state, 0, 2000, 20000);
    options->retained_bytes_max = PICK(state, 0, 4096);
}

static void draw_endpoint(rws_endpoint_options *options, uint64_t *state, uint64_t message_max)
{
    options->message_bytes_max = message_max;
    options->high_watermark_bytes = PICK(state, 0, 0, 1000, 20000);
    options->message_timeout_ms = (uint32_t)PICK(state, 0, 10000);
    options->close_timeout_ms = (uint32_t)PICK(state, 0, 2000);
}

static void draw_pools(plan *out, uint64_t *state)
{
    out->small_pools = plan_below(state, 4) == 0;
    if (!out->small_pools) return;
    out->server.partial_bytes_max = PICK(state, 400000, 1000000);
    out->server.send_pool_bytes_max = PICK(state, 600000, 2000000);
}

static void begin(plan *out, uint64_t seed)
{
    memset(out, 0, sizeof *out);
    out->seed = seed;
    out->kernel = rws__sim_defaults;
    out->kernel.seed = seed;
    out->server = out->client = (rws_runtime_options)RWS_RUNTIME_OPTIONS_DEFAULT;
    out->server_endpoint = out->client_endpoint =
        (rws_endpoint_options)RWS_ENDPOINT_OPTIONS_DEFAULT;
    out->listener = (rws_listener_options)RWS_LISTENER_OPTIONS_DEFAULT;
    out->listener.port = 0;
    out->host = "10.0.0.1";
    out->large_one_in = 12;
    out->server.features_off = out->client.features_off = out->features_off;
}

void plan_make(plan *out, uint64_t seed)
{
    uint64_t state = seed * 0x2545F4914F6CDD1Du + 1;
    begin(out, seed);
    out->steps = (uint32_t)PICK(&state, 500, 3000, 3000, 15000);
    out->clients = (uint32_t)plan_below(&state, 12);
    out->raws = (uint32_t)plan_below(&state, 12);
    out->stops_early = plan_below(&state, 3) == 0;
    out->over_unix = plan_below(&state, 6) == 0;
    out->host = plan_below(&state, 3) == 0 ? "127.0.0.1" : "10.0.0.1";
    out->message_max = (uint32_t)PICK(&state, 300, 5000, 65536, 200000, 200000);
    if (out->message_max == 200000 && plan_below(&state, 2) == 0) {
        out->message_max = 900000;
        out->large_one_in = 2;
        out->steps /= 3;
    }
    out->filtered = plan_below(&state, 6) == 0;
    if (out->filtered) out->raws = 0;
    out->controls = plan_below(&state, 3) == 0;
    draw_faults(&out->kernel, &state);
    out->kernel.poison = true;
    out->kernel.send_buffer_bytes = PICK(&state, 2000, 20000, 262144);
    out->kernel.recv_buffer_bytes = PICK(&state, 1000, 20000, 131072);
    /* Large messages over a narrow way would take longer than the run. */
    if (out->message_max >= 65536) {
        rws__sim_options *kernel = &out->kernel;
        if (kernel->send_buffer_bytes < 20000) kernel->send_buffer_bytes = 20000;
        if (kernel->recv_buffer_bytes < 20000) kernel->recv_buffer_bytes = 20000;
        uint64_t most_us = out->message_max > 65536 ? 1000 : 20000;
        if (kernel->delay_us_max > most_us) kernel->delay_us_max = most_us;
    }
    draw_features(out, &state);
    out->server.shards = 1 + (uint32_t)plan_below(&state, 3);
    out->client.shards = 1 + (uint32_t)plan_below(&state, 2);
    draw_runtime(&out->server, &state);
    draw_runtime(&out->client, &state);
    draw_endpoint(&out->server_endpoint, &state, out->message_max);
    draw_endpoint(&out->client_endpoint, &state, out->message_max);
    if (out->message_max < 900000) draw_pools(out, &state);
    out->listener.backlog = (uint32_t)PICK(&state, 0, 2, 8);
    out->listener.handshake_timeout_ms = (uint32_t)PICK(&state, 0, 3000);
    out->listener.no_peer_address = plan_below(&state, 2) == 0;
    out->listens_on_all = plan_below(&state, 3) == 0;
    /* No room for more than what stops the reading, so that a handler has to wait for on_drain. */
    size_t high = out->server_endpoint.high_watermark_bytes;
    if (high > 0 && plan_below(&state, 2) == 0)
        out->server_endpoint.send_queue_bytes_max = high < 1024 ? 1024 : high;
    /* Hardly anything is to be had. */
    if (plan_below(&state, 4) == 0) out->kernel.chance[RWS__SIM_NO_MEMORY] *= 16;
}

void plan_make_calm(plan *out, uint64_t scenario)
{
    begin(out, scenario);
    out->steps = 600;
    out->clients = out->raws = 3;
    out->message_max = 200000;
    out->large_one_in = 4;
    out->kernel.poison = true;
    out->kernel.delay_us_max = 1000;
    out->server.shards = 2;
    out->client.shards = 1;
    out->server.connections_max = out->client.connections_max = 16;
    out->server_endpoint.message_bytes_max = out->client_endpoint.message_bytes_max = 200000;
    out->over_unix = scenario == 3;
    if (scenario == 2) snprintf(out->features_off, sizeof out->features_off, "all");
}

void plan_make_busy(plan *out, uint64_t seed)
{
    begin(out, seed);
    out->busy = true;
    out->steps = 200000;
    out->clients = 16;
    out->message_max = 300;
    out->server.shards = 2;
    out->client.shards = 1;
    out->server.connections_max = out->client.connections_max = 64;
}
