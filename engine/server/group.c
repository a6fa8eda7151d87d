#include "engine/server/group.h"

#include "engine/base/assert.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* ---- handing accepted descriptors round ---- */

typedef struct handed_fd {
    rws__shard *shard;
    int fd;
} handed_fd;

static void adopt_handed(void *arg, bool cancelled)
{
    handed_fd *handed = arg;
    if (cancelled)
        close(handed->fd);
    else
        rws__listener_adopt(&handed->shard->listener, handed->fd);
    rws__free(handed->shard->loop.env, handed, sizeof *handed);
}

/* Give an accepted descriptor to the next shard in turn; where that can't be, to this one. */
static void hand_round(rws__listener *listener, int fd)
{
    rws__group *group = listener->hand_round_to;
    uint32_t next = group->hand_round_next++ % group->config.shards;
    rws__shard *target = &group->workers[next].shard;
    const rws__env *env = &group->config.env;
    handed_fd *handed = &target->listener != listener ? rws__alloc(env, sizeof *handed) : NULL;
    if (handed == NULL) {
        rws__listener_adopt(listener, fd);
        return;
    }
    *handed = (handed_fd){target, fd};
    if (rws__mailbox_post(&target->loop.mailbox, adopt_handed, handed) == 0) return;
    rws__free(env, handed, sizeof *handed);
    rws__listener_adopt(listener, fd);
}

/* ---- making ---- */

int rws__group_init(rws__group *group, rws__config *config, int *listener_fds, rws_error *error)
{
    memset(group, 0, sizeof *group);
    group->config = *config;
    rws__config_arrange(&group->config);
    group->listener_fds = listener_fds;
    pthread_mutex_init(&group->lock, NULL);
    pthread_cond_init(&group->changed, NULL);
    uint32_t count = config->shards;
    group->workers = rws__alloc(&group->config.env, count * sizeof(rws__worker));
    if (group->workers == NULL) {
        rws__group_deinit(group);
        return rws__fail(error, -ENOMEM, "no memory for %u shards", count);
    }
    for (uint32_t i = 0; i < count; i++) {
        rws__shard *shard = &group->workers[i].shard;
        group->workers[i].group = group;
        int fd = listener_fds != NULL ? listener_fds[i] : -1;
        int res = rws__shard_init(shard, &group->config, i, fd, error);
        if (listener_fds != NULL) listener_fds[i] = -1;
        if (res != 0) {
            rws__group_deinit(group);
            return res;
        }
        if (config->unix_path == NULL) continue;
        shard->listener.hand_round = hand_round;
        shard->listener.hand_round_to = group;
    }
    return 0;
}

void rws__group_deinit(rws__group *group)
{
    uint32_t count = group->config.shards;
    /* One that was drained has removed its socket, and what is there now is the next server's. */
    bool listens = (group->listener_fds != NULL && group->listener_fds[0] >= 0) ||
                   (group->workers != NULL && group->workers[0].shard.listener.fd >= 0);
    if (listens && group->config.unix_path != NULL) unlink(group->config.unix_path);
    for (uint32_t i = 0; group->workers != NULL && i < count; i++)
        rws__shard_deinit(&group->workers[i].shard);
    for (uint32_t i = 0; group->listener_fds != NULL && i < count; i++)
        if (group->listener_fds[i] >= 0) close(group->listener_fds[i]);
    rws__free(&group->config.env, group->listener_fds, count * sizeof(int));
    rws__free(&group->config.env, group->workers, count * sizeof(rws__worker));
    pthread_cond_destroy(&group->changed);
    pthread_mutex_destroy(&group->lock);
    rws__config_free(&group->config);
}

/* ---- running ---- */

/* A shard is up, or is not: the last one wakes who started them. */
static void report(rws__group *group, int status, const rws_error *error)
{
    pthread_mutex_lock(&group->lock);
    if (status != 0 && group->first_error.status == 0) group->first_error = *error;
    group->reported++;
    pthread_cond_broadcast(&group->changed);
    pthread_mutex_unlock(&group->lock);
}

/* Wait until all shards have reported; returns the first failure. */
static int await_reports(rws__group *group)
{
    pthread_mutex_lock(&group->lock);
    while (group->reported < group->config.shards)
        pthread_cond_wait(&group->changed, &group->lock);
    int status = group->first_error.status;
    pthread_mutex_unlock(&group->lock);
    return status;
}

static void run_worker(rws__worker *worker)
{
    rws__shard *shard = &worker->shard;
    rws__group *group = worker->group;
    rws__assert_log_to(&group->config.env);
    rws_error error = {0};
    int res = rws__shard_open(shard, &error);
    report(group, res, &error);
    if (res != 0) {
        worker->result = res;
    } else if (await_reports(group) == 0) { /* if one shard can't start, none serves */
        worker->result = rws__shard_run(shard);
        /* One that can't go on takes the others with it, so that somebody notices. */
        if (worker->result != 0 && worker->result != RWS_E_TIMEOUT) rws__group_stop(group);
    }
    rws__shard_close(shard);
    rws__assert_log_to(NULL); /* rws_server_run() gives the thread back to the program */
}

static void *worker_main(void *arg)
{
    run_worker(arg);
    return NULL;
}

static int claim_start(rws__group *group)
{
    pthread_mutex_lock(&group->lock);
    bool again = group->started;
    group->started = true;
    pthread_mutex_unlock(&group->lock);
    return again ? RWS_E_STATE : 0;
}

/* Start threads for the shards from `first` on; a failure is reported like a shard's own. */
static void start_threads(rws__group *group, uint32_t first)
{
    int result = 0;
    for (uint32_t i = first; i < group->config.shards; i++) {
        rws__worker *worker = &group->workers[i];
        int res = result == 0 ? pthread_create(&worker->thread, NULL, worker_main, worker) : EAGAIN;
        worker->has_thread = res == 0;
        if (res == 0) continue;
        rws_error error;
        result =
            rws__fail(&error, -res, "can't start a thread for shard %u: %s", i, rws_strerror(-res));
        report(group, result, &error);
    }
}

static int join(rws__group *group)
{
    int result = 0;
    for (uint32_t i = 0; i < group->config.shards; i++) {
        rws__worker *worker = &group->workers[i];
        if (worker->has_thread) pthread_join(worker->thread, NULL);
        worker->has_thread = false;
        if (result == 0 || result == RWS_E_TIMEOUT)
            if (worker->result != 0) result = worker->result;
    }
    group->waited = true;
    group->result = result;
    return result;
}

static int first_failure(rws__group *group, rws_error *error)
{
    pthread_mutex_lock(&group->lock);
    int status = group->first_error.status;
    if (status != 0 && error != NULL) *error = group->first_error;
    pthread_mutex_unlock(&group->lock);
    return status;
}

int rws__group_run(rws__group *group, rws_error *error)
{
    if (claim_start(group) != 0) return rws__fail(error, RWS_E_STATE, "it was started already");
    start_threads(group, 1);
    run_worker(&group->workers[0]);
    int result = join(group);
    int failure = first_failure(group, error);
    if (failure != 0) return failure;
    if (result == RWS_E_TIMEOUT)
        return rws__fail(error, result,
                         "some connections did not close within drain_timeout_ms and were cut off");
    if (result != 0) return rws__fail(error, result, "a shard stopped: %s", rws_strerror(result));
    return 0;
}

int rws__group_start(rws__group *group, rws_error *error)
{
    if (claim_start(group) != 0) return rws__fail(error, RWS_E_STATE, "it was started already");
    start_threads(group, 0);
    int failure = await_reports(group);
    if (failure == 0) return 0;
    join(group);
    return first_failure(group, error);
}

void rws__group_stop(rws__group *group)
{
    for (uint32_t i = 0; i < group->config.shards; i++)
        rws__loop_stop(&group->workers[i].shard.loop);
}

int rws__group_wait(rws__group *group)
{
    pthread_mutex_lock(&group->lock);
    bool started = group->started;
    pthread_mutex_unlock(&group->lock);
    if (!started) return RWS_E_STATE;
    if (group->waited) return group->result;
    return join(group);
}

int rws__group_post(rws__group *group, uint32_t shard, rws__post_fn fn, void *arg)
{
    if (shard >= group->config.shards || fn == NULL) return RWS_E_ARGUMENT;
    return rws__mailbox_post(&group->workers[shard].shard.loop.mailbox, fn, arg);
}

/* ---- counters ---- */

void rws__group_stats(const rws__group *group, rws_stats *out)
{
    rws_stats stats = {.size = out->size};
    for (uint32_t i = 0; i < group->config.shards; i++) {
        const rws__counters *counters = &group->workers[i].shard.loop.counters;
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
        ADD(bytes_discarded);
        ADD(posts_dropped);
#undef ADD
    }
    size_t size = out->size < sizeof stats ? out->size : sizeof stats;
    memcpy(out, &stats, size);
}
