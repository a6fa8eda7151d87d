#include "tools/cpu_time.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tools/args.h"

/* The first field of a thread's schedstat: ns on a CPU. False if the thread is gone. */
static bool read_thread(pid_t pid, pid_t tid, uint64_t *ns)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/task/%d/schedstat", pid, tid);
    FILE *file = fopen(path, "re");
    if (!file) return false;

    char line[128];
    bool ok = fgets(line, sizeof(line), file) != NULL;
    fclose(file);
    if (!ok) return false;

    char *end;
    errno = 0;
    *ns = strtoull(line, &end, 10);
    return errno == 0 && end != line;
}

static int read_process_clock(pid_t pid, uint64_t *ns)
{
    clockid_t clock;
    int error = clock_getcpuclockid(pid, &clock);
    if (error) return -error;

    struct timespec now;
    if (clock_gettime(clock, &now) < 0) return -errno;
    *ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    return 0;
}

int cpu_time_read(pid_t pid, cpu_time *out)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    DIR *tasks = opendir(path);
    if (!tasks) return errno == ENOENT ? -ESRCH : -errno;

    out->threads = 0;
    out->threads_cut = false;
    for (struct dirent *entry; (entry = readdir(tasks));) {
        uint64_t tid, ns;
        if (!args_parse_number(entry->d_name, 1, INT32_MAX, &tid)) continue; /* "." and ".." */
        if (!read_thread(pid, (pid_t)tid, &ns)) continue;
        if (out->threads == CPU_TIME_THREADS_MAX) {
            out->threads_cut = true;
            break;
        }
        out->thread[out->threads].tid = (pid_t)tid;
        out->thread[out->threads++].ns = ns;
    }
    closedir(tasks);
    return read_process_clock(pid, &out->process_ns);
}

static bool find_thread(const cpu_time *sample, pid_t tid, uint64_t *ns)
{
    for (size_t i = 0; i < sample->threads; i++) {
        if (sample->thread[i].tid != tid) continue;
        *ns = sample->thread[i].ns;
        return true;
    }
    return false;
}

uint64_t cpu_time_between(const cpu_time *start, const cpu_time *end)
{
    bool complete = !start->threads_cut && !end->threads_cut;
    uint64_t unused;
    for (size_t i = 0; i < start->threads; i++)
        complete = complete && find_thread(end, start->thread[i].tid, &unused);
    if (!complete)
        return end->process_ns > start->process_ns ? end->process_ns - start->process_ns : 0;

    uint64_t total = 0;
    for (size_t i = 0; i < end->threads; i++) {
        uint64_t before = 0;
        find_thread(start, end->thread[i].tid, &before);
        if (end->thread[i].ns > before) total += end->thread[i].ns - before;
    }
    return total;
}
