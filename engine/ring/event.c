#include "engine/ring/event.h"

#include <errno.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

int rws__event_open(void)
{
    int fd = eventfd(0, EFD_CLOEXEC);
    return fd >= 0 ? fd : -errno;
}

void rws__event_signal(int event)
{
    int saved = errno; /* a signal handler must not change it */
    uint64_t one = 1;
    /* Fails only when the counter is full, and then the loop is woken anyway. */
    ssize_t written = write(event, &one, sizeof one);
    (void)written;
    errno = saved;
}

void rws__event_close(int event)
{
    close(event);
}
