#include "support/reference_decoder.h"

#include <string.h>

typedef struct reference {
    feed_run *out;
    const rws__message_rules *rules;
    uint8_t header[14];
    size_t header_len;
    bool in_payload;
    uint64_t payload_len, payload_had;
    feed_bytes control;
    uint64_t message_declared;
    uint64_t empty_run;
    uint8_t character[4]; /* of the text, until it is whole */
    size_t character_len;
} reference;

/* RFC 3629 section 4, its grammar line by line. */
static const struct {
    uint8_t low[4], high[4];
    size_t len;
} utf8_grammar[] = {
    {{0x00}, {0x7F}, 1},
    {{0xC2, 0x80}, {0xDF, 0xBF}, 2},
    {{0xE0, 0xA0, 0x80}, {0xE0, 0xBF, 0xBF}, 3},
    {{0xE1, 0x80, 0x80}, {0xEC, 0xBF, 0xBF}, 3},
    {{0xED, 0x80, 0x80}, {0xED, 0x9F, 0xBF}, 3},
    {{0xEE, 0x80, 0x80}, {0xEF, 0xBF, 0xBF}, 3},
    {{0xF0, 0x90, 0x80, 0x80}, {0xF0, 0xBF, 0xBF, 0xBF}, 4},
    {{0xF1, 0x80, 0x80, 0x80}, {0xF3, 0xBF, 0xBF, 0xBF}, 4},
    {{0xF4, 0x80, 0x80, 0x80}, {0xF4, 0x8F, 0xBF, 0xBF}, 4},
};

static bool take_text_byte(reference *ref, uint8_t byte)
{
    ref->character[ref->character_len++] = byte;
    for (size_t line = 0; line < sizeof utf8_grammar / sizeof *utf8_grammar; line++) {
        bool fits = ref->character_len <= utf8_grammar[line].len;
        for (size_t i = 0; fits && i < ref->character_len; i++) {
            fits = ref->character[i] >= utf8_grammar[line].low[i] &&
                   ref->character[i] <= utf8_grammar[line].high[i];
        }
        if (!fits) continue;
        if (ref->character_len == utf8_grammar[line].len) ref->character_len = 0;
        return true;
    }
    return false;
}

static bool is_text(const reference *ref)
{
    return ref->out->open.opcode == RWS_TEXT && ref->rules->validate_utf8 && !ref->out->open.rsv1;
}

static size_t length_bytes(const reference *ref)
{
    const unsigned len = ref->header[1] & 0x7Fu;
    return len == 126 ? 2 : len == 127 ? 8 : 0;
}

/* The first byte is the newest. */
static int judge_first(const reference *ref)
{
    const rws__message_rules *rules = ref->rules;
    const unsigned first = ref->header[0], opcode = first & 0x0F;
    if ((opcode >= 3 && opcode <= 7) || opcode >= 11) return RWS_E_PROTOCOL;
    if (opcode >= 8 && !(first & 0x80)) return RWS_E_PROTOCOL;
    if (first & 0x30) return RWS_E_PROTOCOL;
    if ((first & 0x40) && (!rules->allow_rsv1 || (opcode != 1 && opcode != 2)))
        return RWS_E_PROTOCOL;
    if ((opcode == 1 || opcode == 2) && ref->out->in_message) return RWS_E_PROTOCOL;
    if (opcode != 0) return 0;
    if (!ref->out->in_message) return RWS_E_PROTOCOL;
    return rules->fragments_max != 0 && ref->out->open.frames == rules->fragments_max ? RWS_E_POLICY
                                                                                      : 0;
}

static int judge_second(const reference *ref)
{
    const bool masked = ref->header[1] & 0x80, control = ref->header[0] & 0x08;
    const uint64_t empty_run = ref->out->in_message ? ref->empty_run : 0;
    if (masked != (ref->rules->role == RWS_SERVER)) return RWS_E_PROTOCOL;
    if (control && (ref->header[1] & 0x7F) > 125) return RWS_E_PROTOCOL;
    if (!control && !(ref->header[0] & 0x80) && (ref->header[1] & 0x7F) == 0 &&
        ref->rules->empty_fragments_max != 0 && empty_run == ref->rules->empty_fragments_max)
        return RWS_E_POLICY;
    return 0;
}

/* The least length that the header can still turn out to have. */
static int judge_length(const reference *ref)
{
    const size_t bytes = length_bytes(ref);
    const size_t had = ref->header_len - 2 < bytes ? ref->header_len - 2 : bytes;
    uint64_t least = ref->header[1] & 0x7Fu;
    if (bytes > 0) {
        least = 0;
        for (size_t i = 0; i < bytes; i++)
            least = least * 256 + (i < had ? ref->header[2 + i] : 0);
        if (least >> 63) return RWS_E_PROTOCOL;
        if (bytes == 2 && had == 2 && least < 126) return RWS_E_PROTOCOL;
        if (bytes == 8 && had >= 6 && least < 65536) return RWS_E_PROTOCOL;
    }
    if (ref->header[0] & 0x08) return 0;
    const uint64_t before = ref->out->in_message ? ref->message_declared : 0;
    return least > ref->rules->message_bytes_max - before ? RWS_E_TOO_BIG : 0;
}

static int end_frame(reference *ref)
{
    feed_run *out = ref->out;
    ref->in_payload = false;
    ref->header_len = 0;
    if (ref->header[0] & 0x08) {
        feed_record(out, (feed_item){.kind = FEED_CONTROL,
                                     .opcode = ref->header[0] & 0x0F,
                                     .payload = ref->control});
        ref->control = (feed_bytes){0};
        return 0;
    }
    if (!(ref->header[0] & 0x80)) return 0;
    if (is_text(ref) && ref->character_len > 0) return RWS_E_UTF8;
    feed_record(out, out->open);
    out->open = (feed_item){0};
    out->in_message = false;
    return 0;
}

static int begin_frame(reference *ref)
{
    feed_run *out = ref->out;
    ref->in_payload = true;
    ref->payload_had = 0;
    ref->payload_len = ref->header[1] & 0x7Fu;
    if (length_bytes(ref) > 0) {
        ref->payload_len = 0;
        for (size_t i = 0; i < length_bytes(ref); i++)
            ref->payload_len = ref->payload_len * 256 + ref->header[2 + i];
    }
    if (!(ref->header[0] & 0x08)) {
        if (!out->in_message) {
            out->in_message = true;
            out->open = (feed_item){.kind = FEED_MESSAGE,
                                    .opcode = ref->header[0] & 0x0F,
                                    .rsv1 = (ref->header[0] & 0x40) != 0};
            ref->message_declared = 0;
            ref->empty_run = 0;
            ref->character_len = 0;
        }
        out->open.frames++;
        ref->message_declared += ref->payload_len;
        ref->empty_run = ref->payload_len == 0 ? ref->empty_run + 1 : 0;
    }
    return ref->payload_len == 0 ? end_frame(ref) : 0;
}

static int take_header_byte(reference *ref, uint8_t byte)
{
    ref->header[ref->header_len++] = byte;
    int status = 0;
    if (ref->header_len == 1) status = judge_first(ref);
    if (ref->header_len == 2) status = judge_second(ref);
    if (status == 0 && ref->header_len >= 2) status = judge_length(ref);
    if (status != 0 || ref->header_len < 2) return status;
    const size_t key = ref->header[1] & 0x80 ? 4 : 0;
    return ref->header_len == 2 + length_bytes(ref) + key ? begin_frame(ref) : 0;
}

static int take_payload_byte(reference *ref, uint8_t byte)
{
    if (ref->header[1] & 0x80) byte ^= ref->header[2 + length_bytes(ref) + ref->payload_had % 4];
    ref->payload_had++;
    if (ref->header[0] & 0x08) {
        feed_bytes_append(&ref->control, &byte, 1);
    } else {
        feed_bytes_append(&ref->out->open.payload, &byte, 1);
        if (is_text(ref) && !take_text_byte(ref, byte)) return RWS_E_UTF8;
    }
    return ref->payload_had == ref->payload_len ? end_frame(ref) : 0;
}

void reference_decode(feed_run *out, const rws__message_rules *rules, const feed_bytes *stream)
{
    reference ref = {.out = out, .rules = rules};
    feed_init(out, rules);
    for (size_t i = 0; i < stream->len && !out->failed; i++) {
        out->fed++;
        const int status = ref.in_payload ? take_payload_byte(&ref, stream->data[i])
                                          : take_header_byte(&ref, stream->data[i]);
        if (status == 0) continue;
        out->failed = true;
        feed_record(out, (feed_item){.kind = FEED_ERROR, .status = status});
    }
    feed_bytes_free(&ref.control);
}
