#include "engine/ring/random.h"

#include "engine/base/assert.h"

#include <errno.h>
#include <stdint.h>
#include <sys/random.h>

void rws__random(void *out, size_t len)
{
    uint8_t *at = out;
    while (len > 0) {
        ssize_t got = getrandom(at, len, 0);
        if (got < 0) {
            RWS_ASSERT(errno == EINTR); /* cannot fail on the kernels that have io_uring */
            continue;
        }
        at += got;
        len -= (size_t)got;
    }
}
