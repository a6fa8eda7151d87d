/*
 * Why something ended, given once, where it is known. A dial's error, on_close and the counters
 * read it there; where a filter failed, a log line too, because on_close has no place for the text
 * of an end without a close frame.
 */
#ifndef RINGWS_BASE_CAUSE_H
#define RINGWS_BASE_CAUSE_H

#include "ringws/ringws.h"

#include <stddef.h>
#include <string.h>

typedef struct rws__cause {
    int status;    /* 0: a closing handshake; else a negative status */
    uint16_t code; /* RFC 6455 section 7.4.1; 1006: no close frame */
    rws_closer who;
    rws_span text; /* the reason of a close frame, or a sentence of ours; borrowed. NULL: what
                      rws_strerror() says of `status` */
} rws__cause;

/* An end without a close frame. `text` is borrowed, and may be NULL. */
static inline rws__cause rws__cause_abnormal(int status, rws_closer who, const char *text)
{
    return (rws__cause){status, RWS_CLOSE_ABNORMAL, who, {text, text != NULL ? strlen(text) : 0}};
}

#endif
