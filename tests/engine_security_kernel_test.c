/*
 * io_uring blocked, ports in use, servers that were killed, servers that stop: one sentence, or
 * service.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/engine_checks.h"
#include "support/engine_server.h"
#include "support/raw_client.h"

TestSuite(engine_security_kernel, .timeout = 60);

#define SKIPPED 77
#define BACKLOG 60

/* Run `child(arg)` in a process of its own; its exit status, or 128 + the signal. */
static int in_child(int (*child)(const void *arg), const void *arg)
{
    (void)fflush(NULL);
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        int status = child(arg);
        (void)fflush(NULL);
        _exit(status);
    }
    int status;
    while (waitpid(pid, &status, 0) < 0)
        cr_assert_eq(errno, EINTR);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- seccomp ---- */

typedef struct filter {
    uint32_t call;
    uint32_t error;
} filter;

static bool install(const filter *which)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, which->call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | which->error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = 4, .filter = code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static int blocked(const void *arg)
{
    if (!install(arg)) return SKIPPED;
    engine_server server;
    int res = engine_server_start(&server, NULL, NULL);
    if (res != RWS_E_RING_BLOCKED) {
        fprintf(stderr, "it gave %d: %s\n", res, server.error.text);
        return 1;
    }
    if (strstr(server.error.text, "seccomp") == NULL) {
        fprintf(stderr, "no seccomp in: %s\n", server.error.text);
        return 2;
    }
    rws_probe probe = {.size = sizeof probe};
    res = rws_probe_kernel(&probe);
    if (res != RWS_E_RING_BLOCKED || strcmp(probe.blocked_by, "seccomp") != 0) {
        fprintf(stderr, "the probe says %d, %s: %s\n", res, probe.blocked_by, probe.text);
        return 3;
    }
    rws_client *client;
    test_options options = {0};
    rws_handler handler = RWS_HANDLER_DEFAULT;
    rws_error error = {0};
    res = test_client_create(&client, &options, &handler, &error);
    return res == RWS_E_RING_BLOCKED && strstr(error.text, "seccomp") != NULL ? 0 : 4;
}

Test(engine_security_kernel, a_seccomp_filter_is_named)
{
    static const filter filters[] = {
        {__NR_io_uring_setup, EPERM},
        {__NR_io_uring_setup, ENOSYS},
        {__NR_io_uring_register, EPERM},
        {__NR_io_uring_enter, EPERM},
    };
    for (size_t i = 0; i < sizeof filters / sizeof filters[0]; i++) {
        int status = in_child(blocked, &filters[i]);
        if (status == SKIPPED) cr_skip_test("this kernel takes no seccomp filter");
        cr_expect_eq(status, 0, "filter %zu: %d", i, status);
    }
}

/* ---- locked memory ---- */

/* Serve as a user who is not root with so much locked memory. */
static int serve_unprivileged(const void *arg)
{
    const rlim_t *bytes = arg;
    struct rlimit limit = {*bytes, *bytes};
    if (setrlimit(RLIMIT_MEMLOCK, &limit) != 0) return SKIPPED;
    if (geteuid() == 0 && (setgroups(0, NULL) != 0 || setgid(65534) != 0 || setuid(65534) != 0))
        return SKIPPED;
    engine_server server;
    test_options options = engine_server_options();
    options.shards = 4;
    options.connections_max = 0;
    int res = engine_server_start(&server, &options, NULL);
    if (res != 0) {
        fprintf(stderr, "%s\n", server.error.text);
        return res == -ENOMEM && strstr(server.error.text, "ulimit -l") != NULL ? 1 : 2;
    }
    bool good = engine_server_serves(&server);
    return engine_server_stop(&server) == 0 && good ? 0 : 3;
}

Test(engine_security_kernel, eight_mebibytes_of_locked_memory_are_enough)
{
    rlim_t bytes = 8u << 20;
    int status = in_child(serve_unprivileged, &bytes);
    if (status == SKIPPED) cr_skip_test("the limit or the user can't be set here");
    cr_expect_eq(status, 0, "%d", status);
}

Test(engine_security_kernel, without_locked_memory_it_serves_or_says_why)
{
    rlim_t bytes = 0;
    int status = in_child(serve_unprivileged, &bytes);
    if (status == SKIPPED) cr_skip_test("the limit or the user can't be set here");
    cr_expect(status == 0 || status == 1, "%d", status);
}

/* ---- ports and paths in use ---- */

Test(engine_security_kernel, a_second_server_on_the_port_is_refused_with_a_sentence)
{
    static const uint32_t shards[] = {1, 2};
    for (size_t i = 0; i < 2; i++) {
        engine_server first, second;
        test_options options = engine_server_options();
        options.shards = shards[i];
        cr_assert_eq(engine_server_start(&first, &options, NULL), 0);
        options.port = first.port;
        int res = engine_server_start(&second, &options, NULL);
        char port[8];
        snprintf(port, sizeof port, "%u", first.port);
        cr_expect_eq(res, -EADDRINUSE, "%d", res);
        cr_expect_not_null(strstr(second.error.text, port), "%s", second.error.text);
        cr_expect_not_null(strstr(second.error.text, "in use"), "%s", second.error.text);
        cr_expect(engine_server_serves(&first));
        cr_expect_eq(engine_server_stop(&first), 0);
        /* And when the first is gone it is free at once. */
        cr_assert_eq(engine_server_start(&second, &options, NULL), 0, "%s", second.error.text);
        cr_expect(engine_server_serves(&second));
        cr_expect_eq(engine_server_stop(&second), 0);
    }
}

Test(engine_security_kernel, a_unix_path_in_use_or_taken_by_a_file_is_left_alone)
{
    char path[64];
    engine_server first, second;
    test_options options = engine_server_options();
    snprintf(path, sizeof path, "/tmp/ringws-path-%d.sock", (int)getpid());
    options.unix_path = path;
    cr_assert_eq(engine_server_start(&first, &options, NULL), 0, "%s", first.error.text);
    cr_expect_eq(engine_server_start(&second, &options, NULL), -EADDRINUSE);
    cr_expect_not_null(strstr(second.error.text, path), "%s", second.error.text);
    raw_client client;
    cr_assert(raw_connect_unix(&client, path));
    cr_expect(raw_upgrade(&client));
    raw_close(&client);
    cr_expect_eq(engine_server_stop(&first), 0);

    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    close(fd);
    cr_expect_eq(engine_server_start(&second, &options, NULL), -EADDRINUSE);
    cr_expect_eq(access(path, F_OK), 0, "the file is gone");
    (void)unlink(path);

    char long_path[200];
    memset(long_path, 'x', sizeof long_path);
    long_path[sizeof long_path - 1] = '\0';
    options.unix_path = long_path;
    cr_expect_eq(engine_server_start(&second, &options, NULL), RWS_E_ADDRESS);
    options.unix_path = NULL;
    options.address = "example.org";
    cr_expect_eq(engine_server_start(&second, &options, NULL), RWS_E_ADDRESS);
    cr_expect_not_null(strstr(second.error.text, "example.org"), "%s", second.error.text);
}

/* ---- killed, and started again ---- */

/* A process that serves; its port comes through the pipe. */
static pid_t spawn(const test_options *options, uint16_t *port)
{
    int ends[2];
    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    (void)fflush(NULL);
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        engine_server server;
        if (engine_server_start(&server, options, NULL) != 0) _exit(1);
        if (write(ends[1], &server.port, sizeof server.port) != sizeof server.port) _exit(1);
        for (;;)
            pause();
    }
    close(ends[1]);
    cr_assert_eq(read(ends[0], port, sizeof *port), sizeof *port);
    close(ends[0]);
    return pid;
}

Test(engine_security_kernel, a_killed_server_starts_again_at_once)
{
    for (int round = 0; round < 4; round++) {
        char path[64];
        uint16_t port = 0;
        bool is_unix = round % 2 == 1;
        test_options options = engine_server_options();
        options.shards = 2;
        snprintf(path, sizeof path, "/tmp/ringws-kill-%d.sock", (int)getpid());
        if (is_unix) options.unix_path = path;
        pid_t pid = spawn(&options, &port);
        raw_client clients[20];
        for (int i = 0; i < 20; i++) {
            cr_assert(is_unix ? raw_connect_unix(&clients[i], path)
                              : raw_connect(&clients[i], "127.0.0.1", port, 0));
            cr_assert(raw_upgrade(&clients[i]));
            cr_assert(raw_send_frame(&clients[i], RAW_TEXT, "x", 1));
        }
        cr_assert_eq(kill(pid, SIGKILL), 0);
        cr_assert_eq(waitpid(pid, NULL, 0), pid);
        engine_server server;
        options.port = port;
        int res = engine_server_start(&server, &options, NULL);
        cr_assert_eq(res, 0, "round %d: %s", round, server.error.text);
        if (!is_unix) cr_expect(engine_server_serves(&server));
        for (int i = 0; i < 20; i++) {
            cr_expect(raw_read_end(&clients[i]));
            raw_close(&clients[i]);
        }
        cr_expect(engine_server_await_connections(&server, 0));
        cr_expect_eq(engine_server_stop(&server), 0);
    }
}

/* ---- drain ---- */

static int hold(rws_conn *conn, const rws_message *message, void *user)
{
    (void)message;
    engine_server *server = user;
    (void)conn;
    atomic_fetch_add(&server->messages, 1);
    test_sleep_ms(400);
    return 0;
}

/* Stopped while more connections than accepts are armed are in the backlog, with their requests:
 * each is answered. */
Test(engine_security_kernel, a_drain_says_1001_and_answers_the_backlog)
{
    EACH_FEATURES(off)
    {
        engine_server server;
        test_options options = engine_server_options();
        rws_handler handler = engine_server_handler();
        options.features_off = *off;
        handler.on_message = hold;
        cr_assert_eq(engine_server_start(&server, &options, &handler), 0);
        raw_client open[5], waiting[BACKLOG];
        for (int i = 0; i < 5; i++)
            cr_assert(raw_open(&open[i], server.port));
        cr_assert(raw_send_frame(&open[0], RAW_TEXT, "x", 1));
        cr_assert(engine_server_await(&server.messages, 1));
        for (int i = 0; i < BACKLOG; i++) {
            cr_assert(raw_connect(&waiting[i], "127.0.0.1", server.port, 0));
            cr_assert(raw_send_text(&waiting[i],
                                    "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                                    "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                                    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"));
        }
        rws_server_stop(server.server);
        for (int i = 0; i < 5; i++) {
            cr_expect_eq(raw_read_close(&open[i]), 1001);
            (void)raw_send_frame(&open[i], RAW_CLOSE, "\x03\xE9", 2);
            cr_expect(raw_read_end(&open[i]));
            raw_close(&open[i]);
        }
        for (int i = 0; i < BACKLOG; i++) {
            char head[1024];
            int status = raw_read_head(&waiting[i], head, sizeof head);
            cr_expect(status == 503 || status == 101, "waiting %d: %d", i, status);
            if (status == 101) cr_expect_eq(raw_read_close(&waiting[i]), 1001);
            raw_close(&waiting[i]);
        }
        cr_expect_eq(rws_server_wait(server.server), 0);
        rws_stats stats = engine_server_stats(&server);
        cr_expect_eq(stats.connections, 0);
        cr_expect_eq(stats.cut_off, 0);
        cr_expect_eq(atomic_load(&server.opened), atomic_load(&server.closed));
        raw_client late;
        cr_expect_not(raw_connect(&late, "127.0.0.1", server.port, 0), "it still listens");
        cr_expect_eq(engine_server_stop(&server), 0);
    }
}

Test(engine_security_kernel, a_drain_cuts_off_who_does_not_close)
{
    EACH_FEATURES(off)
    {
        engine_server server;
        test_options options = engine_server_options();
        options.features_off = *off;
        options.close_timeout_ms = 10000;
        options.drain_timeout_ms = 300;
        cr_assert_eq(engine_server_start(&server, &options, NULL), 0);
        raw_client stubborn, asking;
        cr_assert(raw_open(&stubborn, server.port));
        cr_assert(raw_connect(&asking, "127.0.0.1", server.port, 0));
        cr_assert(engine_server_await_connections(&server, 2));
        uint64_t begin = test_now_ms();
        rws_server_stop(server.server);
        rws_server_stop(server.server);
        cr_expect_eq(rws_server_wait(server.server), RWS_E_TIMEOUT);
        cr_expect_lt(test_now_ms() - begin, 2000);
        cr_expect_eq(engine_server_stats(&server).connections, 0);
        cr_expect_geq(engine_server_stats(&server).cut_off, 1);
        cr_expect_eq(raw_read_close(&stubborn), 1001);
        cr_expect(raw_read_end(&stubborn));
        cr_expect(raw_read_end(&asking));
        cr_expect_eq(atomic_load(&server.closed), 1);
        raw_close(&stubborn);
        raw_close(&asking);
        cr_expect_eq(engine_server_stop(&server), RWS_E_TIMEOUT);
    }
}
