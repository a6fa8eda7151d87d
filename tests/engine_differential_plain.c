/*
 * ctest: both rings
 *
 * The same random script through the engine on the real ring and on the simulated one: each
 * connection's bytes and the order of its callbacks are the same. This program has the
 * real ring, and runs its sibling, which is linked with the simulated one, for each seed; there
 * once without faults, and once with all that a kernel may do and still deliver everything.
 *
 * A real kernel is given more time to come to rest before a difference counts.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/base/features.h"
#include "support/outside.h"
#include "support/outside_run.h"

#define SEEDS        6u
#define SIMULATED_US 10000u
#define CONTEXT      6

/* How long nothing may happen on the real ring before it is at rest. */
static const uint64_t rests_us[] = {2000, 20000, 100000};
#define RESTS (sizeof rests_us / sizeof rests_us[0])

static const char help[] = "usage: engine_differential_plain [--seeds N] [--seed S] [--show]\n"
                           "  --seeds N   so many scripts, from the first seed on\n"
                           "  --seed S    the script of this seed alone\n"
                           "  --show      print the transcript of the real ring\n"
                           "Of its sibling, which it runs:\n"
                           "  --transcript --features BITS --off BITS --faults 0|1 --planted 0|1\n";

typedef struct options {
    uint64_t seed, seeds;
    bool show, transcript;
    outside_script script;
} options;

static bool parse(options *own, int argc, char **argv)
{
    *own = (options){.seed = 1, .seeds = SEEDS};
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];
        if (strcmp(name, "--show") == 0) {
            own->show = true;
            continue;
        }
        if (strcmp(name, "--transcript") == 0) {
            own->transcript = true;
            continue;
        }
        if (i + 1 == argc) return false;
        uint64_t value = strtoull(argv[++i], NULL, 0);
        if (strcmp(name, "--seeds") == 0) {
            own->seeds = value;
        } else if (strcmp(name, "--seed") == 0) {
            own->seed = value;
            own->seeds = 1;
        } else if (strcmp(name, "--features") == 0) {
            own->script.features = (uint32_t)value;
        } else if (strcmp(name, "--off") == 0) {
            own->script.features_off = (uint32_t)value;
        } else if (strcmp(name, "--faults") == 0) {
            own->script.faults = value != 0;
        } else if (strcmp(name, "--planted") == 0) {
            own->script.planted = value != 0;
        } else {
            return false;
        }
    }
    return true;
}

/* ---- the sibling ---- */

static void find_sibling(char *path, size_t size)
{
    static const char from[] = "_plain", to[] = "_simulated_plain";
    ssize_t len = readlink("/proc/self/exe", path, size - sizeof to);
    size_t tail = sizeof from - 1;
    if (len < (ssize_t)tail || memcmp(path + len - tail, from, tail) != 0) {
        fprintf(stderr, "this program is not called …%s\n", from);
        exit(2);
    }
    memcpy(path + (size_t)len - tail, to, sizeof to);
}

static char *read_all(FILE *file)
{
    char *text = NULL, part[4096];
    size_t size, len;
    FILE *memory = open_memstream(&text, &size);
    while ((len = fread(part, 1, sizeof part, file)) > 0)
        fwrite(part, 1, len, memory);
    fclose(memory);
    return text;
}

/* Its transcript, or NULL. */
static char *run_simulated(const outside_script *script)
{
    char path[4096], command[5000];
    find_sibling(path, sizeof path);
    snprintf(command, sizeof command,
             "'%s' --transcript --seed %llu --features %u --off %u --faults %d --planted %d", path,
             (unsigned long long)script->seed, script->features, script->features_off,
             script->faults, script->planted);
    FILE *pipe = popen(command, "r");
    if (pipe == NULL) return NULL;
    char *text = read_all(pipe);
    int status = pclose(pipe);
    if (status == 0) return text;
    fprintf(stderr, "%s\nended with status %d\n", command, status);
    free(text);
    return NULL;
}

/* ---- comparing ---- */

static size_t line_len(const char *line)
{
    size_t len = strcspn(line, "\n");
    return line[len] == '\n' ? len + 1 : len;
}

static void print_some(const char *name, const char *at)
{
    printf("%s:\n", name);
    for (int i = 0; i < CONTEXT && *at != '\0'; at += line_len(at), i++)
        printf("  %.*s", (int)line_len(at), at);
}

/* Whether they are the same; else the first difference is printed, if `loud`. */
static bool compare(const char *real, const char *simulated, bool loud)
{
    const char *connection = "", *before[CONTEXT] = {NULL};
    int count = 0;
    while (*real != '\0' || *simulated != '\0') {
        size_t len = line_len(real);
        if (len != line_len(simulated) || memcmp(real, simulated, len) != 0) break;
        if (*real == 'c') connection = real;
        before[count++ % CONTEXT] = real;
        real += len;
        simulated += len;
    }
    if (*real == '\0' && *simulated == '\0') return true;
    if (!loud) return false;
    printf("they differ in %.*s", (int)line_len(connection), connection);
    for (int i = count < CONTEXT ? 0 : count - CONTEXT; i < count; i++)
        printf("  %.*s", (int)line_len(before[i % CONTEXT]), before[i % CONTEXT]);
    print_some("the real ring", real);
    print_some("the simulated ring", simulated);
    return false;
}

static char *run_here(outside_script *script, uint64_t rest_us)
{
    char *text = NULL;
    size_t len;
    FILE *memory = open_memstream(&text, &len);
    script->rest_us = rest_us;
    uint32_t features = outside_run(script, memory);
    if (script->features_off == 0) script->features = features;
    fclose(memory);
    return text;
}

/* ---- the test ---- */

static bool differs(outside_script *script, const char *real, bool loud)
{
    char *simulated = run_simulated(script);
    bool same = simulated != NULL && compare(real, simulated, loud);
    free(simulated);
    return !same;
}

/* Returns whether both simulated runs are as the real one. */
static bool try_seed(outside_script *script, bool show)
{
    for (size_t i = 0; i < RESTS; i++) {
        bool last = i + 1 == RESTS, same = true;
        char *real = run_here(script, rests_us[i]);
        if (show && i == 0) fputs(real, stdout);
        for (int faults = 0; faults < 2 && same; faults++) {
            script->faults = faults;
            same = !differs(script, real, last);
            if (!same)
                printf(
                    "seed %llu, features 0x%x, off 0x%x, faults %d, rests of %llu us: different\n",
                    (unsigned long long)script->seed, script->features, script->features_off,
                    faults, (unsigned long long)rests_us[i]);
        }
        free(real);
        if (same) return true;
    }
    return false;
}

/* A difference of one letter is found. */
static bool finds_differences(outside_script *script)
{
    char *real = run_here(script, rests_us[0]);
    script->planted = true;
    script->faults = false;
    bool found = differs(script, real, false);
    script->planted = false;
    free(real);
    return found;
}

int main(int argc, char **argv)
{
    options own;
    if (!parse(&own, argc, argv)) {
        fputs(help, argc == 2 && strcmp(argv[1], "--help") == 0 ? stdout : stderr);
        return argc == 2 && strcmp(argv[1], "--help") == 0 ? 0 : 2;
    }
    outside_script script = own.script;
    script.seed = own.seed;
    if (own.transcript) {
        script.rest_us = SIMULATED_US;
        (void)outside_run(&script, stdout);
        return fflush(stdout) == 0 ? 0 : 1;
    }
    if (outside_is_simulated()) {
        fputs(help, stderr);
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    bool good = true;
    for (uint64_t i = 0; i < own.seeds && good; i++, script.seed++) {
        script.features_off = 0;
        printf("seed %llu\n", (unsigned long long)script.seed);
        good = try_seed(&script, own.show);
        script.features_off = RWS__FEATURE_ALL;
        good = good && try_seed(&script, false);
    }
    script.seed = own.seed;
    script.features_off = 0;
    if (good && !finds_differences(&script)) {
        printf("a difference that was made is not found\n");
        good = false;
    }
    return good ? 0 : 1;
}
