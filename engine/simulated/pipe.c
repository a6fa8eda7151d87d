#include "engine/simulated/internal.h"

#include <stdlib.h>
#include <string.h>

#define SIZE_MIN 4096u

static void copy_in(rws__sim_pipe *pipe, uint64_t at, const uint8_t *data, size_t len)
{
    size_t place = (size_t)at & (pipe->size - 1), part = pipe->size - place;
    if (part > len) part = len;
    memcpy(pipe->bytes + place, data, part);
    if (part < len) memcpy(pipe->bytes, data + part, len - part);
}

static void copy_out(const rws__sim_pipe *pipe, uint64_t at, uint8_t *out, size_t len)
{
    size_t place = (size_t)at & (pipe->size - 1), part = pipe->size - place;
    if (part > len) part = len;
    memcpy(out, pipe->bytes + place, part);
    if (part < len) memcpy(out + part, pipe->bytes, len - part);
}

static void make_room(rws__sim_pipe *pipe, size_t len)
{
    size_t used = (size_t)(pipe->written - pipe->read), size = pipe->size;
    if (used + len <= size) return;
    if (size == 0) size = SIZE_MIN;
    while (size < used + len)
        size *= 2;
    rws__sim_pipe larger = *pipe;
    larger.bytes = rws__sim_memory(size);
    larger.size = size;
    for (uint64_t at = pipe->read; at < pipe->written;) {
        uint8_t part[SIZE_MIN];
        size_t left = (size_t)(pipe->written - at), n = left < sizeof part ? left : sizeof part;
        copy_out(pipe, at, part, n);
        copy_in(&larger, at, part, n);
        at += n;
    }
    free(pipe->bytes);
    *pipe = larger;
}

/* Nothing overtakes what is under way. */
static uint64_t last_us(const rws__sim_pipe *pipe)
{
    if (pipe->count == 0) return 0;
    return pipe->segments[(pipe->first + pipe->count - 1) % RWS__SIM_SEGMENTS].at_us;
}

void rws__sim_pipe_write(rws__sim_pipe *pipe, const uint8_t *data, size_t len, uint64_t at_us)
{
    make_room(pipe, len);
    copy_in(pipe, pipe->written, data, len);
    pipe->written += len;
    if (at_us < last_us(pipe)) at_us = last_us(pipe);
    if (pipe->count < RWS__SIM_SEGMENTS) pipe->count++;
    uint32_t last = (pipe->first + pipe->count - 1) % RWS__SIM_SEGMENTS;
    pipe->segments[last].upto = pipe->written;
    pipe->segments[last].at_us = at_us;
}

void rws__sim_pipe_end(rws__sim_pipe *pipe, uint64_t at_us)
{
    pipe->fin = true;
    pipe->fin_us = at_us < last_us(pipe) ? last_us(pipe) : at_us;
}

void rws__sim_pipe_read(rws__sim_pipe *pipe, uint8_t *out, size_t len)
{
    copy_out(pipe, pipe->read, out, len);
    pipe->read += len;
}

bool rws__sim_pipe_deliver(rws__sim_pipe *pipe, size_t window, uint64_t now_us, uint64_t *next_us)
{
    uint64_t before = pipe->arrived, most = pipe->read + window;
    *next_us = UINT64_MAX;
    for (; pipe->count > 0; pipe->count--) {
        uint64_t upto = pipe->segments[pipe->first].upto, at = pipe->segments[pipe->first].at_us;
        if (at > now_us) {
            *next_us = at;
            return pipe->arrived > before;
        }
        pipe->arrived = upto < most ? upto : most;
        if (pipe->arrived < upto) return pipe->arrived > before;
        pipe->first = (pipe->first + 1) % RWS__SIM_SEGMENTS;
    }
    if (!pipe->fin || pipe->fin_arrived) return pipe->arrived > before;
    if (pipe->fin_us > now_us) {
        *next_us = pipe->fin_us;
        return pipe->arrived > before;
    }
    pipe->fin_arrived = true;
    return true;
}

void rws__sim_pipe_drop(rws__sim_pipe *pipe)
{
    pipe->written = pipe->arrived;
    pipe->count = 0;
    pipe->fin = pipe->fin_arrived;
}

void rws__sim_pipe_free(rws__sim_pipe *pipe)
{
    free(pipe->bytes);
    pipe->bytes = NULL;
    pipe->size = 0;
}
