/*
 * The programs on both sides: handlers that count and check, and what they do by themselves.
 */
#include "simulator/world.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what both sides have in common ---- */

static bool is_excused(const pair *own)
{
    return own->excused || !own->honest || world.server_stopping || world_is_rough();
}

static void on_opened(pair *own, pair_end *side, rws_conn *conn, uint32_t *open)
{
    if (side->open) fail("connection %" PRIu64 ": on_open came twice", own->key);
    side->open = true;
    side->conn = conn;
    side->id = rws_conn_id(conn);
    ++*open;
    world.opened++;
    note(own->key);
}

/* on_close comes from the loop, never inside a call of the program. */
void app_abort(rws_conn *conn)
{
    world.in_call = true;
    rws_conn_abort(conn);
    world.in_call = false;
}

void app_close(pair *own, pair_end *side, uint16_t code, const char *reason)
{
    world.in_call = true;
    int res = rws_conn_close(side->conn, code, reason);
    world.in_call = false;
    if (res != 0) return;
    side->closes = true;
    side->code = code;
    side->reason = reason != NULL ? reason : "";
    note(own->key ^ code);
}

static void need_open(const pair *own, const pair_end *side, const rws_conn *conn, const char *what)
{
    if (own == NULL || !side->open || side->closed || side->conn != conn)
        fail("%s outside on_open and on_close", what);
}

/* Everything that the other side had accepted for sending has come, if its close was the first. */
static void check_arrived(const pair *own, const char *what, uint32_t received, uint32_t sent)
{
    if (received != sent && !is_excused(own))
        fail("connection %" PRIu64 ": %u of %u %s arrived before the close", own->key, received,
             sent, what);
}

/* The other side has closed, and does not know how long to wait. */
static bool may_be_cut_short(const pair *own, const pair_end *side)
{
    const pair_end *other = side == &own->client ? &own->server : &own->client;
    return other->closed && !world_kernel_tells();
}

/* Why it may end without a closing handshake. */
static void check_status(const pair *own, const pair_end *side, const rws_close_info *info,
                         const char *who)
{
    bool excused = is_excused(own);
    switch (info->status) {
    case 0: return;
    case -ENOMEM:
        if (excused || world_is_short_of_memory()) return;
        break;
    case RWS_E_TIMEOUT:
        if (!own->honest || own->excused || world.server_stopping || world_is_short_of_memory())
            return;
        if (own->takes && !side->closes) break;
        /* The peer's close is behind all that it sent before: on a slow way that is late. */
        if (side->closes) return;
        /* Nor does one take what is sent while it is paused. */
        if (side == &own->client && own->rested) return;
        break;
    case RWS_E_CLOSED:
        if (own->raw) return;
        /* fallthrough */
    case RWS_E_ABORTED:
    case RWS_E_STATE:
    case -ECONNRESET:
    case -EPIPE:
        if (excused || world_is_short_of_memory() || may_be_cut_short(own, side)) return;
        break;
    default:
        if (!own->honest || own->excused) return;
    }
    fail("connection %" PRIu64 ": the %s ended it with %d, %u, %.*s", own->key, who, info->status,
         info->code, (int)info->reason.len, info->reason.data);
}

/* Where one side has closed and the other has not, both are told so. */
static void check_close(const pair *own, const pair_end *side, const rws_close_info *info)
{
    const pair_end *other = side == &own->client ? &own->server : &own->client;
    const pair_end *first = side->closes ? side : other;
    if (info->status != 0 || is_excused(own) || own->raw || side->closes == other->closes) return;
    rws_closer who = first == side ? RWS_CLOSED_BY_US : RWS_CLOSED_BY_PEER;
    if (info->who != who || info->code != first->code)
        fail("connection %" PRIu64 ": on_close has %u by %d, and it was closed with %u", own->key,
             info->code, info->who, first->code);
    if (first == side || (world.plan->controls && side == &own->server)) return;
    size_t len = strlen(first->reason);
    if (info->reason.len != len || (len > 0 && memcmp(info->reason.data, first->reason, len) != 0))
        fail("connection %" PRIu64 ": on_close has the reason '%.*s' and not '%s'", own->key,
             (int)info->reason.len, info->reason.data, first->reason);
}

static void on_closed(pair *own, pair_end *side, const rws_close_info *info, const char *who,
                      uint32_t *open)
{
    need_open(own, side, side->conn, "on_close");
    if (world.in_call) fail("connection %" PRIu64 ": on_close came inside a call", own->key);
    trace("connection %" PRIu64 ": %s on_close %d %u by %s", own->key, who, info->status,
          info->code, info->who == RWS_CLOSED_BY_US ? "us" : "the peer");
    check_status(own, side, info, who);
    check_close(own, side, info);
    side->closed = true;
    side->conn = NULL;
    --*open;
    note(own->key ^ (uint64_t)(int64_t)info->status ^ info->code);
    /* The other side's next writes may be lost with it. */
    if (info->status != 0 && !(own->raw && info->status == RWS_E_CLOSED)) own->excused = true;
}

static void release_waits(pair *own)
{
    for (uint32_t i = 0; i < own->waits_count; i++)
        rws_message_release(own->waits[i]);
    own->waits_count = 0;
}

/* ---- the server ---- */

static void release_user(void *conn_user)
{
    (void)conn_user;
    world.users--;
}

static int on_upgrade(rws_request *request, void *user)
{
    (void)user;
    rws_span key = rws_request_query(request, "k");
    char digits[24] = "";
    if (key.len == 0 || key.len >= sizeof digits) return -1;
    memcpy(digits, key.data, key.len);
    pair *own = world_find_pair(strtoull(digits, NULL, 10));
    if (own == NULL || own->server.open) return -1;
    world.users++;
    rws_request_set_user(request, own, release_user);
    if (one_in(50) && rws_request_add_header(request, "X-Simulated", "yes") != 0)
        own->excused = true;
    if (!one_in(40)) return 0;
    own->excused = true;
    (void)rws_request_respond(request, 429, "later", 5);
    return -1;
}

static void on_server_open(rws_conn *conn, void *user)
{
    (void)user;
    pair *own = rws_conn_user(conn);
    world.users--; /* from here on it is ours */
    trace("connection %" PRIu64 ": server on_open", own->key);
    on_opened(own, &own->server, conn, &world.server_open);
}

/* Send a message back in one of the ways that there are. */
static int send_back(rws_conn *conn, const rws_message *message)
{
    size_t len = rws_message_len(message);
    const char *data = rws_message_data(message);
    rws_opcode opcode = rws_message_opcode(message);
    uint64_t way = world.plan->busy ? 0 : below(10);
    if (way < 6) return rws_conn_send_message(conn, message);
    if (way < 8) return rws_conn_send(conn, opcode, data, len);
    /* In frames: the second one can't be refused without the message being cut. */
    size_t cut = len > 0 ? below(len) : 0;
    if (rws_conn_buffered(conn) > 0) return rws_conn_send(conn, opcode, data, len);
    int res = rws_conn_send_frame(conn, opcode, false, data, cut);
    if (res != 0) return res;
    res = rws_conn_send_frame(conn, RWS_CONTINUATION, true, data + cut, len - cut);
    return res == RWS_E_STATE ? res : res != 0 ? RWS_E_INTERNAL : 0;
}

/* No room: it waits, and so does the peer. */
static void keep_back(pair *own, rws_conn *conn, const rws_message *message)
{
    rws_message *kept = rws_message_retain(message);
    if (kept == NULL || own->waits_count == 64) {
        rws_message_release(kept);
        own->excused = true;
        app_abort(conn);
        return;
    }
    own->waits[own->waits_count++] = kept;
}

/* The smallest share of the pool, which everybody may have. */
static bool is_promised(rws_conn *conn, size_t len)
{
    return len <= 300 && rws_conn_buffered(conn) == 0 &&
           world.plan->kernel.chance[RWS__SIM_NO_MEMORY] == 0 &&
           world.plan->kernel.fail_at[RWS__SIM_NO_MEMORY] == 0;
}

static int echo(pair *own, rws_conn *conn, const rws_message *message)
{
    bool promised = is_promised(conn, rws_message_len(message));
    int res = own->waits_count > 0 ? RWS_E_BACKLOG : send_back(conn, message);
    switch (res) {
    case 0: own->echoed++; return 0;
    case RWS_E_BACKLOG: keep_back(own, conn, message); return 0;
    case RWS_E_STATE:
        if (own->server.closes || own->excused) return 0;
        break;
    case -ENOMEM:
    case RWS_E_INTERNAL:
        if (promised && res == -ENOMEM)
            fail("connection %" PRIu64 ": nothing was queued, and there was no memory for an echo",
                 own->key);
        own->excused = true;
        if (world_is_short_of_memory() || res == RWS_E_INTERNAL) return -1;
        break;
    default: break;
    }
    if (!is_excused(own)) fail("connection %" PRIu64 ": an echo was refused: %d", own->key, res);
    return -1;
}

static void pause_for_a_while(pair *own, rws_conn *conn)
{
    bool rests = !world.over && one_in(6);
    own->server.paused = true;
    own->rested = own->rested || rests;
    own->resume_us = rws__sim_now_us() + 1 + below(rests ? 90000000 : 500000);
    rws_conn_pause(conn);
}

/* What a handler does besides. */
static int misbehave(pair *own, rws_conn *conn)
{
    switch (below(3)) {
    case 0: app_close(own, &own->server, 4000, "enough"); return 0;
    case 1:
        own->excused = true;
        app_abort(conn);
        return 0;
    default: own->excused = true; return -1;
    }
}

static int on_server_message(rws_conn *conn, const rws_message *message, void *user)
{
    (void)user;
    pair *own = rws_conn_user(conn);
    need_open(own, &own->server, conn, "a message to the server");
    pair_heard(own, rws_message_data(message), rws_message_len(message),
               rws_message_opcode(message));
    int res = echo(own, conn, message);
    if (res != 0 || world.plan->busy) return res;
    if (one_in(100)) pause_for_a_while(own, conn);
    if (!one_in(500)) return res;
    return misbehave(own, conn);
}

static void on_server_drain(rws_conn *conn, void *user)
{
    (void)user;
    pair *own = rws_conn_user(conn);
    need_open(own, &own->server, conn, "on_drain");
    while (own->waits_count > 0) {
        int res = rws_conn_send_message(conn, own->waits[0]);
        if (res == RWS_E_BACKLOG) return;
        if (res == 0)
            own->echoed++;
        else if (res != RWS_E_STATE)
            own->excused = true;
        rws_message_release(own->waits[0]);
        memmove(own->waits, own->waits + 1, --own->waits_count * sizeof(rws_message *));
    }
}

static void on_server_close(rws_conn *conn, const rws_close_info *info, void *user)
{
    (void)user;
    pair *own = rws_conn_user(conn);
    need_open(own, &own->server, conn, "the server's on_close");
    if (info->status == 0 && !own->server.closes)
        check_arrived(own, "messages", own->heard, own->asked);
    if (info->status == RWS_E_TIMEOUT && world.server_stopping && !own->raw && !own->excused &&
        !own->server.closes && !own->client.closes && world_is_swift())
        fail("connection %" PRIu64 ": a drain had the time to end it, and has cut it", own->key);
    on_closed(own, &own->server, info, "server", &world.server_open);
    /* What found no room is not sent any more once the peer has ended its half. */
    if (own->waits_count > 0) own->excused = true;
    release_waits(own);
}

const rws_handler server_handler = {
    .size = sizeof(rws_handler),
    .on_upgrade = on_upgrade,
    .on_open = on_server_open,
    .on_message = on_server_message,
    .on_drain = on_server_drain,
    .on_close = on_server_close,
};

/* What the engine does by itself, done by the program. */
static int on_server_ping(rws_conn *conn, const void *data, size_t len, void *user)
{
    (void)user;
    const pair *own = rws_conn_user(conn);
    need_open(own, &own->server, conn, "on_ping");
    (void)rws_conn_send_frame(conn, RWS_PONG, true, data, len);
    return 0;
}

static int on_server_close_frame(rws_conn *conn, uint16_t code, rws_span reason, void *user)
{
    (void)reason;
    (void)user;
    const pair *own = rws_conn_user(conn);
    need_open(own, &own->server, conn, "on_close_frame");
    return one_in(2) ? -1 : rws_conn_close(conn, code, NULL);
}

const rws_handler server_handler_of_controls = {
    .size = sizeof(rws_handler),
    .on_upgrade = on_upgrade,
    .on_open = on_server_open,
    .on_message = on_server_message,
    .on_drain = on_server_drain,
    .on_close = on_server_close,
    .on_ping = on_server_ping,
    .on_close_frame = on_server_close_frame,
};

/* ---- the client ---- */

static void check_dial_limit(const pair *own)
{
    if (rws__sim_now_us() > own->dial_limit_us && !world_is_rough())
        fail("dial %" PRIu64 ": its outcome came %.3f s after its deadline", own->key,
             (double)(rws__sim_now_us() - own->dial_limit_us) / 1e6);
}

static void on_client_open(rws_conn *conn, void *user)
{
    (void)user;
    pair *own = rws_conn_user(conn);
    check_dial_limit(own);
    trace("connection %" PRIu64 ": client on_open", own->key);
    on_opened(own, &own->client, conn, &world.client_open);
}

static int on_client_message(rws_conn *conn, const rws_message *message, void *user)
{
    (void)user;
    pair *own = rws_conn_user(conn);
    need_open(own, &own->client, conn, "a message to the client");
    pair_client_received(own, rws_message_data(message), rws_message_len(message),
                         rws_message_opcode(message));
    return 0;
}

static int on_client_pong(rws_conn *conn, const void *data, size_t len, void *user)
{
    (void)user;
    pair *own = rws_conn_user(conn);
    need_open(own, &own->client, conn, "on_pong");
    pair_pong(own, data, len);
    return 0;
}

static void on_client_close(rws_conn *conn, const rws_close_info *info, void *user)
{
    (void)user;
    pair *own = rws_conn_user(conn);
    need_open(own, &own->client, conn, "the client's on_close");
    if (info->status == 0 && !own->client.closes) {
        check_arrived(own, "echoes", own->echoes, own->echoed);
        check_arrived(own, "of the server's messages", own->listened, own->told);
        check_arrived(own, "broadcasts", own->broadcasts, own->broadcast);
    }
    on_closed(own, &own->client, info, "client", &world.client_open);
    world.clients--;
}

static void on_dial_error(const rws_error *error, void *dial_user, void *user)
{
    (void)user;
    pair *own = dial_user;
    check_dial_limit(own);
    trace("dial %" PRIu64 ": %s", own->key, error->text);
    if (own->client.open || own->client.failed) fail("dial %" PRIu64 " has two outcomes", own->key);
    bool expected = error->status == RWS_E_ABORTED || error->status == RWS_E_UPGRADE ||
                    error->status == -ENFILE || world.over;
    if (!expected && !is_excused(own) && !world_is_short_of_memory())
        fail("dial %" PRIu64 ": %d: %s", own->key, error->status, error->text);
    own->client.failed = true;
    own->excused = true;
    world.clients--;
    world.dial_errors++;
    note(own->key ^ (uint64_t)(int64_t)error->status);
}

const rws_handler client_handler = {
    .size = sizeof(rws_handler),
    .on_open = on_client_open,
    .on_message = on_client_message,
    .on_close = on_client_close,
    .on_pong = on_client_pong,
    .on_dial_error = on_dial_error,
};

/* ---- what has to have arrived ---- */

/* What did not arrive yet, of a pair whose ends are both there. */
static const char *missing(const pair *own)
{
    if (own->raw || own->excused || own->server.conn == NULL || own->client.conn == NULL ||
        own->server.closes || own->client.closes)
        return NULL;
    if (own->heard != own->asked) return "messages";
    if (own->echoed != own->heard) return "echoes that were not sent";
    if (own->echoes != own->echoed) return "echoes";
    if (own->broadcasts != own->broadcast) return "broadcasts";
    /* A pong may find no room in the queue, but not each of them. */
    if (own->pings > 0 && own->pongs == 0 && own->echoes == own->asked && own->waits_count == 0 &&
        world.plan->server_endpoint.send_queue_bytes_max == 0)
        return "pongs";
    return NULL;
}

/* Posts that were accepted, and neither came nor were dropped, which is counted. */
static uint64_t posts_missed(void)
{
    uint64_t missed = 0;
    rws_stats stats = {.size = sizeof stats};
    for (const pair *own = world.pairs; own != NULL; own = own->next)
        if (!own->excused && own->server.conn != NULL && !own->server.closes &&
            (own->raw || (own->client.conn != NULL && !own->client.closes)))
            missed += own->posts_taken - own->posts_received;
    rws__runtime_stats(&world.server, &stats);
    return missed > stats.posts_dropped ? missed - stats.posts_dropped : 0;
}

bool app_is_settled(void)
{
    for (const pair *own = world.pairs; own != NULL; own = own->next)
        if (missing(own) != NULL) return false;
    return world.calls == 0 && posts_missed() == 0 && raws_alive(true) == 0;
}

void app_check_settled(void)
{
    for (const pair *own = world.pairs; own != NULL; own = own->next)
        if (missing(own) != NULL && !world.server_stopping)
            fail("connection %" PRIu64 ": %s are missing: asked %u, heard %u, echoed %u, echoes "
                 "%u, broadcast %u, broadcasts %u",
                 own->key, missing(own), own->asked, own->heard, own->echoed, own->echoes,
                 own->broadcast, own->broadcasts);
    if (posts_missed() > 0 && !world.server_stopping)
        fail("%" PRIu64 " posts have neither come nor been dropped", posts_missed());
    if (world.calls > 0) fail("%u calls that were posted were not run", world.calls);
    if (raws_alive(true) > 0) fail("%u honest peers have not come to their end", raws_alive(true));
}
