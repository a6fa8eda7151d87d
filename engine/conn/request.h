/*
 * An upgrade request, from its head to the answer: the steps are reading (the connection collects
 * the head), deciding (on_upgrade, and as long as the program takes for it) and answering. It is in
 * the pool for partial messages while it is decided.
 *
 * A request that is decided later is the program's until it calls rws__request_answer(), which it
 * does exactly once and on the loop's thread, also when the connection is gone by then: its end
 * (the client, the deadline, a drain) only calls what rws_request_set_user() left.
 */
#ifndef RINGWS_CONN_REQUEST_H
#define RINGWS_CONN_REQUEST_H

#include "engine/conn/conn.h"

#include <limits.h>

#define RWS__EXTRA_MAX 4096u /* bytes of headers that a program may add */
#define RWS__BODY_MAX  4096u /* of a refusal */

/* What on_upgrade returns when the program decides later: no status, and nothing that a program
 * returns by the public header. */
#define RWS__REQUEST_DEFERRED INT_MIN

struct rws_request {
    rws_conn *conn; /* NULL: it ended before the answer */
    rws__pool *pool;
    rws__http_head head;
    rws__payload *bytes;              /* what the head's spans point into, if it is kept; or NULL */
    rws__http_header *headers;        /* likewise, from the pool; or NULL */
    void *user;                       /* of the connection to be */
    void (*release_user)(void *user); /* if no on_open follows; or NULL */
    bool in_callback;
    bool decided;
    int decision;
    rws_span subprotocol; /* borrowed from the request */
    int refuse_status;
    size_t extra_len;
    size_t body_len;
    bool has_body;
    uint8_t extra[RWS__EXTRA_MAX];
    char body[RWS__BODY_MAX];
};

/* The program has decided: 0 accepts, a negative status refuses. The request (*taken*) is answered
 * at the end of the turn: no callback comes from within this call. */
void rws__request_answer(rws_request *request, int decision);

#endif
