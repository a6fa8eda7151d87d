#include "support/feed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of longer streams not every split in two is tried. */
#define SPLITS_ALL_MAX 700
#define SPLITS_EDGE    40
#define SPLITS_INNER   16

const uint8_t feed_key[4] = {0x37, 0xFA, 0x21, 0x3D};

static void *grow(void *memory, size_t size)
{
    void *grown = realloc(memory, size);
    if (grown == NULL) abort();
    return grown;
}

void feed_bytes_append(feed_bytes *bytes, const void *data, size_t len)
{
    if (len == 0 || data == NULL) return;
    if (bytes->capacity - bytes->len < len) {
        bytes->capacity = (bytes->len + len) * 2;
        bytes->data = grow(bytes->data, bytes->capacity);
    }
    memcpy(bytes->data + bytes->len, data, len);
    bytes->len += len;
}

void feed_bytes_free(feed_bytes *bytes)
{
    free(bytes->data);
    *bytes = (feed_bytes){0};
}

void feed_append_header(feed_bytes *bytes, uint8_t first, bool masked, feed_form form,
                        uint64_t payload_len)
{
    if (form == FEED_AUTO) {
        form = payload_len < 126 ? FEED_LEN_7 : payload_len < 65536 ? FEED_LEN_16 : FEED_LEN_64;
    }
    uint8_t second = (uint8_t)payload_len;
    size_t extended = 0;
    if (form == FEED_LEN_16) {
        second = 126;
        extended = 2;
    } else if (form == FEED_LEN_64) {
        second = 127;
        extended = 8;
    }
    if (masked) second |= 0x80;

    feed_bytes_append(bytes, &first, 1);
    feed_bytes_append(bytes, &second, 1);
    while (extended-- > 0) {
        const uint8_t byte = (uint8_t)(payload_len >> (8 * extended));
        feed_bytes_append(bytes, &byte, 1);
    }
    if (masked) feed_bytes_append(bytes, feed_key, sizeof feed_key);
}

void feed_append_frame(feed_bytes *bytes, uint8_t first, bool masked, const void *payload,
                       size_t len)
{
    feed_append_header(bytes, first, masked, FEED_AUTO, len);
    const size_t start = bytes->len;
    feed_bytes_append(bytes, payload, len);
    if (!masked) return;
    for (size_t i = 0; i < len; i++)
        bytes->data[start + i] ^= feed_key[i % 4];
}

void feed_init(feed_run *feed, const rws__message_rules *rules)
{
    memset(feed, 0, sizeof *feed);
    feed->rules = rules;
}

void feed_free(feed_run *feed)
{
    for (size_t i = 0; i < feed->items_count; i++)
        feed_bytes_free(&feed->items[i].payload);
    free(feed->items);
    feed_bytes_free(&feed->open.payload);
    free(feed->decoder.stash);
    memset(feed, 0, sizeof *feed);
}

static void expect(feed_run *feed, bool holds, const char *what)
{
    if (!holds && feed->broken == NULL) feed->broken = what;
}

void feed_record(feed_run *feed, feed_item item)
{
    if (feed->items_count == feed->items_capacity) {
        feed->items_capacity = feed->items_capacity * 2 + 4;
        feed->items = grow(feed->items, feed->items_capacity * sizeof *feed->items);
    }
    item.fed = feed->fed;
    feed->items[feed->items_count++] = item;
}

static void take_data(feed_run *feed, const rws__event *event)
{
    feed_item *open = &feed->open;
    expect(feed, event->opcode == RWS_TEXT || event->opcode == RWS_BINARY, "opcode of a message");
    expect(feed, event->message_first == !feed->in_message, "message_first");
    expect(feed, event->frame_first == !feed->in_frame, "frame_first");
    expect(feed, !event->message_first || event->frame_first, "message_first within a frame");
    expect(feed, !event->message_last || event->frame_last, "message_last within a frame");
    expect(feed, event->len > 0 || (event->frame_first && event->frame_last),
           "an empty event only for an empty frame");
    expect(feed, event->data != NULL, "data is NULL");
    if (event->message_first) {
        *open = (feed_item){.kind = FEED_MESSAGE, .opcode = event->opcode, .rsv1 = event->rsv1};
    }
    expect(feed, event->opcode == open->opcode, "the opcode changed within a message");
    expect(feed, event->rsv1 == open->rsv1, "rsv1 changed within a message");

    feed_bytes_append(&open->payload, event->data, event->len);
    open->frames += event->frame_first;
    feed->in_frame = !event->frame_last;
    feed->in_message = !event->message_last;
    if (event->message_last) {
        feed_record(feed, *open);
        *open = (feed_item){0};
    }
}

static void take_control(feed_run *feed, const rws__event *event)
{
    feed_item item = {.kind = FEED_CONTROL, .opcode = event->opcode};
    expect(feed, event->opcode >= RWS_CLOSE && event->opcode <= RWS_PONG, "opcode of a control");
    expect(feed, event->len <= RWS__FRAME_CONTROL_MAX, "length of a control frame");
    expect(feed, !feed->in_frame, "a control frame within a frame");
    expect(feed, event->data != NULL, "data is NULL");
    feed_bytes_append(&item.payload, event->data, event->len);
    feed_record(feed, item);
}

static void take_error(feed_run *feed, const rws__event *event, rws__input *input)
{
    feed->failed = true;
    feed_record(feed, (feed_item){.kind = FEED_ERROR, .status = event->status});

    rws__event again;
    rws__decoder_next(&feed->decoder, feed->rules, input, &again);
    expect(feed, again.kind == RWS__EVENT_ERROR && again.status == event->status,
           "a failed decoder did not stay failed");
}

static void take_stash(feed_run *feed)
{
    expect(feed, feed->decoder.stash == NULL, "asked for a stash that it has");
    if (feed->decoder.stash != NULL) return;
    feed->decoder.stash = grow(NULL, RWS__STASH_BYTES);
    memset(feed->decoder.stash, 0xA5, RWS__STASH_BYTES);
    feed->stash_asked++;
}

/* Between two pieces: the memory goes back when nothing is in it. */
static void settle(feed_run *feed)
{
    if (rws__decoder_stash_is_free(&feed->decoder)) {
        free(feed->decoder.stash);
        feed->decoder.stash = NULL;
    } else {
        expect(feed, feed->decoder.stash != NULL, "holds something without a stash");
    }
    const bool idle = !feed->failed && !feed->in_message && feed->frame_end == feed->fed;
    expect(feed, rws__decoder_is_idle(&feed->decoder) == idle, "rws__decoder_is_idle");
}

void feed_piece(feed_run *feed, const uint8_t *bytes, size_t len)
{
    uint8_t *piece = grow(NULL, len > 0 ? len : 1);
    if (len > 0) memcpy(piece, bytes, len);
    rws__input input = {.data = piece, .len = len};
    const size_t fed_before = feed->fed;
    bool goes_on = true;

    feed->fed += len;
    while (goes_on && feed->broken == NULL) {
        const rws__input before = input;
        rws__event event;
        memset(&event, 0xA5, sizeof event); /* what it does not set shows */
        rws__decoder_next(&feed->decoder, feed->rules, &input, &event);
        expect(feed, input.data >= before.data && input.data + input.len == piece + len,
               "the input moved wrongly");
        const bool in_piece = event.data >= before.data && event.data + event.len == input.data;

        switch (event.kind) {
        case RWS__EVENT_NEED:
            expect(feed, input.len == 0, "input is left");
            goes_on = false;
            break;
        case RWS__EVENT_STASH:
            expect(feed, before.len > 0, "asked for a stash for nothing");
            take_stash(feed);
            break;
        case RWS__EVENT_DATA:
            expect(feed, in_piece, "payload that is not where the input was");
            feed->events++;
            take_data(feed, &event);
            if (event.frame_last) feed->frame_end = fed_before + (size_t)(input.data - piece);
            break;
        case RWS__EVENT_CONTROL:
            expect(feed, in_piece || event.data == feed->decoder.stash,
                   "a control payload that is neither in the input nor in the stash");
            feed->events++;
            take_control(feed, &event);
            feed->frame_end = fed_before + (size_t)(input.data - piece);
            break;
        case RWS__EVENT_ERROR:
            if (!feed->failed) take_error(feed, &event, &input);
            goes_on = false;
            break;
        default: expect(feed, false, "an unknown event"); break;
        }
    }
    settle(feed);
    free(piece);
}

void feed_whole(feed_run *feed, const rws__message_rules *rules, const feed_bytes *stream)
{
    feed_init(feed, rules);
    feed_piece(feed, stream->data, stream->len);
}

void feed_one_by_one(feed_run *feed, const rws__message_rules *rules, const feed_bytes *stream)
{
    feed_init(feed, rules);
    for (size_t i = 0; i < stream->len; i++)
        feed_piece(feed, stream->data + i, 1);
}

void feed_split(feed_run *feed, const rws__message_rules *rules, const feed_bytes *stream,
                size_t at)
{
    feed_init(feed, rules);
    feed_piece(feed, stream->data, at);
    feed_piece(feed, stream->data + at, stream->len - at);
}

void feed_every_way(const rws__message_rules *rules, const feed_bytes *stream, feed_check *check,
                    void *user)
{
    feed_run feed;
    feed_whole(&feed, rules, stream);
    check(&feed, "whole", user);
    feed_free(&feed);

    feed_one_by_one(&feed, rules, stream);
    check(&feed, "one byte at a time", user);
    feed_free(&feed);

    const size_t inner_step = stream->len / SPLITS_INNER + 1;
    for (size_t at = 1; at < stream->len; at++) {
        const bool edge = at < SPLITS_EDGE || stream->len - at < SPLITS_EDGE;
        if (stream->len > SPLITS_ALL_MAX && !edge && at % inner_step != 0) continue;
        char how[40];
        snprintf(how, sizeof how, "cut after %zu bytes", at);
        feed_split(&feed, rules, stream, at);
        check(&feed, how, user);
        feed_free(&feed);
    }
}

static bool is_same_payload(const feed_bytes *a, const feed_bytes *b)
{
    return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

static bool is_same_item(const feed_item *a, const feed_item *b)
{
    return a->kind == b->kind && a->opcode == b->opcode && a->rsv1 == b->rsv1 &&
           a->frames == b->frames && a->status == b->status &&
           is_same_payload(&a->payload, &b->payload);
}

bool feed_is_same(const feed_run *a, const feed_run *b, const char **why)
{
    *why = NULL;
    if (a->broken != NULL || b->broken != NULL) {
        *why = a->broken != NULL ? a->broken : b->broken;
    } else if (feed_status(a) != feed_status(b)) {
        *why = "status";
    } else if (a->items_count != b->items_count) {
        *why = "number of items";
    } else if (!a->failed && !is_same_payload(&a->open.payload, &b->open.payload)) {
        *why = "payload of the open message";
    }
    for (size_t i = 0; *why == NULL && i < a->items_count; i++) {
        if (!is_same_item(&a->items[i], &b->items[i])) *why = "an item";
    }
    return *why == NULL;
}

int feed_status(const feed_run *feed)
{
    if (!feed->failed) return 0;
    return feed->items[feed->items_count - 1].status;
}
