/*
 * A connection: WebSocket on a stream, from accept or dial to the last completion.
 *
 * Invariants:
 * - `state` changes only through rws__conn_enter(), by the table of legal moves in conn.c.
 * - Every end has one cause, given to rws__conn_end(), or to rws__conn_end_later() from within a
 *   call of the program, which is told at the end of the turn. on_close is called exactly once for
 *   every on_open, from the loop, never inside a call that the program made.
 * - The one timer is the handshake's before OPEN, that of a message that has begun in OPEN, the
 *   close's after it.
 * - `endpoint` is set from OPEN on, and while a request is decided; a dialled one has it always.
 * - `open_count` counts the connections that are OPEN or closing: connections_max is for those, the
 *   reserve for the others. One whose request is being decided has a slot and does not count: there
 *   may be no room for it any more when it is accepted.
 */
#ifndef RINGWS_CONN_CONN_H
#define RINGWS_CONN_CONN_H

#include "codec/http.h"
#include "codec/message.h"
#include "engine/base/assert.h"
#include "engine/conn/dial.h"
#include "engine/stream/streams.h"

#include <assert.h>
#include <stddef.h>

/* Slots beyond connections_max, for connections whose request has not come, that are answered with
 * 503, or that linger. When fewer than RWS__RESERVE_FREE slots are free, the one that lingers
 * longest is closed for each new one. */
#define RWS__RESERVE      64u
#define RWS__RESERVE_FREE 32u
/* And so many for dials alone: peers that are silent, or refused, can't keep this side from
 * dialling. */
#define RWS__RESERVE_DIALS 8u

typedef struct rws__conns rws__conns;

typedef enum rws__conn_state {
    RWS__CONN_FREE = 0,
    RWS__CONN_CONNECTING, /* the stream is on its way up; or a dial's, which could not connect, is
                             closed before the next address has its turn */
    RWS__CONN_UPGRADING,  /* HTTP */
    RWS__CONN_OPEN,
    RWS__CONN_CLOSE_SENT,     /* waits for the peer's close frame */
    RWS__CONN_CLOSE_RECEIVED, /* waits for the program's answer (on_close_frame) */
    RWS__CONN_ENDING,         /* on_close is owed */
    RWS__CONN_ENDED,          /* the stream ends */
    RWS__CONN_STATE_COUNT
} rws__conn_state;

/* Why a connection does not receive. */
#define RWS__PAUSE_USER    1u /* rws_conn_pause() */
#define RWS__PAUSE_QUEUE   2u /* the send queue is above its high watermark */
#define RWS__PAUSE_BUDGET  4u /* partial_bytes_max is in use */
#define RWS__PAUSE_REQUEST 8u /* its request is being decided, and much was received already */

/* What few connections have. */
typedef struct rws__conn_cold {
    rws__stream_cold stream;
    rws__dial *dial;       /* clients, until the connection is open */
    rws_request *request;  /* while it is being decided */
    char *subprotocol;     /* from the partial pool, or NULL */
    rws__slot_link budget; /* PAUSE_BUDGET */
} rws__conn_cold;

struct rws_conn {
    rws__stream stream;
    const rws__endpoint *endpoint;
    void *user;
    uint8_t state;
    uint8_t pauses;
    bool send_open; /* a message is being sent in frames */
    uint8_t end_who;
    uint16_t close_code;     /* CLOSE_RECEIVED: what the peer's frame said; ENDING: for on_close */
    int16_t end_status;      /* ENDING */
    uint32_t collected_mark; /* bytes of the assembly when the message's deadline was set */
    rws__timer timer;
    rws__payload *assembly; /* the message, or the HTTP head, as far as it was received, or NULL */
    union {
        struct {
            void *no_stash;              /* NULL, where the decoder has its stash */
            const rws__http_rules *http; /* NULL: dialled */
            rws__http_scanner scanner;
        } upgrade;            /* before OPEN */
        rws__decoder decoder; /* from OPEN on */
    };
};

static_assert(offsetof(rws_conn, stream) == 0, "a slot begins with its stream");
static_assert(offsetof(rws__conn_cold, stream) == 0, "so does its cold part");
static_assert(offsetof(rws__decoder, stash) == 0, "no_stash lies on it");
static_assert(sizeof(rws_conn) <= 272,
              "an idle connection costs 320 bytes: this, and its share of tables and pages");

/* The connections of one loop. */
struct rws__conns {
    rws__streams streams;
    uint32_t index;           /* the shard's */
    uint32_t connections_max; /* more are answered with 503 */
    uint32_t open_count;
    uint32_t dials_count; /* that may open: each has its place */
    size_t request_bytes; /* of the pool, that requests which are decided later have */
    bool draining;
    bool cut_off_some;         /* the drain's deadline ended connections */
    rws__http_header *headers; /* scratch of the request that is being read */
    uint32_t headers_max;
    rws__slot_queue budget;  /* connections paused for RWS__PAUSE_BUDGET */
    rws_conn *budget_holder; /* the one that goes on while they wait, or NULL */
    uint8_t random[256];     /* masking keys, RFC 6455 section 5.3 */
    uint32_t random_left;
};

static_assert(offsetof(rws__conns, streams) == 0, "a stream leads to its connections");

static inline bool rws__conns_are_full(const rws__conns *conns)
{
    return conns->open_count + conns->dials_count >= conns->connections_max;
}

static inline rws__conns *rws__conn_table(const rws_conn *conn)
{
    return (rws__conns *)conn->stream.streams;
}
static inline rws__loop *rws__conn_loop(const rws_conn *conn)
{
    return conn->stream.streams->loop;
}
static inline rws__counters *rws__conn_counters(const rws_conn *conn)
{
    return &conn->stream.streams->loop->counters;
}
/* The connection's cold part; cleared when the slot is given back. */
static inline rws__conn_cold *rws__conn_cold_part(rws_conn *conn)
{
    return (rws__conn_cold *)rws__stream_cold_part(&conn->stream);
}
/* The dial that it comes from, until it is open; or NULL. */
rws__dial *rws__conn_dial(rws_conn *conn);

/* conns.c: all of them */
/* Zeroed memory in, which rws__conns_deinit() takes also after a failure. */
int rws__conns_init(rws__conns *conns, rws__loop *loop, uint32_t index, uint32_t connections_max,
                    uint32_t headers_max, const rws__streams_options *options);
void rws__conns_deinit(rws__conns *conns);
/* A connection for a file that is accepted, adopted or dialled next; NULL: no slot is free. */
rws_conn *rws__conns_take(rws__conns *conns, const rws__http_rules *http);
/* The same for a dial (*taken*). */
rws_conn *rws__conns_take_dial(rws__conns *conns, rws__dial *dial);
/* Give a dial up, if it is still on its way. */
void rws__conns_cancel_dial(rws__conns *conns, uint64_t dial_id);
/* Close all with 1001: no request is accepted any more. */
void rws__conns_drain(rws__conns *conns);
/* The drain took too long. */
void rws__conns_cut(rws__conns *conns);
/* Let those go on that wait for the budget, if there is some. Once per turn. */
void rws__conns_check_budget(rws__conns *conns);
/* Assert the invariants of this header, where RINGWS_CHECK_INVARIANTS is defined. */
void rws__conns_check(rws__conns *conns);
uint32_t rws__conns_mask_key(rws__conns *conns);
/* A timer of the kinds OPENING and MESSAGE fired. */
void rws__conns_on_opening_deadline(rws__timer *timer, void *loop);
void rws__conns_on_message_deadline(rws__timer *timer, void *loop);
/* The id of a connection: shard (8 bits), slot (24), generation (32), which is never 0. */
static inline uint32_t rws__id_shard(uint64_t id)
{
    return (uint32_t)(id >> 56);
}
static inline uint32_t rws__id_slot(uint64_t id)
{
    return (uint32_t)(id >> 32) & (RWS__SLOTS_MAX - 1);
}
static inline uint32_t rws__id_generation(uint64_t id)
{
    return (uint32_t)id;
}
uint64_t rws__conn_id(const rws_conn *conn);
/* The open connection of an id, or NULL. */
rws_conn *rws__conns_find(rws__conns *conns, uint64_t id);
/* The request of an id (rws__request_id()) until it is answered, or NULL. */
rws_request *rws__conns_find_request(rws__conns *conns, uint64_t id);

/* conn.c: states and ends */
extern const rws__stream_events rws__conn_events;
void rws__conn_enter(rws_conn *conn, rws__conn_state state);
/* Set the deadline that the state has. */
void rws__conn_set_deadline(rws_conn *conn, uint32_t delay_ms);
void rws__conn_clear_deadline(rws_conn *conn);
/* The end: tell whom it concerns, and end the stream. */
void rws__conn_end(rws_conn *conn, const rws__cause *cause, rws__finish finish);
/* Of an end without a close frame of this side: that the peer's was first stays true. */
rws__cause rws__conn_cut_cause(const rws_conn *conn, int status, rws_closer who);
/* The same from within a call of the program: it is told at the end of the turn. */
void rws__conn_end_later(rws_conn *conn, int status, uint16_t code, rws_closer who,
                         rws__finish finish);
/* What the peer sent breaks a rule: a close frame with the code for `status`, then the end. */
void rws__conn_fail(rws_conn *conn, int status, uint16_t code);
/* The peer ended its half, and all before that was handled. */
void rws__conn_on_eof(rws_conn *conn);
void rws__conn_set_pause(rws_conn *conn, uint8_t reason);
void rws__conn_clear_pause(rws_conn *conn, uint8_t reasons);

/* conn_check.c */
#ifdef RINGWS_CHECK_INVARIANTS
void rws__conn_check(rws__stream *stream);
#else
#define rws__conn_check NULL
#endif

/* frames.c: messages in */
/* Bytes of a message that have come and are kept. */
static inline uint32_t rws__conn_collected(const rws_conn *conn)
{
    return conn->assembly != NULL ? conn->assembly->len : 0;
}
size_t rws__conn_frames(rws_conn *conn, uint8_t *data, size_t len);
size_t rws__conn_direct(rws__stream *stream);
uint8_t *rws__conn_direct_memory(rws__stream *stream, size_t bytes);

/* send.c: messages out */
int rws__conn_queue_frame(rws_conn *conn, uint8_t opcode, bool fin, const void *data, size_t len,
                          rws__share_use use);
void rws__conn_on_sent(rws__stream *stream);

/* upgrade.c: the opening handshake */
size_t rws__conn_upgrade_input(rws_conn *conn, uint8_t *data, size_t len);
void rws__conn_start_handshake(rws_conn *conn);
/* The connection ended before its request was answered, if it has one: no on_open follows. */
void rws__conn_drop_request(rws_conn *conn);
/* A request that is not decided gets 503, with `text`, now, and the connection ends for `status`.
 * False: it has none. */
bool rws__conn_give_up_request(rws_conn *conn, int status, const char *text);
/* At the end of the turn: give the answer that the program decided on. */
void rws__conn_answer_request(rws_conn *conn);

/* control.c: control frames and the closing handshake */
void rws__conn_on_control(rws_conn *conn, uint8_t opcode, const uint8_t *data, size_t len);

#endif
