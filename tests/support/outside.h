/*
 * The outside of a ring, for tests that run on the real one and on the simulated one alike (ctest:
 * both rings): time, and the sockets of peers. outside_real.c has loopback sockets that do not
 * block, outside_simulated.c those of engine/simulated/kernel.h. Listeners and their addresses are
 * the ring seam's own (engine/ring/sockets.h).
 *
 * Results are the kernel's: bytes, 0 or -errno. Nothing here waits.
 */
#ifndef RINGWS_TESTS_SUPPORT_OUTSIDE_H
#define RINGWS_TESTS_SUPPORT_OUTSIDE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

bool outside_is_simulated(void);

/* A world of its own for the thread, with these RWS__FEATURE_… bits; the real kernel has what it
 * has. `faults`: the simulated one does all that a kernel may do and still deliver everything:
 * short receives, late completions … */
void outside_start(uint32_t features, uint64_t seed, bool faults);
void outside_end(void);

/* Let time pass. */
void outside_pass_us(uint64_t us);

/* One end of a TCP connection that is being made: a descriptor or -errno. `recv_buffer_bytes`: 0:
 * the kernel's. */
int outside_connect(const struct sockaddr *address, socklen_t len, int recv_buffer_bytes);
/* 0: it stands; -EINPROGRESS; or why not. */
int outside_connected(int fd);
/* Take over a descriptor of rws__socket_accept(). */
void outside_adopt(int fd);

ssize_t outside_read(int fd, void *data, size_t len);
ssize_t outside_write(int fd, const void *data, size_t len);
/* End the sending half. */
void outside_shutdown(int fd);
/* Reset and close. */
void outside_reset(int fd);
void outside_close(int fd);

#endif
