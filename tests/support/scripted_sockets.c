#include "support/scripted_sockets.h"

#include "ringws/types.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DESCRIPTORS 4096

script_sockets script_net = {.events_max = SCRIPT_EVENTS};

/* What listeners are bound to, by descriptor. */
static struct sockaddr_storage bound[DESCRIPTORS];
static uint16_t next_port = 40000;

int script_socket(void)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (fd < 0 || fd >= DESCRIPTORS) abort();
    memset(&bound[fd], 0, sizeof bound[fd]);
    return fd;
}

bool script_socket_is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

/* ---- engine/ring/sockets.h ---- */

int rws__socket_listen(const struct sockaddr *address, socklen_t len, bool first, uint32_t backlog,
                       const rws__socket_options *options)
{
    (void)first;
    (void)backlog;
    (void)options;
    int fd = script_socket();
    memcpy(&bound[fd], address, len);
    /* The port is at the same place in both families. */
    struct sockaddr_in *in = (struct sockaddr_in *)&bound[fd];
    if (in->sin_port == 0) in->sin_port = htons(next_port++);
    return fd;
}

int rws__socket_listen_unix(const char *path, uint32_t backlog, const rws__socket_options *options,
                            rws__socket_file *file)
{
    *file = (rws__socket_file){.inode = ++script_net.unix_files};
    (void)path;
    (void)backlog;
    (void)options;
    int fd = script_socket();
    bound[fd].ss_family = AF_UNIX;
    return fd;
}

int rws__socket_check_listening(int fd)
{
    return script_socket_is_open(fd) ? 0 : -EBADF;
}

int rws__socket_inherit(int fd, const rws__socket_options *options)
{
    (void)options;
    return rws__socket_check_listening(fd);
}

int rws__socket_stop_waiting(int listener)
{
    (void)listener;
    return script_net.stop_waiting_result;
}

int rws__socket_accept(int listener)
{
    (void)listener;
    if (script_net.backlog == 0) return -EAGAIN;
    script_net.backlog--;
    return script_socket();
}

void rws__socket_unlink(const char *path, const rws__socket_file *file)
{
    script_net.unlinked_file = *file;
    snprintf(script_net.unlinked, sizeof script_net.unlinked, "%s", path);
}

int rws__socket_make(sa_family_t family, const rws__socket_options *options)
{
    (void)options;
    if (family == script_net.family_missing) return -EAFNOSUPPORT;
    return script_net.make_result != 0 ? script_net.make_result : script_socket();
}

static bool parse(const char *text, uint16_t port, rws__socket_address *address)
{
    struct sockaddr_in *in = (struct sockaddr_in *)&address->storage;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&address->storage;
    memset(address, 0, sizeof *address);
    if (inet_pton(AF_INET, text, &in->sin_addr) == 1) {
        in->sin_family = AF_INET;
        address->len = sizeof *in;
    } else if (inet_pton(AF_INET6, text, &in6->sin6_addr) == 1) {
        in6->sin6_family = AF_INET6;
        address->len = sizeof *in6;
    } else {
        return false;
    }
    in->sin_port = htons(port);
    return true;
}

int rws__socket_resolve(const char *host, uint16_t port, rws__socket_address *addresses,
                        uint32_t max)
{
    uint32_t count = 0;
    if (strcmp(host, "several.test") != 0) {
        if (strcmp(host, "localhost") == 0) host = "127.0.0.1";
        return parse(host, port, addresses) ? 1 : RWS_E_ADDRESS;
    }
    while (count < max && count < SCRIPT_ADDRESSES && script_net.addresses[count] != NULL) {
        if (!parse(script_net.addresses[count], port, &addresses[count])) abort();
        count++;
    }
    return count > 0 ? (int)count : RWS_E_ADDRESS;
}

int rws__socket_local(int fd, struct sockaddr_storage *address)
{
    *address = bound[fd];
    return 0;
}

int rws__socket_peer(int fd, struct sockaddr_storage *address)
{
    (void)fd;
    struct sockaddr_in *in = (struct sockaddr_in *)address;
    memset(address, 0, sizeof *address);
    in->sin_family = AF_INET;
    in->sin_port = htons(4242);
    in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return 0;
}

void rws__socket_turn_away(int fd, const void *data, size_t len)
{
    script_net.turned_away++;
    snprintf(script_net.answer, sizeof script_net.answer, "%.*s", (int)len, (const char *)data);
    close(fd);
}

void rws__socket_close(int fd)
{
    close(fd);
}

/* ---- engine/ring/event.h ---- */

typedef enum event_state { CLOSED = 0, OPEN, SIGNALLED } event_state;

static atomic_int events[SCRIPT_EVENTS]; /* event_state */

static bool move(int event, int from, int to)
{
    return atomic_compare_exchange_strong(&events[event], &from, to);
}

int rws__event_open(void)
{
    for (uint32_t i = 0; i < script_net.events_max; i++)
        if (move((int)i, CLOSED, OPEN)) return (int)i;
    return -EMFILE;
}

void rws__event_signal(int event)
{
    (void)move(event, OPEN, SIGNALLED);
}

void rws__event_close(int event)
{
    atomic_store(&events[event], CLOSED);
}

bool script_event_take(int event)
{
    return move(event, SIGNALLED, OPEN);
}
