/*
 * Outgoing connections: a dial is made on any thread and posted to a shard; there a socket is made,
 * put into the ring's table, connected, and then it is a connection like an accepted one, in the
 * client's role.
 */
#ifndef RINGWS_SERVER_DIALER_H
#define RINGWS_SERVER_DIALER_H

#include "engine/conn/conn.h"
#include "engine/server/sockets.h"

/* A dial on its way to its loop. */
typedef struct rws__dial_post {
    rws__dial *dial;
    rws__conns *conns;
} rws__dial_post;

/* Any thread: check the URL and the options' strings, resolve the host. The caller adds the id, the
 * filters and the socket's options. Errors as rws_client_dial(). */
int rws__dial_create(rws__dial **out, const rws__env *env, const rws__endpoint *endpoint,
                     const char *url, const rws_dial_options *options);

/* A mailbox function: start the dial on its loop. `post` is *taken*. */
void rws__dial_start(void *post, bool cancelled);

#endif
