/*
 * Messages that several threads hold: sent by all loops at once, released by a thread that is none,
 * and after their server is gone. A plain program, so that ThreadSanitizer can run it.
 * ctest: filtered
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/engine_server.h"
#include "support/raw_client.h"

#define RECEIVERS 6
#define SHARDS    3u
#define ROUNDS    24u
#define KEPT_MAX  1024u
#define KEPT_MIN  8u /* so many are kept until the server is gone */
#define LEN_MAX   100000u

static atomic_int failures;

/* Returns whether it held. */
static bool check_at(bool good, int line, const char *what)
{
    if (good) return true;
    fprintf(stderr, "engine_message_plain.c:%d: failed: %s\n", line, what);
    atomic_fetch_add(&failures, 1);
    return false;
}
#define check(condition) check_at((condition), __LINE__, #condition)

/* In a provided buffer and copied, in one and lent, received into its own memory. */
static const size_t lens[] = {1000, 5000, LEN_MAX};

/* Every message is one byte, many times. */
static bool is_whole(const void *data, size_t len)
{
    static const size_t count = sizeof lens / sizeof lens[0];
    const char *bytes = data;
    for (size_t i = 0; i < count; i++)
        if (len == lens[i]) return memcmp(bytes, bytes + 1, len - 1) == 0;
    return false;
}

/* ---- messages that a thread of the program keeps ---- */

static struct {
    pthread_mutex_t lock;
    rws_message *messages[KEPT_MAX];
    uint32_t count;
    atomic_bool stop;
} kept = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void keep(rws_message *message)
{
    pthread_mutex_lock(&kept.lock);
    if (check(kept.count < KEPT_MAX)) kept.messages[kept.count++] = message;
    pthread_mutex_unlock(&kept.lock);
}

/* The oldest, while more than `min` are kept; or NULL. */
static rws_message *take_kept(uint32_t min)
{
    rws_message *message = NULL;
    pthread_mutex_lock(&kept.lock);
    if (kept.count > min) {
        message = kept.messages[0];
        memmove(&kept.messages[0], &kept.messages[1], --kept.count * sizeof(rws_message *));
    }
    pthread_mutex_unlock(&kept.lock);
    return message;
}

static void look_and_release(rws_message *message)
{
    rws_message *again = rws_message_retain(message);
    check(again == message);
    check(rws_message_opcode(again) == RWS_TEXT);
    check(is_whole(rws_message_data(again), rws_message_len(again)));
    rws_message_release(message);
    rws_message_release(again);
}

static void *release_while_it_runs(void *arg)
{
    (void)arg;
    while (!atomic_load(&kept.stop)) {
        rws_message *message = take_kept(KEPT_MIN);
        if (message != NULL)
            look_and_release(message);
        else
            test_sleep_ms(1);
    }
    return NULL;
}

static void *release_the_rest(void *arg)
{
    (void)arg;
    rws_message *message;
    while ((message = take_kept(0)) != NULL)
        look_and_release(message);
    return NULL;
}

/* ---- one message, sent by all loops ---- */

typedef struct audience {
    rws_conn *conns[RECEIVERS]; /* touched by their shard's loop alone */
    uint32_t count;
} audience;

static audience audiences[SHARDS];
static bool creates; /* share() makes a message of its own; otherwise it holds what was received */

typedef struct copy {
    rws_message *message;
    uint32_t shard;
} copy;

static void send_to_audience(void *arg, bool cancelled)
{
    copy *own = arg;
    const audience *to = &audiences[own->shard];
    for (uint32_t i = 0; !cancelled && i < to->count; i++)
        check(rws_conn_send_message(to->conns[i], own->message) == 0);
    rws_message_release(own->message);
    free(own);
}

static void join_audience(rws_conn *conn, void *user)
{
    (void)user;
    audience *to = &audiences[rws_conn_shard(conn)];
    if (check(to->count < RECEIVERS)) to->conns[to->count++] = conn;
}

static rws_message *hold(const rws_message *message)
{
    if (!creates) return rws_message_retain(message);
    rws_message *created;
    check(rws_message_create(&created, NULL, rws_message_opcode(message), rws_message_data(message),
                             rws_message_len(message)) == 0);
    return created;
}

static int share(rws_conn *conn, const rws_message *message, void *user)
{
    (void)conn;
    const engine_server *server = user;
    rws_message *held = hold(message);
    if (!check(held != NULL)) return -ENOMEM;
    for (uint32_t i = 0; i < SHARDS; i++) {
        copy *one = malloc(sizeof *one);
        if (one == NULL) abort();
        *one = (copy){rws_message_retain(held), i};
        if (!check(test_post(server->server, i, send_to_audience, one) == 0)) abort();
    }
    keep(held);
    return 0;
}

static void send_round(raw_client *clients, size_t len)
{
    static uint8_t payload[LEN_MAX];
    for (uint32_t i = 0; i < RECEIVERS; i++) {
        memset(payload, 'a' + (int)i, len);
        check(raw_send_frame(&clients[i], RAW_TEXT, payload, len));
    }
}

/* Everybody gets one message of each. */
static void read_round(raw_client *client, size_t len)
{
    uint32_t from[RECEIVERS] = {0};
    for (uint32_t n = 0; n < RECEIVERS; n++) {
        raw_frame frame;
        if (!check(raw_read_frame(client, &frame) == 1)) return;
        check(frame.first == RAW_TEXT && frame.len == len && is_whole(frame.payload, frame.len));
        uint32_t sender = frame.payload[0] - (uint32_t)'a';
        if (check(sender < RECEIVERS)) from[sender]++;
    }
    for (uint32_t sender = 0; sender < RECEIVERS; sender++)
        check(from[sender] == 1);
}

/* Sent by all loops, released by a thread that is none, and by another one when the server is gone.
 */
static void test_shared(bool create, size_t retained_bytes_max)
{
    engine_server server;
    test_options options = engine_server_options();
    options.shards = SHARDS;
    options.message_bytes_max = 1u << 20;
    options.high_watermark_bytes = 8u << 20;
    options.retained_bytes_max = retained_bytes_max;
    rws_handler handler = engine_server_handler();
    handler.on_open = join_audience;
    handler.on_message = share;
    creates = create;
    memset(audiences, 0, sizeof audiences);
    atomic_store(&kept.stop, false);
    if (!check(engine_server_start(&server, &options, &handler) == 0)) return;
    pthread_t releaser;
    check(pthread_create(&releaser, NULL, release_while_it_runs, NULL) == 0);
    raw_client clients[RECEIVERS];
    for (uint32_t i = 0; i < RECEIVERS; i++)
        check(raw_open(&clients[i], server.port));
    check(engine_server_await_connections(&server, RECEIVERS));
    for (uint32_t n = 0; n < ROUNDS; n++) {
        size_t len = lens[n % (sizeof lens / sizeof lens[0])];
        send_round(clients, len);
        for (uint32_t i = 0; i < RECEIVERS; i++)
            read_round(&clients[i], len);
    }
    for (uint32_t i = 0; i < RECEIVERS; i++)
        raw_close(&clients[i]);
    check(engine_server_stop(&server) == 0);
    atomic_store(&kept.stop, true);
    pthread_join(releaser, NULL);
    check(kept.count >= KEPT_MIN);
    check(pthread_create(&releaser, NULL, release_the_rest, NULL) == 0);
    pthread_join(releaser, NULL);
    check(kept.count == 0);
}

/* ---- a message of one server, sent by another ---- */

static int keep_it(rws_conn *conn, const rws_message *message, void *user)
{
    (void)user;
    keep(rws_message_retain(message));
    return rws_conn_close(conn, 1000, NULL);
}

static int answer_with_kept(rws_conn *conn, const rws_message *message, void *user)
{
    (void)message;
    (void)user;
    rws_message *answer = take_kept(0);
    int res = rws_conn_send_message(conn, answer);
    rws_message_release(answer); /* the queue has it */
    return res;
}

static void test_outlives_its_server(size_t len)
{
    static uint8_t payload[LEN_MAX];
    engine_server server;
    raw_client client;
    raw_frame frame;
    test_options options = engine_server_options();
    options.message_bytes_max = 1u << 20;
    rws_handler handler = engine_server_handler();
    handler.on_message = keep_it;
    memset(payload, 'x', len);
    if (!check(engine_server_start(&server, &options, &handler) == 0)) return;
    check(raw_open(&client, server.port) && raw_send_frame(&client, RAW_TEXT, payload, len));
    check(raw_read_close(&client) == 1000);
    raw_close(&client);
    check(engine_server_stop(&server) == 0);
    check(kept.count == 1);

    handler.on_message = answer_with_kept;
    if (!check(engine_server_start(&server, &options, &handler) == 0)) return;
    check(raw_open(&client, server.port) && raw_send_frame(&client, RAW_TEXT, "x", 1));
    check(raw_read_frame(&client, &frame) == 1 && frame.len == len);
    check(is_whole(frame.payload, frame.len));
    raw_close(&client);
    check(engine_server_stop(&server) == 0);
}

int main(void)
{
    test_shared(true, 0);
    test_shared(false, 0);
    test_shared(false, 150000); /* most are copied with the allocator */
    for (size_t i = 0; i < sizeof lens / sizeof lens[0]; i++)
        test_outlives_its_server(lens[i]);
    printf("%d checks failed\n", atomic_load(&failures));
    return atomic_load(&failures) == 0 ? 0 : 1;
}
