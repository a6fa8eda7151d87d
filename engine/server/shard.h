/*
 * A shard: one loop, its connections and its listener. Nothing here is shared with other shards;
 * other threads speak to it through its mailbox, its stop flag and its counters.
 */
#ifndef RINGWS_SERVER_SHARD_H
#define RINGWS_SERVER_SHARD_H

#include "engine/server/config.h"
#include "engine/server/listener.h"

typedef struct rws__shard {
    rws__loop loop; /* first: the loop leads to its shard */
    rws__conns conns;
    rws__listener listener;
    const rws__config *config;
    uint32_t index;
    rws__timer drain_timer;
    uint64_t discarded_before; /* bytes_discarded when the drain began */
} rws__shard;

/* Make what does not need the loop's thread (memory, mailbox). `listener_fd` is *taken*; -1: it
 * does not accept. Any thread. */
int rws__shard_init(rws__shard *shard, const rws__config *config, uint32_t index, int listener_fd,
                    rws_error *error);
void rws__shard_deinit(rws__shard *shard);

/* On the loop's thread: make the ring. Nothing is accepted before rws__shard_run(). */
int rws__shard_open(rws__shard *shard, rws_error *error);
/* Run until stopped and drained. Returns 0, RWS_E_TIMEOUT (the drain cut some off, or discarded
 * bytes) or -errno. */
int rws__shard_run(rws__shard *shard);
void rws__shard_close(rws__shard *shard);

#endif
