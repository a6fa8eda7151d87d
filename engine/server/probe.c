#include "engine/server/probe.h"

#include "engine/base/features.h"
#include "engine/server/options.h"
#include "engine/ring/ring.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>

#define KERNEL_MAJOR 6
#define KERNEL_MINOR 1

static int verdict(rws_probe *probe, int status, const char *blocked_by, const char *text)
{
    probe->status = status;
    snprintf(probe->blocked_by, sizeof probe->blocked_by, "%s", blocked_by);
    snprintf(probe->text, sizeof probe->text, "%s", text);
    return status;
}

static int judge_blocked(const rws__probe_facts *facts, rws_probe *probe)
{
    if (facts->io_uring_disabled == 2)
        return verdict(
            probe, RWS_E_RING_BLOCKED, "sysctl",
            "io_uring is switched off by the sysctl kernel.io_uring_disabled = 2: set it to 0 "
            "(sysctl -w kernel.io_uring_disabled=0)");
    if (facts->io_uring_disabled == 1 && facts->setup_error == -EPERM)
        return verdict(
            probe, RWS_E_RING_BLOCKED, "sysctl",
            "io_uring is reserved for a group by the sysctl kernel.io_uring_disabled = 1: set it "
            "to 0, or run as a member of the group in kernel.io_uring_group");
    if (facts->seccomp_mode == 2)
        return verdict(
            probe, RWS_E_RING_BLOCKED, "seccomp",
            "io_uring is blocked by a seccomp filter, such as a container's default profile: "
            "allow io_uring_setup, io_uring_enter and io_uring_register (docker: --security-opt "
            "seccomp=PROFILE)");
    if (facts->setup_error == -ENOSYS)
        return verdict(probe, RWS_E_RING_BLOCKED, "missing",
                       "this kernel was built without io_uring: run one with CONFIG_IO_URING=y");
    return verdict(
        probe, RWS_E_RING_BLOCKED, "other",
        "io_uring is not permitted here, by a security module or a missing capability: ask the "
        "administrator of this system");
}

int rws__probe_judge(const rws__probe_facts *facts, rws_probe *probe)
{
    bool is_old = facts->major < KERNEL_MAJOR ||
                  (facts->major == KERNEL_MAJOR && facts->minor < KERNEL_MINOR);
    switch (facts->setup_error) {
    case -EPERM:
    case -EACCES: return judge_blocked(facts, probe);
    case -ENOSYS:
        if (!is_old) return judge_blocked(facts, probe);
        break;
    case -ENOMEM:
        return verdict(
            probe, -ENOMEM, "memlock",
            "there is no memory for a ring: raise the limit of locked memory (ulimit -l; "
            "LimitMEMLOCK= in a systemd unit)");
    case 0: break;
    default:
        if (is_old) break;
        snprintf(probe->text, sizeof probe->text, "making a ring failed: %s",
                 rws_strerror(facts->setup_error));
        probe->status = facts->setup_error;
        snprintf(probe->blocked_by, sizeof probe->blocked_by, "other");
        return probe->status;
    }
    if (is_old) {
        char text[256];
        snprintf(text, sizeof text,
                 "this kernel is %d.%d; ringws needs Linux 6.1 or later: boot a newer one",
                 facts->major, facts->minor);
        return verdict(probe, RWS_E_KERNEL_OLD, "version", text);
    }
    return verdict(probe, 0, "", "io_uring works, and the kernel has all that ringws needs");
}

static long read_number(const char *path, long missing)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) return missing;
    char line[64], *end = line;
    long value = fgets(line, sizeof line, file) != NULL ? strtol(line, &end, 10) : missing;
    fclose(file);
    return end == line ? missing : value;
}

static int seccomp_mode(void)
{
    FILE *file = fopen("/proc/self/status", "re");
    if (file == NULL) return 0;
    char line[256];
    int mode = 0;
    while (fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, "Seccomp:", 8) == 0) mode = (int)strtol(line + 8, NULL, 10);
    fclose(file);
    return mode;
}

static void gather(rws__probe_facts *facts, rws_probe *probe)
{
    struct utsname name;
    memset(facts, 0, sizeof *facts);
    if (uname(&name) == 0) {
        snprintf(probe->kernel, sizeof probe->kernel, "%.63s", name.release);
        char *end;
        facts->major = (int)strtol(name.release, &end, 10);
        if (*end == '.') facts->minor = (int)strtol(end + 1, NULL, 10);
    }
    facts->io_uring_disabled = (int)read_number("/proc/sys/kernel/io_uring_disabled", -1);
    facts->seccomp_mode = seccomp_mode();

    rws__ring_options options = {
        .sq_entries = 8,
        .cq_entries = 16,
        .files = 8,
        .incremental_buffers = 1,
        .incremental_bytes = 4096,
        .plain_buffers = 1,
        .plain_bytes = 4096,
        .registered_max = 1,
    };
    rws__ring *ring;
    const char *what;
    facts->setup_error = rws__ring_create(&ring, &options, &what);
    if (facts->setup_error != 0) return;
    /* A filter may let the setup pass, and not the rest. */
    facts->setup_error = rws__ring_turn(ring, false);
    rws__features_write(rws__ring_features(ring), probe->features, sizeof probe->features);
    rws__ring_destroy(ring);
}

int rws__probe_check(rws_error *error)
{
    rws__probe_facts facts;
    rws_probe probe = {.size = sizeof probe};
    gather(&facts, &probe);
    int status = rws__probe_judge(&facts, &probe);
    if (status != 0) rws__fail(error, status, "%s", probe.text);
    return status;
}

int rws_probe_kernel(rws_probe *out)
{
    rws__probe_facts facts;
    rws_probe probe = {.size = out->size};
    gather(&facts, &probe);
    rws__probe_judge(&facts, &probe);

    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        probe.descriptors_soft = limit.rlim_cur;
        probe.descriptors_hard = limit.rlim_max;
    }
    if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0)
        probe.memlock_soft = limit.rlim_cur == RLIM_INFINITY ? UINT64_MAX : limit.rlim_cur;
    probe.somaxconn = (uint32_t)read_number("/proc/sys/net/core/somaxconn", 0);
    rws__runtime_config config;
    rws_error error;
    if (rws__runtime_config_make(&config, NULL, 1, &error) == 0)
        probe.connections_max = config.connections_max;
    else if (probe.status == 0)
        verdict(&probe, error.status, "descriptors", error.text);
    memcpy(out, &probe, out->size < sizeof probe ? out->size : sizeof probe);
    return probe.status;
}
