#include "engine/base/cpus.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint32_t rws__cpus_from_quota(const char *line)
{
    char *end;
    unsigned long long quota = strtoull(line, &end, 10);
    if (end == line || *end != ' ') return 0; /* "max" */
    const char *rest = end;
    unsigned long long period = strtoull(rest, &end, 10);
    if (end == rest || period == 0) return 0;
    unsigned long long cpus = (quota + period - 1) / period;
    return cpus == 0 ? 1 : cpus > UINT32_MAX ? UINT32_MAX : (uint32_t)cpus;
}

static int read_line(const char *path, char *line, int size)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) return -1;
    char *got = fgets(line, size, file);
    fclose(file);
    return got != NULL ? 0 : -1;
}

/* The quota of this process's group, or 0. In a container the group is the root of what it sees. */
static uint32_t quota_cpus(void)
{
    char group[512], path[768], line[64];
    if (read_line("/proc/self/cgroup", group, sizeof group) != 0) return 0;
    if (strncmp(group, "0::", 3) != 0) return 0;
    group[strcspn(group, "\n")] = '\0';
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", group + 3);
    if (read_line(path, line, sizeof line) != 0) return 0;
    return rws__cpus_from_quota(line);
}

uint32_t rws__cpus_available(void)
{
    cpu_set_t set;
    uint32_t cpus = 1;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        cpus = (uint32_t)CPU_COUNT(&set);
    uint32_t quota = quota_cpus();
    if (quota > 0 && quota < cpus) cpus = quota;
    return cpus > RWS__SHARDS_MAX ? RWS__SHARDS_MAX : cpus;
}
