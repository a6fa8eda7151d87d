/*
 * The testing kit needs no ring, no thread, no socket and no event: it works in a process that is
 * killed if it asks for one. ctest: testing kit
 */
#include "ringws/testing.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SKIP 77

#define KILL_ON(number)                                                                            \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (number), 0, 1),                                           \
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)

/* From now on what the kit must not need kills the process. */
static bool forbid(void)
{
    static struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        KILL_ON(SYS_io_uring_setup),
        KILL_ON(SYS_io_uring_enter),
        KILL_ON(SYS_io_uring_register),
        KILL_ON(SYS_socket),
        KILL_ON(SYS_socketpair),
        KILL_ON(SYS_eventfd2),
        KILL_ON(SYS_clone),
        KILL_ON(SYS_clone3),
        KILL_ON(SYS_epoll_create1),
        KILL_ON(SYS_timerfd_create),
        KILL_ON(SYS_nanosleep),
        KILL_ON(SYS_clock_nanosleep),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {sizeof rules / sizeof rules[0], rules};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static int echo(rws_conn *conn, const rws_message *message, void *user)
{
    (void)user;
    return rws_conn_send_message(conn, message);
}

/* What a test does: connections both ways, posts, deadlines, a drain. */
static void use_the_kit(void)
{
    rws_handler handler = RWS_HANDLER_DEFAULT;
    handler.on_message = echo;
    rws_endpoint_options client = RWS_ENDPOINT_OPTIONS_DEFAULT;
    client.handler = &handler;
    client.role = RWS_CLIENT;
    rws_test_options options = RWS_TEST_OPTIONS_DEFAULT;
    options.handler = &handler;
    options.endpoints = &(const rws_endpoint_options *){&client};
    options.endpoints_count = 1;
    rws_test *test = rws_test_open_with(&options);
    rws_test_peer *peer = rws_test_connect(test);
    rws_test_feed_text(peer, "hello");
    rws_test_expect_text(peer, "hello");
    rws_post_send(rws_test_runtime(test), rws_conn_id(rws_test_conn(peer)),
                  RWS_MESSAGE_TEXT("posted"));
    rws_test_expect_text(peer, "posted");
    rws_test_dial(test, NULL);
    rws_test_peer *dialled = rws_test_accept(test, NULL);
    rws_test_feed_text(dialled, "hello");
    rws_test_expect_text(dialled, "hello");
    rws_test_connect_raw(test, NULL, 0);
    rws_test_advance(test, 60000);
    rws_test_close(test);
}

static void ask_for_a_socket(void)
{
    (void)socket(AF_INET, SOCK_STREAM, 0);
}

/* The status of a process that may do less, and calls `work`; SKIP where that can't be had. */
static int run(void (*work)(void))
{
    pid_t pid = fork();
    if (pid < 0) return SKIP << 8;
    if (pid == 0) {
        if (!forbid()) _exit(SKIP);
        work();
        _exit(0);
    }
    int status;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return status;
}

int main(void)
{
    int control = run(ask_for_a_socket);
    if (WIFEXITED(control) && WEXITSTATUS(control) == SKIP) {
        printf("skipped: seccomp filters can't be had here\n");
        return SKIP;
    }
    if (!WIFSIGNALED(control)) {
        printf("a process that asks for a socket was not killed\n");
        return 1;
    }
    int status = run(use_the_kit);
    if (status == 0) return 0;
    printf("the kit did what it must not, or failed: status %x\n", (unsigned)status);
    return 1;
}
