/*
 * A message: immutable bytes with an opcode, which may have several holders.
 */
#ifndef RINGWS_MESSAGE_H
#define RINGWS_MESSAGE_H

#include "ringws/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * How each message begins. In one that a program holds, 16 bytes follow, of which the last
 * `header_len` are the header of the frame that a server sends (RFC 6455 section 5.2), and then the
 * payload.
 */
typedef struct rws_message {
    uint8_t layout;     /* RWS_MESSAGE_LAYOUT of the header that it was made with */
    uint8_t form;       /* RWS_MESSAGE_CONSTANT, or the library's own */
    uint8_t opcode;     /* RWS_TEXT or RWS_BINARY */
    uint8_t header_len; /* of the frame: 2, 4 or 10 */
    uint32_t len;       /* bytes of the payload */
} rws_message;

#define RWS_MESSAGE_LAYOUT   1
#define RWS_MESSAGE_CONSTANT 1

#ifdef __cplusplus
}
#endif

#endif
