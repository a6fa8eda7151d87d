#include "engine/conn/dial.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

/* So that a sentence and this fit an error's text. */
#define ADDRESSES_TEXT 160

rws__handshake_request rws__dial_request(const rws__dial *dial)
{
    return (rws__handshake_request){
        .host = {dial->authority, strlen(dial->authority)},
        .target = {dial->target, strlen(dial->target)},
        .subprotocols = dial->subprotocols,
        .origin = dial->origin,
        .extra = dial->headers,
        .extra_len = dial->headers_len,
    };
}

bool rws__dial_go_on(rws__dial *dial, const rws__cause *cause)
{
    if (dial->failed++ == 0) dial->first_failure = *cause;
    return dial->failed < dial->addresses_count;
}

/* " (tried ADDRESS, ADDRESS …)", as many as fit, where there are several. */
static void list_addresses(const rws__dial *dial, char out[ADDRESSES_TEXT])
{
    size_t used = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < dial->addresses_count && dial->addresses_count > 1; i++) {
        const struct sockaddr_storage *address = &dial->addresses[i].storage;
        const void *bytes = address->ss_family == AF_INET6
                                ? (const void *)&((const struct sockaddr_in6 *)address)->sin6_addr
                                : (const void *)&((const struct sockaddr_in *)address)->sin_addr;
        char text[INET6_ADDRSTRLEN];
        if (inet_ntop(address->ss_family, bytes, text, sizeof text) == NULL) continue;
        if (used + strlen(text) + sizeof " (tried , ...)" > ADDRESSES_TEXT) {
            used += (size_t)snprintf(out + used, ADDRESSES_TEXT - used, ", ...");
            break;
        }
        used += (size_t)snprintf(out + used, ADDRESSES_TEXT - used, "%s%s",
                                 used > 0 ? ", " : " (tried ", text);
    }
    if (used > 0) snprintf(out + used, ADDRESSES_TEXT - used, ")");
}

void rws__dial_fail(const rws__dial *dial, rws__counters *counters, const rws__cause *cause)
{
    const rws__endpoint *endpoint = dial->endpoint;
    char tried[ADDRESSES_TEXT] = "";
    /* None could be connected to: that the preferred one could not says most. */
    if (dial->failed == dial->addresses_count) {
        cause = &dial->first_failure;
        list_addresses(dial, tried);
    }
    rws__count_refused(counters, cause->status);
    if (endpoint->handler.on_dial_error == NULL) return;
    rws_error error;
    rws_span text = cause->text;
    if (text.data == NULL) text.data = rws_strerror(cause->status), text.len = strlen(text.data);
    rws__fail(&error, cause->status, "%.*s%s", (int)text.len, text.data, tried);
    endpoint->handler.on_dial_error(&error, dial->user, endpoint->user);
}

void rws__dial_free(const rws__env *env, rws__dial *dial)
{
    rws__free_string(env, dial->authority);
    rws__free_string(env, dial->target);
    rws__free_string(env, dial->host);
    rws__free_string(env, dial->subprotocols_text);
    rws__free_string(env, dial->origin_text);
    rws__free(env, dial, sizeof *dial);
}
