/*
 * The testing kit without a hook: a failure is printed, with file and line, and the program aborts.
 * ctest: testing kit
 */
#include "ringws/testing.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LINE_OF_FAILURE = __LINE__ + 7 };

static void fail(void)
{
    rws_handler handler = RWS_HANDLER_DEFAULT;
    rws_test *test = rws_test_open(&handler, NULL);
    rws_test_peer *peer = rws_test_connect(test);
    rws_test_expect_text(peer, "hello");
    rws_test_close(test);
}

/* What a process that fails writes to stderr; returns its status. */
static int run(char *text, size_t size)
{
    int ends[2], status = 0;
    if (pipe(ends) != 0) exit(1);
    pid_t pid = fork();
    if (pid == 0) {
        const struct rlimit none = {0, 0};
        (void)setrlimit(RLIMIT_CORE, &none);
        (void)dup2(ends[1], STDERR_FILENO);
        fail();
        _exit(0);
    }
    close(ends[1]);
    size_t len = 0;
    ssize_t got;
    while ((got = read(ends[0], text + len, size - 1 - len)) > 0)
        len += (size_t)got;
    text[len] = '\0';
    close(ends[0]);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return status;
}

int main(void)
{
    char text[4096], expected[4096];
    int status = run(text, sizeof text);
    (void)snprintf(expected, sizeof expected,
                   "%s:%d: peer 1 did not receive what was expected\n"
                   "  expected: text, 5 bytes: \"hello\"\n"
                   "  received: nothing\n",
                   __FILE__, LINE_OF_FAILURE);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && strcmp(text, expected) == 0) return 0;
    printf("status %x, and it printed:\n%s\nexpected:\n%s", (unsigned)status, text, expected);
    return 1;
}
