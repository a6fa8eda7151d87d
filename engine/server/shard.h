/*
 * A shard: one loop, its connections and its listeners. Nothing here is shared with other shards;
 * other threads speak to it through its mailbox, its stop flag and its counters.
 */
#ifndef RINGWS_SERVER_SHARD_H
#define RINGWS_SERVER_SHARD_H

#include "engine/server/listener.h"
#include "engine/server/options.h"

#define RWS__LISTENERS_MAX 16u

typedef struct rws__shard {
    rws__loop loop; /* first: the loop leads to its shard */
    rws__conns conns;
    rws__listener listeners[RWS__LISTENERS_MAX];
    uint32_t listeners_count;
    rws__accepting accepting;
    uint32_t
        listeners_rest; /* up to so many slots in use nothing is to be done for them; 0: look */
    const rws__runtime_config *config;
    rws__timer drain_timer;
    uint64_t discarded_before; /* bytes_discarded when the drain began */
    bool ended;                /* drained, or for `error`: known at the end of a turn */
    int error;                 /* what its loop can't go on for; 0: it can */
} rws__shard;

/* Make what does not need the loop's thread (memory, mailbox). Any thread. */
int rws__shard_init(rws__shard *shard, const rws__runtime_config *config, uint32_t index,
                    rws_error *error);
/* `fd` is *taken*; -1: this shard does not accept there. Before it runs. */
rws__listener *rws__shard_add_listener(rws__shard *shard, int fd,
                                       const rws__listener_config *config,
                                       const rws__http_rules *http);
/* After rws__shard_close(), if it was opened. Zeroed memory is fine too. Any thread, when the
 * loop's has ended. */
void rws__shard_deinit(rws__shard *shard);

/* On the loop's thread: make the ring. Nothing is accepted before the first turn. */
int rws__shard_open(rws__shard *shard, rws_error *error);
/* One turn of its loop (rws__loop_turn()), not after its end. Returns as that; with a negative
 * result it has ended. */
int rws__shard_turn(rws__shard *shard, bool may_wait);
/* Whether it was stopped and is drained, or its loop can't go on. */
bool rws__shard_has_ended(const rws__shard *shard);
/* Of one that has ended: 0, RWS_E_TIMEOUT (the drain cut some off, or discarded bytes) or -errno of
 * the loop. */
int rws__shard_result(const rws__shard *shard);
/* Turns until its end; returns its result. */
int rws__shard_run(rws__shard *shard);
/* On the loop's thread, also after rws__shard_open() has failed: cancel the posts that wait, tell
 * the connections that are left, and destroy the ring. Before rws__shard_deinit(). */
void rws__shard_close(rws__shard *shard);

#endif
