/*
 * An endpoint: what a connection is for, and its rules. A listener's connections get theirs when
 * the path of their request is known; a dialled one has it from the start.
 */
#ifndef RINGWS_CONN_ENDPOINT_H
#define RINGWS_CONN_ENDPOINT_H

#include "codec/message.h"
#include "ringws/ringws.h"

typedef struct rws_endpoint rws__endpoint;

struct rws_endpoint {
    const rws_runtime *runtime; /* whose it is; never looked into */
    rws_handler handler;
    void *user;
    rws__message_rules rules; /* the role too */
    size_t send_queue_bytes_max;
    size_t high_watermark_bytes;
    size_t low_watermark_bytes;
    uint32_t message_timeout_ms;
    uint32_t close_timeout_ms;
    uint32_t progress_bytes_per_s_min; /* of a message that is being received */
    bool fixed_mask_key;
    char *path;     /* owned, as are all strings; NULL: every path that no other one has */
    char **origins; /* allowed ones; none: all */
    uint32_t origins_count;
    char **subprotocols; /* in the order of preference */
    uint32_t subprotocols_count;
};

/* What a listener's connections have in common before they have an endpoint. */
typedef struct rws__http_rules {
    size_t head_bytes_max;
    uint32_t timeout_ms;             /* of the handshake, from accept */
    uint32_t headers_max;            /* so many are stored */
    const rws__endpoint **endpoints; /* owned */
    uint32_t endpoints_count;
} rws__http_rules;

/* The endpoint of a path, or NULL. */
const rws__endpoint *rws__http_route(const rws__http_rules *rules, rws_span path);

#endif
