#include "engine/base/share.h"

#include "engine/base/assert.h"

/* A record of a few bytes, in blocks of two stacked filters. */
#define WIRE_BYTES_MIN 512u

void rws__share_init(rws__share *share, size_t bytes, uint32_t holders_max)
{
    RWS_ASSERT(holders_max > 0);
    *share = (rws__share){
        .bytes = bytes,
        .common_bytes = bytes / 2 + bytes / 16 * 3,
        .minimum_bytes = bytes / 4 / holders_max,
        .pong_bytes = bytes / 32 / holders_max,
        .wire_bytes = bytes / 8 / holders_max,
    };
    if (share->wire_bytes < WIRE_BYTES_MIN) share->wire_bytes = WIRE_BYTES_MIN;
}

bool rws__share_allows(const rws__share *share, size_t used, size_t held, size_t more,
                       rws__share_use use)
{
    RWS_ASSERT(held <= used + share->wire_bytes && used <= share->bytes);
    if (more > share->bytes - used) return false;
    if (use == RWS__SHARE_ONCE) return true;
    if (use == RWS__SHARE_WIRE) return held + more <= share->wire_bytes;
    size_t now = used + more, mine = held + more;
    if (now <= share->bytes / 2) return true;
    if (now <= share->common_bytes && mine <= share->common_bytes - now) return true;
    size_t promised = share->minimum_bytes;
    if (use == RWS__SHARE_PONG) promised += share->pong_bytes;
    return mine <= promised;
}
