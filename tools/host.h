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

/* A server needs so many open descriptors, of which the library keeps 128 for itself. */
#define HOST_DESCRIPTORS_MIN 192

/** Raise the soft limit of open descriptors to the hard one. Returns the limit that is in force. */
uint64_t host_raise_descriptors(void);

/** Whether that is enough for a server; else `why` is a sentence that says what to do. */
bool host_descriptors_suffice(uint64_t descriptors, char *why, size_t why_size);

/** The first line of a small file, without its newline. False if it can't be read. */
bool host_read_line(const char *path, char *line, size_t line_size);

#endif
