#include "engine/ring/buffers.h"

#include "engine/base/assert.h"
#include "engine/base/pages.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define INCREMENTAL_START 2

/* ---- giving them to the kernel ---- */

static void provide(rws__buffers *buffers, uint32_t index)
{
    rws__buffer *state = &buffers->states[index];
    state->head = 0;
    state->in_ring = true;
    size_t bytes = buffers->bytes;
    if (buffers->in_use <= buffers->start) bytes /= 2;
    buffers->provide(buffers->ring, index, buffers->memory + index * buffers->bytes, bytes);
}

/* Nobody reads it any more. Out of line, because seldom: the usual buffer stays with the kernel for
 * many receives. */
__attribute__((noinline)) static void provide_again(rws__buffer *state)
{
    rws__buffers *buffers = state->all;
    state->in_ring = state->waits = true;
    while (buffers->states[buffers->next].waits) {
        buffers->states[buffers->next].waits = false;
        provide(buffers, buffers->next);
        buffers->next = (buffers->next + 1) % buffers->in_use;
    }
}

static void use(rws__buffers *buffers, uint32_t count)
{
    while (buffers->in_use < count && buffers->in_use < buffers->count)
        provide(buffers, buffers->in_use++);
}

void rws__buffers_start(rws__buffers *buffers, bool incremental)
{
    bool grows = incremental && buffers->count > INCREMENTAL_START;
    buffers->start = grows ? INCREMENTAL_START : 0;
    use(buffers, grows ? INCREMENTAL_START : buffers->count);
}

void rws__buffers_grow(rws__buffers *buffers)
{
    use(buffers, buffers->in_use * 2);
}

/* ---- readers ---- */

static void drop_reader(rws__buffer *state)
{
    RWS_ASSERT(state->readers > 0);
    if (--state->readers > 0 || state->in_ring) return;
    provide_again(state);
}

static void release_one(rws__lender *lender)
{
    drop_reader((rws__buffer *)lender);
}

static void release_two(rws__lender *lender)
{
    rws__buffer *state = (rws__buffer *)((char *)lender - offsetof(rws__buffer, across));
    drop_reader(state + 1);
    drop_reader(state);
}

static const rws__lender_ops ops_of_one = {.release = release_one, .is_transient = true};
static const rws__lender_ops ops_of_two = {.release = release_two, .is_transient = true};

static uint32_t index_of(const rws__cqe *cqe)
{
    return cqe->flags >> RWS__CQE_BUFFER_SHIFT;
}

uint8_t *rws__buffers_look(rws__buffers *buffers, const rws__cqe *cqe)
{
    uint32_t index = index_of(cqe);
    RWS_ASSERT(index < buffers->count);
    rws__buffer *state = &buffers->states[index];
    uint8_t *data = buffers->memory + index * buffers->bytes + state->head;
    state->readers++;
    if (cqe->res > 0) state->head += (uint32_t)cqe->res;
    if (!(cqe->flags & RWS__CQE_BUFFER_MORE)) state->in_ring = false;
    return data;
}

void rws__buffers_recycle(rws__buffers *buffers, const rws__cqe *cqe)
{
    drop_reader(&buffers->states[index_of(cqe)]);
}

bool rws__buffers_continue(const rws__buffers *buffers, const uint8_t *end, const rws__cqe *cqe)
{
    if (!(cqe->flags & RWS__CQE_BUFFER) || cqe->res <= 0) return false;
    uint32_t index = index_of(cqe);
    return buffers->memory + index * buffers->bytes + buffers->states[index].head == end;
}

rws__lender *rws__buffers_lend(rws__buffers *buffers, const uint8_t *data, size_t len)
{
    size_t begin = (size_t)(data - buffers->memory);
    size_t first = begin / buffers->bytes, last = (begin + len - 1) / buffers->bytes;
    if (last > first + 1) return NULL;
    rws__buffer *state = &buffers->states[first];
    state->readers++;
    if (last == first) return &state->lender;
    state[1].readers++;
    return &state->across;
}

/* ---- life ---- */

int rws__buffers_init(rws__buffers *buffers, uint32_t count, size_t bytes, rws__provide_fn fn,
                      rws__ring *ring)
{
    *buffers = (rws__buffers){.count = count, .bytes = bytes, .provide = fn, .ring = ring};
    buffers->states = calloc(count, sizeof(rws__buffer));
    buffers->memory = rws__pages_reserve(count * bytes);
    if (buffers->states == NULL || buffers->memory == NULL) {
        rws__buffers_deinit(buffers);
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < count; i++) {
        buffers->states[i].lender.ops = &ops_of_one;
        buffers->states[i].across.ops = &ops_of_two;
        buffers->states[i].all = buffers;
    }
    return 0;
}

void rws__buffers_deinit(rws__buffers *buffers)
{
    rws__pages_release(buffers->memory, buffers->count * buffers->bytes);
    free(buffers->states);
    memset(buffers, 0, sizeof *buffers);
}
