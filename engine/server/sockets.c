#include "engine/server/sockets.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* Ring teardown at process exit is asynchronous: the port of a server that was just killed is in
 * use for a moment. */
#define BIND_RETRIES        20
#define BIND_RETRY_PAUSE_MS 50
/* A peer that vanished is gone after keepalive_s and 50 seconds. */
#define KEEPALIVE_INTERVAL_S 10
#define KEEPALIVE_PROBES     5

typedef union any_address {
    struct sockaddr generic;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    struct sockaddr_un un;
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

static void sleep_ms(long ms)
{
    struct timespec pause = {.tv_nsec = ms * 1000000};
    nanosleep(&pause, NULL);
}

static int bind_with_patience(int fd, const any_address *address, socklen_t len)
{
    for (int i = 0;; i++) {
        if (bind(fd, &address->generic, len) == 0) return 0;
        if (errno != EADDRINUSE || i == BIND_RETRIES) return -errno;
        sleep_ms(BIND_RETRY_PAUSE_MS);
    }
}

static void set_int(int fd, int level, int name, int value)
{
    /* A refused tuning option costs speed, not correctness. */
    (void)setsockopt(fd, level, name, &value, sizeof value);
}

static void set_options(int fd, sa_family_t family, const rws__socket_options *options)
{
    if (options->send_buffer_bytes > 0)
        set_int(fd, SOL_SOCKET, SO_SNDBUF, options->send_buffer_bytes);
    if (family == AF_UNIX) return;
    set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (options->keepalive_s > 0) {
        set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
        set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, (int)options->keepalive_s);
        set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S);
        set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES);
    }
    if (options->user_timeout_ms > 0)
        set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (int)options->user_timeout_ms);
}

int rws__socket_make(sa_family_t family, const rws__socket_options *options)
{
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    set_options(fd, family, options);
    return fd;
}

/*
 * One TCP listener. The first of a group binds without SO_REUSEPORT, so that a port in use is
 * noticed, and sets it after the bind, so that the others can join. TCP options are inherited by
 * accepted sockets.
 */
static int open_tcp(const rws__listener_config *config, const any_address *address, socklen_t len,
                    bool first)
{
    int fd = socket(address->generic.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (!first) set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (address->generic.sa_family == AF_INET6) set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    set_options(fd, address->generic.sa_family, &config->socket);
    int res = bind_with_patience(fd, address, len);
    if (res == 0 && first) set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (res == 0 && listen(fd, (int)config->backlog) != 0) res = -errno;
    if (res != 0) {
        close(fd);
        return res;
    }
    return fd;
}

/* The TCP port that a socket is bound to; 0: none. */
static uint16_t port_of(int fd)
{
    any_address bound;
    memset(&bound, 0, sizeof bound);
    socklen_t len = sizeof bound;
    if (getsockname(fd, &bound.generic, &len) != 0) return 0;
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
        int fd = open_tcp(config, &address, len, i == 0);
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

/* A socket file that nobody listens on is left over from a server that was killed: take its place.
 */
static bool remove_stale_socket(const struct sockaddr_un *address)
{
    struct stat info;
    if (lstat(address->sun_path, &info) != 0 || !S_ISSOCK(info.st_mode)) return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    bool refused = connect(fd, (const struct sockaddr *)address, sizeof *address) != 0 &&
                   errno == ECONNREFUSED;
    close(fd);
    return refused && unlink(address->sun_path) == 0;
}

/* As with ports, the socket of a server that was just killed may listen for a moment yet. */
static int bind_unix(int fd, const struct sockaddr_un *address)
{
    for (int i = 0;; i++) {
        if (bind(fd, (const struct sockaddr *)address, sizeof *address) == 0) return 0;
        if (errno != EADDRINUSE || i == BIND_RETRIES) return -errno;
        if (!remove_stale_socket(address)) sleep_ms(BIND_RETRY_PAUSE_MS);
    }
}

static int open_unix(const rws__listener_config *config, int *fd_out, rws_error *error)
{
    any_address address;
    memset(&address, 0, sizeof address);
    /* An empty one would be an abstract address that nobody can dial. */
    if (config->unix_path[0] == '\0')
        return rws__fail(error, RWS_E_ADDRESS, "the unix socket path is empty");
    if (strlen(config->unix_path) >= sizeof address.un.sun_path)
        return rws__fail(error, RWS_E_ADDRESS, "the unix socket path is longer than %zu bytes: %s",
                         sizeof address.un.sun_path - 1, config->unix_path);
    address.un.sun_family = AF_UNIX;
    memcpy(address.un.sun_path, config->unix_path, strlen(config->unix_path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return rws__fail(error, -errno, "can't make a unix socket: %s", rws_strerror(-errno));
    set_options(fd, AF_UNIX, &config->socket);
    int res = bind_unix(fd, &address.un);
    if (res == 0 && listen(fd, (int)config->backlog) != 0) res = -errno;
    if (res != 0) {
        close(fd);
        if (res == -EADDRINUSE)
            return rws__fail(
                error, res,
                "the unix socket %s is in use by another process, or is a file that is "
                "not a socket: remove it or choose another path",
                config->unix_path);
        return rws__fail(error, res, "can't listen on the unix socket %s: %s", config->unix_path,
                         rws_strerror(res));
    }
    *fd_out = fd;
    return 0;
}

int rws__listeners_open(const rws__listener_config *config, int *fds, uint32_t count,
                        uint16_t *port, rws_error *error)
{
    for (uint32_t i = 0; i < count; i++)
        fds[i] = -1;
    *port = 0;
    int res = config->unix_path != NULL ? open_unix(config, &fds[0], error)
                                        : open_group(config, fds, count, port, error);
    if (res == 0) return 0;
    for (uint32_t i = 0; i < count; i++) {
        if (fds[i] >= 0) close(fds[i]);
        fds[i] = -1;
    }
    return res;
}

/* ---- listeners that somebody else opened ---- */

/* The kernel would fail an accept on the ring at once if nobody waits and the socket is not
 * blocking, instead of waiting for somebody. */
static int make_blocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0) return -errno;
    if (!(flags & O_NONBLOCK)) return 0;
    return fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) == 0 ? 0 : -errno;
}

static int is_listening(int fd)
{
    int listens = 0, type = 0;
    socklen_t len = sizeof listens;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) != 0) return -errno;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) != 0) return -errno;
    return listens != 0 && type == SOCK_STREAM ? 0 : -EINVAL;
}

int rws__listener_inherit(const rws__listener_config *config, int fd, uint16_t *port,
                          rws_error *error)
{
    any_address address;
    memset(&address, 0, sizeof address);
    socklen_t len = sizeof address;
    int res = is_listening(fd);
    if (res != 0)
        return rws__fail(error, res, "fd %d is not a stream socket that listens: %s", fd,
                         rws_strerror(res));
    res = getsockname(fd, &address.generic, &len) == 0 ? make_blocking(fd) : -errno;
    if (res != 0)
        return rws__fail(error, res, "can't serve the socket fd %d: %s", fd, rws_strerror(res));
    set_options(fd, address.generic.sa_family, &config->socket);
    *port = port_of(fd);
    return 0;
}
