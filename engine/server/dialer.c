#include "engine/server/dialer.h"

#include "engine/ring/random.h"
#include "engine/stream/filter.h"

#include "codec/url.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

/* What servers commonly take for a head, ours too. */
#define REQUEST_MAX 8192

static int resolve(rws__dial *dial, const rws__url *url)
{
    if (url->is_unix) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        if (strlen(url->host) >= sizeof address.sun_path) return RWS_E_ADDRESS;
        memcpy(address.sun_path, url->host, strlen(url->host) + 1);
        memcpy(&dial->addresses[0].storage, &address, sizeof address);
        dial->addresses[0].len = sizeof address;
        dial->addresses_count = 1;
        return 0;
    }
    int count = rws__socket_resolve(url->host, url->port, dial->addresses, RWS__DIAL_ADDRESSES_MAX);
    if (count < 0) return count;
    dial->addresses_count = (uint32_t)count;
    return 0;
}

/* Whether the request can be written at all: the strings are checked where the caller can still be
 * told. */
static int check_request(const rws__dial *dial)
{
    uint8_t out[REQUEST_MAX];
    rws__handshake_request request = rws__dial_request(dial);
    int res = rws__handshake_write_request(out, sizeof out, &request, dial->key);
    return res < 0 ? RWS_E_ARGUMENT : 0;
}

/* The endpoint's subprotocols as a list. One that is cut is longer than any request may be, and
 * refused for it. */
static char *join_subprotocols(const rws__env *env, const rws__endpoint *endpoint)
{
    char list[REQUEST_MAX + 1] = "";
    size_t used = 0;
    for (uint32_t i = 0; i < endpoint->subprotocols_count && used < sizeof list; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", used > 0 ? ", " : "",
                                 endpoint->subprotocols[i]);
    return rws__copy_string(env, list);
}

static int add_headers(rws__dial *dial, const rws_dial_options *options)
{
    for (uint32_t i = 0; i < options->headers_count; i++) {
        const rws_header *header = &options->headers[i];
        if (header->name == NULL || header->value == NULL) return RWS_E_ARGUMENT;
        rws_span name = {header->name, strlen(header->name)};
        rws_span value = {header->value, strlen(header->value)};
        int res = rws__handshake_append_header(dial->headers, sizeof dial->headers,
                                               &dial->headers_len, name, value);
        if (res != 0) return RWS_E_ARGUMENT;
    }
    return 0;
}

static int copy_texts(rws__dial *dial, const rws__env *env, const rws__url *url,
                      const rws_dial_options *options)
{
    dial->authority = rws__copy_string(env, url->authority);
    dial->target = rws__copy_string(env, url->target);
    dial->host = rws__copy_string(env, url->is_unix ? url->authority : url->host);
    dial->origin_text = rws__copy_string(env, options->origin != NULL ? options->origin : "");
    dial->subprotocols_text = options->subprotocols != NULL
                                  ? rws__copy_string(env, options->subprotocols)
                                  : join_subprotocols(env, dial->endpoint);
    if (dial->authority == NULL || dial->target == NULL || dial->host == NULL ||
        dial->origin_text == NULL || dial->subprotocols_text == NULL)
        return -ENOMEM;
    dial->server.host = (rws_span){dial->host, strlen(dial->host)};
    dial->server.port = url->is_unix ? 0 : url->port;
    dial->subprotocols = (rws_span){dial->subprotocols_text, strlen(dial->subprotocols_text)};
    dial->origin = (rws_span){dial->origin_text, strlen(dial->origin_text)};
    return add_headers(dial, options);
}

/* It did not get as far as a connection. */
static void fail(rws__dial *dial, rws__conns *conns, int status, const char *text)
{
    rws__loop *loop = conns->streams.loop;
    rws__cause cause = rws__cause_abnormal(status, RWS_CLOSED_BY_US, text);
    rws__dial_fail(dial, &loop->counters, &cause);
    rws__dial_free(loop->env, dial);
}

/* Why there is no socket; NULL: what the system says of `status`. */
static const char *explain_socket(int status)
{
    bool none_left = status == -EMFILE || status == -ENFILE;
    return none_left ? "no descriptor for a socket is left: raise the limit (ulimit -n)" : NULL;
}

/* A socket for the address in turn. Where the system does not know its family, the next one has its
 * turn. */
static int make_socket(rws__dial *dial)
{
    for (;;) {
        int fd = rws__socket_make(rws__dial_address(dial)->storage.ss_family, &dial->socket);
        rws__cause cause = rws__cause_abnormal(fd, RWS_CLOSED_BY_US, NULL);
        if (fd != -EAFNOSUPPORT || !rws__dial_go_on(dial, &cause)) return fd;
    }
}

static void start(rws__dial *dial, rws__conns *conns)
{
    if (conns->draining) {
        fail(dial, conns, RWS_E_STATE, "the runtime is stopping");
        return;
    }
    int fd = make_socket(dial);
    if (fd < 0) {
        fail(dial, conns, fd, explain_socket(fd));
        return;
    }
    rws_conn *conn = rws__conns_take_dial(conns, dial);
    if (conn == NULL) {
        rws__socket_close(fd);
        fail(dial, conns, -ENFILE, "connections_max connections are open already");
        return;
    }
    const rws__socket_address *address = rws__dial_address(dial);
    conn->stream.family = (uint8_t)address->storage.ss_family;
    conn->stream.no_card = address->storage.ss_family == AF_UNIX;
    rws__stream_set_filters(&conn->stream, dial->filters, &dial->server);
    rws__stream_dial(&conn->stream, fd, (const struct sockaddr *)&address->storage, address->len);
}

int rws__dial_create(rws__dial **out, const rws__env *env, const rws__endpoint *endpoint,
                     const char *url_text, const rws_dial_options *options)
{
    rws__url url;
    int res = rws__url_parse(&url, url_text);
    if (res != 0) return res;
    rws__dial *dial = rws__alloc(env, sizeof *dial);
    if (dial == NULL) return -ENOMEM;
    dial->start = start;
    dial->endpoint = endpoint;
    dial->user = options->user;
    dial->timeout_ms = options->timeout_ms;
    dial->head_bytes_max = options->handshake_bytes_max;
    uint8_t random[16];
    rws__random(random, sizeof random);
    rws__handshake_key(random, dial->key);
    res = copy_texts(dial, env, &url, options);
    if (res == 0) res = check_request(dial);
    if (res == 0) res = resolve(dial, &url);
    if (res != 0) {
        rws__dial_free(env, dial);
        return res;
    }
    *out = dial;
    return 0;
}

void rws__dial_start(void *arg, bool cancelled)
{
    rws__dial_post *post = arg;
    const rws__env *env = post->conns->streams.loop->env;
    if (cancelled)
        fail(post->dial, post->conns, RWS_E_STATE, "the runtime is stopping");
    else
        start(post->dial, post->conns);
    rws__free(env, post, sizeof *post);
}
