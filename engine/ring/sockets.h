/*
 * Sockets that are not, or not yet, in a ring's table; a part of the ring seam: listeners are
 * opened, dialled ones are made, accepted ones are looked at, turned away and closed. The calls are
 * done when they return, and wait for nobody, but that an address which is still in use for a
 * moment is tried again for a second.
 *
 * A socket is a descriptor, which rws__ring_accept_…() and rws__ring_install() take as well. Any
 * thread.
 */
#ifndef RINGWS_RING_SOCKETS_H
#define RINGWS_RING_SOCKETS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

/* What accepted sockets inherit from their listener, and dialled ones get. */
typedef struct rws__socket_options {
    int send_buffer_bytes;    /* SO_SNDBUF; 0: the kernel's */
    uint32_t keepalive_s;     /* idle seconds before the first probe; 0: no keep-alive */
    uint32_t user_timeout_ms; /* TCP_USER_TIMEOUT; 0: the kernel's */
} rws__socket_options;

typedef struct rws__socket_address {
    struct sockaddr_storage storage;
    socklen_t len;
} rws__socket_address;

/* Which file a path named when a unix socket was bound there; zeroes: none that is known. As long
 * as that socket is open no other file gets the same numbers. */
typedef struct rws__socket_file {
    dev_t device;
    ino_t inode;
} rws__socket_file;

/* ---- listeners: a descriptor, or -errno ---- */

/* One TCP listener of a group that shares `address`; the kernel shares out what comes. The first is
 * refused if anybody else listens there. */
int rws__socket_listen(const struct sockaddr *address, socklen_t len, bool first, uint32_t backlog,
                       const rws__socket_options *options);
/* A unix socket at `path`, which is not empty and fits an address; a socket there that nobody
 * listens on is removed. `file` receives what rws__socket_unlink() takes. */
int rws__socket_listen_unix(const char *path, uint32_t backlog, const rws__socket_options *options,
                            rws__socket_file *file);
/* One that somebody else opened. Whether it is a stream socket that listens: 0 or -errno. */
int rws__socket_check_listening(int fd);
/* Make it one that the ring can accept from, with these options. Returns 0 or -errno. */
int rws__socket_inherit(int fd, const rws__socket_options *options);

/* From now on rws__socket_accept() does not wait. No accept of the ring is in flight. Returns 0 or
 * -errno: it would wait. */
int rws__socket_stop_waiting(int listener);
/* Take the connection that waits longest, or -errno (-EAGAIN: none does). */
int rws__socket_accept(int listener);
/* Remove the file of a unix socket that is still open. What is at `path` by now may be another
 * server's: that stays. */
void rws__socket_unlink(const char *path, const rws__socket_file *file);

/* ---- others ---- */

/* A socket to dial with, or -errno. */
int rws__socket_make(sa_family_t family, const rws__socket_options *options);
/* The addresses of a host, a name or a number, with a port: at most `max` (not 0), the preferred
 * one first. Returns their number or RWS_E_ADDRESS. May wait for a name server. */
int rws__socket_resolve(const char *host, uint16_t port, rws__socket_address *addresses,
                        uint32_t max);

/* The address that it is bound to, and the peer's. Returns 0 or -errno. */
int rws__socket_local(int fd, struct sockaddr_storage *address);
int rws__socket_peer(int fd, struct sockaddr_storage *address);

/* Send `len` bytes as far as they fit (0: none), end the sending half, and close. */
void rws__socket_turn_away(int fd, const void *data, size_t len);
void rws__socket_close(int fd);

#endif
