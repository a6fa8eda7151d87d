/* user_data: kind, slot and generation, and back. */
#include <criterion/criterion.h>

#include "engine/loop/op.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

Test(engine_op, packs_and_unpacks_every_kind_at_the_edges)
{
    static const uint32_t slots[] = {0, 1, 255, 256, 65536, RWS__SLOTS_MAX - 1};
    static const uint32_t generations[] = {0, 1, 0x7fffffff, 0x80000000, UINT32_MAX};
    for (int kind = RWS__OP_NONE; kind <= RWS__OP_CONNECT; kind++)
        for (size_t s = 0; s < COUNT(slots); s++)
            for (size_t g = 0; g < COUNT(generations); g++) {
                uint64_t data = rws__op_pack((rws__op_kind)kind, slots[s], generations[g]);
                cr_assert_eq((int)rws__op_kind_of(data), kind);
                cr_assert_eq(rws__op_slot(data), slots[s]);
                cr_assert_eq(rws__op_generation(data), generations[g]);
            }
}

Test(engine_op, has_zero_for_nobody)
{
    cr_assert_eq(rws__op_pack(RWS__OP_NONE, 0, 0), 0);
    cr_assert_eq(rws__op_kind_of(0), RWS__OP_NONE);
}
