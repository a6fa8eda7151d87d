/*
 * Sockets, before a ring has them: listeners are opened, dialled ones are made and set up.
 */
#ifndef RINGWS_SERVER_SOCKETS_H
#define RINGWS_SERVER_SOCKETS_H

#include "engine/base/env.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/* What accepted sockets inherit from their listener, and dialled ones get. */
typedef struct rws__socket_options {
    int send_buffer_bytes;    /* SO_SNDBUF; 0: the kernel's */
    uint32_t keepalive_s;     /* idle seconds before the first probe; 0: no keep-alive */
    uint32_t user_timeout_ms; /* TCP_USER_TIMEOUT; 0: the kernel's */
} rws__socket_options;

typedef struct rws__listener_config {
    char *address; /* NULL for a unix socket, and an inherited one */
    uint16_t port;
    char *unix_path; /* or NULL */
    bool inherited;  /* somebody else opened it: one for all shards, and its file stays */
    uint32_t backlog;
    bool peer_address; /* accepts bring the peer's address where it can't be asked for later */
    rws__socket_options socket;
    /* Of the streams that it accepts: the place of TLS and PROXY; or NULL. Dials have others. */
    const struct rws__filter_maker *filters;
} rws__listener_config;

/* Open the listeners of `count` shards into `fds` (one for a unix socket, the others -1) and report
 * the port. Any thread. */
int rws__listeners_open(const rws__listener_config *config, int *fds, uint32_t count,
                        uint16_t *port, rws_error *error);

/* Check a socket that somebody else opened, set the options on it, and report the port; 0: it is
 * not TCP. Nothing is taken. Any thread. */
int rws__listener_inherit(const rws__listener_config *config, int fd, uint16_t *port,
                          rws_error *error);

/* A socket to dial with, or -errno. Any thread. */
int rws__socket_make(sa_family_t family, const rws__socket_options *options);

#endif
