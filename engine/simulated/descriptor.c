/*
 * Descriptors: the sockets of engine/ring/sockets.h, and those of the outside world.
 */
#include "engine/simulated/internal.h"

#include "ringws/types.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

/* Those of the real kernel are far below. */
#define FIRST_DESCRIPTOR 1000000

int rws__sim_descriptor_make(rws__sim_socket *socket)
{
    rws__sim_kernel *own = rws__sim();
    uint32_t place = 0;
    while (place < own->descriptors_max && own->descriptors[place] != NULL)
        place++;
    if (own->descriptors_used >= own->options.descriptors_max ||
        rws__sim_fails(RWS__SIM_NO_DESCRIPTOR)) {
        rws__sim_socket_drop(socket);
        return -EMFILE;
    }
    if (place == own->descriptors_max) {
        own->descriptors_max = own->descriptors_max > 0 ? own->descriptors_max * 2 : 64;
        own->descriptors =
            realloc(own->descriptors, own->descriptors_max * sizeof(rws__sim_socket *));
        if (own->descriptors == NULL) abort();
        for (uint32_t i = place; i < own->descriptors_max; i++)
            own->descriptors[i] = NULL;
    }
    own->descriptors[place] = socket;
    own->descriptors_used++;
    return FIRST_DESCRIPTOR + (int)place;
}

rws__sim_socket *rws__sim_descriptor(int fd)
{
    const rws__sim_kernel *own = rws__sim();
    if (fd < FIRST_DESCRIPTOR || (uint32_t)(fd - FIRST_DESCRIPTOR) >= own->descriptors_max)
        return NULL;
    return own->descriptors[fd - FIRST_DESCRIPTOR];
}

static rws__sim_socket *need(int fd)
{
    rws__sim_socket *socket = rws__sim_descriptor(fd);
    if (socket == NULL) rws__sim_breach("descriptor %d is not in use", fd);
    return socket;
}

/* ---- engine/ring/sockets.h ---- */

static int listen_on(const struct sockaddr *address, socklen_t len, bool first, uint32_t backlog,
                     const rws__socket_options *options, rws__socket_file *file)
{
    rws__sim_socket *socket = rws__sim_socket_make(address->sa_family, options);
    int res = rws__sim_socket_listen(socket, address, len, first, backlog);
    if (res != 0) {
        rws__sim_socket_drop(socket);
        return res;
    }
    if (file != NULL) {
        socket->file = (rws__socket_file){.device = 1, .inode = ++rws__sim()->next_inode};
        *file = socket->file;
    }
    return rws__sim_descriptor_make(socket);
}

int rws__socket_listen(const struct sockaddr *address, socklen_t len, bool first, uint32_t backlog,
                       const rws__socket_options *options)
{
    return listen_on(address, len, first, backlog, options, NULL);
}

int rws__socket_listen_unix(const char *path, uint32_t backlog, const rws__socket_options *options,
                            rws__socket_file *file)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    *file = (rws__socket_file){0};
    memcpy(address.sun_path, path, strlen(path) + 1);
    return listen_on((struct sockaddr *)&address, sizeof address, true, backlog, options, file);
}

int rws__socket_check_listening(int fd)
{
    const rws__sim_socket *socket = rws__sim_descriptor(fd);
    if (socket == NULL) return -EBADF;
    return socket->state == RWS__SIM_LISTENING ? 0 : -EINVAL;
}

int rws__socket_inherit(int fd, const rws__socket_options *options)
{
    rws__sim_socket *socket = rws__sim_descriptor(fd);
    if (socket == NULL) return -EBADF;
    if (options->send_buffer_bytes > 0) socket->send_buffer = (size_t)options->send_buffer_bytes;
    return 0;
}

int rws__socket_stop_waiting(int listener)
{
    (void)need(listener);
    return 0;
}

int rws__socket_accept(int listener)
{
    rws__sim_socket *side = rws__sim_socket_accept(need(listener));
    return side != NULL ? rws__sim_descriptor_make(side) : -EAGAIN;
}

/* The path leads to nobody from now on, while the socket listens on. */
void rws__socket_unlink(const char *path, const rws__socket_file *file)
{
    for (rws__sim_socket *at = rws__sim()->listening; at != NULL; at = at->next_listening) {
        struct sockaddr_un *local = (struct sockaddr_un *)&at->local;
        if (local->sun_family == AF_UNIX && at->file.inode == file->inode &&
            strcmp(local->sun_path, path) == 0)
            local->sun_path[0] = '\0';
    }
}

int rws__socket_make(sa_family_t family, const rws__socket_options *options)
{
    return rws__sim_descriptor_make(rws__sim_socket_make(family, options));
}

static bool parse(const char *host, uint16_t port, rws__socket_address *address)
{
    struct sockaddr_in *in = (struct sockaddr_in *)&address->storage;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&address->storage;
    memset(address, 0, sizeof *address);
    if (strcmp(host, "localhost") == 0) host = "127.0.0.1";
    if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
        in->sin_family = AF_INET;
        address->len = sizeof *in;
    } else if (inet_pton(AF_INET6, host, &in6->sin6_addr) == 1) {
        in6->sin6_family = AF_INET6;
        address->len = sizeof *in6;
    } else {
        return false;
    }
    in->sin_port = htons(port);
    return true;
}

/* Numbers and "localhost". */
int rws__socket_resolve(const char *host, uint16_t port, rws__socket_address *addresses,
                        uint32_t max)
{
    (void)max;
    return parse(host, port, addresses) ? 1 : RWS_E_ADDRESS;
}

int rws__socket_local(int fd, struct sockaddr_storage *address)
{
    const rws__sim_socket *socket = rws__sim_descriptor(fd);
    if (socket == NULL) return -EBADF;
    *address = socket->local;
    return 0;
}

int rws__socket_peer(int fd, struct sockaddr_storage *address)
{
    const rws__sim_socket *socket = rws__sim_descriptor(fd);
    if (socket == NULL) return -EBADF;
    if (socket->state != RWS__SIM_CONNECTED) return -ENOTCONN;
    *address = socket->peer;
    return 0;
}

void rws__socket_turn_away(int fd, const void *data, size_t len)
{
    rws__sim_socket *socket = need(fd);
    if (len > 0) (void)rws__sim_socket_send(socket, data, len);
    (void)rws__sim_socket_shutdown(socket);
    rws__socket_close(fd);
}

void rws__socket_close(int fd)
{
    rws__sim_socket *socket = need(fd);
    rws__sim()->descriptors[fd - FIRST_DESCRIPTOR] = NULL;
    rws__sim()->descriptors_used--;
    rws__sim_socket_drop(socket);
}

/* ---- the outside world ---- */

int rws__sim_connect(const struct sockaddr *address, socklen_t len)
{
    rws__sim_socket *socket = rws__sim_socket_make(address->sa_family, NULL);
    int fd = rws__sim_descriptor_make(socket);
    if (fd < 0) return fd;
    int res = rws__sim_socket_connect(socket, address, len);
    if (res != 0 && res != -EINPROGRESS) {
        rws__socket_close(fd);
        return res;
    }
    return fd;
}

int rws__sim_connected(int fd)
{
    return rws__sim_socket_connected(need(fd));
}

ssize_t rws__sim_read(int fd, void *data, size_t len)
{
    return rws__sim_socket_recv(need(fd), data, len);
}

ssize_t rws__sim_write(int fd, const void *data, size_t len)
{
    return rws__sim_socket_send(need(fd), data, len);
}

size_t rws__sim_readable(int fd)
{
    return rws__sim_pipe_unread(&need(fd)->in);
}

bool rws__sim_is_readable(int fd)
{
    return rws__sim_socket_is_readable(need(fd));
}

void rws__sim_shutdown(int fd)
{
    (void)rws__sim_socket_shutdown(need(fd));
}

void rws__sim_reset(int fd)
{
    rws__sim_socket_disconnect(need(fd));
    rws__socket_close(fd);
}

void rws__sim_vanish(int fd)
{
    rws__sim_socket_vanish(need(fd));
    rws__socket_close(fd);
}

uint32_t rws__sim_sockets(void)
{
    return rws__sim()->sockets;
}

uint32_t rws__sim_descriptors(void)
{
    return rws__sim()->descriptors_used;
}
