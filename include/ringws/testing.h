/*
 * The testing kit: handlers are tested on the very same engine, with connections that lie in
 * memory and a clock that only the test moves. No ring, no thread, no socket, no root.
 *
 * A program that includes this links the library `ringws_testing` (pkg-config: ringws-testing,
 * CMake: ringws::testing) *instead of* ringws: it has the whole engine, on a simulated kernel.
 *
 *   rws_test *test = rws_test_open(&handler, NULL);
 *   rws_test_peer *peer = rws_test_connect(test);
 *   rws_test_feed_text(peer, "hello");
 *   rws_test_expect_text(peer, "hello");
 *   rws_test_close(test);
 *
 * A *test* is a server (or a client) of one shard. A *peer* is the other end of one of its
 * connections. What is fed to a peer arrives at the engine; what is expected of a peer is what it
 * received from the engine.
 *
 * 1. Each call here that feeds, moves the clock or expects something runs the engine until it has
 *    nothing more to do, and then returns. Time stands still meanwhile. Inside a callback of the
 *    engine such a call is a failure.
 * 2. What a peer received is kept in order, and each expectation takes the next of it: an
 *    unexpected item is taken, too.
 * 3. Peers do nothing by themselves but read: they answer no ping and no close frame.
 * 4. An expectation that is not met, or a call that can't be done, is a *failure*: it is reported
 *    with file and line (rws_test_on_failure()).
 * 5. In all functions, also where no errors are listed, it is a failure if a test or a peer is
 *    NULL, was closed or belongs to another thread, or if a string or bytes are NULL where that is
 *    not allowed. The call does nothing then, and returns false, NULL or 0 (rws_test_dial():
 *    RWS_E_ARGUMENT).
 *
 * Thread of all functions: the one that called rws_test_open(), which is the loop thread of the
 * connections; between two calls here the program may use them (rws_test_conn()) as a callback may.
 * Tests on several threads do not know of each other.
 *
 * Functions that can fail are macros of the same name as well, which note file and line; with
 * RWS_TEST_NO_PLACES defined before this header is included they are functions alone. Sizes of
 * structs: as in ringws.h.
 */
#ifndef RINGWS_TESTING_H
#define RINGWS_TESTING_H

/* Of the flags for ringws (pkg-config, CMake). */
#ifdef RINGWS_IS_LINKED
#error "this program is linked with ringws: link ringws_testing instead of it, not beside it"
#endif

#include "ringws/ringws.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct rws_test rws_test;
typedef struct rws_test_peer rws_test_peer;

/* ---- failures ---- */

/* A failure: `text` is one line or several, borrowed, without file and line, and without a newline
 * at its end. It may leave by longjmp() or an exception: the test can't be closed then, and its
 * memory is lost. If it returns, the failed call returns false or NULL. */
typedef void (*rws_test_failure_fn)(const char *file, int line, const char *text, void *user);

/**
 * Say who is told of failures on this thread: a test framework, for instance. `hook` NULL: the
 * default, which prints `FILE:LINE: TEXT` to stderr and aborts. `user` is *borrowed*. Errors: none.
 */
void rws_test_on_failure(rws_test_failure_fn hook, void *user);

/** Note where the test is, for failures. The macros at the end of this header do it; a helper
 * function of a test may do it with the place that it was called from. `file` is *borrowed* for
 * good. Errors: none. */
void rws_test_here(const char *file, int line);

/* ---- a test ---- */

/* What a test is made of. Start from RWS_TEST_OPTIONS_DEFAULT; pointers are *borrowed* until
 * rws_test_open_with() returns. */
typedef struct rws_test_options {
    size_t size;
    const rws_handler *handler; /* NULL: the endpoint's */
    /* NULL: the defaults. With role RWS_CLIENT the handler is a client's: the test dials
     * (rws_test_dial()), and plays the server (rws_test_accept()). */
    const rws_endpoint_options *endpoint;
    /* More endpoints: of other paths, or for dials. Each has its own handler. (Pointers, because
     * the library may have been built with another size of the struct.) */
    const rws_endpoint_options *const *endpoints;
    uint32_t endpoints_count;
    /* NULL: the defaults, with small pools. There is always one shard, which never polls;
     * `allocator` is asked through one that counts. */
    const rws_runtime_options *runtime;
    /* NULL: the defaults. Only its limits and deadlines count: not where it listens, nor its
     * endpoints. */
    const rws_listener_options *listener;
    /* 0: none. This allocation fails, counted from 1 at the start of rws_test_open_with(), which
     * returns NULL without a failure if it needed that one. */
    uint64_t fail_alloc;
} rws_test_options;

/* clang-format off */
#define RWS_TEST_OPTIONS_DEFAULT {.size = sizeof(rws_test_options)}
/* clang-format on */

/**
 * Make a test of one endpoint.
 *
 * `handler` (*copied*; NULL: that of `endpoint`) and `endpoint` (*copied*; NULL: the defaults).
 * Returns the test (*given*: rws_test_close()). NULL after a failure, with nothing left behind: the
 * options are wrong, the allocator has no memory, the engine does not come to rest at its start, or
 * the program is linked with ringws as well.
 */
rws_test *rws_test_open(const rws_handler *handler, const rws_endpoint_options *endpoint);

/** The same with all options; `options` is *copied*. Returns as rws_test_open(). */
rws_test *rws_test_open_with(const rws_test_options *options);

/**
 * End a test: the engine is stopped as by rws_server_stop(), all peers close as they should, the
 * clock is moved as far as that takes, and everything is freed.
 *
 * `test` is *taken*, with its peers; NULL: nothing is done. Returns true. False after a failure:
 * memory of the allocator was not given back, by the program (a message that it retained, for
 * instance) or by the engine; or the engine does not come to rest.
 */
bool rws_test_close(rws_test *test);

/** Ask the engine to stop, as rws_server_stop(), and run it: the drain has begun. `test` is
 * *borrowed*. Failures: it does not come to rest. */
void rws_test_stop(rws_test *test);

/** Whether the engine was stopped and its drain is over. `test` is *borrowed*. Errors: none. */
bool rws_test_has_ended(const rws_test *test);

/* ---- time ---- */

/**
 * Let time pass: the clock goes from event to event, and the engine runs at each, so that every
 * deadline is met at its time (deadlines of ringws pass in ticks of 16 ms).
 *
 * `test` is *borrowed*; `ms` in milliseconds. With 0 the engine runs, and no time passes: for what
 * the program did outside of callbacks. Failures: it does not come to rest.
 */
void rws_test_advance(rws_test *test, uint64_t ms);

/** The time of the clock in milliseconds. `test` is *borrowed*. Errors: none. */
uint64_t rws_test_now_ms(const rws_test *test);

/* ---- what the program under test may need ---- */

/** The runtime, for rws_post_…(). *Borrowed* until rws_test_close(). Errors: none. */
rws_runtime *rws_test_runtime(rws_test *test);
/** The same as the server that it is: for rws_server_dial(), rws_server_stats(),
 * rws_server_stop() … *Borrowed* until rws_test_close(): it is neither run nor destroyed by the
 * program. Errors: none. */
rws_server *rws_test_server(rws_test *test);
/** The same as a client, whose endpoint is the test's. *Borrowed* until rws_test_close(). Errors:
 * none. */
rws_client *rws_test_client(rws_test *test);
/** The test's endpoint (`index` 0), and those of `endpoints` of the options from 1 on, for
 * rws_server_dial(). *Borrowed* until rws_test_close(); NULL: there is none. Errors: none. */
rws_endpoint *rws_test_endpoint(rws_test *test, uint32_t index);
/** The engine's end of the connection of `peer`, while it is open; or NULL. An accepted connection
 * is found by its peer's address. Of those that the engine dialled it is one that has opened and
 * that no other peer has: it is looked for after each call that feeds `peer`, rws_test_accept()
 * included, and here, so that each peer gets its own if it is the only one that was answered since
 * the last look. *Borrowed* until its on_close. Errors: none. */
rws_conn *rws_test_conn(rws_test_peer *peer);

/* ---- memory ---- */

/** The allocator of the runtime, which the program may use for its own memory as well: then that
 * fails in its turn, and is looked at in rws_test_close(). *Borrowed* until rws_test_close(), and
 * works as long as something is not given back. Errors: none. */
const rws_allocator *rws_test_allocator(rws_test *test);
/** Let the allocation number `n` from now on fail, counted from 1; 0: none. `test` is *borrowed*.
 * Errors: none. */
void rws_test_fail_alloc(rws_test *test, uint64_t n);
/** Whether that allocation was asked for, and failed. `test` is *borrowed*. Errors: none. */
bool rws_test_alloc_failed(const rws_test *test);

/* ---- connections: the test is the client of a server ---- */

/* An upgrade request. Start from RWS_TEST_REQUEST_DEFAULT; all is *borrowed* until the call
 * returns. */
typedef struct rws_test_request {
    size_t size;
    const char *path;         /* "/": the whole target, with a query if there is one */
    const char *origin;       /* NULL: none */
    const char *subprotocols; /* a comma-separated list; NULL: none */
    const rws_header *headers;
    uint32_t headers_count;
    bool no_masks; /* true: frames of this peer are not masked, which breaks the protocol */
} rws_test_request;

#define RWS_TEST_REQUEST_DEFAULT                                                                   \
    {                                                                                              \
        .size = sizeof(rws_test_request), .path = "/"                                              \
    }

/**
 * Connect, and upgrade "/".
 *
 * `test` is *borrowed*. Returns the peer (*borrowed* until rws_test_close()); NULL after a failure:
 * it was not upgraded.
 */
rws_test_peer *rws_test_connect(rws_test *test);

/** Connect, and send an upgrade request, whatever the answer will be. `test` and `request` are
 * *borrowed*. Returns as rws_test_connect(); failures: a string can't be sent, or the engine does
 * not listen any more. */
rws_test_peer *rws_test_connect_with(rws_test *test, const rws_test_request *request);

/** Connect, and send `len` bytes at `data` (*copied*; NULL only if 0), which may be any part of a
 * request, or none. Returns as rws_test_connect_with(). */
rws_test_peer *rws_test_connect_raw(rws_test *test, const void *data, size_t len);

/** The head of the answer (or, of a client under test, the request) as received, up to the empty
 * line, with names in lower case; empty: it has not come whole. *Borrowed* until rws_test_close().
 * Errors: none. */
rws_span rws_test_head(const rws_test_peer *peer);

/* ---- connections: the test is the server of a client ---- */

/* What an upgrade request is answered with. Start from RWS_TEST_ANSWER_DEFAULT; all is *borrowed*
 * until the call returns. */
typedef struct rws_test_answer {
    size_t size;
    int status;              /* (0) 101; 200 … 599: a refusal */
    const char *subprotocol; /* NULL: none */
    const rws_header *headers;
    uint32_t headers_count;
} rws_test_answer;

/* clang-format off */
#define RWS_TEST_ANSWER_DEFAULT {.size = sizeof(rws_test_answer)}
/* clang-format on */

/** Where the test listens: a URL like ws://127.0.0.1:PORT/, *borrowed* until rws_test_close().
 * Errors: none. */
const char *rws_test_url(const rws_test *test);

/** Dial rws_test_url() with the first endpoint that has the role RWS_CLIENT. `options` is *copied*
 * (NULL: the defaults). Returns as rws_client_dial(), or RWS_E_STATE: there is no such endpoint. */
int rws_test_dial(rws_test *test, const rws_dial_options *options);

/** Accept the next connection that the engine has dialled, and answer its request. `test` and
 * `answer` (NULL: the defaults) are *borrowed*. Returns as rws_test_connect(); failures: nobody
 * has dialled, the request is not valid, or the answer can't be written. */
rws_test_peer *rws_test_accept(rws_test *test, const rws_test_answer *answer);

/** Accept it, and answer nothing. Failures: nobody has dialled. */
rws_test_peer *rws_test_accept_raw(rws_test *test);

/* ---- what a peer sends ----
 *
 * `peer` is *borrowed*, data is *copied*. What does not fit into the socket is sent when the engine
 * has received more. What is fed to a connection that is gone is lost, as it is on a network.
 * Failures of all: the engine does not come to rest; the peer has ended its half before
 * (rws_test_feed_end() itself may be repeated); a close frame that can't be sent. */

/** A text message in one frame: a string. */
void rws_test_feed_text(rws_test_peer *peer, const char *text);
/** A binary message in one frame: `len` bytes. */
void rws_test_feed_binary(rws_test_peer *peer, const void *data, size_t len);
/** A message in `count` frames (0 is a failure), one for each piece; `opcode` is RWS_TEXT or
 * RWS_BINARY. */
void rws_test_feed_fragments(rws_test_peer *peer, rws_opcode opcode, const rws_span *pieces,
                             size_t count);
/** One frame of any kind, also one that breaks the protocol. After one with RWS_CLOSE
 * rws_test_close() sends no other close frame. */
void rws_test_feed_frame(rws_test_peer *peer, rws_opcode opcode, bool fin, const void *data,
                         size_t len);
/** Bytes as they are: no frame, no mask. */
void rws_test_feed_raw(rws_test_peer *peer, const void *data, size_t len);
/** A ping with `len` bytes. */
void rws_test_feed_ping(rws_test_peer *peer, const void *data, size_t len);
/** A pong with `len` bytes. */
void rws_test_feed_pong(rws_test_peer *peer, const void *data, size_t len);
/** A close frame. `code` and `reason` (NULL: none) as in rws_conn_close(); others are sent by
 * rws_test_feed_frame(). */
void rws_test_feed_close(rws_test_peer *peer, uint16_t code, const char *reason);
/** The end of the stream, behind what was fed: the peer sends nothing more, and reads on. */
void rws_test_feed_end(rws_test_peer *peer);

/** Reset the connection, as a program that was killed. */
void rws_test_reset(rws_test_peer *peer);
/** Let the peer's machine vanish: nothing arrives any more, and nobody is told. */
void rws_test_vanish(rws_test_peer *peer);

/** Stop reading from the socket: 128 KiB fit into its buffer and 256 KiB into the engine's socket;
 * then the engine has to wait. */
void rws_test_stop_reading(rws_test_peer *peer);
/** Read again. */
void rws_test_resume_reading(rws_test_peer *peer);

/* ---- what a peer received ----
 *
 * `peer` and data are *borrowed*. All return whether it was as expected, which is a failure
 * otherwise. Upgrades, refusals and bodies are answers: to expect one of a peer that the engine has
 * dialled (rws_test_accept(), rws_test_accept_raw()) is a failure, because that one answers. */

/** It was upgraded, with this subprotocol ("": none; NULL: whichever). Takes nothing. */
bool rws_test_expect_upgraded(rws_test_peer *peer, const char *subprotocol);
/** Its request was refused with this HTTP status. Takes nothing. */
bool rws_test_expect_refused(rws_test_peer *peer, int status);
/** Its request was refused with this body, a string. Takes nothing. */
bool rws_test_expect_body(rws_test_peer *peer, const char *body);
/** The answer (or the request) has the header `name` (lower-case) with `value`; NULL: has none.
 * Takes nothing. */
bool rws_test_expect_header(rws_test_peer *peer, const char *name, const char *value);
/** Next: a text message, this string. */
bool rws_test_expect_text(rws_test_peer *peer, const char *text);
/** Next: a binary message, these `len` bytes. */
bool rws_test_expect_binary(rws_test_peer *peer, const void *data, size_t len);
/**
 * Next: these messages in any order, as many as there are; behind the last one is NULL.
 *
 *   rws_test_expect_message(peer, RWS_MESSAGE_TEXT("a"), RWS_MESSAGE_BINARY("\1\2"), NULL);
 *
 * At most 64.
 */
bool rws_test_expect_message(rws_test_peer *peer, const rws_message *message, ...)
    __attribute__((sentinel));
/** Take the messages that are next, up to something else, and return their number: where it does
 * not matter what they are. Never a failure for what is received. */
size_t rws_test_skip_messages(rws_test_peer *peer);
/** Next: a ping with `len` bytes. */
bool rws_test_expect_ping(rws_test_peer *peer, const void *data, size_t len);
/** Next: a pong with `len` bytes. */
bool rws_test_expect_pong(rws_test_peer *peer, const void *data, size_t len);
/** Next: a close frame with this code (1005: an empty one), whatever its reason. */
bool rws_test_expect_close(rws_test_peer *peer, uint16_t code);
/** Next: a close frame with this code and this reason ("": none). */
bool rws_test_expect_close_reason(rws_test_peer *peer, uint16_t code, const char *reason);
/** There is nothing to be taken, and the stream has not ended. */
bool rws_test_expect_nothing(rws_test_peer *peer);
/** There is nothing more to be taken, and the engine has ended the stream, or reset it. */
bool rws_test_expect_ended(rws_test_peer *peer);

/* ---- file and line of failures ---- */

/* clang-format off */
#ifndef RWS_TEST_NO_PLACES
#define RWS__TEST_AT(function) (rws_test_here(__FILE__, __LINE__), function)
#define rws_test_open                RWS__TEST_AT(rws_test_open)
#define rws_test_open_with           RWS__TEST_AT(rws_test_open_with)
#define rws_test_close               RWS__TEST_AT(rws_test_close)
#define rws_test_stop                RWS__TEST_AT(rws_test_stop)
#define rws_test_advance             RWS__TEST_AT(rws_test_advance)
#define rws_test_has_ended           RWS__TEST_AT(rws_test_has_ended)
#define rws_test_now_ms              RWS__TEST_AT(rws_test_now_ms)
#define rws_test_runtime             RWS__TEST_AT(rws_test_runtime)
#define rws_test_server              RWS__TEST_AT(rws_test_server)
#define rws_test_client              RWS__TEST_AT(rws_test_client)
#define rws_test_endpoint            RWS__TEST_AT(rws_test_endpoint)
#define rws_test_conn                RWS__TEST_AT(rws_test_conn)
#define rws_test_allocator           RWS__TEST_AT(rws_test_allocator)
#define rws_test_fail_alloc          RWS__TEST_AT(rws_test_fail_alloc)
#define rws_test_alloc_failed        RWS__TEST_AT(rws_test_alloc_failed)
#define rws_test_connect             RWS__TEST_AT(rws_test_connect)
#define rws_test_connect_with        RWS__TEST_AT(rws_test_connect_with)
#define rws_test_connect_raw         RWS__TEST_AT(rws_test_connect_raw)
#define rws_test_head                RWS__TEST_AT(rws_test_head)
#define rws_test_url                 RWS__TEST_AT(rws_test_url)
#define rws_test_dial                RWS__TEST_AT(rws_test_dial)
#define rws_test_accept              RWS__TEST_AT(rws_test_accept)
#define rws_test_accept_raw          RWS__TEST_AT(rws_test_accept_raw)
#define rws_test_feed_text           RWS__TEST_AT(rws_test_feed_text)
#define rws_test_feed_binary         RWS__TEST_AT(rws_test_feed_binary)
#define rws_test_feed_fragments      RWS__TEST_AT(rws_test_feed_fragments)
#define rws_test_feed_frame          RWS__TEST_AT(rws_test_feed_frame)
#define rws_test_feed_raw            RWS__TEST_AT(rws_test_feed_raw)
#define rws_test_feed_ping           RWS__TEST_AT(rws_test_feed_ping)
#define rws_test_feed_pong           RWS__TEST_AT(rws_test_feed_pong)
#define rws_test_feed_close          RWS__TEST_AT(rws_test_feed_close)
#define rws_test_feed_end            RWS__TEST_AT(rws_test_feed_end)
#define rws_test_reset               RWS__TEST_AT(rws_test_reset)
#define rws_test_vanish              RWS__TEST_AT(rws_test_vanish)
#define rws_test_stop_reading        RWS__TEST_AT(rws_test_stop_reading)
#define rws_test_resume_reading      RWS__TEST_AT(rws_test_resume_reading)
#define rws_test_expect_upgraded     RWS__TEST_AT(rws_test_expect_upgraded)
#define rws_test_expect_refused      RWS__TEST_AT(rws_test_expect_refused)
#define rws_test_expect_body         RWS__TEST_AT(rws_test_expect_body)
#define rws_test_expect_header       RWS__TEST_AT(rws_test_expect_header)
#define rws_test_expect_text         RWS__TEST_AT(rws_test_expect_text)
#define rws_test_expect_binary       RWS__TEST_AT(rws_test_expect_binary)
#define rws_test_expect_message      RWS__TEST_AT(rws_test_expect_message)
#define rws_test_skip_messages       RWS__TEST_AT(rws_test_skip_messages)
#define rws_test_expect_ping         RWS__TEST_AT(rws_test_expect_ping)
#define rws_test_expect_pong         RWS__TEST_AT(rws_test_expect_pong)
#define rws_test_expect_close        RWS__TEST_AT(rws_test_expect_close)
#define rws_test_expect_close_reason RWS__TEST_AT(rws_test_expect_close_reason)
#define rws_test_expect_nothing      RWS__TEST_AT(rws_test_expect_nothing)
#define rws_test_expect_ended        RWS__TEST_AT(rws_test_expect_ended)
#endif
/* clang-format on */

#ifdef __cplusplus
}
#endif

#endif
