#include "support/engine_stress_server.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "support/engine_filter.h"

/* A send that is still queued after so many turns of the loop met a full socket. */
#define MANY_TURNS 16

typedef struct session {
    stress_server *server;
    rws_conn *conn;
    struct session *next, *prev;
    rws_message *refused;  /* the message that the queue had no room for */
    uint64_t queued_since; /* turns of the loop when the queue was last seen empty */
} session;

struct stress_server {
    rws_server *server;
    uint32_t shards;
    pthread_mutex_t lock; /* of the list; each session itself belongs to its loop */
    session *sessions;
    _Atomic uint64_t opened, closed, clean_closes, drains, backlogs, blocked;
};

static void add_one(_Atomic uint64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static void on_open(rws_conn *conn, void *user)
{
    stress_server *server = user;
    session *own = calloc(1, sizeof *own);
    if (own == NULL) abort();
    own->server = server;
    own->conn = conn;
    rws_conn_set_user(conn, own);
    pthread_mutex_lock(&server->lock);
    own->next = server->sessions;
    if (own->next != NULL) own->next->prev = own;
    server->sessions = own;
    pthread_mutex_unlock(&server->lock);
    add_one(&server->opened);
}

static void on_close(rws_conn *conn, const rws_close_info *info, void *user)
{
    stress_server *server = user;
    session *own = rws_conn_user(conn);
    (void)info;
    pthread_mutex_lock(&server->lock);
    if (own->prev != NULL) own->prev->next = own->next;
    if (own->next != NULL) own->next->prev = own->prev;
    if (server->sessions == own) server->sessions = own->next;
    pthread_mutex_unlock(&server->lock);
    if (info->code == RWS_CLOSE_NORMAL && info->who == RWS_CLOSED_BY_PEER)
        add_one(&server->clean_closes);
    rws_message_release(own->refused);
    free(own);
    add_one(&server->closed);
}

/* With one shard: count the messages that find answers which are long overdue. */
static void notice_blocked(session *own)
{
    stress_server *server = own->server;
    if (server->shards != 1) return;
    rws_stats stats = {.size = sizeof stats};
    rws_server_stats(server->server, &stats);
    if (rws_conn_buffered(own->conn) == 0)
        own->queued_since = stats.ring_enters;
    else if (stats.ring_enters - own->queued_since >= MANY_TURNS)
        add_one(&server->blocked);
}

static int on_message(rws_conn *conn, const rws_message *message, void *user)
{
    stress_server *server = user;
    session *own = rws_conn_user(conn);
    if (own->refused != NULL) return RWS_E_INTERNAL; /* it is paused: nothing may come */
    notice_blocked(own);
    int res = rws_conn_send_message(conn, message);
    if (res != RWS_E_BACKLOG) return res;
    add_one(&server->backlogs);
    own->refused = rws_message_retain(message);
    if (own->refused == NULL) return RWS_E_INTERNAL;
    rws_conn_pause(conn);
    return 0;
}

static void on_drain(rws_conn *conn, void *user)
{
    stress_server *server = user;
    session *own = rws_conn_user(conn);
    add_one(&server->drains);
    if (own->refused == NULL) return;
    int res = rws_conn_send_message(conn, own->refused);
    if (res == RWS_E_BACKLOG) return; /* larger than what is free by now: on_drain comes again */
    rws_message_release(own->refused);
    own->refused = NULL;
    if (res != 0)
        rws_conn_abort(conn);
    else
        rws_conn_resume(conn);
}

static void print_log(rws_log_level level, const char *line, void *user)
{
    (void)user;
    if (level <= RWS_LOG_WARNING) fprintf(stderr, "the server's log: %s\n", line);
}

stress_server *stress_server_start(const test_options *options)
{
    stress_server *server = calloc(1, sizeof *server);
    if (server == NULL) return NULL;
    pthread_mutex_init(&server->lock, NULL);
    test_options own = *options;
    own.user = server;
    own.log = print_log;
    rws_handler handler = RWS_HANDLER_DEFAULT;
    handler.on_open = on_open;
    handler.on_message = on_message;
    handler.on_drain = on_drain;
    handler.on_close = on_close;
    rws_error error = {0};
    int res = test_server_create(&server->server, &own, &handler, &error);
    if (res == 0) {
        engine_filter_server(server->server);
        server->shards = rws_server_shards(server->server);
        res = rws_server_start(server->server, &error);
    }
    if (res == 0) return server;
    fprintf(stderr, "the server can't start: %s\n", error.text);
    rws_server_destroy(server->server);
    pthread_mutex_destroy(&server->lock);
    free(server);
    return NULL;
}

uint16_t stress_server_port(const stress_server *server)
{
    return rws_server_port(server->server, 0);
}

void stress_server_stats(const stress_server *server, rws_stats *stats)
{
    *stats = (rws_stats){.size = sizeof *stats};
    rws_server_stats(server->server, stats);
}

stress_server_counts stress_server_counted(const stress_server *server)
{
    return (stress_server_counts){
        .opened = atomic_load(&server->opened),
        .closed = atomic_load(&server->closed),
        .clean_closes = atomic_load(&server->clean_closes),
        .drains = atomic_load(&server->drains),
        .backlogs = atomic_load(&server->backlogs),
        .blocked = atomic_load(&server->blocked),
    };
}

/* ---- the dump ---- */

typedef struct dump {
    stress_server *server;
    FILE *out;
    uint32_t shard;
    atomic_bool done;
} dump;

static void dump_shard(void *arg, bool cancelled)
{
    dump *job = arg;
    pthread_mutex_lock(&job->server->lock);
    for (session *own = job->server->sessions; own != NULL && !cancelled; own = own->next) {
        if (rws_conn_shard(own->conn) != job->shard) continue;
        fprintf(job->out, "  server, shard %u: a connection with %zu bytes queued%s\n", job->shard,
                rws_conn_buffered(own->conn),
                own->refused != NULL ? ", paused until on_drain" : "");
    }
    pthread_mutex_unlock(&job->server->lock);
    atomic_store(&job->done, true);
}

void stress_server_dump(stress_server *server, FILE *out)
{
    for (uint32_t i = 0; i < server->shards; i++) {
        /* Given up if the loop hangs, so it is not freed then. */
        dump *job = calloc(1, sizeof *job);
        if (job == NULL) return;
        *job = (dump){.server = server, .out = out, .shard = i};
        if (rws_post(rws_server_runtime(server->server), i, dump_shard, job) != 0) {
            free(job);
            continue;
        }
        struct timespec pause = {.tv_nsec = 20000000};
        for (int waits = 0; waits < 150 && !atomic_load(&job->done); waits++)
            nanosleep(&pause, NULL);
        if (atomic_load(&job->done))
            free(job);
        else
            fprintf(out, "  server, shard %u: its loop does not answer\n", i);
    }
}

int stress_server_finish(stress_server *server, rws_stats *stats)
{
    rws_server_stop(server->server);
    int res = rws_server_wait(server->server);
    stress_server_stats(server, stats);
    rws_server_destroy(server->server);
    pthread_mutex_destroy(&server->lock);
    free(server);
    return res;
}
