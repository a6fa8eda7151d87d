/*
 * A prepared message: one frame in memory, with as many holders as want to send it. The only thing
 * that shards share on the hot path, and it is read-only but for its count.
 */
#ifndef RINGWS_CONN_PREPARED_H
#define RINGWS_CONN_PREPARED_H

#include "codec/frame.h"
#include "engine/base/lender.h"
#include "ringws/ringws.h"

#include <stdatomic.h>

struct rws_prepared {
    rws__lender lender;
    rws_allocator allocator;
    atomic_uint refs;
    uint32_t len; /* of the payload */
    uint8_t opcode;
    uint8_t header_len; /* of the frame */
    uint8_t frame[];    /* header and payload, as a server sends them */
};

/* The lender for one more holder. */
static inline rws__lender *rws__prepared_lend(rws_prepared *prepared)
{
    return &rws_prepared_retain(prepared)->lender;
}

#endif
