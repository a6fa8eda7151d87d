/*
 * What a peer received, as items: whole messages and control frames. The decoder of the engine
 * (codec/) judges it in the role of the peer: a client accepts no masked frame, a server no other.
 */
#include "engine/testing/kit.h"

#include "codec/close.h"

#include <stdlib.h>
#include <string.h>

static rws__item *add_item(rws_test_peer *peer, rws__item_kind kind, const void *data, size_t len)
{
    rws__item *item = rws__test_memory(sizeof *item);
    item->kind = kind;
    item->len = len;
    item->data = rws__test_memory(len);
    if (len > 0) memcpy(item->data, data, len);
    *peer->last = item;
    peer->last = &item->next;
    return item;
}

void rws__item_free(rws__item *item)
{
    if (item == NULL) return;
    free(item->data);
    free(item);
}

rws__item *rws__peer_take(rws_test_peer *peer)
{
    rws__item *item = peer->first;
    if (item == NULL) return NULL;
    peer->first = item->next;
    if (peer->first == NULL) peer->last = &peer->first;
    return item;
}

static void add_broken(rws_test_peer *peer, const char *why)
{
    add_item(peer, RWS__ITEM_BROKEN, NULL, 0)->text = why;
    peer->state = RWS__PEER_BROKE_PROTOCOL;
    peer->why = why;
}

static const char *breach_text(int status)
{
    switch (status) {
    case RWS_E_PROTOCOL: return "a frame that breaks the protocol (RFC 6455)";
    case RWS_E_UTF8: return "a text that is not valid UTF-8";
    default: return rws_strerror(status);
    }
}

static void add_close(rws_test_peer *peer, const rws__event *event)
{
    uint16_t code;
    rws_span reason;
    int res = rws__close_parse(event->data, event->len, &code, &reason);
    if (res != 0) {
        add_broken(peer, "a close frame that breaks the protocol (RFC 6455)");
        return;
    }
    add_item(peer, RWS__ITEM_CLOSE, reason.data, reason.len)->code = code;
    peer->close_received = true;
}

static void add_data(rws_test_peer *peer, const rws__event *event)
{
    rws__bytes_append(&peer->message, event->data, event->len);
    if (!event->message_last) return;
    rws__item *item = add_item(peer, RWS__ITEM_MESSAGE, peer->message.data, peer->message.len);
    item->opcode = event->opcode;
    rws__bytes_free(&peer->message);
}

static void add_control(rws_test_peer *peer, const rws__event *event)
{
    if (event->opcode == RWS_CLOSE)
        add_close(peer, event);
    else
        add_item(peer, event->opcode == RWS_PING ? RWS__ITEM_PING : RWS__ITEM_PONG, event->data,
                 event->len);
}

void rws__peer_decode(rws_test_peer *peer)
{
    const rws__message_rules rules = {
        .message_bytes_max = UINT64_MAX,
        .role = peer->serves ? RWS_SERVER : RWS_CLIENT,
        .validate_utf8 = true,
    };
    rws__input input = {peer->in.data, peer->in.len};
    rws__event event = {.kind = RWS__EVENT_STASH};
    while (event.kind != RWS__EVENT_NEED && peer->state == RWS__PEER_OPEN) {
        rws__decoder_next(&peer->decoder, &rules, &input, &event);
        if (event.kind == RWS__EVENT_STASH)
            peer->decoder.stash = peer->stash;
        else if (event.kind == RWS__EVENT_DATA)
            add_data(peer, &event);
        else if (event.kind == RWS__EVENT_CONTROL)
            add_control(peer, &event);
        else if (event.kind == RWS__EVENT_ERROR)
            add_broken(peer, breach_text(event.status));
    }
    rws__bytes_free(&peer->in);
}
