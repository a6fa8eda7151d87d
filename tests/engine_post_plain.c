/*
 * Posts by id from many threads at once, while connections come and go and while the server stops.
 * A plain program, so that ThreadSanitizer can run it.
 *
 * Every connection's first message is its own id, and every message that is posted names the id
 * that it is for: a client that gets one for another id has found a fault. At the end every post
 * that was accepted is accounted for: done, or counted as dropped. ctest: filtered
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/engine_filter.h"
#include "support/engine_server.h"
#include "support/raw_client.h"

#define POSTERS 4
#define CLIENTS 6
#define LIVE    32u /* ids of connections that are there: 4 shards, 8 slots */
#define IDS     64u /* and of some that were */
#define ROUNDS  20

static int failures;

/* Returns whether it held. */
static bool check_at(bool good, int line, const char *what)
{
    if (good) return true;
    fprintf(stderr, "engine_post_plain.c:%d: failed: %s\n", line, what);
    failures++;
    return false;
}
#define check(condition) check_at((condition), __LINE__, #condition)

/* ---- what all threads see ---- */

typedef struct arena {
    rws_runtime *runtime;
    uint16_t port;
    bool resets;               /* clients go without a word, too */
    _Atomic uint64_t ids[IDS]; /* of connections that are there, or were */
    _Atomic uint64_t ids_next;
    _Atomic uint64_t sends, closes, calls;       /* accepted posts */
    _Atomic uint64_t refused, backlogs;          /* the others */
    _Atomic uint64_t calls_found, calls_missed;  /* runs of the calls */
    _Atomic uint64_t closed_4000, strangers;     /* what clients saw */
    _Atomic uint64_t opened, closed, wrong_conn; /* what the loops saw */
    atomic_bool over, stopping;
} arena;

/* ---- the server's side ---- */

static void on_open(rws_conn *conn, void *user)
{
    arena *own = user;
    char text[32];
    uint64_t id = rws_conn_id(conn);
    int len = snprintf(text, sizeof text, "%" PRIu64, id);
    atomic_fetch_add(&own->opened, 1);
    check(id != 0);
    (void)rws_conn_send_text(conn, text, (size_t)len);
    uint64_t at = (id >> 56) % 4 * 8 + (id >> 32) % 8, next = atomic_fetch_add(&own->ids_next, 1);
    uint64_t before = atomic_exchange(&own->ids[at], id);
    atomic_store(&own->ids[LIVE + next % (IDS - LIVE)], before);
}

static void on_close(rws_conn *conn, const rws_close_info *info, void *user)
{
    arena *own = user;
    (void)conn;
    (void)info;
    atomic_fetch_add(&own->closed, 1);
}

/* ---- posters ---- */

typedef struct parcel {
    arena *own;
    uint64_t id;
} parcel;

static void called(rws_conn *conn, void *arg)
{
    parcel *one = arg;
    if (conn != NULL && rws_conn_id(conn) != one->id) atomic_fetch_add(&one->own->wrong_conn, 1);
    atomic_fetch_add(conn != NULL ? &one->own->calls_found : &one->own->calls_missed, 1);
    free(one);
}

static int post_send(arena *own, uint64_t id)
{
    char text[4096];
    rws_message *message;
    /* Now and then a large one, which is lent to the queue. */
    size_t len = (size_t)snprintf(text, sizeof text, "%" PRIu64, id);
    if (id % 5 == 0) {
        memset(text + len, ' ', 3000);
        len += 3000;
    }
    int res = rws_message_create(&message, NULL, RWS_TEXT, text, len);
    if (res != 0) return res;
    res = rws_post_send(own->runtime, id, message);
    rws_message_release(message);
    return res;
}

static int post_call(arena *own, uint64_t id)
{
    parcel *one = malloc(sizeof *one);
    if (one == NULL) abort();
    *one = (parcel){own, id};
    int res = rws_post_call(own->runtime, id, called, one);
    if (res != 0) free(one);
    return res;
}

static void post_one(arena *own, uint64_t id, uint32_t dice)
{
    int res;
    _Atomic uint64_t *count;
    if (dice % 16 == 0) {
        res = rws_post_close(own->runtime, id, 4000, "posted");
        count = &own->closes;
    } else if (dice % 4 == 0) {
        res = post_call(own, id);
        count = &own->calls;
    } else {
        res = post_send(own, id);
        count = &own->sends;
    }
    if (res == RWS_E_STATE)
        count = &own->refused;
    else if (res == RWS_E_BACKLOG)
        count = &own->backlogs;
    else
        check(res == 0);
    atomic_fetch_add(count, 1);
}

static void *post_many(void *arg)
{
    arena *own = arg;
    for (uint32_t i = 1, dice = 12345; !atomic_load(&own->over); i++) {
        dice = dice * 1664525u + 1013904223u;
        uint64_t id = atomic_load(&own->ids[dice >> 16 & (IDS - 1)]);
        if (id != 0) post_one(own, id, dice >> 8);
        if (i % 16 == 0) test_sleep_ms(1);
    }
    return NULL;
}

/* ---- clients ---- */

/* Until it is closed; `frames_max` frames for one that goes without a word. */
static void read_all(arena *own, raw_client *client, uint64_t frames_max)
{
    raw_frame frame;
    uint64_t own_id = 0;
    for (uint64_t i = 0; i < frames_max && raw_read_frame(client, &frame) == 1; i++) {
        if (frame.first == RAW_CLOSE) {
            if (frame.len >= 2 && frame.payload[0] == 4000 >> 8 &&
                frame.payload[1] == (4000 & 0xFF))
                atomic_fetch_add(&own->closed_4000, 1);
            (void)raw_send_frame(client, RAW_CLOSE, frame.payload, frame.len < 2 ? 0 : 2);
            (void)raw_read_end(client);
            return;
        }
        char text[32] = "";
        memcpy(text, frame.payload, frame.len < sizeof text - 1 ? frame.len : sizeof text - 1);
        uint64_t id = strtoull(text, NULL, 10);
        if (own_id == 0) own_id = id;
        if (id != own_id) atomic_fetch_add(&own->strangers, 1);
    }
}

static void *come_and_go(void *arg)
{
    arena *own = arg;
    for (int round = 0; round < ROUNDS && !atomic_load(&own->stopping); round++) {
        raw_client client;
        if (!raw_open(&client, own->port)) continue; /* it stops */
        bool resets = own->resets && round % 2 == 0;
        read_all(own, &client, resets ? 3 : UINT64_MAX);
        if (resets)
            raw_reset(&client);
        else
            raw_close(&client);
    }
    return NULL;
}

/* ---- a run ---- */

static void check_accounts(const arena *own, const rws_stats *stats)
{
    uint64_t accepted = own->sends + own->closes + own->calls;
    uint64_t sent = stats->messages_sent - own->opened; /* but for the ids */
    check(own->strangers == 0);
    check(own->wrong_conn == 0);
    check(own->calls_found + own->calls_missed == own->calls);
    check(own->opened == own->closed);
    check(stats->connections == 0);
    /* A client that is reset does not see every close. */
    if (own->resets)
        check(accepted >= sent + own->calls_found + stats->posts_dropped + own->closed_4000);
    else
        check(accepted == sent + own->calls_found + stats->posts_dropped + own->closed_4000);
    printf("accepted %" PRIu64 " (%" PRIu64 " sent, %" PRIu64 " called, %" PRIu64
           " closed, %" PRIu64 " dropped), refused %" PRIu64 ", connections %" PRIu64 "\n",
           accepted, sent, own->calls_found, own->closed_4000, stats->posts_dropped, own->refused,
           own->opened);
}

static bool serve(engine_server *server, arena *own, uint32_t shards)
{
    test_options options = engine_server_options();
    rws_handler handler = RWS_HANDLER_DEFAULT;
    handler.on_open = on_open;
    handler.on_close = on_close;
    memset(server, 0, sizeof *server);
    options.shards = shards;
    options.user = own;
    options.close_timeout_ms = 20000;
    options.drain_timeout_ms = 20000;
    int res = test_server_create(&server->server, &options, &handler, &server->error);
    if (res == 0) engine_filter_server(server->server);
    if (res == 0) res = rws_server_start(server->server, &server->error);
    if (check(res == 0)) return true;
    fprintf(stderr, "%s\n", server->error.text);
    return false;
}

/* `stops`: the server stops while all go on. */
static void run(uint32_t shards, bool resets, bool stops)
{
    engine_server server;
    pthread_t posters[POSTERS], clients[CLIENTS];
    static arena own;
    memset(&own, 0, sizeof own);
    own.resets = resets;
    if (!serve(&server, &own, shards)) return;
    own.runtime = rws_server_runtime(server.server);
    own.port = rws_server_port(server.server, 0);
    for (int i = 0; i < POSTERS; i++)
        check(pthread_create(&posters[i], NULL, post_many, &own) == 0);
    for (int i = 0; i < CLIENTS; i++)
        check(pthread_create(&clients[i], NULL, come_and_go, &own) == 0);
    if (stops) {
        test_sleep_ms(50);
        atomic_store(&own.stopping, true);
        rws_server_stop(server.server);
        int res = rws_server_wait(server.server);
        check(res == 0);
        /* Posts to a runtime that has ended. */
        for (int ms = 0; ms < 20000 && atomic_load(&own.refused) == 0; ms++)
            test_sleep_ms(1);
    }
    for (int i = 0; i < CLIENTS; i++)
        pthread_join(clients[i], NULL);
    atomic_store(&own.over, true);
    for (int i = 0; i < POSTERS; i++)
        pthread_join(posters[i], NULL);
    if (stops) check(own.refused > 0);
    rws_server_stop(server.server);
    check(rws_server_wait(server.server) == 0);
    rws_stats stats = engine_server_stats(&server);
    rws_server_destroy(server.server);
    check_accounts(&own, &stats);
}

/* ---- a client's runtime ---- */

typedef struct dialled {
    _Atomic uint64_t id, opened, closed, answers;
} dialled;

static void dialled_open(rws_conn *conn, void *user)
{
    dialled *own = user;
    atomic_store(&own->id, rws_conn_id(conn));
    atomic_fetch_add(&own->opened, 1);
}

static int dialled_message(rws_conn *conn, const rws_message *message, void *user)
{
    dialled *own = user;
    (void)conn;
    check(rws_message_len(message) == 4);
    atomic_fetch_add(&own->answers, 1);
    return 0;
}

static void dialled_close(rws_conn *conn, const rws_close_info *info, void *user)
{
    dialled *own = user;
    (void)conn;
    check(info->code == 4000);
    check(info->who == RWS_CLOSED_BY_US);
    atomic_fetch_add(&own->closed, 1);
}

static void test_client(void)
{
    engine_server server;
    rws_client *client;
    rws_error error;
    static dialled own;
    test_options options = engine_server_options();
    rws_handler handler = RWS_HANDLER_DEFAULT;
    handler.on_open = dialled_open;
    handler.on_message = dialled_message;
    handler.on_close = dialled_close;
    options.user = &own;
    if (!check(engine_server_start(&server, NULL, NULL) == 0)) return;
    if (!check(test_client_create(&client, &options, &handler, &error) == 0)) return;
    engine_filter_client(client);
    rws_runtime *runtime = rws_client_runtime(client);
    char url[64];
    snprintf(url, sizeof url, "ws://127.0.0.1:%u/", server.port);
    check(rws_client_start(client, &error) == 0);
    for (uint64_t round = 1; round <= 3; round++) {
        uint64_t before = atomic_load(&own.id);
        check(test_dial(client, &options, url, NULL, NULL) == 0);
        check(engine_server_await(&own.opened, round));
        uint64_t id = atomic_load(&own.id);
        check(id != before);
        if (before != 0) check(rws_post_close(runtime, before, 4001, NULL) == 0); /* dropped */
        /* The server's connection has the same shard and slot, but not the same id. */
        check(rws_post_close(rws_server_runtime(server.server), id, 4002, NULL) == 0);
        for (int i = 0; i < 100; i++)
            check(rws_post_send(runtime, id, RWS_MESSAGE_TEXT("echo")) == 0);
        check(engine_server_await(&own.answers, round * 100));
        check(rws_post_close(runtime, id, 4000, NULL) == 0);
        check(engine_server_await(&own.closed, round));
    }
    rws_client_stop(client);
    check(rws_client_wait(client) == 0);
    check(engine_server_stats(&server).posts_dropped == 3);
    rws_stats stats = {.size = sizeof stats};
    rws_client_stats(client, &stats);
    check(stats.posts_dropped == 2);
    check(rws_post_send(runtime, own.id, RWS_MESSAGE_TEXT("late")) == RWS_E_STATE);
    rws_client_destroy(client);
    check(engine_server_stop(&server) == 0);
}

int main(void)
{
    run(1, false, false);
    run(3, false, false);
    run(3, true, false);
    run(1, false, true);
    run(3, false, true);
    run(3, true, true);
    test_client();
    return failures != 0;
}
