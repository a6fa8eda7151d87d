/*
 * What each operation does when it is tried (kernel.h).
 */
#include "engine/simulated/internal.h"

#include <errno.h>
#include <string.h>

/* MULTISHOT_MAX_RETRY of io_uring/net.c */
#define RETRIES 32
/* What a receive may write to is filled so far. */
#define POISON_RECEIVE 0xDC
#define POISON_MAX     4096u

/* ---- memory that may not change in flight ---- */

uint64_t rws__sim_hash(const uint8_t *data, size_t len)
{
    uint64_t hash = len * 0x9E3779B97F4A7C15u + 1;
    for (; len >= 8; data += 8, len -= 8) {
        uint64_t word;
        memcpy(&word, data, 8);
        hash = (hash ^ word) * 0x9FB21C651E98DF25u;
        hash ^= hash >> 32;
    }
    for (; len > 0; data++, len--)
        hash = (hash ^ *data) * 0x9FB21C651E98DF25u;
    return hash ^ hash >> 29;
}

static void check_sent(const rws__sim_op *op)
{
    if (rws__sim_hash(op->memory, op->len) != op->hash)
        rws__sim_breach("the memory of a send on file %d changed in flight", op->file);
}

static size_t poisoned(const rws__sim_op *op)
{
    if (!rws__sim()->options.poison) return 0;
    return op->len < POISON_MAX ? op->len : POISON_MAX;
}

static void check_received(const rws__sim_op *op, size_t len)
{
    for (size_t i = len; i < poisoned(op); i++)
        if (op->memory[i] != POISON_RECEIVE)
            rws__sim_breach("the memory of a receive on file %d was written to", op->file);
}

/* ---- accepting ---- */

static int32_t place_accepted(rws__sim_op *op, rws__sim_socket *side)
{
    if (op->kind == RWS__SIM_ACCEPT_FD) return rws__sim_descriptor_make(side);
    if (op->kind == RWS__SIM_ACCEPT_DIRECT) {
        socklen_t len = *op->address_len < side->peer_len ? *op->address_len : side->peer_len;
        memcpy(op->memory, &side->peer, len);
        *op->address_len = side->peer_len;
    }
    return rws__sim_file_add(op->ring, side);
}

static void run_accept(rws__sim_op *op)
{
    bool again = op->kind == RWS__SIM_ACCEPT_MULTISHOT;
    for (uint32_t i = 0; i < RETRIES; i++) {
        rws__sim_socket *side = rws__sim_socket_accept(op->socket);
        if (side == NULL) {
            rws__sim_op_wait(op, &op->socket->readers);
            return;
        }
        int32_t res = -ECONNABORTED;
        if (rws__sim_fails(RWS__SIM_ACCEPT_ABORTED)) {
            rws__sim_socket_disconnect(side);
            rws__sim_socket_drop(side);
        } else {
            res = place_accepted(op, side);
        }
        if (res < 0 || !again || !rws__sim_post_more(op, res, 0)) {
            rws__sim_complete(op, res, 0);
            return;
        }
    }
    rws__sim_op_make_ready(op);
}

/* ---- receiving ---- */

/* The kernel fills the first buffer that it has; `*flags` says which. */
static int32_t fill(rws__sim_op *op, size_t max, uint32_t *flags)
{
    rws__ring *ring = op->ring;
    if (rws__sim_fails(RWS__SIM_NO_BUFFER)) return -ENOBUFS;
    uint32_t place = ring->provided_first, index = ring->provided[place].index;
    size_t bytes = ring->provided[place].bytes;
    size_t len = max > 0 && max < bytes ? max : bytes;
    ssize_t res = rws__sim_socket_recv(op->socket, ring->provided[place].memory, len);
    if (res <= 0) return (int32_t)res;
    *flags = RWS__CQE_BUFFER | index << RWS__CQE_BUFFER_SHIFT;
    ring->provided[place].memory += res;
    ring->provided[place].bytes -= (size_t)res;
    if (ring->incremental && ring->provided[place].bytes > 0) {
        *flags |= RWS__CQE_BUFFER_MORE;
    } else {
        ring->has[index] = false;
        ring->provided_first = (place + 1) % ring->buffers.count;
        ring->provided_count--;
    }
    return (int32_t)res;
}

static void run_recv_provided(rws__sim_op *op)
{
    bool again = op->kind == RWS__SIM_RECV_MULTISHOT;
    for (uint32_t i = 0; i < RETRIES; i++) {
        uint32_t flags = 0;
        /* A buffer is chosen before there is something to put into it. */
        if (op->ring->provided_count == 0) {
            rws__sim_complete(op, -ENOBUFS, 0);
            return;
        }
        if (op->socket->state == RWS__SIM_CONNECTED && !rws__sim_socket_is_readable(op->socket)) {
            rws__sim_op_wait(op, &op->socket->readers);
            return;
        }
        int32_t res = fill(op, op->len, &flags);
        if (res <= 0 || !again || !rws__sim_post_more(op, res, flags)) {
            rws__sim_complete(op, res, flags);
            return;
        }
    }
    rws__sim_op_make_ready(op);
}

static void run_recv(rws__sim_op *op)
{
    if (!op->acts) memset(op->memory, POISON_RECEIVE, poisoned(op));
    ssize_t res = rws__sim_socket_recv(op->socket, op->memory, op->len);
    if (res == -EAGAIN) {
        rws__sim_op_wait(op, &op->socket->readers);
        return;
    }
    check_received(op, res > 0 ? (size_t)res : 0);
    rws__sim_complete(op, (int32_t)res, 0);
}

/* ---- sending ---- */

/* A zero-copy send has its result; the notification is still to come. */
static void lend(rws__sim_op *op, int32_t res)
{
    rws__sim_socket *socket = op->socket;
    rws__sim_post(op->ring, op->user_data, res, RWS__CQE_MORE);
    rws__sim_op_wait(op, &socket->lent);
    op->place = RWS__SIM_LENT;
    op->upto = socket->other != NULL ? socket->other->in.written : 0;
    op->socket = NULL;
    if (socket->other == NULL || op->upto <= socket->other->in.arrived) rws__sim_op_notify(op);
    rws__sim_socket_drop(socket);
}

static void end_send(rws__sim_op *op, int32_t res)
{
    if (op->done > 0) res = (int32_t)op->done;
    if (op->kind == RWS__SIM_SEND_ZC) {
        lend(op, res);
        return;
    }
    check_sent(op);
    if (op->kind == RWS__SIM_SEND_QUIET && op->done == op->len)
        rws__sim_op_free(op);
    else
        rws__sim_complete(op, res, 0);
}

static void run_send(rws__sim_op *op)
{
    bool waits = op->kind != RWS__SIM_SEND_QUIET;
    ssize_t res = rws__sim_socket_send(op->socket, op->memory + op->done, op->len - op->done);
    if (res > 0) op->done += (size_t)res;
    bool blocked = res == -EAGAIN;
    bool goes_on = blocked || (res > 0 && op->done < op->len && op->kind != RWS__SIM_SEND_SOME);
    if (!waits || !goes_on)
        end_send(op, (int32_t)res);
    else if (!blocked && rws__sim_socket_is_writable(op->socket))
        rws__sim_op_make_ready(op);
    else
        rws__sim_op_wait(op, &op->socket->writers);
}

static void run_zero_copy(rws__sim_op *op)
{
    if (op->socket == NULL) {
        uint32_t copied = rws__sim_fails(RWS__SIM_ZC_COPIED) ? RWS__NOTIFICATION_COPIED : 0;
        check_sent(op);
        rws__sim_post(op->ring, op->user_data, (int32_t)copied, RWS__CQE_NOTIFICATION);
        rws__sim_op_free(op);
    } else if (!op->acts && rws__sim_fails(RWS__SIM_ZC_REFUSED)) {
        static const int errors[] = {-ENOMEM, -EOPNOTSUPP, -EINVAL};
        int32_t res = errors[rws__sim_random(3)];
        if (rws__sim_random(2) == 0)
            lend(op, res);
        else
            rws__sim_complete(op, res, 0);
    } else {
        run_send(op);
    }
}

/* ---- the rest ---- */

static void run_install(rws__sim_op *op)
{
    int32_t fd;
    memcpy(&fd, op->memory, sizeof fd);
    rws__sim_socket *socket = rws__sim_descriptor(fd);
    if (socket == NULL) rws__sim_breach("descriptor %d is installed and not in use", fd);
    int32_t index = rws__sim_file_add(op->ring, rws__sim_socket_hold(socket));
    if (index >= 0) memcpy(op->memory, &index, sizeof index);
    rws__sim_complete(op, index >= 0 ? 1 : index, 0);
}

static void run_peer(rws__sim_op *op)
{
    const rws__sim_socket *socket = op->socket;
    bool known = socket->state == RWS__SIM_CONNECTED;
    if (known) memcpy(op->memory, &socket->peer, op->len);
    if (!known) rws__sim_post(op->ring, op->user_data, -ENOTCONN, 0);
    rws__sim_op_free(op);
}

static void run_connect(rws__sim_op *op)
{
    int res = op->acts ? rws__sim_socket_connected(op->socket)
                       : rws__sim_socket_connect(op->socket, (struct sockaddr *)op->memory,
                                                 (socklen_t)op->len);
    if (res == -EINPROGRESS)
        rws__sim_op_wait(op, &op->socket->writers);
    else
        rws__sim_complete(op, res, 0);
}

/* The worker looks the index up when it comes to it (io_assign_file() in io_wq_submit_work()). */
static void run_shutdown(rws__sim_op *op)
{
    rws__sim_socket *socket = op->ring->files[op->file];
    if (socket == NULL) rws__sim_breach("index %d is shut down and not in use", op->file);
    rws__sim_complete(op, rws__sim_socket_shutdown(socket), 0);
}

static void run_close(rws__sim_op *op)
{
    rws__ring *ring = op->ring;
    rws__sim_socket_drop(ring->files[op->file]);
    ring->files[op->file] = NULL;
    ring->free_files[ring->files_free++] = (uint32_t)op->file;
    rws__sim_socket_drop(op->socket);
    op->socket = NULL;
    rws__sim_complete(op, 0, 0);
}

static void run_read_event(rws__sim_op *op)
{
    uint64_t signals = 1;
    op->ring->event_read = op;
    op->place = RWS__SIM_WAITING;
    if (!rws__sim_event_take(op->file)) return;
    op->ring->event_read = NULL;
    memcpy(op->memory, &signals, sizeof signals);
    rws__sim_complete(op, sizeof signals, 0);
}

static void run_timeout(rws__sim_op *op)
{
    if (op->acts) {
        rws__sim_complete(op, -ETIME, 0);
        return;
    }
    rws__sim_op_wait(op, NULL);
    rws__sim_event_set(&op->event, rws__sim()->now_us + op->len * 1000);
}

/* ---- what concerns other operations ---- */

static bool can_be_cancelled(const rws__sim_op *op)
{
    bool in_time =
        op->place == RWS__SIM_WAITING || op->place == RWS__SIM_READY || op->place == RWS__SIM_HELD;
    bool is_lent = op->kind == RWS__SIM_SEND_ZC && op->socket == NULL;
    return in_time && !is_lent && op->kind != RWS__SIM_SHUTDOWN && op->kind != RWS__SIM_INSTALL;
}

/* The oldest that stands for it; the list has the youngest first. */
static rws__sim_op *find(const rws__ring *ring, uint64_t user_data)
{
    rws__sim_op *found = NULL;
    for (rws__sim_op *op = ring->submitted; op != NULL; op = op->next)
        if (op->user_data == user_data && can_be_cancelled(op)) found = op;
    return found;
}

static void cancel_now(rws__sim_op *op)
{
    rws__sim_op_leave_line(op);
    if (op->ring->event_read == op) op->ring->event_read = NULL;
    if (op->kind == RWS__SIM_SEND_ZC || op->kind == RWS__SIM_SEND)
        end_send(op, -ECANCELED);
    else
        rws__sim_complete(op, -ECANCELED, 0);
}

/* If it is ready it may be faster: then it completes with its own result, or not at all. */
static void cancel(rws__sim_op *op)
{
    bool once = op->kind != RWS__SIM_ACCEPT_MULTISHOT && op->kind != RWS__SIM_RECV_MULTISHOT;
    bool is_ready = op->place == RWS__SIM_READY || op->place == RWS__SIM_HELD;
    if (is_ready && once && rws__sim_fails(RWS__SIM_CANCEL_LOSES)) {
        rws__sim_op_leave_line(op);
        rws__sim_op_run(op);
        if (op->place != RWS__SIM_WAITING && op->place != RWS__SIM_READY) return;
    }
    cancel_now(op);
}

static void run_cancel(rws__sim_op *op)
{
    rws__sim_op *target = find(op->ring, op->target);
    if (target != NULL)
        cancel(target);
    else
        rws__sim_post(op->ring, 0, -ENOENT, 0);
    rws__sim_op_free(op);
}

static void run_cancel_file(rws__sim_op *op)
{
    const rws__sim_socket *socket = op->socket;
    bool found = false;
    for (rws__sim_op *at = op->ring->submitted, *next; at != NULL; at = next) {
        next = at->next;
        if (at == op || at->socket != socket || !can_be_cancelled(at)) continue;
        found = true;
        cancel(at);
    }
    if (!found) rws__sim_post(op->ring, 0, -ENOENT, 0);
    rws__sim_op_free(op);
}

static void run_timeout_update(rws__sim_op *op)
{
    rws__sim_op *target = op->ring->submitted;
    while (target != NULL &&
           !(target->kind == RWS__SIM_TIMEOUT && target->user_data == op->target &&
             target->place == RWS__SIM_WAITING))
        target = target->next;
    if (target != NULL)
        rws__sim_event_set(&target->event, rws__sim()->now_us + op->len * 1000);
    else
        rws__sim_post(op->ring, 0, -ENOENT, 0);
    rws__sim_op_free(op);
}

/* ---- trying ---- */

/* Find the socket. Returns false if it has completed. */
static bool begin(rws__sim_op *op)
{
    rws__ring *ring = op->ring;
    switch (op->kind) {
    case RWS__SIM_ACCEPT_MULTISHOT:
    case RWS__SIM_ACCEPT_DIRECT:
    case RWS__SIM_ACCEPT_FD: {
        rws__sim_socket *listener = rws__sim_descriptor(op->file);
        if (listener == NULL || listener->state != RWS__SIM_LISTENING) {
            rws__sim_complete(op, listener == NULL ? -EBADF : -EINVAL, 0);
            return false;
        }
        op->socket = rws__sim_socket_hold(listener);
        return true;
    }
    case RWS__SIM_INSTALL:
    case RWS__SIM_CANCEL:
    case RWS__SIM_READ_EVENT:
    case RWS__SIM_TIMEOUT:
    case RWS__SIM_TIMEOUT_UPDATE: return true;
    default:
        if (op->file < 0 || (uint32_t)op->file >= ring->files_max || ring->files[op->file] == NULL)
            rws__sim_breach("index %d is not in use", op->file);
        if (op->kind != RWS__SIM_SHUTDOWN) op->socket = rws__sim_socket_hold(ring->files[op->file]);
        return true;
    }
}

/* A worker does it, when it comes to it. */
static bool starts_late(rws__sim_op *op)
{
    if (op->acts || (op->kind != RWS__SIM_SHUTDOWN && op->kind != RWS__SIM_INSTALL)) return false;
    uint64_t late = rws__sim_time_of(RWS__SIM_LATE, rws__sim()->options.late_us_max);
    if (late == 0) return false;
    op->place = RWS__SIM_HELD;
    op->acts = true;
    rws__sim_event_set(&op->event, rws__sim()->now_us + late);
    return true;
}

static void act(rws__sim_op *op)
{
    switch (op->kind) {
    case RWS__SIM_ACCEPT_MULTISHOT:
    case RWS__SIM_ACCEPT_DIRECT:
    case RWS__SIM_ACCEPT_FD: run_accept(op); break;
    case RWS__SIM_INSTALL: run_install(op); break;
    case RWS__SIM_PEER: run_peer(op); break;
    case RWS__SIM_RECV_MULTISHOT:
    case RWS__SIM_RECV_PROVIDED: run_recv_provided(op); break;
    case RWS__SIM_RECV: run_recv(op); break;
    case RWS__SIM_SEND:
    case RWS__SIM_SEND_SOME:
    case RWS__SIM_SEND_QUIET: run_send(op); break;
    case RWS__SIM_SEND_ZC: run_zero_copy(op); break;
    case RWS__SIM_UNACKNOWLEDGED:
        rws__sim_complete(op, (int32_t)rws__sim_socket_unacknowledged(op->socket), 0);
        break;
    case RWS__SIM_CONNECT: run_connect(op); break;
    case RWS__SIM_DISCONNECT:
        rws__sim_socket_disconnect(op->socket);
        rws__sim_op_free(op);
        break;
    case RWS__SIM_SHUTDOWN: run_shutdown(op); break;
    case RWS__SIM_CLOSE: run_close(op); break;
    case RWS__SIM_CANCEL: run_cancel(op); break;
    case RWS__SIM_CANCEL_FILE: run_cancel_file(op); break;
    case RWS__SIM_READ_EVENT: run_read_event(op); break;
    case RWS__SIM_TIMEOUT: run_timeout(op); break;
    case RWS__SIM_TIMEOUT_UPDATE: run_timeout_update(op); break;
    }
}

void rws__sim_op_run(rws__sim_op *op)
{
    if (op->place == RWS__SIM_QUEUED && !begin(op)) return;
    if (starts_late(op)) return;
    op->place = RWS__SIM_RUNNING;
    act(op);
}
