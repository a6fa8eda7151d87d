#include "engine/dialer.h"

#include "engine/group.h"
#include "engine/op.h"
#include "engine/shard.h"
#include "engine/ring/random.h"
#include "codec/url.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

/* What servers commonly take for a head, ours too. */
#define REQUEST_MAX 8192

static int resolve(rws__dial *dial, const rws__url *url)
{
    if (url->is_unix) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        if (strlen(url->host) >= sizeof address.sun_path) return RWS_E_ADDRESS;
        memcpy(address.sun_path, url->host, strlen(url->host) + 1);
        memcpy(&dial->address, &address, sizeof address);
        dial->address_len = sizeof address;
        return 0;
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *list;
    char port[8];
    snprintf(port, sizeof port, "%u", url->port);
    if (getaddrinfo(url->host, port, &hints, &list) != 0) return RWS_E_ADDRESS;
    memcpy(&dial->address, list->ai_addr, list->ai_addrlen);
    dial->address_len = list->ai_addrlen;
    freeaddrinfo(list);
    return 0;
}

void rws__dial_free(const rws__config *config, rws__dial *dial)
{
    rws__free_string(&config->env, dial->authority);
    rws__free_string(&config->env, dial->target);
    rws__free_string(&config->env, dial->subprotocols_text);
    rws__free(&config->env, dial, sizeof *dial);
}

/* Whether the request can be written at all: the strings are checked where the caller can still be
 * told. */
static int check_request(const rws__dial *dial)
{
    uint8_t out[REQUEST_MAX];
    char key[RWS__KEY_BYTES];
    memset(key, 'A', sizeof key);
    rws__handshake_request request = {
        .host = {dial->authority, strlen(dial->authority)},
        .target = {dial->target, strlen(dial->target)},
        .subprotocols = dial->subprotocols,
    };
    int res = rws__handshake_write_request(out, sizeof out, &request, key);
    return res < 0 ? RWS_E_ARGUMENT : 0;
}

int rws__dial_create(rws__dial **out, const rws__config *config, const char *url_text,
                     const char *subprotocols, void *user)
{
    rws__url url;
    int res = rws__url_parse(&url, url_text);
    if (res != 0) return res;
    rws__dial *dial = rws__alloc(&config->env, sizeof *dial);
    if (dial == NULL) return -ENOMEM;
    dial->user = user;
    dial->authority = rws__copy_string(&config->env, url.authority);
    dial->target = rws__copy_string(&config->env, url.target);
    dial->subprotocols_text =
        rws__copy_string(&config->env, subprotocols != NULL ? subprotocols : "");
    res = -ENOMEM;
    if (dial->authority == NULL || dial->target == NULL || dial->subprotocols_text == NULL)
        goto free_dial;
    dial->subprotocols = (rws_span){dial->subprotocols_text, strlen(dial->subprotocols_text)};
    uint8_t random[16];
    rws__random(random, sizeof random);
    rws__handshake_key(random, dial->key);
    res = check_request(dial);
    if (res == 0) res = resolve(dial, &url);
    if (res != 0) goto free_dial;
    *out = dial;
    return 0;

free_dial:
    rws__dial_free(config, dial);
    return res;
}

static void report(rws__shard *shard, rws__dial *dial, int status, const char *text)
{
    const rws__config *config = shard->config;
    if (dial->reported) return;
    dial->reported = true;
    rws__count(&shard->counters.refused, 1);
    if (config->handler.on_dial_error == NULL) return;
    rws_error error;
    rws__fail(&error, status, "%s", text);
    config->handler.on_dial_error(rws__group_client(shard->group), &error, dial->user,
                                  config->user);
}

void rws__dial_failed(rws_conn *conn, int status, const char *text)
{
    report(conn->shard, rws__conn_dial(conn), status, text);
}

/* Make the socket and send it on its way into the table. */
void rws__dial_post(void *arg, bool cancelled)
{
    rws__dial *dial = arg;
    rws__shard *shard = dial->shard;
    const rws__config *config = shard->config;
    const char *why = "the client is stopping";
    int status = RWS_E_STATE;
    if (cancelled || shard->draining) goto fail;
    int fd = socket(dial->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        status = -errno;
        why = "no descriptor for a socket is left: raise the limit (ulimit -n)";
        goto fail;
    }
    int on = 1, size = config->socket_send_buffer_bytes;
    if (dial->address.ss_family != AF_UNIX)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (size > 0) (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    rws_conn *conn =
        shard->slots_used < config->connections_max ? rws__shard_take_conn(shard) : NULL;
    if (conn == NULL) {
        close(fd);
        status = -ENFILE;
        why = "connections_max connections are open already";
        goto fail;
    }
    rws__conn_cold_part(conn)->dial = dial;
    conn->user = dial->user;
    rws__shard_install(shard, conn, fd);
    return;

fail:
    report(shard, dial, status, why);
    rws__dial_free(config, dial);
}

void rws__dial_on_installed(rws_conn *conn, int32_t res)
{
    rws__shard *shard = conn->shard;
    rws__dial *dial = rws__conn_dial(conn);
    if (res >= 0)
        res = rws__ring_connect(shard->ring, (uint32_t)conn->file,
                                (const struct sockaddr *)&dial->address, dial->address_len,
                                rws__op_pack(RWS__OP_CONNECT, conn->slot, conn->generation));
    if (res < 0) {
        rws__dial_failed(conn, res, "no direct descriptor for the socket is left");
        rws__conn_cut(conn, RWS_CLOSED_BY_US);
        return;
    }
    conn->ops++;
}

static const char *connect_error(int32_t res)
{
    switch (-res) {
    case ECONNREFUSED: return "connection refused: nobody listens there";
    case ENOENT: return "there is no such unix socket";
    case EADDRNOTAVAIL: return "no local port is left: too many connections to one address";
    default: return rws_strerror(res);
    }
}

void rws__dial_on_connected(rws_conn *conn, int32_t res)
{
    rws__shard *shard = conn->shard;
    rws__dial *dial = rws__conn_dial(conn);
    if (conn->state != RWS__CONN_CONNECTING) return;
    if (res < 0) {
        rws__dial_failed(conn, res, connect_error(res));
        rws__conn_cut(conn, RWS_CLOSED_BY_PEER);
        return;
    }
    rws__count(&shard->counters.accepted, 1);
    if (dial->address.ss_family != AF_UNIX)
        memcpy(&rws__conn_cold_part(conn)->peer, &dial->address, sizeof(struct sockaddr_in6));
    else
        rws__conn_cold_part(conn)->peer.generic.sa_family = AF_UNIX;
    rws__handshake_request request = {
        .host = {dial->authority, strlen(dial->authority)},
        .target = {dial->target, strlen(dial->target)},
        .subprotocols = dial->subprotocols,
    };
    size_t room =
        request.host.len + request.target.len + request.subprotocols.len + RWS__WRITE_REQUEST_BYTES;
    uint8_t *out = rws__sendq_reserve(&conn->sendq, &shard->send_slab, room);
    int len = out != NULL ? rws__handshake_write_request(out, room, &request, dial->key) : -ENOMEM;
    rws__conn_enter(conn, RWS__CONN_UPGRADING);
    if (len < 0) {
        rws__dial_failed(conn, len, "the request could not be written");
        rws__conn_cut(conn, RWS_CLOSED_BY_US);
        return;
    }
    rws__sendq_commit(&conn->sendq, (size_t)len);
    rws__conn_mark_dirty(conn);
}
