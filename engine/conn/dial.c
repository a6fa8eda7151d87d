#include "engine/conn/dial.h"

#include <string.h>

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

void rws__dial_fail(const rws__dial *dial, rws__counters *counters, const rws__cause *cause)
{
    const rws__endpoint *endpoint = dial->endpoint;
    rws__count_refused(counters, cause->status);
    if (endpoint->handler.on_dial_error == NULL) return;
    rws_error error;
    rws_span text = cause->text;
    if (text.data == NULL) text.data = rws_strerror(cause->status), text.len = strlen(text.data);
    rws__fail(&error, cause->status, "%.*s", (int)text.len, text.data);
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
