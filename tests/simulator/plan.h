/*
 * What a run of the simulator is: everything that is drawn from its seed before it begins. A plan
 * can be cut down (fewer steps, fewer faults, fewer peers): that is how a failure is shrunk.
 */
#ifndef RINGWS_TESTS_SIMULATOR_PLAN_H
#define RINGWS_TESTS_SIMULATOR_PLAN_H

#include "engine/simulated/kernel.h"
#include "ringws/ringws.h"

typedef struct plan {
    uint64_t seed;
    uint32_t steps;   /* of the scheduler before the end begins */
    uint32_t clients; /* of the engine, at once */
    uint32_t raws;    /* peers without the engine, at once */
    bool busy;        /* a workload for speed: much traffic, no misbehaviour, no faults */
    bool stops_early; /* the server is stopped while there is traffic */
    bool over_unix;
    bool filtered; /* the toy filter on both sides, and no other peers */
    bool controls; /* the server has callbacks for control frames */
    bool listens_on_all;
    const char *host; /* zero copy is not tried on loopback */
    bool small_pools;
    rws__sim_options kernel;
    rws_runtime_options server, client;
    rws_endpoint_options server_endpoint, client_endpoint;
    rws_listener_options listener;
    char features_off[256];
    uint32_t message_max;  /* what the workload sends */
    uint32_t large_one_in; /* of so many messages one is large */
} plan;

/* splitmix64: the simulator's own stream. */
uint64_t plan_random(uint64_t *state);
uint64_t plan_below(uint64_t *state, uint64_t bound);

void plan_make(plan *out, uint64_t seed);
/* A short run without faults, for torture: 1 with the newest features, 2 with none, 3 over a unix
 * socket. */
#define CALM_SCENARIOS 3u
void plan_make_calm(plan *out, uint64_t scenario);
/* Much traffic, and nothing that goes wrong. */
void plan_make_busy(plan *out, uint64_t seed);

#endif
