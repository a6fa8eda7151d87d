#include "engine/prepared.h"

#include "engine/conn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void release(rws__lender *lender)
{
    rws_prepared_release((rws_prepared *)lender);
}

static void retain(rws__lender *lender)
{
    (void)rws_prepared_retain((rws_prepared *)lender);
}

static const rws__lender_ops prepared_ops = {.release = release, .retain = retain};

int rws_prepared_create(rws_prepared **out, const rws_allocator *allocator, rws_opcode opcode,
                        const void *data, size_t len)
{
    *out = NULL;
    if (!rws__may_send(opcode, data, len)) return RWS_E_ARGUMENT;
    if (allocator != NULL && (allocator->alloc == NULL || allocator->release == NULL))
        return RWS_E_ARGUMENT;
    rws__frame frame = {.payload_len = len, .opcode = (uint8_t)opcode, .fin = true};
    size_t header = rws__frame_header_len(len, false);
    size_t bytes = sizeof(rws_prepared) + header + len;
    rws_prepared *prepared =
        allocator != NULL ? allocator->alloc(bytes, allocator->user) : malloc(bytes);
    if (prepared == NULL) return -ENOMEM;
    *prepared = (rws_prepared){
        .lender = {&prepared_ops},
        .len = (uint32_t)len,
        .opcode = (uint8_t)opcode,
        .header_len = (uint8_t)header,
    };
    if (allocator != NULL) prepared->allocator = *allocator;
    atomic_init(&prepared->refs, 1);
    rws__frame_write(prepared->frame, &frame);
    if (len > 0) memcpy(prepared->frame + header, data, len);
    *out = prepared;
    return 0;
}

rws_prepared *rws_prepared_retain(rws_prepared *prepared)
{
    /* Relaxed: whoever adds a holder is one already. */
    atomic_fetch_add_explicit(&prepared->refs, 1, memory_order_relaxed);
    return prepared;
}

void rws_prepared_release(rws_prepared *prepared)
{
    if (prepared == NULL) return;
    /* Release, then acquire by the last: the memory is given back after everybody's reads. */
    if (atomic_fetch_sub_explicit(&prepared->refs, 1, memory_order_acq_rel) != 1) return;
    const rws_allocator *allocator = &prepared->allocator;
    if (allocator->release != NULL)
        allocator->release(prepared, sizeof(rws_prepared) + prepared->header_len + prepared->len,
                           allocator->user);
    else
        free(prepared);
}
