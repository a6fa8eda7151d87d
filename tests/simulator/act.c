/*
 * What the programs on both sides do by themselves: dials, bursts, posts, closes, pauses.
 */
#include "simulator/world.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define BURST_MAX 32u

/* ---- what they do by themselves ---- */

static bool may_speak(const pair_end *side)
{
    return side->conn != NULL && !side->closes;
}

/* Some pair for which `side` is open, or NULL. */
static pair *some_pair(bool of_server)
{
    pair *found = NULL;
    uint32_t count = 0;
    for (pair *own = world.pairs; own != NULL; own = own->next)
        if (may_speak(of_server ? &own->server : &own->client) && below(++count) == 0) found = own;
    return found;
}

static size_t some_len(void)
{
    uint32_t most = world.plan->message_max;
    if (world.plan->busy) return 64;
    if (!one_in(world.plan->large_one_in))
        return MESSAGE_HEAD + below(most < 300 ? most - MESSAGE_HEAD : 200);
    return one_in(2) ? most : MESSAGE_HEAD + below(most - MESSAGE_HEAD + 1);
}

static char text[1u << 20];

/* A call that was posted: it is run once, before long, and with the connection that it is for, or
 * none. */
typedef struct call {
    const pair *pair;
    const pair_end *side;
    void (*fn)(rws_conn *conn, void *arg);
    void *arg;
} call;

static void run_call(rws_conn *conn, void *arg)
{
    call own = *(call *)arg;
    free(arg);
    world.calls--;
    if (conn != NULL && conn != own.side->conn)
        fail("a call for connection %" PRIu64 " was run with another", own.pair->key);
    own.fn(conn, own.arg);
}

static int post_call(pair *own, bool to_server, void (*fn)(rws_conn *conn, void *arg), void *arg)
{
    const pair_end *side = to_server ? &own->server : &own->client;
    call *made = malloc(sizeof *made);
    if (made == NULL) abort();
    *made = (call){own, side, fn, arg};
    world.calls++;
    int res = rws_post_call(to_server ? &world.server : &world.client, side->id, run_call, made);
    if (res == 0) return 0;
    world.calls--;
    free(made);
    return res;
}

static void on_client(pair *own, void (*fn)(rws_conn *conn, void *arg))
{
    if (own != NULL) (void)post_call(own, false, fn, own);
}

static void on_server(pair *own, void (*fn)(rws_conn *conn, void *arg))
{
    if (own != NULL) (void)post_call(own, true, fn, own);
}

static void client_pings(rws_conn *conn, void *arg)
{
    pair *own = arg;
    char number[PING_BYTES];
    if (conn == NULL) return;
    ping_write(number, own->pings);
    if (rws_conn_send_frame(conn, RWS_PING, true, number, sizeof number) == 0) own->pings++;
}

/* On the client's loop: a burst of messages. */
static void speak(rws_conn *conn, void *arg)
{
    pair *own = arg;
    if (conn == NULL || !may_speak(&own->client)) return;
    uint32_t burst = world.plan->busy ? BURST_MAX : 1 + (uint32_t)below(BURST_MAX);
    /* A post from within one. */
    if (!world.plan->busy && one_in(4)) on_client(own, client_pings);
    while (burst-- > 0) {
        size_t len = some_len();
        rws_opcode opcode = one_in(2) ? RWS_TEXT : RWS_BINARY;
        message_write(text, pair_stream_asked(own), own->asked, len, opcode);
        int res = rws_conn_send(conn, opcode, text, len);
        if (res == RWS_E_BACKLOG || res == -ENOMEM || res == RWS_E_STATE) return;
        if (res != 0) fail("connection %" PRIu64 ": a send was refused: %d", own->key, res);
        own->asked++;
    }
}

static void client_closes(rws_conn *conn, void *arg)
{
    pair *own = arg;
    if (conn == NULL || !may_speak(&own->client)) return;
    if (one_in(4)) {
        own->excused = true;
        app_abort(conn);
        return;
    }
    app_close(own, &own->client, one_in(3) ? 1005 : 4001, NULL);
}

static void dial(void)
{
    char url[96];
    rws_dial_options options = RWS_DIAL_OPTIONS_DEFAULT;
    rws_error error;
    if (world.clients >= world.plan->clients) return;
    pair *own = world_new_pair();
    if (world.plan->over_unix)
        snprintf(url, sizeof url, "ws+unix:///tmp/simulated:/?k=%" PRIu64, pair_name(own));
    else
        snprintf(url, sizeof url, "ws://%s:%u/?k=%" PRIu64, world.plan->host,
                 world.server.listeners[0].port, pair_name(own));
    options.user = own;
    options.timeout_ms = one_in(3) ? 1000 : 10000;
    world.clients++;
    own->dial_limit_us = rws__sim_now_us() + options.timeout_ms * 1000 + world_slack_us();
    if (rws__runtime_dial(&world.client, world.client_endpoint, url, &options, &own->dial_id,
                          &error) != 0) {
        own->dial_id = 0;
        own->excused = true;
        world.clients--;
    } else if (!world.plan->busy && one_in(20)) {
        (void)rws__runtime_cancel(&world.client, own->dial_id);
    }
}

/* On the server's loop: a message of its own. */
static void tell(rws_conn *conn, void *arg)
{
    pair *own = arg;
    if (conn == NULL || !may_speak(&own->server)) return;
    size_t len = some_len();
    message_write(text, pair_stream_told(own), own->told, len, RWS_TEXT);
    if (rws_conn_send(conn, RWS_TEXT, text, len) == 0) own->told++;
}

/* From "another thread"; it may be dropped, but comes neither twice nor late. */
static void post(pair *own)
{
    rws_message *message;
    if (own == NULL) return;
    size_t len = some_len();
    message_write(text, pair_stream_posted(own), own->posted++, len, RWS_TEXT);
    if (rws_message_create(&message, &world.allocator, RWS_TEXT, text, len) != 0) return;
    if (rws_post_send(&world.server, own->server.id, message) == 0) own->posts_taken++;
    rws_message_release(message);
}

static void broadcast_one(rws_conn *conn, void *arg)
{
    rws_message *message = arg;
    if (conn != NULL) {
        pair *own = rws_conn_user(conn);
        if (rws_conn_send_message(conn, message) == 0) own->broadcast++;
    }
    rws_message_release(message);
}

static void broadcast(void)
{
    size_t len = some_len();
    rws_message *message;
    message_write(text, STREAM_BROADCAST, world.broadcasts++, len, RWS_BINARY);
    if (rws_message_create(&message, &world.allocator, RWS_BINARY, text, len) != 0) return;
    for (pair *own = world.pairs; own != NULL; own = own->next) {
        if (!may_speak(&own->server)) continue;
        rws_message *held = rws_message_retain(message);
        if (held == NULL) continue;
        if (post_call(own, true, broadcast_one, held) != 0) rws_message_release(held);
    }
    rws_message_release(message);
}

static void server_closes(rws_conn *conn, void *arg)
{
    pair *own = arg;
    if (conn == NULL || !may_speak(&own->server)) return;
    app_close(own, &own->server, 1000, "bye");
}

/* A post to a connection that is gone reaches nobody. */
static void post_to_the_dead(void)
{
    pair *found = NULL;
    uint32_t count = 0;
    for (pair *own = world.pairs; own != NULL; own = own->next)
        if (own->server.closed && below(++count) == 0) found = own;
    post(found);
    on_server(found, tell);
}

static void act_busy(void)
{
    if (world.clients < world.plan->clients)
        dial();
    else
        for (pair *own = world.pairs; own != NULL; own = own->next)
            if (own->client.conn != NULL && own->asked - own->echoes < BURST_MAX)
                on_client(own, speak);
}

void app_post_late(void)
{
    uint32_t count = 0;
    for (pair *own = world.pairs; own != NULL && count < 8; own = own->next) {
        if (own->server.id == 0) continue;
        post(own);
        on_server(own, tell);
        count++;
    }
}

void app_act(void)
{
    if (world.plan->busy) {
        act_busy();
        return;
    }
    switch (below(16)) {
    case 0:
    case 1: dial(); break;
    case 2:
    case 3: raws_spawn(); break;
    case 4:
        if (one_in(2))
            post(some_pair(true));
        else
            on_server(some_pair(true), tell);
        break;
    case 5:
        if (one_in(3))
            broadcast();
        else if (one_in(2))
            post_to_the_dead();
        break;
    case 6:
        if (one_in(4)) on_client(some_pair(false), client_closes);
        break;
    case 7:
        if (one_in(4)) on_server(some_pair(true), server_closes);
        break;
    case 8: on_client(some_pair(false), client_pings); break;
    default: on_client(some_pair(false), speak); break;
    }
}

/* ---- pauses ---- */

static void resume(rws_conn *conn, void *arg)
{
    (void)arg;
    if (conn != NULL) rws_conn_resume(conn);
}

void app_resume(bool all)
{
    uint64_t now = rws__sim_now_us();
    if (world.plan->busy) return;
    for (pair *own = world.pairs; own != NULL; own = own->next) {
        if (!own->server.paused || (!all && own->resume_us > now)) continue;
        own->server.paused = false;
        if (own->server.conn == NULL) continue;
        if (post_call(own, true, resume, NULL) == 0) continue;
        own->server.paused = true; /* no memory for the post: later */
        own->resume_us = now + 1000;
    }
}

uint64_t app_next_us(void)
{
    uint64_t next = UINT64_MAX;
    if (world.plan->busy) return next;
    for (const pair *own = world.pairs; own != NULL; own = own->next)
        if (own->server.paused && own->resume_us < next) next = own->resume_us;
    return next;
}
