/*
 * A shard whose memory ends in the middle of something: whichever of its last blocks are free,
 * there is an answer or an end, and nothing is left.
 */
/* ctest: scripted ring */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/conn/request.h"
#include "support/scripted_shard.h"

TestSuite(engine_no_memory, .timeout = 100);

/* Each choice of these blocks is what is left. */
static const size_t sizes[] = {256, 256, 512, 512, 1024, 2048, 4096};
#define SIZES   (sizeof sizes / sizeof sizes[0])
#define CHOICES (1u << SIZES)

static void *blocks[SIZES];

static world w;

static struct {
    uint32_t good, refused; /* so often */
} outcomes;

static rws__slab *received_memory(void)
{
    return &w.shard->conns.streams.partial->slab;
}

static void leave(rws__slab *slab, uint32_t chosen)
{
    for (size_t i = 0; i < SIZES; i++) {
        blocks[i] = rws__slab_take(slab, sizes[i]);
        cr_assert_not_null(blocks[i]);
    }
    world_use_up(slab);
    for (size_t i = 0; i < SIZES; i++) {
        if (!(chosen & 1u << i)) continue;
        rws__slab_give(slab, blocks[i]);
        blocks[i] = NULL;
    }
}

static void give_all_back(rws__slab *slab)
{
    for (size_t i = 0; i < SIZES; i++)
        if (blocks[i] != NULL) rws__slab_give(slab, blocks[i]);
    world_give_back(slab);
}

static bool was_sent(uint32_t file, const char *text)
{
    feed_bytes *wire = &w.ring->wire[file];
    feed_bytes_append(wire, "", 1);
    wire->len--;
    return strstr((const char *)wire->data, text) != NULL;
}

static void both_happened(const char *what)
{
    cr_expect_gt(outcomes.good, 0, "%s: there is always too little", what);
    cr_expect_gt(outcomes.refused, 0, "%s: there is always enough", what);
}

/* ---- requests ---- */

static void start_server(void)
{
    test_options options = world_server_options();
    world_start(&w, &options);
}

/* The request is answered, by an upgrade or by a refusal. */
static void see_answer(uint32_t file, rws__slab *slab, uint32_t chosen)
{
    world_turns(&w, 3);
    bool is_refused = was_sent(file, "HTTP/1.1 503 ");
    cr_expect(is_refused || was_sent(file, "HTTP/1.1 101 "), "choice %u: no answer", chosen);
    outcomes.refused += is_refused;
    outcomes.good += !is_refused;
    if (is_refused) world_eof(&w, file);
    world_turns(&w, 3);
    give_all_back(slab);
    world_end(&w);
}

Test(engine_no_memory, for_a_subprotocol)
{
    for (uint32_t chosen = 0; chosen < CHOICES; chosen++) {
        start_server();
        w.subprotocol = "superchat";
        uint32_t file = world_accept(&w);
        leave(received_memory(), chosen);
        world_feed(&w, file, world_request, strlen(world_request));
        see_answer(file, received_memory(), chosen);
    }
    both_happened("a subprotocol");
}

static uint64_t deferred;

static int decide_later(rws_request *request, void *user)
{
    (void)user;
    deferred = rws__request_id(request);
    return RWS__REQUEST_DEFERRED;
}

Test(engine_no_memory, for_a_request_that_is_decided_later)
{
    for (uint32_t chosen = 0; chosen < CHOICES; chosen++) {
        start_server();
        w.endpoint->handler.on_upgrade = decide_later;
        deferred = 0;
        uint32_t file = world_accept(&w);
        leave(received_memory(), chosen);
        world_feed(&w, file, world_request, strlen(world_request));
        world_turns(&w, 2);
        rws_request *request =
            deferred != 0 ? rws__conns_find_request(&w.shard->conns, deferred) : NULL;
        if (request != NULL && request->step == RWS__REQUEST_DECIDING)
            cr_expect_eq(rws__request_answer(request, 0), 0);
        see_answer(file, received_memory(), chosen);
    }
    both_happened("a deferred request");
}

/* With many headers, so that their table and the head are of different sizes. */
Test(engine_no_memory, for_a_long_request_that_is_decided_later)
{
    char request[4096];
    int len =
        snprintf(request, sizeof request, "%.*s", (int)strlen(world_request) - 2, world_request);
    for (int i = 0; i < 40; i++)
        len += snprintf(request + len, sizeof request - (size_t)len, "X-%d: y\r\n", i);
    len += snprintf(request + len, sizeof request - (size_t)len, "\r\n");
    for (uint32_t chosen = 0; chosen < CHOICES; chosen++) {
        start_server();
        w.endpoint->handler.on_upgrade = decide_later;
        deferred = 0;
        uint32_t file = world_accept(&w);
        leave(received_memory(), chosen);
        world_feed(&w, file, request, (size_t)len);
        world_turns(&w, 2);
        rws_request *found =
            deferred != 0 ? rws__conns_find_request(&w.shard->conns, deferred) : NULL;
        if (found != NULL && found->step == RWS__REQUEST_DECIDING)
            cr_expect_eq(rws__request_answer(found, 0), 0);
        see_answer(file, received_memory(), chosen);
    }
    both_happened("a long deferred request");
}

/* A head in pieces is carried, and grows. */
Test(engine_no_memory, for_a_head_in_pieces)
{
    static char request[3000];
    size_t len = strlen(world_request) - 2;
    memcpy(request, world_request, len);
    len += (size_t)snprintf(request + len, sizeof request - len, "X: %02000d\r\n\r\n", 7);
    for (uint32_t chosen = 0; chosen < CHOICES; chosen++) {
        start_server();
        uint32_t file = world_accept(&w);
        leave(received_memory(), chosen);
        for (size_t at = 0; at < len; at += 100)
            if (!was_sent(file, "HTTP/1.1 "))
                world_feed(&w, file, request + at, len - at < 100 ? len - at : 100);
        see_answer(file, received_memory(), chosen);
    }
    both_happened("a head in pieces");
}

/* ---- dials ---- */

static void start_client(void)
{
    test_options options = world_server_options();
    world_start_client(&w, &options);
}

static void see_dial(rws__slab *slab, uint32_t chosen)
{
    world_turns(&w, 3);
    bool is_open = w.open[WORLD_DIALLED];
    if (!is_open) {
        char expected[64];
        snprintf(expected, sizeof expected, "dial_error7:%d ", -ENOMEM);
        cr_expect_str_eq(world_log(&w), expected, "choice %u", chosen);
        cr_expect_gt(strlen(w.dial_error), 10, "a sentence");
    }
    outcomes.good += is_open;
    outcomes.refused += !is_open;
    give_all_back(slab);
    world_end(&w);
}

Test(engine_no_memory, for_the_subprotocol_of_an_answer)
{
    for (uint32_t chosen = 0; chosen < CHOICES; chosen++) {
        start_client();
        cr_assert_eq(world_dial(&w, "ws://127.0.0.1:9/", "chat", (void *)7), 0);
        world_turns(&w, 5);
        leave(received_memory(), chosen);
        world_answer(&w, WORLD_DIALLED, "101 Switching Protocols",
                     "Sec-WebSocket-Protocol: chat\r\n", "");
        see_dial(received_memory(), chosen);
    }
    both_happened("the subprotocol of an answer");
}

Test(engine_no_memory, for_the_request_of_a_dial)
{
    for (uint32_t chosen = 0; chosen < CHOICES; chosen++) {
        start_client();
        rws__slab *slab = &w.shard->conns.streams.send_slab;
        cr_assert_eq(world_dial(&w, "ws://127.0.0.1:9/", NULL, (void *)7), 0);
        leave(slab, chosen);
        world_turns(&w, 5);
        if (w.ring->wire[WORLD_DIALLED].len > 0)
            world_answer(&w, WORLD_DIALLED, "101 Switching Protocols", "", "");
        see_dial(slab, chosen);
    }
    both_happened("the request of a dial");
}

/* ---- messages ---- */

static void see_message(uint32_t file, uint32_t chosen, const char *expected)
{
    world_turns(&w, 3);
    bool is_there = strstr(world_log(&w), expected) != NULL;
    if (!is_there)
        cr_expect_not_null(strstr(world_sent(&w, file), "close:1013:"), "choice %u: %s", chosen,
                           world_log(&w));
    outcomes.good += is_there;
    outcomes.refused += !is_there;
    give_all_back(received_memory());
    world_eof(&w, file);
    world_turns(&w, 3);
    world_end(&w);
}

/* One byte at a time, a header's bytes are carried too. */
Test(engine_no_memory, for_frames_in_pieces)
{
    feed_bytes frame = {0};
    static const char text[] = "a text that is longer than a header";
    feed_append_frame(&frame, 0x81, true, text, strlen(text));
    for (uint32_t chosen = 0; chosen < CHOICES; chosen++) {
        start_server();
        uint32_t file = world_open(&w);
        leave(received_memory(), chosen);
        for (size_t at = 0; at < frame.len; at++)
            if (w.open[file]) world_feed(&w, file, frame.data + at, 1);
        see_message(file, chosen, text);
    }
    feed_bytes_free(&frame);
    both_happened("frames in pieces");
}

Test(engine_no_memory, for_fragments)
{
    for (uint32_t chosen = 0; chosen < CHOICES; chosen++) {
        start_server();
        uint32_t file = world_open(&w);
        leave(received_memory(), chosen);
        feed_bytes frames = {0};
        static char piece[700];
        memset(piece, 'x', sizeof piece);
        for (int i = 0; i < 4; i++)
            feed_append_frame(&frames, (uint8_t)((i == 0 ? 2 : 0) | (i == 3 ? 0x80 : 0)), true,
                              piece, sizeof piece);
        for (size_t at = 0; at < frames.len; at += 500)
            if (w.open[file])
                world_feed(&w, file, frames.data + at,
                           frames.len - at < 500 ? frames.len - at : 500);
        see_message(file, chosen, "2800");
        feed_bytes_free(&frames);
    }
    both_happened("fragments");
}
