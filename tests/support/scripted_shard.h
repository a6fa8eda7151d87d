/*
 * One shard on the scripted ring, whose turns the test takes: a call comes back when the loop is
 * about to enter the kernel. What the program would see is written to a log, a word per callback:
 *
 *   "open0 text0:hello close0:1000:bye:peer "
 *
 * The number is the file that the test accepted. The order of the callbacks is checked (ringws.h,
 * rules 2 to 4), and at the end that all memory came back.
 */
#ifndef RINGWS_TESTS_SUPPORT_SCRIPTED_SHARD_H
#define RINGWS_TESTS_SUPPORT_SCRIPTED_SHARD_H

#include "engine/server/dialer.h"
#include "engine/server/runtime.h"
#include "support/options.h"
#include "support/scripted_ring.h"
#include "support/scripted_sockets.h"

typedef struct world world;

/* Called first in every callback on a connection; `what` is "open", "message", "drain", "close",
 * "ping", "pong", "close_frame". */
typedef void world_hook(world *w, rws_conn *conn, const char *what);

struct world {
    rws_runtime runtime;
    rws_role role;
    test_options options;
    rws__endpoint *endpoint;
    rws__shard *shard;
    rws__ring *ring;
    world_hook *hook;
    int upgrade_result; /* what the callbacks return */
    int message_result;
    int control_result;
    const char *subprotocol;               /* chosen in on_upgrade */
    void (*release_user)(void *conn_user); /* in on_upgrade, for the user `hook_data` */
    void *hook_data;
    const rws_message *message; /* in the hook of "message": what came */
    feed_bytes log;
    bool open[SCRIPT_FILES]; /* by file: between on_open and on_close */
    uint32_t closes;
    int close_status;     /* of the last on_close */
    char dial_error[256]; /* the last one's text */
    bool ended;
    int result; /* of the shard, once it ended */
    uint32_t next_file;
    const char *broken;
};

/* Small options for tests: one shard, 8 connections, a port that the kernel picks. */
test_options world_server_options(void);
void world_start(world *w, const test_options *options);
void world_start_client(world *w, const test_options *options);
/* Stop, drain and check that nothing is left; frees everything. */
void world_end(world *w);

/* Submit what the connections want, up to the kernel's turn: the operations can be seen now. */
void world_pump(world *w);
/* The same, the kernel's turn, its completions, and what is wanted then. */
void world_turn(world *w);
void world_turns(world *w, uint32_t count);
/* Move the clock and take the turns that its timers need. */
void world_advance(world *w, uint64_t ms);

/* The same tick by tick, as a timer of the kernel does it: a deadline that is set again at each of
 * its ends gets all of them. */
void world_pass(world *w, uint64_t ms);

/* A transport comes in; returns its file. */
uint32_t world_accept(world *w);
/* A transport comes in and is upgraded; what was sent so far is forgotten. */
uint32_t world_open(world *w);
rws_conn *world_conn(world *w, uint32_t file);
/* What a test in mid-callback knows a connection by. */
uint32_t world_file(const rws_conn *conn);
/* The counters so far. */
rws_stats world_stats(const world *w);

/* The file that the first dialled socket gets in the table. */
#define WORLD_DIALLED 100u

/* Clients: rws_client_dial() on the shard. */
int world_dial(world *w, const char *url, const char *subprotocols, void *dial_user);
/* The server's answer to the request that was sent, with `lines` in it, and `behind` behind it. */
void world_answer(world *w, uint32_t file, const char *status, const char *lines,
                  const char *behind);
/* Dial and upgrade; returns the file. What was sent so far is forgotten. */
uint32_t world_open_client(world *w);

extern const char world_request[];

/* Bytes from the peer, and a turn. */
void world_feed(world *w, uint32_t file, const void *data, size_t len);
/* A whole masked frame from the peer, and a turn. `text` is a string. */
void world_frame(world *w, uint32_t file, uint8_t opcode, const char *text);
/* The masked frame of a binary message of `len` bytes, of which the i-th is world_byte(i). */
feed_bytes world_long_frame(size_t len);
static inline uint8_t world_byte(size_t i)
{
    return (uint8_t)(i * 7 + i / 256);
}
/* All of `bytes` from the peer in pieces of at most `step`, a turn after each. */
void world_feed_pieces(world *w, uint32_t file, const feed_bytes *bytes, size_t step);
/* The peer ends its half, and a turn. */
void world_eof(world *w, uint32_t file);

/* Take all that a slab has left, and give it back: of one slab at a time. */
void world_use_up(rws__slab *slab);
void world_give_back(rws__slab *slab);
/* Give the `blocks` largest that are held back. */
void world_give_some_back(rws__slab *slab, uint32_t blocks);

/* The frames that were sent since world_open(), as words: "text:hello close:1000:bye ". */
const char *world_sent(world *w, uint32_t file);
/* The log so far as a string; world_log_is() asserts and empties it. */
const char *world_log(world *w);
void world_log_is(world *w, const char *expected, const char *context);

#endif
