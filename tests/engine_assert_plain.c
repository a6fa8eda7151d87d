/* An assert that fails tells the log hook of the shard that the thread runs, and aborts. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/base/assert.h"
#include "engine/base/env.h"

static void write_line(rws_log_level level, const char *line, void *user)
{
    if (level == RWS_LOG_ERROR) (void)!write(*(const int *)user, line, strlen(line));
}

/* The child's part: fail with the output end of the pipe as the hook's, or as the standard error.
 */
static void fail(int out, bool with_hook)
{
    const struct rlimit none = {0, 0};
    (void)setrlimit(RLIMIT_CORE, &none);
    rws__env env = {.log = write_line, .log_user = &out};
    rws__assert_log_to(&env);
    if (!with_hook) {
        rws__assert_log_to(NULL);
        (void)dup2(out, STDERR_FILENO);
    }
    RWS_ASSERT(1 + 1 == 2);
    RWS_ASSERT(1 + 1 == 3);
}

static bool aborts_with(bool with_hook, const char *wanted)
{
    int ends[2], status = 0;
    char text[512] = "";
    if (pipe(ends) != 0) return false;
    pid_t child = fork();
    if (child == 0) {
        fail(ends[1], with_hook);
        _exit(0);
    }
    close(ends[1]);
    size_t have = 0;
    for (ssize_t got; (got = read(ends[0], text + have, sizeof text - 1 - have)) > 0;)
        have += (size_t)got;
    close(ends[0]);
    waitpid(child, &status, 0);
    bool good = WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT &&
                strncmp(text, wanted, strlen(wanted)) == 0;
    if (!good) printf("wanted '%s…' and SIGABRT, got '%s' and status %d\n", wanted, text, status);
    return good;
}

int main(void)
{
    bool good = aborts_with(true, "assertion failed: 1 + 1 == 3 (");
    good &= aborts_with(false, "ringws: assertion failed: 1 + 1 == 3 (");
    return good ? 0 : 1;
}
