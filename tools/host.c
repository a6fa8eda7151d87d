#include "tools/host.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

uint64_t host_raise_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return 0;

    rlim_t soft = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0) return soft;
    return limit.rlim_cur;
}

bool host_descriptors_suffice(uint64_t descriptors, char *why, size_t why_size)
{
    if (descriptors >= HOST_DESCRIPTORS_MIN) return true;
    snprintf(why, why_size,
             "the limit of open descriptors is %" PRIu64 ", and at least %d are needed: raise it "
             "with 'ulimit -n'",
             descriptors, HOST_DESCRIPTORS_MIN);
    return false;
}

bool host_read_line(const char *path, char *line, size_t line_size)
{
    FILE *file = fopen(path, "re");
    if (!file) return false;

    bool ok = fgets(line, (int)line_size, file) != NULL;
    fclose(file);
    if (ok) line[strcspn(line, "\n")] = '\0';
    return ok;
}
