/* The slab against a plain model: what is given out never overlaps, is aligned, and comes back. */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/slab.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* What a block of `bytes` takes. */
static size_t class_of(size_t bytes)
{
    size_t class = 256;
    while (class < bytes)
        class *= 2;
    return class;
}

Test(engine_slab, gives_blocks_of_the_next_power_of_two)
{
    static const size_t sizes[] = {0, 1, 255, 256, 257, 511, 512, 513, 4096, 4097, 65536, 1 << 20};
    rws__slab slab;
    cr_assert_eq(rws__slab_init(&slab, 1u << 22), 0);
    for (size_t i = 0; i < COUNT(sizes); i++) {
        void *block = rws__slab_take(&slab, sizes[i]);
        cr_assert_not_null(block);
        cr_assert_eq(rws__slab_block_bytes(&slab, block), class_of(sizes[i]));
        cr_assert_eq(slab.used_bytes, class_of(sizes[i]));
        cr_assert_eq((size_t)((uint8_t *)block - slab.base) % class_of(sizes[i]), 0);
        memset(block, 0xaa, class_of(sizes[i]));
        rws__slab_give(&slab, block);
        cr_assert_eq(slab.used_bytes, 0);
    }
    rws__slab_deinit(&slab);
}

Test(engine_slab, rounds_its_range_up_and_refuses_what_can_not_be)
{
    rws__slab slab;
    cr_assert_eq(rws__slab_init(&slab, 1000), 0);
    cr_assert_eq(slab.bytes, 1024);
    cr_assert_null(rws__slab_take(&slab, 1025));
    void *all = rws__slab_take(&slab, 1024);
    cr_assert_not_null(all);
    cr_assert_null(rws__slab_take(&slab, 1));
    rws__slab_give(&slab, all);
    cr_assert_null(rws__slab_take(&slab, (size_t)1 << 50));
    rws__slab_deinit(&slab);
    rws__slab_deinit(&slab); /* a second time does nothing */
    cr_assert_eq(rws__slab_init(&slab, ((size_t)1 << RWS__SLAB_ORDER_MAX) + 1), -ENOMEM);
}

/* Whatever sizes were kept warm before, the whole range is there for another size. */
Test(engine_slab, can_give_everything_in_any_size_after_any_other)
{
    static const size_t sizes[] = {256, 512, 4096, 65536, 1u << 20, 1u << 24};
    enum { BYTES = 1u << 24 };
    rws__slab slab;
    cr_assert_eq(rws__slab_init(&slab, BYTES), 0);
    static void *blocks[BYTES / 256];
    for (size_t i = 0; i < 2 * COUNT(sizes); i++) {
        size_t size = sizes[i < COUNT(sizes) ? i : 2 * COUNT(sizes) - 1 - i], count = BYTES / size;
        for (size_t n = 0; n < count; n++) {
            blocks[n] = rws__slab_take(&slab, size);
            cr_assert_not_null(blocks[n], "block %zu of %zu bytes", n, size);
        }
        cr_assert_null(rws__slab_take(&slab, 256), "all is in use");
        cr_assert_eq(slab.used_bytes, BYTES);
        for (size_t n = 0; n < count; n++)
            rws__slab_give(&slab, blocks[n]);
        cr_assert_eq(slab.used_bytes, 0);
    }
    rws__slab_deinit(&slab);
}

Test(engine_slab, gives_the_block_that_came_back_last)
{
    rws__slab slab;
    cr_assert_eq(rws__slab_init(&slab, 1u << 20), 0);
    void *a = rws__slab_take(&slab, 1000), *b = rws__slab_take(&slab, 1000);
    rws__slab_give(&slab, a);
    rws__slab_give(&slab, b);
    cr_assert_eq(rws__slab_take(&slab, 1024), b);
    cr_assert_eq(rws__slab_take(&slab, 600), a);
    rws__slab_deinit(&slab);
}

Test(engine_slab, gives_the_pages_of_large_blocks_back)
{
    rws__slab slab;
    cr_assert_eq(rws__slab_init(&slab, 1u << 27), 0);
    void *blocks[8];
    for (int i = 0; i < 8; i++) { /* of 16 MiB: 64 MiB may stay warm */
        blocks[i] = rws__slab_take(&slab, 1u << 24);
        cr_assert_not_null(blocks[i]);
        memset(blocks[i], 1, 1u << 24);
    }
    for (int i = 0; i < 8; i++)
        rws__slab_give(&slab, blocks[i]);
    unsigned dirty = 0;
    for (int i = 0; i < 8; i++)
        dirty += ((uint8_t *)blocks[i])[1u << 20];
    cr_assert_leq(dirty, 4, "%u of 8 blocks still have their pages", dirty);
    rws__slab_deinit(&slab);
}

/* Pages of the range from `begin` to `end` that have memory. */
static size_t pages_touched(const rws__slab *slab, size_t begin, size_t end)
{
    static unsigned char touched[4096];
    size_t page = (size_t)sysconf(_SC_PAGESIZE), count = (end - begin) / page, sum = 0;
    cr_assert_leq(count, sizeof touched);
    cr_assert_eq(mincore(slab->base + begin, end - begin, touched), 0, "%s", strerror(errno));
    for (size_t i = 0; i < count; i++)
        sum += touched[i] & 1;
    return sum;
}

/* A free half holds links: in a range of 16 MiB one page in each of four that a server with few
 * messages never needs. */
Test(engine_slab, uses_the_first_mib_before_the_rest)
{
    enum { BYTES = 1u << 24, FIRST = 1u << 20, BLOCK = 4096, BLOCKS = FIRST / BLOCK };
    rws__slab slab;
    cr_assert_eq(rws__slab_init(&slab, BYTES), 0);
    static void *blocks[BLOCKS + 1];
    for (int twice = 0; twice < 2; twice++) {
        for (size_t n = 0; n < BLOCKS; n++) {
            blocks[n] = rws__slab_take(&slab, BLOCK);
            cr_assert_not_null(blocks[n]);
            cr_assert_lt((uint8_t *)blocks[n], slab.base + FIRST, "block %zu", n);
            memset(blocks[n], 1, BLOCK);
        }
        cr_assert_eq(pages_touched(&slab, FIRST, BYTES), 0, "the rest is not touched");
        for (size_t n = 0; twice == 0 && n < BLOCKS; n++)
            rws__slab_give(&slab, blocks[n]);
    }
    blocks[BLOCKS] = rws__slab_take(&slab, BLOCK);
    cr_assert_geq((uint8_t *)blocks[BLOCKS], slab.base + FIRST, "then the rest is used");
    for (size_t n = 0; n <= BLOCKS; n++)
        rws__slab_give(&slab, blocks[n]);
    cr_assert_eq(rws__slab_take(&slab, BYTES), slab.base, "all of it");
    rws__slab_deinit(&slab);
}

/* With an eighth of the range in use, what is freed gives its pages back, however small. */
Test(engine_slab, keeps_no_pages_when_much_is_used)
{
    static const size_t sizes[] = {8192, 65536, 1u << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        rws__slab slab;
        cr_assert_eq(rws__slab_init(&slab, 1u << 27), 0);
        cr_assert_not_null(rws__slab_take(&slab, 1u << 24));
        cr_assert_not_null(rws__slab_take(&slab, 256));
        uint8_t *block = rws__slab_take(&slab, sizes[i]);
        cr_assert_not_null(block);
        memset(block, 1, sizes[i]);
        rws__slab_give(&slab, block);
        cr_assert_eq(block[sizes[i] - 1], 0, "%zu bytes", sizes[i]);
        rws__slab_deinit(&slab);
    }
}

/* ---- pages ---- */

static const size_t page_sizes[] = {4096, 16384, 65536};

/* A slab for pages of `page` bytes, or false where the system's own are larger. */
static bool init_paged(rws__slab *slab, size_t bytes, size_t page)
{
    if (page < (size_t)sysconf(_SC_PAGESIZE)) return false;
    cr_assert_eq(rws__slab_init_paged(slab, bytes, page), 0);
    cr_assert_eq(slab->page_bytes, page);
    return true;
}

/* Writes down what is given back, and gives it back. */
typedef struct recorder {
    rws__page_returner returner;
    const rws__slab *slab;
    size_t bytes;
} recorder;

static void record(rws__page_returner *self, void *pages, size_t bytes)
{
    recorder *r = (recorder *)self;
    size_t offset = (size_t)((uint8_t *)pages - r->slab->base), page = r->slab->page_bytes;
    cr_assert_eq(offset % page, 0, "%zu is no page of %zu bytes", offset, page);
    cr_assert(bytes > 0 && bytes % page == 0, "%zu bytes are no pages of %zu", bytes, page);
    cr_assert_leq(offset + bytes, r->slab->bytes);
    r->bytes += bytes;
    memset(pages, 0, bytes); /* as the kernel does, of any page size */
}

/* A large free block keeps its first page, whatever a page is. */
Test(engine_slab, gives_whole_pages_of_any_size_back)
{
    for (size_t i = 0; i < COUNT(page_sizes); i++) {
        enum { USED = 1u << 24 };
        size_t page = page_sizes[i];
        rws__slab slab;
        if (!init_paged(&slab, 1u << 27, page)) continue;
        recorder r = {{record}, &slab, 0};
        slab.returner = &r.returner;
        cr_assert_not_null(rws__slab_take(&slab, USED)); /* nothing is kept warm beside it */
        cr_assert_not_null(rws__slab_take(&slab, 256));
        for (size_t bytes = 256; bytes <= 1u << 20; bytes *= 2) {
            uint8_t *block = rws__slab_take(&slab, bytes), *keep = rws__slab_take(&slab, bytes);
            cr_assert(block != NULL && keep != NULL);
            memset(block, 1, bytes);
            size_t before = r.bytes;
            rws__slab_give(&slab, block); /* its buddy is in use or is smaller */
            size_t expected = bytes > page ? bytes - page : 0;
            cr_expect_geq(r.bytes - before, expected, "a block of %zu, a page of %zu", bytes, page);
            if (bytes > page) cr_expect_eq(block[bytes - 1], 0);
            rws__slab_give(&slab, keep);
        }
        rws__slab_deinit(&slab);
    }
}

/* Blocks of a page and less merge to larger ones: all of that but its first page is given back. */
Test(engine_slab, gives_the_pages_of_small_blocks_back)
{
    enum { BYTES = 1u << 20 };
    static uint8_t *blocks[BYTES / 256];
    for (size_t i = 0; i < COUNT(page_sizes); i++) {
        for (size_t size = 256; size <= 4 * page_sizes[i]; size *= 2) {
            rws__slab slab;
            if (!init_paged(&slab, BYTES, page_sizes[i])) continue;
            for (size_t n = 0; n < BYTES / size; n++) {
                blocks[n] = rws__slab_take(&slab, size);
                cr_assert_not_null(blocks[n]);
                memset(blocks[n], 1, size);
            }
            for (size_t n = 0; n < BYTES / size; n++)
                rws__slab_give(&slab, blocks[n]);
            cr_assert_eq(rws__slab_take(&slab, BYTES), slab.base, "all is merged");
            for (size_t at = slab.page_bytes; at < BYTES; at += slab.page_bytes)
                cr_assert_eq(slab.base[at + 64], 0, "blocks of %zu, pages of %zu: at %zu", size,
                             slab.page_bytes, at);
            rws__slab_deinit(&slab);
        }
    }
}

/* A random walk: no byte of a block in use is ever given back. */
Test(engine_slab, gives_nothing_back_that_is_in_use)
{
    srand(7);
    for (size_t i = 0; i < COUNT(page_sizes); i++) {
        enum { COUNT_MAX = 200 };
        struct {
            uint8_t *data;
            size_t bytes;
        } held[COUNT_MAX] = {0};
        rws__slab slab;
        if (!init_paged(&slab, 1u << 22, page_sizes[i])) continue;
        recorder r = {{record}, &slab, 0};
        slab.returner = &r.returner;
        for (int step = 0; step < 20000; step++) {
            size_t n = (size_t)rand() % COUNT_MAX;
            if (held[n].data != NULL) {
                for (size_t at = 0; at < held[n].bytes; at += 199)
                    cr_assert_eq(held[n].data[at], (uint8_t)(n + 1), "it was given back");
                rws__slab_give(&slab, held[n].data);
                held[n].data = NULL;
            } else {
                held[n].bytes = 256 + (size_t)rand() % ((size_t)1 << (8 + rand() % 11));
                held[n].data = rws__slab_take(&slab, held[n].bytes);
                if (held[n].data != NULL) memset(held[n].data, (int)(n + 1), held[n].bytes);
            }
            /* What a returner that waited does later. */
            size_t begin = (size_t)rand() % 4 << 20;
            if (step % 16 == 0) rws__slab_give_back_free(&slab, begin, begin + (1u << 20));
        }
        cr_expect_gt(r.bytes, 0);
        rws__slab_deinit(&slab);
    }
}

/* All free pages of a part of the range, whatever blocks they belong to. */
Test(engine_slab, gives_the_free_pages_of_a_part_back)
{
    enum { PART = 1u << 17, BYTES = 1u << 20 };
    for (size_t i = 0; i < COUNT(page_sizes); i++) {
        rws__slab slab;
        size_t page = page_sizes[i];
        if (!init_paged(&slab, BYTES, page)) continue;
        size_t used = 2 * page;
        cr_assert_eq(rws__slab_take(&slab, used), slab.base); /* the rest is free, in halves */
        for (size_t at = 0; at < BYTES; at += page)
            slab.base[at + 64] = 1;
        for (size_t end = PART; end <= BYTES; end += PART) {
            rws__slab_give_back_free(&slab, end - PART, end);
            for (size_t at = 0; at < BYTES; at += page) {
                bool has_links = slab.tags[at / 256] != 0;
                bool is_left = at < used || has_links || at >= end;
                cr_assert_eq(slab.base[at + 64], is_left, "page %zu of %zu bytes, up to %zu",
                             at / page, page, end);
            }
        }
        rws__slab_give_back_free(&slab, 0, BYTES);
        rws__slab_deinit(&slab);
    }
}

/* Beyond the first MiB nothing is free yet, and nothing is looked at. */
Test(engine_slab, gives_nothing_back_of_what_was_never_used)
{
    rws__slab slab;
    cr_assert_eq(rws__slab_init(&slab, 1u << 24), 0);
    rws__slab_give_back_free(&slab, 1u << 22, 1u << 23);
    cr_assert_eq(pages_touched(&slab, 1u << 20, 1u << 24), 0);
    cr_assert_not_null(rws__slab_take(&slab, 1u << 23));
    rws__slab_give_back_free(&slab, 0, 1u << 24);
    rws__slab_deinit(&slab);
}

/* ---- owners ---- */

typedef struct owned {
    uint8_t *data;
    size_t bytes;
    uint8_t mark;
} owned;

static void check_mark(const owned *block)
{
    for (size_t i = 0; i < block->bytes; i += 61)
        cr_assert_eq(block->data[i], block->mark, "a block was written by another owner");
    cr_assert_eq(block->data[block->bytes - 1], block->mark);
}

/* A random walk; every block is filled with a mark of its own. */
Test(engine_slab, keeps_random_owners_apart)
{
    unsigned seed = (unsigned)time(NULL);
    cr_log_info("seed %u", seed);
    srand(seed);
    enum { OWNERS = 400, BYTES = 1u << 21 };
    rws__slab slab;
    cr_assert_eq(rws__slab_init(&slab, BYTES), 0);
    static owned owners[OWNERS];
    size_t used = 0;
    unsigned refused = 0;
    for (int step = 0; step < 60000; step++) {
        owned *owner = &owners[rand() % OWNERS];
        if (owner->data != NULL) {
            check_mark(owner);
            rws__slab_give(&slab, owner->data);
            used -= class_of(owner->bytes);
            owner->data = NULL;
        } else {
            size_t bytes = 1 + (size_t)rand() % ((size_t)1 << (rand() % 17));
            owner->data = rws__slab_take(&slab, bytes);
            if (owner->data == NULL) {
                refused++;
                continue;
            }
            owner->bytes = bytes;
            owner->mark = (uint8_t)rand();
            memset(owner->data, owner->mark, bytes);
            used += class_of(bytes);
        }
        cr_assert_eq(slab.used_bytes, used, "seed %u", seed);
        cr_assert_leq(used, BYTES);
    }
    for (int i = 0; i < OWNERS; i++)
        if (owners[i].data != NULL) rws__slab_give(&slab, owners[i].data);
    cr_assert_eq(slab.used_bytes, 0);
    cr_assert_not_null(rws__slab_take(&slab, BYTES), "everything merges again (%u refused)",
                       refused);
    rws__slab_deinit(&slab);
}

static void give_twice(void)
{
    rws__slab slab;
    if (rws__slab_init(&slab, 65536) != 0) return;
    void *block = rws__slab_take(&slab, 256);
    rws__slab_give(&slab, block);
    rws__slab_give(&slab, block);
}

#ifndef RINGWS_COVERAGE /* asserts are assumed there */
Test(engine_slab, asserts_that_a_block_is_given_back_once, .signal = 6)
{
    give_twice();
}
#endif
