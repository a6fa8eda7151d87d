/*
 * Sending without a copy (IORING_OP_SEND_ZC): the network card reads what is lent where it lies.
 *
 * A zero-copy send has two completions: its result, and, when the peer has the bytes, a
 * notification. Until then the kernel is one more holder of what is lent. It has at most one such
 * loan of a stream: what is sent meanwhile is sent plainly, so that a stream needs no list
 * of them, and holds no more than one message beyond its queue.
 *
 * Where there is no card that can do it, loopback above all, the kernel copies all the same, and
 * the notification says so: then it was only work. So it is not tried where the address says that
 * it is in vain, and given up on a stream with the first such report, or when the kernel can't
 * do it at all.
 *
 * Payloads lie in memory that is registered with the ring from the first notification on that
 * reports no copy (registered.h). For other sends the pages are pinned for their time, against the
 * limit of locked memory (RLIMIT_MEMLOCK).
 */
#include "engine/base/loopback.h"
#include "engine/stream/internal.h"

#include <errno.h>

/* Below, what is spared is less than what is added: pinning the pages, a second completion, and
 * memory that is in use for a round trip longer. The kernel's documentation of MSG_ZEROCOPY names
 * 10 KB for one send; with the room for what can't be measured without a card, 64 KiB, where a copy
 * costs several microseconds. */
#define ZERO_COPY_MIN 65536u

static bool is_in_vain(rws__stream *stream)
{
    if (stream->no_card) return true;
    if (!stream->has_cold) return false;
    const rws__stream_cold *cold = rws__stream_cold_part(stream);
    /* An address that is not known is no reason to ask for it: one report says as much. */
    return cold->zero_copy_off || cold->kernel_loan != NULL ||
           rws__is_loopback(&cold->peer.generic);
}

bool rws__stream_may_zero_copy(rws__stream *stream, size_t len)
{
    return len >= ZERO_COPY_MIN && (stream->streams->loop->features & RWS__FEATURE_SEND_ZC) &&
           rws__sendq_lender(&stream->sendq) != NULL && !is_in_vain(stream);
}

/* The kernel reads what is at the front of the queue. */
static void lend_to_kernel(rws__stream *stream, int32_t entry)
{
    rws__stream_cold *cold = rws__stream_cold_part(stream);
    rws__lender *lender = rws__sendq_lender(&stream->sendq);
    RWS_ASSERT(cold->kernel_loan == NULL && lender != NULL);
    lender->ops->retain(lender);
    cold->kernel_loan = lender;
    cold->kernel_entry = entry;
    cold->zero_copy_sent = false;
    stream->ops++; /* for the notification */
    rws__count(&stream->streams->loop->counters.sends_zero_copy, 1);
}

int rws__stream_send_zero_copy(rws__stream *stream, const uint8_t *data, size_t len,
                               uint64_t user_data)
{
    rws__streams *streams = stream->streams;
    rws__ring *ring = streams->loop->ring;
    uint32_t file = (uint32_t)stream->file;
    int32_t entry = rws__registered_begin(&streams->registered, data, len);
    int res = entry == RWS__NOT_REGISTERED
                  ? rws__ring_send_zero_copy(ring, file, data, len, user_data)
                  : rws__ring_send_registered(ring, file, data, len, (uint32_t)entry, user_data);
    if (res == 0)
        lend_to_kernel(stream, entry);
    else
        rws__registered_end(&streams->registered, entry);
    return res;
}

bool rws__stream_lends_to_kernel(const rws__stream *stream)
{
    return stream->has_cold && rws__stream_cold_of(stream)->kernel_loan != NULL;
}

static void end_loan(rws__stream *stream)
{
    rws__stream_cold *cold = rws__stream_cold_part(stream);
    rws__lender *lender = cold->kernel_loan;
    cold->kernel_loan = NULL;
    stream->ops--;
    /* First: what gives the block back finds out whether anything reads its region. */
    rws__registered_end(&stream->streams->registered, cold->kernel_entry);
    rws__lender_release(lender);
    /* It may be what draining waits for. */
    if (stream->phase == RWS__STREAM_FLUSHING) rws__stream_mark_dirty(stream);
}

static void give_up(rws__stream *stream)
{
    rws__stream_cold *cold = rws__stream_cold_part(stream);
    if (cold->zero_copy_off) return;
    cold->zero_copy_off = true;
    rws__count(&stream->streams->loop->counters.zero_copy_given_up, 1);
}

int32_t rws__stream_end_zero_copy(rws__stream *stream, int32_t res, bool more)
{
    rws__stream_cold *cold = rws__stream_cold_part(stream);
    if (res > 0) cold->zero_copy_sent = true;
    /* None follows; the kernel has nothing. */
    if (!more && cold->kernel_loan != NULL) end_loan(stream);
    switch (-res) {
    case ENOMEM:  /* the limit of locked memory, which is the user's and not the connection's */
    case ENOBUFS: /* likewise, as a socket's */
    case EOPNOTSUPP:
    case EINVAL:
    case EFAULT: /* memory that can be read and not pinned, by the program's allocator */
        give_up(stream);
        return -EAGAIN;
    default: return res;
    }
}

void rws__stream_abandon_loan(rws__stream *stream)
{
    if (rws__stream_lends_to_kernel(stream)) end_loan(stream);
}

void rws__stream_on_notification(rws__stream *stream, bool copied)
{
    if (!rws__stream_lends_to_kernel(stream)) return;
    /* Of what was never sent the kernel says that it was copied. */
    if (copied && rws__stream_cold_part(stream)->zero_copy_sent) give_up(stream);
    if (!copied) rws__registered_start(&stream->streams->registered);
    end_loan(stream);
}
