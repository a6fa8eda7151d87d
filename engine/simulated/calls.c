/*
 * engine/ring/ring.h: the calls that queue operations, and their submission.
 */
#include "engine/simulated/internal.h"

#include <errno.h>

/* ---- submission ---- */

/* Submit the first that is queued: it is tried at once. */
static void submit_one(rws__ring *ring)
{
    rws__sim_op *op = rws__sim_line_take(&ring->queued);
    ring->queued_count--;
    op->next = ring->submitted;
    if (op->next != NULL) op->next->prev = op;
    ring->submitted = op;
    rws__sim_op_run(op);
}

void rws__sim_submit(rws__ring *ring)
{
    ring->enters++;
    uint32_t count = ring->queued_count;
    if (count > 0 && rws__sim_fails(RWS__SIM_SUBMIT_PART)) count = (uint32_t)rws__sim_random(count);
    while (count-- > 0)
        submit_one(ring);
}

/* An operation that the caller fills in, or NULL: the kernel takes no more just now. */
static rws__sim_op *take_op(rws__ring *ring, rws__sim_kind kind, int32_t file, uint64_t user_data)
{
    if (!ring->sq_blocked && rws__sim_fails(RWS__SIM_SQ_FULL)) ring->sq_blocked = true;
    if (!ring->sq_blocked && ring->queued_count == ring->sq_entries) rws__sim_submit(ring);
    if (ring->sq_blocked || ring->queued_count == ring->sq_entries) return NULL;
    rws__sim_op *op = rws__sim_op_new(ring);
    op->ring = ring;
    op->kind = kind;
    op->file = file;
    op->user_data = user_data;
    rws__sim_line_append(&ring->queued, op);
    ring->queued_count++;
    ring->ops++;
    return op;
}

static int queue(rws__ring *ring, rws__sim_kind kind, int32_t file, uint64_t user_data)
{
    return take_op(ring, kind, file, user_data) != NULL ? 0 : -EAGAIN;
}

static int queue_memory(rws__ring *ring, rws__sim_kind kind, uint32_t file, const void *data,
                        size_t len, uint64_t user_data)
{
    rws__sim_op *op = take_op(ring, kind, (int32_t)file, user_data);
    if (op == NULL) return -EAGAIN;
    op->memory = (uint8_t *)data;
    op->len = len;
    return 0;
}

static int queue_send(rws__ring *ring, rws__sim_kind kind, uint32_t file, const void *data,
                      size_t len, uint64_t user_data)
{
    if (len == 0) rws__sim_breach("a send of nothing on file %u", file);
    int res = queue_memory(ring, kind, file, data, len, user_data);
    if (res == 0) ring->queued.last->hash = rws__sim_hash(data, len);
    return res;
}

/* ---- calls ---- */

int rws__ring_accept_multishot(rws__ring *ring, int listener, uint64_t user_data)
{
    return queue(ring, RWS__SIM_ACCEPT_MULTISHOT, listener, user_data);
}

int rws__ring_accept_direct(rws__ring *ring, int listener, struct sockaddr *address, socklen_t *len,
                            uint64_t user_data)
{
    rws__sim_op *op = take_op(ring, RWS__SIM_ACCEPT_DIRECT, listener, user_data);
    if (op == NULL) return -EAGAIN;
    op->memory = (uint8_t *)address;
    op->address_len = len;
    return 0;
}

int rws__ring_accept_fd(rws__ring *ring, int listener, uint64_t user_data)
{
    return queue(ring, RWS__SIM_ACCEPT_FD, listener, user_data);
}

int rws__ring_install(rws__ring *ring, int32_t *fd, uint64_t user_data)
{
    rws__sim_op *op = take_op(ring, RWS__SIM_INSTALL, -1, user_data);
    if (op == NULL) return -EAGAIN;
    op->memory = (uint8_t *)fd;
    return 0;
}

int rws__ring_peer(rws__ring *ring, uint32_t file, void *address, socklen_t len)
{
    int res = queue_memory(ring, RWS__SIM_PEER, file, address, len, 0);
    if (res != 0) return res;
    rws__sim_submit(ring);
    return ring->queued_count == 0 ? 0 : -EAGAIN;
}

int rws__ring_recv_multishot(rws__ring *ring, uint32_t file, uint64_t user_data)
{
    return queue(ring, RWS__SIM_RECV_MULTISHOT, (int32_t)file, user_data);
}

int rws__ring_recv_provided(rws__ring *ring, uint32_t file, size_t len, uint64_t user_data)
{
    return queue_memory(ring, RWS__SIM_RECV_PROVIDED, file, NULL, len, user_data);
}

int rws__ring_recv(rws__ring *ring, uint32_t file, void *data, size_t len, uint64_t user_data)
{
    return queue_memory(ring, RWS__SIM_RECV, file, data, len, user_data);
}

int rws__ring_send(rws__ring *ring, uint32_t file, const void *data, size_t len, uint64_t user_data)
{
    return queue_send(ring, RWS__SIM_SEND, file, data, len, user_data);
}

int rws__ring_send_some(rws__ring *ring, uint32_t file, const void *data, size_t len,
                        uint64_t user_data)
{
    return queue_send(ring, RWS__SIM_SEND_SOME, file, data, len, user_data);
}

int rws__ring_unacknowledged(rws__ring *ring, uint32_t file, uint64_t user_data)
{
    return queue(ring, RWS__SIM_UNACKNOWLEDGED, (int32_t)file, user_data);
}

int rws__ring_send_quiet(rws__ring *ring, uint32_t file, const void *data, size_t len,
                         uint64_t user_data)
{
    return queue_send(ring, RWS__SIM_SEND_QUIET, file, data, len, user_data);
}

int rws__ring_send_zero_copy(rws__ring *ring, uint32_t file, const void *data, size_t len,
                             uint64_t user_data)
{
    return queue_send(ring, RWS__SIM_SEND_ZC, file, data, len, user_data);
}

int rws__ring_register(rws__ring *ring, uint32_t index, void *memory, size_t len)
{
    ring->enters++;
    if (index >= ring->registered_max || ring->registered[index].memory != NULL)
        rws__sim_breach("entry %u of the registered memory is not free", index);
    if (rws__sim_fails(RWS__SIM_REGISTER)) return -ENOMEM;
    ring->registered[index].memory = memory;
    ring->registered[index].len = len;
    return 0;
}

int rws__ring_unregister(rws__ring *ring, uint32_t index)
{
    ring->enters++;
    if (index >= ring->registered_max || ring->registered[index].memory == NULL)
        rws__sim_breach("entry %u of the registered memory is empty", index);
    ring->registered[index].memory = NULL;
    return 0;
}

int rws__ring_send_registered(rws__ring *ring, uint32_t file, const void *data, size_t len,
                              uint32_t index, uint64_t user_data)
{
    const uint8_t *bytes = data;
    bool lies_in = index < ring->registered_max && ring->registered[index].memory != NULL &&
                   bytes >= ring->registered[index].memory &&
                   bytes + len <= ring->registered[index].memory + ring->registered[index].len;
    if (!lies_in)
        rws__sim_breach("a send does not lie in entry %u of the registered memory", index);
    return queue_send(ring, RWS__SIM_SEND_ZC, file, data, len, user_data);
}

int rws__ring_connect(rws__ring *ring, uint32_t file, const struct sockaddr *address, socklen_t len,
                      uint64_t user_data)
{
    return queue_memory(ring, RWS__SIM_CONNECT, file, address, len, user_data);
}

int rws__ring_disconnect(rws__ring *ring, uint32_t file)
{
    return queue(ring, RWS__SIM_DISCONNECT, (int32_t)file, 0);
}

int rws__ring_shutdown_write(rws__ring *ring, uint32_t file, uint64_t user_data)
{
    return queue(ring, RWS__SIM_SHUTDOWN, (int32_t)file, user_data);
}

int rws__ring_close(rws__ring *ring, uint32_t file, uint64_t user_data)
{
    return queue(ring, RWS__SIM_CLOSE, (int32_t)file, user_data);
}

int rws__ring_cancel(rws__ring *ring, uint64_t user_data)
{
    rws__sim_op *op = take_op(ring, RWS__SIM_CANCEL, -1, 0);
    if (op == NULL) return -EAGAIN;
    op->target = user_data;
    return 0;
}

int rws__ring_cancel_file(rws__ring *ring, uint32_t file)
{
    return queue(ring, RWS__SIM_CANCEL_FILE, (int32_t)file, 0);
}

int rws__ring_read_event(rws__ring *ring, int event, uint64_t *value, uint64_t user_data)
{
    rws__sim_op *op = take_op(ring, RWS__SIM_READ_EVENT, event, user_data);
    if (op == NULL) return -EAGAIN;
    op->memory = (uint8_t *)value;
    return 0;
}

int rws__ring_timeout(rws__ring *ring, uint64_t ms, uint64_t user_data)
{
    rws__sim_op *op = take_op(ring, RWS__SIM_TIMEOUT, -1, user_data);
    if (op == NULL) return -EAGAIN;
    op->len = ms;
    return 0;
}

int rws__ring_timeout_update(rws__ring *ring, uint64_t ms, uint64_t user_data)
{
    rws__sim_op *op = take_op(ring, RWS__SIM_TIMEOUT_UPDATE, -1, 0);
    if (op == NULL) return -EAGAIN;
    op->len = ms;
    op->target = user_data;
    return 0;
}
