/*
 * `ringws serve`: what its callbacks and its main program share.
 */
#ifndef RINGWS_TOOLS_SERVE_H
#define RINGWS_TOOLS_SERVE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "ringws/ringws.h"

/* What is done with a message. */
typedef enum serve_mode {
    SERVE_ECHO,
    SERVE_BROADCAST,
    SERVE_OTHER,  /* for benchmarks: a message of the same length and other bytes */
    SERVE_COPIED, /* likewise, with rws_conn_send() */
} serve_mode;

/* The byte that SERVE_OTHER answers with; `ringws load --expect-other` checks it. */
enum { SERVE_OTHER_BYTE = 'o' };

/* One shard's part, touched by its loop thread only. */
typedef struct serve_shard {
    _Alignas(64) rws_conn **conns; /* broadcast: the open ones; conn_user is the index */
    uint32_t conns_count;
    uint32_t conns_capacity;
    uint8_t *bytes; /* SERVE_OTHER, SERVE_COPIED: `bytes_len` of the other bytes */
    size_t bytes_len;
    rws_message *other; /* SERVE_OTHER: the last answer, or NULL */
} serve_shard;

typedef struct serve_context {
    serve_mode mode;
    rws_server *server;
    serve_shard *shards;
    uint32_t shards_count;
    /* Messages that were not passed on because a queue was full; rare, so any thread counts. */
    atomic_uint_fast64_t refused;
} serve_context;

/** Make the shards' parts; the server exists and has not started. Returns 0 or -ENOMEM. */
int serve_context_init(serve_context *context, rws_server *server);

/** The server is destroyed. */
void serve_context_free(serve_context *context);

/** The callbacks of `mode`; their `user` is the serve_context. */
rws_handler serve_handler(serve_mode mode);

#endif
