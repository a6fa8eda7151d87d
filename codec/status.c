/* Status codes to text. Constant strings only, so that any thread may ask at any time. */
#include "codec/errno_text.h"
#include "ringws/types.h"

#include <stddef.h>

#define ERRNO_MAX 4095 /* what the kernel's ABI keeps for -errno */

const char *rws_strerror(int status)
{
    if (status < 0 && status >= -ERRNO_MAX) {
        const char *text = rws__errno_text(-status);
        return text != NULL ? text : "unknown status";
    }

    switch (status) {
    case RWS_OK: return "success";
#define STATUS_TEXT(name, value, text)                                                             \
    case name: return text;
        RWS_STATUS_MAP(STATUS_TEXT)
#undef STATUS_TEXT
    default: return "unknown status";
    }
}

const char *rws_version(void)
{
    return RWS_VERSION_STRING;
}
