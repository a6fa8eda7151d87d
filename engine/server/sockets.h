/*
 * The listeners of a configuration: opened for all shards, with a sentence for what goes wrong.
 */
#ifndef RINGWS_SERVER_SOCKETS_H
#define RINGWS_SERVER_SOCKETS_H

#include "engine/base/env.h"
#include "engine/ring/sockets.h"

typedef struct rws__listener_config {
    char *address; /* NULL for a unix socket, and an inherited one */
    uint16_t port;
    char *unix_path;            /* or NULL */
    rws__socket_file unix_file; /* what is there once it is open */
    bool inherited; /* somebody else opened it: one for all shards, and its file stays */
    uint32_t backlog;
    bool peer_address; /* accepts bring the peer's address where it can't be asked for later */
    rws__socket_options socket;
    /* Of the streams that it accepts: the place of TLS and PROXY; or NULL. Dials have others. */
    const struct rws__filter_maker *filters;
} rws__listener_config;

/* Open the listeners of `count` shards into `fds` (one for a unix socket, the others -1) and report
 * the port, and in `config` the file of a unix socket. Any thread. */
int rws__listeners_open(rws__listener_config *config, int *fds, uint32_t count, uint16_t *port,
                        rws_error *error);

/* Check a socket that somebody else opened, set the options on it, and report the port; 0: it is
 * not TCP. Nothing is taken. Any thread. */
int rws__listener_inherit(const rws__listener_config *config, int fd, uint16_t *port,
                          rws_error *error);

#endif
