/*
 * The clients of the stress test: raw sockets, cut writes, stalling readers, and a check of every
 * byte that comes back. They share nothing with codec/ or engine/.
 */
#ifndef RINGWS_TESTS_SUPPORT_STRESS_CLIENT_H
#define RINGWS_TESTS_SUPPORT_STRESS_CLIENT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>

#include "support/raw_client.h"
#include "support/stress_plan.h"

typedef struct stress_conn stress_conn;
typedef struct stress_clients stress_clients;

/* Totals, and what shows that the test tested something. */
typedef struct stress_totals {
    uint64_t messages, bytes, frames, pings;
    uint64_t writes, cut_writes; /* writes that ended inside of a frame */
    uint64_t full_writes;        /* writes that the kernel did not take whole */
    uint64_t stalls;
} stress_totals;

/* Connect all and start the threads. NULL with a message on standard error if that fails. */
stress_clients *stress_clients_start(const stress_plan *plan, uint16_t port);

/* True when all are done, or one failed. */
bool stress_clients_are_done(stress_clients *clients);
/* Changes while something moves. */
uint64_t stress_clients_progress(stress_clients *clients);
/* Who waits for what. */
void stress_clients_dump(stress_clients *clients, FILE *out);
/* Stop, join and free. NULL if every echo came back, else what went wrong (static memory). */
const char *stress_clients_finish(stress_clients *clients, stress_totals *totals);

#endif
