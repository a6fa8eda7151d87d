/* Memory straight from the kernel: zeroed pages that cost nothing before they are touched. */
#ifndef RINGWS_BASE_PAGES_H
#define RINGWS_BASE_PAGES_H

#include <stddef.h>

/* `bytes` of readable and writable pages, or NULL. */
void *rws__pages_reserve(size_t bytes);

/* `pages` may be NULL; `bytes` is what was asked for. */
void rws__pages_release(void *pages, size_t bytes);

#endif
