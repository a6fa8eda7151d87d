#include "engine/listener.h"

#include "engine/group.h"
#include "engine/loopback.h"
#include "engine/op.h"
#include "engine/shard.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MULTISHOT_SLOT RWS__ACCEPTS
/* Ring teardown at process exit is asynchronous: the port of a server that was just killed is in
 * use for a moment. */
#define BIND_RETRIES        20
#define BIND_RETRY_PAUSE_MS 50
/* After an accept that failed for want of a resource. */
#define RESOURCE_PAUSE_MS 100

typedef union any_address {
    struct sockaddr generic;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    struct sockaddr_un un;
} any_address;

/* ---- opening ---- */

static int parse_address(const rws__config *config, any_address *address, socklen_t *len)
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

/*
 * One TCP listener. The first of a group binds without SO_REUSEPORT, so that a port in use is
 * noticed, and sets it after the bind, so that the others can join. TCP options are inherited by
 * accepted sockets.
 */
static int open_tcp(const rws__config *config, const any_address *address, socklen_t len,
                    bool first)
{
    int fd = socket(address->generic.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (!first) set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (address->generic.sa_family == AF_INET6) set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (config->socket_send_buffer_bytes > 0)
        set_int(fd, SOL_SOCKET, SO_SNDBUF, config->socket_send_buffer_bytes);
    int res = bind_with_patience(fd, address, len);
    if (res == 0 && first) set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (res == 0 && listen(fd, (int)config->backlog) != 0) res = -errno;
    if (res != 0) {
        close(fd);
        return res;
    }
    return fd;
}

static int open_group(const rws__config *config, int *fds, uint32_t count, uint16_t *port,
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
        any_address bound = {0};
        socklen_t bound_len = sizeof bound;
        if (getsockname(fd, &bound.generic, &bound_len) == 0) {
            in_port_t chosen =
                bound.generic.sa_family == AF_INET ? bound.in.sin_port : bound.in6.sin6_port;
            *port = ntohs(chosen);
            if (address.generic.sa_family == AF_INET)
                address.in.sin_port = chosen;
            else
                address.in6.sin6_port = chosen;
        }
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

static int open_unix(const rws__config *config, int *fd_out, rws_error *error)
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
    if (config->socket_send_buffer_bytes > 0)
        set_int(fd, SOL_SOCKET, SO_SNDBUF, config->socket_send_buffer_bytes);
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

int rws__listeners_open(const rws__config *config, int *fds, uint32_t count, uint16_t *port,
                        rws_error *error)
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

void rws__listener_init(rws__listener *listener, int fd)
{
    memset(listener, 0, sizeof *listener);
    listener->fd = fd;
    if (fd < 0) return;
    any_address address = {0};
    socklen_t len = sizeof address;
    if (getsockname(fd, &address.generic, &len) != 0) return;
    listener->family = address.generic.sa_family;
    listener->loopback = rws__is_loopback(&address.generic);
}

/* ---- accepting ---- */

static bool may_accept(rws__shard *shard)
{
    const rws__listener *listener = &shard->listener;
    return !shard->draining && !listener->failing && shard->slots_used < shard->slots_max;
}

/*
 * A multishot accept takes whatever waits in the backlog before we can stop it, so there must be
 * room for all of that; single accepts take no more than there is. The peer's address comes with a
 * single accept, or by a command on the accepted socket.
 */
static bool uses_multishot(const rws__shard *shard)
{
    if (shard->slots_max - shard->slots_used < 2 * shard->config->backlog) return false;
    if (shard->listener.hand_round || !(shard->features & RWS_FEATURE_MULTISHOT_ACCEPT))
        return false;
    return !shard->config->peer_address || (shard->features & RWS_FEATURE_SOCKET_COMMANDS);
}

static uint64_t accept_data(uint32_t slot)
{
    return rws__op_pack(RWS__OP_ACCEPT, slot, 0);
}

static void arm_singles(rws__shard *shard)
{
    rws__listener *listener = &shard->listener;
    /* No more accepts than free slots: each may bring a connection. */
    uint32_t room = shard->slots_max - shard->slots_used;
    for (uint32_t i = 0; i < RWS__ACCEPTS; i++)
        if (listener->accepts[i].armed && room > 0) room--;
    for (uint32_t i = 0; i < RWS__ACCEPTS && room > 0; i++) {
        rws__accept_slot *slot = &listener->accepts[i];
        if (slot->armed) continue;
        slot->len = sizeof slot->address;
        int res = listener->hand_round
                      ? rws__ring_accept_fd(shard->ring, listener->fd, accept_data(i))
                      : rws__ring_accept_direct(shard->ring, listener->fd,
                                                (struct sockaddr *)&slot->address, &slot->len,
                                                accept_data(i));
        if (res != 0) {
            shard->refused = true;
            return;
        }
        slot->armed = true;
        room--;
    }
}

bool rws__listener_is_quiet(const rws__listener *listener)
{
    for (uint32_t i = 0; i < RWS__ACCEPTS; i++)
        if (listener->accepts[i].armed) return false;
    return !listener->multishot_armed;
}

static void cancel_all(rws__shard *shard)
{
    rws__listener *listener = &shard->listener;
    if (listener->cancelled) return;
    int res = 0;
    if (listener->multishot_armed) res = rws__ring_cancel(shard->ring, accept_data(MULTISHOT_SLOT));
    for (uint32_t i = 0; i < RWS__ACCEPTS && res == 0; i++)
        if (listener->accepts[i].armed) res = rws__ring_cancel(shard->ring, accept_data(i));
    listener->cancelled = res == 0;
    if (res != 0) shard->refused = true;
}

void rws__listener_pump(rws__shard *shard)
{
    rws__listener *listener = &shard->listener;
    if (listener->fd < 0) return;
    if (!may_accept(shard)) {
        if (!listener->paused && !shard->draining && !listener->failing)
            rws__count(&shard->counters.accept_pauses, 1);
        listener->paused = true;
        if (!rws__listener_is_quiet(listener)) cancel_all(shard);
        return;
    }
    listener->paused = false;
    if (listener->cancelled && !rws__listener_is_quiet(listener)) return;
    listener->cancelled = false;
    if (listener->multishot_armed && !uses_multishot(shard)) {
        cancel_all(shard);
        return;
    }
    if (!uses_multishot(shard)) {
        arm_singles(shard);
        return;
    }
    if (listener->multishot_armed) return;
    if (rws__ring_accept_multishot(shard->ring, listener->fd, accept_data(MULTISHOT_SLOT)) == 0)
        listener->multishot_armed = true;
    else
        shard->refused = true;
}

static void on_accept_error(rws__shard *shard, int32_t res)
{
    switch (-res) {
    case ECANCELED:
    case EINTR:
    case EAGAIN:
    case ECONNABORTED:
    case EPROTO: return; /* the peer gave up before it was accepted */
    default:
        rws__log(shard->config, RWS_LOG_WARNING, "accept failed: %s; trying again in %d ms",
                 rws_strerror(res), RESOURCE_PAUSE_MS);
        shard->listener.failing = true;
        rws__timer_set(&shard->wheel, &shard->accept_timer, shard->now_ms, RESOURCE_PAUSE_MS);
    }
}

void rws__listener_on_accept(rws__shard *shard, uint32_t slot, int32_t res, bool more)
{
    rws__listener *listener = &shard->listener;
    const struct sockaddr_storage *address = NULL;
    if (slot == MULTISHOT_SLOT) {
        listener->multishot_armed = more;
    } else {
        listener->accepts[slot].armed = false;
        address = &listener->accepts[slot].address;
    }
    if (res < 0) {
        on_accept_error(shard, res);
        return;
    }
    if (listener->hand_round)
        rws__group_hand_round(shard, res);
    else
        rws__shard_accepted(shard, res, address);
}

void rws__listener_finish(rws__shard *shard)
{
    rws__listener *listener = &shard->listener;
    if (listener->fd < 0) return;
    /* Closing a listener of a SO_REUSEPORT group resets what waits in it: take that first, and
     * answer it with 503. */
    (void)fcntl(listener->fd, F_SETFL, O_NONBLOCK);
    /* Not later: once nobody listens, the next server may take the path for its own. */
    if (shard->config->unix_path != NULL) (void)unlink(shard->config->unix_path);
    while (shard->slots_used < shard->slots_max) {
        int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0) break;
        rws__shard_adopt_fd(shard, fd);
    }
    close(listener->fd);
    listener->fd = -1;
}
