/*
 * A run: a server and a client of the engine on one simulated kernel, peers without the engine, and
 * the scheduler that takes their turns. One thread; one world per process at a time.
 */
#ifndef RINGWS_TESTS_SIMULATOR_WORLD_H
#define RINGWS_TESTS_SIMULATOR_WORLD_H

#include "engine/server/runtime.h"
#include "simulator/pair.h"
#include "simulator/plan.h"
#include "support/test_allocator.h"

typedef struct shard_turns {
    rws__shard *shard;
    uint32_t idle_turns; /* in a row, that neither slept nor got something done */
    uint64_t work;       /* done so far, in whatever unit */
} shard_turns;

#define WORLD_SHARDS 8u

struct world {
    const plan *plan;
    bool trace;
    uint64_t random;
    rws_runtime server, client;
    bool server_is_up, client_is_up;
    bool over;            /* no more is begun */
    bool server_stopping; /* its end was asked for */
    rws__endpoint *client_endpoint;
    shard_turns shards[WORLD_SHARDS];
    uint32_t shards_count;
    test_allocator memory;
    rws_allocator allocator;
    pair *pairs; /* all of the run */
    uint64_t keys;
    uint32_t clients; /* dialled and not ended */
    uint32_t broadcasts;
    uint32_t server_open, client_open; /* on_open without on_close */
    uint64_t users;                    /* contexts that were not released */
    uint32_t calls;                    /* posted and not run */
    bool in_call;                      /* of a program into the engine */
    /* what was done */
    uint64_t step, turns, messages, opened, dial_errors;
    uint64_t hash; /* of everything that happened: the same seed, the same hash */
};

extern struct world world;

/* Say what is wrong, with step and time, and abort. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
void trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Something happened that has to happen again when the seed is run again. */
void note(uint64_t what);

/* A random number below `bound`, of the simulator's own stream. */
static inline uint64_t below(uint64_t bound)
{
    return plan_below(&world.random, bound);
}
static inline bool one_in(uint64_t count)
{
    return below(count) == 0;
}

/* Whether something may happen to a connection for which no end of it is to blame. */
bool world_is_rough(void);
/* Whether there may be no memory for one. */
bool world_is_short_of_memory(void);
/* Whether a drain has the time to end everything. */
bool world_is_swift(void);

/* Whether the kernel tells the server what is acknowledged. Where it does not, a side that has
 * closed waits for linger_timeout_ms, and resets a peer that had not taken everything by then. */
bool world_kernel_tells(void);
/* How late a deadline may be met: ticks, and what the plan makes late. */
uint64_t world_slack_us(void);

pair *world_new_pair(void);
/* What a request calls it; one that got damaged on the way names nobody. */
uint64_t pair_name(const pair *own);
pair *world_find_pair(uint64_t name);

/* Run a plan to its end. Returns only if nothing was wrong. */
void world_run(const plan *own, bool traced);

/* The caller's: the run is over, and its kernel still there. */
void world_before_end(void);

/* app.c: what the programs on both sides do. */
extern const rws_handler server_handler, server_handler_of_controls, client_handler;
/* rws_conn_abort() and rws_conn_close(), in which no on_close may come. */
void app_abort(rws_conn *conn);
void app_close(pair *own, pair_end *side, uint16_t code, const char *reason);

/* act.c: what they do by themselves. */
/* One thing that a program does by itself: a post from another thread, a dial, a burst. */
void app_act(void);
/* Posts to a server that has ended: they are cancelled, or refused. */
void app_post_late(void);
/* The connections that were paused go on; `all`: also those whose time has not come. */
void app_resume(bool all);
uint64_t app_next_us(void);
/* Everything that was sent has arrived, of the pairs that are open on both sides. */
bool app_is_settled(void);
void app_check_settled(void);

/* raw.c: peers without the engine. */
void raws_begin(void);
/* One more, if there is room. */
void raws_spawn(void);
/* A proper one, beyond what the plan says; `newcomer`: no fault happens any more. */
void raws_spawn_proper(bool newcomer);
/* All that are due do something. Returns whether one did. */
bool raws_act(void);
uint64_t raws_next_us(void);
/* Those that do what they should hurry up and end; the others too if `all`. */
void raws_finish(bool all);
uint32_t raws_alive(bool honest_only);

#endif
