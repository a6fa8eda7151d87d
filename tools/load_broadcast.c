/*
 * `ringws load --broadcast`: connection 0 sends, and every connection, that one included, has to
 * get each message, whole and in order.
 *
 * A message is over when all that were open when it was sent have it or have ended; as each
 * receives in order, so are the ones before it. Then the next one is sent. All of this is one loop
 * thread's.
 */
#include <string.h>

#include "tools/host.h"
#include "tools/load.h"

static load_conn *sender_of(load_run *run)
{
    return &run->conns[0];
}

/* Numbers wrap: only differences count. */
static uint32_t in_flight(load_run *run)
{
    return sender_of(run)->sent - run->broadcast.oldest;
}

static void send_more(load_run *run)
{
    load_broadcast *b = &run->broadcast;
    load_conn *sender = sender_of(run);
    uint64_t now = host_now_ns();
    while (in_flight(run) < run->arguments.pipeline && load_may_send(sender)) {
        b->missing[sender->send_slot] = b->receivers;
        if (!load_send_next(run, sender, now)) return;
        load_bump(&sender->thread->sent, b->receivers);
    }
}

static void finish_all(load_run *run)
{
    for (uint64_t i = 0; i < run->arguments.connections; i++) {
        load_conn *c = &run->conns[i];
        if (c->conn && !c->closing) load_finish(c);
    }
}

/* Go on after something changed: the next message, or the end when all have everything. */
static void go_on(load_run *run)
{
    load_broadcast *b = &run->broadcast;
    load_conn *sender = sender_of(run);
    if (!b->started) return;
    while (in_flight(run) > 0 && b->missing[b->oldest_slot] == 0) {
        b->oldest++;
        b->oldest_slot = load_next_slot(run, b->oldest_slot);
    }
    bool sends = sender->conn && !sender->closing && load_phase_of(run) != LOAD_STOP;
    if (sends && load_may_send(sender))
        send_more(run);
    else if (in_flight(run) == 0)
        finish_all(run);
}

void load_broadcast_start(load_run *run)
{
    run->broadcast.started = true;
    go_on(run);
}

/* `c` has its next message, or never will. True if that was the last receiver. */
static bool one_less(load_run *run, load_conn *c)
{
    bool last = --run->broadcast.missing[c->answer_slot] == 0;
    c->answered++;
    c->answer_slot = load_next_slot(run, c->answer_slot);
    return last;
}

static bool is_message(const load_conn *c, uint32_t number, const void *data, size_t len)
{
    return payload_equal(&c->thread->payload, 0, number, data, len);
}

/* How many messages were left out before this one, of those in flight; 0 if it is none of them. */
static uint32_t left_out(load_run *run, const load_conn *c, const void *data, size_t len)
{
    uint32_t open = sender_of(run)->sent - c->answered;
    for (uint32_t ahead = 1; ahead < open; ahead++)
        if (is_message(c, c->answered + ahead, data, len)) return ahead;
    return 0;
}

/* Whether it is one of the last messages once more, or one that was counted as lost. */
static bool came_before(load_run *run, const load_conn *c, const void *data, size_t len)
{
    for (uint32_t back = 1; back <= run->arguments.pipeline && back <= c->answered; back++)
        if (is_message(c, c->answered - back, data, len)) return true;
    return false;
}

/* Not the message that is next. A server that leaves one out for a receiver, or sends one twice, is
 * not said to have altered all that follow. Returns whether one of those in flight came after all;
 * `*last` as one_less(). */
static bool resynchronise(load_run *run, load_conn *c, rws_opcode opcode, const void *data,
                          size_t len, bool *last)
{
    load_thread *thread = c->thread;
    uint32_t lost = opcode == run->opcode ? left_out(run, c, data, len) : 0;
    if (lost) {
        load_note_error(run, LOAD_MESSAGE, "dropped",
                        "connection %u: message %u was left out, and a later one came", c->index,
                        c->answered);
        load_bump(&thread->lost, lost);
        for (uint32_t i = 0; i < lost; i++)
            *last |= one_less(run, c);
        return true;
    }
    load_bump(&thread->wrong, 1);
    if (c->answered == sender_of(run)->sent || came_before(run, c, data, len)) {
        load_note_error(run, LOAD_MESSAGE, "extra",
                        "connection %u: a message of %zu bytes that came twice, too late, or was "
                        "not sent",
                        c->index, len);
        return false;
    }
    load_note_wrong(run, c, 0, opcode, data, len);
    *last |= one_less(run, c);
    return false;
}

int load_broadcast_on_message(rws_conn *conn, const rws_message *message, void *user)
{
    const void *data = rws_message_data(message);
    size_t len = rws_message_len(message);
    rws_opcode opcode = rws_message_opcode(message);
    load_run *run = user;
    load_conn *c = rws_conn_user(conn);
    load_thread *thread = c->thread;
    uint64_t now = host_now_ns();
    atomic_store_explicit(&thread->last_reply_ns, now, memory_order_relaxed);
    bool last = false;
    bool next = opcode == run->opcode && c->answered != sender_of(run)->sent &&
                is_message(c, c->answered, data, len);
    if (next || resynchronise(run, c, opcode, data, len, &last)) {
        load_bump(&thread->verified, 1);
        if (load_phase_of(run) == LOAD_MEASURE) {
            load_bump(&thread->measured, 1);
            histogram_record(&thread->latency, now - sender_of(run)->sent_at[c->answer_slot]);
        }
        last |= one_less(run, c);
    }
    if (last) go_on(run);
    return 0;
}

void load_broadcast_on_close(rws_conn *conn, const rws_close_info *info, void *user)
{
    load_run *run = user;
    load_conn *c = rws_conn_user(conn);
    c->conn = NULL;
    run->broadcast.receivers--;
    uint32_t unanswered = sender_of(run)->sent - c->answered;
    load_bump(&c->thread->lost, unanswered);
    load_note_end(run, c, unanswered, info);
    for (uint32_t i = 0; i < unanswered; i++)
        (void)one_less(run, c);
    go_on(run);
    atomic_fetch_add(&run->closed, 1); /* last: the main thread may go on now */
}
