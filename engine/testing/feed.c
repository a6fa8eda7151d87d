/*
 * What a peer sends.
 */
#include "engine/testing/kit.h"

#include "codec/close.h"
#include "codec/mask.h"

#include <string.h>

/* The key of every masked frame: no byte of it is 0, so that what is not unmasked is noticed. */
static uint32_t mask_key(void)
{
    static const uint8_t bytes[4] = {0x52, 0x49, 0x4E, 0x47};
    uint32_t key;
    memcpy(&key, bytes, sizeof key);
    return key;
}

static void add_frame(rws_test_peer *peer, rws_opcode opcode, bool fin, const void *data,
                      size_t len)
{
    uint32_t key = peer->masks ? mask_key() : 0;
    const rws__frame frame = {
        .payload_len = len,
        .mask_key = key,
        .opcode = (uint8_t)opcode,
        .fin = fin,
        .masked = peer->masks,
    };
    uint8_t header[RWS__FRAME_HEADER_MAX];
    rws__bytes_append(&peer->out, header, rws__frame_write(header, &frame));
    uint8_t *payload = rws__bytes_add(&peer->out, len);
    if (len == 0) return;
    if (peer->masks)
        rws__mask(payload, data, len, key);
    else
        memcpy(payload, data, len);
}

static void deliver(rws_test_peer *peer)
{
    rws__test_run(peer->test);
    /* A dialled connection may have opened by it: it is this peer's. */
    if (peer->serves) (void)rws__peer_conn(peer);
}

void rws_test_feed_frame(rws_test_peer *peer, rws_opcode opcode, bool fin, const void *data,
                         size_t len)
{
    if (!rws__peer_can_feed(peer) || !rws__test_has_bytes(data, len)) return;
    if (opcode == RWS_CLOSE) peer->close_sent = true;
    add_frame(peer, opcode, fin, data, len);
    deliver(peer);
}

void rws_test_feed_text(rws_test_peer *peer, const char *text)
{
    if (!rws__test_has(text, "text")) return;
    rws_test_feed_frame(peer, RWS_TEXT, true, text, strlen(text));
}

void rws_test_feed_binary(rws_test_peer *peer, const void *data, size_t len)
{
    rws_test_feed_frame(peer, RWS_BINARY, true, data, len);
}

static bool are_pieces(const rws_span *pieces, size_t count)
{
    if (count == 0) return rws__test_fail("a message in fragments needs at least one piece");
    if (!rws__test_has(pieces, "pieces")) return false;
    for (size_t i = 0; i < count; i++)
        if (!rws__test_has_bytes(pieces[i].data, pieces[i].len)) return false;
    return true;
}

void rws_test_feed_fragments(rws_test_peer *peer, rws_opcode opcode, const rws_span *pieces,
                             size_t count)
{
    if (!rws__peer_can_feed(peer) || !are_pieces(pieces, count)) return;
    for (size_t i = 0; i < count; i++)
        add_frame(peer, i == 0 ? opcode : RWS_CONTINUATION, i + 1 == count, pieces[i].data,
                  pieces[i].len);
    deliver(peer);
}

void rws_test_feed_raw(rws_test_peer *peer, const void *data, size_t len)
{
    if (!rws__peer_can_feed(peer) || !rws__test_has_bytes(data, len)) return;
    rws__bytes_append(&peer->out, data, len);
    if (peer->state == RWS__PEER_HEAD && !peer->serves)
        rws__bytes_append(&peer->request, data, len);
    deliver(peer);
}

void rws_test_feed_ping(rws_test_peer *peer, const void *data, size_t len)
{
    rws_test_feed_frame(peer, RWS_PING, true, data, len);
}

void rws_test_feed_pong(rws_test_peer *peer, const void *data, size_t len)
{
    rws_test_feed_frame(peer, RWS_PONG, true, data, len);
}

void rws_test_feed_close(rws_test_peer *peer, uint16_t code, const char *reason)
{
    uint8_t payload[RWS__FRAME_CONTROL_MAX];
    const rws_span span = {reason, reason != NULL ? strlen(reason) : 0};
    int len = rws__close_write(payload, code, span);
    if (len < 0) {
        rws__test_fail("a close frame with the code %u and this reason can't be sent: %s", code,
                       rws_strerror(len));
        return;
    }
    rws_test_feed_frame(peer, RWS_CLOSE, true, payload, (size_t)len);
}
