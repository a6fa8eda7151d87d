/*
 * Two filters for tests. The toy filter stands for TLS: a handshake of two messages, records, an
 * end record (toy_wire.h). The prefix filter stands for PROXY: a fixed line at the start, after
 * which it takes itself out.
 */
#ifndef RINGWS_TESTS_SUPPORT_TOY_FILTER_H
#define RINGWS_TESTS_SUPPORT_TOY_FILTER_H

#include "engine/stream/filter.h"
#include "support/toy_wire.h"

#define TOY_PREFIX "TOYPROXY 192.0.2.7\r\n"

/* Which filters a stream gets. */
typedef struct toy_maker {
    rws__filter_maker maker;
    bool client;    /* this side dials */
    uint8_t prefix; /* so many prefix filters below */
    uint8_t toys;   /* so many toy filters above them */
} toy_maker;

int toy_make(const rws__filter_maker *maker, rws__stream *stream, const rws__filter_target *target);

/* A toy filter, as of a server and of a client. */
extern const toy_maker toy_server, toy_client;

#endif
