/*
 * System calls of the engine's own objects that fail when they are told to, and files that say what
 * a test wants. What liburing and the C library call by themselves is as always.
 *
 * For tests with `ctest: failing calls` in a comment on one of their first lines: they are linked
 * with
 * --wrap for each of these calls. Counting is for several threads at once; telling is for one.
 */
#ifndef RINGWS_TESTS_SUPPORT_FAILING_CALLS_H
#define RINGWS_TESTS_SUPPORT_FAILING_CALLS_H

#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/resource.h>

/* As tests/CMakeLists.txt has them. */
#define FAILING_CALLS(_)                                                                           \
    _(mmap)                                                                                        \
    _(socket)                                                                                      \
    _(bind)                                                                                        \
    _(listen)                                                                                      \
    _(connect)                                                                                     \
    _(lstat)                                                                                       \
    _(unlink)                                                                                      \
    _(getsockopt)                                                                                  \
    _(setsockopt)                                                                                  \
    _(getsockname)                                                                                 \
    _(getpeername)                                                                                 \
    _(fcntl)                                                                                       \
    _(eventfd)                                                                                     \
    _(getrandom)                                                                                   \
    _(pthread_create)                                                                              \
    _(getrlimit)                                                                                   \
    _(uname)                                                                                       \
    _(sched_getaffinity)                                                                           \
    _(syscall)

typedef enum failing_call {
#define FAILING_CALL_ENTRY(name) CALL_##name,
    FAILING_CALLS(FAILING_CALL_ENTRY)
#undef FAILING_CALL_ENTRY
        FAILING_CALL_COUNT
} failing_call;

extern const char *const failing_call_names[FAILING_CALL_COUNT];

/* From now on: the `nth` call (1: the first) of `call` fails with `error`, the others work. */
void failing_calls_arm(failing_call call, size_t nth, int error);
/* From now on: that call and all later ones fail. */
void failing_calls_arm_from(failing_call call, size_t nth, int error);
/* All work. */
void failing_calls_disarm(void);
/* Calls of the one that was armed, since then. */
size_t failing_calls_seen(void);
/* Bytes of memory that are mapped and not unmapped. */
size_t failing_calls_mapped(void);

typedef struct failing_file {
    const char *path, *text; /* text NULL: it can't be opened */
} failing_file;

/* What fopen() finds in place of the files of these names; a zero path ends the array, which is
 * borrowed. NULL: none. */
void failing_calls_files(const failing_file *files);
/* What getrlimit() and sched_getaffinity() and uname() say; borrowed. NULL: the truth. */
void failing_calls_limit(const struct rlimit *limit);
void failing_calls_affinity(const cpu_set_t *set);
void failing_calls_release(const char *release);

#endif
