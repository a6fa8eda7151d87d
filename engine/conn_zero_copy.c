/*
 * Sending without a copy (IORING_OP_SEND_ZC): the network card reads what is lent where it lies.
 *
 * A zero-copy send has two completions: its result, and, when the peer has the bytes, a
 * notification. Until then the kernel is one more holder of what is lent. It has at most one such
 * loan of a connection: what is sent meanwhile is sent plainly, so that a connection needs no list
 * of them, and holds no more than one message beyond its queue.
 *
 * Where there is no card that can do it, loopback above all, the kernel copies all the same, and
 * the notification says so: then it was only work. So it is not tried where the address says that
 * it is in vain, and given up on a connection with the first such report, or when the kernel can't
 * do it at all.
 *
 * The memory is not registered: the pages of each send are pinned for its time, against the limit
 * of locked memory (RLIMIT_MEMLOCK).
 */
#include "engine/base/assert.h"
#include "engine/conn.h"
#include "engine/base/loopback.h"
#include "engine/shard.h"

#include <errno.h>

/* Below, what is spared is less than what is added: pinning the pages, a second completion, and
 * memory that is in use for a round trip longer. The kernel's documentation of MSG_ZEROCOPY names
 * 10 KB for one send; with the room for what can't be measured without a card, 64 KiB, where a copy
 * costs several microseconds. */
#define ZERO_COPY_MIN 65536u

static bool is_in_vain(rws_conn *conn)
{
    const rws__shard *shard = conn->shard;
    if (shard->listener.loopback || shard->config->unix_path != NULL) return true;
    if (!conn->has_cold) return false;
    const rws__conn_cold *cold = &shard->cold[conn->slot];
    /* An address that is not known is no reason to ask for it: one report says as much. */
    return cold->zero_copy_off || cold->kernel_loan != NULL ||
           rws__is_loopback(&cold->peer.generic);
}

bool rws__conn_may_zero_copy(rws_conn *conn, size_t len)
{
    return len >= ZERO_COPY_MIN && (conn->shard->features & RWS_FEATURE_SEND_ZC) &&
           rws__sendq_lender(&conn->sendq) != NULL && !is_in_vain(conn);
}

void rws__conn_lend_to_kernel(rws_conn *conn)
{
    rws__conn_cold *cold = rws__conn_cold_part(conn);
    rws__lender *lender = rws__sendq_lender(&conn->sendq);
    RWS_ASSERT(cold->kernel_loan == NULL && lender != NULL);
    lender->ops->retain(lender);
    cold->kernel_loan = lender;
    cold->zero_copy_sent = false;
    conn->ops++; /* for the notification */
    rws__count(&conn->shard->counters.sends_zero_copy, 1);
}

bool rws__conn_lends_to_kernel(const rws_conn *conn)
{
    return conn->has_cold && conn->shard->cold[conn->slot].kernel_loan != NULL;
}

static void end_loan(rws_conn *conn)
{
    rws__conn_cold *cold = rws__conn_cold_part(conn);
    rws__lender *lender = cold->kernel_loan;
    cold->kernel_loan = NULL;
    conn->ops--;
    rws__lender_release(lender);
    /* It may be what draining waits for. */
    if (conn->state == RWS__CONN_DRAINING) rws__conn_mark_dirty(conn);
}

static void give_up(rws_conn *conn)
{
    rws__conn_cold *cold = rws__conn_cold_part(conn);
    if (cold->zero_copy_off) return;
    cold->zero_copy_off = true;
    rws__count(&conn->shard->counters.zero_copy_given_up, 1);
}

int32_t rws__conn_end_zero_copy(rws_conn *conn, int32_t res, bool more)
{
    rws__conn_cold *cold = rws__conn_cold_part(conn);
    if (res > 0) cold->zero_copy_sent = true;
    /* None follows; the kernel has nothing. */
    if (!more && cold->kernel_loan != NULL) end_loan(conn);
    switch (-res) {
    case ENOMEM:  /* the limit of locked memory, which is the user's and not the connection's */
    case ENOBUFS: /* likewise, as a socket's */
    case EOPNOTSUPP:
    case EINVAL:
    case EFAULT: /* memory that can be read and not pinned, by the program's allocator */
        give_up(conn);
        return -EAGAIN;
    default: return res;
    }
}

void rws__conn_on_notification(rws_conn *conn, bool copied)
{
    if (!rws__conn_lends_to_kernel(conn)) return;
    /* Of what was never sent the kernel says that it was copied. */
    if (copied && rws__conn_cold_part(conn)->zero_copy_sent) give_up(conn);
    end_loan(conn);
}
