/*
 * What `ringws load` prints: progress while it runs, then a table or one JSON object.
 */
#include <cjson/cJSON.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "tools/format.h"
#include "tools/load.h"

static const char *const stage_names[LOAD_STAGES] = {
    [LOAD_CONNECT] = "connect",
    [LOAD_UPGRADE] = "upgrade",
    [LOAD_MESSAGE] = "message",
    [LOAD_CLOSE] = "close",
};

/* What is counted, in each mode. */
static const struct {
    const char *name;                          /* in JSON */
    const char *label, *one, *rate, *verified; /* for people */
} words[] = {
    [LOAD_ECHO] = {"echo", "messages", "message", "msg/s", "replies"},
    [LOAD_BROADCAST] = {"broadcast", "deliveries", "delivery", "deliveries/s", "deliveries"},
    [LOAD_RECONNECT] = {"reconnect", "cycles", "cycle", "cycles/s",
                        "times connected, upgraded and closed"},
};

static const struct {
    const char *name;
    double percent;
} percentiles[] = {{"p50", 50}, {"p90", 90}, {"p99", 99}, {"p99.9", 99.9}, {"max", 100}};

enum { PERCENTILES = sizeof(percentiles) / sizeof(percentiles[0]), LABEL_COLUMNS = 14 };

/* Everything that is printed, worked out once for both forms. */
typedef struct report {
    const load_run *run;
    load_totals totals;
    uint32_t opened;
    uint64_t errors;
    bool right;
    double connect_ns; /* until the last connection was open or had failed */
    double seconds;
    double rate;
    double latency_ns[PERCENTILES];
    double latency_mean_ns;
    double cpu_ns_per_message; /* or delivery, or cycle */
    double cpu_share;          /* of one CPU */
} report;

static bool all_were_sent(const load_run *run, const load_totals *totals)
{
    const load_arguments *a = &run->arguments;
    if (a->mode == LOAD_BROADCAST) return run->conns[0].sent == a->messages;
    return totals->sent == a->messages;
}

static report make_report(const load_run *run)
{
    const load_arguments *a = &run->arguments;
    report r = {
        .run = run,
        .totals = load_sum(run),
        .opened = atomic_load(&run->opened),
        .seconds = (double)run->window_ns / 1e9,
    };
    if (r.totals.last_resolved_ns)
        r.connect_ns = (double)(r.totals.last_resolved_ns - run->dial_ns);
    for (size_t i = 0; i < LOAD_STAGES; i++)
        r.errors += run->errors_by_stage[i];

    static histogram latency; /* static: 42 KiB */
    histogram_reset(&latency);
    for (uint64_t i = 0; i < a->threads; i++)
        histogram_merge(&latency, &run->threads[i].latency);
    for (size_t i = 0; i < PERCENTILES; i++)
        r.latency_ns[i] = (double)histogram_percentile(&latency, percentiles[i].percent);
    r.latency_mean_ns = histogram_mean(&latency);

    if (r.seconds > 0) {
        r.rate = (double)r.totals.measured / r.seconds;
        r.cpu_share = (double)run->cpu_ns / (double)run->window_ns;
    }
    if (r.totals.measured) r.cpu_ns_per_message = (double)run->cpu_ns / (double)r.totals.measured;

    r.right = r.errors == 0 && r.totals.wrong == 0 && r.totals.lost == 0 &&
              r.totals.verified == r.totals.sent;
    if (a->pipeline && !run->interrupted) r.right = r.right && r.totals.verified > 0;
    if (a->messages && !run->interrupted) r.right = r.right && all_were_sent(run, &r.totals);
    return r;
}

static void print_label(const char *label)
{
    printf("  %s%*s", label, LABEL_COLUMNS - format_columns(label), "");
}

static void print_latency(const report *r)
{
    format_text text[PERCENTILES];
    print_label("latency");
    for (size_t i = 0; i < PERCENTILES; i++)
        printf("%10s", percentiles[i].name);
    putchar('\n');
    print_label("");
    for (size_t i = 0; i < PERCENTILES; i++) {
        const char *time = format_time(&text[i], r->latency_ns[i]);
        printf("%*s%s", 10 - format_columns(time), "", time);
    }
    putchar('\n');
}

static void print_errors(const load_run *run)
{
    format_text text;
    for (size_t i = 0; i < run->errors_count; i++) {
        const load_error *error = &run->errors[i];
        char label[32];
        snprintf(label, sizeof(label), "%s error", stage_names[error->stage]);
        print_label(label);
        printf("%s × %s\n", format_count(&text, error->count), error->text);
    }
}

static void print_verdict(const report *r)
{
    format_text text[4];
    print_label("verified");
    printf("%s of %s %s", format_count(&text[0], r->totals.verified),
           format_count(&text[1], r->totals.sent), words[r->run->arguments.mode].verified);
    if (r->right)
        printf(": nothing lost, nothing wrong\n");
    else
        printf(": %s lost, %s wrong\n", format_count(&text[2], r->totals.lost),
               format_count(&text[3], r->totals.wrong));
}

/* "64 connections × 16 in flight, 64 B binary, 1 thread, 5 s". */
static void print_title(const report *r)
{
    const load_run *run = r->run;
    const load_arguments *a = &run->arguments;
    format_text text[4];
    printf("%s: ", a->url);
    if (r->opened < a->connections) printf("%s of ", format_count(&text[0], r->opened));
    printf("%s connection%s", format_count(&text[1], a->connections),
           a->connections == 1 ? "" : "s");
    if (a->mode == LOAD_RECONNECT)
        printf(", opened and closed");
    else if (a->pipeline)
        printf("%s%" PRIu64 " in flight, %s %s",
               a->mode == LOAD_BROADCAST ? ", one sends to all, " : " × ", a->pipeline,
               format_bytes(&text[2], a->size), a->text ? "text" : "binary");
    else
        printf(", idle");
    printf(", %" PRIu64 " thread%s, %s%s\n\n", a->threads, a->threads == 1 ? "" : "s",
           format_time(&text[3], (double)run->window_ns), run->interrupted ? ", interrupted" : "");
}

static void print_figures(const report *r)
{
    const load_run *run = r->run;
    const load_arguments *a = &run->arguments;
    format_text text[2];
    if (r->opened && a->mode != LOAD_RECONNECT) {
        print_label("connected");
        printf("in %s\n", format_time(&text[0], r->connect_ns));
    }
    if (r->totals.measured) {
        print_label(words[a->mode].label);
        printf("%s, %s\n", format_count(&text[0], r->totals.measured),
               format_rate(&text[1], r->rate, words[a->mode].rate));
        if (a->mode != LOAD_RECONNECT) {
            print_label("payload");
            printf("%s %s\n", format_rate(&text[0], r->rate * (double)a->size, "B/s"),
                   a->mode == LOAD_BROADCAST ? "from the server" : "each way");
        }
        print_latency(r);
    }
    if (run->cpu_known) {
        print_label("server CPU");
        if (r->totals.measured)
            printf("%s per %s, ", format_time(&text[0], r->cpu_ns_per_message), words[a->mode].one);
        printf("%.0f %% of one CPU\n", 100 * r->cpu_share);
    }
}

static void print_text(const report *r)
{
    const load_run *run = r->run;
    format_text text;
    print_title(r);
    print_figures(r);
    if (r->totals.sent) print_verdict(r);
    if (!run->arguments.pipeline) {
        print_label("idle");
        uint64_t count = r->opened - run->errors_by_stage[LOAD_CLOSE];
        printf("%s connection%s stayed open\n", format_count(&text, count), count == 1 ? "" : "s");
    }
    print_errors(run);
}

static cJSON *errors_json(const load_run *run)
{
    cJSON *errors = cJSON_CreateObject();
    for (size_t i = 0; i < LOAD_STAGES; i++)
        cJSON_AddNumberToObject(errors, stage_names[i], (double)run->errors_by_stage[i]);
    cJSON *texts = cJSON_AddArrayToObject(errors, "texts");
    for (size_t i = 0; i < run->errors_count; i++) {
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "stage", stage_names[run->errors[i].stage]);
        cJSON_AddNumberToObject(item, "count", (double)run->errors[i].count);
        cJSON_AddStringToObject(item, "text", run->errors[i].text);
        cJSON_AddItemToArray(texts, item);
    }
    return errors;
}

/* More decimals than these are noise. */
static void add_rounded(cJSON *to, const char *name, double value, int decimals)
{
    double scale = pow(10, decimals);
    cJSON_AddNumberToObject(to, name, round(value * scale) / scale);
}

static void add_arguments(cJSON *json, const report *r)
{
    const load_arguments *a = &r->run->arguments;
    cJSON_AddBoolToObject(json, "ok", r->right);
    cJSON_AddStringToObject(json, "url", a->url);
    cJSON_AddStringToObject(json, "mode", words[a->mode].name);
    cJSON_AddNumberToObject(json, "connections", (double)a->connections);
    cJSON_AddNumberToObject(json, "connections_opened", r->opened);
    if (a->mode != LOAD_RECONNECT) {
        cJSON_AddNumberToObject(json, "pipeline", (double)a->pipeline);
        cJSON_AddNumberToObject(json, "size_bytes", (double)a->size);
        cJSON_AddStringToObject(json, "type", a->text ? "text" : "binary");
    }
    cJSON_AddNumberToObject(json, "threads", (double)a->threads);
    cJSON_AddNumberToObject(json, "seed", (double)a->seed);
    cJSON_AddBoolToObject(json, "interrupted", r->run->interrupted);
}

static void add_figures(cJSON *json, const report *r)
{
    const load_run *run = r->run;
    const load_arguments *a = &run->arguments;
    bool cycles = a->mode == LOAD_RECONNECT;
    if (!cycles) add_rounded(json, "connect_s", r->connect_ns / 1e9, 6);
    add_rounded(json, "duration_s", r->seconds, 6);
    cJSON_AddNumberToObject(json, cycles ? "cycles" : "messages", (double)r->totals.measured);
    add_rounded(json, cycles ? "rate_cycles_per_s" : "rate_msg_per_s", r->rate, 0);
    if (!cycles) add_rounded(json, "payload_bytes_per_s", r->rate * (double)a->size, 0);
    static const char *const names[PERCENTILES] = {
        "latency_p50_us", "latency_p90_us", "latency_p99_us", "latency_p99_9_us", "latency_max_us"};
    for (size_t i = 0; i < PERCENTILES; i++)
        add_rounded(json, names[i], r->latency_ns[i] / 1e3, 3);
    add_rounded(json, "latency_mean_us", r->latency_mean_ns / 1e3, 3);
    if (!run->cpu_known) return;
    add_rounded(json, "server_cpu_us", (double)run->cpu_ns / 1e3, 0);
    add_rounded(json, cycles ? "server_cpu_us_per_cycle" : "server_cpu_us_per_msg",
                r->cpu_ns_per_message / 1e3, 4);
    add_rounded(json, "server_cpu_share", r->cpu_share, 4);
}

static bool print_json(const report *r)
{
    cJSON *json = cJSON_CreateObject();
    add_arguments(json, r);
    add_figures(json, r);
    cJSON_AddNumberToObject(json, "sent", (double)r->totals.sent);
    cJSON_AddNumberToObject(json, "verified", (double)r->totals.verified);
    cJSON_AddNumberToObject(json, "lost", (double)r->totals.lost);
    cJSON_AddNumberToObject(json, "wrong", (double)r->totals.wrong);
    cJSON_AddItemToObject(json, "errors", errors_json(r->run));

    char *text = cJSON_PrintUnformatted(json);
    if (text) puts(text);
    bool printed = text != NULL;
    cJSON_free(text);
    cJSON_Delete(json);
    return printed;
}

bool load_report(load_run *run)
{
    report r = make_report(run);
    bool printed = true;
    if (run->arguments.json)
        printed = print_json(&r);
    else
        print_text(&r);
    return fflush(stdout) == 0 && printed && r.right;
}

void load_progress(const load_run *run, uint64_t elapsed_ns, bool finished)
{
    static uint64_t shown_ns, shown_replies;
    static int terminal = -1;
    if (terminal < 0) terminal = isatty(STDERR_FILENO) && !run->arguments.quiet;
    if (!terminal) return;
    if (finished) {
        fprintf(stderr, "\r\033[K"); /* back to the margin, clear the line */
        return;
    }
    if (shown_ns && elapsed_ns - shown_ns < 200 * 1000 * 1000) return;

    load_totals totals = load_sum(run);
    uint64_t replies = totals.verified + totals.wrong;
    format_text text[4];
    double rate = elapsed_ns > shown_ns
                      ? (double)(replies - shown_replies) * 1e9 / (double)(elapsed_ns - shown_ns)
                      : 0;
    load_mode mode = run->arguments.mode;
    fprintf(stderr, "\r\033[K%s   %s connections   %s %s   %s",
            format_time(&text[0], (double)elapsed_ns),
            format_count(&text[1], atomic_load(&run->opened) - atomic_load(&run->closed)),
            format_count(&text[2], replies), mode == LOAD_ECHO ? "replies" : words[mode].label,
            format_rate(&text[3], rate, words[mode].rate));
    shown_ns = elapsed_ns;
    shown_replies = replies;
}
