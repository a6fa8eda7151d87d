/*
 * UTF-8 validation, alone and fused with unmasking in place. ASCII is compared with memcpy, other
 * text with an automaton that takes a byte at a time; where it is fused the automaton is preceded
 * by a loop that unmasks. The masking key is 0, so that the text stays what it is and can be
 * unmasked again: no implementation looks at the key's value.
 */
#include "micro.h"

#include <stdlib.h>
#include <string.h>

#include "codec/mask.h"
#include "dfa.h"
#include "texts.h"
#include "tools/payload.h"

typedef struct text_context {
    const rws__mask_impl *impl; /* NULL: the floor */
    const struct texts *texts, *copy;
} text_context;

/* Each returns the number of bytes that are valid text. */

static uint64_t run_memcpy(void *context, size_t calls)
{
    const text_context *c = context;
    for (size_t i = 0; i < calls; i++) {
        for (size_t j = 0; j < c->texts->count; j++)
            memcpy(texts_at(c->copy, j), texts_at(c->texts, j), c->texts->len);
        race_touch(c->copy->first);
    }
    return c->texts->count * c->texts->len * calls;
}

static uint64_t run_dfa(void *context, size_t calls)
{
    const text_context *c = context;
    uint64_t good = 0;
    for (size_t i = 0; i < calls; i++) {
        for (size_t j = 0; j < c->texts->count; j++)
            if (dfa_is_utf8(texts_at(c->texts, j), c->texts->len)) good += c->texts->len;
        race_touch(c->texts->first);
    }
    return good;
}

static uint64_t run_unmask_dfa(void *context, size_t calls)
{
    const text_context *c = context;
    uint64_t good = 0;
    for (size_t i = 0; i < calls; i++) {
        for (size_t j = 0; j < c->texts->count; j++) {
            uint8_t *text = texts_at(c->texts, j);
            const uint8_t *key = text - 4; /* zeros */
            for (size_t k = 0; k < c->texts->len; k++)
                text[k] ^= key[k % 4];
            if (dfa_is_utf8(text, c->texts->len)) good += c->texts->len;
        }
        race_touch(c->texts->first);
    }
    return good;
}

static uint64_t run_utf8(void *context, size_t calls)
{
    const text_context *c = context;
    uint64_t good = 0;
    for (size_t i = 0; i < calls; i++) {
        for (size_t j = 0; j < c->texts->count; j++) {
            rws__utf8 utf8 = {0};
            good += c->impl->utf8(&utf8, texts_at(c->texts, j), c->texts->len);
            if (!rws__utf8_is_complete(&utf8)) return 0;
        }
        race_touch(c->texts->first);
    }
    return good;
}

static uint64_t run_fused(void *context, size_t calls)
{
    const text_context *c = context;
    uint64_t good = 0;
    for (size_t i = 0; i < calls; i++) {
        for (size_t j = 0; j < c->texts->count; j++) {
            uint8_t *text = texts_at(c->texts, j);
            if (c->impl->unmask_text(text, c->texts->len, 0)) good += c->texts->len;
        }
        race_touch(c->texts->first);
    }
    return good;
}

typedef struct text_kind {
    const char *name;
    void (*fill)(uint8_t *text, size_t len);
    bool against_memcpy;
    double bar;
} text_kind;

static void fill_ascii(uint8_t *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        text[i] = (uint8_t)(' ' + i * 7 % 95);
}

/* What `ringws load --text` sends: nine characters of ten are ASCII. */
static void fill_mixed(uint8_t *text, size_t len)
{
    payload made;
    if (payload_init(&made, len, true, 1) != 0) abort();
    memcpy(text, payload_begin(&made, 0, 0), len);
    payload_free(&made);
}

/* No ASCII, and every change between characters of two, three and four bytes (nine bytes, so that
 * they pass all places of a vector). What is left at the end is ASCII. */
static void fill_worst(uint8_t *text, size_t len)
{
    static const char three[] = "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80";
    const size_t step = sizeof three - 1;
    size_t at = 0;
    for (; len - at >= step; at += step)
        memcpy(text + at, three, step);
    memset(text + at, '.', len - at);
}

static const text_kind kinds[] = {
    {"ascii", fill_ascii, true, 0.5},
    {"mixed", fill_mixed, false, 5},
    {"worst", fill_worst, false, 0},
};

static void race_text(const race_options *options, race_totals *totals, const text_kind *kind,
                      size_t len, bool fused)
{
    uint8_t *text = malloc(len);
    if (text == NULL) abort();
    kind->fill(text, len);
    texts all = texts_make(text, len), copy = texts_make(text, len);

    text_context contexts[RACE_CONTESTANTS_MAX];
    contexts[0] = (text_context){NULL, &all, &copy};
    race_setup race = {.benchmark = fused ? "unmask_utf8" : "utf8",
                       .input = kind->name,
                       .size_bytes = len,
                       .item = "call",
                       .items = all.count,
                       .bar = len == MICRO_BAR_BYTES ? kind->bar : 0};
    race_run *dfa = fused ? run_unmask_dfa : run_dfa;
    race_add(&race, (race_contestant){.name = kind->against_memcpy ? "memcpy" : "scalar_dfa",
                                      .run = kind->against_memcpy ? run_memcpy : dfa,
                                      .context = &contexts[0],
                                      .result = all.count * len});
    size_t count;
    const rws__mask_impl *const *impls = rws__mask_impls(&count);
    for (size_t i = 0; i < count; i++) {
        contexts[i + 1] = (text_context){impls[i], &all, &copy};
        race_add(&race, (race_contestant){.name = impls[i]->name,
                                          .run = fused ? run_fused : run_utf8,
                                          .context = &contexts[i + 1],
                                          .result = all.count * len});
    }
    race_start(&race, options, totals);
    texts_free(&all);
    texts_free(&copy);
    free(text);
}

void micro_utf8(const race_options *options, race_totals *totals)
{
    for (int fused = 0; fused < 2; fused++) {
        for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
            for (const size_t *size = micro_sizes(options); *size != 0; size++)
                race_text(options, totals, &kinds[i], *size, fused != 0);
        }
    }
}
