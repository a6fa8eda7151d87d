/*
 * The part of Criterion that the engine's tests use, on a runner that has nothing but fork(2).
 *
 * Debian's Criterion maps memory above 2^40, where ThreadSanitizer has its shadow and where
 * user-mode-linux has no addresses: there its tests can't start. This header is found in place of
 * Criterion's when a test is built "alone", and the same source runs there too. A test that needs
 * more of Criterion than this does not build alone.
 *
 * Every test runs in a process of its own. A failed cr_assert…() ends it, from whatever thread.
 */
#ifndef RINGWS_ALONE_CRITERION_H
#define RINGWS_ALONE_CRITERION_H

/* What the macros need. */
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

typedef struct alone_options {
    void (*init)(void);
    void (*fini)(void);
    int signal;    /* the test has to end by it */
    int exit_code; /* or with this status */
    bool disabled;
    const char *description;
    double timeout; /* seconds; 0: 100 */
    int unused;     /* lets the macro's list end with a comma */
} alone_options;

typedef struct alone_test {
    const char *suite;
    const char *name; /* NULL: the options of a suite */
    alone_options options;
    void (*run)(void);
    struct alone_test *next;
} alone_test;

void alone_register(alone_test *test);
void alone_check(bool good, bool fatal, const char *file, int line, const char *condition,
                 const char *format, ...) __attribute__((format(printf, 6, 7)));
void alone_skip(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

#define ALONE_ENTRY(id, suite_name, test_name, function, ...)                                      \
    static alone_test id##_entry = {                                                               \
        .suite = suite_name,                                                                       \
        .name = test_name,                                                                         \
        .options = {.unused = 0, __VA_ARGS__},                                                     \
        .run = function,                                                                           \
    };                                                                                             \
    __attribute__((constructor)) static void id##_register(void)                                   \
    {                                                                                              \
        alone_register(&id##_entry);                                                               \
    }

#define Test(suite, name, ...)                                                                     \
    static void suite##_##name##_impl(void);                                                       \
    ALONE_ENTRY(suite##_##name, #suite, #name, suite##_##name##_impl, __VA_ARGS__)                 \
    static void suite##_##name##_impl(void)

#define TestSuite(suite, ...) ALONE_ENTRY(suite##_suite, #suite, NULL, NULL, __VA_ARGS__)

#define ALONE_CHECK(condition, fatal, text, ...)                                                   \
    alone_check(condition, fatal, __FILE__, __LINE__, text, " " __VA_ARGS__)
#define ALONE_ASSERT(condition, ...) ALONE_CHECK(condition, true, #condition, __VA_ARGS__)
#define ALONE_EXPECT(condition, ...) ALONE_CHECK(condition, false, #condition, __VA_ARGS__)

#define cr_assert(condition, ...)       ALONE_ASSERT((bool)(condition), __VA_ARGS__)
#define cr_assert_not(condition, ...)   ALONE_ASSERT(!(condition), __VA_ARGS__)
#define cr_assert_eq(a, b, ...)         ALONE_ASSERT((a) == (b), __VA_ARGS__)
#define cr_assert_neq(a, b, ...)        ALONE_ASSERT((a) != (b), __VA_ARGS__)
#define cr_assert_lt(a, b, ...)         ALONE_ASSERT((a) < (b), __VA_ARGS__)
#define cr_assert_leq(a, b, ...)        ALONE_ASSERT((a) <= (b), __VA_ARGS__)
#define cr_assert_gt(a, b, ...)         ALONE_ASSERT((a) > (b), __VA_ARGS__)
#define cr_assert_geq(a, b, ...)        ALONE_ASSERT((a) >= (b), __VA_ARGS__)
#define cr_assert_null(a, ...)          ALONE_ASSERT((a) == NULL, __VA_ARGS__)
#define cr_assert_not_null(a, ...)      ALONE_ASSERT((a) != NULL, __VA_ARGS__)
#define cr_assert_str_eq(a, b, ...)     ALONE_ASSERT(strcmp(a, b) == 0, __VA_ARGS__)
#define cr_assert_str_neq(a, b, ...)    ALONE_ASSERT(strcmp(a, b) != 0, __VA_ARGS__)
#define cr_assert_arr_eq(a, b, n, ...)  ALONE_ASSERT(memcmp(a, b, n) == 0, __VA_ARGS__)
#define cr_assert_arr_neq(a, b, n, ...) ALONE_ASSERT(memcmp(a, b, n) != 0, __VA_ARGS__)
#define cr_assert_fail(...)             ALONE_CHECK(false, true, "reached", __VA_ARGS__)
#define cr_fatal(...)                   cr_assert_fail(__VA_ARGS__)

#define cr_expect(condition, ...)       ALONE_EXPECT((bool)(condition), __VA_ARGS__)
#define cr_expect_not(condition, ...)   ALONE_EXPECT(!(condition), __VA_ARGS__)
#define cr_expect_eq(a, b, ...)         ALONE_EXPECT((a) == (b), __VA_ARGS__)
#define cr_expect_neq(a, b, ...)        ALONE_EXPECT((a) != (b), __VA_ARGS__)
#define cr_expect_lt(a, b, ...)         ALONE_EXPECT((a) < (b), __VA_ARGS__)
#define cr_expect_leq(a, b, ...)        ALONE_EXPECT((a) <= (b), __VA_ARGS__)
#define cr_expect_gt(a, b, ...)         ALONE_EXPECT((a) > (b), __VA_ARGS__)
#define cr_expect_geq(a, b, ...)        ALONE_EXPECT((a) >= (b), __VA_ARGS__)
#define cr_expect_null(a, ...)          ALONE_EXPECT((a) == NULL, __VA_ARGS__)
#define cr_expect_not_null(a, ...)      ALONE_EXPECT((a) != NULL, __VA_ARGS__)
#define cr_expect_str_eq(a, b, ...)     ALONE_EXPECT(strcmp(a, b) == 0, __VA_ARGS__)
#define cr_expect_str_neq(a, b, ...)    ALONE_EXPECT(strcmp(a, b) != 0, __VA_ARGS__)
#define cr_expect_arr_eq(a, b, n, ...)  ALONE_EXPECT(memcmp(a, b, n) == 0, __VA_ARGS__)
#define cr_expect_arr_neq(a, b, n, ...) ALONE_EXPECT(memcmp(a, b, n) != 0, __VA_ARGS__)
#define cr_fail(...)                    ALONE_CHECK(false, false, "reached", __VA_ARGS__)

#define cr_skip_test(...) alone_skip("" __VA_ARGS__)
#define cr_skip(...)      alone_skip("" __VA_ARGS__)

#define cr_log_info(...)  (printf(__VA_ARGS__), putchar('\n'), fflush(stdout))
#define cr_log_warn(...)  cr_log_info(__VA_ARGS__)
#define cr_log_error(...) cr_log_info(__VA_ARGS__)

#endif
