/*
 * What is said when an expectation is not met: what was expected, what was received, and where the
 * first difference is. Text is shown as text, binary data as hexadecimal digits with the byte that
 * differs in brackets; of what is long, the part around it.
 */
#include "engine/testing/kit.h"

#include "codec/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* Bytes of an item that are shown, and how many of them before the first difference. */
#define TEXT_SHOWN   60u
#define TEXT_BEFORE  24u
#define BYTES_SHOWN  16u
#define BYTES_BEFORE 6u

/* ---- whom it is said to ---- */

static _Thread_local struct {
    rws_test_failure_fn hook; /* NULL: the default */
    void *user;
    const char *file;
    int line;
} failure_place;

void rws_test_on_failure(rws_test_failure_fn hook, void *user)
{
    failure_place.hook = hook;
    failure_place.user = user;
}

void rws_test_here(const char *file, int line)
{
    failure_place.file = file;
    failure_place.line = line;
}

bool rws__report_end(rws__report *report)
{
    const char *file = failure_place.file != NULL ? failure_place.file : "?";
    if (report->len > 0 && report->text[report->len - 1] == '\n')
        report->text[--report->len] = '\0';
    if (failure_place.hook != NULL) {
        failure_place.hook(file, failure_place.line, report->text, failure_place.user);
        return false;
    }
    (void)fprintf(stderr, "%s:%d: %s\n", file, failure_place.line, report->text);
    (void)fflush(stderr);
    abort();
}

/* ---- how it is written ---- */

static void add_list(rws__report *report, const char *format, va_list args)
{
    size_t room = sizeof report->text - report->len;
    int len = vsnprintf(report->text + report->len, room, format, args);
    if (len > 0) report->len += (size_t)len < room ? (size_t)len : room - 1;
}

void rws__report_add(rws__report *report, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    add_list(report, format, args);
    va_end(args);
}

bool rws__test_fail(const char *format, ...)
{
    rws__report report = {.len = 0};
    va_list args;
    va_start(args, format);
    add_list(&report, format, args);
    va_end(args);
    return rws__report_end(&report);
}

/* The part of `len` units that is shown. */
static void choose_window(size_t len, size_t mark, size_t shown, size_t before, size_t *from,
                          size_t *to)
{
    *from = 0;
    *to = len;
    if (len <= shown) return;
    if (mark != SIZE_MAX && mark > before) *from = mark - before;
    if (*from > len - shown) *from = len - shown;
    *to = *from + shown;
}

static bool is_inside_character(const uint8_t *data, size_t at, size_t len)
{
    return at < len && (data[at] & 0xC0) == 0x80;
}

static void add_character(rws__report *report, uint8_t byte, bool is_utf8)
{
    switch (byte) {
    case '\n': rws__report_add(report, "\\n"); break;
    case '\r': rws__report_add(report, "\\r"); break;
    case '\t': rws__report_add(report, "\\t"); break;
    case '"': rws__report_add(report, "\\\""); break;
    case '\\': rws__report_add(report, "\\\\"); break;
    default:
        if (byte < ' ' || byte == 0x7F || (byte >= 0x80 && !is_utf8))
            rws__report_add(report, "\\x%02x", byte);
        else
            rws__report_add(report, "%c", byte);
    }
}

static void add_text(rws__report *report, const uint8_t *data, size_t len, size_t mark)
{
    size_t from, to;
    bool is_utf8 = rws__utf8_is_valid(data, len);
    choose_window(len, mark, TEXT_SHOWN, TEXT_BEFORE, &from, &to);
    while (is_utf8 && from > 0 && is_inside_character(data, from, len))
        from--;
    while (is_utf8 && is_inside_character(data, to, len))
        to--;
    rws__report_add(report, "%s\"", from > 0 ? "..." : "");
    for (size_t i = from; i < to; i++)
        add_character(report, data[i], is_utf8);
    rws__report_add(report, "\"%s", to < len ? "..." : "");
}

static void add_bytes(rws__report *report, const uint8_t *data, size_t len, size_t mark)
{
    size_t from, to;
    choose_window(len, mark, BYTES_SHOWN, BYTES_BEFORE, &from, &to);
    if (from > 0) rws__report_add(report, "... ");
    for (size_t i = from; i < to; i++)
        rws__report_add(report, i == mark ? "%s[%02x]" : "%s%02x", i > from ? " " : "", data[i]);
    if (mark == len) rws__report_add(report, "%s[]", len > 0 ? " " : "");
    if (to < len) rws__report_add(report, " ...");
}

static void add_payload(rws__report *report, const rws__item *item, const char *name, size_t mark)
{
    bool is_binary = item->kind == RWS__ITEM_MESSAGE && item->opcode == RWS_BINARY;
    rws__report_add(report, "%s, %zu byte%s: ", name, item->len, item->len == 1 ? "" : "s");
    if (is_binary)
        add_bytes(report, item->data, item->len, mark);
    else
        add_text(report, item->data, item->len, mark);
}

static void add_close(rws__report *report, const rws__item *item)
{
    if (item->code == RWS_CLOSE_NO_STATUS)
        rws__report_add(report, "close without a code (1005)");
    else
        rws__report_add(report, "close, code %u", item->code);
    if (item->no_reason || (item->len == 0 && item->code == RWS_CLOSE_NO_STATUS)) return;
    rws__report_add(report, ", reason ");
    add_text(report, item->data, item->len, SIZE_MAX);
}

void rws__report_item(rws__report *report, const char *label, const rws__item *item, size_t mark)
{
    rws__report_add(report, "  %s: ", label);
    switch (item->kind) {
    case RWS__ITEM_MESSAGE:
        add_payload(report, item, item->opcode == RWS_TEXT ? "text" : "binary", mark);
        break;
    case RWS__ITEM_PING: add_payload(report, item, "ping", mark); break;
    case RWS__ITEM_PONG: add_payload(report, item, "pong", mark); break;
    case RWS__ITEM_CLOSE: add_close(report, item); break;
    case RWS__ITEM_BROKEN: rws__report_add(report, "%s", item->text); break;
    }
    rws__report_add(report, "\n");
}
