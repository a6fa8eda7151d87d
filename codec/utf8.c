/*
 * UTF-8 by the grammar of RFC 3629, section 4, and the entry points, which go to the implementation
 * that fits the machine (mask.h).
 */
#include "codec/utf8.h"

#include <string.h>

#include "codec/mask_impl.h"
#include "codec/utf8_scalar.h"

/* What each state but the start wants: a byte from `first` to `last`, and then the state `next`. */
typedef struct utf8_wants {
    uint8_t first;
    uint8_t last;
    uint8_t next;
} utf8_wants;

static const utf8_wants utf8_tails[] = {
    [RWS__UTF8_TAIL1] = {0x80, 0xBF, RWS__UTF8_START},
    [RWS__UTF8_TAIL2] = {0x80, 0xBF, RWS__UTF8_TAIL1},
    [RWS__UTF8_TAIL3] = {0x80, 0xBF, RWS__UTF8_TAIL2},
    [RWS__UTF8_AFTER_E0] = {0xA0, 0xBF, RWS__UTF8_TAIL1},
    [RWS__UTF8_AFTER_ED] = {0x80, 0x9F, RWS__UTF8_TAIL1},
    [RWS__UTF8_AFTER_F0] = {0x90, 0xBF, RWS__UTF8_TAIL2},
    [RWS__UTF8_AFTER_F4] = {0x80, 0x8F, RWS__UTF8_TAIL2},
    /* Nothing is both at least 0xFF and at most 0. */
    [RWS__UTF8_REJECTED] = {0xFF, 0x00, RWS__UTF8_REJECTED},
};

static uint8_t first_byte(uint8_t byte)
{
    if (byte < 0x80) return RWS__UTF8_START;
    if (byte < 0xC2) return RWS__UTF8_REJECTED; /* a tail, or an overlong form of two bytes */
    if (byte < 0xE0) return RWS__UTF8_TAIL1;
    if (byte == 0xE0) return RWS__UTF8_AFTER_E0;
    if (byte == 0xED) return RWS__UTF8_AFTER_ED;
    if (byte < 0xF0) return RWS__UTF8_TAIL2;
    if (byte == 0xF0) return RWS__UTF8_AFTER_F0;
    if (byte < 0xF4) return RWS__UTF8_TAIL3;
    if (byte == 0xF4) return RWS__UTF8_AFTER_F4;
    return RWS__UTF8_REJECTED;
}

static uint8_t next_state(uint8_t state, uint8_t byte)
{
    if (state == RWS__UTF8_START) return first_byte(byte);
    const utf8_wants *wants = &utf8_tails[state];
    return byte >= wants->first && byte <= wants->last ? wants->next : RWS__UTF8_REJECTED;
}

size_t rws__utf8_bytewise(rws__utf8 *utf8, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        utf8->state = next_state(utf8->state, data[i]);
        if (utf8->state == RWS__UTF8_REJECTED) return i;
    }
    return len;
}

size_t rws__utf8_scalar64(rws__utf8 *utf8, const uint8_t *data, size_t len)
{
    uint8_t state = utf8->state;
    size_t i = 0;
    while (i < len) {
        uint64_t word;
        if (state == RWS__UTF8_START && len - i >= sizeof word) {
            memcpy(&word, data + i, sizeof word);
            if ((word & 0x8080808080808080u) == 0) {
                i += sizeof word;
                continue;
            }
        }
        state = next_state(state, data[i]);
        if (state == RWS__UTF8_REJECTED) break;
        i++;
    }
    utf8->state = state;
    return i;
}

size_t rws__utf8_tails(const rws__utf8 *utf8, size_t len)
{
    static const uint8_t tails[] = {
        [RWS__UTF8_START] = 0,    [RWS__UTF8_TAIL1] = 1,    [RWS__UTF8_TAIL2] = 2,
        [RWS__UTF8_TAIL3] = 3,    [RWS__UTF8_AFTER_E0] = 2, [RWS__UTF8_AFTER_ED] = 2,
        [RWS__UTF8_AFTER_F0] = 3, [RWS__UTF8_AFTER_F4] = 3, [RWS__UTF8_REJECTED] = 1,
    };
    return len < tails[utf8->state] ? len : tails[utf8->state];
}

size_t rws__utf8_from_lead(rws__utf8 *utf8, const uint8_t *data, size_t at, size_t len)
{
    /* A character that reaches over `at` starts with one of the three bytes before it. If there is
     * none, or one that starts a finished character, that is as good a place to begin. */
    size_t from = at;
    for (size_t back = 1; back <= 3 && back <= at; back++) {
        if (data[at - back] < 0xC0) continue;
        from = at - back;
        break;
    }
    utf8->state = RWS__UTF8_START;
    return from + rws__utf8_bytewise(utf8, data + from, len - from);
}

size_t rws__utf8_check(rws__utf8 *utf8, const uint8_t *data, size_t len)
{
    return rws__mask_best.utf8(utf8, data, len);
}

bool rws__utf8_is_complete(const rws__utf8 *utf8)
{
    return utf8->state == RWS__UTF8_START;
}

bool rws__utf8_is_valid(const uint8_t *data, size_t len)
{
    rws__utf8 utf8 = {RWS__UTF8_START};
    return rws__utf8_check(&utf8, data, len) == len && rws__utf8_is_complete(&utf8);
}
