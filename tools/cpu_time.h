/*
 * The CPU time of another process, in nanoseconds, between two moments.
 *
 * The figures are the kernel's own per thread, /proc/PID/task/TID/schedstat: the usual tick-based
 * ones are too coarse for a time per message. Threads that appear in between count from zero.
 * Threads that ended are gone from /proc; then the process clock (clock_getcpuclockid(3)), which
 * includes them, takes over.
 */
#ifndef RINGWS_TOOLS_CPU_TIME_H
#define RINGWS_TOOLS_CPU_TIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { CPU_TIME_THREADS_MAX = 1024 };

typedef struct cpu_time {
    size_t threads;
    bool threads_cut;    /* there were more than CPU_TIME_THREADS_MAX */
    uint64_t process_ns; /* the process clock */
    struct {
        pid_t tid;
        uint64_t ns;
    } thread[CPU_TIME_THREADS_MAX];
} cpu_time;

/** Read the times of `pid` now. Returns 0, -ESRCH if there is no such process, or another -errno.
 */
int cpu_time_read(pid_t pid, cpu_time *out);

/** Nanoseconds of CPU time from `start` to `end`. */
uint64_t cpu_time_between(const cpu_time *start, const cpu_time *end);

#endif
