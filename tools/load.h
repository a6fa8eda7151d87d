/*
 * `ringws load`: what the main thread, the callbacks and the report share.
 *
 * The main thread dials, moves the phase on and reads counters; everything that belongs to a
 * connection is touched by its loop thread only. A thread starts to send when all its connections
 * are open or have failed; each then keeps `pipeline` messages in flight and sends the next one
 * when a reply came (closed loop). rws_client_dial() takes the shards in turn, so connection i
 * belongs to thread i modulo `threads`.
 */
#ifndef RINGWS_TOOLS_LOAD_H
#define RINGWS_TOOLS_LOAD_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "ringws/ringws.h"
#include "tools/cpu_time.h"
#include "tools/histogram.h"
#include "tools/payload.h"

typedef struct load_arguments {
    const char *url;
    bool text, binary, json, quiet, expect_other, zero_mask;
    uint32_t features_off;
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
    uint32_t sent, answered; /* the numbers of the next message and of the next reply */
    uint32_t send_slot, answer_slot;
    uint32_t quota;    /* messages to send in all, unless `endless` */
    uint64_t *sent_at; /* `pipeline` moments, used in turn */
    bool endless;      /* the numbers may then wrap */
    bool closing;      /* we sent the close frame: everything is answered */
} load_conn;

/* One per loop thread. The counters are written by that thread and read by the main thread. */
struct load_thread {
    _Alignas(64) payload payload;
    uint32_t index;
    uint32_t share;    /* of the connections */
    uint32_t resolved; /* of these, opened or failed */
    _Atomic uint64_t sent;
    _Atomic uint64_t verified;    /* replies that were right */
    _Atomic uint64_t wrong;       /* replies that were not */
    _Atomic uint64_t lost;        /* messages without a reply when their connection ended */
    _Atomic uint64_t measured;    /* right replies within the measured time */
    _Atomic uint64_t resolved_ns; /* when all connections were open or had failed; 0: not yet */
    _Atomic uint64_t last_reply_ns;
    histogram latency; /* of the measured ones, ns */
};

typedef struct load_run {
    load_arguments arguments;
    rws_opcode opcode;
    uint8_t *other; /* --expect-other: `size` bytes */
    load_conn *conns;
    uint64_t *sent_at;
    load_thread *threads;
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

/* load_conn.c */
rws_handler load_handler(void);
void load_note_error(load_run *run, load_stage stage, const char *kind, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

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
