/*
 * The allocator that counts what is not given back, and lets one allocation fail. Posts of other
 * threads use it as well.
 */
#include "engine/testing/kit.h"

#include <stdlib.h>

static void *count_alloc(size_t size, void *user)
{
    rws__memory_counts *counts = user;
    uint64_t fail_at = atomic_load(&counts->fail_at);
    if (fail_at != 0 && atomic_fetch_add(&counts->calls, 1) + 1 == fail_at) {
        atomic_store(&counts->failed, true);
        return NULL;
    }
    void *memory =
        counts->below.alloc != NULL ? counts->below.alloc(size, counts->below.user) : malloc(size);
    if (memory == NULL) return NULL;
    atomic_fetch_add(&counts->holders, 1);
    atomic_fetch_add(&counts->bytes, size);
    return memory;
}

static void count_release(void *memory, size_t size, void *user)
{
    rws__memory_counts *counts = user;
    atomic_fetch_sub(&counts->bytes, size);
    if (counts->below.alloc != NULL)
        counts->below.release(memory, size, counts->below.user);
    else
        free(memory);
    rws__memory_release(counts);
}

void rws__memory_release(rws__memory_counts *counts)
{
    if (atomic_fetch_sub(&counts->holders, 1) == 1) free(counts);
}

rws__memory_counts *rws__memory_make(const rws_allocator *below)
{
    rws__memory_counts *counts = rws__test_memory(sizeof *counts);
    counts->allocator = (rws_allocator){count_alloc, count_release, counts};
    if (below != NULL) counts->below = *below;
    atomic_init(&counts->holders, 1);
    return counts;
}

const rws_allocator *rws_test_allocator(rws_test *test)
{
    return rws__test_is_open(test) ? &test->memory->allocator : NULL;
}

void rws_test_fail_alloc(rws_test *test, uint64_t n)
{
    if (!rws__test_is_open(test)) return;
    atomic_store(&test->memory->failed, false);
    atomic_store(&test->memory->calls, 0);
    atomic_store(&test->memory->fail_at, n);
}

bool rws_test_alloc_failed(const rws_test *test)
{
    return rws__test_is_open(test) && atomic_load(&test->memory->failed);
}
