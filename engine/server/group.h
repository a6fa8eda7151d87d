/*
 * The shards of one server or client, and their threads. This is what rws_server and rws_client are
 * made of.
 */
#ifndef RINGWS_SERVER_GROUP_H
#define RINGWS_SERVER_GROUP_H

#include "engine/server/config.h"
#include "engine/server/shard.h"

#include <pthread.h>
#include <stdatomic.h>

typedef struct rws__worker {
    rws__shard shard;
    struct rws__group *group;
    pthread_t thread;
    bool has_thread;
    int result;
} rws__worker;

typedef struct rws__group {
    rws__config config;
    rws__worker *workers;   /* config.shards of them */
    int *listener_fds;      /* owned until the shards have them; NULL for a client */
    atomic_uint next_shard; /* dials take turns */
    uint16_t port;

    pthread_mutex_t lock; /* guards `started`, `reported` and `first_error` */
    pthread_cond_t changed;
    bool started;
    uint32_t reported; /* shards that are up or have failed to start */
    rws_error first_error;
    bool waited; /* of the thread that waits, as is `result` */
    int result;
    uint32_t hand_round_next; /* of the shard that accepts on a unix socket */
} rws__group;

/* Takes `config` over, also on failure. `listener_fds` (config.shards of them, or NULL) is taken
 * over likewise. */
int rws__group_init(rws__group *group, rws__config *config, int *listener_fds, rws_error *error);
void rws__group_deinit(rws__group *group);

int rws__group_run(rws__group *group, rws_error *error);
int rws__group_start(rws__group *group, rws_error *error);
void rws__group_stop(rws__group *group);
int rws__group_wait(rws__group *group);
void rws__group_stats(const rws__group *group, rws_stats *stats);
int rws__group_post(rws__group *group, uint32_t shard, rws__post_fn fn, void *arg);

#endif
