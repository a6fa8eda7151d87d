/*
 * A runtime: shards and their threads, the endpoints and the listeners. This is what rws_server and
 * rws_client are made of.
 *
 * Invariants:
 * - Endpoints and listeners are added before it is started, and do not change or move after that.
 * - Listeners have the same index in the runtime and in each shard.
 */
#ifndef RINGWS_SERVER_RUNTIME_H
#define RINGWS_SERVER_RUNTIME_H

#include "engine/server/options.h"
#include "engine/server/shard.h"

#include <pthread.h>
#include <stdatomic.h>

typedef struct rws__worker {
    rws__shard shard;
    rws_runtime *runtime;
    pthread_t thread;
    bool has_thread;
    int result;
} rws__worker;

/* A listener of all shards. */
typedef struct rws__listening {
    rws__listener_config config;
    rws__http_rules http;
    uint16_t port;
    uint32_t next_shard; /* of the shard that accepts for all */
    bool own_endpoints;  /* the caller named them */
} rws__listening;

/* Who may join the threads. */
typedef enum rws__start_state {
    RWS__NOT_STARTED = 0,
    RWS__STARTED,    /* nobody else: rws__runtime_start() has not returned, or another started it */
    RWS__TO_WAIT_FOR /* rws__runtime_start() has returned: rws__runtime_wait() */
} rws__start_state;

struct rws_runtime {
    rws__runtime_config config;
    rws__worker *workers;            /* config.shards of them */
    const rws__endpoint **endpoints; /* owned, made by rws__endpoint_make() */
    uint32_t endpoints_count;
    rws__listening listeners[RWS__LISTENERS_MAX];
    uint32_t listeners_count;
    const rws__filter_maker *dial_filters; /* of dials; or NULL */
    atomic_uint next_shard;                /* dials take turns */
    _Atomic uint64_t next_dial;

    pthread_mutex_t lock; /* guards `start`, `reported` and `first_error` */
    pthread_cond_t changed;
    rws__start_state start;
    uint32_t reported; /* shards that are up or have failed to start */
    rws_error first_error;
    bool waited; /* of the thread that waits, as is `result` */
    int result;
};

/* What a server (`role`) and a client are made of, in memory of its own: options are checked, and
 * whether the kernel has what is needed. */
int rws__runtime_make(rws_runtime **out, const rws_runtime_options *options, rws_role role,
                      rws_error *error);
/* Stop it, wait if it was started, and free all of it. `runtime` may be NULL. */
void rws__runtime_end(rws_runtime *runtime);

/* Takes `config` over. On failure everything is freed. */
int rws__runtime_init(rws_runtime *runtime, const rws__runtime_config *config, rws_error *error);
void rws__runtime_deinit(rws_runtime *runtime);

/* `role` and errors as in rws__endpoint_make(). */
int rws__runtime_add_endpoint(rws_runtime *runtime, const rws_endpoint_options *options,
                              const rws_role *role, rws__endpoint **out, rws_error *error);
int rws__runtime_listen(rws_runtime *runtime, const rws_listener_options *options,
                        rws_error *error);
/* Make the lists of endpoints of the listeners. Returns 0, or what is missing. */
int rws__runtime_arrange(rws_runtime *runtime, rws_error *error);

int rws__runtime_run(rws_runtime *runtime, rws_error *error);
int rws__runtime_start(rws_runtime *runtime, rws_error *error);
void rws__runtime_stop(rws_runtime *runtime);
int rws__runtime_wait(rws_runtime *runtime);

/* Without threads: make the rings of all shards on the calling thread, which then takes turns of
 * any shard in any order (rws__shard_turn()), and destroy them there, ended or not. A shard that
 * can't go on does not stop the others: that is up to the caller. Open returns 0, or with all
 * shards closed an error as rws__runtime_start(); close returns as rws__runtime_wait(). */
int rws__runtime_open(rws_runtime *runtime, rws_error *error);
int rws__runtime_close(rws_runtime *runtime);

void rws__runtime_stats(const rws_runtime *runtime, rws_stats *stats);

int rws__runtime_dial(rws_runtime *runtime, const rws__endpoint *endpoint, const char *url,
                      const rws_dial_options *options, uint64_t *dial_id, rws_error *error);
int rws__runtime_cancel(rws_runtime *runtime, uint64_t dial_id);

#endif
