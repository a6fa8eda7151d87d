/*
 * An allocator that counts, and that fails when it is told to. It is for several threads at once. A
 * block that is released with another size than was asked for aborts the test. What was not written
 * yet and what was released are overwritten, so that whoever reads either is found.
 *
 *   static test_allocator memory;
 *   static const rws_allocator counting = TEST_ALLOCATOR(&memory);
 */
#ifndef RINGWS_TESTS_SUPPORT_TEST_ALLOCATOR_H
#define RINGWS_TESTS_SUPPORT_TEST_ALLOCATOR_H

#include <stdatomic.h>
#include <stddef.h>

#include "ringws/types.h"

typedef struct test_allocator {
    _Atomic size_t calls;     /* for memory, with those that failed */
    _Atomic size_t live;      /* blocks that are not released */
    _Atomic size_t bytes;     /* in them */
    _Atomic size_t fail_at;   /* this call gets NULL, the first is 1; 0: none */
    _Atomic size_t fail_from; /* this call and all later ones; 0: none */
} test_allocator;

void *test_allocator_alloc(size_t size, void *user);
void test_allocator_release(void *memory, size_t size, void *user);

/* The initialiser of an rws_allocator. */
#define TEST_ALLOCATOR(own)                                                                        \
    {                                                                                              \
        .alloc = test_allocator_alloc, .release = test_allocator_release, .user = (own)            \
    }

#endif
