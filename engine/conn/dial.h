/*
 * What a connection that is dialled wants: where it goes, and the request that it sends there.
 */
#ifndef RINGWS_CONN_DIAL_H
#define RINGWS_CONN_DIAL_H

#include "codec/handshake.h"
#include "engine/base/env.h"
#include "engine/conn/endpoint.h"

#include <sys/socket.h>

typedef struct rws__dial {
    const rws__endpoint *endpoint;
    struct sockaddr_storage address;
    socklen_t address_len;
    char *authority;
    char *target;
    char *subprotocols_text;
    rws_span subprotocols;
    char key[RWS__KEY_BYTES];
    const struct rws__filter_maker
        *filters;        /* of its stream: the place of TLS and CONNECT; or NULL */
    uint32_t timeout_ms; /* from the dial to on_open */
    size_t head_bytes_max;
    void *user;
} rws__dial;

void rws__dial_free(const rws__env *env, rws__dial *dial);

#endif
