/*
 * A chat room on ws://127.0.0.1:9223: every message goes to everybody. One shard, so that all
 * callbacks run on one thread and the list needs no lock; with more shards, each keeps its own list
 * and rws_post() carries messages to the others.
 */
#include <errno.h>
#include <ringws/ringws.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct room {
    rws_conn **members;
    size_t count, capacity;
} room;

static rws_server *server;

static void on_signal(int number)
{
    (void)number;
    rws_server_stop(server); // NOLINT(bugprone-signal-handler,cert-sig30-c): signal-safe
}

static void on_open(rws_conn *conn, void *user)
{
    room *r = user;
    rws_conn_set_user(conn, (void *)(intptr_t)-1);
    if (r->count == r->capacity) {
        size_t capacity = r->capacity ? 2 * r->capacity : 16;
        rws_conn **members = realloc(r->members, capacity * sizeof(rws_conn *));
        if (!members) {
            rws_conn_close(conn, RWS_CLOSE_TRY_AGAIN_LATER, "out of memory");
            return;
        }
        r->members = members;
        r->capacity = capacity;
    }
    rws_conn_set_user(conn, (void *)r->count);
    r->members[r->count++] = conn;
}

static int on_message(rws_conn *conn, const rws_message *message, void *user)
{
    (void)conn;
    const room *r = user;
    /* Held, so that all members are sent it from one place in memory. */
    rws_message *held = rws_message_retain(message);
    if (!held) return -ENOMEM;
    for (size_t i = r->count; i-- > 0;)
        if (rws_conn_send_message(r->members[i], held) == RWS_E_BACKLOG)
            rws_conn_close(r->members[i], RWS_CLOSE_TRY_AGAIN_LATER, "too slow for this room");
    rws_message_release(held);
    return 0;
}

static void on_close(rws_conn *conn, const rws_close_info *info, void *user)
{
    (void)info;
    room *r = user;
    size_t index = (size_t)rws_conn_user(conn);
    if (index >= r->count) return;
    r->members[index] = r->members[--r->count]; /* the last one takes the place */
    rws_conn_set_user(r->members[index], (void *)index);
}

static const rws_handler handler = {
    .size = sizeof handler,
    .on_open = on_open,
    .on_message = on_message,
    .on_close = on_close,
};

int main(int argc, char **argv)
{
    room lobby = {0};
    rws_runtime_options runtime = RWS_RUNTIME_OPTIONS_DEFAULT;
    runtime.shards = 1;
    rws_endpoint_options endpoint = RWS_ENDPOINT_OPTIONS_DEFAULT;
    endpoint.handler = &handler;
    endpoint.user = &lobby;
    rws_listener_options listener = RWS_LISTENER_OPTIONS_DEFAULT;
    if (argc > 1) listener.port = (uint16_t)strtoul(argv[1], NULL, 10);

    rws_error error;
    int status = rws_server_create(&server, &runtime, &error);
    (void)signal(SIGINT, on_signal);
    if (status == 0) status = rws_server_add_endpoint(server, &endpoint, NULL, &error);
    if (status == 0) status = rws_server_listen(server, &listener, &error);
    if (status == 0) {
        fprintf(stderr, "listening on ws://%s:%u\n", listener.address,
                (unsigned)rws_server_port(server, 0));
        status = rws_server_run(server, &error);
    }
    if (status != 0) fprintf(stderr, "broadcast: %s\n", error.text);
    rws_server_destroy(server);
    free(lobby.members);
    return status != 0;
}
