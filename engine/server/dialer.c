#include "engine/server/dialer.h"

#include "engine/ring/random.h"
#include "engine/stream/filter.h"

#include "codec/url.h"

#include <errno.h>
#include <netdb.h>
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

int rws__dial_create(rws__dial **out, const rws__env *env, const char *url_text,
                     const char *subprotocols, void *user)
{
    rws__url url;
    int res = rws__url_parse(&url, url_text);
    if (res != 0) return res;
    rws__dial *dial = rws__alloc(env, sizeof *dial);
    if (dial == NULL) return -ENOMEM;
    dial->user = user;
    dial->authority = rws__copy_string(env, url.authority);
    dial->target = rws__copy_string(env, url.target);
    dial->subprotocols_text = rws__copy_string(env, subprotocols != NULL ? subprotocols : "");
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
    rws__dial_free(env, dial);
    return res;
}

/* It did not get as far as a connection. */
static void fail(const rws__dial_post *post, int status, const char *text)
{
    const rws__endpoint *endpoint = post->dial->endpoint;
    rws__loop *loop = post->conns->streams.loop;
    rws__count(&loop->counters.refused, 1);
    if (endpoint->handler.on_dial_error != NULL) {
        rws_error error;
        rws__fail(&error, status, "%s", text);
        endpoint->handler.on_dial_error(&error, post->dial->user, endpoint->user);
    }
    rws__dial_free(loop->env, post->dial);
}

static void start(const rws__dial_post *post)
{
    rws__dial *dial = post->dial;
    int fd = rws__socket_make(dial->address.ss_family, &post->socket);
    if (fd < 0) {
        fail(post, fd, "no descriptor for a socket is left: raise the limit (ulimit -n)");
        return;
    }
    rws_conn *conn = rws__conns_take_dial(post->conns, dial);
    if (conn == NULL) {
        close(fd);
        fail(post, -ENFILE, "connections_max connections are open already");
        return;
    }
    conn->stream.family = (uint8_t)dial->address.ss_family;
    conn->stream.no_card = dial->address.ss_family == AF_UNIX;
    rws__stream_set_filters(&conn->stream, dial->filters);
    rws__stream_dial(&conn->stream, fd, (const struct sockaddr *)&dial->address, dial->address_len);
}

void rws__dial_start(void *arg, bool cancelled)
{
    rws__dial_post *post = arg;
    const rws__env *env = post->conns->streams.loop->env;
    if (cancelled || post->conns->draining)
        fail(post, RWS_E_STATE, "the client is stopping");
    else
        start(post);
    rws__free(env, post, sizeof *post);
}
