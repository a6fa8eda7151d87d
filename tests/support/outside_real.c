#include "support/outside.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

bool outside_is_simulated(void)
{
    return false;
}

void outside_start(uint32_t features, uint64_t seed, bool faults)
{
    (void)features;
    (void)seed;
    (void)faults;
}

void outside_end(void) {}

void outside_pass_us(uint64_t us)
{
    struct timespec pause = {.tv_sec = (time_t)(us / 1000000),
                             .tv_nsec = (long)(us % 1000000) * 1000};
    nanosleep(&pause, NULL);
}

int outside_connect(const struct sockaddr *address, socklen_t len, int recv_buffer_bytes)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -errno;
    int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (recv_buffer_bytes > 0) {
        /* Loopback's segments of 64 KiB do not fit a small window, and wait for timers. */
        int segment = 1460;
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &recv_buffer_bytes, sizeof recv_buffer_bytes);
        (void)setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
    }
    if (connect(fd, address, len) == 0 || errno == EINPROGRESS) return fd;
    int error = errno;
    close(fd);
    return -error;
}

int outside_connected(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLOUT};
    if (poll(&poll_fd, 1, 0) == 0) return -EINPROGRESS;
    int error = 0;
    socklen_t len = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0) return -errno;
    return -error;
}

void outside_adopt(int fd)
{
    (void)fcntl(fd, F_SETFL, O_NONBLOCK);
}

ssize_t outside_read(int fd, void *data, size_t len)
{
    ssize_t got = recv(fd, data, len, MSG_DONTWAIT);
    return got >= 0 ? got : -errno;
}

ssize_t outside_write(int fd, const void *data, size_t len)
{
    ssize_t sent = send(fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent >= 0 ? sent : -errno;
}

void outside_shutdown(int fd)
{
    (void)shutdown(fd, SHUT_WR);
}

void outside_reset(int fd)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    close(fd);
}

void outside_close(int fd)
{
    close(fd);
}
