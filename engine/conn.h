/*
 * A connection, from accept or dial to the last completion.
 *
 * Invariants:
 * - `state` changes only through rws__conn_enter(), by the table of legal moves in conn.c.
 * - `ops` counts the operations in flight that use the connection's file or memory, and the
 * notification of a zero-copy send. The slot is freed when it is draining, its file is closed and
 * `ops` is 0, and not before: a submitted receive or send still owns our memory after a close.
 * - Nothing is submitted from a callback, but for the one command of rws_conn_peer(), which is done
 * when the call returns: what a connection wants (receive, send, close) follows
 * from its state, and rws__conn_pump() submits it at the end of the turn for every connection that
 * was marked dirty.
 * - Memory beyond the slot (assembly, stash, stalled input, send chunks) exists only while
 * something is partial or queued.
 */
#ifndef RINGWS_ENGINE_CONN_H
#define RINGWS_ENGINE_CONN_H

#include "codec/handshake.h"
#include "codec/message.h"
#include "engine/base/payload.h"
#include "engine/sendq.h"
#include "engine/base/wheel.h"
#include "ringws/ringws.h"

#include <assert.h>
#include <netinet/in.h>
#include <stddef.h>

typedef struct rws__shard rws__shard;
typedef struct rws__dial rws__dial;

typedef enum rws__conn_state {
    RWS__CONN_FREE = 0,
    RWS__CONN_CONNECTING, /* the file is being put into the table, or the dial is on its way */
    RWS__CONN_UPGRADING,  /* HTTP */
    RWS__CONN_OPEN,
    RWS__CONN_CLOSE_SENT,     /* waits for the peer's close frame */
    RWS__CONN_CLOSE_RECEIVED, /* waits for the program's answer (handle_close) */
    RWS__CONN_DRAINING,       /* on_close was called, if on_open was */
    RWS__CONN_STATE_COUNT
} rws__conn_state;

/* The steps of draining. */
typedef enum rws__drain {
    RWS__DRAIN_NONE = 0,
    RWS__DRAIN_FLUSH,    /* the queue is being sent; then `after_flush` */
    RWS__DRAIN_SHUTDOWN, /* shut our half down, so that the peer surely reads what we sent */
    RWS__DRAIN_END,      /* shut our half down and go on to cancel, without lingering */
    RWS__DRAIN_LINGER,   /* discard until the peer's end of stream, or the deadline */
    RWS__DRAIN_CANCEL,   /* take back what is in flight, close the file */
    RWS__DRAIN_CLOSED,   /* wait for the completions */
} rws__drain;

typedef enum rws__send_mode {
    RWS__SEND_IDLE = 0,
    RWS__SEND_QUIET,     /* in flight; no completion means success */
    RWS__SEND_COUNTED,   /* in flight; a completion will come */
    RWS__SEND_ZERO_COPY, /* likewise; what is lent, is lent to the kernel too (conn_zero_copy.c) */
} rws__send_mode;

typedef enum rws__recv_mode {
    RWS__RECV_IDLE = 0,
    RWS__RECV_MULTISHOT, /* into provided buffers */
    RWS__RECV_SINGLE,    /* into one provided buffer */
    RWS__RECV_DIRECT,    /* into the assembly */
} rws__recv_mode;

/* Why a connection does not receive. */
#define RWS__PAUSE_USER   1u /* rws_conn_pause() */
#define RWS__PAUSE_QUEUE  2u /* the send queue is above its high watermark */
#define RWS__PAUSE_BUDGET 4u /* partial_bytes_max is in use */

/* What few connections have. It is in an array of its own, whose pages cost nothing before they are
 * used. */
typedef struct rws__conn_cold {
    rws__dial *dial;          /* clients, until the connection is open */
    char *subprotocol;        /* from the partial pool, or NULL */
    rws__lender *kernel_loan; /* what a zero-copy send reads, until its notification; or NULL */
    union {
        struct sockaddr generic;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } peer;              /* AF_UNSPEC: not known, or not asked for yet */
    bool zero_copy_sent; /* some of it left: its notification's report counts */
    bool zero_copy_off;  /* given up */
} rws__conn_cold;

/* The bulk of what an idle connection costs. What every message touches comes first. */
struct rws_conn {
    rws__shard *shard;
    void *user;
    uint32_t slot;
    uint32_t generation;
    uint32_t next_dirty; /* its slot + 1; 0: none */
    int32_t file;        /* index in the ring's table; -1: none */
    int32_t install_fd;  /* the descriptor that is on its way into the table; -1: none */
    uint32_t send_len;   /* bytes in flight */
    uint16_t ops;
    uint16_t close_code; /* CLOSE_RECEIVED: what the peer's frame said */
    uint8_t state;
    uint8_t drain;
    uint8_t after_flush; /* a rws__drain */
    uint8_t recv_mode;
    uint8_t send_mode;
    uint8_t pauses;
    uint8_t small_recvs; /* receives in a row without a large message */
    bool dirty;
    bool recv_cancelled; /* the cancel of the receive in flight was submitted */
    bool shutting_down;  /* the shutdown was submitted and has not completed */
    bool eof;            /* the peer ended its half */
    bool send_blocked;   /* the last quiet send met a full socket */
    bool want_drain;     /* on_drain is owed */
    bool send_open;      /* a message is being sent in frames */
    bool flows;          /* the last receive brought so much that more is to be expected */
    bool bulk;           /* large messages come here: one receive at a time */
    bool has_cold;       /* it has an entry in the array of rws__conn_cold */
    rws__timer timer;    /* the one deadline that its state has */
    rws__sendq sendq;
    rws__payload *assembly; /* the message, or the HTTP head, as far as it came, or NULL */
    rws__payload *stalled;  /* input that came while paused, or NULL */
    union {
        struct {
            void *no_stash; /* NULL, where the decoder has its stash */
            rws__http_scanner scanner;
        } upgrade;            /* UPGRADING */
        rws__decoder decoder; /* from OPEN on */
    };
};

static_assert(offsetof(rws__decoder, stash) == 0, "no_stash lies on it");
static_assert(sizeof(rws_conn) <= 192,
              "an idle connection costs 256 bytes: this, and its share of tables and pages");

/* The connection's cold part; cleared when the slot is given back. */
rws__conn_cold *rws__conn_cold_part(rws_conn *conn);
/* The dial that it comes from, until it is open; or NULL. */
rws__dial *rws__conn_dial(const rws_conn *conn);

/* conn.c: life cycle */
void rws__conn_enter(rws_conn *conn, rws__conn_state state);
void rws__conn_mark_dirty(rws_conn *conn);
/* Mark it dirty for the next turn, in which it comes before all that are not deferred. */
void rws__conn_defer(rws_conn *conn);
void rws__conn_pump(rws_conn *conn);
void rws__conn_try_release(rws_conn *conn);
/* Tell the program that it is over, and start draining. */
void rws__conn_finish(rws_conn *conn, uint16_t code, rws_span reason, rws_closer closer,
                      rws__drain after_flush);
/* The transport failed or the peer vanished: no more sending. */
void rws__conn_cut(rws_conn *conn, rws_closer closer);
/* What the peer sent breaks a rule: a close frame with the code for `status`, then the end. */
void rws__conn_fail(rws_conn *conn, int status, uint16_t code);
void rws__conn_timer_fired(rws_conn *conn);
void rws__conn_set_pause(rws_conn *conn, uint8_t reason);
void rws__conn_clear_pause(rws_conn *conn, uint8_t reason);

/* conn_recv.c */
void rws__conn_on_recv(rws_conn *conn, int32_t res, uint8_t *data, bool more);
void rws__conn_frames(rws_conn *conn, uint8_t *data, size_t len);
void rws__conn_arm_recv(rws_conn *conn);
/* The peer ended its half and everything before that was handled. */
void rws__conn_on_eof(rws_conn *conn);

/* conn_send.c */
int rws__conn_queue_frame(rws_conn *conn, uint8_t opcode, bool fin, const void *data, size_t len);
/* `more`: a notification follows. */
void rws__conn_on_send(rws_conn *conn, int32_t res, bool more);
/* The quiet send in flight got no completion: it is done. */
void rws__conn_quiet_done(rws_conn *conn);
int rws__conn_submit_send(rws_conn *conn);

/* conn_zero_copy.c */
/* Whether the front of the queue, `len` bytes, is to be sent without a copy. */
bool rws__conn_may_zero_copy(rws_conn *conn, size_t len);
/* Such a send was submitted. */
void rws__conn_lend_to_kernel(rws_conn *conn);
/* It has completed. Returns `res`, or -EAGAIN where a plain send is to be tried instead. */
int32_t rws__conn_end_zero_copy(rws_conn *conn, int32_t res, bool more);
void rws__conn_on_notification(rws_conn *conn, bool copied);
/* Whether the kernel reads what a zero-copy send was given. */
bool rws__conn_lends_to_kernel(const rws_conn *conn);

/* conn_upgrade.c */
void rws__conn_upgrade_input(rws_conn *conn, uint8_t *data, size_t len);

/* conn_control.c */
void rws__conn_on_control(rws_conn *conn, uint8_t opcode, const uint8_t *data, size_t len);

#endif
