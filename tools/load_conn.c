/*
 * The callbacks of `ringws load`: send, verify, take the time, send the next. Those of the other
 * modes are in load_broadcast.c and load_reconnect.c.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tools/host.h"
#include "tools/load.h"

void load_note_error(load_run *run, load_stage stage, const char *kind, const char *format, ...)
{
    pthread_mutex_lock(&run->errors_lock);
    run->errors_by_stage[stage]++;
    size_t at = 0;
    while (at < run->errors_count &&
           (run->errors[at].stage != stage || strcmp(run->errors[at].kind, kind) != 0))
        at++;
    if (at < run->errors_count) {
        run->errors[at].count++;
    } else if (at < LOAD_ERRORS_MAX) {
        load_error *error = &run->errors[run->errors_count++];
        *error = (load_error){.stage = stage, .kind = kind, .count = 1};
        va_list list;
        va_start(list, format);
        vsnprintf(error->text, sizeof(error->text), format, list);
        va_end(list);
    }
    pthread_mutex_unlock(&run->errors_lock);
}

bool load_send_next(load_run *run, load_conn *c, uint64_t now)
{
    load_thread *thread = c->thread;
    const uint8_t *message = payload_begin(&thread->payload, c->index, c->sent);
    int status = rws_conn_send(c->conn, run->opcode, message, run->arguments.size);
    payload_end(&thread->payload, c->index, c->sent);
    if (status < 0) {
        load_note_error(run, LOAD_MESSAGE, "send", "a message could not be sent: %s",
                        rws_strerror(status));
        rws_conn_abort(c->conn);
        return false;
    }
    c->sent_at[c->send_slot] = now;
    c->send_slot = load_next_slot(run, c->send_slot);
    c->sent++;
    return true;
}

void load_finish(load_conn *c)
{
    c->closing = true;
    rws_conn_close(c->conn, RWS_CLOSE_NORMAL, NULL);
}

static bool send_next(load_run *run, load_conn *c, uint64_t now)
{
    if (!load_send_next(run, c, now)) return false;
    load_bump(&c->thread->sent, 1);
    return true;
}

static void start_traffic(load_run *run, load_conn *c)
{
    if (load_phase_of(run) == LOAD_STOP || !load_may_send(c)) {
        load_finish(c);
        return;
    }
    uint64_t now = host_now_ns();
    for (uint64_t i = 0; i < run->arguments.pipeline && load_may_send(c); i++)
        if (!send_next(run, c, now)) return;
}

static void start_thread(load_run *run, const load_thread *thread)
{
    for (uint64_t i = thread->index; i < run->arguments.connections; i += run->arguments.threads)
        if (run->conns[i].conn) start_traffic(run, &run->conns[i]);
}

/* One more connection of this thread is open or has failed: after the last one, all start. */
static void resolve(load_run *run, load_thread *thread)
{
    if (++thread->resolved < thread->share) return;
    atomic_store(&thread->resolved_ns, host_now_ns());
    if (run->arguments.mode == LOAD_BROADCAST)
        load_broadcast_start(run);
    else
        start_thread(run, thread);
    atomic_fetch_add(&run->threads_started, 1);
}

static void on_open(rws_conn *conn, void *user)
{
    load_run *run = user;
    load_conn *c = rws_conn_user(conn);
    c->conn = conn;
    if (run->arguments.mode == LOAD_BROADCAST) run->broadcast.receivers++;
    atomic_fetch_add(&run->opened, 1);
    sem_post(&run->dial_slots);
    resolve(run, c->thread);
}

void load_note_wrong(load_run *run, const load_conn *c, uint32_t from, rws_opcode opcode,
                     const void *data, size_t len)
{
    if (opcode != run->opcode)
        load_note_error(run, LOAD_MESSAGE, "opcode",
                        "connection %u, reply %u: opcode %d instead of %d", c->index, c->answered,
                        (int)opcode, (int)run->opcode);
    else if (len != run->arguments.size)
        load_note_error(run, LOAD_MESSAGE, "length",
                        "connection %u, reply %u: %zu bytes instead of %zu", c->index, c->answered,
                        len, (size_t)run->arguments.size);
    else
        load_note_error(
            run, LOAD_MESSAGE, "bytes", "connection %u, reply %u: byte %zu of %zu is wrong",
            c->index, c->answered,
            run->other ? 0 : payload_mismatch(&c->thread->payload, from, c->answered, data, len),
            len);
}

static bool reply_is_right(const load_run *run, const load_conn *c, rws_opcode opcode,
                           const void *data, size_t len)
{
    if (opcode != run->opcode) return false;
    if (run->other) return len == run->arguments.size && memcmp(data, run->other, len) == 0;
    return payload_equal(&c->thread->payload, c->index, c->answered, data, len);
}

static int on_message(rws_conn *conn, const rws_message *message, void *user)
{
    rws_opcode opcode = rws_message_opcode(message);
    const void *data = rws_message_data(message);
    size_t len = rws_message_len(message);
    load_run *run = user;
    load_conn *c = rws_conn_user(conn);
    load_thread *thread = c->thread;
    if (c->answered == c->sent) {
        load_bump(&thread->wrong, 1);
        load_note_error(run, LOAD_MESSAGE, "extra",
                        "connection %u: a message of %zu bytes that answers nothing", c->index,
                        len);
        return 0;
    }

    uint64_t now = host_now_ns();
    load_phase phase = load_phase_of(run);
    if (reply_is_right(run, c, opcode, data, len)) {
        load_bump(&thread->verified, 1);
        if (phase == LOAD_MEASURE) {
            load_bump(&thread->measured, 1);
            histogram_record(&thread->latency, now - c->sent_at[c->answer_slot]);
        }
    } else {
        load_bump(&thread->wrong, 1);
        load_note_wrong(run, c, c->index, opcode, data, len);
    }
    atomic_store_explicit(&thread->last_reply_ns, now, memory_order_relaxed);
    c->answered++;
    c->answer_slot = load_next_slot(run, c->answer_slot);

    if (phase != LOAD_STOP && load_may_send(c))
        send_next(run, c, now);
    else if (c->answered == c->sent)
        load_finish(c);
    return 0;
}

void load_note_end(load_run *run, const load_conn *c, uint32_t unanswered,
                   const rws_close_info *info)
{
    bool expected = c->closing && info->code == RWS_CLOSE_NORMAL;
    /* Idle connections (--pipeline 0) are closed by the client's own drain. */
    if (atomic_load(&run->giving_up) && info->who == RWS_CLOSED_BY_US && unanswered == 0)
        expected = info->code != RWS_CLOSE_ABNORMAL;
    if (expected) return;

    const char *who = info->who == RWS_CLOSED_BY_PEER ? "the server" : "this side";
    load_stage stage = unanswered ? LOAD_MESSAGE : LOAD_CLOSE;
    const char *kind = info->code == RWS_CLOSE_ABNORMAL ? "cut" : unanswered ? "left" : "code";
    if (info->code == RWS_CLOSE_ABNORMAL)
        load_note_error(run, stage, kind,
                        "connection %u: cut off without a close frame, messages in flight: %u",
                        c->index, unanswered);
    else
        load_note_error(
            run, stage, kind, "connection %u: closed by %s with %u%s%.*s, messages in flight: %u",
            c->index, who, info->code, info->reason.len ? " " : "", (int)info->reason.len,
            info->reason.len ? info->reason.data : "", unanswered);
}

static void on_close(rws_conn *conn, const rws_close_info *info, void *user)
{
    load_run *run = user;
    load_conn *c = rws_conn_user(conn);
    uint32_t unanswered = c->sent - c->answered;
    c->conn = NULL;
    load_bump(&c->thread->lost, unanswered);
    load_note_end(run, c, unanswered, info);
    atomic_fetch_add(&run->closed, 1); /* last: the main thread may go on now */
}

void load_note_dial_error(load_run *run, const load_conn *c, const rws_error *error)
{
    /* The connection itself fails with an errno; whatever comes after it is the handshake. */
    bool connecting = error->status > -4096 || error->status == RWS_E_ADDRESS;
    load_note_error(run, connecting ? LOAD_CONNECT : LOAD_UPGRADE, rws_strerror(error->status),
                    "connection %u: %s", c->index, error->text);
}

static void on_dial_error(const rws_error *error, void *dial_user, void *user)
{
    load_run *run = user;
    load_conn *c = dial_user;
    load_note_dial_error(run, c, error);
    atomic_fetch_add(&run->dial_failed, 1);
    sem_post(&run->dial_slots);
    resolve(run, c->thread);
}

rws_handler load_handler(load_mode mode)
{
    if (mode == LOAD_RECONNECT) return load_reconnect_handler();

    rws_handler handler = RWS_HANDLER_DEFAULT;
    handler.on_open = on_open;
    handler.on_message = mode == LOAD_BROADCAST ? load_broadcast_on_message : on_message;
    handler.on_close = mode == LOAD_BROADCAST ? load_broadcast_on_close : on_close;
    handler.on_dial_error = on_dial_error;
    return handler;
}

load_totals load_sum(const load_run *run)
{
    load_totals totals = {0};
    for (uint64_t i = 0; i < run->arguments.threads; i++) {
        const load_thread *thread = &run->threads[i];
        totals.sent += atomic_load_explicit(&thread->sent, memory_order_relaxed);
        totals.verified += atomic_load_explicit(&thread->verified, memory_order_relaxed);
        totals.wrong += atomic_load_explicit(&thread->wrong, memory_order_relaxed);
        totals.lost += atomic_load_explicit(&thread->lost, memory_order_relaxed);
        totals.measured += atomic_load_explicit(&thread->measured, memory_order_relaxed);
        uint64_t last = atomic_load_explicit(&thread->last_reply_ns, memory_order_relaxed);
        if (last > totals.last_reply_ns) totals.last_reply_ns = last;
        uint64_t resolved = atomic_load(&thread->resolved_ns);
        if (resolved > totals.last_resolved_ns) totals.last_resolved_ns = resolved;
        if (i == 0 || resolved < totals.first_resolved_ns) totals.first_resolved_ns = resolved;
    }
    return totals;
}
