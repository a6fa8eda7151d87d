/*
 * TCP, as kernel.h describes it.
 */
#include "engine/simulated/internal.h"

#include "engine/base/assert.h"

#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#define SYN_AGAIN_US     1000000u   /* the first time; then twice as long each time */
#define SYN_TIMEOUT_US   127000000u /* tcp_syn_retries 6 */
#define RETRY_TIMEOUT_US 924600000u /* tcp_retries2 15 */
#define FIRST_PORT       32768
#define LAST_PORT        60999

static rws__sim_socket *of_arrives(rws__sim_event *event)
{
    return (rws__sim_socket *)((char *)event - offsetof(rws__sim_socket, arrives));
}

static rws__sim_socket *of_wait(rws__sim_event *event)
{
    return (rws__sim_socket *)((char *)event - offsetof(rws__sim_socket, wait));
}

static void wake(rws__sim_op *line)
{
    while (line != NULL) {
        rws__sim_op *next = line->line_next;
        rws__sim_op_wake(line);
        line = next;
    }
}

static void wake_all(rws__sim_socket *socket)
{
    wake(socket->readers);
    wake(socket->writers);
}

/* The notifications of zero-copy sends: of those that have arrived, or of all. */
static void notify(rws__sim_socket *socket, bool all)
{
    const rws__sim_socket *other = socket->other;
    for (rws__sim_op *op = socket->lent, *next; op != NULL; op = next) {
        next = op->line_next;
        if (all || other == NULL || op->upto <= other->in.arrived) rws__sim_op_notify(op);
    }
}

/* ---- bytes ---- */

/* What is on its way through the pipe; a FIN counts as a byte. */
static size_t unacknowledged_in(const rws__sim_pipe *pipe)
{
    return rws__sim_pipe_under_way(pipe) + (pipe->fin && !pipe->fin_arrived);
}

size_t rws__sim_socket_unacknowledged(const rws__sim_socket *socket)
{
    return socket->other != NULL ? unacknowledged_in(&socket->other->in) : socket->lost;
}

static size_t under_way(const rws__sim_socket *socket)
{
    return socket->other != NULL ? rws__sim_pipe_under_way(&socket->other->in) : socket->lost;
}

size_t rws__sim_socket_room(const rws__sim_socket *socket)
{
    size_t used = under_way(socket);
    return used < socket->send_buffer ? socket->send_buffer - used : 0;
}

bool rws__sim_socket_is_writable(const rws__sim_socket *socket)
{
    return rws__sim_socket_room(socket) >= socket->send_buffer / 3;
}

static void deliver(rws__sim_socket *socket)
{
    uint64_t next;
    uint64_t now = rws__sim()->now_us;
    bool arrived = rws__sim_pipe_deliver(&socket->in, socket->recv_buffer, now, &next);
    if (next != UINT64_MAX)
        rws__sim_event_set(&socket->arrives, next);
    else
        rws__sim_event_clear(&socket->arrives);
    if (!arrived) return;
    wake(socket->readers);
    rws__sim_socket *other = socket->other;
    if (other == NULL) return;
    notify(other, false);
    if (rws__sim_socket_is_writable(other)) wake(other->writers);
}

static void on_arrives(rws__sim_event *event)
{
    deliver(of_arrives(event));
}

/* When something that is sent now is there. */
static uint64_t arrival_us(void)
{
    const rws__sim_kernel *own = rws__sim();
    return own->now_us + rws__sim_time_of(RWS__SIM_DELAY, own->options.delay_us_max);
}

/* The connection is cut off at this side: by the other one, or by a time-out. */
static void die(rws__sim_socket *socket, int error)
{
    socket->other = NULL;
    socket->error = error;
    socket->state = RWS__SIM_DEAD;
    rws__sim_pipe_drop(&socket->in);
    rws__sim_event_clear(&socket->arrives);
    rws__sim_event_clear(&socket->wait);
    notify(socket, true);
    wake_all(socket);
}

static void reset_other(rws__sim_socket *socket)
{
    rws__sim_socket *other = socket->other;
    socket->other = NULL;
    /* tcp_reset(): who has seen the end of the stream gets EPIPE. */
    if (other != NULL) die(other, other->in.fin_arrived ? EPIPE : ECONNRESET);
}

static int take_error(rws__sim_socket *socket)
{
    int error = socket->error;
    socket->error = 0;
    return error;
}

bool rws__sim_socket_is_readable(const rws__sim_socket *socket)
{
    if (socket->state == RWS__SIM_LISTENING) return socket->backlog_count > 0;
    return rws__sim_pipe_unread(&socket->in) > 0 || socket->error != 0 || socket->in.fin_arrived ||
           socket->state == RWS__SIM_DEAD;
}

ssize_t rws__sim_socket_recv(rws__sim_socket *socket, uint8_t *data, size_t len)
{
    size_t unread = rws__sim_pipe_unread(&socket->in);
    if (unread > 0) {
        if (len > unread) len = unread;
        if (len > 1 && rws__sim_fails(RWS__SIM_SHORT_RECV)) len = 1 + rws__sim_random(len - 1);
        rws__sim_pipe_read(&socket->in, data, len);
        if (rws__sim_pipe_under_way(&socket->in) > 0 || socket->in.fin) deliver(socket);
        return (ssize_t)len;
    }
    /* Behind a FIN nothing else is looked at (SOCK_DONE in tcp_recvmsg_locked()). */
    if (socket->in.fin_arrived) return 0;
    if (socket->error != 0) return -take_error(socket);
    if (socket->state == RWS__SIM_DEAD) return 0;
    return socket->state == RWS__SIM_CONNECTED ? -EAGAIN : -ENOTCONN;
}

/* Sent to who has vanished: it is tried again for minutes. */
static void lose(rws__sim_socket *socket, size_t len)
{
    socket->lost += len;
    if (!rws__sim_event_is_set(&socket->wait))
        rws__sim_event_set(&socket->wait, rws__sim()->now_us + RETRY_TIMEOUT_US);
}

/* To somebody who has closed: the answer is a reset. Or who has vanished: there is none. */
static void send_to_nobody(rws__sim_socket *socket, size_t len)
{
    if (!socket->other_vanished) {
        die(socket, socket->in.fin_arrived ? EPIPE : ECONNRESET);
        return;
    }
    lose(socket, len);
}

ssize_t rws__sim_socket_send(rws__sim_socket *socket, const uint8_t *data, size_t len)
{
    if (socket->error != 0) return -take_error(socket);
    if (socket->shut || socket->state != RWS__SIM_CONNECTED) return -EPIPE;
    size_t room = rws__sim_socket_room(socket);
    if (room == 0) return -EAGAIN;
    if (len > room) len = room;
    if (len > 1 && rws__sim_fails(RWS__SIM_SHORT_SEND)) len = 1 + rws__sim_random(len - 1);
    rws__sim_kernel *own = rws__sim();
    own->digest = (own->digest ^ rws__sim_hash(data, len)) * 0x9FB21C651E98DF25u;
    rws__sim_socket *other = socket->other;
    if (other == NULL) {
        send_to_nobody(socket, len);
        return (ssize_t)len;
    }
    rws__sim_pipe_write(&other->in, data, len, arrival_us());
    deliver(other);
    if (socket->other != NULL && rws__sim_fails(RWS__SIM_RESET)) {
        reset_other(socket);
        die(socket, ECONNRESET);
    }
    return (ssize_t)len;
}

int rws__sim_socket_shutdown(rws__sim_socket *socket)
{
    if (socket->state != RWS__SIM_CONNECTED) return -ENOTCONN;
    if (socket->shut) return 0;
    socket->shut = true;
    wake(socket->writers); /* they get EPIPE */
    if (socket->other == NULL && socket->other_vanished) lose(socket, 1);
    if (socket->other == NULL) return 0;
    rws__sim_pipe_end(&socket->other->in, arrival_us());
    deliver(socket->other);
    return 0;
}

/* tcp_disconnect(): it is as it was made, but for the error that is to be reported. */
void rws__sim_socket_disconnect(rws__sim_socket *socket)
{
    if (socket->local.ss_family == AF_UNIX) return;
    bool was_up = socket->state == RWS__SIM_CONNECTED || socket->state == RWS__SIM_CONNECTING;
    reset_other(socket);
    if (socket->state != RWS__SIM_DEAD) die(socket, was_up ? ECONNRESET : 0);
    socket->state = RWS__SIM_UNCONNECTED;
    socket->shut = socket->in.fin = socket->in.fin_arrived = false;
    socket->in.read = socket->in.arrived;
}

void rws__sim_socket_vanish(rws__sim_socket *socket)
{
    rws__sim_socket *other = socket->other;
    socket->other = NULL;
    if (other == NULL) return;
    other->other = NULL;
    other->other_vanished = true;
    other->lost = unacknowledged_in(&socket->in);
    rws__sim_pipe_drop(&other->in);
    rws__sim_event_clear(&other->arrives);
    if (other->lost > 0) rws__sim_event_set(&other->wait, rws__sim()->now_us + RETRY_TIMEOUT_US);
}

/* ---- connecting ---- */

static bool is_unix(const rws__sim_socket *socket)
{
    return socket->local.ss_family == AF_UNIX;
}

static const char *path_of(const struct sockaddr_storage *address)
{
    return ((const struct sockaddr_un *)address)->sun_path;
}

static in_port_t *port_of(struct sockaddr_storage *address)
{
    /* At the same place in both families. */
    return &((struct sockaddr_in *)address)->sin_port;
}

static bool is_any(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET)
        return ((const struct sockaddr_in *)address)->sin_addr.s_addr == htonl(INADDR_ANY);
    return IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)address)->sin6_addr);
}

static bool is_same_host(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
    if (a->ss_family != b->ss_family) return false;
    if (a->ss_family == AF_INET)
        return ((const struct sockaddr_in *)a)->sin_addr.s_addr ==
               ((const struct sockaddr_in *)b)->sin_addr.s_addr;
    return IN6_ARE_ADDR_EQUAL(&((const struct sockaddr_in6 *)a)->sin6_addr,
                              &((const struct sockaddr_in6 *)b)->sin6_addr);
}

static bool serves(rws__sim_socket *listener, struct sockaddr_storage *address)
{
    struct sockaddr_storage *local = &listener->local;
    if (local->ss_family == AF_UNIX || address->ss_family == AF_UNIX)
        return local->ss_family == address->ss_family &&
               strcmp(path_of(local), path_of(address)) == 0;
    if (*port_of(local) != *port_of(address)) return false;
    if (is_any(local)) return local->ss_family == AF_INET6 || address->ss_family == AF_INET;
    return is_same_host(local, address);
}

static rws__sim_socket *find_listener(struct sockaddr_storage *address)
{
    rws__sim_socket *found = NULL;
    uint32_t count = 0;
    for (rws__sim_socket *at = rws__sim()->listening; at != NULL; at = at->next_listening)
        if (serves(at, address) && rws__sim_random(++count) == 0) found = at;
    return found;
}

static void give_local(rws__sim_socket *socket)
{
    rws__sim_kernel *own = rws__sim();
    socket->local = (struct sockaddr_storage){.ss_family = socket->peer.ss_family};
    if (is_unix(socket)) return;
    socket->local = socket->peer;
    *port_of(&socket->local) = htons(own->next_port);
    own->next_port = own->next_port == LAST_PORT ? FIRST_PORT : own->next_port + 1;
}

/* The side of the listener, which waits to be accepted. */
static void arrive_at(rws__sim_socket *socket, rws__sim_socket *listener)
{
    rws__sim_socket *side = rws__sim_socket_make(listener->local.ss_family, NULL);
    side->send_buffer = listener->send_buffer;
    side->state = socket->state = RWS__SIM_CONNECTED;
    side->local = socket->peer;
    side->peer = socket->local;
    side->peer_len = socket->peer_len;
    side->other = socket;
    socket->other = side;
    uint32_t place = (listener->backlog_first + listener->backlog_count) % listener->backlog_max;
    listener->backlog[place] = side;
    listener->backlog_count++;
    wake(listener->readers);
}

static int fail_connect(rws__sim_socket *socket, int error)
{
    socket->state = RWS__SIM_UNCONNECTED;
    socket->error = error;
    return -error;
}

/* The SYN arrives. Returns as rws__sim_socket_connect(). */
static int try_connect(rws__sim_socket *socket)
{
    uint64_t now = rws__sim()->now_us, waited = now - socket->began_us;
    rws__sim_socket *listener = find_listener(&socket->peer);
    if (socket->refuse || (listener == NULL && !socket->silent))
        return fail_connect(socket, is_unix(socket) ? ENOENT : ECONNREFUSED);
    bool full = listener == NULL || listener->backlog_count == listener->backlog_max;
    if (!full && !socket->silent) {
        arrive_at(socket, listener);
        return 0;
    }
    if (waited >= SYN_TIMEOUT_US) return fail_connect(socket, ETIMEDOUT);
    uint64_t next = waited == 0 ? SYN_AGAIN_US : waited * 2 + SYN_AGAIN_US;
    if (next > SYN_TIMEOUT_US) next = SYN_TIMEOUT_US;
    rws__sim_event_set(&socket->wait, socket->began_us + next);
    return -EINPROGRESS;
}

static void on_wait(rws__sim_event *event)
{
    rws__sim_socket *socket = of_wait(event);
    if (socket->reset_comes)
        die(socket, socket->in.fin_arrived ? EPIPE : ECONNRESET);
    else if (socket->state != RWS__SIM_CONNECTING)
        die(socket, ETIMEDOUT);
    else if (try_connect(socket) != -EINPROGRESS)
        wake(socket->writers);
}

int rws__sim_socket_connect(rws__sim_socket *socket, const struct sockaddr *address, socklen_t len)
{
    const rws__sim_kernel *own = rws__sim();
    if (socket->state == RWS__SIM_CONNECTING) return -EALREADY;
    if (socket->state != RWS__SIM_UNCONNECTED) return -EISCONN;
    memcpy(&socket->peer, address, len);
    socket->peer_len = len;
    give_local(socket);
    socket->state = RWS__SIM_CONNECTING;
    socket->began_us = own->now_us;
    socket->refuse = rws__sim_fails(RWS__SIM_CONNECT_REFUSED);
    socket->silent = rws__sim_fails(RWS__SIM_CONNECT_SILENT);
    uint64_t delay = rws__sim_time_of(RWS__SIM_DELAY, own->options.delay_us_max);
    if (delay == 0) {
        int res = try_connect(socket);
        if (res != -EINPROGRESS) socket->error = 0; /* it is returned */
        return res;
    }
    socket->began_us += delay;
    rws__sim_event_set(&socket->wait, socket->began_us);
    return -EINPROGRESS;
}

int rws__sim_socket_connected(rws__sim_socket *socket)
{
    if (socket->state == RWS__SIM_CONNECTING) return -EINPROGRESS;
    if (socket->error != 0) return -take_error(socket);
    return socket->state == RWS__SIM_UNCONNECTED ? -ENOTCONN : 0;
}

/* ---- listening ---- */

static bool is_taken(rws__sim_socket *socket, bool first)
{
    for (rws__sim_socket *at = rws__sim()->listening; at != NULL; at = at->next_listening) {
        if (at->local.ss_family == AF_UNIX || is_unix(socket)) {
            if (serves(at, &socket->local)) return true;
        } else if (*port_of(&at->local) == *port_of(&socket->local)) {
            bool overlap = is_any(&at->local) || is_any(&socket->local) ||
                           is_same_host(&at->local, &socket->local);
            if (overlap && first) return true;
        }
    }
    return false;
}

int rws__sim_socket_listen(rws__sim_socket *socket, const struct sockaddr *address, socklen_t len,
                           bool first, uint32_t backlog)
{
    rws__sim_kernel *own = rws__sim();
    memcpy(&socket->local, address, len);
    while (!is_unix(socket) && *port_of(&socket->local) == 0) {
        *port_of(&socket->local) = htons(own->next_port++);
        if (is_taken(socket, true)) *port_of(&socket->local) = 0;
        if (own->next_port > LAST_PORT) own->next_port = FIRST_PORT;
    }
    if (is_taken(socket, first)) return -EADDRINUSE;
    socket->state = RWS__SIM_LISTENING;
    socket->backlog_max = backlog + 1; /* sk_acceptq_is_full() */
    socket->backlog = rws__sim_memory(socket->backlog_max * sizeof(rws__sim_socket *));
    socket->next_listening = own->listening;
    own->listening = socket;
    return 0;
}

rws__sim_socket *rws__sim_socket_accept(rws__sim_socket *socket)
{
    if (socket->backlog_count == 0) return NULL;
    rws__sim_socket *side = socket->backlog[socket->backlog_first];
    socket->backlog_first = (socket->backlog_first + 1) % socket->backlog_max;
    socket->backlog_count--;
    return side;
}

void rws__sim_socket_stop_listening(rws__sim_socket *socket)
{
    rws__sim_socket **at = &rws__sim()->listening;
    while (*at != NULL && *at != socket)
        at = &(*at)->next_listening;
    if (*at == NULL) return;
    *at = socket->next_listening;
    for (rws__sim_socket *side; (side = rws__sim_socket_accept(socket)) != NULL;) {
        reset_other(side);
        rws__sim_socket_drop(side);
    }
}

/* ---- life ---- */

rws__sim_socket *rws__sim_socket_make(sa_family_t family, const rws__socket_options *options)
{
    rws__sim_kernel *own = rws__sim();
    rws__sim_socket *socket = rws__sim_memory(sizeof *socket);
    socket->refs = 1;
    socket->local.ss_family = socket->peer.ss_family = family;
    socket->send_buffer = own->options.send_buffer_bytes;
    socket->recv_buffer = own->options.recv_buffer_bytes;
    /* The kernel doubles what is asked for, for its own overhead (socket(7)): so many bytes fit. */
    if (options != NULL && options->send_buffer_bytes > 0)
        socket->send_buffer = (size_t)options->send_buffer_bytes;
    socket->arrives.happen = on_arrives;
    socket->wait.happen = on_wait;
    own->sockets++;
    return socket;
}

rws__sim_socket *rws__sim_socket_hold(rws__sim_socket *socket)
{
    socket->refs++;
    return socket;
}

/* The last hold is gone: close(2). */
static void close_socket(rws__sim_socket *socket)
{
    rws__sim_socket *other = socket->other;
    if (other == NULL) return;
    if (rws__sim_pipe_unread(&socket->in) > 0) {
        reset_other(socket);
        return;
    }
    /* What is still on its way is answered with a reset when it arrives. */
    if (socket->in.count > 0) {
        other->reset_comes = true;
        rws__sim_event_set(&other->wait, socket->in.segments[socket->in.first].at_us);
    }
    bool ended = socket->shut;
    socket->other = NULL;
    other->other = NULL;
    if (ended) return;
    rws__sim_pipe_end(&other->in, arrival_us());
    deliver(other);
}

void rws__sim_socket_drop(rws__sim_socket *socket)
{
    RWS_ASSERT(socket->refs > 0);
    if (--socket->refs > 0) return;
    rws__sim_socket_stop_listening(socket);
    close_socket(socket);
    notify(socket, true);
    RWS_ASSERT(socket->readers == NULL && socket->writers == NULL && socket->lent == NULL);
    rws__sim_event_clear(&socket->arrives);
    rws__sim_event_clear(&socket->wait);
    rws__sim_pipe_free(&socket->in);
    free(socket->backlog);
    rws__sim()->sockets--;
    free(socket);
}
