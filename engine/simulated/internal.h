/*
 * What the files of the simulated kernel share: its one state per thread, events, sockets and
 * operations. kernel.h says what is simulated.
 *
 * kernel.c     time, decisions, events, the clock and random bytes of the seam
 * pipe.c       bytes in one direction
 * socket.c     TCP: connecting, accepting, ends
 * descriptor.c sockets.h, and the sockets of the outside world
 * ring.c       queues, tables, turns
 * calls.c      what queues operations, and their submission
 * operation.c  what each operation does
 */
#ifndef RINGWS_SIMULATED_INTERNAL_H
#define RINGWS_SIMULATED_INTERNAL_H

#include "engine/simulated/kernel.h"

#include "engine/ring/buffers.h"

typedef struct rws__sim_socket rws__sim_socket;
typedef struct rws__sim_op rws__sim_op;

/* ---- kernel.c ---- */

/* Something that will happen. Zeroed: not set. */
typedef struct rws__sim_event {
    uint64_t at_us, order;
    uint32_t place; /* in the queue, from 1; 0: it is not set */
    void (*happen)(struct rws__sim_event *event);
} rws__sim_event;

typedef struct rws__sim_kernel {
    rws__sim_options options;
    uint64_t now_us;
    uint64_t random, bytes; /* states of the streams of random numbers */
    uint64_t chances[RWS__SIM_FAULTS], strikes[RWS__SIM_FAULTS];
    rws__sim_event **queue; /* a heap */
    uint32_t events, events_max;
    uint64_t order;
    rws__sim_socket **descriptors;
    uint32_t descriptors_max, descriptors_used;
    rws__sim_socket *listening; /* a list */
    uint16_t next_port;
    uint64_t next_inode;
    uint32_t sockets, rings;
    uint64_t digest; /* of all bytes that were sent */
} rws__sim_kernel;

rws__sim_kernel *rws__sim(void);
/* 0, or, if the fault happens, up to `max` microseconds. */
uint64_t rws__sim_time_of(rws__sim_fault fault, uint64_t max_us);
/* Set, or move. */
void rws__sim_event_set(rws__sim_event *event, uint64_t at_us);
void rws__sim_event_clear(rws__sim_event *event);
static inline bool rws__sim_event_is_set(const rws__sim_event *event)
{
    return event->place != 0;
}
void *rws__sim_memory(size_t bytes); /* zeroed; never NULL */
bool rws__sim_event_is_signalled(int event);
bool rws__sim_event_take(int event);

/* ---- pipe.c ---- */

#define RWS__SIM_SEGMENTS 8u

/* Bytes in one direction, by position: read <= arrived <= written. */
typedef struct rws__sim_pipe {
    uint8_t *bytes;
    size_t size; /* a power of two */
    uint64_t read, arrived, written;
    struct {
        uint64_t upto, at_us;
    } segments[RWS__SIM_SEGMENTS]; /* what is under way */
    uint32_t first, count;
    bool fin, fin_arrived; /* the end stands behind `written` */
    uint64_t fin_us;
} rws__sim_pipe;

void rws__sim_pipe_write(rws__sim_pipe *pipe, const uint8_t *data, size_t len, uint64_t at_us);
void rws__sim_pipe_end(rws__sim_pipe *pipe, uint64_t at_us);
void rws__sim_pipe_read(rws__sim_pipe *pipe, uint8_t *out, size_t len);
/* Let arrive what is due and what the receiver has room for. Returns whether anything did;
 * `*next_us` is when to try again, UINT64_MAX: when the receiver has read. */
bool rws__sim_pipe_deliver(rws__sim_pipe *pipe, size_t window, uint64_t now_us, uint64_t *next_us);
/* What is under way is lost. */
void rws__sim_pipe_drop(rws__sim_pipe *pipe);
void rws__sim_pipe_free(rws__sim_pipe *pipe);
static inline size_t rws__sim_pipe_unread(const rws__sim_pipe *pipe)
{
    return (size_t)(pipe->arrived - pipe->read);
}
static inline size_t rws__sim_pipe_under_way(const rws__sim_pipe *pipe)
{
    return (size_t)(pipe->written - pipe->arrived);
}

/* ---- socket.c ---- */

typedef enum rws__sim_state {
    RWS__SIM_UNCONNECTED = 0,
    RWS__SIM_LISTENING,
    RWS__SIM_CONNECTING,
    RWS__SIM_CONNECTED,
    RWS__SIM_DEAD, /* reset */
} rws__sim_state;

struct rws__sim_socket {
    rws__sim_state state;
    uint32_t refs; /* descriptors, entries of tables, operations, backlogs */
    struct sockaddr_storage local, peer;
    socklen_t peer_len;
    size_t send_buffer, recv_buffer;
    int error;              /* reported once */
    bool shut;              /* this side has ended its half */
    rws__sim_socket *other; /* NULL: closed, or gone */
    rws__sim_pipe in;
    rws__sim_event arrives; /* of `in` */
    bool other_vanished;
    bool reset_comes;    /* `wait`: for what arrives at the other side, which has closed */
    size_t lost;         /* written to who has vanished */
    rws__sim_event wait; /* connecting; writing to who has vanished */
    uint64_t began_us;   /* of the connect */
    bool refuse, silent; /* of the connect */
    rws__sim_op *readers, *writers; /* operations that wait */
    rws__sim_op *lent;              /* zero-copy sends that wait for their notification */
    /* listening */
    rws__sim_socket **backlog;
    uint32_t backlog_first, backlog_count, backlog_max;
    rws__sim_socket *next_listening;
    rws__socket_file file;
};

rws__sim_socket *rws__sim_socket_make(sa_family_t family, const rws__socket_options *options);
rws__sim_socket *rws__sim_socket_hold(rws__sim_socket *socket);
void rws__sim_socket_drop(rws__sim_socket *socket);

/* Bytes, 0 at the end of the stream, or -errno; -EAGAIN: nothing yet. */
ssize_t rws__sim_socket_recv(rws__sim_socket *socket, uint8_t *data, size_t len);
ssize_t rws__sim_socket_send(rws__sim_socket *socket, const uint8_t *data, size_t len);
bool rws__sim_socket_is_readable(const rws__sim_socket *socket);
/* Free bytes of the send buffer; and whether that is enough to wake who waits for it. */
size_t rws__sim_socket_room(const rws__sim_socket *socket);
bool rws__sim_socket_is_writable(const rws__sim_socket *socket);
size_t rws__sim_socket_unacknowledged(const rws__sim_socket *socket);
/* 0, -EINPROGRESS or another -errno. */
int rws__sim_socket_connect(rws__sim_socket *socket, const struct sockaddr *address, socklen_t len);
/* Of one that is in progress: -EINPROGRESS, 0 or another -errno. */
int rws__sim_socket_connected(rws__sim_socket *socket);
/* The first in the backlog, held for the caller; or NULL. */
rws__sim_socket *rws__sim_socket_accept(rws__sim_socket *socket);
int rws__sim_socket_listen(rws__sim_socket *socket, const struct sockaddr *address, socklen_t len,
                           bool first, uint32_t backlog);
/* Nobody connects to it any more, and who waits is reset. */
void rws__sim_socket_stop_listening(rws__sim_socket *socket);
int rws__sim_socket_shutdown(rws__sim_socket *socket);
void rws__sim_socket_disconnect(rws__sim_socket *socket);
void rws__sim_socket_vanish(rws__sim_socket *socket);

/* ---- descriptor.c ---- */

/* A descriptor for it, whose hold it takes; or -EMFILE, and it is dropped. */
int rws__sim_descriptor_make(rws__sim_socket *socket);
rws__sim_socket *rws__sim_descriptor(int fd); /* NULL: -EBADF */

/* ---- ring.c, operation.c ---- */

typedef enum rws__sim_kind {
    RWS__SIM_ACCEPT_MULTISHOT,
    RWS__SIM_ACCEPT_DIRECT,
    RWS__SIM_ACCEPT_FD,
    RWS__SIM_INSTALL,
    RWS__SIM_PEER,
    RWS__SIM_RECV_MULTISHOT,
    RWS__SIM_RECV_PROVIDED,
    RWS__SIM_RECV,
    RWS__SIM_SEND,
    RWS__SIM_SEND_SOME,
    RWS__SIM_SEND_QUIET,
    RWS__SIM_SEND_ZC,
    RWS__SIM_UNACKNOWLEDGED,
    RWS__SIM_CONNECT,
    RWS__SIM_DISCONNECT,
    RWS__SIM_SHUTDOWN,
    RWS__SIM_CLOSE,
    RWS__SIM_CANCEL,
    RWS__SIM_CANCEL_FILE,
    RWS__SIM_READ_EVENT,
    RWS__SIM_TIMEOUT,
    RWS__SIM_TIMEOUT_UPDATE,
} rws__sim_kind;

typedef enum rws__sim_place {
    RWS__SIM_QUEUED,  /* not submitted */
    RWS__SIM_RUNNING, /* being tried */
    RWS__SIM_WAITING, /* for its socket, event or time */
    RWS__SIM_READY,   /* is tried again in the next turn */
    RWS__SIM_HELD,    /* is ready later (RWS__SIM_LATE) */
    RWS__SIM_DONE,    /* its completion is posted later (RWS__SIM_LATE) */
    RWS__SIM_LENT,    /* a zero-copy send whose notification is still to come */
} rws__sim_place;

struct rws__sim_op {
    rws__ring *ring;
    rws__sim_kind kind;
    rws__sim_place place;
    uint64_t user_data, target; /* `target`: of a cancel or update; of a timeout, the time */
    int32_t file;               /* index, or a descriptor */
    rws__sim_socket *socket;    /* held from when it was submitted */
    uint8_t *memory;
    size_t len, done;
    uint64_t hash; /* of the memory that may not change */
    uint64_t upto; /* a zero-copy send: what has to arrive */
    socklen_t *address_len;
    bool acts;   /* it was tried before, or starts late */
    int32_t res; /* DONE */
    rws__sim_event event;
    rws__sim_op *next, *prev;           /* all of the ring that are submitted */
    rws__sim_op *line_next, *line_prev; /* in the queue it stands in */
    rws__sim_op **line;                 /* of a socket */
};

typedef struct rws__sim_line {
    rws__sim_op *first, *last;
} rws__sim_line;

struct rws__ring {
    uint32_t features;
    uint32_t sq_entries, cq_entries;
    rws__sim_line queued, ready;
    uint32_t queued_count, ready_count;
    rws__sim_op *event_read; /* that waits */
    rws__sim_op *submitted;  /* all that have no last completion */
    uint32_t ops;
    rws__sim_op *unused;
    bool sq_blocked; /* until the next turn */
    bool sleeps;
    rws__cqe *cqes; /* the queue, and behind it what overflowed */
    uint32_t cqes_first, cqes_count, cqes_max;
    uint32_t fits; /* so many of them are in the queue */
    rws__sim_socket **files;
    uint32_t *free_files; /* the last one is given first */
    uint32_t files_max, files_free;
    struct {
        uint8_t *memory;
        size_t len;
    } * registered;
    uint32_t registered_max;
    rws__buffers buffers;
    struct {
        uint32_t index;
        uint8_t *memory;
        size_t bytes;
    } * provided; /* a ring of buffers.count */
    uint32_t provided_first, provided_count;
    bool *has; /* by index: the kernel has it */
    bool incremental, ran_dry;
    uint64_t overflows, enters;
};

/* calls.c */
/* Submit what is queued, or a part of it. */
void rws__sim_submit(rws__ring *ring);

/* ring.c */
rws__sim_op *rws__sim_op_new(rws__ring *ring);
void rws__sim_line_append(rws__sim_line *line, rws__sim_op *op);
/* The first, which has to be there. */
rws__sim_op *rws__sim_line_take(rws__sim_line *line);
/* Something that it waited for has changed. */
void rws__sim_op_wake(rws__sim_op *op);
void rws__sim_op_make_ready(rws__sim_op *op);
void rws__sim_op_wait(rws__sim_op *op, rws__sim_op **line);
void rws__sim_op_leave_line(rws__sim_op *op);
/* Its last completion. */
void rws__sim_complete(rws__sim_op *op, int32_t res, uint32_t flags);
/* One that others follow. False: there is no room in the queue, and it has to end. */
bool rws__sim_post_more(rws__sim_op *op, int32_t res, uint32_t flags);
void rws__sim_post(rws__ring *ring, uint64_t user_data, int32_t res, uint32_t flags);
void rws__sim_op_free(rws__sim_op *op);
/* The connection has them, or is gone. */
void rws__sim_op_notify(rws__sim_op *op);
/* An index for it, whose hold it takes; or -ENFILE, and it is dropped. */
int32_t rws__sim_file_add(rws__ring *ring, rws__sim_socket *socket);

/* operation.c */
uint64_t rws__sim_hash(const uint8_t *data, size_t len);
/* Try it, for the first time or again. */
void rws__sim_op_run(rws__sim_op *op);

#endif
