/*
 * For tests of the testing kit: a handler that writes down what happens to it, and a hook that
 * keeps the failures of the kit.
 */
#ifndef RINGWS_TESTS_SUPPORT_KIT_LOG_H
#define RINGWS_TESTS_SUPPORT_KIT_LOG_H

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "ringws/testing.h"

typedef struct kit_log {
    char text[4096]; /* "open; text hello; close 0 1000 peer; " */
    size_t len;
    bool answers_later; /* on_message echoes nothing */
    rws_conn *last;     /* that was opened */
} kit_log;

__attribute__((format(printf, 2, 3))) static inline void kit_add(kit_log *log, const char *format,
                                                                 ...)
{
    va_list args;
    va_start(args, format);
    int len = vsnprintf(log->text + log->len, sizeof log->text - log->len, format, args);
    va_end(args);
    if (len > 0) log->len += (size_t)len;
    if (log->len >= sizeof log->text) log->len = sizeof log->text - 1;
}

/* What was written since the last call. */
static inline const char *kit_take(kit_log *log)
{
    static char taken[sizeof log->text];
    memcpy(taken, log->text, sizeof taken);
    log->len = 0;
    log->text[0] = '\0';
    return taken;
}

static inline void kit_on_open(rws_conn *conn, void *user)
{
    kit_log *log = user;
    log->last = conn;
    kit_add(log, "open; ");
}

static inline int kit_on_message(rws_conn *conn, const rws_message *message, void *user)
{
    kit_log *log = user;
    size_t len = rws_message_len(message);
    const char *kind = rws_message_opcode(message) == RWS_TEXT ? "text" : "binary";
    if (len <= 40)
        kit_add(log, "%s %.*s; ", kind, (int)len, (const char *)rws_message_data(message));
    else
        kit_add(log, "%s of %zu; ", kind, len);
    return log->answers_later ? 0 : rws_conn_send_message(conn, message);
}

static inline void kit_on_close(rws_conn *conn, const rws_close_info *info, void *user)
{
    (void)conn;
    kit_add(user, "close %d %u %s; ", info->status, info->code,
            info->who == RWS_CLOSED_BY_PEER ? "peer" : "us");
}

static inline void kit_on_drain(rws_conn *conn, void *user)
{
    (void)conn;
    kit_add(user, "drain; ");
}

static inline rws_handler kit_handler(void)
{
    rws_handler handler = RWS_HANDLER_DEFAULT;
    handler.on_open = kit_on_open;
    handler.on_message = kit_on_message;
    handler.on_close = kit_on_close;
    handler.on_drain = kit_on_drain;
    return handler;
}

static inline rws_endpoint_options kit_endpoint(const rws_handler *handler, kit_log *log)
{
    rws_endpoint_options endpoint = RWS_ENDPOINT_OPTIONS_DEFAULT;
    endpoint.handler = handler;
    endpoint.user = log;
    return endpoint;
}

/* ---- failures ---- */

typedef struct kit_failures {
    unsigned count;
    char file[256];
    int line;
    char text[4096];
} kit_failures;

static inline void kit_on_failure(const char *file, int line, const char *text, void *user)
{
    kit_failures *failures = user;
    failures->count++;
    failures->line = line;
    (void)snprintf(failures->file, sizeof failures->file, "%s", file);
    (void)snprintf(failures->text, sizeof failures->text, "%s", text);
}

#endif
