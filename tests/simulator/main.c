/*
 * The simulator's command: runs of seeds, one run again, exploring, torture, and shrinking what
 * fails.
 */
#include "simulator/world.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define JOBS_MAX 64u
/* A run that takes longer hangs. */
#define RUN_S_MAX    60u
#define SHRINK_S_MAX 10u

static const char usage_text[] =
    "usage: tests/simulate [--minutes N | --seconds N | --seeds N] [--from S] [--jobs N]   "
    "explore\n"
    "       tests/simulate --seed S [limits] [--trace]                       one run\n"
    "       tests/simulate --kept FILE                                       the seeds in FILE\n"
    "       tests/simulate --torture [--most N]   the 1st, 2nd, 3rd ... chance of each fault\n"
    "       tests/simulate --speed                virtual messages a second\n"
    "       tests/simulate --faults               the classes of faults\n"
    "limits: --steps N  --clients N  --raws N  --without CLASS[,CLASS...]  --fail CLASS:N\n"
    "--no-shrink: stop at the first failure, as it is\n"
    "\n"
    "Servers and clients of the engine, and peers without it, on a kernel made of memory, in "
    "virtual\n"
    "time. A seed is a run: the same seed does the same. Everything that is sent is numbered and\n"
    "checked; what fails is shrunk and printed as one command. Without an option: 200 fresh "
    "seeds.\n"
    "Exit status: 0 nothing failed, 1 something did, 2 a mistake in the command.\n";

/* What a run may be cut down to. */
typedef struct limits {
    uint32_t steps, clients, raws; /* UINT32_MAX: as the plan says */
    uint32_t without;              /* bits of faults */
    int fail_fault;                /* -1: none */
    uint64_t fail_at;
    bool torture; /* a calm plan */
} limits;

static const limits no_limits = {UINT32_MAX, UINT32_MAX, UINT32_MAX, 0, -1, 0, false};

typedef struct totals {
    uint64_t runs, messages, turns, opened, virtual_us, dial_errors;
    uint64_t strikes[RWS__SIM_FAULTS];
} totals;

/* Shared with the processes that run. */
typedef struct progress {
    volatile uint64_t seed[JOBS_MAX];
    totals totals[JOBS_MAX];
    uint64_t hash[JOBS_MAX], struck[JOBS_MAX];
    volatile bool over;
} progress;

static progress *shared;
static int shared_fd;
/* In the environment of a run that is only compared. */
#define AGAIN "RINGWS_SIMULATE_AGAIN"
static bool traced, shrinks = true;

static uint32_t run_s_max = RUN_S_MAX;

/* A child goes with its parent, however that ends. */
static pid_t fork_child(void)
{
    pid_t parent = getpid();
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) {
        perror("simulate: fork");
        exit(2);
    }
    if (pid > 0) return pid;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(2);
    return 0;
}

static double now_s(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static _Noreturn void complain(const char *text, const char *what)
{
    fprintf(stderr, "simulate: %s%s; see tests/simulate --help\n", text, what);
    exit(2);
}

static uint64_t number(const char *name, const char *text)
{
    char *end;
    errno = 0;
    uint64_t value = text != NULL ? strtoull(text, &end, 10) : 0;
    if (text == NULL || *text < '0' || *text > '9' || *end != '\0' || errno != 0)
        complain("a number is missing behind ", name);
    return value;
}

static uint32_t small_number(const char *name, const char *text)
{
    uint64_t value = number(name, text);
    if (value >= UINT32_MAX) complain("a smaller number is wanted behind ", name);
    return (uint32_t)value;
}

static double real_number(const char *name, const char *text)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= 0 && value <= 6e6))
        complain("a number is missing, or out of range, behind ", name);
    return value;
}

/* ---- one run ---- */

static void make_plan(plan *own, uint64_t seed, const limits *limit)
{
    plan_make(own, seed);
    if (limit->torture) plan_make_calm(own, seed);
    if (limit->steps < own->steps) own->steps = limit->steps;
    if (limit->clients < own->clients) own->clients = limit->clients;
    if (limit->raws < own->raws) own->raws = limit->raws;
    for (int fault = 0; fault < RWS__SIM_FAULTS; fault++)
        if (limit->without & (1u << fault)) own->kernel.chance[fault] = 0;
    if (limit->fail_fault >= 0) own->kernel.fail_at[limit->fail_fault] = limit->fail_at;
}

static uint64_t end_us;
static uint64_t strikes_at_end[RWS__SIM_FAULTS];

/* Before the world ends its kernel is asked what it did. */
void world_before_end(void)
{
    end_us = rws__sim_now_us();
    for (int fault = 0; fault < RWS__SIM_FAULTS; fault++)
        strikes_at_end[fault] = rws__sim_strikes((rws__sim_fault)fault);
}

static void run_here(uint64_t seed, const limits *limit, uint32_t job)
{
    plan own;
    make_plan(&own, seed, limit);
    alarm(run_s_max);
    world_run(&own, traced);
    alarm(0);
    totals *sum = &shared->totals[job];
    sum->runs++;
    sum->messages += world.messages;
    sum->turns += world.turns;
    sum->opened += world.opened;
    sum->dial_errors += world.dial_errors;
    sum->virtual_us += end_us;
    shared->struck[job] = 0;
    for (int fault = 0; fault < RWS__SIM_FAULTS; fault++) {
        sum->strikes[fault] += strikes_at_end[fault];
        shared->struck[job] += strikes_at_end[fault];
    }
    shared->hash[job] = world.hash;
}

/* An abort has said what it is for. */
static void name_signal(int status)
{
    if (!WIFSIGNALED(status) || WTERMSIG(status) == SIGABRT) return;
    printf("a run ended with signal %d (%s)%s\n", WTERMSIG(status), strsignal(WTERMSIG(status)),
           WTERMSIG(status) == SIGALRM ? ": it hangs" : "");
}

/* In a process of its own; `quiet`: what it says is dropped. Returns whether it went well. */
static bool run_apart(uint64_t seed, const limits *limit, bool quiet)
{
    pid_t pid = fork_child();
    if (pid == 0) {
        int null = quiet ? open("/dev/null", O_WRONLY | O_CLOEXEC) : -1;
        if (null >= 0) dup2(null, STDERR_FILENO);
        run_here(seed, limit, 0);
        fflush(NULL);
        _exit(0);
    }
    int status;
    if (waitpid(pid, &status, 0) < 0) {
        perror("simulate: wait");
        exit(2);
    }
    if (!quiet) name_signal(status);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* ---- shrinking ---- */

static bool still_fails(uint64_t seed, const limits *limit)
{
    return !run_apart(seed, limit, true);
}

static void shrink_number(uint64_t seed, limits *limit, uint32_t *number, uint32_t from)
{
    uint32_t good = from, low = 0;
    while (low < good) {
        uint32_t middle = low + (good - low) / 2, before = *number;
        *number = middle;
        if (still_fails(seed, limit)) {
            good = middle;
        } else {
            *number = before;
            low = middle + 1;
        }
    }
    *number = good;
}

static limits shrink(uint64_t seed, limits limit)
{
    plan own;
    make_plan(&own, seed, &limit);
    for (int fault = 0; fault < RWS__SIM_FAULTS; fault++) {
        if (own.kernel.chance[fault] == 0) continue;
        limit.without |= 1u << fault;
        if (!still_fails(seed, &limit)) limit.without &= ~(1u << fault);
    }
    shrink_number(seed, &limit, &limit.raws, own.raws);
    shrink_number(seed, &limit, &limit.clients, own.clients);
    shrink_number(seed, &limit, &limit.steps, own.steps);
    return limit;
}

static void print_command(uint64_t seed, const limits *limit)
{
    printf("tests/simulate --seed %" PRIu64, seed);
    if (limit->torture) printf(" --torture");
    if (limit->steps != UINT32_MAX) printf(" --steps %u", limit->steps);
    if (limit->clients != UINT32_MAX) printf(" --clients %u", limit->clients);
    if (limit->raws != UINT32_MAX) printf(" --raws %u", limit->raws);
    if (limit->fail_fault >= 0)
        printf(" --fail %s:%" PRIu64, rws__sim_fault_name((rws__sim_fault)limit->fail_fault),
               limit->fail_at);
    const char *before = " --without ";
    for (int fault = 0; fault < RWS__SIM_FAULTS; fault++) {
        if (!(limit->without & (1u << fault))) continue;
        printf("%s%s", before, rws__sim_fault_name((rws__sim_fault)fault));
        before = ",";
    }
    printf("\n");
}

static void report_failure(uint64_t seed, const limits *limit)
{
    printf("seed %" PRIu64 " fails. As it is: ", seed);
    print_command(seed, limit);
    fflush(stdout);
    if (!shrinks) return;
    /* One that hangs is not waited for as long each time. */
    run_s_max = SHRINK_S_MAX;
    limits small = shrink(seed, *limit);
    run_s_max = RUN_S_MAX;
    printf("Shrunk: ");
    print_command(seed, &small);
    fflush(stdout);
    (void)run_apart(seed, &small, false);
}

/* ---- many runs ---- */

/* Returns how many messages were received. */
static uint64_t print_totals(double seconds)
{
    totals sum = {0};
    for (uint32_t job = 0; job < JOBS_MAX; job++) {
        const totals *own = &shared->totals[job];
        sum.runs += own->runs;
        sum.messages += own->messages;
        sum.turns += own->turns;
        sum.opened += own->opened;
        sum.dial_errors += own->dial_errors;
        sum.virtual_us += own->virtual_us;
        for (int fault = 0; fault < RWS__SIM_FAULTS; fault++)
            sum.strikes[fault] += own->strikes[fault];
    }
    printf("faults:");
    for (int fault = 0; fault < RWS__SIM_FAULTS; fault++)
        printf(" %s %" PRIu64, rws__sim_fault_name((rws__sim_fault)fault), sum.strikes[fault]);
    printf("\n");
    printf("%" PRIu64 " runs, %.1f virtual hours, %" PRIu64 " messages, %" PRIu64
           " connections, %" PRIu64 " failed dials, %" PRIu64 " turns in %.1f s\n",
           sum.runs, (double)sum.virtual_us / 3.6e9, sum.messages, sum.opened / 2, sum.dial_errors,
           sum.turns, seconds);
    return sum.messages;
}

/* A process that runs every `jobs`-th seed. */
static pid_t start_job(uint32_t job, uint32_t jobs, uint64_t from, uint64_t count, double until_s,
                       const limits *limit)
{
    pid_t pid = fork_child();
    if (pid > 0) return pid;
    for (uint64_t i = job; i < count && !shared->over && now_s() < until_s; i += jobs) {
        shared->seed[job] = from + i;
        run_here(from + i, limit, job);
    }
    fflush(NULL);
    _exit(0);
}

/* Returns whether all went well. */
static bool explore(uint64_t from, uint64_t count, double seconds, uint32_t jobs,
                    const limits *limit)
{
    double began = now_s(), until = seconds > 0 ? began + seconds : 1e18;
    pid_t pids[JOBS_MAX];
    for (uint32_t job = 0; job < jobs; job++)
        pids[job] = start_job(job, jobs, from, count, until, limit);
    bool good = true;
    for (uint32_t left = jobs; left > 0; left--) {
        int status;
        pid_t pid = wait(&status);
        if (pid < 0) {
            perror("simulate: wait");
            exit(2);
        }
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0) continue;
        shared->over = true;
        name_signal(status);
        for (uint32_t job = 0; job < jobs; job++) {
            if (pids[job] != pid) continue;
            if (good)
                report_failure(shared->seed[job], limit);
            else
                printf("seed %" PRIu64 " fails, too\n", shared->seed[job]);
        }
        good = false;
    }
    uint64_t messages = print_totals(now_s() - began);
    if (good && messages == 0) printf("nothing was received: nothing was tried\n");
    return good && messages > 0;
}

/* Each class, its first chance, its second … until a whole run has fewer. */
static bool torture_scenario(uint64_t seed, uint64_t most)
{
    for (int fault = 0; fault < RWS__SIM_FAULTS; fault++) {
        limits limit = no_limits;
        limit.torture = true;
        limit.fail_fault = fault;
        uint64_t runs = 0;
        for (limit.fail_at = 1; limit.fail_at <= most; limit.fail_at++, runs++) {
            shared->struck[0] = 1;
            if (!run_apart(seed, &limit, true)) {
                report_failure(seed, &limit);
                return false;
            }
            if (shared->struck[0] == 0) break;
        }
        printf("%-16s %" PRIu64 " runs%s\n", rws__sim_fault_name((rws__sim_fault)fault), runs,
               limit.fail_at > most ? "" : ", and then there is no chance left");
        fflush(stdout);
    }
    return true;
}

static bool torture(uint64_t most)
{
    for (uint64_t seed = 1; seed <= CALM_SCENARIOS; seed++) {
        printf("scenario %" PRIu64 "\n", seed);
        if (!torture_scenario(seed, most)) return false;
    }
    return true;
}

static bool run_kept(const char *path)
{
    FILE *file = fopen(path, "re");
    char line[256];
    bool good = true;
    if (file == NULL) {
        fprintf(stderr, "simulate: can't read %s: %s\n", path, strerror(errno));
        exit(2);
    }
    uint32_t runs = 0;
    while (good && fgets(line, sizeof line, file) != NULL) {
        if (line[0] == '#' || line[0] == '\n') continue;
        line[strcspn(line, "\n")] = '\0';
        uint64_t seed = number(path, line);
        good = run_apart(seed, &no_limits, true);
        if (!good) report_failure(seed, &no_limits);
        runs++;
    }
    bool read = !ferror(file);
    fclose(file);
    if (!read || runs == 0) complain("there are no seeds in ", path);
    printf("%u kept seeds\n", runs);
    return good;
}

static bool measure_speed(void)
{
    plan own;
    plan_make_busy(&own, 1);
    double began = now_s();
    world_run(&own, false);
    double seconds = now_s() - began;
    printf("%" PRIu64 " messages received in %.2f s: %.0f a second\n", world.messages, seconds,
           (double)world.messages / seconds);
    return world.messages > 0;
}

static int list_faults(void)
{
    for (int fault = 0; fault < RWS__SIM_FAULTS; fault++)
        printf("%-16s %s\n", rws__sim_fault_name((rws__sim_fault)fault),
               rws__sim_fault_text((rws__sim_fault)fault));
    return 0;
}

/* ---- the command line ---- */

static int find_fault(const char *name, size_t len)
{
    for (int fault = 0; fault < RWS__SIM_FAULTS; fault++) {
        const char *own = rws__sim_fault_name((rws__sim_fault)fault);
        if (strlen(own) == len && memcmp(own, name, len) == 0) return fault;
    }
    complain("there is no such class of faults: ", name);
}

static void parse_without(limits *limit, const char *list)
{
    while (*list != '\0') {
        size_t len = strcspn(list, ",");
        limit->without |= 1u << find_fault(list, len);
        list += len + (list[len] == ',');
    }
}

static void parse_fail(limits *limit, const char *text)
{
    size_t len = strcspn(text, ":");
    limit->fail_fault = find_fault(text, len);
    limit->fail_at = text[len] == ':' ? number("--fail CLASS:", text + len + 1) : 0;
    if (limit->fail_at == 0) complain("--fail takes CLASS:N, not ", text);
}

typedef struct command {
    uint64_t seed, seeds, from, most;
    bool one, torture, speed, faults;
    double minutes;
    uint32_t jobs;
    const char *kept;
    limits limit;
} command;

static void parse(command *own, char **args)
{
    for (; *args != NULL; args++) {
        const char *name = *args, *value = args[1];
        if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
            fputs(usage_text, stdout);
            exit(0);
        }
        if (strcmp(name, "--trace") == 0)
            traced = true;
        else if (strcmp(name, "--torture") == 0)
            own->torture = own->limit.torture = true;
        else if (strcmp(name, "--no-shrink") == 0)
            shrinks = false;
        else if (strcmp(name, "--speed") == 0)
            own->speed = true;
        else if (strcmp(name, "--faults") == 0)
            own->faults = true;
        else if (value == NULL)
            complain("unknown option, or without its value: ", name);
        else {
            if (strcmp(name, "--seed") == 0)
                own->one = true, own->seed = number(name, value);
            else if (strcmp(name, "--seeds") == 0)
                own->seeds = number(name, value);
            else if (strcmp(name, "--minutes") == 0)
                own->minutes = real_number(name, value);
            else if (strcmp(name, "--seconds") == 0)
                own->minutes = real_number(name, value) / 60;
            else if (strcmp(name, "--from") == 0)
                own->from = number(name, value);
            else if (strcmp(name, "--jobs") == 0)
                own->jobs = small_number(name, value);
            else if (strcmp(name, "--most") == 0)
                own->most = number(name, value);
            else if (strcmp(name, "--kept") == 0)
                own->kept = value;
            else if (strcmp(name, "--steps") == 0)
                own->limit.steps = small_number(name, value);
            else if (strcmp(name, "--clients") == 0)
                own->limit.clients = small_number(name, value);
            else if (strcmp(name, "--raws") == 0)
                own->limit.raws = small_number(name, value);
            else if (strcmp(name, "--without") == 0)
                parse_without(&own->limit, value);
            else if (strcmp(name, "--fail") == 0)
                parse_fail(&own->limit, value);
            else
                complain("unknown option ", name);
            args++;
        }
    }
    if (own->jobs == 0 || own->jobs > JOBS_MAX) complain("--jobs is between 1 and ", "64");
    if (own->seeds == 0 || own->most == 0) complain("there is nothing to do", "");
}

/* As another process, so that nothing follows from where its memory lies. */
static bool run_again(char **args)
{
    pid_t pid = fork_child();
    if (pid == 0) {
        (void)execv("/proc/self/exe", args);
        _exit(2);
    }
    int status;
    return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool run_one(const command *own, char **args)
{
    char fd[16];
    if (!run_apart(own->seed, &own->limit, false)) return false;
    print_totals(0);
    uint64_t hash = shared->hash[0];
    snprintf(fd, sizeof fd, "%d", shared_fd);
    (void)setenv(AGAIN, fd, 1);
    if (run_again(args) && shared->hash[0] == hash) return true;
    printf("the seed did not do the same again\n");
    return false;
}

/* The results, where other processes see them. `again`: the descriptor of them; NULL: make them. */
static void share(const char *again)
{
    shared_fd = again != NULL ? (int)small_number(AGAIN, again) : memfd_create("simulate", 0);
    if (shared_fd < 0 || ftruncate(shared_fd, sizeof *shared) != 0) complain("no memory", "");
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, shared_fd, 0);
    if (shared == MAP_FAILED) complain("no memory", "");
}

int main(int argc, char **argv)
{
    (void)argc;
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    command own = {.seeds = 200, .most = 400, .limit = no_limits};
    own.jobs = cpus < 1 ? 1 : cpus > (long)JOBS_MAX ? JOBS_MAX : (uint32_t)cpus;
    own.from = (uint64_t)time(NULL) * 1000000;
    parse(&own, argv + 1);
    if (traced) setlinebuf(stdout);
    const char *again = getenv(AGAIN);
    share(again);
    if (again != NULL) {
        traced = false;
        run_here(own.seed, &own.limit, 0);
        return 0;
    }
    if (own.faults) return list_faults();
    if (own.speed) return measure_speed() ? 0 : 1;
    if (own.kept != NULL) return run_kept(own.kept) ? 0 : 1;
    if (own.one) return run_one(&own, argv) ? 0 : 1;
    if (own.torture) return torture(own.most) ? 0 : 1;
    uint64_t count = own.minutes > 0 ? UINT64_MAX / 2 : own.seeds;
    printf("seeds from %" PRIu64 "\n", own.from);
    return explore(own.from, count, own.minutes * 60, own.jobs, &own.limit) ? 0 : 1;
}
