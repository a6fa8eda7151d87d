/*
 * Whoever lends bytes to a send queue: a payload, a provided buffer, a prepared message. The bytes
 * stay as they are until release() was called, once per loan.
 */
#ifndef RINGWS_BASE_LENDER_H
#define RINGWS_BASE_LENDER_H

#include <stdbool.h>

typedef struct rws__lender {
    void (*release)(struct rws__lender *lender);
    void (*retain)(struct rws__lender *lender); /* one more loan; NULL if for_this_turn */
    bool for_this_turn; /* wanted back soon: bytes that can't be sent in this turn are copied */
} rws__lender;

#endif
