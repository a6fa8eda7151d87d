#include "engine/base/pages.h"

#include <sys/mman.h>
#include <unistd.h>

size_t rws__page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

void *rws__pages_reserve(size_t bytes)
{
    void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED) return NULL;
    /* -EINVAL from a kernel that has no huge pages. */
    (void)madvise(pages, bytes, MADV_NOHUGEPAGE);
    return pages;
}

void rws__pages_release(void *pages, size_t bytes)
{
    if (pages != NULL) munmap(pages, bytes);
}

void rws__pages_give_back(void *pages, size_t bytes)
{
    (void)madvise(pages, bytes, MADV_DONTNEED);
}
