/*
 * What a connection that is dialled wants: where it goes, and the request that it sends there.
 *
 * A host may have several addresses. Where one can't be connected to the next has its turn, on a
 * connection of its own when that of the one before is gone, with what is left of the one deadline.
 * The program hears of the dial once.
 */
#ifndef RINGWS_CONN_DIAL_H
#define RINGWS_CONN_DIAL_H

#include "codec/handshake.h"
#include "engine/base/cause.h"
#include "engine/base/counters.h"
#include "engine/base/env.h"
#include "engine/conn/endpoint.h"
#include "engine/ring/sockets.h"
#include "engine/stream/filter.h"

#define RWS__DIAL_HEADERS_MAX   4096u /* bytes of header lines that a program may add */
#define RWS__DIAL_ADDRESSES_MAX 8u    /* of a host: more are not tried */

struct rws__conns;

typedef struct rws__dial {
    const rws__endpoint *endpoint;
    uint64_t id; /* of rws_client_cancel() */
    /* Start it on its loop with the address in turn: the dial is *taken*. */
    void (*start)(struct rws__dial *dial, struct rws__conns *conns);
    rws__socket_address addresses[RWS__DIAL_ADDRESSES_MAX]; /* the preferred one first */
    uint32_t addresses_count;
    uint32_t failed;          /* so many could not be connected to: the next one has its turn */
    rws__cause first_failure; /* why the first one could not */
    rws__socket_options socket;
    char *authority; /* owned, as are the other strings */
    char *target;
    char *host;
    rws__filter_target server; /* that host, and its port */
    char *subprotocols_text, *origin_text;
    rws_span subprotocols, origin;
    char key[RWS__KEY_BYTES];
    const rws__filter_maker *filters; /* of its stream: the place of TLS and CONNECT; or NULL */
    uint32_t timeout_ms;              /* from the dial to on_open */
    uint64_t deadline_ms;             /* that, on the loop's clock; 0: it was not started yet */
    size_t head_bytes_max;
    void *user;
    size_t headers_len;
    uint8_t headers[RWS__DIAL_HEADERS_MAX]; /* complete lines */
} rws__dial;

/* The request that it sends; it borrows the dial's strings. */
rws__handshake_request rws__dial_request(const rws__dial *dial);
static inline const rws__socket_address *rws__dial_address(const rws__dial *dial)
{
    return &dial->addresses[dial->failed];
}
/* The address in turn can't be connected to, for `cause`, whose text is a constant. Whether there
 * is another one: it has its turn then. */
bool rws__dial_go_on(rws__dial *dial, const rws__cause *cause);

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
