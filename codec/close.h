/*
 * Close frames, RFC 6455 sections 5.5.1 and 7.4: the payload is empty, or a code and
 * a UTF-8 reason.
 */
#ifndef RINGWS_CODEC_CLOSE_H
#define RINGWS_CODEC_CLOSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ringws/types.h"

#define RWS__CLOSE_REASON_MAX 123 /* 125 bytes of a control frame less the code */

/* Whether `code` may be on the wire: 1000–1003, 1007–1014, 3000–4999. */
bool rws__close_code_is_valid(uint16_t code);

/*
 * Read the payload of a close frame, at most RWS__FRAME_CONTROL_MAX bytes. `*code` is
 * RWS_CLOSE_NO_STATUS if it is empty; `*reason` borrows from `payload`.
 * Returns 0, RWS_E_PROTOCOL (one byte, or a code that may not be sent) or RWS_E_UTF8.
 */
int rws__close_parse(const uint8_t *payload, size_t len, uint16_t *code, rws_span *reason);

/*
 * Write the payload of a close frame to `out` (room for RWS__FRAME_CONTROL_MAX bytes).
 * RWS_CLOSE_NO_STATUS with an empty reason gives an empty payload. Returns its length, or
 * RWS_E_ARGUMENT: a code that may not be sent, a reason that is too long or not UTF-8.
 */
int rws__close_write(uint8_t *out, uint16_t code, rws_span reason);

/* The close code that answers a failure of the decoder (`status` is an RWS_E_… code). */
uint16_t rws__close_code_for(int status);

#endif
