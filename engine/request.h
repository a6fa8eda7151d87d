/*
 * The upgrade request that on_upgrade sees, and what it says about the answer. It lives on the
 * stack for the length of the callback.
 */
#ifndef RINGWS_ENGINE_REQUEST_H
#define RINGWS_ENGINE_REQUEST_H

#include "engine/conn.h"

#define RWS__EXTRA_MAX 4096u /* bytes of headers that a program may add */
#define RWS__BODY_MAX  4096u /* of a refusal */

struct rws_request {
    rws_conn *conn;
    const rws__http_head *head;
    rws_span subprotocol; /* borrowed from the request */
    int refuse_status;
    size_t extra_len;
    size_t body_len;
    bool has_body;
    uint8_t extra[RWS__EXTRA_MAX];
    char body[RWS__BODY_MAX];
};

#endif
