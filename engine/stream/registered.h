/*
 * Registered memory: what zero-copy sends read is registered with the ring, region by region, so
 * that no page is pinned for each send.
 *
 * A region is a part of one slab's range whose size is a power of two; a block that is not larger
 * lies in one region. The first send that reads a region registers it. All of its pages are
 * resident from then on and count to RLIMIT_MEMLOCK, so at most `entries_max` regions are
 * registered at a time. A send whose bytes lie elsewhere, in a larger block, or in a region that
 * could not be registered (the table is full, the limit is reached) is an ordinary zero-copy send.
 *
 * Nothing is registered before rws__registered_start(): where the kernel copies what is sent, there
 * is nothing to gain.
 *
 * Invariants:
 * - The pages behind the addresses of a registered region stay the same. The slab asks before it
 *   gives pages back (rws__page_returner): those of a registered region stay, and the region is
 *   *leaving*. No new send reads a leaving region as a registered one.
 * - A leaving region is unregistered when the last send that reads it has its last notification;
 *   only then do the pages of its free blocks go back. rws__registered_settle() does both.
 * - `sends` of an entry are the rws__registered_begin() that gave it, less rws__registered_end().
 */
#ifndef RINGWS_STREAM_REGISTERED_H
#define RINGWS_STREAM_REGISTERED_H

#include "engine/base/slab.h"
#include "engine/ring/ring.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* At most so many regions of a shard are registered, 32 MiB: 16 connections that echo messages of
 * 1 MiB, each of which has a block of 2 MiB with its head. */
#define RWS__REGISTERED_MAX 16u
/* The size of a region: the block of a message of 1 MiB. */
#define RWS__REGISTERED_BYTES ((size_t)2 << 20)

#define RWS__NOT_REGISTERED (-1)

typedef enum rws__registered_state {
    RWS__REGISTERED_EMPTY = 0,
    RWS__REGISTERED_READY,
    RWS__REGISTERED_LEAVING,
} rws__registered_state;

/* An entry of the ring's table. */
typedef struct rws__registered_entry {
    uint32_t region;
    uint32_t sends;     /* that were begun and not ended */
    uint64_t last_send; /* when, in sends of all regions */
    uint8_t state;
} rws__registered_entry;

typedef struct rws__registered_region {
    uint8_t entry; /* its index + 1; 0: none */
    uint8_t rest;  /* so many sends pass before it is registered again */
} rws__registered_region;

typedef struct rws__registered {
    rws__page_returner returner;
    rws__slab *slab; /* NULL: nothing is ever registered */
    rws__ring *ring;
    rws__registered_region *regions;
    size_t regions_bytes; /* of the array */
    uint32_t region_order;
    uint32_t entries_max; /* falls to `entries_used` when the kernel refuses more */
    uint32_t entries_used;
    uint32_t leaving;
    uint64_t sends; /* that were begun */
    bool started;
    rws__registered_entry entries[RWS__REGISTERED_MAX];
} rws__registered;

/* How many regions of RWS__REGISTERED_BYTES each of `shards` may register: RWS__REGISTERED_MAX, and
 * all together at most half of RLIMIT_MEMLOCK, unless this process may lock what it wants. */
uint32_t rws__registered_regions_max(uint32_t shards);

/* Register parts of `slab` with `ring`, whose table has at least `entries_max` entries (at most
 * RWS__REGISTERED_MAX). `region_bytes` is a power of two of at least a page. Both outlive
 * rws__registered_deinit(). Without the ring's feature, or without memory, nothing is registered.
 */
void rws__registered_init(rws__registered *registered, rws__slab *slab, rws__ring *ring,
                          uint32_t entries_max, size_t region_bytes);
/* Before the ring is destroyed, which empties its table. */
void rws__registered_deinit(rws__registered *registered);

/* The kernel has sent without a copy: from now on it is worth while. */
void rws__registered_start(rws__registered *registered);

/* A zero-copy send of `len` bytes at `data` is about to be submitted. Returns the entry of the
 * ring's table that it is to use, or RWS__NOT_REGISTERED. */
int32_t rws__registered_begin(rws__registered *registered, const void *data, size_t len);
/* The send was not submitted, or its last completion is there. `entry` is what begin() gave. */
void rws__registered_end(rws__registered *registered, int32_t entry);

/* Unregister the regions that are leaving and that nothing reads; once a turn, before the loop
 * waits. */
void rws__registered_settle(rws__registered *registered);

#endif
