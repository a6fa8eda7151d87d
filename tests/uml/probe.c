/*
 * What the engine's tests need of a kernel, tried with nothing of ringws: a ring with the flags
 * that the engine uses, and one message over loopback TCP that is received through it. Prints the
 * kernel's release. Exit 77: io_uring is not to be had here.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <liburing.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

static int fail(const char *what, int error)
{
    fprintf(stderr, "probe: %s: %s\n", what, strerror(error));
    return 1;
}

/* A connected pair over loopback. */
static int connect_pair(int pair[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    pair[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || pair[0] < 0) return errno;
    if (bind(listener, (struct sockaddr *)&address, len) < 0 || listen(listener, 1) < 0 ||
        getsockname(listener, (struct sockaddr *)&address, &len) < 0 ||
        connect(pair[0], (struct sockaddr *)&address, len) < 0)
        return errno;
    pair[1] = accept(listener, NULL, NULL);
    close(listener);
    return pair[1] < 0 ? errno : 0;
}

static int echo_through_ring(struct io_uring *ring)
{
    static const char sent[] = "over loopback";
    char received[sizeof(sent)] = "";
    int pair[2] = {-1, -1};
    int error = connect_pair(pair);
    if (error != 0) return fail("loopback TCP", error);

    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    io_uring_prep_recv(sqe, pair[1], received, sizeof(received), MSG_WAITALL);
    sqe = io_uring_get_sqe(ring);
    io_uring_prep_send(sqe, pair[0], sent, sizeof(sent), 0);
    int submitted = io_uring_submit_and_wait(ring, 2);
    if (submitted != 2) return fail("io_uring_submit_and_wait", -submitted);

    struct io_uring_cqe *cqe;
    for (int i = 0; i < 2; i++) {
        int status = io_uring_wait_cqe(ring, &cqe);
        if (status == 0 && cqe->res != (int)sizeof(sent)) status = cqe->res;
        if (status != 0) return fail("a completion", -status);
        io_uring_cqe_seen(ring, cqe);
    }
    close(pair[0]);
    close(pair[1]);
    return memcmp(sent, received, sizeof(sent)) == 0 ? 0 : fail("what came", EBADMSG);
}

int main(void)
{
    struct utsname name;
    struct io_uring ring;
    uname(&name);
    int status =
        io_uring_queue_init(8, &ring, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
    if (status < 0) {
        fprintf(stderr, "skipped: no ring on %s: %s\n", name.release, strerror(-status));
        return 77;
    }
    status = echo_through_ring(&ring);
    io_uring_queue_exit(&ring);
    if (status == 0) printf("a ring and loopback TCP work on %s\n", name.release);
    return status;
}
