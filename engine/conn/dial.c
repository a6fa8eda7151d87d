#include "engine/conn/dial.h"

void rws__dial_free(const rws__env *env, rws__dial *dial)
{
    rws__free_string(env, dial->authority);
    rws__free_string(env, dial->target);
    rws__free_string(env, dial->subprotocols_text);
    rws__free_string(env, dial->origin_text);
    rws__free(env, dial, sizeof *dial);
}
