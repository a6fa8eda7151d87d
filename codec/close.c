#include "codec/close.h"

#include <assert.h>
#include <string.h>

#include "codec/frame.h"
#include "codec/utf8.h"

#define CODE_BYTES 2

static_assert(RWS__CLOSE_REASON_MAX + CODE_BYTES == RWS__FRAME_CONTROL_MAX,
              "a close frame is a control frame");

/*
 * Section 7.4.1 and the registry behind it: 1004 has no meaning yet; 1005, 1006 and 1015 are only
 * for APIs; 1012–1014 were registered later. Section 7.4.2: 1016–2999 are reserved for the
 * protocol, 3000–3999 for registered and 4000–4999 for private use.
 */
bool rws__close_code_is_valid(uint16_t code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
           (code >= 3000 && code <= 4999);
}

int rws__close_parse(const uint8_t *payload, size_t len, uint16_t *code, rws_span *reason)
{
    *code = RWS_CLOSE_NO_STATUS;
    *reason = (rws_span){0};
    if (len == 0) return 0;
    if (len < CODE_BYTES) return RWS_E_PROTOCOL;

    const uint16_t sent = (uint16_t)(payload[0] << 8 | payload[1]);
    if (!rws__close_code_is_valid(sent)) return RWS_E_PROTOCOL;

    payload += CODE_BYTES;
    len -= CODE_BYTES;
    if (!rws__utf8_is_valid(payload, len)) return RWS_E_UTF8;

    *code = sent;
    *reason = (rws_span){.data = (const char *)payload, .len = len};
    return 0;
}

int rws__close_write(uint8_t *out, uint16_t code, rws_span reason)
{
    if (code == RWS_CLOSE_NO_STATUS && reason.len == 0) return 0;
    if (!rws__close_code_is_valid(code)) return RWS_E_ARGUMENT;
    if (reason.len > RWS__CLOSE_REASON_MAX) return RWS_E_ARGUMENT;

    if (reason.len > 0) {
        if (!rws__utf8_is_valid((const uint8_t *)reason.data, reason.len)) return RWS_E_ARGUMENT;
        /* The reason may be the peer's own, still in the buffer that the answer is written to. */
        memmove(out + CODE_BYTES, reason.data, reason.len);
    }
    out[0] = (uint8_t)(code >> 8);
    out[1] = (uint8_t)code;
    return (int)(CODE_BYTES + reason.len);
}

uint16_t rws__close_code_for(int status)
{
    switch (status) {
    case RWS_E_PROTOCOL: return RWS_CLOSE_PROTOCOL_ERROR;
    case RWS_E_UTF8: return RWS_CLOSE_INVALID_PAYLOAD;
    case RWS_E_TOO_BIG: return RWS_CLOSE_MESSAGE_TOO_BIG;
    case RWS_E_POLICY: return RWS_CLOSE_POLICY_VIOLATION;
    default: return RWS_CLOSE_INTERNAL_ERROR;
    }
}
