#include "dfa.h"

/* Bytes that no state tells apart. */
enum {
    ASCII,
    TAIL_8,
    TAIL_9,
    TAIL_AB,
    LEAD_2,
    LEAD_E0,
    LEAD_3,
    LEAD_ED,
    LEAD_F0,
    LEAD_4,
    LEAD_F4,
    NONE
};

/* States, sixteen apart, so that state + class is the index of the next one. From BAD, 0, every
 * class leads back to it. */
enum {
    BAD = 0,
    START = 16,
    TAILS_1 = 32,
    TAILS_2 = 48,
    TAILS_3 = 64,
    AFTER_E0 = 80,
    AFTER_ED = 96,
    AFTER_F0 = 112,
    AFTER_F4 = 128,
    STATES_END = 144,
};

static const uint8_t class_of[256] = {
    [0x00 ... 0x7F] = ASCII,   [0x80 ... 0x8F] = TAIL_8, [0x90 ... 0x9F] = TAIL_9,
    [0xA0 ... 0xBF] = TAIL_AB, [0xC0 ... 0xC1] = NONE,   [0xC2 ... 0xDF] = LEAD_2,
    [0xE0] = LEAD_E0,          [0xE1 ... 0xEC] = LEAD_3, [0xED] = LEAD_ED,
    [0xEE ... 0xEF] = LEAD_3,  [0xF0] = LEAD_F0,         [0xF1 ... 0xF3] = LEAD_4,
    [0xF4] = LEAD_F4,          [0xF5 ... 0xFF] = NONE,
};

static const uint8_t next[STATES_END] = {
    [START + ASCII] = START,
    [START + LEAD_2] = TAILS_1,
    [START + LEAD_E0] = AFTER_E0,
    [START + LEAD_3] = TAILS_2,
    [START + LEAD_ED] = AFTER_ED,
    [START + LEAD_F0] = AFTER_F0,
    [START + LEAD_4] = TAILS_3,
    [START + LEAD_F4] = AFTER_F4,
    [TAILS_1 + TAIL_8... TAILS_1 + TAIL_AB] = START,
    [TAILS_2 + TAIL_8... TAILS_2 + TAIL_AB] = TAILS_1,
    [TAILS_3 + TAIL_8... TAILS_3 + TAIL_AB] = TAILS_2,
    [AFTER_E0 + TAIL_AB] = TAILS_1,
    [AFTER_ED + TAIL_8... AFTER_ED + TAIL_9] = TAILS_1,
    [AFTER_F0 + TAIL_9... AFTER_F0 + TAIL_AB] = TAILS_2,
    [AFTER_F4 + TAIL_8] = TAILS_2,
};

bool dfa_is_utf8(const uint8_t *data, size_t len)
{
    /* The chain of states is all the time it takes: a width that needs no conversion. */
    size_t state = START;
    for (size_t i = 0; i < len; i++)
        state = next[state + class_of[data[i]]];
    return state == START;
}
