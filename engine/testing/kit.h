/*
 * The inside of the testing kit (ringws/testing.h): a test is a runtime of one shard on the
 * thread's simulated kernel, and peers in the world outside of it, which have sockets and no ring.
 *
 * Invariants:
 * - All tests of a thread share its kernel, which is made for the first of them and freed with the
 *   last: a test that was left by longjmp() does not hinder the next one.
 * - The engine takes turns in rws__test_run() only. Between two calls of the program it sleeps.
 * - Memory of the kit itself is malloc's, and where there is none the program ends: only the
 *   runtime's allocator fails on demand.
 *
 * Files:
 *   test.c       a test from its options to its end, and what the program may ask of it
 *   check.c      arguments of the program
 *   run.c        turns of the engine until it sleeps; the clock
 *   peer.c       a peer's socket in both directions; the engine's end of its connection
 *   handshake.c  connecting and accepting: the opening handshake in both roles
 *   feed.c       frames and bytes that a peer sends
 *   inbox.c      what a peer received, decoded into items
 *   expect.c     expectations
 *   report.c     the text of failures, and who is told of them
 *   memory.c     the allocator that counts, and fails on demand
 *   bytes.c      bytes that grow, and the kit's own memory
 *   alone.c      that the program is not linked with ringws as well
 *   probe.c      in place of engine/server/probe.c: no server or client of the program's own
 */
#ifndef RINGWS_TESTING_KIT_H
#define RINGWS_TESTING_KIT_H

/* Definitions of functions are no places. */
#ifndef RWS_TEST_NO_PLACES
#define RWS_TEST_NO_PLACES
#endif

#include "codec/handshake.h"
#include "codec/message.h"
#include "engine/server/runtime.h"
#include "ringws/testing.h"

/* ---- bytes that grow ---- */

/* Zeroed memory is an empty one. */
typedef struct rws__bytes {
    uint8_t *data;
    size_t len, capacity;
} rws__bytes;

/* Room for `len` more bytes at the end, which now count. */
uint8_t *rws__bytes_add(rws__bytes *bytes, size_t len);
void rws__bytes_append(rws__bytes *bytes, const void *data, size_t len);
/* Take away the first `len`. */
void rws__bytes_drop(rws__bytes *bytes, size_t len);
void rws__bytes_free(rws__bytes *bytes);
/* malloc(), zeroed; never NULL. */
void *rws__test_memory(size_t bytes);
/* A string of these `len` bytes, in memory of that kind. */
char *rws__test_copy(const char *data, size_t len);

/* ---- memory.c: the allocator of the runtime ---- */

typedef struct rws__memory_counts {
    rws_allocator allocator;         /* the one that counts: what the runtime has */
    rws_allocator below;             /* the caller's, or alloc NULL: malloc */
    _Atomic size_t holders;          /* the test, and each block that was not given back */
    _Atomic size_t bytes;            /* in those */
    _Atomic uint64_t calls, fail_at; /* 0: none */
    atomic_bool failed;
} rws__memory_counts;

/* In memory of its own: what is given back late still finds it. */
rws__memory_counts *rws__memory_make(const rws_allocator *below);
/* One holder less: the last one frees it. */
void rws__memory_release(rws__memory_counts *counts);

/* ---- what a peer received ---- */

typedef enum rws__item_kind {
    RWS__ITEM_MESSAGE,
    RWS__ITEM_PING,
    RWS__ITEM_PONG,
    RWS__ITEM_CLOSE,
    RWS__ITEM_BROKEN, /* the engine broke the protocol: `text` */
} rws__item_kind;

typedef struct rws__item rws__item;
struct rws__item {
    rws__item *next;
    rws__item_kind kind;
    uint8_t opcode; /* MESSAGE */
    uint16_t code;  /* CLOSE */
    bool no_reason; /* an expected CLOSE: its reason is not looked at */
    const char *text;
    uint8_t *data; /* payload, or the reason of a close */
    size_t len;
};

typedef enum rws__peer_state {
    RWS__PEER_HEAD, /* the other side's head has not come whole */
    RWS__PEER_OPEN,
    RWS__PEER_REFUSED,
    RWS__PEER_NOT_HTTP,      /* what came is no head, or none of a handshake that can be accepted */
    RWS__PEER_BROKE_PROTOCOL /* after the upgrade, the engine: its item is RWS__ITEM_BROKEN */
} rws__peer_state;

struct rws_test_peer {
    rws_test *test;
    rws_test_peer *next;
    uint32_t number; /* for people: from 1 */
    int fd;          /* -1: closed */
    bool serves;     /* the engine has dialled it */
    bool masks, reads;
    bool end_wanted; /* the half is closed when `out` is empty */
    bool end_sent, close_sent, close_received;
    int ended; /* the engine's half: 0: no, 1: its end, 2: a reset */
    bool vanished;
    rws__bytes out, in;
    struct sockaddr_storage address; /* its own */
    uint64_t conn_id;                /* 0: not known */

    rws__peer_state state;
    const char *why; /* NOT_HTTP, BROKE_PROTOCOL */
    rws__http_scanner scanner;
    rws__http_head head;
    rws__http_header headers[64];
    uint8_t *head_bytes;
    size_t head_len;
    char key[RWS__KEY_BYTES]; /* "": the request is the program's, as it was fed: `request` */
    rws__bytes request;
    char *offered;        /* subprotocols */
    rws_span subprotocol; /* that was agreed on; in `head_bytes` */

    rws__decoder decoder;
    uint8_t stash[RWS__STASH_BYTES];
    rws__bytes message; /* that has not come whole */
    rws__item *first, **last;
};

struct rws_test {
    rws_test *next; /* of this thread's */
    rws_runtime runtime;
    rws__memory_counts *memory;
    rws__endpoint *endpoint;
    rws__endpoint **endpoints; /* the others */
    uint32_t endpoints_count;
    rws_test_peer *peers;
    uint32_t peers_count;
    int listener; /* of the world: where the engine dials */
    char url[64];
    bool runs; /* the engine has its turns: callbacks may be on the way */
};

/* Whether it is not inside a callback of the engine; else a failure with a sentence. */
bool rws__test_is_at_rest(const rws_test *test);

/* ---- report.c ---- */

typedef struct rws__report {
    char text[4096];
    size_t len;
} rws__report;

void rws__report_add(rws__report *report, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* "  label: item", with the part around byte `mark` (SIZE_MAX: none) if it is long. */
void rws__report_item(rws__report *report, const char *label, const rws__item *item, size_t mark);
/* Tell the hook. Returns false. */
bool rws__report_end(rws__report *report);
/* All in one. Returns false. */
bool rws__test_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- test.c ---- */

/* The tests of this thread that are open. */
rws_test *rws__test_first(void);
/* The endpoint with this index, or NULL. */
rws_endpoint *rws__test_endpoint(const rws_test *test, uint32_t index);
/* The caller's struct (NULL: nothing), which begins with its size, over the defaults in `out`.
 * False after a failure. */
bool rws__test_overlay(void *out, size_t out_size, const void *caller, const char *initializer);

/* ---- check.c: what the program passes. All return false after a failure. ---- */

/* A test of this thread that was not closed. */
bool rws__test_is_open(const rws_test *test);
/* A peer of such a test. */
bool rws__peer_is_there(const rws_test_peer *peer);
/* That, and the engine has run. */
bool rws__peer_run(rws_test_peer *peer);
/* That it is there, and has not ended its half. */
bool rws__peer_can_feed(const rws_test_peer *peer);
bool rws__test_has(const void *argument, const char *name);
/* NULL only if `len` is 0. */
bool rws__test_has_bytes(const void *data, size_t len);

/* ---- run.c ---- */

rws__shard *rws__test_shard(rws_test *test);
/* Turns of the engine, and what the peers do, until nothing more happens at this time. False after
 * a failure. */
bool rws__test_run(rws_test *test);

/* ---- peer.c ---- */

/* The engine's end, while it is open; or NULL. */
rws_conn *rws__peer_conn(rws_test_peer *peer);
rws_test_peer *rws__peer_make(rws_test *test, int fd, bool serves);
void rws__peer_free(rws_test_peer *peer);
/* Write and read as far as the socket goes. Returns whether anything was done. */
bool rws__peer_pump(rws_test_peer *peer);

/* ---- inbox.c ---- */

/* Decode what has come. */
void rws__peer_decode(rws_test_peer *peer);
/* The next item, which the caller frees with rws__item_free(); or NULL. */
rws__item *rws__peer_take(rws_test_peer *peer);
void rws__item_free(rws__item *item);

/* ---- handshake.c ---- */

/* Look for the head of the other side. */
void rws__peer_read_head(rws_test_peer *peer);

/* ---- alone.c ---- */

/* Whether the program is linked with the kit alone. False after a failure. */
bool rws__test_is_alone(void);

#endif
