#include "engine/server/sockets.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/un.h>

typedef union any_address {
    struct sockaddr generic;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    struct sockaddr_storage storage;
} any_address;

static int parse_address(const rws__listener_config *config, any_address *address, socklen_t *len)
{
    const char *text = config->address;
    if (strcmp(text, "localhost") == 0) text = "127.0.0.1";
    memset(address, 0, sizeof *address);
    if (inet_pton(AF_INET, text, &address->in.sin_addr) == 1) {
        address->in.sin_family = AF_INET;
        address->in.sin_port = htons(config->port);
        *len = sizeof address->in;
        return 0;
    }
    if (inet_pton(AF_INET6, text, &address->in6.sin6_addr) == 1) {
        address->in6.sin6_family = AF_INET6;
        address->in6.sin6_port = htons(config->port);
        *len = sizeof address->in6;
        return 0;
    }
    return RWS_E_ADDRESS;
}

/* The TCP port that a socket is bound to; 0: none. */
static uint16_t port_of(int fd)
{
    any_address bound;
    if (rws__socket_local(fd, &bound.storage) != 0) return 0;
    if (bound.generic.sa_family == AF_INET) return ntohs(bound.in.sin_port);
    return bound.generic.sa_family == AF_INET6 ? ntohs(bound.in6.sin6_port) : 0;
}

static int open_group(const rws__listener_config *config, int *fds, uint32_t count, uint16_t *port,
                      rws_error *error)
{
    any_address address;
    socklen_t len;
    if (parse_address(config, &address, &len) != 0)
        return rws__fail(error, RWS_E_ADDRESS,
                         "the address '%s' is not a numeric IPv4 or IPv6 address, nor 'localhost'",
                         config->address);
    for (uint32_t i = 0; i < count; i++) {
        int fd =
            rws__socket_listen(&address.generic, len, i == 0, config->backlog, &config->socket);
        if (fd == -EADDRINUSE)
            return rws__fail(
                error, fd,
                "port %u on %s is in use by another process: stop it or choose another "
                "port (0 lets the kernel pick one)",
                config->port, config->address);
        if (fd < 0)
            return rws__fail(error, fd, "can't listen on %s port %u: %s", config->address,
                             config->port, rws_strerror(fd));
        fds[i] = fd;
        if (i > 0) continue;
        *port = port_of(fd);
        if (address.generic.sa_family == AF_INET)
            address.in.sin_port = htons(*port);
        else
            address.in6.sin6_port = htons(*port);
    }
    return 0;
}

static int open_unix(rws__listener_config *config, int *fd_out, rws_error *error)
{
    const char *path = config->unix_path;
    const size_t room = sizeof((struct sockaddr_un *)NULL)->sun_path;
    /* An empty one would be an abstract address that nobody can dial. */
    if (path[0] == '\0') return rws__fail(error, RWS_E_ADDRESS, "the unix socket path is empty");
    if (strlen(path) >= room)
        return rws__fail(error, RWS_E_ADDRESS, "the unix socket path is longer than %zu bytes: %s",
                         room - 1, path);
    int fd = rws__socket_listen_unix(path, config->backlog, &config->socket, &config->unix_file);
    if (fd == -EADDRINUSE)
        return rws__fail(error, fd,
                         "the unix socket %s is in use by another process, or is a file that is "
                         "not a socket: remove it or choose another path",
                         path);
    if (fd < 0)
        return rws__fail(error, fd, "can't listen on the unix socket %s: %s", path,
                         rws_strerror(fd));
    *fd_out = fd;
    return 0;
}

int rws__listeners_open(rws__listener_config *config, int *fds, uint32_t count, uint16_t *port,
                        rws_error *error)
{
    for (uint32_t i = 0; i < count; i++)
        fds[i] = -1;
    *port = 0;
    int res = config->unix_path != NULL ? open_unix(config, &fds[0], error)
                                        : open_group(config, fds, count, port, error);
    if (res == 0) return 0;
    for (uint32_t i = 0; i < count; i++) {
        if (fds[i] >= 0) rws__socket_close(fds[i]);
        fds[i] = -1;
    }
    return res;
}

int rws__listener_inherit(const rws__listener_config *config, int fd, uint16_t *port,
                          rws_error *error)
{
    int res = rws__socket_check_listening(fd);
    if (res != 0)
        return rws__fail(error, res, "fd %d is not a stream socket that listens: %s", fd,
                         rws_strerror(res));
    res = rws__socket_inherit(fd, &config->socket);
    if (res != 0)
        return rws__fail(error, res, "can't serve the socket fd %d: %s", fd, rws_strerror(res));
    *port = port_of(fd);
    return 0;
}
