/*
 * Whoever lends bytes to a send queue: a message, a provided buffer. The bytes stay as they are
 * until release() was called, once per loan.
 */
#ifndef RINGWS_BASE_LENDER_H
#define RINGWS_BASE_LENDER_H

#include <stdbool.h>

typedef struct rws__lender rws__lender;

typedef struct rws__lender_ops {
    void (*release)(rws__lender *lender);
    void (*retain)(rws__lender *lender); /* one more loan; NULL if is_transient */
    bool is_transient; /* wanted back soon: bytes that can't be sent in this turn are copied */
} rws__lender_ops;

/* Part of what is lent. */
struct rws__lender {
    const rws__lender_ops *ops;
};

static inline void rws__lender_release(rws__lender *lender)
{
    lender->ops->release(lender);
}

#endif
