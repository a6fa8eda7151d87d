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
    (void)madvise(slab.base, BYTES, MADV_NOHUGEPAGE); /* -EINVAL where there are none */
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

Test(engine_slab, asserts_that_a_block_is_given_back_once, .signal = 6)
{
    give_twice();
}
