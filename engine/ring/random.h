/*
 * Random bytes of the engine, a part of the ring seam: a simulation that replaces them can be
 * repeated. There is one source per process, as with the clock.
 */
#ifndef RINGWS_RING_RANDOM_H
#define RINGWS_RING_RANDOM_H

#include <stddef.h>

/* Cryptographically random bytes: masking keys (RFC 6455 section 5.3) and handshake keys. Any
 * thread. */
void rws__random(void *out, size_t len);

#endif
