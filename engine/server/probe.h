/*
 * What the running kernel offers, and what stands in the way.
 */
#ifndef RINGWS_SERVER_PROBE_H
#define RINGWS_SERVER_PROBE_H

#include "ringws/ringws.h"

/* 0 if rings can be made here, else a status and a sentence. */
int rws__probe_check(rws_error *error);

/* What a failure of io_uring_setup means, told apart by what the system says of itself. Pure, for
 * tests. */
typedef struct rws__probe_facts {
    int setup_error;       /* -errno of making the ring; 0: it works */
    int major, minor;      /* kernel version */
    int io_uring_disabled; /* the sysctl; -1: there is none (before 6.6, or no io_uring) */
    int seccomp_mode;      /* Seccomp: of /proc/self/status; 2 is a filter */
} rws__probe_facts;

int rws__probe_judge(const rws__probe_facts *facts, rws_probe *probe);

#endif
