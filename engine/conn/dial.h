/*
 * What a connection that is dialled wants: where it goes, and the request that it sends there.
 */
#ifndef RINGWS_CONN_DIAL_H
#define RINGWS_CONN_DIAL_H

#include "codec/handshake.h"
#include "engine/base/cause.h"
#include "engine/base/counters.h"
#include "engine/base/env.h"
#include "engine/conn/endpoint.h"
#include "engine/stream/filter.h"

#include <sys/socket.h>

#define RWS__DIAL_HEADERS_MAX 4096u /* bytes of header lines that a program may add */

typedef struct rws__dial {
    const rws__endpoint *endpoint;
    uint64_t id; /* of rws_client_cancel() */
    struct sockaddr_storage address;
    socklen_t address_len;
    char *authority; /* owned, as are the other strings */
    char *target;
    char *host;
    rws__filter_target server; /* that host, and its port */
    char *subprotocols_text, *origin_text;
    rws_span subprotocols, origin;
    char key[RWS__KEY_BYTES];
    const rws__filter_maker *filters; /* of its stream: the place of TLS and CONNECT; or NULL */
    uint32_t timeout_ms;              /* from the dial to on_open */
    size_t head_bytes_max;
    void *user;
    size_t headers_len;
    uint8_t headers[RWS__DIAL_HEADERS_MAX]; /* complete lines */
} rws__dial;

/* The request that it sends; it borrows the dial's strings. */
rws__handshake_request rws__dial_request(const rws__dial *dial);
/* It did not lead to an open connection: count that and tell the program. */
void rws__dial_fail(const rws__dial *dial, rws__counters *counters, const rws__cause *cause);
void rws__dial_free(const rws__env *env, rws__dial *dial);

/* A handshake, dialled or accepted, failed for `status`. What a deadline ended counts as that
 * alone.
 */
static inline void rws__count_refused(rws__counters *counters, int status)
{
    if (status != RWS_E_TIMEOUT) rws__count(&counters->refused, 1);
}

#endif
