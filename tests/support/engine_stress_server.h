/*
 * The echo server of the stress test: what a careful program does with RWS_E_BACKLOG, and counters
 * that show whether the queue ever filled.
 */
#ifndef RINGWS_TESTS_SUPPORT_ENGINE_STRESS_SERVER_H
#define RINGWS_TESTS_SUPPORT_ENGINE_STRESS_SERVER_H

#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>

#include "support/options.h"

typedef struct stress_server stress_server;

typedef struct stress_server_counts {
    uint64_t opened, closed, clean_closes;
    uint64_t drains;   /* on_drain: the queue went over its high watermark, or refused a message */
    uint64_t backlogs; /* RWS_E_BACKLOG */
    uint64_t blocked;  /* messages that met a queue which many turns had not emptied */
} stress_server_counts;

/* `options` as the caller wants them; the callbacks, the log and `user` are set here. NULL with a
 * message on standard error. */
stress_server *stress_server_start(const test_options *options);
uint16_t stress_server_port(const stress_server *server);
void stress_server_stats(const stress_server *server, rws_stats *stats);
stress_server_counts stress_server_counted(const stress_server *server);
/* What each connection has queued; waits for the shards for a while. */
void stress_server_dump(stress_server *server, FILE *out);
/* Stop and free; what rws_server_wait() said. */
int stress_server_finish(stress_server *server, rws_stats *stats);

#endif
