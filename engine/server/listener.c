#include "engine/server/listener.h"

#include "codec/handshake.h"
#include "engine/base/loopback.h"
#include "engine/stream/filter.h"

#include <errno.h>
#include <string.h>

#define MULTISHOT_SLOT RWS__ACCEPTS
/* Single accepts of a shard. Each keeps a slot free, and must not keep those that free themselves
 * of connections that linger (RWS__RESERVE_FREE) from being used. */
#define ACCEPTS_MAX (RWS__RESERVE - RWS__RESERVE_FREE)
/* After an accept that failed for want of a resource. */
#define RESOURCE_PAUSE_MS 100

static rws__loop *loop_of(const rws__listener *listener)
{
    return listener->conns->streams.loop;
}

static uint32_t free_slots(const rws__listener *listener)
{
    const rws__streams *streams = &listener->conns->streams;
    uint32_t slots = streams->options.slots_max - RWS__RESERVE_DIALS;
    return slots > streams->slots_used ? slots - streams->slots_used : 0;
}

void rws__listener_init(rws__listener *listener, uint32_t index, int fd, rws__accepting *all,
                        rws__conns *conns, const rws__listener_config *config,
                        const rws__http_rules *http)
{
    memset(listener, 0, sizeof *listener);
    listener->index = index;
    listener->all = all;
    listener->fd = fd;
    listener->conns = conns;
    listener->config = config;
    listener->http = http;
    listener->family = config->unix_path != NULL ? AF_UNIX : AF_UNSPEC;
    struct sockaddr_storage address;
    if (fd < 0) return;
    all->listeners++;
    if (config->unix_path == NULL && !config->inherited) all->backlogs += config->backlog;
    if (rws__socket_local(fd, &address) != 0) return;
    listener->family = address.ss_family;
    listener->loopback = rws__is_loopback((struct sockaddr *)&address);
}

/* ---- accepting ---- */

static bool may_accept(rws__listener *listener)
{
    return !listener->conns->draining && !listener->failing && free_slots(listener) > 0;
}

static bool has_room_for_backlogs(const rws__listener *listener)
{
    return free_slots(listener) >= 2 * listener->all->backlogs;
}

/*
 * A multishot accept takes whatever waits in the backlog before we can stop it, so there must be
 * room for all of that; single accepts take no more than there is. The peer's address comes with a
 * single accept, or by a command on the accepted socket.
 */
static bool uses_multishot(const rws__listener *listener)
{
    if (!has_room_for_backlogs(listener)) return false;
    if (listener->hand_round != NULL ||
        !(loop_of(listener)->features & RWS__FEATURE_MULTISHOT_ACCEPT))
        return false;
    return !listener->config->peer_address ||
           (loop_of(listener)->features & RWS__FEATURE_SOCKET_COMMANDS);
}

static uint64_t accept_data(const rws__listener *listener, uint32_t slot)
{
    return rws__op_pack(RWS__OP_ACCEPT, listener->index << RWS__ACCEPT_SLOT_BITS | slot, 0);
}

static void arm_singles(rws__listener *listener)
{
    /* No more accepts than free slots: each may bring a connection. Shared out, so that no listener
     * has none because the others have all. */
    uint32_t room = free_slots(listener), share = ACCEPTS_MAX / listener->all->listeners;
    room = room > listener->all->armed ? room - listener->all->armed : 0;
    for (uint32_t i = 0; i < RWS__ACCEPTS && i < share && room > 0; i++) {
        rws__accept_slot *slot = &listener->accepts[i];
        if (slot->armed) continue;
        slot->len = sizeof slot->address;
        int res = listener->hand_round != NULL
                      ? rws__ring_accept_fd(loop_of(listener)->ring, listener->fd,
                                            accept_data(listener, i))
                      : rws__ring_accept_direct(loop_of(listener)->ring, listener->fd,
                                                (struct sockaddr *)&slot->address, &slot->len,
                                                accept_data(listener, i));
        if (res != 0) {
            loop_of(listener)->refused = true;
            return;
        }
        slot->armed = true;
        listener->all->armed++;
        room--;
    }
}

bool rws__listener_is_quiet(const rws__listener *listener)
{
    for (uint32_t i = 0; i < RWS__ACCEPTS; i++)
        if (listener->accepts[i].armed) return false;
    return !listener->multishot_armed;
}

static void cancel_all(rws__listener *listener)
{
    if (listener->cancelled) return;
    int res = 0;
    if (listener->multishot_armed)
        res = rws__ring_cancel(loop_of(listener)->ring, accept_data(listener, MULTISHOT_SLOT));
    for (uint32_t i = 0; i < RWS__ACCEPTS && res == 0; i++)
        if (listener->accepts[i].armed)
            res = rws__ring_cancel(loop_of(listener)->ring, accept_data(listener, i));
    listener->cancelled = res == 0;
    if (res != 0) loop_of(listener)->refused = true;
}

/* It may not accept. */
static void pause_accepting(rws__listener *listener)
{
    if (!listener->paused && !listener->conns->draining && !listener->failing)
        rws__count(&loop_of(listener)->counters.accept_pauses, 1);
    listener->paused = true;
    if (!rws__listener_is_quiet(listener)) cancel_all(listener);
}

static void arm(rws__listener *listener)
{
    listener->paused = false;
    if (listener->cancelled && !rws__listener_is_quiet(listener)) return;
    listener->cancelled = false;
    bool multishot = uses_multishot(listener);
    if (listener->multishot_armed && !multishot) {
        cancel_all(listener);
    } else if (!multishot) {
        arm_singles(listener);
    } else if (!listener->multishot_armed) {
        rws__loop *loop = loop_of(listener);
        listener->multishot_armed =
            rws__ring_accept_multishot(loop->ring, listener->fd,
                                       accept_data(listener, MULTISHOT_SLOT)) == 0;
        if (!listener->multishot_armed) loop->refused = true;
    }
}

void rws__listener_pump(rws__listener *listener)
{
    if (listener->fd < 0) return;
    if (may_accept(listener))
        arm(listener);
    else
        pause_accepting(listener);
}

uint32_t rws__listener_room(const rws__listener *listener)
{
    if (listener->fd < 0) return 0;
    bool rests = listener->multishot_armed && !listener->cancelled;
    return rests ? 2 * listener->all->backlogs + RWS__RESERVE_DIALS : UINT32_MAX;
}

static void on_accept_error(rws__listener *listener, int32_t res)
{
    switch (-res) {
    case ECANCELED:
    case EINTR:
    case EAGAIN:
    case ECONNABORTED:
    case EPROTO: return; /* the peer gave up before it was accepted */
    default:
        rws__log(loop_of(listener)->env, RWS_LOG_WARNING,
                 "accept failed: %s; trying again in %d ms", rws_strerror(res), RESOURCE_PAUSE_MS);
        listener->failing = true;
        rws__loop_set(loop_of(listener), RWS__DEADLINE_SHARD, &listener->timer, RESOURCE_PAUSE_MS);
    }
}

/* A connection for what was accepted, or NULL. */
static rws__stream *take_stream(rws__listener *listener)
{
    rws_conn *conn = rws__conns_take(listener->conns, listener->http);
    if (conn == NULL) return NULL;
    conn->stream.family = (uint8_t)listener->family;
    conn->stream.no_card = listener->loopback || listener->family == AF_UNIX;
    rws__stream_set_filters(&conn->stream, listener->config->filters, NULL);
    return &conn->stream;
}

static void on_file(rws__listener *listener, int32_t file, const struct sockaddr *address)
{
    /* Where it can be asked for later it is not kept for all. */
    bool keep = listener->config->peer_address &&
                !(loop_of(listener)->features & RWS__FEATURE_SOCKET_COMMANDS);
    rws__stream *stream = take_stream(listener);
    if (stream == NULL)
        rws__streams_close_file(&listener->conns->streams, file);
    else
        rws__stream_accepted(stream, file, keep ? address : NULL);
}

void rws__listener_on_accept(rws__listener *listener, const rws__cqe *cqe)
{
    uint32_t slot = rws__op_slot(cqe->user_data) & ((1u << RWS__ACCEPT_SLOT_BITS) - 1);
    const struct sockaddr *address = NULL;
    if (slot == MULTISHOT_SLOT) {
        listener->multishot_armed = cqe->flags & RWS__CQE_MORE;
    } else {
        listener->accepts[slot].armed = false;
        listener->all->armed--;
        address = (const struct sockaddr *)&listener->accepts[slot].address;
    }
    if (cqe->res < 0)
        on_accept_error(listener, cqe->res);
    else if (listener->hand_round != NULL)
        listener->hand_round(listener, cqe->res);
    else
        on_file(listener, cqe->res, address);
}

void rws__listener_turn_away(const rws__listener *listener, int fd)
{
    static const char text[] = "The server has no room for more connections.\n";
    uint8_t answer[RWS__WRITE_REFUSAL_BYTES];
    int len = rws__handshake_write_refusal(answer, sizeof answer, 503, NULL, 0,
                                           (rws_span){text, sizeof text - 1});
    RWS_ASSERT(len > 0);
    /* Behind filters the peer expects something else. */
    rws__socket_turn_away(fd, answer, listener->config->filters == NULL ? (size_t)len : 0);
}

/* The peer of an ordinary descriptor, for where it can't be asked for later. */
static void keep_peer(const rws__listener *listener, rws__stream *stream, int fd)
{
    if (!listener->config->peer_address || listener->family == AF_UNIX ||
        (loop_of(listener)->features & RWS__FEATURE_SOCKET_COMMANDS))
        return;
    struct sockaddr_storage address;
    if (rws__socket_peer(fd, &address) != 0) return;
    memcpy(&rws__stream_cold_part(stream)->peer, &address, sizeof(struct sockaddr_in6));
}

void rws__listener_adopt(rws__listener *listener, int fd)
{
    rws__stream *stream = take_stream(listener);
    if (stream == NULL) {
        rws__listener_turn_away(listener, fd);
        return;
    }
    keep_peer(listener, stream, fd);
    rws__stream_adopt(stream, fd);
}

void rws__listener_on_deadline(rws__listener *listener)
{
    listener->failing = false;
}

/* Closing a listener of a SO_REUSEPORT group resets what waits in it: take that first, and answer
 * it with 503. */
static void take_backlog(rws__listener *listener)
{
    int waits = rws__socket_stop_waiting(listener->fd);
    /* Not later: once nobody listens, the next server may take the path for its own. */
    if (listener->config->unix_path != NULL)
        rws__socket_unlink(listener->config->unix_path, &listener->config->unix_file);
    /* Where it would wait for one more, what is there is reset with the listener. */
    while (waits == 0 && free_slots(listener) > 0) {
        int fd = rws__socket_accept(listener->fd);
        if (fd < 0) break;
        rws__listener_adopt(listener, fd);
    }
}

void rws__listener_finish(rws__listener *listener)
{
    if (listener->fd < 0) return;
    /* An inherited one goes on listening where it came from: what waits in it is the next server's,
     * and so are its flags. */
    if (!listener->config->inherited) take_backlog(listener);
    rws__socket_close(listener->fd);
    listener->fd = -1;
}
