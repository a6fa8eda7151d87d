/*
 * Memory straight from the kernel: zeroed pages that cost nothing before they are touched.
 *
 * Transparent huge pages are off for all of it, because a huge page makes 2 MiB resident for the
 * first byte that is touched, and most of what is reserved here is touched sparsely: slabs and
 * their tags, tables of connections. The provided buffers are no exception: the kernel gets few of
 * them at first so that the others cost nothing, and all of them are smaller than a huge page.
 */
#ifndef RINGWS_BASE_PAGES_H
#define RINGWS_BASE_PAGES_H

#include <stddef.h>

/* The system's page size: 4, 16 or 64 KiB. */
size_t rws__page_bytes(void);

/* `bytes` of readable and writable pages, or NULL. */
void *rws__pages_reserve(size_t bytes);

/* `pages` may be NULL; `bytes` is what was asked for. */
void rws__pages_release(void *pages, size_t bytes);

/* Give the memory of whole pages back. The addresses stay reserved and read as zeros. */
void rws__pages_give_back(void *pages, size_t bytes);

#endif
