/*
 * engine/ring/ring.h: the queues, the tables and the turns of a ring.
 */
#include "engine/simulated/internal.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define POISON_PROVIDED 0xDB

/* ---- lines of operations ---- */

void rws__sim_line_append(rws__sim_line *line, rws__sim_op *op)
{
    op->line_next = NULL;
    op->line_prev = line->last;
    if (line->last != NULL)
        line->last->line_next = op;
    else
        line->first = op;
    line->last = op;
}

rws__sim_op *rws__sim_line_take(rws__sim_line *line)
{
    rws__sim_op *op = line->first;
    line->first = op->line_next;
    if (line->first != NULL)
        line->first->line_prev = NULL;
    else
        line->last = NULL;
    op->line_next = op->line_prev = NULL;
    return op;
}

static void remove_from(rws__sim_line *line, rws__sim_op *op)
{
    if (op->line_prev != NULL)
        op->line_prev->line_next = op->line_next;
    else
        line->first = op->line_next;
    if (op->line_next != NULL)
        op->line_next->line_prev = op->line_prev;
    else
        line->last = op->line_prev;
    op->line_next = op->line_prev = NULL;
}

void rws__sim_op_wait(rws__sim_op *op, rws__sim_op **line)
{
    op->place = RWS__SIM_WAITING;
    op->acts = true;
    op->line = line;
    if (line == NULL) return;
    op->line_prev = NULL;
    op->line_next = *line;
    if (*line != NULL) (*line)->line_prev = op;
    *line = op;
}

void rws__sim_op_leave_line(rws__sim_op *op)
{
    if (op->place == RWS__SIM_READY) {
        remove_from(&op->ring->ready, op);
        op->ring->ready_count--;
    } else if (op->line != NULL) {
        if (op->line_prev != NULL)
            op->line_prev->line_next = op->line_next;
        else
            *op->line = op->line_next;
        if (op->line_next != NULL) op->line_next->line_prev = op->line_prev;
        op->line_next = op->line_prev = NULL;
        op->line = NULL;
    }
    rws__sim_event_clear(&op->event);
    op->place = RWS__SIM_RUNNING;
}

void rws__sim_op_make_ready(rws__sim_op *op)
{
    op->place = RWS__SIM_READY;
    op->acts = true;
    rws__sim_line_append(&op->ring->ready, op);
    op->ring->ready_count++;
}

void rws__sim_op_wake(rws__sim_op *op)
{
    rws__sim_op_leave_line(op);
    uint64_t late = rws__sim_time_of(RWS__SIM_LATE, rws__sim()->options.late_us_max);
    if (late == 0) {
        rws__sim_op_make_ready(op);
        return;
    }
    op->place = RWS__SIM_HELD;
    rws__sim_event_set(&op->event, rws__sim()->now_us + late);
}

void rws__sim_op_notify(rws__sim_op *op)
{
    rws__sim_op_leave_line(op);
    op->place = RWS__SIM_LENT;
    uint64_t late = rws__sim_time_of(RWS__SIM_ZC_LATE, rws__sim()->options.late_us_max);
    rws__sim_event_set(&op->event, rws__sim()->now_us + late);
}

/* ---- completions ---- */

static bool queue_is_full(const rws__ring *ring)
{
    return ring->cqes_count > ring->fits || ring->fits == ring->cq_entries ||
           rws__sim_fails(RWS__SIM_CQ_FULL);
}

static rws__cqe *cqe_at(const rws__ring *ring, uint32_t index)
{
    return &ring->cqes[(ring->cqes_first + index) & (ring->cqes_max - 1)];
}

static void grow_cqes(rws__ring *ring)
{
    uint32_t most = ring->cqes_max * 2;
    rws__cqe *cqes = rws__sim_memory(most * sizeof *cqes);
    for (uint32_t i = 0; i < ring->cqes_count; i++)
        cqes[i] = *cqe_at(ring, i);
    free(ring->cqes);
    ring->cqes = cqes;
    ring->cqes_max = most;
    ring->cqes_first = 0;
}

/* Completions of one operation, and those with provided buffers, keep their order. */
static bool may_change_places(const rws__cqe *a, const rws__cqe *b)
{
    return a->user_data != b->user_data && !(a->flags & b->flags & RWS__CQE_BUFFER);
}

static void put_cqe(rws__ring *ring, rws__cqe cqe)
{
    if (ring->cqes_count == ring->cqes_max) grow_cqes(ring);
    uint32_t place = ring->cqes_count++;
    while (place > 0 && rws__sim_fails(RWS__SIM_REORDER) &&
           may_change_places(cqe_at(ring, place - 1), &cqe)) {
        *cqe_at(ring, place) = *cqe_at(ring, place - 1);
        place--;
    }
    *cqe_at(ring, place) = cqe;
}

void rws__sim_post(rws__ring *ring, uint64_t user_data, int32_t res, uint32_t flags)
{
    if (!queue_is_full(ring)) ring->fits++;
    put_cqe(ring, (rws__cqe){user_data, res, flags});
}

bool rws__sim_post_more(rws__sim_op *op, int32_t res, uint32_t flags)
{
    if (rws__sim_fails(RWS__SIM_MULTISHOT_END) || queue_is_full(op->ring)) return false;
    op->ring->fits++;
    put_cqe(op->ring, (rws__cqe){op->user_data, res, flags | RWS__CQE_MORE});
    return true;
}

static bool may_be_late(const rws__sim_op *op, uint32_t flags)
{
    if (flags != 0) return false;
    switch (op->kind) {
    case RWS__SIM_ACCEPT_DIRECT:
    case RWS__SIM_ACCEPT_FD:
    case RWS__SIM_INSTALL:
    case RWS__SIM_RECV:
    case RWS__SIM_SEND:
    case RWS__SIM_SEND_SOME:
    case RWS__SIM_UNACKNOWLEDGED:
    case RWS__SIM_CONNECT:
    case RWS__SIM_SHUTDOWN:
    case RWS__SIM_CLOSE: return true;
    default: return false;
    }
}

void rws__sim_complete(rws__sim_op *op, int32_t res, uint32_t flags)
{
    uint64_t late = 0;
    if (may_be_late(op, flags))
        late = rws__sim_time_of(RWS__SIM_LATE, rws__sim()->options.late_us_max);
    if (late == 0) {
        rws__sim_post(op->ring, op->user_data, res, flags);
        rws__sim_op_free(op);
        return;
    }
    op->place = RWS__SIM_DONE;
    op->res = res;
    rws__sim_event_set(&op->event, rws__sim()->now_us + late);
}

/* ---- operations ---- */

static void on_event(rws__sim_event *event)
{
    rws__sim_op *op = (rws__sim_op *)((char *)event - offsetof(rws__sim_op, event));
    if (op->place == RWS__SIM_DONE) {
        rws__sim_post(op->ring, op->user_data, op->res, 0);
        rws__sim_op_free(op);
    } else {
        rws__sim_op_make_ready(op);
    }
}

static void forget_all(rws__ring *ring, rws__sim_op *op)
{
    if (op->prev != NULL)
        op->prev->next = op->next;
    else
        ring->submitted = op->next;
    if (op->next != NULL) op->next->prev = op->prev;
}

void rws__sim_op_free(rws__sim_op *op)
{
    rws__ring *ring = op->ring;
    rws__sim_op_leave_line(op);
    forget_all(ring, op);
    if (op->socket != NULL) rws__sim_socket_drop(op->socket);
    ring->ops--;
    op->next = ring->unused;
    ring->unused = op;
}

rws__sim_op *rws__sim_op_new(rws__ring *ring)
{
    rws__sim_op *op = ring->unused;
    if (op == NULL) {
        op = rws__sim_memory(sizeof *op);
    } else {
        ring->unused = op->next;
        memset(op, 0, sizeof *op);
    }
    op->event.happen = on_event;
    return op;
}

/* ---- life ---- */

static void provide(rws__ring *ring, uint32_t index, uint8_t *memory, size_t bytes)
{
    if (ring->has[index]) rws__sim_breach("the kernel has buffer %u already", index);
    ring->has[index] = true;
    if (rws__sim()->options.poison) memset(memory, POISON_PROVIDED, bytes);
    uint32_t count = ring->buffers.count;
    uint32_t place = (ring->provided_first + ring->provided_count++) % count;
    ring->provided[place].index = index;
    ring->provided[place].memory = memory;
    ring->provided[place].bytes = bytes;
}

static int make_buffers(rws__ring *ring, const rws__ring_options *options)
{
    bool incremental = ring->incremental;
    uint32_t count = incremental ? options->incremental_buffers : options->plain_buffers;
    size_t bytes = incremental ? options->incremental_bytes : options->plain_bytes;
    ring->has = rws__sim_memory(count * sizeof(bool));
    ring->provided = rws__sim_memory(count * sizeof *ring->provided);
    int res = rws__buffers_init(&ring->buffers, count, bytes, provide, ring);
    if (res == 0) rws__buffers_start(&ring->buffers, incremental);
    return res;
}

static uint32_t features_of(const rws__ring_options *options)
{
    uint32_t features = rws__sim()->options.features & ~options->features_off;
    if (!(features & RWS__FEATURE_SEND_ZC) || options->registered_max == 0)
        features &= ~RWS__FEATURE_REGISTERED_BUFFERS;
    return features;
}

int rws__ring_create(rws__ring **out, const rws__ring_options *options, const char **what)
{
    *what = "registering the provided buffers";
    rws__ring *ring = rws__sim_memory(sizeof *ring);
    ring->features = features_of(options);
    ring->incremental = ring->features & RWS__FEATURE_INCREMENTAL_BUFFERS;
    ring->sq_entries = options->sq_entries;
    ring->cq_entries = options->cq_entries;
    ring->cqes_max = 64;
    ring->cqes = rws__sim_memory(ring->cqes_max * sizeof(rws__cqe));
    ring->files_max = ring->files_free = options->files;
    ring->files = rws__sim_memory(options->files * sizeof(rws__sim_socket *));
    ring->free_files = rws__sim_memory(options->files * sizeof(uint32_t));
    for (uint32_t i = 0; i < options->files; i++)
        ring->free_files[i] = options->files - 1 - i;
    ring->registered_max = options->registered_max;
    ring->registered = rws__sim_memory(options->registered_max * sizeof *ring->registered);
    rws__sim()->rings++;
    int res = make_buffers(ring, options);
    if (res != 0)
        rws__ring_destroy(ring);
    else
        *out = ring;
    return res;
}

static void free_unused(rws__ring *ring)
{
    while (ring->unused != NULL) {
        rws__sim_op *op = ring->unused;
        ring->unused = op->next;
        free(op);
    }
}

void rws__ring_destroy(rws__ring *ring)
{
    while (ring->queued.first != NULL) {
        rws__sim_op *op = rws__sim_line_take(&ring->queued);
        op->next = ring->unused;
        ring->unused = op;
    }
    while (ring->submitted != NULL)
        rws__sim_op_free(ring->submitted);
    for (uint32_t i = 0; i < ring->files_max; i++)
        if (ring->files[i] != NULL) rws__sim_socket_drop(ring->files[i]);
    free_unused(ring);
    rws__buffers_deinit(&ring->buffers);
    free(ring->registered);
    free(ring->files);
    free(ring->free_files);
    free(ring->has);
    free(ring->provided);
    free(ring->cqes);
    free(ring);
    rws__sim()->rings--;
}

uint32_t rws__ring_features(const rws__ring *ring)
{
    return ring->features;
}

uint32_t rws__ring_pending(const rws__ring *ring)
{
    return ring->queued_count;
}

uint64_t rws__ring_overflows(const rws__ring *ring)
{
    return ring->overflows;
}

uint64_t rws__ring_enters(const rws__ring *ring)
{
    return ring->enters;
}

/* ---- turns ---- */

int rws__ring_turn(rws__ring *ring, bool wait)
{
    const rws__sim_options *options = &rws__sim()->options;
    if (ring->ran_dry) rws__buffers_grow(&ring->buffers);
    ring->ran_dry = ring->sq_blocked = false;
    uint64_t slow = rws__sim_time_of(RWS__SIM_SLOW_TURN, options->slow_us_max);
    if (slow > 0) rws__sim_advance_to(rws__sim()->now_us + slow);
    rws__sim_submit(ring);
    for (uint32_t count = ring->ready_count; count > 0 && ring->ready.first != NULL; count--) {
        rws__sim_op *op = rws__sim_line_take(&ring->ready);
        ring->ready_count--;
        rws__sim_op_run(op);
    }
    if (ring->event_read != NULL) rws__sim_op_run(ring->event_read);
    ring->sleeps = wait && !rws__sim_ring_is_ready(ring);
    return 0;
}

uint32_t rws__ring_reap(rws__ring *ring, rws__cqe *out, uint32_t max)
{
    if (ring->fits == 0 && ring->cqes_count > 0) {
        ring->overflows++;
        ring->enters++;
        ring->fits = ring->cqes_count < ring->cq_entries ? ring->cqes_count : ring->cq_entries;
    }
    uint32_t count = ring->fits < max ? ring->fits : max;
    for (uint32_t i = 0; i < count; i++) {
        out[i] = *cqe_at(ring, i);
        if (out[i].res == -ENOBUFS) ring->ran_dry = true;
    }
    ring->cqes_first = (ring->cqes_first + count) & (ring->cqes_max - 1);
    ring->cqes_count -= count;
    ring->fits -= count;
    return count;
}

bool rws__sim_ring_is_ready(const rws__ring *ring)
{
    if (ring->cqes_count > 0 || ring->queued_count > 0 || ring->ready_count > 0) return true;
    const rws__sim_op *read = ring->event_read;
    return read != NULL && rws__sim_event_is_signalled(read->file);
}

bool rws__sim_ring_sleeps(const rws__ring *ring)
{
    return ring->sleeps;
}

/* ---- provided buffers ---- */

uint8_t *rws__ring_buffer(rws__ring *ring, const rws__cqe *cqe)
{
    return rws__buffers_look(&ring->buffers, cqe);
}

void rws__ring_recycle(rws__ring *ring, const rws__cqe *cqe)
{
    rws__buffers_recycle(&ring->buffers, cqe);
}

bool rws__ring_continues(const rws__ring *ring, const uint8_t *end, const rws__cqe *cqe)
{
    return rws__buffers_continue(&ring->buffers, end, cqe);
}

rws__lender *rws__ring_lend(rws__ring *ring, const uint8_t *data, size_t len)
{
    return rws__buffers_lend(&ring->buffers, data, len);
}

/* ---- the table ---- */

int32_t rws__sim_file_add(rws__ring *ring, rws__sim_socket *socket)
{
    if (ring->files_free == 0 || rws__sim_fails(RWS__SIM_NO_FILE)) {
        rws__sim_socket_drop(socket);
        return -ENFILE;
    }
    uint32_t index = ring->free_files[--ring->files_free];
    ring->files[index] = socket;
    return (int32_t)index;
}
