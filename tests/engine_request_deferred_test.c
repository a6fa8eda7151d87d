/*
 * Upgrade requests that the program decides later, on the scripted ring (ctest: scripted ring).
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "engine/conn/request.h"
#include "support/scripted_shard.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static world w;

/* What on_upgrade left for later. */
static struct {
    uint64_t id;
    uint32_t asked, released;
    bool adds_header;
} later;

static int user_data;

static void release_user(void *user)
{
    cr_assert_eq(user, &user_data);
    later.released++;
}

static int on_upgrade_later(rws_request *request, void *user)
{
    (void)user;
    later.asked++;
    later.id = rws__request_id(request);
    cr_assert_eq(rws__conns_find_request(&w.shard->conns, later.id), request);
    cr_assert_eq(request->step, RWS__REQUEST_READING);
    cr_assert_eq(rws__request_answer(request, 0), RWS_E_STATE, "the return value is the answer");
    rws_request_set_user(request, &user_data, release_user);
    if (w.subprotocol != NULL)
        cr_assert_eq(rws_request_choose_subprotocol(request, w.subprotocol), 0);
    if (later.adds_header) cr_assert_eq(rws_request_add_header(request, "X-Room", "7"), 0);
    return RWS__REQUEST_DEFERRED;
}

static void start(void)
{
    memset(&later, 0, sizeof later);
    test_options options = world_server_options();
    options.handshake_timeout_ms = 4000;
    options.drain_timeout_ms = 5000;
    world_start(&w, &options);
    w.endpoint->handler.on_upgrade = on_upgrade_later;
}

static rws_request *found(void)
{
    return rws__conns_find_request(&w.shard->conns, later.id);
}

static uint32_t ask(void)
{
    uint32_t file = world_accept(&w);
    world_feed(&w, file, world_request, strlen(world_request));
    world_turns(&w, 2);
    cr_assert_not_null(found());
    cr_assert_eq(w.ring->wire[file].len, 0, "nothing is answered yet");
    world_log_is(&w, "", "no callback");
    return file;
}

/* The head of what was sent. */
static bool was_sent(uint32_t file, const char *text)
{
    feed_bytes *wire = &w.ring->wire[file];
    feed_bytes_append(wire, "", 1);
    wire->len--;
    return strstr((const char *)wire->data, text) != NULL;
}

static void decide(int decision)
{
    rws_request *request = found();
    cr_assert_not_null(request);
    cr_assert_eq(request->step, RWS__REQUEST_DECIDING);
    cr_assert_eq(rws__request_answer(request, decision), 0);
    cr_assert_eq(request->step, RWS__REQUEST_ANSWERING);
    cr_assert_eq(rws__request_answer(request, decision), RWS_E_STATE, "it is answered once");
}

static void append_frame(feed_bytes *bytes, const char *text)
{
    feed_append_frame(bytes, 0x81, true, text, strlen(text));
}

/* ---- the decision ---- */

Test(engine_request_deferred, accepts_a_turn_later)
{
    start();
    w.subprotocol = "superchat";
    later.adds_header = true;
    uint32_t file = ask();
    world_turns(&w, 5);
    cr_assert_eq(w.ring->wire[file].len, 0);
    cr_assert_eq(rws__request_answer(found(), 1), RWS_E_ARGUMENT);
    decide(0);
    world_log_is(&w, "", "no callback from within the call");
    cr_assert_eq(w.ring->wire[file].len, 0);
    world_turns(&w, 2);
    cr_assert(was_sent(file, "HTTP/1.1 101 "));
    cr_assert(was_sent(file, "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
    cr_assert(was_sent(file, "Sec-WebSocket-Protocol: superchat\r\n"));
    cr_assert(was_sent(file, "X-Room: 7\r\n"));
    world_log_is(&w, "open0 ", "accepted");
    cr_assert_null(found());
    cr_assert_eq(rws__conns_find(&w.shard->conns, later.id), world_conn(&w, file), "the same id");
    rws_span subprotocol = rws_conn_subprotocol(world_conn(&w, file));
    cr_assert_eq(subprotocol.len, 9);
    cr_assert_eq(memcmp(subprotocol.data, "superchat", 9), 0);
    world_frame(&w, file, RWS_TEXT, "hello");
    world_log_is(&w, "text0:hello ", "it reads");
    cr_assert_eq(later.released, 0, "the connection has it");
    world_end(&w);
    cr_assert_eq(later.released, 0);
}

/* What the request says is still there, though the buffer that it came in is gone. */
Test(engine_request_deferred, keeps_the_head)
{
    static const size_t steps[] = {1, 40, 1000};
    for (size_t i = 0; i < COUNT(steps); i++) {
        start();
        uint32_t file = world_accept(&w);
        feed_bytes head = {0};
        feed_bytes_append(&head, world_request, strlen(world_request));
        world_feed_pieces(&w, file, &head, steps[i]);
        feed_bytes_free(&head);
        world_turns(&w, 3);
        cr_assert_eq(later.asked, 1);
        rws_span path = rws_request_path(found());
        rws_span room = rws_request_query(found(), "room");
        rws_span host = rws_request_header(found(), "host");
        cr_assert_eq(path.len, 5);
        cr_assert_eq(memcmp(path.data, "/chat", 5), 0);
        cr_assert_eq(room.len, 1);
        cr_assert_eq(room.data[0], '7');
        cr_assert_eq(host.len, 9);
        cr_assert_eq(memcmp(host.data, "localhost", 9), 0);
        cr_assert_eq(rws_request_header_count(found()), 6);
        cr_assert_eq(rws_request_choose_subprotocol(found(), "chat"), 0, "also now");
        decide(0);
        world_turns(&w, 2);
        cr_assert(was_sent(file, "Sec-WebSocket-Protocol: chat\r\n"));
        world_end(&w);
    }
}

/* All that a request says, as one text. */
static void describe(const rws_request *request, feed_bytes *out)
{
    rws_span spans[] = {rws_request_method(request), rws_request_target(request),
                        rws_request_path(request), rws_request_origin(request),
                        rws_request_query(request, "room")};
    rws_span name, value;
    out->len = 0;
    for (size_t i = 0; i < COUNT(spans); i++) {
        feed_bytes_append(out, spans[i].data, spans[i].len);
        feed_bytes_append(out, "|", 1);
    }
    for (size_t i = 0; rws_request_header_at(request, i, &name, &value); i++) {
        feed_bytes_append(out, name.data, name.len);
        feed_bytes_append(out, ":", 1);
        feed_bytes_append(out, value.data, value.len);
    }
}

static feed_bytes in_callback;

static int on_upgrade_described(rws_request *request, void *user)
{
    describe(request, &in_callback);
    return on_upgrade_later(request, user);
}

/* The copy says what the head said, also of those that the parser changes or that are not stored.
 */
Test(engine_request_deferred, says_the_same_in_and_after_the_callback)
{
    static const char *const targets[] = {"/", "/chat?room=7", "http://LocalHost/chat?room=1&room",
                                          "wss://localhost/?room"};
    for (size_t i = 0; i < COUNT(targets); i++) {
        for (size_t more = 0; more <= 100; more += 20) {
            start();
            w.endpoint->handler.on_upgrade = on_upgrade_described;
            feed_bytes head = {0};
            char line[256];
            snprintf(line, sizeof line, "GET %s HTTP/1.1\r\nHOST: localhost\r\n", targets[i]);
            feed_bytes_append(&head, line, strlen(line));
            for (size_t j = 0; j < more; j++) {
                snprintf(line, sizeof line, "X-Many-%zu:  %zu Times \r\n", j, j);
                feed_bytes_append(&head, line, strlen(line));
            }
            const char *rest = strstr(world_request, "Upgrade:");
            feed_bytes_append(&head, rest, strlen(rest));
            uint32_t file = world_accept(&w);
            world_feed(&w, file, head.data, head.len);
            feed_bytes_free(&head);
            world_turns(&w, 2);
            cr_assert_not_null(found(), "%s", targets[i]);
            feed_bytes after = {0};
            describe(found(), &after);
            cr_assert_eq(after.len, in_callback.len);
            cr_assert_eq(memcmp(after.data, in_callback.data, after.len), 0);
            feed_bytes_free(&after);
            decide(0);
            world_turns(&w, 2);
            cr_assert(was_sent(file, "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
            world_end(&w);
        }
    }
    feed_bytes_free(&in_callback);
}

Test(engine_request_deferred, refuses_a_turn_later)
{
    start();
    later.adds_header = true;
    uint32_t file = ask();
    cr_assert_eq(rws_request_respond(found(), 401, "who are you?", 12), 0);
    decide(-1);
    cr_assert_eq(later.released, 0, "not from within the call");
    world_turns(&w, 3);
    cr_assert(was_sent(file, "HTTP/1.1 401 "));
    cr_assert(was_sent(file, "X-Room: 7\r\n"));
    cr_assert(was_sent(file, "who are you?"));
    cr_assert_eq(later.released, 1);
    world_eof(&w, file);
    world_turns(&w, 3);
    cr_assert(w.ring->closed[file]);
    world_log_is(&w, "", "no callback");
    world_end(&w);
    cr_assert_eq(later.released, 1);
}

static char logged[256];

static void keep_log(rws_log_level level, const char *line, void *user)
{
    (void)user;
    if (level == RWS_LOG_ERROR) strncpy(logged, line, sizeof logged - 1);
}

/* By the public header no value of on_upgrade means "later": nothing is left undecided. */
Test(engine_request_deferred, positive_values_are_no_decision)
{
    static const int values[] = {1, 2, 101, INT_MAX};
    for (size_t i = 0; i < COUNT(values); i++) {
        test_options options = world_server_options();
        options.log = keep_log;
        memset(&later, 0, sizeof later);
        memset(logged, 0, sizeof logged);
        world_start(&w, &options);
        w.release_user = release_user;
        w.hook_data = &user_data;
        w.upgrade_result = values[i];
        uint32_t file = world_accept(&w);
        world_feed(&w, file, world_request, strlen(world_request));
        world_turns(&w, 3);
        cr_assert(was_sent(file, "HTTP/1.1 500 "));
        cr_assert(strstr(logged, "on_upgrade returned") != NULL, "%s", logged);
        cr_assert_eq(later.released, 1);
        world_eof(&w, file);
        world_log_is(&w, "", "no callback");
        world_end(&w);
    }
}

/* ---- the client does not wait ---- */

/* Before and behind the end of the buffer with the request, and in pieces. */
Test(engine_request_deferred, keeps_the_frames_that_come_meanwhile)
{
    static const size_t steps[] = {1, 7, 1000};
    for (size_t i = 0; i < COUNT(steps); i++) {
        for (int together = 0; together < 2; together++) {
            start();
            uint32_t file = world_accept(&w);
            feed_bytes bytes = {0};
            feed_bytes_append(&bytes, world_request, strlen(world_request));
            if (together) append_frame(&bytes, "one");
            world_feed(&w, file, bytes.data, bytes.len);
            bytes.len = 0;
            append_frame(&bytes, "two");
            append_frame(&bytes, "three");
            world_feed_pieces(&w, file, &bytes, steps[i]);
            feed_bytes_free(&bytes);
            world_turns(&w, 3);
            world_log_is(&w, "", "not delivered yet");
            decide(0);
            world_turns(&w, 3);
            world_log_is(&w,
                         together ? "open0 text0:one text0:two text0:three "
                                  : "open0 text0:two text0:three ",
                         "all of them");
            world_frame(&w, file, RWS_TEXT, "four");
            world_log_is(&w, "text0:four ", "it reads");
            world_end(&w);
        }
    }
}

static void pause_in_message(world *self, rws_conn *conn, const char *what)
{
    (void)self;
    if (strcmp(what, "message") == 0) rws_conn_pause(conn);
}

/* A program that pauses with the first of them gets the others when it goes on. */
Test(engine_request_deferred, gives_early_frames_as_the_program_takes_them)
{
    start();
    w.hook = pause_in_message;
    uint32_t file = ask();
    world_frame(&w, file, RWS_TEXT, "one");
    world_frame(&w, file, RWS_TEXT, "two");
    decide(0);
    world_turns(&w, 3);
    world_log_is(&w, "open0 text0:one ", "paused");
    rws_conn_resume(world_conn(&w, file));
    world_turns(&w, 3);
    world_log_is(&w, "text0:two ", "resumed");
    world_end(&w);
}

/* The bound, and a byte more: then the receive is taken back, and what came is all kept. */
Test(engine_request_deferred, receives_only_so_much_meanwhile)
{
    for (size_t more = 0; more < 2; more++) {
        for (int accepts = 0; accepts < 2; accepts++) {
            start();
            uint32_t file = ask();
            feed_bytes bytes = world_long_frame(RWS__EARLY_MAX - 8 + more);
            cr_assert_eq(bytes.len, RWS__EARLY_MAX + more);
            size_t taken = 0;
            while (taken < bytes.len) {
                size_t piece = bytes.len - taken < 1000 ? bytes.len - taken : 1000;
                world_feed(&w, file, bytes.data + taken, piece);
                taken += piece;
            }
            feed_bytes_free(&bytes);
            world_turns(&w, 3);
            cr_assert_eq(script_find_recv(w.ring, file) != NULL, more == 0);
            cr_assert_leq(w.shard->conns.request_bytes, 16384);
            decide(accepts ? 0 : -1);
            world_turns(&w, 4);
            cr_assert(was_sent(file, accepts ? "HTTP/1.1 101 " : "HTTP/1.1 403 "));
            cr_assert_eq(strncmp(world_log(&w), "open0 binary0:40", 16) == 0, accepts, "%s",
                         world_log(&w));
            if (accepts) {
                w.log.len = 0;
                world_frame(&w, file, RWS_TEXT, "next");
                world_log_is(&w, "text0:next ", "it reads again");
            } else {
                world_eof(&w, file);
            }
            world_end(&w);
        }
    }
}

Test(engine_request_deferred, is_refused_without_memory_for_early_frames)
{
    start();
    uint32_t file = ask();
    rws__slab *slab = &w.shard->conns.streams.partial->slab;
    world_use_up(slab);
    world_frame(&w, file, RWS_TEXT, "one");
    world_turns(&w, 2);
    world_give_back(slab);
    cr_assert(was_sent(file, "HTTP/1.1 503 "));
    cr_assert_eq(later.released, 1);
    cr_assert_null(found());
    world_eof(&w, file);
    world_end(&w);
}

/* The end of the client's half, or a reset, while the program decides: nobody waits for an answer.
 */
Test(engine_request_deferred, ends_when_the_client_leaves)
{
    static const int results[] = {0, -ECONNRESET};
    for (size_t i = 0; i < COUNT(results); i++) {
        /* With the request in one turn, and with frames. */
        for (int mask = 0; mask < 4; mask++) {
            start();
            uint32_t file = world_accept(&w);
            feed_bytes bytes = {0};
            feed_bytes_append(&bytes, world_request, strlen(world_request));
            if (mask & 1) append_frame(&bytes, "one");
            world_pump(&w);
            script_recv(w.ring, file, bytes.data, bytes.len, false);
            feed_bytes_free(&bytes);
            if (mask & 2) {
                world_turns(&w, 3);
                cr_assert_not_null(found());
            }
            script_op *recv = script_find_recv(w.ring, file);
            cr_assert_not_null(recv, "it goes on receiving");
            script_complete(w.ring, recv, results[i], 0);
            world_turns(&w, 4);
            cr_assert_eq(later.asked, 1);
            cr_assert_eq(later.released, 1);
            cr_assert_null(found());
            cr_assert(w.ring->closed[file]);
            cr_assert_eq(w.ring->wire[file].len, 0);
            cr_assert_eq(w.shard->conns.streams.partial->slab.used_bytes, 0);
            world_log_is(&w, "", "no callback");
            world_end(&w);
        }
    }
}

/* What was decided before that is answered. */
Test(engine_request_deferred, is_answered_if_the_client_ends_its_half_in_that_turn)
{
    for (int accepts = 0; accepts < 2; accepts++) {
        start();
        uint32_t file = ask();
        world_frame(&w, file, RWS_TEXT, "one");
        world_pump(&w);
        script_op *recv = script_find_recv(w.ring, file);
        cr_assert_not_null(recv);
        script_complete(w.ring, recv, 0, 0);
        decide(accepts ? 0 : -1);
        world_turns(&w, 5);
        cr_assert(was_sent(file, accepts ? "HTTP/1.1 101 " : "HTTP/1.1 403 "));
        world_log_is(&w, accepts ? "open0 text0:one close0:1006::peer " : "", "answered");
        cr_assert(w.ring->closed[file]);
        cr_assert_eq(later.released, accepts ? 0 : 1);
        world_end(&w);
    }
}

/* Who knows the id finds nobody from then on. */
Test(engine_request_deferred, ends_with_its_client)
{
    for (int decided = 0; decided < 2; decided++) {
        start();
        uint32_t file = world_accept(&w);
        world_pump(&w);
        script_recv(w.ring, file, world_request, strlen(world_request), false);
        world_turn(&w);
        if (decided) decide(0);
        rws__cause cause = {-ECONNRESET, RWS_CLOSE_ABNORMAL, RWS_CLOSED_BY_PEER, {NULL, 0}};
        rws__stream_end(&world_conn(&w, file)->stream, &cause);
        cr_assert_null(found());
        cr_assert_eq(w.shard->conns.streams.partial->slab.used_bytes, 0, "nothing is left of it");
        world_turns(&w, 4);
        cr_assert(w.ring->closed[file]);
        cr_assert_eq(w.shard->conns.streams.slots_used, 0);
        cr_assert_eq(later.released, 1);
        world_log_is(&w, "", "no callback");
        uint64_t id = later.id;
        ask();
        cr_assert_neq(later.id, id);
        cr_assert_null(rws__conns_find_request(&w.shard->conns, id), "not who has its slot");
        cr_assert_null(rws__conns_find_request(&w.shard->conns, later.id ^ 1ull << 56));
        cr_assert_null(rws__conns_find_request(&w.shard->conns, later.id | 0xffull << 32));
        decide(0);
        world_turns(&w, 2);
        world_log_is(&w, "open1 ", "another one");
        cr_assert_eq(later.released, 1);
        world_end(&w);
    }
}

/* ---- deadlines ---- */

/* The handshake's: from accept, whoever is late. The client is told, because it did its part. */
Test(engine_request_deferred, is_refused_at_the_handshakes_deadline)
{
    start();
    uint32_t file = world_accept(&w);
    world_pass(&w, 3000);
    world_feed(&w, file, world_request, strlen(world_request));
    world_turns(&w, 2);
    world_pass(&w, 1000 - 2 * RWS__TICK_MS);
    cr_assert_eq(w.ring->wire[file].len, 0);
    world_pass(&w, 4 * RWS__TICK_MS);
    cr_assert(was_sent(file, "HTTP/1.1 503 "));
    cr_assert(was_sent(file, "did not decide in time"));
    cr_assert_eq(later.released, 1);
    cr_assert_null(found());
    cr_assert_eq(atomic_load(&w.shard->loop.counters.timeouts), 1);
    cr_assert_eq(atomic_load(&w.shard->loop.counters.refused), 0, "it counts once");
    world_eof(&w, file);
    world_turns(&w, 2);
    cr_assert(w.ring->closed[file]);
    world_log_is(&w, "", "no callback");
    world_end(&w);
}

/* The deadline is for the program to decide: what it said in time is what the client gets. */
Test(engine_request_deferred, is_answered_as_decided_when_the_deadline_passes_in_that_turn)
{
    for (int accepts = 0; accepts < 2; accepts++) {
        start();
        uint32_t file = ask();
        rws_conn *conn = world_conn(&w, file);
        decide(accepts ? 0 : -1);
        cr_assert_not(rws__timer_is_set(&conn->timer));
        world_advance(&w, 10000);
        cr_assert(was_sent(file, accepts ? "HTTP/1.1 101 " : "HTTP/1.1 403 "));
        cr_assert_eq(atomic_load(&w.shard->loop.counters.timeouts), 0);
        if (!accepts) world_eof(&w, file);
        world_end(&w);
    }
}

Test(engine_request_deferred, has_no_handshake_deadline_once_it_is_open)
{
    start();
    uint32_t file = ask();
    decide(0);
    world_pass(&w, 10000);
    cr_assert(w.open[file]);
    world_end(&w);
}

/* ---- draining ---- */

/* What is not decided by then gets its answer at once: nothing is accepted any more. */
Test(engine_request_deferred, is_refused_when_a_drain_begins)
{
    start();
    uint32_t file = ask();
    rws__loop_stop(&w.shard->loop);
    world_turns(&w, 3);
    cr_assert(was_sent(file, "HTTP/1.1 503 "));
    cr_assert(was_sent(file, "going away"));
    cr_assert_eq(later.released, 1);
    cr_assert_null(found());
    world_eof(&w, file);
    world_turns(&w, 3);
    cr_assert(w.ended);
    cr_assert_eq(w.result, 0);
    world_log_is(&w, "", "no callback");
    world_end(&w);
}

/* A refusal that was decided in the turn in which the drain begins is given as it is; an acceptance
 * opens nothing any more. */
Test(engine_request_deferred, is_answered_when_a_drain_begins_in_that_turn)
{
    for (int accepts = 0; accepts < 2; accepts++) {
        start();
        uint32_t file = ask();
        decide(accepts ? 0 : -1);
        rws__conns_drain(&w.shard->conns);
        cr_assert_eq(later.released, 0, "not yet");
        rws__loop_stop(&w.shard->loop);
        world_turns(&w, 3);
        cr_assert(was_sent(file, accepts ? "HTTP/1.1 503 " : "HTTP/1.1 403 "));
        cr_assert_eq(later.released, 1);
        world_eof(&w, file);
        world_turns(&w, 3);
        cr_assert(w.ended);
        cr_assert_eq(w.result, 0);
        world_end(&w);
    }
}

/* ---- room and memory ---- */

Test(engine_request_deferred, finds_the_room_gone)
{
    memset(&later, 0, sizeof later);
    test_options options = world_server_options();
    options.connections_max = 1;
    world_start(&w, &options);
    w.endpoint->handler.on_upgrade = on_upgrade_later;
    uint32_t first = ask();
    uint64_t one = later.id;
    uint32_t second = ask();
    decide(0);
    world_turns(&w, 2);
    cr_assert(was_sent(second, "HTTP/1.1 101 "));
    later.id = one;
    decide(0);
    world_turns(&w, 2);
    cr_assert(was_sent(first, "HTTP/1.1 503 "));
    cr_assert_eq(later.released, 1);
    world_eof(&w, first);
    world_end(&w);
}

/* They have a share of the pool for partial messages and can't fill it, however many ask. */
Test(engine_request_deferred, leave_room_for_messages)
{
    static const size_t budgets[] = {4096, 65536, 262144};
    for (size_t i = 0; i < COUNT(budgets); i++) {
        test_options options = world_server_options();
        options.connections_max = 150;
        options.partial_bytes_max = budgets[i];
        options.message_bytes_max = 1024;
        memset(&later, 0, sizeof later);
        world_start(&w, &options);
        w.endpoint->handler.on_upgrade = on_upgrade_later;
        const rws__pool *pool = w.shard->conns.streams.partial;
        uint64_t ids[150];
        uint32_t asked = 0, file = 0;
        while (asked < COUNT(ids)) {
            file = world_accept(&w);
            world_feed(&w, file, world_request, strlen(world_request));
            world_turns(&w, 2);
            if (found() == NULL) break;
            ids[asked++] = later.id;
            cr_assert_eq(pool->charged_bytes, w.shard->conns.request_bytes);
            cr_assert(asked == 1 || pool->charged_bytes <= budgets[i] / 4, "%zu of %zu",
                      pool->charged_bytes, budgets[i]);
        }
        cr_assert(asked >= 1 && asked >= budgets[i] / 4 / 2560, "%u of %zu", asked, budgets[i]);
        cr_assert_lt(asked, COUNT(ids));
        cr_assert(was_sent(file, "HTTP/1.1 503 "));
        cr_assert_eq(later.released, 1);
        world_eof(&w, file);
        later.id = ids[0];
        decide(0);
        world_turns(&w, 2);
        file = world_accept(&w);
        world_feed(&w, file, world_request, strlen(world_request));
        world_turns(&w, 2);
        cr_assert_not_null(found(), "there is room again");
        world_end(&w);
    }
}

/* What the clients send meanwhile is of that share too. */
Test(engine_request_deferred, leave_room_whatever_is_sent_early)
{
    static const size_t pieces[] = {100, 3000, 8000};
    static uint8_t bytes[8000];
    for (size_t i = 0; i < COUNT(pieces); i++) {
        test_options options = world_server_options();
        options.connections_max = 60;
        options.partial_bytes_max = 262144;
        memset(&later, 0, sizeof later);
        world_start(&w, &options);
        w.endpoint->handler.on_upgrade = on_upgrade_later;
        const rws__pool *pool = w.shard->conns.streams.partial;
        uint32_t files[20], refused = 0;
        for (size_t j = 0; j < COUNT(files); j++) {
            files[j] = ask();
            world_feed(&w, files[j], bytes, 1);
        }
        for (size_t j = 0; j < COUNT(files); j++) {
            world_feed(&w, files[j], bytes, pieces[i]);
            world_turns(&w, 2);
            cr_assert_eq(pool->charged_bytes, w.shard->conns.request_bytes);
            cr_assert_leq(pool->charged_bytes, options.partial_bytes_max / 4);
            if (w.ring->wire[files[j]].len == 0) continue;
            cr_assert(was_sent(files[j], "HTTP/1.1 503 "));
            world_eof(&w, files[j]);
            refused++;
        }
        cr_assert_eq(later.released, refused);
        cr_assert_eq(refused > 0, pieces[i] > 100);
        cr_assert_lt(refused, COUNT(files));
        rws__conns_drain(&w.shard->conns);
        cr_assert_eq(w.shard->conns.request_bytes, 0);
        world_end(&w);
    }
}

/* What is said about it while it is decided counts too. */
Test(engine_request_deferred, counts_what_the_answer_is_to_say)
{
    static char body[4096];
    start();
    ask();
    size_t before = w.shard->conns.request_bytes;
    cr_assert_leq(before, 2560);
    cr_assert_eq(rws_request_respond(found(), 404, body, sizeof body), 0);
    cr_assert_geq(w.shard->conns.request_bytes, before + sizeof body);
    cr_assert_eq(rws_request_add_header(found(), "X", "Y"), 0);
    cr_assert_gt(w.shard->conns.request_bytes, before + sizeof body);
    cr_assert_eq(w.shard->conns.request_bytes, w.shard->conns.streams.partial->charged_bytes);
    decide(0);
    world_turns(&w, 2);
    cr_assert_eq(w.shard->conns.request_bytes, 0);
    world_end(&w);
}

Test(engine_request_deferred, is_refused_without_memory_to_keep_it)
{
    for (uint32_t blocks = 0; blocks < 6; blocks++) {
        start();
        rws__slab *slab = &w.shard->conns.streams.partial->slab;
        uint32_t file = world_accept(&w);
        world_use_up(slab);
        /* So many can still be taken: for the request, its headers, its bytes. */
        world_give_some_back(slab, blocks);
        world_feed(&w, file, world_request, strlen(world_request));
        world_turns(&w, 3);
        if (found() != NULL) decide(0);
        world_turns(&w, 3);
        cr_assert(was_sent(file, "HTTP/1.1 503 ") || was_sent(file, "HTTP/1.1 101 "));
        if (later.asked > 0) cr_assert_eq(later.released, was_sent(file, "HTTP/1.1 503 "));
        if (was_sent(file, "HTTP/1.1 503 ")) world_eof(&w, file);
        world_turns(&w, 3);
        world_give_back(slab);
        world_end(&w);
    }
}

/* The loop ends with an error: what was left for later is released. */
Test(engine_request_deferred, is_released_when_the_loop_ends_early)
{
    start();
    ask();
    rws__shard_close(w.shard);
    cr_assert_eq(later.released, 1);
    world_log_is(&w, "", "no callback");
    cr_assert_null(found());
    cr_assert_eq(w.shard->conns.streams.partial->slab.used_bytes, 0);
    rws__runtime_deinit(&w.runtime);
    feed_bytes_free(&w.log);
}
