/*
 * What the commands ask of the machine: the clock, the descriptor limit, small files in /proc.
 */
#ifndef RINGWS_TOOLS_HOST_H
#define RINGWS_TOOLS_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

static inline uint64_t host_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/** Raise the soft limit of open descriptors to the hard one. Returns the limit that is in force. */
uint64_t host_raise_descriptors(void);

/** The first line of a small file, without its newline. False if it can't be read. */
bool host_read_line(const char *path, char *line, size_t line_size);

#endif
