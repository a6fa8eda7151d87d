/*
 * What an operation in the ring belongs to: `user_data` = kind (8 bits), slot (24), generation
 * (32).
 *
 * A completion whose generation is not its slot's any more belongs to a connection that is gone,
 * and is dropped. In practice a slot is freed only after its last completion, so such a completion
 * would be an error of ours; the generation makes it harmless, and it is what handles are made of.
 */
#ifndef RINGWS_LOOP_OP_H
#define RINGWS_LOOP_OP_H

#include <stdint.h>

typedef enum rws__op_kind {
    RWS__OP_NONE = 0, /* nobody waits for the completion */
    RWS__OP_ACCEPT,
    RWS__OP_WAKE,
    RWS__OP_TICK,
    /* of a stream: slot and generation count */
    RWS__OP_RECV,
    RWS__OP_SEND,
    RWS__OP_SHUTDOWN,
    RWS__OP_CLOSE,
    RWS__OP_INSTALL,
    RWS__OP_CONNECT,
    RWS__OP_ASK, /* how many bytes the peer has not acknowledged */
} rws__op_kind;

#define RWS__SLOT_BITS 24
#define RWS__SLOTS_MAX (1u << RWS__SLOT_BITS)

static inline uint64_t rws__op_pack(rws__op_kind kind, uint32_t slot, uint32_t generation)
{
    return (uint64_t)kind << 56 | (uint64_t)slot << 32 | generation;
}

static inline rws__op_kind rws__op_kind_of(uint64_t user_data)
{
    return (rws__op_kind)(user_data >> 56);
}

static inline uint32_t rws__op_slot(uint64_t user_data)
{
    return (uint32_t)(user_data >> 32) & (RWS__SLOTS_MAX - 1);
}

static inline uint32_t rws__op_generation(uint64_t user_data)
{
    return (uint32_t)user_data;
}

#endif
