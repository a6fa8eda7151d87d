/* CPU time of a process between two moments: threads that stay, appear and end. */
#include <criterion/criterion.h>

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tools/cpu_time.h"

#define MS UINT64_C(1000000)

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void burn(uint64_t ns)
{
    uint64_t end = clock_ns(CLOCK_THREAD_CPUTIME_ID) + ns;
    while (clock_ns(CLOCK_THREAD_CPUTIME_ID) < end)
        ;
}

/* The kernel brings a running thread's figure up to date at its ticks, 1 to 10 ms apart. */
static void check_burnt(uint64_t got_ns, uint64_t wanted_ns)
{
    cr_assert(got_ns + 15 * MS >= wanted_ns && got_ns <= wanted_ns + 60 * MS,
              "%lu ms instead of %lu ms", got_ns / MS, wanted_ns / MS);
}

static cpu_time start, end;

Test(cpu_time, test_no_such_process)
{
    pid_t child = fork();
    if (child == 0) _exit(0);
    waitpid(child, NULL, 0);
    cr_assert_eq(cpu_time_read(child, &start), -ESRCH);
}

Test(cpu_time, test_of_another_process)
{
    int go[2], done[2];
    cr_assert_eq(pipe(go), 0);
    cr_assert_eq(pipe(done), 0);
    pid_t child = fork();
    char byte = 0;
    if (child == 0) {
        if (read(go[0], &byte, 1) == 1) burn(100 * MS);
        if (write(done[1], &byte, 1) == 1) pause();
        _exit(0);
    }
    cr_assert_eq(cpu_time_read(child, &start), 0);
    cr_assert_eq(write(go[1], &byte, 1), 1);
    cr_assert_eq(read(done[0], &byte, 1), 1);
    usleep(20000); /* so that it sleeps, and its figure is final */
    cr_assert_eq(cpu_time_read(child, &end), 0);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    cr_assert_eq(end.threads, 1);
    check_burnt(cpu_time_between(&start, &end), 100 * MS);
}

static sem_t burnt, leave;

static void *burn_and_wait(void *arg)
{
    burn(100 * MS);
    sem_post(&burnt);
    sem_wait(&leave);
    return arg;
}

Test(cpu_time, test_a_new_thread_counts_from_zero)
{
    sem_init(&burnt, 0, 0);
    sem_init(&leave, 0, 0);
    cr_assert_eq(cpu_time_read(getpid(), &start), 0);
    pthread_t thread;
    pthread_create(&thread, NULL, burn_and_wait, NULL);
    sem_wait(&burnt);
    usleep(20000);
    cr_assert_eq(cpu_time_read(getpid(), &end), 0);
    sem_post(&leave);
    pthread_join(thread, NULL);
    cr_assert_eq(end.threads, start.threads + 1);
    check_burnt(cpu_time_between(&start, &end), 100 * MS);
}

Test(cpu_time, test_a_thread_that_ended_is_not_forgotten)
{
    sem_init(&burnt, 0, 0);
    sem_init(&leave, 0, 0);
    pthread_t thread;
    sem_t first;
    sem_init(&first, 0, 0);
    pthread_create(&thread, NULL, burn_and_wait, NULL);
    cr_assert_eq(cpu_time_read(getpid(), &start), 0);
    sem_post(&leave);
    pthread_join(thread, NULL);
    cr_assert_eq(cpu_time_read(getpid(), &end), 0);
    check_burnt(cpu_time_between(&start, &end), 100 * MS);
}

Test(cpu_time, test_more_threads_than_the_table_holds)
{
    start = (cpu_time){.threads = 0, .threads_cut = true, .process_ns = 5 * MS};
    end = (cpu_time){.threads = 0, .process_ns = 9 * MS};
    cr_assert_eq(cpu_time_between(&start, &end), 4 * MS);
    cr_assert_eq(cpu_time_between(&end, &start), 0);
}
