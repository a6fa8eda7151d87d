#include "engine/base/assert.h"

#include "engine/base/env.h"

#include <stdio.h>
#include <stdlib.h>

/* The one mutable state beside the table of SIMD implementations: an assert has no shard at hand.
 * Written once by each loop thread. */
static _Thread_local const rws__env *log_env;

void rws__assert_log_to(const rws__env *env)
{
    log_env = env;
}

void rws__assert_failed(const char *condition, const char *file, int line)
{
    /* To abort without a word would help nobody: without a hook it is the standard error. */
    if (log_env != NULL && log_env->log != NULL)
        rws__log(log_env, RWS_LOG_ERROR, "assertion failed: %s (%s:%d)", condition, file, line);
    else
        fprintf(stderr, "ringws: assertion failed: %s (%s:%d)\n", condition, file, line);
    abort();
}
