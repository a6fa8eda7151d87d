#include "engine/assert.h"

#include "engine/config.h"

#include <stdio.h>
#include <stdlib.h>

/* The one mutable state beside the table of SIMD implementations: an assert has no shard at hand.
 * Written once by each loop thread. */
static _Thread_local const rws__config *log_config;

void rws__assert_log_to(const rws__config *config)
{
    log_config = config;
}

void rws__assert_failed(const char *condition, const char *file, int line)
{
    /* To abort without a word would help nobody: without a hook it is the standard error. */
    if (log_config != NULL && log_config->log != NULL)
        rws__log(log_config, RWS_LOG_ERROR, "assertion failed: %s (%s:%d)", condition, file, line);
    else
        fprintf(stderr, "ringws: assertion failed: %s (%s:%d)\n", condition, file, line);
    abort();
}
