/*
 * What is expected of a peer: the next item that it received, or what became of its handshake.
 */
#include "engine/testing/kit.h"

#include <stdarg.h>
#include <string.h>

#define MESSAGES_MAX 64u

/* ---- what there is instead of an item ---- */

static void report_state(rws__report *report, const rws_test_peer *peer)
{
    bool has_cause = true;
    rws__report_add(report, "  received: ");
    if (peer->state == RWS__PEER_REFUSED)
        rws__report_add(report, "a refusal, %d %.*s\n", peer->head.status,
                        (int)peer->head.reason.len, peer->head.reason.data);
    else if (peer->state == RWS__PEER_NOT_HTTP)
        rws__report_add(report, "a handshake that can't be accepted: %s\n", peer->why);
    else if (peer->state == RWS__PEER_BROKE_PROTOCOL)
        rws__report_add(report, "nothing more: the engine broke the protocol before: %s\n",
                        peer->why);
    else if (peer->state == RWS__PEER_HEAD && !peer->serves)
        rws__report_add(report, "no answer to its upgrade request\n");
    else
        has_cause = false;
    const char *label = has_cause ? "            " : "";
    if (peer->vanished)
        rws__report_add(report, "%snothing: it has vanished\n", label);
    else if (peer->fd < 0)
        rws__report_add(report, "%snothing: it has reset the connection\n", label);
    else if (!peer->reads)
        rws__report_add(report, "%snothing: it does not read\n", label);
    else if (peer->ended != 0)
        rws__report_add(report, "%s%s\n", label,
                        peer->ended == 1 ? "the end of the stream" : "a reset of the connection");
    else if (!has_cause)
        rws__report_add(report, "nothing\n");
}

static void start(rws__report *report, const rws_test_peer *peer)
{
    report->len = 0;
    rws__report_add(report, "peer %u did not receive what was expected\n", peer->number);
}

/* Nothing was received where something was expected. */
static bool fail_with_state(const rws_test_peer *peer, rws__report *report)
{
    report_state(report, peer);
    return rws__report_end(report);
}

/* ---- items ---- */

static bool is_payload(const rws__item *item)
{
    return item->kind != RWS__ITEM_CLOSE && item->kind != RWS__ITEM_BROKEN;
}

static bool is_same(const rws__item *expected, const rws__item *item)
{
    if (expected->kind != item->kind || expected->opcode != item->opcode ||
        expected->code != item->code)
        return false;
    if (expected->no_reason) return true;
    return expected->len == item->len &&
           (item->len == 0 || memcmp(expected->data, item->data, item->len) == 0);
}

/* The first byte that differs between two of one kind, or SIZE_MAX. */
static size_t first_difference(const rws__item *expected, const rws__item *item)
{
    if (expected->kind != item->kind || expected->opcode != item->opcode || !is_payload(item))
        return SIZE_MAX;
    size_t at = 0;
    while (at < expected->len && at < item->len && expected->data[at] == item->data[at])
        at++;
    return at;
}

static void report_pair(rws__report *report, const rws__item *expected, const rws__item *item)
{
    size_t mark = first_difference(expected, item);
    rws__report_item(report, "expected", expected, mark);
    rws__report_item(report, "received", item, mark);
    if (mark != SIZE_MAX) rws__report_add(report, "  the first difference is at byte %zu", mark);
}

/* The next item is this one. */
static bool expect_item(rws_test_peer *peer, const rws__item *expected)
{
    rws__report report;
    if (!rws__peer_run(peer)) return false;
    rws__item *item = rws__peer_take(peer);
    if (item != NULL && is_same(expected, item)) {
        rws__item_free(item);
        return true;
    }
    start(&report, peer);
    if (item == NULL) {
        rws__report_item(&report, "expected", expected, SIZE_MAX);
        return fail_with_state(peer, &report);
    }
    report_pair(&report, expected, item);
    rws__item_free(item);
    return rws__report_end(&report);
}

static bool expect_payload(rws_test_peer *peer, rws__item_kind kind, rws_opcode opcode,
                           const void *data, size_t len)
{
    if (!rws__test_has_bytes(data, len)) return false;
    const rws__item expected = {
        .kind = kind,
        .opcode = kind == RWS__ITEM_MESSAGE ? (uint8_t)opcode : 0,
        .data = (uint8_t *)data,
        .len = len,
    };
    return expect_item(peer, &expected);
}

bool rws_test_expect_text(rws_test_peer *peer, const char *text)
{
    if (!rws__test_has(text, "text")) return false;
    return expect_payload(peer, RWS__ITEM_MESSAGE, RWS_TEXT, text, strlen(text));
}

bool rws_test_expect_binary(rws_test_peer *peer, const void *data, size_t len)
{
    return expect_payload(peer, RWS__ITEM_MESSAGE, RWS_BINARY, data, len);
}

bool rws_test_expect_ping(rws_test_peer *peer, const void *data, size_t len)
{
    return expect_payload(peer, RWS__ITEM_PING, RWS_PING, data, len);
}

bool rws_test_expect_pong(rws_test_peer *peer, const void *data, size_t len)
{
    return expect_payload(peer, RWS__ITEM_PONG, RWS_PONG, data, len);
}

bool rws_test_expect_close(rws_test_peer *peer, uint16_t code)
{
    const rws__item expected = {.kind = RWS__ITEM_CLOSE, .code = code, .no_reason = true};
    return expect_item(peer, &expected);
}

bool rws_test_expect_close_reason(rws_test_peer *peer, uint16_t code, const char *reason)
{
    if (!rws__test_has(reason, "reason")) return false;
    const rws__item expected = {
        .kind = RWS__ITEM_CLOSE,
        .code = code,
        .data = (uint8_t *)reason,
        .len = strlen(reason),
    };
    return expect_item(peer, &expected);
}

/* ---- several messages in any order ---- */

typedef struct wanted {
    rws__item items[MESSAGES_MAX];
    size_t count;
} wanted;

/* Take the one that is the same off the list; false: there is none. */
static bool take_matching(wanted *list, const rws__item *item)
{
    for (size_t i = 0; i < list->count; i++) {
        if (!is_same(&list->items[i], item)) continue;
        memmove(&list->items[i], &list->items[i + 1], (--list->count - i) * sizeof(rws__item));
        return true;
    }
    return false;
}

static bool fail_with_list(const rws_test_peer *peer, const wanted *list, rws__item *item)
{
    rws__report report;
    start(&report, peer);
    if (item != NULL && list->count == 1) {
        report_pair(&report, &list->items[0], item);
        rws__item_free(item);
        return rws__report_end(&report);
    }
    for (size_t i = 0; i < list->count; i++)
        rws__report_item(&report, i == 0 ? "expected" : "      or", &list->items[i], SIZE_MAX);
    if (item == NULL) return fail_with_state(peer, &report);
    rws__report_item(&report, "received", item, SIZE_MAX);
    rws__item_free(item);
    return rws__report_end(&report);
}

bool rws_test_expect_message(rws_test_peer *peer, const rws_message *message, ...)
{
    if (!rws__test_has(message, "message")) return false;
    wanted list = {.count = 0};
    va_list args;
    va_start(args, message);
    for (; message != NULL && list.count < MESSAGES_MAX;
         message = va_arg(args, const rws_message *))
        list.items[list.count++] = (rws__item){
            .kind = RWS__ITEM_MESSAGE,
            .opcode = (uint8_t)rws_message_opcode(message),
            .data = (uint8_t *)rws_message_data(message),
            .len = rws_message_len(message),
        };
    va_end(args);
    if (message != NULL)
        return rws__test_fail("more than %u messages are expected at once", MESSAGES_MAX);
    if (!rws__peer_run(peer)) return false;
    while (list.count > 0) {
        rws__item *item = rws__peer_take(peer);
        if (item == NULL || !take_matching(&list, item)) return fail_with_list(peer, &list, item);
        rws__item_free(item);
    }
    return true;
}

size_t rws_test_skip_messages(rws_test_peer *peer)
{
    size_t count = 0;
    if (!rws__peer_run(peer)) return 0;
    for (; peer->first != NULL && peer->first->kind == RWS__ITEM_MESSAGE; count++)
        rws__item_free(rws__peer_take(peer));
    return count;
}

/* ---- nothing, and the end ---- */

static bool fail_with_item(rws_test_peer *peer, const char *expected)
{
    rws__report report;
    start(&report, peer);
    rws__report_add(&report, "  expected: %s\n", expected);
    rws__item *item = rws__peer_take(peer);
    if (item == NULL) return fail_with_state(peer, &report);
    rws__report_item(&report, "received", item, SIZE_MAX);
    rws__item_free(item);
    return rws__report_end(&report);
}

bool rws_test_expect_nothing(rws_test_peer *peer)
{
    if (!rws__peer_run(peer)) return false;
    bool is_quiet = peer->first == NULL && peer->ended == 0;
    return is_quiet || fail_with_item(peer, "nothing");
}

bool rws_test_expect_ended(rws_test_peer *peer)
{
    if (!rws__peer_run(peer)) return false;
    bool is_ended = peer->first == NULL && peer->ended != 0;
    return is_ended || fail_with_item(peer, "the end of the stream");
}

/* ---- the handshake ---- */

static bool is_text(rws_span span, const char *text)
{
    return span.len == strlen(text) && (span.len == 0 || memcmp(span.data, text, span.len) == 0);
}

/* Whoever broke the protocol afterwards was upgraded as well. */
static bool was_upgraded(const rws_test_peer *peer)
{
    return peer->state == RWS__PEER_OPEN || peer->state == RWS__PEER_BROKE_PROTOCOL;
}

/* Only a peer that has connected is answered. False after a failure. */
static bool run_for_answer(rws_test_peer *peer)
{
    if (!rws__peer_run(peer)) return false;
    if (!peer->serves) return true;
    return rws__test_fail("peer %u was dialled by the engine: it receives a request, and answers "
                          "by itself, so there is no answer to expect",
                          peer->number);
}

static bool fail_with_upgrade(const rws_test_peer *peer, rws__report *report)
{
    if (!was_upgraded(peer)) return fail_with_state(peer, report);
    rws__report_add(report, "  received: the upgrade, with %s%.*s%s",
                    peer->subprotocol.len > 0 ? "the subprotocol \"" : "no subprotocol",
                    (int)peer->subprotocol.len,
                    peer->subprotocol.data != NULL ? peer->subprotocol.data : "",
                    peer->subprotocol.len > 0 ? "\"" : "");
    return rws__report_end(report);
}

bool rws_test_expect_upgraded(rws_test_peer *peer, const char *subprotocol)
{
    rws__report report;
    if (!run_for_answer(peer)) return false;
    if (was_upgraded(peer) && (subprotocol == NULL || is_text(peer->subprotocol, subprotocol)))
        return true;
    start(&report, peer);
    if (subprotocol == NULL)
        rws__report_add(&report, "  expected: the upgrade\n");
    else if (subprotocol[0] == '\0')
        rws__report_add(&report, "  expected: the upgrade, with no subprotocol\n");
    else
        rws__report_add(&report, "  expected: the upgrade, with the subprotocol \"%s\"\n",
                        subprotocol);
    return fail_with_upgrade(peer, &report);
}

bool rws_test_expect_refused(rws_test_peer *peer, int status)
{
    rws__report report;
    if (!run_for_answer(peer)) return false;
    if (peer->state == RWS__PEER_REFUSED && peer->head.status == status) return true;
    start(&report, peer);
    rws__report_add(&report, "  expected: a refusal, %d\n", status);
    return fail_with_upgrade(peer, &report);
}

bool rws_test_expect_header(rws_test_peer *peer, const char *name, const char *value)
{
    if (!rws__test_has(name, "name")) return false;
    rws__report report;
    if (!rws__peer_run(peer)) return false;
    rws_span found = {NULL, 0};
    if (peer->head_bytes != NULL) found = rws__http_get(&peer->head, name);
    bool is_right =
        value == NULL ? found.data == NULL : found.data != NULL && is_text(found, value);
    if (is_right && peer->head_bytes != NULL) return true;
    start(&report, peer);
    if (value == NULL)
        rws__report_add(&report, "  expected: no header %s\n", name);
    else
        rws__report_add(&report, "  expected: the header %s: %s\n", name, value);
    if (peer->head_bytes == NULL) return fail_with_state(peer, &report);
    if (found.data == NULL)
        rws__report_add(&report, "  received: no header %s", name);
    else
        rws__report_add(&report, "  received: the header %s: %.*s", name, (int)found.len,
                        found.data);
    return rws__report_end(&report);
}

bool rws_test_expect_body(rws_test_peer *peer, const char *body)
{
    if (!rws__test_has(body, "body")) return false;
    rws__report report;
    if (!run_for_answer(peer)) return false;
    const rws__item expected = {
        .kind = RWS__ITEM_MESSAGE,
        .opcode = RWS_TEXT,
        .data = (uint8_t *)body,
        .len = strlen(body),
    };
    rws__item received = expected;
    received.data = peer->in.data;
    received.len = peer->in.len;
    bool is_refused = peer->state == RWS__PEER_REFUSED;
    if (is_refused && is_same(&expected, &received)) return true;
    start(&report, peer);
    if (is_refused) {
        report_pair(&report, &expected, &received);
        return rws__report_end(&report);
    }
    rws__report_add(&report, "  expected: a refusal with a body\n");
    return fail_with_upgrade(peer, &report);
}
