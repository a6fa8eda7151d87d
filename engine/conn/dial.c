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

void rws__dial_free(const rws__env *env, rws__dial *dial)
{
    rws__free_string(env, dial->authority);
    rws__free_string(env, dial->target);
    rws__free_string(env, dial->host);
    rws__free_string(env, dial->subprotocols_text);
    rws__free_string(env, dial->origin_text);
    rws__free(env, dial, sizeof *dial);
}
