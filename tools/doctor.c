/*
 * `ringws doctor`: what this machine offers, and whether `ringws serve` would work on it.
 *
 * The verdict is not guessed: besides the library's probe of the kernel, a server with the default
 * options is started on a free port and stopped again.
 */
#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ringws/ringws.h"
#include "tools/args.h"
#include "tools/commands.h"
#include "tools/format.h"
#include "tools/host.h"

enum { LABEL_COLUMNS = 24, VALUE_BYTES = 400, CHECKS_MAX = 24 };

typedef enum verdict {
    OK,
    NOTE, /* works, but less well than it could */
    BAD,  /* serving would fail */
} verdict;

static const char *const verdict_names[] = {"ok", "note", "FAIL"};

typedef struct check {
    const char *name; /* also its name in the JSON, with underscores */
    verdict verdict;
    char text[VALUE_BYTES];
} check;

typedef struct findings {
    rws_probe probe;
    check checks[CHECKS_MAX];
    size_t count;
    uint64_t descriptors; /* raised */
    bool would_serve;
} findings;

static check *add(findings *f, const char *name, verdict result)
{
    check *c = &f->checks[f->count++];
    c->name = name;
    c->verdict = result;
    c->text[0] = '\0';
    return c;
}

static const char *limit_text(format_text *out, uint64_t value, bool bytes)
{
    if (value == UINT64_MAX) {
        snprintf(out->text, sizeof(out->text), "unlimited");
        return out->text;
    }
    return bytes ? format_bytes(out, value) : format_count(out, value);
}

/* With the descriptors that 'serve' will have; what the limit was before is told all the same. */
static void probe(findings *f)
{
    rws_probe_kernel(&f->probe);
    uint64_t soft = f->probe.descriptors_soft;
    f->descriptors = host_raise_descriptors();
    if (strcmp(f->probe.blocked_by, "descriptors") == 0) rws_probe_kernel(&f->probe);
    f->probe.descriptors_soft = soft;
}

static void check_kernel(findings *f)
{
    bool old = strcmp(f->probe.blocked_by, "version") == 0;
    check *c = add(f, "kernel", old ? BAD : OK);
    snprintf(c->text, sizeof(c->text), "Linux %s (6.1 or later is needed)", f->probe.kernel);
}

/* kernel.io_uring_disabled: 0 allowed, 1 for a group and the privileged, 2 for nobody; 6.6. */
static void check_ring(findings *f)
{
    check *c = add(f, "io_uring", f->probe.status == 0 ? OK : BAD);
    bool few = strcmp(f->probe.blocked_by, "descriptors") == 0;
    snprintf(c->text, sizeof(c->text), "%s",
             few ? "too few open descriptors for a server" : f->probe.text);
    if (f->probe.blocked_by[0]) {
        c = add(f, "blocked by", BAD);
        snprintf(c->text, sizeof(c->text), "%s", f->probe.blocked_by);
    }

    char line[64];
    if (!host_read_line("/proc/sys/kernel/io_uring_disabled", line, sizeof(line))) {
        c = add(f, "io_uring_disabled", OK);
        snprintf(c->text, sizeof(c->text), "this kernel has no such switch");
    } else {
        static const char *const meanings[] = {"allowed for everyone",
                                               "only for the group of kernel.io_uring_group",
                                               "switched off for everyone"};
        c = add(f, "io_uring_disabled", line[0] == '0' ? OK : f->probe.status ? BAD : NOTE);
        snprintf(c->text, sizeof(c->text), "kernel.io_uring_disabled = %s: %s", line,
                 line[0] >= '0' && line[0] <= '2' ? meanings[line[0] - '0'] : "unknown");
    }
}

static void check_seccomp(findings *f)
{
    FILE *file = fopen("/proc/self/status", "re");
    if (!file) return;

    char line[256], mode = '?';
    while (fgets(line, sizeof(line), file))
        if (sscanf(line, "Seccomp: %c", &mode) == 1) break;
    fclose(file);
    bool blocks = strcmp(f->probe.blocked_by, "seccomp") == 0;
    check *c = add(f, "seccomp", blocks ? BAD : OK);
    snprintf(c->text, sizeof(c->text), "%s",
             mode == '0'   ? "no filter"
             : mode == '?' ? "unknown"
             : blocks      ? "a filter refuses io_uring_setup: a container's default profile does "
                             "so; allow the io_uring calls in it"
                           : "a filter is active and lets io_uring through");
}

static void check_limits(findings *f)
{
    format_text text[3];
    const rws_probe *p = &f->probe;
    check *c = add(f, "open descriptors", p->descriptors_hard < 1024 ? NOTE : OK);
    if (!host_descriptors_suffice(f->descriptors, c->text, sizeof(c->text)))
        c->verdict = BAD;
    else
        snprintf(c->text, sizeof(c->text),
                 "%s, hard limit %s ('serve' raises it): up to %s connections per shard",
                 limit_text(&text[0], p->descriptors_soft, false),
                 limit_text(&text[1], p->descriptors_hard, false),
                 format_count(&text[2], p->connections_max));

    bool tight = p->memlock_soft < (UINT64_C(8) << 20);
    c = add(f, "locked memory", strcmp(p->blocked_by, "memlock") == 0 ? BAD : tight ? NOTE : OK);
    snprintf(c->text, sizeof(c->text), "%s%s", limit_text(&text[0], p->memlock_soft, true),
             tight ? ": 8 MiB is usual; raise it ('ulimit -l') if a ring is refused" : "");
}

static void check_network(findings *f)
{
    format_text text;
    char line[64];
    uint64_t value;
    bool small = f->probe.somaxconn < 4096;
    check *c = add(f, "backlog", small ? NOTE : OK);
    snprintf(c->text, sizeof(c->text), "net.core.somaxconn = %u%s", f->probe.somaxconn,
             small ? ": bursts of connections are cut at that; 4096 is better" : "");

    if (host_read_line("/proc/sys/net/ipv4/tcp_max_syn_backlog", line, sizeof(line)) &&
        args_parse_number(line, 0, UINT32_MAX, &value)) {
        c = add(f, "SYN backlog", OK);
        snprintf(c->text, sizeof(c->text), "net.ipv4.tcp_max_syn_backlog = %" PRIu64, value);
    }
    if (host_read_line("/proc/sys/net/ipv4/ip_local_port_range", line, sizeof(line))) {
        char *rest;
        unsigned long low = strtoul(line, &rest, 10), high = strtoul(rest, NULL, 10);
        c = add(f, "local ports", OK);
        snprintf(c->text, sizeof(c->text),
                 "%lu to %lu: %s connections from one address to one port ('ringws load')", low,
                 high, format_count(&text, high >= low ? high - low + 1 : 0));
    }
}

/* Start a server as `ringws serve` would, with as many descriptors, on a port that is free, and
 * stop it. */
static void check_trial(findings *f)
{
    if (f->probe.status < 0) return; /* it would only say the same again */
    char why[160];
    if (!host_descriptors_suffice(f->descriptors, why, sizeof(why))) return; /* likewise */
    rws_listener_options listener = RWS_LISTENER_OPTIONS_DEFAULT;
    listener.port = 0;
    rws_handler handler = RWS_HANDLER_DEFAULT;
    rws_endpoint_options endpoint = RWS_ENDPOINT_OPTIONS_DEFAULT;
    endpoint.handler = &handler;
    rws_server *server = NULL;
    rws_error error = {0};
    int status = rws_server_create(&server, NULL, &error);
    if (status == 0) status = rws_server_add_endpoint(server, &endpoint, NULL, &error);
    if (status == 0) status = rws_server_listen(server, &listener, &error);
    if (status == 0) status = rws_server_start(server, &error);

    check *c = add(f, "trial server", status == 0 ? OK : BAD);
    if (status == 0) {
        uint32_t shards = rws_server_shards(server);
        snprintf(c->text, sizeof(c->text), "started with %u shard%s and stopped", shards,
                 shards == 1 ? "" : "s");
        rws_server_stop(server);
        status = rws_server_wait(server);
        if (status < 0) {
            c->verdict = BAD;
            snprintf(c->text, sizeof(c->text), "started, but stopped badly: %s",
                     rws_strerror(status));
        }
    } else {
        snprintf(c->text, sizeof(c->text), "%s", error.text);
    }
    rws_server_destroy(server);
    f->would_serve = status == 0 && f->probe.status == 0;
}

/* Whether a name is in the list of what ringws would use. */
static bool has_feature(const rws_probe *probe, const char *name)
{
    size_t len = strlen(name);
    for (const char *at = probe->features; *at;) {
        size_t own = strcspn(at, ",");
        if (own == len && memcmp(at, name, len) == 0) return true;
        at += own;
        if (*at) at++;
    }
    return false;
}

static void print_text(const findings *f)
{
    printf("ringws %s\n\n", rws_version());
    for (size_t i = 0; i < f->count; i++)
        printf("  %-5s %-*s%s\n", verdict_names[f->checks[i].verdict], LABEL_COLUMNS,
               f->checks[i].name, f->checks[i].text);

    printf("\nKernel features (each is used where the kernel has it, and can be switched off with "
           "--features-off)\n\n");
    const char *name, *text;
    for (size_t i = 0; rws_feature_at(i, &name, &text); i++) {
        const char *state = f->probe.status < 0            ? "?"
                            : has_feature(&f->probe, name) ? "used"
                                                           : "no";
        printf("  %-5s %-*s%s\n", state, LABEL_COLUMNS, name, text);
    }
    if (f->would_serve)
        printf("\n'ringws serve' works on this machine.\n");
    else
        printf("\n'ringws serve' would fail on this machine: see the lines with FAIL.\n");
}

static void add_limit(cJSON *to, const char *name, uint64_t value)
{
    if (value == UINT64_MAX)
        cJSON_AddNullToObject(to, name); /* unlimited */
    else
        cJSON_AddNumberToObject(to, name, (double)value);
}

static bool print_json(const findings *f)
{
    const rws_probe *p = &f->probe;
    cJSON *json = cJSON_CreateObject();
    cJSON_AddBoolToObject(json, "ok", f->would_serve);
    cJSON_AddStringToObject(json, "version", rws_version());
    cJSON_AddStringToObject(json, "kernel", p->kernel);
    cJSON_AddNumberToObject(json, "status", p->status);
    cJSON_AddStringToObject(json, "status_text", rws_strerror(p->status));
    cJSON_AddStringToObject(json, "blocked_by", p->blocked_by);

    cJSON *limits = cJSON_AddObjectToObject(json, "limits");
    add_limit(limits, "descriptors_soft", p->descriptors_soft);
    add_limit(limits, "descriptors_hard", p->descriptors_hard);
    add_limit(limits, "memlock_soft_bytes", p->memlock_soft);
    add_limit(limits, "somaxconn", p->somaxconn);
    add_limit(limits, "connections_max_per_shard", p->connections_max);

    cJSON *features = cJSON_AddObjectToObject(json, "features");
    const char *name, *text;
    for (size_t i = 0; rws_feature_at(i, &name, &text); i++) {
        if (p->status == 0)
            cJSON_AddBoolToObject(features, name, has_feature(p, name));
        else
            cJSON_AddNullToObject(features, name); /* nobody knows */
    }
    cJSON *checks = cJSON_AddArrayToObject(json, "checks");
    for (size_t i = 0; i < f->count; i++) {
        static const char *const names[] = {"ok", "note", "fail"};
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "name", f->checks[i].name);
        cJSON_AddStringToObject(item, "verdict", names[f->checks[i].verdict]);
        cJSON_AddStringToObject(item, "text", f->checks[i].text);
        cJSON_AddItemToArray(checks, item);
    }
    char *printed = cJSON_Print(json);
    bool ok = printed != NULL;
    if (ok) puts(printed);
    cJSON_free(printed);
    cJSON_Delete(json);
    return ok;
}

int doctor_main(int argc, char **argv)
{
    bool json = false;
    const args_option options[] = {
        {"json", 'j', ARGS_FLAG, &json, 0, 0, NULL, "print one JSON object"},
    };
    const args_command command = {
        .name = "ringws doctor",
        .summary = "Tell what this machine offers: the kernel, io_uring and what blocks it, each\n"
                   "kernel feature, and the limits that matter. Exit status: 0 if 'ringws serve'\n"
                   "would work, 1 if not.",
        .examples = "  ringws doctor\n"
                    "  ringws doctor --json | jq .features\n",
        .options = options,
        .options_count = 1,
    };
    args_outcome outcome = args_parse(&command, argc, argv, NULL);
    if (outcome != ARGS_RUN) return outcome == ARGS_DONE ? EXIT_SUCCESS : EXIT_USAGE;

    findings f = {.probe.size = sizeof(rws_probe)};
    probe(&f);
    check_kernel(&f);
    check_ring(&f);
    check_seccomp(&f);
    check_limits(&f);
    check_network(&f);
    check_trial(&f);
    if (json && !print_json(&f)) return EXIT_WRONG;
    if (!json) print_text(&f);
    return f.would_serve ? EXIT_SUCCESS : EXIT_WRONG;
}
