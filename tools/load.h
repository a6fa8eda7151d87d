/*
 * `ringws load`: what the main thread, the callbacks and the report share.
 *
 * The main thread dials, moves the phase on and reads counters; everything that belongs to a
 * connection is touched by its loop thread only. rws_client_dial() takes the shards in turn, so
 * connection i belongs to thread i modulo `threads`.
 *
 * Echo and broadcast: a thread starts to send when all its connections are open or have failed.
 * Echo: each then keeps `pipeline` messages in flight and sends the next one when a reply came
 * (closed loop). Broadcast: connection 0 does, and the oldest is answered when every connection has
 * it; that is one count for all, so there is one thread. Reconnect: connections are on their own
 * from the first dial on, and a connection may come back on another thread.
 */
#ifndef RINGWS_TOOLS_LOAD_H
#define RINGWS_TOOLS_LOAD_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "ringws/ringws.h"
#include "tools/args.h"
#include "tools/cpu_time.h"
#include "tools/histogram.h"
#include "tools/payload.h"

typedef enum load_mode {
    LOAD_ECHO,      /* --pipeline 0: idle connections */
    LOAD_BROADCAST, /* connection 0 sends, and all receive */
    LOAD_RECONNECT, /* connect, upgrade, close, and again; no messages */
} load_mode;

typedef struct load_arguments {
    const char *url;
    load_mode mode;
    bool text, binary, json, quiet, expect_other, zero_mask;
    const char *features_off;
    uint64_t connections, threads, pipeline, size, messages, seed, server_pid;
    uint64_t duration_ns, warmup_ns;
} load_arguments;

/* Only ever forward. */
typedef enum load_phase {
    LOAD_WARMUP,  /* traffic, not counted */
    LOAD_MEASURE, /* traffic, counted */
    LOAD_STOP,    /* nothing more is sent; what is in flight is awaited, then all close */
} load_phase;

/* Where an error belongs. */
typedef enum load_stage {
    LOAD_CONNECT,
    LOAD_UPGRADE,
    LOAD_MESSAGE,
    LOAD_CLOSE,
    LOAD_STAGES,
} load_stage;

enum { LOAD_ERRORS_MAX = 12, LOAD_ERROR_BYTES = 256 };

/* One kind of error: how often, and the sentence of the first. */
typedef struct load_error {
    load_stage stage;
    const char *kind; /* a constant string; told apart by address and content */
    char text[LOAD_ERROR_BYTES];
    uint64_t count;
} load_error;

typedef struct load_thread load_thread;

typedef struct load_conn {
    _Alignas(64) load_thread *thread;
    rws_conn *conn; /* NULL unless open */
    uint32_t index;
    uint32_t sent, answered; /* the numbers of the next message (reconnect: cycle) and reply */
    uint32_t send_slot, answer_slot;
    uint32_t quota;      /* messages or cycles in all, unless `endless` */
    uint64_t *sent_at;   /* `pipeline` moments, used in turn */
    uint64_t dialled_ns; /* reconnect: when this cycle began */
    bool endless;        /* the numbers may then wrap */
    bool closing;        /* we sent the close frame: everything is answered */
    bool opened;         /* once */
} load_conn;

/* One per loop thread. The counters are written by that thread and read by the main thread. They
 * count replies; with --broadcast deliveries, of which a message has as many as receivers; with
 * --reconnect cycles. */
struct load_thread {
    _Alignas(64) payload payload;
    uint32_t index;
    uint32_t share;               /* of the connections */
    uint32_t resolved;            /* of these, opened or failed */
    _Atomic uint64_t sent;        /* replies that have to come */
    _Atomic uint64_t verified;    /* that were right */
    _Atomic uint64_t wrong;       /* that were not */
    _Atomic uint64_t lost;        /* that had not come when their connection ended */
    _Atomic uint64_t measured;    /* right replies within the measured time */
    _Atomic uint64_t resolved_ns; /* when all connections were open or had failed; 0: not yet */
    _Atomic uint64_t last_reply_ns;
    histogram latency; /* of the measured ones, ns */
};

/* --broadcast: the messages in flight, by the one loop thread. */
typedef struct load_broadcast {
    uint32_t *missing;  /* `pipeline` counts, used in turn: receivers that do not have it yet */
    uint32_t receivers; /* open connections */
    uint32_t oldest, oldest_slot;
    bool started; /* all connections are open or have failed */
} load_broadcast;

typedef struct load_run {
    load_arguments arguments;
    uint64_t descriptors; /* that this process may have */
    rws_client *client;
    rws_opcode opcode;
    uint8_t *other; /* --expect-other: `size` bytes */
    load_conn *conns;
    uint64_t *sent_at;
    load_thread *threads;
    load_broadcast broadcast;
    sem_t dial_slots; /* handshakes under way are bounded */

    _Atomic load_phase phase;
    _Atomic uint32_t opened, dial_failed, closed;
    _Atomic uint32_t threads_started; /* that have begun to send */
    _Atomic bool giving_up;           /* the main thread closes what is left: 1001 is no surprise */

    pthread_mutex_t errors_lock;
    load_error errors[LOAD_ERRORS_MAX];
    size_t errors_count;
    uint64_t errors_by_stage[LOAD_STAGES];

    /* Results, by the main thread. */
    bool interrupted;
    uint64_t dial_ns; /* when the first connection was dialled */
    uint64_t window_ns;
    bool cpu_known;
    uint64_t cpu_ns;
} load_run;

/* load_args.c: the command line; what is wrong with it was said unless it is ARGS_RUN. */
args_outcome load_parse(int argc, char **argv, load_arguments *a);

/* load_conn.c: echo, and what all modes do. */
rws_handler load_handler(load_mode mode);
/* Dial for `conn`, which becomes the connection's user pointer. A status of rws_client_dial(). */
int load_dial(load_run *run, rws_client *client, load_conn *conn);
void load_note_error(load_run *run, load_stage stage, const char *kind, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* A message came that is not `number` of connection `from`. */
void load_note_wrong(load_run *run, const load_conn *c, uint32_t from, rws_opcode opcode,
                     const void *data, size_t len);

/* A connection ended; noted unless it was meant to end so. */
void load_note_end(load_run *run, const load_conn *c, uint32_t unanswered,
                   const rws_close_info *info);
void load_note_dial_error(load_run *run, const load_conn *c, const rws_error *error);

/* `c` sends its next message. False if it is of no more use; the error is noted. */
bool load_send_next(load_run *run, load_conn *c, uint64_t now);
/* The closing handshake, with 1000. */
void load_finish(load_conn *c);

/* Single writer: a plain add that other threads may read, without a locked instruction. */
static inline void load_bump(_Atomic uint64_t *counter, uint64_t by)
{
    uint64_t value = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, value + by, memory_order_relaxed);
}

static inline load_phase load_phase_of(const load_run *run)
{
    return atomic_load_explicit(&run->phase, memory_order_relaxed);
}

static inline uint32_t load_next_slot(const load_run *run, uint32_t slot)
{
    return slot + 1 == run->arguments.pipeline ? 0 : slot + 1;
}

static inline bool load_may_send(const load_conn *c)
{
    return c->endless || c->sent < c->quota;
}

/* load_broadcast.c */
void load_broadcast_start(load_run *run);
int load_broadcast_on_message(rws_conn *conn, const rws_message *message, void *user);
void load_broadcast_on_close(rws_conn *conn, const rws_close_info *info, void *user);

/* load_reconnect.c */
rws_handler load_reconnect_handler(void);

/* Totals over the threads. */
typedef struct load_totals {
    uint64_t sent, verified, wrong, lost, measured;
    uint64_t first_resolved_ns, last_resolved_ns, last_reply_ns;
} load_totals;

load_totals load_sum(const load_run *run);

/* load_report.c: print the result; returns whether nothing was lost or wrong. */
bool load_report(load_run *run);
void load_progress(const load_run *run, uint64_t elapsed_ns, bool finished);

#endif
