#include "support/engine_server.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "support/engine_filter.h"
#include "support/raw_client.h"

#define FILES_WANTED 20000u

test_options engine_server_options(void)
{
    test_options options = {0};
    options.port = 0;
    options.shards = 1;
    options.connections_max = 256;
    options.close_timeout_ms = 500;
    options.drain_timeout_ms = 2000;
    return options;
}

static void on_open(rws_conn *conn, void *user)
{
    engine_server *server = user;
    atomic_fetch_or(&server->shards_seen, (uint64_t)1 << (rws_conn_shard(conn) & 63));
    atomic_fetch_add(&server->opened, 1);
}

static int on_message(rws_conn *conn, const rws_message *message, void *user)
{
    engine_server *server = user;
    atomic_fetch_add(&server->messages, 1);
    atomic_fetch_add(&server->bytes, rws_message_len(message));
    return rws_conn_send_message(conn, message);
}

static void on_drain(rws_conn *conn, void *user)
{
    engine_server *server = user;
    (void)conn;
    atomic_fetch_add(&server->drains, 1);
}

static void on_close(rws_conn *conn, const rws_close_info *info, void *user)
{
    engine_server *server = user;
    (void)conn;
    (void)info;
    atomic_store(&server->last_code, info->code);
    atomic_store(&server->last_closer, (uint32_t)info->who);
    atomic_fetch_add(&server->closed, 1);
}

rws_handler engine_server_handler(void)
{
    rws_handler handler = RWS_HANDLER_DEFAULT;
    handler.on_open = on_open;
    handler.on_message = on_message;
    handler.on_drain = on_drain;
    handler.on_close = on_close;
    return handler;
}

int engine_server_start(engine_server *server, const test_options *options,
                        const rws_handler *handler)
{
    memset(server, 0, sizeof *server);
    test_options own = options != NULL ? *options : engine_server_options();
    rws_handler own_handler = handler != NULL ? *handler : engine_server_handler();
    own.user = server;
    int res = test_server_create(&server->server, &own, &own_handler, &server->error);
    if (res != 0) return res;
    engine_filter_server(server->server);
    server->port = rws_server_port(server->server, 0);
    res = rws_server_start(server->server, &server->error);
    if (res == 0) return 0;
    rws_server_destroy(server->server);
    server->server = NULL;
    return res;
}

int engine_server_stop(engine_server *server)
{
    if (server->server == NULL) return 0;
    rws_server_stop(server->server);
    int res = rws_server_wait(server->server);
    rws_server_destroy(server->server);
    server->server = NULL;
    return res;
}

rws_stats engine_server_stats(const engine_server *server)
{
    rws_stats stats = {.size = sizeof stats};
    rws_server_stats(server->server, &stats);
    return stats;
}

bool engine_server_await_connections(const engine_server *server, uint64_t count)
{
    uint64_t end = test_now_ms() + ENGINE_SERVER_WAIT_MS;
    while (engine_server_stats(server).connections != count) {
        if (test_now_ms() > end) return false;
        test_sleep_ms(2);
    }
    return true;
}

bool engine_server_await(const _Atomic uint64_t *counter, uint64_t count)
{
    uint64_t end = test_now_ms() + ENGINE_SERVER_WAIT_MS;
    while (atomic_load(counter) < count) {
        if (test_now_ms() > end) return false;
        test_sleep_ms(2);
    }
    return true;
}

bool engine_server_serves(const engine_server *server)
{
    raw_client client;
    raw_frame frame;
    if (!raw_open(&client, server->port)) return false;
    bool good = raw_send_frame(&client, RAW_TEXT, "served?", 7) &&
                raw_read_frame(&client, &frame) == 1 && frame.first == RAW_TEXT && frame.len == 7 &&
                memcmp(frame.payload, "served?", 7) == 0;
    good = good && raw_send_frame(&client, RAW_CLOSE, "\x03\xE8", 2) &&
           raw_read_close(&client) == 1000 && raw_read_end(&client);
    raw_close(&client);
    return good;
}

/* ---- the process ---- */

int test_post(rws_server *server, uint32_t shard, void (*fn)(void *arg, bool cancelled), void *arg)
{
    return rws_post(rws_server_runtime(server), shard, fn, arg);
}

uint64_t test_now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void test_sleep_ms(uint32_t ms)
{
    struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    (void)nanosleep(&pause, NULL);
}

size_t test_resident_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "re");
    if (file == NULL) return 0;
    char line[128];
    size_t pages = 0;
    /* The second number is what is resident. */
    if (fgets(line, sizeof line, file) != NULL) {
        const char *second = strchr(line, ' ');
        for (; second != NULL && second[1] >= '0' && second[1] <= '9'; second++)
            pages = pages * 10 + (size_t)(second[1] - '0');
    }
    (void)fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

size_t test_open_files(void)
{
    DIR *folder = opendir("/proc/self/fd");
    if (folder == NULL) return 0;
    size_t count = 0;
    while (readdir(folder) != NULL)
        count++;
    (void)closedir(folder);
    return count - 3; /* ".", ".." and the folder itself */
}

uint64_t test_raise_files(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_max < FILES_WANTED) {
        /* Only root may. */
        limit.rlim_cur = limit.rlim_max = FILES_WANTED;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : 0;
}
