/*
 * Listening sockets and accepting. Each shard of a TCP server has its own listener in a
 * SO_REUSEPORT group; a unix socket has one listener, whose shard hands the connections round in
 * turn.
 *
 * A full table of descriptors would give -ENFILE, lose the accepted connection and end a multishot
 * accept, so accepting stops before: when the reserve is in use. It goes on when slots are free
 * again.
 */
#ifndef RINGWS_ENGINE_LISTENER_H
#define RINGWS_ENGINE_LISTENER_H

#include "engine/config.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>

/* Single accepts in flight where a multishot one can't bring the peer's address. */
#define RWS__ACCEPTS 16u

typedef struct rws__shard rws__shard;

typedef struct rws__accept_slot {
    struct sockaddr_storage address;
    socklen_t len;
    bool armed;
} rws__accept_slot;

typedef struct rws__listener {
    int fd; /* -1: this shard does not accept */
    sa_family_t family;
    bool loopback;   /* it listens on a loopback address: no peer comes through a network card */
    bool hand_round; /* ordinary descriptors, for all shards in turn */
    bool multishot_armed;
    bool cancelled; /* the cancel of what is armed was submitted */
    bool paused;    /* it may not accept, and that was counted */
    bool failing;   /* the last accept failed for want of a resource: wait for the timer */
    uint32_t next_shard;
    rws__accept_slot accepts[RWS__ACCEPTS];
} rws__listener;

/* Open the listeners of `count` shards into `fds` (one for a unix socket, the others -1) and report
 * the port. Any thread. */
int rws__listeners_open(const rws__config *config, int *fds, uint32_t count, uint16_t *port,
                        rws_error *error);

void rws__listener_init(rws__listener *listener, int fd);
/* Submit accepts if it may accept, cancel them if it may not. Called once per turn. */
void rws__listener_pump(rws__shard *shard);
void rws__listener_on_accept(rws__shard *shard, uint32_t slot, int32_t res, bool more);
/* Whether no accept is in flight. */
bool rws__listener_is_quiet(const rws__listener *listener);
/* Stop listening: what waits in the backlog is taken first. */
void rws__listener_finish(rws__shard *shard);

#endif
