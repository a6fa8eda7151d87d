#include "engine/shard.h"

#include "engine/base/assert.h"
#include "engine/dialer.h"
#include "engine/op.h"
#include "engine/base/pages.h"
#include "engine/ring/clock.h"
#include "engine/ring/random.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

/* So much of a wide broadcast is submitted together. To 1,000 and 5,000 connections, in
 * uWebSockets' time: 256 entries 0.68 and 0.57, 512 0.64 and 0.60, 1,024 0.56 and 0.76. */
#define SQ_ENTRIES 512
#define CQ_ENTRIES 4096
#define REAP_BATCH 64
/* A drain gives a connection whose request has not come this long. */
#define DRAIN_REQUEST_MS 1000

/* ---- making ---- */

int rws__shard_init(rws__shard *shard, rws__group *group, const rws__config *config, uint32_t index,
                    rws_error *error)
{
    shard->config = config;
    shard->group = group;
    shard->index = index;
    shard->listener.fd = -1;
    shard->slots_max = config->connections_max + RWS__RESERVE;
    shard->conns = rws__pages_reserve(shard->slots_max * sizeof(rws_conn));
    shard->cold = rws__pages_reserve(shard->slots_max * sizeof(rws__conn_cold));
    shard->free_slots = rws__pages_reserve(shard->slots_max * sizeof(uint32_t));
    shard->quiet.capacity = shard->slots_max;
    shard->quiet.conns = rws__pages_reserve(shard->quiet.capacity * sizeof(rws_conn *));
    shard->headers = rws__alloc(&config->env, (config->headers_max + 1) * sizeof(rws__http_header));
    if (shard->conns == NULL || shard->cold == NULL || shard->free_slots == NULL ||
        shard->quiet.conns == NULL || shard->headers == NULL ||
        rws__pool_create(&shard->partial, &config->env, config->partial_bytes_max,
                         config->retained_bytes_max) != 0 ||
        rws__slab_init(&shard->send_slab, config->send_pool_bytes_max) != 0)
        return rws__fail(error, -ENOMEM, "no memory for the pools of shard %u", index);
    int res = rws__mailbox_init(&shard->mailbox, &config->env);
    if (res != 0)
        return rws__fail(error, res, "can't make an eventfd for shard %u: %s", index,
                         rws_strerror(res));
    return 0;
}

void rws__shard_deinit(rws__shard *shard)
{
    if (shard->config == NULL) return;
    rws__mailbox_deinit(&shard->mailbox);
    if (shard->listener.fd >= 0) close(shard->listener.fd);
    rws__pool_close(shard->partial);
    rws__slab_deinit(&shard->send_slab);
    rws__pages_release(shard->conns, shard->slots_max * sizeof(rws_conn));
    rws__pages_release(shard->cold, shard->slots_max * sizeof(rws__conn_cold));
    rws__pages_release(shard->free_slots, shard->slots_max * sizeof(uint32_t));
    rws__pages_release(shard->quiet.conns, shard->quiet.capacity * sizeof(rws_conn *));
    rws__free(&shard->config->env, shard->headers,
              (shard->config->headers_max + 1) * sizeof(rws__http_header));
}

int rws__shard_open(rws__shard *shard, rws_error *error)
{
    const rws__config *config = shard->config;
    rws__ring_options options = {
        .sq_entries = SQ_ENTRIES,
        .cq_entries = CQ_ENTRIES,
        .files = shard->slots_max,
        .incremental_buffers = config->recv_buffers,
        .incremental_bytes = config->recv_buffer_bytes,
        .plain_buffers = config->plain_buffers,
        .plain_bytes = config->plain_buffer_bytes,
        .features_off = config->features_off,
        .busy_wait_us = config->busy_wait_us,
    };
    const char *what;
    int res = rws__ring_create(&shard->ring, &options, &what);
    if (res != 0) {
        shard->ring = NULL;
        return rws__fail(error, res, "shard %u can't start: %s failed: %s%s", shard->index, what,
                         rws_strerror(res),
                         res == -ENOMEM ? " (raise the limit of locked memory, ulimit -l, or lower "
                                          "recv_buffers)"
                                        : "");
    }
    shard->features = rws__ring_features(shard->ring);
    shard->now_ms = rws__clock_ms();
    rws__wheel_init(&shard->wheel, shard->now_ms);
    return 0;
}

/* The loop ended with an error: on_close is owed all the same. */
static void abandon_conns(rws__shard *shard)
{
    rws_span none = {NULL, 0};
    for (uint32_t i = 0; i < shard->slots_touched; i++) {
        rws_conn *conn = &shard->conns[i];
        if (conn->state == RWS__CONN_FREE) continue;
        if (rws__conn_dial(conn) != NULL) {
            rws__dial_failed(conn, RWS_E_STATE, "the client stopped");
            rws__dial_free(shard->config, rws__conn_dial(conn));
            rws__conn_cold_part(conn)->dial = NULL;
        }
        rws__conn_finish(conn, RWS_CLOSE_ABNORMAL, none, RWS_CLOSED_BY_US, RWS__DRAIN_CANCEL);
        if (conn->install_fd >= 0) close(conn->install_fd);
        /* What lends (buffers, messages) outlives neither the ring nor the queue. No send
         * goes on: with DEFER_TASKRUN that needs this thread in the kernel. */
        rws__sendq_clear(&conn->sendq, &shard->send_slab);
    }
}

void rws__shard_close(rws__shard *shard)
{
    rws__mailbox_close(&shard->mailbox);
    abandon_conns(shard);
    if (shard->ring != NULL) rws__ring_destroy(shard->ring);
    shard->ring = NULL;
}

void rws__shard_stop(rws__shard *shard)
{
    /* Release: what the caller wrote before is seen by the drain. */
    atomic_store_explicit(&shard->stop, true, memory_order_release);
    rws__mailbox_wake(&shard->mailbox);
}

uint32_t rws__shard_mask_key(rws__shard *shard)
{
    if (shard->config->fixed_mask_key) return 0;
    if (shard->random_left < sizeof(uint32_t)) {
        rws__random(shard->random, sizeof shard->random);
        shard->random_left = sizeof shard->random;
    }
    shard->random_left -= (uint32_t)sizeof(uint32_t);
    uint32_t key;
    memcpy(&key, shard->random + shard->random_left, sizeof key);
    return key;
}

/* ---- slots ---- */

rws_conn *rws__shard_take_conn(rws__shard *shard)
{
    uint32_t slot;
    if (shard->free_count > 0) {
        slot = shard->free_slots[shard->free_first];
        shard->free_first = (shard->free_first + 1) % shard->slots_max;
        shard->free_count--;
    } else if (shard->slots_touched < shard->slots_max) {
        slot = shard->slots_touched++;
    } else {
        return NULL;
    }
    shard->slots_used++;
    rws__count(&shard->counters.connections, 1);
    rws_conn *conn = &shard->conns[slot];
    uint32_t generation = conn->generation + 1;
    memset(conn, 0, sizeof *conn);
    conn->shard = shard;
    conn->slot = slot;
    conn->generation = generation;
    conn->file = conn->install_fd = -1;
    rws__timer_set(&shard->wheel, &conn->timer, shard->now_ms, shard->config->handshake_timeout_ms);
    return conn;
}

void rws__shard_give_conn(rws__shard *shard, rws_conn *conn)
{
    uint32_t at = (shard->free_first + shard->free_count++) % shard->slots_max;
    shard->free_slots[at] = conn->slot;
    shard->slots_used--;
    rws__count(&shard->counters.connections, (uint64_t)-1);
}

void rws__shard_install(rws__shard *shard, rws_conn *conn, int fd)
{
    rws__conn_enter(conn, RWS__CONN_CONNECTING);
    conn->file = conn->install_fd = fd;
    conn->ops++;
    int res = rws__ring_install(shard->ring, &conn->file,
                                rws__op_pack(RWS__OP_INSTALL, conn->slot, conn->generation));
    if (res == 0) return;
    conn->ops--;
    close(fd);
    conn->file = conn->install_fd = -1;
    if (rws__conn_dial(conn) != NULL)
        rws__dial_failed(conn, res, "the kernel takes no more submissions");
    rws__conn_cut(conn, RWS_CLOSED_BY_US);
}

void rws__shard_adopt_fd(rws__shard *shard, int fd)
{
    rws_conn *conn = rws__shard_take_conn(shard);
    if (conn == NULL) {
        close(fd);
        return;
    }
    if (shard->draining)
        rws__timer_set(&shard->wheel, &conn->timer, shard->now_ms, DRAIN_REQUEST_MS);
    rws__shard_install(shard, conn, fd);
}

void rws__shard_accepted(rws__shard *shard, int32_t file, const struct sockaddr_storage *address)
{
    rws_conn *conn = rws__shard_take_conn(shard);
    if (conn == NULL) {
        (void)rws__ring_close(shard->ring, (uint32_t)file, 0);
        return;
    }
    rws__count(&shard->counters.accepted, 1);
    conn->file = file;
    rws__conn_enter(conn, RWS__CONN_UPGRADING);
    /* Where it can be asked for later it is not kept for all. */
    if (address != NULL && shard->config->peer_address &&
        !(shard->features & RWS_FEATURE_SOCKET_COMMANDS))
        memcpy(&rws__conn_cold_part(conn)->peer, address, sizeof(struct sockaddr_in6));
    rws__conn_mark_dirty(conn);
}

/* ---- completions ---- */

static void on_installed(rws_conn *conn, int32_t res)
{
    rws__shard *shard = conn->shard;
    conn->ops--;
    close(conn->install_fd);
    conn->install_fd = -1;
    if (res < 1) conn->file = -1;
    rws__conn_mark_dirty(conn);
    if (conn->state != RWS__CONN_CONNECTING) return;
    if (rws__conn_dial(conn) != NULL) {
        rws__dial_on_installed(conn, res < 1 ? (res == 0 ? -ENFILE : res) : 0);
    } else if (res < 1) {
        rws__conn_cut(conn, RWS_CLOSED_BY_US);
    } else {
        rws__count(&shard->counters.accepted, 1);
        rws__conn_enter(conn, RWS__CONN_UPGRADING);
    }
}

/* A receive, and what follows it if it goes on in the next buffer; `cqes`: all that are left of the
 * batch. Returns how many were used. */
static uint32_t on_recv(rws__shard *shard, rws_conn *conn, const rws__cqe *cqes, uint32_t left)
{
    bool more = cqes->flags & RWS__CQE_MORE;
    if (!(cqes->flags & RWS__CQE_BUFFER)) {
        if (conn != NULL) rws__conn_on_recv(conn, cqes->res, NULL, more);
        return 1;
    }
    uint8_t *data = rws__ring_buffer(shard->ring, cqes);
    int32_t len = cqes->res;
    uint32_t used = 1;
    while (more && used < left && cqes[used].user_data == cqes->user_data &&
           rws__ring_continues(shard->ring, data + len, &cqes[used])) {
        (void)rws__ring_buffer(shard->ring, &cqes[used]);
        len += cqes[used].res;
        more = cqes[used].flags & RWS__CQE_MORE;
        used++;
    }
    shard->delivery.buffer = data;
    shard->delivery.buffer_end = data + len;
    if (conn != NULL) rws__conn_on_recv(conn, len, data, more);
    shard->delivery.buffer = NULL;
    for (uint32_t i = 0; i < used; i++)
        rws__ring_recycle(shard->ring, &cqes[i]);
    return used;
}

/* As dispatch(). */
static uint32_t dispatch_conn(rws__shard *shard, const rws__cqe *cqe, uint32_t left)
{
    uint32_t used = 1;
    uint32_t slot = rws__op_slot(cqe->user_data);
    RWS_ASSERT(slot < shard->slots_touched);
    rws_conn *conn = &shard->conns[slot];
    if (conn->generation != rws__op_generation(cqe->user_data)) conn = NULL;
    if (rws__op_kind_of(cqe->user_data) == RWS__OP_RECV) {
        used = on_recv(shard, conn, cqe, left);
    } else if (conn != NULL) {
        switch (rws__op_kind_of(cqe->user_data)) {
        case RWS__OP_SEND:
            if (cqe->flags & RWS__CQE_NOTIFICATION)
                rws__conn_on_notification(conn, (uint32_t)cqe->res & RWS__NOTIFICATION_COPIED);
            else
                rws__conn_on_send(conn, cqe->res, cqe->flags & RWS__CQE_MORE);
            break;
        case RWS__OP_SHUTDOWN:
            conn->ops--;
            conn->shutting_down = false;
            rws__conn_mark_dirty(conn);
            break;
        case RWS__OP_CLOSE:
            conn->ops--;
            conn->file = -1;
            break;
        case RWS__OP_INSTALL: on_installed(conn, cqe->res); break;
        case RWS__OP_CONNECT:
            conn->ops--;
            rws__dial_on_connected(conn, cqe->res);
            break;
        default: RWS_UNREACHABLE("not an operation of a connection");
        }
    }
    if (conn != NULL) rws__conn_try_release(conn);
    return used;
}

/* Handle the first of `left` completions, and those that belong to it. Returns their number. */
static uint32_t dispatch(rws__shard *shard, const rws__cqe *cqe, uint32_t left)
{
    switch (rws__op_kind_of(cqe->user_data)) {
    case RWS__OP_NONE: break;
    case RWS__OP_ACCEPT:
        rws__listener_on_accept(shard, rws__op_slot(cqe->user_data), cqe->res,
                                cqe->flags & RWS__CQE_MORE);
        break;
    case RWS__OP_WAKE: shard->wake_armed = false; break;
    case RWS__OP_TICK: shard->tick_armed_ms = 0; break;
    default: return dispatch_conn(shard, cqe, left);
    }
    return 1;
}

static void reap(rws__shard *shard)
{
    rws__cqe batch[REAP_BATCH];
    uint32_t count;
    while ((count = rws__ring_reap(shard->ring, batch, REAP_BATCH)) > 0)
        for (uint32_t i = 0; i < count;)
            i += dispatch(shard, &batch[i], count - i);
}

/* All completions of the turn are reaped: a quiet send without one is done. Not while submissions
 * are left over, because then it may not have been tried. */
static void settle_quiet(rws__shard *shard)
{
    rws__quiet_list *quiet = &shard->quiet;
    for (uint32_t i = 0; i < quiet->count; i++) {
        rws_conn *conn = quiet->conns[i];
        if (conn->send_mode != RWS__SEND_QUIET) continue;
        rws__conn_quiet_done(conn);
        rws__conn_try_release(conn);
    }
    quiet->count = 0;
}

/* ---- timers, budget, drain ---- */

static void cut_everything(rws__shard *shard)
{
    for (uint32_t i = 0; i < shard->slots_touched; i++) {
        rws_conn *conn = &shard->conns[i];
        if (conn->state == RWS__CONN_FREE) continue;
        if (conn->drain < RWS__DRAIN_CANCEL) {
            rws__count(&shard->counters.cut_off, 1);
            shard->drain_expired = true;
        }
        if (rws__conn_dial(conn) != NULL)
            rws__dial_failed(conn, RWS_E_STATE, "the client is stopping");
        rws__conn_cut(conn, RWS_CLOSED_BY_US);
    }
}

static void fire(rws__timer *timer, void *context)
{
    rws__shard *shard = context;
    if (timer == &shard->drain_timer) {
        cut_everything(shard);
    } else if (timer == &shard->accept_timer) {
        shard->listener.failing = false;
    } else {
        rws_conn *conn = (void *)((char *)timer - offsetof(rws_conn, timer));
        rws__conn_timer_fired(conn);
    }
}

static void arm_tick(rws__shard *shard)
{
    uint64_t next = rws__wheel_next_ms(&shard->wheel);
    if (next == UINT64_MAX) return;
    if (shard->tick_armed_ms != 0 && shard->tick_armed_ms <= next) return;
    uint64_t delay = next > shard->now_ms ? next - shard->now_ms : 1;
    if (rws__ring_timeout(shard->ring, delay, rws__op_pack(RWS__OP_TICK, 0, 0)) == 0)
        shard->tick_armed_ms = next;
    else
        shard->refused = true;
}

static void arm_wake(rws__shard *shard)
{
    if (shard->wake_armed) return;
    if (rws__ring_read_event(shard->ring, shard->mailbox.wake_fd, &shard->wake_value,
                             rws__op_pack(RWS__OP_WAKE, 0, 0)) == 0)
        shard->wake_armed = true;
    else
        shard->refused = true;
}

/* Connections that wait for the budget go on when an eighth of it is free again; until then one
 * after the other. */
static void check_budget(rws__shard *shard)
{
    if (shard->budget_waiters == 0) return;
    size_t max = shard->partial->budget_bytes;
    bool enough = shard->partial->charged_bytes <= max - max / 8;
    const rws_conn *holder = shard->budget_holder;
    bool held = holder != NULL && holder->state == RWS__CONN_OPEN && holder->assembly != NULL;
    if (held && !enough) return;
    shard->budget_holder = NULL;
    for (uint32_t i = 0; i < shard->slots_touched && shard->budget_waiters > 0; i++) {
        rws_conn *conn = &shard->conns[i];
        if (!(conn->pauses & RWS__PAUSE_BUDGET)) continue;
        rws__conn_clear_pause(conn, RWS__PAUSE_BUDGET);
        if (enough) continue;
        shard->budget_holder = conn;
        return;
    }
}

static void begin_drain(rws__shard *shard)
{
    shard->draining = true;
    rws__timer_set(&shard->wheel, &shard->drain_timer, shard->now_ms,
                   shard->config->drain_timeout_ms);
    for (uint32_t i = 0; i < shard->slots_touched; i++) {
        rws_conn *conn = &shard->conns[i];
        if (rws__conn_dial(conn) != NULL) {
            rws__dial_failed(conn, RWS_E_STATE, "the client is stopping");
            rws__conn_cut(conn, RWS_CLOSED_BY_US);
        } else if (conn->state == RWS__CONN_OPEN || conn->state == RWS__CONN_CLOSE_RECEIVED) {
            rws_conn_close(conn, RWS_CLOSE_GOING_AWAY, NULL);
        } else if (conn->state == RWS__CONN_UPGRADING) {
            rws__timer_set(&shard->wheel, &conn->timer, shard->now_ms, DRAIN_REQUEST_MS);
        }
    }
}

/* ---- the loop ---- */

static void pump_list(rws__shard *shard, uint32_t next)
{
    while (next != 0) {
        rws_conn *conn = &shard->conns[next - 1];
        next = conn->next_dirty;
        conn->dirty = false;
        rws__conn_pump(conn);
    }
}

static void pump_dirty(rws__shard *shard)
{
    /* What gets dirty while this runs is for the next turn. */
    uint32_t deferred = shard->deferred, dirty = shard->dirty;
    shard->deferred = shard->deferred_last = shard->dirty = 0;
    shard->direct_bytes = 0;
    pump_list(shard, deferred);
    pump_list(shard, dirty);
}

static bool is_drained(rws__shard *shard)
{
    if (!shard->draining) return false;
    if (shard->listener.fd >= 0 && rws__listener_is_quiet(&shard->listener))
        rws__listener_finish(shard);
    return shard->listener.fd < 0 && shard->slots_used == 0;
}

static void update_ring_counters(rws__shard *shard)
{
    atomic_store_explicit(&shard->counters.ring_enters, rws__ring_enters(shard->ring),
                          memory_order_relaxed);
    atomic_store_explicit(&shard->counters.cq_overflows, rws__ring_overflows(shard->ring),
                          memory_order_relaxed);
}

int rws__shard_run(rws__shard *shard)
{
    while (!is_drained(shard)) {
        /* Quiet sends that are left over, because not all could be submitted, may end without a
         * completion to wait for. */
        shard->refused = shard->quiet.count > 0;
        rws__pool_collect(shard->partial);
        pump_dirty(shard);
        rws__listener_pump(shard);
        arm_tick(shard);
        arm_wake(shard);
        /* After the pump, in which a message may have ended with nothing else to come. */
        check_budget(shard);
        /* Pumping may have given the last slot back, and then no completion will come. */
        bool wait =
            shard->dirty == 0 && shard->deferred == 0 && !shard->refused && !is_drained(shard);
        int res = rws__ring_turn(shard->ring, wait);
        if (res != 0) return res;
        shard->now_ms = rws__clock_ms();
        /* Seen before completions are handled, because an accept queues operations again. */
        bool all_submitted = rws__ring_pending(shard->ring) == 0;
        reap(shard);
        if (all_submitted) settle_quiet(shard);
        rws__wheel_advance(&shard->wheel, shard->now_ms, fire, shard);
        if (!shard->wake_armed) {
            rws__mailbox_run(&shard->mailbox);
            /* Acquire: pairs with the release in rws__shard_stop(). */
            if (!shard->draining && atomic_load_explicit(&shard->stop, memory_order_acquire))
                begin_drain(shard);
        }
        update_ring_counters(shard);
    }
    return shard->drain_expired ? RWS_E_TIMEOUT : 0;
}
