/*
 * The connections of a loop: taking slots, ids, the budget of partial messages, and the drain.
 */
#include "engine/base/pages.h"
#include "engine/conn/conn.h"
#include "engine/ring/random.h"

#include <errno.h>
#include <string.h>

/* A drain gives a connection whose request has not come this long. */
#define DRAIN_REQUEST_MS 1000u

static size_t headers_bytes(uint32_t headers_max)
{
    return (headers_max + 1) * sizeof(rws__http_header);
}

int rws__conns_init(rws__conns *conns, rws__loop *loop, uint32_t index, uint32_t connections_max,
                    uint32_t headers_max, const rws__streams_options *options)
{
    rws__streams_options own = *options;
    own.slots_max = connections_max + RWS__RESERVE + RWS__RESERVE_DIALS;
    own.slot_bytes = sizeof(rws_conn);
    own.cold_bytes = sizeof(rws__conn_cold);
    conns->budget.link_offset = offsetof(rws__conn_cold, budget);
    conns->index = index;
    conns->connections_max = connections_max;
    conns->headers_max = headers_max;
    loop->on_deadline[RWS__DEADLINE_OPENING] = rws__conns_on_opening_deadline;
    loop->on_deadline[RWS__DEADLINE_MESSAGE] = rws__conns_on_message_deadline;
    int res = rws__streams_init(&conns->streams, loop, &own);
    conns->headers = rws__alloc(loop->env, headers_bytes(headers_max));
    return conns->headers == NULL ? -ENOMEM : res;
}

void rws__conns_deinit(rws__conns *conns)
{
    if (conns->streams.loop == NULL) return;
    rws__free(conns->streams.loop->env, conns->headers, headers_bytes(conns->headers_max));
    rws__streams_deinit(&conns->streams);
}

/* ---- slots and ids ---- */

static rws_conn *take(rws__conns *conns, uint32_t timeout_ms)
{
    rws__streams_make_room(&conns->streams, RWS__RESERVE_FREE + RWS__RESERVE_DIALS);
    rws_conn *conn = (rws_conn *)rws__streams_take(&conns->streams, &rws__conn_events);
    if (conn == NULL) return NULL;
    rws__conn_enter(conn, RWS__CONN_CONNECTING);
    rws__conn_set_deadline(conn, conns->draining && timeout_ms > DRAIN_REQUEST_MS ? DRAIN_REQUEST_MS
                                                                                  : timeout_ms);
    return conn;
}

rws_conn *rws__conns_take(rws__conns *conns, const rws__http_rules *http)
{
    rws_conn *conn = take(conns, http->timeout_ms);
    if (conn != NULL) conn->upgrade.http = http;
    return conn;
}

rws_conn *rws__conns_take_dial(rws__conns *conns, rws__dial *dial)
{
    if (rws__conns_are_full(conns)) return NULL;
    uint64_t now_ms = conns->streams.loop->now_ms;
    if (dial->deadline_ms == 0) dial->deadline_ms = now_ms + dial->timeout_ms;
    uint64_t left_ms = dial->deadline_ms > now_ms ? dial->deadline_ms - now_ms : 0;
    rws_conn *conn = take(conns, (uint32_t)left_ms);
    if (conn == NULL) return NULL;
    conns->dials_count++;
    rws__conn_cold_part(conn)->dial = dial;
    conn->endpoint = dial->endpoint;
    conn->user = dial->user;
    return conn;
}

uint64_t rws__conn_id(const rws_conn *conn)
{
    return (uint64_t)rws__conn_table(conn)->index << 56 | (uint64_t)conn->stream.slot << 32 |
           conn->stream.generation;
}

static rws_conn *find(const rws__conns *conns, uint64_t id)
{
    uint32_t slot = rws__id_slot(id);
    if (rws__id_shard(id) != conns->index || slot >= conns->streams.slots_touched) return NULL;
    rws_conn *conn = (rws_conn *)rws__streams_at(&conns->streams, slot);
    return conn->stream.generation == rws__id_generation(id) ? conn : NULL;
}

rws_conn *rws__conns_find(rws__conns *conns, uint64_t id)
{
    rws_conn *conn = find(conns, id);
    if (conn == NULL) return NULL;
    return conn->state >= RWS__CONN_OPEN && conn->state < RWS__CONN_ENDING ? conn : NULL;
}

rws_request *rws__conns_find_request(rws__conns *conns, uint64_t id)
{
    rws_conn *conn = find(conns, id);
    if (conn == NULL || conn->state != RWS__CONN_UPGRADING || !conn->stream.has_cold) return NULL;
    return rws__conn_cold_part(conn)->request;
}

/* The next connection from slot `*slot` on that is in use, or NULL; moves `*slot` behind it. */
static rws_conn *next_conn(const rws__conns *conns, uint32_t *slot)
{
    while (*slot < conns->streams.slots_touched) {
        rws_conn *conn = (rws_conn *)rws__streams_at(&conns->streams, (*slot)++);
        if (conn->stream.phase != RWS__STREAM_FREE) return conn;
    }
    return NULL;
}

/* ---- masking keys ---- */

uint32_t rws__conns_mask_key(rws__conns *conns)
{
    if (conns->random_left < sizeof(uint32_t)) {
        rws__random(conns->random, sizeof conns->random);
        conns->random_left = sizeof conns->random;
    }
    conns->random_left -= (uint32_t)sizeof(uint32_t);
    uint32_t key;
    memcpy(&key, conns->random + conns->random_left, sizeof key);
    return key;
}

/* ---- the budget of partial messages: those that wait for it stand in a queue ---- */

/* All go on when an eighth of the budget is free again; until then one after the other. */
void rws__conns_check_budget(rws__conns *conns)
{
    const rws__pool *pool = conns->streams.partial;
    rws__conns_check(conns);
    if (conns->budget.first == 0) return;
    bool enough = pool->charged_bytes <= pool->budget_bytes - pool->budget_bytes / 8;
    const rws_conn *holder = conns->budget_holder;
    bool held = holder != NULL && holder->state == RWS__CONN_OPEN && holder->assembly != NULL;
    if (held && !enough) return;
    conns->budget_holder = NULL;
    rws__stream *first;
    while ((first = rws__slot_queue_first(&conns->streams, &conns->budget)) != NULL) {
        rws_conn *conn = (rws_conn *)first;
        rws__conn_clear_pause(conn, RWS__PAUSE_BUDGET);
        if (enough) continue;
        conns->budget_holder = conn;
        return;
    }
}

/* ---- dials that are given up ---- */

void rws__conns_cancel_dial(rws__conns *conns, uint64_t dial_id)
{
    rws__cause cause =
        rws__cause_abnormal(RWS_E_ABORTED, RWS_CLOSED_BY_US, "the dial was cancelled");
    rws_conn *conn;
    for (uint32_t slot = 0; (conn = next_conn(conns, &slot)) != NULL;) {
        const rws__dial *dial = rws__conn_dial(conn);
        if (dial == NULL || dial->id != dial_id) continue;
        rws__conn_end(conn, &cause, RWS__FINISH_CUT);
        return;
    }
}

/* ---- the drain ---- */

static void stop_dial(rws_conn *conn)
{
    rws__cause cause =
        rws__cause_abnormal(RWS_E_STATE, RWS_CLOSED_BY_US, "the runtime is stopping");
    rws__conn_end(conn, &cause, RWS__FINISH_CUT);
}

static void send_away(rws_conn *conn)
{
    if (rws_conn_close(conn, RWS_CLOSE_GOING_AWAY, NULL) == 0) return;
    /* There is no memory for a close frame: what is queued is all that it gets. */
    rws__cause cause = rws__conn_cut_cause(conn, -ENOMEM, RWS_CLOSED_BY_US);
    rws__conn_end(conn, &cause, RWS__FINISH_LINGER);
}

void rws__conns_drain(rws__conns *conns)
{
    conns->draining = true;
    rws_conn *conn;
    for (uint32_t slot = 0; (conn = next_conn(conns, &slot)) != NULL;) {
        if (rws__conn_dial(conn) != NULL)
            stop_dial(conn);
        else if (conn->state == RWS__CONN_OPEN || conn->state == RWS__CONN_CLOSE_RECEIVED)
            send_away(conn);
        else if (conn->state < RWS__CONN_OPEN &&
                 !rws__conn_give_up_request(conn, RWS_E_STATE, "The server is going away."))
            rws__conn_set_deadline(conn, DRAIN_REQUEST_MS);
    }
    rws__streams_hurry(&conns->streams);
}

void rws__conns_cut(rws__conns *conns)
{
    rws_conn *conn;
    for (uint32_t slot = 0; (conn = next_conn(conns, &slot)) != NULL;) {
        bool waits_only =
            conn->stream.finish == RWS__FINISH_AWAIT && conn->stream.phase == RWS__STREAM_LINGERING;
        if (conn->stream.phase < RWS__STREAM_CLOSING && !waits_only) {
            rws__count(&conns->streams.loop->counters.cut_off, 1);
            conns->cut_off_some = true;
        }
        rws__cause cause = rws__conn_cut_cause(conn, RWS_E_TIMEOUT, RWS_CLOSED_BY_US);
        rws__conn_end(conn, &cause, RWS__FINISH_CUT);
        rws__stream_finish(&conn->stream, RWS__FINISH_CUT);
    }
}
