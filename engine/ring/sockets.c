#include "engine/ring/sockets.h"

#include "ringws/types.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
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

/* ---- listeners ---- */

static void sleep_ms(long ms)
{
    struct timespec pause = {.tv_nsec = ms * 1000000};
    nanosleep(&pause, NULL);
}

static int bind_with_patience(int fd, const struct sockaddr *address, socklen_t len)
{
    for (int i = 0;; i++) {
        if (bind(fd, address, len) == 0) return 0;
        if (errno != EADDRINUSE || i == BIND_RETRIES) return -errno;
        sleep_ms(BIND_RETRY_PAUSE_MS);
    }
}

/* Returns the descriptor, or closes it for `res` or an error of its own. */
static int listen_or_close(int fd, int res, uint32_t backlog)
{
    if (res == 0 && listen(fd, (int)backlog) != 0) res = -errno;
    if (res == 0) return fd;
    close(fd);
    return res;
}

/*
 * The first of a group binds without SO_REUSEPORT, so that a port in use is noticed, and sets it
 * after the bind, so that the others can join. TCP options are inherited by accepted sockets.
 */
int rws__socket_listen(const struct sockaddr *address, socklen_t len, bool first, uint32_t backlog,
                       const rws__socket_options *options)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (!first) set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (address->sa_family == AF_INET6) set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    set_options(fd, address->sa_family, options);
    int res = bind_with_patience(fd, address, len);
    if (res == 0 && first) set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    return listen_or_close(fd, res, backlog);
}

/* A socket file that nobody listens on is left over from a server that was killed: take its place.
 * -EAGAIN: somebody does whose backlog is full, and who may never accept again. */
static bool remove_stale_socket(const struct sockaddr_un *address)
{
    struct stat info;
    if (lstat(address->sun_path, &info) != 0 || !S_ISSOCK(info.st_mode)) return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
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

static void remember_file(const char *path, rws__socket_file *file)
{
    struct stat info;
    *file = (rws__socket_file){0};
    if (lstat(path, &info) == 0) *file = (rws__socket_file){info.st_dev, info.st_ino};
}

int rws__socket_listen_unix(const char *path, uint32_t backlog, const rws__socket_options *options,
                            rws__socket_file *file)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    set_options(fd, AF_UNIX, options);
    int res = bind_unix(fd, &address);
    if (res == 0) remember_file(path, file);
    return listen_or_close(fd, res, backlog);
}

int rws__socket_check_listening(int fd)
{
    int listens = 0, type = 0;
    socklen_t len = sizeof listens;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) != 0) return -errno;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) != 0) return -errno;
    return listens != 0 && type == SOCK_STREAM ? 0 : -EINVAL;
}

/* The kernel would fail an accept on the ring at once if nobody waits and the socket is not
 * blocking, instead of waiting for somebody. */
static int make_blocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0) return -errno;
    if (!(flags & O_NONBLOCK)) return 0;
    return fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) == 0 ? 0 : -errno;
}

int rws__socket_inherit(int fd, const rws__socket_options *options)
{
    struct sockaddr_storage address;
    int res = rws__socket_local(fd, &address);
    if (res == 0) res = make_blocking(fd);
    if (res == 0) set_options(fd, address.ss_family, options);
    return res;
}

int rws__socket_stop_waiting(int listener)
{
    return fcntl(listener, F_SETFL, O_NONBLOCK) == 0 ? 0 : -errno;
}

int rws__socket_accept(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    return fd >= 0 ? fd : -errno;
}

void rws__socket_unlink(const char *path, const rws__socket_file *file)
{
    struct stat info;
    if (lstat(path, &info) != 0) return;
    if (info.st_dev == file->device && info.st_ino == file->inode) (void)unlink(path);
}

/* ---- others ---- */

int rws__socket_make(sa_family_t family, const rws__socket_options *options)
{
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    set_options(fd, family, options);
    return fd;
}

int rws__socket_resolve(const char *host, uint16_t port, rws__socket_address *addresses,
                        uint32_t max)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *list;
    char number[8];
    snprintf(number, sizeof number, "%u", port);
    if (getaddrinfo(host, number, &hints, &list) != 0) return RWS_E_ADDRESS;
    uint32_t count = 0;
    for (const struct addrinfo *at = list; at != NULL && count < max; at = at->ai_next) {
        if (at->ai_addrlen > sizeof addresses->storage) continue;
        memcpy(&addresses[count].storage, at->ai_addr, at->ai_addrlen);
        addresses[count++].len = at->ai_addrlen;
    }
    freeaddrinfo(list);
    return count > 0 ? (int)count : RWS_E_ADDRESS;
}

int rws__socket_local(int fd, struct sockaddr_storage *address)
{
    socklen_t len = sizeof *address;
    memset(address, 0, sizeof *address);
    return getsockname(fd, (struct sockaddr *)address, &len) == 0 ? 0 : -errno;
}

int rws__socket_peer(int fd, struct sockaddr_storage *address)
{
    socklen_t len = sizeof *address;
    memset(address, 0, sizeof *address);
    return getpeername(fd, (struct sockaddr *)address, &len) == 0 ? 0 : -errno;
}

void rws__socket_turn_away(int fd, const void *data, size_t len)
{
    if (len > 0) (void)send(fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    (void)shutdown(fd, SHUT_WR);
    close(fd);
}

void rws__socket_close(int fd)
{
    close(fd);
}
