/*
 * Kernel features that can be switched off. Each is used only where the kernel has it. The public
 * API knows them by name (rws_feature_at()).
 */
#ifndef RINGWS_BASE_FEATURES_H
#define RINGWS_BASE_FEATURES_H

#include <stddef.h>
#include <stdint.h>

#define RWS__FEATURE_INCREMENTAL_BUFFERS (1u << 0) /* IOU_PBUF_RING_INC, 6.12 */
#define RWS__FEATURE_MULTISHOT_ACCEPT    (1u << 1) /* off: single accepts that bring the address */
#define RWS__FEATURE_SOCKET_COMMANDS     (1u << 2) /* on the ring, 6.7: getsockopt, SIOCOUTQ */
#define RWS__FEATURE_SKIP_SUCCESS        (1u << 3) /* IOSQE_CQE_SKIP_SUCCESS on sends */
#define RWS__FEATURE_DIRECT_LARGE        (1u << 4) /* large messages into their own memory */
#define RWS__FEATURE_MULTISHOT_RECV      (1u << 5) /* off: one receive at a time */
#define RWS__FEATURE_SEND_ZC             (1u << 6) /* sends without a copy, 6.2 or later 6.1 */
#define RWS__FEATURE_REGISTERED_BUFFERS  (1u << 7) /* what they read is registered */
#define RWS__FEATURE_ALL                 ((1u << 8) - 1)

/* The bits of a list of names that are separated by commas, or "all". NULL: none. Returns 0, or
 * RWS_E_OPTION with the first unknown name in `*unknown` (`*len` bytes). */
int rws__features_parse(uint32_t *bits, const char *list, const char **unknown, size_t *len);

/* Write the names of `bits`, separated by commas. */
void rws__features_write(uint32_t bits, char *out, size_t size);

#endif
