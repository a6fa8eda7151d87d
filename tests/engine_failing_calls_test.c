/* Every system call that the engine makes fails in turn: there is a sentence or service, and
 * nothing is left. And what the engine reads of the machine, as other machines have it. */
/* ctest: failing calls */
#include <criterion/criterion.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "engine/base/cpus.h"
#include "engine/ring/event.h"
#include "engine/ring/random.h"
#include "engine/ring/sockets.h"
#include "engine/stream/registered.h"
#include "support/engine_server.h"
#include "support/failing_calls.h"
#include "support/raw_client.h"
#include "support/test_allocator.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

TestSuite(engine_failing_calls, .timeout = 100);

static test_allocator memory;
static const rws_allocator allocator = TEST_ALLOCATOR(&memory);

static void skip_without_io_uring(void)
{
    rws_probe probe = {.size = sizeof probe};
    if (rws_probe_kernel(&probe) != 0) cr_skip_test("%s", probe.text);
}

static size_t descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    cr_assert_not_null(dir);
    size_t count = 0;
    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count;
}

/* ---- each fails in turn ---- */

static int serve(const char *unix_path, uint16_t port)
{
    engine_server server;
    test_options options = engine_server_options();
    options.shards = 2;
    options.unix_path = unix_path;
    options.address = port == 0 ? NULL : "::";
    options.allocator = &allocator;
    int res = engine_server_start(&server, &options, NULL);
    if (res != 0) {
        cr_assert_eq(server.error.status, res);
        cr_assert_gt(strlen(server.error.text), 10, "a sentence");
        return res;
    }
    raw_client client;
    if (unix_path == NULL && server.port != 0 && raw_open(&client, server.port)) {
        raw_frame frame;
        cr_assert(raw_send_frame(&client, RAW_TEXT, "hello", 5));
        cr_assert_eq(raw_read_frame(&client, &frame), 1);
        raw_close(&client);
    }
    return engine_server_stop(&server);
}

static int serve_tcp(void)
{
    return serve(NULL, 0);
}

static int serve_unix(void)
{
    char path[64];
    snprintf(path, sizeof path, "/tmp/ringws-failing-%d.sock", (int)getpid());
    int res = serve(path, 0);
    (void)unlink(path); /* where the engine's own failed */
    return res;
}

/* Nobody listens there: the dial itself fails, which its callback would be told. */
static int dial(void)
{
    test_options options = {.connections_max = 16, .allocator = &allocator};
    rws_handler handler = RWS_HANDLER_DEFAULT;
    rws_client *client = NULL;
    rws_error error = {0};
    int res = test_client_create(&client, &options, &handler, &error);
    if (res == 0) res = rws_client_start(client, &error);
    if (res != 0) cr_assert_eq(error.status, res);
    if (res == 0) res = test_dial(client, &options, "ws://127.0.0.1:9/", NULL, NULL);
    rws_client_destroy(client);
    return res;
}

/* Without fcntl(): that it makes a listener not wait is relied on, see of_a_socket_from_outside. */
static const struct turn {
    failing_call call;
    int error;
    bool may_work; /* what the call is for is not always needed */
    int other;     /* another status that it may lead to, or 0 */
} turns[] = {
    {CALL_mmap, ENOMEM, true, 0},
    {CALL_socket, EMFILE, true, 0},
    {CALL_bind, EACCES, true, 0},
    {CALL_listen, EADDRINUSE, false, 0},
    {CALL_lstat, EACCES, true, 0},
    {CALL_unlink, EACCES, true, 0},
    {CALL_setsockopt, EINVAL, true, -EADDRINUSE},
    {CALL_getsockname, ENOBUFS, true, 0},
    {CALL_getpeername, ENOTCONN, true, 0},
    {CALL_eventfd, EMFILE, false, 0},
    {CALL_getrandom, EINTR, true, 0},
    {CALL_pthread_create, EAGAIN, false, 0},
    {CALL_getrlimit, EINVAL, true, 0},
    {CALL_sched_getaffinity, EINVAL, true, 0},
    {CALL_syscall, EPERM, true, 0},
};

static void fail_in_turn(int (*run)(void))
{
    cr_assert_eq(run(), 0, "all works");
    size_t before = descriptors(), mapped = failing_calls_mapped();
    for (size_t i = 0; i < COUNT(turns); i++) {
        const char *name = failing_call_names[turns[i].call];
        for (size_t nth = 1;; nth++) {
            failing_calls_arm(turns[i].call, nth, turns[i].error);
            int res = run();
            bool failed = failing_calls_seen() >= nth;
            failing_calls_disarm();
            cr_expect_eq(memory.bytes, 0, "%s %zu: %zu bytes left", name, nth, memory.bytes);
            cr_expect_eq(failing_calls_mapped(), mapped, "%s %zu: memory is mapped", name, nth);
            cr_expect_eq(descriptors(), before, "%s %zu: descriptors are open", name, nth);
            if (!failed) {
                cr_expect_eq(res, 0, "%s: no call failed: %d", name, res);
                break;
            }
            if (res == turns[i].other) continue;
            if (res != 0 || !turns[i].may_work)
                /* Where the probe meets it first: io_uring is not permitted. */
                cr_expect(res == -turns[i].error || res == RWS_E_RING_BLOCKED, "%s %zu: %d", name,
                          nth, res);
        }
    }
}

Test(engine_failing_calls, of_a_server)
{
    skip_without_io_uring();
    fail_in_turn(serve_tcp);
}

Test(engine_failing_calls, of_a_server_on_a_unix_socket)
{
    skip_without_io_uring();
    fail_in_turn(serve_unix);
}

Test(engine_failing_calls, of_a_client)
{
    skip_without_io_uring();
    fail_in_turn(dial);
}

/* ---- no memory from some moment on ---- */

static rws_server *running;

static void stop_running(int signal)
{
    (void)signal;
    rws_server_stop(running);
}

/* On this thread and another one, until a signal says that it stops. */
static int run_server(bool wants_error)
{
    test_options options = engine_server_options();
    options.shards = 2;
    options.allocator = &allocator;
    rws_handler handler = RWS_HANDLER_DEFAULT;
    rws_error error = {0};
    int res = test_server_create(&running, &options, &handler, &error);
    if (res != 0) return res;
    const struct itimerval soon = {.it_value.tv_usec = 30000}, never = {0};
    cr_assert_eq(setitimer(ITIMER_REAL, &soon, NULL), 0);
    res = rws_server_run(running, wants_error ? &error : NULL);
    cr_assert_eq(setitimer(ITIMER_REAL, &never, NULL), 0);
    if (res != 0 && wants_error) cr_expect_gt(strlen(error.text), 10, "a sentence");
    if (wants_error) cr_expect_eq(error.status, res);
    rws_server_destroy(running);
    return res;
}

Test(engine_failing_calls, of_all_memory_from_some_moment_on)
{
    skip_without_io_uring();
    cr_assert_neq(signal(SIGALRM, stop_running), SIG_ERR);
    cr_assert_eq(run_server(true), 0);
    size_t before = descriptors(), mapped = failing_calls_mapped(), failures = 0;
    for (size_t from = 1;; from++) {
        failing_calls_arm_from(CALL_mmap, from, ENOMEM);
        int res = run_server(from % 2 == 0);
        bool failed = failing_calls_seen() >= from;
        failing_calls_disarm();
        cr_expect_eq(memory.bytes, 0, "%zu: %zu bytes left", from, memory.bytes);
        cr_expect_eq(failing_calls_mapped(), mapped, "%zu: memory is mapped", from);
        cr_expect_eq(descriptors(), before, "%zu: descriptors are open", from);
        cr_expect(res == 0 || res == -ENOMEM, "%zu: %d", from, res);
        failures += res != 0;
        if (!failed) break;
    }
    cr_expect_gt(failures, 10);
}

/* ---- sockets ---- */

static const rws__socket_options plain;

static int unix_socket(const char *path, int type, bool listens)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, type, 0);
    cr_assert_geq(fd, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    if (listens) cr_assert_eq(listen(fd, 1), 0);
    return fd;
}

/* A file that a socket left: it is taken over, unless looking at it fails. */
Test(engine_failing_calls, of_a_left_socket_file)
{
    static const struct {
        failing_call call;
        int error, result; /* 0: a listener */
    } rows[] = {
        {CALL_uname, 0, 0}, /* none fails */
        {CALL_lstat, EACCES, 0},
        {CALL_connect, EACCES, 0},
        {CALL_unlink, EACCES, 0},
        {CALL_bind, EACCES, -EACCES},
        {CALL_listen, EADDRINUSE, -EADDRINUSE},
        {CALL_socket, EMFILE, -EMFILE},
    };
    char path[64];
    snprintf(path, sizeof path, "/tmp/ringws-left-%d.sock", (int)getpid());
    for (size_t i = 0; i < COUNT(rows); i++) {
        (void)unlink(path);
        close(unix_socket(path, SOCK_STREAM, true));
        failing_calls_arm(rows[i].call, 1, rows[i].error);
        rws__socket_file file;
        int fd = rws__socket_listen_unix(path, 1, &plain, &file);
        failing_calls_disarm();
        cr_expect_eq(fd < 0 ? fd : 0, rows[i].result, "%s: %d", failing_call_names[rows[i].call],
                     fd);
        if (fd >= 0) {
            cr_expect_eq(rws__socket_check_listening(fd), 0);
            rws__socket_close(fd);
        }
    }
    /* The second socket is the one that tries whether somebody listens: tried again. */
    (void)unlink(path);
    close(unix_socket(path, SOCK_STREAM, true));
    failing_calls_arm(CALL_socket, 2, EMFILE);
    rws__socket_file file, other;
    int fd = rws__socket_listen_unix(path, 1, &plain, &file);
    failing_calls_disarm();
    cr_expect_geq(fd, 0);

    /* Only the file that it made is removed. */
    other = (rws__socket_file){file.device, file.inode + 1};
    rws__socket_unlink(path, &other);
    other = (rws__socket_file){file.device + 1, file.inode};
    rws__socket_unlink(path, &other);
    cr_expect_eq(access(path, F_OK), 0, "another file's numbers");
    rws__socket_unlink(path, &file);
    cr_expect_neq(access(path, F_OK), 0);
    rws__socket_unlink(path, &file); /* it is gone */
    rws__socket_close(fd);
}

Test(engine_failing_calls, a_socket_file_that_is_in_use_or_none_is_left)
{
    char path[64];
    snprintf(path, sizeof path, "/tmp/ringws-used-%d.sock", (int)getpid());
    rws__socket_file file;
    int held = unix_socket(path, SOCK_STREAM, true);
    cr_expect_eq(rws__socket_listen_unix(path, 1, &plain, &file), -EADDRINUSE, "somebody listens");
    close(held);
    (void)unlink(path);
    cr_assert_eq(mkdir(path, 0700), 0);
    cr_expect_eq(rws__socket_listen_unix(path, 1, &plain, &file), -EADDRINUSE, "no socket");
    cr_expect_eq(rmdir(path), 0);
}

Test(engine_failing_calls, of_a_socket_from_outside)
{
    char path[64];
    snprintf(path, sizeof path, "/tmp/ringws-given-%d.sock", (int)getpid());
    int fd = unix_socket(path, SOCK_SEQPACKET, true);
    cr_expect_eq(rws__socket_check_listening(fd), -EINVAL, "not a stream");
    close(fd);
    (void)unlink(path);
    fd = unix_socket(path, SOCK_STREAM, false);
    cr_expect_eq(rws__socket_check_listening(fd), -EINVAL, "it does not listen");
    cr_expect_eq(listen(fd, 1), 0);
    cr_expect_eq(rws__socket_check_listening(fd), 0);
    for (size_t nth = 1; nth <= 2; nth++) {
        failing_calls_arm(CALL_getsockopt, nth, ENOPROTOOPT);
        cr_expect_eq(rws__socket_check_listening(fd), -ENOPROTOOPT, "%zu", nth);
    }
    static const struct {
        failing_call call;
        size_t nth;
    } rows[] = {{CALL_getsockname, 1}, {CALL_fcntl, 1}, {CALL_fcntl, 2}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        cr_assert_eq(rws__socket_stop_waiting(fd), 0);
        failing_calls_arm(rows[i].call, rows[i].nth, EBADF);
        cr_expect_eq(rws__socket_inherit(fd, &plain), -EBADF, "row %zu", i);
    }
    failing_calls_disarm();
    cr_expect_eq(rws__socket_inherit(fd, &plain), 0);
    cr_expect_eq(fcntl(fd, F_GETFL) & O_NONBLOCK, 0, "the ring waits");
    struct sockaddr_storage address;
    cr_expect_eq(rws__socket_peer(fd, &address), -ENOTCONN);
    close(fd);
    (void)unlink(path);
    cr_expect_eq(rws__socket_check_listening(fd), -EBADF);
    cr_expect_eq(rws__socket_local(fd, &address), -EBADF);
}

Test(engine_failing_calls, of_a_new_socket_and_of_an_event)
{
    failing_calls_arm(CALL_socket, 1, EMFILE);
    cr_expect_eq(rws__socket_make(AF_INET, &plain), -EMFILE);
    failing_calls_arm(CALL_eventfd, 1, ENFILE);
    cr_expect_eq(rws__event_open(), -ENFILE);
}

Test(engine_failing_calls, random_bytes_are_asked_for_until_they_are_there)
{
    uint8_t bytes[32] = {0};
    const uint8_t zeroes[32] = {0};
    failing_calls_arm(CALL_getrandom, 1, EINTR);
    rws__random(bytes, sizeof bytes);
    cr_expect_eq(failing_calls_seen(), 2);
    cr_expect_arr_neq(bytes, zeroes, sizeof bytes);
}

/* ---- what the machine says of itself ---- */

Test(engine_failing_calls, cpus_of_a_control_group)
{
    static const struct {
        const char *group, *path, *quota;
        uint32_t set, cpus;
    } rows[] = {
        {"0::/\n", "/sys/fs/cgroup//cpu.max", "200000 100000\n", 8, 2},
        {"0::/a/b\n", "/sys/fs/cgroup/a/b/cpu.max", "50000 100000\n", 8, 1},
        {"0::/a/b\n", "/sys/fs/cgroup/a/b/cpu.max", "900000 100000\n", 8, 8},
        {"0::/a/b\n", "/sys/fs/cgroup/a/b/cpu.max", "max 100000\n", 8, 8},
        {"0::/a/b\n", "/sys/fs/cgroup/a/b/cpu.max", "200000 \n", 8, 8},
        {"0::/a/b\n", "/sys/fs/cgroup/a/b/cpu.max", "", 8, 8},
        {"0::/a/b\n", "/sys/fs/cgroup/a/b/cpu.max", NULL, 8, 8},
        {"4:cpu:/a\n", "/sys/fs/cgroup/a/cpu.max", "100000 100000\n", 8, 8}, /* version 1 */
        {"", "/sys/fs/cgroup/cpu.max", "100000 100000\n", 8, 8},
        {NULL, "/sys/fs/cgroup/cpu.max", "100000 100000\n", 8, 8},
        {NULL, "/sys/fs/cgroup/cpu.max", NULL, 0, 1},
        {NULL, "/sys/fs/cgroup/cpu.max", NULL, 1024, RWS__SHARDS_MAX},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        const failing_file files[] = {
            {"/proc/self/cgroup", rows[i].group}, {rows[i].path, rows[i].quota}, {NULL, NULL}};
        cpu_set_t set;
        CPU_ZERO(&set);
        for (size_t cpu = 0; cpu < rows[i].set; cpu++)
            CPU_SET(cpu, &set);
        failing_calls_files(files);
        failing_calls_affinity(&set);
        uint32_t cpus = rws__cpus_available();
        failing_calls_files(NULL);
        cr_expect_eq(cpus, rows[i].cpus, "row %zu: %u", i, cpus);
    }
    failing_calls_affinity(NULL);
    failing_calls_arm(CALL_sched_getaffinity, 1, ENOSYS);
    cr_expect_eq(rws__cpus_available(), 1);
}

Test(engine_failing_calls, regions_under_a_limit_of_locked_memory)
{
    static const struct {
        rlim_t limit;
        uint32_t shards, regions;
    } rows[] = {
        {0, 1, 0},
        {(rlim_t)8 << 20, 1, 2},
        {(rlim_t)8 << 20, 2, 1},
        {(rlim_t)8 << 20, 3, 0},
        {(rlim_t)64 << 20, 1, RWS__REGISTERED_MAX},
        {(rlim_t)640 << 20, 1, RWS__REGISTERED_MAX},
        {RLIM_INFINITY, 4, RWS__REGISTERED_MAX},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        const struct rlimit limit = {rows[i].limit, rows[i].limit};
        failing_calls_limit(&limit);
        failing_calls_arm(CALL_syscall, 1, EPERM); /* which capabilities it has is not known */
        uint32_t regions = rws__registered_regions_max(rows[i].shards);
        cr_expect_eq(failing_calls_seen(), 1);
        cr_expect_eq(regions, rows[i].regions, "row %zu: %u", i, regions);
    }
}

Test(engine_failing_calls, what_a_probe_reads)
{
    skip_without_io_uring();
    static const struct {
        const char *somaxconn, *status;
        uint32_t wanted;
    } rows[] = {
        {"4096\n", "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n", 4096},
        {"128", "Name:\tx\n", 128},
        {"none\n", "", 0},
        {"", NULL, 0},
        {NULL, NULL, 0},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        const failing_file files[] = {{"/proc/sys/net/core/somaxconn", rows[i].somaxconn},
                                      {"/proc/self/status", rows[i].status},
                                      {NULL, NULL}};
        rws_probe probe = {.size = sizeof probe};
        failing_calls_files(files);
        cr_expect_eq(rws_probe_kernel(&probe), 0, "row %zu: %s", i, probe.text);
        failing_calls_files(NULL);
        cr_expect_eq(probe.somaxconn, rows[i].wanted, "row %zu: %u", i, probe.somaxconn);
    }
}

Test(engine_failing_calls, a_probe_on_a_machine_of_another_age)
{
    skip_without_io_uring();
    static const struct {
        const char *release;
        int status;
    } rows[] = {
        {"6.1.0-21-amd64", 0}, {"7.0", 0}, {"6", RWS_E_KERNEL_OLD}, {"5.10.1", RWS_E_KERNEL_OLD}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        rws_probe probe = {.size = sizeof probe};
        failing_calls_release(rows[i].release);
        cr_expect_eq(rws_probe_kernel(&probe), rows[i].status, "%s: %s", rows[i].release,
                     probe.text);
        cr_expect_str_eq(probe.kernel, rows[i].release);
    }
    failing_calls_release(NULL);
    failing_calls_arm(CALL_uname, 1, EFAULT);
    rws_probe probe = {.size = sizeof probe};
    cr_expect_eq(rws_probe_kernel(&probe), RWS_E_KERNEL_OLD, "no version is not a new one");
    cr_expect_str_eq(probe.kernel, "");
}

Test(engine_failing_calls, a_probe_under_limits)
{
    skip_without_io_uring();
    rws_probe probe = {.size = sizeof probe};
    struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
    failing_calls_limit(&limit);
    cr_expect_eq(rws_probe_kernel(&probe), 0, "%s", probe.text);
    cr_expect_eq(probe.memlock_soft, UINT64_MAX);

    limit = (struct rlimit){32, 4096};
    cr_expect_neq(rws_probe_kernel(&probe), 0, "no connection is allowed");
    cr_expect_str_eq(probe.blocked_by, "descriptors");
    cr_expect_eq(probe.descriptors_soft, 32);
    cr_expect_eq(probe.descriptors_hard, 4096);
    cr_expect_eq(probe.memlock_soft, 32);

    failing_calls_release("5.4"); /* the first cause stays */
    cr_expect_eq(rws_probe_kernel(&probe), RWS_E_KERNEL_OLD);
    cr_expect_str_eq(probe.blocked_by, "version");
    failing_calls_release(NULL);
    failing_calls_limit(NULL);
    for (size_t nth = 1; nth <= 2; nth++) {
        rws_probe other = {.size = sizeof other};
        failing_calls_arm(CALL_getrlimit, nth, EFAULT);
        cr_expect_eq(rws_probe_kernel(&other), 0, "%s", other.text);
        cr_expect_eq(nth == 1 ? other.descriptors_soft : other.memlock_soft, 0);
    }
}
