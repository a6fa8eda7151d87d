/*
 * A peer: a socket in the world outside of the engine, what waits to be written to it, and what was
 * read from it.
 */
#include "engine/testing/kit.h"

#include "engine/ring/sockets.h"
#include "engine/simulated/kernel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define READ_BYTES 16384u

rws_test_peer *rws__peer_make(rws_test *test, int fd, bool serves)
{
    rws_test_peer *peer = rws__test_memory(sizeof *peer);
    peer->test = test;
    peer->number = ++test->peers_count;
    peer->fd = fd;
    peer->serves = serves;
    peer->masks = !serves;
    peer->reads = true;
    peer->last = &peer->first;
    peer->head.headers = peer->headers;
    peer->head.headers_capacity = sizeof peer->headers / sizeof peer->headers[0];
    (void)rws__socket_local(fd, &peer->address);
    rws_test_peer **last = &test->peers;
    while (*last != NULL)
        last = &(*last)->next;
    *last = peer;
    return peer;
}

static void close_socket(rws_test_peer *peer)
{
    if (peer->fd >= 0) rws__socket_close(peer->fd);
    peer->fd = -1;
}

void rws__peer_free(rws_test_peer *peer)
{
    rws__item *item;
    close_socket(peer);
    while ((item = rws__peer_take(peer)) != NULL)
        rws__item_free(item);
    rws__bytes_free(&peer->in);
    rws__bytes_free(&peer->out);
    rws__bytes_free(&peer->message);
    rws__bytes_free(&peer->request);
    free(peer->head_bytes);
    free(peer->offered);
    free(peer);
}

/* ---- both ways ---- */

static bool write_out(rws_test_peer *peer)
{
    if (peer->out.len == 0) return false;
    ssize_t done = rws__sim_write(peer->fd, peer->out.data, peer->out.len);
    if (done == -EAGAIN || done == 0) return false;
    /* Whoever writes to a connection that is gone learns nothing else from it. */
    rws__bytes_drop(&peer->out, done > 0 ? (size_t)done : peer->out.len);
    return true;
}

static bool end_half(rws_test_peer *peer)
{
    if (!peer->end_wanted || peer->end_sent || peer->out.len > 0) return false;
    rws__sim_shutdown(peer->fd);
    peer->end_sent = true;
    return true;
}

/* Items of what has come so far. */
static void decode_input(rws_test_peer *peer)
{
    if (peer->state == RWS__PEER_HEAD) rws__peer_read_head(peer);
    if (peer->state == RWS__PEER_OPEN) rws__peer_decode(peer);
    if (peer->state == RWS__PEER_NOT_HTTP || peer->state == RWS__PEER_BROKE_PROTOCOL)
        rws__bytes_free(&peer->in);
}

static bool read_in(rws_test_peer *peer)
{
    if (!peer->reads || peer->ended != 0) return false;
    bool got_some = false;
    for (;;) {
        uint8_t *room = rws__bytes_add(&peer->in, READ_BYTES);
        ssize_t done = rws__sim_read(peer->fd, room, READ_BYTES);
        peer->in.len -= READ_BYTES - (done > 0 ? (size_t)done : 0);
        if (done <= 0) {
            if (done != -EAGAIN) peer->ended = done == 0 ? 1 : 2;
            if (got_some || done != -EAGAIN) decode_input(peer);
            return got_some || done != -EAGAIN;
        }
        got_some = true;
    }
}

bool rws__peer_pump(rws_test_peer *peer)
{
    if (peer->fd < 0) return false;
    int connected = rws__sim_connected(peer->fd);
    if (connected == -EINPROGRESS) return false;
    if (connected != 0 && peer->ended == 0) {
        peer->ended = 2;
        return true;
    }
    bool wrote = write_out(peer);
    bool ended = end_half(peer);
    bool read = read_in(peer);
    return wrote || ended || read;
}

/* ---- what the program does to it ---- */

void rws_test_feed_end(rws_test_peer *peer)
{
    if (!rws__peer_is_there(peer) || !rws__test_is_at_rest(peer->test)) return;
    peer->end_wanted = true;
    rws__test_run(peer->test);
}

void rws_test_reset(rws_test_peer *peer)
{
    if (!rws__peer_is_there(peer) || !rws__test_is_at_rest(peer->test)) return;
    if (peer->fd >= 0) rws__sim_reset(peer->fd);
    peer->fd = -1;
    rws__test_run(peer->test);
}

void rws_test_vanish(rws_test_peer *peer)
{
    if (!rws__peer_is_there(peer) || !rws__test_is_at_rest(peer->test)) return;
    if (peer->fd >= 0) rws__sim_vanish(peer->fd);
    peer->fd = -1;
    peer->vanished = true;
    rws__test_run(peer->test);
}

void rws_test_stop_reading(rws_test_peer *peer)
{
    if (!rws__peer_is_there(peer) || !rws__test_is_at_rest(peer->test)) return;
    rws__test_run(peer->test);
    peer->reads = false;
}

void rws_test_resume_reading(rws_test_peer *peer)
{
    if (!rws__peer_is_there(peer) || !rws__test_is_at_rest(peer->test)) return;
    peer->reads = true;
    rws__test_run(peer->test);
}

rws_span rws_test_head(const rws_test_peer *peer)
{
    if (!rws__peer_is_there(peer)) return (rws_span){NULL, 0};
    return (rws_span){(const char *)peer->head_bytes, peer->head_len};
}

/* ---- the engine's end ---- */

static bool is_claimed(const rws_test *test, uint64_t id)
{
    for (const rws_test_peer *peer = test->peers; peer != NULL; peer = peer->next)
        if (peer->conn_id == id) return true;
    return false;
}

/* An accepted connection knows its peer's address. Of those that were dialled, the one that belongs
 * to nobody else is meant: they open one after the other, each when its peer is fed. */
static bool is_conn_of(const rws_test_peer *peer, rws_conn *conn)
{
    bool is_dialled = conn->endpoint->rules.role == RWS_CLIENT;
    if (is_dialled != peer->serves) return false;
    if (is_dialled) return !is_claimed(peer->test, rws__conn_id(conn));
    struct sockaddr_storage address = {0};
    socklen_t len = sizeof address;
    if (rws_conn_peer(conn, &address, &len) != 0) return false;
    return memcmp(&address, &peer->address, len) == 0;
}

rws_conn *rws__peer_conn(rws_test_peer *peer)
{
    rws__conns *conns = &rws__test_shard(peer->test)->conns;
    if (peer->conn_id != 0) return rws__conns_find(conns, peer->conn_id);
    for (uint32_t slot = 0; slot < conns->streams.slots_touched; slot++) {
        rws_conn *conn = (rws_conn *)rws__streams_at(&conns->streams, slot);
        if (conn->stream.phase == RWS__STREAM_FREE) continue;
        if (rws__conns_find(conns, rws__conn_id(conn)) == NULL) continue;
        if (!is_conn_of(peer, conn)) continue;
        peer->conn_id = rws__conn_id(conn);
        return conn;
    }
    return NULL;
}

rws_conn *rws_test_conn(rws_test_peer *peer)
{
    return rws__peer_is_there(peer) ? rws__peer_conn(peer) : NULL;
}
