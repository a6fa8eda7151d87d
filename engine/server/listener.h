/*
 * Accepting on a loop. Each shard of a TCP server has its own listener in a SO_REUSEPORT group; a
 * unix socket has one listener, whose shard hands the connections round in turn.
 *
 * A full table of descriptors would give -ENFILE, lose the accepted connection and end a multishot
 * accept, so accepting stops before: when the reserve is in use. It goes on when slots are free
 * again.
 */
#ifndef RINGWS_SERVER_LISTENER_H
#define RINGWS_SERVER_LISTENER_H

#include "engine/conn/conn.h"
#include "engine/server/sockets.h"

/* Single accepts in flight where a multishot one can't bring the peer's address; all listeners
 * together have no more than the reserve has slots. */
#define RWS__ACCEPTS 16u
/* In an operation's slot: these bits are the accept, those above them the listener's index. */
#define RWS__ACCEPT_SLOT_BITS 8

typedef struct rws__accept_slot {
    struct sockaddr_storage address;
    socklen_t len;
    bool armed;
} rws__accept_slot;

/* What the listeners of a shard that accept have together: each of their accepts in flight may take
 * one of the same slots. */
typedef struct rws__accepting {
    uint32_t listeners;
    uint32_t backlogs; /* of those that accept into the table: the sum */
    uint32_t armed;    /* single accepts in flight */
} rws__accepting;

typedef struct rws__listener {
    uint32_t index; /* in its shard */
    rws__accepting *all;
    rws__conns *conns; /* where its connections go */
    const rws__listener_config *config;
    const rws__http_rules *http;
    int fd; /* -1: this shard does not accept */
    sa_family_t family;
    bool loopback; /* it listens on a loopback address: no peer comes through a network card */
    bool multishot_armed;
    bool cancelled; /* the cancel of what is armed was submitted */
    bool paused;    /* it may not accept, and that was counted */
    bool failing;   /* the last accept failed for want of a resource: wait for the timer */
    /* Where accepted descriptors (*taken*) go, for all shards in turn; NULL: to this one. */
    void (*hand_round)(struct rws__listener *listener, int fd);
    void *hand_round_to;
    rws__timer timer; /* SHARD: a failing accept is tried again */
    rws__accept_slot accepts[RWS__ACCEPTS];
} rws__listener;

/* `fd` is *taken*; -1: it does not accept. The rest is borrowed for good. Before anything is
 * accepted. */
void rws__listener_init(rws__listener *listener, uint32_t index, int fd, rws__accepting *all,
                        rws__conns *conns, const rws__listener_config *config,
                        const rws__http_rules *http);
/* Submit accepts if it may accept, cancel them if it may not. Called once per turn. */
void rws__listener_pump(rws__listener *listener);
/* How many free slots it needs to go on as it is; UINT32_MAX: it is to be pumped again. */
uint32_t rws__listener_room(const rws__listener *listener);
void rws__listener_on_accept(rws__listener *listener, const rws__cqe *cqe);
/* An accepted ordinary descriptor (*taken*): it is put into the table first. */
void rws__listener_adopt(rws__listener *listener, int fd);
/* There is not even a slot of the reserve, or no shard: say so, without waiting for anything, and
 * close `fd`. */
void rws__listener_turn_away(const rws__listener *listener, int fd);
void rws__listener_on_deadline(rws__listener *listener);
/* Whether no accept is in flight. */
bool rws__listener_is_quiet(const rws__listener *listener);
/* Stop listening: what waits in the backlog is taken first, and answered; but an inherited socket
 * leaves it to the next who serves it. */
void rws__listener_finish(rws__listener *listener);

#endif
