/*
 * ringws: WebSocket servers and clients on io_uring (Linux 6.1 and later).
 *
 * Life of a server: rws_server_create() checks the options and opens the listeners,
 * rws_server_run() serves until rws_server_stop(), rws_server_destroy() frees. Every shard is one
 * thread with one ring; a connection belongs to one shard for life, and all its callbacks run
 * there, one at a time.
 *
 * Rules of the callbacks:
 * 1. on_upgrade (server) comes first, and at most once. If it refuses, no other callback follows.
 * 2. on_open comes once, after the handshake.
 * 3. on_message, on_ping, on_pong, on_close_frame and on_drain come between on_open and on_close.
 * 4. on_close comes exactly once for every on_open, whatever the cause, and is the last one.
 * 5. A callback may call anything on its connection, rws_conn_close() included; effects that would
 *    free it wait until the callback has returned.
 * 6. Data given to a callback is borrowed until it returns.
 *
 * Thread words in the doc blocks: *loop* is the thread that runs the connection's shard; *any* is
 * any thread.
 */
#ifndef RINGWS_RINGWS_H
#define RINGWS_RINGWS_H

#include <sys/socket.h>

#include "ringws/types.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct rws_server rws_server;
typedef struct rws_client rws_client;
typedef struct rws_conn rws_conn;
typedef struct rws_request rws_request;
typedef struct rws_prepared rws_prepared;

/* For options that are a time: not at all, where 0 means the default. */
#define RWS_NEVER UINT32_MAX

/* Who ended a connection, for on_close. */
typedef enum rws_closer {
    RWS_CLOSED_BY_US = 0,   /* rws_conn_close(), a limit, a deadline or a drain */
    RWS_CLOSED_BY_PEER = 1, /* its close frame came first, or the transport ended */
} rws_closer;

/*
 * The program's side. Any pointer may be NULL. `user` is the context pointer of the options;
 * `size` is sizeof(rws_handler), set by RWS_HANDLER_DEFAULT: a program that was compiled with an
 * older header has a shorter one, and what that lacks is NULL.
 */
typedef struct rws_handler {
    size_t size;

    /* Before the answer to an upgrade request; the rws_request_…() functions read it and shape the
     * answer. Return 0 to accept it or a negative status to refuse it (with 403, or as
     * rws_request_reject() said). */
    int (*on_upgrade)(rws_request *request, void *user);

    void (*on_open)(rws_conn *conn, void *user);

    /* A whole message. `opcode` is RWS_TEXT or RWS_BINARY; `data` is `len` bytes, never NULL.
     * A negative return closes the connection with 1011, unless the callback has closed it. */
    int (*on_message)(rws_conn *conn, rws_opcode opcode, const void *data, size_t len, void *user);

    /* The send queue fell to low_watermark_bytes after it was over high_watermark_bytes or refused
     * a message. */
    void (*on_drain)(rws_conn *conn, void *user);

    /* `code`: what came in the peer's close frame (1005: none in it), 1006 if there was no close
     * frame, or the code that this side closed with. `reason` likewise (empty with handle_close,
     * where on_close_frame had it). */
    void (*on_close)(rws_conn *conn, uint16_t code, rws_span reason, rws_closer closer, void *user);

    /* Only with handle_ping / handle_pong / handle_close: the frame is given here and not answered.
     */
    int (*on_ping)(rws_conn *conn, const void *data, size_t len, void *user);
    int (*on_pong)(rws_conn *conn, const void *data, size_t len, void *user);
    int (*on_close_frame)(rws_conn *conn, uint16_t code, rws_span reason, void *user);

    /* Clients: rws_client_dial() did not lead to an open connection. `error` is borrowed.
     * `dial_user` is what was given to rws_client_dial(). */
    void (*on_dial_error)(const rws_error *error, void *dial_user, void *user);
} rws_handler;

/* clang-format off */
#define RWS_HANDLER_DEFAULT {.size = sizeof(rws_handler)}
/* clang-format on */

/* Kernel features that can be switched off, for `features_off`. Each is used only where the kernel
 * has it. */
typedef enum rws_feature {
    RWS_FEATURE_INCREMENTAL_BUFFERS = 1u << 0, /* IOU_PBUF_RING_INC, 6.12 */
    RWS_FEATURE_MULTISHOT_ACCEPT = 1u << 1,    /* off: single accepts that bring the address */
    RWS_FEATURE_SOCKET_COMMANDS = 1u << 2,     /* getsockopt on the ring, 6.7: the peer's address */
    RWS_FEATURE_SKIP_SUCCESS = 1u << 3,        /* IOSQE_CQE_SKIP_SUCCESS on sends */
    RWS_FEATURE_DIRECT_LARGE = 1u << 4,        /* large messages received into their own memory */
    RWS_FEATURE_MULTISHOT_RECV = 1u << 5,      /* off: one receive at a time */
    RWS_FEATURE_SEND_ZC = 1u << 6, /* large messages sent without a copy, 6.2 or later 6.1 */
    RWS_FEATURE_REGISTERED_BUFFERS = 1u << 7, /* what they read is registered; needs SEND_ZC */
    RWS_FEATURE_ALL = (1u << 8) - 1,
} rws_feature;

/*
 * Options of a server. Start from RWS_SERVER_OPTIONS_DEFAULT; a zero in a field marked (0) takes
 * the default in its comment. Strings are copied by rws_server_create().
 */
typedef struct rws_server_options {
    size_t size;
    const char *address;   /* "127.0.0.1"; numeric, or "localhost"; "::" serves IPv4 too */
    uint16_t port;         /* 9223; 0: the kernel picks one, see rws_server_port() */
    const char *unix_path; /* if set, a unix socket is served instead of address and port */
    uint32_t backlog;      /* (0) 4096; the kernel caps it at net.core.somaxconn */
    uint32_t shards;       /* (0) the CPUs that affinity and the cgroup quota allow; at most 256 */
    uint32_t connections_max; /* (0) per shard: 16384, or what the descriptor limit allows */
    uint32_t headers_max; /* 64: headers stored for on_upgrade; more are accepted and not stored; at
                             most 1024 */
    size_t handshake_bytes_max;  /* (0) 8192 */
    uint64_t message_bytes_max;  /* (0) 65536; at most 2^31 - 1 MiB */
    uint32_t fragments_max;      /* (0) 131072 frames of one message */
    size_t recv_buffer_bytes;    /* (0) chosen by the engine */
    uint32_t recv_buffers;       /* (0) chosen by the engine; a power of two */
    size_t partial_bytes_max;    /* (0) 64 MiB per shard, or 4 times message_bytes_max: for messages
                                    that have not come whole; what was under way may go over it by a
                                    third, or 1 MiB; 16 times as many addresses are reserved */
    size_t send_queue_bytes_max; /* (0) 1 MiB per connection, or what high_watermark_bytes and one
                                    more message of message_bytes_max need */
    size_t send_pool_bytes_max;  /* (0) 1 GiB per shard: addresses reserved for queued sends */
    size_t high_watermark_bytes; /* (0) 256 KiB: above it the engine stops reading from that
                                    connection */
    size_t low_watermark_bytes;  /* (0) 64 KiB, or the high one if that is lower: at it, it reads
                                    again and on_drain is called */
    int socket_send_buffer_bytes;  /* (0) the kernel's: SO_SNDBUF of the connections */
    uint32_t handshake_timeout_ms; /* (0) 10000, from accept to the end of the handshake */
    uint32_t message_timeout_ms;   /* (0) 60000, from the first to the last byte of a message */
    uint32_t close_timeout_ms;     /* (0) 5000, for the peer's half of the close */
    uint32_t drain_timeout_ms;     /* (0) 5000, for all connections after rws_server_stop() */
    const char *const *origins;    /* allowed origins; NULL: all */
    uint32_t origins_count;
    bool validate_utf8;             /* true */
    bool handle_ping;               /* false: pings are answered */
    bool handle_pong;               /* false: pongs are ignored */
    bool handle_close;              /* false: close frames are answered */
    bool no_peer_address;           /* false: rws_conn_peer() works everywhere; true: only where the
                                       kernel can be asked later (Linux 6.7), and accepts are
                                       cheaper elsewhere */
    uint32_t features_off;          /* rws_feature bits that are not to be used */
    const rws_allocator *allocator; /* NULL: malloc */
    rws_log_fn log;                 /* NULL: no log */
    void *log_user;
    void *user; /* given to every callback */
    /* 0: a shard with nothing to do sleeps at once. Otherwise it polls for so long first, so that
     * nothing that comes meanwhile waits for a thread to wake up; it keeps its CPU 100 % busy while
     * it polls, so there should be one for each shard. UINT64_MAX: it never sleeps. */
    uint64_t busy_wait_us;
    uint32_t send_timeout_ms; /* (0) 30000: a connection whose peer takes nothing of what is queued
                                 for so long is ended */
    uint32_t keepalive_s;     /* (0) 60: idle seconds before TCP asks whether the peer is still there;
                                 RWS_NEVER: it does not */
    uint32_t user_timeout_ms; /* 0: off; TCP_USER_TIMEOUT, at least send_timeout_ms */
} rws_server_options;

#define RWS_SERVER_OPTIONS_DEFAULT                                                                 \
    {                                                                                              \
        .size = sizeof(rws_server_options), .address = "127.0.0.1", .port = 9223,                  \
        .headers_max = 64, .validate_utf8 = true                                                   \
    }

/**
 * Make a server: check the options, probe the kernel, open the listeners. No thread is started and
 * nothing is accepted yet.
 *
 * `out` receives the server (*given*: rws_server_destroy()), or NULL. `options` (NULL: the
 * defaults) and `handler` are *copied*. `error` may be NULL; on failure it receives a sentence for
 * people. Thread: any.
 * Returns 0 or
 *   RWS_E_OPTION         a field is out of its range, or a struct has a wrong `size`;
 *   RWS_E_ADDRESS        `address` is not numeric, or `unix_path` is too long;
 *   RWS_E_KERNEL_OLD     before Linux 6.1;
 *   RWS_E_RING_BLOCKED   by a sysctl, seccomp or another rule: see rws_probe_kernel();
 *   -EADDRINUSE          also after it was tried again for a second;
 *   -EACCES              a port below 1024, or the folder of `unix_path`;
 *   -ENOMEM              for a ring (ulimit -l), a pool or a copy;
 *   another -errno       of io_uring_setup(2), eventfd(2), socket(2), bind(2) or listen(2).
 */
RWS_API int rws_server_create(rws_server **out, const rws_server_options *options,
                              const rws_handler *handler, rws_error *error);

/**
 * Serve on the calling thread (which runs the first shard; the others get threads of their own)
 * until rws_server_stop(), then drain and return.
 *
 * `error` may be NULL. Thread: any, once per server, and not after rws_server_start().
 * Returns 0 after a drain in which every connection closed in time, or
 *   RWS_E_TIMEOUT   some connections had to be cut off;
 *   RWS_E_STATE     it was started before;
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
 * Wait for the threads of rws_server_start() to end. Returns as rws_server_run(); RWS_E_STATE if it
 * was not started.
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

/** The TCP port that is served (also if the option was 0); 0 for a unix socket. Thread: any. */
RWS_API uint16_t rws_server_port(const rws_server *server);

/** The number of shards. Thread: any. */
RWS_API uint32_t rws_server_shards(const rws_server *server);

/**
 * Run `fn(arg)` on the loop thread of shard `shard`, after the callbacks that run now.
 *
 * `arg` is *taken* if 0 is returned: `fn` then runs exactly once. If the shard ends first,
 * `cancelled` is true, and the thread is the shard's, at its end, or the one that destroys a server
 * that never ran. Posts run in call order. Thread: any.
 * Returns 0, or with nothing posted:
 *   RWS_E_ARGUMENT   no such shard, or `fn` is NULL;
 *   RWS_E_BACKLOG    the shard's mailbox is full: 65536 posts;
 *   RWS_E_STATE      the shard has ended;
 *   -ENOMEM          the mailbox can't grow.
 */
RWS_API int rws_server_post(rws_server *server, uint32_t shard,
                            void (*fn)(void *arg, bool cancelled), void *arg);

/* Counters, summed over the shards; each is monotonic but for `connections`. Read without stopping
 * the shards. */
typedef struct rws_stats {
    size_t size;
    uint64_t connections; /* open now, handshakes included */
    uint64_t accepted;    /* transports accepted or connected */
    uint64_t upgraded;
    uint64_t refused;           /* handshakes that failed */
    uint64_t messages_received; /* data messages given to on_message */
    uint64_t messages_sent;     /* data messages queued */
    uint64_t bytes_received;    /* of the transport */
    uint64_t bytes_sent;        /* of the transport, completed */
    uint64_t protocol_errors;   /* connections failed for what the peer sent */
    uint64_t timeouts;          /* connections ended by a deadline */
    uint64_t no_buffers;        /* -ENOBUFS: receives that found no provided buffer */
    uint64_t cq_overflows;
    uint64_t accept_pauses;   /* times that accepting stopped because connections_max was reached */
    uint64_t cut_off;         /* connections ended by the drain deadline */
    uint64_t ring_enters;     /* io_uring_enter calls of the loops */
    uint64_t sends_zero_copy; /* sends that the kernel was asked not to copy */
    uint64_t zero_copy_given_up; /* connections on which that was given up: it copied, or could not
                                    do it */
    uint64_t bytes_discarded;    /* when this side cut a connection: queued, or taken by the kernel
                                    and known not to be acknowledged. Not what a peer that vanished
                                    did not take */
    uint64_t posts_dropped;      /* posts to a connection that was gone */
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
 * that the handshake writes itself) or RWS_E_HTTP_TOO_BIG (over 4096 bytes of headers).
 */
RWS_API int rws_request_add_header(rws_request *request, const char *name, const char *value);

/**
 * Shape the refusal; on_upgrade then returns a negative status. `status` is 300 … 599; `body` (at
 * most 4096 bytes; NULL: a short text) is *copied*. Returns 0 or RWS_E_ARGUMENT.
 */
RWS_API int rws_request_reject(rws_request *request, int status, const char *body);

/**
 * Set what rws_conn_user() will return. `conn_user` is *borrowed*: once on_open was called, the
 * program frees it, in on_close at the earliest; if no on_open follows (a refusal, a client that
 * went away, a full server), `release` (NULL: nothing is to be done) is called with it, once.
 */
RWS_API void rws_request_set_user(rws_request *request, void *conn_user,
                                  void (*release)(void *conn_user));

/* Connections. */

/**
 * Queue one whole message; messages leave in call order.
 *
 * `opcode` is RWS_TEXT or RWS_BINARY. `data` (`len` bytes; NULL only if 0) is *copied*. Text is not
 * checked for UTF-8. A message that is larger than send_queue_bytes_max is taken on an empty queue.
 * Thread: loop. From another thread: rws_server_post().
 * Returns 0, or with nothing queued:
 *   RWS_E_STATE      `conn` is not open, or a message is being sent in frames;
 *   RWS_E_BACKLOG    over send_queue_bytes_max: wait for on_drain;
 *   RWS_E_ARGUMENT   not a data opcode, `data` is NULL, or `len` is over 2^31 - 1 MiB;
 *   -ENOMEM          send_pool_bytes_max is in use.
 */
RWS_API int rws_conn_send(rws_conn *conn, rws_opcode opcode, const void *data, size_t len);

/**
 * Frame a message once, for any number of connections and shards, which then send it from one place
 * in memory.
 *
 * `out` receives it (*given*: rws_prepared_release()), or NULL. `allocator` (NULL: malloc) and
 * `data` (`len` bytes; NULL only if 0) are *copied*. `opcode` is RWS_TEXT or RWS_BINARY. Text is
 * not checked for UTF-8. Thread: any. Returns 0, RWS_E_ARGUMENT (as rws_conn_send()) or -ENOMEM.
 */
RWS_API int rws_prepared_create(rws_prepared **out, const rws_allocator *allocator,
                                rws_opcode opcode, const void *data, size_t len);

/** One holder more; returns `prepared`. Thread: any. */
RWS_API rws_prepared *rws_prepared_retain(rws_prepared *prepared);

/** One holder less; the last one frees it, on its thread. `prepared` may be NULL. Connections that
 * still have it queued are holders of their own. Thread: any. */
RWS_API void rws_prepared_release(rws_prepared *prepared);

/**
 * rws_conn_send() of a prepared message, which is not copied: it lives until it was sent. (A client
 * masks every frame by itself, so there it is copied.)
 *
 * `prepared` is *borrowed*. Thread and errors as rws_conn_send().
 */
RWS_API int rws_conn_send_prepared(rws_conn *conn, rws_prepared *prepared);

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
 * and the connection ends when the peer's close frame came or close_timeout_ms passed. Nothing more
 * is delivered but on_close.
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

/** The index of the shard that runs the connection. Thread: loop. */
RWS_API uint32_t rws_conn_shard(const rws_conn *conn);

/** The subprotocol that was agreed on; empty if none. Borrowed until on_close returns. Thread:
 * loop. */
RWS_API rws_span rws_conn_subprotocol(const rws_conn *conn);

/*
 * Clients, first part: many connections on the rings of one object, with the callbacks of a server.
 */
typedef struct rws_client_options {
    size_t size;
    uint32_t shards;               /* (0) 1 */
    uint32_t connections_max;      /* (0) per shard: 16384, or what the descriptor limit allows */
    size_t handshake_bytes_max;    /* (0) 8192 */
    uint64_t message_bytes_max;    /* (0) 65536 */
    uint32_t fragments_max;        /* (0) 131072 */
    size_t recv_buffer_bytes;      /* (0) chosen by the engine */
    uint32_t recv_buffers;         /* (0) chosen by the engine */
    size_t partial_bytes_max;      /* (0) as a server's */
    size_t send_queue_bytes_max;   /* (0) as a server's */
    size_t send_pool_bytes_max;    /* (0) 1 GiB per shard */
    size_t high_watermark_bytes;   /* (0) 256 KiB; a client does not stop reading by itself, it only
                                      gets on_drain */
    size_t low_watermark_bytes;    /* (0) as a server's */
    int socket_send_buffer_bytes;  /* (0) the kernel's */
    uint32_t handshake_timeout_ms; /* (0) 10000, from rws_client_dial() to on_open */
    uint32_t message_timeout_ms;   /* (0) 60000 */
    uint32_t close_timeout_ms;     /* (0) 5000 */
    uint32_t drain_timeout_ms;     /* (0) 5000 */
    bool validate_utf8;            /* true */
    bool handle_ping, handle_pong, handle_close;
    bool fixed_mask_key; /* false: every frame has a key from getrandom(2). true: key 0, for
                            measuring only */
    uint32_t features_off;
    const rws_allocator *allocator;
    rws_log_fn log;
    void *log_user;
    void *user;
    uint64_t busy_wait_us; /* as a server's */
    uint32_t send_timeout_ms, keepalive_s, user_timeout_ms; /* likewise */
} rws_client_options;

#define RWS_CLIENT_OPTIONS_DEFAULT                                                                 \
    {                                                                                              \
        .size = sizeof(rws_client_options), .validate_utf8 = true                                  \
    }

/** As rws_server_create(), without listeners. */
RWS_API int rws_client_create(rws_client **out, const rws_client_options *options,
                              const rws_handler *handler, rws_error *error);

/**
 * Open a connection. `url` is ws://HOST[:PORT][/PATH][?QUERY] or ws+unix://PATH[:TARGET]
 * (*copied*); a host name is resolved by the calling thread. `subprotocols` is a comma-separated
 * list (*copied*) or NULL. Shards take turns. The outcome is on_open or on_dial_error, exactly once
 * if 0 is returned, on the loop thread (or on the one that destroys a client that never ran).
 *
 * Thread: any. Returns 0, RWS_E_URL, RWS_E_ADDRESS, RWS_E_ARGUMENT (subprotocols), -ENOMEM,
 * RWS_E_BACKLOG (too many dials at once) or RWS_E_STATE (stopped).
 */
RWS_API int rws_client_dial(rws_client *client, const char *url, const char *subprotocols,
                            void *dial_user);

/** As rws_server_start(), rws_server_stop(), rws_server_wait(), rws_server_destroy() and
 * rws_server_stats(). */
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
    uint32_t features;   /* rws_feature bits that this kernel has and ringws would use by default */
    uint64_t descriptors_soft, descriptors_hard; /* RLIMIT_NOFILE */
    uint64_t memlock_soft;                       /* bytes; UINT64_MAX: unlimited */
    uint32_t somaxconn;                          /* net.core.somaxconn: caps the backlog */
    uint32_t connections_max;                    /* per shard, by default, under these limits */
} rws_probe;

/** Probe by making a small ring. Fills `*probe` as far as its `size`, set by the caller, goes.
 * Returns its status. Thread: any. */
RWS_API int rws_probe_kernel(rws_probe *probe);

/** The name of one feature bit, "incremental_buffers" …, and what it does: constant strings, NULL
 * for an unknown one. Thread: any. */
RWS_API const char *rws_feature_name(rws_feature feature);
RWS_API const char *rws_feature_text(rws_feature feature);

#ifdef __cplusplus
}
#endif

#endif
