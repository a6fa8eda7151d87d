/* Pages: no huge ones, and what is given back reads as zeros. */
#include <criterion/criterion.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/pages.h"
#include "engine/base/payload.h"
#include "engine/ring/ring.h"
#include "support/engine_server.h"

#define HUGE ((size_t)2 << 20)

static bool has_huge_pages(void)
{
    return access("/sys/kernel/mm/transparent_hugepage/enabled", F_OK) == 0;
}

/* Whether the mapping that holds `address` has the flag: "nh" is MADV_NOHUGEPAGE. */
static bool has_flag(const void *address, const char *flag)
{
    FILE *file = fopen("/proc/self/smaps", "re");
    cr_assert_not_null(file);
    static char line[4096];
    uintptr_t begin, end, at = (uintptr_t)address;
    bool inside = false, found = false;
    while (fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "%lx-%lx ", &begin, &end) == 2) inside = at >= begin && at < end;
        if (!inside || strncmp(line, "VmFlags:", 8) != 0) continue;
        for (char *save, *word = strtok_r(line + 8, " \n", &save); word != NULL;
             word = strtok_r(NULL, " \n", &save))
            found = found || strcmp(word, flag) == 0;
    }
    fclose(file);
    return found;
}

Test(engine_pages, has_the_systems_page_size)
{
    size_t bytes = rws__page_bytes();
    cr_assert_eq(bytes, (size_t)sysconf(_SC_PAGESIZE));
    cr_assert_geq(bytes, 4096);
    cr_assert_eq(bytes & (bytes - 1), 0);
}

Test(engine_pages, are_never_huge)
{
    if (!has_huge_pages()) cr_skip_test("this kernel has no transparent huge pages");
    uint8_t *pages = rws__pages_reserve(4 * HUGE);
    cr_assert_not_null(pages);
    cr_expect(has_flag(pages, "nh"));
    cr_expect(has_flag(pages + 4 * HUGE - 1, "nh"));
    rws__pages_release(pages, 4 * HUGE);
    static int not_mine;
    cr_expect_not(has_flag(&not_mine, "nh"), "the flag is read wrongly");
}

/* What is touched sparsely: the ranges of the slabs, and their tags. */
Test(engine_pages, are_never_huge_in_pools)
{
    if (!has_huge_pages()) cr_skip_test("this kernel has no transparent huge pages");
    rws__pool pool;
    cr_assert_eq(rws__pool_init(&pool, (size_t)64 << 20), 0);
    cr_expect(has_flag(pool.slab.base, "nh"));
    cr_expect(has_flag(pool.slab.base + pool.slab.bytes - 1, "nh"));
    cr_expect(has_flag(pool.slab.tags, "nh"));
    rws__pool_deinit(&pool);
}

/* One byte in each of 64 huge pages makes 64 pages resident, also where the system's setting is
 * "always". */
Test(engine_pages, cost_what_is_touched)
{
    if (!MEMORY_IS_MEASURABLE) cr_skip_test("a sanitizer measures its own memory");
    uint8_t *pages = rws__pages_reserve(64 * HUGE);
    cr_assert_not_null(pages);
    size_t before = test_resident_bytes();
    for (size_t i = 0; i < 64; i++)
        pages[i * HUGE] = 1;
    size_t grown = test_resident_bytes() - before;
    cr_expect_lt(grown, 64 * rws__page_bytes() + (1u << 20), "%zu KiB", grown >> 10);
    rws__pages_release(pages, 64 * HUGE);
}

Test(engine_pages, read_as_zeros_when_they_were_given_back)
{
    size_t page = rws__page_bytes();
    uint8_t *pages = rws__pages_reserve(4 * page);
    cr_assert_not_null(pages);
    memset(pages, 7, 4 * page);
    rws__pages_give_back(pages + page, 2 * page);
    for (size_t i = 0; i < 4 * page; i++)
        cr_assert_eq(pages[i], i < page || i >= 3 * page ? 7 : 0, "byte %zu", i);
    rws__pages_release(pages, 4 * page);
    rws__pages_release(NULL, 0);
}
