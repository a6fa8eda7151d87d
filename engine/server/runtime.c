#include "engine/server/runtime.h"

#include "engine/base/assert.h"
#include "engine/base/cpus.h"
#include "engine/server/probe.h"

#include <errno.h>
#include <string.h>

/* ---- handing accepted descriptors round ---- */

typedef struct handed_fd {
    rws__listener *listener;
    int fd;
} handed_fd;

static void adopt_handed(void *arg, bool cancelled)
{
    handed_fd *handed = arg;
    const rws__env *env = handed->listener->conns->streams.loop->env;
    if (cancelled)
        rws__listener_turn_away(handed->listener, handed->fd);
    else
        rws__listener_adopt(handed->listener, handed->fd);
    rws__free(env, handed, sizeof *handed);
}

/* Its counter is another thread's, and late by what is still in the mailbox: that decides who gets
 * a connection, and the shard itself whether it has room. */
static bool seems_full(const rws_runtime *runtime, uint32_t shard)
{
    const rws__counters *counters = &runtime->workers[shard].shard.loop.counters;
    return atomic_load_explicit(&counters->connections, memory_order_relaxed) >=
           runtime->config.connections_max;
}

/* The next shard in turn that is not full; if all are, the next in turn, which says so. */
static uint32_t next_in_turn(const rws_runtime *runtime, rws__listening *listening)
{
    uint32_t shards = runtime->config.shards, next = listening->next_shard;
    RWS_ASSERT(shards > 0);
    for (uint32_t i = 0; i < shards && seems_full(runtime, next); i++)
        next = (next + 1) % shards;
    listening->next_shard = (next + 1) % shards;
    return next;
}

/* Give an accepted descriptor to the next shard in turn; where that can't be, to this one. */
static void hand_round(rws__listener *listener, int fd)
{
    rws_runtime *runtime = listener->hand_round_to;
    uint32_t index = listener->index;
    uint32_t next = next_in_turn(runtime, &runtime->listeners[index]);
    rws__shard *shard = &runtime->workers[next].shard;
    rws__listener *target = &shard->listeners[index];
    const rws__env *env = &runtime->config.env;
    handed_fd *handed = target != listener ? rws__alloc(env, sizeof *handed) : NULL;
    if (handed == NULL) {
        rws__listener_adopt(listener, fd);
        return;
    }
    *handed = (handed_fd){target, fd};
    if (rws__mailbox_post(&shard->loop.mailbox, adopt_handed, handed) == 0) return;
    rws__free(env, handed, sizeof *handed);
    rws__listener_adopt(listener, fd);
}

/* ---- making ---- */

int rws__runtime_init(rws_runtime *runtime, const rws__runtime_config *config, rws_error *error)
{
    memset(runtime, 0, sizeof *runtime);
    runtime->config = *config;
    pthread_mutex_init(&runtime->lock, NULL);
    pthread_cond_init(&runtime->changed, NULL);
    uint32_t count = config->shards;
    runtime->workers = rws__alloc(&runtime->config.env, count * sizeof(rws__worker));
    if (runtime->workers == NULL) {
        rws__runtime_deinit(runtime);
        return rws__fail(error, -ENOMEM, "no memory for %u shards", count);
    }
    for (uint32_t i = 0; i < count; i++) {
        runtime->workers[i].runtime = runtime;
        int res = rws__shard_init(&runtime->workers[i].shard, &runtime->config, i, error);
        if (res == 0) continue;
        rws__runtime_deinit(runtime);
        return res;
    }
    return 0;
}

/* One that was drained has removed its socket, and what is there now is the next server's. */
static void remove_sockets(const rws_runtime *runtime)
{
    for (uint32_t i = 0; i < runtime->listeners_count; i++) {
        const rws__listener_config *config = &runtime->listeners[i].config;
        if (config->unix_path != NULL && runtime->workers[0].shard.listeners[i].fd >= 0)
            rws__socket_unlink(config->unix_path, &config->unix_file);
    }
}

static size_t endpoints_bytes(uint32_t count)
{
    return count * sizeof(rws__endpoint *);
}

static void free_list(const rws__env *env, rws__http_rules *http)
{
    rws__free(env, http->endpoints, endpoints_bytes(http->endpoints_count));
    http->endpoints = NULL;
    http->endpoints_count = 0;
}

void rws__runtime_deinit(rws_runtime *runtime)
{
    const rws__env *env = &runtime->config.env;
    uint32_t count = runtime->config.shards;
    if (runtime->workers != NULL) remove_sockets(runtime);
    /* All mailboxes first: what is cancelled may post to any shard, and is refused then. */
    for (uint32_t i = 0; runtime->workers != NULL && i < count; i++)
        rws__loop_close_mailbox(&runtime->workers[i].shard.loop);
    for (uint32_t i = 0; runtime->workers != NULL && i < count; i++)
        rws__shard_deinit(&runtime->workers[i].shard);
    rws__free(env, runtime->workers, count * sizeof(rws__worker));
    for (uint32_t i = 0; i < runtime->listeners_count; i++) {
        rws__listening *listening = &runtime->listeners[i];
        free_list(env, &listening->http);
        rws__listener_config_free(env, &listening->config);
    }
    for (uint32_t i = 0; i < runtime->endpoints_count; i++)
        rws__endpoint_free(env, (rws__endpoint *)runtime->endpoints[i]);
    rws__free(env, runtime->endpoints, endpoints_bytes(runtime->endpoints_count));
    pthread_cond_destroy(&runtime->changed);
    pthread_mutex_destroy(&runtime->lock);
}

/* ---- endpoints and listeners ---- */

static rws__start_state start_state(rws_runtime *runtime)
{
    pthread_mutex_lock(&runtime->lock);
    rws__start_state state = runtime->start;
    pthread_mutex_unlock(&runtime->lock);
    return state;
}

static bool is_started(rws_runtime *runtime)
{
    return start_state(runtime) != RWS__NOT_STARTED;
}

/* One more endpoint in a list. Returns 0 or -ENOMEM. */
static int append_endpoint(const rws__env *env, const rws__endpoint ***list, uint32_t *count,
                           const rws__endpoint *endpoint)
{
    const rws__endpoint **longer = rws__alloc(env, endpoints_bytes(*count + 1));
    if (longer == NULL) return -ENOMEM;
    if (*count > 0) memcpy(longer, *list, endpoints_bytes(*count));
    rws__free(env, *list, endpoints_bytes(*count));
    longer[(*count)++] = endpoint;
    *list = longer;
    return 0;
}

int rws__runtime_add_endpoint(rws_runtime *runtime, const rws_endpoint_options *options,
                              const rws_role *role, rws__endpoint **out, rws_error *error)
{
    const rws__env *env = &runtime->config.env;
    if (is_started(runtime))
        return rws__fail(error, RWS_E_STATE, "endpoints are added before the start");
    rws__endpoint *endpoint;
    int res = rws__endpoint_make(&endpoint, &runtime->config, options, role, error);
    if (res != 0) return res;
    res = append_endpoint(env, &runtime->endpoints, &runtime->endpoints_count, endpoint);
    if (res != 0) {
        rws__endpoint_free(env, endpoint);
        return rws__fail(error, res, "no memory for the endpoint");
    }
    endpoint->runtime = runtime;
    if (out != NULL) *out = endpoint;
    return 0;
}

static bool is_known(const rws_runtime *runtime, const rws__endpoint *endpoint)
{
    for (uint32_t i = 0; i < runtime->endpoints_count; i++)
        if (runtime->endpoints[i] == endpoint) return true;
    return false;
}

/* The endpoints that the caller named for a listener. */
static int name_endpoints(rws_runtime *runtime, rws__http_rules *http,
                          const rws_listener_options *options, rws_error *error)
{
    const rws__env *env = &runtime->config.env;
    /* Not "all": a list that got lost must not open what was to stay closed. */
    if ((options->endpoints == NULL) != (options->endpoints_count == 0))
        return rws__fail(error, RWS_E_OPTION, "endpoints is %s, and endpoints_count is %u",
                         options->endpoints == NULL ? "NULL" : "a list", options->endpoints_count);
    for (uint32_t i = 0; i < options->endpoints_count; i++) {
        rws_endpoint *endpoint = options->endpoints[i];
        if (!is_known(runtime, endpoint) || endpoint->rules.role != RWS_SERVER)
            return rws__fail(error, RWS_E_OPTION,
                             "endpoints[%u] is not an endpoint of this server with the role "
                             "RWS_SERVER",
                             i);
        if (append_endpoint(env, &http->endpoints, &http->endpoints_count, endpoint) != 0)
            return rws__fail(error, -ENOMEM, "no memory for the listener");
    }
    return 0;
}

/* Open the sockets of a listener and give them to the shards. */
static int open_sockets(rws_runtime *runtime, rws__listening *listening, int inherited,
                        rws_error *error)
{
    uint32_t shards = runtime->config.shards, index = runtime->listeners_count;
    int fds[RWS__SHARDS_MAX];
    for (uint32_t i = 0; i < shards; i++)
        fds[i] = -1;
    int res = 0;
    if (listening->config.inherited)
        res = rws__listener_inherit(&listening->config, inherited, &listening->port, error);
    else
        res = rws__listeners_open(&listening->config, fds, shards, &listening->port, error);
    if (res != 0) return res;
    if (listening->config.inherited) fds[0] = inherited;
    bool one_for_all = listening->config.inherited || listening->config.unix_path != NULL;
    for (uint32_t i = 0; i < shards; i++) {
        rws__listener *listener = rws__shard_add_listener(&runtime->workers[i].shard, fds[i],
                                                          &listening->config, &listening->http);
        RWS_ASSERT(listener == &runtime->workers[i].shard.listeners[index]);
        if (!one_for_all) continue;
        const rws__listener *first = &runtime->workers[0].shard.listeners[index];
        listener->family = first->family;
        listener->loopback = first->loopback;
        listener->hand_round = hand_round;
        listener->hand_round_to = runtime;
    }
    return 0;
}

int rws__runtime_listen(rws_runtime *runtime, const rws_listener_options *options, rws_error *error)
{
    const rws__env *env = &runtime->config.env;
    rws_listener_options own;
    if (is_started(runtime) || runtime->listeners_count == RWS__LISTENERS_MAX)
        return rws__fail(error, RWS_E_STATE, "listeners are opened before the start, at most %u",
                         RWS__LISTENERS_MAX);
    rws__listening *listening = &runtime->listeners[runtime->listeners_count];
    memset(listening, 0, sizeof *listening);
    int res = rws__listener_config_make(&listening->config, &listening->http, &own,
                                        &runtime->config, options, error);
    if (res == 0) res = name_endpoints(runtime, &listening->http, &own, error);
    if (res == 0) res = open_sockets(runtime, listening, own.fd, error);
    if (res == 0) {
        listening->own_endpoints = own.endpoints != NULL;
        runtime->listeners_count++;
        return 0;
    }
    free_list(env, &listening->http);
    rws__listener_config_free(env, &listening->config);
    return res;
}

static bool is_same_path(const rws__endpoint *a, const rws__endpoint *b)
{
    if (a->path == NULL || b->path == NULL) return a->path == b->path;
    return strcmp(a->path, b->path) == 0;
}

static int check_paths(const rws__http_rules *http, rws_error *error)
{
    if (http->endpoints_count == 0)
        return rws__fail(error, RWS_E_OPTION,
                         "a listener has no endpoint: rws_server_add_endpoint() comes first");
    for (uint32_t i = 0; i < http->endpoints_count; i++)
        for (uint32_t n = i + 1; n < http->endpoints_count; n++)
            if (is_same_path(http->endpoints[i], http->endpoints[n]))
                return rws__fail(error, RWS_E_OPTION, "two endpoints have the path %s",
                                 http->endpoints[i]->path != NULL ? http->endpoints[i]->path
                                                                  : "NULL (every other one)");
    return 0;
}

/* All of the server's. Made anew each time: a start that failed may have left a part. */
static int list_endpoints(const rws_runtime *runtime, rws__http_rules *http, rws_error *error)
{
    const rws__env *env = &runtime->config.env;
    free_list(env, http);
    for (uint32_t i = 0; i < runtime->endpoints_count; i++) {
        const rws__endpoint *endpoint = runtime->endpoints[i];
        if (endpoint->rules.role != RWS_SERVER) continue;
        if (append_endpoint(env, &http->endpoints, &http->endpoints_count, endpoint) != 0)
            return rws__fail(error, -ENOMEM, "no memory for the endpoints");
    }
    return 0;
}

int rws__runtime_arrange(rws_runtime *runtime, rws_error *error)
{
    for (uint32_t i = 0; i < runtime->listeners_count; i++) {
        rws__listening *listening = &runtime->listeners[i];
        rws__http_rules *http = &listening->http;
        int res = listening->own_endpoints ? 0 : list_endpoints(runtime, http, error);
        if (res == 0) res = check_paths(http, error);
        if (res != 0) return res;
    }
    return 0;
}

/* ---- running ---- */

/* A shard is up, or is not: the last one wakes who started them. */
static void report(rws_runtime *runtime, int status, const rws_error *error)
{
    pthread_mutex_lock(&runtime->lock);
    if (status != 0 && runtime->first_error.status == 0) runtime->first_error = *error;
    runtime->reported++;
    pthread_cond_broadcast(&runtime->changed);
    pthread_mutex_unlock(&runtime->lock);
}

/* Wait until all shards have reported; returns the first failure. */
static int await_reports(rws_runtime *runtime)
{
    pthread_mutex_lock(&runtime->lock);
    while (runtime->reported < runtime->config.shards)
        pthread_cond_wait(&runtime->changed, &runtime->lock);
    int status = runtime->first_error.status;
    pthread_mutex_unlock(&runtime->lock);
    return status;
}

/* Make the ring of a shard, on the thread that takes its turns. */
static int open_worker(rws__worker *worker, rws_error *error)
{
    rws__assert_log_to(&worker->runtime->config.env);
    worker->result = rws__shard_open(&worker->shard, error);
    return worker->result;
}

static void close_worker(rws__worker *worker)
{
    if (rws__shard_has_ended(&worker->shard)) worker->result = rws__shard_result(&worker->shard);
    rws__shard_close(&worker->shard);
    rws__assert_log_to(NULL); /* rws_server_run() gives the thread back to the program */
}

static void run_worker(rws__worker *worker)
{
    rws_runtime *runtime = worker->runtime;
    rws_error error = {0};
    int res = open_worker(worker, &error);
    report(runtime, res, &error);
    if (res == 0 && await_reports(runtime) == 0) { /* if one shard can't start, none serves */
        res = rws__shard_run(&worker->shard);
        /* One that can't go on takes the others with it, so that somebody notices. */
        if (res != 0 && res != RWS_E_TIMEOUT) rws__runtime_stop(runtime);
    }
    close_worker(worker);
}

static void *worker_main(void *arg)
{
    run_worker(arg);
    return NULL;
}

/* Returns what it was before. */
static rws__start_state set_start(rws_runtime *runtime, rws__start_state state)
{
    pthread_mutex_lock(&runtime->lock);
    rws__start_state before = runtime->start;
    if (state != RWS__STARTED || before == RWS__NOT_STARTED) runtime->start = state;
    pthread_mutex_unlock(&runtime->lock);
    return before;
}

/* Once; but where something is missing that can still be added, it was not started. */
static int claim_start(rws_runtime *runtime, rws_error *error)
{
    if (set_start(runtime, RWS__STARTED) != RWS__NOT_STARTED)
        return rws__fail(error, RWS_E_STATE, "it was started already");
    int res = rws__runtime_arrange(runtime, error);
    if (res != 0) set_start(runtime, RWS__NOT_STARTED);
    return res;
}

/* Start threads for the shards from `first` on; a failure is reported like a shard's own. */
static void start_threads(rws_runtime *runtime, uint32_t first)
{
    int result = 0;
    for (uint32_t i = first; i < runtime->config.shards; i++) {
        rws__worker *worker = &runtime->workers[i];
        int res = result == 0 ? pthread_create(&worker->thread, NULL, worker_main, worker) : EAGAIN;
        worker->has_thread = res == 0;
        if (res == 0) continue;
        rws_error error;
        result =
            rws__fail(&error, -res, "can't start a thread for shard %u: %s", i, rws_strerror(-res));
        report(runtime, result, &error);
    }
}

/* What became of all shards: an error, or that connections were cut off, or 0. */
static int result_of_all(const rws_runtime *runtime)
{
    int result = 0;
    for (uint32_t i = 0; i < runtime->config.shards; i++) {
        const rws__worker *worker = &runtime->workers[i];
        if (result == 0 || result == RWS_E_TIMEOUT)
            if (worker->result != 0) result = worker->result;
    }
    return result;
}

static int join(rws_runtime *runtime)
{
    for (uint32_t i = 0; i < runtime->config.shards; i++) {
        rws__worker *worker = &runtime->workers[i];
        if (worker->has_thread) pthread_join(worker->thread, NULL);
        worker->has_thread = false;
    }
    runtime->waited = true;
    runtime->result = result_of_all(runtime);
    return runtime->result;
}

static int first_failure(rws_runtime *runtime, rws_error *error)
{
    pthread_mutex_lock(&runtime->lock);
    int status = runtime->first_error.status;
    if (status != 0 && error != NULL) *error = runtime->first_error;
    pthread_mutex_unlock(&runtime->lock);
    return status;
}

int rws__runtime_run(rws_runtime *runtime, rws_error *error)
{
    int res = claim_start(runtime, error);
    if (res != 0) return res;
    start_threads(runtime, 1);
    run_worker(&runtime->workers[0]);
    int result = join(runtime);
    int failure = first_failure(runtime, error);
    if (failure != 0) return failure;
    if (result == RWS_E_TIMEOUT)
        return rws__fail(error, result,
                         "some connections were cut off, or lost what was queued for them, "
                         "while the runtime stopped");
    if (result != 0) return rws__fail(error, result, "a shard stopped: %s", rws_strerror(result));
    return 0;
}

int rws__runtime_start(rws_runtime *runtime, rws_error *error)
{
    int res = claim_start(runtime, error);
    if (res != 0) return res;
    start_threads(runtime, 0);
    int failure = await_reports(runtime);
    if (failure != 0) {
        join(runtime);
        failure = first_failure(runtime, error);
    }
    set_start(runtime, RWS__TO_WAIT_FOR);
    return failure;
}

void rws__runtime_stop(rws_runtime *runtime)
{
    for (uint32_t i = 0; i < runtime->config.shards; i++)
        rws__loop_stop(&runtime->workers[i].shard.loop);
}

int rws__runtime_wait(rws_runtime *runtime)
{
    if (start_state(runtime) != RWS__TO_WAIT_FOR) return RWS_E_STATE;
    if (runtime->waited) return runtime->result;
    return join(runtime);
}

/* ---- without threads ---- */

int rws__runtime_open(rws_runtime *runtime, rws_error *error)
{
    int res = claim_start(runtime, error);
    if (res != 0) return res;
    for (uint32_t i = 0; i < runtime->config.shards && res == 0; i++)
        res = open_worker(&runtime->workers[i], error);
    if (res != 0) (void)rws__runtime_close(runtime);
    return res;
}

int rws__runtime_close(rws_runtime *runtime)
{
    for (uint32_t i = 0; i < runtime->config.shards; i++)
        close_worker(&runtime->workers[i]);
    return result_of_all(runtime);
}

int rws_post(rws_runtime *runtime, uint32_t shard, void (*fn)(void *arg, bool cancelled), void *arg)
{
    if (shard >= runtime->config.shards || fn == NULL) return RWS_E_ARGUMENT;
    return rws__mailbox_post(&runtime->workers[shard].shard.loop.mailbox, fn, arg);
}

/* ---- in memory of its own ---- */

int rws__runtime_make(rws_runtime **out, const rws_runtime_options *options, rws_role role,
                      rws_error *error)
{
    bool serves = role == RWS_SERVER;
    rws__runtime_config config;
    *out = NULL;
    int res = rws__runtime_config_make(&config, options, serves ? rws__cpus_available() : 1, error);
    if (res == 0) res = rws__probe_check(error);
    if (res != 0) return res;
    rws_runtime *runtime = rws__alloc(&config.env, sizeof *runtime);
    if (runtime == NULL)
        return rws__fail(error, -ENOMEM, "no memory for the %s", serves ? "server" : "client");
    res = rws__runtime_init(runtime, &config, error);
    if (res != 0) {
        rws__free(&config.env, runtime, sizeof *runtime);
        return res;
    }
    *out = runtime;
    return 0;
}

void rws__runtime_end(rws_runtime *runtime)
{
    if (runtime == NULL) return;
    rws__runtime_stop(runtime);
    rws__runtime_wait(runtime);
    rws__env env = runtime->config.env;
    rws__runtime_deinit(runtime);
    rws__free(&env, runtime, sizeof *runtime);
}

/* ---- counters ---- */

void rws__runtime_stats(const rws_runtime *runtime, rws_stats *out)
{
    rws_stats stats = {.size = out->size};
    for (uint32_t i = 0; i < runtime->config.shards; i++) {
        const rws__counters *counters = &runtime->workers[i].shard.loop.counters;
#define ADD(name) stats.name += atomic_load_explicit(&counters->name, memory_order_relaxed)
        ADD(connections);
        ADD(accepted);
        ADD(upgraded);
        ADD(refused);
        ADD(messages_received);
        ADD(messages_sent);
        ADD(bytes_received);
        ADD(bytes_sent);
        ADD(protocol_errors);
        ADD(timeouts);
        ADD(no_buffers);
        ADD(cq_overflows);
        ADD(accept_pauses);
        ADD(cut_off);
        ADD(ring_enters);
        ADD(sends_zero_copy);
        ADD(zero_copy_given_up);
        ADD(posts_dropped);
        ADD(bytes_discarded);
        ADD(out_of_memory);
#undef ADD
    }
    size_t size = out->size < sizeof stats ? out->size : sizeof stats;
    memcpy(out, &stats, size);
}
