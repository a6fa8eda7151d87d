/*
 * An upgrade request that a program is asked about, from on_upgrade to the answer. It is in the
 * pool for partial messages, as are its copy of the head and what the answer is to say, each taken
 * when there is something of it. What requests that are decided later have of the pool is bounded,
 * so that clients can't fill it with them: beyond the bound the next one is refused with 503.
 *
 * A request is its connection's, and freed when it is answered or the connection ends (the end of
 * the client's half or a reset; the handshake's deadline or a drain, both with 503), which calls
 * what rws_request_set_user() left. A program that decides later keeps its id, on any thread, and
 * looks it up on the loop's: rws__conns_find_request().
 */
#ifndef RINGWS_CONN_REQUEST_H
#define RINGWS_CONN_REQUEST_H

#include "engine/conn/conn.h"

#include <limits.h>

/* Requests that are decided later may have one in so many bytes of the pool's budget. */
#define RWS__REQUESTS_SHARE 4u

#define RWS__EXTRA_MAX 4096u /* bytes of headers that a program may add */
#define RWS__BODY_MAX  4096u /* of an answer that is not the 101 */

/* When more than so much of what a client sends while its request is decided was received, it has
 * to wait, and whether it has left is not noticed any more. */
#define RWS__EARLY_MAX 4096u

/* What on_upgrade returns when the program decides later: no status, and nothing that a program
 * returns by the public header. */
#define RWS__REQUEST_DEFERRED INT_MIN

typedef enum rws__request_step {
    RWS__REQUEST_READING = 0, /* on_upgrade reads the head where it was received */
    RWS__REQUEST_DECIDING,    /* it was left for later, and has a copy of its head */
    RWS__REQUEST_ANSWERING, /* it was decided, and is answered at once or at the end of the turn */
    RWS__REQUEST_STEPS
} rws__request_step;

struct rws_request {
    rws_conn *conn;
    uint8_t step; /* a rws__request_step, changed by rws__request_enter() alone */
    rws__http_head head;
    rws__payload *bytes;              /* what the head's spans point into, if it is kept; or NULL */
    rws__http_header *headers;        /* likewise, from the pool; or NULL */
    void *user;                       /* of the connection to be */
    void (*release_user)(void *user); /* if no on_open follows; or NULL */
    int decision;                     /* ANSWERING */
    rws_span subprotocol;             /* borrowed from the request */
    int status;           /* of an answer that is not the 101; 0: the program did not say */
    rws__payload *early;  /* what was received behind the head; or NULL */
    rws__payload *extra;  /* complete header lines of the answer; or NULL */
    rws__payload *body;   /* of an answer that is not the 101; or NULL */
    size_t counted_bytes; /* how much of the shard's `request_bytes` it is */
};

static_assert(sizeof(rws_request) <= 512, "a block of the pool");

void rws__request_enter(rws_request *request, rws__request_step step);

/* Count what it has of the pool, from when it is left for later. False: all of them together have
 * more than their share, and it is not the only one. */
bool rws__request_count(rws_request *request);

static inline rws_span rws__payload_span(const rws__payload *payload)
{
    rws_span none = {NULL, 0};
    return payload != NULL ? (rws_span){(const char *)payload->data, payload->len} : none;
}

/* The id that rws_conn_id() will give, if it is accepted. */
uint64_t rws__request_id(const rws_request *request);

/* The program has decided what it left for later: 0 accepts, a negative status refuses. It is
 * answered at the end of the turn: no callback comes from within this call. Returns 0, RWS_E_STATE
 * (within on_upgrade, or a second time) or RWS_E_ARGUMENT (a positive value). */
int rws__request_answer(rws_request *request, int decision);

#endif
