/*
 * RWS_ASSERT states what must be true of our own code and stays on in release builds: it calls the
 * log hook and aborts. What a peer sends, what the kernel answers, what a caller passes and
 * exhaustion are errors, never asserts.
 */
#ifndef RINGWS_BASE_ASSERT_H
#define RINGWS_BASE_ASSERT_H

struct rws__env;

/* Whose log hook an assert that fails on this thread calls; NULL: nobody's, it writes to the
 * standard error. `env` is borrowed until the next call. */
void rws__assert_log_to(const struct rws__env *env);

_Noreturn void rws__assert_failed(const char *condition, const char *file, int line);

/* RWS_UNREACHABLE: for a place that our own code never comes to. */
#ifdef RINGWS_COVERAGE
/* Assumed: what an assert would do if it failed is no branch that a test could take, and llvm-cov
 * counts none in a type. */
#define RWS_ASSERT(condition) ((void)(__typeof__(!(condition)) *)0)
#define RWS_UNREACHABLE(what) __builtin_unreachable()
#else
#define RWS_ASSERT(condition)                                                                      \
    do {                                                                                           \
        if (__builtin_expect(!(condition), 0)) rws__assert_failed(#condition, __FILE__, __LINE__); \
    } while (0)
#define RWS_UNREACHABLE(what) rws__assert_failed(what, __FILE__, __LINE__)
#endif

#endif
