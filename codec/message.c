/*
 * The message decoder: three states, one step function for each.
 *
 *   HEADER   reads a header, from the input or glued together in the stash, and checks it
 *   DATA     unmasks and validates what has come of a data frame
 *   CONTROL  hands out a control frame once it is whole
 *
 * The usual case, an unfragmented message that lies in the input as a whole, never enters these
 * states: take_whole() decodes it without a write to the decoder. Everything else takes the
 * general way, where speed matters less than that every split of the input gives the same result.
 * For that a header is judged in the order of its bytes (read_header()), so that an error which
 * a part of a header shows is the error that the whole header has.
 */
#include "codec/message.h"

#include <assert.h>
#include <string.h>

#include "codec/mask.h"

/* There is one decoder in every idle connection. */
static_assert(sizeof(rws__decoder) <= 56, "a decoder outgrew its place in the connection");
static_assert(RWS__STASH_BYTES <= UINT8_MAX, "stash_len is a byte");

#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)

#define OPCODE      0x0Fu
#define FIN         0x80u
#define RSV         (RWS__RSV1 | RWS__RSV2 | RWS__RSV3)
#define MASK        0x80u
#define LEN         0x7Fu
#define LEN_LONG    126u /* from here on the length is in the bytes behind */
#define CONTROL_BIT 0x08u

static void give(rws__event *event, rws__event_kind kind)
{
    *event = (rws__event){.kind = kind};
}

__attribute__((cold, noinline)) static void fail(rws__decoder *decoder, int status,
                                                 rws__event *event)
{
    decoder->state = RWS__DECODER_FAILED;
    decoder->status = (int16_t)status;
    decoder->stash_len = 0;
    *event = (rws__event){.kind = RWS__EVENT_ERROR, .status = status};
}

static void advance(rws__input *input, size_t bytes)
{
    input->data += bytes;
    input->len -= bytes;
}

static bool is_control(uint8_t opcode)
{
    return (opcode & CONTROL_BIT) != 0;
}

/* Section 5.1: a client masks every frame, a server none. */
static bool masking_is_right(const rws__message_rules *rules, bool masked)
{
    return masked == (rules->role == RWS_SERVER);
}

/* What the first byte of a header shows, given what came before it. */
static int check_first_byte(const rws__decoder *decoder, const rws__message_rules *rules,
                            uint8_t first)
{
    const uint8_t opcode = first & OPCODE;
    const bool starts_message = opcode == RWS_TEXT || opcode == RWS_BINARY;

    /* Section 5.2: RSV bits are 0 unless an extension defines them. RFC 7692 section 6: RSV1 is on
     * the first frame of a compressed message and on no other. */
    const unsigned allowed = rules->allow_rsv1 && starts_message ? RWS__RSV1 : 0;
    if (first & RSV & ~allowed) return RWS_E_PROTOCOL;

    /* Section 5.4: no message inside a message, no continuation of nothing. */
    if (starts_message && decoder->message_opcode != 0) return RWS_E_PROTOCOL;
    if (opcode == RWS_CONTINUATION) {
        if (decoder->message_opcode == 0) return RWS_E_PROTOCOL;
        if (rules->fragments_max != 0 && decoder->fragments >= rules->fragments_max)
            return RWS_E_POLICY;
    }
    return 0;
}

/* What the first two bytes show together. */
static int check_second_byte(const rws__decoder *decoder, const rws__message_rules *rules,
                             uint8_t first, uint8_t second)
{
    if (!masking_is_right(rules, (second & MASK) != 0)) return RWS_E_PROTOCOL;

    const bool empty_fragment =
        !(first & FIN) && !is_control(first & OPCODE) && (second & LEN) == 0;
    if (empty_fragment && rules->empty_fragments_max != 0 &&
        decoder->empty_run >= rules->empty_fragments_max)
        return RWS_E_POLICY;
    return 0;
}

/* The smallest payload length that a header which begins with these `len` >= 2 bytes can have. */
static uint64_t payload_len_floor(const uint8_t *bytes, size_t len)
{
    const uint8_t short_len = bytes[1] & LEN;
    if (short_len < LEN_LONG) return short_len;

    const size_t length_bytes = short_len == LEN_LONG ? 2 : 8;
    uint64_t floor = 0;
    for (size_t i = 2; i < 2 + length_bytes; i++)
        floor = floor << 8 | (i < len ? bytes[i] : 0);
    return floor;
}

/*
 * Parse a header, or judge the part of it that has come, `len` >= 1 bytes. Returns the header's
 * length, 0 if it is cut, or the error that its earliest offending byte shows.
 */
static int read_header(const rws__decoder *decoder, const rws__message_rules *rules,
                       rws__frame *frame, const uint8_t *bytes, size_t len)
{
    int status = rws__frame_parse(frame, bytes, 1);
    if (status == 0) status = check_first_byte(decoder, rules, bytes[0]);
    if (status != 0 || len == 1) return status;

    status = check_second_byte(decoder, rules, bytes[0], bytes[1]);
    if (status != 0) return status;

    const int header_len = rws__frame_parse(frame, bytes, len);
    if (header_len < 0) return header_len;
    /* message_bytes never exceeds the limit, so this can't wrap. */
    if (!is_control(bytes[0] & OPCODE) &&
        payload_len_floor(bytes, len) > rules->message_bytes_max - decoder->message_bytes)
        return RWS_E_TOO_BIG;
    return header_len;
}

/* False: the caller has to bring a stash first. */
static bool has_stash(const rws__decoder *decoder, rws__event *event)
{
    if (decoder->stash != NULL) return true;
    give(event, RWS__EVENT_STASH);
    return false;
}

/* Take a header out of the input. False: `event` says why there is none. */
static bool take_header(rws__decoder *decoder, const rws__message_rules *rules, rws__input *input,
                        rws__frame *frame, rws__event *event)
{
    const size_t had = decoder->stash_len;
    const uint8_t *bytes = input->data;
    size_t len = input->len;

    if (had > 0) { /* glue; bytes behind the header are only looked at, not taken */
        const size_t room = RWS__FRAME_HEADER_MAX - had;
        if (len > room) len = room;
        memcpy(decoder->stash + had, input->data, len);
        bytes = decoder->stash;
        len += had;
    }

    const int header_len = read_header(decoder, rules, frame, bytes, len);
    if (header_len < 0) {
        fail(decoder, header_len, event);
        return false;
    }
    if (header_len > 0) {
        advance(input, (size_t)header_len - had);
        decoder->stash_len = 0;
        return true;
    }

    if (!has_stash(decoder, event)) return false;
    if (had == 0) memcpy(decoder->stash, bytes, len);
    decoder->stash_len = (uint8_t)len;
    advance(input, len - had);
    give(event, RWS__EVENT_NEED);
    return false;
}

static void begin_frame(rws__decoder *decoder, const rws__frame *frame)
{
    decoder->frame_left = frame->payload_len;
    decoder->mask_key = frame->mask_key;
    decoder->frame_opcode = frame->opcode;
    decoder->frame_fin = frame->fin;
    decoder->frame_started = false;
    if (is_control(frame->opcode)) {
        decoder->state = RWS__DECODER_CONTROL;
        return;
    }

    decoder->state = RWS__DECODER_DATA;
    if (frame->opcode != RWS_CONTINUATION) {
        decoder->message_opcode = frame->opcode;
        decoder->message_rsv1 = (frame->rsv & RWS__RSV1) != 0;
    }
    decoder->message_bytes += frame->payload_len;
    decoder->fragments++;
    decoder->empty_run = frame->payload_len == 0 ? decoder->empty_run + 1 : 0;
}

/* Back to what an idle decoder is, so that the next message needs no set-up. */
static void end_message(rws__decoder *decoder)
{
    decoder->message_bytes = 0;
    decoder->fragments = 0;
    decoder->empty_run = 0;
    decoder->message_opcode = 0;
    decoder->message_started = false;
    decoder->utf8 = (rws__utf8){0};
}

/* Unmask and check one piece of payload. False: a byte of it can't be valid. */
static bool open_payload(rws__decoder *decoder, const rws__message_rules *rules, uint8_t *data,
                         size_t len)
{
    const bool is_text = decoder->message_opcode == RWS_TEXT && rules->validate_utf8 &&
                         !decoder->message_rsv1; /* compressed: the text is inside */
    if (rules->role == RWS_CLIENT)
        return !is_text || rws__utf8_check(&decoder->utf8, data, len) == len;
    if (is_text) return rws__unmask_utf8(&decoder->utf8, data, len, &decoder->mask_key) == len;
    decoder->mask_key = rws__mask(data, data, len, decoder->mask_key);
    return true;
}

static void next_data(rws__decoder *decoder, const rws__message_rules *rules, rws__input *input,
                      rws__event *event)
{
    if (input->len == 0 && decoder->frame_left > 0) {
        give(event, RWS__EVENT_NEED);
        return;
    }

    uint8_t *data = input->data;
    const size_t len = input->len < decoder->frame_left ? input->len : (size_t)decoder->frame_left;
    const bool frame_last = len == decoder->frame_left;
    const bool message_last = frame_last && decoder->frame_fin;

    /* Section 8.1; the end of the message is the first byte that shows a cut character. */
    if (!open_payload(decoder, rules, data, len) ||
        (message_last && !rws__utf8_is_complete(&decoder->utf8))) {
        fail(decoder, RWS_E_UTF8, event);
        return;
    }

    advance(input, len);
    *event = (rws__event){
        .kind = RWS__EVENT_DATA,
        .opcode = decoder->message_opcode,
        .rsv1 = decoder->message_rsv1,
        .frame_first = !decoder->frame_started,
        .frame_last = frame_last,
        .message_first = !decoder->message_started,
        .message_last = message_last,
        .data = data,
        .len = len,
    };
    decoder->frame_left -= len;
    decoder->frame_started = true;
    decoder->message_started = true;
    if (frame_last) decoder->state = RWS__DECODER_HEADER;
    if (message_last) end_message(decoder);
}

static void next_control(rws__decoder *decoder, rws__input *input, rws__event *event)
{
    uint8_t *payload = input->data;
    const size_t left = (size_t)decoder->frame_left; /* at most 125: section 5.5 */
    const size_t take = input->len < left ? input->len : left;
    size_t len = left;

    if (take == 0 && left > 0) {
        give(event, RWS__EVENT_NEED);
        return;
    }
    if (decoder->stash_len == 0 && take == left) {
        rws__mask(payload, payload, left, decoder->mask_key);
    } else {
        if (!has_stash(decoder, event)) return;
        decoder->mask_key =
            rws__mask(decoder->stash + decoder->stash_len, input->data, take, decoder->mask_key);
        decoder->stash_len = (uint8_t)(decoder->stash_len + take);
        payload = decoder->stash;
        len = decoder->stash_len;
    }
    advance(input, take);
    decoder->frame_left -= take;
    if (decoder->frame_left > 0) {
        give(event, RWS__EVENT_NEED);
        return;
    }

    decoder->stash_len = 0; /* its bytes stay until the next call */
    decoder->state = RWS__DECODER_HEADER;
    *event = (rws__event){
        .kind = RWS__EVENT_CONTROL, .opcode = decoder->frame_opcode, .data = payload, .len = len};
}

static void next_frame(rws__decoder *decoder, const rws__message_rules *rules, rws__input *input,
                       rws__event *event)
{
    rws__frame frame;
    if (input->len == 0) {
        give(event, RWS__EVENT_NEED);
        return;
    }
    if (!take_header(decoder, rules, input, &frame, event)) return;

    begin_frame(decoder, &frame);
    if (decoder->state == RWS__DECODER_CONTROL)
        next_control(decoder, input, event);
    else
        next_data(decoder, rules, input, event);
}

/*
 * The header of a whole, unfragmented, uncompressed message at the front of the input, masked as it
 * has to be. Returns the header's length and sets `*len` to the payload's, or 0: it is not that
 * simple. Short lengths are read here; the others cost more than the call anyway.
 */
static inline size_t whole_header(const rws__message_rules *rules, const rws__input *input,
                                  size_t *len)
{
    const uint8_t mask = rules->role == RWS_SERVER ? MASK : 0; /* section 5.1 */
    const size_t key_bytes = mask != 0 ? sizeof(uint32_t) : 0;
    const uint8_t *bytes = input->data;
    if (input->len < 2 + key_bytes) return 0;

    if (bytes[0] != (FIN | RWS_TEXT) && bytes[0] != (FIN | RWS_BINARY)) return 0;

    size_t header_len = 2 + key_bytes;
    uint64_t payload_len = bytes[1] ^ mask; /* above LEN if the mask bit is the wrong one */
    if (payload_len >= LEN_LONG) {
        rws__frame frame;
        const int parsed = rws__frame_parse(&frame, bytes, input->len);
        if (payload_len > LEN || parsed <= 0) return 0;
        header_len = (size_t)parsed;
        payload_len = frame.payload_len;
    }
    if (payload_len > input->len - header_len || payload_len > rules->message_bytes_max) return 0;
    *len = (size_t)payload_len;
    return header_len;
}

/* Unmask a whole payload and, if it has to be text, check it. False: it is not text. */
static inline bool open_whole(const rws__message_rules *rules, const uint8_t *header,
                              uint8_t *payload, size_t len)
{
    const bool is_text = header[0] == (FIN | RWS_TEXT) && rules->validate_utf8;
    if (rules->role == RWS_CLIENT) return !is_text || rws__utf8_is_valid(payload, len);

    uint32_t key;
    memcpy(&key, payload - sizeof key, sizeof key);
    if (is_text) return rws__unmask_text(payload, len, key);
    rws__mask(payload, payload, len, key);
    return true;
}

/*
 * An idle decoder and a whole message at the front of the input: one parse, one pass over the
 * payload, no write to the decoder. False: it is not that simple, and nothing was touched.
 */
static bool take_whole(rws__decoder *decoder, const rws__message_rules *rules, rws__input *input,
                       rws__event *event)
{
    const uint8_t *header = input->data;
    size_t len = 0;
    const size_t header_len = whole_header(rules, input, &len);
    if (header_len == 0) return false;

    uint8_t *payload = input->data + header_len;
    if (UNLIKELY(!open_whole(rules, header, payload, len))) {
        fail(decoder, RWS_E_UTF8, event);
        return true;
    }

    advance(input, header_len + len);
    *event = (rws__event){
        .kind = RWS__EVENT_DATA,
        .opcode = header[0] & OPCODE,
        .frame_first = true,
        .frame_last = true,
        .message_first = true,
        .message_last = true,
        .data = payload,
        .len = len,
    };
    return true;
}

void rws__decoder_next(rws__decoder *decoder, const rws__message_rules *rules, rws__input *input,
                       rws__event *event)
{
    if (rws__decoder_is_idle(decoder) && take_whole(decoder, rules, input, event)) return;

    switch ((rws__decoder_state)decoder->state) {
    case RWS__DECODER_HEADER: next_frame(decoder, rules, input, event); break;
    case RWS__DECODER_DATA: next_data(decoder, rules, input, event); break;
    case RWS__DECODER_CONTROL: next_control(decoder, input, event); break;
    case RWS__DECODER_FAILED:
        *event = (rws__event){.kind = RWS__EVENT_ERROR, .status = decoder->status};
        break;
    }
}

bool rws__decoder_stash_is_free(const rws__decoder *decoder)
{
    return decoder->stash_len == 0;
}

bool rws__decoder_is_idle(const rws__decoder *decoder)
{
    return decoder->state == RWS__DECODER_HEADER && decoder->stash_len == 0 &&
           decoder->message_opcode == 0;
}
