/*
 * Masking against memcpy, which moves the same bytes: from one buffer to another, and in place,
 * where memcpy still has two buffers and so is a floor that masking can be under.
 */
#include "micro.h"

#include <stdlib.h>
#include <string.h>

#include "codec/mask.h"
#include "texts.h"

static const uint32_t mask_key = 0x9D2C5680;

typedef struct mask_context {
    const rws__mask_impl *impl; /* NULL: memcpy */
    const texts *dst, *src;
    const uint8_t *expected;
} mask_context;

static uint64_t run_memcpy(void *context, size_t calls)
{
    const mask_context *c = context;
    for (size_t i = 0; i < calls; i++) {
        for (size_t j = 0; j < c->dst->count; j++)
            memcpy(texts_at(c->dst, j), texts_at(c->src, j), c->dst->len);
        race_touch(c->dst->first);
    }
    return 0;
}

/* The lengths are multiples of four, so that the key comes back as it was. */
static uint64_t run_mask(void *context, size_t calls)
{
    const mask_context *c = context;
    uint32_t changed = 0;
    for (size_t i = 0; i < calls; i++) {
        for (size_t j = 0; j < c->dst->count; j++)
            changed |= mask_key ^ c->impl->mask(texts_at(c->dst, j), texts_at(c->src, j),
                                                c->dst->len, mask_key);
        race_touch(c->dst->first);
    }
    return changed;
}

/* A call is two, so that the bytes are what they were. */
static uint64_t run_twice(void *context, size_t calls)
{
    const mask_context *c = context;
    return c->impl == NULL ? run_memcpy(context, 2 * calls) : run_mask(context, 2 * calls);
}

static bool check(void *context)
{
    const mask_context *c = context;
    for (size_t j = 0; j < c->dst->count; j++)
        if (memcmp(texts_at(c->dst, j), c->expected, c->dst->len) != 0) return false;
    return true;
}

static void race_mask(const race_options *options, race_totals *totals, size_t len, bool in_place)
{
    uint8_t *plain = malloc(len), *masked = malloc(len);
    if (plain == NULL || masked == NULL) abort();
    for (size_t i = 0; i < len; i++)
        plain[i] = (uint8_t)(i * 31 + i / 251);
    size_t count;
    const rws__mask_impl *const *impls = rws__mask_impls(&count);
    impls[count - 1]->mask(masked, plain, len, mask_key);
    texts src = texts_make(plain, len), dst = texts_make(plain, len);

    mask_context contexts[RACE_CONTESTANTS_MAX];
    contexts[0] = (mask_context){NULL, &dst, &src, plain};
    race_setup race = {.benchmark = in_place ? "mask_in_place" : "mask_copy",
                       .input = "bytes",
                       .size_bytes = len,
                       .item = "call",
                       .items = in_place ? 2 * dst.count : dst.count,
                       .bar = len == MICRO_BAR_BYTES ? 0.8 : 0};
    race_add(&race, (race_contestant){.name = "memcpy",
                                      .run = in_place ? run_twice : run_memcpy,
                                      .context = &contexts[0],
                                      .check = check});
    for (size_t i = 0; i < count; i++) {
        contexts[i + 1] =
            (mask_context){impls[i], &dst, in_place ? &dst : &src, in_place ? plain : masked};
        race_add(&race, (race_contestant){.name = impls[i]->name,
                                          .run = in_place ? run_twice : run_mask,
                                          .context = &contexts[i + 1],
                                          .check = check});
    }
    race_start(&race, options, totals);
    texts_free(&src);
    texts_free(&dst);
    free(plain);
    free(masked);
}

void micro_mask(const race_options *options, race_totals *totals)
{
    for (int in_place = 0; in_place < 2; in_place++) {
        for (const size_t *size = micro_sizes(options); *size != 0; size++)
            race_mask(options, totals, *size, in_place != 0);
    }
}
