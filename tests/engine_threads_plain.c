/*
 * What other threads do to a server: post, read the counters, stop, destroy; a signal handler that
 * stops it. A plain program, so that ThreadSanitizer can run it. ctest: filtered
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support/engine_server.h"
#include "support/raw_client.h"

static int failures;

/* Returns whether it held. */
static bool check_at(bool good, int line, const char *what)
{
    if (good) return true;
    fprintf(stderr, "engine_threads_plain.c:%d: failed: %s\n", line, what);
    failures++;
    return false;
}
#define check(condition) check_at((condition), __LINE__, #condition)

static bool start(engine_server *server, uint32_t shards, uint32_t features_off)
{
    test_options options = engine_server_options();
    options.shards = shards;
    options.features_off = features_off;
    if (engine_server_start(server, &options, NULL) == 0) return true;
    fprintf(stderr, "%s\n", server->error.text);
    failures++;
    return false;
}

/* ---- posts ---- */

#define POSTERS 4
#define POSTS   5000u

typedef struct poster {
    rws_server *server;
    uint32_t shards;
    _Atomic uint64_t queued, backlogs, refused, ran, cancelled;
    uint64_t in_order[8]; /* the last number per shard; only its loop writes it */
    _Atomic uint64_t out_of_order;
} poster;

typedef struct parcel {
    poster *from;
    uint32_t shard;
    uint64_t number;
} parcel;

static void arrive(void *arg, bool cancelled)
{
    parcel *own = arg;
    poster *from = own->from;
    if (cancelled) {
        atomic_fetch_add(&from->cancelled, 1);
    } else {
        if (own->number <= from->in_order[own->shard]) atomic_fetch_add(&from->out_of_order, 1);
        from->in_order[own->shard] = own->number;
        atomic_fetch_add(&from->ran, 1);
    }
    free(own);
}

static void *post_many(void *arg)
{
    poster *own = arg;
    for (uint64_t i = 1; i <= POSTS; i++) {
        parcel *one = malloc(sizeof *one);
        if (one == NULL) abort();
        *one = (parcel){own, (uint32_t)(i % own->shards), i};
        int res = test_post(own->server, one->shard, arrive, one);
        if (res == 0) {
            atomic_fetch_add(&own->queued, 1);
            continue;
        }
        atomic_fetch_add(res == RWS_E_BACKLOG ? &own->backlogs : &own->refused, 1);
        free(one);
    }
    return NULL;
}

/* Every post that was queued runs once, on its loop and in order, or is cancelled; also when the
 * server stops meanwhile. */
static void test_posts(uint32_t shards, bool stops)
{
    engine_server server;
    poster posters[POSTERS];
    pthread_t threads[POSTERS];
    if (!start(&server, shards, 0)) return;
    memset(posters, 0, sizeof posters);
    for (int i = 0; i < POSTERS; i++) {
        posters[i].server = server.server;
        posters[i].shards = shards;
        check(pthread_create(&threads[i], NULL, post_many, &posters[i]) == 0);
    }
    if (stops) {
        test_sleep_ms(2);
        rws_server_stop(server.server);
        check(rws_server_wait(server.server) == 0);
    }
    for (int i = 0; i < POSTERS; i++)
        pthread_join(threads[i], NULL);
    uint64_t end = test_now_ms() + ENGINE_SERVER_WAIT_MS;
    for (int i = 0; !stops && i < POSTERS; i++)
        while (atomic_load(&posters[i].ran) < atomic_load(&posters[i].queued)) {
            if (!check(test_now_ms() < end)) break;
            test_sleep_ms(1);
        }
    check(engine_server_stop(&server) == 0);
    for (int i = 0; i < POSTERS; i++) {
        check(posters[i].ran + posters[i].cancelled == posters[i].queued);
        check(posters[i].queued + posters[i].backlogs + posters[i].refused == POSTS);
        check(posters[i].out_of_order == 0);
        check(stops || posters[i].queued == POSTS);
    }
}

/* A full mailbox: the callback that holds the loop lets 65,536 in, and no more. */
static void hold(void *arg, bool cancelled)
{
    atomic_bool *release = arg;
    while (!cancelled && !atomic_load(release))
        test_sleep_ms(1);
}

static void count_one(void *arg, bool cancelled)
{
    (void)cancelled;
    atomic_fetch_add((_Atomic uint64_t *)arg, 1);
}

static void test_full_mailbox(void)
{
    engine_server server;
    atomic_bool release = false;
    _Atomic uint64_t ran = 0;
    uint64_t queued = 0;
    if (!start(&server, 1, 0)) return;
    check(test_post(server.server, 0, hold, &release) == 0);
    test_sleep_ms(50);
    int res = 0;
    while (queued < 200000 && (res = test_post(server.server, 0, count_one, &ran)) == 0)
        queued++;
    check(res == RWS_E_BACKLOG);
    check(queued >= 65535 && queued <= 65536);
    atomic_store(&release, true);
    check(engine_server_await(&ran, queued));
    check(test_post(server.server, 0, count_one, &ran) == 0);
    check(engine_server_await(&ran, queued + 1));
    check(engine_server_stop(&server) == 0);
}

/* ---- a post that posts, and one that sends ---- */

typedef struct pushed {
    rws_server *server;
    rws_conn *_Atomic conn;
    _Atomic uint64_t left;
} pushed;

static pushed *_Atomic pushing;

static void remember(rws_conn *conn, void *user)
{
    engine_server *server = user;
    atomic_store(&atomic_load(&pushing)->conn, conn);
    atomic_fetch_add(&server->opened, 1);
}

static void push(void *arg, bool cancelled)
{
    pushed *own = arg;
    if (cancelled) return;
    char text[32];
    uint64_t left = atomic_load(&own->left);
    int len = snprintf(text, sizeof text, "%llu", (unsigned long long)left);
    check(rws_conn_send_text(atomic_load(&own->conn), text, (size_t)len) == 0);
    atomic_store(&own->left, left - 1);
    if (left > 1) check(test_post(own->server, 0, push, own) == 0);
}

/* An idle loop that is only ever woken by posts sends what they queue. */
static void test_push(uint32_t features_off)
{
    engine_server server;
    pushed own = {.left = 200};
    raw_client client;
    raw_frame frame;
    test_options options = engine_server_options();
    rws_handler handler = engine_server_handler();
    options.features_off = features_off;
    handler.on_open = remember;
    atomic_store(&pushing, &own);
    if (!check(engine_server_start(&server, &options, &handler) == 0)) return;
    own.server = server.server;
    if (check(raw_open(&client, server.port)) && check(engine_server_await(&server.opened, 1))) {
        check(test_post(server.server, 0, push, &own) == 0);
        for (unsigned long long i = 200; i > 0; i--) {
            char text[32];
            int len = snprintf(text, sizeof text, "%llu", i);
            if (!check(raw_read_frame(&client, &frame) == 1)) break;
            check(frame.len == (size_t)len && memcmp(frame.payload, text, frame.len) == 0);
        }
    }
    raw_close(&client);
    check(engine_server_await_connections(&server, 0));
    check(engine_server_stop(&server) == 0);
}

/* ---- stop, wait, destroy, counters ---- */

typedef struct talker {
    uint16_t port;
    atomic_bool stop;
    _Atomic uint64_t echoes;
} talker;

static void *talk(void *arg)
{
    talker *own = arg;
    while (!atomic_load(&own->stop)) {
        raw_client client;
        raw_frame frame;
        if (!raw_open(&client, own->port)) continue;
        for (int i = 0; i < 20; i++) {
            if (!raw_send_frame(&client, RAW_TEXT, "hello", 5)) break;
            if (raw_read_frame(&client, &frame) != 1 || frame.first != RAW_TEXT) break;
            atomic_fetch_add(&own->echoes, 1);
        }
        /* Answers a close, so that a drain ends. */
        (void)raw_send_frame(&client, RAW_CLOSE, "\x03\xE8", 2);
        (void)raw_read_end(&client);
        raw_close(&client);
    }
    return NULL;
}

static void *read_counters(void *arg)
{
    const engine_server *server = arg;
    uint64_t last = 0;
    for (int i = 0; i < 2000; i++) {
        rws_stats stats = engine_server_stats(server);
        check(stats.messages_received >= last);
        check(stats.connections < 1000);
        last = stats.messages_received;
    }
    return NULL;
}

static void *stop_it(void *arg)
{
    rws_server_stop(arg);
    rws_server_stop(arg);
    return NULL;
}

/* Traffic, counters read from outside, and two threads that stop it at once. */
static void test_stop_under_load(uint32_t features_off)
{
    engine_server server;
    talker own;
    pthread_t talkers[3], reader, stoppers[2];
    if (!start(&server, 2, features_off)) return;
    memset(&own, 0, sizeof own);
    own.port = server.port;
    for (int i = 0; i < 3; i++)
        check(pthread_create(&talkers[i], NULL, talk, &own) == 0);
    check(pthread_create(&reader, NULL, read_counters, &server) == 0);
    check(engine_server_await(&own.echoes, 200));
    pthread_join(reader, NULL);
    for (int i = 0; i < 2; i++)
        check(pthread_create(&stoppers[i], NULL, stop_it, server.server) == 0);
    int res = rws_server_wait(server.server);
    check(res == 0);
    atomic_store(&own.stop, true);
    for (int i = 0; i < 2; i++)
        pthread_join(stoppers[i], NULL);
    for (int i = 0; i < 3; i++)
        pthread_join(talkers[i], NULL);
    check(engine_server_stats(&server).connections == 0);
    check(atomic_load(&server.opened) == atomic_load(&server.closed));
    check(engine_server_stop(&server) == 0);
}

/* ---- run, on the caller's thread, ended by a signal ---- */

static rws_server *signalled;

static void on_signal(int number)
{
    (void)number;
    rws_server_stop(signalled); /* documented as async-signal-safe */
}

static void *send_signal(void *arg)
{
    test_sleep_ms(30);
    pthread_kill(*(pthread_t *)arg, SIGUSR1);
    return NULL;
}

static void test_signal(uint32_t shards)
{
    test_options options = engine_server_options();
    rws_handler handler = RWS_HANDLER_DEFAULT;
    rws_error error = {0};
    struct sigaction action = {.sa_handler = on_signal}, old;
    pthread_t self = pthread_self(), sender;
    options.shards = shards;
    if (!check(test_server_create(&signalled, &options, &handler, &error) == 0)) return;
    (void)sigaction(SIGUSR1, &action, &old);
    check(pthread_create(&sender, NULL, send_signal, &self) == 0);
    uint64_t begin = test_now_ms();
    check(rws_server_run(signalled, &error) == 0);
    check(test_now_ms() - begin < 5000);
    pthread_join(sender, NULL);
    (void)sigaction(SIGUSR1, &old, NULL);
    rws_server_destroy(signalled);
}

/* Made on one thread, run on another, destroyed on a third. */
static void *run_it(void *arg)
{
    rws_error error = {0};
    check(rws_server_run(arg, &error) == 0);
    return NULL;
}

/* While the server runs on another thread it is not to be waited for: that one joins the others. */
static void test_wait_during_run(void)
{
    for (uint32_t shards = 1; shards <= 3; shards++) {
        test_options options = engine_server_options();
        rws_handler handler = RWS_HANDLER_DEFAULT;
        rws_server *server = NULL;
        pthread_t runner;
        options.shards = shards;
        if (!check(test_server_create(&server, &options, &handler, NULL) == 0)) return;
        check(pthread_create(&runner, NULL, run_it, server) == 0);
        for (int i = 0; i < 20; i++) {
            check(rws_server_wait(server) == RWS_E_STATE);
            test_sleep_ms(1);
        }
        rws_server_stop(server);
        check(rws_server_wait(server) == RWS_E_STATE);
        pthread_join(runner, NULL);
        check(rws_server_wait(server) == RWS_E_STATE);
        rws_server_destroy(server);
    }
}

static void *destroy_it(void *arg)
{
    rws_server_destroy(arg);
    return NULL;
}

static void test_three_threads(void)
{
    for (int i = 0; i < 10; i++) {
        test_options options = engine_server_options();
        rws_handler handler = RWS_HANDLER_DEFAULT;
        rws_server *server = NULL;
        pthread_t runner, destroyer;
        options.shards = 1 + (uint32_t)i % 3;
        if (!check(test_server_create(&server, &options, &handler, NULL) == 0)) return;
        check(pthread_create(&runner, NULL, run_it, server) == 0);
        if (i % 2 == 0) test_sleep_ms(3);
        rws_server_stop(server);
        pthread_join(runner, NULL);
        check(pthread_create(&destroyer, NULL, destroy_it, server) == 0);
        pthread_join(destroyer, NULL);
    }
}

/* All descriptors are back; if not, which are there. */
static void check_files(size_t before)
{
    size_t now = test_open_files();
    for (int i = 0; now != before && i < 100; i++) {
        test_sleep_ms(10);
        now = test_open_files();
    }
    if (check(now == before)) return;
    fprintf(stderr, "%zu descriptors instead of %zu:\n", now, before);
    for (int fd = 0; fd < 1024; fd++) {
        char path[32], target[256];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t len = readlink(path, target, sizeof target - 1);
        if (len > 0) fprintf(stderr, "  %d: %.*s\n", fd, (int)len, target);
    }
}

int main(void)
{
    size_t files = test_open_files();
    test_posts(1, false);
    test_posts(3, false);
    test_posts(2, true);
    test_full_mailbox();
    test_push(0);
    test_push(RWS__FEATURE_ALL);
    test_stop_under_load(0);
    test_stop_under_load(RWS__FEATURE_ALL);
    test_signal(1);
    test_signal(3);
    test_wait_during_run();
    test_three_threads();
    check_files(files);
    printf("%d checks failed\n", failures);
    return failures == 0 ? 0 : 1;
}
