#include "support/test_allocator.h"

#include <stdalign.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Before each block. */
typedef struct head {
    alignas(max_align_t) size_t size;
} head;

void *test_allocator_alloc(size_t size, void *user)
{
    test_allocator *own = user;
    size_t call = atomic_fetch_add(&own->calls, 1) + 1;
    size_t fail_from = atomic_load(&own->fail_from);
    if (call == atomic_load(&own->fail_at) || (fail_from != 0 && call >= fail_from)) return NULL;
    if (size > SIZE_MAX - sizeof(head)) return NULL;
    head *block = malloc(sizeof *block + size);
    if (block == NULL) return NULL;
    block->size = size;
    memset(block + 1, 0xdd, size);
    atomic_fetch_add(&own->live, 1);
    atomic_fetch_add(&own->bytes, size);
    return block + 1;
}

void test_allocator_release(void *memory, size_t size, void *user)
{
    test_allocator *own = user;
    head *block = (head *)memory - 1;
    if (block->size != size) {
        fprintf(stderr, "%zu bytes are released as %zu\n", block->size, size);
        abort();
    }
    atomic_fetch_sub(&own->live, 1);
    atomic_fetch_sub(&own->bytes, size);
    memset(block + 1, 0xee, size);
    free(block);
}
