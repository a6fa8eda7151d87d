#include "support/failing_calls.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#define NAME_ENTRY(name) #name,
const char *const failing_call_names[FAILING_CALL_COUNT] = {FAILING_CALLS(NAME_ENTRY)};

static _Atomic int armed = -1;
static _Atomic size_t armed_nth, seen, mapped;
static _Atomic int armed_error;
static _Atomic bool armed_for_good;
static const failing_file *own_files;
static const struct rlimit *own_limit;
static const cpu_set_t *own_affinity;
static const char *own_release;

static void arm(failing_call call, size_t nth, int error, bool for_good)
{
    armed = -1;
    armed_for_good = for_good;
    seen = 0;
    armed_nth = nth;
    armed_error = error;
    armed = (int)call;
}

void failing_calls_arm(failing_call call, size_t nth, int error)
{
    arm(call, nth, error, false);
}

void failing_calls_arm_from(failing_call call, size_t nth, int error)
{
    arm(call, nth, error, true);
}

void failing_calls_disarm(void)
{
    armed = -1;
}

size_t failing_calls_seen(void)
{
    return seen;
}

size_t failing_calls_mapped(void)
{
    return mapped;
}

void failing_calls_files(const failing_file *files)
{
    own_files = files;
}

void failing_calls_limit(const struct rlimit *limit)
{
    own_limit = limit;
}

void failing_calls_affinity(const cpu_set_t *set)
{
    own_affinity = set;
}

void failing_calls_release(const char *release)
{
    own_release = release;
}

/* Whether this call is the one. */
static bool fails(failing_call call)
{
    if (armed != (int)call) return false;
    size_t nth = ++seen;
    if (armed_for_good ? nth < armed_nth : nth != armed_nth) return false;
    errno = armed_error;
    return true;
}

/* ---- what the linker puts in place of the calls ---- */

/* NOLINTBEGIN(bugprone-reserved-identifier): the linker's names, --wrap */

/* A call that is only counted, or fails with `failure`. */
#define WRAP(failure, result, name, parameters, arguments)                                         \
    result __real_##name parameters;                                                               \
    result __wrap_##name parameters;                                                               \
    result __wrap_##name parameters                                                                \
    {                                                                                              \
        return fails(CALL_##name) ? (failure) : __real_##name arguments;                           \
    }

WRAP(-1, int, socket, (int domain, int type, int protocol), (domain, type, protocol))
WRAP(-1, int, bind, (int fd, const struct sockaddr *address, socklen_t len), (fd, address, len))
WRAP(-1, int, listen, (int fd, int backlog), (fd, backlog))
WRAP(-1, int, connect, (int fd, const struct sockaddr *address, socklen_t len), (fd, address, len))
WRAP(-1, int, lstat, (const char *path, struct stat *out), (path, out))
WRAP(-1, int, unlink, (const char *path), (path))
WRAP(-1, int, getsockopt, (int fd, int level, int name, void *out, socklen_t *len),
     (fd, level, name, out, len))
WRAP(-1, int, setsockopt, (int fd, int level, int name, const void *value, socklen_t len),
     (fd, level, name, value, len))
WRAP(-1, int, getsockname, (int fd, struct sockaddr *out, socklen_t *len), (fd, out, len))
WRAP(-1, int, getpeername, (int fd, struct sockaddr *out, socklen_t *len), (fd, out, len))
WRAP(-1, int, eventfd, (unsigned count, int flags), (count, flags))
WRAP(-1, ssize_t, getrandom, (void *out, size_t len, unsigned flags), (out, len, flags))
WRAP(errno, int, pthread_create,
     (pthread_t * out, const pthread_attr_t *attributes, void *(*start)(void *), void *arg),
     (out, attributes, start, arg))

int __real_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...)
{
    va_list args;
    va_start(args, command);
    long arg = va_arg(args, long);
    va_end(args);
    return fails(CALL_fcntl) ? -1 : __real_fcntl(fd, command, arg);
}

long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...)
{
    va_list args;
    va_start(args, number);
    long arg[6];
    for (int i = 0; i < 6; i++)
        arg[i] = va_arg(args, long);
    va_end(args);
    if (fails(CALL_syscall)) return -1;
    return __real_syscall(number, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
}

void *__real_mmap(void *at, size_t len, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t len, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t len, int protection, int flags, int fd, off_t offset)
{
    if (fails(CALL_mmap)) return MAP_FAILED;
    void *memory = __real_mmap(at, len, protection, flags, fd, offset);
    if (memory != MAP_FAILED) mapped += len;
    return memory;
}

int __real_munmap(void *memory, size_t len);
int __wrap_munmap(void *memory, size_t len);
int __wrap_munmap(void *memory, size_t len)
{
    mapped -= len;
    return __real_munmap(memory, len);
}

int __real_getrlimit(int resource, struct rlimit *out);
int __wrap_getrlimit(int resource, struct rlimit *out);
int __wrap_getrlimit(int resource, struct rlimit *out)
{
    if (fails(CALL_getrlimit)) return -1;
    if (own_limit == NULL) return __real_getrlimit(resource, out);
    *out = *own_limit;
    return 0;
}

int __real_uname(struct utsname *out);
int __wrap_uname(struct utsname *out);
int __wrap_uname(struct utsname *out)
{
    if (fails(CALL_uname)) return -1;
    int res = __real_uname(out);
    if (own_release != NULL) snprintf(out->release, sizeof out->release, "%s", own_release);
    return res;
}

int __real_sched_getaffinity(pid_t pid, size_t size, cpu_set_t *out);
int __wrap_sched_getaffinity(pid_t pid, size_t size, cpu_set_t *out);
int __wrap_sched_getaffinity(pid_t pid, size_t size, cpu_set_t *out)
{
    if (fails(CALL_sched_getaffinity)) return -1;
    if (own_affinity == NULL) return __real_sched_getaffinity(pid, size, out);
    memcpy(out, own_affinity, size);
    return 0;
}

FILE *__real_fopen(const char *path, const char *mode);
FILE *__wrap_fopen(const char *path, const char *mode);
FILE *__wrap_fopen(const char *path, const char *mode)
{
    for (const failing_file *file = own_files; file != NULL && file->path != NULL; file++) {
        if (strcmp(file->path, path) != 0) continue;
        errno = ENOENT;
        if (file->text == NULL) return NULL;
        /* fmemopen() refuses an empty one. */
        if (*file->text == '\0') return __real_fopen("/dev/null", mode);
        return fmemopen((void *)(uintptr_t)file->text, strlen(file->text), "r");
    }
    return __real_fopen(path, mode);
}

/* Waits are of no use here. */
int __wrap_nanosleep(const struct timespec *wanted, struct timespec *left);
int __wrap_nanosleep(const struct timespec *wanted, struct timespec *left)
{
    (void)wanted, (void)left;
    return 0;
}

/* NOLINTEND(bugprone-reserved-identifier) */
