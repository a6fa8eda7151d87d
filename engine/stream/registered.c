#include "engine/stream/registered.h"

#include "engine/base/assert.h"
#include "engine/base/pages.h"

#include <assert.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static_assert(RWS__REGISTERED_MAX < UINT8_MAX, "an entry's index + 1 is kept in a byte");

/* Registering 2 MiB whose pages were given back takes 0.6 to 1 ms, most of it for fresh pages; a
 * registered send of 1 MiB spares 50 µs. So that it is at most a tenth of what is spared, a region
 * that the slab wanted pages of is not registered again before this many sends, */
#define REST_SENDS 255u
/* and one that was not read during this many sends makes room for another. */
#define IDLE_SENDS 256u

/* ---- limits ---- */

/* Whether RLIMIT_MEMLOCK does not bind this process. */
static bool may_lock_anything(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
    memset(data, 0, sizeof data);
    if (syscall(SYS_capget, &header, data) != 0) return false;
    return data[CAP_TO_INDEX(CAP_IPC_LOCK)].effective & CAP_TO_MASK(CAP_IPC_LOCK);
}

uint32_t rws__registered_regions_max(uint32_t shards)
{
    struct rlimit limit;
    if (may_lock_anything() || getrlimit(RLIMIT_MEMLOCK, &limit) != 0) return RWS__REGISTERED_MAX;
    rlim_t regions = limit.rlim_cur / 2 / shards / RWS__REGISTERED_BYTES;
    return regions < RWS__REGISTERED_MAX ? (uint32_t)regions : RWS__REGISTERED_MAX;
}

/* ---- regions ---- */

static size_t region_bytes(const rws__registered *r)
{
    return (size_t)1 << r->region_order;
}

static void leave(rws__registered *r, rws__registered_entry *entry)
{
    if (entry->state == RWS__REGISTERED_LEAVING) return;
    RWS_ASSERT(entry->state == RWS__REGISTERED_READY);
    entry->state = RWS__REGISTERED_LEAVING;
    r->leaving++;
}

/* The slab has free pages: those of registered regions stay for now. */
static void give_back(rws__page_returner *returner, void *pages, size_t bytes)
{
    rws__registered *r = (rws__registered *)returner;
    if (r->entries_used == 0) {
        rws__pages_give_back(pages, bytes);
        return;
    }
    size_t begin = (size_t)((uint8_t *)pages - r->slab->base), end = begin + bytes;
    while (begin < end) {
        size_t region = begin >> r->region_order;
        size_t stop = (region + 1) << r->region_order;
        if (stop > end) stop = end;
        uint8_t entry = r->regions[region].entry;
        if (entry == 0)
            rws__pages_give_back(r->slab->base + begin, stop - begin);
        else
            leave(r, &r->entries[entry - 1]);
        begin = stop;
    }
}

/* Unregister what nothing reads, and give back what is free of it; not while the kernel refuses. */
static void unregister(rws__registered *r, rws__registered_entry *entry)
{
    RWS_ASSERT(entry->state == RWS__REGISTERED_LEAVING && entry->sends == 0);
    if (rws__ring_unregister(r->ring, (uint32_t)(entry - r->entries)) != 0) return;
    size_t begin = (size_t)entry->region << r->region_order;
    r->regions[entry->region] = (rws__registered_region){.rest = REST_SENDS};
    entry->state = RWS__REGISTERED_EMPTY;
    r->entries_used--;
    r->leaving--;
    rws__slab_give_back_free(r->slab, begin, begin + region_bytes(r));
}

void rws__registered_settle(rws__registered *r)
{
    if (r->leaving == 0) return;
    for (uint32_t i = 0; i < RWS__REGISTERED_MAX; i++) {
        rws__registered_entry *entry = &r->entries[i];
        if (entry->state == RWS__REGISTERED_LEAVING && entry->sends == 0) unregister(r, entry);
    }
}

/* The table is full: let the region go that was not read for longest, if that is long ago. */
static void make_room(rws__registered *r)
{
    rws__registered_entry *oldest = NULL;
    for (uint32_t i = 0; i < RWS__REGISTERED_MAX; i++) {
        rws__registered_entry *entry = &r->entries[i];
        if (entry->state != RWS__REGISTERED_READY || entry->sends > 0) continue;
        if (oldest == NULL || entry->last_send < oldest->last_send) oldest = entry;
    }
    if (oldest == NULL || r->sends - oldest->last_send <= IDLE_SENDS) return;
    leave(r, oldest);
    unregister(r, oldest);
}

static rws__registered_entry *find_empty(rws__registered *r)
{
    for (uint32_t i = 0; i < RWS__REGISTERED_MAX; i++)
        if (r->entries[i].state == RWS__REGISTERED_EMPTY) return &r->entries[i];
    RWS_UNREACHABLE("an entry is free");
}

/* Register a region, or NULL: it may not be, or can't be. */
static rws__registered_entry *add(rws__registered *r, uint32_t index)
{
    rws__registered_region *region = &r->regions[index];
    if (region->rest > 0) {
        region->rest--;
        return NULL;
    }
    if (r->entries_used == r->entries_max) make_room(r);
    if (r->entries_used >= r->entries_max) return NULL;
    rws__registered_entry *entry = find_empty(r);
    void *memory = r->slab->base + ((size_t)index << r->region_order);
    uint32_t at = (uint32_t)(entry - r->entries);
    if (rws__ring_register(r->ring, at, memory, region_bytes(r)) != 0) {
        r->entries_max = r->entries_used;
        return NULL;
    }
    *entry = (rws__registered_entry){.region = index, .state = RWS__REGISTERED_READY};
    region->entry = (uint8_t)(at + 1);
    r->entries_used++;
    return entry;
}

/* ---- life ---- */

void rws__registered_init(rws__registered *r, rws__slab *slab, rws__ring *ring,
                          uint32_t entries_max, size_t region_bytes)
{
    RWS_ASSERT(entries_max <= RWS__REGISTERED_MAX && region_bytes >= slab->page_bytes &&
               (region_bytes & (region_bytes - 1)) == 0);
    memset(r, 0, sizeof *r);
    if (entries_max == 0 || !(rws__ring_features(ring) & RWS__FEATURE_REGISTERED_BUFFERS)) return;
    if (region_bytes > slab->bytes) region_bytes = slab->bytes;
    r->regions_bytes = slab->bytes / region_bytes * sizeof(rws__registered_region);
    r->regions = rws__pages_reserve(r->regions_bytes);
    if (r->regions == NULL) return;
    while ((size_t)1 << r->region_order < region_bytes)
        r->region_order++;
    r->returner.give_back = give_back;
    r->slab = slab;
    r->ring = ring;
    r->entries_max = entries_max;
    slab->returner = &r->returner;
}

void rws__registered_deinit(rws__registered *r)
{
    if (r->slab != NULL) r->slab->returner = NULL;
    rws__pages_release(r->regions, r->regions_bytes);
    memset(r, 0, sizeof *r);
}

void rws__registered_start(rws__registered *r)
{
    r->started = true;
}

/* ---- sends ---- */

int32_t rws__registered_begin(rws__registered *r, const void *data, size_t len)
{
    if (!r->started || r->entries_max == 0) return RWS__NOT_REGISTERED;
    size_t begin = (size_t)((const uint8_t *)data - r->slab->base);
    if (begin >= r->slab->bytes || len == 0) return RWS__NOT_REGISTERED;
    size_t index = begin >> r->region_order;
    if ((begin + len - 1) >> r->region_order != index) return RWS__NOT_REGISTERED;
    r->sends++;
    uint8_t known = r->regions[index].entry;
    rws__registered_entry *entry = known > 0 ? &r->entries[known - 1] : add(r, (uint32_t)index);
    if (entry == NULL || entry->state != RWS__REGISTERED_READY) return RWS__NOT_REGISTERED;
    entry->sends++;
    entry->last_send = r->sends;
    return (int32_t)(entry - r->entries);
}

void rws__registered_end(rws__registered *r, int32_t index)
{
    if (index == RWS__NOT_REGISTERED) return;
    rws__registered_entry *entry = &r->entries[index];
    RWS_ASSERT(entry->state != RWS__REGISTERED_EMPTY && entry->sends > 0);
    entry->sends--;
}
