#include "support/stress_plan.h"

#include <string.h>

#define WORD sizeof(uint64_t)

/* splitmix64 */
uint64_t stress_mix(uint64_t seed, uint64_t index)
{
    uint64_t z = seed + (index + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

uint64_t stress_next(stress_random *random)
{
    random->state++;
    return stress_mix(0x72696E677773u, random->state);
}

uint32_t stress_below(stress_random *random, uint32_t bound)
{
    return (uint32_t)((stress_next(random) >> 32) * bound >> 32);
}

/* Many small messages, and as many large ones as the mean asks for. */
#define TINY_MAX     125u
#define SMALL_MAX    4096u
#define MEDIUM_MAX   65536u
#define LARGE_MEAN   ((MEDIUM_MAX + STRESS_MESSAGE_MAX) / 2)
#define SMALLER_MEAN 5100u /* of the others, with the shares below */

static const uint32_t edges[] = {0,    1,     2,     125,   126,    127,    1024,
                                 4095, 4096,  4097,  16384, 65535,  65536,  65537,
                                 8192, 65530, 65550, 32768, 131072, 262144, STRESS_MESSAGE_MAX};

static uint32_t size_of(const stress_plan *plan, stress_random *random)
{
    uint64_t mean = plan->bytes / (plan->messages > 0 ? plan->messages : 1);
    uint64_t large_per_million =
        mean > SMALLER_MEAN ? (mean - SMALLER_MEAN) * 1000000 / (LARGE_MEAN - SMALLER_MEAN) : 0;
    if (stress_below(random, 1000000) < large_per_million)
        return MEDIUM_MAX + stress_below(random, STRESS_MESSAGE_MAX - MEDIUM_MAX + 1);
    uint32_t kind = stress_below(random, 100);
    if (kind < 1) return edges[stress_below(random, sizeof edges / sizeof edges[0])];
    if (kind < 60) return stress_below(random, TINY_MAX + 1);
    if (kind < 88) return stress_below(random, SMALL_MAX + 1);
    return stress_below(random, MEDIUM_MAX + 1);
}

stress_message stress_message_of(const stress_plan *plan, uint32_t connection, uint32_t number)
{
    uint64_t which = (uint64_t)connection << 32 | number;
    stress_random random = {stress_mix(plan->seed, which)};
    stress_message message = {
        .seed = stress_next(&random), .connection = connection, .number = number};
    message.size = size_of(plan, &random);
    message.text = stress_below(&random, 3) == 0;
    message.frames = stress_below(&random, 5) == 0 ? 2 + stress_below(&random, 4) : 1;
    return message;
}

/* One word of the content. */
static uint64_t word_of(const stress_message *message, uint64_t index)
{
    uint64_t word = stress_mix(message->seed, index);
    if (!message->text) {
        if (index == 0 && message->size >= WORD)
            word = (uint64_t)message->connection << 32 | message->number;
        return word;
    }
    if ((index + 1) * WORD > message->size) return word & 0x7F7F7F7F7F7F7F7Fu;
    /* In memory: C3 A9, E2 82 AC, and three letters. Little-endian, as all machines of this
     * project. */
    return 0x0000AC82E200A9C3u | (word & 0x7F7F0000007F0000u);
}

void stress_content(const stress_message *message, size_t at, uint8_t *out, size_t len)
{
    while (len > 0) {
        uint64_t word = word_of(message, at / WORD);
        size_t skip = at % WORD;
        size_t take = WORD - skip < len ? WORD - skip : len;
        if (take == WORD)
            memcpy(out, &word, WORD);
        else
            memcpy(out, (const uint8_t *)&word + skip, take);
        out += take;
        at += take;
        len -= take;
    }
}
