/*
 * The runner behind tests/alone/criterion/criterion.h.
 *
 *   PROGRAM [--tap=FILE] [--filter=PATTERN] [--list]
 *
 * Runs the tests one after another, each in a process of its own; the TAP report is as Criterion's.
 */
#include <errno.h>
#include <fnmatch.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>

#define TIMEOUT_S   100
#define SLOWNESS    3 /* of ThreadSanitizer, and of a kernel in user mode */
#define SKIP_STATUS 77

static alone_test *tests; /* in the order of the source */
static bool expectation_failed;
static char *skip_reason; /* shared with the test's process */
#define SKIP_REASON_BYTES 256

void alone_register(alone_test *test)
{
    alone_test **end = &tests;
    while (*end != NULL)
        end = &(*end)->next;
    *end = test;
}

void alone_check(bool good, bool fatal, const char *file, int line, const char *condition,
                 const char *format, ...)
{
    if (good) return;
    va_list args;
    va_start(args, format);
    flockfile(stderr);
    fprintf(stderr, "%s:%d: failed: %s", file, line, condition);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    funlockfile(stderr);
    va_end(args);
    fflush(NULL);
    /* Not exit(): other threads of the test still run. */
    if (fatal) _exit(1);
    expectation_failed = true;
}

void alone_skip(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(skip_reason, SKIP_REASON_BYTES, format, args);
    va_end(args);
    fflush(NULL);
    _exit(SKIP_STATUS);
}

static const alone_options *suite_options(const alone_test *test)
{
    for (const alone_test *other = tests; other != NULL; other = other->next) {
        if (other->name == NULL && strcmp(other->suite, test->suite) == 0) return &other->options;
    }
    return &test->options;
}

static _Noreturn void run_child(const alone_test *test)
{
    const alone_options *own = &test->options;
    const alone_options *suite = suite_options(test);
    double timeout = own->timeout > 0 ? own->timeout : suite->timeout;
    alarm((unsigned)((timeout > 0 ? timeout : TIMEOUT_S) * SLOWNESS));

    void (*init)(void) = own->init != NULL ? own->init : suite->init;
    void (*fini)(void) = own->fini != NULL ? own->fini : suite->fini;
    if (init != NULL) init();
    test->run();
    if (fini != NULL) fini();
    exit(expectation_failed ? 1 : 0);
}

/* One line of the TAP report: "ok", "not ok" or "skip". */
static const char *judge(const alone_test *test, int status)
{
    int signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    if (code == SKIP_STATUS && skip_reason[0] != '\0') return "skip";
    if (signal == test->options.signal && code == test->options.exit_code) return "ok";
    fprintf(stderr, "%s::%s: ", test->suite, test->name);
    if (signal == SIGALRM)
        fprintf(stderr, "ran past its time\n");
    else if (signal != 0)
        fprintf(stderr, "ended by signal %d (%s)\n", signal, strsignal(signal));
    else
        fprintf(stderr, "exit status %d\n", code);
    return "not ok";
}

static const char *run_test(const alone_test *test)
{
    skip_reason[0] = '\0';
    if (test->options.disabled || suite_options(test)->disabled) {
        snprintf(skip_reason, SKIP_REASON_BYTES, "test is disabled");
        return "skip";
    }
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) run_child(test);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno == EINTR) continue;
        perror("alone: waitpid");
        return "not ok";
    }
    return judge(test, status);
}

static const char *option(int argc, char **argv, const char *name)
{
    size_t len = strlen(name);
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], name, len) == 0) return argv[i] + len;
    }
    return NULL;
}

int main(int argc, char **argv)
{
    const char *tap_path = option(argc, argv, "--tap=");
    const char *filter = option(argc, argv, "--filter=");
    bool list = option(argc, argv, "--list") != NULL;
    FILE *tap = tap_path != NULL ? fopen(tap_path, "w") : NULL;
    skip_reason =
        mmap(NULL, SKIP_REASON_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if ((tap_path != NULL && tap == NULL) || skip_reason == MAP_FAILED) {
        perror("alone");
        return 2;
    }

    unsigned passed = 0, failed = 0, skipped = 0;
    for (const alone_test *test = tests; test != NULL; test = test->next) {
        char name[256];
        if (test->name == NULL) continue;
        snprintf(name, sizeof(name), "%s::%s", test->suite, test->name);
        if (filter != NULL && fnmatch(filter, name, 0) != 0) continue;
        if (list) {
            puts(name);
            continue;
        }
        const char *result = run_test(test);
        bool skip = strcmp(result, "skip") == 0;
        if (skip)
            skipped++;
        else if (strcmp(result, "ok") == 0)
            passed++;
        else
            failed++;
        if (tap != NULL)
            fprintf(tap, "%s - %s%s%s\n", skip ? "ok" : result, name, skip ? "  # SKIP " : "",
                    skip ? skip_reason : "");
    }
    if (tap != NULL) fclose(tap);
    if (!list)
        printf("tested %u: %u passed, %u failed, %u skipped\n", passed + failed + skipped, passed,
               failed, skipped);
    return failed == 0 ? 0 : 1;
}
