/*
 * ringws: WebSocket servers and clients on io_uring (Linux 6.1 and later).
 *
 * Life of a server: rws_server_create() makes its shards, rws_server_add_endpoint() says what is
 * served, rws_server_listen() where; rws_server_run() serves until rws_server_stop(), and
 * rws_server_destroy() frees. A client has an endpoint from the start and dials. Both are views of
 * one runtime: every shard is one thread with one ring; a connection belongs to one shard for life,
 * and all its callbacks run there, one at a time.
 *
 * Rules of the callbacks:
 * 1. on_upgrade (server) comes first, and at most once. If it refuses, no other callback follows.
 * 2. on_open comes once, after the handshake.
 * 3. on_message, on_ping, on_pong, on_close_frame and on_drain come between on_open and on_close.
 * 4. on_close comes exactly once for every on_open, whatever the cause, and is the last one. It
 *    comes from the loop, never inside a call that the program made.
 * 5. A callback may call anything on its connection, rws_conn_close() included; effects that would
 *    free it wait until the callback has returned.
 * 6. Data given to a callback is borrowed until it returns.
 *
 * Thread words in the doc blocks: *loop* is the thread that runs the connection's shard; *any* is
 * any thread. A rws_conn is for its loop thread; elsewhere its id (rws_conn_id()) is used with
 * rws_post_…().
 */
#ifndef RINGWS_RINGWS_H
#define RINGWS_RINGWS_H

#include <sys/socket.h>

#include "ringws/message.h"
#include "ringws/types.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct rws_server rws_server;
typedef struct rws_client rws_client;
typedef struct rws_runtime rws_runtime;
typedef struct rws_endpoint rws_endpoint;
typedef struct rws_conn rws_conn;
typedef struct rws_request rws_request;

/* For options that say so: not at all, where 0 means the default. */
#define RWS_NEVER UINT32_MAX

/* Who ended a connection. */
typedef enum rws_closer {
    RWS_CLOSED_BY_US = 0,   /* rws_conn_close(), a limit, a deadline or a drain */
    RWS_CLOSED_BY_PEER = 1, /* its close frame was first, or the transport ended */
} rws_closer;

/* How a connection ended, for on_close. */
typedef struct rws_close_info {
    size_t size; /* of this struct, in the library */
    /* 0: a closing handshake. Else why there was none: RWS_E_CLOSED (the peer ended the transport),
     * RWS_E_TIMEOUT (a deadline, or a drain's), RWS_E_ABORTED (rws_conn_abort()), RWS_E_PROTOCOL,
     * RWS_E_UTF8, RWS_E_TOO_BIG or RWS_E_POLICY (what the peer sent, or a bound), RWS_E_INTERNAL (a
     * callback returned an error), -ENOMEM (a pool was used up), RWS_E_STATE (the loop ended), or
     * -errno of the transport. */
    int status;
    /* What the peer's close frame had (1005: none in it), the code that this side closed with,
     * or 1006: there was no close frame. */
    uint16_t code;
    rws_closer who;
    rws_span reason; /* of that close frame; empty after on_close_frame, which had it */
} rws_close_info;

/*
 * The program's side. Any pointer may be NULL. `user` is the context pointer of the endpoint;
 * `size` is sizeof(rws_handler), set by RWS_HANDLER_DEFAULT: a program that was compiled with an
 * older header has a shorter one, and what that lacks is NULL.
 */
typedef struct rws_handler {
    size_t size;

    /* Before the answer to an upgrade request; the rws_request_…() functions read it and shape the
     * answer. Return 0 to accept it or a negative status to refuse it (with 403, or as
     * rws_request_respond() said). Positive values are reserved: one is refused with 500, and the
     * log says so. */
    int (*on_upgrade)(rws_request *request, void *user);

    void (*on_open)(rws_conn *conn, void *user);

    /* A whole message, *borrowed*: rws_conn_send_message() sends it on without a copy if it is
     * large, rws_message_retain() keeps it. A negative return closes the connection with 1011,
     * unless the callback has closed it. */
    int (*on_message)(rws_conn *conn, const rws_message *message, void *user);

    /* The send queue fell to low_watermark_bytes after it was over high_watermark_bytes or refused
     * a message. */
    void (*on_drain)(rws_conn *conn, void *user);

    void (*on_close)(rws_conn *conn, const rws_close_info *info, void *user);

    /* One that is not NULL takes the place of what the engine does by itself: pings are answered,
     * pongs are ignored, close frames are answered. A negative return closes with 1011
     * (on_close_frame: the engine answers after all). */
    int (*on_ping)(rws_conn *conn, const void *data, size_t len, void *user);
    int (*on_pong)(rws_conn *conn, const void *data, size_t len, void *user);
    int (*on_close_frame)(rws_conn *conn, uint16_t code, rws_span reason, void *user);

    /* A dial did not lead to an open connection. `error` is borrowed; `dial_user` is what the
     * dial's options had. */
    void (*on_dial_error)(const rws_error *error, void *dial_user, void *user);
} rws_handler;

/* clang-format off */
#define RWS_HANDLER_DEFAULT {.size = sizeof(rws_handler)}
/* clang-format on */

/*
 * Options of a runtime: its shards, and the memory that their connections share. Start from
 * RWS_RUNTIME_OPTIONS_DEFAULT; a zero in a field marked (0) takes the default in its comment.
 */
typedef struct rws_runtime_options {
    size_t size;
    uint32_t shards;           /* (0) a server: the CPUs that affinity and the cgroup quota allow; a
                                  client: 1; at most 256 */
    uint32_t connections_max;  /* (0) per shard: 16384, or what the descriptor limit allows */
    size_t recv_buffer_bytes;  /* (0) chosen by the engine */
    uint32_t recv_buffers;     /* (0) chosen by the engine; a power of two */
    size_t partial_bytes_max;  /* (0) 64 MiB per shard: for messages that have not come whole; what
                                  was under way may go over it by a third, or 1 MiB; 16 times as
                                  many addresses are reserved */
    size_t retained_bytes_max; /* (0) 16 MiB per shard, or a quarter of those addresses: messages
                                  that rws_message_retain() keeps where they are; more is copied
                                  with `allocator` */
    size_t send_pool_bytes_max; /* (0) 1 GiB per shard: addresses reserved for queued sends; above
                                   half of it nobody holds more than a fair share */
    uint32_t send_timeout_ms;   /* (0) 30000: a connection whose peer takes less than 1 KiB a second
                                   of what is queued for so long is ended */
    uint32_t linger_timeout_ms; /* (0) 5000: for the peer to end its half after ours, counted from
                                   when it had everything */
    uint32_t drain_timeout_ms;  /* (0) 5000, for all connections after a stop; RWS_NEVER: they are
                                   waited for */
    /* 0: a shard with nothing to do sleeps at once. Otherwise it polls for so long first, so that
     * nothing that comes meanwhile waits for a thread to wake up; it keeps its CPU 100 % busy while
     * it polls, so there should be one for each shard. UINT64_MAX: it never sleeps. */
    uint64_t busy_wait_us;
    const char *features_off; /* kernel features not to be used: names, separated by commas, or
                                 "all"; rws_feature_at() has them. NULL: none */
    const rws_allocator *allocator; /* NULL: malloc */
    rws_log_fn log;                 /* NULL: no log */
    void *log_user;
} rws_runtime_options;

/* clang-format off */
#define RWS_RUNTIME_OPTIONS_DEFAULT {.size = sizeof(rws_runtime_options)}
/* clang-format on */

/*
 * Options of an endpoint: what a connection is for, and its rules. Start from
 * RWS_ENDPOINT_OPTIONS_DEFAULT. Strings and the handler are *copied*.
 */
typedef struct rws_endpoint_options {
    size_t size;
    const rws_handler *handler; /* must be set */
    void *user;                 /* given to every callback */
    rws_role role;              /* RWS_SERVER: for listeners; RWS_CLIENT: for dials */
    const char *path; /* the request's path up to '?', exactly; NULL: every path that no other
                         endpoint has. Servers only */
    uint64_t message_bytes_max;  /* (0) 65536; at most partial_bytes_max and 2^31 - 1 MiB */
    uint32_t fragments_max;      /* (0) 131072 frames of one message */
    size_t send_queue_bytes_max; /* (0) 1 MiB per connection, or what high_watermark_bytes and one
                                    more message of message_bytes_max need */
    size_t high_watermark_bytes; /* (0) 256 KiB: above it a server stops reading from that
                                    connection; a client only gets on_drain */
    size_t low_watermark_bytes;  /* (0) 64 KiB, or the high one if that is lower: at it, it reads
                                    again and on_drain is called */
    uint32_t message_timeout_ms; /* (0) 60000, for a message that has begun; it starts again while
                                    at least 128 bytes of the message come in a second */
    uint32_t close_timeout_ms;   /* (0) 5000, for the peer's half of the close, counted from when it
                                    had everything that was sent before */
    const char *const *origins;  /* allowed ones, scheme://host[:port] or null; NULL, or "*" alone:
                                    all. Servers only */
    uint32_t origins_count;
    /* Subprotocols: a server takes the first one that the client offers too, unless on_upgrade
     * chose one; a client offers them all. NULL: none. */
    const char *const *subprotocols;
    uint32_t subprotocols_count;
    bool validate_utf8;  /* true */
    bool fixed_mask_key; /* clients: false: every frame has a key from getrandom(2). true: key 0,
                            for measuring only */
} rws_endpoint_options;

#define RWS_ENDPOINT_OPTIONS_DEFAULT                                                               \
    {                                                                                              \
        .size = sizeof(rws_endpoint_options), .validate_utf8 = true                                \
    }

/*
 * Options of a listener: where connections come from, and what they may cost before they have an
 * endpoint. Start from RWS_LISTENER_OPTIONS_DEFAULT.
 */
typedef struct rws_listener_options {
    size_t size;
    const char *address;   /* "127.0.0.1"; numeric, or "localhost"; "::" serves IPv4 too */
    uint16_t port;         /* 9223; 0: the kernel picks one, see rws_server_port() */
    const char *unix_path; /* if set, a unix socket is served instead of address and port */
    int fd;           /* -1. Else a socket that listens already, inherited or activated, which is
                         served instead: *taken* if 0 is returned. It is made blocking; its file is
                         not removed, and what waits in it after a stop is the next server's */
    uint32_t backlog; /* (0) 4096; the kernel caps it at net.core.somaxconn */
    uint32_t headers_max; /* 64: headers stored for on_upgrade; more are accepted and not stored; at
                             most 1024 */
    size_t handshake_bytes_max;    /* (0) 16384 */
    uint32_t handshake_timeout_ms; /* (0) 10000, from accept to the end of the handshake */
    int socket_send_buffer_bytes;  /* (0) the kernel's: SO_SNDBUF of the connections */
    uint32_t keepalive_s; /* (0) 60: idle seconds before TCP asks whether the peer is still there;
                             RWS_NEVER: it does not */
    uint32_t user_timeout_ms; /* 0: off; TCP_USER_TIMEOUT, at least send_timeout_ms: it also ends a
                                 peer that lives and reads nothing */
    bool no_peer_address; /* false: rws_conn_peer() works everywhere; true: only where the kernel
                             can be asked later (Linux 6.7), and accepts are cheaper elsewhere */
    /* Its endpoints; NULL: all of the server that have the role RWS_SERVER. */
    rws_endpoint *const *endpoints;
    uint32_t endpoints_count;
} rws_listener_options;

#define RWS_LISTENER_OPTIONS_DEFAULT                                                               \
    {                                                                                              \
        .size = sizeof(rws_listener_options), .address = "127.0.0.1", .port = 9223, .fd = -1,      \
        .headers_max = 64                                                                          \
    }

/* A header that is sent. */
typedef struct rws_header {
    const char *name, *value;
} rws_header;

/* Any shard, in turn. */
#define RWS_ANY_SHARD UINT32_MAX

/* Options of a dial. Start from RWS_DIAL_OPTIONS_DEFAULT. Strings are *copied*. */
typedef struct rws_dial_options {
    size_t size;
    void *user;                /* rws_conn_user() of the connection, and for on_dial_error */
    const char *subprotocols;  /* a comma-separated list; NULL: the endpoint's */
    const char *origin;        /* the Origin header; NULL: none */
    const rws_header *headers; /* more headers of the request; at most 4096 bytes */
    uint32_t headers_count;
    uint32_t timeout_ms;          /* (0) 10000, from the dial to on_open, all addresses together */
    size_t handshake_bytes_max;   /* (0) 16384, of the answer's head */
    uint32_t shard;               /* RWS_ANY_SHARD */
    int socket_send_buffer_bytes; /* (0) the kernel's */
    uint32_t keepalive_s;         /* (0) 60; RWS_NEVER: no keep-alive */
    uint32_t user_timeout_ms;     /* 0: off; as a listener's */
} rws_dial_options;

#define RWS_DIAL_OPTIONS_DEFAULT                                                                   \
    {                                                                                              \
        .size = sizeof(rws_dial_options), .shard = RWS_ANY_SHARD                                   \
    }

/**
 * Make a server: check the options, probe the kernel, reserve memory. No thread is started and
 * nothing is accepted yet.
 *
 * `out` receives the server (*given*: rws_server_destroy()), or NULL. `options` (NULL: the
 * defaults) is *copied*. `error` may be NULL; on failure it receives a sentence for people. Thread:
 * any.
 * Returns 0 or
 *   RWS_E_OPTION         a field is out of its range, or the struct has a wrong `size`;
 *   RWS_E_KERNEL_OLD     before Linux 6.1;
 *   RWS_E_RING_BLOCKED   by a sysctl, seccomp or another rule: see rws_probe_kernel();
 *   -ENOMEM              for a ring (ulimit -l), a pool or a copy;
 *   another -errno       of io_uring_setup(2) or eventfd(2).
 */
RWS_API int rws_server_create(rws_server **out, const rws_runtime_options *options,
                              rws_error *error);

/**
 * Add an endpoint, before the server is started.
 *
 * `options` is *copied*. `out` (may be NULL) receives the endpoint, which lives as long as the
 * server. `error` may be NULL. Thread: any, one at a time.
 * Returns 0, or
 *   RWS_E_OPTION   a field is out of its range;
 *   RWS_E_STATE    the server was started;
 *   -ENOMEM        for the copies.
 */
RWS_API int rws_server_add_endpoint(rws_server *server, const rws_endpoint_options *options,
                                    rws_endpoint **out, rws_error *error);

/**
 * Open a listener, before the server is started. Listeners are numbered from 0 in call order; at
 * most 16.
 *
 * `options` (NULL: the defaults) is *copied*. `error` may be NULL. Thread: any, one at a time.
 * Returns 0 or
 *   RWS_E_OPTION     a field is out of its range, or one of `endpoints` is not this server's;
 *   RWS_E_ADDRESS    `address` is not numeric, or `unix_path` is too long;
 *   RWS_E_STATE      the server was started, or has 16 listeners;
 *   -EADDRINUSE      also after it was tried again for a second;
 *   -EACCES          a port below 1024, or the folder of `unix_path`;
 *   -ENOMEM          for the copies;
 *   -EINVAL          `fd` does not listen;
 *   another -errno   of socket(2), bind(2) or listen(2), or of the calls that look at `fd`.
 */
RWS_API int rws_server_listen(rws_server *server, const rws_listener_options *options,
                              rws_error *error);

/**
 * Serve on the calling thread (which runs the first shard; the others get threads of their own)
 * until rws_server_stop(), then drain and return.
 *
 * `error` may be NULL. Thread: any, once per server, and not after rws_server_start().
 * Returns 0 after a drain in which every connection closed in time and got what was queued, or
 *   RWS_E_TIMEOUT   some were cut off, by drain_timeout_ms, by another deadline or by
 *                   rws_conn_abort() with something queued;
 *   RWS_E_STATE     it was started before;
 *   RWS_E_OPTION    a listener has no endpoint, or two of its endpoints have one path;
 *   -ENOMEM         a ring or its buffers: raise the limit of locked memory;
 *   another -errno  of the call that a shard could not start or go on without.
 */
RWS_API int rws_server_run(rws_server *server, rws_error *error);

/**
 * Serve on threads of the library; returns when every shard is up, or with the reason why one is
 * not.
 *
 * `error` may be NULL. Thread: any, once per server. Errors as rws_server_run(), but for
 * RWS_E_TIMEOUT.
 */
RWS_API int rws_server_start(rws_server *server, rws_error *error);

/**
 * Ask a server to stop: no more connections are accepted, open ones are closed with 1001, and after
 * drain_timeout_ms what is left is cut off. Returns at once; calling it again does nothing.
 *
 * Thread: any, also from a signal handler (async-signal-safe).
 */
RWS_API void rws_server_stop(rws_server *server);

/**
 * Wait for the threads of rws_server_start() to end. Returns as rws_server_run(); RWS_E_STATE if
 * rws_server_start() has not returned, also while rws_server_run() serves, which waits itself.
 *
 * Thread: any but a loop thread; one at a time.
 */
RWS_API int rws_server_wait(rws_server *server);

/**
 * Stop if need be, wait, and free everything. `server` may be NULL.
 *
 * Thread: any but a loop thread; nothing else may use `server` any more.
 */
RWS_API void rws_server_destroy(rws_server *server);

/** The TCP port of a listener (also if the option was 0); 0 for a unix socket, or if there is no
 * such listener. Thread: any. */
RWS_API uint16_t rws_server_port(const rws_server *server, uint32_t listener);

/** The number of shards. Thread: any. */
RWS_API uint32_t rws_server_shards(const rws_server *server);

/**
 * Open a connection from a server, to a broker or another server. As rws_client_dial(), with an
 * endpoint of the server that has the role RWS_CLIENT.
 */
RWS_API int rws_server_dial(rws_server *server, const rws_endpoint *endpoint, const char *url,
                            const rws_dial_options *options, uint64_t *dial_id, rws_error *error);

/*
 * Other threads, and connections by id. A server's or client's runtime takes posts for all of its
 * shards; they run in call order for each shard. What is posted and not done because the
 * connection is gone, or takes no more, is counted (rws_stats.posts_dropped).
 *
 * Returns of all of them, with nothing posted unless it is 0:
 *   0                posted;
 *   RWS_E_ARGUMENT   no such shard, no function, a code or reason that can't be sent;
 *   RWS_E_BACKLOG    the shard's mailbox is full: 65536 posts;
 *   RWS_E_STATE      the shard has ended;
 *   -ENOMEM          for the post, or a copy of the message.
 */
/** The runtime of a server, for rws_post_…(). Borrowed until rws_server_destroy(). Thread: any. */
RWS_API rws_runtime *rws_server_runtime(rws_server *server);
/** The same of a client. Borrowed until rws_client_destroy(). Thread: any. */
RWS_API rws_runtime *rws_client_runtime(rws_client *client);

/** Send `message` on the connection `id`. The post is one more holder of it (in on_message a small
 * one is copied). Thread: any. */
RWS_API int rws_post_send(rws_runtime *runtime, uint64_t id, const rws_message *message);

/** rws_conn_close() on the connection `id`. `reason` (NULL: none) is *copied*. Thread: any. */
RWS_API int rws_post_close(rws_runtime *runtime, uint64_t id, uint16_t code, const char *reason);

/** Run `fn(conn, arg)` on the loop thread of the connection `id`; `conn` is NULL if it is gone, or
 * the shard ended first. `arg` is *taken* if 0 is returned: `fn` then runs exactly once. Thread:
 * any. */
RWS_API int rws_post_call(rws_runtime *runtime, uint64_t id, void (*fn)(rws_conn *conn, void *arg),
                          void *arg);

/**
 * Run `fn(arg)` on the loop thread of shard `shard`, after the callbacks that run now.
 *
 * `arg` is *taken* if 0 is returned: `fn` then runs exactly once. If the shard ends first,
 * `cancelled` is true, and the thread is the shard's, at its end, or the one that destroys a
 * runtime that never ran. Thread: any.
 */
RWS_API int rws_post(rws_runtime *runtime, uint32_t shard, void (*fn)(void *arg, bool cancelled),
                     void *arg);

/* Counters, summed over the shards; each is monotonic but for `connections`. Read without stopping
 * the shards. */
typedef struct rws_stats {
    size_t size;
    uint64_t connections; /* open now, handshakes included */
    uint64_t accepted;    /* transports accepted or connected */
    uint64_t upgraded;
    uint64_t refused;           /* handshakes that failed, but for those that a deadline ended */
    uint64_t messages_received; /* data messages given to on_message */
    uint64_t messages_sent;     /* data messages queued */
    uint64_t bytes_received;    /* of the transport */
    uint64_t bytes_sent;        /* of the transport, completed */
    uint64_t protocol_errors;   /* connections failed for what the peer sent */
    uint64_t timeouts;          /* connections ended by a deadline, the handshake's too */
    uint64_t no_buffers;        /* -ENOBUFS: receives that found no provided buffer */
    uint64_t cq_overflows;
    uint64_t accept_pauses;   /* times that accepting stopped because connections_max was reached */
    uint64_t cut_off;         /* connections ended by the drain deadline */
    uint64_t ring_enters;     /* io_uring_enter calls of the loops */
    uint64_t sends_zero_copy; /* sends that the kernel was asked not to copy */
    uint64_t zero_copy_given_up; /* connections on which that was given up: it copied, or could not
                                    do it */
    uint64_t posts_dropped;      /* posts for a connection that was gone, or took no more */
    uint64_t bytes_discarded;    /* when this side cut a connection: queued, or taken by the kernel
                                    and known not to be acknowledged. Not what a peer that vanished
                                    did not take */
    uint64_t out_of_memory;      /* connections closed with 1013: partial_bytes_max or
                                    send_pool_bytes_max was in use */
} rws_stats;

/** Fill `*stats` as far as its `size`, set by the caller, goes; fields that this library does not
 * know are left as they are. Thread: any. */
RWS_API void rws_server_stats(const rws_server *server, rws_stats *stats);

/* The request in on_upgrade, and the answer to it. All spans are borrowed until on_upgrade returns.
 * Thread: loop. */

/** "GET". */
RWS_API rws_span rws_request_method(const rws_request *request);
/** The request target as sent: path and query. */
RWS_API rws_span rws_request_target(const rws_request *request);
/** The target up to '?'. */
RWS_API rws_span rws_request_path(const rws_request *request);
/** The value of query parameter `name` as sent (percent-encoded); data NULL if there is none. */
RWS_API rws_span rws_request_query(const rws_request *request, const char *name);
/** The value of the first header `name` (lower-case); data NULL if there is none among the stored
 * ones. */
RWS_API rws_span rws_request_header(const rws_request *request, const char *name);
/** The number of stored headers, and each of them: names are lower-cased, values as sent. False
 * past the end. */
RWS_API size_t rws_request_header_count(const rws_request *request);
RWS_API bool rws_request_header_at(const rws_request *request, size_t index, rws_span *name,
                                   rws_span *value);
/** The Origin header; data NULL if there is none. */
RWS_API rws_span rws_request_origin(const rws_request *request);
/** The peer's address, as rws_conn_peer(). */
RWS_API int rws_request_peer(const rws_request *request, struct sockaddr_storage *address,
                             socklen_t *len);

/**
 * Choose a subprotocol. `name` is *copied*.
 * Returns 0, or RWS_E_ARGUMENT if the client did not offer it.
 */
RWS_API int rws_request_choose_subprotocol(rws_request *request, const char *name);

/**
 * Add a header to the answer, the 101 or the refusal. Both strings are *copied*.
 * Returns 0, RWS_E_ARGUMENT (not a valid name or value — CR, LF and NUL are refused — or a header
 * that the handshake writes itself), RWS_E_HTTP_TOO_BIG (over 4096 bytes of headers) or -ENOMEM
 * (partial_bytes_max is in use).
 */
RWS_API int rws_request_add_header(rws_request *request, const char *name, const char *value);

/**
 * Shape an answer other than the 101: a refusal, a redirect, or a plain HTTP answer. on_upgrade
 * then returns a negative status, and the connection ends behind it.
 *
 * `status` is 200 … 599; `body` (`len` bytes, at most 4096; NULL only if 0) is *copied*, and is
 * text/plain unless a Content-Type was added. The last call counts. Returns 0, or RWS_E_ARGUMENT or
 * -ENOMEM (partial_bytes_max is in use) with nothing changed.
 */
RWS_API int rws_request_respond(rws_request *request, int status, const void *body, size_t len);

/**
 * Set what rws_conn_user() will return. `conn_user` is *borrowed*: once on_open was called, the
 * program frees it, in on_close at the earliest; if no on_open follows (a refusal, a client that
 * went away, a full server), `release` (NULL: nothing is to be done) is called with it, once. When
 * another pointer takes its place, its own `release` is called with it at once.
 */
RWS_API void rws_request_set_user(rws_request *request, void *conn_user,
                                  void (*release)(void *conn_user));

/* Connections. */

/**
 * Queue bytes as one whole message; messages leave in call order.
 *
 * `opcode` is RWS_TEXT or RWS_BINARY. `data` (`len` bytes; NULL only if 0) is *copied*. Text is not
 * checked for UTF-8. A message that is larger than send_queue_bytes_max is taken on an empty queue.
 * Thread: loop. From another thread: rws_post_send().
 * Returns 0, or with nothing queued:
 *   RWS_E_STATE      `conn` is not open, or a message is being sent in frames;
 *   RWS_E_BACKLOG    over send_queue_bytes_max: wait for on_drain;
 *   RWS_E_ARGUMENT   not a data opcode, `data` is NULL, or `len` is over 2^31 - 1 MiB;
 *   -ENOMEM          send_pool_bytes_max is in use.
 */
RWS_API int rws_conn_send(rws_conn *conn, rws_opcode opcode, const void *data, size_t len);

/**
 * Queue a message (ringws/message.h): one that was received, by this connection or another one of
 * any shard or server, one that the program made, or a constant. Where it is large enough to gain
 * by it, it is not copied: the queue is one more holder, and it leaves from where it lies. (A
 * client masks every frame by itself, so there it is copied.)
 *
 * `message` is *borrowed*. Thread and errors as rws_conn_send(); RWS_E_ARGUMENT: it is NULL, or a
 * constant of a newer header than the library.
 */
RWS_API int rws_conn_send_message(rws_conn *conn, const rws_message *message);

/** rws_conn_send() with RWS_TEXT: ownership, thread and errors as there. */
RWS_API int rws_conn_send_text(rws_conn *conn, const char *text, size_t len);
/** rws_conn_send() with RWS_BINARY: ownership, thread and errors as there. */
RWS_API int rws_conn_send_binary(rws_conn *conn, const void *data, size_t len);

/**
 * Queue one frame of any opcode but RWS_CLOSE. A message in frames starts with RWS_TEXT or
 * RWS_BINARY and `fin` false and goes on with RWS_CONTINUATION; pings and pongs (at most 125 bytes,
 * `fin` true) may come in between.
 *
 * Arguments, thread and errors otherwise as rws_conn_send(). RWS_E_STATE also for a frame that is
 * out of order (RFC 6455 section 5.4), RWS_E_ARGUMENT for a control frame that is too long or not
 * final; a control frame may go 64 KiB over send_queue_bytes_max before it is RWS_E_BACKLOG.
 */
RWS_API int rws_conn_send_frame(rws_conn *conn, rws_opcode opcode, bool fin, const void *data,
                                size_t len);

/**
 * Start the closing handshake (RFC 6455 section 7): a close frame is queued behind what was sent,
 * and the connection ends when the peer's close frame is there or close_timeout_ms passed. Nothing
 * more is delivered but on_close.
 *
 * `code`: 1000–1003, 1007–1014 or 3000–4999, or 1005 for an empty close frame. `reason` (UTF-8, at
 * most 123 bytes; NULL: none) is *copied*. Thread: loop. Returns 0, RWS_E_ARGUMENT (code or
 * reason), RWS_E_STATE if it is closing already, or -ENOMEM with nothing changed
 * (send_pool_bytes_max is in use: rws_conn_abort() needs no memory).
 */
RWS_API int rws_conn_close(rws_conn *conn, uint16_t code, const char *reason);

/** Cut the connection off without a close frame; on_close comes with 1006. Thread: loop. */
RWS_API void rws_conn_abort(rws_conn *conn);

/** Stop giving messages to on_message, and reading from the socket, until rws_conn_resume().
 * Nothing happens if it is closing already. Thread: loop. */
RWS_API void rws_conn_pause(rws_conn *conn);
/** Undo rws_conn_pause(). Messages that had arrived are delivered after this call, not in it.
 * Thread: loop. */
RWS_API void rws_conn_resume(rws_conn *conn);

/** Bytes that are queued or in flight in the send queue, frame headers included. Thread: loop. */
RWS_API size_t rws_conn_buffered(const rws_conn *conn);

/**
 * The peer's address. `*len` is the size of `*address` on entry and its length on return. The first
 * call on a connection asks the kernel (one system call), also in on_close and after a reset.
 * Thread: loop. Returns 0 (unix sockets: AF_UNIX without a path), or RWS_E_STATE if it is not known
 * (no_peer_address).
 */
RWS_API int rws_conn_peer(rws_conn *conn, struct sockaddr_storage *address, socklen_t *len);

/** The pointer that the program keeps with a connection; NULL at first (clients: `dial_user`).
 * Thread: loop. */
RWS_API void *rws_conn_user(const rws_conn *conn);
/** Set it. The pointer is *borrowed*; the program frees what it points to, in on_close at the
 * earliest. Thread: loop. */
RWS_API void rws_conn_set_user(rws_conn *conn, void *conn_user);

/** The id of the connection, never 0, for rws_post_…() on any thread. No other connection of this
 * runtime has it until its slot was used 2^32 times more; where an id of one runtime is used with
 * another, it names a connection there with a chance of 2^-32. Thread: loop. */
RWS_API uint64_t rws_conn_id(const rws_conn *conn);

/** The index of the shard that runs the connection. Thread: loop. */
RWS_API uint32_t rws_conn_shard(const rws_conn *conn);

/** The subprotocol that was agreed on; empty if none. Borrowed until on_close returns. Thread:
 * loop. */
RWS_API rws_span rws_conn_subprotocol(const rws_conn *conn);

/*
 * Clients: a runtime that dials with one endpoint. A server's functions have the same meaning.
 */

/** As rws_server_create(), with the endpoint (its role is RWS_CLIENT whatever `role` says). */
RWS_API int rws_client_create(rws_client **out, const rws_runtime_options *options,
                              const rws_endpoint_options *endpoint, rws_error *error);

/**
 * Open a connection. `url` is ws://HOST[:PORT][/PATH][?QUERY] or ws+unix://PATH[:TARGET]
 * (*copied*); a host name is resolved by the calling thread, and of its addresses at most 8 are
 * tried, each when the one before could not be connected to. `options` (NULL: the defaults) is
 * *copied*. `dial_id` (may be NULL) receives what rws_client_cancel() takes. The outcome is on_open
 * or on_dial_error, exactly once if 0 is returned, on the loop thread (or on the one that destroys
 * a client that never ran). `error` may be NULL.
 *
 * Thread: any. Returns 0, RWS_E_URL, RWS_E_ADDRESS (the host can't be resolved), RWS_E_OPTION,
 * RWS_E_ARGUMENT (a string that can't be sent), -ENOMEM, RWS_E_BACKLOG (too many dials at once) or
 * RWS_E_STATE (stopped).
 */
RWS_API int rws_client_dial(rws_client *client, const char *url, const rws_dial_options *options,
                            uint64_t *dial_id, rws_error *error);

/** Give a dial up: on_dial_error comes with RWS_E_ABORTED, unless its outcome was reported before.
 * Thread: any. Returns as rws_post(). For a server's dial: rws_server_cancel(). */
RWS_API int rws_client_cancel(rws_client *client, uint64_t dial_id);
RWS_API int rws_server_cancel(rws_server *server, uint64_t dial_id);

/** As rws_server_start(), rws_server_stop(), rws_server_wait() (RWS_E_STATE if rws_client_start()
 * has not returned), rws_server_destroy() and rws_server_stats(). */
RWS_API int rws_client_start(rws_client *client, rws_error *error);
RWS_API void rws_client_stop(rws_client *client);
RWS_API int rws_client_wait(rws_client *client);
RWS_API void rws_client_destroy(rws_client *client);
RWS_API void rws_client_stats(const rws_client *client, rws_stats *stats);

/* What the kernel offers, for `ringws doctor` and for programs that want to tell their users. */
typedef struct rws_probe {
    size_t size;
    char kernel[64]; /* uname release */
    int status; /* 0: a server can run; else RWS_E_KERNEL_OLD, RWS_E_RING_BLOCKED, -ENOMEM, … */
    char blocked_by[24]; /* "", "sysctl", "seccomp", "missing", "version", "memlock", "descriptors"
                            or "other" */
    char text[256];      /* a sentence: why not, and the way out; or that all is well */
    char features[256];  /* names of those that ringws would use by default, separated by commas */
    uint64_t descriptors_soft, descriptors_hard; /* RLIMIT_NOFILE */
    uint64_t memlock_soft;                       /* bytes; UINT64_MAX: unlimited */
    uint32_t somaxconn;                          /* net.core.somaxconn: caps the backlog */
    uint32_t connections_max;                    /* per shard, by default, under these limits */
} rws_probe;

/** Probe by making a small ring. Fills `*probe` as far as its `size`, set by the caller, goes.
 * Returns its status. Thread: any. */
RWS_API int rws_probe_kernel(rws_probe *probe);

/** The kernel features that can be switched off, by index from 0: the name and what it does,
 * constant strings. False past the end. Thread: any. */
RWS_API bool rws_feature_at(size_t index, const char **name, const char **text);

#ifdef __cplusplus
}
#endif

#endif
