/* WebSocket URLs, RFC 6455 section 3: ws://HOST[:PORT][/PATH][?QUERY], and ws+unix://PATH[:TARGET].
 */
#ifndef RINGWS_CODEC_URL_H
#define RINGWS_CODEC_URL_H

#include "ringws/types.h"

typedef struct rws__url {
    bool is_unix;
    uint16_t port;
    char host[256];      /* without brackets; for a unix socket its path */
    char target[2048];   /* "/" if the URL has none */
    char authority[272]; /* the Host header's value */
} rws__url;

/* Returns 0 or RWS_E_URL. */
int rws__url_parse(rws__url *url, const char *text);

#endif
