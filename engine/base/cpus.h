/* How many CPUs this process may use: its affinity mask, and the CPU quota of its control group
 * (v2). */
#ifndef RINGWS_BASE_CPUS_H
#define RINGWS_BASE_CPUS_H

#include <stdint.h>

#define RWS__SHARDS_MAX 256u

/* At least 1, at most RWS__SHARDS_MAX: nobody needs a shard for more. */
uint32_t rws__cpus_available(void);

/* The whole CPUs that a cpu.max line ("200000 100000", "max 100000") allows; 0: no bound. */
uint32_t rws__cpus_from_quota(const char *line);

#endif
