/*
 * The rules of the callbacks, on the scripted ring (ctest: scripted ring): on_close never comes
 * inside a call of the program, whichever it is and from wherever; a callback for control frames
 * takes the place of the engine's answer, and only that.
 */
#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/scripted_shard.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static world w;

/* ---- calls from callbacks ---- */

/* While a call of the program runs no callback may come. */
static const char *calling;
static const char *inside; /* a callback that came all the same */

#define CALL(expression)                                                                           \
    do {                                                                                           \
        calling = #expression;                                                                     \
        (void)(expression);                                                                        \
        calling = NULL;                                                                            \
    } while (0)

typedef void caller(rws_conn *conn);

static void abort_it(rws_conn *conn)
{
    CALL(rws_conn_abort(conn));
}

static void abort_twice(rws_conn *conn)
{
    CALL(rws_conn_abort(conn));
    CALL(rws_conn_abort(conn));
}

static void close_it(rws_conn *conn)
{
    CALL(rws_conn_close(conn, 4000, "closed"));
}

static void close_and_abort(rws_conn *conn)
{
    CALL(rws_conn_close(conn, 4000, "closed"));
    CALL(rws_conn_abort(conn));
    CALL(rws_conn_close(conn, 4001, NULL));
}

static void send_and_abort(rws_conn *conn)
{
    CALL(rws_conn_send_text(conn, "last", 4));
    CALL(rws_conn_send_frame(conn, RWS_PING, true, NULL, 0));
    CALL(rws_conn_abort(conn));
    CALL(rws_conn_send_text(conn, "more", 4));
    CALL(rws_conn_send_frame(conn, RWS_PONG, true, NULL, 0));
}

static void pause_and_abort(rws_conn *conn)
{
    CALL(rws_conn_pause(conn));
    CALL(rws_conn_abort(conn));
    CALL(rws_conn_resume(conn));
    CALL(rws_conn_pause(conn));
}

static void resume_and_close(rws_conn *conn)
{
    CALL(rws_conn_pause(conn));
    CALL(rws_conn_resume(conn));
    CALL(rws_conn_close(conn, 4000, NULL));
    CALL(rws_conn_resume(conn));
}

static void ask_and_abort(rws_conn *conn)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof address;
    CALL(rws_conn_abort(conn));
    CALL(rws_conn_peer(conn, &address, &len));
    CALL(rws_conn_buffered(conn));
    CALL(rws_conn_subprotocol(conn));
    CALL(rws_conn_id(conn));
    CALL(rws_post_close(&w.runtime, rws_conn_id(conn), 1000, NULL));
}

static caller *const callers[] = {
    abort_it,       abort_twice,     close_it,         close_and_abort,
    send_and_abort, pause_and_abort, resume_and_close, ask_and_abort,
};

static caller *chosen; /* called in the callback `where` */
static const char *where;
static uint32_t called;

static void call_there(world *own, rws_conn *conn, const char *what)
{
    (void)own;
    if (calling != NULL && inside == NULL) inside = what;
    if (strcmp(what, where) != 0) return;
    called++;
    chosen(conn);
}

/* What the peer does so that each callback comes. */
static void provoke(uint32_t file)
{
    char large[600];
    memset(large, 'x', sizeof large - 1);
    large[sizeof large - 1] = '\0';
    /* Over the high watermark: on_drain follows. */
    if (strcmp(where, "drain") == 0) {
        (void)rws_conn_send_text(world_conn(&w, file), large, sizeof large - 1);
        world_turns(&w, 3);
        return;
    }
    static const struct {
        const char *what;
        uint8_t opcode;
        const char *text;
    } frames[] = {
        {"message", RWS_TEXT, "hello"},   {"ping", RWS_PING, "p"},
        {"pong", RWS_PONG, "p"},          {"close_frame", RWS_CLOSE, "\x03\xe8"},
        {"close", RWS_CLOSE, "\x03\xe8"},
    };
    for (size_t i = 0; i < COUNT(frames); i++)
        if (strcmp(where, frames[i].what) == 0)
            world_frame(&w, file, frames[i].opcode, frames[i].text);
}

static const char *const places[] = {"open", "message",     "drain", "ping",
                                     "pong", "close_frame", "close"};

static void check_call(size_t place, size_t which)
{
    test_options options = world_server_options();
    options.handle_ping = options.handle_pong = true;
    options.handle_close = strcmp(places[place], "close") != 0;
    options.high_watermark_bytes = 512;
    options.close_timeout_ms = 100;
    options.linger_timeout_ms = 100;
    world_start(&w, &options);
    chosen = callers[which];
    where = places[place];
    called = 0;
    calling = inside = NULL;
    w.hook = call_there;
    uint32_t file = world_accept(&w);
    world_feed(&w, file, world_request, strlen(world_request));
    if (strcmp(where, "open") != 0) provoke(file);
    world_turns(&w, 3);
    cr_expect_geq(called, 1, "%s did not come", where);
    cr_expect_null(inside, "%s came inside a call in %s, way %zu", inside, where, which);
    /* Whatever the peer does or does not answer. */
    for (int i = 0; i < 5; i++)
        world_advance(&w, 200);
    cr_expect_eq(w.closes, 1, "on_close came %u times, way %zu in %s", w.closes, which, where);
    world_end(&w);
    cr_expect_eq(w.closes, 1);
}

Test(engine_callbacks, on_close_never_comes_inside_a_call)
{
    for (size_t place = 0; place < COUNT(places); place++)
        for (size_t which = 0; which < COUNT(callers); which++)
            check_call(place, which);
}

/* Nor inside a call that no callback makes: a post's function. */
static void call_from_a_post(rws_conn *conn, void *arg)
{
    caller *const *one = arg;
    cr_assert_not_null(conn);
    (*one)(conn);
}

Test(engine_callbacks, on_close_never_comes_inside_a_call_of_a_post)
{
    for (size_t which = 0; which < COUNT(callers); which++) {
        test_options options = world_server_options();
        options.close_timeout_ms = 100;
        world_start(&w, &options);
        uint32_t file = world_open(&w);
        where = "nowhere";
        calling = inside = NULL;
        w.hook = call_there;
        cr_assert_eq(rws_post_call(&w.runtime, rws_conn_id(world_conn(&w, file)), call_from_a_post,
                                   (void *)&callers[which]),
                     0);
        for (int i = 0; i < 5; i++)
            world_advance(&w, 200);
        cr_expect_null(inside, "%s came inside a call, way %zu", inside, which);
        cr_expect_eq(w.closes, 1);
        world_end(&w);
    }
}

/* ---- the user of a request ---- */

static void count_release(void *conn_user)
{
    *(int *)conn_user += 1;
}

/* on_upgrade accepts, and then there is no memory for the answer. */
Test(engine_callbacks, the_user_of_a_request_is_released_if_it_can_not_be_accepted)
{
    for (int scarce = 0; scarce < 2; scarce++) {
        test_options options = world_server_options();
        int releases = 0;
        options.send_pool_bytes_max = 65536;
        world_start(&w, &options);
        w.hook_data = &releases;
        w.release_user = count_release;
        uint32_t file = world_accept(&w);
        if (scarce) world_use_up(&w.shard->conns.streams.send_slab);
        world_feed(&w, file, world_request, strlen(world_request));
        world_turns(&w, 3);
        if (scarce) world_give_back(&w.shard->conns.streams.send_slab);
        cr_expect_eq(releases, scarce);
        cr_expect_eq(w.open[file], !scarce);
        world_end(&w);
        cr_expect_eq(releases, scarce);
    }
}

/* ---- control frames ---- */

/* A callback that is there takes the engine's place, for its own kind of frame. */
Test(engine_callbacks, each_control_callback_replaces_its_own_answer_only)
{
    for (unsigned mask = 0; mask < 8; mask++) {
        test_options options = world_server_options();
        options.handle_ping = mask & 1;
        options.handle_pong = mask & 2;
        options.handle_close = mask & 4;
        options.close_timeout_ms = 100;
        world_start(&w, &options);
        uint32_t file = world_open(&w);
        w.log.len = 0;
        char context[32];
        snprintf(context, sizeof context, "callbacks %x", mask);

        world_frame(&w, file, RWS_PING, "one");
        world_turns(&w, 2);
        world_log_is(&w, options.handle_ping ? "ping0:one " : "", context);
        cr_expect_str_eq(world_sent(&w, file), options.handle_ping ? "" : "pong:one ", "%s",
                         context);
        w.ring->wire[file].len = 0;

        world_frame(&w, file, RWS_PONG, "two");
        world_turns(&w, 2);
        world_log_is(&w, options.handle_pong ? "pong0:two " : "", context);
        cr_expect_str_eq(world_sent(&w, file), "", "%s", context);

        world_frame(&w, file, RWS_CLOSE,
                    "\x03\xe8"
                    "bye");
        world_turns(&w, 3);
        if (options.handle_close) {
            world_log_is(&w, "close_frame0:1000:bye ", context);
            cr_expect_str_eq(world_sent(&w, file), "", "%s", context);
            cr_assert_eq(rws_conn_close(world_conn(&w, file), 4000, "mine"), 0);
            world_turns(&w, 3);
            world_log_is(&w, "close0:1000::peer ", context);
            cr_expect_str_eq(world_sent(&w, file), "close:4000:mine ", "%s", context);
        } else {
            world_log_is(&w, "close0:1000:bye:peer ", context);
            cr_expect_str_eq(world_sent(&w, file), "close:1000:bye ", "%s", context);
        }
        world_end(&w);
    }
}

/* A callback that fails: 1011 for pings and pongs; a close frame is then answered after all. */
Test(engine_callbacks, a_control_callback_that_fails_ends_the_connection)
{
    static const struct {
        uint8_t opcode;
        const char *text, *sent;
    } rows[] = {
        {RWS_PING, "x", "close:1011:an internal error "},
        {RWS_PONG, "x", "close:1011:an internal error "},
        {RWS_CLOSE, "\x0f\xa0", "close:4000: "},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        test_options options = world_server_options();
        options.handle_ping = options.handle_pong = options.handle_close = true;
        world_start(&w, &options);
        w.control_result = -1;
        uint32_t file = world_open(&w);
        world_frame(&w, file, rows[i].opcode, rows[i].text);
        world_turns(&w, 3);
        cr_expect_str_eq(world_sent(&w, file), rows[i].sent, "row %zu: %s", i,
                         world_sent(&w, file));
        cr_expect_eq(w.closes, 1);
        world_end(&w);
    }
}
